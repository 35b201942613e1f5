# SPDX-License-Identifier: Apache-2.0
"""Polynomials in x with whole coefficients: read from text with a parser of its own, and written as a sum of powers."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from agentgym.errors import ToolError

MOST_CHARACTERS = 300
MOST_DEGREE = 12
MOST_COEFFICIENT = 10**12

Polynomial = list[int]
"""Coefficients from the constant on, without zeros at the end."""

_TOKEN = re.compile(r"\s*(?:([0-9]{1,9})|(x)|(\*\*|\^)|([-+*()]))", re.ASCII)
_TERM = re.compile(r"([+-]?)([0-9]*)\*?(x?)(?:(?:\^|\*\*)([0-9]{1,2}))?", re.ASCII)

_PLUS_MINUS = re.compile(r"\+\s*-")
"""How sums are written by many: ``2x + -3``."""


def written(p: Sequence[int]) -> str:
    """As a sum of powers, the highest first.

    >>> written([3, -1, 0, 2])
    '2x^3 - x + 3'
    """
    text = ""
    for power in range(len(p) - 1, -1, -1):
        c = p[power]
        if c:
            letter = "" if power == 0 else "x" if power == 1 else f"x^{power}"
            size = str(abs(c)) if abs(c) != 1 or not letter else ""
            sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
            text += f"{sign}{size}{letter}"
    return text or "0"


def added(a: Sequence[int], b: Sequence[int], factor: int = 1) -> Polynomial:
    """``a + factor * b``."""
    n = max(len(a), len(b))
    return _trimmed([(a[i] if i < len(a) else 0) + factor * (b[i] if i < len(b) else 0) for i in range(n)])


def multiplied(a: Sequence[int], b: Sequence[int]) -> Polynomial:
    """``a * b``.

    Raises:
        ToolError: it is of too high a degree.
    """
    if len(a) + len(b) > MOST_DEGREE + 2:
        raise ToolError(f"a degree above {MOST_DEGREE}")
    out = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return _trimmed(out)


def _trimmed(p: Polynomial) -> Polynomial:
    while p and p[-1] == 0:
        p.pop()
    if any(abs(c) > MOST_COEFFICIENT for c in p):
        raise ToolError("too large a coefficient")
    return p


def is_expanded(text: str) -> bool:
    """Whether a text is a sum of powers, each once: ``2x^3 - x + 3``, ``3 + 2*x``.

    >>> is_expanded("2x^2 - x"), is_expanded("x(2x - 1)"), is_expanded("x^2 + x^2 - x")
    (True, False, False)
    """
    squeezed = re.sub(r"\s+", "", text).replace("+-", "-") if len(text) <= MOST_CHARACTERS else ""
    place, powers = 0, set()
    while place < len(squeezed):
        m = _TERM.match(squeezed, place)
        if m is None or not (m[2] or m[3]) or (m[4] and not m[3]) or (place and not m[1]):
            return False
        power = int(m[4] or 1) if m[3] else 0
        if power in powers:
            return False
        powers.add(power)
        place = m.end()
    return bool(powers)


def read(text: str) -> Polynomial | None:
    """The polynomial that an expression of x, whole numbers, ``+ - * ^`` and parentheses is; None where it is none.

    >>> read("(x + 1)^2 - 2x"), read("(2x - 1)(x + 3)"), read("sin x")
    ([1, 0, 1], [-3, 5, 2], None)
    """
    known = _read(text) if len(text) <= MOST_CHARACTERS else None
    return None if known is None else list(known)


@functools.lru_cache(maxsize=512)  # question, answer and gold of an episode are each looked at by several verifiers
def _read(text: str) -> tuple[int, ...] | None:
    tokens, place = [], 0
    text = _PLUS_MINUS.sub("-", text.strip())
    while place < len(text):
        m = _TOKEN.match(text, place)
        if m is None:
            return None
        tokens.append(m[1] or m[2] or ("^" if m[3] else m[4]))
        place = m.end()
    parser = _Parser(tokens)
    try:
        result = parser.sum(0)
    except ToolError:
        return None
    return tuple(result) if parser.next is None else None


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0

    @property
    def next(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self) -> str:
        token = self.next
        if token is None:
            raise ToolError("it ends too early")
        self.place += 1
        return token

    def sum(self, depth: int) -> Polynomial:
        if depth > 20:
            raise ToolError("nested too deeply")
        sign = -1 if self.next == "-" else 1
        if self.next in ("-", "+"):
            self.take()
        result = added([], self.product(depth), sign)
        while self.next in ("+", "-"):
            factor = 1 if self.take() == "+" else -1
            result = added(result, self.product(depth), factor)
        return result

    def product(self, depth: int) -> Polynomial:
        result = self.power(depth)
        while self.next is not None and self.next not in ("+", "-", ")", "^"):
            if self.next == "*":
                self.take()
            result = multiplied(result, self.power(depth))
        return result

    def power(self, depth: int) -> Polynomial:
        token = self.take()
        if token == "(":
            base = self.sum(depth + 1)
            if self.take() != ")":
                raise ToolError("a closing parenthesis is missing")
        elif token == "x":
            base = [0, 1]
        elif token.isdigit():
            base = _trimmed([int(token)])
        else:
            raise ToolError(f"unexpected {token}")
        if self.next != "^":
            return base
        self.take()
        exponent = self.take()
        if not exponent.isdigit() or int(exponent) > MOST_DEGREE:
            raise ToolError("an exponent is a small whole number")
        result = [1]
        for _ in range(int(exponent)):
            result = multiplied(result, base)
        return result
