# SPDX-License-Identifier: Apache-2.0
"""pass@k and pass^k: how often one of k tries is right, and how often all k are, from n recorded tries of a task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def pass_at_k(trials: ArrayLike, successes: ArrayLike, k: int) -> Floats:
    """The chance that at least one of k tries of a task is right, by task, unbiased: 1 - C(n-c, k) / C(n, k).

    Chen et al. (2021), "Evaluating Large Language Models Trained on Code", equation 1. The plain 1 - (1 - c/n)^k is
    biased: with one success in two tries it says 0.75 for k = 2, where both tries together did hold a success.

    Args:
        trials: n, the tries that could be scored, by task; at least k each.
        successes: c, how many of them were right.
        k: tries that a user is thought to have, at least 1.

    Returns:
        one value a task; its mean over tasks is the pass@k that papers report.

    Raises:
        ValueError: a task has fewer than k tries (no unbiased estimate exists), or c is not in 0..n.

    >>> pass_at_k([4, 4, 4], [0, 1, 3], 2).tolist()
    [0.0, 0.5, 1.0]
    """
    n, c = _checked(trials, successes, k)
    return 1.0 - _none_of(n, n - c, k)


def pass_hat_k(trials: ArrayLike, successes: ArrayLike, k: int) -> Floats:
    """The chance that all of k tries of a task are right, by task, unbiased: C(c, k) / C(n, k).

    Yao et al. (2024), "tau-bench", section 3: the reliability that an agent owes to a customer who comes k times.
    Arguments, result and errors as for `pass_at_k`.

    >>> pass_hat_k([4, 4, 4], [0, 2, 4], 2).round(4).tolist()
    [0.0, 0.1667, 1.0]
    """
    n, c = _checked(trials, successes, k)
    return _none_of(n, c, k)


def pass_hat_k_of(scores: Sequence[Sequence[float]], k: int, success: float = 1.0) -> Floats:
    """`pass_hat_k` of tasks given as lists of scores; a try counts from ``success`` on, NaN is refused.

    >>> pass_hat_k_of([[1, 1, 0], [1, 1, 1]], 2).round(4).tolist()
    [0.3333, 1.0]
    """
    arrays = [np.asarray(s, dtype=float) for s in scores]
    if any(np.isnan(a).any() for a in arrays):
        raise ValueError("a score is NaN: leave out what could not be scored, it is neither right nor wrong")
    return pass_hat_k([len(a) for a in arrays], [int((a >= success).sum()) for a in arrays], k)


def _checked(trials: ArrayLike, successes: ArrayLike, k: int) -> tuple[Floats, Floats]:
    n, c = np.asarray(trials, dtype=float), np.asarray(successes, dtype=float)
    n, c = np.broadcast_arrays(n, c)
    if k < 1:
        raise ValueError(f"k is at least 1, not {k}")
    if not (np.all((c >= 0) & (c <= n)) and np.all(n == np.floor(n)) and np.all(c == np.floor(c))):
        raise ValueError("successes are whole numbers between 0 and the number of tries")
    if n.size and n.min() < k:
        raise ValueError(
            f"a task has {int(n.min())} scored tries, fewer than k = {k}: run at least {k} trials of each task, or ask for a"
            " smaller k"
        )
    return n, c


def _none_of(n: Floats, kept: Floats, k: int) -> Floats:
    """C(kept, k) / C(n, k) as a product of k ratios: no factorial overflows, and it is exactly 0 and 1 at the ends."""
    out = np.ones(n.shape)
    for i in range(k):
        out *= np.maximum(kept - i, 0.0) / (n - i)
    return out
