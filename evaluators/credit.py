# SPDX-License-Identifier: Apache-2.0
"""Who earned it: an episode's reward over its turns, potential-based shaping, and the best or the majority of several episodes.

A credit function gives an array of shape (turns,) that sums to the episode's reward, whatever that is; trainers that want one
number a turn take it from here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from agentgym.errors import UsageError
from agentgym.trajectory import Trajectory

Credit = Callable[[Trajectory, float], np.ndarray]
"""``(trajectory, reward) -> float64[turns]``, whose sum is ``reward``."""


# -- credit -------------------------------------------------------------------------------------------------------------


def _turns(trajectory: Trajectory) -> int:
    if not trajectory.turns:
        raise UsageError(f"{trajectory.task_id} has no turn that could be given credit")
    return len(trajectory.turns)


def to_last(trajectory: Trajectory, reward: float) -> np.ndarray:
    """All of it to the last turn: the sparse reward of an episode."""
    credit = np.zeros(_turns(trajectory))
    credit[-1] = reward
    return credit


def to_all(trajectory: Trajectory, reward: float) -> np.ndarray:
    """The same to every turn."""
    return _exact(np.full(_turns(trajectory), reward / _turns(trajectory)), reward)


def as_delivered(trajectory: Trajectory, reward: float) -> np.ndarray:
    """What each turn was paid when it was played; what the episode's reward differs by goes to the last turn."""
    return _exact(np.array([t.reward for t in trajectory.turns[: _turns(trajectory)]], np.float64), reward)


def by_shares(shares: Sequence[float]) -> Credit:
    """In proportion to what a process reward says of each turn (at least 0); evenly where all are 0.

    Raises:
        UsageError: not one share for each turn, or one that is negative or not finite.
    """
    given = np.asarray(shares, np.float64)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any():
        raise UsageError("shares are finite numbers of at least 0, one for each turn")

    def credit(trajectory: Trajectory, reward: float) -> np.ndarray:
        n = _turns(trajectory)
        if len(given) != n:
            raise UsageError(f"{len(given)} shares for {n} turns")
        total = given.sum()
        return _exact(reward * (given / total if total > 0 else np.full(n, 1.0 / n)), reward)

    return credit


def by_potential(potentials: Sequence[float]) -> Credit:
    """To each turn what the potential rose by during it; what the reward differs from the whole rise by goes to the last.

    Args:
        potentials: before the first turn and after each, float[turns + 1]: how promising the state was.
    """
    given = np.asarray(potentials, np.float64)

    def credit(trajectory: Trajectory, reward: float) -> np.ndarray:
        n = _turns(trajectory)
        if given.shape != (n + 1,):
            raise UsageError(f"{n} turns have {n + 1} potentials, not {given.shape}")
        return _exact(np.diff(given), reward)

    return credit


def _exact(credit: np.ndarray, reward: float) -> np.ndarray:
    """``credit`` with the last turn taking up what is missing to ``reward``."""
    credit[-1] += reward - math.fsum(credit)
    return credit


# -- shaping ------------------------------------------------------------------------------------------------------------


def shaping(potentials: Sequence[float], gamma: float = 1.0, *, terminated: bool = False) -> np.ndarray:
    """Potential-based shaping, F_t = gamma phi_(t+1) - phi_t (Ng, Harada and Russell 1999): float64[T] to add to the rewards.

    Discounted by gamma it sums to gamma^T phi_T - phi_0, whatever happened in between: loops, doing and undoing earn
    nothing, and the best policy stays the best one.

    Args:
        potentials: phi of the state before the first turn and after each, float[T + 1].
        gamma: discount, 0 to 1.
        terminated: whether the episode ended by itself. The potential of its end then counts as 0, without which episodes of
            different ends would be paid for their ends (Grzes 2017); a truncated one would have gone on.

    >>> shaping([0.0, 0.5, 1.0]), shaping([0.0, 0.5, 1.0], terminated=True)
    (array([0.5, 0.5]), array([ 0.5, -0.5]))
    """
    phi = np.array(potentials, np.float64)
    if phi.ndim != 1 or len(phi) < 2 or not np.isfinite(phi).all():
        raise UsageError("potentials are finite numbers: one before the first turn and one after each")
    if not 0.0 <= gamma <= 1.0:
        raise UsageError(f"gamma lies between 0 and 1, not {gamma}")
    if terminated:
        phi[-1] = 0.0
    return gamma * phi[1:] - phi[:-1]


# -- several episodes ---------------------------------------------------------------------------------------------------


def majority(answers: Sequence[Any], canonical: Callable[[Any], Hashable] = lambda answer: answer) -> int | None:
    """Index of the first answer that belongs to the largest group; of groups of one size, the one that was first.

    Args:
        answers: None where there is none; those do not vote.
        canonical: gives equal values for answers that are the same (`math_answer.normal`, say).

    >>> majority(["4", "5", "5.0", None], lambda a: float(a)), majority([None])
    (1, None)
    """
    first: dict[Hashable, int] = {}
    counts: Counter[Hashable] = Counter()
    for i, answer in enumerate(answers):
        if answer is not None:
            key = canonical(answer)
            first.setdefault(key, i)
            counts[key] += 1
    if not counts:
        return None
    return min(first[key] for key, count in counts.items() if count == max(counts.values()))


MOST_SUBSETS = 20_000
"""Subsets up to which `majority_at_k` looks at all of them."""


def majority_at_k(
    answers: Sequence[Any],
    values: Sequence[float],
    k: int,
    canonical: Callable[[Any], Hashable] = lambda answer: answer,
    *,
    seed: int = 0,
) -> float:
    """maj@k: the mean value of the majority's answer over subsets of k of the N samples of one task; no answer is worth 0.

    Over all subsets where there are at most `MOST_SUBSETS`, else over so many random ones. Within a subset, groups of one size
    share the win equally, so that the order of the samples does not matter.

    Raises:
        UsageError: k is not between 1 and N, or there is not one value for each answer.
    """
    n = len(answers)
    if len(values) != n or not 1 <= k <= n:
        raise UsageError(f"maj@{k} needs {k} answers or more with a value each, not {n} with {len(values)}")
    keys = [None if a is None else (canonical(a),) for a in answers]
    worth: dict[Any, float] = {}
    for key in {k_ for k_ in keys if k_ is not None}:
        same = [float(v) for k_, v in zip(keys, values, strict=True) if k_ == key]
        worth[key] = math.fsum(same) / len(same)
    if math.comb(n, k) <= MOST_SUBSETS:
        subsets: Any = itertools.combinations(range(n), k)
    else:
        rng = np.random.default_rng(seed)
        subsets = (rng.choice(n, k, replace=False).tolist() for _ in range(MOST_SUBSETS))
    total, count = 0.0, 0
    for subset in subsets:
        votes = Counter(keys[i] for i in subset if keys[i] is not None)
        if votes:
            most = max(votes.values())
            tied = [worth[key] for key, c in votes.items() if c == most]
            total += math.fsum(tied) / len(tied)
        count += 1
    return total / count


def best_of_n(proxy: Sequence[float], gold: Sequence[float] | None = None, n: int | Sequence[int] = 1) -> Any:
    """What the best of n is worth in expectation, estimated without bias from N samples of one task.

    Of all subsets of n samples, the one of the highest proxy value is taken; ties are broken at random. With the samples in
    ascending order of proxy, sample i (from 1) is the best of C(i-1, n-1) of the C(N, n) subsets.

    Args:
        proxy: by which the best is chosen, float[N]: any verifier's value.
        gold: what it is worth, float[N]; None for the proxy itself.
        n: a size, or several.

    Returns: a float for one size, float64[sizes] for several.

    Raises:
        UsageError: a size is not between 1 and N, or a value is not finite.

    >>> best_of_n([1.0, 2.0, 3.0], n=[1, 2, 3]).round(4).tolist()
    [2.0, 2.6667, 3.0]
    """
    by = np.asarray(proxy, np.float64)
    worth = by if gold is None else np.asarray(gold, np.float64)
    if by.ndim != 1 or by.shape != worth.shape or not (np.isfinite(by).all() and np.isfinite(worth).all()):
        raise UsageError("proxy and gold are finite numbers, one each for every sample")
    order = np.argsort(by, kind="stable")
    # within a group of equal proxy any may be the chosen one, so each stands for the group's mean
    values = worth[order].copy()
    ends = np.flatnonzero(np.diff(by[order])) + 1
    for group in np.split(np.arange(len(values)), ends):
        values[group] = values[group].mean()
    sizes = [n] if isinstance(n, int) else [int(size) for size in n]
    result = np.array([_best(values, size) for size in sizes])
    return float(result[0]) if isinstance(n, int) else result


def _best(values: np.ndarray, n: int) -> float:
    total = len(values)
    if not 1 <= n <= total:
        raise UsageError(f"the best of {n} cannot be told from {total} samples")
    # P(i is best) = C(i-1, n-1) / C(N, n), from the top down: each is the one above times (i+1-n) / i
    chance = np.empty(total)
    chance[-1] = n / total
    i = np.arange(total - 1, 0, -1)
    chance[-2::-1] = chance[-1] * np.cumprod((i - n + 1).clip(0) / i) if total > 1 else chance[:0]
    return float(chance @ values)


def kl_best_of_n(n: int) -> float:
    """The KL divergence, in nats, of the best of n from the policy: log n - (n - 1) / n. An upper bound where the policy has
    atoms that tie (Beirami et al. 2024, arXiv 2401.01879)."""
    if n < 1:
        raise UsageError(f"n must be at least 1, not {n}")
    return math.log(n) - (n - 1) / n
