# SPDX-License-Identifier: Apache-2.0
"""Where optimizing a proxy stops helping: the turning point of the gold curve, without a model of its form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import UsageError
from agentgym.stats.intervals import student_t


class Turning(NamedTuple):
    """The turning point of a gold curve."""

    at: int
    """Index of the peak; the last one where gold has not turned."""
    peak: float
    """Gold there, of the fitted curve."""
    end: float
    """Gold at the end, of the fitted curve."""
    drop: float
    """``peak - end``; at least 0."""
    low: float | None
    """95 % interval of the mean over repetitions of what gold lost from the common peak on, without a fit; None with fewer
    than two repetitions."""
    high: float | None
    fitted: NDArray[np.float64]
    """float64[steps]: the fitted curve."""


def turning_point(gold: Sequence[Sequence[float]], window: int = 1) -> Turning:
    """The turning point of gold along optimization (steps, square root of a KL, n of best-of-n: anything that is ordered).

    The mean over repetitions is fitted by the nearest curve that rises to a peak and falls from there (least squares; unimodal
    regression, Frisen 1986, The Statistician 35, by isotonic regressions on both sides of each possible peak). No formula is
    assumed: those of Gao et al. (arXiv 2210.10760) give a peak to any curve, also to one that never turns.

    A fitted drop is never negative, so noise alone has one. ``low`` and ``high`` say whether it is real: they are of the plain
    difference between the mean of ``window`` points around the peak and of the last ``window`` points, by repetition. The peak
    is chosen by the same data, which makes that difference somewhat too large; a wider window makes this less.

    Args:
        gold: repetitions (seeds) x steps; all of one length.
        window: points that are averaged at the peak and at the end.

    Raises:
        UsageError: there are no points, or repetitions differ in length.

    >>> t = turning_point([[0.1, 0.5, 0.7, 0.6, 0.2]])
    >>> t.at, round(t.drop, 3)
    (2, 0.5)
    """
    if not gold or len({len(g) for g in gold}) != 1 or not len(gold[0]) or window < 1:
        raise UsageError("a turning point needs repetitions of one and the same length, with points in them")
    table = np.asarray(gold, np.float64)
    if not np.isfinite(table).all():
        raise UsageError("gold must be known at each step: leave out steps without a value")
    mean = table.mean(0)
    best, at, fitted = np.inf, 0, mean
    for peak in range(len(mean)):
        up, down = _rising(mean[: peak + 1]), _rising(mean[peak:][::-1])[::-1]
        # where both sides give the peak a value of its own, the higher one is a curve that rises and falls as well
        curve = np.concatenate([up[:-1], [max(up[-1], down[0])], down[1:]])
        error = float(((curve - mean) ** 2).sum())
        if error < best - 1e-12:
            best, at, fitted = error, peak, curve
    # on a plateau, the peak is its last point: until there nothing was lost
    at = int(np.flatnonzero(fitted >= fitted.max() - 1e-12)[-1])
    low = high = None
    if len(table) > 1:
        first = max(0, min(at - window // 2, len(mean) - window))
        lost = table[:, first : first + window].mean(1) - table[:, -window:].mean(1)
        half = student_t(0.95, len(lost) - 1) * float(lost.std(ddof=1)) / len(lost) ** 0.5
        low, high = float(lost.mean()) - half, float(lost.mean()) + half
    return Turning(at, float(fitted[at]), float(fitted[-1]), float(fitted[at] - fitted[-1]), low, high, fitted)


def _rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest curve that never falls, by least squares (pool adjacent violators)."""
    means: list[float] = []
    sizes: list[int] = []
    for v in values:
        means.append(float(v))
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2:] = [(means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size]
            sizes[-2:] = [size]
    return np.repeat(means, sizes)
