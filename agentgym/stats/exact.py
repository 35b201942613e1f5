# SPDX-License-Identifier: Apache-2.0
"""Exact statements about counts: Fisher's test, and one-sided binomial bounds, also where trials are not independent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fisher_p(a: int, n: int, b: int, m: int, *, two_sided: bool = False) -> float:
    """Fisher's exact test of a out of n against b out of m: p of "the first share is not above the second".

    Fisher (1934), Statistical Methods for Research Workers, section 21.02. The two-sided p sums all tables that are no
    likelier than the one seen (as R and SciPy do). No trials in one arm: 1.

    >>> round(fisher_p(8, 10, 2, 10), 5), round(fisher_p(8, 10, 2, 10, two_sided=True), 5)
    (0.01151, 0.02301)
    """
    if not (0 <= a <= n and 0 <= b <= m):
        raise ValueError(f"{a} of {n} and {b} of {m} are not counts of parts and wholes")
    from scipy.special import gammaln

    k = a + b
    x = np.arange(max(0, k - m), min(k, n) + 1)

    def log_choose(total: int, part: NDArray[np.int64]) -> Floats:
        return np.asarray(gammaln(total + 1.0) - gammaln(part + 1.0) - gammaln(total - part + 1.0), dtype=float)

    log_p = log_choose(n, x) + log_choose(m, k - x)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    seen = a - int(x[0])
    chosen = p <= p[seen] * (1 + 1e-7) if two_sided else x >= a
    return min(1.0, float(p[chosen].sum()))


def upper_bound(k: float, n: float, alpha: float = 0.05) -> float:
    """The largest share at which k or fewer of n successes still have probability alpha: 1 - alpha^(1/n) for k = 0.

    One side of Clopper and Pearson (1934), Biometrika 26. k and n may be effective numbers, which need not be whole
    (`effective`): the bound is a quantile of a beta distribution, which interpolates between whole ones.

    >>> round(upper_bound(0, 59), 4)
    0.0495
    """
    from scipy.special import betaincinv

    if not 0 <= k <= n or n <= 0:
        raise ValueError(f"{k} successes in {n} trials is not possible")
    return 1.0 if k == n else float(betaincinv(k + 1.0, n - k, 1.0 - alpha))


def lower_bound(k: float, n: float, alpha: float = 0.05) -> float:
    """The smallest share at which k or more of n successes still have probability alpha; see `upper_bound`."""
    return 1.0 - upper_bound(n - k, n, alpha)


def effective(values: Floats, clusters: NDArray[np.int64]) -> tuple[float, float]:
    """(successes, trials) that independent trials would have had to tell as much: both divided by the design effect.

    Korn and Graubard (1998), Survey Methodology 24, 193-201: exact intervals for proportions from clustered samples. The
    design effect, variance with clusters over variance without, is not taken below 1. Where all values are equal it cannot
    be seen; then trials count as they are.

    Args:
        values: 0 or 1, one a trial.
        clusters: what trials of one unit (a task) share, whole numbers from 0.
    """
    n, k = len(values), float(values.sum())
    share = k / n if n else math.nan
    if n < 2 or share in (0.0, 1.0):
        return k, float(n)
    codes = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes).astype(float)
    units = len(sizes)
    if units < 2:
        return share, 1.0  # one task says as much as one trial does
    residual = np.bincount(codes, weights=values) - share * sizes
    variance = units / (units - 1) * float((residual**2).sum()) / n**2
    design = max(1.0, variance / (share * (1.0 - share) / (n - 1)))
    return k / design, n / design


def reachable(n: int, bound: float, alpha: float = 0.05, *, at_least: bool) -> bool:
    """Whether n flawless trials would prove a floor; 3 of 3 do not prove 90 %, 35 of 35 do not prove 92 %."""
    if n < 1:
        return False
    return lower_bound(n, n, alpha) >= bound if at_least else upper_bound(0, n, alpha) <= bound


def trials_for(bound: float, alpha: float = 0.05, *, at_least: bool) -> int | None:
    """Flawless trials that a floor takes: log(alpha) / log(1 - failures allowed); None if no number does (0 or 1)."""
    allowed = 1.0 - bound if at_least else bound
    if allowed <= 0.0:
        return None
    return 1 if allowed >= 1.0 else max(1, math.ceil(math.log(alpha) / math.log1p(-allowed) - 1e-9))
