# SPDX-License-Identifier: Apache-2.0
"""What a comparison of a given size can find: chances of each outcome by formula, and by simulation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.stats.noninferiority import judge
from agentgym.stats.paired import paired_difference, t_quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Chances(NamedTuple):
    """Probabilities of the outcomes; they add up to 1."""

    passed: float
    """``pass`` and ``tolerated``."""
    regression: float
    inconclusive: float


def standard_error(
    clusters: float, tasks: float, trials: float, baseline_trials: float, trial_variance: float, cluster_sd: float = 0.0
) -> float:
    """Standard error of a mean paired difference.

    sqrt((tau^2 + s^2 (1/k + 1/k_b) / m) / G): Miller (2024), "Adding Error Bars to Evals", section 5, with clusters in the
    place of questions. Baseline trials cost once and serve every later comparison.

    Args:
        clusters: G.
        tasks: m, tasks of each cluster.
        trials: k of the candidate; ``baseline_trials``: k_b.
        trial_variance: s^2, mean variance of a task's trials (p (1 - p) for successes).
        cluster_sd: tau, how differently a change strikes the clusters.
    """
    return math.sqrt((cluster_sd**2 + trial_variance * (1.0 / trials + 1.0 / baseline_trials) / tasks) / clusters)


def chances(se: float, df: float, shift: float, margin: float, alpha: float = 0.05) -> Chances:
    """Probabilities of the outcomes at a true shift, from the noncentral t distribution.

    Owen (1965), Biometrika 52, for the power of t; the rule is that of `agentgym.stats.noninferiority.judge`. Where both
    bounds could hold at once (an interval shorter than the margin) the standard error is taken as known.

    Args:
        se: standard error of the difference, above 0; ``df``: its degrees of freedom.
        shift: true difference, negative for worse; ``margin``: largest accepted drop.
    """
    from scipy.special import nctdtr, ndtr

    def below(bound: float, away: float) -> float:
        # far out the library's series ends in NaN, and the standard error may as well be known
        return float(nctdtr(df, away, bound)) if abs(away) < 30.0 else float(ndtr(bound - away))

    t = t_quantile(1.0 - alpha, df)
    passed = 1.0 - below(t, (shift + margin) / se)
    worse = below(min(-t, t - margin / se), shift / se)
    worse = min(worse, 1.0 - passed)
    return Chances(passed, worse, 1.0 - passed - worse)


def simulate(
    success: Floats,
    clusters: Ints,
    trials: int,
    baseline_trials: int,
    margin: float,
    *,
    shift: float = 0.0,
    cluster_sd: float = 0.0,
    alpha: float = 0.05,
    runs: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of the outcomes over simulated comparisons: tasks that succeed with given chances, in both arms.

    Args:
        success: chance of success of each task, in the baseline's arm.
        clusters: cluster of each task.
        trials: of the candidate, a task; ``baseline_trials``: of the baseline.
        margin: largest accepted drop; ``alpha``: error rate.
        shift: what is added to each chance in the candidate's arm; ``cluster_sd``: sd of what is added by cluster besides.
        runs: comparisons; ``seed``: of the random numbers.

    Returns:
        ``{"pass": ..., "tolerated": ..., "regression": ..., "inconclusive": ...}``, shares that add up to 1.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    found = dict.fromkeys(("pass", "tolerated", "regression", "inconclusive"), 0)
    for _ in range(runs):
        effect = shift + (rng.normal(0.0, cluster_sd, codes.max() + 1)[codes] if cluster_sd else 0.0)
        before = rng.binomial(baseline_trials, success) / baseline_trials
        after = rng.binomial(trials, np.clip(success + effect, 0.0, 1.0)) / trials
        found[judge(paired_difference(after - before, codes, alpha), margin, alpha)] += 1
    return {name: n / runs for name, n in found.items()}
