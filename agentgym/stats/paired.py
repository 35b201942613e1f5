# SPDX-License-Identifier: Apache-2.0
"""Paired differences of task means with clusters as the units: the estimate, its one-sided bounds, and an exact p-value.

Which method, and why (``tests/stats/test_paired.py`` and ``bench/gates.py`` measure it):

- Tasks of one cluster move together, so clusters are what is counted. A t test over tasks under family effects calls 13 to
  17 % of unchanged models worse where it promises 5 %.
- From `MANY` clusters on: t with the CR2 variance and Satterthwaite's degrees of freedom, which holds for clusters of
  unequal size. With equal sizes it is the plain t test of cluster means.
- Below that: the exact sign-flip test of cluster sums, whose bounds are ordered means of subsets (Hartigan's typical
  values). Under an unchanged agent with equal trials each cluster's difference is as likely positive as negative.
- Below `FEW` clusters nothing can be significant at 5 % (2^-4 > .05), so there is no interval and no claim.
- Where all tasks differ by the same amount the interval is that point.
"""

from __future__ import annotations

import functools
import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW: Final = 5
"""Clusters below which no claim is possible at one-sided 5 %: the sign-flip test's smallest p is 2^-clusters."""

MANY: Final = 20
"""Clusters from which on t is used; below, all 2^clusters sign flips are computed."""


class Difference(NamedTuple):
    """A mean difference (candidate less baseline, positive is better) with what is known about it."""

    mean: float
    """Mean over tasks; NaN without tasks."""
    low: float
    """One-sided lower bound at 1 - alpha; -inf where there is none."""
    high: float
    """One-sided upper bound at 1 - alpha; inf where there is none."""
    p_worse: float
    """p of "it is not worse" (mean >= 0): small where it is worse. NaN: no test is possible."""
    se: float
    """Standard error (CR2); NaN for one cluster."""
    df: float
    """Satterthwaite's degrees of freedom; NaN for one cluster."""
    clusters: int
    tasks: int
    method: str
    """``cluster t``, ``sign-flip``, ``McNemar``, ``constant``, ``none``."""


def paired_difference(differences: Floats, clusters: Ints, alpha: float = 0.05) -> Difference:
    """The mean of task differences and its one-sided bounds.

    Args:
        differences: candidate's mean less baseline's mean on the same task, one a task, turned so that positive is better;
            in units of the metric. A task that either arm lacks must be left out before, never filled with zero.
        clusters: the cluster of each task, as any whole numbers from 0.
        alpha: error rate of each one-sided bound.

    Raises:
        ValueError: a difference is NaN or infinite; lengths differ.
    """
    d = np.asarray(differences, dtype=float)
    codes = np.asarray(clusters, dtype=np.int64)
    if d.shape != codes.shape or d.ndim != 1:
        raise ValueError("one cluster is needed for each difference")
    if not np.all(np.isfinite(d)):
        raise ValueError("a difference is not a finite number: leave out tasks that either arm lacks")
    tasks = len(d)
    if not tasks:
        return Difference(math.nan, -math.inf, math.inf, math.nan, math.nan, math.nan, 0, 0, "none")
    codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes).astype(float)
    sums = np.bincount(codes, weights=d).astype(float)
    g = len(sizes)
    mean = float(d.mean())
    se, df = cluster_se(sums, sizes)
    if float(np.ptp(d)) <= 1e-12:
        p = math.nan if g < FEW else (0.5**g if mean < -1e-12 else 1.0)
        return Difference(mean, mean, mean, p, 0.0, df, g, tasks, "constant")
    if g < FEW:
        return Difference(mean, -math.inf, math.inf, math.nan, se, df, g, tasks, "none")
    if g < MANY:
        low, high = sign_flip_bounds(sums, sizes, alpha)
        return Difference(mean, low, high, sign_flip_p(sums), se, df, g, tasks, "sign-flip")
    half = float(t_quantile(1.0 - alpha, df)) * se
    method = "cluster t"
    if g == tasks and np.all(np.isin(d, (-1.0, 0.0, 1.0))):
        p, method = mcnemar_p(int((d < 0).sum()), int((d > 0).sum())), "McNemar"
    elif int(np.count_nonzero(sums)) < MANY:
        p = sign_flip_p(sums[sums != 0.0])  # a cluster that did not move tells nothing about the direction; t overrates it
    else:
        p = float(t_cdf(mean / se, df)) if se > 0 else (0.0 if mean < 0 else 1.0)
    high = mean + half if p <= alpha else max(mean + half, 0.0)  # the exact test has the last word on the claim
    return Difference(mean, mean - half, high, p, se, df, g, tasks, method)


def cluster_se(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Standard error of the mean over tasks, and its degrees of freedom: CR2 with Satterthwaite's approximation.

    Bell and McCaffrey (2002), Survey Methodology 28; the form of Pustejovsky and Tipton (2018), Journal of Business and
    Economic Statistics 36. For a mean, with w the clusters' shares of the tasks and S the sums of residuals, the variance
    is sum S^2 / (1 - w) / N^2. Degrees of freedom follow from the variance of that estimate under a working model; the
    smaller one of two is taken, since which holds is unknown: tasks independent, or clusters moving as one.
    With equal sizes: the variance of cluster means over their number, and clusters - 1.

    Args:
        sums: sum of the differences of each cluster.
        sizes: tasks of each cluster.

    Returns:
        (se, df); NaN for one cluster.
    """
    if len(sizes) < 2:
        return math.nan, math.nan
    n = float(sizes.sum())
    w = sizes / n
    residual = sums - sizes * (sums.sum() / n)
    se = math.sqrt(float((residual**2 / (1.0 - w)).sum())) / n
    if sizes.min() == sizes.max():
        return se, len(sizes) - 1.0
    return se, min(_df(w, w), _df(w, w**2))


def _df(w: Floats, spread: Floats) -> float:
    """tr(M)^2 / tr(M^2) where clusters' sums are independent with variances ``spread``, up to a factor.

    M_gh = a_g a_h [ 1(g=h) v_g - w_g v_h - w_h v_g + w_g w_h sum(v) ] with a = (1 - w)^(-1/2): the covariance of the
    residual sums that enter the variance estimate. Computed without the matrix, which would be clusters^2 numbers.
    """
    a2 = 1.0 / (1.0 - w)
    v, total = spread, spread.sum()
    trace = float((a2 * (v - 2 * w * v + w * w * total)).sum())
    # B_gh = -w_g v_h - w_h v_g + total w_g w_h, off the diagonal; sums of products factor
    ww, vv, wv = (a2 * w * w).sum(), (a2 * v * v).sum(), (a2 * w * v).sum()
    whole = 2 * (ww * vv + wv * wv) + total * total * ww * ww - 4 * total * ww * wv
    diagonal = -2 * w * v + total * w * w
    square = float(whole - ((a2 * diagonal) ** 2).sum() + ((a2 * (v + diagonal)) ** 2).sum())
    return float(trace * trace / square)


@functools.lru_cache(maxsize=4)
def _subset_sizes(sizes: tuple[float, ...]) -> Floats:
    return _subset_sums(np.array(sizes))


def _subset_sums(values: Floats) -> Floats:
    """Sums of all 2^n subsets, the empty one first."""
    out = np.zeros(1)
    for value in values:
        out = np.concatenate((out, out + value))
    return out


def sign_flip_p(sums: Floats) -> float:
    """Exact p of "the mean is not below 0": the share of all sign flips of the clusters that give at most this sum.

    Fisher (1935), The Design of Experiments, section 21. Equal sums count as at most. No cluster: 1. Up to 40 clusters.

    >>> sign_flip_p(np.array([-1.0, -2.0, -3.0, -1.0, -1.0]))
    0.03125
    """
    n = len(sums)
    if n > 2 * MANY:
        raise ValueError(f"{n} clusters have too many sign flips to compute them all; use `sign_flip_p_drawn`")
    # flipping a subset takes twice its sum away: the new sum is at most the old one where the subset's sum is not negative.
    # Subsets are pairs of one of either half, so 2^n of them are counted in the time of sorting 2^(n/2) numbers.
    half, other = _subset_sums(np.asarray(sums[: n // 2], dtype=float)), _subset_sums(np.asarray(sums[n // 2 :], dtype=float))
    slack = 1e-9 * float(np.abs(sums).sum())
    below = np.searchsorted(np.sort(half), -slack - other, side="left")
    return float(len(half) * len(other) - below.sum()) / (len(half) * len(other))


def sign_flip_p_drawn(sums: Floats, draws: int = 20_000, seed: int = 0) -> float:
    """`sign_flip_p` from random flips, for many clusters: valid as a p-value at any number of draws.

    The observed one counts among the draws: Phipson and Smyth (2010), Statistical Applications in Genetics 9.
    """
    rng = np.random.default_rng(seed)
    sums = np.asarray(sums, dtype=float)
    slack = 1e-9 * float(np.abs(sums).sum())
    hits = 0
    for start in range(0, draws, 2000):
        flipped = rng.integers(2, size=(min(2000, draws - start), len(sums)), dtype=np.int8)
        hits += int(np.count_nonzero(flipped @ sums >= -slack))
    return (1 + hits) / (1 + draws)


def sign_flip_bounds(sums: Floats, sizes: Floats, alpha: float = 0.05) -> tuple[float, float]:
    """One-sided bounds of the mean that invert the sign-flip test: ordered means of the clusters' subsets.

    Hartigan (1969), JASA 64: the true mean is below the j-th smallest of the 2^n - 1 subset means with probability
    j / 2^n, if clusters differ symmetrically about it. So j = floor(alpha 2^n); with j = 0 there is no bound.

    >>> sign_flip_bounds(np.array([-0.1, -0.2, -0.3, -0.1, 0.0]), np.ones(5))
    (-0.3, 0.0)
    """
    n = len(sums)
    if n > MANY + 2:
        raise ValueError(f"{n} clusters have too many subsets; use the t interval")
    rank = math.floor(alpha * 2**n + 1e-9)
    if rank < 1:
        return -math.inf, math.inf
    means = _subset_sums(np.asarray(sums, dtype=float))[1:] / _subset_sizes(tuple(sizes.tolist()))[1:]
    # the two ranks are one call: a partition is linear, a sort of 2^19 numbers is not
    ordered = np.partition(means, (rank - 1, len(means) - rank))
    return float(ordered[rank - 1]), float(ordered[len(means) - rank])


def mcnemar_p(worse: int, better: int) -> float:
    """Exact one-sided p of "not worse": ``worse`` or more of the discordant pairs, each as likely either way.

    McNemar (1947), Psychometrika 12, in its exact binomial form.

    >>> mcnemar_p(5, 0)
    0.03125
    """
    from scipy.special import bdtrc

    return 1.0 if worse == 0 else float(bdtrc(worse - 1, worse + better, 0.5))


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t; the normal's for infinite df."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(p)) if math.isinf(df) else float(stdtrit(df, p))


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t; the normal's for infinite df."""
    from scipy.special import ndtr, stdtr

    return float(ndtr(t)) if math.isinf(df) else float(stdtr(df, t))
