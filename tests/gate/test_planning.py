# SPDX-License-Identifier: Apache-2.0
"""Planning a gate, and testing it on the user's own rows: what is promised is what the gate then does."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from agentgym.errors import UsageError
from agentgym.gate.plan import plan, trial_variance
from agentgym.gate.rows import Rows
from agentgym.gate.rules import MetricRule, Rules, for_rows
from agentgym.gate.selftest import selftest
from tests.gate.simulated import gate, suite


def whole(rows: Rows, rules: Rules | None = None) -> Rules:
    return for_rows(rules or Rules(), rows, rows)


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(1)
    return suite(12, 10, 4, rng.beta(1.2, 0.6, 120), rng, tokens=500, cost_usd=0.01)


# -- plan ------------------------------------------------------------------------------------------------------------------


def test_a_planned_suite_has_the_power_that_was_asked_for() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.3, 0.9, 100)
    pilot = suite(10, 10, 8, p, rng)
    found = plan(pilot, whole(pilot), power=0.8, delta=0.1, trials=4, cluster_sd=0.0)
    design = next(d for d in found.designs if d.trials == 2)
    assert design.clusters >= 5
    runs = 150
    margin = Rules(metrics={"gold": MetricRule(margin=0.1)})
    outcomes = []
    for drop in (0.0, 0.1):
        n, verdicts = design.clusters, []
        for _ in range(runs):
            q = rng.choice(p, n * 10)
            verdicts.append(gate(suite(n, 10, 8, q, rng), suite(n, 10, 2, q - drop, rng), margin).outcome)
        outcomes.append(verdicts)
    error = 3 * math.sqrt(0.8 * 0.2 / runs)
    assert np.mean([o in ("pass", "tolerated") for o in outcomes[0]]) >= 0.8 - error
    assert np.mean([o == "regression" for o in outcomes[1]]) >= 0.8 - error


def test_designs_are_the_smallest_and_come_with_their_price(rows: Rows) -> None:
    found = plan(rows, whole(rows), power=0.9)
    assert (found.metric, found.delta) == ("gold", 0.05)
    assert [d.trials for d in sorted(found.designs, key=lambda d: d.trials)] == [1, 2, 4, 8, 16]
    assert [d.cost_usd for d in found.designs] == sorted(d.cost_usd for d in found.designs)
    for d in found.designs:
        assert min(d.found, d.passed) >= 0.9
        assert d.episodes == d.tasks * d.trials
        assert d.cost_usd == pytest.approx(0.01 * d.episodes)
        assert d.tokens == 500 * d.episodes
    clusters = {d.trials: d.clusters for d in found.designs}
    assert clusters[1] > clusters[4] > clusters[16]


def test_what_the_suite_at_hand_can_find_is_what_the_verdict_says_later(rows: Rows) -> None:
    found = plan(rows, whole(rows), cluster_sd=0.0).current
    rng = np.random.default_rng(3)
    later = [
        gate(rows, suite(12, 10, 4, np.full(120, 0.6), rng), Rules(metrics={"gold": MetricRule(margin=0.0)})).metrics[0].mde
    ]
    assert found.mde == pytest.approx(later[0], rel=0.6)
    assert (found.clusters, found.tasks, found.trials) == (12, 120, 4)


def test_fewer_than_five_clusters_are_said_to_show_nothing_before_money_is_spent() -> None:
    few = suite(3, 25, 4, 0.7, np.random.default_rng(4))
    found = plan(few, whole(few))
    assert (found.current.found, found.current.passed, found.current.mde) == (0.0, 0.0, None)
    assert "3 clusters can never show a REGRESSION" in found.notes[0]
    assert "t.f00, t.f01, t.f02" in found.notes[0]
    assert all(f.tested and f.mde for f in found.families)


def test_the_spread_of_trials_is_unbiased_and_a_single_trial_is_said_to_be_a_guess() -> None:
    rng = np.random.default_rng(5)
    p = rng.beta(1.2, 0.6, 3000)
    for k, guessed in ((2, False), (6, False), (1, True)):
        values = (rng.random(3000 * k) < np.repeat(p, k)).astype(float)
        found = trial_variance(values, np.repeat(np.arange(3000), k), np.zeros(3000 * k, dtype=int))
        expected = p.mean() * (1 - p.mean()) if guessed else (p * (1 - p)).mean()
        assert found == (pytest.approx(expected, abs=0.01), guessed)


def test_a_deterministic_agent_needs_one_trial() -> None:
    sure = suite(6, 10, 4, 1.0)
    found = plan(sure, whole(sure), cluster_sd=0.0)
    assert any("deterministic" in n for n in found.notes)
    assert (found.designs[0].clusters, found.designs[0].trials) == (5, 1)


def test_plans_that_make_no_sense_are_refused(rows: Rows) -> None:
    for wrong in ({"power": 0.4}, {"power": 1.0}, {"delta": 0.0}):
        with pytest.raises(UsageError, match="power lies between"):
            plan(rows, whole(rows), **wrong)
    with pytest.raises(UsageError, match="there is no metric 'goald'"):
        plan(rows, whole(rows), metric="goald")
    with pytest.raises(UsageError, match="nothing to plan"):
        plan(rows, whole(rows, Rules(metrics={"gold": MetricRule(kind="report")})))


# -- selftest --------------------------------------------------------------------------------------------------------------


def test_the_selftest_finds_few_false_fails_and_more_power_for_larger_drops(rows: Rows) -> None:
    found = selftest(rows, whole(rows), runs=80)
    assert found.ok
    assert found.false_fail <= found.limit == pytest.approx(0.05 + 3 * math.sqrt(0.05 * 0.95 / 80))
    assert [c.name for c in found.cells] == ["unchanged", "-0.025", "-0.05", "-0.1"]
    assert all(sum(c.outcomes.values()) == pytest.approx(1.0) for c in found.cells)
    power = [c.outcomes.get("regression", 0.0) for c in found.cells]
    assert power == sorted(power)
    assert power[-1] > 0.5
    assert [c.shift for c in found.cells] == pytest.approx([0.0, -0.025, -0.05, -0.1])


def test_the_selftest_says_so_if_the_gate_fails_too_often(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentgym.gate import measure
    from agentgym.stats import paired

    def by_task(differences: np.ndarray, clusters: np.ndarray, alpha: float = 0.05) -> paired.Difference:
        return paired.paired_difference(differences, np.arange(len(differences)), 0.4)._replace(clusters=9, low=-1.0)

    monkeypatch.setattr(measure, "paired_difference", by_task)
    monkeypatch.setattr(measure, "holm", lambda p, weights: [x / 8 for x in p])
    assert not selftest(rows, whole(rows), runs=60).ok


def test_the_selftest_repeats_itself_and_names_the_largest_family() -> None:
    rng = np.random.default_rng(6)
    large = suite(6, 20, 2, rng.uniform(0.5, 1.0, 120), rng)
    first = selftest(large, whole(large), runs=15, seed=3)
    assert first == selftest(large, whole(large), runs=15, seed=3)
    assert first != selftest(large, whole(large), runs=15, seed=4)
    assert first.cells[-1].name == "-20% in t.f00"


def test_the_selftest_works_for_scores_where_lower_is_better_and_for_any_scale() -> None:
    rng = np.random.default_rng(7)
    lower = suite(8, 5, 4, 0.2, rng)
    found = selftest(lower, whole(lower, Rules(metrics={"gold": MetricRule(direction="lower")})), runs=40)
    assert found.cells[-1].outcomes.get("regression", 0.0) > found.cells[0].outcomes.get("regression", 0.0)
    seconds = msgspec.structs.replace(lower, metrics={"gold": rng.normal(60, 1, len(lower))})
    found = selftest(seconds, whole(seconds, Rules(metrics={"gold": MetricRule(direction="lower", margin=1.0)})), runs=40)
    assert found.cells[-1].shift == pytest.approx(-2.0)
    assert found.cells[-1].outcomes.get("regression", 0.0) > 0.9
