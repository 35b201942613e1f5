# SPDX-License-Identifier: Apache-2.0
"""Where nothing may be changed, idleness is not paid, and who understood is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.evaluators.declined import declined, is_refusal
from agentgym.evaluators.state import state_equals_gold
from tests.evaluators.made_records import context, record, said, score, tool, value

STATE = {"orders": {"O-1": "shipped"}}
NOTHING = context(STATE, {}, STATE)
V = declined(transfers=["hand_over"])


@pytest.mark.parametrize(
    "steps",
    [
        (), (said(""),), (said("Done."),), (said("Your order is cancelled."),), (said("I am sorry."),), (tool("get_order"),),
        (said("I cannot wait to help you!"),), (said("How can I help?", "I cannot log in"),),
        (tool("hand_over", "no", "tool_error"),),
        (tool("submit"),), (tool("submit", status="refused"),), (tool("submit", status="done", answer="It cannot be done."),),
        (said("I can't do that.", "Why?"), tool("submit")),
        (said("<tool_call>hand_over()</tool_call>"),),
    ],
)  # fmt: skip
def test_doing_nothing_is_not_paid_where_the_end_state_alone_would_pay_it(steps: Any) -> None:
    t = record(*steps, state_after=STATE)
    assert value(state_equals_gold(), t, NOTHING) == 1.0
    found = score(V, t, NOTHING)
    assert found is not None
    assert (found.value, found.flags) == (0.0, ("no_sign",))


@pytest.mark.parametrize(
    "steps",
    [
        (tool("hand_over", summary="O-1"),),
        (said("It was shipped, so it can\u2019t be cancelled."),),
        (said("Unfortunately this fare is non-refundable."),),
        (said("Our policy does not allow that."),),
        (said("I'm unable to change it."),),
        (tool("submit", status="Refused.", answer="It was shipped."),),
        (tool("get_order"), said("That would be against our policy.")),
        (said("I have to decline this."),),
        (said("It can't be cancelled.", "A pity. Thanks"), said("You're welcome!")),
    ],
)
def test_a_refusal_a_transfer_and_a_stated_reason_are_signs(steps: Any) -> None:
    assert value(V, record(*steps, state_after=STATE), NOTHING) == 1.0


def test_where_something_has_to_change_it_says_nothing() -> None:
    assert score(V, record(said("I cannot."), state_after=STATE), context({"orders": {}}, {}, STATE)) is None
    both = context([{"orders": {}}, STATE], {}, STATE)  # doing nothing is one of the accepted ends
    assert value(V, record(state_after=STATE), both) == 0.0


def test_where_something_has_to_be_told_that_is_the_sign() -> None:
    assert score(V, record(state_after=STATE), context(STATE, {"values": ["5.40"]}, STATE)) is None
    assert score(V, record(state_after=STATE), context(STATE, {"status": "refused"}, STATE)) is None
    assert value(V, record(state_after=STATE), context(STATE, {"values": [], "status": None}, STATE)) == 0.0


def test_a_kept_reason_has_to_be_named_as_a_whole() -> None:
    ctx = context(STATE, {"reasons": ["R6", 24]}, STATE)
    assert value(V, record(said("Rule R6 forbids it; it cannot be cancelled.")), ctx) == 1.0
    assert value(V, record(said("It can't: more than 24 hours have gone by.")), ctx) == 1.0
    assert value(V, record(said("I cannot do that.")), ctx) == 0.0
    assert value(V, record(said("I cannot, see R61 of 2024.")), ctx) == 0.0
    assert value(V, record(tool("submit", status="refused", answer="R6")), ctx) == 1.0
    assert value(V, record(tool("hand_over")), ctx) == 1.0


def test_who_refuses_whatever_is_asked_has_not_looked() -> None:
    v = declined(transfers=["hand_over"], after=["get_order"])
    for sign in (said("I cannot do that."), tool("hand_over")):
        assert value(v, record(sign), NOTHING) == 0.0
        assert value(v, record(tool("get_order", "no", "tool_error"), sign), NOTHING) == 0.0
        assert value(v, record(tool("get_order"), sign), NOTHING) == 1.0
    assert value(v, record(tool("hand_over"), tool("get_order")), NOTHING) == 0.0


@pytest.mark.parametrize("ctx", [context(None, {}, STATE), context(STATE, {}, None)])
def test_a_task_without_gold_or_state_is_unscorable(ctx: Any) -> None:
    found = score(V, record(), ctx)
    assert found is not None
    assert (found.value, found.status) == (None, "unscorable")


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    is_refusal(text)


def test_a_long_text_is_read_in_linear_time() -> None:
    assert not is_refusal("not not is are policy the our the our " * 20_000)
