# SPDX-License-Identifier: Apache-2.0
"""Trajectories: kept exactly, compared canonically, and state changes that tell the whole difference."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import Message, TextPart, ToolCall, assistant, user
from agentgym.protocols import Sampling, Tokens, Usage
from agentgym.trajectory import (
    EpisodeError,
    Event,
    StateChange,
    ToolResult,
    Trajectory,
    Turn,
    decode_tokens,
    decode_trajectory,
    diff_state,
    encode_tokens,
    encode_trajectory,
)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.integers() | st.sampled_from([0.0, 1.0, 2.5]) | text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(text | st.sampled_from(["a/b", "~", "~1", "", "0"]), inner, max_size=4)
    ),
    max_leaves=15,
)
changes = st.builds(StateChange, text, st.sampled_from(["add", "remove", "replace"]), plain, plain, text)
messages = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "tool"]),
    text | st.lists(st.builds(TextPart, text), max_size=2).map(tuple),
    st.lists(st.builds(ToolCall, text, text, text), max_size=2).map(tuple),
)
turns = st.builds(
    Turn,
    st.integers(0, 9),
    messages,
    results=st.lists(
        st.builds(ToolResult, text, text, st.sampled_from(["ok", "bad_arguments"]), st.booleans()), max_size=2
    ).map(tuple),
    observation=st.lists(messages, max_size=2).map(tuple),
    changes=st.lists(changes, max_size=2).map(tuple),
    events=st.lists(st.builds(Event, st.integers(-1, 5), text, data=plain), max_size=2).map(tuple),
    reward=st.floats(allow_nan=False),
    usage=st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9)),
    sampling=st.none() | st.builds(Sampling, st.none() | st.floats(0, 2)),
    latency_s=st.floats(0, 1e6),
)
trajectories = st.builds(
    Trajectory,
    task_id=text,
    opening=st.lists(messages, max_size=2).map(tuple),
    turns=st.lists(turns, max_size=3),
    state_before=plain,
    state_after=plain,
    outcome=st.sampled_from(["terminated", "truncated", "infrastructure"]),
    error=st.none() | st.builds(EpisodeError, st.just("policy"), text, text),
    started_at=st.floats(0, 1e10),
    duration_s=st.floats(0, 1e6),
)


# -- kept -------------------------------------------------------------------------------------------------------------


@given(trajectories)
def test_a_trajectory_survives_encoding_exactly(trajectory: Trajectory) -> None:
    data = encode_trajectory(trajectory)
    again = decode_trajectory(data)
    assert again == trajectory
    assert repr(again) == repr(trajectory)
    assert encode_trajectory(again) == data


def test_integers_of_any_size_and_broken_text_in_a_state_do_not_keep_an_episode_from_being_kept() -> None:
    wide = [2**64, -(2**63) - 1, 10**5000, -(10**5000), 2**64 - 1, 255, -256]
    trajectory = Trajectory(task_id="a/b/c", state_before={"n": wide, "t": "\ud800", "\udfff": {"deep": [2**70]}}, turns=[])
    again = decode_trajectory(encode_trajectory(trajectory))
    assert again.state_before == {"n": wide, "t": "\ufffd", "\ufffd": {"deep": [2**70]}}


def test_an_encoded_trajectory_leaves_the_tokens_out_and_alone() -> None:
    trajectory = Trajectory(task_id="a/b/c", tokens=[Tokens(np.zeros(1, np.int32), np.zeros(1, np.float32))])
    assert decode_trajectory(encode_trajectory(trajectory)).tokens is None
    assert trajectory.tokens is not None


# -- tokens -----------------------------------------------------------------------------------------------------------

int32 = st.integers(-(2**31), 2**31 - 1)


def arrays(dtype: Any, elements: Any) -> Any:
    return st.lists(elements, max_size=8).map(lambda v: np.array(v, dtype))


def bits(elements: Any) -> Any:
    return st.lists(elements, max_size=8).map(lambda v: np.array(v, np.uint32).view(np.float32))


@given(
    st.lists(
        st.none()
        | st.builds(
            Tokens,
            arrays(np.int32, int32),
            bits(st.integers(0, 2**32 - 1)),
            st.none() | arrays(np.int32, int32),
            st.none() | arrays(np.int32, int32),
            st.none() | arrays(np.uint8, st.integers(0, 255)),
            st.sampled_from(["raw", "temperature_scaled", "processed"]),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_tokens_survive_bit_by_bit_also_not_a_number_and_negative_zero(tokens: list[Tokens | None]) -> None:
    again = decode_tokens(encode_tokens(tokens))
    assert len(again) == len(tokens)
    for a, b in zip(tokens, again, strict=True):
        if a is None or b is None:
            assert a is b
            continue
        assert (a.logprob_kind, a.stop_token_in_output) == (b.logprob_kind, b.stop_token_in_output)
        for name, dtype in (("output_ids", "i4"), ("logprobs", "f4"), ("prompt_ids", "i4"), ("versions", "i4"), ("mask", "u1")):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            if x is not None:
                assert y.dtype == np.dtype(dtype)
                assert x.tobytes() == y.tobytes()


def test_tokens_of_the_other_byte_order_and_of_slices_are_kept_by_value() -> None:
    tokens = Tokens(np.arange(6, dtype=">i4")[::2], np.arange(3, dtype=">f4"))
    (again,) = decode_tokens(encode_tokens([tokens]))
    assert again is not None
    assert again.output_ids.tolist() == [0, 2, 4]
    assert again.logprobs.tolist() == [0.0, 1.0, 2.0]


# -- canonical --------------------------------------------------------------------------------------------------------


@given(trajectories, st.floats(0, 1e9))
def test_the_canonical_form_ignores_clocks_and_tokens(trajectory: Trajectory, clock: float) -> None:
    other = copy.deepcopy(trajectory)
    other.started_at = other.duration_s = clock
    other.tokens = [None]
    for turn in other.turns:
        turn.latency_s = clock
    assert other.canonical() == trajectory.canonical()


FULL = Trajectory(
    task_id="a/b/c",
    opening=(user("o"),),
    turns=[Turn(0, assistant("x"), observation=(user("y"),), usage=Usage(1, 2), sampling=Sampling(temperature=0.5))],
    state_before={"a": 1, "b": 2},
    state_after={"a": 1},
)


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "a/b/d"},
        {"task_hash": "0"},
        {"trial": 1},
        {"seed": 1},
        {"policy": "p"},
        {"opening": ()},
        {"turns": []},
        {"state_before": None},
        {"state_after": {"a": True}},
        {"outcome": "truncated"},
        {"truncation": "turns"},
        {"error": EpisodeError("policy", "x")},
        {"turns": [msgspec.structs.replace(FULL.turns[0], reward=1.0)]},
        {"turns": [msgspec.structs.replace(FULL.turns[0], usage=Usage(1, 3))]},
        {"turns": [msgspec.structs.replace(FULL.turns[0], sampling=None)]},
        {"turns": [msgspec.structs.replace(FULL.turns[0], finish_reason="length")]},
    ],
    ids=str,
)
def test_the_canonical_form_tells_everything_else_apart(change: dict[str, Any]) -> None:
    assert msgspec.structs.replace(FULL, **change).canonical() != FULL.canonical()


def test_equal_episodes_are_byte_equal_even_where_their_values_are_other_objects() -> None:
    other = msgspec.structs.replace(
        FULL, turns=[msgspec.structs.replace(FULL.turns[0], finish_reason="".join("stop"), reward=float("0"))]
    )
    assert other == FULL
    assert other.canonical() == FULL.canonical()


def test_the_canonical_form_does_not_depend_on_the_order_of_keys() -> None:
    assert msgspec.structs.replace(FULL, state_before={"b": 2, "a": 1}).canonical() == FULL.canonical()


def test_what_a_trajectory_sums_up() -> None:
    assert [m.text for m in FULL.messages] == ["o", "x", "y"]
    assert FULL.final_text == "x"
    assert Trajectory(task_id="a/b/c").final_text == ""
    two = msgspec.structs.replace(FULL, turns=[FULL.turns[0], msgspec.structs.replace(FULL.turns[0], reward=2.0)])
    assert two.total_reward == 2.0
    assert two.usage == Usage(2, 4)


# -- differences ------------------------------------------------------------------------------------------------------


def apply(state: Any, found: tuple[StateChange, ...]) -> Any:
    """``state`` after the changes, by the rules of JSON pointers (RFC 6901)."""
    root = {"": copy.deepcopy(state)}
    for c in found:
        keys = ["", *(k.replace("~1", "/").replace("~0", "~") for k in c.path.split("/")[1:])]
        at: Any = root
        for k in keys[:-1]:
            at = at[int(k)] if isinstance(at, list) else at[k]
        last: Any = int(keys[-1]) if isinstance(at, list) else keys[-1]
        if c.operation == "add":
            if isinstance(at, list):
                assert last == len(at)
                at.append(c.after)
            else:
                assert last not in at
                at[last] = c.after
        else:
            assert same(at[last], c.before)
            if c.operation == "remove":
                del at[last]
            else:
                at[last] = c.after
    return root[""]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(plain, plain)
def test_applying_the_difference_to_before_gives_after(before: Any, after: Any) -> None:
    found = diff_state(before, after, "c1")
    assert same(apply(before, found), after)
    assert (found == ()) == same(before, after)
    assert all(c.call_id == "c1" for c in found)


@given(plain)
def test_equal_states_do_not_differ(state: Any) -> None:
    assert diff_state(state, copy.deepcopy(state)) == ()


@pytest.mark.parametrize(
    ("a", "b"), [(1, True), (1, 1.0), (True, 1.0), (0, False), (None, False), ("1", 1), ([], {}), ({}, None)], ids=str
)
def test_values_of_different_types_differ_even_where_python_calls_them_equal(a: Any, b: Any) -> None:
    (change,) = diff_state({"k": [a]}, {"k": [b]})
    assert (change.path, change.operation) == ("/k/0", "replace")
    assert (type(change.before), type(change.after)) == (type(a), type(b))


def test_keys_are_escaped_as_json_pointers_are() -> None:
    assert [c.path for c in diff_state({}, {"a/b": 1, "m~n": 2, "~1": 3, "": 4})] == ["/a~1b", "/m~0n", "/~01", "/"]


def test_the_whole_state_may_be_replaced() -> None:
    assert diff_state(None, {"a": 1}) == (StateChange("", "replace", None, {"a": 1}),)
