# SPDX-License-Identifier: Apache-2.0
"""The turns of an episode on one line: a sign each, the present one marked; a click goes there."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from agentgym.tui.document import END
from agentgym.tui.marks import TROUBLE
from agentgym.tui.story import TurnMark
from agentgym.tui.widgets.paint import Line, Painter, width_of


class Timeline(Painter, Widget):
    """One line: where one is, then a sign for each turn, as many around the present one as fit."""

    class Chosen(Message):
        """A turn was clicked."""

        def __init__(self, turn: int) -> None:
            super().__init__()
            self.turn = turn

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._marks: Sequence[TurnMark] = ()
        self._end = ""
        self._turn = -1
        self._right: Line = []
        self._cells: list[tuple[int, int, int]] = []
        """First column, column after the last, turn: where a click leads."""

    def show(self, marks: Sequence[TurnMark], end: str, turn: int, right: Line) -> None:
        """Shows the marks of all turns.

        Args:
            marks: one a turn.
            end: why the end is worth a look; empty where it is not.
            turn: the present one; -1 the opening, `END` the end.
            right: pieces at the right end.
        """
        self._marks, self._end, self._turn, self._right = marks, end, turn, right
        self.refresh()

    @property
    def text(self) -> str:
        """What is shown, for tests."""
        return self.render_line(0).text

    def render_line(self, y: int) -> Strip:
        """The line."""
        width = self.size.width
        if y:
            return self.paint([], width)
        n = len(self._marks)
        where = "opening" if self._turn == -1 else "end" if self._turn == END else f"turn {self._turn}"
        line: Line = [(f"{where:<9}", "strong")]
        present = n if self._turn == END else self._turn
        room = max(3, (width - 9 - 6 - width_of(self._right) - 1) // 2)
        first = max(0, min(present - room // 2, n + 1 - room))
        last = min(n, first + room)
        self._cells = []
        line.append(("<" if first else " ", "muted"))
        at = 10
        for i in range(first, last):
            here = i == self._turn
            sign, name = self._marks[i].sign, self._marks[i].style
            line += [("[" if here else "]" if i - 1 == self._turn and i > first else " ", "accent"), (sign, name)]
            self._cells.append((at, at + 2, i))
            at += 2
        line.append(("]" if self._turn == last - 1 and last > first else " ", "accent"))
        line.append((">" if last < n else " ", "muted"))
        end = ("[end]" if self._turn == END else " end ") if last >= n else ""
        if end:
            line.append((end, "warn" if self._end else "muted"))
            if self._end:
                line.append((TROUBLE, "warn"))
            self._cells.append((at + 2, at + 8, END))
        gap = width - width_of(line) - width_of(self._right)
        if gap > 0:
            line += [(" " * gap, ""), *self._right]
        return self.paint(line, width)

    def on_click(self, event: events.Click) -> None:
        """Goes to the turn under the mouse."""
        x = event.get_content_offset_capture(self).x
        for start, stop, turn in self._cells:
            if start <= x < stop:
                self.post_message(self.Chosen(turn))
                return
