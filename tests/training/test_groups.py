# SPDX-License-Identifier: Apache-2.0
"""Advantages: by name and episode, over what could be scored, with exact zeros where nothing is to be learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.training import advantages, overlong_penalty
from agentgym.training.groups import combined

finite = st.floats(-10, 10, allow_nan=False)


def test_worked_example() -> None:
    rewards, groups = [1.0, 0.0, 0.0, 1.0], ["a"] * 4
    assert advantages(rewards, groups, baseline="dr_grpo").values.tolist() == [0.5, -0.5, -0.5, 0.5]
    assert advantages(rewards, groups, baseline="rloo").values == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    # standard deviation with N-1: sqrt(4 * 0.25 / 3)
    assert advantages(rewards, groups, epsilon=0).values == pytest.approx(np.array([1, -1, -1, 1]) * 0.5 / (1 / 3) ** 0.5)


def test_groups_are_told_by_name_whatever_the_order_and_size() -> None:
    rewards = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    groups = ["a", "b", "a", "b", "a", "b", "a"]
    assert advantages(rewards, groups).values.tolist() == [0.0] * 7, "every task's episodes were worth the same"
    assert set(advantages(rewards, groups).flat) == {"a", "b"}


def test_a_flat_group_gives_exact_zeros_even_where_its_mean_cannot_be_written_exactly() -> None:
    assert advantages([0.1, 0.1, 0.1], ["a"] * 3).values.tolist() == [0.0, 0.0, 0.0]


def test_an_unscorable_episode_neither_learns_nor_moves_the_baseline() -> None:
    found = advantages([1.0, None, 0.0], ["a", "a", "a"], baseline="dr_grpo")
    assert found.values.tolist() == [0.5, 0.0, -0.5]
    assert found.used.tolist() == [True, False, True]
    assert (found.excluded, found.sizes) == (1, {"a": 2})


def test_one_episode_alone_is_compared_with_nothing() -> None:
    found = advantages([1.0, None], ["a", "a"])
    assert (found.values.tolist(), found.used.tolist(), found.alone) == ([0.0, 0.0], [False, False], 1)


def test_a_cut_episode_can_be_left_out_of_the_update_and_still_stands_in_the_baseline() -> None:
    found = advantages([1.0, 0.0], ["a", "a"], baseline="dr_grpo", truncated=[False, True], overlong="mask")
    assert (found.values.tolist(), found.overlong) == ([0.5, 0.0], 1)


def test_components_are_normalized_apart_so_that_none_wins_by_its_scale() -> None:
    groups = ["a"] * 2
    small, large = advantages([0.01, 0.0], groups, epsilon=0), advantages([0.0, 1000.0], groups, epsilon=0)
    assert combined({"s": small, "l": large}, {"s": 1.0, "l": 1.0}) == pytest.approx([0, 0])


def test_a_cut_episode_can_be_left_out_of_the_baseline_too() -> None:
    found = advantages([1.0, 0.0, 0.0], ["a"] * 3, baseline="dr_grpo", truncated=[False, False, True], overlong="exclude")
    assert (found.values.tolist(), found.used.tolist()) == ([0.5, -0.5, 0.0], [True, True, False])
    assert (found.overlong, found.shrunk) == (1, {"a": (2, 3)})


def test_long_answers_are_punished_softly_before_they_are_cut() -> None:
    # the worked case of the paper: L_max 20480, L_cache 4096
    given = overlong_penalty([100, 16384, 18432, 20480, 30000], most=20480, soft=4096)
    assert given.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]
    with pytest.raises(UsageError, match="soft is between"):
        overlong_penalty([1], most=10, soft=11)


def test_pitfall_07_uneven_groups_are_told_by_name_and_equal_rewards_teach_nothing() -> None:
    # five trials of one task, three of another, in the order in which they ended: a baseline by position would mix them
    groups = ["a", "b", "a", "a", "b", "a", "b", "a"]
    found = advantages([1.0 if g == "a" else 0.0 for g in groups], groups)
    assert found.values.tolist() == [0.0] * 8
    assert (set(found.flat), found.flat_share, found.sizes) == ({"a", "b"}, 1.0, {"a": 5, "b": 3})


def test_pitfall_09_episodes_that_say_nothing_of_the_policy_stay_out_of_the_baseline_and_are_counted() -> None:
    # the server failed in the second; the clock ran out before the third's first turn, which is a 0 by no act of its own
    rewards, acted = [1.0, None, 0.0, 0.0], [True, True, False, True]
    found = advantages(rewards, ["a"] * 4, baseline="dr_grpo", acted=acted)
    assert found.values.tolist() == [0.5, 0.0, 0.0, -0.5]
    assert found.used.tolist() == [True, False, False, True]
    assert (found.excluded, found.idle, found.sizes) == (1, 1, {"a": 2})
    assert found.shrunk == {"a": (2, 4)}, "two of four: the baseline is noisier than was planned, and it is said"
    assert advantages([1.0, 0.0], ["a", "a"]).shrunk == {}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: advantages([1.0], []), "as many groups"),
        (lambda: advantages([float("nan")], ["a"]), "never NaN"),
        (lambda: advantages([1.0], ["a"], baseline="ppo"), "baseline is one of"),  # type: ignore[arg-type]
        (lambda: advantages([1.0], ["a"], overlong="mask"), "needs to be told"),
        (lambda: advantages([1.0], ["a"], truncated=[True], overlong="drop"), "keep, mask or exclude"),  # type: ignore[arg-type]
        (lambda: advantages([1.0], ["a"], acted=[True, True]), "as many groups"),
        (lambda: combined({}, {}), "no component"),
        (lambda: combined({}, {"a": 1.0}), "name each once"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | finite), max_size=20),
    st.sampled_from(["grpo", "dr_grpo", "rloo"]),
    st.randoms(use_true_random=False),
)
def test_advantages_sum_to_zero_in_each_group_and_follow_their_episode_under_any_order(
    rows: list[tuple[str, float | None]], baseline: Any, random: Any
) -> None:
    found = advantages([r for _, r in rows], [g for g, _ in rows], baseline=baseline)
    for group in "abc":
        own = [i for i, (g, _) in enumerate(rows) if g == group]
        assert float(found.values[own].sum()) == pytest.approx(0, abs=1e-6)
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = advantages([rows[i][1] for i in order], [rows[i][0] for i in order], baseline=baseline)
    assert moved.values == pytest.approx(found.values[order], abs=1e-9)
