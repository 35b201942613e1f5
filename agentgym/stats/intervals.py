# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals for small samples, without SciPy, whose import costs more than a whole scripted run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def _upper_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p)."""
    if k <= 0:
        return 1.0
    if p <= 0.0 or p >= 1.0:
        return float(p >= 1.0)
    log_p, log_q = math.log(p), math.log1p(-p)
    log_n = math.lgamma(n + 1)
    terms = (
        math.exp(log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q) for i in range(k, n + 1)
    )
    return min(1.0, math.fsum(terms))


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval for a proportion: k successes in n independent trials.

    Clopper and Pearson (1934), Biometrika 26: the bounds are the p at which k or more, and k or fewer, successes have
    probability (1 - confidence) / 2. With k = 0 the upper bound is 1 - (alpha / 2)^(1/n), and the lower one 0.

    Args:
        k: successes, 0 <= k <= n.
        n: trials, at least 1.
        confidence: coverage; the real one is at least this.

    Raises:
        ValueError: k and n are not such numbers.

    >>> [round(x, 3) for x in clopper_pearson(5, 8)]
    [0.245, 0.915]
    >>> [round(x, 3) for x in clopper_pearson(0, 8)]
    [0.0, 0.369]
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} successes in {n} trials is not possible")
    tail = (1.0 - confidence) / 2.0

    def solve(successes: int, target: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):  # each step halves the bracket; 2^-50 is beyond what is printed
            middle = (low + high) / 2.0
            if _upper_tail(successes, n, middle) < target:
                low = middle
            else:
                high = middle
        return (low + high) / 2.0

    lower = 0.0 if k == 0 else solve(k, tail)
    upper = 1.0 if k == n else solve(k + 1, 1.0 - tail)
    return lower, upper


def bootstrap_mean(
    groups: Sequence[Sequence[float]], confidence: float = 0.95, draws: int = 2000
) -> tuple[float, float] | None:
    """Percentile interval of the mean over groups resampled whole (Efron 1979; clusters as units: Field and Welsh 2007).

    Args:
        groups: values by task; the trials of one task are not independent, so tasks are what is drawn.
        confidence: nominal coverage.
        draws: number of resamples, from a fixed seed: equal data gives an equal interval.

    Returns:
        lower and upper bound, or None for fewer than five groups, of which no resampling can tell the spread.
    """
    kept = [np.asarray(g, dtype=float) for g in groups if len(g)]
    if len(kept) < 5:
        return None
    sums = np.array([g.sum() for g in kept])
    counts = np.array([len(g) for g in kept], dtype=float)
    chosen = np.random.default_rng(0).integers(len(kept), size=(draws, len(kept)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    tail = (1.0 - confidence) / 2.0 * 100.0
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)
