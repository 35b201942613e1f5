# SPDX-License-Identifier: Apache-2.0
"""Two runs, or a run and a baseline: what changed by how much, and below which tasks or steps to look at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message

from agentgym.errors import AgentGymError
from agentgym.gate.compare import compare, compare_runs
from agentgym.gate.pairs import Change, TaskPair, task_pairs
from agentgym.gate.report_text import counts, metric_name, number, problems, remarks, sentence, shown_outcome, where
from agentgym.gate.verdict import Flagged, MetricResult, Verdict
from agentgym.records.run import Run
from agentgym.records.schema import FILE
from agentgym.report.charts import difference_bar
from agentgym.report.text import one_line
from agentgym.stats.intervals import clopper_pearson
from agentgym.stats.paired import FEW
from agentgym.tui.marks import TROUBLE, VIOLATION
from agentgym.tui.marks import number as short_number
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line, Piece
from agentgym.tui.widgets.rowlist import Column, Listed, RowList

MARKS: dict[Change, Piece] = {
    "worse": ("↓ worse", "bad"),
    "broken": (f"{VIOLATION} broken", "flag"),
    "better": ("↑ better", "good"),
    "mended": ("✓ mended", "good"),
    "moved": ("~ moved", "warn"),
    "same": ("= same", "muted"),
}
"""What became of a task, in a sign and a word."""

STYLES = {
    "regression": "bad", "invariant": "bad", "fail": "bad", "coverage": "warn", "incompatible": "warn", "inconclusive": "warn",
    "warn": "warn", "tolerated": "warn", "pass": "good", "worse": "bad", "better": "good",
}  # fmt: skip


class Said(NamedTuple):
    """A line above: a comparison, or a sentence of the gate."""

    word: str
    """``REGRESSION``, ``pass``; between runs ``↓ worse``, ``↑ better``, ``? unclear``."""
    style: str
    where: str
    text: str
    more: str
    """What is said of it besides."""
    bar: str = ""


class Look(NamedTuple):
    """A line below: what to look at."""

    mark: Piece
    what: str
    text: Piece
    address: str
    """Of a step; empty where the task is looked at in both runs."""
    task: str


class Found(NamedTuple):
    """All that was computed."""

    verdict: Verdict
    pairs: list[TaskPair]


SAID: list[Column[Said]] = [
    Column("word", "", 12, lambda s: (s.word, s.style)),
    Column("where", "where", 15, lambda s: (s.where, "strong"), middle=True),
    Column("bar", f"-1{0:^15}+1", 19, lambda s: (s.bar, "accent"), least=120),
    Column("text", "", 0, lambda s: (s.text, "")),
]

LOOK: list[Column[Look]] = [
    Column("mark", "look at", 12, lambda r: r.mark),
    Column("what", "task", 0, lambda r: (r.what, ""), middle=True),
    Column("text", "", 34, lambda r: r.text),
]

BAR = 19
"""Cells of a difference with its interval."""


class VerdictScreen(Level):
    """Two runs, or a run and what it is held against.

    Args:
        candidate: the run in question; of two runs the second.
        baseline: a run's folder, or anything that ``agentgym gate --baseline`` takes.
        gate: whether the verdict of a gate is shown, as ``agentgym gate`` prints it.
        rules: a rules file of the gate.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other", "Up/down", tooltip="Between what changed and what to look at"),
        Binding("v", "verdict", "Verdict", tooltip="As a gate decides, or as two runs"),
        Binding("f", "all", "All", tooltip="All tasks, or those that differ"),
        Binding("o,right,l", "open", "Open", show=False, tooltip="Open the step, or the task in both runs"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the address"),
    ]
    depth = 2

    class Chosen(Message):
        """A step was chosen."""

        def __init__(self, address: str) -> None:
            super().__init__()
            self.address = address

    class Pair(Message):
        """A task is to be seen in both runs."""

        def __init__(self, first: Path, second: Path, task: str) -> None:
            super().__init__()
            self.first, self.second, self.task = first, second, task

    def __init__(self, candidate: Path, baseline: str, *, gate: bool = False, rules: str | None = None) -> None:
        super().__init__()
        self.candidate, self.baseline, self.rules = candidate, baseline, rules
        self.gate = gate
        self.found: Found | None = None
        self.title = "Verdict" if gate else "Two runs"
        self._everything = False

    @property
    def first(self) -> Path | None:
        """The baseline, if it is a run that can be looked at."""
        return path if ((path := Path(self.baseline)) / FILE).is_file() else None

    def compose(self) -> ComposeResult:
        """Crumbs, the verdict in a line, comparisons over what to look at, a note, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        with Vertical(id="body"):
            yield RowList(SAID, "", id="said")
            yield RowList(LOOK, "", id="look")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Computes, off the thread that draws."""
        for name in ("crumbs", "facts", "note"):
            self.query_one(f"#{name}").add_class(name)
        self.look.focus()
        self.query_one("#facts", Bar).show([("comparing …", "muted")])
        self._crumbs()
        self.load()

    @property
    def said(self) -> RowList[Said]:
        """What changed."""
        return self.query_one("#said", RowList)

    @property
    def look(self) -> RowList[Look]:
        """What to look at."""
        return self.query_one("#look", RowList)

    def _read(self) -> Found:
        first = self.first
        if first is None or self.rules is not None:
            return Found(compare(str(self.candidate), self.baseline, rules=self.rules, lines=False), [])
        verdict = compare_runs(first, self.candidate)
        with Run(first) as a, Run(self.candidate) as b:
            return Found(verdict, task_pairs(verdict, a, b))

    @work(exclusive=True, group="load")
    async def load(self) -> None:
        """Reads both and compares them."""
        try:
            self.found = await asyncio.to_thread(self._read)
        except AgentGymError as e:
            self.query_one("#facts", Bar).show([(f"{TROUBLE} {one_line(str(e), 400)}", "warn")])
            return
        self.gate = self.gate or not self.found.pairs
        self._show()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        if self.found is None:
            return
        v = self.found.verdict
        self.said.empty = "nothing was compared"
        self.look.empty = "nothing to look at" if self.gate else "nothing differs; f shows all tasks"
        self.said.show(Listed(gate_lines(v) if self.gate else run_lines(v)), 0)
        if self.gate or not self.found.pairs:
            self.look.show(Listed(steps(v)), 0)
        else:
            pairs = [p for p in self.found.pairs if self._everything or p.change != "same"]
            self.look.show(Listed([pair_line(p) for p in pairs]), 0)
        self._facts(v)
        self._crumbs()

    def _facts(self, v: Verdict) -> None:
        bar = self.query_one("#facts", Bar)
        if self.gate:
            word = shown_outcome(v.outcome)
            bar.show(
                [(f"{word}  ", STYLES.get(v.outcome, "strong")), (one_line(v.summary.partition(": ")[2], 400), "")],
                [(f"exit {v.exit_code}", "muted")],
            )
            return
        f = v.flips
        left: Line = [(f"↓ {share(f.harmful, f.tasks)} worse", "bad" if f.harmful else "muted")]
        left.append((f"   ↑ {share(f.beneficial, f.tasks)} better", "good" if f.beneficial else "muted"))
        if self.found is not None:
            broken = sum(p.change == "broken" for p in self.found.pairs)
            left.append((f"   {VIOLATION} {broken} more break rules", "flag") if broken else ("", ""))
        bar.show(left, [(f"{f.tasks:,} tasks of both", "muted")])

    def _crumbs(self) -> None:
        wide = self.size.width >= 110
        first = Path(self.baseline)
        names = [first.name if wide else short(first), self.candidate.name if wide else short(self.candidate)]
        self.show_crumbs([f"{names[1]} against {names[0]}" if self.gate else f"{names[0]} → {names[1]}"])

    def _note(self) -> None:
        note = self.query_one("#note", Bar)
        if self.said.has_focus:
            s = self.said.current
            note.show([] if s is None else [(one_line(s.more, 500), "muted")])
            return
        row = self.look.current
        if row is None:
            note.show([])
        elif row.address:
            note.show([(f"agentgym view {one_line(row.address, 300)}", "muted")])
        else:
            note.show([("Enter shows it in both runs, side by side", "muted")])

    # -- keys ---------------------------------------------------------------------------------------------------------

    def action_other(self) -> None:
        """Between the two lists."""
        (self.look if self.said.has_focus else self.said).focus()
        self.call_after_refresh(self._note)

    def action_verdict(self) -> None:
        """As a gate, or as two runs."""
        if self.found is not None and self.found.pairs:
            self.gate = not self.gate
            self._show()

    def action_all(self) -> None:
        """All tasks, or those that differ."""
        self._everything = not self._everything
        self._show()

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """Says more about the line under the cursor."""
        self._note()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Opens what is under the cursor below; above there is nothing to open."""
        if message.view is self.look:
            self.action_open()

    def action_open(self) -> None:
        """Opens the step, or the task in both runs."""
        row = self.look.current
        first = self.first
        if row is None or self.said.has_focus:
            return
        if row.address:
            self.post_message(self.Chosen(row.address))
        elif first is not None:
            self.post_message(self.Pair(first, self.candidate, row.task))

    def action_copy(self) -> None:
        """Copies the address of the step, or of the task in the run in question."""
        if (row := self.look.current) is not None:
            self.viewer.copy_address(row.address or f"{self.candidate}::{row.task}")


def share(k: int, n: int) -> str:
    """``3/96 (0.6-8.9 %)``: a share with its exact 95 % interval."""
    if not n:
        return "0/0"
    low, high = clopper_pearson(k, n)
    return f"{k:,}/{n:,} ({100 * low:.0f}-{100 * high:.0f} %)"


def run_lines(v: Verdict) -> list[Said]:
    """The comparisons of two runs: what decides first, then families, what variants do, and the rest; without a verdict."""
    measured = [m for m in v.metrics if m.kind != "report"]
    reported = [m for m in v.metrics if m.kind == "report"]
    results = [*measured, *v.families, *(t for t in v.twins if t.diff is not None), *reported]
    return [_run_line(r) for r in results]


def _run_line(r: MetricResult) -> Said:
    word, style = "? unclear", "muted"
    if r.diff is None:
        word = "· none"
    elif r.diff == 0 and r.low == r.high == 0:
        word = "= same"
    elif r.low is not None and r.high is not None and not r.low <= 0 <= r.high and r.clusters >= FEW:
        if r.contrast:  # that a variant does more than it did is neither good nor bad by itself
            word, style = ("▲ higher" if r.low > 0 else "▼ lower"), "strong"
        else:
            better = (r.low > 0) == (r.direction == "higher")
            word, style = ("↑ better", "good") if better else ("↓ worse", "bad")
    text = f"{metric_name(r.metric)} {number(r.baseline)} -> {number(r.candidate)}"
    if r.diff is not None:
        text += f"  {number(r.diff, signed=True)}"
    if r.low is not None and r.high is not None and r.clusters >= FEW:
        text += f" [{number(r.low, signed=True)}, {number(r.high, signed=True)}]"
    more = f"{100 * r.confidence:.3g} % interval; {counts(r)}" + (f"; {r.reason}" if r.reason else "")
    return Said(word, style, _where(r), f"{text}   {counts(r)}", f"{text}: {more}", _bar(r))


def _where(r: MetricResult) -> str:
    """The suite, a family, or a contrast; that a contrast is over the whole suite goes without saying."""
    return r.contrast if r.contrast and not r.family else where(r)


def _bar(r: MetricResult) -> str:
    """The difference with its interval, of numbers that are shares."""
    if r.diff is None or abs(r.diff) > 1:
        return ""
    known = r.clusters >= FEW
    return difference_bar(r.diff, r.low if known else None, r.high if known else None, BAR)


def gate_lines(v: Verdict) -> list[Said]:
    """The verdict as ``agentgym gate`` prints it, and all families besides those that it leaves out because they pass."""
    shown = [
        *(m for m in v.metrics if m.kind != "report"),
        *v.twins,
        *v.families,
        *(m for m in v.metrics if m.kind == "report"),
    ]
    lines = [Said(shown_outcome(word), STYLES.get(word, ""), "", text, text) for word, text in problems(v)]
    for r in shown:
        more = sentence(r) + (f"; {r.reason}" if r.reason else "")
        lines.append(Said(shown_outcome(r.outcome), STYLES.get(r.outcome, "muted"), _where(r), sentence(r), more, _bar(r)))
    return lines + [Said("note", "muted", "", text, text) for text in remarks(v)]


def steps(v: Verdict) -> list[Look]:
    """The steps to look at: violations, then the worst flips."""
    return [_step(f) for f in v.flagged]


def _step(f: Flagged) -> Look:
    mark = (f"{VIOLATION} {f.level}", "flag" if f.level == "error" else "warn")
    place = f.address.partition("::")[2] or f.address
    known = "  (before, too)" if f.known else ""
    return Look(
        mark, place, (f"{f.rule}{known}" if f.rule in f.text else f"{f.rule}: {f.text}{known}", "muted"), f.address, f.task
    )


def pair_line(p: TaskPair) -> Look:
    """A task in both runs."""
    text = f"gold {short_number(p.first)} → {short_number(p.second)}"
    if any(p.broken):
        text += f"   {VIOLATION} {p.broken[0]}/{p.trials[0]} → {p.broken[1]}/{p.trials[1]}"
    return Look(MARKS[p.change], p.task, (text, "" if p.change != "same" else "muted"), "", p.task)
