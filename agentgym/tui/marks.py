# SPDX-License-Identifier: Apache-2.0
"""Marks and numbers as the viewer shows them: never by colour alone, always a sign and a word."""

from __future__ import annotations

from typing import NamedTuple

from agentgym.report.text import fraction

VIOLATION = "⚑"
"""A rule was broken, or a turn in which that happened."""
TROUBLE = "!"
"""Infrastructure, damage, or an event that the environment took note of."""
GOOD, BAD, PARTLY, UNKNOWN = "✓", "✗", "~", "?"


class Mark(NamedTuple):
    """A sign with its word and the name of its style (`agentgym.tui.widgets.paint.STYLES`)."""

    sign: str
    word: str
    style: str

    def __str__(self) -> str:
        return f"{self.sign} {self.word}"


SOLVED = Mark(GOOD, "solved", "good")
FAILED = Mark(BAD, "failed", "bad")
PARTIAL = Mark(PARTLY, "partly", "warn")
ERROR = Mark(TROUBLE, "error", "warn")
CANCELLED = Mark("⊘", "cancelled", "muted")
UNSCORED = Mark(UNKNOWN, "unscored", "muted")
BROKEN_RULE = Mark(VIOLATION, "violation", "flag")

LEGEND = (
    (SOLVED, "gold is 1"),
    (PARTIAL, "gold in between"),
    (FAILED, "gold is 0"),
    (UNSCORED, "ended, not scorable"),
    (ERROR, "infrastructure"),
    (CANCELLED, "by a person"),
    (BROKEN_RULE, "a rule was broken"),
)
"""Every mark of an episode and what it means, for the help screen."""


def verdict(outcome: str, gold: float | None) -> Mark:
    """What an episode came to."""
    if outcome == "infrastructure":
        return ERROR
    if outcome == "cancelled":
        return CANCELLED
    if gold is None:
        return UNSCORED
    return SOLVED if gold >= 1 else FAILED if gold <= 0 else PARTIAL


def number(value: float | None) -> str:
    """A score or reward in at most six characters: ``1``, ``.25``, ``-0.5``, ``-``.

    >>> number(1.0), number(0.25), number(-0.5), number(None), number(3.0), number(12345.678)
    ('1', '.25', '-0.50', '-', '3', '1.2e4')
    """
    if value is None:
        return "-"
    if 0 <= value <= 1:
        return fraction(value)
    if value == int(value) and abs(value) < 100_000:
        return str(int(value))
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return text if len(text) <= 6 and abs(value) < 10_000 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def amount(value: int) -> str:
    """A count in at most five characters: ``980``, ``12.3k``, ``1.2M``.

    >>> amount(980), amount(12_345), amount(123_456), amount(1_234_567)
    ('980', '12.3k', '123k', '1.2M')
    """
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            scaled = value / unit
            return f"{scaled:.1f}{name}" if scaled < 100 else f"{scaled:.0f}{name}"
    return str(value)
