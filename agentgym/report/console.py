# SPDX-License-Identifier: Apache-2.0
"""Summaries and trajectories as terminal text: for people at a terminal and for plain logs alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from agentgym.chat import ImagePart, Message, ReasoningPart
from agentgym.errors import redact
from agentgym.records.run import Episode, Run
from agentgym.report import calls
from agentgym.report.screen import GAP, Lines, on_screen
from agentgym.report.summary import Row, Summary
from agentgym.report.text import duration, fraction, one_line, plain
from agentgym.trajectory import ModelCall, Trajectory, Turn

BAR = 16
"""Cells of a progress bar."""

_NARROW_BAR = 8
"""Its cells where a line would not fit the screen otherwise."""


def bar(done: int, planned: int, cells: int = BAR) -> Text:
    """``████████░░░░░░░░ 4/8``."""
    full = cells * done // planned if planned else 0
    return Text.assemble(("█" * full, "cyan"), ("░" * (cells - full), "dim"), f" {done:,}/{planned:,}")


def heading(title: str, model: str, tasks: int, trials: Iterable[int]) -> Lines:
    """``quickstart · local:smollm2 · 6 tasks x 4 trials``."""
    k = sorted(set(trials))
    times = f" x {k[0]} trial{'s' * (k[0] > 1)}" if len(k) == 1 else f" x {k[0]}-{k[-1]} trials" if k else ""
    text = f" · {one_line(redact(model))} · {tasks:,} task{'s' * (tasks != 1)}{times}"
    lines = Lines()
    lines.add(Text.assemble((one_line(title), "bold"), text))
    return lines


def _number(value: float) -> str:
    return fraction(value) if 0 <= value <= 1 else f"{value:.2f}"


def _gold(row: Row) -> Text:
    return Text.assemble("gold ", (row.gold.text(), "bold")) if row.gold.n else Text("gold -", "dim")


def _notes(row: Row) -> list[Text]:
    """What was measured besides gold, and what was wrong."""
    parts: list[Text] = []
    same = row.reward.n == row.gold.n and row.reward.mean == row.gold.mean
    if row.reward.n and not same:
        parts.append(Text(f"reward {_number(row.reward.mean)}"))
    for m in row.metrics:
        text = f"{m.successes}/{m.n}" if m.successes is not None else _number(m.mean) if m.n else "-"
        lost = f" ({m.unscorable} unscorable)" if m.unscorable else ""
        parts.append(Text(f"{one_line(m.name, 40)} {text}{lost}"))
    parts += [Text(f"{one_line(r.dimension, 40)}: {r.text()}", "red" if r.violated else "") for r in row.rules]
    if row.truncated:
        parts.append(Text(f"truncated {row.truncated}", "yellow"))
    if row.gold.unscorable or row.reward.unscorable:
        parts.append(Text(f"unscorable {max(row.gold.unscorable, row.reward.unscorable)}", "yellow"))
    if row.skipped:
        parts.append(Text(f"skipped {row.skipped} (no reply kept)", "yellow"))
    if row.cancelled:
        parts.append(Text(f"cancelled {row.cancelled} (not scored)", "yellow"))
    if row.infrastructure:
        parts.append(Text(f"infrastructure {row.infrastructure} (not scored)", "yellow"))
    return parts


class SummaryTable:
    """One line a family: how far, gold with its interval, then what else was measured.

    Notes that do not fit the screen go below their line, whole.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        room = options.max_width if on_screen(screen) else None
        labels = [Text(" " + one_line(row.label, 60)) for row in self.rows]
        golds = [_gold(row) for row in self.rows]
        notes = [_notes(row) for row in self.rows]
        longest = max((_length(n) for n in notes), default=0)
        for cells in (BAR, _NARROW_BAR):
            bars = [bar(row.done, row.planned, cells) for row in self.rows]
            columns = [labels, bars, golds]
            widths = [max((t.cell_len for t in column), default=0) + GAP for column in columns]
            if room is None or sum(widths) + longest <= room:
                break
        for parts, *texts in zip(notes, *columns, strict=True):
            line = Text(no_wrap=True, overflow="ignore")
            for text, width in zip(texts, widths, strict=True):
                line.append_text(text).append(" " * (width - text.cell_len))
            inline = room is None or line.cell_len + _length(parts) <= room
            if inline:
                line.append_text(Text(" " * GAP).join(parts))
            line.rstrip()
            yield line
            if not inline:
                yield from _flow(parts, widths[0], room or 0)


def _length(notes: list[Text]) -> int:
    """Cells that the notes take on one line."""
    return sum(n.cell_len + GAP for n in notes) - GAP if notes else 0


def _flow(notes: list[Text], indent: int, room: int) -> Iterable[Text]:
    """The notes on as few lines as they need, none of them broken."""
    line = Text()
    for note in notes:
        if line and indent + line.cell_len + GAP + note.cell_len > room:
            yield Text.assemble(" " * indent, line, no_wrap=True, overflow="ignore")
            line = Text()
        line = Text.assemble(line, " " * GAP, note) if line else note
    if line:
        yield Text.assemble(" " * indent, line, no_wrap=True, overflow="ignore")


def scores_line(run: Run) -> str:
    """Whose scores are shown, where they are not the run's own: safe to print."""
    meta = run.scores_meta
    covered, ended = meta.get("episodes", 0), len(run.ids("outcome NOT IN ('infrastructure', 'cancelled')"))
    lack = "" if covered >= ended else f"; {ended - covered:,} later episodes are not in it and have no score"
    given = ", ".join(map(str, meta.get("evaluators", ())))
    return one_line(f"scores {run.scores_name!r}, given later by {given}{lack}", 400)


_UNFINISHED = {
    "interrupted": "stopped early",
    "running": "still running",
    "killed": "killed; --resume plays the rest",
    "failed": "ended by an error",
    "planned": "not begun",
}


class Closing:
    """The last lines of an eval: how much, how long, what went wrong, and where it is."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        s = self.summary
        episodes = f"{s.done:,}" if s.done >= s.planned else f"{s.done:,} of {s.planned:,}"
        parts = [Text(f"{episodes} episode{'s' * (s.planned != 1)}")]
        if s.wall_s:
            parts.append(Text(duration(s.wall_s)))
        if s.completion_tokens:
            parts.append(Text(f"{s.completion_tokens:,} tokens"))
        if s.cost_usd:
            parts.append(Text(f"${s.cost_usd:.4f}"))
        wrong = _wrong(s)
        parts.append(Text("; ".join(wrong), "yellow") if wrong else Text("nothing went wrong", "green"))
        line = Text(" · ").join(parts)
        path = Text(plain(s.path))
        lines = Lines()
        if not on_screen(screen) or line.cell_len + 2 * GAP + path.cell_len <= options.max_width:
            lines.add(Text.assemble(line, " " * 2 * GAP, path), whole=True)
        else:  # a path that is broken in the middle cannot be copied
            lines.add(line)
            lines.add(path, prefix="record:  ", whole=True)
        if s.stopped:
            lines.add(plain(s.stopped), "yellow", prefix="  ")
        for message, count in s.errors:
            if not s.stopped or message not in s.stopped:
                lines.add(one_line(message, 200), "yellow", prefix=Text(f"  {count:,} x ", "yellow"))
        yield lines


def _wrong(s: Summary) -> list[str]:
    """What went wrong in a run, in words."""
    wrong = []
    if s.infrastructure:
        wrong.append(f"{s.infrastructure:,} infrastructure outcome{'s' * (s.infrastructure != 1)}, not scored")
    if s.skipped:
        wrong.append(f"{s.skipped:,} skipped: no reply kept")
    if s.cancelled:
        wrong.append(f"{s.cancelled:,} cancelled, not scored")
    if s.unscorable:
        wrong.append(f"{s.unscorable:,} unscorable")
    if s.tool_exceptions:
        wrong.append(f"{s.tool_exceptions:,} with a tool that broke")
    if s.retried:
        wrong.append(f"{s.retried:,} failed attempt{'s' * (s.retried != 1)} retried")
    if s.done < s.planned:
        wrong.append(_UNFINISHED.get(s.status, f"{s.planned - s.done:,} not played"))
    return wrong


def print_summary(screen: Console, summary: Summary, *, head: bool = True) -> None:
    """Prints the whole summary of a run."""
    if head:
        screen.print(heading(summary.title, summary.model, summary.tasks, summary.trials))
    screen.print(SummaryTable(summary.rows))
    screen.print(Closing(summary))


_STYLE = {"system": "magenta", "user": "green", "assistant": "cyan", "tool": "yellow"}


def _add_message(lines: Lines, message: Message, index: str = "") -> None:
    """One message: role, words, reasoning, tool calls."""
    head = Text(f"{index}{message.role}", style=f"bold {_STYLE[message.role]}")
    if message.name:
        head.append(f" {one_line(message.name, 60)}", "not bold dim")
    lines.add(head)
    if isinstance(message.content, str):
        if message.content:
            lines.add(plain(message.content), prefix="  ")
    else:
        for p in message.content:
            if isinstance(p, ReasoningPart):
                lines.add(plain(f"(thinks) {p.text}"), "italic dim", prefix="  ")
            elif isinstance(p, ImagePart):
                lines.add(f"[image {one_line(p.mime, 60)}, {len(p.data):,} bytes]", "dim", prefix="  ")
            elif p.text:
                lines.add(plain(p.text), prefix="  ")
    for c in message.tool_calls:
        how = "" if c.origin == "native" else f"   (written as {one_line(c.origin, 20)})"
        lines.add(f"→ {one_line(c.name, 80)}({plain(c.arguments)}){how}", "bold", prefix="  ")


def _json(value: Any) -> str:
    return plain(msgspec.json.encode(value).decode())


def _add_turn(lines: Lines, turn: Turn) -> None:
    _add_message(lines, turn.message, f"@{turn.index} ")
    for m in turn.observation:
        _add_message(lines, m)
    for c in turn.changes:
        before = "" if c.operation == "add" else f" {one_line(_json(c.before), 60)}"
        after = "" if c.operation == "remove" else f" → {one_line(_json(c.after), 60)}"
        lines.add(f"state {c.operation} {one_line(c.path, 80)}{before}{after}", "blue", prefix="  ")
    for e in turn.events:
        lines.add(f"event {one_line(e.kind)} {one_line(e.resource)} {one_line(_json(e.data), 120)}", "red", prefix="  ")
    facts = []
    if turn.reward:
        facts.append(f"reward {turn.reward:g}")
    if turn.usage.completion_tokens:
        facts.append(f"{turn.usage.prompt_tokens:,} + {turn.usage.completion_tokens:,} tokens, {turn.latency_s:.2f} s")
    if turn.finish_reason not in ("stop", "tool_calls"):
        facts.append(f"finish: {one_line(turn.finish_reason, 40)}")
    if facts:
        lines.add(" · ".join(facts), "dim", prefix="  ")


def _add_calls(lines: Lines, asked: Iterable[ModelCall]) -> None:
    """What a program asked its model besides what it then did."""
    for call in asked:
        lines.add(f"» {calls.headline(call)}", "yellow" if call.void else "cyan")
        for message in (*call.new, call.message):
            _add_message(lines, message, "  ")


def render_turn(turn: Turn) -> Lines:
    """One turn: what the policy answered and all that it caused."""
    lines = Lines()
    _add_turn(lines, turn)
    return lines


def render_episode(episode: Episode, trajectory: Trajectory | None = None) -> Lines:
    """A whole episode: opening, turns, end, scores and findings."""
    trajectory = trajectory or episode.trajectory
    lines = Lines()
    lines.add(plain(episode.address), "bold", whole=True)
    for m in trajectory.opening:
        _add_message(lines, m)
    asked = calls.telling(trajectory)
    for t in trajectory.turns:
        _add_calls(lines, asked.get(t.index, ()))
        _add_turn(lines, t)
    count = len(trajectory.turns)
    _add_calls(lines, asked.get(count, ()))
    end = trajectory.outcome + (f" by limit: {one_line(trajectory.truncation, 40)}" if trajectory.truncation else "")
    lines.add(f"— {end} after {count} turn{'s' * (count != 1)}, {duration(trajectory.duration_s)}", "bold")
    if said := calls.summary(trajectory):
        lines.add(said, "dim", prefix="  ")
    if trajectory.error is not None:
        error = trajectory.error
        lines.add(f"{error.kind}: {plain(error.message)}", "red", prefix="  ")
        if error.detail:
            lines.add(plain(error.detail), "dim", prefix="  ")
    for s in episode.all_scores:
        value = "not scored" if s.value is None else f"{s.value:g}"
        bad = s.value is not None and s.value <= 0 and s.role != "metric"
        line = Text(f"{s.role:6} {one_line(s.name, 60)} {value}", "red" if bad else "")
        if s.status != "ok":
            line.append(f" ({s.status})", "yellow")
        if s.reason:
            line.append(f" {one_line(s.reason, 300)}")
        if s.evidence is not None:
            line.append(f" {one_line(_json(s.evidence), 200)}", "dim")
        lines.add(line, prefix="  ")
    for f in episode.findings:
        verdict = "violated" if f.violation else "kept" if f.exposure else "not exposed"
        at = "" if f.turn is None else f" @{f.turn}"
        rule = f"{one_line(f.dimension, 40)}/{one_line(f.rule, 60)}: {verdict}{at}"
        lines.add(rule, "red" if f.violation else "", prefix="  ")
    return lines
