# SPDX-License-Identifier: Apache-2.0
"""`agentgym plan`: how many clusters, tasks, trials and how much money a gate needs to tell what it should tell."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from agentgym.errors import UsageError
from agentgym.gate.rows import OK, VIOLATIONS, Floats, Ints, Rows
from agentgym.gate.rules import MetricRule, Rules
from agentgym.stats.noninferiority import mde
from agentgym.stats.paired import FEW, cluster_se
from agentgym.stats.power import chances, standard_error

TRIALS = (1, 2, 4, 8, 16)
CLUSTERS = (5, 10, 20, 30, 50, 100, 200)
CLUSTER_SD = 0.03
"""How differently a change is assumed to strike the clusters. One run cannot tell; two versions of a suite can."""
MOST_CLUSTERS = 100_000


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """A suite of a given size, and what it can tell."""

    clusters: int
    tasks: int
    """In all clusters together."""
    trials: int
    """A task, of the candidate."""
    baseline_trials: int
    episodes: int
    """Of one candidate."""
    tokens: int
    cost_usd: float
    """Of one candidate; 0.0 where the baseline's rows name no cost."""
    found: float
    """Chance that a candidate worse by delta is a REGRESSION."""
    passed: float
    """Chance that an unchanged candidate passes."""
    mde: float | None
    """Smallest drop that is called a REGRESSION with the power wanted; None: no claim is possible."""


class FamilyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One family, tested on its own tasks."""

    family: str
    tasks: int
    tested: bool
    """Whether it has enough tasks (``coverage.family_tasks``)."""
    mde: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the suite at hand can tell, and which ones would tell enough."""

    metric: str
    delta: float
    power: float
    alpha: float
    trial_variance: float
    """Mean variance of a task's trials."""
    cluster_sd: float
    current: Design
    designs: tuple[Design, ...]
    """For each number of trials the smallest one with the power wanted, cheapest first."""
    mde_table: tuple[tuple[int, int, float], ...]
    """(clusters, trials, smallest detectable drop), with as many tasks a cluster as now."""
    families: tuple[FamilyPlan, ...]
    notes: tuple[str, ...] = ()


def plan(
    baseline: Rows,
    rules: Rules,
    *,
    power: float = 0.8,
    delta: float | None = None,
    trials: int | None = None,
    metric: str | None = None,
    cluster_sd: float = CLUSTER_SD,
) -> Plan:
    """What it takes to find a drop of ``delta`` and to pass what did not change, each with the power wanted.

    Args:
        baseline: rows whose spread and cost are taken for those to come.
        rules: made whole by `agentgym.gate.rules.for_rows`.
        power: chance wanted, between 0.5 and 1.
        delta: drop to be found, in units of the metric; None: the metric's margin.
        trials: trials a task that a candidate plays; None: as many as the baseline has.
        metric: None: the first measured one.
        cluster_sd: how differently a change strikes the clusters (standard deviation).

    Raises:
        UsageError: no metric is measured, it has no values, or power or delta make no sense.
    """
    name, rule = _metric(rules, metric)
    rows = baseline.take(baseline.status == OK)
    values = rows.values(name)
    if not np.any(~np.isnan(values)):
        raise UsageError(f"the baseline has no value of {name}: there is nothing to plan with")
    wanted = rule.margin if delta is None else delta
    if not 0.5 <= power < 1.0 or not wanted > 0.0 or cluster_sd < 0.0:
        raise UsageError("power lies between 0.5 and 1, delta (or the metric's margin) above 0, and cluster_sd is 0 or more")
    maker = _Designs(rows, values, wanted, power, rules.alpha_of(rule), cluster_sd)
    k = trials or maker.baseline_trials
    designs = [d for t in TRIALS if (d := maker.smallest(t)) is not None]
    designs.sort(key=lambda d: (d.cost_usd, d.episodes))
    table = tuple((g, t, m) for g in CLUSTERS for t in TRIALS if (m := maker.detectable(g, t)) is not None)
    families = maker.families(rows, values, rules.coverage.family_tasks, k)
    return Plan(
        metric=name,
        delta=wanted,
        power=power,
        alpha=maker.alpha,
        trial_variance=maker.variance,
        cluster_sd=cluster_sd,
        current=maker.current(k),
        designs=tuple(designs),
        mde_table=table,
        families=families,
        notes=maker.notes(families),
    )


def _metric(rules: Rules, metric: str | None) -> tuple[str, MetricRule]:
    if metric is not None:
        if metric not in rules.metrics:
            raise UsageError(f"there is no metric {metric!r}; there are {', '.join(rules.metrics)}")
        return metric, rules.metrics[metric]
    measured = [(m, r) for m, r in rules.metrics.items() if r.kind == "measured"]
    if not measured:
        raise UsageError("nothing to plan: no metric of the rules has kind = 'measured'")
    return next((mr for mr in measured if not mr[0].startswith(VIOLATIONS)), measured[0])


class _Designs:
    """Sizes of suites like the one at hand."""

    def __init__(self, rows: Rows, values: Floats, delta: float, power: float, alpha: float, cluster_sd: float) -> None:
        self.delta, self.power, self.alpha, self.cluster_sd = delta, power, alpha, cluster_sd
        has = ~np.isnan(values)
        tasks, clusters = rows.task.codes[has], rows.cluster.codes[has]
        used, first = np.unique(tasks, return_index=True)
        self.tasks = len(used)
        self.sizes = np.unique(clusters[first], return_counts=True)[1].astype(float)
        self.clusters = len(self.sizes)
        self.per_cluster = self.tasks / self.clusters
        self.baseline_trials = max(1, round(len(tasks) / self.tasks))
        self.variance, self.guessed = trial_variance(values[has], tasks, rows.family.codes[has])
        self.tokens, self.cost = float(rows.tokens.mean()), float(rows.cost_usd.mean())

    def _design(self, clusters: int, tasks: int, trials: int, se: float, df: float) -> Design:
        enough = clusters >= FEW
        c = chances(max(se, 1e-9), df, -self.delta, self.delta, self.alpha) if enough else None
        same = chances(max(se, 1e-9), df, 0.0, self.delta, self.alpha) if enough else None
        episodes = tasks * trials
        return Design(
            clusters=clusters,
            tasks=tasks,
            trials=trials,
            baseline_trials=self.baseline_trials,
            episodes=episodes,
            tokens=round(episodes * self.tokens),
            cost_usd=episodes * self.cost,
            found=c.regression if c else 0.0,
            passed=same.passed if same else 0.0,
            mde=mde(se, df, 0.0, self.alpha, self.power) if enough else None,
        )

    def current(self, trials: int) -> Design:
        """The suite as it is, with its clusters of whatever sizes."""
        w = self.sizes / self.tasks
        noise = self.variance * (1 / trials + 1 / self.baseline_trials)
        se = math.sqrt(float((w**2 * (self.cluster_sd**2 + noise / self.sizes)).sum()))
        df = cluster_se(self.sizes, self.sizes)[1] if self.clusters > 1 else math.nan
        return self._design(self.clusters, self.tasks, trials, se, df)

    def _like(self, clusters: int, trials: int) -> Design:
        se = standard_error(clusters, self.per_cluster, trials, self.baseline_trials, self.variance, self.cluster_sd)
        return self._design(clusters, round(clusters * self.per_cluster), trials, se, clusters - 1.0)

    def detectable(self, clusters: int, trials: int) -> float | None:
        """Smallest drop that so many clusters like these would find."""
        return self._like(clusters, trials).mde

    def smallest(self, trials: int) -> Design | None:
        """The fewest clusters like these that find delta and pass what is unchanged; None: more than anybody has."""

        def enough(clusters: int) -> bool:
            d = self._like(clusters, trials)
            return min(d.found, d.passed) >= self.power

        high = FEW
        while not enough(high):
            high *= 2
            if high > MOST_CLUSTERS:
                return None
        low = FEW - 1 if high == FEW else high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return self._like(high, trials)

    def families(self, rows: Rows, values: Floats, enough: int, trials: int) -> tuple[FamilyPlan, ...]:
        """What each family's own tasks can tell."""
        found = []
        for code, name in enumerate(rows.family.names):
            mine = (rows.family.codes == code) & ~np.isnan(values)
            tasks = len(np.unique(rows.task.codes[mine]))
            if not name or not tasks:
                continue
            variance = trial_variance(values[mine], rows.task.codes[mine], rows.family.codes[mine])[0]
            smallest = None
            if tasks >= enough:
                se = standard_error(tasks, 1, trials, self.baseline_trials, variance)
                smallest = mde(se, tasks - 1.0, 0.0, self.alpha, self.power)
            found.append(FamilyPlan(family=name, tasks=tasks, tested=tasks >= enough, mde=smallest))
        return tuple(found)

    def notes(self, families: tuple[FamilyPlan, ...]) -> tuple[str, ...]:
        """What the numbers do not say by themselves."""
        notes = []
        if self.clusters < FEW:
            own = [f.family for f in families if f.tested]
            tail = f"; on their own tasks are tested: {', '.join(own)}" if own else "; add families, or tasks written by hand"
            notes.append(f"{self.clusters} clusters can never show a REGRESSION of the whole suite, it takes {FEW}{tail}")
        if self.guessed:
            notes.append("most tasks have one trial, so their spread is that of their family, an upper bound: play 4")
        if self.variance <= 0.0:
            notes.append("no task's trials ever differed: the agent is deterministic here, one trial is enough")
        if self.baseline_trials < 4:
            notes.append(
                "a baseline of 4 times the candidate's trials is paid once and takes 37 % off every comparison's variance"
            )
        return tuple(notes)


def trial_variance(values: Floats, tasks: Ints, families: Ints) -> tuple[float, bool]:
    """(mean over tasks of the unbiased variance of a task's trials, whether it had to be guessed).

    From tasks with two trials or more; where fewer than half have them, from the spread of all trials within a family, which
    holds the differences between its tasks too and so is never too small on average.
    """
    codes = np.unique(tasks, return_inverse=True)[1].reshape(-1)
    count = np.bincount(codes).astype(float)
    several = count >= 2
    if several.sum() * 2 >= len(count):
        mean = np.bincount(codes, weights=values) / count
        square = np.bincount(codes, weights=(values - mean[codes]) ** 2)
        return float((square[several] / (count[several] - 1)).mean()), False
    groups = np.unique(families, return_inverse=True)[1].reshape(-1)
    n = np.bincount(groups).astype(float)
    mean = np.bincount(groups, weights=values) / n
    total = float(((values - mean[groups]) ** 2).sum())
    return total / max(1.0, float(len(values) - len(n))), True
