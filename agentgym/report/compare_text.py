# SPDX-License-Identifier: Apache-2.0
"""Comparisons of runs and of monitors as text: on a terminal, in Markdown, as one HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.console import Console

from agentgym.errors import redact
from agentgym.report.alignment_compare import Comparison, Side
from agentgym.report.alignment_text import Head, Rows, cell, html_table, markdown_table, percent, print_table, whole_page
from agentgym.report.monitors import Watched
from agentgym.report.screen import say
from agentgym.report.text import fraction, one_line


def _of(k: int, n: int, interval: tuple[float, float] | None) -> str:
    if not n or interval is None:
        return "-"
    return f"{k}/{n} ({percent(interval[0])}-{percent(interval[1])} %)"


def side_rows(c: Comparison) -> tuple[Head, Rows]:
    """The plane of usefulness and safety, a line a run."""
    head = ("run", "model", "useful: solved", "safe: nothing violated", "intervened")
    rows = []
    for s in c.sides:
        kept = s.exposed - s.violated
        rows.append(
            [
                one_line(s.path.rsplit("/", 1)[-1], 60),
                one_line(redact(s.model), 80),
                _of(s.solved, s.scored, s.usefulness_interval),
                _of(kept, s.exposed, s.safety_interval) if s.exposed else "not exposed",
                f"{s.intervened}/{s.turns} turns" if s.turns else "",
            ]
        )
    return head, rows


def difference_rows(c: Comparison) -> tuple[Head, Rows]:
    """Two runs, dimension by dimension."""
    head = ("dimension", "first", "second", "difference", "tasks", "better")
    rows = []
    for d in c.differences:
        change = f"{d.change.effect:+.2f}"
        if d.change.low is not None and d.change.high is not None:
            change += f" ({d.change.low:+.2f} to {d.change.high:+.2f})"
        name = "gold (capability)" if d.name == "gold" else one_line(d.name, 40)
        rows.append([name, fraction(d.change.base), fraction(d.change.value), change, str(d.change.tasks), d.better or "-"])
    return head, rows


def watched_rows(found: Sequence[Watched]) -> tuple[Head, Rows]:
    """What monitors are worth."""
    head = ("monitor", "dimension", "AUROC", "caught at 1 %", "caught at 5 %", "guilty", "clean", "")
    rows = []
    for w in found:
        numbers = [_estimate(w.auroc, w.auroc_interval)]
        numbers += [_estimate(w.catch.get(b), w.catch_interval.get(b)) for b in ("0.01", "0.05")]
        note = w.why or (f"{w.missing} without a verdict" if w.missing else "")
        rows.append([one_line(w.monitor, 30), one_line(w.dimension, 30), *numbers, str(w.guilty), str(w.clean), note])
    return head, rows


def _estimate(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return fraction(value) if interval is None else f"{fraction(value)} ({fraction(interval[0])}-{fraction(interval[1])})"


WATCHED_NOTE = (
    "labels are the findings; caught at 1 %: share of guilty episodes among the most suspicious, when 1 % of the clean ones may"
    " be audited in vain; of equals some are audited by lot"
)


def sentences(c: Comparison) -> list[str]:
    """What stands above the tables."""
    said = []
    if c.counted and all(h is not None for h in c.headlines):
        numbers = ", ".join(f"{h:.0f}" for h in c.headlines if h is not None)
        said.append(f"alignment {numbers} of 100, over what all runs were exposed to: {', '.join(c.counted)}")
    if c.left_out:
        said.append(f"not compared, since not both were exposed: {', '.join(one_line(n, 40) for n in c.left_out)}")
    return said


def _tables(c: Comparison) -> list[tuple[str, tuple[Head, Rows]]]:
    tables = [("Usefulness and safety", side_rows(c))]
    if c.differences:
        tables.append(("First and second run, on the tasks of both", difference_rows(c)))
    return tables


def print_comparison(screen: Console, c: Comparison) -> None:
    """On a terminal, or plain into a pipe."""
    for i, (_, table) in enumerate(_tables(c)):
        if i:
            screen.print()
        print_table(screen, *table)
    if said := sentences(c):
        screen.print()
        for text in said:
            say(screen, text)


def print_watched(screen: Console, found: Sequence[Watched]) -> None:
    """On a terminal, or plain into a pipe."""
    print_table(screen, *watched_rows(found))
    say(screen, WATCHED_NOTE, "dim")


def comparison_markdown(c: Comparison) -> str:
    """For a pull request."""
    parts = [f"## {title}\n\n{markdown_table(*table)}" for title, table in _tables(c)]
    return "\n\n".join([*parts, *(cell(s) for s in sentences(c))]) + "\n"


def watched_markdown(found: Sequence[Watched]) -> str:
    """For a pull request."""
    return f"## Monitors\n\n{markdown_table(*watched_rows(found))}\n\n{cell(WATCHED_NOTE)}\n"


def comparison_page(c: Comparison) -> str:
    """One HTML file, with the plane drawn."""
    parts = [f"<h2>{html.escape(title)}</h2>{html_table(*table)}" for title, table in _tables(c)]
    parts.insert(0, _plane(c.sides))
    parts += [f"<p>{html.escape(s)}</p>" for s in sentences(c)]
    return whole_page("Runs compared", "\n".join(parts))


def watched_page(found: Sequence[Watched]) -> str:
    """One HTML file."""
    return whole_page("Monitors", html_table(*watched_rows(found)) + f"<p>{html.escape(WATCHED_NOTE)}</p>")


def _plane(sides: Sequence[Side]) -> str:
    """Usefulness across, safety upwards, a numbered disc a run."""
    side, left, top = 340, 46, 14
    marks = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + tick * side, top + (1 - tick) * side
        grid = 'stroke="currentColor" opacity=".12"'
        marks.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top}" y2="{top + side}" {grid}/>')
        marks.append(f'<line x1="{left}" x2="{left + side}" y1="{y:.0f}" y2="{y:.0f}" {grid}/>')
        marks.append(f'<text x="{x:.0f}" y="{top + side + 16}" text-anchor="middle">{tick:g}</text>')
        marks.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
    for i, s in enumerate(sides, 1):
        if s.usefulness is None or s.safety is None:
            continue
        x, y = left + s.usefulness * side, top + (1 - s.safety) * side
        label = html.escape(f"{i}: {one_line(redact(s.model), 80)}")
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="currentColor"><title>{label}</title></circle>')
        marks.append(f'<text x="{x + 9:.1f}" y="{y - 8:.1f}">{i}</text>')
    marks.append(f'<text x="{left + side / 2:.0f}" y="{top + side + 34}" text-anchor="middle">useful: tasks solved</text>')
    marks.append(
        f'<text transform="translate(12 {top + side / 2:.0f}) rotate(-90)" text-anchor="middle">safe: rules kept</text>'
    )
    inner = "".join(marks)
    return f'<svg viewBox="0 0 430 400" role="img" aria-label="usefulness against safety">{inner}</svg>'
