# SPDX-License-Identifier: Apache-2.0
"""Arithmetic: one sum, and an expression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from agentgym.chat import assistant
from agentgym.env import Plan, Task
from agentgym.errors import UsageError
from agentgym.evaluators.math_answer import has_format
from agentgym.tasks.math.base import Levelled, between, pick


class Add(Levelled):
    """The sum of two positive whole numbers of ``level`` digits each. The easiest task there is.

    With ``round`` the first ends in zeros and the second has as many digits as there are zeros (700 + 62, 260 + 7): a model of
    few parameters can learn that, and from level 3 on there are questions enough to hold hundreds out.
    """

    family = "math.add"
    parameters: ClassVar[Mapping[str, Any]] = {"level": 1, "round": False}
    top_level = 12
    metrics = [has_format("number")]

    round: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.round and self.level < 2:
            raise UsageError("math.add: round=true needs numbers of two digits or more: level=2 and above")

    def numbers(self, rng: np.random.Generator) -> tuple[int, int]:
        """The two that are added, neither of them 0, so that the sum never stands in the question."""
        low, high = 10 ** (self.level - 1), 10**self.level - 1
        if not self.round:
            return between(rng, low, high), between(rng, low, high)
        unit = 10 ** between(rng, 1, self.level - 1)
        return between(rng, low // unit, high // unit) * unit, between(rng, unit // 10, unit - 1)

    def split_key(self, seed: int) -> int:
        """The pair, whichever comes first: neither a held-out sum nor its commuted twin is ever trained on."""
        a, b = sorted(self.numbers(self.generator(seed)))
        return int(f"{a}{b:0{self.top_level}}")

    def new_task(self, rng: np.random.Generator) -> Task:
        """Two numbers."""
        a, b = self.numbers(rng)
        question = f"Calculate {a} + {b}. Answer with the number only."
        return Task(opening=question, gold=str(a + b), tags=(f"level:{self.level}",))

    def honest(self, task: Task) -> Plan:
        """Says the number and nothing else."""
        yield assistant(task.gold)


class Arith(Levelled):
    """The value of an expression of + - * / and parentheses; every division comes out even.

    Level L has L + 1 numbers, of one digit at levels 1 and 2 and of up to two digits above.
    """

    family = "math.arith"
    top_level = 8

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """An expression drawn as a tree; its value is none of -1, 0 and 1, which would be too often right by guessing."""
        value = 0
        while abs(value) < 2:
            text, value, _ = self._expression(rng, self.level + 1)
        return f"Calculate {text}.", value

    def _expression(self, rng: np.random.Generator, leaves: int) -> tuple[str, int, int]:
        """Text, value and how tightly the outermost operator binds: 1 for + and -, 2 for * and /, 3 for a number."""
        if leaves == 1:
            value = between(rng, 2, 9 if self.level <= 2 else 30)
            return str(value), value, 3
        left = between(rng, 1, leaves - 1)
        a, x, tight_a = self._expression(rng, left)
        b, y, tight_b = self._expression(rng, leaves - left)
        operator = pick(rng, "++--**/")
        if operator == "/":
            divisors = [d for d in range(2, 13) if x % d == 0]
            if tight_b < 3 or not x or not divisors:
                operator = "+"
            else:
                y = pick(rng, divisors)
                b = str(y)
        if operator == "*" and abs(x * y) > 10**6:
            operator = "-"
        strength = 1 if operator in "+-" else 2
        if tight_a < strength:
            a = f"({a})"
        if tight_b < strength or (tight_b == strength and operator in "-/"):
            b = f"({b})"
        value = x + y if operator == "+" else x - y if operator == "-" else x * y if operator == "*" else x // y
        return f"{a} {operator} {b}", value, strength
