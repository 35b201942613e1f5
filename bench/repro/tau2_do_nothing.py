# SPDX-License-Identifier: Apache-2.0
"""tau2-bench, retail and airline: on how many tasks the agent that does nothing is paid, by the published rule and by ours.

    python bench/repro/tau2_do_nothing.py [FOLDER]        # else $AGENTGYM_DATA

The published rule multiplies what a task's ``reward_basis`` names. Of an episode without a single message, DB is met where no
gold action writes, COMMUNICATE where nothing has to be told, ACTION where there are no gold actions; what a model judges
(NL_ASSERTION) is counted apart, as met. Ours are `state_equals_gold`, `communicated` and `declined`, over the log of writing
calls as the state: whoever has to change nothing must have looked and refused, or told what was asked for. As a control, an
agent that does what the gold says and tells what is to be told must be paid on every task.

Prints a JSON line for each domain; exits with 1 where ours pays the idle agent or does not pay the honest one.
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

from agentgym.chat import ToolCall, assistant
from agentgym.evaluators.declined import declined
from agentgym.evaluators.state import communicated, state_equals_gold
from agentgym.scoring import VerifierContext, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn

READS = ("get_", "find_", "list_", "search_", "calculate", "think")
TRANSFER = "transfer_to_human_agents"


def gold_writes(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The gold actions that change something."""
    actions = task["evaluation_criteria"]["actions"] or []
    return [a for a in actions if not a["name"].startswith(READS) and a["name"] != TRANSFER]


def published(task: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the idle agent is paid by the published rule, and whether a model's opinion is part of that."""
    criteria = task["evaluation_criteria"]
    basis = criteria.get("reward_basis") or ["DB", "COMMUNICATE"]
    met = {
        "DB": not gold_writes(task),
        "COMMUNICATE": not criteria.get("communicate_info"),
        "ACTION": not criteria["actions"],
        "NL_ASSERTION": True,
    }
    return all(met[b] for b in basis), "NL_ASSERTION" in basis and bool(criteria.get("nl_assertions"))


def ours(task: dict[str, Any], trajectory: Trajectory) -> tuple[bool, list[str]]:
    """Whether our verifiers pay an episode, and which do not."""
    state: dict[str, Any] = {"writes": []}
    gold = {"writes": [[a["name"], a["arguments"]] for a in gold_writes(task)]}
    told = task["evaluation_criteria"].get("communicate_info") or []
    frozen = FrozenTask(
        family="tau2", version=1, variant="control", item=task["id"], seed=None, params={}, opening=(), tools=(), state=state,
        gold=gold, hidden={"values": told}, cluster="", tags=(),
    )  # fmt: skip
    wanted = [state_equals_gold(), communicated(spare=0), declined(transfers=[TRANSFER])]
    scores, _ = verify(wanted, "gold", trajectory, VerifierContext(frozen))
    failed = [s.name for s in scores if s.value != 1.0]
    return not failed, failed


def episode(task: dict[str, Any], *, honest: bool) -> Trajectory:
    """An episode in which nothing happens, or all that the gold asks for."""
    turns: list[Turn] = []
    done = []
    if honest:
        for a in gold_writes(task):
            call = ToolCall(a["name"], json.dumps(a["arguments"]), f"c{len(turns)}")
            turns.append(Turn(len(turns), assistant("", call), results=(ToolResult(call.id, call.name, "ok", True),)))
            done.append([a["name"], a["arguments"]])
        told = task["evaluation_criteria"].get("communicate_info") or []
        words = (
            f"It comes to {', '.join(told)}."
            if told
            else "It is done."
            if done
            else "I am sorry, our policy does not allow this."
        )
        turns.append(Turn(len(turns), assistant(words)))
    return Trajectory(
        task_id=f"tau2/control/{task['id']}", turns=turns, state_before={"writes": []}, state_after={"writes": done}
    )


def count(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the idle agent is paid, by whom, and why not."""
    idle, judged, stopped = [], 0, collections.Counter[str]()
    ours_idle = honest = 0
    for task in tasks:
        paid, opinion = published(task)
        idle += [task["id"]] if paid else []
        judged += paid and opinion
        pays, failed = ours(task, episode(task, honest=False))
        ours_idle += pays
        if paid:
            stopped.update(failed)
        honest += ours(task, episode(task, honest=True))[0]
    return {
        "tasks": len(tasks), "published_rule_pays_idle": len(idle),
        "of_these_if_a_model_agrees": judged,
        "ours_pays_idle": ours_idle,
        "ours_pays_honest": honest, "stopped_by": dict(stopped), "idle_tasks": idle,
    }  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AGENTGYM_DATA", ""))
    wrong = False
    for domain in ("airline", "retail"):
        path = folder / f"tau2_{domain}_tasks.jsonl.gz"
        if not path.is_file():
            sys.exit(f"there is no {path}: name its folder, or set AGENTGYM_DATA to it")
        found = count(read(path))
        wrong = wrong or bool(found["ours_pays_idle"]) or found["ours_pays_honest"] != found["tasks"]
        print(json.dumps({"domain": domain, **found}))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
