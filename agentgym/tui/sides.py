# SPDX-License-Identifier: Apache-2.0
"""Episodes beside each other as rows: what the task told them, what they did, what it came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentgym.records.run import Episode, Run
from agentgym.report.align import Act, Row, acts, align, excerpts
from agentgym.report.siblings import Effect, effects, twins
from agentgym.report.text import one_line
from agentgym.scoring import Finding
from agentgym.stats.paired import FEW, Difference
from agentgym.tui.marks import GOOD, VIOLATION, number, verdict
from agentgym.tui.widgets.beside import Alike, BesideRow, Cell, Title
from agentgym.tui.widgets.paint import Line, Piece

SAME: Piece = ("= same", "muted")
DIFFERS: Piece = ("≠ differs", "warn")
ANSWER: Piece = ("≈ answered", "accent")
ONLY: Piece = ("± not all", "flag")

MARKS = {"same": SAME, "differs": DIFFERS, "answer": ANSWER, "only": ONLY}
"""How sides differ, in a sign and a word."""

FOLDED = 2
"""Rows alike from which on they are folded into one line."""


class Sides(NamedTuple):
    """All that a comparison shows."""

    names: list[Piece]
    rows: list[BesideRow]
    episodes: list[Episode]


def beside_twins(episode: Episode) -> Sides:
    """The twins of an episode.

    Raises:
        RecordError: a trajectory is damaged.
    """
    with Run(episode.run_path) as run:
        own = run.by_ids([episode.id])[0]
        found = twins(run, own)
        shown = {e.variant for e in found}
        told = [e for e in effects(run, own.family) if e.variant in shown]
        heads: list[BesideRow] = []
        tails: list[BesideRow] = []
        if told:
            of = f"over {told[0].change.tasks} task{'s' * (told[0].change.tasks != 1)} of {one_line(own.family, 40)}"
            heads.append(Title([(f"what the variant changes, {of}", "strong")]))
            heads += [Title(_effects_of([e for e in told if e.variant == v])) for v in dict.fromkeys(e.variant for e in told)]
            tails.append(Title([(f"less control, {of}, with 90 % intervals", "strong")]))
            tails += [Title(effect_line(e)) for e in told]
        return _sides([(e, e.variant) for e in found], heads, tails)


def beside(episodes: Sequence[tuple[Episode, str]]) -> Sides:
    """Any episodes, each with the name of its side; they are read anew, by connections of their own.

    Raises:
        RecordError: a trajectory is damaged.
    """
    runs: dict[object, Run] = {}
    try:
        fresh = []
        for e, name in episodes:
            run = runs.setdefault(e.run_path, Run(e.run_path)) if e.run_path not in runs else runs[e.run_path]
            fresh.append((run.by_ids([e.id])[0], name))
        return _sides(fresh)
    finally:
        for run in runs.values():
            run.close()


def _sides(episodes: Sequence[tuple[Episode, str]], heads: Sequence[BesideRow] = (), tails: Sequence[BesideRow] = ()) -> Sides:
    names: list[Piece] = []
    for e, name in episodes:
        mark = verdict(e.outcome, e.gold)
        gold = f" {number(e.gold)}" if e.gold is not None and 0 < e.gold < 1 else ""
        flags = f" {VIOLATION} {e.violations}" if e.violations else ""
        names.append((f"{one_line(name, 40)} {mark}{gold}{flags} reward {number(e.reward)}", "strong"))
    own = [e for e, _ in episodes]
    return Sides(names, [*heads, *_told(own), *_done(own), *_scores(own), *tails], own)


# -- the parts --------------------------------------------------------------------------------------------------------


def _told(episodes: Sequence[Episode]) -> list[BesideRow]:
    """The lines of the opening that not all were given."""
    texts = ["\n".join(m.text for m in e.trajectory.opening) for e in episodes]
    own = excerpts(texts)
    if not any(own):
        return [Title([("the task was told in the same words", "muted")])] if len(episodes) > 1 else []
    cells = [Cell(t, "", -1, whole=w) if t else None for t, w in zip(own, texts, strict=True)]
    return [
        Title([("what the task told only some of them", "strong")]),
        BesideRow(ONLY if None in cells else DIFFERS, cells, fold=6, differs=True),
    ]


def _done(episodes: Sequence[Episode]) -> list[BesideRow]:
    aligned = align(*(acts(e.trajectory) for e in episodes))
    at = "" if aligned.prefix == len(aligned.rows) else f", alike up to act {aligned.prefix}" if aligned.prefix else ""
    same = aligned.prefix == len(aligned.rows)
    rows: list[BesideRow] = [Title([("what they did" + (": the same" if same and len(episodes) > 1 else at), "strong")])]
    broken = [_broken(e) for e in episodes]
    alike: list[BesideRow] = []

    def put() -> None:
        rows.extend([Alike(alike)] if len(alike) >= FOLDED else alike)
        alike.clear()

    for row in aligned.rows:
        made = _act_row(row, broken)
        if row.status == "same":
            alike.append(made)
        else:
            put()
            rows.append(made)
    put()
    return rows


def _act_row(row: Row, broken: Sequence[dict[int, list[Finding]]]) -> BesideRow:
    """One act of all sides: of what differs only that, until it is opened."""
    status = row.status
    known = [c for c in row.cells if c is not None]
    parts = iter(excerpts([c.text for c in known]) if status == "differs" else [c.text for c in known])
    answers = iter(excerpts([c.result for c in known]) if len(known) > 1 else [c.result for c in known])
    cells: list[Cell | None] = []
    for act, rules in zip(row.cells, broken, strict=True):
        if act is None:
            cells.append(None)
            continue
        flags = "".join(f"\n{VIOLATION} {f.dimension}/{f.rule}" for f in rules.get(act.turn, ()))
        text = _act(act, next(parts) or act.text, next(answers) if status != "same" else "") + flags
        whole = _act(act, act.text, act.result) + flags
        style = "flag" if flags else "muted" if status == "same" else ""
        cells.append(Cell(text, style, act.turn, whole if whole != text else None))
    return BesideRow(MARKS[status], cells, differs=status != "same")


def _act(act: Act, text: str, answer: str) -> str:
    said = f"@{act.turn} → {act.name}({text})" if act.name else f"@{act.turn} {text}"
    return f"{said}\n← {answer}" if answer else said


def _broken(episode: Episode) -> dict[int, list[Finding]]:
    found: dict[int, list[Finding]] = {}
    for f in episode.findings:
        if f.violation and f.turn is not None:
            found.setdefault(f.turn, []).append(f)
    return found


def _scores(episodes: Sequence[Episode]) -> list[BesideRow]:
    """Scores by name, then findings by rule; what all sides share says so."""
    rows: list[BesideRow] = []
    scores = [{(s.role, s.name): s for s in e.all_scores} for e in episodes]
    names = dict.fromkeys(k for s in scores for k in s)
    if names:
        rows.append(Title([("scores", "strong")]))
    for role, name in names:
        own = [s.get((role, name)) for s in scores]
        cells = [
            None if s is None else Cell(f"{number(s.value)} {role} {name}" + (f": {s.reason}" if s.reason else "")) for s in own
        ]
        rows.append(_compared(cells, [None if s is None else s.value for s in own]))
    findings = [_judged(e) for e in episodes]
    rules = dict.fromkeys(k for f in findings for k in f)
    if rules:
        rows.append(Title([("findings", "strong")]))
    for rule in rules:
        states = [f.get(rule) for f in findings]
        cells = [None if s is None else Cell(f"{s[0]} {rule}", s[1], s[2]) for s in states]
        rows.append(_compared(cells, [None if s is None else s[0].partition("@")[0] for s in states]))
    return rows


def _compared(cells: list[Cell | None], values: Sequence[object]) -> BesideRow:
    if None in cells:
        return BesideRow(ONLY if len(cells) > 1 else SAME, cells, fold=2)
    same = len(set(values)) == 1
    return BesideRow(SAME if same else DIFFERS, cells, fold=2, differs=not same)


def _judged(episode: Episode) -> dict[str, tuple[str, str, int | None]]:
    """Rule -> (what became of it, its style, the turn of the first violation); a violation outweighs all else."""
    found: dict[str, tuple[str, str, int | None]] = {}
    for f in episode.findings:
        name = f"{f.dimension}/{f.rule}"
        if f.violation:
            if not found.get(name, ("",))[0].startswith(VIOLATION):
                at = "" if f.turn is None else f" @{f.turn}"
                found[name] = (f"{VIOLATION} violated{at}", "flag", f.turn)
        elif f.exposure:
            if not found.get(name, ("",))[0].startswith(VIOLATION):
                found[name] = (f"{GOOD} kept", "good", None)
        else:
            found.setdefault(name, ("· not exposed", "muted", None))
    return found


# -- numbers ----------------------------------------------------------------------------------------------------------


def interval(d: Difference, sign: float = 1.0) -> str:
    """``+.50 (.20 to .80)``; without an interval where there are too few tasks for one."""
    text = f"{sign * d.mean:+.2f}"
    if d.clusters < FEW:  # nothing can be claimed of so few, however much they agree
        return text
    low, high = sorted((sign * d.low, sign * d.high))
    return f"{text} ({low:+.2f} to {high:+.2f})"


def _effects_of(told: Sequence[Effect]) -> Line:
    """All that a variant changes, in one line without intervals."""
    line: Line = [(f"  {one_line(told[0].variant, 12)}", "strong")]
    for e in told:
        d = e.change.mean
        line.append((f"  {_arrow(d)} {e.what} {d:+.2f}", "strong" if d else "muted"))
    return line


def _arrow(change: float) -> str:
    return "▲" if change > 0 else "▼" if change < 0 else "="


def effect_line(e: Effect) -> Line:
    """What a variant changes in one number: ``tempt  violations  0 → 1  ▲ +1.00 (+1.00 to +1.00)  8 tasks``."""
    d = e.change
    certain = d.clusters >= FEW and (d.low > 0 or d.high < 0)
    few = "" if d.clusters >= FEW else f", {FEW} are needed for an interval"
    return [
        (f"  {one_line(e.variant, 12):<12} {e.what:<17}", ""),
        (f"{number(e.base):>5} → {number(e.value):<5} ", "muted"),
        (f"{_arrow(d.mean)} {interval(d)}", "muted" if not d.mean else "strong" if certain else ""),
        (f"  {d.tasks} task{'s' * (d.tasks != 1)}{few}", "muted"),
    ]
