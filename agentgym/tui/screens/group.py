# SPDX-License-Identifier: Apache-2.0
"""The trials of a task side by side, as a learner sees them, and what the best or the cheating ones did alone."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run
from agentgym.report.charts import change_bar
from agentgym.report.group import Deed, Group, Member, group
from agentgym.report.text import one_line
from agentgym.tui.marks import TROUBLE, VIOLATION, amount, number, verdict
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece
from agentgym.tui.widgets.rowlist import Column, Listed, RowList

BAR = 8
"""Cells of half an advantage's bar."""


def _place(m: Member) -> Piece:
    return {"best": ("▲ best", "good"), "worst": ("▼ worst", "bad")}.get(m.place, ("", ""))


def _verdict(m: Member) -> Piece:
    mark = verdict(m.outcome, m.gold)
    return str(mark), mark.style


def _who(d: Deed) -> Piece:
    if d.contrast < 0:
        return f"- not by {d.of}", "muted"
    return (f"{VIOLATION} cheating", "flag") if d.of == "cheating" else ("▲ best", "good")


DEEDS: list[Column[Deed]] = [
    Column("of", "who", 17, _who),
    Column("there", "did it", 7, lambda d: (f"{d.there}/{d.those}", "strong"), right=True),
    Column("else", "others", 7, lambda d: (f"{d.elsewhere}/{d.others}", "muted"), right=True),
    Column("act", "act", 0, lambda d: (f"→ {d.act}", "")),
]


class GroupScreen(Level):
    """The trials of the task of an episode."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other", "Trials/acts", tooltip="Between the trials and what tells them apart"),
        Binding("o,right,l", "open", "Open", show=False, tooltip="Open the trial, or the act in the first trial with it"),
        Binding("b", "pair", "Best beside worst", tooltip="The best trial beside the worst"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the trial's address"),
    ]
    depth = 2

    class Chosen(Message):
        """A trial was chosen."""

        def __init__(self, episode: int, turn: int | None) -> None:
            super().__init__()
            self.episode, self.turn = episode, turn

    class Pair(Message):
        """Two trials are to be seen beside each other."""

        def __init__(self, best: int, worst: int) -> None:
            super().__init__()
            self.best, self.worst = best, worst

    def __init__(self, episode: Episode) -> None:
        super().__init__()
        self.title = "Group"
        self.episode = episode
        self.group: Group | None = None
        self._most = 0.0

    def compose(self) -> ComposeResult:
        """Crumbs, facts, trials over what tells them apart, a note, keys."""
        columns: list[Column[Member]] = [
            Column("trial", "trial", 5, lambda m: (f"{m.trial}", "muted"), right=True),
            Column("verdict", "outcome", 10, _verdict),
            Column("place", "", 7, _place),
            Column("reward", "reward", 7, lambda m: (number(m.reward), "strong"), right=True),
            Column("gold", "gold", 5, lambda m: (number(m.gold), ""), right=True),
            Column("advantage", "adv.", 6, lambda m: ("-" if m.advantage is None else f"{m.advantage:+.2f}", ""), right=True),
            Column("bar", "worse | better", 2 * BAR + 1, lambda m: (change_bar(m.advantage, self._most, BAR), "accent")),
            Column(
                "violations",
                VIOLATION,
                3,
                lambda m: (f"{m.violations}", "flag") if m.violations else ("·", "muted"),
                right=True,
            ),
            Column("turns", "turns", 6, lambda m: (f"{m.turns}", ""), right=True, least=74),
            Column("length", "length", 7, lambda m: (amount(m.length), "muted"), right=True, least=84),
        ]
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        with Vertical(id="body"):
            yield RowList(columns, "", id="members")
            yield RowList(DEEDS, "", id="deeds")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Reads the trials off the thread that draws."""
        for name in ("crumbs", "facts", "note"):
            self.query_one(f"#{name}").add_class(name)
        self.members.focus()
        path = self.episode.run_path
        name = path.name if self.size.width >= 110 else short(path)
        self.show_crumbs([name, f"{one_line(self.episode.task_id, 200)} group"])
        self.query_one("#facts", Bar).show([("reading …", "muted")])
        self.load()

    @property
    def members(self) -> RowList[Member]:
        """The trials."""
        return self.query_one("#members", RowList)

    @property
    def deeds(self) -> RowList[Deed]:
        """What tells them apart."""
        return self.query_one("#deeds", RowList)

    def _read(self) -> Group:
        with Run(self.episode.run_path) as run:
            return group(run, self.episode.task_id)

    @work(exclusive=True, group="load")
    async def load(self) -> None:
        """Reads the trajectories of all trials."""
        try:
            found = self.group = await asyncio.to_thread(self._read)
        except AgentGymError as e:
            self.query_one("#facts", Bar).show([(f"{TROUBLE} {one_line(str(e), 300)}", "warn")])
            return
        self._most = max((abs(m.advantage) for m in found.members if m.advantage is not None), default=0.0)
        here = next((i for i, m in enumerate(found.members) if m.id == self.episode.id), 0)
        self.members.show(Listed(found.members), here)
        self.deeds.empty = "nothing tells the best or the cheating from the others"
        self.deeds.show(Listed(found.deeds), 0)
        self._facts(found)

    def _facts(self, g: Group) -> None:
        n = len(g.members)
        left: Line = [(f"{n} trial{'s' * (n != 1)}", "strong")]
        if g.unscored:
            left.append((f", {g.unscored} without a reward", "warn"))
        known = [m.reward for m in g.members if m.reward is not None]
        if g.flat:
            left.append((f"  {TROUBLE} zero variance: all were paid {number(known[0])}, nothing is learnt from them", "warn"))
        elif len(known) < 2:
            left.append((f"  {TROUBLE} nothing to compare: fewer than two have a reward", "warn"))
        else:
            left.append((f"  mean reward {number(sum(known) / len(known))}, advantages by {g.baseline}", ""))
        cheating = sum(m.violations > 0 for m in g.members)
        self.query_one("#facts", Bar).show(left, [(f"{VIOLATION} {cheating}/{n} broke rules", "flag")] if cheating else None)

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says more about the line under the cursor."""
        note = self.query_one("#note", Bar)
        deed = self.deeds.current
        if self.deeds.has_focus and deed is not None:
            note.show([(f"→ {one_line(deed.act, 300)}", "muted")])
        elif not self.deeds.count:
            note.show([])
        else:
            note.show([("what only the best or the cheating did: below; Tab goes there", "muted")])

    def action_other(self) -> None:
        """Between the two lists."""
        (self.members if self.deeds.has_focus else self.deeds).focus()
        self.deeds.post_message(LineView.Moved(self.deeds, self.deeds.cursor))

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the trial."""
        self.action_open()

    def action_open(self) -> None:
        """Opens the trial under the cursor, or the first one that did the act."""
        if self.deeds.has_focus:
            if (deed := self.deeds.current) is not None:
                self.post_message(self.Chosen(*deed.first))
        elif (member := self.members.current) is not None:
            self.post_message(self.Chosen(member.id, None))

    def action_pair(self) -> None:
        """The best beside the worst."""
        found = self.group.members if self.group is not None else []
        best = next((m for m in found if m.place == "best"), None)
        worst = next((m for m in found if m.place == "worst"), None)
        if best is None or worst is None:
            self.viewer.say("All trials were worth the same: there is no best and no worst.", calm=True)
        else:
            self.post_message(self.Pair(best.id, worst.id))

    def action_copy(self) -> None:
        """Copies the trial's address."""
        if (member := self.members.current) is not None:
            self.viewer.copy_address(f"{self.episode.run_path}::{self.episode.task_id}/{member.trial}")
