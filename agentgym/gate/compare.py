# SPDX-License-Identifier: Apache-2.0
"""From what a person names (a candidate, a baseline, a rules file) to the verdict that every face shows."""

from __future__ import annotations

import contextlib
import datetime
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from agentgym.errors import UsageError, did_you_mean
from agentgym.gate import baseline as baselines
from agentgym.gate import sources
from agentgym.gate.rows import SKIPPED, Rows, concatenate
from agentgym.gate.rules import Rules, TwinRule, for_rows, read_rules
from agentgym.gate.verdict import Arm, Check, Flagged, TaskResult, Verdict
from agentgym.records.run import Run, find_run, runs_root


def compare(
    candidate: str,
    baseline: str,
    *,
    rules: str | None = None,
    runs: str | None = None,
    canary: str | None = None,
    sequential: bool = False,
    today: datetime.date | None = None,
    lines: bool = True,
) -> Verdict:
    """The verdict on a candidate.

    Args:
        candidate: a run, or a file that `sources.load` reads.
        baseline: a baseline file, or anything else that `sources.load` reads.
        rules: a rules file; None: built-in rules.
        runs: folder of runs.
        canary: a new run of the baseline's own code: what it differs from the baseline is not the candidate's doing.
        sequential: whether the candidate may have been stopped early: error rates hold however often one looks.
        today: what expiry dates are held against; None: the day it is, UTC.
        lines: whether steps are to have the lines of code they come from; see `agentgym.gate.sources_run.run_rows`.

    Raises:
        UsageError: a file, row or rule cannot be used; the text names it.
        RecordError: a run is damaged.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    asked = read_rules(Path(rules)) if rules else Rules()
    with _uncollected():
        before, new = sources.load(baseline, runs, lines=lines), sources.load(candidate, runs, lines=lines)
    other = sources.load(canary, runs, lines=lines) if canary else None
    notes = _notes(baseline, before, today)
    if sequential:
        verdict = _early(before, new, asked, today, other)
    else:
        verdict = judge(before, new, asked, today=today, canary=other)
    verdict = msgspec.structs.replace(verdict, flagged=_located((*verdict.flagged, *_fallen(verdict)), before))
    if new.origin.kind == "run" and verdict.flagged:
        from agentgym.gate.sources_run import look_up

        with Run(find_run(candidate, runs_root(runs))) as run:
            verdict = msgspec.structs.replace(verdict, flagged=look_up(run, verdict.flagged))
    return msgspec.structs.replace(verdict, warnings=(*verdict.warnings, *notes))


def compare_runs(first: Path, second: Path, today: datetime.date | None = None) -> Verdict:
    """Two runs by the built-in rules, the first as the baseline; what each variant does beside control is compared, too.

    Raises:
        UsageError: the runs have nothing in common that could be compared.
        RecordError: one is damaged.
    """
    from agentgym.gate.sources_run import look_up, run_rows

    with Run(first) as a, Run(second) as b, _uncollected():
        before, new = run_rows(a, str(first), lines=False), run_rows(b, str(second), lines=False)
        both = [v for v in new.variant.names if v in before.variant.names and v != "control"]
        metrics = [m for m in ("gold", "proxy") if m in before.names() and m in new.names()]
        rules = Rules(twins=tuple(TwinRule(metric=m, variant=v, kind="report") for v in both for m in metrics))
        verdict = judge(before, new, rules, today=today)
        return msgspec.structs.replace(verdict, flagged=look_up(b, (*verdict.flagged, *_fallen(verdict))))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Reads without the collector of cyclic garbage: of hundred thousands of rows it frees none, and looks through all."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _early(before: Rows, new: Rows, asked: Rules, today: datetime.date, canary: Rows | None) -> Verdict:
    """The verdict on a run that may be stopped, or go on: INCONCLUSIVE as long as neither is known."""
    from agentgym.gate.sequential import Sequential

    planned = new.origin.planned or len(new)
    # of a suite that was stopped the baseline's other tasks are not missing
    before = msgspec.structs.replace(before, origin=msgspec.structs.replace(before.origin, planned=None))
    watch = Sequential(before, for_rows(asked, before, new), trials=new.trials)
    watch.feed(new)
    verdict = watch.verdict(new, today=today, canary=canary)
    if watch.state == "running" and planned > len(new) and verdict.outcome not in ("invariant", "incompatible"):
        text = f"INCONCLUSIVE: {len(new)} of {planned} trials do not decide it yet: `agentgym eval --resume {new.origin.name}`"
        verdict = msgspec.structs.replace(verdict, outcome="inconclusive", exit_code=10, summary=text)
    return verdict


def judge_played(
    played: Sequence[tuple[Path, list[str]]],
    baseline: str,
    asked: Rules,
    shown: Callable[[Path], str],
    today: datetime.date | None = None,
) -> Verdict:
    """The verdict on a suite whose parts were played into several runs.

    Args:
        played: runs, and which tasks of each belong to the suite.
        baseline: its file.
        asked: the rules.
        shown: how to name a run.
        today: see `compare`.

    Raises:
        UsageError: something cannot be used.
    """
    from agentgym.gate.sources_run import look_up, run_rows

    today = today or datetime.datetime.now(datetime.UTC).date()
    wanted: dict[Path, set[str]] = {}
    for path, tasks in played:
        wanted.setdefault(path, set()).update(tasks)
    before = sources.load(baseline)
    found: list[Rows] = []
    for path, names in wanted.items():
        with Run(path) as run:
            rows = run_rows(run, shown(path))
            planned = sum(k for t, k in run._rows("SELECT task_id, trials FROM plan") if t in names)
        chosen = np.array([t in names for t in rows.task.names], dtype=np.bool_)[rows.task.codes]
        origin = msgspec.structs.replace(rows.origin, planned=planned)
        found.append(msgspec.structs.replace(rows.take(chosen), origin=origin))
    verdict = judge(before, concatenate(found), asked, today=today)
    flagged: list[Flagged] = []
    for flag in _located((*verdict.flagged, *_fallen(verdict)), before):
        for path in wanted:
            if flag.address.startswith(f"{shown(path)}::"):
                with Run(path) as run:
                    flagged += look_up(run, [flag])
                break
    notes = _notes(baseline, before, today)
    return msgspec.structs.replace(verdict, flagged=tuple(flagged), warnings=(*verdict.warnings, *notes))


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
        header = baselines.read_header(Path(name))
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
