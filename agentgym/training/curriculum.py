# SPDX-License-Identifier: Apache-2.0
"""Which tasks to train on next: families and levels mixed by how much their episodes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agentgym.errors import UsageError, did_you_mean


class Curriculum:
    """Draws families and levels by p (1 - p), where p is the success rate that the policy now has there.

    That is the variance of a reward of 0 or 1: tasks that always or never succeed make groups whose advantages are all zero
    (Rutherford et al. 2024, arXiv 2408.15099; for language models Foster et al. 2025, arXiv 2502.12272). p is not known but
    estimated, with a Beta(1, 1) prior, and what is weighted is the expectation of p (1 - p): an arm that has not been tried
    weighs 2/3 of the best there can be. Old outcomes fade, because the policy changes. No arm dies: ``floor`` of all draws is
    spread evenly, so that what was forgotten is found out and what was out of reach is tried again.

    Equal seeds, and equal outcomes told in between, give equal draws.

    Args:
        arms: what is mixed, each a family with its parameters (``tools.lookup:level=2``), or anything with a name.
        seed: another one gives other draws.
        floor: share of the draws that is spread evenly over the arms, in [0, 1].
        memory: what earlier outcomes still count after each `update`, in (0, 1]; .9 remembers about ten updates.

    Raises:
        UsageError: no arms, one of them twice, or a number out of its range.
    """

    def __init__(self, arms: Sequence[str], *, seed: int = 0, floor: float = 0.1, memory: float = 0.9) -> None:
        if not arms or len(set(arms)) < len(arms):
            raise UsageError("a curriculum mixes at least one family or level, and each one once")
        if not (0 <= floor <= 1 and 0 < memory <= 1):
            raise UsageError(f"floor lies in [0, 1] and memory in (0, 1], not {floor} and {memory}")
        self.arms = tuple(arms)
        self.floor, self.memory = floor, memory
        self._rng = np.random.default_rng(seed)
        self._won = dict.fromkeys(self.arms, 0.0)
        self._lost = dict.fromkeys(self.arms, 0.0)
        self._drawn = dict.fromkeys(self.arms, 0)

    def update(self, outcomes: Mapping[str, Sequence[float | None]]) -> None:
        """Tells what episodes came to; once for each batch.

        Args:
            outcomes: arm -> rewards in [0, 1] of its episodes; None: could not be scored, and says nothing. A reward between
                0 and 1 counts as that share of a success.

        Raises:
            UsageError: an arm that is not mixed, or a reward out of its range.
        """
        for arm, rewards in outcomes.items():
            if arm not in self._won:
                raise UsageError(f"the curriculum does not mix {arm!r}.{did_you_mean(arm, self.arms)}")
            if not all(r is None or 0.0 <= r <= 1.0 for r in rewards):
                raise UsageError(f"{arm}: a curriculum goes by rewards in [0, 1]; tell it gold, or scale them")
        for arm in self.arms:
            known = [float(r) for r in outcomes.get(arm, ()) if r is not None]
            self._won[arm] = self.memory * self._won[arm] + sum(known)
            self._lost[arm] = self.memory * self._lost[arm] + len(known) - sum(known)

    @property
    def success(self) -> dict[str, float]:
        """Arm -> estimated success rate; 0.5 before it was tried."""
        return {arm: (self._won[arm] + 1) / (self._won[arm] + self._lost[arm] + 2) for arm in self.arms}

    @property
    def weights(self) -> dict[str, float]:
        """Arm -> probability of being drawn next; they sum to 1."""
        value = {}
        for arm in self.arms:
            a, b = self._won[arm] + 1, self._lost[arm] + 1
            value[arm] = a * b / ((a + b) * (a + b + 1))  # E[p (1 - p)] under Beta(a, b)
        total = sum(value.values())
        return {arm: self.floor / len(self.arms) + (1 - self.floor) * v / total for arm, v in value.items()}

    def draw(self, count: int) -> list[str]:
        """The arms of so many groups, independently of each other."""
        weights = self.weights
        picked = self._rng.choice(len(self.arms), size=count, p=[weights[arm] for arm in self.arms])
        return [self.arms[int(i)] for i in picked]

    def rows(self, rows_by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Rows of a data set without end, drawn one by one by the weights of the moment; each arm's rows in their order,
        again and again.

        Args:
            rows_by_arm: arm -> its rows, at least one each.
        """
        for arm in self.arms:
            if not rows_by_arm.get(arm):
                raise UsageError(f"there are no rows of {arm!r} to draw from")
        while True:
            (arm,) = self.draw(1)
            own = rows_by_arm[arm]
            row = own[self._drawn[arm] % len(own)]
            self._drawn[arm] += 1
            yield dict(row)

    def over(self, dataset: Any, column: str = "environment") -> Any:
        """The data set of `agentgym.training.trl.kit` as one that this curriculum draws from while the training runs.

        Args:
            dataset: a ``datasets.Dataset`` that names the arm of each row.
            column: where it stands.

        Returns:
            a ``datasets.IterableDataset``; TRL then needs ``max_steps``.
        """
        from datasets import IterableDataset

        by_arm: dict[str, list[dict[str, Any]]] = {arm: [] for arm in self.arms}
        for row in dataset:
            if row[column] in by_arm:
                by_arm[row[column]].append(row)
        # as an iterable of its own: a generator function would be copied with all that it holds, and the copy told nothing
        return IterableDataset.from_generator(_Stream(self, by_arm))

    def state(self) -> dict[str, Any]:
        """All there is to go on from, for a checkpoint; plain values. See `load`."""
        return {
            "arms": list(self.arms),
            "won": dict(self._won),
            "lost": dict(self._lost),
            "drawn": dict(self._drawn),
            "rng": self._rng.bit_generator.state,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state` of a curriculum of the same arms."""
        if list(state["arms"]) != list(self.arms):
            raise UsageError(f"the state is of a curriculum that mixes {', '.join(state['arms'])}")
        self._won, self._lost, self._drawn = dict(state["won"]), dict(state["lost"]), dict(state["drawn"])
        self._rng.bit_generator.state = state["rng"]


class _Stream:
    """What `IterableDataset.from_generator` calls; copies of it are this very object."""

    def __init__(self, curriculum: Curriculum, by_arm: dict[str, list[dict[str, Any]]]) -> None:
        self._curriculum, self._by_arm = curriculum, by_arm

    def __call__(self) -> Iterator[dict[str, Any]]:
        return self._curriculum.rows(self._by_arm)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Stream:
        return self
