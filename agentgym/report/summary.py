# SPDX-License-Identifier: Apache-2.0
"""A run in numbers: per family what was scored, with intervals; read with SQL, so no trajectory is touched."""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym.records.run import Run
from agentgym.report.text import fraction
from agentgym.stats.intervals import bootstrap_mean, clopper_pearson


class Measure(msgspec.Struct):
    """One score over the episodes of one family."""

    name: str
    n: int
    """Episodes that have a value."""
    mean: float
    successes: int | None = None
    """Episodes with value 1, where every value is 0 or 1; else None."""
    low: float | None = None
    """95 % interval; None where the sample says nothing about it."""
    high: float | None = None
    unscorable: int = 0
    """Episodes that could not be scored under it; not in ``n``."""

    def text(self) -> str:
        """``5/8 (.25-.92)``, ``0/8 (≤.37)``, ``mean .63 (.50-.75)``."""
        if not self.n:
            return "-"
        value = f"{self.successes}/{self.n}" if self.successes is not None else f"mean {fraction(self.mean)}"
        if self.low is None or self.high is None:
            return value
        if self.successes == 0:
            return f"{value} (≤{fraction(self.high)})"
        if self.successes == self.n:
            return f"{value} (≥{fraction(self.low)})"
        return f"{value} ({fraction(self.low)}-{fraction(self.high)})"


class Rule(msgspec.Struct):
    """Findings of one alignment dimension over the episodes of one family."""

    dimension: str
    exposed: int
    """Episodes in which some rule of the dimension could have been broken."""
    violated: int
    """Episodes in which one was."""

    def text(self) -> str:
        """``2/7 violated``, ``kept 7/7 (violations ≤.41)``, ``not exposed``."""
        if not self.exposed:
            return "not exposed"
        if self.violated:
            return f"{self.violated}/{self.exposed} violated"
        return f"kept {self.exposed}/{self.exposed} (violations ≤{fraction(clopper_pearson(0, self.exposed)[1])})"


class Row(msgspec.Struct):
    """One family of a run (all its variants together; with several variants, one row each)."""

    label: str
    planned: int
    done: int
    infrastructure: int
    truncated: int
    gold: Measure
    reward: Measure
    metrics: list[Measure]
    rules: list[Rule]
    skipped: int = 0
    """Episodes for which no reply is kept that could be replayed; not in ``infrastructure``."""
    cancelled: int = 0
    """Episodes that a person cancelled; not in ``infrastructure`` either."""


class Summary(msgspec.Struct):
    """A run in numbers."""

    path: str
    title: str
    model: str
    status: str
    """See `Run.status`."""
    stopped: str | None
    """Why the run ended before its plan did; None if nothing stopped it."""
    tasks: int
    trials: list[int]
    planned: int
    done: int
    infrastructure: int
    retried: int
    """Failed attempts that a later attempt replaced."""
    unscorable: int
    """Finished episodes without a gold or without a reward value."""
    tool_exceptions: int
    """Episodes in which a tool of the environment broke (the author's error, not the agent's)."""
    turns: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    wall_s: float
    rows: list[Row]
    errors: list[tuple[str, int]]
    """Infrastructure errors and how often each occurred, most frequent first."""
    skipped: int = 0
    """Episodes for which no reply is kept that could be replayed; not in ``infrastructure``."""
    cancelled: int = 0
    """Episodes that a person cancelled; not in ``infrastructure`` either."""


def measure(name: str, by_task: dict[str, list[float]], unscorable: int = 0, confidence: float = 0.95) -> Measure:
    """One score with its interval: exact for zeros and ones (episodes taken as independent), else over tasks."""
    values = [v for group in by_task.values() for v in group]
    if not values:
        return Measure(name, 0, 0.0, unscorable=unscorable)
    mean = sum(values) / len(values)
    if all(v in (0.0, 1.0) for v in values):
        k = int(sum(values))
        low, high = clopper_pearson(k, len(values), confidence)
        return Measure(name, len(values), mean, k, low, high, unscorable)
    lower, upper = bootstrap_mean(list(by_task.values()), confidence) or (None, None)
    return Measure(name, len(values), mean, None, lower, upper, unscorable)


def summarize(run: Run) -> Summary:
    """A run in numbers."""
    meta = run.meta
    last = run._counting()
    plan: dict[tuple[str, str], int] = {}
    trials: set[int] = set()
    tasks = 0
    for task_id, variant, k in run._rows("SELECT task_id, variant, trials FROM plan"):
        key = (task_id.split("/", 1)[0], variant)
        plan[key] = plan.get(key, 0) + k
        trials.add(k)
        tasks += 1
    several = len(plan) > len({family for family, _ in plan})
    rows: list[Row] = []
    for (family, variant), planned in plan.items():
        where = f"family = ? AND variant = ? AND {last}"
        values = (family, variant)
        gold: dict[str, list[float]] = {}
        reward: dict[str, list[float]] = {}
        counts = {"done": 0, "infrastructure": 0, "skipped": 0, "cancelled": 0, "truncated": 0, "gold": 0, "reward": 0}
        sql = f"SELECT task_id, outcome, error_kind, reward, gold FROM episodes WHERE {where}"
        for task_id, outcome, kind, r, g in run._rows(sql, values):
            counts["done"] += 1
            if outcome == "cancelled":
                counts["cancelled"] += 1
                continue
            if outcome == "infrastructure":
                counts["skipped" if kind == "replay" else "infrastructure"] += 1
                continue
            counts["truncated"] += outcome == "truncated"
            for name, value, into in (("gold", g, gold), ("reward", r, reward)):
                if value is None:
                    counts[name] += 1
                else:
                    into.setdefault(task_id, []).append(value)
        metrics: dict[str, dict[str, list[float]]] = {}
        missing: dict[str, int] = {}
        sql = (
            "SELECT s.name, episodes.task_id, s.value FROM scores s JOIN episodes ON episodes.id = s.episode"
            f" WHERE s.role = 'metric' AND {where} ORDER BY s.episode, s.position"
        )
        for name, task_id, value in run._rows(sql, values):
            by_task = metrics.setdefault(name, {})
            if value is None:
                missing[name] = missing.get(name, 0) + 1
            else:
                by_task.setdefault(task_id, []).append(value)
        found: dict[str, tuple[int, int]] = {}
        sql = (
            "SELECT f.dimension, max(f.exposure), max(f.violation) FROM findings f JOIN episodes ON episodes.id = f.episode"
            f" WHERE {where} GROUP BY f.episode, f.dimension"
        )
        for dimension, exposed, violated in run._rows(sql, values):
            e, v = found.get(dimension, (0, 0))
            found[dimension] = (e + exposed, v + violated)
        rows.append(
            Row(
                f"{family} {variant}" if several else family,
                planned,
                counts["done"],
                counts["infrastructure"],
                counts["truncated"],
                measure("gold", gold, counts["gold"]),
                measure("reward", reward, counts["reward"]),
                [measure(name, by_task, missing.get(name, 0)) for name, by_task in metrics.items()],
                [Rule(d, e, v) for d, (e, v) in found.items()],
                counts["skipped"],
                counts["cancelled"],
            )
        )
    total = next(
        run._rows(
            "SELECT count(*), total(outcome = 'infrastructure'), total(turns), total(prompt_tokens), total(completion_tokens),"
            " total(cost_usd), total(outcome NOT IN ('infrastructure', 'cancelled') AND (gold IS NULL OR reward IS NULL)),"
            " total(tool_exceptions > 0), total(outcome = 'infrastructure' AND error_kind = 'replay'),"
            " total(outcome = 'cancelled')"
            f" FROM episodes WHERE {last}"
        )
    )
    attempts = next(run._rows("SELECT count(*) FROM episodes"))[0]
    errors: list[tuple[Any, ...]] = list(
        run._rows(
            f"SELECT coalesce(error, ''), count(*) FROM episodes WHERE outcome = 'infrastructure' AND error_kind != 'replay'"
            f" AND {last} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5"
        )
    )
    return Summary(
        path=str(run.path),
        title=meta.get("title", run.path.name),
        model=meta.get("model", "?"),
        status=run.status,
        stopped=run.stopped,
        tasks=tasks,
        trials=sorted(trials),
        planned=run.planned,
        done=total[0],
        infrastructure=int(total[1]) - int(total[8]),
        retried=attempts - total[0],
        unscorable=int(total[6]),
        tool_exceptions=int(total[7]),
        turns=int(total[2]),
        prompt_tokens=int(total[3]),
        completion_tokens=int(total[4]),
        cost_usd=total[5],
        wall_s=run.wall_s,
        rows=rows,
        errors=[(e, n) for e, n in errors],
        skipped=int(total[8]),
        cancelled=int(total[9]),
    )
