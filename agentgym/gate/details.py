# SPDX-License-Identifier: Apache-2.0
"""What a verdict tells besides its outcome: every task, those that turned over, the steps to look at, and lines of text."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from agentgym.gate.pairing import Arms, metric_values
from agentgym.gate.rows import INFRASTRUCTURE, OK, SKIPPED, UNSCORABLE, VIOLATIONS, Bools, Rows
from agentgym.gate.rules import Rules
from agentgym.gate.verdict import Arm, Flagged, Flip, Flips, MetricResult, TaskResult

WORST = 20
"""Flips that a verdict names."""
FLAGGED = 1000
"""Flagged steps that a verdict names: SARIF readers take no more than some thousands."""


def task_results(a: Arms, metric: str, rules: Rules, keep: Bools, quarantined: Bools) -> tuple[tuple[TaskResult, ...], Flips]:
    """Every task of either arm, and those whose result turned over, by the first metric that decides."""
    everything = np.ones(len(a.names), dtype=np.bool_)
    values = metric_values(
        a, metric, everything, (np.ones(len(a.b_task), dtype=np.bool_), np.ones(len(a.c_task), dtype=np.bool_))
    )
    rule = rules.metrics.get(metric)
    sign = -1.0 if rule is not None and rule.direction == "lower" else 1.0
    both = values.both() & keep
    share = both & (np.nan_to_num(values.baseline, nan=2.0) <= 1.0) & (np.nan_to_num(values.candidate, nan=2.0) <= 1.0)
    b, c = sign * (values.baseline - 0.5), sign * (values.candidate - 0.5)
    harmful, beneficial = share & (b > 0) & (c < 0), share & (b < 0) & (c > 0)
    status = _status(a, quarantined)
    outcome = np.where(status == "ok", np.where(harmful, "worse", "ok"), status).tolist()
    families = a.of_task("family")
    before, after = values.baseline.tolist(), values.candidate.tolist()
    c_rows, addresses, sources = a.c_first.tolist(), a.candidate.address, a.candidate.source
    tasks = tuple(
        TaskResult(
            task=name,
            family=families.at(i),
            outcome=outcome[i],
            baseline=None if math.isnan(before[i]) else before[i],
            candidate=None if math.isnan(after[i]) else after[i],
            address=addresses.at(c_rows[i]) if c_rows[i] >= 0 else "",
            source=sources.at(c_rows[i]) if c_rows[i] >= 0 else "",
        )
        for i, name in enumerate(a.names)
    )
    fall = np.where(harmful, sign * (values.candidate - values.baseline), 0.0)
    worst = [int(i) for i in np.argsort(fall, kind="stable")[:WORST] if harmful[i]]
    n, bad, good = int(share.sum()), int(harmful.sum()), int(beneficial.sum())
    flips = Flips(
        harmful=bad,
        beneficial=good,
        churn=(bad + good) / n if n else 0.0,
        tasks=n,
        worst=tuple(
            Flip(
                task=a.names[i],
                metric=metric,
                baseline=before[i],
                candidate=after[i],
                harmful=True,
                family=families.at(i),
                address=tasks[i].address,
                source=tasks[i].source,
            )
            for i in worst
        ),
    )
    return tasks, flips


def _status(a: Arms, quarantined: Bools) -> np.ndarray[tuple[int, ...], np.dtype[np.str_]]:
    """``ok`` where any trial was scored, else why none was."""
    n = len(a.names)
    status = np.full(n, "missing", dtype="<U14")
    for code, name in ((SKIPPED, "skipped"), (UNSCORABLE, "unscorable"), (INFRASTRUCTURE, "infrastructure"), (OK, "ok")):
        status[a.c_task[a.candidate.status == code]] = name
    status[(a.b_first < 0) & (status == "ok")] = "new"
    status[quarantined] = "quarantined"
    return status


def flagged(a: Arms, rules: Rules) -> tuple[Flagged, ...]:
    """The candidate's violations, invariants first; a dimension whose rules are known by name is told by rule."""
    found: list[Flagged] = []
    rows = a.candidate
    for name, exposure in rows.exposures.items():
        if "/" not in name and any(other.startswith(name + "/") for other in rows.exposures):
            continue
        dimension = name.split("/", 1)[0]
        kinds = {r.kind for m in (VIOLATIONS + name, VIOLATIONS + dimension) if (r := rules.metrics.get(m)) is not None}
        before = a.baseline.exposures.get(name)
        had = set() if before is None else set(a.b_task[before.violations > 0].tolist())
        level: Literal["error", "warning", "note"]
        level = "error" if "invariant" in kinds else "warning" if "measured" in kinds else "note"
        for i in np.flatnonzero(exposure.violations > 0)[:FLAGGED].tolist():
            known = int(a.c_task[i]) in had
            found.append(
                Flagged(
                    address=rows.address.at(i),
                    rule=name,
                    text=f"{name} violated{', as in the baseline' if known else ''}",
                    task=rows.task.at(i),
                    source=rows.source.at(i),
                    known=known,
                    level=level,
                )
            )
    order = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda f: (order[f.level], f.known))
    return tuple(found[:FLAGGED])


def describe(r: MetricResult) -> str:
    """One comparison in a line: ``gold 0.820 -> 0.610 (-0.210, 90% [-0.290, -0.130], margin 0.1), 24 clusters, 96 tasks``."""
    what = " ".join(part for part in (r.metric, r.contrast, f"in {r.family}" if r.family else "") if part)
    if r.baseline is None or r.candidate is None or r.diff is None:
        return f"{what}: {r.reason}"
    interval = ""
    if r.low is not None and r.high is not None:
        interval = f", {r.confidence:.0%} [{r.low:+.3f}, {r.high:+.3f}]"
    units = f"{r.clusters} clusters, {r.tasks} tasks" if r.clusters != r.tasks else f"{r.tasks} tasks"
    text = f"{what} {r.baseline:.3f} -> {r.candidate:.3f} ({r.diff:+.3f}{interval}, margin {r.margin:g}), {units}"
    if r.reason:
        text += f"; {r.reason}"
    if r.needed is not None and r.outcome == "inconclusive":
        text += f" (about {r.needed} clusters at this spread)"
    return text


def arm(rows: Rows) -> Arm:
    """One side of the comparison, counted."""
    planned = rows.origin.planned
    return Arm(
        name=rows.origin.name,
        models=rows.origin.models,
        tasks=rows.tasks,
        clusters=rows.clusters,
        trials=rows.trials,
        rows=len(rows),
        infrastructure=int((rows.status == INFRASTRUCTURE).sum()),
        unscorable=int((rows.status == UNSCORABLE).sum()),
        skipped=int((rows.status == SKIPPED).sum()),
        missing=max(0, planned - len(rows)) if planned is not None else 0,
        cached=float(rows.cached.mean()) if len(rows) else 0.0,
    )
