# SPDX-License-Identifier: Apache-2.0
"""Rewards that are delayed, sparse, noisy, biased, shifting or only a proxy: Gymnasium wrappers around any environment.

Each one changes what the policy is paid and nothing else. The true reward goes on beside the delivered one: in ``info`` of the
step (``true_reward``) and as an `Event` ``reward.delivered`` of the turn in the record, so that a run trained on a bad reward
can be judged by a good one. Wrappers stack; each sees the one below it as true.

Randomness is drawn from the task, the trial (``options["trial"]``, which the episode loop sets) and the wrapper's ``seed``:
the same episode gets the same noise everywhere, two trials of a task do not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from agentgym.chat import Action, Observation
from agentgym.env import ChatEnv
from agentgym.errors import UsageError
from agentgym.scoring import Verifier
from agentgym.trajectory import Event, Turn

Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class RewardChange(gymnasium.Wrapper[Observation, Action, Observation, Action], gymnasium.utils.RecordConstructorArgs):
    """A wrapper that changes the reward. Subclasses say how in `delivered`."""

    kind: ClassVar[str] = "changed"
    """What it is called in the record."""

    def __init__(self, env: gymnasium.Env[Observation, Action], **kept: Any) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, **kept)
        gymnasium.Wrapper.__init__(self, env)
        self._core = _core_of(self, env)
        self.rng = np.random.default_rng(0)

    def begin(self) -> None:
        """At the start of each episode, after ``reset``."""

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """What the policy is paid for a turn.

        Args:
            true: what the environment below paid.
            turn: the turn, as recorded.
            last: whether the episode has ended with it.
        """
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """As the environment's own."""
        result = self.env.reset(seed=seed, options=options)
        trial = (options or {}).get("trial", 0)
        name = f"{self.kind}\0{getattr(self, 'seed', 0)}\0{self._core.trajectory.task_id}\0{trial}"
        self.rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little"))
        self.begin()
        return result

    def step(self, action: Action) -> Step:
        """As the environment's own, with the reward changed and ``info["true_reward"]`` beside it."""
        observation, true, terminated, truncated, info = self.env.step(action)
        turn = self._core.trajectory.turns[-1]
        reward = self._told(float(true), turn, terminated or truncated)
        info.setdefault("true_reward", float(true))  # the innermost one knows the truth
        return observation, reward, terminated, truncated, info

    def finish_reward(self, extra: float) -> float:
        """What becomes of a reward that is paid after the last step: the episode loop cut the episode.

        Args:
            extra: what the environment below paid at the cut.

        Returns:
            what is delivered then, beside what the last step has delivered already.
        """
        turns = self._core.trajectory.turns
        return self._told(extra, turns[-1], True) if turns else extra

    def _told(self, true: float, turn: Turn, last: bool) -> float:
        reward = float(self.delivered(true, turn, last))
        if not math.isfinite(reward):
            raise UsageError(f"{type(self).__name__}: a reward must be finite, not {reward}")
        if reward != true:
            turn.events += (Event(turn.index, "reward.delivered", "env", self.kind, {"true": true, "delivered": reward}),)
        return reward


class DelayReward(RewardChange):
    """Pays each turn's reward so many turns later, and what is still owed with the last turn: nothing is lost.

    Args:
        env: what is wrapped.
        turns: how many turns later; 0 changes nothing.
    """

    kind = "delay"

    def __init__(self, env: gymnasium.Env[Observation, Action], turns: int) -> None:
        if turns < 0:
            raise UsageError(f"a reward cannot come {-turns} turns before it is earned")
        super().__init__(env, turns=turns)
        self.turns = turns

    def begin(self) -> None:
        """Nothing is owed."""
        self._owed: list[float] = []

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """What was earned so many turns ago."""
        self._owed.append(true)
        if last:
            owed, self._owed = math.fsum(self._owed), []
            return owed
        return self._owed.pop(0) if len(self._owed) > self.turns else 0.0


class SparseReward(RewardChange):
    """Pays the sum of all rewards with the last turn and nothing before."""

    kind = "sparse"

    def begin(self) -> None:
        """Nothing is owed."""
        self._owed: list[float] = []

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """The sum, at the end."""
        self._owed.append(true)
        if not last:
            return 0.0
        owed, self._owed = math.fsum(self._owed), []
        return owed


class NoiseReward(RewardChange):
    """Adds noise to the reward of the last turn, or of every turn.

    Args:
        env: what is wrapped.
        std: standard deviation of Gaussian noise that is added.
        flip: probability that a reward r in [0, 1] is paid as 1 - r; other rewards are never flipped.
        every: whether every turn's reward is changed, not the last one's alone.
        seed: another one gives other noise.
    """

    kind = "noise"

    def __init__(
        self,
        env: gymnasium.Env[Observation, Action],
        *,
        std: float = 0.0,
        flip: float = 0.0,
        every: bool = False,
        seed: int = 0,
    ) -> None:
        if std < 0 or not 0 <= flip <= 1:
            raise UsageError(f"std is at least 0 and flip a probability, not {std} and {flip}")
        super().__init__(env, std=std, flip=flip, every=every, seed=seed)
        self.std, self.flip, self.every, self.seed = std, flip, every, seed

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """The reward with noise."""
        if not (last or self.every):
            return true
        # both are drawn whatever comes of them, so that one parameter does not change the other's noise
        toss, normal = self.rng.random(), self.rng.standard_normal()
        reward = 1.0 - true if toss < self.flip and 0.0 <= true <= 1.0 else true
        return reward + self.std * normal


class BiasReward(RewardChange):
    """Adds what a bias likes about a turn, such as its length: the classic way to over-optimize a reward model.

    Args:
        env: what is wrapped.
        bias: turn -> what is added; see `length_bias`.
    """

    kind = "bias"

    def __init__(self, env: gymnasium.Env[Observation, Action], bias: Callable[[Turn], float]) -> None:
        super().__init__(env, bias=bias)
        self.bias = bias

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """The reward with the bias. An episode that was cut after its last turn is not paid for that turn twice."""
        already = any(e.kind == "reward.delivered" and e.resource == self.kind for e in turn.events)
        return true if already else true + self.bias(turn)


def length_bias(per_word: float = 0.01, most: float = 1.0) -> Callable[[Turn], float]:
    """A bias that likes long answers: so much for each word of the message, up to ``most`` a turn."""

    def bias(turn: Turn) -> float:
        return min(most, per_word * len(turn.message.text.split()))

    return bias


class ShiftReward(RewardChange):
    """Pays by another rule from some point of the training on: a preference that drifts, a judge that was exchanged.

    Args:
        env: what is wrapped.
        rule: (reward, progress) -> reward. ``progress`` is what `advance` was last told, 0 at first; without `advance` it
            is the number of episodes that this wrapper has begun before the present one.
    """

    kind = "shift"

    def __init__(self, env: gymnasium.Env[Observation, Action], rule: Callable[[float, int], float]) -> None:
        super().__init__(env, rule=rule)
        self.rule = rule
        self._told_progress: int | None = None
        self._begun = 0

    def advance(self, progress: int) -> None:
        """Says how far the training is, e.g. the optimizer step; from then on episodes are not counted any more."""
        self._told_progress = progress

    def begin(self) -> None:
        """Counts the episode."""
        self._progress = self._begun if self._told_progress is None else self._told_progress
        self._begun += 1

    def delivered(self, true: float, turn: Turn, last: bool) -> float:
        """By the rule."""
        return self.rule(true, self._progress)


class ProxyGold(gymnasium.Wrapper[Observation, Action, Observation, Action], gymnasium.utils.RecordConstructorArgs):
    """Pays by other verifiers than the environment's own, which become gold: a proxy that can be gamed beside the truth.

    The record then holds both, ``episode.reward`` by the proxy and ``episode.gold`` by the environment's own verifiers, and
    the policy and its trainer see the proxy alone. What an environment pays turn by turn stays as it is.

    Args:
        env: what is wrapped.
        proxy: verifiers that pay at the end of the episode; their weighted mean is delivered.
    """

    def __init__(self, env: gymnasium.Env[Observation, Action], proxy: Sequence[Verifier]) -> None:
        if not proxy:
            raise UsageError("ProxyGold needs at least one verifier that pays")
        gymnasium.utils.RecordConstructorArgs.__init__(self, proxy=tuple(proxy))
        gymnasium.Wrapper.__init__(self, env)
        core = _core_of(self, env)
        # of this one environment, not of its class
        core.gold, core.proxy = core.gold or core.proxy, tuple(proxy)  # type: ignore[misc]


def _core_of(wrapper: gymnasium.Wrapper[Any, Any, Any, Any], env: gymnasium.Env[Any, Any]) -> ChatEnv:
    core = env.unwrapped
    if not isinstance(core, ChatEnv):
        raise UsageError(f"{type(wrapper).__name__} wraps environments of agentgym, not {type(core).__name__}")
    return core
