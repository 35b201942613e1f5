# SPDX-License-Identifier: Apache-2.0
"""A calculator for agents: the four operations on exact fractions, with a parser of its own and limits on everything.

Nothing is evaluated by Python: an expression comes from a model and may be anything.
"""

from __future__ import annotations

import re
from fractions import Fraction

from agentgym.errors import ToolError

MOST_CHARACTERS = 200
"""Length of an expression. It bounds the work too: there are no powers, so no result has more digits than were typed."""

MOST_DIGITS = 50
"""Digits of one number in an expression, the decimals included."""

DEEPEST = 20
"""Nesting of parentheses and signs."""

MOST_DECIMALS = 12
"""A result that needs more decimal places is shown as a fraction."""

_TOKEN = re.compile(r"\s*+(?:([0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)|(\*\*|[-+*/()])|(\S)|$)", re.ASCII)
_SYNONYMS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-"})

Number = int | Fraction


def calculate(expression: str) -> Number:
    """The exact value of an expression of numbers, ``+ - * /`` and parentheses; an int where it is whole.

    Raises:
        ToolError: it is malformed, too long or too deep, or divides by zero; in a sentence for the agent.

    >>> calculate("2 * (3 + 0.5) - 1/3")
    Fraction(20, 3)
    """
    if len(expression) > MOST_CHARACTERS:
        raise ToolError(f"the expression is longer than {MOST_CHARACTERS} characters; calculate in several steps")
    parser = _Parser(_tokens(expression.translate(_SYNONYMS)))
    value = parser.sum(0)
    if parser.token:
        raise ToolError(f"unexpected {parser.token!r} after a complete expression")
    return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def shown(value: Number) -> str:
    """A value as text: an integer, an exact decimal of at most `MOST_DECIMALS` places, or a fraction.

    >>> shown(Fraction(1, 8)), shown(Fraction(-1, 3))
    ('0.125', '-1/3')
    """
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    below, places = value.denominator, 0
    while below % 10 == 0:
        below, places = below // 10, places + 1
    while below % 2 == 0 or below % 5 == 0:
        below, places = below // (2 if below % 2 == 0 else 5), places + 1
    if below != 1 or places > MOST_DECIMALS:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _tokens(expression: str) -> list[str]:
    found: list[str] = []
    for number, operator, other in _TOKEN.findall(expression):
        if other:
            hint = (
                "; write numbers without separators" if other == "," else "; powers are not supported" if other == "^" else ""
            )
            raise ToolError(f"only numbers, + - * / and parentheses are understood, not {other!r}{hint}")
        if operator == "**":
            raise ToolError("powers are not supported; multiply step by step")
        if len(number) > MOST_DIGITS:
            raise ToolError(f"a number has more than {MOST_DIGITS} digits")
        if number or operator:
            found.append(number or operator)
    if not found:
        raise ToolError("the expression is empty")
    return found


class _Parser:
    """Recursive descent over tokens; ``token`` is the next one, empty at the end."""

    def __init__(self, tokens: list[str]) -> None:
        self.rest = iter(tokens)
        self.token = ""
        self.advance()

    def advance(self) -> None:
        self.token = next(self.rest, "")

    def sum(self, depth: int) -> Number:
        value = self.product(depth)
        while self.token == "+" or self.token == "-":
            minus = self.token == "-"
            self.advance()
            value = value - self.product(depth) if minus else value + self.product(depth)
        return value

    def product(self, depth: int) -> Number:
        value = self.factor(depth)
        while self.token == "*" or self.token == "/":
            divide = self.token == "/"
            self.advance()
            by = self.factor(depth)
            if not divide:
                value = value * by
            elif by == 0:
                raise ToolError("division by zero")
            else:
                value = Fraction(value) / by
        return value

    def factor(self, depth: int) -> Number:
        if depth > DEEPEST:
            raise ToolError(f"parentheses or signs nest deeper than {DEEPEST} levels")
        token = self.token
        if not token:
            raise ToolError("the expression ends where a number was expected")
        self.advance()
        if token[0].isdigit() or token[0] == ".":
            return Fraction(token.rstrip(".")) if "." in token else int(token)
        if token == "-":
            return -self.factor(depth + 1)
        if token == "+":
            return self.factor(depth + 1)
        if token == "(":
            value = self.sum(depth + 1)
            if self.token != ")":
                raise ToolError(f"a closing parenthesis is missing{f' before {self.token!r}' if self.token else ''}")
            self.advance()
            return value
        raise ToolError(f"a number was expected, not {token!r}")
