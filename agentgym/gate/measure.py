# SPDX-License-Identifier: Apache-2.0
"""The measured part of a gate: each metric over the suite, over its families and between twins, with one correction."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from agentgym.errors import UsageError
from agentgym.gate.pairing import Arms, Values, fresh, metric_values, twin_keys, units_within
from agentgym.gate.rows import Bools, Codes, Floats, Ints
from agentgym.gate.rules import MetricRule, Rules, TwinRule
from agentgym.gate.verdict import MetricResult
from agentgym.stats.multiple import holm
from agentgym.stats.noninferiority import clusters_needed, judge, mde
from agentgym.stats.paired import FEW, Difference, paired_difference

Outcome = Literal["pass", "tolerated", "inconclusive", "regression", "report"]


class Comparison(NamedTuple):
    """One metric on one set of tasks, before the correction for many claims."""

    metric: str
    rule: MetricRule | TwinRule
    family: str
    contrast: str
    baseline: float
    candidate: float
    difference: Difference
    """Positive is better, whatever the rule's direction."""
    alpha: float
    trials: int
    exposures: int
    short: str
    """Why nothing can be claimed although there is a difference; ``""``: nothing stands against it."""


def compare(
    metric: str,
    rule: MetricRule | TwinRule,
    before: Floats,
    after: Floats,
    units: Ints,
    alpha: float,
    *,
    family: str = "",
    contrast: str = "",
    trials: int = 0,
    exposures: int = 0,
    short: str = "",
) -> Comparison:
    """Compares task values of two arms, one pair a task."""
    sign = 1.0 if rule.direction == "higher" else -1.0
    difference = paired_difference(sign * (after - before), units, alpha)
    b, c = (float(before.mean()), float(after.mean())) if len(before) else (math.nan, math.nan)
    return Comparison(metric, rule, family, contrast, b, c, difference, alpha, trials, exposures, short)


class Measured(NamedTuple):
    """All comparisons of a gate, decided."""

    metrics: list[MetricResult]
    families: list[MetricResult]
    twins: list[MetricResult]


def measure(a: Arms, keep: Bools, rules: Rules, cached: float) -> Measured:
    """Decides every measured metric and twin contrast.

    Claims of a REGRESSION are corrected together (Holm, weighted): one half of alpha belongs to the suite's metrics and
    contrasts, one half to the families, and what one half does not need the other one gets. Without families that are large
    enough all of it is the suite's. So an unchanged agent fails with probability alpha at most, over everything that is
    tested. To PASS, every metric has to pass, which needs no correction.

    Args:
        a: the arms; ``keep``: tasks that are compared.
        cached: share of the candidate's trials that came from a cache.
    """
    rows = fresh(a)
    clusters, families = a.of_task("cluster").codes, a.of_task("family")
    short = ""
    if cached > rules.coverage.cached:
        short = (
            f"{cached:.0%} of the candidate's trials were replayed from a cache (limit {rules.coverage.cached:.0%}): they say"
            " nothing about this run; play it without the cache"
        )
    keys = twin_keys(a)
    suite: list[Comparison] = []
    by_family: list[Comparison] = []
    for metric, rule in rules.metrics.items():
        if rule.kind == "invariant":
            continue
        values = metric_values(a, metric, keep, rows)
        chosen = values.both()
        alpha = rules.alpha_of(rule)
        suite.append(_one(metric, rule, values, chosen, clusters, alpha, "", short))
        if rule.kind == "measured":
            by_family += _families(metric, rule, values, chosen, clusters, keys, families, alpha, rules, short)
    contrasts = [_contrast(a, twin, keep, rows, rules, short) for twin in rules.twins]
    claims = [c for c in (*suite, *contrasts, *by_family) if c.rule.kind == "measured"]
    adjusted = _adjust(claims, len(by_family))
    decided = {id(c): _decide(c, adjusted.get(id(c))) for c in (*suite, *contrasts, *by_family)}
    metrics = [_by_families(decided[id(c)], [decided[id(f)] for f in by_family if f.metric == c.metric]) for c in suite]
    return Measured(metrics, [decided[id(c)] for c in by_family], [decided[id(c)] for c in contrasts])


def _one(
    metric: str, rule: MetricRule, values: Values, chosen: Bools, units: Ints, alpha: float, family: str, short: str
) -> Comparison:
    before, after = values.baseline[chosen], values.candidate[chosen]
    exposures = int(values.c_count[chosen].sum())
    fewest = min(exposures, int(values.b_count[chosen].sum()))
    if not short and fewest < rule.min_exposure:
        short = f"{fewest} trials with a value, fewer than min_exposure = {rule.min_exposure}"
    trials = int(values.c_count[chosen].max(initial=0))
    return compare(
        metric, rule, before, after, units[chosen], alpha, family=family, trials=trials, exposures=exposures, short=short
    )


def _families(
    metric: str,
    rule: MetricRule,
    values: Values,
    chosen: Bools,
    clusters: Ints,
    keys: Ints,
    families: Codes,
    alpha: float,
    rules: Rules,
    short: str,
) -> list[Comparison]:
    """The families that have enough tasks, each on its own; none where a lone family would be the suite once more."""
    sizes = np.bincount(families.codes[chosen], minlength=len(families.names))
    found = []
    for code in np.flatnonzero(sizes >= rules.coverage.family_tasks):
        mine = chosen & (families.codes == code)
        units = np.zeros(len(clusters), dtype=np.int64)
        units[mine] = units_within(clusters[mine], keys[mine])
        whole_suite = sizes[code] == sizes.sum()
        if not families.names[code] or (whole_suite and len(np.unique(clusters[mine])) >= FEW):
            continue
        found.append(_one(metric, rule, values, mine, units, alpha, families.names[code], short))
    return found


def _contrast(a: Arms, twin: TwinRule, keep: Bools, rows: tuple[Bools, Bools], rules: Rules, short: str) -> Comparison:
    """(variant - control) of the candidate less that of the baseline, over pairs of twins: a difference in differences."""
    variants, families = a.of_task("variant"), a.of_task("family")
    values = metric_values(a, twin.metric, keep, rows)
    chosen = values.both()
    if twin.family is not None:
        chosen = chosen & in_family(families, twin.family)
    keys = twin_keys(a)
    control = np.full(int(keys.max(initial=0)) + 1, -1, dtype=np.int64)
    is_control = np.flatnonzero(chosen & variants.where(twin.control))
    control[keys[is_control]] = is_control
    changed = np.flatnonzero(chosen & variants.where(twin.variant))
    partner = control[keys[changed]]
    changed, partner = changed[partner >= 0], partner[partner >= 0]
    before = values.baseline[changed] - values.baseline[partner]
    after = values.candidate[changed] - values.candidate[partner]
    clusters = a.of_task("cluster").codes[changed]
    one_family = len(np.unique(families.codes[changed])) == 1  # then it is a claim about that family, and pairs are its units
    return compare(
        twin.metric,
        twin,
        before,
        after,
        units_within(clusters, keys[changed]) if one_family else clusters,
        rules.alpha_of(twin),
        family=twin.family or "",
        contrast=f"{twin.variant}-{twin.control}",
        trials=int(values.c_count[changed].max(initial=0)),
        exposures=int(values.c_count[changed].sum()),
        short=short,
    )


def in_family(families: Codes, name: str) -> Bools:
    """Which entries are of a family, or of one that has the name as a prefix (``tools`` for ``tools.retail``)."""
    chosen = np.array([f == name or f.startswith(name + ".") for f in families.names] or [False], dtype=np.bool_)
    return np.asarray(chosen[families.codes])


def _adjust(claims: list[Comparison], families: int) -> dict[int, float]:
    """p-values after Holm, by ``id`` of the comparison."""
    tested = [c for c in claims if not c.short and not math.isnan(c.difference.p_worse)]
    whole = sum(1 for c in tested if not _is_family(c))
    parts = len(tested) - whole
    weights = [0.5 / parts if _is_family(c) else 0.5 / whole for c in tested]
    return {id(c): float(p) for c, p in zip(tested, holm([c.difference.p_worse for c in tested], weights), strict=True)}


def _is_family(c: Comparison) -> bool:
    return bool(c.family) and not c.contrast


def _decide(c: Comparison, p_adjusted: float | None) -> MetricResult:
    """The outcome of one comparison, in the metric's own direction."""
    d, rule = c.difference, c.rule
    outcome: Outcome
    reason = ""
    if rule.kind == "report":
        outcome = "report"
    elif not d.tasks:
        outcome, reason = "inconclusive", "no twins that both arms played" if c.contrast else "no task has a value in both arms"
    elif c.short:
        outcome, reason = "inconclusive", c.short
    else:
        outcome = judge(d, rule.margin, c.alpha, p_adjusted)
        reason = _reason(c, outcome, p_adjusted)
    low, high = (d.low, d.high) if rule.direction == "higher" else (-d.high, -d.low)
    known = d.tasks > 0
    undecided = outcome == "inconclusive" and known and not c.short
    return MetricResult(
        metric=c.metric,
        outcome=outcome,
        kind=rule.kind,
        family=c.family,
        contrast=c.contrast,
        direction=rule.direction,
        baseline=c.baseline if known else None,
        candidate=c.candidate if known else None,
        diff=c.candidate - c.baseline if known else None,
        low=low if known and math.isfinite(low) else None,
        high=high if known and math.isfinite(high) else None,
        confidence=round(1.0 - 2.0 * c.alpha, 12),
        margin=rule.margin,
        p_value=p_adjusted,
        mde=mde(d.se, d.df, rule.margin, c.alpha) if d.clusters >= FEW else None,
        method=d.method if known else "",
        clusters=d.clusters,
        tasks=d.tasks,
        trials=c.trials,
        exposures=c.exposures,
        needed=clusters_needed(d, rule.margin, c.alpha) if undecided else None,
        reason=reason,
    )


def _reason(c: Comparison, outcome: Outcome, p_adjusted: float | None) -> str:
    d = c.difference
    if outcome == "inconclusive":
        if d.clusters < FEW:
            what = "cluster" if d.clusters == 1 else "clusters"
            return f"{d.clusters} {what}: fewer than {FEW} can neither be told to be worse nor, unless nothing differs, to pass"
        if p_adjusted is not None and d.p_worse <= c.alpha < p_adjusted:
            return (
                f"worse when looked at alone (p = {d.p_worse:.3f}), not among all that was tested (p = {p_adjusted:.3f}, Holm)"
            )
        return "the interval reaches from below the margin to above 0: more clusters or trials would tell"
    if d.method == "constant" and outcome == "pass" and d.clusters < 3 / max(c.rule.margin, 1e-9) and c.trials <= 1:
        # the exact bound of Hanley and Lippman-Hand (1983) for "0 of n": what one trial a task cannot have shown
        return (
            f"not one of {d.tasks} tasks differs; with one trial each, up to {1 - c.alpha ** (1 / d.tasks):.0%} of tasks might"
        )
    if outcome == "tolerated":
        return "worse for sure, and for sure by less than the margin"
    return ""


def _by_families(result: MetricResult, families: list[MetricResult]) -> MetricResult:
    """Lets a suite of fewer than five clusters pass where each of its families passes on its own tasks.

    Nothing can be said of families that were not played, but no suite is about those: each family's tasks are a sample of
    what its template makes. Every family has to pass, which is an intersection-union test.
    """
    if result.outcome != "inconclusive" or result.clusters >= FEW or not families:
        return result
    if sum(f.tasks for f in families) != result.tasks or any(f.outcome not in ("pass", "tolerated") for f in families):
        return result
    worst: Outcome = "tolerated" if any(f.outcome == "tolerated" for f in families) else "pass"
    return msgspec.structs.replace(
        result,
        outcome=worst,
        method="families",
        needed=None,
        reason=f"{result.clusters} clusters say nothing about other families; each family passes on its own tasks",
    )


def check_canary(canary_tasks: int, compared: int, overlap: float) -> None:
    """Refuses a canary that covers too little.

    Raises:
        UsageError: it played less than ``overlap`` of the tasks that are compared.
    """
    if canary_tasks < overlap * compared:
        raise UsageError(
            f"the canary played {canary_tasks} of the {compared} tasks that are compared: run the baseline's code on the whole"
            " suite, or leave --canary out"
        )
