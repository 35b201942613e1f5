# SPDX-License-Identifier: Apache-2.0
"""Trajectories beside each other: nothing lost, nothing moved, as much in common as there is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import Message, ToolCall, assistant
from agentgym.report.align import Act, acts, align, common, differing
from agentgym.trajectory import Trajectory, Turn


def act(name: str, text: str = "{}", result: str = "", turn: int = 0) -> Act:
    return Act(turn, name, text, result, (name, text))


few = st.lists(st.builds(act, st.sampled_from(["look", "pay", ""]), st.sampled_from(["1", "2"]), st.sampled_from(["", "no"])))
sides = st.lists(few.map(lambda s: s[:9]), min_size=1, max_size=4)


@given(sides)
def test_every_act_stands_once_in_its_own_column_and_order(given_sides: list[list[Act]]) -> None:
    aligned = align(*given_sides)
    for column, side in enumerate(given_sides):
        assert [r.cells[column] for r in aligned.rows if r.cells[column] is not None] == side
    assert all(any(c is not None for c in r.cells) for r in aligned.rows)


@given(sides)
def test_a_row_holds_one_tool_and_says_how_its_sides_differ(given_sides: list[list[Act]]) -> None:
    aligned = align(*given_sides)
    for row in aligned.rows:
        known = [c for c in row.cells if c is not None]
        assert len({c.name for c in known}) == 1
        same = len(known) == len(row.cells) and len({c.key for c in known}) == 1
        assert (row.status in ("same", "answer")) == same
        assert (row.status == "same") == (same and len({c.result for c in known}) == 1)
    assert all(r.status == "same" for r in aligned.rows[: aligned.prefix])
    assert aligned.prefix == len(aligned.rows) or aligned.rows[aligned.prefix].status != "same"


@given(few.map(lambda s: s[:12]), st.integers(2, 3))
def test_the_same_thing_twice_is_all_prefix(side: list[Act], times: int) -> None:
    aligned = align(*[side] * times)
    assert aligned.prefix == len(aligned.rows) == len(side)


def longest(a: str, b: str) -> int:
    """By the textbook."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


texts = st.text("abc", max_size=30)


@settings(max_examples=300)
@given(texts, texts)
def test_no_longer_common_subsequence_exists(a: str, b: str) -> None:
    found = common(a, b)
    assert len(found) == longest(a, b)
    assert all(a[i] == b[j] for i, j in found)
    assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(found))
    start = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert found[:start] == [(k, k) for k in range(start)], "what they begin with together stands together"


def test_thousands_of_acts_are_aligned_with_a_gap_in_the_middle() -> None:
    whole = [act("look", str(i)) for i in range(5000)]
    aligned = align(whole, [a for i, a in enumerate(whole) if i not in (2500, 2501)])
    assert [i for i, r in enumerate(aligned.rows) if r.status != "same"] == [2500, 2501]
    assert aligned.prefix == 2500


def test_other_arguments_stand_beside_each_other_and_extra_acts_alone() -> None:
    honest = [act("look"), act("ask", "a"), act("pay", "10"), act("submit")]
    greedy = [act("look"), act("pay", "99"), act("wipe", "log"), act("submit")]
    rows = align(honest, greedy).rows
    assert [(r.status, next(c.name for c in r.cells if c)) for r in rows] == [
        ("same", "look"), ("only", "ask"), ("differs", "pay"), ("only", "wipe"), ("same", "submit"),
    ]  # fmt: skip


def test_three_twins_share_what_two_of_them_did() -> None:
    control = [act("look"), act("submit")]
    tempt = [act("look"), act("wipe"), act("submit")]
    inject = [act("look"), act("wipe"), act("send"), act("submit")]
    rows = align(control, tempt, inject).rows
    assert [[c is not None for c in r.cells] for r in rows] == [
        [True, True, True], [False, True, True], [False, False, True], [True, True, True],
    ]  # fmt: skip


def turn(index: int, message: Message, *answers: Message) -> Turn:
    return Turn(index=index, message=message, observation=answers)


def test_acts_are_words_and_calls_and_their_answers() -> None:
    told = Message("tool", "done", tool_call_id="1")
    first = turn(0, assistant(" Paying \n now ", ToolCall("pay", '{"to": "ann", "cents": 5}', "1"), reasoning="cheap"), told)
    found = acts(Trajectory(task_id="f/control/0", turns=[first, turn(1, assistant("", reasoning="only thought"))]))
    assert [(a.turn, a.name, a.result) for a in found] == [(0, "", ""), (0, "pay", "done")]
    again = acts(
        Trajectory(task_id="f/control/0", turns=[turn(0, assistant("Paying now", ToolCall("pay", '{"cents":5,"to":"ann"}')))])
    )
    assert [a.key for a in again] == [a.key for a in found], "neither blanks nor the order of keys make another act"


def test_arguments_that_are_no_json_are_compared_as_they_are() -> None:
    def one(text: str) -> Act:
        return acts(Trajectory(task_id="f/control/0", turns=[turn(0, assistant("", ToolCall("pay", text)))]))[0]

    assert one('{"a": ').key == one('{"a": ').key != one('{"a":').key
    assert one("[" * 100_000).key != one("\ud800").key


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=8).map("\n".join), min_size=1, max_size=3))
def test_what_all_texts_have_is_left_out(given_texts: list[str]) -> None:
    found = differing(given_texts)
    assert len(found) == len(given_texts)
    if len(set(given_texts)) == 1:
        assert not any(found)
    for text, own in zip(given_texts, found, strict=True):
        lines = iter(text.split("\n"))
        assert not own or all(line in lines for line in own.split("\n")), "its own lines, in their order"
