# SPDX-License-Identifier: Apache-2.0
"""What it costs to start: CPU seconds of fresh processes, from the first instruction to the last or to the first score.

Prints one JSON line per measurement: the median over several processes, the least of them, and the bar.

    python bench/startup.py --processes 9
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Plays a scripted run and stops the clock when the first score is on disk: what a person waits for.
FIRST_SCORE = """
import resource, sys
from agentgym.cli import main
from agentgym.rollout import scheduler

commit = scheduler.Scheduler._commit

def told(self):
    commit(self)
    if self.progress.total.gold_count:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, file=sys.stderr)
        scheduler.Scheduler._commit = commit

scheduler.Scheduler._commit = told
sys.exit(main.main(["eval", "math.add", "--model", "oracle:honest", "--runs", sys.argv[1], "-q"]))
"""


def cpu_s(argv: list[str]) -> float:
    """CPU seconds, user and system, of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_score_s(runs: Path) -> float:
    """CPU seconds from the start of a process to the first score on record, read from its own clock."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_SCORE, str(runs)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    return float(done.stderr.split()[0])


def report(name: str, values: list[float], bar: float | None) -> None:
    line = {
        "bench": "startup",
        "what": name,
        "cpu_s": round(statistics.median(values), 4),
        "least": round(min(values), 4),
        "processes": len(values),
        "bar": bar,
    }
    if bar is not None:
        line["within"] = line["cpu_s"] <= bar
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=9, help="processes per measurement")
    args = parser.parse_args()
    python = [sys.executable, "-c"]
    agentgym = [sys.executable, "-m", "agentgym"]
    with tempfile.TemporaryDirectory(prefix="agentgym-bench-") as folder:
        os.environ["AGENTGYM_RUNS"] = os.path.join(folder, "runs")
        # compiled once, as an installation is, whatever the settings and the owner of the source tree
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(folder, "compiled")
        subprocess.run([*agentgym, "eval", "smoke", "--model", "oracle:honest", "-q"], check=True)
        commands = {
            "python -c pass": [*python, "pass"],
            "import gymnasium": [*python, "import gymnasium"],
            "import gymnasium, agentgym": [*python, "import gymnasium, agentgym"],
            "import agentgym": [*python, "import agentgym"],
            "agentgym --help": [*agentgym, "--help"],
            "agentgym doctor": [*agentgym, "doctor"],
            "agentgym list tasks": [*agentgym, "list", "tasks"],
            "agentgym list runs": [*agentgym, "list", "runs"],
            "agentgym show latest": [*agentgym, "show", "latest"],
        }
        taken: dict[str, list[float]] = {name: [] for name in (*commands, "first score of a scripted run")}
        for argv in commands.values():
            cpu_s(argv)
        for _ in range(args.processes):  # in turns, so that a machine that gets busy meanwhile is busy for all of them
            for name, argv in commands.items():
                taken[name].append(cpu_s(argv))
            taken["first score of a scripted run"].append(first_score_s(Path(folder, "scores")))
    beyond = [b - a for a, b in zip(taken["import gymnasium"], taken["import gymnasium, agentgym"], strict=True)]
    bars = {"agentgym --help": 0.3, "agentgym doctor": 0.5, "first score of a scripted run": 0.7}
    for name, values in taken.items():
        report(name, values, bars.get(name))
    report("import agentgym beyond import gymnasium", beyond, 0.08)


if __name__ == "__main__":
    main()
