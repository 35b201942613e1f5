# SPDX-License-Identifier: Apache-2.0
"""Alignment of a run on one screen: dimensions, the worst first, capability apart, conflicts; Enter lists who is flagged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message

from agentgym.errors import AgentGymError
from agentgym.records.run import Run
from agentgym.report.alignment import Alignment, Dimension, align
from agentgym.report.alignment_text import rate_text, sentences
from agentgym.report.charts import interval_bar
from agentgym.report.text import fraction, one_line
from agentgym.tui.dashboard import document
from agentgym.tui.document import Document
from agentgym.tui.marks import TROUBLE, VIOLATION
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Piece
from agentgym.tui.widgets.reader import Reader
from agentgym.tui.widgets.rowlist import Column, Listed, RowList

BAR = 21
"""Cells of a rate with its interval."""


def _score(d: Dimension) -> Piece:
    return ("N/A", "muted") if d.score is None else (fraction(d.score), "strong")


def _bar(d: Dimension) -> Piece:
    if d.rate is None or not d.activations:
        value = None if d.score is None else 1 - d.score
        return interval_bar(value, None, None, BAR), "muted"
    return interval_bar(d.rate, d.low, d.high, BAR), "flag" if d.violated else "good"


def _rate(d: Dimension) -> Piece:
    text = rate_text(d) or (d.formula if d.score is not None else d.why)
    return text, "flag" if d.violated else "muted" if not d.exposed else ""


COLUMNS: list[Column[Dimension]] = [
    Column("sign", "", 1, lambda d: (VIOLATION, "flag") if d.violated else (" ", "")),
    Column("name", "dimension", 15, lambda d: (d.name, "strong" if d.violated else "")),
    Column("score", "score", 5, _score, right=True),
    Column("bar", f"0 {'violated':^{BAR - 4}} 1", BAR, _bar),
    Column("rate", "of the exposed (95 %)", 0, _rate),
]


class DashboardScreen(Level):
    """The alignment of a run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other", "Dimensions/rest", tooltip="Between the dimensions and what is said besides"),
        Binding("right,l", "open", "Flagged", show=False, tooltip="The episodes that broke this dimension"),
    ]
    depth = 2

    class Chosen(Message):
        """The flagged episodes of a dimension are wanted."""

        def __init__(self, path: Path, dimension: str) -> None:
            super().__init__()
            self.path, self.dimension = path, dimension

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.title = "Alignment"
        self.path = path
        self.alignment: Alignment | None = None

    def compose(self) -> ComposeResult:
        """Crumbs, capability and headline, dimensions beside the rest, a note, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        with Horizontal(id="body"):
            yield RowList(COLUMNS, "", id="dimensions")
            yield Reader(id="rest")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Computes, off the thread that draws."""
        for name in ("crumbs", "facts", "note"):
            self.query_one(f"#{name}").add_class(name)
        self.table.focus()
        self.show_crumbs([self.path.name if self.size.width >= 110 else short(self.path), "alignment"])
        self.query_one("#facts", Bar).show([("computing …", "muted")])
        self.load()

    @property
    def table(self) -> RowList[Dimension]:
        """The dimensions."""
        return self.query_one("#dimensions", RowList)

    @property
    def rest(self) -> Reader:
        """What is said besides."""
        return self.query_one("#rest", Reader)

    def _read(self) -> tuple[Alignment, Document]:
        with Run(self.path) as run:
            found = align(run)
        return found, document(found)

    @work(exclusive=True, group="load")
    async def load(self) -> None:
        """Reads the run and computes what is known of it."""
        try:
            a, rest = await asyncio.to_thread(self._read)
        except AgentGymError as e:
            self.query_one("#facts", Bar).show([(f"{TROUBLE} {one_line(str(e), 300)}", "warn")])
            return
        self.alignment = a
        self.table.empty = "nothing in this run can be violated: its tasks have no rules"
        self.table.show(Listed(a.dimensions), 0)
        self.rest.show(rest)
        worst = "" if a.worst is None else f"worst: {one_line(a.worst, 30)}  "
        hard = f"{VIOLATION} {a.hard:,} hard"
        head = sentences(a)[1].partition(", geometric")[0]
        self.query_one("#facts", Bar).show(
            [(f"{worst}", "flag"), (f"{hard}  " if a.hard else "", "flag"), (head, "strong")],
            [(f"gold {a.capability.text()}" if a.capability.n else "nothing was scored", "")],
        )

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says more about the dimension under the cursor."""
        d = self.table.current
        note = self.query_one("#note", Bar)
        if d is None:
            note.show([])
            return
        said = [
            f"{d.exposed} exposed of {d.planned} planned, {d.tasks} tasks" if d.planned else "",
            d.why if d.score is None else "",
        ]
        if d.missing:
            said.append(f"{d.missing} spoiled by infrastructure")
        if d.violated:
            said.append(f"Enter lists the {d.violated} flagged")
        note.show([("; ".join(s for s in said if s), "muted")])

    def action_other(self) -> None:
        """Between the dimensions and the rest."""
        if self.rest.has_focus:
            self.remove_class("-rest")
            self.table.focus()
        else:
            self.add_class("-rest")
            self.rest.focus()

    def action_leave(self) -> None:
        """From the rest back to the dimensions where they stand in one place; else up."""
        if self.rest.has_focus and not self.table.display:
            self.action_other()
        else:
            super().action_leave()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Lists who broke the dimension."""
        if message.view is self.table:
            self.action_open()

    def action_open(self) -> None:
        """The episodes that broke the dimension under the cursor."""
        d = self.table.current
        if d is None or self.rest.has_focus:
            return
        if d.violated or d.breaches:
            self.post_message(self.Chosen(self.path, d.name))
        else:
            self.viewer.say(f"No episode broke {d.name}.", calm=True)
