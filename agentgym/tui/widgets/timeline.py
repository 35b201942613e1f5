# SPDX-License-Identifier: Apache-2.0
"""The turns of an episode on one line, a sign each; below it what was paid, spent and broken. A click goes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from agentgym.report.course import Track, spark
from agentgym.tui.document import END
from agentgym.tui.marks import TROUBLE, VIOLATION, amount, number
from agentgym.tui.story import TurnMark
from agentgym.tui.widgets.paint import Line, Painter, fit, width_of

LABEL = 9
"""Cells in front of the signs."""


class Timeline(Painter, Widget, can_focus=True):
    """A line: where one is, then a sign for each turn, as many around the present one as fit. Below it, on request, tracks.

    With the focus it has a cursor of its own, which reads the tracks turn by turn; Enter goes there.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "step(1)", "Next turn of the timeline", show=False),
        Binding("left,h", "step(-1)", "Previous turn of the timeline", show=False),
        Binding("home,g", "step(-1000000000)", "First turn of the timeline", show=False),
        Binding("end,G", "step(1000000000)", "End of the timeline", show=False),
        Binding("enter", "choose", "Go there"),
        Binding("escape", "give_back", "Back to reading", show=False),
    ]

    class Left(Message):
        """Whoever used it wants to read on."""

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
        self._tracks: Sequence[Track] = ()
        self._end_notes: Sequence[str] = ()
        self._cursor = -1
        """Place of the cursor, `len(marks)` for the end; it follows the present turn where there is no focus."""
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
        if not self.has_focus:
            self._cursor = len(marks) if turn == END else turn
        self.refresh()

    def show_tracks(self, tracks: Sequence[Track], notes: Sequence[str]) -> None:
        """Shows what was paid, spent and broken below the turns; nothing, where there are no tracks.

        Args:
            tracks: a line each.
            notes: what is known only at the end, for each track; may hold one more, for a line of its own.
        """
        self._tracks, self._end_notes = tracks, notes
        self.styles.height = 1 + len(tracks) + (len(notes) > len(tracks))
        self.refresh()

    @property
    def text(self) -> str:
        """What is shown, for tests."""
        return self.render_line(0).text

    def render_line(self, y: int) -> Strip:
        """A line: the signs, or a track."""
        width = self.size.width
        if y == 0:
            return self.paint(self._signs(width), width)
        if y <= len(self._tracks):
            return self.paint(self._track(self._tracks[y - 1], self._end_notes[y - 1], width), width)
        if y - 1 < len(self._end_notes):
            return self.paint(
                [(fit("at end", LABEL), "muted"), (" ", ""), (fit(self._end_notes[y - 1], width - 10), "")], width
            )
        return self.paint([], width)

    def _window(self, width: int) -> tuple[int, int]:
        """First turn in view, and the one after the last."""
        n = len(self._marks)
        present = self._cursor if self.has_focus else n if self._turn == END else self._turn
        room = max(3, (width - LABEL - 6 - (30 if self._tracks else width_of(self._right)) - 1) // 2)
        first = max(0, min(present - room // 2, n + 1 - room))
        return first, min(n, first + room)

    def _signs(self, width: int) -> Line:
        n = len(self._marks)
        where = "opening" if self._turn == -1 else "end" if self._turn == END else f"turn {self._turn}"
        line: Line = [(f"{where:<9}", "strong")]
        first, last = self._window(width)
        self._cells = []
        line.append(("<" if first else " ", "muted"))
        at = LABEL + 1
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
        return line

    def _track(self, track: Track, note: str, width: int) -> Line:
        """Name, a sign for each turn in view, then the value at the cursor and what is known at the end."""
        n = len(self._marks)
        first, last = self._window(width)
        rules = track.kind == "rules"
        low, high = min(0.0, *track.values), max(0.0, *track.values, track.limit or 0.0)
        line: Line = [(fit(track.name, LABEL), "flag" if rules else "muted"), (" ", "")]
        here = self._cursor
        for i in range(first, last):
            value = track.values[i]
            over = track.limit is not None and value > track.limit
            if rules:
                sign, name = (VIOLATION, "flag") if value else ("·", "muted")
            else:
                sign, name = spark(value, low, high), "flag" if over else "good" if track.kind == "reward" else "accent"
            line += [("▸" if i == here and self.has_focus else " ", "strong"), (sign, name)]
        line.append(("▸" if here >= n and self.has_focus else " ", "strong"))
        line.append(("  ", ""))
        now = track.values[here] if 0 <= here < n else track.values[-1] if here >= n else 0.0
        if rules:
            total = sum(track.values[: max(0, here + 1)])
            shown = f"{VIOLATION} {total:.0f} of {sum(track.values) + track.elsewhere:.0f}"
        else:
            shown = number(now) if track.kind != "tokens" else amount(int(now))
            if track.limit is not None:
                shown += f" of {number(track.limit)}{' over' if now > track.limit else ''}"
        line += [(shown, "strong"), (f"  {note}" if note else "", "muted")]
        return line

    # -- the cursor ---------------------------------------------------------------------------------------------------

    def on_focus(self) -> None:
        """The cursor shows."""
        self._cursor = max(0, self._cursor)
        self.refresh()

    def on_blur(self) -> None:
        """The cursor goes back to the present turn."""
        self._cursor = len(self._marks) if self._turn == END else self._turn
        self.refresh()

    def action_step(self, by: int) -> None:
        """Moves the cursor."""
        self._cursor = max(0, min(self._cursor + by, len(self._marks)))
        self.refresh()

    def action_choose(self) -> None:
        """Goes where the cursor stands."""
        self.post_message(self.Chosen(END if self._cursor >= len(self._marks) else self._cursor))

    def action_give_back(self) -> None:
        """Reads on where one was."""
        self.post_message(self.Left())

    def on_click(self, event: events.Click) -> None:
        """Goes to the turn under the mouse, on whatever line."""
        x = event.get_content_offset_capture(self).x
        for start, stop, turn in self._cells:
            if start <= x < stop:
                self.post_message(self.Chosen(turn))
                return
