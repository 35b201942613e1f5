# SPDX-License-Identifier: Apache-2.0
"""A state that the log of calls does not explain is not paid, and gold that cannot be played is found when it is loaded."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import ToolCall, assistant
from agentgym.errors import DefinitionError, ToolError
from agentgym.evaluators.replay import apply_changes, play, state_from_log
from agentgym.evaluators.state import canonical_state, state_equals_gold
from agentgym.trajectory import Event, StateChange, ToolResult, Turn, diff_state
from tests.evaluators.made_records import context, record, score, tool, value

SHOP = {"orders": {"O-1": {"status": "pending", "cents": 500}, "O-2": {"status": "shipped", "cents": 900}}}


def shop(state: Any, name: str, arguments: dict[str, Any]) -> object:
    order = state["orders"].get(arguments.get("order_id"))
    if order is None:
        raise ToolError("there is no such order")
    if name == "get_order":
        return order
    if name != "cancel" or set(arguments) != {"order_id"}:
        raise ToolError("there is no such tool")
    if order["status"] != "pending":
        raise ToolError("it is too late")
    order["status"] = "cancelled"
    return "ok"


def cancelled() -> Any:
    state = copy.deepcopy(SHOP)
    state["orders"]["O-1"]["status"] = "cancelled"
    return state


CANCEL = tool("cancel", order_id="O-1")
CHANGE = StateChange("/orders/O-1/status", "replace", "pending", "cancelled", "c0")
BOTH = pytest.mark.parametrize("v", [state_from_log(), state_from_log(shop)], ids=["changes", "calls"])


# -- the record -------------------------------------------------------------------------------------------------------


@BOTH
def test_a_state_that_its_calls_explain_is_paid(v: Any) -> None:
    t = record(CANCEL, state_before=SHOP, state_after=cancelled(), writes=["cancel"], changes={0: (CHANGE,)})
    assert value(v, t, context()) == 1.0


@BOTH
def test_the_right_end_state_is_not_paid_where_no_call_led_to_it(v: Any) -> None:
    t = record(tool("get_order", order_id="O-1"), state_before=SHOP, state_after=cancelled())
    assert value(state_equals_gold(), t, context(cancelled())) == 1.0  # what the plain formula pays
    found = score(v, t, context())
    assert found is not None
    assert (found.value, found.flags) == (0.0, ("another_state",))
    assert found.evidence == [{"path": "/orders/O-1/status", "operation": "replace", "log": "pending", "got": "cancelled"}]


@BOTH
def test_a_tool_that_hides_that_it_writes_is_not_paid(v: Any) -> None:
    change = StateChange("/orders/O-1/status", "replace", "pending", "cancelled")
    sneaked = record(
        tool("get_order", order_id="O-1"), state_before=SHOP, state_after=cancelled(), changes={0: (change,)},
        events={0: (Event(0, "state.undeclared_write"),)},
    )  # fmt: skip
    found = score(v, sneaked, context())
    assert found is not None
    assert (found.value, "undeclared_write" in found.flags) == (0.0, True)


def test_a_change_under_the_name_of_a_call_that_cannot_write_is_stray() -> None:
    t = record(tool("get_order", order_id="O-1"), state_before=SHOP, state_after=cancelled(), changes={0: (CHANGE,)})
    found = score(state_from_log(), t, context())
    assert found is not None
    assert (found.value, found.flags) == (0.0, ("stray_change",))


def test_a_world_that_moves_by_itself_is_part_of_the_log_unless_it_may_not() -> None:
    moved = {**copy.deepcopy(SHOP), "day": 2}
    t = record(("Hello", "Hi"), state_before=SHOP, state_after=moved, changes={0: (StateChange("/day", "add", None, 2),)})
    assert value(state_from_log(), t, context()) == 1.0
    assert value(state_from_log(shop), t, context()) == 1.0
    assert value(state_from_log(environment=False), t, context()) == 0.0


def test_a_call_that_went_through_and_would_not_again_is_not_replayable() -> None:
    t = record(tool("cancel", order_id="O-2"), state_before=SHOP, state_after=SHOP, writes=["cancel"])
    found = score(state_from_log(shop), t, context())
    assert found is not None
    assert (found.value, found.flags) == (0.0, ("not_replayable",))
    assert "it is too late" in found.reason


def test_a_refused_call_is_not_carried_out_again() -> None:
    t = record(tool("cancel", "no", "tool_error", order_id="O-1"), state_before=SHOP, state_after=SHOP)
    assert value(state_from_log(shop), t, context()) == 1.0


@pytest.mark.parametrize(
    "arguments",
    ['{"order_id": "O-2", "order_id": "O-1"}', '{"order_id": ["O-1"]}', '{"order_id": "O-1", "force": true}', "O-1"],
)
def test_arguments_are_read_strictly(arguments: str) -> None:
    call = ToolCall("cancel", arguments, "c0")
    turn = Turn(0, assistant("", call), results=(ToolResult("c0", "cancel", "ok", True),))
    found = score(state_from_log(_strict), record(turn, state_before=SHOP, state_after=cancelled()), context())
    assert found is not None
    assert found.value == 0.0


def _strict(state: Any, name: str, arguments: dict[str, Any]) -> object:
    if not isinstance(arguments.get("order_id"), str):
        raise ToolError("the number must be text")
    return shop(state, name, arguments)


def test_a_call_that_is_only_written_down_is_no_call() -> None:
    t = record(
        ('<tool_call>{"name": "cancel", "arguments": {"order_id": "O-1"}}</tool_call>', None),
        state_before=SHOP,
        state_after=SHOP,
    )
    assert value(state_from_log(shop), t, context()) == 1.0
    assert value(state_equals_gold(), t, context(cancelled())) == 0.0


def test_without_a_state_there_is_nothing_to_say() -> None:
    found = score(state_from_log(), record(), context())
    assert found is not None
    assert (found.value, found.status) == (None, "unscorable")


def test_the_hash_of_a_verifier_with_tools_is_that_of_the_tools() -> None:
    assert len({state_from_log().hash, state_from_log(shop).hash, state_from_log(_strict).hash}) == 3
    assert state_from_log(shop).hash == state_from_log(shop).hash


states = st.recursive(
    st.integers() | st.booleans() | st.none() | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text("ab~/0 ", max_size=3), x, max_size=4),
    max_leaves=12,
)


@given(states, states)
def test_changes_lead_back_from_the_state_before_to_the_state_after(before: Any, after: Any) -> None:
    kept = copy.deepcopy(before)
    assert canonical_state(apply_changes(before, diff_state(before, after))) == canonical_state(after)
    assert canonical_state(before) == canonical_state(kept)


@given(states, states, states)
def test_changes_of_another_state_are_refused_or_lead_elsewhere(before: Any, after: Any, other: Any) -> None:
    changes = diff_state(before, after)
    try:
        got = apply_changes(other, changes)
    except ValueError:
        return
    assert canonical_state(apply_changes(got, diff_state(got, other))) == canonical_state(other)


@pytest.mark.parametrize(
    "change",
    [
        StateChange("/orders/O-1/status", "replace", "shipped", "cancelled"),
        StateChange("/orders/O-9/status", "replace", "pending", "cancelled"),
        StateChange("/orders/O-1", "add", None, {}),
        StateChange("/orders/O-1/status/x", "remove", "p", None),
        StateChange("/orders/O-3", "remove", {}, None),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change: StateChange) -> None:
    with pytest.raises(ValueError, match="/orders"):
        apply_changes(SHOP, [change])


# -- gold -------------------------------------------------------------------------------------------------------------


def act(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def test_gold_that_can_be_played_gives_the_state_it_leads_to_and_leaves_the_first_alone() -> None:
    before = json.dumps(SHOP)
    assert play(shop, SHOP, [act("get_order", order_id="O-1"), act("cancel", order_id="O-1")], writes=["cancel"]) == cancelled()
    assert json.dumps(SHOP) == before


@pytest.mark.parametrize(
    ("actions", "writes", "said"),
    [
        ([act("cancel", order_id="O-2")], ["cancel"], r"task 7: its action 0, cancel\(order_id\), is refused: it is too late"),
        ([act("cancel", order_id="O-1")] * 2, ["cancel"], "its action 1, .* is refused"),
        ([act("cancel", order_id=["O-1"])], ["cancel"], "fails with TypeError"),
        ([act("get_order", order_id="O-1")], ["get_order"], "changes nothing"),
        ([act("cancel", order_id="O-1")], [], "changes the state, and its tool is not said to write"),
    ],
)
def test_gold_that_cannot_be_played_or_does_not_do_what_it_says_is_an_error(actions: Any, writes: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        play(shop, SHOP, actions, writes=writes, where="task 7")
