# SPDX-License-Identifier: Apache-2.0
"""A process that plays a run and says what it does, for tests that kill it, fill its disk or read beside it.

    python -m tests.records.player RUNS --episodes 1000 [--resume] [--most-bytes N]

It prints a line for each thing: ``run PATH``; ``play TASK TRIAL`` when an episode begins; ``ack TASK TRIAL`` once the
commit that holds it has returned; ``have TASK TRIAL`` (with ``--list``) for what is on record; ``error TEXT`` or ``end``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
from pathlib import Path
from typing import Any

from agentgym.errors import AgentGymError
from agentgym.protocols import EpisodeContext
from agentgym.records.run import find_run, open_run
from agentgym.records.store import EpisodeRecord, RunWriter
from agentgym.rollout.evaluate import prepare, resume, start
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice
from tests.envs import Guess
from tests.rollout.playing import Told


def say(*lines: str) -> None:
    """Writes whole lines at once, past Python's buffers: what was said before a kill is heard after it."""
    os.write(1, "".join(f"{line}\n" for line in lines).encode())


async def answer(context: EpisodeContext, turn: int) -> str:
    if turn == 0:
        say(f"play {context.task_id} {context.trial}")
    await asyncio.sleep(0)
    return "x" * 50 if turn == 0 else "12"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--most-bytes", type=int)
    args = parser.parse_args()

    if args.list:
        with open_run("latest", args.runs) as run:
            say(*(f"have {e.task_id} {e.trial}" for e in run.episodes() if e.trajectory.turns))
        return 0
    if args.most_bytes:
        # a write beyond it fails with EFBIG, as one on a full disk fails with ENOSPC
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.most_bytes, resource.RLIM_INFINITY))
    add, flush = RunWriter.add, RunWriter.flush
    waiting: list[str] = []

    def adding(writer: RunWriter, record: EpisodeRecord) -> None:
        add(writer, record)
        waiting.append(f"ack {record.trajectory.task_id} {record.trajectory.trial}")

    def acknowledging(writer: RunWriter) -> int:
        count = flush(writer)
        assert count == len(waiting)
        say(*waiting)
        waiting.clear()
        return count

    RunWriter.add = adding  # type: ignore[method-assign]
    RunWriter.flush = acknowledging  # type: ignore[method-assign]
    policy = Told(answer)

    def begun(scheduler: Any, path: Path) -> None:
        say(f"run {path}")

    try:
        if args.resume:
            asyncio.run(resume(find_run("latest", args.runs), policy, on_start=begun))
        else:
            plan, options = prepare(Guess, Choice(limit=args.episodes), Options(concurrency=16))
            asyncio.run(start(plan, policy, options, model="told", root=args.runs, on_start=begun))
    except AgentGymError as e:
        say(f"error {type(e).__name__}: {e}")
        return 12
    say("end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
