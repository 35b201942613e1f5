# SPDX-License-Identifier: Apache-2.0
"""tau-bench airline, 50 tasks x 4 episodes of gpt-4o as published: pass^k, and what our state verifiers say of the 200.

    python bench/repro/tau1_passk.py [FOLDER]        # else $AGENTGYM_DATA

1. pass^k from the published rewards: .420 .273 .220 .200 for k = 1..4 (Yao et al. 2024, table of gpt-4o).
2. Every call is carried out again by tools of our own; what each returned is compared with what is on record, and the state
   that the gold actions lead to with the published hash of it.
3. Our verifiers judge the 200 episodes. Each one on which they and the published reward differ is printed with the reason.

Prints JSON lines, the counts last; exits with 1 where a figure differs from the published one, or a difference has no reason.
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a program, the folder of this file is all that is on the path

import msgspec

from agentgym.chat import Message, ToolCall, assistant
from agentgym.errors import DefinitionError, ToolError
from agentgym.evaluators.declined import declined
from agentgym.evaluators.replay import Tools, play, state_from_log
from agentgym.evaluators.state import communicated, names, numbers_in, state_equals_gold
from agentgym.scoring import Verifier, VerifierContext, verify
from agentgym.stats.passk import pass_hat_k
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn
from bench.repro.airline import LOOKS, TRANSFERS, WRITES, airline, published_hash

PUBLISHED = [0.420, 0.273, 0.220, 0.200]


def verifiers(tools: Tools) -> list[Verifier]:
    """What judges an episode."""
    idle = declined(transfers=TRANSFERS, after=LOOKS, unless=("outputs",))
    return [state_equals_gold(), state_from_log(tools), communicated("outputs", spare=3), idle]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def replayed(row: dict[str, Any], db: dict[str, Any], tools: Tools) -> tuple[Trajectory, int, int]:
    """The episode as a record with the state that its calls lead to; write calls, and those that returned what is on record."""
    state = msgspec.to_builtins(db)
    opening: list[Message] = []
    turns: list[Turn] = []
    writes = same = 0
    for i, m in enumerate(row["traj"]):
        if m["role"] == "assistant":
            calls, results = [], []
            told = {t["tool_call_id"]: t["content"] for t in row["traj"][i + 1 : i + 2] if t["role"] == "tool"}
            for c in m.get("tool_calls") or ():
                call = ToolCall(c["function"]["name"], c["function"]["arguments"], c["id"])
                if call.id not in told:
                    continue  # one call a turn was carried out
                calls.append(call)
                try:
                    got, status = shown(tools(state, call.name, json.loads(call.arguments))), "ok"
                except ToolError as e:
                    got, status = f"Error: {e}", "tool_error"
                if call.name in WRITES:
                    writes += 1
                    same += got == told[call.id]
                results.append(ToolResult(call.id, call.name, status, call.name in WRITES))  # type: ignore[arg-type]
            turns.append(Turn(len(turns), assistant(m["content"] or "", *calls), results=tuple(results)))
            continue
        message = Message(m["role"], m["content"] or "", (), m.get("tool_call_id"), m.get("name"))
        if turns:
            turns[-1].observation = (*turns[-1].observation, message)
        else:
            opening.append(message)
    trajectory = Trajectory(
        task_id=f"tau1.airline/control/{row['task_id']}", trial=row["trial"], opening=tuple(opening), turns=turns,
        state_before=db, state_after=state,
    )  # fmt: skip
    return trajectory, writes, same


def gold_of(row: dict[str, Any], db: dict[str, Any], tools: Tools) -> tuple[dict[str, Any], str]:
    """The wanted end state, and what is wrong with the gold actions. Those that are refused are left out, as tau-bench does."""
    actions = [
        {"name": a["name"], "arguments": a["kwargs"]} for a in row["info"]["task"]["actions"] if a["name"] not in TRANSFERS
    ]
    try:
        return play(tools, db, actions, writes=WRITES, where=f"task {row['task_id']}"), ""
    except DefinitionError as e:
        state = msgspec.to_builtins(db)
        for a in actions:
            try:
                tools(state, a["name"], msgspec.to_builtins(a["arguments"]))
            except ToolError:
                continue
        return state, str(e)


def why(row: dict[str, Any], trajectory: Trajectory, failed: list[str], paid: bool) -> str:
    """Why we and the published reward differ; empty where there is no reason that we know."""
    if paid:
        return "cut before its end: published as 0 without a look at the state" if not row["info"]["reward_info"] else ""
    if failed == ["communicated"]:
        outputs = row["info"]["task"]["outputs"]
        words = [t.message.text for t in trajectory.turns]
        if all(any(_tells(w, o) for w in words) for o in outputs):
            return "told, but not in the last words, or among many other numbers"
        return "told only as a part of another number or word"
    if failed == ["declined"]:
        return "nothing was to be changed, and the agent looked at nothing or refused nothing: the end state alone was paid"
    return ""


def _tells(words: str, output: str) -> bool:
    return names(words.replace(",", ""), output) or any(str(n) == output for n in numbers_in(words))


def examine(rows: list[dict[str, Any]], db: dict[str, Any]) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Counts, and a row for everything on which we and what is published differ; ``db`` holds the flights as well."""
    db = dict(db)
    flights = db.pop("flights")
    tools = airline(flights)
    count: collections.Counter[str] = collections.Counter(episodes=len(rows))
    different: list[dict[str, Any]] = []
    golds: dict[int, dict[str, Any]] = {}
    for row in rows:
        task = row["task_id"]
        if task not in golds:
            golds[task], fault = gold_of(row, db, tools)
            hashes = {h for r in rows if r["task_id"] == task and (h := _hash(r))}
            if hashes:  # where outputs decided, it is not on record
                count["gold states with a published hash"] += 1
                count["gold states with that hash"] += {published_hash(_as_published(golds[task]), flights)} == hashes
            if fault:
                count["tasks whose gold cannot be played as it says"] += 1
                different.append({"task": task, "reason": fault})
        trajectory, writes, same = replayed(row, db, tools)
        count["write calls"] += writes
        count["write calls that return what is on record"] += same
        frozen = FrozenTask(
            family="tau1.airline", version=1, variant="control", item=str(task), seed=None, params={}, opening=(), tools=(),
            state=db, gold=golds[task], hidden={"outputs": row["info"]["task"]["outputs"]}, cluster="", tags=(),
        )  # fmt: skip
        scores, _ = verify(verifiers(tools), "gold", trajectory, VerifierContext(frozen))
        failed = [s.name for s in scores if s.value != 1.0]
        if (not failed) == (row["reward"] == 1.0):
            count["episodes that agree"] += 1
            continue
        reason = why(row, trajectory, failed, not failed)
        count[f"differ: {reason}" if reason else "unexplained"] += 1
        where = {"task": task, "trial": row["trial"], "published": row["reward"], "ours": float(not failed)}
        different.append({**where, "failed": failed, "reason": reason})
    return dict(count), different


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AGENTGYM_DATA", ""))
    episodes = folder / "tau1_airline_gpt4o_trajectories.jsonl.gz"
    if not episodes.is_file():
        sys.exit(f"there is no {episodes}: name its folder, or set AGENTGYM_DATA to it")
    begun = time.process_time()
    rows, (db,) = read(episodes), read(folder / "tau1_airline_db.jsonl.gz")
    successes = collections.Counter(r["task_id"] for r in rows if r["reward"] == 1.0)
    trials = collections.Counter(r["task_id"] for r in rows)
    ours = [round(float(pass_hat_k(list(trials.values()), [successes[t] for t in trials], k).mean()), 3) for k in (1, 2, 3, 4)]
    print(json.dumps({"pass^k": ours, "published": PUBLISHED}), flush=True)
    count, different = examine(rows, db)
    for row in different:
        print(json.dumps(row))
    print(json.dumps({**count, "cpu_s": round(time.process_time() - begun, 1)}))
    return int(ours != PUBLISHED or "unexplained" in count)


def _hash(row: dict[str, Any]) -> str | None:
    info = (row["info"].get("reward_info") or {}).get("info") or {}
    found: str | None = info.get("gt_data_hash")
    return found


def _as_published(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it was when the episodes were played: an address had a ``province`` where it has a ``state`` now."""
    users = {}
    for name, user in state["users"].items():
        address = {"province" if k == "state" else k: v for k, v in user["address"].items()}
        users[name] = {**user, "address": address}
    return {**state, "users": users}


if __name__ == "__main__":
    sys.exit(main())
