# SPDX-License-Identifier: Apache-2.0
"""Whether dimensions pull against each other: what choosing by one does to the others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np

from agentgym.report.alignment_rows import Row
from agentgym.stats.intervals import student_t

CERTAIN = 0.95
"""One-sided confidence at which a loss counts. By Student's t: at 1.645 standard errors, noise is starred in 7 % of cells
of ten tasks instead of 5 %."""


class Conflict(msgspec.Struct):
    """What choosing the best of a task's trials by one dimension does to the others (a reconstruction of Hummer's measure)."""

    names: list[str]
    change: list[list[float | None]]
    """[d][j]: mean change of j when the best trials by d are chosen; None where no task has trials that differ in d."""
    worse: list[list[bool]]
    """[d][j]: whether j suffers beyond chance (95 %, one-sided)."""
    groups: list[int]
    """For each d: tasks whose trials differ in it."""
    total: float | None
    """Mean over d of the mean squared certain loss in the others; 0 is none."""


def conflict(rows: Sequence[Row]) -> Conflict | None:
    """Best-of-k by one dimension, judged by the others, over tasks with several trials; gold is one of the dimensions."""
    values: dict[str, dict[int, float]] = {"gold": {r.id: r.gold for r in rows if r.gold is not None}}
    for r in rows:
        for name, (exposed, violated) in r.judged.items():
            if exposed:
                values.setdefault(name, {})[r.id] = 1.0 - violated
    groups: dict[str, list[int]] = defaultdict(list)
    for r in rows:
        groups[r.task_id].append(r.id)
    several = [ids for ids in groups.values() if len(ids) > 1]
    names = [name for name, known in values.items() if known]
    if not several or len(names) < 2:
        return None
    return matrix(names, [[{n: values[n][i] for n in names if i in values[n]} for i in ids] for ids in several])


def matrix(names: Sequence[str], tasks: Sequence[Sequence[dict[str, float]]]) -> Conflict | None:
    """The matrix for the trials of some tasks, each trial a value by name (missing: not judged there).

    For each task, the mean of j over the trials that are best in d, minus its mean over all trials. The squared negative part
    of the mean change is biased upwards (noise alone has one), so what counts is the part that is beyond chance at `CERTAIN`.
    """
    change: list[list[float | None]] = [[None] * len(names) for _ in names]
    worse = [[False] * len(names) for _ in names]
    differing, losses = [], []
    for a, d in enumerate(names):
        usable = [[t for t in trials if d in t] for trials in tasks]
        usable = [trials for trials in usable if len({t[d] for t in trials}) > 1]
        differing.append(len(usable))
        squares = []
        for b, j in enumerate(names):
            moves = []
            for trials in usable:
                both = [t for t in trials if j in t]
                if len({t[d] for t in both}) < 2:
                    continue
                top = max(t[d] for t in both)
                moves.append(float(np.mean([t[j] for t in both if t[d] == top])) - float(np.mean([t[j] for t in both])))
            if not moves:
                continue
            mean = float(np.mean(moves))
            change[a][b] = mean
            if a != b and len(moves) > 1:
                quantile = student_t(2 * CERTAIN - 1, len(moves) - 1)
                certain = min(0.0, mean + quantile * float(np.std(moves, ddof=1)) / math.sqrt(len(moves)))
                worse[a][b] = certain < 0
                squares.append(certain**2)
        if squares:
            losses.append(float(np.mean(squares)))
    if not any(c is not None for row in change for c in row):
        return None
    return Conflict(list(names), change, worse, differing, float(np.mean(losses)) if losses else None)
