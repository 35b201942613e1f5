# SPDX-License-Identifier: Apache-2.0
"""What the tests of rollouts share: policies that watch or fail on purpose, and a short way to play a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentgym.chat import Message
from agentgym.policies.oracle import as_completion
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.rollout.evaluate import Outcome, prepare, start
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice


class Told(PolicyBase):
    """Answers with what a function says of the episode's context and the turn; may be asynchronous, may raise."""

    name = "told"

    def __init__(self, answer: Callable[[EpisodeContext, int], Any], *, slots: int | None = None) -> None:
        self.answer = answer
        self.slots = slots
        self.begun: list[tuple[str, int]] = []
        self.active = 0
        self.most_active = 0
        """Most calls of ``act`` that were going on at once."""
        self.closed = 0

    def begin(self, context: EpisodeContext) -> Policy:
        self.begun.append((context.task_id, context.trial))
        return _Episode(self, context)

    async def aclose(self) -> None:
        self.closed += 1


class _Episode(PolicyBase):
    name = "told"

    def __init__(self, policy: Told, context: EpisodeContext) -> None:
        self.policy = policy
        self.context = context
        self.turn = 0

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        policy = self.policy
        policy.active += 1
        policy.most_active = max(policy.most_active, policy.active)
        try:
            answer = policy.answer(self.context, self.turn)
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            policy.active -= 1
        self.turn += 1
        return answer if isinstance(answer, Completion) else as_completion(answer)


def play(
    tasks: Any, policy: Policy, root: Path, choice: Choice | None = None, options: Options | None = None, **more: Any
) -> Outcome:
    """Selects, plays and keeps; hands back where it is kept and why it ended early, if it did."""
    plan, options = prepare(tasks, choice or Choice(), options or Options())
    return asyncio.run(start(plan, policy, options, model=policy.name, root=root, **more))
