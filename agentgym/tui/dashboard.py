# SPDX-License-Identifier: Apache-2.0
"""What an alignment says besides its dimensions, as a document: the plane of capability, conflicts, twins, statistics."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.report.alignment import Alignment, Point
from agentgym.report.alignment_text import CONFLICT_NOTE, Head, Rows, sentences, statistic_rows, twin_rows
from agentgym.report.charts import Spot, scatter
from agentgym.report.conflict import Conflict
from agentgym.report.text import fraction, one_line
from agentgym.tui.document import Block, Document, Rule
from agentgym.tui.widgets.paint import Line, fit

PLANE = (46, 15)
"""Cells and lines of the plane of capability and alignment."""


class Picture(Block):
    """Lines that must not be broken; what does not fit is cut."""

    __slots__ = ("rows",)

    def __init__(self, lines: Sequence[str], style: str = "") -> None:
        super().__init__(("", ""), "", style, turn=-1)
        self.rows = list(lines)

    def layout(self, width: int) -> int:
        """As many lines as it has."""
        return len(self.rows)

    def line(self, index: int, width: int) -> Line:
        """One of them."""
        text = self.rows[index]
        return [(" " + (text if len(text) < width else fit(text, width - 1)), self.style)]


def document(a: Alignment) -> Document:
    """All of it, one part below the other."""
    blocks: list[Block] = [Rule(("what it comes to", "strong"), [], turn=-1)]
    blocks += [Block(("", ""), text, turn=-1) for text in sentences(a)]
    if a.points:
        blocks += _plane(a.points)
    if a.conflict is not None:
        blocks += _conflict(a.conflict)
    if a.twins:
        blocks.append(Rule(("twins", "strong"), [], turn=-1))
        blocks.append(Picture(_table(*twin_rows(a.twins))))
    if a.statistics:
        blocks.append(Rule(("over twins and the run", "strong"), [], turn=-1))
        blocks.append(Picture(_table(*statistic_rows(a))))
    return Document(blocks)


def by_family(points: Sequence[Point]) -> list[Spot]:
    """Families on the plane: gold of the control twin (without one, the mean), and the share of exposed episodes that kept."""
    spots = []
    for family in dict.fromkeys(p.family for p in points):
        mine = [p for p in points if p.family == family]
        exposed = sum(p.exposed for p in mine)
        control = next((p.gold for p in mine if p.variant == "control"), None)
        gold = control if control is not None else sum(p.gold for p in mine) / len(mine)
        kept = sum(p.kept * p.exposed for p in mine) / exposed if exposed else 1.0
        spots.append(Spot(family, gold, kept))
    return sorted(spots, key=lambda s: (s.y, s.x, s.name))


def _plane(points: Sequence[Point]) -> list[Block]:
    spots = by_family(points)
    lines, letters = scatter(spots, *PLANE, "gold", "kept")
    legend = [f"{letters[s.name]}  {one_line(s.name, 24):<24} gold {fraction(s.x):>4}  kept {fraction(s.y):>4}" for s in spots]
    return [
        Rule(("capability and alignment by family", "strong"), [], turn=-1),
        Picture(lines),
        Block(
            ("", ""),
            "gold of the control twins across; upwards, exposed episodes that broke nothing; * several",
            "muted",
            turn=-1,
        ),
        Picture(legend),
    ]


def _conflict(c: Conflict) -> list[Block]:
    """The matrix with numbers for names, then in words what suffers beyond chance."""
    n = len(c.names)
    head = " " * 20 + "".join(f"{j + 1:>7}" for j in range(n)) + "  tasks"
    lines = [head]
    for i, name in enumerate(c.names):
        cells = []
        for j, change in enumerate(c.change[i]):
            text = "·" if change is None else f"{change:+.2f}"
            cells.append(f"{text + ('*' if c.worse[i][j] else ' '):>7}")
        lines.append(f"{i + 1:>2} {one_line(name, 16):<17}" + "".join(cells) + f"{c.groups[i]:>7}")
    worse = [(c.change[i][j] or 0.0, i, j) for i in range(n) for j in range(n) if c.worse[i][j]]
    told = [f"chosen by {c.names[i]}: {c.names[j]} loses {-change:.2f}*" for change, i, j in sorted(worse)]
    return [
        Rule(("conflict", "strong"), [(f"{len(worse)} beyond chance", "flag" if worse else "muted")], turn=-1),
        Picture(lines),
        *([Picture(told, "flag")] if told else []),
        Block(("", ""), CONFLICT_NOTE, "muted", turn=-1),
    ]


def _table(head: Head, rows: Rows) -> list[str]:
    """A table as lines, each column as wide as it must be."""
    widths = [max(len(row[i]) for row in [list(head), *rows]) for i in range(len(head))]
    return ["  ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in [list(head), *rows]]
