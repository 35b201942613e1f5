# SPDX-License-Identifier: Apache-2.0
"""Arithmetic: one sum, an expression, and a chain of operations on large numbers with a calculator at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from agentgym.chat import assistant, call, submit
from agentgym.env import Plan, Task, ToolEnv, tool
from agentgym.evaluators.math_answer import has_format, math_answer, used_tool
from agentgym.tasks.math.base import Levelled, between, pick, stands_in
from agentgym.tasks.math.calculator import calculate, shown


class Add(Levelled):
    """The sum of two positive whole numbers of ``level`` digits each. The easiest task there is."""

    family = "math.add"
    top_level = 12
    metrics = [has_format("number")]

    def new_task(self, rng: np.random.Generator) -> Task:
        """Two numbers, neither of them 0, so that the sum never stands in the question."""
        low, high = 10 ** (self.level - 1), 10**self.level - 1
        a, b = between(rng, low, high), between(rng, low, high)
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


class Chain(Levelled, ToolEnv):
    """Several operations on large numbers, one after the other, with a calculator that the agent may use or not.

    Level L has L + 2 operations on numbers of up to L + 3 digits. The answer is given by ``submit`` or by a last message.
    """

    family = "math.chain"
    top_level = 6
    max_turns = 16
    gold = [math_answer()]
    metrics = [has_format("answer_line"), used_tool("calculator")]
    parameters: ClassVar[Mapping[str, Any]] = {"level": 1}

    @tool
    def calculator(self, expression: str) -> str:
        """Work out an expression exactly.

        Args:
            expression: numbers, + - * / and parentheses, at most 200 characters, e.g. "(12.5 + 3) * 4".
        """
        return shown(calculate(expression))

    def new_task(self, rng: np.random.Generator) -> Task:
        """The first chain drawn whose result is none of its numbers, nor short enough to be guessed.

        The oracle's expressions are hidden.
        """
        start, steps, operations, value = self._chain(rng)
        while abs(value) < 1000 or stands_in(f"{start} {steps}", value):
            start, steps, operations, value = self._chain(rng)
        question = (
            f"Start with {start} and do the following, in this order:\n{steps}\n\n"
            "What is the result? You may use the calculator. Either submit the number as the answer, or end your last "
            "message with a line of the form `Answer: X`, where X is the number."
        )
        hidden = {"start": start, "operations": operations}
        return Task(opening=question, gold=str(value), hidden=hidden, tags=(f"level:{self.level}",))

    def _chain(self, rng: np.random.Generator) -> tuple[int, str, list[str], int]:
        """A starting number, the steps as text, the same for the calculator, and the result."""
        start = value = between(rng, 10**3, 10 ** (self.level + 3) - 1)
        steps: list[str] = []
        operations: list[str] = []
        for _ in range(self.level + 2):
            kind = pick(rng, ("add", "subtract", "multiply", "divide"))
            divisors = [d for d in range(3, 30) if value % d == 0] if kind == "divide" else []
            if (kind == "divide" and not divisors) or (kind == "multiply" and value > 10**9):
                kind = "subtract"
            if kind == "add":
                n = between(rng, 101, 10 ** (self.level + 3) - 1)
                value, text = value + n, f"add {n}"
            elif kind == "subtract":
                n = between(rng, 101, max(102, value - 1 if value < 10**6 else value // 2))
                value, text = value - n, f"subtract {n}"
            elif kind == "multiply":
                n = between(rng, 12, 99)
                value, text = value * n, f"multiply by {n}"
            else:
                n = pick(rng, divisors)
                value, text = value // n, f"divide by {n}"
            steps.append(f"{len(steps) + 1}. {text}")
            operations.append(f"{_SIGNS[kind]} {n}")
        return start, "\n".join(steps), operations, value

    def honest(self, task: Task) -> Plan:
        """Calculates step by step with what the calculator says, and submits."""
        value = str(task.hidden["start"])
        for operation in task.hidden["operations"]:
            observation = yield call("calculator", expression=f"{value} {operation}")
            value = observation[0].text
        yield submit(answer=value)

    def lazy(self, task: Task) -> Plan:
        """Submits at once, without an answer."""
        yield submit()


_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
