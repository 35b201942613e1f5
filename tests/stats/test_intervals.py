# SPDX-License-Identifier: Apache-2.0
"""Intervals: against published tables, against exact sums in fractions, and by what must hold for any data."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentgym.stats.intervals import MANY, beta_cdf, bootstrap_mean, clopper_pearson, student_t

# -- exact values -----------------------------------------------------------------------------------------------------


def at_least(k: int, n: int, p: Fraction) -> Fraction:
    """P(X >= k) for X ~ Binomial(n, p), without rounding."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


@given(st.integers(1, 40), st.data())
def test_the_beta_distribution_agrees_with_binomial_sums_in_fractions(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    p = data.draw(st.floats(0.001, 0.999))
    exact = at_least(k, n, Fraction(p))
    assert beta_cdf(p, k, n - k + 1) == pytest.approx(float(exact), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("k", "n", "p"), [(1000, 2000, 0.5), (37, 3000, 0.01), (2990, 3000, 0.998)])
def test_the_beta_distribution_stays_exact_for_large_runs(k: int, n: int, p: float) -> None:
    with localcontext(prec=60):  # fractions of this size would have 100,000 digits
        chance = Decimal(p)
        exact = sum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k, n + 1))
    assert beta_cdf(p, k, n - k + 1) == pytest.approx(float(exact), rel=1e-9)


@given(st.floats(0.5, 50), st.floats(0.5, 50), st.floats(0, 1), st.floats(0, 1))
def test_the_beta_distribution_rises_from_0_to_1_and_mirrors(a: float, b: float, x: float, y: float) -> None:
    x, y = min(x, y), max(x, y)
    assert 0.0 <= beta_cdf(x, a, b) <= beta_cdf(y, a, b) + 1e-12 <= 1.0 + 1e-12
    assert beta_cdf(x, a, b) == pytest.approx(1.0 - beta_cdf(1.0 - x, b, a), abs=1e-9)


# Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 5
NEWCOMBE = [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)]


@pytest.mark.parametrize(("k", "n", "low", "high"), NEWCOMBE)
def test_clopper_pearson_agrees_with_the_published_examples(k: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(k, n) == (pytest.approx(low, abs=5.1e-5), pytest.approx(high, abs=5.1e-5))


@given(st.integers(1, 60), st.data())
def test_clopper_pearson_bounds_leave_exactly_their_tail(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n)
    if k > 0:
        assert float(at_least(k, n, Fraction(low))) == pytest.approx(0.025, rel=1e-9)
    if k < n:
        assert float(1 - at_least(k + 1, n, Fraction(high))) == pytest.approx(0.025, rel=1e-9)


@given(st.integers(1, 10_000))
def test_without_a_single_success_the_bound_is_the_closed_form(n: int) -> None:
    assert clopper_pearson(0, n) == (0.0, pytest.approx(1.0 - 0.025 ** (1 / n), rel=1e-9))
    assert clopper_pearson(n, n) == (pytest.approx(0.025 ** (1 / n), rel=1e-9), 1.0)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 20])
def test_clopper_pearson_covers_every_proportion_as_often_as_it_says(n: int) -> None:
    intervals = [clopper_pearson(k, n) for k in range(n + 1)]
    for percent in range(101):
        p = Fraction(percent, 100)
        covered = sum(
            math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, (low, high) in enumerate(intervals) if low <= p <= high
        )
        assert covered >= Fraction(95, 100)


@given(st.integers(1, 500), st.data())
def test_clopper_pearson_keeps_its_shape(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n)
    assert 0.0 <= low <= k / n <= high <= 1.0
    mirrored = clopper_pearson(n - k, n)
    assert (1.0 - high, 1.0 - low) == (pytest.approx(mirrored[0], abs=1e-12), pytest.approx(mirrored[1], abs=1e-12))
    narrower = clopper_pearson(k, n, 0.8)
    assert low <= narrower[0] <= narrower[1] <= high
    if k < n:
        more = clopper_pearson(k + 1, n)
        assert low <= more[0]
        assert high <= more[1]


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        clopper_pearson(k, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        clopper_pearson(1, 2, confidence)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_mean([[0.0]] * 9, confidence)


# the t table that every textbook prints
T_TABLE = {
    0.95: {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980},
    0.99: {1: 63.657, 4: 4.604, 10: 3.169, 120: 2.617},
}


@pytest.mark.parametrize(("confidence", "df", "t"), [(c, df, t) for c, row in T_TABLE.items() for df, t in row.items()])
def test_students_t_agrees_with_the_table(confidence: float, df: int, t: float) -> None:
    assert student_t(confidence, df) == pytest.approx(t, abs=5.1e-4)


def test_students_t_becomes_the_normal_one() -> None:
    assert student_t(0.95, 10_000_000) == pytest.approx(1.959964, abs=1e-5)


# -- means of clusters ------------------------------------------------------------------------------------------------

VALUES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=5, max_size=12)


def spread(groups: list[list[float]]) -> float:
    mean = np.mean([v for g in groups for v in g])
    return float(max(abs(sum(g) - mean * len(g)) for g in groups))


def test_the_bootstrap_agrees_with_all_resamples_of_five_groups_enumerated() -> None:
    groups = [[0.0, 0.5], [1.0], [0.25, 0.25, 1.0], [0.0], [0.75, 0.5]]
    means = sorted(sum(sum(g) for g in chosen) / sum(len(g) for g in chosen) for chosen in itertools.product(groups, repeat=5))
    # Hesterberg (2015): the tail is that of the normal distribution beyond sqrt(n / (n - 1)) t
    tail = 0.5 * math.erfc(math.sqrt(5 / 4) * 2.7764451 / math.sqrt(2))
    assert tail == pytest.approx(0.00096, abs=1e-5)
    interval = bootstrap_mean(groups)
    assert interval is not None
    for bound, share in zip(interval, (tail, 1.0 - tail), strict=True):
        below = sum(m < bound - 1e-12 for m in means) / len(means)
        up_to = sum(m <= bound + 1e-12 for m in means) / len(means)
        assert below - 0.002 <= share <= up_to + 0.002


def test_an_interval_called_95_percent_holds_the_truth_about_as_often_even_for_few_tasks() -> None:
    rng = np.random.default_rng(20)
    held = 0
    for _ in range(200):
        chances = rng.beta(0.8, 1.2, size=6)  # mean 0.4; tasks differ much, as tasks do
        low, high = bootstrap_mean([list(rng.binomial(4, c, size=2) / 4) for c in chances], draws=2000) or (0.0, 1.0)
        held += low <= 0.4 <= high
    # 3.3 standard errors around 95 %; the plain percentile interval holds it in some 86 %
    assert held / 200 >= 0.90


def test_for_many_alike_tasks_it_is_the_t_interval() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, size=60)
    half = student_t(0.95, 59) * values.std(ddof=1) / math.sqrt(60)
    low, high = bootstrap_mean([[float(v)] for v in values]) or (0.0, 0.0)
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.12 * half),
        pytest.approx(values.mean() + half, abs=0.12 * half),
    )


def test_the_interval_does_not_jump_where_resampling_ends() -> None:
    rng = np.random.default_rng(4)
    groups = [list(rng.random(int(rng.integers(1, 4)))) for _ in range(MANY)]
    resampled, computed = bootstrap_mean(groups[:-1]), bootstrap_mean(groups)
    assert resampled is not None
    assert computed is not None
    width = computed[1] - computed[0]
    assert resampled == (pytest.approx(computed[0], abs=0.1 * width), pytest.approx(computed[1], abs=0.1 * width))


@given(VALUES)
def test_the_interval_lies_around_the_mean_within_the_data(groups: list[list[float]]) -> None:
    assume(spread(groups) > 1e-6)
    interval = bootstrap_mean(groups, draws=500)
    assert interval is not None
    values = [v for g in groups for v in g]
    mean = sum(values) / len(values)
    assert min(values) - 1e-9 <= interval[0] <= mean + 1e-9
    assert mean - 1e-9 <= interval[1] <= max(values) + 1e-9


@given(VALUES)
def test_equal_data_gives_an_equal_interval_whatever_the_order_within_a_task(groups: list[list[float]]) -> None:
    first = bootstrap_mean(groups, draws=200)
    assert bootstrap_mean(groups, draws=200) == first
    turned = bootstrap_mean([g[::-1] for g in groups], draws=200)
    assert (first is None) == (turned is None)
    if first and turned:
        assert turned == (pytest.approx(first[0], abs=1e-9), pytest.approx(first[1], abs=1e-9))


@settings(max_examples=50)
@given(VALUES, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_interval_moves_and_stretches_with_the_data(groups: list[list[float]], scale: float, shift: float) -> None:
    assume(spread(groups) > 1e-3)
    plain = bootstrap_mean(groups, draws=500)
    moved = bootstrap_mean([[scale * v + shift for v in g] for g in groups], draws=500)
    assert plain is not None
    assert moved == (pytest.approx(scale * plain[0] + shift, abs=1e-6), pytest.approx(scale * plain[1] + shift, abs=1e-6))


def test_trials_of_one_task_do_not_count_as_if_they_were_tasks() -> None:
    tasks = [[0.0], [0.2], [0.5], [0.9], [1.0], [0.4]]
    once, fifty_times = bootstrap_mean(tasks), bootstrap_mean([g * 50 for g in tasks])
    assert once is not None
    assert fifty_times == (pytest.approx(once[0]), pytest.approx(once[1]))


@pytest.mark.parametrize(
    "groups", [[], [[0.1], [0.2], [0.3], [0.4]], [[0.5], [0.5, 0.5], [0.5], [0.5], [0.5]], [[0.1], [], [0.2], [0.3], [0.4]]]
)
def test_a_sample_that_cannot_tell_its_spread_gets_no_interval(groups: list[list[float]]) -> None:
    assert bootstrap_mean(groups) is None
