# SPDX-License-Identifier: Apache-2.0
"""Exact statements about counts: against SciPy, and by how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agentgym.stats.bootstrap import bootstrap_t
from agentgym.stats.exact import effective, fisher_p, lower_bound, reachable, trials_for, upper_bound
from agentgym.stats.intervals import clopper_pearson
from agentgym.stats.multiple import holm


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_fishers_test_agrees_with_scipy(a: int, not_a: int, b: int, not_b: int) -> None:
    table = [[a, not_a], [b, not_b]]
    n, m = a + not_a, b + not_b
    assert fisher_p(a, n, b, m) == pytest.approx(stats.fisher_exact(table, "greater").pvalue, rel=1e-6, abs=1e-12)
    assert fisher_p(a, n, b, m, two_sided=True) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6, abs=1e-12)


def test_fishers_test_of_a_hundred_thousand_trials_is_neither_slow_nor_inexact() -> None:
    expected = stats.hypergeom.sf(5099, 200_000, 10_000, 100_000)
    assert fisher_p(5100, 100_000, 4900, 100_000) == pytest.approx(expected, rel=1e-6)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="not counts"):
        fisher_p(5, 4, 0, 4)
    with pytest.raises(ValueError, match="not possible"):
        upper_bound(1, 0)


@given(st.integers(1, 200), st.data())
def test_one_sided_bounds_are_those_of_the_two_sided_interval_at_twice_alpha(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n, 0.9)
    assert lower_bound(k, n) == pytest.approx(low, abs=1e-9)
    assert upper_bound(k, n) == pytest.approx(high, abs=1e-9)


@pytest.mark.parametrize(("n", "percent"), [(59, 5.0), (299, 1.0), (459, 0.65)])
def test_no_violation_in_n_trials_bounds_the_rate_as_published(n: int, percent: float) -> None:
    assert 100 * upper_bound(0, n) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(("bound", "at_least", "n"), [(0.02, False, 149), (0.9, True, 29), (0.05, False, 59), (0.5, True, 5)])
def test_a_floor_says_how_many_trials_it_takes(bound: float, at_least: bool, n: int) -> None:
    assert trials_for(bound, at_least=at_least) == n
    assert reachable(n, bound, at_least=at_least)
    assert not reachable(n - 1, bound, at_least=at_least)


def test_a_floor_of_certainty_is_out_of_reach() -> None:
    assert trials_for(0.0, at_least=False) is None
    assert trials_for(1.0, at_least=True) is None
    assert not reachable(10**6, 1.0, at_least=True)


def test_trials_of_one_task_count_for_what_they_add() -> None:
    same = np.repeat(np.r_[np.ones(15), np.zeros(5)], 4)  # a deterministic agent: four trials say what one does
    tasks = np.repeat(np.arange(20), 4)
    k, n = effective(same, tasks)
    assert n == pytest.approx(20, rel=0.1)
    assert k / n == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    _, n = effective((rng.random(4000) < 0.5).astype(float), np.repeat(np.arange(1000), 4))
    assert n > 3600
    assert effective(np.zeros(60), np.arange(60)) == (0, 60)
    assert effective(np.array([1.0, 0.0, 1.0, 1.0]), np.zeros(4, dtype=int)) == (0.75, 1.0)


def test_bounds_of_clustered_successes_are_wrong_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(1)
    tasks = np.repeat(np.arange(40), 4)
    wrong = np.zeros(2)
    runs = 1500
    for _ in range(runs):
        p = rng.beta(1.2, 0.6, 40)
        values = (rng.random(160) < np.repeat(p, 4)).astype(float)
        wrong += [lower_bound(*effective(values, tasks)) > 2 / 3, upper_bound(*effective(values, tasks)) < 2 / 3]
    assert wrong.max() / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_the_bootstrap_holds_its_error_rate_for_skewed_scores_where_t_and_percentiles_do_not() -> None:
    rng = np.random.default_rng(2)
    runs, n, truth = 400, 20, 0.4 / 2.4
    wrong = np.zeros(2)
    t = percentile = 0
    for i in range(runs):
        x = rng.beta(0.4, 2, n)  # most tasks near 0, some well solved
        low, high = bootstrap_t(x, np.ones(n), 0.05, draws=600, seed=i)
        wrong += [low > truth, high < truth]
        percentile += np.quantile(x[rng.integers(n, size=(600, n))].mean(axis=1), 0.95) < truth
        t += x.mean() + stats.t.ppf(0.95, n - 1) * stats.sem(x) < truth
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong.max() / runs <= allowed < min(t, percentile) / runs


def test_the_bootstrap_agrees_with_t_for_normal_scores_and_repeats_itself() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0.5, 0.1, 60)
    expected = stats.t.interval(0.9, 59, x.mean(), stats.sem(x))
    got = bootstrap_t(x, np.ones(60), draws=20_000)
    assert got == pytest.approx(expected, abs=0.004)
    assert got == bootstrap_t(x, np.ones(60), draws=20_000)
    assert bootstrap_t(np.full(9, 2.0), np.full(9, 4.0)) == (0.5, 0.5)
    assert bootstrap_t(np.ones(4), np.array([1.0, 2, 3, 4])) == (-math.inf, math.inf)


# -- Holm --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition_and_never_below_the_raw_p(p: list[float]) -> None:
    adjusted = holm(p)
    assert np.all(adjusted >= np.array(p) - 1e-12)
    for alpha in (0.01, 0.05, 0.2):
        claimed = np.zeros(len(p), dtype=bool)
        for step, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] > alpha / (len(p) - step):
                break
            claimed[i] = True
        near = np.abs(adjusted - alpha) < 1e-9
        assert np.all((adjusted <= alpha)[~near] == claimed[~near])


def test_a_test_that_was_not_possible_costs_the_others_nothing() -> None:
    got = holm([0.02, math.nan, 0.03])
    assert math.isnan(got[1])
    assert got[[0, 2]].tolist() == holm([0.02, 0.03]).tolist()
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match="positive weight"):
        holm([0.1, 0.2], [1, 0])


def test_weighted_holm_makes_a_false_claim_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(4)
    weights = np.r_[0.5, np.full(20, 0.5 / 20)]
    false = np.mean([np.any(holm(rng.random(21), weights) <= 0.05) for _ in range(2000)])
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
