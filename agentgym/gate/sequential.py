# SPDX-License-Identifier: Apache-2.0
"""Stopping an eval early, in both directions, with error rates that hold however often one looks."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeVar

import msgspec
import numpy as np

from agentgym.errors import UsageError
from agentgym.gate.decide import decide
from agentgym.gate.floors import check_floors
from agentgym.gate.pairing import arms, fresh, metric_values
from agentgym.gate.rows import Bools, Floats, Rows
from agentgym.gate.rules import FloorRule, MetricRule, Rules, TwinRule
from agentgym.gate.verdict import EXIT_CODES, Check, Verdict
from agentgym.stats.eprocess import EProcess

EARLY: Final = 0.4
"""Share of alpha that stopping early may spend; the fixed rule at the end has the rest: .02 and .03 of .05."""

R = TypeVar("R", MetricRule, TwinRule, FloorRule)
State = Literal["running", "pass", "regression"]


class Sequential:
    """Watches a candidate while it is played, and says when enough is known.

    Each cluster is one observation: the mean difference of its tasks, once all their trials have ended. Observations are
    looked at in an order that was drawn before (`order`); a cluster that ends early waits for those before it, because what
    ends first is not a random part of a suite. REGRESSION: an e-process against "not worse" reaches 1 / (.4 alpha), with
    Bonferroni over the measured metrics. PASS: for every measured metric an e-process against "worse by the margin" reaches
    it. It is worth its while from 4 trials a task and some 50 clusters on; a handful of clusters cannot be stopped.

    Args:
        baseline: the reviewed arm.
        rules: made whole by `agentgym.gate.rules.for_rows`.
        trials: trials a task that the candidate will play.
        seed: of the order.

    Raises:
        UsageError: no metric is measured; a metric's values do not lie in 0..1, or its margin is 1 or more; a floor that the
            whole suite could not prove with what is left of alpha.
    """

    def __init__(self, baseline: Rows, rules: Rules, *, trials: int, seed: int = 0) -> None:
        self.baseline, self.rules, self.trials = baseline, rules, trials
        self._measured = {m: r for m, r in rules.metrics.items() if r.kind == "measured"}
        if not self._measured:
            raise UsageError("nothing can be stopped early: no metric of the rules has kind = 'measured'")
        for metric, rule in self._measured.items():
            _bounded(metric, rule, baseline.values(metric))
        self._order = np.random.default_rng(seed).permutation(baseline.clusters)
        self._against_worse = {m: EProcess(-r.margin) for m, r in self._measured.items()}
        self._against_same = {m: EProcess(0.0) for m in self._measured}
        first = np.unique(baseline.task.codes, return_index=True)[1]
        check_floors(baseline.take(first), self.fixed_rules(), trials)
        self._cluster_of_task = baseline.cluster.codes[first]
        self._seen = 0
        self.state: State = "running"
        """``running`` until enough is known."""

    def order(self) -> list[str]:
        """Task ids in the order in which they should be played: clusters at random, each one's tasks together."""
        place = np.empty(len(self._order), dtype=np.int64)
        place[self._order] = np.arange(len(self._order))
        return [self.baseline.task.names[i] for i in np.argsort(place[self._cluster_of_task], kind="stable")]

    @property
    def clusters(self) -> int:
        """Clusters that were looked at."""
        return self._seen

    def feed(self, candidate: Rows) -> State:
        """Looks at all trials that have ended until now (not only at new ones), and says whether to go on.

        Args:
            candidate: the candidate's rows so far; trials of any status count as ended, only those with a value are used.
        """
        if self.state != "running":
            return self.state
        a = arms(self.baseline, candidate)
        n = self.baseline.tasks
        ended = np.bincount(a.c_task, minlength=len(a.names))[:n] >= self.trials
        whole = np.bincount(self._cluster_of_task[~ended], minlength=len(self._order)) == 0
        ready = 0
        while self._seen + ready < len(self._order) and whole[self._order[self._seen + ready]]:
            ready += 1
        new = self._order[self._seen : self._seen + ready]
        self._seen += ready
        if not ready:
            return self.state
        rows = fresh(a)
        for metric, rule in self._measured.items():
            values = metric_values(a, metric, a.comparable & ~self._quarantined(a.names), rows)
            units = self._units(rule, values.baseline[:n], values.candidate[:n], values.both()[:n])[new]
            units = units[~np.isnan(units)]
            _bounded(metric, rule, values.candidate)
            self._against_worse[metric].feed(units)
            self._against_same[metric].feed(-units)
        self.state = self._decide()
        if self.state == "pass" and not self._floors_reachable(candidate):
            self.state = "running"  # a floor is bought with trials, and these are not enough for it yet
        return self.state

    def _floors_reachable(self, candidate: Rows) -> bool:
        try:
            check_floors(candidate, self.fixed_rules())
        except UsageError:
            return False
        return True

    def _units(self, rule: MetricRule, before: Floats, after: Floats, both: Bools) -> Floats:
        """Mean difference of each cluster, positive is better; NaN where no task has a value in both arms."""
        sign = 1.0 if rule.direction == "higher" else -1.0
        count = np.bincount(self._cluster_of_task[both], minlength=len(self._order))
        total = np.bincount(self._cluster_of_task[both], weights=sign * (after - before)[both], minlength=len(self._order))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, total / count, np.nan)

    def _quarantined(self, names: Iterable[str]) -> Bools:
        out = {q.task for q in self.rules.quarantine}
        return np.array([name in out for name in names], dtype=np.bool_)

    def evidence(self) -> dict[str, Any]:
        """How far it is, as JSON: clusters, and of each measured metric the highest e-values with what decides.

        ``worse`` is evidence that it is worse; one metric that reaches ``worse_at`` stops. ``fine`` is evidence that it is not
        worse by its margin; all have to reach ``fine_at``.
        """
        m = len(self._measured)
        alpha = {n: EARLY * self.rules.alpha_of(r) for n, r in self._measured.items()}
        metrics = {
            n: {
                "worse": 1 / self._against_same[n].p, "worse_at": m / alpha[n],
                "fine": 1 / self._against_worse[n].p, "fine_at": 1 / alpha[n],
            }
            for n in self._measured
        }  # fmt: skip
        return {"clusters": self._seen, "of": len(self._order), "state": self.state, "metrics": metrics}

    def _decide(self) -> State:
        m = len(self._measured)
        if any(e.p <= EARLY * self.rules.alpha_of(self._measured[n]) / m for n, e in self._against_same.items()):
            return "regression"
        if all(e.p <= EARLY * self.rules.alpha_of(self._measured[n]) for n, e in self._against_worse.items()):
            return "pass"
        return "running"

    def fixed_rules(self) -> Rules:
        """The rules with what is left of alpha, for the decision at the end."""
        rest = 1.0 - EARLY
        return msgspec.structs.replace(
            self.rules,
            alpha=rest * self.rules.alpha,
            metrics={n: _with_alpha(r, rest) for n, r in self.rules.metrics.items()},
            twins=tuple(_with_alpha(t, rest) for t in self.rules.twins),
            floors=tuple(_with_alpha(f, rest) for f in self.rules.floors),
        )

    def verdict(self, candidate: Rows, *, today: datetime.date, canary: Rows | None = None) -> Verdict:
        """The verdict: what stopped the eval, else the fixed rule with what is left of alpha.

        After a stop only the tasks that were played are compared, and everything else of the gate holds as ever: coverage,
        invariants, floors and families may still fail what was stopped as a PASS.
        """
        rules = self.fixed_rules()
        if self.state == "running":
            found = decide(self.baseline, candidate, rules, today=today, canary=canary)
            text = f"not stopped early in {self._seen} clusters; decided by the fixed rule at alpha = {rules.alpha:g}"
            return msgspec.structs.replace(
                found, checks=(*found.checks, Check(name="sequential", outcome="skipped", text=text))
            )
        played = set(candidate.task.names)
        has = np.array([n in played for n in self.baseline.task.names], dtype=np.bool_)
        if self.state == "regression":
            rules = msgspec.structs.replace(
                rules, floors=()
            )  # what is worse for sure needs no floor, and has few trials for one
        whole = msgspec.structs.replace(candidate, origin=msgspec.structs.replace(candidate.origin, planned=None))
        found = decide(self.baseline.take(has[self.baseline.task.codes]), whole, rules, today=today, canary=canary)
        text = f"stopped after {self._seen} of {len(self._order)} clusters: "
        if self.state == "regression":
            worst = min(self._against_same, key=lambda m: self._against_same[m].p)
            text += f"{worst} is worse (e-process, p = {self._against_same[worst].p:.2g})"
        else:
            text += "no measured metric is worse by its margin (e-processes)"
        check = Check(name="sequential", outcome="fail" if self.state == "regression" else "pass", text=text)
        found = msgspec.structs.replace(found, checks=(*found.checks, check))
        if found.outcome in ("incompatible", "coverage", "invariant", "regression"):
            return found
        if self.state == "regression":
            return msgspec.structs.replace(
                found, outcome="regression", exit_code=EXIT_CODES["regression"], summary=f"REGRESSION: {text}"
            )
        # the metrics have passed; floors, twins and invariants that are undecided stay so
        others = any(c.outcome == "inconclusive" and c.name in ("floor", "twin", "invariant") for c in found.checks)
        if found.outcome == "inconclusive" and not others:
            return msgspec.structs.replace(found, outcome="pass", exit_code=0, summary=f"PASS: {text}")
        return found


def _with_alpha(rule: R, share: float) -> R:
    return rule if rule.alpha is None else msgspec.structs.replace(rule, alpha=share * rule.alpha)


def _bounded(metric: str, rule: MetricRule, values: Floats) -> None:
    seen = values[~np.isnan(values)]
    if rule.margin >= 1.0 or (len(seen) and (seen.min() < 0.0 or seen.max() > 1.0)):
        raise UsageError(
            f"{metric} cannot be watched while it is played: that takes values from 0 to 1 and a margin below 1. Scale it, or"
            " make it kind = 'report'"
        )
