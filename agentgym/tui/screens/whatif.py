# SPDX-License-Identifier: Apache-2.0
"""What if other rules judged a run: names a verifier with its parameters, scores again offline, and lists what flips."""

from __future__ import annotations

import asyncio
import inspect
import json
from array import array
from typing import Any, ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input

from agentgym import registry
from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run
from agentgym.report.text import one_line
from agentgym.rollout.rescore import Rescored, rescore
from agentgym.tui.document import Block, Document
from agentgym.tui.marks import BAD, GOOD, TROUBLE, number
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Piece
from agentgym.tui.widgets.reader import Reader
from agentgym.tui.widgets.rowlist import Column, RowList


class Flip(NamedTuple):
    """An episode of which something changed."""

    episode: int
    task_id: str
    trial: int
    what: str
    before: Any
    after: Any
    more: int
    """How many things changed besides."""
    reason: str


def _value(value: Any) -> str:
    return number(value) if value is None or isinstance(value, (int, float)) else one_line(str(value), 20)


def _turned(f: Flip) -> Piece:
    a, b = f.before, f.after
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        better = b > a
        return f"{GOOD if better else BAD} {_value(a)} → {_value(b)}", "good" if better else "bad"
    return f"  {_value(a)} → {_value(b)}", "warn"


COLUMNS: list[Column[Flip]] = [
    Column("turned", "before → after", 22, _turned),
    Column("what", "what", 16, lambda f: (f.what + (f" +{f.more}" if f.more else ""), "muted"), least=60),
    Column("task", "task", 0, lambda f: (f.task_id, ""), middle=True),
    Column("trial", "trial", 5, lambda f: (f"{f.trial}", "muted"), right=True),
    Column("reason", "why", 60, lambda f: (f.reason, "muted"), least=140),
]


class Flips:
    """The changed episodes of a set of scores, those whose gold changed first; read when they come into view."""

    def __init__(self, run: Run) -> None:
        self.run = run
        sql = "SELECT episode FROM later.changes GROUP BY episode ORDER BY max(what = 'gold') DESC, episode"
        self.ids = array("q", (row[0] for row in run._rows(sql)))
        self._kept: dict[int, Flip] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> Flip | None:
        """Row ``index``."""
        number = self.ids[index]
        if number not in self._kept:
            if len(self._kept) > 1000:
                self._kept.clear()
            sql = (
                "SELECT e.task_id, e.trial, c.what, c.before, c.after, c.reason FROM later.changes c"
                " JOIN main.episodes e ON e.id = c.episode WHERE c.episode = ? ORDER BY c.what != 'gold', c.position"
            )
            rows = list(self.run._rows(sql, (number,)))
            task_id, trial, what, before, after, _ = rows[0]
            reason = next((r[5] for r in rows if r[5]), "")
            self._kept[number] = Flip(
                number, task_id, trial, what, json.loads(before), json.loads(after), len(rows) - 1, reason
            )
        return self._kept[number]


class WhatIfScreen(Level):
    """Scores a run again, as often as one likes; each time is a set of scores beside the run's own."""

    CSS_PATH = "whatif.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash,w", "ask", "Rules", key_display="/", tooltip="Other rules"),
        Binding("right,l", "open", "Open", show=False),
        Binding("left,h", "leave", "Up a level", show=False),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the command that shows the run with these scores"),
    ]
    depth = 2

    class Chosen(Message):
        """An episode was chosen; its scores are those of the set."""

        def __init__(self, episode: Episode) -> None:
            super().__init__()
            self.episode = episode

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.title = "What if"
        self.run = run
        self.result: Rescored | None = None
        self.scored: Run | None = None
        """The run with the newest set in front of it."""
        self.working = False

    def compose(self) -> ComposeResult:
        """Crumbs, the rules, what came of them, known rules or flips, keys."""
        names = ["own", *registry.evaluators.names()]
        yield Bar(id="crumbs")
        yield Input(
            placeholder="own, NAME(parameter=value), or ./file.py:verifier; Enter scores again, Esc leaves",
            suggester=SuggestFromList(names),
            id="with",
        )
        yield Bar(id="facts")
        yield Reader(id="known")
        yield RowList(COLUMNS, "nothing flips: these rules say what the run's own said", id="flips")
        yield Keys()

    def on_mount(self) -> None:
        """Asks."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#known").can_focus = False
        self.show_crumbs([self.run.path.name if self.size.width >= 110 else short(self.run.path), "what if"])
        self.action_ask()
        self._tell_known()

    def on_unmount(self) -> None:
        """Closes the set."""
        if self.scored is not None:
            self.scored.close()

    @property
    def table(self) -> RowList[Flip]:
        """The flips."""
        return self.query_one("#flips", RowList)

    @work(exclusive=True, group="known")
    async def _tell_known(self) -> None:
        blocks = await asyncio.to_thread(_known)
        self.query_one("#known", Reader).show(Document(blocks))

    def action_ask(self) -> None:
        """To the line that names the rules."""
        self.add_class("-ask")
        self.query_one("#with", Input).focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Scores again."""
        text = message.value.strip()
        if text and not self.working:
            self.working = True
            self.query_one("#facts", Bar).show([("scoring…", "muted")])
            self._score(text)

    @work(exclusive=True, group="score")
    async def _score(self, text: str) -> None:
        facts = self.query_one("#facts", Bar)

        def on_progress(done: int, total: int) -> None:
            self.app.call_from_thread(facts.show, [(f"{done:,} of {total:,} judged", "muted")])

        try:
            result = await asyncio.to_thread(rescore, self.run.path, [text], on_progress=on_progress)
            scored = Run(self.run.path, scores=result.scores)
        except AgentGymError as e:
            facts.show([(f"{TROUBLE} {one_line(str(e), 400)}", "warn")])
            return
        except Exception as e:  # somebody's verifier
            facts.show([(f"{TROUBLE} {type(e).__name__}: {one_line(str(e), 400)}", "warn")])
            return
        finally:
            self.working = False
        before, self.scored, self.result = self.scored, scored, result
        self.remove_class("-ask")
        self.table.show(Flips(scored), 0)
        self.table.focus()
        if before is not None:
            before.close()
        self._facts()

    def _facts(self) -> None:
        r = self.result
        if r is None:
            return
        golds = r.counts.get("gold", 0)
        left = [
            (f"{r.changed:,} of {r.episodes:,} episodes change", "strong"),
            (f"   gold of {golds:,}: {number(r.gold_before)} → {number(r.gold_after)}" if golds else "", ""),
            (f"   {sum(n for _, n in r.unscorable):,} not scored" if r.unscorable else "", "warn"),
        ]
        self.query_one("#facts", Bar).show(left, [(f"--scores {r.scores}", "muted")])

    def action_open(self) -> None:
        """Opens the replay of the flip under the cursor, with the new scores."""
        flip = self.table.current
        if flip is not None and self.scored is not None:
            self.post_message(self.Chosen(self.scored.by_ids([flip.episode])[0]))

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens the replay."""
        if message.view is self.table:
            self.action_open()

    def action_copy(self) -> None:
        """Copies the command."""
        if self.result is not None:
            self.viewer.copy_address(f"agentgym show {self.run.path} --scores {self.result.scores}")

    def action_leave(self) -> None:
        """From the rules to the flips, where there are some; else one level up."""
        if self.query_one("#with", Input).has_focus and self.result is not None:
            self.remove_class("-ask")
            self.table.focus()
        else:
            super().action_leave()


def _known() -> list[Block]:
    """The registered verifiers with their parameters, to choose from."""
    blocks = [Block(("own", "tool"), "the tasks' own verifiers, as their code is now", turn=-1)]
    for name in registry.evaluators.names():
        try:
            thing = registry.evaluators.get(name)
            text = (inspect.getdoc(thing) or "").partition("\n")[0]
            try:
                takes = [str(p) for p in inspect.signature(thing).parameters.values()] if inspect.isfunction(thing) else []
            except (TypeError, ValueError):
                takes = []
        except AgentGymError as e:
            text, takes = str(e), []
        blocks.append(Block((name, "tool"), f"{text}{'  (' + ', '.join(takes) + ')' if takes else ''}", turn=-1, fold=3))
    return blocks
