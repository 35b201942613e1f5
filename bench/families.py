# SPDX-License-Identifier: Apache-2.0
"""What the harness and a family's own world cost: the honest oracle in every variant, everything recorded and judged.

CPU seconds of this process. Imports and what a family makes once in a process are paid before, by a few episodes
that are not counted: they belong to `bench/startup.py`. Prints one JSON line for each family.

    python bench/families.py
    python bench/families.py tools.hr hack.keyword --episodes 2000
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import agentgym
from agentgym.registry import env_class, families

GROUPS = ("math", "tools", "hack")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="every family of math, tools and hack where none is named")
    parser.add_argument("--episodes", type=int, default=1000, help="of each family, spread over its variants")
    parser.add_argument("--trials", type=int, default=1, help="of each task; 1: a task is drawn for every episode")
    parser.add_argument("--variants", nargs="*", help="instead of all that a family has")
    parser.add_argument("--policy", default="oracle:honest")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    named = args.families or [f for f in families() if f.partition(".")[0] in GROUPS]
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    try:
        for family in named:
            variants = args.variants or env_class(family).variants
            play(family, variants, 3, args, folder).close()
            profiler = None
            if args.profile:
                import cProfile

                profiler = cProfile.Profile()
                profiler.enable()
            cpu = time.process_time()
            run = play(family, variants, -(-args.episodes // (len(variants) * args.trials)), args, folder)
            cpu = time.process_time() - cpu
            if profiler is not None:
                profiler.disable()
                import pstats

                pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
            with run:
                episodes = list(run.episodes())
                size = sum(f.stat().st_size for f in run.path.iterdir())
            assert all(e.outcome == "terminated" for e in episodes), family
            turns = sum(e.turns for e in episodes)
            print(
                json.dumps(
                    {
                        "bench": "families",
                        "family": family,
                        "variants": len(variants),
                        "trials": args.trials,
                        "episodes": len(episodes),
                        "turns": turns,
                        "turns_per_cpu_s": round(turns / cpu),
                        "cpu_us_per_episode": round(cpu * 1e6 / len(episodes)),
                        "bytes_per_episode": round(size / len(episodes)),
                    }
                ),
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(family: str, variants: Any, limit: int, args: argparse.Namespace, folder: Path) -> Any:
    """So many tasks of each variant through the public API, into a run of their own."""
    return agentgym.evaluate(
        family,
        args.policy,
        variants=list(variants),
        limit=limit,
        trials=args.trials,
        concurrency=args.concurrency,
        runs=folder,
    )


if __name__ == "__main__":
    main()
