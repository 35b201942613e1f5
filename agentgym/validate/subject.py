# SPDX-License-Identifier: Apache-2.0
"""What is checked: an environment in one variant with its oracles' episodes, each played once and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from agentgym.chat import Message, assistant
from agentgym.env import ChatEnv, Probe
from agentgym.episode import EpisodeResult, play
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.policies.oracle import OraclePolicy, PlanPolicy, ScriptedPolicy
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.toolspec import ToolSpec


class Check(msgspec.Struct):
    """One thing that was checked."""

    name: str
    ok: bool
    detail: str
    """What was seen, for a person; where it failed, what to do."""
    task: str = ""
    """The first task in which it failed."""


class Report(msgspec.Struct):
    """One environment in one variant."""

    label: str
    variant: str
    tasks: int
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return all(c.ok for c in self.checks)


class Failed(Exception):
    """A check does not hold; the text says why."""

    def __init__(self, detail: str, task: str = "") -> None:
        super().__init__(detail)
        self.task = task


class Quoting(PolicyBase):
    """The honest oracle, that says aloud with each call what it was told: words are no acts."""

    name = "oracle:honest, quoting"
    privileged = True

    def __init__(self) -> None:
        self._player: Policy | None = None

    def begin(self, context: EpisodeContext) -> Policy:
        """One that quotes."""
        player = Quoting()
        player._player = OraclePolicy("honest").begin(context)
        return player

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """What the oracle does, with what it was told quoted beside it where it calls a tool."""
        assert self._player is not None
        completion = await self._player.act(conversation, tools, sampling)
        message = completion.message
        if not message.tool_calls:
            return completion
        told = "\n".join(m.text for m in conversation if m.role != "assistant")
        quoted = assistant(f"{message.text}\nI was told, and quote: {told!r}"[:20_000], *message.tool_calls)
        return msgspec.structs.replace(completion, message=quoted)


class Subject:
    """An environment in one variant, and its oracles' episodes, each played once and kept.

    Args:
        make: makes it, anew each time.
        seeds: how many of its first tasks.
        twin: gives another variant of it.
    """

    def __init__(self, make: Callable[[], ChatEnv], seeds: int, twin: Callable[[str], Subject]) -> None:
        self.make = make
        self.env = make()
        self.items = self.env.items(seeds)
        self.twin = twin
        self.played: dict[tuple[str, str], EpisodeResult] = {}
        self._probes: dict[str, list[tuple[Probe, EpisodeResult]]] = {}

    @property
    def few(self) -> list[str]:
        """The items for checks that play more than the oracles' episodes: one where that takes a sandbox, else three."""
        return self.items[: 1 if self.env.needs() or self.env.blocking else 3]

    @property
    def probed(self) -> list[str]:
        """The items whose probes are played: all, but one where that takes a sandbox."""
        return self.items[: 1 if self.env.needs() or self.env.blocking else None]

    def play(self, policy: Policy, item: str, env: ChatEnv | None = None) -> EpisodeResult:
        """One episode.

        Raises:
            InfrastructureError: something failed that is nobody's fault; nothing can be said of the task then.
        """
        env = env or self.env
        result = asyncio.run(play(env, env.make_task(item), policy))
        error = result.trajectory.error
        if error is not None and error.kind in ("sandbox", "internal"):  # of the policy, an oracle, it is the task's own
            raise InfrastructureError(error.message)
        return result

    def oracle(self, which: str, item: str) -> EpisodeResult:
        """The episode of an oracle, or of the honest one as it quotes (``quoting``); played when it is first asked for.

        Raises:
            Failed: the cheater's plan breaks off; nothing is violated then, and that would look like innocence.
        """
        key = (which, item)
        if key not in self.played:
            self.played[key] = self.play(Quoting() if which == "quoting" else OraclePolicy(which), item)
        error = self.played[key].trajectory.error
        if which == "cheater" and error is not None:
            raise Failed(f"the cheater cannot play: {error.message}", self.name(item))
        return self.played[key]

    def probes(self, item: str) -> list[tuple[Probe, EpisodeResult]]:
        """The environment's probes of a task with their episodes, played when they are first asked for."""
        if item not in self._probes:
            found: list[tuple[Probe, EpisodeResult]] = []
            for probe in self.env.probes(self.env.make_task(item)):
                which = f"probe {probe.name}"
                if any(probe.name == other.name for other, _ in found):
                    raise DefinitionError(f"{self.env.label} has two probes named {probe.name!r}")
                plan = probe.plan
                player = ScriptedPolicy(plan, which) if isinstance(plan, Sequence) else PlanPolicy(which, plan)
                self.played[which, item] = self.play(player, item)
                found.append((probe, self.played[which, item]))
            self._probes[item] = found
        return self._probes[item]

    def has(self, which: str) -> bool:
        """Whether the environment brings that oracle along."""
        return getattr(type(self.env), which) is not getattr(ChatEnv, which) or which in ("lazy", "random")

    def name(self, item: str) -> str:
        """The task's id."""
        return f"{self.env.label}/{self.env.variant}/{item}"


def dimensions(result: EpisodeResult) -> set[str]:
    """What an episode was found guilty of."""
    return {f.dimension for f in result.findings if f.violation}


def why(result: EpisodeResult) -> str:
    """Why an episode has no full gold."""
    if result.trajectory.error is not None:
        return result.trajectory.error.message
    low = [f"{s.name} {s.value}: {s.reason}".rstrip(": ") for s in result.scores if s.value is None or s.value < 1]
    return "; ".join(dict.fromkeys(low)) or "no gold verifier says why"
