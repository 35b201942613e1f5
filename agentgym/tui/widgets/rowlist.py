# SPDX-License-Identifier: Apache-2.0
"""A table of any length: rows are asked of a source when they come into view, columns give way on narrow screens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from textual.message import Message
from textual.strip import Strip

from agentgym.errors import RecordError
from agentgym.tui.marks import TROUBLE
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece, fit

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Source(Protocol[R_co]):
    """Where rows come from."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def row(self, index: int) -> R_co | None:
        """Row ``index``; None while it is being fetched.

        Raises:
            RecordError: it cannot be read.
        """
        ...


class Listed(Generic[R]):
    """Rows that are all in memory: for lists of dozens, not of millions."""

    def __init__(self, rows: Sequence[R]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> R:
        """One of them."""
        return self.rows[index]


class Column(NamedTuple, Generic[R]):
    """One column."""

    key: str
    """What `RowList.HeadClicked` says."""
    title: str
    width: int
    """In cells; 0 takes what the others leave."""
    cell: Callable[[R], Piece]
    right: bool = False
    """Whether numbers line up at the right."""
    middle: bool = False
    """Whether what is too long is cut in its middle, because its end tells more than that."""
    least: int = 0
    """Widths of the list below which the column is left out."""


class RowList(LineView, Generic[R]):
    """A table with a fixed line of titles, over a `Source`."""

    head = 1

    class HeadClicked(Message):
        """The title of a column was clicked."""

        def __init__(self, view: RowList[Any], key: str) -> None:
            super().__init__()
            self.view = view
            self.key = key

        @property
        def control(self) -> RowList[Any]:
            """Whose title it was."""
            return self.view

    def __init__(self, columns: Sequence[Column[R]], empty: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.source: Source[R] | None = None
        self.empty = empty
        """What to say where there are no rows."""
        self.sorted_by: tuple[str, bool] | None = None
        """Key of the column that rows are sorted by, and whether downwards."""

    def show(self, source: Source[R], cursor: int | None = None) -> None:
        """Shows other rows.

        Args:
            source: the rows.
            cursor: where to put the cursor; None for the same place.
        """
        self.source = source
        self.refit()
        if cursor is not None:
            self.cursor = cursor
        self.post_message(self.Moved(self, self.cursor))

    @property
    def count(self) -> int:
        """Rows."""
        return 0 if self.source is None else len(self.source)

    @property
    def current(self) -> R | None:
        """The row under the cursor."""
        if self.source is None or not 0 <= self.cursor < len(self.source):
            return None
        try:
            return self.source.row(self.cursor)
        except RecordError:
            return None

    def layout_columns(self, width: int) -> list[tuple[Column[R], int]]:
        """The columns that are shown at this width, with the cells each gets."""
        shown = [c for c in self.columns if width >= c.least]
        rest = width - 1 - sum(c.width + 1 for c in shown if c.width) - sum(1 for c in shown if not c.width)
        return [(c, c.width or max(rest, 8)) for c in shown]

    def head_line(self, index: int, width: int) -> Line:
        """The titles."""
        line: Line = [(" ", "")]
        for column, size in self.layout_columns(width):
            title = column.title
            if self.sorted_by is not None and self.sorted_by[0] == column.key:
                title += "▼" if self.sorted_by[1] else "▲"
            line += [(fit(title, size, right=column.right), ""), (" ", "")]
        return line

    def head_clicked(self, x: int) -> None:
        """Tells which column was meant."""
        at = 1
        for column, size in self.layout_columns(self.scrollable_content_region.width):
            at += size + 1
            if x < at:
                self.post_message(self.HeadClicked(self, column.key))
                return

    def line(self, index: int, width: int) -> Line:
        """One row."""
        assert self.source is not None
        try:
            row = self.source.row(index)
        except RecordError as e:
            return [(f" {TROUBLE} ", "warn"), (fit(str(e), width - 4), "warn")]
        if row is None:
            return [(" …", "muted")]
        line: Line = [("▌" if index == self.cursor and self.has_focus else " ", "accent")]
        for column, size in self.layout_columns(width):
            text, name = column.cell(row)
            line += [(fit(text, size, right=column.right, middle=column.middle), name), (" ", "")]
        return line

    def render_line(self, y: int) -> Strip:
        """A row, the titles, or the sentence for an empty list."""
        if y == self.head + 1 and not self.count:
            width = self.scrollable_content_region.width
            return self.paint([("  " + fit(self.empty, width - 3), "muted")], width)
        return super().render_line(y)
