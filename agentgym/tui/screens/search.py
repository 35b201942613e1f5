# SPDX-License-Identifier: Apache-2.0
"""Words or a regular expression in everything that the listed episodes hold; hits come in while one reads."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run
from agentgym.records.search import END, MOST_HITS, OPENING, Found, Hit, Progress, Search, compiled, stream
from agentgym.report.text import one_line
from agentgym.tui.marks import TROUBLE, amount
from agentgym.tui.pages import Query
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, fit, width_of
from agentgym.tui.widgets.rowlist import Column, RowList


class HitRow(NamedTuple):
    """One line of the results: a hit, the first of an episode with the episode's name."""

    episode: Episode
    hits: int
    """Hits in the episode."""
    hit: Hit
    first: bool


def _turn(r: HitRow) -> str:
    return {OPENING: "opening", END: "end"}.get(r.hit.turn, str(r.hit.turn))


COLUMNS: list[Column[HitRow]] = [
    Column("hits", "hits", 5, lambda r: (amount(r.hits) if r.first else "", "strong"), right=True),
    Column("task", "episode", 28, lambda r: (f"{r.episode.task_id}/{r.episode.trial}" if r.first else "", ""), middle=True),
    Column("turn", "turn", 7, lambda r: (_turn(r), "muted"), right=True),
    Column("where", "where", 9, lambda r: (r.hit.where, "muted"), least=70),
    Column("text", "text", 0, lambda r: (f"{r.hit.before}{r.hit.match}{r.hit.after}", "")),
]


class _Hits:
    """The hits as rows; of the episodes a few are kept and the others read again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.places: list[tuple[Found, int]] = []
        self._episodes: OrderedDict[int, Episode | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.places)

    def add(self, found: Found) -> None:
        """Takes in the hits of an episode."""
        self.places += [(found, i) for i in range(len(found.hits))]

    def row(self, index: int) -> HitRow | None:
        """One hit."""
        found, i = self.places[index]
        if found.episode not in self._episodes:
            self._episodes[found.episode] = next(iter(self.run.by_ids([found.episode])), None)
            if len(self._episodes) > 256:
                self._episodes.popitem(last=False)
        episode = self._episodes[found.episode]
        return None if episode is None else HitRow(episode, found.count, found.hits[i], i == 0)


class _HitList(RowList[HitRow]):
    """The list of hits: what was found stands out, and in view."""

    def line(self, index: int, width: int) -> Line:
        """One hit, cut around what was found."""
        line = super().line(index, width)
        row = self.current if self.source is None else self.source.row(index)
        if row is None or len(line) < 2:
            return line
        size = width_of(line[-2:]) - 1
        match = fit_least(row.hit.match, size)
        room = size - width_of([(match, "")])
        before = one_line(row.hit.before, 400)
        before = before if len(before) <= room // 3 else "…" + before[len(before) - room // 3 + 1 :] if room > 6 else ""
        rest = fit(row.hit.after, room - width_of([(before, "")]))
        return [*line[:-2], (before, "muted"), (match, "accent"), (rest, "muted"), (" ", "")]


def fit_least(text: str, width: int) -> str:
    """One line of the text, cut where it is wider, not padded."""
    return fit(text, width).rstrip() if text.strip() else one_line(text, width)


class SearchScreen(Level):
    """Searching everything in a selection of a run's episodes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "open", "Open", show=False),
        Binding("left,h", "leave", "Up a level", show=False),
        Binding("slash,F", "ask", "Search", key_display="/", tooltip="Search for something else"),
        Binding("n", "episode(1)", "Next episode", tooltip="The next episode with hits"),
        Binding("N", "episode(-1)", "Previous episode", show=False),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the address of the hit"),
    ]
    depth = 2

    class Chosen(Message):
        """A hit was chosen."""

        def __init__(self, episode: Episode, turn: int) -> None:
            super().__init__()
            self.episode = episode
            self.turn = turn

    def __init__(self, run: Run, query: Query) -> None:
        super().__init__()
        self.title = "Search"
        self.run = run
        self.among = query
        """The selection that is searched."""
        self.hits = _Hits(run)
        self.progress: Progress | None = None
        self.problem = ""
        self.searching = False
        self._episodes = self._count = 0

    def compose(self) -> ComposeResult:
        """Crumbs, the line to type in, hits, how far it is, keys."""
        yield Bar(id="crumbs")
        hint = "words, or a regular expression between slashes: /O-\\d+/; Enter searches"
        yield Input(placeholder=hint, id="pattern", classes="find -open")
        yield _HitList(COLUMNS, "", id="hits")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Waits for something to look for."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#note").add_class("note")
        self.query_one("#pattern").focus()
        self._tell()

    @property
    def table(self) -> RowList[HitRow]:
        """The list of hits."""
        return self.query_one("#hits", _HitList)

    def action_ask(self) -> None:
        """To the line."""
        self.query_one("#pattern").focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Searches."""
        message.stop()
        self.problem = ""
        try:
            compiled(message.value)
        except AgentGymError as e:
            self.problem = str(e)
            self._tell()
            return
        self.table.focus()
        self.find(message.value)

    @work(exclusive=True, group="search")
    async def find(self, pattern: str) -> None:
        """Shows what another process finds, a few times a second at most."""
        self.hits, self.progress, self._episodes, self._count = _Hits(self.run), None, 0, 0
        self.searching = True
        where, values, order = self.among.sql()
        wanted = Search(str(self.run.path), pattern, where, list(values), order, self.run.scores_name)
        self.table.show(self.hits, 0)
        shown = time.monotonic()
        search = stream(wanted)
        try:
            async for news in search:
                if isinstance(news, Found):
                    self.hits.add(news)
                    self._episodes += 1
                    self._count += news.count
                else:
                    self.progress = news
                if time.monotonic() - shown > 0.1:
                    shown = time.monotonic()
                    self._refresh()
        except AgentGymError as e:
            self.problem = str(e)
        finally:
            self.searching = False
            await search.aclose()
            if self.is_attached:
                self._refresh()

    def _refresh(self) -> None:
        self.table.refit()
        self._tell()

    def _tell(self) -> None:
        note = self.query_one("#note", Bar)
        among = self.among.words() or "all episodes"
        p = self.progress
        table = self.table
        place = f"{table.cursor + 1:,}/{table.count:,}" if table.count else ""
        self.show_crumbs([short(self.run.path), "search"], [(f"in {one_line(among, 40)}  ", "accent"), (place, "")])
        if self.problem:
            note.show([(f"{TROUBLE} {one_line(self.problem, 300)}", "bad")])
            return
        if p is None:
            note.show([("searching …" if self.searching else f"searches {among}", "muted")])
            return
        left: Line = [(f"{self._count:,} hits in {self._episodes:,} episodes", "strong")]
        if p.slow:
            left.append((f"  {TROUBLE} {p.slow} took too long", "warn"))
        if p.unreadable:
            left.append((f"  {TROUBLE} {p.unreadable} damaged", "warn"))
        if p.full:
            left.append((f"  more than {MOST_HITS:,}: narrow it down", "warn"))
        elif p.hopeless:
            left.append(("  given up: simplify the expression", "warn"))
        state = f"{p.done:,} of {p.of:,} searched" + ("" if p.ended else " …" if self.searching else ", stopped")
        if p.ended and not self.hits:
            table.empty = "found nowhere"
            table.refresh()
        note.show(left, [(state, "muted")])

    # -- hits ---------------------------------------------------------------------------------------------------------

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says where one is."""
        self._tell()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the hit."""
        self.action_open()

    def action_open(self) -> None:
        """Opens the replay at the turn of the hit."""
        if (row := self.table.current) is not None:
            self.post_message(self.Chosen(row.episode, row.hit.turn))

    def action_episode(self, by: int) -> None:
        """To the first hit of the next or previous episode."""
        places = self.hits.places
        at = self.table.cursor + by
        while 0 <= at < len(places) and places[at][1]:
            at += by
        if 0 <= at < len(places):
            self.table.cursor = at

    def step(self, by: int) -> Episode | None:
        """Moves the cursor to the next or previous episode with hits and returns it; None at the end of the list."""
        before = self.table.current
        self.action_episode(by)
        if by < 0 and before is not None and self.table.current and self.table.current.episode.id == before.episode.id:
            self.action_episode(by)
        row = self.table.current
        return None if row is None or before is None or row.episode.id == before.episode.id else row.episode

    def action_copy(self) -> None:
        """Copies the address of the hit."""
        if (row := self.table.current) is not None:
            at = f"@{row.hit.turn}" if row.hit.turn >= 0 else ""
            self.viewer.copy_address(f"{row.episode.address}{at}")

    def action_leave(self) -> None:
        """Stops the search while it runs; else one level up."""
        if self.searching:
            self.workers.cancel_group(self, "search")
            self._tell()
        else:
            super().action_leave()
