# SPDX-License-Identifier: Apache-2.0
"""Rows where others have lost tokens, rewards or flags: cut turns, long rows, branches, masked places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import assistant
from agentgym.errors import UsageError
from agentgym.protocols import FinishReason, Tokens
from agentgym.tokens import linearize
from agentgym.trajectory import Trajectory, Turn, decode_tokens, encode_tokens


def tokens(prompt: list[int], output: list[int]) -> Tokens:
    return Tokens(np.array(output, np.int32), np.full(len(output), -0.5, np.float32), np.array(prompt, np.int32),
                  np.zeros(len(output), np.int32))  # fmt: skip


def episode(*turns: tuple[Turn, Tokens]) -> Trajectory:
    return Trajectory(task_id="t/control/0", turns=[t for t, _ in turns], tokens=[k for _, k in turns])


@pytest.mark.parametrize("output", [[], [5, 6]], ids=["no room at all", "cut while it spoke"])
@pytest.mark.parametrize("end_like", [False, True], ids=["", "a tool's words end with the end of a turn"])
def test_pitfall_10_a_cut_turn_is_told_by_its_finish_and_never_by_its_last_token(output: list[int], end_like: bool) -> None:
    end = 2
    first = Turn(0, assistant("x"), reward=0.25)
    cut = Turn(1, assistant("y"), parent=0, finish_reason="length", reward=1.0)
    prompt = [1, 7, end, 9] + [end] * end_like
    (row,) = linearize(episode((first, tokens([1], [7, end])), (cut, tokens(prompt, output)))).rows
    assert row.truncated
    assert not linearize(episode((first, tokens([1], [7, end])))).rows[0].truncated
    told = linearize(episode((first, tokens([1], [7, end])), (cut, tokens(prompt, output))))
    assert float(row.token_rewards.sum()) + told.drift.untold_reward == 1.25 or not output


def test_pitfall_12_a_row_longer_than_the_limit_of_a_turn_is_whole_or_refused() -> None:
    turns, prompt = [], [1]
    for i in range(3):
        output = list(range(10 * i, 10 * i + 8))
        turns.append((Turn(i, assistant("x"), parent=i - 1), tokens(prompt, output)))
        prompt = [*prompt, *output, 99]
    (row,) = linearize(episode(*turns), max_tokens=27).rows
    assert (len(row.token_ids), row.trained) == (27, 24)
    with pytest.raises(UsageError, match="a row of 27 tokens is longer than max_tokens=26"):
        linearize(episode(*turns), max_tokens=26)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_pitfall_13_in_any_tree_of_turns_each_sampled_token_is_trained_on_once(data: st.DataObject) -> None:
    said: list[tuple[list[int], list[int]]] = []
    turns: list[tuple[Turn, Tokens]] = []
    for i in range(data.draw(st.integers(1, 8))):
        parent = data.draw(st.integers(-1, i - 1))
        prompt = [1] if parent < 0 else [*said[parent][0], *said[parent][1], data.draw(st.integers(50, 52))]
        output = data.draw(st.lists(st.integers(10, 12), min_size=1, max_size=4))
        said.append((prompt, output))
        turns.append((Turn(i, assistant("x"), parent=parent), tokens(prompt, output)))
    made = linearize(episode(*turns))
    trained = sum(row.trained for row in made.rows)
    assert trained == made.sampled_tokens == sum(len(output) for _, output in said)
    for i, (_, output) in enumerate(said):
        own = [row.token_ids[(row.turn_ids == i) & (row.loss_mask == 1)].tolist() for row in made.rows]
        assert [o for o in own if o] == [output]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(["stop", "length"])), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_pitfall_24_where_nothing_is_trained_the_ratio_of_probabilities_is_one(
    shape: list[tuple[int, int, FinishReason]],
) -> None:
    prompt, turns = [1], []
    for i, (more, size, finish) in enumerate(shape):
        kept = tokens(prompt, list(range(size)))
        kept.logprobs[0] = np.nan  # an engine that keeps one to itself
        kept.mask = np.array([1] * (size - 1) + [0], np.uint8)
        turns.append((Turn(i, assistant("x"), parent=i - 1, finish_reason=finish), kept))
        prompt = [*prompt, *range(size), *([9] * more)]
    for row in linearize(episode(*turns)).rows:
        off = row.loss_mask == 0
        assert np.isfinite(row.logprobs).all()
        assert (np.exp(row.logprobs[off]) == 1.0).all()
        assert (row.versions[off] == -1).all()
        assert (row.versions[~off] >= 0).all()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_tokens_are_kept_exactly_whether_or_not_prompts_go_on_from_each_other(data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, 3), max_size=4)
    kept: list[Tokens | None] = []
    held: list[int] = []
    for _ in range(data.draw(st.integers(0, 6))):
        if data.draw(st.booleans()):
            held = [*held, *data.draw(ids)]
        else:
            held = data.draw(ids)
        output = data.draw(ids)
        made: Tokens | None = tokens(held, output)
        assert made is not None
        if data.draw(st.integers(0, 5)) == 0:
            made = None
        elif data.draw(st.integers(0, 5)) == 0:
            made.prompt_ids = None
        kept.append(made)
        held = [*held, *output]
    for before, after in zip(kept, decode_tokens(encode_tokens(kept)), strict=True):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            for name in ("output_ids", "logprobs", "prompt_ids", "versions", "mask"):
                mine, theirs = getattr(before, name), getattr(after, name)
                assert (mine is None and theirs is None) or np.array_equal(mine, theirs)
