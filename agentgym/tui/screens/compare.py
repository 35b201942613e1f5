# SPDX-License-Identifier: Apache-2.0
"""Episodes beside each other: twins of a task, or one task in two runs, aligned where they part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode
from agentgym.report.text import one_line
from agentgym.tui.marks import TROUBLE
from agentgym.tui.screens.level import Level, short
from agentgym.tui.sides import Sides
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.beside import Alike, Beside, Title
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line


class CompareScreen(Level):
    """Two or three episodes beside each other.

    Args:
        first: the episode one came from; it names the task.
        read: reads the comparison; called in a thread.
        title: what is compared, e.g. ``twins``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "side(1)", "Side", tooltip="Next side"),
        Binding("left,h", "side(-1)", "Previous side", show=False),
        Binding("right_square_bracket", "difference(1)", "Difference", key_display="]", tooltip="Next difference"),
        Binding("left_square_bracket", "difference(-1)", "Previous difference", key_display="[", show=False),
        Binding("z", "folds", "Unfold", tooltip="Open or close all folds"),
        Binding("o", "replay", "Replay", tooltip="Open this side's episode at this turn"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy this side's address"),
    ]
    depth = 2

    class Chosen(Message):
        """A turn of a side was chosen."""

        def __init__(self, episode: Episode, turn: int | None) -> None:
            super().__init__()
            self.episode, self.turn = episode, turn

    def __init__(self, first: Episode, read: Callable[[], Sides], title: str) -> None:
        super().__init__()
        self.title = title.capitalize()
        self.first = first
        self.sides: Sides | None = None
        self._read = read
        self._what = title
        self._open = False

    def compose(self) -> ComposeResult:
        """Crumbs, a line for each side where they do not fit on top, rows, a note, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        yield Beside(id="beside")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Reads, off the thread that draws."""
        for name in ("crumbs", "facts", "note"):
            self.query_one(f"#{name}").add_class(name)
        self.view.focus()
        self.query_one("#facts", Bar).show([("reading …", "muted")])
        self._crumbs()
        self.load()

    @property
    def view(self) -> Beside:
        """The rows."""
        return self.query_one("#beside", Beside)

    @work(exclusive=True, group="load")
    async def load(self) -> None:
        """Reads the trajectories and aligns them."""
        try:
            self.sides = await asyncio.to_thread(self._read)
        except AgentGymError as e:
            self.query_one("#facts", Bar).show([(f"{TROUBLE} {one_line(str(e), 300)}", "warn")])
            return
        self.view.show(self.sides.names, self.sides.rows)
        self._facts()

    def _crumbs(self) -> None:
        path = self.first.run_path
        name = path.name if self.size.width >= 110 else short(path)
        self.show_crumbs([name, f"{one_line(self.first.task_id, 200)} {self._what}"])

    def _facts(self) -> None:
        """Where sides stand below each other, which number is which."""
        if self.sides is None:
            return
        differing = sum(row.differs for row in self.sides.rows)
        right: Line = [(f"{differing} difference{'s' * (differing != 1)}", "muted")]
        if len(self.sides.names) < 2:
            self.query_one("#facts", Bar).show([("no twin of this task was played in this run", "muted")])
            return
        left: Line = []
        for i, (name, _) in enumerate(self.sides.names):
            mark = "▸" if i == self.view.side else " "
            left.append((f"{mark}{i + 1} {name.partition(' reward')[0]} ", "strong" if i == self.view.side else ""))
        if not self.view.stacked:
            left = [(f"{len(self.sides.names)} {self._what}", "strong")]
        self.query_one("#facts", Bar).show(left, right)

    def _note(self) -> None:
        note = self.query_one("#note", Bar)
        row = self.view.current
        if self.sides is None or row is None:
            note.show([])
        elif isinstance(row, Title):
            note.show([("= same  ≠ differs  ≈ answered differently  ± not all  · none", "muted")])
        else:
            turn = self._turn()
            where = "" if turn is None or turn < 0 else f"@{turn}"
            more = "Enter shows all of it" if row.more and not isinstance(row, Alike) else ""
            e = self._episode()
            note.show([(f"o opens {one_line(e.task_id, 200)}/{e.trial}{where}", "muted")], [(more, "link")])

    def _episode(self) -> Episode:
        assert self.sides is not None
        return self.sides.episodes[self.view.side]

    def _turn(self) -> int | None:
        row = self.view.current
        if row is None or len(row.cells) <= self.view.side:
            return None
        cell = row.cells[self.view.side]
        return None if cell is None else cell.turn

    # -- keys ---------------------------------------------------------------------------------------------------------

    def action_side(self, by: int) -> None:
        """The next or previous side."""
        if self.sides is not None:
            self.view.side = (self.view.side + by) % len(self.sides.names)
            self.view.refresh()
            self._facts()
            self._note()

    def action_difference(self, by: int) -> None:
        """The next or previous row that differs."""
        if not self.view.to_difference(by):
            self.viewer.say("No further difference." if by > 0 else "No difference before this.", calm=True)

    def action_folds(self) -> None:
        """Opens all folds, or closes them."""
        self._open = not self._open
        for row in self.view.rows:
            for one in (row, *(row.rows if isinstance(row, Alike) else ())):
                if one.opened != self._open and (one.fold is not None):
                    one.opened = self._open
                    one.width = 0
        self.view.refit()

    def action_replay(self) -> None:
        """Opens the episode of this side."""
        if self.sides is not None:
            turn = self._turn()
            self.post_message(self.Chosen(self._episode(), None if turn is None or turn < 0 else turn))

    def action_copy(self) -> None:
        """Copies the address of this side at this turn."""
        if self.sides is not None:
            turn = self._turn()
            self.viewer.copy_address(self._episode().address + ("" if turn is None or turn < 0 else f"@{turn}"))

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says what Enter does here."""
        self._note()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the fold under the cursor; where there is none, the episode."""
        row = self.view.current
        if row is not None and row.toggle():
            self.view.refit()
        elif not isinstance(row, Title):
            self.action_replay()

    def on_resize(self) -> None:
        """Names may have another place."""
        self._crumbs()
        self._facts()
