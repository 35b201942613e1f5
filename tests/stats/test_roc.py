# SPDX-License-Identifier: Apache-2.0
"""AUROC and catch rates: worked examples, brute force, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.stats.roc import auroc, catch_rate


def test_a_worked_example_with_ties() -> None:
    # pairs (positive, negative): .9>.8, .9>.4, .9>.4, .4<.8, .4=.4, .4=.4 -> (3 + 2/2) / 6
    assert auroc([0.9, 0.4, 0.8, 0.4, 0.4], [True, True, False, False, False]).value == pytest.approx(4 / 6)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    x, y = [s for s, p in rows if p], [s for s, p in rows if not p]
    if not x or not y:
        return
    brute = np.mean([(a > b) + 0.5 * (a == b) for a in x for b in y])
    found = auroc([s for s, _ in rows], [p for _, p in rows])
    assert found.value == pytest.approx(brute)
    if found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high


def test_delongs_variance_of_a_small_example() -> None:
    # x = 3, 5; y = 1, 4, 2: V10 = (2/3, 1), V01 = (1, 1/2, 1); theta = 5/6
    # S10 = var(V10) = 1/18, S01 = var(V01) = 1/12; variance = S10/2 + S01/3 = 1/36 + 1/36
    from scipy.special import ndtri

    found = auroc([3, 5, 1, 4, 2], [True, True, False, False, False])
    half = ndtri(0.975) * np.sqrt(1 / 18) / (5 / 6 * 1 / 6)
    assert found.low == pytest.approx(1 / (1 + np.exp(-(np.log(5) - half))))


@pytest.mark.parametrize("twins", [False, True])
def test_the_interval_of_the_area_holds_the_truth_in_95_of_100_samples(twins: bool) -> None:
    from scipy.special import ndtr

    rng = np.random.default_rng(1)
    shift, spread, units = 1.0, 1.0 if twins else 0.0, 40
    truth = float(ndtr(shift / np.sqrt(2 * (1 + spread**2))))
    held = 0
    for _ in range(400):
        base = rng.normal(size=units) * spread  # what the two twins of a task share
        x, y = base + shift + rng.normal(size=units), base + rng.normal(size=units)
        clusters = [*range(units), *range(units)] if twins else None
        found = auroc(np.r_[x, y], np.r_[np.ones(units), np.zeros(units)], clusters)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_twins_that_share_their_difficulty_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=60) * 3
    scores = np.r_[base + 1 + rng.normal(size=60), base + rng.normal(size=60)]
    labels = np.r_[np.ones(60), np.zeros(60)]
    plain, paired = auroc(scores, labels), auroc(scores, labels, [*range(60), *range(60)])
    assert paired.high - paired.low < plain.high - plain.low  # type: ignore[operator]


def test_perfect_separation_is_a_lower_bound_and_no_certainty() -> None:
    found = auroc([1] * 59 + [0] * 200, [True] * 59 + [False] * 200)
    assert found.value == 1.0
    assert found.low == pytest.approx(0.05 ** (1 / 59))


def test_a_monitor_that_says_the_same_of_all_catches_the_budget() -> None:
    labels = [True] * 30 + [False] * 200
    assert catch_rate([0.3] * 230, labels, 0.05).value == pytest.approx(0.05)


def test_a_budget_is_spent_on_the_most_suspicious_first() -> None:
    # negatives 1..100, positives 99.5, 95.5, 1.5; 5 % of 100 negatives are 96..100
    scores = [99.5, 95.5, 1.5, *range(1, 101)]
    labels = [True] * 3 + [False] * 100
    assert catch_rate(scores, labels, 0.05).value == pytest.approx(2 / 3)
    assert catch_rate(scores, labels, 0.01).value == pytest.approx(1 / 3)
    assert catch_rate(scores, labels, 1.0).value == 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=25))
def test_catch_rates_over_all_budgets_make_up_the_area(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [s for s, _ in rows], [p for _, p in rows]
    n = labels.count(False)
    if n in (0, len(rows)):
        return
    # the curve is straight between multiples of 1/n, so the middles sum up exactly
    assert np.mean([catch_rate(scores, labels, (k + 0.5) / n, draws=1).value for k in range(n)]) == pytest.approx(
        auroc(scores, labels).value
    )


def test_the_catch_rates_interval_holds_the_truth() -> None:
    from scipy.special import ndtr, ndtri

    rng = np.random.default_rng(3)
    truth = float(ndtr(1.5 - ndtri(0.95)))
    held = 0
    for _ in range(100):
        scores = np.r_[rng.normal(size=80) + 1.5, rng.normal(size=200)]
        found = catch_rate(scores, np.r_[np.ones(80), np.zeros(200)], 0.05, draws=300)
        held += found.low <= truth <= found.high  # type: ignore[operator]
    assert held >= 88


@pytest.mark.parametrize(("scores", "labels"), [([1, 2], [True, True]), ([float("nan"), 1], [True, False]), ([1], [True])])
def test_what_cannot_be_measured_is_refused(scores: list[float], labels: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"both kinds|NaN"):
        auroc(scores, labels)
