# SPDX-License-Identifier: Apache-2.0
"""From bounds to an answer: is the candidate no worse than a margin, worse for sure, or is it not known yet."""

from __future__ import annotations

import math
from typing import Literal

from agentgym.stats.paired import FEW, Difference, t_quantile

Answer = Literal["pass", "tolerated", "regression", "inconclusive"]


def judge(difference: Difference, margin: float, alpha: float = 0.05, p_adjusted: float | None = None) -> Answer:
    """Non-inferiority with three outcomes, and a name for the overlap of two of them.

    ``pass`` if the lower bound lies above -margin (Blackwelder 1982, Controlled Clinical Trials 3); ``regression`` if it
    does not and the test of "not worse" rejects; ``tolerated`` if both: worse for sure, by less than the margin for sure.
    An interval that is a single point passes at -margin itself too: there nothing is left to be afraid of.

    Args:
        difference: from `paired_difference` at the same alpha.
        margin: largest accepted drop, at least 0.
        alpha: error rate.
        p_adjusted: the p-value after correction for other claims made beside this one; None: as it is. Passing needs no
            correction, since every metric has to pass: an intersection-union test (Berger 1982, Technometrics 24).
    """
    p = difference.p_worse if p_adjusted is None else p_adjusted
    worse = difference.clusters >= FEW and difference.mean < 0 and p <= alpha  # a p-value that is NaN is below nothing
    point = difference.method == "constant"
    passes = difference.low > -margin or (point and difference.low >= -margin - 1e-12)
    if passes:
        return "tolerated" if worse else "pass"
    return "regression" if worse else "inconclusive"


def clusters_needed(difference: Difference, margin: float, alpha: float = 0.05, most: int = 1_000_000) -> int | None:
    """Clusters at which the same mean and spread would decide, one way or the other; None if none would.

    The smaller one of the two n with t(n) s / sqrt(n) < distance, where s = se sqrt(clusters) and the distance is that from
    the mean to -margin (to pass) or to 0 (to be worse). It takes the mean that was seen for the true one, so it decides in
    about half of all cases: a guide for what to play next, not a plan (`agentgym.stats.power` makes those).
    """
    if difference.clusters < 2 or math.isnan(difference.se):
        return FEW if difference.tasks else None
    spread = difference.se * math.sqrt(difference.clusters)
    found = []
    for distance in (difference.mean + margin, -difference.mean):
        if distance <= 0:
            continue
        n = max(FEW, math.ceil((t_quantile(1 - alpha, math.inf) * spread / distance) ** 2))
        while n <= most and t_quantile(1 - alpha, n - 1.0) * spread / math.sqrt(n) >= distance:
            n += max(1, n // 200)
        if n <= most:
            found.append(n)
    return min(found, default=None)


def mde(se: float, df: float, margin: float = 0.0, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest true drop that is called a regression with this power.

    Bloom (1995), Evaluation Review 19: (t_alpha + t_power) se to be told from 0; and, since a drop within the margin is
    tolerated where that is sure, not below margin + (t_power - t_alpha) se.
    """
    if math.isnan(se) or math.isnan(df) or df < 1:
        return None
    a, b = t_quantile(1 - alpha, df), t_quantile(power, df)
    return max((a + b) * se, margin + (b - a) * se)
