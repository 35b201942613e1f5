# SPDX-License-Identifier: Apache-2.0
"""A run's alignment for people: on a screen, as Markdown, and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from agentgym.errors import redact
from agentgym.report.alignment import ENOUGH, HARD, Alignment, Dimension, Twin
from agentgym.report.alignment_over import Statistic
from agentgym.report.conflict import Conflict
from agentgym.report.screen import Column, Table, say
from agentgym.report.text import fraction, one_line, plain

Head = Sequence[str]
Rows = list[list[str]]


def percent(value: float) -> str:
    """A share as a bound is printed: never rounded to what would be a promise.

    >>> percent(0.0495), percent(0.262), percent(0.0001), percent(0.9999)
    ('5.0', '26', '0.1', '99.9')
    """
    value = min(max(100 * value, 0.1), 99.9) if 0 < value < 1 else 100 * value
    return f"{value:.1f}" if value < 9.95 or 99 < value < 100 else f"{value:.0f}"


def rate_text(d: Dimension) -> str:
    """``2/7 (3.7-71 %)``, ``0/59 (≤ 5.0 %)``, ``not exposed``."""
    if not d.exposed:
        return "not exposed"
    if not d.activations:
        return ""  # nothing was judged by acts: its score is made over twins
    text = f"{d.violated}/{d.exposed}"
    if d.low is None or d.high is None:
        return text
    if not d.violated:
        return f"{text} (≤ {percent(d.high)} %)"
    if d.violated == d.exposed:
        return f"{text} (≥ {percent(d.low)} %)"
    return f"{text} ({percent(d.low)}-{percent(d.high)} %)"


def _note(d: Dimension) -> str:
    said = [d.why if d.exposed or d.incapable else ""]
    if d.missing and d.bounds is not None:
        said.append(f"{d.missing} missing: {percent(d.bounds[0])}-{percent(d.bounds[1])} %")
    if d.incapable and d.exposed:
        said.append(f"{d.incapable} left out: not capable")
    if d.not_notified:
        said.append(f"{d.not_notified} before the rule was shown")
    if d.formula and d.score is not None:
        said.append(d.formula if d.in_headline else f"{d.formula}, not in the headline")
    return "; ".join(x for x in said if x)


def dimension_rows(a: Alignment) -> tuple[Head, Rows]:
    """The table of dimensions as text, the worst first."""
    head = ("dimension", "score", "violated", "exposed of planned", "acts judged", "")
    rows = []
    for d in a.dimensions:
        score = fraction(d.score) if d.score is not None else "N/A"
        acts = f"{d.breaches}/{d.activations}" if d.activations else ""
        rows.append([one_line(d.name, 40), score, rate_text(d), f"{d.exposed}/{d.planned}", acts, _note(d)])
    return head, rows


def _number(s: Statistic) -> str:
    if s.value is None:
        return "N/A"
    text = f"{s.value:+.2f}" if s.low is not None and s.low < 0 else f"{s.value:.2f}"
    if s.low is None or s.high is None:
        return text
    sign = "+" if text[0] in "+-" else ""
    return f"{text} ({s.low:{sign}.2f} to {s.high:{sign}.2f})"


def statistic_rows(a: Alignment) -> tuple[Head, Rows]:
    """What is said over twins and over the run, as text."""
    head = ("over twins and the run", "", "value", "", "")
    return head, [
        [s.dimension, one_line(s.name, 60), _number(s), f"{s.n} {s.unit}", one_line(s.note, 120)] for s in a.statistics
    ]


def _effect(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:+.2f}"
    return text if low is None or high is None else f"{text} ({low:+.2f} to {high:+.2f})"


def _share(value: float | None) -> str:
    return "-" if value is None else fraction(value)


def _differs(t: Twin) -> bool:
    """Whether a twin is worth a line where lines are dear: somebody gave in, or it changes what is solved."""
    certain = t.low is not None and t.high is not None and not t.low <= 0 <= t.high
    return bool(t.violated or t.violated_control or certain or t.capable.startswith("0/"))


def twin_rows(twins: Sequence[Twin]) -> tuple[Head, Rows]:
    """What each variant does against its control, as text."""
    head = ("family", "variant", "tasks", "violated", "temptation effect", "gold", "effect on gold", "")
    rows = []
    for t in twins:
        violated = f"{t.violated}/{t.exposed}" if t.exposed else "not exposed"
        if t.violated_control:
            violated += f" (control {t.violated_control})"
        c = t.temptation
        gold = "-" if t.gold is None else f"{_share(t.gold)} (control {_share(t.gold_control)})"
        rows.append(
            [
                one_line(t.family, 40),
                t.variant,
                str(t.tasks),
                violated,
                "-" if c is None else _effect(c.effect, c.low, c.high),
                gold,
                _effect(t.effect, t.low, t.high),
                f"capable {t.capable}" if t.capable else "",
            ]
        )
    return head, rows


def conflict_rows(c: Conflict) -> tuple[Head, Rows]:
    """The matrix of conflicts, a star where another dimension suffers beyond chance."""
    head = ("chosen by", *[one_line(n, 20) for n in c.names], "tasks")
    rows = []
    for i, name in enumerate(c.names):
        cells = ["·" if v is None else f"{v:+.2f}{'*' if c.worse[i][j] else ''}" for j, v in enumerate(c.change[i])]
        rows.append([one_line(name, 20), *cells, str(c.groups[i])])
    return head, rows


def headline_text(a: Alignment) -> str:
    """The one number, or why there is none."""
    if a.headline is None:
        return f"no headline: {a.why_no_headline}"
    text = f"alignment {a.headline:.0f} of 100"
    if a.headline_interval is not None:
        text += f" ({a.headline_interval[0]:.0f}-{a.headline_interval[1]:.0f})"
    counted = sum(d.score is not None and d.in_headline for d in a.dimensions)
    text += f", geometric mean of {counted} dimension{'s' if counted != 1 else ''}"
    if a.unscored:
        text += f"; it does not speak of {', '.join(one_line(n, 40) for n in a.unscored)}"
    if a.headline_bounds is not None:
        text += f"; {a.headline_bounds[0]:.0f}-{a.headline_bounds[1]:.0f} whatever the missing episodes were"
    return text


def sentences(a: Alignment) -> list[str]:
    """What stands above the tables."""
    said = [f"capability: gold {a.capability.text()} on control tasks" if a.capability.n else "capability: nothing was scored"]
    if a.random_gold is not None:
        said[0] += f"; at random {a.random_gold:.2f}"
    said.append(headline_text(a))
    if a.worst is not None:
        said.append(f"worst dimension: {one_line(a.worst, 40)}")
    said.append(f"hard violations (weight {HARD:.0f} and above): {a.hard}")
    if a.infrastructure:
        said.append(
            f"{a.infrastructure} of {a.episodes} episodes were spoiled by infrastructure: not scored, and bounded below"
        )
    return said


CONFLICT_NOTE = (
    "of each task's trials, those that are best in the row's dimension, against all: mean change in the column's; "
    "* loses beyond chance (a reconstruction of Hummer's measure, by selection)"
)


def print_alignment(screen: Console, a: Alignment) -> None:
    """On a terminal, or plain into a pipe."""
    screen.print(Text.assemble((one_line(a.title), "bold"), f" · {one_line(redact(a.model))} · {a.episodes:,} episodes"))
    for text in sentences(a):
        say(screen, text)
    if a.dimensions:
        screen.print()
        print_table(screen, *dimension_rows(a))
    if a.statistics:
        screen.print()
        print_table(screen, *statistic_rows(a))
    if a.twins:
        screen.print()
        shown = [t for t in a.twins if _differs(t)]
        if shown:
            print_table(screen, *twin_rows(shown))
        if same := len(a.twins) - len(shown):
            more = "twins of a variant are" if same > 1 else "twin of a variant is"
            say(
                screen,
                f"{same} {'more ' if shown else ''}{more} like control, as far as can be told; --markdown and --html list all",
            )
    if a.conflict is not None and any(any(row) for row in a.conflict.worse):
        screen.print()
        print_table(screen, *conflict_rows(a.conflict))
        say(screen, CONFLICT_NOTE, "dim")
    if a.flags:
        screen.print()
        say(screen, f"violations, the heaviest first ({len(a.flags)} of {a.flagged:,}):")
        for f in a.flags:
            line = f"{plain(f.address)}  {one_line(f.dimension, 40)}: {one_line(f.rule, 80)}"
            screen.print(Text(" " + line), soft_wrap=True)
        screen.print(Text(f"see one:  agentgym view {plain(a.flags[0].address)}"), soft_wrap=True)


def print_table(screen: Console, head: Head, rows: Rows) -> None:
    """A table on a terminal, fitted to it, or plain into a pipe."""
    last = len(head) - 1
    table = Table([Column(h, drop=i if i > 2 else 0, least=12 if i in (0, last) else 0) for i, h in enumerate(head)])
    for row in rows:
        table.add(*row)
    screen.print(table)


# -- files ------------------------------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """Text as Markdown shows it, whatever is in it."""
    return plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`").replace("*", "\\*")


def markdown_table(head: Head, rows: Rows) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(h or ' ' for h in head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell(c) for c in row)} |" for row in rows]
    return "\n".join(lines)


def markdown(a: Alignment) -> str:
    """For a pull request or a step summary."""
    parts = [f"## Alignment of {cell(one_line(a.title))} · {cell(one_line(redact(a.model)))}"]
    parts.append("\n".join(f"- {cell(s)}" for s in sentences(a)))
    if a.dimensions:
        parts.append(markdown_table(*dimension_rows(a)))
    if a.statistics:
        parts.append(markdown_table(*statistic_rows(a)))
    if a.twins:
        parts.append(markdown_table(*twin_rows(a.twins)))
    if a.conflict is not None:
        parts += [markdown_table(*conflict_rows(a.conflict)), cell(CONFLICT_NOTE)]
    if a.flags:
        lines = [f"- `{one_line(f.address, 300)}` {cell(f.dimension)}: {cell(one_line(f.rule))}" for f in a.flags]
        parts.append(f"{len(a.flags)} of {a.flagged} violations:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .75rem; text-align: left;
border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); } code { font-size: .9em; word-break: break-all; }
svg { max-width: 34rem; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
"""


def page(a: Alignment) -> str:
    """One HTML file, without scripts and without anything to load."""
    e = html.escape
    parts = [f"<h1>{e(one_line(a.title))} · {e(one_line(redact(a.model)))}</h1>"]
    parts.append("<ul>" + "".join(f"<li>{e(s)}</li>" for s in sentences(a)) + "</ul>")
    if a.points:
        parts.append("<h2>Capability and alignment</h2>" + _plot(a))
    if a.dimensions:
        parts.append("<h2>Dimensions</h2>" + html_table(*dimension_rows(a)))
        parts.append(f"<p>Below {ENOUGH} exposed episodes there is no score. Intervals are 95 %.</p>")
    if a.statistics:
        parts.append("<h2>Over twins and the run</h2>" + html_table(*statistic_rows(a)))
    if a.twins:
        parts.append("<h2>Twins</h2>" + html_table(*twin_rows(a.twins)))
    if a.conflict is not None:
        parts.append("<h2>Conflict</h2>" + _heat_map(a.conflict) + f"<p>{e(CONFLICT_NOTE)}</p>")
    if a.flags:
        rows = []
        for f in a.flags:
            evidence = "" if f.evidence is None else one_line(json.dumps(f.evidence, ensure_ascii=True), 400)
            rows.append([one_line(f.address, 300), one_line(f.dimension, 60), one_line(f.rule, 200), evidence])
        parts.append(
            f"<h2>Violations ({len(a.flags)} of {a.flagged})</h2>" + html_table(("address", "dimension", "rule", ""), rows)
        )
    return whole_page(f"Alignment of {one_line(a.title)}", "\n".join(parts))


def whole_page(title: str, body: str) -> str:
    """An HTML document around ``body`` that may load nothing and run nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def html_table(head: Head, rows: Rows) -> str:
    """A table in HTML."""
    e = html.escape
    top = "".join(f"<th>{e(h)}</th>" for h in head)
    return (
        f"<table><tr>{top}</tr>"
        + "".join(f"<tr>{''.join(f'<td>{e(plain(c))}</td>' for c in row)}</tr>" for row in rows)
        + "</table>"
    )


def _heat_map(c: Conflict) -> str:
    """The matrix of conflicts, losses and gains in two colours beside their numbers."""
    head, rows = conflict_rows(c)
    e = html.escape
    lines = ["".join(f"<th>{e(h)}</th>" for h in head)]
    for i, row in enumerate(rows):
        cells = [f"<th>{e(plain(row[0]))}</th>"]
        for j, text in enumerate(row[1:-1]):
            change = c.change[i][j] or 0.0
            shade = min(100, round(abs(change) * 120))
            colour = "#d9534f" if change < 0 else "#4a90d9"
            style = "" if i == j or not shade else f' style="background:color-mix(in srgb,{colour} {shade}%,transparent)"'
            cells.append(f"<td{style}>{e(plain(text))}</td>")
        cells.append(f"<td>{e(row[-1])}</td>")
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


MOST_LABELS = 16
"""Points beyond which a plot's labels cannot be read any more."""


def _plot(a: Alignment) -> str:
    """Gold across, share of kept rules upwards; a line from each control twin to its variants."""
    e = html.escape
    width, height, left, top, side = 520, 400, 46, 14, 340

    def x(gold: float) -> float:
        return left + gold * side

    def y(kept: float) -> float:
        return top + (1 - kept) * side

    marks = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks.append(
            f'<line x1="{x(tick):.0f}" x2="{x(tick):.0f}" y1="{y(0):.0f}" y2="{y(1):.0f}" stroke="currentColor" opacity=".12"/>'
        )
        marks.append(
            f'<line x1="{x(0):.0f}" x2="{x(1):.0f}" y1="{y(tick):.0f}" y2="{y(tick):.0f}" stroke="currentColor" opacity=".12"/>'
        )
        marks.append(f'<text x="{x(tick):.0f}" y="{y(0) + 16:.0f}" text-anchor="middle">{tick:g}</text>')
        marks.append(f'<text x="{x(0) - 8:.0f}" y="{y(tick) + 4:.0f}" text-anchor="end">{tick:g}</text>')
    control = {p.family: p for p in a.points if p.variant == "control"}
    for p in a.points:
        base = control.get(p.family)
        if base is not None and base is not p:
            marks.append(
                f'<line x1="{x(base.gold):.1f}" y1="{y(base.kept):.1f}" x2="{x(p.gold):.1f}" y2="{y(p.kept):.1f}" '
                'stroke="currentColor" opacity=".5"/>'
            )
        # a ring and a disc, so that twins are told apart without colours
        fill = "none" if p.variant == "control" else "currentColor"
        label = e(f"{p.family} {p.variant}: gold {p.gold:.2f}, kept {p.kept:.2f} of {p.exposed}")
        marks.append(
            f'<circle cx="{x(p.gold):.1f}" cy="{y(p.kept):.1f}" r="5" fill="{fill}" stroke="currentColor">'
            f"<title>{label}</title></circle>"
        )
        if len(a.points) > MOST_LABELS:
            continue  # they would lie on each other; the pointer shows them
        anchor = "end" if p.gold > 0.6 else "start"
        shift = -9 if anchor == "end" else 9
        marks.append(
            f'<text x="{x(p.gold) + shift:.1f}" y="{y(p.kept) - 8:.1f}" text-anchor="{anchor}">{e(one_line(p.family, 30))}'
            f" {e(one_line(p.variant, 16))}</text>"
        )
    marks.append(f'<text x="{x(0.5):.0f}" y="{height - 8}" text-anchor="middle">capability: gold</text>')
    marks.append(f'<text transform="translate(12 {y(0.5):.0f}) rotate(-90)" text-anchor="middle">alignment: rules kept</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="capability against alignment">{"".join(marks)}</svg>'
