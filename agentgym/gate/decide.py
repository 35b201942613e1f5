# SPDX-License-Identifier: Apache-2.0
"""`decide`: from two arms and the rules to one verdict, in an order in which no later step can hide an earlier one.

1. Compatibility: tasks whose content, environment or verifier changed are not compared; too few left: ``incompatible``.
2. Coverage: too many infrastructure errors, or trials missing in one arm more than in the other: ``coverage``.
3. Invariants: a violation where the baseline had none: ``invariant``.
4. Measured metrics, families, twin contrasts (`measure`), and absolute floors: ``regression``, ``inconclusive``,
   ``tolerated`` or ``pass``.
"""

from __future__ import annotations

import datetime
from typing import Literal

import numpy as np

from agentgym.gate.details import arm, describe, flagged, task_results
from agentgym.gate.floors import check_floors, floor_rows, floor_text, judge_floor
from agentgym.gate.measure import Measured, check_canary, measure
from agentgym.gate.pairing import Arms, arms, fresh, metric_values
from agentgym.gate.rows import INFRASTRUCTURE, OK, SKIPPED, UNSCORABLE, VIOLATIONS, Bools, Exposures, Rows
from agentgym.gate.rules import Rules
from agentgym.gate.verdict import (
    EXIT_CODES,
    Check,
    Cost,
    MetricResult,
    Outcome,
    Verdict,
)
from agentgym.stats.exact import fisher_p, upper_bound
from agentgym.stats.paired import paired_difference


def decide(baseline: Rows, candidate: Rows, rules: Rules, *, today: datetime.date, canary: Rows | None = None) -> Verdict:
    """Whether the candidate is worse than the baseline.

    Args:
        baseline: the reviewed arm.
        candidate: the arm in question.
        rules: made whole by `agentgym.gate.rules.for_rows`.
        today: what expiry dates are compared with.
        canary: a rerun of the baseline's code, now. If given, the candidate is compared with it instead of the baseline, so
            that a model that drifted meanwhile is not blamed on the code; the drift is told as a warning.

    Raises:
        UsageError: a floor that no result could reach with so few trials; a canary that covers too little.
    """
    planned = candidate.origin.planned
    if planned is None or planned <= len(candidate):  # a run that did not end is a matter of coverage
        check_floors(candidate, rules)
    return _Decision(baseline, candidate, rules, today, canary).verdict()


class _Decision:
    """What is known while a verdict is made."""

    def __init__(self, baseline: Rows, candidate: Rows, rules: Rules, today: datetime.date, canary: Rows | None) -> None:
        self.baseline, self.candidate, self.rules, self.today, self.canary = baseline, candidate, rules, today, canary
        self.arms: Arms = arms(baseline, candidate)
        self.checks: list[Check] = []
        self.warnings: list[str] = []
        self.quarantined = self._quarantine()
        self.keep: Bools = self.arms.comparable & ~self.quarantined

    def verdict(self) -> Verdict:
        ends: list[Outcome] = []
        for outcome, holds in (
            ("incompatible", self._compatibility()),
            ("coverage", self._coverage()),
            ("invariant", self._invariants()),
        ):
            if not holds:
                ends.append(outcome)  # type: ignore[arg-type]
        self._players()
        measured = Measured([], [], [])
        if "incompatible" not in ends and "coverage" not in ends:
            measured = self._measure()
            self._floors()
        outcome, code = self._outcome(ends, measured)
        main = next((m for m, r in self.rules.metrics.items() if r.kind == "measured"), next(iter(self.rules.metrics), ""))
        tasks, flips = task_results(self.arms, main, self.rules, self.keep, self.quarantined)
        return Verdict(
            outcome=outcome,
            exit_code=code,
            summary=self._summary(outcome, measured),
            baseline=arm(self.baseline),
            candidate=arm(self.candidate),
            checks=tuple(self.checks),
            metrics=tuple(measured.metrics),
            families=tuple(measured.families),
            twins=tuple(measured.twins),
            flips=flips,
            flagged=flagged(self.arms, self.rules),
            tasks=tasks,
            warnings=tuple(self.warnings),
            cost=Cost(
                tokens=int(self.candidate.tokens.sum()),
                cost_usd=float(self.candidate.cost_usd.sum()),
                baseline_tokens=int(self.baseline.tokens.sum()),
                baseline_cost_usd=float(self.baseline.cost_usd.sum()),
            ),
            rules=self.rules.source,
        )

    # -- before anything is measured ------------------------------------------------------------------------------------

    def _quarantine(self) -> Bools:
        """Tasks that are left out; an entry counts until the day it expires, and only with its proof."""
        out = np.zeros(len(self.arms.names), dtype=np.bool_)
        number = {name: i for i, name in enumerate(self.arms.names)}
        for q in self.rules.quarantine:
            if q.task not in number:
                self.warnings.append(f"quarantine: neither arm has the task {q.task}; take the entry out")
            elif self.today >= q.expires:
                self.warnings.append(f"quarantine of {q.task} expired on {q.expires} ({q.owner}): it counts again")
            elif len(set(q.proof)) < 2:
                self.warnings.append(f"quarantine of {q.task} has no proof by replay: it counts")
            else:
                out[number[q.task]] = True
        if out.any():
            self.warnings.append(f"{int(out.sum())} tasks are in quarantine: their environment was proven nondeterministic")
        return out

    def _compatibility(self) -> bool:
        a = self.arms
        of_baseline = (a.b_first >= 0) & ~self.quarantined
        total, kept = int(of_baseline.sum()), int(self.keep.sum())
        changed = int((a.changed & ~self.quarantined).sum())
        missing = int((a.missing & ~self.quarantined).sum())
        new = int(((a.b_first < 0) & ~self.quarantined).sum())
        planned = self.candidate.origin.planned
        unfinished = planned is not None and planned > len(self.candidate)
        if unfinished:
            total -= missing  # a run that did not end is judged by its coverage: its suite did not change
        share = kept / total if total > 0 else 0.0
        parts = [f"{kept} of {total} tasks of the baseline compared"]
        parts += [f"{changed} changed (content, environment or verifier)"] if changed else []
        parts += [f"{missing} not played"] if missing else []
        parts += [f"{new} new, in no baseline yet"] if new else []
        text = ", ".join(parts)
        if not kept or share < self.rules.coverage.overlap:
            advice = f"; at least {self.rules.coverage.overlap:.0%} must be: play the baseline's suite, or make a new baseline"
            self._check("compatibility", "fail", text + advice)
            return False
        self._check("compatibility", "warn" if changed or missing or new else "pass", text)
        return True

    def _coverage(self) -> bool:
        a, limits = self.arms, self.rules.coverage
        inside = ~self.quarantined
        b_rows, c_rows = inside[a.b_task], inside[a.c_task]
        problems = []
        if len(self.candidate) and np.all(self.candidate.status == SKIPPED):
            self._check("coverage", "skipped", "no trial was played: there are no recorded replies for any of them")
            return True
        for name, rows, mask in (("baseline", self.baseline, b_rows), ("candidate", self.candidate, c_rows)):
            played = mask & (rows.status != SKIPPED)
            spoiled, n = int((played & (rows.status == INFRASTRUCTURE)).sum()), int(played.sum())
            if n and spoiled / n > limits.infrastructure:
                problems.append(
                    f"{spoiled} of {n} trials of the {name} ({spoiled / n:.1%}) were spoiled by infrastructure, more than"
                    f" {limits.infrastructure:.1%}: see their errors and play them again (--resume)"
                )
        scores = [m for m, r in self.rules.metrics.items() if r.kind == "measured" and not m.startswith(VIOLATIONS)]
        shared = ~(a.changed | self.quarantined)  # a changed verifier may well leave other things unscored
        for metric in scores:
            (b_miss, b_n), (c_miss, c_n) = (
                _missing(rows, metric, shared[tasks]) for rows, tasks in ((self.baseline, a.b_task), (self.candidate, a.c_task))
            )
            p = fisher_p(c_miss, c_n, b_miss, b_n, two_sided=True) if b_n and c_n else 1.0
            if p < limits.missing_p / len(scores) or (b_n and not c_n):
                problems.append(
                    f"{metric} is missing in {c_miss} of {c_n} trials of the candidate and {b_miss} of {b_n} of the baseline"
                    f" (p = {p:.2g}): what is missing is not a random part, so means do not compare"
                )
        for text in problems:
            self._check("coverage", "fail", text)
        if not problems:
            text = f"infrastructure errors {_share(self.candidate, INFRASTRUCTURE)}"
            text += f", unscorable {_share(self.candidate, UNSCORABLE)} trials"
            skipped = int((self.candidate.status == SKIPPED).sum())
            text += f", {skipped} skipped" if skipped else ""
            unscored = max(
                float((rows.status == UNSCORABLE).mean()) if len(rows) else 0.0 for rows in (a.baseline, a.candidate)
            )
            self._check("coverage", "warn" if skipped or unscored > limits.infrastructure else "pass", text)
        return not problems

    def _players(self) -> None:
        """Warns where the arms were not played alike."""
        before, after = self.baseline.origin.sampling, self.candidate.origin.sampling
        if before and after and before != after:
            self.warnings.append(f"the arms were sampled differently: {before} in the baseline, {after} in the candidate")
        b, c = ({n for n in rows.fingerprint.names if n} for rows in (self.baseline, self.candidate))
        if b and c and b != c:
            same = self.baseline.origin.models == self.candidate.origin.models
            text = f"the baseline was played by {', '.join(sorted(b))}, the candidate by {', '.join(sorted(c))}"
            if same and self.canary is None:
                text += (
                    ": the model behind the same name changed, so a difference may be the model's and not the code's;"
                    " --canary RUN (a rerun of the baseline's code) tells them apart"
                )
            self.warnings.append(text)

    # -- invariants -----------------------------------------------------------------------------------------------------

    def _invariants(self) -> bool:
        holds = True
        for metric, rule in self.rules.metrics.items():
            if rule.kind != "invariant":
                continue
            if metric.startswith(VIOLATIONS):
                holds &= self._violations(metric, rule.min_exposure, self.rules.alpha_of(rule))
            else:
                holds &= self._never_lower(metric, rule.direction)
        return holds

    def _violations(self, metric: str, min_exposure: int, alpha: float) -> bool:
        """A violation is a fact, whatever became of the rest of its trial: rows of any status count."""
        a, name = self.arms, metric.removeprefix(VIOLATIONS)
        c_hit, c_open = _violated(self.candidate, name, ~self.quarantined[a.c_task])
        b_hit, b_open = _violated(self.baseline, name, ~self.quarantined[a.b_task])
        c_v, c_n, b_v, b_n = (int(x.sum()) for x in (c_hit, c_open, b_hit, b_open))
        if not c_v:
            short = c_n < min_exposure
            text = (
                f"{name}: kept in {c_n} of {c_n} exposed trials" if c_n else f"{name}: no trial was exposed, nothing is known"
            )
            text += f" (violations at most {upper_bound(0, c_n, alpha):.1%})" if c_n else ""
            text += f"; min_exposure is {min_exposure}" if short else ""
            self._check("invariant", "inconclusive" if short else "pass", text, metric)
            return True
        seen = f"{name}: violated in {c_v} of {c_n} exposed trials, in the baseline in {b_v} of {b_n}"
        if not b_v:
            self._check("invariant", "fail", seen, metric)
            return False
        p = fisher_p(c_v, max(c_n, c_v), b_v, max(b_n, b_v))
        if p <= alpha:
            self._check("invariant", "fail", f"{seen}: more often than before (p = {p:.2g})", metric)
            return False
        tasks = {self.candidate.task.at(int(i)) for i in np.flatnonzero(c_hit)}
        ours = [k for k in self.rules.known if k.rule == name or k.rule.startswith(name + "/")]
        late = sorted(k.task for k in ours if k.task in tasks and self.today >= k.expires)
        if late:
            self._check("invariant", "fail", f"{seen}; known, but the time to mend it is over: {', '.join(late[:5])}", metric)
            return False
        open_ = sorted(tasks - {k.task for k in ours})
        text = f"{seen}: not more often than before (p = {p:.2g})"
        text += f"; not yet under [[known]] with an owner: {', '.join(open_[:5])}" if open_ else "; all are known"
        self._check("invariant", "warn", text, metric)
        return True

    def _never_lower(self, metric: str, direction: str) -> bool:
        """An invariant score: no task's mean may get worse at all."""
        values = metric_values(self.arms, metric, self.keep, fresh(self.arms))
        both = values.both()
        sign = 1.0 if direction == "higher" else -1.0
        worse = np.flatnonzero(both & (sign * (values.candidate - values.baseline) < -1e-9))
        if len(worse):
            first = ", ".join(self.arms.names[i] for i in worse[:5])
            self._check("invariant", "fail", f"{metric} got worse on {len(worse)} of {int(both.sum())} tasks: {first}", metric)
            return False
        self._check("invariant", "pass", f"{metric} got worse on none of {int(both.sum())} tasks", metric)
        return True

    # -- measured -------------------------------------------------------------------------------------------------------

    def _measure(self) -> Measured:
        if not np.any(self.candidate.status == OK):
            self._check("measured", "inconclusive", "there is nothing to compare: no trial of the candidate has a score")
            return Measured([], [], [])
        a, keep = self.arms, self.keep
        rows = keep[a.c_task] & (self.candidate.status == OK)
        cached = float(self.candidate.cached[rows].mean()) if rows.any() else 0.0
        if self.canary is not None:
            a, keep = self._canary(self.canary)
        measured = measure(a, keep, self.rules, cached)
        for kind, results in (("measured", measured.metrics), ("family", measured.families), ("twin", measured.twins)):
            for r in results:
                if r.outcome != "report" and not (kind == "family" and r.outcome == "inconclusive"):
                    outcome: Literal["pass", "tolerated", "inconclusive", "fail"]
                    outcome = "fail" if r.outcome == "regression" else r.outcome
                    self._check(kind, outcome, describe(r), r.metric, r.family)
        return measured

    def _canary(self, canary: Rows) -> tuple[Arms, Bools]:
        """The arms (canary, candidate), after a look at how far the canary has drifted from the baseline."""
        compared = {name for name, kept in zip(self.arms.names, self.keep, strict=True) if kept}
        drift, now = arms(self.baseline, canary), arms(canary, self.candidate)
        of_drift = np.array([n in compared for n in drift.names]) & drift.comparable
        of_now = np.array([n in compared for n in now.names]) & now.comparable
        check_canary(int(of_now.sum()), len(compared), self.rules.coverage.overlap)
        clusters = drift.of_task("cluster").codes
        measured = [(m, r) for m, r in self.rules.metrics.items() if r.kind == "measured"]
        rows = fresh(drift)
        for metric, rule in measured:
            values = metric_values(drift, metric, of_drift, rows)
            both = values.both()
            each_side = self.rules.alpha_of(rule) / 2 / len(measured)
            d = paired_difference(values.candidate[both] - values.baseline[both], clusters[both], each_side)
            if not d.tasks:
                continue
            before, after = float(values.baseline[both].mean()), float(values.candidate[both].mean())
            moved = d.low > 0 or d.high < 0
            text = f"{metric}: the baseline's code scored {before:.3f} then and {after:.3f} now; "
            if moved:
                text += "the model drifted. The candidate is compared with the canary, so this is not counted against it"
                self.warnings.append(text)
            else:
                text += "no drift to be seen. The candidate is compared with the canary"
            self._check("canary", "warn" if moved else "pass", text, metric)
        return now, of_now

    def _floors(self) -> None:
        for floor in self.rules.floors:
            chosen = floor_rows(self.candidate, floor) & ~self.quarantined[self.arms.c_task]
            values = self.candidate.values(floor.metric)
            chosen &= ~np.isnan(values)
            outcome, text = judge_floor(values[chosen], self.candidate.task.codes[chosen], floor, self.rules.alpha_of(floor))
            self._check("floor", outcome, f"{floor_text(floor)}: {text}", floor.metric, floor.family or "")

    # -- what comes out -------------------------------------------------------------------------------------------------

    def _outcome(self, ends: list[Outcome], measured: Measured) -> tuple[Outcome, int]:
        if ends:
            return ends[0], EXIT_CODES[ends[0]]
        results = [*measured.metrics, *measured.twins]
        decisive = {r.outcome for r in (*results, *measured.families)}
        checks = {c.outcome for c in self.checks if c.name in ("floor", "invariant", "measured")}
        if "regression" in decisive or any(c.name == "floor" and c.outcome == "fail" for c in self.checks):
            return "regression", EXIT_CODES["regression"]
        undecided = [r for r in results if r.outcome == "inconclusive"]
        if undecided or "inconclusive" in checks:
            hard = any(self._on_inconclusive(r) != "warn" for r in undecided)
            hard |= self.rules.on_inconclusive != "warn" and any(
                c.outcome == "inconclusive" and (c.name in ("floor", "invariant") or not results) for c in self.checks
            )
            return "inconclusive", EXIT_CODES["inconclusive"] if hard else 0
        outcome: Outcome = "tolerated" if any(r.outcome == "tolerated" for r in results) else "pass"
        return outcome, EXIT_CODES[outcome]

    def _on_inconclusive(self, result: MetricResult) -> str:
        if not result.contrast:
            return self.rules.inconclusive_of(self.rules.metrics[result.metric])
        for twin in self.rules.twins:
            if (twin.metric, f"{twin.variant}-{twin.control}", twin.family or "") == (
                result.metric,
                result.contrast,
                result.family,
            ):
                return self.rules.inconclusive_of(twin)
        return self.rules.on_inconclusive

    def _summary(self, outcome: Outcome, measured: Measured) -> str:
        if outcome in ("incompatible", "coverage", "invariant"):
            name = {"incompatible": "compatibility"}.get(outcome, outcome)
            first = next(c.text for c in self.checks if c.name == name and c.outcome == "fail")
            return f"{outcome.upper()}: {first}"
        results = [*measured.metrics, *measured.families, *measured.twins]
        chosen = next((r for r in results if r.outcome == outcome), None)
        if chosen is not None:
            return f"{outcome.upper()}: {describe(chosen)}"
        wanted = "fail" if outcome == "regression" else outcome
        first = next((c.text for c in self.checks if c.outcome == wanted), "nothing was measured")
        return f"{outcome.upper()}: {first}"

    def _check(
        self,
        name: str,
        outcome: Literal["pass", "tolerated", "inconclusive", "fail", "warn", "skipped"],
        text: str,
        metric: str = "",
        family: str = "",
    ) -> None:
        self.checks.append(Check(name=name, outcome=outcome, text=text, metric=metric, family=family))


def _share(rows: Rows, status: int) -> str:
    n = int((rows.status != SKIPPED).sum())
    return f"{int((rows.status == status).sum())} of {n}"


def _missing(rows: Rows, metric: str, inside: Bools) -> tuple[int, int]:
    """(trials without a value, trials that should have one); trials that were never played count where a plan tells."""
    played = inside & (rows.status != SKIPPED)
    n = int(played.sum())
    missing = int(np.isnan(rows.values(metric)[played]).sum())
    never = max(0, (rows.origin.planned or 0) - len(rows))
    return missing + never, n + never


def _violated(rows: Rows, name: str, inside: Bools) -> tuple[Bools, Bools]:
    """(violating rows, exposed rows) of a dimension or rule; a violation counts as an exposure."""
    nothing = np.zeros(len(rows), dtype=np.bool_)
    exposure: Exposures | None = rows.exposures.get(name)
    if exposure is None:
        return nothing, nothing
    hit = (exposure.violations > 0) & inside
    return hit, hit | ((exposure.opportunities > 0) & inside & (rows.status == OK))
