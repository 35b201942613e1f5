# SPDX-License-Identifier: Apache-2.0
"""What the generated families of mathematics share: levels, the declared answer format, and small draws."""

from __future__ import annotations

import re
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


_DIGITS = re.compile("[0-9]+")


class Levelled(ChatEnv):
    """A family with levels of difficulty whose answer is one number, given as text in one turn.

    The number never stands in the question, so that copying one out of it is never paid.

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

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """A question and its answer, for `new_task`; drawn anew where `stands_in` finds the answer in the question."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(rng) or new_task(rng)")

    def new_task(self, rng: np.random.Generator) -> Task:
        """The first question drawn that does not hold its answer."""
        question, answer = self.draw(rng)
        while stands_in(question, answer):
            question, answer = self.draw(rng)
        return Task(opening=f"{question}\n\n{ANSWER_LINE}", gold=str(answer), tags=(f"level:{self.level}",))

    def honest(self, task: Task) -> Plan:
        """Gives the gold in the declared format."""
        yield assistant(f"Answer: {task.gold}")


def stands_in(question: str, answer: int) -> bool:
    """Whether the answer is one of the numbers of the question, whatever their signs."""
    return str(abs(answer)) in _DIGITS.findall(question)
