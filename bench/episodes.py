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

from bank import Bank

import agentgym
from agentgym import call, submit
from agentgym.policies.oracle import ScriptedPolicy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    script = [call("deposit", account="a1", cents=1)] * (args.turns - 1) + [submit(status="done")]
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    profiler = None
    if args.profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    try:
        before, wall = time.process_time(), time.perf_counter()
        run = agentgym.evaluate(
            Bank,
            ScriptedPolicy(script),
            params={"turns": args.turns},
            limit=args.episodes,
            concurrency=args.concurrency,
            runs=folder,
        )
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
