# SPDX-License-Identifier: Apache-2.0
"""From what a person names (a candidate, a baseline, a rules file) to the verdict that every face shows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from agentgym.errors import UsageError, did_you_mean
from agentgym.gate import baseline as baselines
from agentgym.gate import sources
from agentgym.gate.rows import SKIPPED, Rows
from agentgym.gate.rules import Rules, for_rows, read_rules
from agentgym.gate.verdict import Arm, Check, Flagged, TaskResult, Verdict
from agentgym.records.run import Run, find_run, runs_root


def compare(
    candidate: str,
    baseline: str,
    *,
    rules: str | None = None,
    runs: str | None = None,
    canary: str | None = None,
    today: datetime.date | None = None,
) -> Verdict:
    """The verdict on a candidate.

    Args:
        candidate: a run, or a file that `sources.load` reads.
        baseline: a baseline file, or anything else that `sources.load` reads.
        rules: a rules file; None: built-in rules.
        runs: folder of runs.
        canary: a new run of the baseline's own code: what it differs from the baseline is not the candidate's doing.
        today: what expiry dates are held against; None: the day it is, UTC.

    Raises:
        UsageError: a file, row or rule cannot be used; the text names it.
        RecordError: a run is damaged.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    asked = read_rules(Path(rules)) if rules else Rules()
    before, new = sources.load(baseline, runs), sources.load(candidate, runs)
    other = sources.load(canary, runs) if canary else None
    notes = _notes(baseline, before, today)
    verdict = judge(before, new, asked, today=today, canary=other)
    verdict = msgspec.structs.replace(verdict, flagged=_located((*verdict.flagged, *_fallen(verdict)), before))
    if new.origin.kind == "run" and verdict.flagged:
        from agentgym.gate.sources_run import look_up

        with Run(find_run(candidate, runs_root(runs))) as run:
            verdict = msgspec.structs.replace(verdict, flagged=look_up(run, verdict.flagged))
    return msgspec.structs.replace(verdict, warnings=(*verdict.warnings, *notes))


def judge(before: Rows, new: Rows, asked: Rules, *, today: datetime.date | None = None, canary: Rows | None = None) -> Verdict:
    """The verdict on rows, trials that were skipped on purpose left out of the comparison and never taken for a pass.

    Raises:
        UsageError: a rule does not fit the rows.
    """
    from agentgym.gate.decide import decide

    today = today or datetime.datetime.now(datetime.UTC).date()
    skipped = new.status == SKIPPED
    rules = for_rows(asked, before, new)
    if not skipped.any():
        return decide(before, new, rules, today=today, canary=canary)
    count, total = int(skipped.sum()), len(new)
    text = (
        f"{count} of {total} trials were SKIPPED: their replies are not among those that were to be replayed, so they are"
        " neither good nor bad. A run with the model's key plays them"
    )
    check = Check(name="coverage", outcome="skipped", text=text)
    played = new.take(~skipped)
    # what was not to be played is not missing, in neither arm
    whole = set(new.task.names) - set(played.task.names)
    left = np.array([t not in whole for t in before.task.names], dtype=np.bool_)[before.task.codes]
    if not len(played) or not left.any():
        arms = [Arm(name=r.origin.name, models=r.origin.models, tasks=r.tasks, rows=len(r)) for r in (before, new)]
        summary = f"INCONCLUSIVE: all {total} trials were skipped"
        verdict = Verdict(
            outcome="inconclusive", exit_code=10, summary=summary, baseline=arms[0], candidate=arms[1], rules=asked.source
        )
    else:
        planned = new.origin.planned
        origin = msgspec.structs.replace(new.origin, planned=None if planned is None else max(planned - count, len(played)))
        base = msgspec.structs.replace(before.take(left), origin=msgspec.structs.replace(before.origin, planned=None))
        verdict = decide(base, msgspec.structs.replace(played, origin=origin), rules, today=today, canary=canary)
    if verdict.outcome in ("pass", "tolerated"):
        summary = f"INCONCLUSIVE: {verdict.outcome} as far as it was played; {count} of {total} trials were skipped"
        verdict = msgspec.structs.replace(verdict, outcome="inconclusive", exit_code=10, summary=summary)
    tasks = (*verdict.tasks, *(TaskResult(task=t, outcome="skipped", text=text) for t in sorted(whole)))
    return msgspec.structs.replace(
        verdict,
        checks=(check, *verdict.checks),
        tasks=tasks,
        candidate=msgspec.structs.replace(verdict.candidate, skipped=count),
    )


def _fallen(verdict: Verdict) -> list[Flagged]:
    """The worst flips as steps to look at, where something did get worse."""
    level: Literal["warning", "note"] = "warning" if verdict.outcome in ("regression", "tolerated") else "note"
    return [
        Flagged(
            address=f.address,
            rule=f.metric,
            text=f"{f.metric} fell from {f.baseline:.2f} to {f.candidate:.2f}",
            task=f.task,
            source=f.source,
            level=level,
        )
        for f in verdict.flips.worst
        if f.address
    ]


def _located(flagged: tuple[Flagged, ...], before: Rows) -> tuple[Flagged, ...]:
    """Steps whose scenario's code lies outside of the repository get their task's line in the baseline as location."""
    if all(f.source for f in flagged):
        return flagged
    codes, first = np.unique(before.task.codes, return_index=True)
    lines = {before.task.names[c]: before.source.at(int(i)) for c, i in zip(codes.tolist(), first, strict=True)}
    return tuple(f if f.source else msgspec.structs.replace(f, source=lines.get(f.task, "")) for f in flagged)


def _notes(name: str, rows: Rows, today: datetime.date) -> list[str]:
    """What a reader should know of the baseline."""
    found = []
    if rows.origin.kind == "baseline":
        header, _ = baselines.read(Path(name))
        if header.expires is not None and header.expires <= today:
            found.append(
                f"the baseline {name} expired on {header.expires}: see whether it still is what is wanted, and"
                f" `agentgym baseline accept {name} --reason ... --expires ...`"
            )
    few = baselines.few_clusters(rows)
    if few is not None:
        found.append(f"the baseline has {few}")
    return found


def parse_reports(texts: list[str] | None) -> list[tuple[str, Path]]:
    """``md=gate.md`` and so on, cut in two.

    Raises:
        UsageError: no such kind of report.
    """
    from agentgym.gate.report_files import KINDS

    found = []
    for text in texts or []:
        kind, separator, path = text.partition("=")
        if not separator or not path:
            raise UsageError(f"--report {text!r}: expected KIND=FILE, e.g. md=gate.md; kinds are {', '.join(KINDS)}")
        if kind not in KINDS:
            raise UsageError(f"--report {text!r}: no kind {kind!r}.{did_you_mean(kind, KINDS)} There are: {', '.join(KINDS)}")
        found.append((kind, Path(path)))
    return found
