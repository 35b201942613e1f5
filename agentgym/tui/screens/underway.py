# SPDX-License-Identifier: Apache-2.0
"""What a run plays at the moment, to pause or to cancel one of it."""

from __future__ import annotations

import time
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from agentgym.errors import AgentGymError
from agentgym.records.control import Now, Playing, playing
from agentgym.records.run import Run
from agentgym.report.text import duration, one_line
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece
from agentgym.tui.widgets.rowlist import Column, Listed, RowList


def _state(p: Playing) -> Piece:
    return ("‖ paused", "warn") if p.paused else ("… playing", "accent")


COLUMNS: list[Column[Playing]] = [
    Column("state", "state", 10, _state),
    Column("task", "task", 0, lambda p: (one_line(p.task_id, 300), ""), middle=True),
    Column("trial", "trial", 5, lambda p: (f"{p.trial}", "muted"), right=True),
    Column("turns", "turns", 6, lambda p: (f"{p.turns}", ""), right=True),
    Column("since", "since", 8, lambda p: (duration(max(0.0, time.time() - p.since)), "muted"), right=True),
]


class Confirm(ModalScreen[bool]):
    """Asks before what cannot be taken back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]
    CSS = """
    Confirm { align: center middle; background: $background 60%; }
    Confirm Vertical { width: 96%; max-width: 76; height: auto; padding: 1 2; background: $surface; border: round $warning; }
    Confirm Static { height: auto; }
    """

    def __init__(self, question: str, consequence: str) -> None:
        super().__init__()
        self._question, self._consequence = question, consequence

    def compose(self) -> ComposeResult:
        """The question, what follows, and the two keys."""
        with Vertical() as box:
            box.border_subtitle = "y yes · n no"
            yield Static(self._question, markup=False)
            yield Static(self._consequence, markup=False)

    def action_answer(self, yes: bool) -> None:
        """The answer."""
        self.dismiss(yes)


class UnderWayScreen(Level):
    """The episodes that are being played."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause", tooltip="Pause this episode before its next turn, or let it go on"),
        Binding("P", "pause_all", "Pause all", tooltip="Pause the whole run, or let it go on"),
        Binding("x", "cancel", "Cancel", tooltip="Cancel this episode (asks first)"),
        Binding("r", "refresh", "Refresh", show=False),
        Binding("left,h", "leave", "Up a level", show=False),
    ]
    depth = 2

    class Asked(Message):
        """The run, or one episode of it, is to be paused, to go on, or to be cancelled."""

        def __init__(self, run: Run, what: Playing | None, cancel: bool = False) -> None:
            super().__init__()
            self.run = run
            self.what = what
            self.cancel = cancel

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.title = "Under way"
        self.now = Now()

    def compose(self) -> ComposeResult:
        """Crumbs, facts, the list, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        yield RowList(COLUMNS, "", id="playing")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Looks, and again every half second."""
        for name in ("crumbs", "facts", "note"):
            self.query_one(f"#{name}").add_class(name)
        self.table.focus()
        self.action_refresh()
        self.set_interval(0.5, self.action_refresh)

    @property
    def table(self) -> RowList[Playing]:
        """The list widget."""
        return self.query_one("#playing", RowList)

    def action_refresh(self) -> None:
        """Looks again; the cursor stays on its episode."""
        if not self.is_current:
            return
        try:
            status = self.run.status
        except AgentGymError as e:
            self.viewer.say(str(e))
            return
        before = self.table.current
        found = playing(self.run.path) if status == "running" else None
        self.now = found or Now()
        if status != "running":
            self.table.empty = f"this run is {status}: nothing of it is being played"
        else:
            self.table.empty = "nothing has been heard of it yet" if found is None else "nothing is being played just now"
        rows = self.now.episodes
        place = None
        if before is not None:
            place = next((i for i, p in enumerate(rows) if (p.task_id, p.trial) == (before.task_id, before.trial)), None)
        self.table.show(Listed(rows), place)
        waiting = sum(p.paused for p in rows)
        left: Line = [(f"{len(rows):,} under way", "strong")]
        if self.now.paused:
            left.append(("  ‖ the whole run is paused: P lets it go on", "warn"))
        elif waiting:
            left.append((f"  ‖ {waiting:,} paused", "warn"))
        self.query_one("#facts", Bar).show(left)
        name = self.run.path.name if self.size.width >= 110 else short(self.run.path)
        self.show_crumbs([name, "under way"], [(f"{min(self.table.cursor + 1, len(rows))}/{len(rows)}", "")])

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says what can be done."""
        p = self.table.current
        text = "" if p is None else f"{p.task_id}/{p.trial}: p {'lets it go on' if p.paused else 'pauses it'}, x cancels it"
        self.query_one("#note", Bar).show([(one_line(text, 400), "muted")])

    def action_pause(self) -> None:
        """This episode: waits before its next turn, or goes on."""
        if self.table.current is None:
            self.viewer.say(self.table.empty)
        else:
            self.post_message(self.Asked(self.run, self.table.current))

    def action_pause_all(self) -> None:
        """The whole run."""
        self.post_message(self.Asked(self.run, None))

    def action_cancel(self) -> None:
        """Asks, then cancels."""
        p = self.table.current
        if p is None:
            self.viewer.say(self.table.empty)
            return
        question = f"Cancel {one_line(p.task_id, 200)}, trial {p.trial}?"
        told = (
            "Its turns are kept and it counts as cancelled: it has no reward and no gold, and --resume does not play it again."
        )
        self.app.push_screen(Confirm(question, told), partial(self._cancel, p))

    def _cancel(self, p: Playing, yes: bool | None) -> None:
        if yes:
            self.post_message(self.Asked(self.run, p, cancel=True))
