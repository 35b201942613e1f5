# SPDX-License-Identifier: Apache-2.0
"""E-processes: evidence that may be looked at after every batch, and stopped on, without spoiling the error rate."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

BETS: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Shares of the wealth that are bet; the mean over them needs no guess of how large the effect is."""


class EProcess:
    """Evidence against "the mean is at most h", for values from -1 to 1.

    E_t = mean over lambda of prod_i (1 + lambda (x_i - h) / (1 + h)): a mean of supermartingales that start at 1 while
    E[x_i | what came before] <= h, so P(E ever reaches 1 / alpha) <= alpha (Ville 1939); betting on bounded means is
    Waudby-Smith and Ramdas (2024), JRSS B 86. Values must come in an order that does not depend on them.

    Args:
        h: bound of the hypothesis, between -1 and 1.

    >>> e = EProcess(0.0)
    >>> e.feed([0.5] * 30)
    >>> e.p < 0.01
    True
    """

    def __init__(self, h: float) -> None:
        if not -1.0 < h < 1.0:
            raise ValueError(f"the hypothesis lies between -1 and 1, not at {h}")
        self.h = h
        self.n = 0
        """Values seen."""
        self._bets = np.array(BETS)
        self._logs: NDArray[np.float64] = np.zeros(len(BETS))
        self._highest = 0.0

    def feed(self, values: ArrayLike) -> None:
        """Adds values, in their order.

        Raises:
            ValueError: a value is not in -1..1 (1e-9 beyond is rounding), or is NaN.
        """
        x = np.atleast_1d(np.asarray(values, dtype=float))
        if not np.all(np.abs(x) <= 1.0 + 1e-9):
            raise ValueError("an e-process takes values from -1 to 1: scale the metric to 0..1 before")
        x = np.clip(x, -1.0, 1.0)
        steps = np.log1p(self._bets[None, :] * (x[:, None] - self.h) / (1.0 + self.h))
        for path in self._logs + np.cumsum(steps, axis=0):
            self._logs = path
            self._highest = max(self._highest, self.log_e)
        self.n += len(x)

    @property
    def log_e(self) -> float:
        """Logarithm of the evidence now."""
        top = float(self._logs.max())
        return top + math.log(float(np.exp(self._logs - top).mean()))

    @property
    def p(self) -> float:
        """A p-value that is valid at whatever time it is read: 1 / (the highest evidence so far)."""
        return math.exp(-self._highest)


def paths(values: NDArray[np.float64], h: float) -> NDArray[np.float64]:
    """Logarithms of the evidence after each value, for many sequences at once: (runs, n) -> (runs, n).

    The same numbers as `EProcess`, for simulations.
    """
    parts = [np.cumsum(np.log1p(bet * (values - h) / (1.0 + h)), axis=-1) for bet in BETS]
    return np.asarray(np.logaddexp.reduce(parts, axis=0) - math.log(len(BETS)))
