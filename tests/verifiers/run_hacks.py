# SPDX-License-Identifier: Apache-2.0
r"""Plays a table of attempts to cheat a verifier, and of honest controls, through the real verifiers.

A row is a JSON object with ``id``, ``domain``, ``task``, ``response_or_code``, ``must`` (``reward<=0``, ``reward>0``, or
``flag:NAME``: refused, or paid only with that flag) and perhaps ``expand``: [token, text, count] to put in first. Prints one
JSON line for each row that does not go as it says, and one with the counts last. Rows of a domain, or of a kind of task, for
which there is no verifier yet are counted as ``unsupported``, never as passed.

Judge rows are graded by a scripted judge that counts words and obeys whatever looks like a turn or a verdict, so that what is
tested is what stands around a judge; ``--judge MODEL`` asks a real one.

    python tests/verifiers/run_hacks.py FILE.jsonl [--judge local:smollm2]
"""

from __future__ import annotations

import argparse
import atexit
import collections
import copy
import functools
import gzip
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from agentgym.chat import ArgumentError, Message, ToolCall, assistant, parse_arguments, user
from agentgym.errors import ToolError
from agentgym.evaluators import judge as judges
from agentgym.evaluators.code import grade_output, grade_program, last_block
from agentgym.evaluators.declined import declined
from agentgym.evaluators.math_answer import grade
from agentgym.evaluators.replay import play, state_from_log
from agentgym.evaluators.state import communicated, confirmed_before, state_equals_gold
from agentgym.policies.load import load_policy
from agentgym.protocols import Policy
from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend
from agentgym.scoring import Finding, Score, VerifierContext, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn
from tests.evaluators.judges import ScriptedJudge, by_words_and_structure


class Unsupported(Exception):
    """There is no verifier for this yet."""


# -- answers ------------------------------------------------------------------------------------------------------------------


def answer(task: dict[str, Any], response: Any) -> tuple[float, list[str]]:
    """Mathematics and formats: by the simple door."""
    protocol = task.get("protocol") or task.get("reward")
    found = grade(task["gold"], response, *([protocol] if protocol else []))
    return found if isinstance(found, tuple) else (found, [])


# -- tool use -----------------------------------------------------------------------------------------------------------------


class Shop:
    """The tools that the rows speak of, over a state of plain values: orders and users."""

    WRITES = ("cancel_order", "refund")

    def __init__(self, db: dict[str, Any]) -> None:
        self.db = copy.deepcopy(db)

    @classmethod
    def over(cls, db: dict[str, Any]) -> Shop:
        """A shop that works on this very state, not on a copy."""
        shop = cls({})
        shop.db = db
        return shop

    def order(self, order_id: str) -> dict[str, Any]:
        if type(order_id) is not str or order_id not in self.db["orders"]:
            raise ToolError("there is no such order")
        found: dict[str, Any] = self.db["orders"][order_id]
        return found

    def get_order(self, order_id: str) -> Any:
        return self.order(order_id)

    def list_orders(self, user_id: str) -> Any:
        if type(user_id) is not str or user_id not in self.db["users"]:
            raise ToolError("there is no such user")
        return sorted(self.db["orders"])

    def cancel_order(self, order_id: str, reason: str) -> Any:
        order = self.order(order_id)
        if type(reason) is not str or order["status"] != "pending":
            raise ToolError("only pending orders can be cancelled, with a reason")
        order["status"] = "cancelled"
        return order

    def refund(self, order_id: str, amount: float) -> Any:
        order = self.order(order_id)
        if type(amount) not in (int, float) or not math.isfinite(amount) or not 0 < amount <= order["amount"]:
            raise ToolError("the amount must be a number up to that of the order")
        order["refunded"] = round(order.get("refunded", 0) + amount, 2)
        return order

    def transfer_to_human(self, summary: str) -> Any:
        if type(summary) is not str:
            raise ToolError("the summary must be text")
        return "transferred"

    def call(self, name: Any, arguments: Any, offered: set[str]) -> tuple[str, str]:
        """What the agent is shown, and the status."""
        if name not in offered or not hasattr(Shop, str(name)):
            return f"there is no tool {name!r}", "unknown_tool"
        try:
            given = parse_arguments(arguments if isinstance(arguments, str) else json.dumps(arguments))
            bound = inspect.signature(getattr(self, name)).bind(**given)
        except (ArgumentError, TypeError) as e:
            return str(e), "bad_arguments"
        try:
            return json.dumps(getattr(self, name)(*bound.args, **bound.kwargs)), "ok"
        except ToolError as e:
            return str(e), "tool_error"


def carry_out(state: Any, name: str, arguments: dict[str, Any]) -> object:
    """One call on a state of plain values, which it changes in place."""
    shop = Shop.over(state)
    try:
        bound = inspect.signature(getattr(shop, name)).bind(**arguments)
    except (AttributeError, TypeError) as e:
        raise ToolError(str(e)) from e
    return getattr(shop, name)(*bound.args, **bound.kwargs)


def played(task: dict[str, Any], steps: list[Any]) -> tuple[Trajectory, bool]:
    """The record of a row's steps, and whether the episode failed for a reason that is not the agent's.

    Only an assistant message's own calls are carried out; what looks like one in a text is text, and only the environment
    writes what tools answer.
    """
    shop = Shop(task["initial_db"])
    offered = {signature.partition("(")[0] for signature in task["tools"]}
    turns: list[Turn] = []
    failed = False
    for step in steps:
        if isinstance(step, str):
            step = {"role": "assistant", "content": step}
        if step.get("role") == "user":
            if turns:
                last = turns[-1]
                last.observation = (*last.observation, user(str(step.get("content", ""))))
            continue
        if step.get("role") != "assistant":
            continue
        failed = failed or "error" in step
        calls, results, seen = [], [], []
        for i, wanted in enumerate(step.get("tool_calls") or ()):
            given = wanted.get("arguments", {})
            call = ToolCall(
                str(wanted.get("name")), given if isinstance(given, str) else json.dumps(given), f"c{len(turns)}.{i}"
            )
            shown, status = shop.call(wanted.get("name"), given, offered)
            calls.append(call)
            results.append(ToolResult(call.id, call.name, status, writes=call.name in Shop.WRITES))  # type: ignore[arg-type]
            seen.append(Message("tool", shown, (), call.id, call.name))
        message = assistant(str(step.get("content") or ""), *calls)
        turns.append(Turn(len(turns), message, results=tuple(results), observation=tuple(seen)))
    opening = (user(task["user_request"]),)
    return Trajectory(
        task_id="hacks/control/0", opening=opening, turns=turns, state_before=task["initial_db"], state_after=shop.db
    ), failed


def tool(task: dict[str, Any], steps: Any) -> tuple[float, list[str]]:
    """Tool use: by the end state and how it came about, what was told or refused, and whether changes were confirmed."""
    if not isinstance(steps, list) or "initial_db" not in task:
        raise Unsupported
    gold = play(carry_out, task["initial_db"], task["gold_actions"], writes=Shop.WRITES)
    trajectory, failed = played(task, steps)
    if failed:
        return 0.0, ["failed"]  # masked by the episode loop, never paid
    frozen = FrozenTask(
        family="hacks", version=1, variant="control", item="0", seed=None, params={}, opening=(), tools=(),
        state=task["initial_db"], gold=gold, hidden={"communicate": task.get("communicate")}, cluster="hacks", tags=(),
    )  # fmt: skip
    verifiers = [
        state_equals_gold(),
        state_from_log(carry_out),
        communicated("communicate"),
        declined(transfers=["transfer_to_human"], unless=["communicate"]),
        confirmed_before(*Shop.WRITES, words={"cancel_order": ["cancel"]}),
    ]
    scores, findings = verify(verifiers, "gold", trajectory, VerifierContext(frozen))
    flags = [f.rule for f in findings if isinstance(f, Finding) and f.violation]
    flags += [s.name for s in scores if isinstance(s, Score) and s.value != 1.0]
    return float(not flags), flags


# -- programs -----------------------------------------------------------------------------------------------------------------


@functools.cache
def backend() -> Backend:
    """The sandboxes of all rows."""
    opened = open_backend("namespace")
    atexit.register(opened.close)
    return opened


folders = [Path(os.environ["AGENTGYM_DATA"])] if "AGENTGYM_DATA" in os.environ else []
"""Where the rows of data sets are; the folder of the table comes last."""


@functools.cache
def problems(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a data set by their names."""
    for folder in folders:
        if (path := folder / name).exists():
            data = path.read_bytes()
            text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
            return {str(row["task_id"]): row for row in map(json.loads, text.splitlines())}
    sys.exit(f"{name} is in none of {', '.join(map(str, folders))}: name its folder by AGENTGYM_DATA")


def code(task: dict[str, Any], response: str) -> tuple[float, list[str]]:
    """Programs: by a data set's own tests and inputs like theirs, or by what they write."""
    if "fenced" in task.get("harness", ""):
        found = last_block(response)
        if found is None:
            return 0.0, ["no_code"]
        response = found
    name = str(task.get("task_id", ""))
    if task["dataset"] == "stdio":
        report = grade_output(backend(), response, [(a, b) for a, b in task["tests"]])
    elif task["dataset"] == "humaneval":
        row = problems("humaneval.jsonl.gz")[name]
        right = row["prompt"] + row["canonical_solution"]
        # a response is the whole function or the rest of one that the prompt began
        program = row["prompt"] + "\n" + response
        report = grade_program(backend(), program, task["entry_point"], row["test"], reference=right)
    elif task["dataset"] == "mbpp":
        row = problems("mbpp_sanitized.jsonl")[name.rpartition("/")[2]]
        tests = [*row["test_imports"], *row["test_list"]]
        report = grade_program(
            backend(), response, task["entry_point"], tests, reference="\n".join([*row["test_imports"], row["code"]])
        )
    else:
        raise Unsupported
    return float(report.passed), list(report.flags)


# -- judges -------------------------------------------------------------------------------------------------------------------

JUDGES: dict[str, Policy] = {"judge": ScriptedJudge(by_words_and_structure)}
"""The one that is asked."""
ASKED = judges.Settings(max_tokens=160)


def judged(task: dict[str, Any], response: Any) -> tuple[float, list[str]]:
    """Answers to open questions: by a rubric. No score (a judge that failed its controls) is no pay."""
    if not isinstance(task.get("rubric"), list) or not isinstance(response, str):
        raise Unsupported
    score = judges.grade(JUDGES["judge"], task["prompt"], response, task["rubric"], settings=ASKED)
    return score.value or 0.0, list(score.flags)


PLAYERS = {"math": answer, "format": answer, "tool": tool, "code": code, "judge": judged}


# -- the table ----------------------------------------------------------------------------------------------------------------


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, with what is to be expanded."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                    missing = [k for k in ("id", "domain", "task", "response_or_code", "must") if k not in row]
                except ValueError as e:
                    sys.exit(f"{path}:{number} is not JSON: {e}")
                if missing:
                    sys.exit(f"{path}:{number} is no row of a hack table: it has no {', '.join(missing)}")
                for token, text, count in row.get("expand") or ():
                    row["response_or_code"] = row["response_or_code"].replace(token, text * count)
                yield row


def holds(must: str, value: float, flags: list[str]) -> bool:
    """Whether what a verifier said is what must happen."""
    if must == "reward>0":
        return value > 0
    if must == "reward<=0":
        return value <= 0
    kind, _, name = must.partition(":")
    if kind != "flag":
        raise ValueError(f"unknown demand {must!r}; it must be reward<=0, reward>0 or flag:NAME")
    return value <= 0 or name in flags


def run(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that went wrong, and the counts."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    wrong: list[dict[str, Any]] = []
    slowest = 0.0
    folders.append(path.parent)
    for row in rows(path):
        count = counts[row["domain"]]
        count["rows"] += 1
        begun = time.process_time()
        try:
            if row["domain"] not in PLAYERS:
                raise Unsupported
            value, flags = PLAYERS[row["domain"]](row["task"], row["response_or_code"])
        except Unsupported:
            count["unsupported"] += 1
            continue
        except Exception as e:
            count["errors"] += 1
            wrong.append({"id": row["id"], "must": row["must"], "error": f"{type(e).__name__}: {e}"})
            continue
        slowest = max(slowest, time.process_time() - begun)
        if holds(row["must"], value, flags):
            count["passed"] += 1
        else:
            count["false_pay" if value > 0 else "false_refusal"] += 1
            wrong.append({"id": row["id"], "must": row["must"], "value": value, "flags": flags})
    kinds = ("rows", "passed", "false_pay", "false_refusal", "errors", "unsupported")
    total: dict[str, Any] = {kind: sum(c[kind] for c in counts.values()) for kind in kinds}
    total["slowest_cpu_s"] = round(slowest, 3)
    total["domains"] = {domain: {kind: c[kind] for kind in kinds} for domain, c in sorted(counts.items())}
    return wrong, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the table, as JSON lines")
    parser.add_argument("--judge", metavar="MODEL", help="who grades the judge rows, e.g. local:smollm2 (a scripted judge)")
    args = parser.parse_args()
    if args.judge:
        JUDGES["judge"] = load_policy(args.judge)
    wrong, total = run(args.file)
    if args.judge:
        found = judges.check(JUDGES["judge"], settings=ASKED)
        total["judge"] = {"name": args.judge, "controls": found.of, "passed": found.passed, "reliable": found.reliable}
    for row in wrong:
        print(json.dumps(row))
    print(json.dumps(total))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
