# SPDX-License-Identifier: Apache-2.0
"""`agentgym gate --selftest`: how often the gate fails an unchanged agent and finds a worse one, on the user's own rows."""

from __future__ import annotations

import datetime
import math

import msgspec
import numpy as np

from agentgym.errors import UsageError
from agentgym.gate.decide import decide
from agentgym.gate.rows import OK, VIOLATIONS, Bools, Exposures, Floats, Ints, Rows
from agentgym.gate.rules import Rules


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate said about one kind of candidate, over all simulated ones."""

    name: str
    """``unchanged``, ``-0.05``, ``-20% in FAMILY``."""
    shift: float
    """Drop of the deciding metric's mean over the suite, negative for worse."""
    outcomes: dict[str, float]
    """Outcome -> share; they add up to 1."""


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Error rate and power of a gate on one suite."""

    metric: str
    runs: int
    trials: int
    alpha: float
    cells: tuple[Cell, ...]
    false_fail: float
    """Share of unchanged candidates that failed (any exit code but 0 and 10)."""
    limit: float
    """alpha + 3 standard errors of a share over so many runs: above it, something is wrong with the gate."""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether unchanged candidates fail no more often than promised."""
        return self.false_fail <= self.limit


def selftest(baseline: Rows, rules: Rules, *, runs: int = 200, seed: int = 0, trials: int | None = None) -> SelfTest:
    """Plays the gate against candidates drawn from the baseline's own rows; no model is asked.

    Both arms are drawn anew each time: each trial is one of the same task's, or, with one part in (trials + 1), one of
    another task of the family: a task that was solved 4 times of 4 is not solved always (Laplace's rule of succession, with
    the family in the place of one half). Worse candidates lose each success with the same chance, so that the mean falls by
    what is named. Each pair goes through `decide` itself.

    Args:
        baseline: the reviewed arm.
        rules: made whole by `agentgym.gate.rules.for_rows`.
        runs: simulated comparisons of each kind of candidate.
        seed: of the random numbers: equal seeds give equal results.
        trials: trials a task of the candidate; None: as many as the baseline has.

    Raises:
        UsageError: no metric is measured, or the baseline has no scored trial.
    """
    metric = next((m for m, r in rules.metrics.items() if r.kind == "measured" and not m.startswith(VIOLATIONS)), None)
    rows = baseline.take(baseline.status == OK)
    if metric is None or not len(rows):
        raise UsageError("nothing to simulate: no score is measured by the rules, or no trial of the baseline has one")
    rules = msgspec.structs.replace(rules, quarantine=(), floors=())  # neither has to do with chance
    k = trials or rows.trials
    draw = _Draw(rows, metric, rules.metrics[metric].direction == "lower", k, np.random.default_rng(seed))
    everywhere = np.ones(draw.size, dtype=np.bool_)
    margin = rules.metrics[metric].margin
    plans: list[tuple[str, float, Bools]] = [("unchanged", 0.0, everywhere)]
    plans += [
        (f"{-drop:+g}", drop / draw.level, everywhere) for drop in dict.fromkeys((margin / 2, margin, 2 * margin)) if drop
    ]
    largest = draw.largest_family(rules.coverage.family_tasks)
    if largest is not None:
        plans.append((f"-20% in {rows.family.names[largest]}", 0.2, draw.family == largest))
    cells = []
    for name, share, where in plans:
        counts: dict[str, int] = {}
        for _ in range(runs):
            before, after = draw.arm(0.0, everywhere, None), draw.arm(min(share, 1.0), where, k)
            outcome = decide(before, after, rules, today=datetime.date.min).outcome
            counts[outcome] = counts.get(outcome, 0) + 1
        shift = 0.0 if name == "unchanged" else -float(draw.values[where].sum() / draw.size * min(share, 1.0))
        cells.append(Cell(name=name, shift=shift, outcomes={o: c / runs for o, c in sorted(counts.items())}))
    passing = ("pass", "tolerated", "inconclusive")
    false_fail = sum(s for o, s in cells[0].outcomes.items() if o not in passing)
    limit = rules.alpha + 3 * math.sqrt(rules.alpha * (1 - rules.alpha) / runs)
    return SelfTest(
        metric=metric,
        runs=runs,
        trials=k,
        alpha=rules.alpha,
        cells=tuple(cells),
        false_fail=false_fail,
        limit=limit,
        notes=_notes(rows, cells),
    )


def _notes(rows: Rows, cells: list[Cell]) -> tuple[str, ...]:
    notes = []
    if rows.trials < 2:
        notes.append(
            "the baseline has one trial a task, so how much a task varies is guessed from its family: with 4 it is known"
        )
    if cells[0].outcomes.get("inconclusive", 0.0) > 0.5:
        notes.append("most unchanged candidates are INCONCLUSIVE: the suite is too small for this margin, see `agentgym plan`")
    return tuple(notes)


class _Draw:
    """Draws arms from the rows of a baseline."""

    def __init__(self, rows: Rows, metric: str, lower: bool, trials: int, rng: np.random.Generator) -> None:
        self.rows, self.metric, self.lower, self.rng = rows, metric, lower, rng
        self.size = len(rows)
        self.family = rows.family.codes
        values = rows.metrics[metric]
        self.unit = bool(np.all(np.isnan(values) | ((values >= 0) & (values <= 1))))
        good = (1.0 - values) if lower and self.unit else values
        self.values: Floats = np.nan_to_num(good)
        self.level = max(float(np.nanmean(np.abs(good))), 1e-9)
        self._start, self._count = _runs(rows.task.codes)
        order = np.argsort(self.family, kind="stable")
        start, count = _runs(self.family[order])
        self._pool, self._pool_start, self._pool_count = order, start, count

    def largest_family(self, enough: int) -> int | None:
        """The family with most tasks, if there are several and it is tested on its own."""
        first = np.unique(self.rows.task.codes, return_index=True)[1]
        tasks = np.bincount(self.family[first])
        return int(tasks.argmax()) if len(tasks) > 1 and tasks.max() >= enough else None

    def arm(self, share: float, where: Bools, trials: int | None) -> Rows:
        """New trials of the same tasks, of which ``share`` of what is good is lost in the rows ``where``."""
        frame = np.arange(self.size)
        if trials is not None:
            frame = frame[(frame - self._start[self.rows.task.codes]) < trials]
        task, family = self.rows.task.codes[frame], self.family[frame]
        n = self._count[task]
        source = self._start[task] + (self.rng.random(len(frame)) * n).astype(np.int64)
        other = self._pool[self._pool_start[family] + (self.rng.random(len(frame)) * self._pool_count[family]).astype(np.int64)]
        source = np.where(self.rng.random(len(frame)) * (n + 1) < 1.0, other, source)
        metrics = {name: column[source] for name, column in self.rows.metrics.items()}
        lost = where[frame] & (self.rng.random(len(frame)) < share)
        value = metrics[self.metric]
        if self.unit:
            value = np.where(lost & ~np.isnan(value), 1.0 if self.lower else 0.0, value)
        else:
            value = value - (-1.0 if self.lower else 1.0) * where[frame] * share * self.level
        metrics[self.metric] = value
        exposures = {
            name: Exposures(e.opportunities[source], e.violations[source], e.weight[source])
            for name, e in self.rows.exposures.items()
        }
        base = self.rows if trials is None else self.rows.take(frame)
        return msgspec.structs.replace(
            base,
            metrics=metrics,
            exposures=exposures,
            cached=np.zeros(len(frame), dtype=np.bool_),
            origin=msgspec.structs.replace(base.origin, planned=None),
        )


def _runs(codes: Ints) -> tuple[Ints, Ints]:
    """Start and length of each code's run in sorted codes."""
    count = np.bincount(codes)
    return np.concatenate(([0], np.cumsum(count)[:-1])), count
