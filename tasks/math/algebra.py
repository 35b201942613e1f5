# SPDX-License-Identifier: Apache-2.0
"""Algebra: linear equations, pairs of equations and quadratics with whole solutions."""

from __future__ import annotations

import numpy as np

from agentgym.tasks.math.base import Levelled, between, pick


class Algebra(Levelled):
    """Solve for a whole number.

    Levels: 1: ``ax + b = c``; 2: ``ax + b = cx + d``; 3: two equations in x and y; 4: the same with larger numbers and
    a combination of x and y asked for; 5: a monic quadratic; 6: a quadratic with a leading coefficient.
    """

    family = "math.algebra"
    top_level = 6

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """Solutions are drawn first and the equations built around them."""
        if self.level <= 2:
            return self._linear(rng)
        if self.level <= 4:
            return self._pair(rng)
        return self._quadratic(rng)

    def _linear(self, rng: np.random.Generator) -> tuple[str, int]:
        letter = pick(rng, "xyznt")
        x, a, b = _nonzero(rng, 12), between(rng, 2, 9), _nonzero(rng, 20)
        if self.level == 1:
            return f"Solve for {letter}: {_terms((a, letter), (b, ''))} = {a * x + b}", x
        c = a
        while c == a:
            c = _nonzero(rng, 9)
        return f"Solve for {letter}: {_terms((a, letter), (b, ''))} = {_terms((c, letter), (a * x + b - c * x, ''))}", x

    def _pair(self, rng: np.random.Generator) -> tuple[str, int]:
        most = 15 if self.level == 3 else 25
        x, y = _nonzero(rng, most), _nonzero(rng, most)
        a = b = c = d = 1
        while a * d == b * c:
            a, b, c, d = (_nonzero(rng, 5 if self.level == 3 else 12) for _ in range(4))
        equations = f"{_terms((a, 'x'), (b, 'y'))} = {a * x + b * y}\n{_terms((c, 'x'), (d, 'y'))} = {c * x + d * y}"
        if self.level == 3:
            wanted, answer = pick(rng, (("x", x), ("y", y)))
        else:
            p, q = between(rng, 2, 5), _nonzero(rng, 5)
            wanted, answer = _terms((p, "x"), (q, "y")), p * x + q * y
        return f"Both of these equations hold:\n{equations}\nWhat is {wanted}?", answer

    def _quadratic(self, rng: np.random.Generator) -> tuple[str, int]:
        a = 1 if self.level == 5 else between(rng, 2, 5)
        r = s = _nonzero(rng, 12)
        while r == s:
            s = _nonzero(rng, 12)
        equation = f"{_terms((a, 'x^2'), (-a * (r + s), 'x'), (a * r * s, ''))} = 0"
        which, answer = pick(rng, (("larger", max(r, s)), ("smaller", min(r, s))))
        return f"The equation {equation} has two solutions. What is the {which} one?", answer


def _nonzero(rng: np.random.Generator, most: int) -> int:
    """A whole number from -``most`` to ``most`` except 0."""
    value = between(rng, -most, most - 1)
    return value if value < 0 else value + 1


def _terms(*terms: tuple[int, str]) -> str:
    """A sum of terms as it is written by hand: ``2x - y + 3``; terms of coefficient 0 are left out."""
    text = ""
    for coefficient, letter in terms:
        if coefficient:
            size = str(abs(coefficient)) if abs(coefficient) != 1 or not letter else ""
            sign = (" - " if coefficient < 0 else " + ") if text else ("-" if coefficient < 0 else "")
            text += f"{sign}{size}{letter}"
    return text or "0"
