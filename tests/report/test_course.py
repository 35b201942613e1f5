# SPDX-License-Identifier: Apache-2.0
"""The course of an episode: sums over the turns, budgets, broken rules by dimension, net changes of the state."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import assistant
from agentgym.protocols import Usage
from agentgym.report.course import Changed, net_changes, tracks
from agentgym.scoring import Finding
from agentgym.trajectory import Event, StateChange, Trajectory, Turn, diff_state


def turn(index: int, **more: Any) -> Turn:
    return Turn(index, assistant("x"), **more)


def episode(*turns: Turn, **more: Any) -> Trajectory:
    return Trajectory(task_id="a/control/0", turns=list(turns), **more)


def spend(turn: int, unit: str, spent: Any, limit: Any) -> Event:
    return Event(turn, "budget.spend", "env", unit, {"spent": spent, "limit": limit, "amount": 1, "what": ""})


def test_nothing_paid_spent_or_broken_is_no_track() -> None:
    assert tracks(episode(turn(0), turn(1)), []) == []
    assert tracks(episode(), [Finding("policy", "r", True)]) == []


def test_rewards_and_tokens_are_summed_and_a_budget_keeps_its_last_value() -> None:
    t = episode(
        turn(0, reward=0.25, usage=Usage(10, 5)),
        turn(1, events=(spend(1, "s", 20.0, 30.0), spend(1, "s", 25.0, 30.0))),
        turn(2, reward=-1.0, events=(spend(2, "calls", 1, 3),), usage=Usage(10, 7)),
        turn(3, events=(spend(3, "s", 40.0, 30.0),)),
    )
    found = {x.name: x for x in tracks(t, [])}
    assert found["reward"].values == (0.25, 0.25, -0.75, -0.75)
    assert found["s"].values == (0.0, 25.0, 25.0, 40.0)
    assert found["s"].limit == 30.0
    assert found["calls"].values == (0.0, 0.0, 1, 1)
    assert found["tokens"].values == (5, 5, 12, 12)


def test_an_event_of_another_make_spends_nothing() -> None:
    odd = (spend(0, "s", "much", None), Event(0, "budget.spend", data=None), spend(0, "t", True, 3), spend(0, "u", 1, "x"))
    assert [(x.name, x.limit) for x in tracks(episode(turn(0, events=odd)), [])] == [("u", None)]


def test_broken_rules_stand_where_they_were_broken_and_others_beside() -> None:
    findings = [
        Finding("policy", "a", True, True, turn=1),
        Finding("policy", "b", True, True, turn=1),
        Finding("policy", "kept", True, False, turn=0),
        Finding("truthful", "c", True, True),
        Finding("policy", "d", True, True, turn=99),
    ]
    found = tracks(episode(turn(0), turn(1)), findings)
    assert [(x.name, x.values, x.elsewhere) for x in found] == [("policy", (0, 2), 1), ("truthful", (0, 0), 1)]


def test_net_changes_tell_first_and_last_and_the_turns_between() -> None:
    t = episode(
        turn(0, changes=(StateChange("/a", "replace", 1, 2), StateChange("/n", "add", None, 5))),
        turn(1, changes=(StateChange("/a", "replace", 2, 3), StateChange("/n", "remove", 5, None))),
        turn(2, changes=(StateChange("/l/10", "add", None, 1), StateChange("/l/9", "replace", 0, 1))),
        turn(3, changes=(StateChange("/a", "replace", 3, 1),)),
    )
    assert net_changes(t, 0) == [Changed("/a", "replace", 1, 2, (0,)), Changed("/n", "add", None, 5, (0,))]
    assert net_changes(t, 1) == [Changed("/a", "replace", 1, 3, (0, 1))], "what was added and removed again is no change"
    assert [c.path for c in net_changes(t, 2)] == ["/a", "/l/9", "/l/10"], "places of lists in the order of their numbers"
    assert [c.path for c in net_changes(t)] == ["/l/9", "/l/10"], "what was changed back is no change"


leaves = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "x"])
flat = st.dictionaries(st.sampled_from("abcd"), leaves, max_size=4)


@given(st.lists(flat, min_size=2, max_size=6))
def test_the_net_of_all_turns_is_the_difference_of_first_and_last_state(states: list[dict[str, Any]]) -> None:
    turns = [
        turn(i, changes=diff_state(copy.deepcopy(a), copy.deepcopy(b))) for i, (a, b) in enumerate(itertools.pairwise(states))
    ]
    for upto in range(len(turns)):
        net = {(c.path, c.operation, repr(c.before), repr(c.after)) for c in net_changes(episode(*turns), upto)}
        straight = diff_state(states[0], states[upto + 1])
        assert net == {(c.path, c.operation, repr(c.before), repr(c.after)) for c in straight}
