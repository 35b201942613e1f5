# SPDX-License-Identifier: Apache-2.0
"""A run while it goes on: how fast, how much longer, what it costs, and what its gold is so far."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

from agentgym.records.run import Run

WINDOW = 200
"""Episodes over which the pace is taken: it follows a server that has become slower."""

_FEW = 300
"""Clusters up to which they are resampled; of more, the mean is normal enough."""


class Evidence(NamedTuple):
    """What ``agentgym eval --stop-early`` knows so far; its e-values may be looked at whenever one likes."""

    worse: float
    """Highest e-value for "it is worse", of the metric that is nearest to its bound."""
    worse_at: float
    """Where that stops the run."""
    fine: float
    """E-value for "not worse by its margin", of the metric that is farthest from its bound: all have to reach it."""
    fine_at: float
    clusters: int
    of: int
    baseline: str


class Live(NamedTuple):
    """How a run is doing."""

    done: int
    planned: int
    per_s: float | None
    """Episodes a second over the last `WINDOW`; None before there are two."""
    eta_s: float | None
    """Seconds to go at this pace; None where nothing is to be said, or nothing is left."""
    cost_usd: float
    gold: float | None
    low: float | None
    """95% interval of the mean gold, by clusters; None for too few of them."""
    high: float | None
    evidence: Evidence | None = None
    """Of a run that may be stopped early; None for others."""


def live(run: Run, now: float | None = None) -> Live:
    """How a run is doing; ``now`` is Unix time."""
    counting = run._counting()
    done = next(run._rows(f"SELECT count(*) FROM episodes WHERE {counting}"))[0]
    cost = next(run._rows("SELECT coalesce(sum(cost_usd), 0.0) FROM episodes"))[0]
    planned = run.planned
    per_s = _pace(run, time.time() if now is None else now)
    left = planned - done
    groups = list(
        run._rows(f"SELECT sum(gold), count(gold) FROM episodes WHERE gold IS NOT NULL AND {counting} GROUP BY family, cluster")
    )
    scored = sum(n for _, n in groups)
    gold = sum(s for s, _ in groups) / scored if scored else None
    low, high = _interval(groups, gold)
    return Live(done, planned, per_s, left / per_s if per_s and left > 0 else None, cost, gold, low, high, _evidence(run))


def _evidence(run: Run) -> Evidence | None:
    told: Any = run.meta.get("stop_early")
    try:
        metrics = list(told["metrics"].values())
        worst = max(metrics, key=lambda m: m["worse"] / m["worse_at"])
        least = min(metrics, key=lambda m: m["fine"] / m["fine_at"])
        return Evidence(
            float(worst["worse"]), float(worst["worse_at"]), float(least["fine"]), float(least["fine_at"]),
            int(told["clusters"]), int(told["of"]), str(told["baseline"]),
        )  # fmt: skip
    except (TypeError, KeyError, ValueError, AttributeError):  # none, or of another version
        return None


def _pace(run: Run, now: float) -> float | None:
    ends = [
        row[0]
        for row in run._rows("SELECT started_at + duration_s FROM episodes ORDER BY id DESC LIMIT ?", (WINDOW,))
        if row[0] is not None
    ]
    # until now, not until the last end: a run that hangs is seen to become slower
    span = max(now, *ends) - min(ends) if len(ends) > 1 else 0.0
    return (len(ends) - 1) / span if span > 0 else None


def _interval(groups: list[tuple[float, int]], gold: float | None) -> tuple[float | None, float | None]:
    import numpy as np

    from agentgym.stats.cluster import FEWEST, cluster_interval

    if gold is None or len(groups) < FEWEST:
        return None, None
    table = np.array(groups, dtype=float)
    if len(table) <= _FEW:
        found = cluster_interval(table, lambda s: s[:, 0] / s[:, 1])
        return (None, None) if found is None else (max(0.0, found.low), min(1.0, found.high))
    n = len(table)
    rest = table[:, 0] - gold * table[:, 1]
    half = 1.959964 * math.sqrt(n / (n - 1) * float(rest @ rest)) / float(table[:, 1].sum())
    return max(0.0, gold - half), min(1.0, gold + half)
