# SPDX-License-Identifier: Apache-2.0
"""Driving a scripted scenario by hand, for the tests of what judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agentgym.chat import Action, Message
from agentgym.env import ChatEnv, Task
from agentgym.scoring import Finding, Score, VerifierContext, verify

E = TypeVar("E", bound=ChatEnv)


def begin(cls: Callable[..., E], suitable: Callable[[Task], Any], **params: Any) -> E:
    """An environment with the first task begun that is suitable."""
    env = cls(**params)
    for item in range(500):
        task = env.make_task(str(item))
        if suitable(task):
            env.reset(options={"item": str(item)})
            return env
    raise AssertionError("no task is suitable")


def finish(env: ChatEnv, plan: Callable[[Task], Any], *extra: Action, first: Sequence[Action] = ()) -> None:
    """Plays ``first``, then a plan, with ``extra`` actions before its submission."""
    for action in first:
        env.step(action)
    running = plan(env.task)
    action = next(running)
    while True:
        if isinstance(action, Message) and action.tool_calls and action.tool_calls[0].name == "submit":
            for e in extra:
                env.step(e)
            env.step(action)
            return
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return
        action = running.send(obs)


def _metrics(env: ChatEnv) -> tuple[list[Score], list[Finding]]:
    return verify(env.metrics, "metric", env.trajectory, VerifierContext(env.frozen_task))


def findings(env: ChatEnv) -> dict[str, Finding]:
    """What was found, by rule."""
    return {f.rule: f for f in _metrics(env)[1]}


def violated(env: ChatEnv) -> set[str]:
    """The dimensions that were violated."""
    return {f.dimension for f in _metrics(env)[1] if f.violation}


def metric(env: ChatEnv, name: str) -> float | None:
    """A metric's value; None where it does not apply."""
    return next((s.value for s in _metrics(env)[0] if s.name == name), None)


def gold(env: ChatEnv) -> float:
    """The least of the gold scores."""
    scores, _ = verify(env.gold, "gold", env.trajectory, VerifierContext(env.frozen_task))
    return min(s.value or 0.0 for s in scores)
