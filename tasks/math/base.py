# SPDX-License-Identifier: Apache-2.0
"""What the generated families of mathematics share: levels, the declared answer format, and small draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from agentgym.chat import assistant
from agentgym.env import ChatEnv, Plan, Task
from agentgym.errors import UsageError
from agentgym.evaluators.math_answer import has_format, math_answer

ANSWER_LINE = "End with a last line of the form `Answer: X`, where X is the number."
"""The instruction that goes with the protocol ``answer_line``."""

_T = TypeVar("_T")


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return int(rng.integers(low, high + 1))


def pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    """One of ``choices``, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


class Levelled(ChatEnv):
    """A family with levels of difficulty whose answer is one number, given as text in one turn.

    Args:
        level: 1 is the easiest; ``top_level`` the hardest.
        **kwargs: see `ChatEnv`.

    Raises:
        UsageError: there is no such level.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"level": 1}
    max_turns: ClassVar[int] = 1
    top_level: ClassVar[int] = 1
    """The highest level there is."""
    gold = [math_answer()]
    metrics = [has_format("answer_line")]

    level: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= self.level <= self.top_level:
            raise UsageError(f"{self.family}: level must be 1 to {self.top_level}, not {self.level}")

    def honest(self, task: Task) -> Plan:
        """Gives the gold in the declared format."""
        yield assistant(f"Answer: {task.gold}")

    def level_task(self, question: str, answer: int) -> Task:
        """The task that asks ``question`` and wants ``answer``."""
        return Task(opening=f"{question}\n\n{ANSWER_LINE}", gold=str(answer), tags=(f"level:{self.level}",))
