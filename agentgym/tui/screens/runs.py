# SPDX-License-Identifier: Apache-2.0
"""The runs of a folder, newest first."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from agentgym.records.run import find_runs
from agentgym.report.text import one_line
from agentgym.tui.marks import TROUBLE, VIOLATION, amount, number
from agentgym.tui.pages import RunInfo, run_info, stamp
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Piece
from agentgym.tui.widgets.rowlist import Column, RowList

_STATUS = {
    "finished": "✓ finished",
    "running": "… running",
    "interrupted": "~ stopped",
    "killed": "~ killed",
    "failed": "✗ failed",
}
_STYLE = {"finished": "good", "running": "accent", "interrupted": "warn", "killed": "warn", "failed": "bad", "damaged": "warn"}


def _status(i: RunInfo) -> Piece:
    return _STATUS.get(i.status, f"{TROUBLE} {i.status}" if i.problem else i.status), _STYLE.get(i.status, "muted")


def _done(i: RunInfo) -> Piece:
    if i.whole is None:
        return "", ""
    return f"{amount(i.whole.episodes)}/{amount(i.planned)}", "" if i.whole.episodes >= i.planned else "warn"


COLUMNS: list[Column[RunInfo]] = [
    Column("status", "status", 10, _status),
    Column("run", "run", 0, lambda i: (short(i.path), "strong"), middle=True),
    Column("model", "model", 18, lambda i: (i.model, "muted")),
    Column("done", "episodes", 11, _done, right=True),
    Column("gold", "gold", 5, lambda i: (number(i.whole.gold) if i.whole else "", "strong"), right=True),
    Column("rules", VIOLATION, 4, lambda i: _count(i.whole.violations if i.whole else 0, "flag"), right=True),
    Column("errors", TROUBLE, 4, lambda i: _count(i.whole.errors if i.whole else 0, "warn"), right=True),
    Column("when", "when", 16, lambda i: (_when(i.created_at), "muted"), least=100),
]


def _count(value: int, style: str) -> Piece:
    return (amount(value), style) if value else ("·", "muted")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""


class RunRows:
    """The runs of a folder; each is looked into when its row first comes into view."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.known: dict[Path, tuple[object, RunInfo]] = {}
        """What was read, with the `stamp` of the files that it was read from."""
        self.wanted: list[Path] = []

    def __len__(self) -> int:
        return len(self.paths)

    def row(self, index: int) -> RunInfo | None:
        """What is known of a run; its name at least."""
        path = self.paths[index]
        found = self.known.get(path)
        if found is not None:
            return found[1]
        if path not in self.wanted:
            self.wanted.append(path)
        return RunInfo(path)


class RunsScreen(Level):
    """The list of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "open", "Open", show=False),
        Binding("y", "copy", "Copy address"),
        Binding("r", "refresh", "Refresh"),
        Binding("p", "pause", "Pause", show=False, tooltip="Pause the run, or let it go on"),
    ]
    depth = 0

    class Chosen(Message):
        """A run was chosen."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    def __init__(self, root: Path, select: Path | None = None) -> None:
        super().__init__()
        self.root = root
        self.title = "Runs"
        self._select = select
        self.rows = RunRows([])

    def compose(self) -> ComposeResult:
        """Crumbs, list, a note on the run under the cursor, keys."""
        yield Bar(id="crumbs")
        yield RowList(COLUMNS, "no runs here yet: `agentgym eval quickstart` makes one", id="runs")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Lists the folder, and again whenever it may have changed."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#note").add_class("note")
        self.table.focus()
        self.action_refresh()
        self.set_interval(0.1, self._read_wanted)
        self.set_interval(2.0, self.action_refresh)

    @property
    def table(self) -> RowList[RunInfo]:
        """The list widget."""
        return self.query_one("#runs", RowList)

    def action_refresh(self) -> None:
        """Looks for new runs and for news of those that were read."""
        paths = list(reversed(find_runs(self.root)))
        for path, (seen, _) in list(self.rows.known.items()):
            if stamp(path) != seen and path not in self.rows.wanted:
                self.rows.wanted.append(path)
        if paths == self.rows.paths and self.table.source is not None:
            return
        current = self.table.current
        wanted = self._select or (current.path if current else None)
        self._select = None
        known = self.rows.known
        self.rows = RunRows(paths)
        self.rows.known = {p: known[p] for p in paths if p in known}
        cursor = next((i for i, p in enumerate(paths) if wanted is not None and p.name == wanted.name), None)
        self.table.show(self.rows, cursor)

    def _read_wanted(self) -> None:
        if self.rows.wanted and self.is_current:
            self._read(self.rows, self.rows.wanted[:32])

    @work(exclusive=True, group="read")
    async def _read(self, rows: RunRows, paths: list[Path]) -> None:
        """Reads what rows in view lack, off the thread that draws."""
        for path in paths:
            seen = stamp(path)
            rows.known[path] = (seen, await asyncio.to_thread(run_info, path))
            if path in rows.wanted:
                rows.wanted.remove(path)
        self.table.refresh()
        self._note()

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says more about the run under the cursor."""
        self._note()

    def _note(self) -> None:
        info = self.table.current
        total = len(self.rows)
        place = f"{self.table.cursor + 1}/{total}" if total else "0"
        self.show_crumbs([], [(f"{one_line(str(self.root), 60)}  ", "muted"), (place, "")])
        note = self.query_one("#note", Bar)
        if info is None:
            note.show([])
        elif info.problem:
            note.show([(f"{TROUBLE} {one_line(info.problem, 400)}", "warn")])
        else:
            note.show([(one_line(str(info.path), 200), "muted")], [(_when(info.created_at), "muted")])

    def action_open(self) -> None:
        """Opens the run under the cursor."""
        info = self.table.current
        if info is None:
            return
        if info.problem:
            self.viewer.say(info.problem)
        else:
            self.post_message(self.Chosen(info.path))

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the run."""
        self.action_open()

    def action_pause(self) -> None:
        """Pauses the run under the cursor, or lets it go on."""
        if (info := self.table.current) is not None:
            self.viewer.pause(info.path)

    def action_copy(self) -> None:
        """Copies the run's address."""
        if (info := self.table.current) is not None:
            self.viewer.copy_address(str(info.path))
