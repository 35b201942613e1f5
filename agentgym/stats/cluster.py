# SPDX-License-Identifier: Apache-2.0
"""Intervals of any statistic of sums, with whole clusters of tasks as the units that were drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.stats.intervals import student_t

Floats = NDArray[np.float64]

DRAWS = 2000
"""Resamples, from a fixed seed."""

MANY = 20
"""Clusters from which on they are resampled; fewer do not show the tails of what else might have been drawn."""

FEWEST = 5
"""Clusters below which nothing is said of others like them."""


class Interval(NamedTuple):
    """Bounds, and how they were found."""

    low: float
    high: float
    method: Literal["bootstrap", "t"]


def cluster_interval(
    table: Floats, statistic: Callable[[Floats], Floats], confidence: float = 0.95, draws: int = DRAWS
) -> Interval | None:
    """Interval of a statistic of column sums, by clusters.

    From `MANY` clusters on: percentiles of the statistic over resamples of whole clusters (Field and Welsh 2007, JRSS B 69).
    Fewer: Student's t on the jackknife's pseudo-values (Tukey 1958, Annals of Mathematical Statistics 29), one a cluster, which
    for a mean of equally large clusters is the t interval of the clusters' means.

    Args:
        table: a row a cluster, columns of sums and counts.
        statistic: rows of column sums -> a number for each; NaN where it does not exist.
        confidence: nominal coverage.
        draws: resamples.

    Returns:
        None for fewer than `FEWEST` clusters, or where the clusters do not differ (all alike tells nothing of the next), or
        where the statistic does not exist for more than one resample in twenty.

    >>> tables = np.array([[0.0, 2], [1, 2], [1, 2], [2, 2], [0, 2], [1, 2]])
    >>> found = cluster_interval(tables, lambda s: s[:, 0] / s[:, 1])
    >>> found.method, round(found.low, 2), round(found.high, 2)
    ('t', 0.02, 0.81)
    """
    n = len(table)
    if n < FEWEST:
        return None
    total = table.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(total)[0])
        if n >= MANY:
            weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
            values = statistic(weights @ table)
            values = values[np.isfinite(values)]
            if len(values) < 0.95 * draws or float(np.ptp(values)) <= 1e-12:
                return None
            low, high = np.percentile(values, [50 * (1 - confidence), 50 * (1 + confidence)])
            return Interval(float(low), float(high), "bootstrap")
        pseudo = n * value - (n - 1) * statistic(total - table)
    if not math.isfinite(value) or not np.isfinite(pseudo).all():
        return None
    error = float(pseudo.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12:
        return None
    half = student_t(confidence, n - 1) * error
    return Interval(float(pseudo.mean()) - half, float(pseudo.mean()) + half, "t")
