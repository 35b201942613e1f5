# SPDX-License-Identifier: Apache-2.0
"""Pictures in characters: an estimate with its interval on a line, and points on a plane. Told by shape, never by colour."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import NamedTuple


def interval_bar(value: float | None, low: float | None, high: float | None, width: int) -> str:
    """A share on a line from 0 to 1: ``●`` the estimate, ``├`` and ``┤`` its interval's ends; empty where nothing is known.

    >>> interval_bar(0.5, 0.25, 0.75, 9)
    '··├─●─┤··'
    >>> interval_bar(0.0, 0.0, 0.5, 9)
    '●───┤····'
    """
    if value is None:
        return "·" * width

    def cell(x: float) -> int:
        return min(width - 1, max(0, round(x * (width - 1))))

    line = ["·"] * width
    if low is not None and high is not None:
        line[cell(low) : cell(high) + 1] = "─" * (cell(high) - cell(low) + 1)
        line[cell(low)], line[cell(high)] = "├", "┤"
    line[cell(value)] = "●"
    return "".join(line)


class Spot(NamedTuple):
    """One point on the plane."""

    name: str
    x: float
    """0 to 1, as ``y``."""
    y: float


def scatter(spots: Sequence[Spot], width: int, height: int, across: str, up: str) -> tuple[list[str], dict[str, str]]:
    """Points on the unit square as lines of text, with axes.

    Args:
        spots: each gets a letter.
        width: cells of the whole picture.
        height: its lines, the axis included.
        across: what x is, written below.
        up: what y is, written above.

    Returns:
        The lines, and the letter of each name. Where several points share a cell, ``*`` stands there.
    """
    left = 5
    w, h = max(8, width - left - 1), max(4, height - 3)
    grid = [[" "] * w for _ in range(h)]
    letters = {s.name: ascii_letters[i % len(ascii_letters)] for i, s in enumerate(spots)}
    for s in spots:
        x = min(w - 1, max(0, round(s.x * (w - 1))))
        y = min(h - 1, max(0, round((1 - s.y) * (h - 1))))
        grid[y][x] = letters[s.name] if grid[y][x] == " " else "*"
    ticks = {0: "1", (h - 1) // 2: ".5", h - 1: "0"}
    lines = [f"{up:>{left}}" if len(up) <= left else up]
    lines += [f"{ticks.get(i, ''):>{left - 1}}{'┤' if i in ticks else '│'}{''.join(row)}" for i, row in enumerate(grid)]
    lines.append(" " * (left - 1) + "└" + "─" * w)
    middle = f"0{'.5':>{w // 2}}{'1':>{w - w // 2 - 1}}"
    lines.append(" " * left + middle + f"  {across}"[: max(0, width)])
    return lines, letters
