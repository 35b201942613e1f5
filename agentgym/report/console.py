# SPDX-License-Identifier: Apache-2.0
"""Summaries and trajectories as terminal text: for people at a terminal and for plain logs alike."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from agentgym.chat import ImagePart, Message, ReasoningPart
from agentgym.records.run import Episode
from agentgym.report.summary import Row, Summary
from agentgym.report.text import duration, fraction, one_line, plain
from agentgym.trajectory import Trajectory, Turn

BAR = 16
"""Cells of a progress bar."""


def console(*, stderr: bool = False) -> Console:
    """A console that colours only terminals, honours ``NO_COLOR``, and never wraps what goes into a file or a pipe."""
    c = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not c.is_terminal and "COLUMNS" not in os.environ:
        c.width = 160
    return c


def bar(done: int, planned: int) -> Text:
    """``████████░░░░░░░░ 4/8``."""
    full = BAR * done // planned if planned else 0
    return Text.assemble(("█" * full, "cyan"), ("░" * (BAR - full), "dim"), f" {done}/{planned}")


def heading(title: str, model: str, tasks: int, trials: Iterable[int]) -> Text:
    """``quickstart · local:smollm2 · 6 tasks x 4 trials``."""
    k = sorted(set(trials))
    times = f" x {k[0]} trial{'s' * (k[0] > 1)}" if len(k) == 1 else f" x {k[0]}-{k[-1]} trials" if k else ""
    text = f" · {one_line(model)} · {tasks:,} task{'s' * (tasks != 1)}{times}"
    return Text.assemble((one_line(title), "bold"), text)


def _notes(row: Row) -> Text:
    parts: list[Text] = []
    same = row.reward.n == row.gold.n and row.reward.mean == row.gold.mean
    if row.reward.n and not same:
        parts.append(
            Text(f"reward {fraction(row.reward.mean)}" if 0 <= row.reward.mean <= 1 else f"reward {row.reward.mean:.2f}")
        )
    for m in row.metrics:
        text = f"{m.successes}/{m.n}" if m.successes is not None else f"{m.mean:.2f}" if m.n else "-"
        parts.append(Text(f"{one_line(m.name, 40)} {text}"))
    for r in row.rules:
        parts.append(Text(f"{one_line(r.dimension, 40)}: {r.text()}", "red" if r.violated else ""))
    if row.truncated:
        parts.append(Text(f"truncated {row.truncated}", "yellow"))
    if row.gold.unscorable or row.reward.unscorable:
        parts.append(Text(f"unscorable {max(row.gold.unscorable, row.reward.unscorable)}", "yellow"))
    if row.infrastructure:
        parts.append(Text(f"infrastructure {row.infrastructure} (not scored)", "yellow"))
    return Text("   ").join(parts)


def summary_table(rows: Iterable[Row]) -> Table:
    """One line a family: how far, gold with its interval, then what else was measured."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        gold = Text.assemble("gold ", (row.gold.text(), "bold")) if row.gold.n else Text("gold -", "dim")
        table.add_row(Text(" " + one_line(row.label, 60)), bar(row.done, row.planned), gold, _notes(row))
    return table


def closing(summary: Summary) -> Text:
    """The last lines of an eval: how much, how long, and what went wrong."""
    amounts = [f"{summary.done:,} episode{'s' * (summary.done != 1)}", duration(summary.wall_s)]
    if summary.completion_tokens:
        amounts.append(f"{summary.completion_tokens:,} tokens")
    if summary.cost_usd:
        amounts.append(f"${summary.cost_usd:.4f}")
    wrong = []
    if summary.infrastructure:
        wrong.append(f"{summary.infrastructure:,} infrastructure outcomes, not scored")
    if summary.unscorable:
        wrong.append(f"{summary.unscorable:,} unscorable")
    if summary.tool_exceptions:
        wrong.append(f"{summary.tool_exceptions:,} with a tool that broke")
    if summary.retried:
        wrong.append(f"{summary.retried:,} failed attempts retried")
    if summary.done < summary.planned:
        wrong.append(f"{summary.planned - summary.done:,} of {summary.planned:,} not played")
    text = Text(" · ".join(amounts) + " · ")
    text.append("; ".join(wrong) if wrong else "nothing went wrong", "yellow" if wrong else "green")
    text.append(f"   {summary.path}")
    for message, count in summary.errors:
        text.append(f"\n  {count:,} x {one_line(message or '', 200)}", "yellow")
    return text


def render_summary(summary: Summary) -> Group:
    """The whole summary of a run."""
    return Group(
        heading(summary.title, summary.model, summary.tasks, summary.trials), summary_table(summary.rows), closing(summary)
    )


_STYLE = {"system": "magenta", "user": "green", "assistant": "cyan", "tool": "yellow"}


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in plain(text).split("\n"))


def render_message(message: Message, index: str = "") -> Text:
    """One message: role, words, reasoning, tool calls."""
    text = Text(f"{index}{message.role}", style=f"bold {_STYLE[message.role]}")
    if message.name:
        text.append(f" {one_line(message.name, 60)}", "dim")
    if isinstance(message.content, str):
        if message.content:
            text.append("\n" + _indent(message.content), "none")
    else:
        for p in message.content:
            if isinstance(p, ReasoningPart):
                text.append("\n" + _indent(f"(thinks) {p.text}"), "italic dim")
            elif isinstance(p, ImagePart):
                text.append(f"\n  [image {plain(p.mime)}, {len(p.data):,} bytes]", "dim")
            elif p.text:
                text.append("\n" + _indent(p.text), "none")
    for c in message.tool_calls:
        how = "" if c.origin == "native" else f"   (written as {plain(c.origin)})"
        text.append(f"\n  → {one_line(c.name, 80)}({plain(c.arguments)}){how}", "bold")
    return text


def _json(value: Any) -> str:
    return plain(msgspec.json.encode(value).decode())


def render_turn(turn: Turn) -> Text:
    """One turn: what the policy answered and all that it caused."""
    text = render_message(turn.message, f"@{turn.index} ")
    for m in turn.observation:
        text.append("\n").append_text(render_message(m))
    for c in turn.changes:
        before = "" if c.operation == "add" else f" {one_line(_json(c.before), 60)}"
        after = "" if c.operation == "remove" else f" → {one_line(_json(c.after), 60)}"
        text.append(f"\n  state {c.operation} {one_line(c.path, 80)}{before}{after}", "blue")
    for e in turn.events:
        text.append(f"\n  event {one_line(e.kind)} {one_line(e.resource)} {one_line(_json(e.data), 120)}", "red")
    facts = []
    if turn.reward:
        facts.append(f"reward {turn.reward:g}")
    if turn.usage.completion_tokens:
        facts.append(f"{turn.usage.prompt_tokens:,} + {turn.usage.completion_tokens:,} tokens, {turn.latency_s:.2f} s")
    if turn.finish_reason not in ("stop", "tool_calls"):
        facts.append(f"finish: {turn.finish_reason}")
    if facts:
        text.append("\n  " + " · ".join(facts), "dim")
    return text


def render_episode(episode: Episode, trajectory: Trajectory | None = None) -> Group:
    """A whole episode: opening, turns, end, scores and findings."""
    trajectory = trajectory or episode.trajectory
    parts: list[Text] = [Text(one_line(episode.address, 300), "bold")]
    parts += [render_message(m) for m in trajectory.opening]
    parts += [render_turn(t) for t in trajectory.turns]
    end = trajectory.outcome + (f" by limit: {trajectory.truncation}" if trajectory.truncation else "")
    parts.append(Text(f"— {end} after {len(trajectory.turns)} turns, {duration(trajectory.duration_s)}", "bold"))
    if trajectory.error is not None:
        parts.append(
            Text(f"  {trajectory.error.kind}: {plain(trajectory.error.message)} [{plain(trajectory.error.detail)}]", "red")
        )
    for s in episode.all_scores:
        value = "not scored" if s.value is None else f"{s.value:g}"
        line = Text(
            f"  {s.role:6} {one_line(s.name, 60)} {value}",
            "" if s.value is None or s.value > 0 or s.role == "metric" else "red",
        )
        if s.status != "ok":
            line.append(f" ({s.status})", "yellow")
        if s.reason:
            line.append(f" {one_line(s.reason, 300)}")
        if s.evidence is not None:
            line.append(f" {one_line(_json(s.evidence), 200)}", "dim")
        parts.append(line)
    for f in episode.findings:
        verdict = "violated" if f.violation else "kept" if f.exposure else "not exposed"
        at = "" if f.turn is None else f" @{f.turn}"
        parts.append(Text(f"  {one_line(f.dimension, 40)}/{one_line(f.rule, 60)}: {verdict}{at}", "red" if f.violation else ""))
    return Group(*parts)
