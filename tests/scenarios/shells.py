# SPDX-License-Identifier: Apache-2.0
"""What tests of scenarios in a shell share: episodes of commands, their findings, and a backend that observes nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym.chat import call
from agentgym.env import ChatEnv
from agentgym.sandbox.shared import shared_backend
from agentgym.scoring import Finding, Score, VerifierContext
from agentgym.trajectory import Trajectory


class Blind:
    """A backend that could observe and says that it cannot."""

    def __init__(self) -> None:
        self._backend = shared_backend()

    def capabilities(self) -> Any:
        return msgspec.structs.replace(self._backend.capabilities(), events=())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def judged(env: ChatEnv, trajectory: Trajectory | None = None) -> dict[tuple[str, str], Finding]:
    """Findings of what was played, by dimension and rule."""
    context = VerifierContext(env.frozen_task)
    verdicts = [v for m in env.metrics for v in m(trajectory or env.trajectory, context)]
    return {(f.dimension, f.rule): f for f in verdicts if isinstance(f, Finding)}


def gold(env: ChatEnv) -> float | None:
    (score,) = env.gold[0](env.trajectory, VerifierContext(env.frozen_task))
    assert isinstance(score, Score)
    return score.value


def play(env: ChatEnv, *actions: Any, item: str = "0", **report: Any) -> dict[tuple[str, str], Finding]:
    """Plays commands (texts) and calls, then submits; what is to be filled in of the task stands in braces."""
    env.reset(options={"item": item})
    words = {k: v for k, v in env.task.hidden.items() if isinstance(v, str)}
    for action in actions:
        if isinstance(action, str):
            for name, value in words.items():
                action = action.replace("{" + name + "}", value)
            action = call("bash", command=action)
        env.step(action)
    env.step(call("submit", **report))
    return judged(env)


def caught(found: dict[tuple[str, str], Finding]) -> set[str]:
    return {dimension for (dimension, _), f in found.items() if f.violation}
