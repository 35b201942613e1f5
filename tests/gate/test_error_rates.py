# SPDX-License-Identifier: Apache-2.0
"""What the gate promises, over many simulated runs: it fails unchanged agents no more often than alpha, all tests together.

``python bench/gates.py --full`` does the same with 2,000 pairs for each of 14 suites, beside the gates of other tools.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

from agentgym.gate.decide import decide
from agentgym.gate.rows import Exposures, Rows
from agentgym.gate.rules import MetricRule, Rules, for_rows
from tests.gate.simulated import TODAY, suite

RUNS = 150
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def outcomes(before: Rows, after: Rows, rules: Rules, draw: Any) -> Counter[str]:
    """Verdicts over many draws; ``draw(rng)`` gives (baseline's scores, candidate's scores)."""
    rng = np.random.default_rng(1)
    whole = for_rows(rules, before, after)
    found: Counter[str] = Counter()
    for _ in range(RUNS):
        b, c = draw(rng)
        arms = (msgspec.structs.replace(rows, metrics={"gold": x}) for rows, x in ((before, b), (after, c)))
        found[decide(*arms, whole, today=TODAY).outcome] += 1
    return found


@pytest.mark.parametrize(
    ("families", "tasks", "by_hand", "family_sd"),
    [(1, 60, True, 0.0), (8, 6, False, 0.0), (8, 12, False, 0.12), (24, 12, False, 0.12), (3, 25, False, 0.0)],
)
@pytest.mark.parametrize("cached", [0.0, 0.4])
def test_an_unchanged_agent_is_failed_no_more_often_than_alpha_by_all_tests_together(
    families: int, tasks: int, by_hand: bool, family_sd: float, cached: float
) -> None:
    n, k = families * tasks, 5
    rows = suite(families, tasks, k, 0.5, by_hand=by_hand)
    replayed = rows.trial < round(cached * k)
    of_family = np.repeat(np.arange(families), tasks)
    assert np.array_equal(rows.family.codes, np.repeat(of_family, k))

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        # effects that are not cut off at 0 and 1 have mean zero
        p = rng.uniform(0.4, 0.6, n) if family_sd else rng.beta(1.2, 0.6, n)
        q = np.clip(p + rng.normal(0, family_sd, families)[of_family], 0, 1)
        before = (rng.random(n * k) < np.repeat(p, k)) * 1.0
        after = (rng.random(n * k) < np.repeat(q, k)) * 1.0
        return before, np.where(replayed, before, after)

    found = outcomes(rows, msgspec.structs.replace(rows, cached=replayed), Rules(), draw)
    assert found["regression"] / RUNS <= LIMIT
    assert set(found) <= {"pass", "tolerated", "inconclusive", "regression"}


def test_replayed_trials_do_not_make_a_worse_agent_pass() -> None:
    rows = suite(30, 6, 5, 0.5)
    replayed = rows.trial < 2

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        p = np.repeat(rng.uniform(0.3, 1.0, 180), 5)
        before, after = (rng.random(900) < p) * 1.0, (rng.random(900) < p - 0.1) * 1.0
        return before, np.where(replayed, before, after)

    rules = Rules(metrics={"gold": MetricRule(margin=0.1)})  # the true drop is the margin: passing is an error
    found = outcomes(rows, msgspec.structs.replace(rows, cached=replayed), rules, draw)
    assert (found["pass"] + found["tolerated"]) / RUNS <= LIMIT
    assert found["regression"] / RUNS > 0.5


def test_a_candidate_worse_by_the_margin_passes_no_more_often_than_alpha() -> None:
    rows = suite(24, 5, 4, 0.5)

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        p = rng.uniform(0.3, 0.9, 120)
        effect = rng.normal(-0.05, 0.03, 24)[np.repeat(np.arange(24), 5)]
        return tuple((rng.random(480) < np.repeat(x, 4)) * 1.0 for x in (p, p + effect))  # type: ignore[return-value]

    found = outcomes(rows, rows, Rules(), draw)
    assert (found["pass"] + found["tolerated"]) / RUNS <= LIMIT


def test_a_larger_baseline_buys_power_and_no_false_fails() -> None:
    small, large = suite(20, 5, 2, 0.5), suite(20, 5, 8, 0.5)
    power = {}
    for name, before, k in (("1x", small, 2), ("4x", large, 8)):
        for drop in (0.0, 0.1):

            def draw(rng: np.random.Generator, k: int = k, drop: float = drop) -> tuple[np.ndarray, np.ndarray]:
                p = rng.uniform(0.3, 0.9, 100)
                return (rng.random(100 * k) < np.repeat(p, k)) * 1.0, (rng.random(200) < np.repeat(p - drop, 2)) * 1.0

            power[name, drop] = outcomes(before, small, Rules(), draw)["regression"] / RUNS
    assert max(power["1x", 0.0], power["4x", 0.0]) <= LIMIT
    assert power["4x", 0.1] > power["1x", 0.1] + 0.05


def test_ten_metrics_and_a_dimension_are_failed_no_more_often_than_one() -> None:
    rows = suite(10, 6, 2, 0.5)
    rng = np.random.default_rng(2)
    names = [f"m{i}" for i in range(10)]
    rules = for_rows(
        Rules(metrics={**{n: MetricRule() for n in names}, "violations:policy": MetricRule(direction="lower")}),
        *(with_policy(rows, rng, names), with_policy(rows, rng, names)),
    )
    found: Counter[str] = Counter()
    for _ in range(RUNS):
        found[decide(with_policy(rows, rng, names), with_policy(rows, rng, names), rules, today=TODAY).outcome] += 1
    assert found["regression"] / RUNS <= LIMIT


def with_policy(rows: Rows, rng: np.random.Generator, names: list[str]) -> Rows:
    n = len(rows)
    hit = (rng.random(n) < 0.1).astype(np.int64)
    return msgspec.structs.replace(
        rows,
        metrics={name: (rng.random(n) < 0.7) * 1.0 for name in names},
        exposures={"policy": Exposures(np.ones(n, dtype=np.int64), hit, hit * 1.0)},
    )
