# SPDX-License-Identifier: Apache-2.0
"""Policies that the tests of the command line name on it: ``--model tests.cli.players:Never``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agentgym.chat import Message, ReasoningPart, TextPart, ToolCall
from agentgym.errors import InfrastructureError
from agentgym.policies.oracle import as_completion
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling


class Wrong(PolicyBase):
    """Gives an answer that is never right."""

    name = "wrong"

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        return as_completion("Answer: -1")


class HalfRight(PolicyBase):
    """Solves the tasks whose item is even."""

    name = "half"
    privileged = True

    def begin(self, context: EpisodeContext) -> Policy:
        even = int(context.task_id.rsplit("/", 1)[1]) % 2 == 0
        answer = context.env.unwrapped.task.gold if even else "-1"
        return _Says(answer if isinstance(answer, str) else str(answer["answer"]))


class _Says(PolicyBase):
    name = "half"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        return as_completion(f"Answer: {self.answer}")


class Down(PolicyBase):
    """A server that is down."""

    name = "down"

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        raise InfrastructureError("the server at http://user:hunter2@example.test is down", retryable=False)


class DownForOdd(Wrong):
    """A server that is down for the tasks whose item is odd."""

    name = "down-for-odd"

    def begin(self, context: EpisodeContext) -> Policy:
        return Down() if int(context.task_id.rsplit("/", 1)[1]) % 2 else self


class Once(PolicyBase):
    """Answers three episodes, and then thinks for ever."""

    name = "once"
    answered = 0

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        if Once.answered >= 3:
            await asyncio.sleep(3600)
        Once.answered += 1
        return as_completion("Answer: -1")


HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil.test\x1b\\link\x9b31m red [red]red[/red] \u202egnp.exe\u2066"
    "\u200f\r over\x08\x7f \ud800 \U000e0041 \u2028end"
)
"""What must not reach a terminal: escapes, titles, links, C1 controls, bidi, overwriting, tags, a lone surrogate."""


class Hostile(PolicyBase):
    """Says things that steer terminals, in every place where it can say something; fails in its second trial."""

    name = "hostile"

    def begin(self, context: EpisodeContext) -> Policy:
        return _HostileEpisode(context.trial)


class _HostileEpisode(PolicyBase):
    name = "hostile"

    def __init__(self, trial: int) -> None:
        self.turn = 0
        self.trial = trial

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        self.turn += 1
        if self.turn > 1 or not tools:
            if self.trial == 1:
                raise InfrastructureError(HOSTILE, retryable=False)
            return as_completion(HOSTILE)
        parts = (ReasoningPart(HOSTILE), TextPart(HOSTILE))
        return Completion(Message("assistant", parts, (ToolCall(HOSTILE, HOSTILE),)))
