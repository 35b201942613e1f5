# SPDX-License-Identifier: Apache-2.0
"""tau2-bench, retail: the gold actions of all tasks carried out by tools of our own, and paid by our verifiers.

    python bench/repro/tau2_retail.py [FOLDER]        # else $AGENTGYM_DATA

For each task: the gold actions are replayed on the published database; a task whose gold our tools refuse, or in which a
writing action changes nothing, is named with the reason. Then `state_equals_gold`, `state_from_log` (the record alone leads to
that state), `communicated` and `declined` judge three agents: one that does what the gold says and tells what is to be told,
one that does nothing, and one that leaves the last writing action out. Only the first may be paid.

The tools are written from the published policy: what it says that a tool must refuse, they refuse. Prints a JSON line for each
task that differs, the counts last; exits with 1 where the idle or the careless agent is paid, or an honest one is not and no
reason is known.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a program, the folder of this file is all that is on the path

import msgspec

from agentgym.chat import ToolCall, assistant
from agentgym.errors import ToolError
from agentgym.evaluators.declined import declined
from agentgym.evaluators.replay import state_from_log
from agentgym.evaluators.state import communicated, state_equals_gold
from agentgym.scoring import VerifierContext, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn, diff_state
from bench.repro.tau2_do_nothing import READS, TRANSFER, gold_writes, read

State = dict[str, Any]


class Refused(ToolError):
    """What a tool of the desk refuses."""


# -- the tools --------------------------------------------------------------------------------------------------------


def retail(products: dict[str, Any]) -> Callable[[State, str, dict[str, Any]], object]:
    """The writing tools over these products, which never change; reads change nothing and are not compared."""
    items = {
        i: {**v, "product_id": p["product_id"], "name": p["name"]} for p in products.values() for i, v in p["variants"].items()
    }

    def carry_out(state: State, name: str, arguments: dict[str, Any]) -> object:
        if name.startswith(READS) or name == TRANSFER:
            return None
        tool = WRITES.get(name)
        if tool is None:
            raise Refused(f"there is no tool {name!r}")
        try:
            return tool(state, items, **arguments)
        except (TypeError, KeyError) as e:
            raise Refused(f"{type(e).__name__}: {e}") from e

    return carry_out


def _order(state: State, order_id: str, status: str) -> dict[str, Any]:
    order: dict[str, Any] = state["orders"][order_id]
    if not order["status"].startswith(status):
        raise Refused(f"order {order_id} is {order['status']}, not {status}")
    return order


def _method(state: State, order: dict[str, Any], payment_method_id: str) -> dict[str, Any]:
    methods: dict[str, Any] = state["users"][order["user_id"]]["payment_methods"]
    if payment_method_id not in methods:
        raise Refused(f"the customer has no payment method {payment_method_id}")
    method: dict[str, Any] = methods[payment_method_id]
    return method


def _swap(order: dict[str, Any], items: dict[str, Any], old: list[str], new: list[str]) -> float:
    """Checks a swap of items for others of the same products; returns what is to be paid for it."""
    if len(old) != len(new):
        raise Refused("as many new items as old ones are needed")
    held = collections.Counter(i["item_id"] for i in order["items"])
    difference = 0.0
    for a, b in zip(old, new, strict=True):
        held[a] -= 1
        if held[a] < 0:
            raise Refused(f"item {a} is not in the order")
        mine = next(i for i in order["items"] if i["item_id"] == a)
        if b not in items or items[b]["product_id"] != mine["product_id"] or not items[b]["available"]:
            raise Refused(f"item {b} is no available variant of {mine['name']}")
        difference += items[b]["price"] - mine["price"]
    return round(difference, 2)


def _afford(method: dict[str, Any], amount: float) -> None:
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise Refused("the gift card does not hold that")


def cancel(state: State, items: State, /, order_id: str, reason: str) -> None:
    order = _order(state, order_id, "pending")
    if reason not in ("no longer needed", "ordered by mistake"):
        raise Refused("this is no reason to cancel")
    for payment in list(order["payment_history"]):
        method = _method(state, order, payment["payment_method_id"])
        order["payment_history"].append({**payment, "transaction_type": "refund"})
        if method["source"] == "gift_card":
            method["balance"] = round(method["balance"] + payment["amount"], 2)
    order["status"], order["cancel_reason"] = "cancelled", reason


def modify_items(
    state: State, items: State, /, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> None:
    order = _order(state, order_id, "pending")
    if order["status"] != "pending":
        raise Refused("the items of an order are modified once")
    method, due = _method(state, order, payment_method_id), _swap(order, items, item_ids, new_item_ids)
    _afford(method, due)
    if due:
        kind = "payment" if due > 0 else "refund"
        order["payment_history"].append({"transaction_type": kind, "amount": abs(due), "payment_method_id": payment_method_id})
        if method["source"] == "gift_card":
            method["balance"] = round(method["balance"] - due, 2)
    for a, b in zip(item_ids, new_item_ids, strict=True):
        mine = next(i for i in order["items"] if i["item_id"] == a)
        mine.update(item_id=b, price=items[b]["price"], options=dict(items[b]["options"]))
    order["status"] = "pending (item modified)"


def modify_address(state: State, items: State, /, order_id: str, **address: str) -> None:
    _order(state, order_id, "pending")["address"] = _address(**address)


def modify_user_address(state: State, items: State, /, user_id: str, **address: str) -> None:
    state["users"][user_id]["address"] = _address(**address)


def _address(*, address1: str, address2: str, city: str, state: str, country: str, zip: str) -> dict[str, str]:
    return {"address1": address1, "address2": address2, "city": city, "country": country, "state": state, "zip": zip}


def modify_payment(state: State, items: State, /, order_id: str, payment_method_id: str) -> None:
    order = _order(state, order_id, "pending")
    method = _method(state, order, payment_method_id)
    paid = [p for p in order["payment_history"] if p["transaction_type"] == "payment"]
    if len(paid) != 1 or paid[0]["payment_method_id"] == payment_method_id:
        raise Refused("the payment cannot be moved to that method")
    amount = paid[0]["amount"]
    _afford(method, amount)
    old = _method(state, order, paid[0]["payment_method_id"])
    order["payment_history"] += [
        {"transaction_type": "payment", "amount": amount, "payment_method_id": payment_method_id},
        {"transaction_type": "refund", "amount": amount, "payment_method_id": paid[0]["payment_method_id"]},
    ]
    for m, change in ((method, -amount), (old, amount)):
        if m["source"] == "gift_card":
            m["balance"] = round(m["balance"] + change, 2)


def give_back(state: State, items: State, /, order_id: str, item_ids: list[str], payment_method_id: str) -> None:
    order = _order(state, order_id, "delivered")
    method = _method(state, order, payment_method_id)
    if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
        raise Refused("the money goes back the way it came, or to a gift card")
    if collections.Counter(item_ids) - collections.Counter(i["item_id"] for i in order["items"]):
        raise Refused("an item is not in the order")
    order.update(status="return requested", return_items=sorted(item_ids), return_payment_method_id=payment_method_id)


def exchange(
    state: State, items: State, /, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> None:
    order = _order(state, order_id, "delivered")
    method, due = _method(state, order, payment_method_id), _swap(order, items, item_ids, new_item_ids)
    _afford(method, due)
    order.update(
        status="exchange requested", exchange_items=sorted(item_ids), exchange_new_items=sorted(new_item_ids),
        exchange_payment_method_id=payment_method_id, exchange_price_difference=due,
    )  # fmt: skip


WRITES: dict[str, Callable[..., object]] = {
    "cancel_pending_order": cancel,
    "modify_pending_order_items": modify_items,
    "modify_pending_order_address": modify_address,
    "modify_user_address": modify_user_address,
    "modify_pending_order_payment": modify_payment,
    "return_delivered_order_items": give_back,
    "exchange_delivered_order_items": exchange,
}


# -- tasks and agents -------------------------------------------------------------------------------------------------


def replay(task: dict[str, Any], db: State, tools: Any) -> tuple[State, list[str]]:
    """The gold state, and what is wrong with the way there."""
    state, faults = msgspec.to_builtins(db), []
    for action in gold_writes(task):
        before = msgspec.to_builtins(state)
        try:
            tools(state, action["name"], msgspec.to_builtins(action["arguments"]))
        except ToolError as e:
            faults.append(f"{action['name']} is refused: {e}")
            state = before
            continue
        if state == before:
            faults.append(f"{action['name']} changes nothing")
    return state, faults


def careless(task: dict[str, Any]) -> list[dict[str, Any]]:
    """All that the gold says but the last writing action."""
    return gold_writes(task)[:-1]


def episode(task: dict[str, Any], db: State, tools: Any, actions: list[dict[str, Any]], words: str) -> Trajectory:
    state, turns = msgspec.to_builtins(db), []
    for action in actions:
        before = msgspec.to_builtins(state)
        made, status = ToolCall(action["name"], json.dumps(action["arguments"]), f"c{len(turns)}"), "ok"
        try:
            tools(state, action["name"], msgspec.to_builtins(action["arguments"]))
        except ToolError:
            state, status = before, "tool_error"
        result = ToolResult(made.id, made.name, status, True)  # type: ignore[arg-type]
        changes = diff_state(before, state, made.id)
        turns.append(Turn(len(turns), assistant("", made), results=(result,), changes=changes))
    if words:
        turns.append(Turn(len(turns), assistant(words)))
    return Trajectory(task_id=f"tau2.retail/control/{task['id']}", turns=turns, state_before=db, state_after=state)


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AGENTGYM_DATA", ""))
    if not (folder / "tau2_retail_db.jsonl.gz").is_file():
        sys.exit(f"there is no {folder / 'tau2_retail_db.jsonl.gz'}: name its folder, or set AGENTGYM_DATA to it")
    begun = time.process_time()
    (whole,), tasks = read(folder / "tau2_retail_db.jsonl.gz"), read(folder / "tau2_retail_tasks.jsonl.gz")
    tools = retail(whole["products"])
    count: collections.Counter[str] = collections.Counter(tasks=len(tasks))
    wrong = False
    for task in tasks:
        db = part(whole, task)
        gold, faults = replay(task, db, tools)
        count["gold actions that write"] += len(gold_writes(task))
        told = task["evaluation_criteria"].get("communicate_info") or []
        frozen = FrozenTask(
            family="tau2.retail", version=1, variant="control", item=task["id"], seed=None, params={}, opening=(), tools=(),
            state=db, gold=gold, hidden={"values": told}, cluster="", tags=(),
        )  # fmt: skip
        wanted = [state_equals_gold(), state_from_log(tools), communicated(spare=0), declined(transfers=[TRANSFER])]
        words = (
            f"It comes to {', '.join(told)}."
            if told
            else "It is done."
            if gold_writes(task)
            else "I am sorry, our policy does not allow this."
        )
        agents = {"honest": (gold_writes(task), words), "idle": ([], ""), "careless": (careless(task), words)}
        for agent, (actions, said) in agents.items():
            if agent == "careless" and not gold_writes(task):
                continue
            scores, _ = verify(wanted, "gold", episode(task, db, tools, actions, said), VerifierContext(frozen))
            failed = [s.name for s in scores if s.value != 1.0]
            count[f"{agent}: paid"] += not failed
            count[f"{agent}: judged"] += 1
            if (agent == "honest") == bool(failed):
                wrong = wrong or not faults
                print(json.dumps({"task": task["id"], "agent": agent, "failed": failed, "reason": "; ".join(faults)}))
        if faults:
            count["tasks whose gold our tools do not carry out as it stands"] += 1
            print(json.dumps({"task": task["id"], "gold": faults}))
    print(json.dumps({"data": "tau2-bench retail, 114 tasks", **count, "cpu_s": round(time.process_time() - begun, 1)}))
    return int(wrong)


def part(whole: State, task: dict[str, Any]) -> State:
    """The customers and orders that a task's gold touches: the rest is as it was, and would only be copied and compared."""
    orders = {a["arguments"]["order_id"] for a in gold_writes(task) if "order_id" in a["arguments"]}
    users = {whole["orders"][o]["user_id"] for o in orders if o in whole["orders"]}
    users |= {a["arguments"]["user_id"] for a in gold_writes(task) if "user_id" in a["arguments"]}
    orders |= {o for u in users for o in whole["users"][u]["orders"]}
    return {
        "users": {u: whole["users"][u] for u in sorted(users)},
        "orders": {o: whole["orders"][o] for o in sorted(orders) if o in whole["orders"]},
    }


if __name__ == "__main__":
    sys.exit(main())
