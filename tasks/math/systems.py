# SPDX-License-Identifier: Apache-2.0
"""Systems of linear statements with one answer, none, or many: how they are drawn, told and settled, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import msgspec
import numpy as np

from agentgym.tasks.math.base import between, pick

Row = list[int]
"""Coefficients of the unknowns and the right-hand side."""


class System(msgspec.Struct, kw_only=True):
    """Statements about unknowns, and a combination of them that is asked for."""

    unknowns: list[str]
    rows: list[Row]
    asked: list[int]
    checked: int
    """Statements from the first on that the desk checks a number against."""
    dress: str
    solution: list[int]
    """The one that the feasible twin was built around; it solves the twin with many solutions, too. All above zero."""
    names: list[list[str]]
    """Singular and plural of what each unknown counts; empty where the statements are equations."""


def settle(rows: Sequence[Sequence[int]], asked: Sequence[int]) -> tuple[str, Fraction | None]:
    """What the statements say of the combination ``asked``: ``("done", value)``, or ``infeasible`` or ``many_solutions``.

    Elimination in whole numbers; nothing is rounded.

    >>> settle([[2, 3, 10]], [4, 6]), settle([[2, 3, 10]], [4, 5]), settle([[2, 3, 10], [4, 6, 21]], [4, 6])
    (('done', Fraction(20, 1)), ('many_solutions', None), ('infeasible', None))
    """
    left = [list(r) for r in rows]
    goal, scale = [*asked, 0], 1  # scale * (asked . z) = goal[:-1] . z - goal[-1], at all times
    for column in range(len(asked)):
        place = next((i for i, r in enumerate(left) if r[column]), None)
        if place is None:
            continue
        pivot = left.pop(place)
        p = pivot[column]
        left = [[p * a - r[column] * b for a, b in zip(r, pivot, strict=True)] for r in left]
        if g := goal[column]:
            goal = [p * a - g * b for a, b in zip(goal, pivot, strict=True)]
            scale *= p
    if any(r[-1] for r in left):
        return "infeasible", None
    return ("many_solutions", None) if any(goal[:-1]) else ("done", Fraction(-goal[-1], scale))


def value(coefficients: Sequence[int], values: Sequence[int | Fraction]) -> int | Fraction:
    """The sum of products."""
    return sum(a * v for a, v in zip(coefficients, values, strict=True))


def passes(system: System, number: int | Fraction) -> bool:
    """Whether the statements that the desk checks allow this number."""
    status, only = settle(system.rows[: system.checked], system.asked)
    return status == "many_solutions" or only == number


# -- drawing ----------------------------------------------------------------------------------------------------------

STRUCTURES = ("extra", "multiple", "short", "copy")
"""How the twin comes about. ``extra``: one statement more than unknowns, whose right-hand side is changed (contradiction);
``multiple``: the last statement is a combination of the others, and so is what is asked; its right-hand side is changed
(contradiction); ``short``, ``copy``: fewer independent statements than unknowns, and what is asked is a combination of them all
the same; a coefficient of what is asked is changed (many solutions); in ``copy`` there seem to be enough statements.
So neither the number of statements nor its likeness to that of the unknowns tells feasible tasks from impossible ones."""


class Dress(NamedTuple):
    """A way to tell statements."""

    name: str
    things: tuple[tuple[tuple[str, str], ...], ...]
    """Lists of (singular, plural), one of which is drawn."""
    statement: str
    question: str
    note: str


DRESSES = (
    Dress("equations", (), "{what} = {n}", "What is {what}?", "The unknowns are real numbers."),
    Dress(
        "prices",
        (
            (("pen", "pens"), ("pad", "pads"), ("ruler", "rulers")),
            (("apple", "apples"), ("melon", "melons"), ("lemon", "lemons")),
        ),
        "{what} cost {n} cents in all.",
        "How many cents do {what} cost in all?",
        "Things of one kind cost the same; prices are above zero and need not be whole.",
    ),
    Dress(
        "weights",
        (
            (("crate", "crates"), ("barrel", "barrels"), ("sack", "sacks")),
            (("brick", "bricks"), ("tile", "tiles"), ("beam", "beams")),
        ),
        "{what} weigh {n} kg together.",
        "How many kg do {what} weigh together?",
        "Things of one kind weigh the same; weights are above zero and need not be whole.",
    ),
    Dress(
        "times",
        (
            (("letter", "letters"), ("parcel", "parcels"), ("form", "forms")),
            (("lamp", "lamps"), ("clock", "clocks"), ("radio", "radios")),
        ),
        "To check {what} takes {n} minutes.",
        "How many minutes does it take to check {what}?",
        "Things of one kind take the same time; times are above zero and need not be whole.",
    ),
)


def draw(rng: np.random.Generator, level: int) -> tuple[System, System, str]:
    """A feasible system, its twin in which one number is another one, and the structure's name.

    Args:
        rng: where it comes from.
        level: 1: two unknowns and small numbers; 2: larger ones; 3: three unknowns.
    """
    structure, dress = pick(rng, STRUCTURES), pick(rng, DRESSES)
    n = 3 if level == 3 else 2
    most = 6 if level == 1 else 9
    bare = dress.name == "equations"
    z = [between(rng, 3, 15 if level == 1 else 40) for _ in range(n)]
    independent = n if structure == "extra" else n - 1

    def coefficients() -> list[int]:
        drawn = [between(rng, 1, most) for _ in range(n)]
        if bare and rng.random() < 0.5:
            drawn[between(rng, 0, n - 1)] *= -1
        return drawn

    def combined(rows: list[list[int]]) -> list[int]:
        parts = [between(rng, 2 if len(rows) == 1 else 1, 3) for _ in rows]
        return [sum(p * r[i] for p, r in zip(parts, rows, strict=True)) for i in range(n)]

    while True:
        left = [coefficients() for _ in range(independent)]
        asked = coefficients() if structure == "extra" else combined(left)
        if structure == "extra":
            left.append(coefficients())
        elif structure != "short":
            left.append(combined(left))
        rows = [[*r, sum(a * b for a, b in zip(r, z, strict=True))] for r in left]
        if (
            settle(rows[:independent], asked)[0] != "done"
            or asked in left
            or any(not any(r[:-1]) for r in rows)
            or not any(asked)
        ):
            continue
        other, changed = [list(r) for r in rows], list(asked)
        if structure in ("extra", "multiple"):
            other[-1][-1] += between(rng, 1, 9) * (1 if other[-1][-1] < 12 or rng.random() < 0.5 else -1)
            wanted, checked = "infeasible", len(rows) - 1
        else:
            i = between(rng, 0, n - 1)
            changed[i] += 1 if changed[i] == -1 or changed[i] < 2 or rng.random() < 0.5 else -1
            wanted, checked = "many_solutions", len(rows)
        step = free_direction(rows, n) if wanted == "many_solutions" else [1] * n
        if settle(other, changed)[0] == wanted and any(a * d for a, d in zip(changed, step, strict=True)):
            break
    things = [] if bare else [list(t) for t in pick(rng, dress.things)[:n]]
    unknowns = list("xyz"[:n]) if bare else [t[0] for t in things]
    told = {"unknowns": unknowns, "checked": checked, "dress": dress.name, "names": things, "solution": z}
    return (
        System(rows=rows, asked=asked, **told),  # type: ignore[arg-type]
        System(rows=other, asked=changed, **told),  # type: ignore[arg-type]
        f"{structure}-{dress.name}",
    )


# -- telling ----------------------------------------------------------------------------------------------------------


def told(system: System) -> tuple[str, str]:
    """The statements, numbered by lines, and the question."""
    dress = next(d for d in DRESSES if d.name == system.dress)
    lines = [f"({i}) {dress.statement.format(what=_what(system, r[:-1]), n=r[-1])}" for i, r in enumerate(system.rows, 1)]
    return "\n".join([*lines, dress.note]), dress.question.format(what=_what(system, system.asked))


def _what(system: System, coefficients: Sequence[int]) -> str:
    if not system.names:
        text = ""
        for c, letter in zip(coefficients, system.unknowns, strict=True):
            if c:
                sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
                text += f"{sign}{abs(c) if abs(c) != 1 else ''}{letter}"
        return text
    parts = [f"{c} {many if c != 1 else one}" for c, (one, many) in zip(coefficients, system.names, strict=True) if c]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


# -- solutions --------------------------------------------------------------------------------------------------------


def free_direction(rows: Sequence[Sequence[int]], n: int) -> list[int]:
    """A direction along which the first n - 1 statements stay as they are; zeros where they are not independent.

    >>> free_direction([[2, 3, 10]], 2), free_direction([[1, 0, 0, 5], [0, 1, 0, 5]], 3)
    ([3, -2], [0, 0, 1])
    """
    a = rows[0]
    if n == 2:
        return [a[1], -a[0]]
    b = rows[1]
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def holds(row: Sequence[int], values: Sequence[int | Fraction]) -> bool:
    """Whether a statement holds for these values."""
    return value(row[:-1], values) == row[-1]
