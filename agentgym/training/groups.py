# SPDX-License-Identifier: Apache-2.0
"""Group baselines for on-policy learning: what an episode was worth beside the other episodes of its task.

A baseline is taken over episodes and never over rows, since one episode may give several rows, and over those that could be
scored and no others: an episode that failed for want of a server says nothing about its task. Groups are told by name, never by
position.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np

from agentgym.errors import UsageError

Baseline = Literal["grpo", "dr_grpo", "rloo", "none"]
"""``grpo``: reward minus the group's mean, over its standard deviation (Shao et al. 2024, arXiv 2402.03300). ``dr_grpo``: the
same without the division (Liu et al. 2025, arXiv 2503.20783). ``rloo``: reward minus the mean of the others (Ahmadian et al.
2024, arXiv 2402.14740). ``none``: the reward itself."""


class Advantages(msgspec.Struct, frozen=True, eq=False):
    """Advantages of N episodes, and what became of their groups."""

    values: np.ndarray
    """float64[N]; 0.0 for episodes that have none."""
    used: np.ndarray
    """bool[N]: whether the episode takes part in the update. Not: without a reward, alone in its group, or left out."""
    excluded: int
    """Episodes without a reward: infrastructure failed, or a verifier could not tell."""
    idle: int
    """Episodes left out since the policy never said anything in them."""
    overlong: int
    """Episodes left out since they were cut by a limit."""
    alone: int
    """Groups of which one episode is left: nothing to compare it with."""
    flat: tuple[Hashable, ...]
    """Groups whose episodes were all worth the same: nothing is learnt from them."""
    sizes: dict[Hashable, int]
    """Group -> episodes that its baseline was taken over."""
    shrunk: dict[Hashable, tuple[int, int]]
    """Group -> (episodes that its baseline was taken over, episodes that were played), of groups where these differ: their
    baseline is noisier than the plan says."""

    @property
    def flat_share(self) -> float:
        """Share of the compared groups that teach nothing; 0.0 without any."""
        compared = len(self.sizes) - self.alone
        return len(self.flat) / compared if compared else 0.0


def advantages(
    rewards: Sequence[float | None],
    groups: Sequence[Hashable],
    *,
    baseline: Baseline = "grpo",
    truncated: Sequence[bool] | None = None,
    overlong: Literal["keep", "mask", "exclude"] = "keep",
    acted: Sequence[bool] | None = None,
    epsilon: float = 1e-4,
) -> Advantages:
    """Advantages of episodes, each beside the others of its group.

    Args:
        rewards: one an episode; None: it could not be scored, and takes no part.
        groups: which group each belongs to, by any name (task id and variant, say).
        baseline: what is subtracted, and what it is divided by.
        truncated: whether a limit cut the episode; needed for ``mask`` and ``exclude``.
        overlong: ``mask`` takes cut episodes out of the update (they still count in the baseline: that they got nowhere
            is a fact about the policy; "overlong filtering" of DAPO, arXiv 2503.14476, section 3.4), ``exclude`` takes them out
            of both, ``keep`` leaves them in. `overlong_penalty` is the soft way.
        acted: whether the policy said anything in the episode; None: in each. Where it did not, a clock ran out before its
            first turn, and the reward says nothing about it.
        epsilon: added to the standard deviation (with N-1 in the denominator, as TRL does).

    Raises:
        UsageError: lengths differ, a reward is no finite number, or a name is unknown.
    """
    if any(len(given) != len(rewards) for given in (groups, truncated, acted) if given is not None):
        raise UsageError(f"{len(rewards)} rewards need as many groups ({len(groups)}), flags of truncation and of having acted")
    if baseline not in get_args(Baseline):
        raise UsageError(f"baseline is one of {', '.join(get_args(Baseline))}, not {baseline!r}")
    if overlong not in ("keep", "mask", "exclude"):
        raise UsageError(f"overlong is keep, mask or exclude, not {overlong!r}")
    if overlong != "keep" and truncated is None:
        raise UsageError(f"overlong={overlong!r} needs to be told which episodes were truncated")
    scored = np.array([r is not None for r in rewards], bool)
    values = np.array([0.0 if r is None else float(r) for r in rewards], np.float64)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UsageError(f"the reward of episode {bad} is {rewards[bad]}: one that could not be scored is None, never NaN")
    known = scored if acted is None else scored & np.asarray(acted, bool)
    idle = int((scored & ~known).sum())
    cut = 0
    if overlong == "exclude":
        gone = known & np.asarray(truncated, bool)
        cut, known = int(gone.sum()), known & ~gone
    members: dict[Hashable, list[int]] = {}
    played: dict[Hashable, int] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, [])
        played[group] = played.get(group, 0) + 1
        if known[index]:
            members[group].append(index)
    result, used = np.zeros(len(values)), known.copy()
    alone, flat = 0, []
    for group, own in members.items():
        if baseline == "none":
            result[own] = values[own]
            continue
        if len(own) < 2:
            used[own] = False
            alone += 1
            continue
        # exact: 0.1 + 0.1 + 0.1 over three is not 0.1, and a group without differences must give exact zeros
        if all(values[i] == values[own[0]] for i in own):
            flat.append(group)
            continue
        mean = math.fsum(values[own]) / len(own)
        centred = values[own] - mean
        if baseline == "grpo":
            centred /= values[own].std(ddof=1) + epsilon
        elif baseline == "rloo":
            centred *= len(own) / (len(own) - 1)
        result[own] = centred
    if overlong == "mask":
        gone = used & np.asarray(truncated, bool)
        cut = int(gone.sum())
        result[gone], used[gone] = 0.0, False
    sizes = {group: len(own) for group, own in members.items()}
    shrunk = {group: (n, played[group]) for group, n in sizes.items() if n < played[group]}
    return Advantages(result, used, int((~scored).sum()), idle, cut, alone, tuple(flat), sizes, shrunk)


def overlong_penalty(lengths: Sequence[int], most: int, soft: int) -> np.ndarray:
    """What is added to the rewards of long answers: the soft overlong punishment of DAPO (arXiv 2503.14476, equation 13).

    Args:
        lengths: sampled tokens of each episode.
        most: tokens from which on an answer counts as too long (L_max).
        soft: the last of these, over which the penalty grows from 0 to -1 (L_cache), from 1 to ``most``.

    Returns:
        float64[N]: 0 up to ``most - soft`` tokens, from there linear down to -1 at ``most``, and -1 beyond.

    Raises:
        UsageError: ``soft`` is not in its range.
    """
    if not 1 <= soft <= most:
        raise UsageError(f"soft is between 1 and most ({most}), not {soft}")
    return np.clip((most - soft - np.asarray(lengths, np.float64)) / soft, -1.0, 0.0) + 0.0


def combined(components: Mapping[str, Advantages], weights: Mapping[str, float]) -> np.ndarray:
    """A weighted sum of advantages that were each normalized by themselves, so that no component wins by its scale.

    Args:
        components: name -> advantages of the same N episodes.
        weights: name -> weight, for exactly these names.

    Returns:
        float64[N]; an episode that takes no part in one component has 0.0 there and its other components still count.
    """
    if set(components) != set(weights):
        raise UsageError(f"weights are for {sorted(weights)}, components are {sorted(components)}: name each once")
    if not components:
        raise UsageError("there is no component to combine")
    total = np.zeros(len(next(iter(components.values())).values))
    for name, component in components.items():
        total += weights[name] * component.values
    return total
