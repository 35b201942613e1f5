# SPDX-License-Identifier: Apache-2.0
"""What the harness costs: scripted episodes through the public API, with everything on that a real run has on.

Each turn is one validated tool call that changes the state; every trajectory, state change, score and task is
committed to SQLite. Prints one JSON line.

    python bench/episodes.py --episodes 10000 --turns 5
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import agentgym
from agentgym import Task, ToolEnv, call, submit, tool, verifier
from agentgym.policies.oracle import ScriptedPolicy


class Account(msgspec.Struct):
    """An account with a balance and what was done to it."""

    owner: str
    balance: int = 0
    log: list[str] = []


@verifier
def balance_right(trajectory: Any, context: Any) -> bool:
    """Whether the balance is what was asked for."""
    return trajectory.state_after["balance"] == context.task.gold


class Bank(ToolEnv):
    """A bank account to which money is to be added step by step."""

    family = "bench.bank"
    gold = [balance_right]
    max_turns = 1000

    def new_task(self, rng: np.random.Generator) -> Task:
        """An account; the wanted balance is what the script will have added."""
        number = int(rng.integers(1_000_000))
        return Task(
            opening=f"Add 1 to account {number} until told to stop, then submit.", state=Account(f"a{number}"), gold=TURNS - 1
        )

    @tool(writes=True)
    def deposit(self, account: str, cents: int) -> str:
        """Adds money to the account.

        Args:
            account: its number
            cents: how much
        """
        self.state.balance += cents
        self.state.log.append(f"+{cents}")
        return f"balance {self.state.balance}"


TURNS = 5


def main() -> None:
    global TURNS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    TURNS = args.turns
    script = [call("deposit", account="a1", cents=1)] * (args.turns - 1) + [submit(status="done")]
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    profiler = None
    if args.profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    try:
        before, wall = time.process_time(), time.perf_counter()
        run = agentgym.evaluate(Bank, ScriptedPolicy(script), limit=args.episodes, concurrency=args.concurrency, runs=folder)
        cpu, wall = time.process_time() - before, time.perf_counter() - wall
        if profiler is not None:
            profiler.disable()
            import pstats

            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
        count, golds = 0, 0.0
        for episode in run.episodes():
            count += 1
            golds += episode.gold or 0.0
        assert count == golds == args.episodes, (count, golds)
        size = sum(f.stat().st_size for f in run.path.iterdir())
        turns = args.episodes * args.turns
        print(
            json.dumps(
                {
                    "bench": "episodes",
                    "episodes": args.episodes,
                    "turns": args.turns,
                    "concurrency": args.concurrency,
                    "turns_per_cpu_s": round(turns / cpu),
                    "cpu_s": round(cpu, 3),
                    "wall_s": round(wall, 3),
                    "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                    "bytes_per_episode": round(size / args.episodes),
                }
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
