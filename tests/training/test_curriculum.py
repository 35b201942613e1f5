# SPDX-License-Identifier: Apache-2.0
"""What is trained on next: where outcomes differ, never one thing alone, the same way for the same seed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.training import Curriculum

LEVELS = [f"tools.lookup:level={n}" for n in (1, 2, 3)]


def test_levels_that_are_solved_now_and_then_are_drawn_most() -> None:
    mix = Curriculum(LEVELS, floor=0.0)
    assert mix.weights == pytest.approx(dict.fromkeys(LEVELS, 1 / 3)), "nothing is known yet"
    mix.update({LEVELS[0]: [1.0] * 30, LEVELS[1]: [1.0, 0.0] * 15, LEVELS[2]: [0.0] * 30})
    easy, middle, hard = (mix.weights[name] for name in LEVELS)
    assert middle > 5 * easy
    assert easy == pytest.approx(hard)
    # E[p (1 - p)] of Beta(16, 16) and of Beta(31, 1)
    assert middle / easy == pytest.approx((16 * 16 / (32 * 33)) / (31 / (32 * 33)))


def test_what_was_out_of_reach_is_tried_again_and_what_is_learnt_makes_room() -> None:
    mix = Curriculum(LEVELS[:2], floor=0.2)
    for _ in range(60):
        mix.update({LEVELS[0]: [1.0, 0.0], LEVELS[1]: [0.0, 0.0]})
    assert mix.weights[LEVELS[1]] >= 0.1
    for _ in range(60):  # the policy has moved on
        mix.update({LEVELS[0]: [1.0, 1.0], LEVELS[1]: [1.0, 0.0]})
    assert mix.weights[LEVELS[1]] > mix.weights[LEVELS[0]]
    assert mix.success[LEVELS[0]] > 0.9


def test_equal_seeds_draw_alike_and_a_checkpoint_goes_on_where_it_stood() -> None:
    one, other = Curriculum(LEVELS, seed=3), Curriculum(LEVELS, seed=3)
    assert one.draw(50) == other.draw(50)
    assert one.draw(50) != Curriculum(LEVELS, seed=4).draw(50)
    one.update({LEVELS[0]: [1.0, None, 0.5]})
    resumed = Curriculum(LEVELS, seed=99)
    resumed.load(one.state())
    assert resumed.draw(50) == one.draw(50)
    assert resumed.success == one.success


def test_an_unscorable_episode_says_nothing_and_half_a_reward_is_half_a_success() -> None:
    mix = Curriculum(LEVELS, memory=1.0)
    mix.update({LEVELS[0]: [None, None], LEVELS[1]: [0.5, 0.5]})
    assert mix.success == {LEVELS[0]: 0.5, LEVELS[1]: 0.5, LEVELS[2]: 0.5}
    assert mix.weights[LEVELS[1]] > mix.weights[LEVELS[0]], "one of two, and it is known better"


def test_rows_are_drawn_while_outcomes_come_in() -> None:
    mix = Curriculum(LEVELS, seed=1, floor=0.0, memory=1.0)
    stream = mix.rows({name: [{"environment": name, "task": str(n)} for n in range(4)] for name in LEVELS})
    before = [row["environment"] for row in itertools.islice(stream, 60)]
    assert set(before) == set(LEVELS)
    mix.update({LEVELS[0]: [1.0] * 500, LEVELS[1]: [1.0, 0.0] * 250, LEVELS[2]: [0.0] * 500})
    after = [row["environment"] for row in itertools.islice(stream, 60)]
    assert after.count(LEVELS[1]) > 50


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.none() | st.floats(0, 1), max_size=6), min_size=1, max_size=8), st.floats(0, 1))
def test_weights_are_a_distribution_and_no_arm_dies(batches: list[list[Any]], floor: float) -> None:
    mix = Curriculum(["a", "b", "c"], floor=floor)
    for i, batch in enumerate(batches):
        mix.update({"abc"[i % 3]: batch})
    weights = mix.weights.values()
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) >= floor / 3
    assert all(0 < p < 1 for p in mix.success.values())


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="each one once"):
        Curriculum(["a", "a"])
    with pytest.raises(UsageError, match="floor lies"):
        Curriculum(["a"], floor=2)
    with pytest.raises(UsageError, match="does not mix 'b'"):
        Curriculum(["a"]).update({"b": [1.0]})
    with pytest.raises(UsageError, match="rewards in"):
        Curriculum(["a"]).update({"a": [3.0]})
    with pytest.raises(UsageError, match="no rows of 'b'"):
        next(Curriculum(["a", "b"]).rows({"a": [{}]}))
    with pytest.raises(UsageError, match="mixes a"):
        Curriculum(["b"]).load(Curriculum(["a"]).state())
