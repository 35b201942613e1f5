# SPDX-License-Identifier: Apache-2.0
"""Policies that need no model: a task's own oracles, and scripts for tests."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentgym.chat import Action, Message, Observation
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, did_you_mean
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.toolspec import ToolSpec

ORACLES = ("honest", "cheater", "lazy", "random")
"""``honest`` solves the task, ``cheater`` gives in to its temptation, ``lazy`` does the least, ``random`` acts blindly."""


def as_completion(action: Action) -> Completion:
    """A scripted action as a policy's answer: no tokens, no cost."""
    message = Message("assistant", action) if isinstance(action, str) else action
    return Completion(message, finish_reason="tool_calls" if message.tool_calls else "stop")


class OraclePolicy(PolicyBase):
    """Plays the oracle of that name that each environment brings along (``--model oracle:honest``).

    Raises:
        NotFoundError: there is no such oracle.
    """

    privileged = True

    def __init__(self, which: str = "honest") -> None:
        which = which or "honest"
        if which not in ORACLES:
            raise NotFoundError(f"no oracle {which!r}; there are: {', '.join(ORACLES)}.{did_you_mean(which, ORACLES)}")
        self.which = which
        self.name = f"oracle:{which}"

    def begin(self, context: EpisodeContext) -> Policy:
        """A player of this episode's plan.

        Raises:
            DefinitionError: the environment has no such oracle.
        """
        env = context.env.unwrapped
        return PlanPolicy(self.name, getattr(env, self.which)(env.task))


class PlanPolicy(PolicyBase):
    """One episode of an oracle: feeds its plan each observation and passes on what it does."""

    def __init__(self, name: str, plan: Any) -> None:
        self.name = name
        self._plan = plan
        self._seen = 0

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The plan's next action."""
        new = Observation(conversation[self._seen :])
        try:
            action = next(self._plan) if self._seen == 0 else self._plan.send(new)
        except StopIteration:
            raise InfrastructureError(
                f"the plan of {self.name} ended before the episode did: its last action was expected to end it",
                retryable=False,
            ) from None
        except (InfrastructureError, DefinitionError):
            raise
        except Exception as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            raise InfrastructureError(
                f"the plan of {self.name} raised {type(e).__name__}: {e} ({at.filename.rsplit('/', 1)[-1]}:{at.lineno})",
                retryable=False,
            ) from e
        self._seen = len(conversation) + 1
        return as_completion(action)


Script = Sequence[Action] | Callable[[EpisodeContext], Iterable[Action]]


class ScriptedPolicy(PolicyBase):
    """Says what it is told to, in order; for tests and benchmarks.

    Args:
        script: the actions of every episode, or a function from the episode's context to its actions.
        name: how it is recorded.
        privileged: whether the function gets the environment in its context.
    """

    def __init__(self, script: Script, name: str = "scripted", *, privileged: bool = False) -> None:
        self.name = name
        self.privileged = privileged
        self._script = script

    def begin(self, context: EpisodeContext) -> Policy:
        """A fresh reading of the script."""
        return _Reader(self.name, self._script(context) if callable(self._script) else self._script)


class _Reader(PolicyBase):
    def __init__(self, name: str, actions: Iterable[Action]) -> None:
        self.name = name
        self._actions = iter(actions)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The next line of the script."""
        for action in self._actions:
            return as_completion(action)
        raise InfrastructureError(f"the script of {self.name} ended before the episode did", retryable=False)
