# SPDX-License-Identifier: Apache-2.0
"""What a turn of a sandboxed episode costs: the honest oracle through the public API, everything recorded and judged.

CPU seconds of this process, the sandbox helper and all that ran inside. Prints one JSON line for each family.

    python bench/code_episodes.py --episodes 100
    python bench/code_episodes.py code.func --episodes 50
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from sandbox import used_s

import agentgym
from agentgym.sandbox.shared import close_shared, shared_backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=["code.func", "term.shell"])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    try:
        for family in args.families:
            shared_backend().create().close()  # the helper has started and imported its packages
            launcher = getattr(shared_backend(), "launcher", None)
            pid = launcher().process.pid if launcher is not None else None
            cpu, wall = used_s(pid), time.perf_counter()
            run = agentgym.evaluate(family, "oracle:honest", limit=args.episodes, concurrency=args.concurrency, runs=folder)
            cpu, wall = used_s(pid) - cpu, time.perf_counter() - wall
            with run:
                episodes = list(run.episodes())
                assert all(e.gold == 1.0 for e in episodes)
                turns = sum(e.turns for e in episodes)
            print(
                json.dumps(
                    {
                        "bench": "code",
                        "family": family,
                        "episodes": len(episodes),
                        "turns": turns,
                        "turns_per_cpu_s": round(turns / cpu, 1),
                        "cpu_ms_per_episode": round(cpu * 1000 / len(episodes), 1),
                        "wall_s": round(wall, 2),
                    }
                )
            )
    finally:
        close_shared()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
