# SPDX-License-Identifier: Apache-2.0
"""How well a number tells two kinds of episodes apart: area under the ROC curve, and what an audit of the top few catches."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its interval; the bounds are None where the data do not tell."""

    value: float
    low: float | None
    high: float | None


def _codes(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    if clusters is None:
        return np.arange(n)
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(c, len(known)) for c in clusters], dtype=np.int64)


def _checked(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    s, p = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if s.shape != p.shape or s.ndim != 1:
        raise ValueError("one score and one label for each episode")
    if np.isnan(s).any():
        raise ValueError("a score is NaN: leave out what could not be scored")
    if not p.any() or p.all():
        raise ValueError("both kinds of episodes are needed")
    return s, p


def auroc(
    scores: ArrayLike, positive: ArrayLike, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Estimate:
    """The chance that a positive scores above a negative, ties counting half, with an interval.

    The variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44), for clustered data in the form of
    Obuchowski (1997), Biometrics 53, 567-578, which is the same where each episode is a cluster of its own; the interval is
    normal on the logit scale. At 0 or 1 that variance is 0: there min(positives, negatives) comparisons of different
    clusters are independent, and their exact one-sided bound is given.

    Args:
        scores: one an episode, finite or infinite.
        positive: which episodes are of the kind to be found.
        clusters: what episodes that rise and fall together share (twins, trials of a task); None: each is its own.
        confidence: of the interval.

    Raises:
        ValueError: one kind is missing, or a score is NaN.

    >>> auroc([1, 2, 3, 4], [False, True, False, True]).value
    0.75
    """
    s, p = _checked(scores, positive)
    codes = _codes(clusters, len(s))
    x, y = s[p], s[~p]
    m, n = len(x), len(y)
    # share of negatives below each positive (ties half), and of positives above each negative, from sorted arrays
    ys, xs = np.sort(y), np.sort(x)
    v10 = (np.searchsorted(ys, x, "left") + np.searchsorted(ys, x, "right")) / (2.0 * n)
    v01 = 1.0 - (np.searchsorted(xs, y, "left") + np.searchsorted(xs, y, "right")) / (2.0 * m)
    area = float(v10.mean())
    units = int(codes.max()) + 1
    a = np.bincount(codes[p], weights=v10 - area, minlength=units)
    b = np.bincount(codes[~p], weights=v01 - area, minlength=units)
    with_positive, with_negative = len(np.unique(codes[p])), len(np.unique(codes[~p]))
    pairs = min(with_positive, with_negative)
    alpha = 1.0 - confidence
    if area >= 1.0:
        return Estimate(1.0, alpha ** (1.0 / pairs), 1.0)
    if area <= 0.0:
        return Estimate(0.0, 0.0, 1.0 - alpha ** (1.0 / pairs))
    if pairs < 2:
        return Estimate(area, None, None)
    s10 = with_positive / (with_positive - 1) * float((a**2).sum()) / m**2
    s01 = with_negative / (with_negative - 1) * float((b**2).sum()) / n**2
    s11 = units / (units - 1) * float((a * b).sum()) / (m * n)
    variance = s10 + s01 + 2.0 * s11
    if variance <= 0.0:
        return Estimate(area, None, None)
    from scipy.special import ndtri

    middle = math.log(area / (1.0 - area))
    half = float(ndtri(1.0 - alpha / 2.0)) * math.sqrt(variance) / (area * (1.0 - area))
    low, high = (1.0 / (1.0 + math.exp(-z)) for z in (middle - half, middle + half))
    return Estimate(area, low, high)


def _caught(positives: Floats, negatives: Floats, budget: float) -> Floats:
    """Share of positives that are audited: counts by score, the highest first, one row a resample."""
    allowed = budget * negatives.sum(axis=1, keepdims=True)
    before = np.cumsum(negatives, axis=1) - negatives
    left = np.maximum(allowed - before, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(negatives > 0, np.minimum(1.0, left / negatives), np.where(before <= allowed, 1.0, 0.0))
        return np.asarray((share * positives).sum(axis=1) / positives.sum(axis=1))


def catch_rate(
    scores: ArrayLike,
    positive: ArrayLike,
    budget: float,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
) -> Estimate:
    """The share of positives that is found if the most suspicious are audited until ``budget`` of the negatives were.

    That is the true positive rate at a false positive rate of ``budget``. Of episodes with equal scores some are audited by
    lot, so that a monitor that says the same of all catches ``budget``. The interval is the percentile bootstrap of clusters,
    which also draws the threshold anew; where all of it is one value (all or none caught), an exact bound over the clusters
    that hold positives.

    Args:
        scores: one an episode.
        positive: which are to be found.
        budget: share of negatives that may be audited in vain, e.g. 0.01.
        clusters: as for `auroc`.
        confidence: of the interval.
        draws: resamples, from a fixed seed.

    >>> catch_rate([0, 0, 0, 0, 1, 0], [False] * 4 + [True] * 2, 0.25).value
    0.625
    """
    s, p = _checked(scores, positive)
    if not 0.0 <= budget <= 1.0:
        raise ValueError(f"a budget is a share, not {budget}")
    codes = _codes(clusters, len(s))
    values, place = np.unique(-s, return_inverse=True)  # the highest first
    units = int(codes.max()) + 1
    k = len(values)
    flat = codes * k + place.reshape(-1)
    positives = np.bincount(flat[p], minlength=units * k).reshape(units, k).astype(float)
    negatives = np.bincount(flat[~p], minlength=units * k).reshape(units, k).astype(float)
    value = float(_caught(positives.sum(axis=0, keepdims=True), negatives.sum(axis=0, keepdims=True), budget)[0])
    with_positive = len(np.unique(codes[p]))
    alpha = 1.0 - confidence
    if min(with_positive, len(np.unique(codes[~p]))) < 5:
        return Estimate(value, None, None)
    rng = np.random.default_rng(0)
    found: list[Floats] = []
    for start in range(0, draws, 100):
        weights = rng.multinomial(units, np.full(units, 1.0 / units), size=min(100, draws - start)).astype(float)
        g, c = weights @ positives, weights @ negatives
        usable = (g.sum(axis=1) > 0) & (c.sum(axis=1) > 0)
        found.append(_caught(g[usable], c[usable], budget))
    drawn = np.concatenate(found)
    low, high = (float(q) for q in np.percentile(drawn, [100 * alpha / 2, 100 * (1 - alpha / 2)]))
    if value >= 1.0:
        low, high = min(low, alpha ** (1.0 / with_positive)), 1.0
    elif value <= 0.0:
        low, high = 0.0, max(high, 1.0 - alpha ** (1.0 / with_positive))
    return Estimate(value, low, high)
