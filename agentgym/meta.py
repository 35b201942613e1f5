# SPDX-License-Identifier: Apache-2.0
"""Several episodes of one family in one context: does a policy get better within a conversation, without new weights?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import msgspec

from agentgym.chat import Action, Message, Observation
from agentgym.env import ChatEnv, Plan, Task
from agentgym.errors import UsageError
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, gold_value, proxy_reward, verify
from agentgym.task import FrozenTask, plain
from agentgym.trajectory import Event, ToolResult, Trajectory

EPISODE = "meta.episode"
"""Kind of the event with which each episode of the series ends. Its data: ``episode`` (from 0), ``turns``, ``reward`` (as
delivered; None: could not be scored), ``outcome``, ``truncation``, ``state_before``, ``state_after``."""


class MetaEpisode(gymnasium.Wrapper[Observation, Action, Observation, Action], gymnasium.utils.RecordConstructorArgs):
    """Plays several episodes of a family as one: the policy keeps the whole conversation, and is told what each one paid.

    Reinforcement learning across such series teaches to explore and to adapt (RL squared, Duan et al. 2016, arXiv 1611.02779).
    What is recorded is one trajectory: rewards stand at the turns that earned them, ``episode.gold`` is the mean gold of
    all episodes of the series (one that was not reached counts 0), and the metric ``adaptation`` is the reward of the last one
    less that of the first.

    Everything else is as ever: the environment below may be wrapped, `agentgym.episode.play` plays it, and other wrappers may
    stand above.

    Args:
        env: what is played again and again.
        episodes: how often, at least 2.
        same: the same task each time, so that what was learnt about it helps; else other tasks of the family, drawn from
            the first one's name.

    Raises:
        UsageError: fewer than two episodes, or ``env`` is none of ours.
    """

    def __init__(self, env: gymnasium.Env[Observation, Action], episodes: int = 3, *, same: bool = False) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, episodes=episodes, same=same)
        gymnasium.Wrapper.__init__(self, _Series(env, episodes, same))


class _Series(ChatEnv):
    """The series as an environment of its own, so that the loop, the record and the verifiers see one episode."""

    def __init__(self, env: gymnasium.Env[Observation, Action], episodes: int, same: bool) -> None:
        core = env.unwrapped
        if not isinstance(core, ChatEnv):
            raise UsageError(f"MetaEpisode wraps environments of agentgym, not {type(core).__name__}")
        if episodes < 2:
            raise UsageError(f"a series has at least 2 episodes, not {episodes}")
        super().__init__(split=core.split)
        self.below, self.core, self.episodes, self.same = env, core, episodes, same
        self.variant, self.params = core.variant, core.params
        self.label = f"meta{episodes}.{core.label}"
        self.tools, self.tool_specs = core.tools, core.tool_specs
        self.observation_space, self.action_space = core.observation_space, core.action_space
        gold = core.gold or core.proxy
        # of this one environment, not of its class
        self.family, self.version, self.blocking = f"meta{episodes}.{core.family}", core.version, core.blocking  # type: ignore[misc]
        self.max_turns = episodes * core.max_turns  # type: ignore[misc]
        self.proxy, self.metrics = [Verifier(_delivered, "delivered")], [Verifier(_adaptation, "adaptation")]  # type: ignore[misc]
        self.gold = [  # type: ignore[misc]
            Verifier(_golden(tuple(gold), episodes), "gold", frozenset().union(*(v.needs for v in gold)))
        ]
        self._options: dict[str, Any] = {}

    # -- tasks ----------------------------------------------------------------------------------------------------------

    def make_task(self, item: str) -> Task:
        """The series that begins with this task."""
        first = self.core.make_task(item)
        items = [item] * self.episodes if self.same else self._others(first)
        frozen = [self.core.freeze(self.core.make_task(i)) for i in items]
        hidden = {"items": items, "tasks": plain(frozen)}
        task = Task(opening=frozen[0].opening, hidden=hidden, cluster=self.core.cluster_of(first), tags=first.tags)
        task.seed = first.seed
        task.family, task.version, task.variant, task.item = self.label, self.version, self.variant, item
        task.params = self.core.params
        return task

    def _others(self, first: Task) -> list[str]:
        """The first task's item and others of its split, each once where there are enough."""
        items, draw = [first.item], 0
        choices = None if first.seed is not None else self.core.items(1000)
        while len(items) < self.episodes:
            name = f"{first.id}\0{draw}".encode()
            number = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little")
            drawn = self.core._item_of_seed(number) if choices is None else choices[number % len(choices)]
            if drawn not in items or (choices is not None and draw > 100 * self.episodes):
                items.append(drawn)
            draw += 1
        return items

    def items(self, limit: int | None = None) -> list[str]:
        """Those of the family: each begins a series."""
        return self.core.items(limit)

    def honest(self, task: Task) -> Plan:
        """The expert of the family, in each episode."""
        for item in task.hidden["items"]:
            yield from self.core.honest(self.core.make_task(item))

    # -- playing --------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """As the environment's own."""
        self._options = options or {}
        return super().reset(seed=seed, options=options)

    def begin(self) -> None:
        """The first episode."""
        self._number = 0
        self._next()

    def _next(self) -> tuple[Message, ...]:
        self.core.judge = self.judge
        trial = self._options.get("trial", 0) * self.episodes + self._number
        options = {"task": self.core.make_task(self.task.hidden["items"][self._number]), "trial": trial}
        opening, _ = self.below.reset(options=options)
        return tuple(opening)

    def _answer(self, message: Message) -> tuple[list[Message], tuple[ToolResult, ...]]:
        index = len(self.trajectory.turns)
        observation, reward, terminated, truncated, _ = self.below.step(message)
        turn = self.core.trajectory.turns[-1]
        turn.reward = float(reward)
        self._changes += turn.changes
        self._events += [msgspec.structs.replace(e, turn=index) for e in turn.events]
        self.pay(turn.reward)
        told = list(observation)
        if terminated or truncated:
            if self.core._running:  # a wrapper below cut it
                extra = self._cut("environment")
                self.pay(extra)
                turn.reward += extra
            self._events.append(self._over(index))
            told += self._begun_anew()
        return told, turn.results

    def _begun_anew(self) -> list[Message]:
        """What is said between two episodes; nothing after the last, which ends the series."""
        paid = self._events[-1].data["reward"]
        self._number += 1
        if self._number == self.episodes:
            self.end()
            return []
        says = f"Episode {self._number} of {self.episodes} is over. "
        says += "It could not be scored." if paid is None else f"Reward: {round(paid, 3):g}."
        # a rule of the system stands at the front already, and most templates take it nowhere else
        known = {m.text for m in self.trajectory.opening if m.role == "system"}
        opening = [m.text for m in self._next() if m.text not in known]
        return [Message("user", "\n\n".join([says, *opening]))]

    def _over(self, index: int) -> Event:
        """The event that ends the episode below."""
        t, paying = self.core.trajectory, self.core.proxy or self.core.gold
        unknown = bool(paying) and proxy_reward(self.core.proxy_scores, paying) is None
        data = {
            "episode": self._number,
            "turns": len(t.turns),
            "reward": None if unknown else t.total_reward,
            "outcome": t.outcome,
            "truncation": t.truncation,
            "state_before": t.state_before,
            "state_after": t.state_after,
        }
        return Event(index, EPISODE, "env", self.task.hidden["items"][self._number], plain(data))

    def _cut(self, truncation: str) -> float:
        """Closes the episode below; what is delivered then, through its wrappers."""
        extra = self.core.finish(truncation)
        env: Any = self.below
        wrappers = []
        while isinstance(env, gymnasium.Wrapper):
            wrappers.append(env)
            env = env.env
        for wrapper in reversed(wrappers):
            if hasattr(wrapper, "finish_reward"):
                extra = float(wrapper.finish_reward(extra))
            elif isinstance(wrapper, gymnasium.RewardWrapper):
                extra = float(wrapper.reward(extra)) - float(wrapper.reward(0.0))
        return extra

    def _finish(self, truncation: str | None) -> float:
        turns = self.trajectory.turns
        extra = 0.0
        if self.core._running:
            extra = self._cut(truncation or "environment")
            if self.core.trajectory.turns:
                self.core.trajectory.turns[-1].reward += extra
            if turns and self.core.trajectory.turns:
                turns[-1].events += (self._over(len(turns) - 1),)
        before = turns[-1].reward if turns else 0.0
        super()._finish(truncation)
        if turns:
            turns[-1].reward = before + extra  # each episode was paid when it ended: its verifiers' sum is not paid again
        return extra

    def release(self) -> None:
        """What the environment below holds."""
        self.below.close()


# -- verdicts -----------------------------------------------------------------------------------------------------------


def episodes_of(trajectory: Trajectory) -> list[tuple[Trajectory, dict[str, Any]]]:
    """The episodes of a recorded series, each as a trajectory of its own, with the data of its `EPISODE` event."""
    found: list[tuple[Trajectory, dict[str, Any]]] = []
    start = 0
    for turn in trajectory.turns:
        for event in turn.events:
            if event.kind != EPISODE:
                continue
            own = [
                msgspec.structs.replace(
                    t,
                    index=i,
                    parent=i - 1,
                    events=tuple(msgspec.structs.replace(e, turn=i) for e in t.events if e.kind != EPISODE),
                )
                for i, t in enumerate(trajectory.turns[start : turn.index + 1])
            ]
            data = event.data
            own[-1].observation = own[-1].observation[: _answers(own[-1].observation)]
            found.append(
                (
                    Trajectory(
                        task_id=event.resource,
                        turns=own,
                        state_before=data["state_before"],
                        state_after=data["state_after"],
                        outcome=data["outcome"],
                        truncation=data["truncation"],
                    ),
                    data,
                )
            )
            start = turn.index + 1
    return found


def _answers(messages: Sequence[Message]) -> int:
    """How many messages belong to the episode that ended: what was said to begin the next one is the last message."""
    return len(messages) - 1 if messages and messages[-1].text.startswith("Episode ") else len(messages)


def _delivered(trajectory: Trajectory, context: VerifierContext) -> Score:
    """The sum of what the episodes paid; no value where one could not be scored."""
    paid = [data["reward"] for _, data in episodes_of(trajectory)]
    known = [p for p in paid if p is not None]
    return Score("delivered", value=sum(known) if len(known) == len(paid) else None, evidence={"rewards": paid})


def _adaptation(trajectory: Trajectory, context: VerifierContext) -> list[Score]:
    """The reward of the last episode less that of the first; nothing where one of them was not played or not scored."""
    paid = [data["reward"] for _, data in episodes_of(trajectory)]
    if len(paid) < len(context.task.hidden["tasks"]) or paid[0] is None or paid[-1] is None:
        return []
    return [Score("adaptation", "metric", paid[-1] - paid[0], evidence={"rewards": paid})]


def _golden(gold: tuple[Verifier, ...], episodes: int) -> Any:
    """The mean of each episode's gold, by the family's own verifiers on that episode alone."""

    def golden(trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        values: list[float | None] = []
        found: list[Score | Finding] = []
        start = 0
        for played, data in episodes_of(trajectory):
            task = msgspec.convert(context.task.hidden["tasks"][data["episode"]], FrozenTask)
            played.task_id = f"{task.family}/{task.variant}/{task.item}"
            played.opening = task.opening
            handed = VerifierContext(task, judge=context.judge)
            scores, findings = verify(gold, "gold", played, handed, lambda: context.sandbox)  # type: ignore[arg-type, return-value]
            values.append(gold_value(scores))
            found += [f if f.turn is None else msgspec.structs.replace(f, turn=f.turn + start) for f in findings]
            start += len(played.turns)
        known = [v for v in values if v is not None]
        value = sum(known) / episodes if len(known) == len(values) else None
        return [Score("gold", value=value, evidence={"gold": values}), *found]

    return golden
