# SPDX-License-Identifier: Apache-2.0
"""A verdict in words, for a terminal and for Markdown: both are made of the same sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from agentgym.gate.rows import VIOLATIONS
from agentgym.gate.verdict import MetricResult, Verdict
from agentgym.report.screen import Lines
from agentgym.report.text import one_line, plain

STYLES = {
    "regression": "bold red", "invariant": "bold red", "fail": "red", "coverage": "bold yellow", "incompatible": "bold yellow",
    "inconclusive": "yellow", "warn": "yellow", "tolerated": "yellow", "pass": "green", "skipped": "dim", "report": "dim",
}  # fmt: skip
_LOOK = 3
"""Steps to look at that a terminal is shown."""


def shown_outcome(outcome: str) -> str:
    """Loud where something is wrong, quiet where nothing is."""
    return outcome if outcome in ("pass", "report", "tolerated") else outcome.upper()


def number(value: float | None, *, signed: bool = False) -> str:
    """A score or difference: two digits, three where it is small.

    >>> number(0.825), number(-0.004, signed=True), number(None), number(0.0, signed=True)
    ('0.82', '-0.004', '-', '0.00')
    """
    if value is None:
        return "-"
    digits = 2 if value == 0 or abs(value) >= 0.01 else 3
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return f"+{text}" if signed and value > 0 else text


def where(result: MetricResult) -> str:
    """What a comparison is about: the suite, a family, or a contrast of twins."""
    place = result.family or "all"
    return f"{place} {result.contrast}" if result.contrast else place


def metric_name(name: str) -> str:
    """``policy violations`` for ``violations:policy``."""
    return f"{name.removeprefix(VIOLATIONS)} violations" if name.startswith(VIOLATIONS) else name


def sentence(result: MetricResult) -> str:
    """``gold 0.82 -> 0.61  (-0.21, 95 % [-0.29, -0.13], margin 0.10)   24 clusters, 96 tasks, 4 trials``."""
    head = f"{metric_name(result.metric)} {number(result.baseline)} -> {number(result.candidate)}"
    parts = [number(result.diff, signed=True)] if result.diff is not None else []
    if result.low is not None and result.high is not None:
        interval = f"[{number(result.low, signed=True)}, {number(result.high, signed=True)}]"
        parts.append(f"{100 * result.confidence:.3g} % {interval}")
    if result.kind == "measured":
        parts.append(f"margin {number(result.margin)}")
    if result.outcome == "inconclusive" and result.mde is not None:
        parts.append(f"smallest drop it would find: {number(result.mde)}")
    text = f"{head}  ({', '.join(parts)})" if parts else head
    return f"{text}   {counts(result)}"


def counts(result: MetricResult) -> str:
    """``24 clusters, 96 tasks, 4 trials``."""
    parts = ((result.clusters, "cluster"), (result.tasks, "task"), (result.trials, "trial"))
    return ", ".join(f"{n:,} {word}{'s' * (n != 1)}" for n, word in parts if n)


def decided(verdict: Verdict) -> Iterator[MetricResult]:
    """The comparisons that a reader needs: what decides, and of families those that are not simply fine."""
    yield from (m for m in verdict.metrics if m.kind != "report")
    yield from verdict.twins
    yield from (f for f in verdict.families if f.outcome not in ("pass", "report"))
    yield from (m for m in verdict.metrics if m.kind == "report")


def flips_line(verdict: Verdict) -> str:
    """``flips: 12 harmful, 3 beneficial of 96 tasks (churn 16 %)``; empty where nothing was compared."""
    f = verdict.flips
    if not f.tasks:
        return ""
    return f"flips: {f.harmful} harmful, {f.beneficial} beneficial of {f.tasks:,} tasks (churn {f.churn:.0%})"


def cost_line(verdict: Verdict) -> str:
    """What both arms used; empty where nobody said."""
    c = verdict.cost
    if not c.tokens and not c.cost_usd:
        return ""
    money = f", ${c.cost_usd:.2f} (${c.baseline_cost_usd:.2f})" if c.cost_usd or c.baseline_cost_usd else ""
    return f"cost (baseline): {c.tokens:,} ({c.baseline_tokens:,}) tokens{money}"


def problems(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """(word, sentence) of the checks that a reader must know of besides the comparisons themselves."""
    for check in verdict.checks:
        if check.outcome != "pass" and check.name not in ("measured", "family", "twin"):
            yield check.outcome, check.text


def remarks(verdict: Verdict) -> list[str]:
    """Warnings that no check tells already."""
    told = {text for _, text in problems(verdict)}
    return [text for text in verdict.warnings if text not in told]


def print_verdict(screen: Console, verdict: Verdict) -> None:
    """Prints a verdict."""
    lines = Lines()
    rows = list(decided(verdict))
    wide = max((len(where(r)) for r in rows), default=0)
    for r in rows:
        prefix = Lines.cells(
            ("", 0, ""), (shown_outcome(r.outcome), 12, STYLES.get(r.outcome, "")), (plain(where(r)), wide, "")
        )
        lines.add(plain(sentence(r)), prefix=prefix)
        if r.reason and r.outcome not in ("pass", "report"):
            lines.add(plain(r.reason), "dim", prefix=" " * prefix.cell_len)
    for word, text in problems(verdict):
        lines.add(plain(text), prefix=Lines.cells(("", 0, ""), (shown_outcome(word), 12, STYLES.get(word, ""))))
    for text in (flips_line(verdict), cost_line(verdict)):
        if text:
            lines.add(text, "dim", prefix="  ")
    for text in remarks(verdict):
        lines.add(plain(text), "yellow", prefix="  note: ")
    for flag in verdict.flagged[:_LOOK]:
        if "::" in flag.address:
            lines.add(plain(f"agentgym view {flag.address}"), prefix="  look:  ", whole=True)
        else:
            lines.add(plain(flag.address), prefix="  look:  ", whole=True)
        lines.add(one_line(f"{flag.rule}: {flag.text}", 200), "dim", prefix=" " * 9)
    screen.print(lines)
    screen.print(Text(f"{shown_outcome(verdict.outcome)}: exit {verdict.exit_code}", STYLES.get(verdict.outcome, "")))


def markdown(verdict: Verdict) -> str:
    """A verdict as GitHub-flavoured Markdown: verdict, table, flips, steps to look at, remarks, cost."""
    mark = {"pass": "✅", "tolerated": "⚠️", "inconclusive": "❔"}.get(verdict.outcome, "❌")
    out = [f"## {mark} agentgym gate: {_md(verdict.summary)}", ""]
    rows = [*decided(verdict), *(f for f in verdict.families if f.outcome == "pass")]
    if rows:
        out += [
            "| | where | metric | baseline | candidate | Δ | interval | margin | smallest drop found | n |",
            "|---|---|---|---:|---:|---:|---|---:|---:|---|",
        ]
        for r in rows:
            interval = ""
            if r.low is not None and r.high is not None:
                interval = f"[{number(r.low, signed=True)}, {number(r.high, signed=True)}] {_bar(r)}"
            cells = (
                shown_outcome(r.outcome), where(r), metric_name(r.metric), number(r.baseline), number(r.candidate),
                number(r.diff, signed=True), interval, number(r.margin) if r.kind == "measured" else "",
                number(r.mde), counts(r),
            )  # fmt: skip
            out.append(f"| {' | '.join(map(_md, cells))} |")
        out.append("")
    notes = [f"**{shown_outcome(w)}** {_md(t)}" for w, t in problems(verdict)]
    notes += [f"{_md(where(r))}, {_md(metric_name(r.metric))}: {_md(r.reason)}" for r in decided(verdict) if r.reason]
    notes += [_md(t) for t in remarks(verdict)]
    out += [f"- {n}" for n in notes]
    out += [""] if notes else []
    if verdict.flips.tasks:
        out += [flips_line(verdict), ""]
        if verdict.flips.worst:
            out += ["<details><summary>harmful flips</summary>", ""]
            out += [f"- {_code(f.task)} {number(f.baseline)} → {number(f.candidate)}" for f in verdict.flips.worst]
            out += ["", "</details>", ""]
    if verdict.flagged:
        out += ["### Look at", ""]
        for flag in verdict.flagged[:10]:
            known = " (in the baseline, too)" if flag.known else ""
            command = f"agentgym view {flag.address}" if "::" in flag.address else flag.address
            out.append(f"- {_code(command)} {_md(f'{flag.rule}: {flag.text}')}{known}")
        out.append("")
    arms = f"baseline {_code(verdict.baseline.name)}, candidate {_code(verdict.candidate.name)}"
    out += [" · ".join(filter(None, [arms, cost_line(verdict), f"exit {verdict.exit_code}"])), ""]
    return "\n".join(out)


_ACTIVE = re.compile(r"[\\`*_\[\]<>|@#!&~]")


def _md(text: str) -> str:
    """Text that neither breaks a table nor becomes HTML, a link, a mention or an image."""
    return _ACTIVE.sub(lambda m: m[0] if _harmless(m) else f"&#{ord(m[0])};", one_line(text, 500))


def _harmless(match: re.Match[str]) -> bool:
    """An underscore inside of a word, which means nothing to GitHub's Markdown."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return match[0] == "_" and before.isalnum() and after.isalnum()


def _code(text: str) -> str:
    """Text between back ticks, without any of its own."""
    return f"`{one_line(text, 500).replace('`', chr(39)).replace('|', '¦')}`"


_CELLS = 11


def _bar(result: MetricResult) -> str:
    """The interval on a line from -2 margins to +2 margins; ``|`` is no change, ``!`` the margin."""
    margin = result.margin
    if result.kind != "measured" or not margin or result.low is None or result.high is None:
        return ""

    def cell(value: float) -> int:
        return min(max(round((value / (4 * margin) + 0.5) * (_CELLS - 1)), 0), _CELLS - 1)

    line = ["·"] * _CELLS
    for i in range(cell(result.low), cell(result.high) + 1):
        line[i] = "━"
    edge = -margin if result.direction == "higher" else margin
    line[cell(edge)] = "╂" if line[cell(edge)] == "━" else "╎"
    line[cell(0.0)] = "┿" if line[cell(0.0)] == "━" else "│"
    return "".join(line)
