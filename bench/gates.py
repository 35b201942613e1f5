# SPDX-License-Identifier: Apache-2.0
"""Gates on the same simulated runs: how often each fails an unchanged agent, and how often it finds a worse one.

Tasks succeed with chances from Beta(1.2, 0.6), squeezed to its middle by as much as effects of families may move them. The
candidate's chances are moved by ``shift``, and in designs with an effect of
families by a further amount each family has to itself (mean zero). Each pair of runs goes through every gate:

==============  ======================================================================================================
any flip        fails where a trial that succeeded in the baseline does not in the candidate
2 points        fails where the mean falls by more than .02; ``5 points``: by more than .05
unpaired z      fails where a two-sample z test of all trials rejects "not worse" at 5 %
McNemar         fails where the exact test of (task, trial) pairs does
task t          fails where a paired t test of task means does
ours            fails where `agentgym.gate.decide` says REGRESSION; the margin is the design's
==============  ======================================================================================================

    python bench/gates.py                # small: shows the order of things
    python bench/gates.py --full         # 2,000 pairs a line; ends with 1 if ours fails more often than alpha + 3 se
    python bench/gates.py --rows 100000  # only the CPU time of one gate of so many rows
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from agentgym.gate.decide import decide
from agentgym.gate.rows import Origin, Rows, columns
from agentgym.gate.rules import MetricRule, Rules, for_rows
from agentgym.stats.eprocess import paths
from agentgym.stats.paired import mcnemar_p, t_cdf

ALPHA = 0.05
TODAY = datetime.date(2026, 1, 1)


class Design(NamedTuple):
    """A suite, and how a change strikes it."""

    families: int
    tasks: int
    trials: int
    margin: float
    family_sd: float = 0.0
    by_hand: bool = False
    cached: float = 0.0
    """Share of the candidate's trials that are the baseline's, replayed."""
    baseline: int = 1
    """Baseline trials for each of the candidate's."""

    def __str__(self) -> str:
        text = f"{self.families}x{self.tasks}x{self.trials}, margin {self.margin:g}"
        text += ", each task a cluster" if self.by_hand else f", family sd {self.family_sd:g}"
        text += f", {self.cached:.0%} cached" if self.cached else ""
        return text + (f", {self.baseline}x baseline" if self.baseline > 1 else "")


DESIGNS = (
    Design(1, 60, 1, 0.05, by_hand=True),
    Design(1, 60, 4, 0.05, by_hand=True),
    Design(1, 120, 4, 0.05, by_hand=True),
    Design(1, 120, 8, 0.05, by_hand=True),
    Design(1, 300, 4, 0.05, by_hand=True),
    Design(10, 6, 4, 0.05, 0.03),
    Design(20, 15, 4, 0.05, 0.03),
    Design(30, 3, 4, 0.10, 0.03),
    Design(30, 10, 8, 0.03, 0.03),
    Design(20, 15, 4, 0.05, 0.0),
    Design(20, 15, 4, 0.05, 0.08),
    Design(10, 30, 4, 0.05, 0.0),
    Design(10, 30, 4, 0.05, 0.03, cached=0.4),
    Design(20, 15, 4, 0.05, 0.03, baseline=4),
)
SHIFTS = (0.0, -0.02, -0.05, -0.10)


def frame(design: Design, trials: int) -> Rows:
    family = np.repeat([f"f{i:03}" for i in range(design.families)], design.tasks * trials).tolist()
    task = [f"{f}/{i // trials % design.tasks}" for i, f in enumerate(family)]
    n = len(task)
    return columns(
        Origin(),
        task=task,
        trial=np.tile(np.arange(trials), n // trials),
        metrics={"gold": np.zeros(n)},
        family="" if design.by_hand else family,
        cluster="" if design.by_hand else family,
    )


def line(design: Design, shift: float, runs: int, seed: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    n, k, kb = design.families * design.tasks, design.trials, design.trials * design.baseline
    before_rows, after_rows = frame(design, kb), frame(design, k)
    cached = (np.tile(np.arange(k), n) + 0.5) / k < design.cached
    after_rows = msgspec.structs.replace(after_rows, cached=cached)
    rules = for_rows(Rules(alpha=ALPHA, metrics={"gold": MetricRule(margin=design.margin)}), before_rows, after_rows)
    of_family = np.repeat(np.arange(design.families), design.tasks)
    fails: Counter[str] = Counter()
    ours: Counter[str] = Counter()
    for _ in range(runs):
        # effects that 0 and 1 cut off would not have mean zero, and an "unchanged" agent would be worse
        edge = 2.5 * design.family_sd
        p = edge + (1 - 2 * edge) * rng.beta(1.2, 0.6, n)
        effect = shift + (rng.normal(0, design.family_sd, design.families)[of_family] if design.family_sd else 0.0)
        before = (rng.random((n, kb)) < p[:, None]).astype(float)
        after = (rng.random((n, k)) < np.clip(p + effect, 0, 1)[:, None]).astype(float)
        after = np.where(cached.reshape(n, k), before[:, :k], after)
        for name, failed in others(before, after).items():
            fails[name] += failed
        verdict = decide(
            msgspec.structs.replace(before_rows, metrics={"gold": before.ravel()}),
            msgspec.structs.replace(after_rows, metrics={"gold": after.ravel()}),
            rules,
            today=TODAY,
        )
        ours[verdict.outcome] += 1
    fails["ours"] = ours["regression"]
    common = {"design": str(design), "shift": shift, "runs": runs}
    out: list[dict[str, object]] = [{**common, "gate": g, "fail": fails[g] / runs} for g in (*NAMES, "ours")]
    passed = (ours["pass"] + ours["tolerated"]) / runs
    out[-1] |= {"pass": passed, "tolerated": ours["tolerated"] / runs, "inconclusive": ours["inconclusive"] / runs}
    if shift == 0.0:
        out[-1] |= {"limit": round(ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs), 4)}
    return out


NAMES = ("any flip", "2 points", "5 points", "unpaired z", "McNemar", "task t")


def others(before: np.ndarray, after: np.ndarray) -> dict[str, bool]:
    k = min(before.shape[1], after.shape[1])
    worse = int((after[:, :k] < before[:, :k]).sum())
    better = int((after[:, :k] > before[:, :k]).sum())
    b, c = before.mean(), after.mean()
    pooled = (before.sum() + after.sum()) / (before.size + after.size)
    se = math.sqrt(pooled * (1 - pooled) * (1 / before.size + 1 / after.size))
    d = after.mean(axis=1) - before.mean(axis=1)
    sem = d.std(ddof=1) / math.sqrt(len(d))
    return {
        "any flip": worse > 0,
        "2 points": c < b - 0.02,
        "5 points": c < b - 0.05,
        "unpaired z": se > 0 and t_cdf((c - b) / se, math.inf) <= ALPHA,
        "McNemar": mcnemar_p(worse, better) <= ALPHA,
        "task t": sem > 0 and t_cdf(d.mean() / sem, len(d) - 1.0) <= ALPHA,
    }


def sequential(shift: float, runs: int, seed: int, trials: int = 4, tasks: int = 400, batch: int = 20) -> dict[str, object]:
    """The e-processes of an eval that is looked at after every batch, beside a t test that is looked at as often."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.2, 0.6, (runs, tasks))
    d = (rng.binomial(trials, np.clip(p + shift, 0, 1)) - rng.binomial(trials, p)) / trials
    looks = np.arange(batch, tasks + 1, batch) - 1
    wall = math.log(1 / (0.4 * ALPHA))
    failed = np.maximum.accumulate(paths(-d, 0.0), axis=1)[:, looks] >= wall
    passed = np.maximum.accumulate(paths(d, -0.05), axis=1)[:, looks] >= wall
    count = np.arange(1, tasks + 1)
    mean = np.cumsum(d, axis=1) / count
    var = np.maximum(np.cumsum(d**2, axis=1) / count - mean**2, 0) * count / np.maximum(count - 1, 1)
    t = (mean / np.sqrt(np.maximum(var / count, 1e-12)))[:, looks]
    stop = np.where((failed | passed).any(axis=1), (failed | passed).argmax(axis=1), len(looks) - 1)
    first = np.arange(runs), stop
    return {
        "sequential": f"{tasks} tasks x {trials}, looked at after every {batch}",
        "shift": shift,
        "runs": runs,
        "fail": float(failed[first].mean()),
        "pass": float((passed[first] & ~failed[first]).mean()),
        "mean tasks played": float((looks[stop] + 1).mean()),
        "t test looked at as often, fail": float((t < -1.65).any(axis=1).mean()),
    }


def timing(rows: int, command: bool) -> dict[str, object]:
    """CPU seconds of one gate: of the decision alone, and of the whole command on two CSV files."""
    design = Design(50, rows // 200, 4, 0.05)
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 0.6, rows // 4)
    made = [
        msgspec.structs.replace(frame(design, 4), metrics={"gold": (rng.random(rows) < np.repeat(p, 4)).astype(float)})
        for _ in range(2)
    ]
    rules = for_rows(Rules(), *made)
    start = time.process_time()
    decide(*made, rules, today=TODAY)
    found: dict[str, object] = {"rows": rows, "decide, first time, CPU s": round(time.process_time() - start, 3)}
    start = time.process_time()
    decide(*made, rules, today=TODAY)
    found["decide, CPU s"] = round(time.process_time() - start, 3)
    if command:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("baseline.csv", "candidate.csv")]
            for path, arm in zip(files, made, strict=True):
                lines = (
                    f"{arm.task.at(i)},{t},{g:g},{arm.cluster.at(i)}"
                    for i, (t, g) in enumerate(zip(arm.trial.tolist(), arm.metrics["gold"].tolist(), strict=True))
                )
                path.write_text("\n".join(("task,trial,score,cluster", *lines)) + "\n")
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-m", "agentgym", "gate", str(files[1]), "--baseline", str(files[0])],
                capture_output=True,
                text=True,
                check=False,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found |= {"agentgym gate, CPU s": round(spent, 3), "exit code": done.returncode}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all designs, 2,000 pairs a line (some ten minutes of CPU)")
    parser.add_argument("--runs", type=int, help="pairs a line")
    parser.add_argument("--rows", type=int, help="only the CPU time of a gate of so many rows")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.rows:
        print(json.dumps(timing(args.rows, command=True)))
        return 0
    runs = args.runs or (2000 if args.full else 100)
    bad = []
    for i, design in enumerate(DESIGNS if args.full else DESIGNS[1:10:2]):
        for j, shift in enumerate(SHIFTS if args.full else (0.0, -0.10)):
            for found in line(design, shift, runs, args.seed + 100 * i + j):
                print(json.dumps(found), flush=True)
                if isinstance(limit := found.get("limit"), float) and isinstance(rate := found["fail"], float) and rate > limit:
                    bad.append(str(found["design"]))
    for j, shift in enumerate((0.0, -0.05, -0.10, -0.20)):
        print(json.dumps(sequential(shift, runs, args.seed + j)), flush=True)
    print(json.dumps(timing(100_000, command=True)))
    if bad:
        print(f"ours failed unchanged agents more often than alpha + 3 standard errors: {bad}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
