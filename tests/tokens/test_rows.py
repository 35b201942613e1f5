# SPDX-License-Identifier: Apache-2.0
"""Rows for trainers: exactly what was sampled, each token at most once, whatever order and drift the turns have."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import assistant
from agentgym.errors import UsageError
from agentgym.protocols import Tokens
from agentgym.tokens import RowSet, linearize
from agentgym.trajectory import Trajectory, Turn


def turn(
    index: int, prompt: list[int], output: list[int], *, version: int | list[int] = 0, **kwargs: Any
) -> tuple[Turn, Tokens]:
    mask, logprobs = kwargs.pop("mask", None), kwargs.pop("logprobs", None)
    tokens = Tokens(
        np.array(output, np.int32),
        np.array([-0.5 - i for i in range(len(output))] if logprobs is None else logprobs, np.float32),
        np.array(prompt, np.int32),
        np.array([version] * len(output) if isinstance(version, int) else version, np.int32),
        None if mask is None else np.array(mask, np.uint8),
    )
    return Turn(index, assistant("said"), **kwargs), tokens


def episode(*turns: tuple[Turn, Tokens]) -> Trajectory:
    return Trajectory(task_id="t/control/0", turns=[t for t, _ in turns], tokens=[k for _, k in turns])


# -- what a clean episode gives ---------------------------------------------------------------------------------------


def test_turns_that_continue_each_other_are_one_row() -> None:
    rows = linearize(episode(turn(0, [1, 2], [3, 4]), turn(1, [1, 2, 3, 4, 9, 9], [5], reward=0.5)))
    (row,) = rows.rows
    assert row.token_ids.tolist() == [1, 2, 3, 4, 9, 9, 5]
    assert row.loss_mask.tolist() == [0, 0, 1, 1, 0, 0, 1]
    assert row.turn_ids.tolist() == [-1, -1, 0, 0, -1, -1, 1]
    assert row.logprobs.tolist() == [0, 0, -0.5, -1.5, 0, 0, -0.5]
    assert row.versions.tolist() == [-1, -1, 0, 0, -1, -1, 0]
    assert row.token_rewards.tolist() == [0, 0, 0, 0, 0, 0, 0.5]
    assert (row.prompt_len, row.turns, row.truncated) == (2, (0, 1), False)
    assert rows.drift.appended == 1
    assert rows.drift.forked == rows.drift.realigned == rows.drift.lost_tokens == 0


def test_ids_are_the_engine_s_even_where_text_would_be_split_otherwise() -> None:
    # "ab" sampled as two tokens although a tokenizer would give one: nothing here ever sees the text
    rows = linearize(episode(turn(0, [7], [100, 101]), turn(1, [7, 100, 101, 8], [102])))
    assert rows.rows[0].token_ids.tolist() == [7, 100, 101, 8, 102]


def test_one_turn_may_hold_several_versions() -> None:
    (row,) = linearize(episode(turn(0, [1], [2, 3, 4], version=[5, 5, 6]))).rows
    assert row.versions.tolist() == [-1, 5, 5, 6]


def test_each_turn_s_reward_stands_at_its_last_trained_token() -> None:
    first = turn(0, [1], [2, 3], reward=0.25, mask=[1, 0])  # the end of the turn was put there, not sampled
    (row,) = linearize(episode(first, turn(1, [1, 2, 3, 4], [5], reward=1.0))).rows
    assert row.token_rewards.tolist() == [0, 0.25, 0, 0, 1.0]


def test_a_turn_cut_by_length_marks_its_row() -> None:
    (row,) = linearize(episode(turn(0, [1], [2], finish_reason="length"))).rows
    assert row.truncated


# -- drift ------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_dropped_reasoning_begins_a_row_of_its_own() -> None:
    rows = linearize(episode(turn(0, [1], [50, 51, 3]), turn(1, [1, 3, 9], [4])))
    assert [r.token_ids.tolist() for r in rows.rows] == [[1, 50, 51, 3], [1, 3, 9, 4]]
    assert [r.loss_mask.tolist() for r in rows.rows] == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert rows.drift.forked == 1


def test_realigning_keeps_one_row_and_counts_what_is_lost() -> None:
    rows = linearize(episode(turn(0, [1], [2, 3, 4]), turn(1, [1, 2, 7, 9], [5])), merge="realign")
    (row,) = rows.rows
    assert row.token_ids.tolist() == [1, 2, 7, 9, 5]
    assert row.loss_mask.tolist() == [0, 1, 0, 0, 1]
    assert (rows.drift.realigned, rows.drift.lost_tokens) == (1, 2)


def test_realigning_gives_up_where_too_much_would_be_lost() -> None:
    turns = turn(0, [1], [2, 3, 4]), turn(1, [1, 2, 7, 9], [5])
    assert len(linearize(episode(*turns), merge="realign", realign_most=1).rows) == 2


def test_never_merging_gives_one_row_a_turn_and_trains_each_on_its_own_output() -> None:
    rows = linearize(episode(turn(0, [1], [2]), turn(1, [1, 2, 3], [4])), merge="never")
    assert [r.loss_mask.tolist() for r in rows.rows] == [[0, 1], [0, 0, 0, 1]]


def test_two_answers_to_one_turn_train_what_they_share_once() -> None:
    shared = turn(0, [1], [2, 3])
    rows = linearize(episode(shared, turn(1, [1, 2, 3, 8], [4], parent=0), turn(2, [1, 2, 3, 9], [5], parent=0)))
    assert [r.token_ids.tolist() for r in rows.rows] == [[1, 2, 3, 8, 4], [1, 2, 3, 9, 5]]
    assert [r.loss_mask.tolist() for r in rows.rows] == [[0, 1, 1, 0, 1], [0, 0, 0, 0, 1]]


def test_turns_of_agents_that_talk_at_the_same_time_are_never_mixed() -> None:
    rows = linearize(
        episode(
            turn(0, [1], [2], agent="a"),
            turn(1, [1], [2], agent="b"),
            turn(2, [1, 2, 3], [4], agent="a"),
            turn(3, [1, 2, 5], [6], agent="b"),
        )
    )
    assert [(r.agent, r.turns) for r in rows.rows] == [("a", (0, 2)), ("b", (1, 3))]
    assert rows.drift.forked == 0


# -- what is not trained on -------------------------------------------------------------------------------------------


def test_a_turn_that_a_retry_made_void_is_left_out_and_counted() -> None:
    rows = linearize(episode(turn(0, [1], [2]), turn(1, [1], [3])), train={1})
    assert [r.trained for r in rows.rows] == [0, 1]
    assert rows.drift.excluded_tokens == 1


def test_tokens_without_a_log_probability_are_masked_or_refused() -> None:
    played = episode(turn(0, [1], [2, 3], logprobs=[-1.0, float("nan")], reward=1.0))
    rows = linearize(played)
    assert rows.rows[0].loss_mask.tolist() == [0, 1, 0]
    assert rows.rows[0].logprobs.tolist() == [0, -1, 0]
    assert rows.rows[0].token_rewards.tolist() == [0, 1, 0]
    assert rows.drift.unknown_logprobs == 1
    with pytest.raises(UsageError, match="without a log-probability"):
        linearize(played, unknown="refuse")


def test_a_reward_that_no_token_can_carry_is_told() -> None:
    rows = linearize(episode(turn(0, [1], [], reward=1.0)))
    assert rows.drift.untold_reward == 1.0
    assert rows.rows[0].token_rewards.tolist() == [0]


def test_a_row_is_refused_rather_than_cut() -> None:
    with pytest.raises(UsageError, match="longer than max_tokens=3"):
        linearize(episode(turn(0, [1, 1], [2, 3])), max_tokens=3)


def test_an_episode_without_exact_tokens_says_which_policies_keep_them() -> None:
    with pytest.raises(UsageError, match="no exact tokens"):
        linearize(Trajectory(task_id="t/control/0", turns=[Turn(0, assistant("x"))]))
    no_prompt = Tokens(np.array([1], np.int32), np.array([-1], np.float32))
    with pytest.raises(UsageError, match="no exact prompt tokens"):
        linearize(Trajectory(task_id="t/control/0", turns=[Turn(0, assistant("x"))], tokens=[no_prompt]))


# -- whatever the turns -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Call:
    prompt: list[int]
    output: list[int]


@st.composite
def episodes(draw: st.DrawFn) -> Trajectory:
    """Conversations that continue, branch, rewrite and interleave, over so few token ids that beginnings often agree."""
    ids = st.integers(0, 2)
    made: list[tuple[Turn, Tokens]] = []
    calls: list[tuple[str, Call]] = []
    for index in range(draw(st.integers(0, 7))):
        agent = draw(st.sampled_from(["", "b"]))
        parents = [i for i, (a, _) in enumerate(calls) if a == agent]
        parent = draw(st.sampled_from(parents)) if parents else -1
        history = [] if parent < 0 else [*calls[parent][1].prompt, *calls[parent][1].output]
        kind = draw(st.sampled_from(["continue", "continue", "rewrite", "new"]))
        if kind == "rewrite" and history:
            at = draw(st.integers(0, len(history) - 1))
            history[at : at + 1] = draw(st.lists(ids, max_size=2))
        elif kind == "new":
            history = []
        prompt = history + draw(st.lists(ids, min_size=0 if history else 1, max_size=3))
        output = draw(st.lists(ids, max_size=4))
        calls.append((agent, Call(prompt, output)))
        unknown = draw(st.sets(st.integers(0, 3), max_size=1))
        made.append(
            turn(
                index, prompt, output, agent=agent, version=index,
                parent=draw(st.sampled_from([-1, parent])),
                reward=draw(st.sampled_from([0.0, 0.5])),
                mask=draw(st.none() | st.lists(st.integers(0, 1), min_size=len(output), max_size=len(output))),
                logprobs=[float("nan") if i in unknown else -1.0 - i for i in range(len(output))],
            )
        )  # fmt: skip
    return episode(*made)


def trained(rows: RowSet) -> list[tuple[int, int]]:
    """(turn, version) of every token that is trained on."""
    return [
        (int(t), int(v)) for row in rows.rows for t, v, m in zip(row.turn_ids, row.versions, row.loss_mask, strict=True) if m
    ]


@settings(max_examples=400, deadline=None)
@given(episodes(), st.sampled_from(["exact", "realign", "never"]), st.integers(0, 5))
def test_no_token_is_invented_lost_silently_or_trained_on_twice(played: Trajectory, merge: Any, most: int) -> None:
    rows = linearize(played, merge=merge, realign_most=most)
    assert played.tokens is not None
    seen: dict[int, int] = {}
    for row in rows.rows:
        last = played.tokens[row.turns[-1]]
        assert last is not None
        assert last.prompt_ids is not None
        assert row.token_ids.tolist() == [*last.prompt_ids.tolist(), *last.output_ids.tolist()]
        assert (
            len({len(a) for a in (row.token_ids, row.loss_mask, row.logprobs, row.versions, row.turn_ids, row.token_rewards)})
            == 1
        )
        assert (row.turn_ids[row.loss_mask == 1] >= 0).all()
        assert (row.logprobs[row.loss_mask == 0] == 0.0).all()
        assert (row.versions[row.loss_mask == 0] == -1).all()
        assert np.isfinite(row.logprobs).all()
        assert row.loss_mask[: row.prompt_len].sum() == 0
        for index in row.turns:
            kept = played.tokens[index]
            assert kept is not None
            places = np.flatnonzero(row.turn_ids == index)
            n = len(places)
            assert row.token_ids[places].tolist() == kept.output_ids[:n].tolist()
            on = row.loss_mask[places] == 1
            assert row.logprobs[places][on].tolist() == kept.logprobs[:n][on].tolist()
            assert {played.turns[index].agent} == {row.agent}
    for index, _ in trained(rows):
        seen[index] = seen.get(index, 0) + 1
    drift = rows.drift
    assert sorted(i for row in rows.rows for i in row.turns) == [t.index for t in played.turns], "each turn in exactly one row"
    assert all(count <= len(played.tokens[i].output_ids) for i, count in seen.items())  # type: ignore[union-attr]
    total = sum(seen.values()) + drift.lost_tokens + drift.unknown_logprobs + drift.excluded_tokens
    assert total == rows.sampled_tokens
    told = sum(float(row.token_rewards.sum()) for row in rows.rows)
    assert told + drift.untold_reward == pytest.approx(sum(t.reward for t in played.turns))


@settings(max_examples=100, deadline=None)
@given(episodes())
def test_the_same_episode_gives_the_same_rows_and_is_left_as_it_was(played: Trajectory) -> None:
    assert played.tokens is not None
    before = [(k.prompt_ids.tobytes(), k.output_ids.tobytes(), k.logprobs.tobytes()) for k in played.tokens]  # type: ignore[union-attr]
    first, second = linearize(played), linearize(played)
    assert [r.token_ids.tolist() for r in first.rows] == [r.token_ids.tolist() for r in second.rows]
    assert before == [(k.prompt_ids.tobytes(), k.output_ids.tobytes(), k.logprobs.tobytes()) for k in played.tokens]  # type: ignore[union-attr]
