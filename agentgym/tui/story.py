# SPDX-License-Identifier: Apache-2.0
"""Tells an episode: which turns want a look, the whole of it as one document, and its outcome on half a page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.chat import ImagePart, Message, ReasoningPart
from agentgym.errors import AgentGymError
from agentgym.records.run import Episode
from agentgym.report import calls
from agentgym.report.text import duration, one_line
from agentgym.scoring import Finding, Score
from agentgym.trajectory import ModelCall, Trajectory, Turn
from agentgym.tui.document import END, Block, Document, Prose, Rule
from agentgym.tui.evidence import SIGNS, STATE_FOLD, broken, change, compact, state
from agentgym.tui.marks import BAD, CANCELLED, GOOD, TROUBLE, UNKNOWN, VIOLATION, number, verdict
from agentgym.tui.picture import PictureBlock
from agentgym.tui.tree import Tree, indented
from agentgym.tui.widgets.paint import Line, Piece

if TYPE_CHECKING:
    from agentgym.records.labels import Note

FOLDS = {"system": 4, "user": 24, "assistant": 40, "tool": 12, "thinks": 8, "finding": 8, "event": 6}
"""Lines shown of a block of each kind before it is folded."""

_NOTICED = {"env": "event", "observer": "seen", "policy": "policy"}
"""Who noticed an event -> what it is called."""

KINDS = {"thinks": "reasoning", "calls": "calls", "results": "results", "says": "observations", "state": "state, events"}
"""What can be hidden (`Block.kind`) and what it is called."""


class TurnMark(NamedTuple):
    """One turn on the timeline."""

    sign: str
    style: str
    why: str
    """What makes it worth a look, for a person; empty for an ordinary turn."""


ORDINARY = TurnMark("·", "muted", "")


class Story:
    """One episode, read once.

    Raises:
        RecordError: its trajectory, scores or findings are damaged or missing.
    """

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.trajectory: Trajectory = episode.trajectory
        self.scores: list[Score] = episode.all_scores
        self.findings: list[Finding] = episode.findings
        self.marks = [self._mark(t) for t in self.trajectory.turns]

    @property
    def turns(self) -> int:
        """Turns on record."""
        return len(self.trajectory.turns)

    def violations(self, turn: int | None) -> list[Finding]:
        """Broken rules that point at this turn, or at none or one that is not there (None)."""
        found = [f for f in self.findings if f.violation]
        if turn is None:
            return [f for f in found if f.turn is None or not 0 <= f.turn < self.turns]
        return [f for f in found if f.turn == turn]

    @property
    def end_flagged(self) -> str:
        """Why the end is worth a look: what broke, or rules broken by the episode as a whole; else empty."""
        if self.trajectory.error is not None:
            return f"{self.trajectory.error.kind} error"
        whole = self.violations(None)
        return f"{whole[0].dimension}/{whole[0].rule} violated" if whole else ""

    @property
    def flagged(self) -> list[int]:
        """Turns worth a look, in order; `END` last where the end is."""
        turns = [i for i, m in enumerate(self.marks) if m.why]
        return [*turns, END] if self.end_flagged else turns

    def flagged_by(self, dimension: str) -> list[int]:
        """Turns in which a rule of a dimension was broken, in order; `END` last where the episode as a whole did."""
        found = {f.turn for f in self.findings if f.violation and f.dimension == dimension}
        turns = [i for i in range(self.turns) if i in found]
        return turns if len(turns) == len(found) else [*turns, END]

    def _mark(self, turn: Turn) -> TurnMark:
        rules = self.violations(turn.index)
        if rules:
            return TurnMark(VIOLATION, "flag", f"{rules[0].dimension}/{rules[0].rule} violated")
        noticed = [e for e in turn.events if e.source == "env"]
        if noticed:
            return TurnMark(TROUBLE, "warn", noticed[0].kind)
        wrong = [r for r in turn.results if r.status != "ok"]
        if wrong:
            return TurnMark(BAD, "bad", f"{wrong[0].name}: {wrong[0].status.replace('_', ' ')}")
        if turn.finish_reason in ("length", "abort", "error"):
            return TurnMark(TROUBLE, "warn", f"answer ended by {turn.finish_reason}")
        return TurnMark("+", "good", "") if turn.reward > 0 else TurnMark("-", "bad", "") if turn.reward < 0 else ORDINARY

    # -- the whole of it ----------------------------------------------------------------------------------------------

    def document(self, *, pretty: bool = False, raw: bool = False) -> Document:
        """Opening, turns, end.

        Args:
            pretty: JSON of calls and results as trees.
            raw: what people and models say as it was written, not as Markdown.
        """
        blocks: list[Block] = []
        notes = self.notes()
        asked = calls.telling(self.trajectory)
        for m in self.trajectory.opening:
            blocks += _message(m, -1, pretty)
        for turn in self.trajectory.turns:
            head, *rest = self._turn(turn, pretty)
            blocks += [head, *(b for c in asked.get(turn.index, ()) for b in _call(c, turn.index, pretty)), *rest]
            blocks += _notes(notes.pop(turn.index, ()), turn.index)
        head, *rest = self._end()
        blocks += [head, *(b for c in asked.get(self.turns, ()) for b in _call(c, END, pretty)), *rest]
        for left in notes.values():  # on the episode as a whole
            blocks += _notes(left, END)
        if raw:
            for b in blocks:
                if isinstance(b, Prose):
                    b.show_raw(True)
        return Document(blocks)

    def notes(self) -> dict[int | None, list[Note]]:
        """What people wrote while they labelled, by turn (None: the whole); empty where nobody did, or it cannot be read."""
        found: dict[int | None, list[Note]] = {}
        path = self.episode.run_path
        if (path / "labels.sqlite").is_file():
            from agentgym.records.labels import Labels  # only for those who have labelled

            with contextlib.suppress(AgentGymError), contextlib.closing(Labels(path)) as labels:
                for note in labels.notes(episode=self.episode.id):
                    found.setdefault(note.turn, []).append(note)
        return found

    def _turn(self, turn: Turn, pretty: bool) -> Iterable[Block]:
        mark = self.marks[turn.index]
        facts: Line = []
        if mark.why:
            facts.append((f"{mark.sign} {one_line(mark.why, 44)}", mark.style))
        if turn.reward:
            facts += [("  " if facts else "", ""), (f"reward {turn.reward:+g}", "good" if turn.reward > 0 else "bad")]
        if turn.usage.completion_tokens:
            text = f"{turn.usage.prompt_tokens:,}+{turn.usage.completion_tokens:,} tokens"
            facts += [("  " if facts else "", ""), (text, "muted")]
        if turn.latency_s >= 0.05:
            facts += [("  " if facts else "", ""), (duration(turn.latency_s), "muted")]
        who = f" {one_line(turn.agent, 20)}" if turn.agent else ""
        yield Rule((f"turn {turn.index}{who}", "strong"), facts, turn=turn.index)
        yield from _message(turn.message, turn.index, pretty)
        results = {r.call_id: r for r in turn.results}
        for m in turn.observation:
            result = results.get(m.tool_call_id or "") if m.role == "tool" else None
            if result is None:
                yield from _message(m, turn.index, pretty)
                continue
            ok = result.status == "ok"
            label: Piece = (f"{GOOD if ok else BAD} {result.name}", "tool" if ok else "bad")
            text = m.text if ok or result.status == "tool_error" else f"{result.status.replace('_', ' ')}: {m.text}"
            yield _data(label, "", text, "", pretty=pretty, turn=turn.index, fold=FOLDS["tool"], alert=not ok, kind="results")
        for c in turn.changes:
            label = (f"{SIGNS[c.operation]} state", "state")
            yield Block(label, change(c), turn=turn.index, fold=STATE_FOLD, kind="state")
        for e in turn.events:
            text = f"{e.kind} {e.resource} {'' if e.data is None else compact(e.data)}"
            label = (f"{TROUBLE} {_NOTICED[e.source]}", "warn")
            alert = e.source == "env"
            yield Block(label, text.strip(), turn=turn.index, fold=FOLDS["event"], alert=alert, kind="state")
        for f in self.violations(turn.index):
            yield from _finding(f, turn.index)

    def _end(self) -> Iterable[Block]:
        t = self.trajectory
        how = t.outcome + (f" by limit: {t.truncation}" if t.truncation else "")
        facts: Line = [(f"{how} after {self.turns} turn{'s' * (self.turns != 1)}, {duration(t.duration_s)}", "muted")]
        yield Rule(("end", "strong"), facts, turn=END)
        if t.error is not None:
            text = f"{t.error.kind}: {t.error.message}"
            cancelled = t.outcome == "cancelled"
            name = CANCELLED.sign if cancelled else f"{TROUBLE} error"
            yield Block((name, "warn"), text, "warn", turn=END, fold=24, alert=True)
            if t.error.detail:
                yield Block(("where", "muted"), t.error.detail, "muted", turn=END, fold=6)
            why = "it was not played to its end" if cancelled else "infrastructure failed, the agent is not to blame"
            yield Block(("", ""), f"Not scored: {why}.", "muted", turn=END)
        if said := calls.summary(t):
            yield Block(("calls", "muted"), said, "muted", turn=END, fold=2)
        for s in self.scores:
            yield score_block(s)
            if s.evidence is not None:
                yield Block(("", ""), compact(s.evidence), "muted", turn=END, fold=3)
        whole = self.violations(None)
        for f in self.findings:
            if f in whole:
                yield from _finding(f, END)
            else:
                yield finding_line(f)

    # -- half a page --------------------------------------------------------------------------------------------------

    def overview(self, turn: int | None = None) -> Document:
        """The rules broken in a turn (None: by the whole), what the episode came to, the state's changes up to that turn."""
        e, t = self.episode, self.trajectory
        mark = verdict(e.outcome, e.gold)
        how = t.outcome + (f" by limit: {t.truncation}" if t.truncation else "")
        blocks: list[Block] = [
            *broken(self.violations(turn), t.turns[turn] if turn is not None and turn >= 0 else None),
            Rule((f"{mark}", mark.style), [(how, "muted")], turn=-1),
            Block(("gold", "muted"), number(e.gold), "strong", turn=-1),
            Block(("reward", "muted"), number(e.reward), "strong", turn=-1),
            Block(("turns", "muted"), f"{e.turns}   in {duration(e.duration_s)}", turn=-1),
        ]
        if e.completion_tokens:
            blocks.append(Block(("tokens", "muted"), f"{e.prompt_tokens:,} + {e.completion_tokens:,}", turn=-1))
        if e.cost_usd:
            blocks.append(Block(("cost", "muted"), f"${e.cost_usd:.4f}", turn=-1))
        if e.tags:
            blocks.append(Block(("tags", "muted"), " ".join(e.tags), turn=-1))
        if t.error is not None:
            text = f"{t.error.kind}: {t.error.message}"
            blocks.append(Block((f"{TROUBLE} error", "warn"), text, "warn", turn=-1, fold=12))
        if self.scores:
            blocks.append(Rule(("scores", "strong"), [], turn=-1))
            blocks += [score_block(s) for s in self.scores]
        if self.findings:
            blocks.append(Rule(("findings", "strong"), [], turn=-1))
            blocks += [finding_line(f) for f in self.findings]
        blocks += state(t, turn)
        return Document(blocks)


def _data(label: Piece, before: str, text: str, after: str, style: str = "", *, pretty: bool, **options: Any) -> Block:
    """What may be JSON, with something around it: a tree, where that is wanted and it is, else as it was written."""
    lines = indented(text) if pretty else None
    if lines is None or "\n" not in lines:
        return Block(label, f"{before}{text}{after}", style, **options)
    return Tree(label, before, lines, after, style, **options)


def _message(message: Message, turn: int, pretty: bool) -> Iterable[Block]:
    """A message: reasoning, words, images, calls; the label stands at the first of them."""
    role = message.role
    label: Piece = (message.name or role, role)
    content = message.content
    parts = content if not isinstance(content, str) else ()
    fold = FOLDS[role]
    kind = "" if role in ("assistant", "system") or turn < 0 else "results" if role == "tool" else "says"
    kept: dict[str, Any] = {"turn": turn, "fold": fold, "kind": kind}
    if isinstance(content, str) and (content or not message.tool_calls):
        if not content:
            yield Block(label, "(nothing)", "muted", **kept)
        elif role == "tool":
            yield _data(label, "", content, "", pretty=pretty, **kept)
        else:
            yield Prose(label, content, **kept)
        label = ("", "")
    for p in parts:
        if isinstance(p, ReasoningPart):
            yield Prose(("thinks", "thinks"), p.text, "thinks", turn=turn, fold=FOLDS["thinks"], kind="thinks")
        elif isinstance(p, ImagePart):
            yield PictureBlock(label, p.mime, p.data, turn=turn, kind=kind)
            label = ("", "")
        elif p.text:
            yield Prose(label, p.text, **kept)
            label = ("", "")
    for c in message.tool_calls:
        how = "" if c.origin == "native" else f"   (written as {c.origin})"
        options: dict[str, Any] = {"turn": turn, "fold": FOLDS["tool"], "kind": "calls"}
        yield _data(label, f"→ {c.name}(", c.arguments, f"){how}", "strong", pretty=pretty, **options)
        label = ("", "")


def _call(call: ModelCall, turn: int, pretty: bool) -> Iterable[Block]:
    """A call that a program made of its model, where the turn does not tell it: who asked what, and the answer."""
    yield Block(("» call", "accent"), calls.headline(call), "warn" if call.void else "", turn=turn, fold=2, kind="calls")
    for message in (*call.new, call.message):
        for b in _message(message, turn, pretty):
            b.label = (f"  {b.label[0]}" if b.label[0] else "", b.label[1])
            b.kind = "calls"
            yield b


def _notes(notes: Iterable[Note], turn: int) -> Iterable[Block]:
    """What people noted at this turn."""
    for n in notes:
        yield Block(("✎ note", "accent"), f"{n.annotator}: {n.text}", turn=turn, fold=6)


def score_block(s: Score) -> Block:
    """One score: role, value, name, and why."""
    if s.value is None:
        sign, name = UNKNOWN, "warn"
    elif s.role == "metric":
        sign, name = " ", "muted"
    else:
        sign, name = (GOOD, "good") if s.value >= 1 else (BAD, "bad") if s.value <= 0 else ("~", "warn")
    text = f"{number(s.value):<4} {s.name}"
    if s.status != "ok":
        text += f" ({s.status})"
    if s.reason:
        text += f": {s.reason}"
    return Block((f"{sign} {s.role}", name), text, turn=END, fold=6)


def finding_line(f: Finding) -> Block:
    """One finding, without its evidence."""
    if f.violation:
        at = "" if f.turn is None else f" at turn {f.turn}"
        return Block((f"{VIOLATION} rule", "flag"), f"{f.dimension}/{f.rule} violated{at}", "flag", turn=END, fold=4)
    label: Piece = (f"{GOOD} rule", "good") if f.exposure else ("  rule", "muted")
    text = f"{f.dimension}/{f.rule} {'kept' if f.exposure else 'not exposed'}"
    return Block(label, text, "" if f.exposure else "muted", turn=END, fold=4)


def _finding(f: Finding, turn: int) -> Iterable[Block]:
    """A broken rule where it was broken, with its evidence."""
    text = f"{f.dimension}/{f.rule} violated" + (f"   (weight {number(f.weight)})" if f.weight != 1 else "")
    yield Block((f"{VIOLATION} rule", "flag"), text, "flag", turn=turn, fold=4, alert=True)
    if f.evidence is not None:
        yield Block(("evidence", "muted"), compact(f.evidence), turn=turn, fold=FOLDS["finding"])
