# SPDX-License-Identifier: Apache-2.0
"""The episodes of a run: by family and variant, filtered, sorted, with a look at the one under the cursor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from array import array
from dataclasses import replace
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input

from agentgym.errors import AgentGymError
from agentgym.records.control import Now, playing
from agentgym.records.live import Evidence, Live
from agentgym.records.run import Episode, Run
from agentgym.report.text import duration, one_line
from agentgym.trajectory import SPOILED
from agentgym.tui.document import Block, Document
from agentgym.tui.marks import TROUBLE, VIOLATION, amount, number, verdict
from agentgym.tui.pages import (
    PAGE,
    SORTS,
    Episodes,
    Group,
    Query,
    groups,
    how_it_goes,
    known_names,
    select,
    several_agents,
    why_empty,
)
from agentgym.tui.screens.level import Level, short
from agentgym.tui.story import Story
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.findline import FindLine
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece
from agentgym.tui.widgets.reader import Reader
from agentgym.tui.widgets.rowlist import Column, RowList


def _verdict(e: Episode) -> Piece:
    mark = verdict(e.outcome, e.gold)
    return str(mark), mark.style


def _ended(e: Episode) -> Piece:
    if e.outcome == "truncated":
        return f"cut: {e.truncation}", "warn"
    return (f"{e.error_kind}", "warn") if e.outcome in SPOILED else ("by itself", "muted")


def _tokens(e: Episode) -> Piece:
    return (amount(n) if (n := e.prompt_tokens + e.completion_tokens) else "·"), "muted"


def _gold(e: Episode) -> Piece:
    return number(e.gold), "muted" if e.gold is None else "strong"


COLUMNS: list[Column[Episode]] = [
    Column("verdict", "outcome", 11, _verdict),
    Column("task", "task", 0, lambda e: (e.task_id, ""), middle=True),
    Column("trial", "trial", 5, lambda e: (f"{e.trial}", "muted"), right=True, least=52),
    Column("gold", "gold", 5, _gold, right=True),
    Column("reward", "reward", 7, lambda e: (number(e.reward), ""), right=True, least=54),
    Column("violations", VIOLATION, 3, lambda e: (f"{e.violations}", "flag") if e.violations else ("·", "muted"), right=True),
    Column("turns", "turns", 6, lambda e: (f"{e.turns}", ""), right=True, least=56),
    Column("tokens", "tokens", 7, _tokens, right=True, least=64),
    Column("time", "time", 7, lambda e: (duration(e.duration_s), "muted"), right=True, least=90),
    Column("ended", "ended", 12, _ended, least=84),
]

GROUP_COLUMNS: list[Column[Group]] = [
    Column("group", "families", 0, lambda g: (g.label, "" if g.variant is not None else "strong"), middle=True),
    Column("n", "n", 5, lambda g: (amount(g.episodes), "muted"), right=True),
    Column("gold", "gold", 5, lambda g: (number(g.gold), "strong"), right=True),
    Column("rules", VIOLATION, 4, lambda g: (amount(g.violations), "flag") if g.violations else ("·", "muted"), right=True),
]


def _evidence(e: Evidence) -> str:
    """The e-values of a run that may be stopped early, each with the one that stops it."""
    return f"e worse {e.worse:.2g}/{e.worse_at:.0f} · not worse {e.fine:.2g}/{e.fine_at:.0f}"


class _Groups:
    """The groups as a source of rows."""

    def __init__(self, rows: list[Group]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Group:
        """One group."""
        return self.rows[index]


class EpisodesScreen(Level):
    """The list of a run's episodes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "open", "Open", show=False),
        Binding("left,h", "leave", "Up a level", show=False),
        Binding("slash", "find", "Find", key_display="/", tooltip="Filter: part of a task id, gold<1, dim:policy"),
        Binding("o", "filters", "Filters", show=False, tooltip="Saved filters: take one, save this one"),
        Binding("F", "search", "Search", tooltip="Search everything that these episodes hold"),
        Binding("f", "failed", "Failed", tooltip="Only the unsolved, or all"),
        Binding("s", "sort", "Sort", show=False, tooltip="Sort by the next column"),
        Binding("S", "reverse", "Reverse the order", show=False),
        Binding("tab", "groups", "Families", tooltip="Families and variants"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the episode's address"),
        Binding("W", "what_if", "What if", show=False, tooltip="Score again with other rules"),
        Binding("L", "label", "Label", show=False, tooltip="Say which of two trials is better"),
        Binding("r", "refresh", "Refresh", show=False),
        Binding("p", "pause", "Pause", show=False, tooltip="Pause the run, or let it go on"),
        Binding("u,x", "under_way", "Under way", show=False, tooltip="What is being played: pause or cancel one of it"),
    ]
    depth = 1

    class Chosen(Message):
        """An episode was chosen."""

        def __init__(self, episode: Episode) -> None:
            super().__init__()
            self.episode = episode

    class WhatIf(Message):
        """The run is to be scored again."""

        def __init__(self, run: Run) -> None:
            super().__init__()
            self.run = run

    class Label(Message):
        """Preferences between its trials are to be given."""

        def __init__(self, run: Run) -> None:
            super().__init__()
            self.run = run

    class UnderWay(Message):
        """What the run plays at the moment is to be seen."""

        def __init__(self, run: Run) -> None:
            super().__init__()
            self.run = run

    class Search(Message):
        """What the listed episodes hold is to be searched."""

        def __init__(self, run: Run, query: Query) -> None:
            super().__init__()
            self.run = run
            self.query = query

    def __init__(self, run: Run, select: Episode | None = None) -> None:
        super().__init__()
        self.run = run
        self.title = "Episodes"
        self.query_ = Query()
        self.group = Group(None, None, 0, None, 0, 0, 0)
        """All episodes, in numbers."""
        self._meta: dict[str, object] = {}
        self._status = ""
        self._planned = 0
        self._live: Live | None = None
        """How it goes, while it goes on."""
        self._now: Now | None = None
        """What it plays, as it says itself; None where it does not play or has not said."""
        self._agents: bool | None = None
        """Whether several agents act in it; None where that is not known yet."""
        self._select = None if select is None else select.id
        self._version = -1
        self._loading = False
        self._next_poll = 0.0
        self._preview: Timer | None = None

    # -- what is on the screen ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Crumbs, facts, groups beside episodes beside a preview, the search, a note, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        with Horizontal(id="body"):
            yield RowList(GROUP_COLUMNS, "", id="groups")
            yield RowList(COLUMNS, "no episode fits", id="episodes")
            yield Reader(id="preview")
        yield FindLine(id="find")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Shows the first page at once; the rest of the numbers follow."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#facts").add_class("facts")
        self.query_one("#note").add_class("note")
        self.query_one("#preview").can_focus = False
        self.table.focus()
        self.table.sorted_by = None
        try:
            where, values, order = self.query_.sql()
            self._meta = self.run.meta
            self._describe()
            first = Episodes(self.run, self.run.ids(where, values, order, limit=PAGE))
        except AgentGymError as e:
            self._fail(e)
            return
        self.table.show(first)
        self._version = self.run.data_version
        self.call_after_refresh(self.load)  # beside the first paint it would only hold it up
        self.set_interval(1.0, self._poll)

    @property
    def table(self) -> RowList[Episode]:
        """The list of episodes."""
        return self.query_one("#episodes", RowList)

    @property
    def groups(self) -> RowList[Group]:
        """The list of groups."""
        return self.query_one("#groups", RowList)

    def _describe(self) -> None:
        self._status = self.run.status
        self._planned = self.run.planned

    def _facts(self) -> None:
        g = self.group
        left: Line = [(one_line(str(self._meta.get("model", "?")), 40), "strong"), (f"  {self._status}", "")]
        left.append((f"  {g.episodes:,} of {self._planned:,} episodes", ""))
        if g.episodes:
            left.append((f"  gold {number(g.gold)}", "strong"))
            if self._live is not None and self._live.low is not None and self._live.high is not None:
                left.append((f" ({number(self._live.low)}-{number(self._live.high)})", "strong"))
        if g.violations:
            left.append((f"  {VIOLATION} {g.violations:,} with violations", "flag"))
        if g.errors:
            left.append((f"  {TROUBLE} {g.errors:,} errors", "warn"))
        if self._live is not None and self._live.evidence is not None:
            left.append((f"  {_evidence(self._live.evidence)}", "accent"))
        words = self.query_.words()
        order = "" if self.query_.sort == "task" and not self.query_.reverse else f"by {self.query_.sort}"
        shown = "; ".join(x for x in (words, order) if x)
        self.query_one("#facts", Bar).show(left, [(f"showing {shown}", "accent")] if shown else None)
        total = len(self.table.source) if self.table.source is not None else 0
        place = f"{min(self.table.cursor + 1, total):,}/{total:,}" + ("…" if self._loading else "")
        name = self.run.path.name if self.size.width >= 110 else short(self.run.path)
        self.show_crumbs([name], [(self._pace(), "accent"), (place, "")])

    def _who(self, e: Episode) -> Piece:
        """Who acted, how often, and what each was paid, as far as there is room."""
        found = self.table.source.agents(e.id) if isinstance(self.table.source, Episodes) else []
        return " ".join(f"{one_line(s.agent, 12) or 'agent'} {s.turns}:{number(s.reward)}" for s in found), "muted"

    def _pace(self) -> str:
        """Of a run that goes on: episodes a second, the time to go, what it cost; else nothing."""
        if self._live is None:
            return ""
        if self._now is not None and self._now.paused:
            return "‖ paused  "
        parts = []
        if self._now is not None:
            parts.append(f"{len(self._now.episodes):,} under way")
        if (rate := self._live.per_s) is not None:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min")
        if self._live.eta_s is not None:
            parts.append(f"{duration(self._live.eta_s)} to go")
        if self._live.cost_usd:
            parts.append(f"${self._live.cost_usd:.2f}")
        return " · ".join(parts) + "  " if parts else ""

    @property
    def find(self) -> FindLine:
        """The line for a filter."""
        return self.query_one("#find", FindLine)

    def _note(self) -> None:
        note = self.query_one("#note", Bar)
        if self.find.has_focus:
            n = self.table.count
            fit = "…" if self._loading else f"{n:,} of {self.group.episodes:,} {'fits' if n == 1 else 'fit'}"
            note.show(self.find.hint(fit, note.size.width))
            return
        e = self.table.current
        if e is None:
            note.show([])
        elif e.outcome in SPOILED:
            note.show([(f"{TROUBLE} {e.error_kind}: {one_line(e.error or '', 300)}", "warn")])
        else:
            broken = f"{VIOLATION} {e.violations} of {e.exposures} rules broken  " if e.violations else ""
            cut = f"cut by limit: {e.truncation}  " if e.outcome == "truncated" else ""
            tags = " ".join(e.tags)
            note.show([(broken, "flag"), (cut, "warn"), (one_line(tags, 200), "muted")])

    def _fail(self, error: Exception) -> None:
        if self.table.source is None:
            self.table.empty = f"{TROUBLE} {error}"
            self.table.refresh()
        self.query_one("#note", Bar).show([(f"{TROUBLE} {one_line(str(error), 400)}", "warn")])
        self.viewer.say(str(error))

    # -- which episodes -----------------------------------------------------------------------------------------------

    @work(exclusive=True, group="load")
    async def load(self, keep: bool = True, lost: int | None = None) -> None:
        """Reads the numbers of the selection and the groups, off the thread that draws, and shows them.

        Args:
            keep: whether the cursor stays on its episode; else it goes to the top.
            lost: where the cursor goes if its episode is not among them; None for the same place.
        """
        self._loading = True
        started = time.monotonic()
        try:
            ids = await asyncio.to_thread(select, self.run.path, self.query_)
            rows = await asyncio.to_thread(groups, self.run.path)
            agents = await asyncio.to_thread(several_agents, self.run.path) if self._agents is None and ids else None
            self.table.empty = "" if ids else await asyncio.to_thread(why_empty, self.run.path, self.query_)
            self._describe()
            running = self._status == "running"
            self._live = await asyncio.to_thread(how_it_goes, self.run.path) if running else None
            self._now = playing(self.run.path) if running else None
        except AgentGymError as e:
            self._loading = False
            self._fail(e)
            return
        self._loading = False
        # a run of millions that is being written must not keep a core busy with looking at it
        self._next_poll = time.monotonic() + min(10.0, 5 * (time.monotonic() - started))
        if agents is not None:
            self._agents = agents
            if agents:
                who = Column("agents", "agents: turns, reward", 28, self._who, least=72)
                rest = [c for c in COLUMNS[2:] if c.key not in ("turns", "tokens")]  # it tells more than these
                self.table.columns = [*COLUMNS[:2], who, *rest]
        self.group = rows[0]
        self._show(ids, keep, lost)
        self.groups.show(_Groups(rows))
        self._facts()

    def _show(self, ids: array[int], keep: bool, lost: int | None) -> None:
        source = Episodes(self.run, ids)
        wanted = self._select
        if wanted is None and keep and (current := self.table.current) is not None:
            wanted = current.id
        self._select = None
        place = source.place(wanted) if wanted is not None else None
        self.table.show(source, place if place is not None else lost if keep else 0)

    def _poll(self) -> None:
        """Looks whether the run has grown."""
        if self._loading or time.monotonic() < self._next_poll or not self.is_current:
            return
        try:
            version = self.run.data_version
        except AgentGymError as e:
            self._fail(e)
            return
        if version != self._version:
            self._version = version
            self.load()
        elif self._live is not None and (now := playing(self.run.path)) != self._now:
            self._now = now  # one that is paused writes nothing
            self._facts()

    def action_refresh(self) -> None:
        """Reads the run again."""
        self.load()

    def ask(self, query: Query) -> None:
        """Shows another selection."""
        if query == self.query_:
            return
        keep = query.sort == self.query_.sort and query.reverse == self.query_.reverse
        self.query_ = query
        self.table.sorted_by = None if query.sort == "task" and not query.reverse else (query.sort, query.descending)
        self._facts()
        self.load(keep, lost=0)

    def action_failed(self) -> None:
        """Only what is not solved, or all."""
        self.ask(replace(self.query_, failed=not self.query_.failed))

    def action_sort(self) -> None:
        """By the next column."""
        keys = list(SORTS)
        self.ask(replace(self.query_, sort=keys[(keys.index(self.query_.sort) + 1) % len(keys)], reverse=False))

    def action_reverse(self) -> None:
        """The other way round."""
        self.ask(replace(self.query_, reverse=not self.query_.reverse))

    def on_row_list_head_clicked(self, message: RowList.HeadClicked) -> None:
        """Sorts by the column; again: the other way round."""
        if message.view is not self.table or message.key not in SORTS:
            return
        if message.key == self.query_.sort:
            self.action_reverse()
        else:
            self.ask(replace(self.query_, sort=message.key, reverse=False))

    # -- find ---------------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Opens the line to type in."""
        self.find.add_class("-open")
        self.find.focus()
        self._learn_names()

    @work(exclusive=True, group="names")
    async def _learn_names(self) -> None:
        """Reads what can be completed, off the thread that draws."""
        with contextlib.suppress(AgentGymError):  # without names there are only fields to complete
            self.find.known = await asyncio.to_thread(known_names, self.run.path)
        self._note()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filters while one types; what cannot be read yet leaves the list as it is."""
        if self.find.error is None:
            self.ask(replace(self.query_, text=message.value.strip()))
        self._note()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Keeps the filter, if it is one."""
        if self.find.error is None:
            self._close_find()
        else:
            self.app.bell()

    def _close_find(self) -> None:
        self.find.remove_class("-open")
        self.table.focus()
        self.call_after_refresh(self._note)

    def action_filters(self) -> None:
        """To the filters that have names."""
        from agentgym.tui.screens.filters import FiltersMenu

        self.app.push_screen(FiltersMenu(self.query_.text), self._take_filter)

    def _take_filter(self, text: str | None) -> None:
        if text is not None:
            self.find.value = text  # as if it had been typed, so that what is wrong with it is said there
            if self.find.error is not None:
                self.action_find()

    def action_search(self) -> None:
        """Searches everything that the listed episodes hold."""
        self.post_message(self.Search(self.run, self.query_))

    # -- groups -------------------------------------------------------------------------------------------------------

    def action_groups(self) -> None:
        """To the families and variants, and back."""
        if self.groups.has_focus:
            self.remove_class("-groups")
            self.table.focus()
        else:
            self.add_class("-groups")
            self.groups.focus()

    def action_leave(self) -> None:
        """Closes what is open, the search or the groups, before it leaves the screen."""
        if self.find.has_focus:
            self.find.value = ""
            self._close_find()
        elif self.groups.has_focus:
            self.action_groups()
        else:
            super().action_leave()

    # -- messages of the lists ----------------------------------------------------------------------------------------

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Follows the cursor: of the groups with the selection, of the episodes with note and preview."""
        if message.view is self.groups:
            if self.groups.has_focus and (group := self.groups.current) is not None:
                self.ask(replace(self.query_, family=group.family, variant=group.variant))
        elif message.view is self.table:
            self._facts()
            self._note()
            if self._preview is not None:
                self._preview.stop()
            self._preview = self.set_timer(0.06, self._show_preview)

    @work(exclusive=True, group="preview")
    async def _show_preview(self) -> None:
        """Reads the episode under the cursor off the thread that draws: it may be large, and one may be passing by."""
        preview = self.query_one("#preview", Reader)
        if not preview.display or not preview.size.width:
            return
        e = self.table.current
        if e is None:
            preview.show(Document([]))
            return
        try:
            document = (await asyncio.to_thread(Story, e)).overview()
        except AgentGymError as error:
            document = Document([Block((f"{TROUBLE} damaged", "warn"), str(error), turn=-1)])
        preview.show(document)

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the episode, or goes from the groups to their episodes."""
        if message.view is self.groups:
            self.action_groups()
        elif message.view is self.table:
            self.action_open()

    def action_open(self) -> None:
        """Opens the episode under the cursor."""
        if self.groups.has_focus:
            self.action_groups()
        elif (e := self.table.current) is not None:
            self.post_message(self.Chosen(e))

    def step(self, by: int) -> Episode | None:
        """Moves the cursor to the next or previous episode and returns it; None at the end of the list."""
        before = self.table.cursor
        self.table.cursor += by
        return self.table.current if self.table.cursor != before else None

    def action_copy(self) -> None:
        """Copies the episode's address."""
        if (e := self.table.current) is not None:
            self.viewer.copy_address(e.address)

    def action_what_if(self) -> None:
        """To the question what other rules would say."""
        self.post_message(self.WhatIf(self.run))

    def action_pause(self) -> None:
        """Pauses the run, or lets it go on."""
        self.viewer.pause(self.run.path)

    def action_under_way(self) -> None:
        """To what is being played."""
        self.post_message(self.UnderWay(self.run))

    def action_label(self) -> None:
        """To the question which of two trials is better."""
        self.post_message(self.Label(self.run))

    def on_resize(self) -> None:
        """Other widths have other panes."""
        self._facts()
        self._preview = self.set_timer(0.06, self._show_preview)
