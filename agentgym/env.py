# SPDX-License-Identifier: Apache-2.0
"""Environments: a Gymnasium environment whose observations and actions are chat messages. Read this file first.

To write one, subclass `ToolEnv` (or `ChatEnv` where there are no tools) and say four things:

- ``new_task(rng)``: draw an instance: what the agent is told, the state, the gold;
- ``@tool`` methods: what it can do; or ``respond``: what is said back to it;
- ``proxy`` and ``gold``: the verifiers that pay it, and those that tell what was really wanted;
- ``honest(task)``: a scripted expert, which proves that the task can be solved.
"""

from __future__ import annotations

import hashlib
import math
import traceback
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import gymnasium
import msgspec
import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence

from agentgym.chat import Action, ArgumentError, Message, Observation, ToolCall, assistant, clean_message, clean_text, submit
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, ToolError, UsageError, did_you_mean, redact
from agentgym.protocols import Completion
from agentgym.sandbox.shared import shared_backend
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, proxy_reward, verify
from agentgym.spaces import ActionSpace, ObservationSpace
from agentgym.task import FrozenTask, Task, from_numpy, plain
from agentgym.toolspec import ToolFunction, ToolSpec, tool, tools_of
from agentgym.trajectory import Event, StateChange, ToolResult, ToolStatus, Trajectory, Turn, diff_state

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend

__all__ = ["ChatEnv", "Plan", "Probe", "Task", "ToolEnv", "in_split", "tool"]

Plan = Generator[Action, Observation, None]
"""An oracle: yields actions, receives the observation that each caused."""


class Probe(NamedTuple):
    """A play close to a line that a detector draws, and what must be found of it: the line's proof, from one of its sides.

    ``agentgym validate`` plays it and compares; with ``--mutants``, a detector that draws the line elsewhere must judge it
    otherwise.
    """

    name: str
    """What it does, in a few words; each name once."""
    plan: Plan | Sequence[Action]
    """An oracle, or its actions. It must end the episode."""
    violates: Sequence[str] | None = ()
    """The dimensions that it violates, exactly these; None: that is not its point."""
    gold: float | None = None
    """What it earns; None: that is not its point."""


MAX_CALLS_PER_TURN = 32
"""Tool calls of one message beyond this many are refused: a turn must stay a bounded amount of work."""


def in_split(seed: int, split: str | None) -> bool:
    """Whether a seed belongs to ``"train"`` (four in five) or ``"eval"`` (one in five); always, for None.

    A hash decides, so the halves are disjoint everywhere and need no list.
    """
    if split is None:
        return True
    if split not in ("train", "eval"):
        raise UsageError(f"split must be 'train' or 'eval', not {split!r}")
    return (zlib.crc32(b"split:%d" % seed) % 5 == 0) == (split == "eval")


class ChatEnv(gymnasium.Env[Observation, Action]):
    """A multi-turn conversation with a task in it.

    ``reset`` returns the opening messages; ``step`` takes an assistant `Message` (or its text) and returns the NEW
    messages that it caused, the reward, ``terminated``, ``truncated`` and an info dictionary with ``task_id`` and
    ``turn``. Nothing that ``reset`` and ``step`` return ever carries the gold, the hidden half of the task, or answers.

    The reward is the proxy: what the author pays per turn with `pay`, and at the end the weighted mean of the
    ``proxy`` verifiers. If one of those cannot score, 0.0 is returned with ``info["unscorable"]`` saying why.

    Args:
        variant: which twin of the task to play; see ``variants``.
        split: ``"train"`` or ``"eval"`` restricts generated tasks to one half of the seeds; None takes any.
        render_mode: ``"ansi"`` makes `render` return the conversation as text.
        **params: the environment's own ``parameters``.

    Raises:
        UsageError: an unknown variant, split or parameter, or a parameter of another type than its default.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}  # type: ignore[misc]

    family: ClassVar[str] = ""
    """Dotted name, e.g. ``tools.retail``; the first part is the group it is listed under."""
    version: ClassVar[int] = 1
    """The N of ``agentgym/FAMILY-vN``; raised whenever the same seed gives another task than before."""
    variants: ClassVar[tuple[str, ...]] = ("control",)
    """The twins it can play; ``control`` is the plain task."""
    temptations: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Variants that tempt, and the dimensions that whoever gives in violates: exactly these are what the cheater oracle must
    be found guilty of (`agentgym.validate`)."""
    own_gold: ClassVar[tuple[str, ...]] = ("impossible", "asked")
    """Variants in which something else is wanted than in ``control``: not what cannot be done, maybe what was authorised."""
    tolerated_mutants: ClassVar[Mapping[str, str]] = {}
    """Changes of its detectors that no oracle can tell apart, as ``agentgym validate --mutants`` prints them, and why each one
    may live."""
    also_proved_at: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Other parameters, e.g. ``{"level": 3}``, at which the oracles play as well when detectors are broken: where these have
    lines that the default parameters never reach."""
    parameters: ClassVar[Mapping[str, Any]] = {}
    """Constructor parameters and their defaults (int, float, bool or str); each becomes an attribute."""
    max_turns: ClassVar[int] = 16
    """Turns after which an episode is truncated."""
    blocking: ClassVar[bool] = False
    """Whether ``step`` may wait (sandbox, network): the episode loop then runs it on a thread of its own."""
    proxy: ClassVar[Sequence[Verifier]] = ()
    """Verifiers that pay the policy. Empty: it is paid by ``gold``."""
    gold: ClassVar[Sequence[Verifier]] = ()
    """Verifiers of what is really wanted; values in [0, 1], the least of them counts."""
    metrics: ClassVar[Sequence[Verifier]] = ()
    """Verifiers that only inform."""
    default_items: ClassVar[int] = 10
    """How many tasks an eval plays where nobody says how many."""

    state: Any
    """The live state of the episode: a copy of ``Task.state`` that tools read and write."""
    task: Task
    """The task being played, hidden half included. For the environment itself and for oracles."""
    trajectory: Trajectory
    """The record so far."""
    judge: Any = None
    """The policy that verifiers with ``needs={"policy"}`` ask; the episode loop sets it."""

    def __init__(
        self, *, variant: str = "control", split: str | None = None, render_mode: str | None = None, **params: Any
    ) -> None:
        if variant not in self.variants:
            known = ", ".join(self.variants)
            raise UsageError(
                f"{self.family} has no variant {variant!r}; it has: {known}.{did_you_mean(variant, self.variants)}"
            )
        in_split(0, split)
        self.variant = variant
        self.split = split
        self.render_mode = render_mode
        self.params = self._take_params(params)
        label = self.family or type(self).__name__
        if self.params:
            label += ":" + ",".join(f"{k}={_plain(v)}" for k, v in sorted(self.params.items()))
        self.label = label
        """The family with its parameters, e.g. ``math.add:level=3``: what stands first in a task id."""
        self.tools: dict[str, ToolFunction] = dict(self._class_tools())
        self.tool_specs: tuple[ToolSpec, ...] = tuple(t.spec for t in self.tools.values())
        """What a policy is offered; the same objects in every turn and episode."""
        self.observation_space = ObservationSpace()
        self.action_space = ActionSpace(self.tools)
        self.sandboxes: Callable[[], Backend] = shared_backend
        """Gives the backend that sandboxes for the episode and for verifiers are made with."""
        self._running = False
        self._begun = False
        self._rng: np.random.Generator | None = None
        self._completion: Completion | None = None
        self._frozen: FrozenTask | None = None

    @classmethod
    def _class_tools(cls) -> dict[str, ToolFunction]:
        return {}

    def _take_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Sets each parameter as an attribute; returns those that differ from the default."""
        given = {}
        for name, value in params.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise UsageError(
                    f"{self.family} has no parameter {name!r}; it has: {known}.{did_you_mean(name, self.parameters)}"
                )
            default = self.parameters[name]
            value = _as_type_of(default, value, f"{self.family}: parameter {name!r}")
            if value != default:
                given[name] = value
            if isinstance(value, str) and set("/,=\n").intersection(value):
                raise UsageError(f"{self.family}: parameter {name!r} may not hold '/', ',', '=': it is part of task ids")
        for name, default in self.parameters.items():
            setattr(self, name, given.get(name, default))
        return given

    # -- what authors write -------------------------------------------------------------------------------------------

    def new_task(self, rng: np.random.Generator) -> Task:
        """Draws an instance. It never sees the variant: twins share their instance.

        Args:
            rng: seeded by seed and family; the only source of randomness it may use.
        """
        raise DefinitionError(f"{type(self).__name__} must define new_task(rng)")

    def apply_variant(self, task: Task, variant: str, rng: np.random.Generator) -> Task:
        """Turns the control task into its twin by changing one thing; returns the task to play."""
        raise DefinitionError(f"{type(self).__name__} lists variant {variant!r} but does not define apply_variant")

    def begin(self) -> None:
        """Called at the end of ``reset``, for anything an episode needs besides its state."""

    def release(self) -> None:
        """Gives back what the episode holds besides memory. Called when it is over, however it ended; maybe twice."""

    def respond(self, message: Message) -> str | Message | Sequence[Message] | None:
        """What is said back to a message without tool calls; None ends the episode (the message was the answer)."""
        return None

    def honest(self, task: Task) -> Plan:
        """The expert: solves the task with what an agent may do, and no more."""
        raise DefinitionError(f"{self.family} has no honest oracle")

    def cheater(self, task: Task) -> Plan:
        """Gives in to the temptation of the variants that hold one."""
        raise DefinitionError(f"{self.family} has no cheater oracle")

    def lazy(self, task: Task) -> Plan:
        """Makes the least effort; must not be paid."""
        yield assistant("I would rather not do this.")

    def probes(self, task: Task) -> Iterable[Probe]:
        """Further plays that show where the detectors draw their lines, innocent and guilty; may be others in each variant."""
        return ()

    def random(self, task: Task) -> Plan:
        """Acts at random within the action space; must be paid next to nothing."""
        space = ActionSpace(self.tools, seed=np.random.default_rng(zlib.crc32(task.id.encode())))
        while True:
            yield space.sample()

    def cluster_of(self, task: Task) -> str:
        """The unit of statistical clustering: the task's own word, else its template (the family with its parameters)."""
        return task.cluster or task.family

    @classmethod
    def needs(cls) -> frozenset[str]:
        """What verifiers and tools of the environment must be handed: ``"sandbox"``, ``"policy"``."""
        needs: frozenset[str] = frozenset()
        for v in (*cls.proxy, *cls.gold, *cls.metrics):
            if v.needs:
                needs |= v.needs
        return needs

    # -- for use inside of tools and ``respond`` ------------------------------------------------------------------------

    def pay(self, amount: float) -> None:
        """Adds to the proxy reward of the present turn. Finite numbers only."""
        if not math.isfinite(amount):
            raise ValueError(f"a reward must be finite, not {amount}")
        self._paid += float(amount)

    def end(self) -> None:
        """Ends the episode with the present turn."""
        self._ended = True

    def note(self, kind: str, resource: str = "", data: Any = None) -> None:
        """Records an `Event` of the present turn; ``data`` is anything with a plain form."""
        turn = len(self.trajectory.turns) if self._begun else -1
        self._events.append(Event(turn, kind, "env", resource, plain(data)))

    @property
    def rng(self) -> np.random.Generator:
        """Randomness during the episode (a simulated user's mood): equal in every replay of a task, and in its twins."""
        if self._rng is None:
            self._rng = _generator(self.task.family, self.task.item, "episode")
        return self._rng

    # -- tasks --------------------------------------------------------------------------------------------------------

    def items(self, limit: int | None = None) -> list[str]:
        """Ids of the tasks of this environment, in order: as many seeds of the split as asked for, counted from 0."""
        wanted = self.default_items if limit is None else limit
        found: list[str] = []
        seed = 0
        while len(found) < wanted:
            if in_split(self.split_key(seed), self.split):
                found.append(str(seed))
            seed += 1
        return found

    def generator(self, seed: int) -> np.random.Generator:
        """What `new_task` draws the task of this seed from."""
        return _generator(seed, self.label)

    def split_key(self, seed: int) -> int:
        """What decides the half of the tasks that a seed belongs to: the seed itself.

        Where different seeds draw the same question (there are few of them, or their parts commute), a family gives such
        seeds the same number, so that nothing that is held out is trained on under another seed.
        """
        return seed

    def make_task(self, item: str) -> Task:
        """The task with this id: the same, byte for byte, on every machine.

        Raises:
            NotFoundError: ``item`` is not a seed (an integer of 0 or more that fits into 63 bits).
        """
        seed = int(item) if len(item) < 20 and item.isascii() and item.isdigit() else -1
        if not 0 <= seed < 1 << 63 or str(seed) != item:
            raise NotFoundError(
                f"{self.label} has no task {item!r}: its tasks are numbered by seed, e.g. {self.label}/control/0"
            )
        task = self.new_task(self.generator(seed))
        task.seed = seed
        return self._finish_task(task, item, seed)

    def _finish_task(self, task: Task, item: str, seed: int) -> Task:
        """Applies the variant and fills in what the environment knows."""
        if self.variant != "control":
            task = self.apply_variant(task, self.variant, _generator(seed, self.label, self.variant))
        task.family, task.version, task.variant, task.item = self.label, self.version, self.variant, item
        task.params = self.params
        return task

    def _item_of_seed(self, seed: int) -> str:
        """The task that ``reset(seed=...)`` plays: the seed itself, or the next one that lies in the split."""
        while not in_split(self.split_key(seed), self.split):
            seed += 1
        return str(seed)

    def freeze(self, task: Task) -> FrozenTask:
        """The task as it is kept and as verifiers see it."""
        return FrozenTask(
            family=task.family,
            version=task.version,
            variant=task.variant,
            item=task.item,
            seed=task.seed,
            params=task.params,
            opening=_opening(task),
            tools=self.tool_specs,
            state=plain(task.state),
            gold=plain(task.gold),
            hidden=plain(task.hidden),
            cluster=self.cluster_of(task),
            tags=task.tags,
        )

    @property
    def frozen_task(self) -> FrozenTask:
        """The task being played, frozen."""
        if self._frozen is None:
            self._frozen = self.freeze(self.task)
        return self._frozen

    # -- Gymnasium ----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: plays the task of that number. None plays a new one drawn from ``np_random``.
            options: ``{"item": "17"}`` plays that task, ``{"task": Task}`` that very one.

        Returns:
            the opening messages, and ``{"task_id": ..., "turn": 0}``.
        """
        super().reset(seed=seed)
        if self._running:  # the episode before was left in the middle
            self.release()
        options = options or {}
        task = options.get("task")
        frozen = options.get("frozen")
        if task is None:
            item = options.get("item")
            if item is None:
                drawn = seed if seed is not None else int(self.np_random.integers(2**31))
                item = self._item_of_seed(drawn)
            task = self.make_task(str(item))
        self.task = task
        self._frozen = frozen
        opening = frozen.opening if frozen is not None else _opening(task)
        before = plain(task.state)
        # the oracle and the verifiers read task.state, so the episode is played on a copy; a copy of its own, not made
        # of `before`: untyped containers would be shared, and a write would change the record of what was before
        kind = type(task.state)
        if task.state is None:
            self.state = None
        else:
            self.state = _copy(task.state) if kind is dict else msgspec.convert(_copy(task.state), kind)
        self._snapshot = before
        self._unwatched = False
        self.trajectory = Trajectory(task_id=task.id, opening=opening, state_before=before, turns=[])
        self._rng = None
        self._completion = None
        self._scores: list[Score] = []
        self._findings: list[Finding] = []
        self._events: list[Event] = []
        self._changes: list[StateChange] = []
        self._paid = 0.0
        self._ended = False
        self._running = True
        self._begun = False
        self.begin()
        self._begun = True
        return Observation(opening), {"task_id": task.id, "turn": 0}

    def attach(self, completion: Completion) -> None:
        """Tells the environment with what tokens, usage and latency the next action came about, for the record."""
        self._completion = completion
        if completion.notes:
            turn = len(self.trajectory.turns)
            self._events += [Event(turn, f"policy.{kind}", "policy", "", data) for kind, data in completion.notes]

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Plays one turn.

        Args:
            action: an assistant message or its text. One that is malformed gets an error as an observation.

        Returns:
            new messages, the turn's reward, terminated, truncated, and info: ``task_id``, ``turn`` (turns played), at
            the end ``proxy`` (name -> value) and, where a proxy verifier could not score, ``unscorable``.

        Raises:
            gymnasium.error.ResetNeeded: no episode is running.
            InfrastructureError: something failed that is not the agent's doing.
        """
        turn, ended, truncated = self._play(action)
        info: dict[str, Any] = {"task_id": self.trajectory.task_id, "turn": turn.index + 1}
        if ended or truncated:
            self._add_scores(info)
        return Observation(turn.observation), turn.reward, ended, truncated, info

    def _play(self, action: Action) -> tuple[Turn, bool, bool]:
        """What `step` does, for the episode loop: returns the recorded turn, terminated, truncated."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("step was called outside of an episode: call reset first")
        trajectory = self.trajectory
        turns = trajectory.turns
        index = len(turns)
        message = self._as_message(action, index)
        changes: list[StateChange] = []
        self._changes = changes
        messages, results = self._answer(message)
        events = self._events
        turn = Turn(index, message, "", index - 1, results, tuple(messages), tuple(changes), tuple(events))
        if events:
            self._events = []
        completion = self._completion
        if completion is not None:
            self._completion = None
            turn.finish_reason = completion.finish_reason
            turn.usage = completion.usage
            turn.sampling = completion.sampling
            turn.latency_s = completion.latency_s
            if trajectory.tokens is not None:
                trajectory.tokens.append(completion.tokens)
            elif completion.tokens is not None:
                trajectory.tokens = [*[None] * index, completion.tokens]
        turns.append(turn)
        terminated = self._ended
        truncated = not terminated and index + 1 >= self.max_turns
        if self._paid:
            turn.reward, self._paid = self._paid, 0.0
        if terminated or truncated:
            self.finish("turns" if truncated else None)
        return turn, terminated, truncated

    def finish(self, truncation: str | None) -> float:
        """Closes the episode and pays the proxy verifiers' reward into its last turn; returns that reward.

        ``step`` calls it; the episode loop calls it too, when it cuts an episode by a limit of its own.
        """
        self._running = False
        try:
            return self._finish(truncation)
        finally:
            self.release()

    def _finish(self, truncation: str | None) -> float:
        trajectory = self.trajectory
        after = plain(self.state)
        if after != self._snapshot and trajectory.turns:
            # a tool that is not declared to write has written: never let it pass unseen
            last = trajectory.turns[-1]
            last.changes += diff_state(self._snapshot, after)
            last.events += (Event(last.index, "state.undeclared_write"),)
            self._snapshot = after
        trajectory.state_after = after
        trajectory.outcome = "truncated" if truncation else "terminated"
        trajectory.truncation = truncation
        verifiers = self.proxy or self.gold
        context = VerifierContext(self.frozen_task, judge=self.judge)
        self._scores, self._findings = verify(verifiers, "proxy", trajectory, context, self.sandboxes)
        reward = proxy_reward(self._scores, verifiers)
        if reward is not None and trajectory.turns:
            trajectory.turns[-1].reward += reward
        return reward or 0.0

    def _add_scores(self, info: dict[str, Any]) -> None:
        verifiers = self.proxy or self.gold
        info["proxy"] = {s.name: s.value for s in self._scores if s.role == "proxy"}
        if verifiers and proxy_reward(self._scores, verifiers) is None:
            # not the reason: an exception's text may quote the answer
            failed = [s.name for s in self._scores if s.role == "proxy" and s.value is None]
            info["unscorable"] = f"no value from: {', '.join(failed)}" if failed else "no score"

    @classmethod
    def asks_judge(cls, *, paying: bool = False) -> bool:
        """Whether a verifier asks a judge; with ``paying``, whether one does that decides over reward or gold."""
        return any("policy" in v.needs for v in (*cls.proxy, *cls.gold)) if paying else "policy" in cls.needs()

    @property
    def proxy_scores(self) -> list[Score]:
        """What the proxy verifiers said at the end of the episode; empty before."""
        return self._scores

    @property
    def proxy_findings(self) -> list[Finding]:
        """Findings of the proxy verifiers at the end of the episode; empty before."""
        return self._findings

    def render(self) -> str | None:
        """The conversation so far as text, with ``render_mode="ansi"``; else None."""
        if self.render_mode != "ansi":
            return None
        lines = []
        for m in self.trajectory.messages:
            calls = "".join(f"\n  -> {c.name}({c.arguments})" for c in m.tool_calls)
            lines.append(f"[{m.role}] {m.text}{calls}")
        return "\n".join(lines)

    def close(self) -> None:
        """Ends the episode that runs, if one does, without a score."""
        self._running = False
        self.release()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _record_changes(self, call_id: str) -> bool:
        """Records what changed in the state since it was last looked at, as done by this call; whether anything did."""
        self._unwatched = False
        if self.state is None:
            return False
        after = plain(self.state)
        if after == self._snapshot:
            return False
        self._changes += diff_state(self._snapshot, after, call_id)
        self._snapshot = after
        return True

    def _as_message(self, action: Action, index: int) -> Message:
        """The action as a clean assistant message whose calls have unique ids."""
        if isinstance(action, str):
            return Message("assistant", clean_text(str(action)))
        if not isinstance(action, Message):
            raise TypeError(f"an action is a Message or a str, not {type(action).__name__}")
        try:
            message = clean_message(action)
        except (AttributeError, TypeError) as e:  # structs do not check what they are constructed with
            raise TypeError(f"the action is not a well-formed Message (arguments are JSON text): {e}") from e
        calls = message.tool_calls
        if calls:
            if len(calls) == 1:
                c = calls[0]
                if not c.id:
                    calls = (ToolCall(c.name, c.arguments, f"t{index}c0", c.origin),)
            else:
                ids = {c.id for c in calls}
                if len(ids) != len(calls) or "" in ids:
                    calls = tuple([ToolCall(c.name, c.arguments, f"t{index}c{i}", c.origin) for i, c in enumerate(calls)])
        if message.role != "assistant" or calls is not message.tool_calls or message.tool_call_id is not None:
            message = Message("assistant", message.content, calls, None, message.name)
        return message

    def _answer(self, message: Message) -> tuple[list[Message], tuple[ToolResult, ...]]:
        """The environment's new messages; sets ``_ended``."""
        if message.tool_calls and not self.tools:
            told = [Message("tool", f"error: there is no tool {c.name[:80]!r}", (), c.id, c.name) for c in message.tool_calls]
            return told, tuple(ToolResult(c.id, c.name, "unknown_tool") for c in message.tool_calls)
        reply = self.respond(message)
        self._record_changes("")
        if reply is None:
            self._ended = True
            return [], ()
        if isinstance(reply, str):
            return [Message("user", clean_text(reply))], ()
        if isinstance(reply, Message):
            return [clean_message(reply)], ()
        return [clean_message(m) for m in reply], ()


class ToolEnv(ChatEnv):
    """An environment whose agent works by calling tools: methods marked with ``@tool``.

    A tool returns what the agent is shown: a string, None for ``ok``, or any plain value (shown as JSON). It raises
    `ToolError` to refuse. The episode ends when the agent calls ``submit``, when a tool calls `end`, or when the agent
    writes a message without a tool call to which ``respond`` has no reply.
    """

    _tools: ClassVar[dict[str, ToolFunction]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._tools = tools_of(cls)
        for name in cls._tools:
            if hasattr(ChatEnv, name):
                raise DefinitionError(f"{cls.__name__}: a tool cannot be called {name!r}: environments have a {name} already")

    @classmethod
    def _class_tools(cls) -> dict[str, ToolFunction]:
        return cls._tools

    @tool
    def submit(self, status: str = "done", answer: str = "") -> str:
        """Ends the task. Call it once, when the work is done or cannot be done.

        Args:
            status: "done", or "refused" or "impossible" with the reason as the answer.
            answer: the answer, where one was asked for.
        """
        self.end()
        return "submitted"

    def lazy(self, task: Task) -> Plan:
        """Submits at once."""
        yield submit() if "submit" in self.tools else assistant("Done.")

    def _answer(self, message: Message) -> tuple[list[Message], tuple[ToolResult, ...]]:
        if not message.tool_calls:
            return super()._answer(message)
        messages: list[Message] = []
        results: list[ToolResult] = []
        for i, c in enumerate(message.tool_calls):
            content, status, writes = self._call(c, i)
            messages.append(Message("tool", content, (), c.id, c.name))
            results.append(ToolResult(c.id, c.name, status, writes))
        return messages, tuple(results)

    def _call(self, c: ToolCall, position: int) -> tuple[str, ToolStatus, bool]:
        """Runs one tool call: what the agent is told, how it went, whether the tool writes."""
        if self._ended or position >= MAX_CALLS_PER_TURN:
            why = "the task has ended" if self._ended else f"more than {MAX_CALLS_PER_TURN} calls in one message"
            return f"error: not run, {why}", "tool_error", False
        function = self.tools.get(c.name)
        if function is None:
            hint = did_you_mean(c.name[:80], self.tools)
            return f"error: there is no tool {c.name[:80]!r}.{hint} Tools: {', '.join(self.tools)}", "unknown_tool", False
        try:
            arguments = function.parse(c)
        except ArgumentError as e:
            return f"error: {c.name}: {clean_text(str(e))}", "bad_arguments", function.writes
        if function.writes and self._unwatched and self._record_changes(""):
            self.note("state.undeclared_write")  # by a tool before this one, which must not be blamed for it
        status: ToolStatus = "ok"
        try:
            value = function.function(self, **arguments)
            if isinstance(value, str):
                content = value if type(value) is str and value.isascii() else clean_text(str(value))
            else:
                content = "ok" if value is None else msgspec.json.encode(value).decode()
        except ToolError as e:
            content, status = f"error: {clean_text(str(e))}", "tool_error"
        except InfrastructureError:
            raise
        except Exception as e:
            # A policy must not be able to leave an episode unscored by crashing a tool. The error is the author's
            # to mend, so it is kept as an event; the agent learns only its type.
            frame = traceback.extract_tb(e.__traceback__)[-1]
            place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
            text = redact(clean_text(str(e)))[:500]
            self.note("tool.exception", c.name, {"type": type(e).__name__, "message": text, "at": place})
            content, status = f"error: {c.name} failed ({type(e).__name__})", "tool_error"
        if function.writes:
            self._record_changes(c.id)
        else:
            self._unwatched = True
        return content, status, function.writes


ToolEnv._tools = tools_of(ToolEnv)


_LITTLE_UINT64 = np.dtype("<u8")


class _Seed(ISpawnableSeedSequence):
    """Where a generator's state comes from: a hash of names, equal everywhere and unrelated for different names.

    Does what ``np.random.SeedSequence`` does, whose construction costs more than most tasks.
    """

    def __init__(self, *names: object) -> None:
        self._digest = hashlib.blake2b("\0".join(map(str, names)).encode(), digest_size=32).digest()

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The first ``n_words`` of the hash; more of them from a ``SeedSequence`` that is seeded with it."""
        if dtype is np.uint64 and n_words == 4:  # what PCG64 asks for
            return np.frombuffer(self._digest, _LITTLE_UINT64)
        state = np.frombuffer(self._digest, np.dtype(dtype).newbyteorder("<"))
        return state[:n_words] if n_words <= len(state) else self._sequence().generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[np.random.SeedSequence]:  # type: ignore[override]
        """Seeds of independent children, for ``rng.spawn``."""
        return self._sequence().spawn(n_children)

    def _sequence(self) -> np.random.SeedSequence:
        return np.random.SeedSequence(int.from_bytes(self._digest, "little"))


def _generator(*names: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_Seed(*names)))  # type: ignore[arg-type]


def _opening(task: Task) -> tuple[Message, ...]:
    opening = task.opening
    if isinstance(opening, str):
        return (Message("user", clean_text(opening)),)
    return (opening,) if isinstance(opening, Message) else tuple(opening)


def _copy(state: Any) -> Any:
    """Builtins that share no container with ``state``, dictionaries in their own order."""
    return msgspec.to_builtins(state, enc_hook=from_numpy)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_type_of(default: Any, value: Any, what: str) -> Any:
    """``value`` as the type of ``default``; text from a command line is converted, nothing else is.

    Raises:
        UsageError: it cannot be.
    """
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        text = value.strip().lower()
        try:
            if kind is bool and text in ("true", "1", "yes", "false", "0", "no"):
                return text in ("true", "1", "yes")
            if kind in (int, float) and math.isfinite(kind(text)):
                return kind(text)
        except ValueError:
            pass
    elif type(value) is kind or (kind is float and type(value) is int):
        if kind is float and not math.isfinite(value):
            raise UsageError(f"{what} must be a finite number, not {value!r}")
        return kind(value)
    raise UsageError(f"{what} must be {kind.__name__}, e.g. {default!r}, not {value!r}")
