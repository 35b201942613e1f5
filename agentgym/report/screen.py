# SPDX-License-Identifier: Apache-2.0
"""How text gets onto a screen: fitted to a narrow terminal or a wide one; into a pipe whole, plain and unwrapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 3
"""Blanks between columns."""


class _Console(Console):
    """A console that lets its caller judge what it means that nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Raises the error again; Rich would end the process with exit code 1, a run in it or not."""
        raise  # it is called where the error is being handled


def console(*, stderr: bool = False) -> Console:
    """A console that colours only terminals, honours ``NO_COLOR``, and never wraps what goes into a file or a pipe."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(screen: Console, text: str, style: str = "") -> None:
    """Prints a sentence, which must be safe to print, wrapped at words where it is seen on a screen."""
    lines = Lines()
    lines.add(text, style)
    screen.print(lines)


def on_screen(console: Console) -> bool:
    """Whether a person sees it in a terminal of limited width, colours or not."""
    return console.file.isatty()


def interactive(console: Console) -> bool:
    """Whether lines on it can be written over: a terminal that knows how, not a pipe that asks for colours."""
    return on_screen(console) and not console.is_dumb_terminal


class Column(NamedTuple):
    """What one column is, and what becomes of it where there is no room for all."""

    title: str
    align: Literal["left", "right"] = "left"
    least: int = 0
    """Cells to which it may be cut; 0: never cut."""
    drop: int = 0
    """Left out in a narrow terminal, the highest first; 0: never."""


class Table:
    """Columns, under dim titles if there is to be a head. No line ends in blanks; wide characters count as two."""

    def __init__(self, columns: Iterable[Column], *, head: bool = True) -> None:
        self.columns = list(columns)
        self.head = head
        self.rows: list[tuple[Sequence[Text | str], str]] = []

    def add(self, *cells: Text | str, style: str = "") -> None:
        """One more row, with one cell a column; texts must be safe to print and without line breaks."""
        self.rows.append((cells, style))

    def _widths(self, room: int | None) -> dict[int, int]:
        """Number of the column -> its cells; columns that are left out are missing."""
        shown = {
            i: max(cell_len(c.title) if self.head else 0, *(_cells(row[i]) for row, _ in self.rows), 0)
            for i, c in enumerate(self.columns)
        }
        if room is None:
            return shown
        while True:
            over = sum(shown.values()) + GAP * (len(shown) - 1) - room
            give = {i: max(shown[i] - self.columns[i].least, 0) for i in shown if self.columns[i].least}
            if over <= 0:
                return shown
            if over <= sum(give.values()):
                break
            dropped = max(shown, key=lambda i: (self.columns[i].drop, i))
            if not self.columns[dropped].drop:
                break
            del shown[dropped]
        # the widest gives first, so that none is cut while a longer one is not
        for _ in range(min(over, sum(give.values()))):
            widest = max((i for i in give if give[i]), key=lambda i: shown[i])
            shown[widest] -= 1
            give[widest] -= 1
        return shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        widths = self._widths(options.max_width if on_screen(console) else None)
        if self.head:
            yield self._line([c.title for c in self.columns], widths, "dim")
        for row, style in self.rows:
            yield self._line(row, widths, style)

    def _line(self, row: Sequence[Text | str], widths: dict[int, int], style: str) -> Text:
        parts: list[Text | str] = []
        for i, width in widths.items():
            cell = row[i]
            cells = _cells(cell)
            if cells > width:
                cell = Text(cell) if isinstance(cell, str) else cell.copy()
                cell.truncate(width, overflow="ellipsis")
                cells = cell.cell_len
            blanks = " " * (width - cells)
            parts += (blanks, cell) if self.columns[i].align == "right" else (cell, blanks)
            parts.append(" " * GAP)
        if all(isinstance(part, str) for part in parts):  # much faster, where there are 100,000 of them
            return Text("".join(parts).rstrip(), style, no_wrap=True, overflow="ignore")  # type: ignore[arg-type]
        line = Text.assemble(*parts, style=style, no_wrap=True, overflow="ignore")
        line.rstrip()
        return line


def _cells(text: Text | str) -> int:
    if isinstance(text, Text):
        return text.cell_len
    return len(text) if text.isascii() else cell_len(text)


class Lines:
    """Texts, each behind a prefix: wrapped at words on a screen, below the text's beginning; whole in a pipe, for grep."""

    def __init__(self) -> None:
        self.lines: list[tuple[Text, Text, bool]] = []

    def add(self, text: Text | str, style: str = "", *, prefix: Text | str = "", whole: bool = False) -> None:
        """One more text, which may hold line breaks; ``whole``: a path, say, that could not be copied if it were broken."""
        start = Text(prefix) if isinstance(prefix, str) else prefix
        self.lines.append((start, Text(text, style) if isinstance(text, str) else text, whole))

    @staticmethod
    def cells(*parts: tuple[str, int, str]) -> Text:
        """A prefix of columns, each a text, the cells it takes at least, and its style."""
        line = Text()
        for text, width, style in parts:
            line.append(text, style).append(" " * (max(width - len(text), 0) + 2))
        return line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        for prefix, text, whole in self.lines:
            room = None if whole or not on_screen(console) else max(options.max_width - prefix.cell_len, 20)
            for line in text.split("\n", allow_blank=True):
                # a line that long is data; breaking it at words takes seconds and helps nobody
                fits = room is None or len(line) > 20_000 or line.cell_len <= room
                for piece in [line] if fits else line.wrap(console, room or 0, overflow="fold"):
                    out = Text.assemble(prefix, piece, no_wrap=True, overflow="ignore")
                    out.rstrip()
                    yield out
                    prefix = Text(" " * prefix.cell_len)
