# SPDX-License-Identifier: Apache-2.0
"""Texts beside each other: columns on a wide screen, one below the other on a narrow one; every row says how they differ."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece, fit
from agentgym.tui.wrap import wrap

NARROWEST = 30
"""Cells below which a column cannot be read: then texts stand one below the other."""

GUTTER = 12
"""Cells in front of the columns, for the mark and its word."""


class Cell:
    """One side of a row.

    Args:
        text: anything; made safe where it is wrapped.
        style: of the text.
        turn: the turn it shows; None for none.
        whole: what is shown in place of ``text``, an excerpt, where the row is opened; None: the text is all there is.
    """

    __slots__ = ("style", "text", "turn", "whole")

    def __init__(self, text: str, style: str = "", turn: int | None = None, whole: str | None = None) -> None:
        self.text, self.style, self.turn, self.whole = text, style, turn, whole


class BesideRow:
    """Cells beside each other.

    Args:
        mark: sign and word in front: how they differ.
        cells: one a column; None where that side has nothing.
        fold: lines shown of each until the row is opened; None for all.
        differs: whether `]` stops here.
    """

    __slots__ = ("cells", "differs", "fold", "lines", "mark", "more", "opened", "width")

    def __init__(self, mark: Piece, cells: Sequence[Cell | None], *, fold: int | None = 3, differs: bool = False) -> None:
        self.mark, self.cells, self.fold, self.differs = mark, list(cells), fold, differs
        self.opened = False
        self.more = False
        self.width = 0
        self.lines: list[list[str]] = []

    def layout(self, width: int, stacked: bool) -> int:
        """Cuts the texts for columns of this width; returns how many lines that gives."""
        if width != self.width:
            most = None if self.fold is None or self.opened else self.fold
            self.lines, self.more = [], False
            for cell in self.cells:
                text = "" if cell is None else cell.whole if self.opened and cell.whole is not None else cell.text
                lines, more = wrap(text, width, most) if cell is not None else ([], False)
                self.more |= cell is not None and cell.whole is not None
                if more and lines:
                    lines[-1] = fit(lines[-1], width - 2).rstrip() + " …"
                self.lines.append(lines)
                self.more |= more
            self.width = width
        if stacked:
            return max(1, sum(max(1, len(x)) for x in self.lines if x))
        return max(1, *(len(x) for x in self.lines))

    def toggle(self) -> bool:
        """Opens or closes its fold; returns whether there is one."""
        if self.fold is None or not (self.more or self.opened):
            return False
        self.opened = not self.opened
        self.width = 0
        return True


class Title(BesideRow):
    """A line across all columns: a heading, or a sentence."""

    __slots__ = ("line_",)

    def __init__(self, line: Line) -> None:
        super().__init__(("", ""), [])
        self.line_ = line

    def layout(self, width: int, stacked: bool) -> int:
        """One line."""
        return 1


class Alike(BesideRow):
    """Rows that are the same on all sides, folded into one line until it is opened."""

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[BesideRow]) -> None:
        super().__init__(("", ""), [])
        self.rows = list(rows)
        self.more = True

    def layout(self, width: int, stacked: bool) -> int:
        """One line; its rows follow it where it is open."""
        return 1

    def toggle(self) -> bool:
        """Opens or closes."""
        self.opened = not self.opened
        return True


class Beside(LineView):
    """Rows of several sides under the sides' names."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", show=True, tooltip="Open a fold, or this turn of this side"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.names: list[Piece] = []
        self.rows: list[BesideRow] = []
        self.side = 0
        """The side that Enter opens."""
        self._shown: list[BesideRow] = []
        self._starts: list[int] = []
        self._count = 0

    def show(self, names: Sequence[Piece], rows: Sequence[BesideRow]) -> None:
        """Shows other rows.

        Args:
            names: of the sides.
            rows: cells one a side.
        """
        self.names, self.rows = list(names), list(rows)
        self.side = min(self.side, max(0, len(self.names) - 1))
        self.refit()
        self.post_message(self.Moved(self, self.cursor))

    @property
    def stacked(self) -> bool:
        """Whether sides stand one below the other."""
        return self.column < NARROWEST

    @property
    def column(self) -> int:
        """Cells of a column beside others."""
        n = max(1, len(self.names))
        return (self.scrollable_content_region.width - GUTTER - 3 * (n - 1) - 1) // n

    @property
    def head(self) -> int:  # type: ignore[override]
        """The names stand on top, unless each text has its own."""
        return 0 if self.stacked else 1

    @property
    def count(self) -> int:
        """Lines."""
        return self._count

    def refit(self) -> None:
        """Lays the rows out for the present width."""
        stacked = self.stacked
        width = self.scrollable_content_region.width - GUTTER - 3 if stacked else self.column
        kept = self.at(self.cursor)[0] if self._shown else None
        self._shown, self._starts, at = [], [], 0
        for row in self.rows:
            for shown in (row, *(row.rows if isinstance(row, Alike) and row.opened else ())):
                self._shown.append(shown)
                self._starts.append(at)
                at += shown.layout(max(width, 4), stacked)
        self._count = at
        super().refit()
        if kept is not None and kept in self._shown:
            self.cursor = self._starts[self._shown.index(kept)]

    def at(self, line: int) -> tuple[BesideRow, int]:
        """The row that a line belongs to, and the line's place in it."""
        i = max(0, bisect_right(self._starts, line) - 1)
        return self._shown[i], line - self._starts[i]

    @property
    def current(self) -> BesideRow | None:
        """The row under the cursor."""
        return self.at(self.cursor)[0] if self._count else None

    def to_difference(self, by: int) -> bool:
        """Puts the cursor on the next (or previous) row that differs; returns whether there is one."""
        places = [s for s, row in zip(self._starts, self._shown, strict=True) if row.differs]
        here = self._starts[self._shown.index(row)] if (row := self.current) is not None else -1
        ahead = [p for p in places if (p > here if by > 0 else p < here)]
        if not ahead:
            return False
        place = ahead[0] if by > 0 else ahead[-1]
        self.scroll_to(y=max(0, place - 2), animate=False, force=True)
        self.cursor = place
        return True

    # -- drawing ------------------------------------------------------------------------------------------------------

    def head_line(self, index: int, width: int) -> Line:
        """The names of the sides."""
        line: Line = [(" " * GUTTER, "")]
        for i, (name, style) in enumerate(self.names):
            line += [(" │ ", "rule")] if i else []
            here = "▸" if i == self.side and len(self.names) > 1 else " "
            line += [(here, "accent"), (fit(name, self.column - 1), style or "strong")]
        return line

    def line(self, index: int, width: int) -> Line:
        """One line of a row."""
        row, offset = self.at(index)
        if isinstance(row, Title):
            return row.line_
        if isinstance(row, Alike):
            n = len(row.rows)
            what = f"{n} act{'s' * (n != 1)} alike on all sides"
            text = f"▾ {what}: Enter folds them" if row.opened else f"▸ {what}: Enter shows them"
            return [(fit("= same", GUTTER), "muted"), (text, "link")]
        front: Piece = (fit(row.mark[0], GUTTER), row.mark[1]) if offset == 0 else (" " * GUTTER, "")
        if self.stacked:
            return [front, *self._below(row, offset)]
        line: Line = [front]
        for i, lines in enumerate(row.lines):
            line += [(" │ ", "rule")] if i else []
            cell = row.cells[i]
            if cell is None:
                line.append((fit("·" if offset == 0 else "", self.column), "muted"))
            else:
                line.append((fit(lines[offset], self.column) if offset < len(lines) else " " * self.column, cell.style))
        return line

    def _below(self, row: BesideRow, offset: int) -> Line:
        """One line of a row whose sides stand one below the other, each marked with its number."""
        for i, (cell, lines) in enumerate(zip(row.cells, row.lines, strict=True)):
            if cell is None or not lines:
                continue
            if offset < len(lines):
                sign = f"{i + 1}" if offset == 0 else " "
                width = self.scrollable_content_region.width - GUTTER - 3
                return [(f"{sign} ", "accent" if i == self.side else "muted"), (fit(lines[offset], width), cell.style)]
            offset -= len(lines)
        return []

    def on_click(self, event: events.Click) -> None:
        """Chooses the side that was clicked; what a click does to the cursor is done as well."""
        x = event.get_content_offset_capture(self).x - GUTTER
        if not self.stacked and x >= 0:
            self.side = min(len(self.names) - 1, x // (self.column + 3))
            self.refresh()
