# SPDX-License-Identifier: Apache-2.0
"""The programs that reproduce published figures, on extracts of their rows that lie in the repository."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ToolError
from bench.repro import gsm8k_labels, tau1_passk, tau2_do_nothing, tau2_retail

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def tau1() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Four tasks x four episodes, and what of the database they speak of."""
    extract = json.loads(gzip.decompress((DATA / "tau1_extract.json.gz").read_bytes()))
    return extract["episodes"], extract["db"]


@pytest.fixture(scope="module")
def tau2() -> dict[str, list[dict[str, Any]]]:
    rows = [json.loads(line) for line in (DATA / "tau2_extract.jsonl").read_text(encoding="utf-8").splitlines()]
    return {d: [r for r in rows if r["domain"] == d] for d in ("airline", "retail")}


def test_our_grader_agrees_with_the_authors_labels() -> None:
    rows = list(gsm8k_labels.rows(DATA / "gsm8k_solutions_extract.jsonl"))
    counts, wrong = gsm8k_labels.compare(rows)
    assert (wrong, sum(n for _, _, n in counts.values())) == ([], len(rows))
    assert {paid for paid, *_ in counts.values()} == {3}
    mislabelled = [{**rows[0], "is_correct": not rows[0]["is_correct"]}]
    assert len(gsm8k_labels.compare(mislabelled)[1]) == 1


def test_published_episodes_are_replayed_to_the_letter_and_judged_as_published(tau1: Any) -> None:
    count, different = tau1_passk.examine(*tau1)
    assert count["write calls"] > 0
    assert count["write calls that return what is on record"] == count["write calls"]
    assert "unexplained" not in count
    assert count["episodes that agree"] + len(different) == 16


def test_an_episode_whose_calls_were_tampered_with_is_not_paid(tau1: Any) -> None:
    episodes, db = tau1
    solved = copy.deepcopy(next(r for r in episodes if r["reward"] == 1.0))
    writes = [
        c["function"] for m in solved["traj"] for c in m.get("tool_calls") or () if c["function"]["name"] in tau1_passk.WRITES
    ]
    if not writes:
        booking = {"name": "send_certificate", "arguments": json.dumps({"user_id": next(iter(db["users"])), "amount": 50})}
        solved["traj"][-1:] = [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": booking, "type": "function"}]},
            {"role": "tool", "tool_call_id": "x", "content": "?", "name": "send_certificate"},
        ]
    else:
        writes[-1]["arguments"] = "{}"
    _, different = tau1_passk.examine([solved], db)
    assert [(d["published"], d["ours"]) for d in different] == [(1.0, 0.0)]


def test_the_idle_agent_is_paid_by_the_published_rule_and_never_by_ours(tau2: Any) -> None:
    airline, retail = tau2_do_nothing.count(tau2["airline"]), tau2_do_nothing.count(tau2["retail"])
    assert set(airline["idle_tasks"]) >= {"0", "1", "2", "4"}
    assert set(retail["idle_tasks"]) >= {"10", "12", "24", "62"}
    for found in (airline, retail):
        assert found["ours_pays_idle"] == 0
        assert found["ours_pays_honest"] == found["tasks"] == 12


MUG = {"name": "Mug", "product_id": "p1", "item_id": "1", "price": 5.0, "options": {"color": "red"}}
SHOP: dict[str, Any] = {
    "products": {
        "p1": {
            "name": "Mug",
            "product_id": "p1",
            "variants": {
                "1": {"item_id": "1", "options": {"color": "red"}, "available": True, "price": 5.0},
                "2": {"item_id": "2", "options": {"color": "blue"}, "available": True, "price": 7.0},
                "3": {"item_id": "3", "options": {"color": "grey"}, "available": False, "price": 1.0},
            },
        }
    },
    "users": {"u": {"payment_methods": {"gift": {"source": "gift_card", "balance": 1.0}, "card": {"source": "credit_card"}}}},
    "orders": {
        number: {
            "user_id": "u",
            "status": status,
            "items": [MUG],
            "payment_history": [{"transaction_type": "payment", "amount": 5.0, "payment_method_id": "card"}],
        }
        for number, status in (("#P", "pending"), ("#D", "delivered"))
    },
}


def carried_out(name: str, **arguments: Any) -> dict[str, Any]:
    db = copy.deepcopy({k: SHOP[k] for k in ("users", "orders")})
    tau2_retail.retail(SHOP["products"])(db, name, arguments)
    return db


def test_the_tools_of_the_retail_desk_do_what_the_policy_says() -> None:
    swap = {"item_ids": ["1"], "new_item_ids": ["2"], "payment_method_id": "card"}
    assert (
        carried_out("exchange_delivered_order_items", order_id="#D", **swap)["orders"]["#D"]["exchange_price_difference"] == 2
    )
    assert carried_out("modify_pending_order_items", order_id="#P", **swap)["orders"]["#P"]["items"][0]["price"] == 7
    assert (
        carried_out("cancel_pending_order", order_id="#P", reason="ordered by mistake")["orders"]["#P"]["status"] == "cancelled"
    )
    assert carried_out("get_order_details", order_id="#P") == {k: SHOP[k] for k in ("users", "orders")}


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("exchange_delivered_order_items", {"order_id": "#P", "payment_method_id": "card"}, "pending, not delivered"),
        ("exchange_delivered_order_items", {"order_id": "#D", "payment_method_id": "gift"}, "gift card does not hold"),
        ("modify_pending_order_items", {"order_id": "#P", "payment_method_id": "card", "new_item_ids": ["3"]}, "no available"),
    ],
)
def test_what_the_policy_forbids_the_tools_refuse(name: str, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ToolError, match=why):
        carried_out(name, **{"item_ids": ["1"], "new_item_ids": ["2"], **arguments})


def test_a_gold_action_that_is_refused_or_changes_nothing_is_named() -> None:
    actions = [
        {"name": "cancel_pending_order", "arguments": {"order_id": "#D", "reason": "ordered by mistake"}},
        {"name": "get_order_details", "arguments": {"order_id": "#D"}},
    ]
    task = {"id": "0", "evaluation_criteria": {"actions": actions}}
    db = {k: SHOP[k] for k in ("users", "orders")}
    state, faults = tau2_retail.replay(task, db, tau2_retail.retail(SHOP["products"]))
    assert state == db
    assert faults == ["cancel_pending_order is refused: order #D is delivered, not pending"]
