# SPDX-License-Identifier: Apache-2.0
"""Paired differences: against formulas written out, against SciPy, and by how often unchanged agents are called worse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agentgym.stats.noninferiority import clusters_needed, judge, mde
from agentgym.stats.paired import (
    FEW,
    MANY,
    cluster_se,
    mcnemar_p,
    paired_difference,
    sign_flip_bounds,
    sign_flip_p,
    sign_flip_p_drawn,
)
from agentgym.stats.power import simulate

values = st.integers(-8, 8).map(lambda i: i / 8)


# -- the variance and its degrees of freedom ---------------------------------------------------------------------------


def test_with_clusters_of_equal_size_it_is_the_t_interval_of_cluster_means() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(-0.02, 0.2, (30, 4))
    got = paired_difference(d.ravel(), np.repeat(np.arange(30), 4), alpha=0.05)
    means = d.mean(axis=1)
    expected = stats.t.interval(0.9, 29, means.mean(), stats.sem(means))
    assert (got.low, got.high) == pytest.approx(expected)
    assert got.df == pytest.approx(29)
    assert got.p_worse == pytest.approx(stats.ttest_1samp(means, 0, alternative="less").pvalue)


def test_the_variance_is_cr2_by_its_definition_with_matrices() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([1, 2, 3, 5, 8, 13])
    codes = np.repeat(np.arange(6), sizes)
    d = rng.normal(size=32)
    n = len(d)
    hat = np.full((n, n), 1 / n)
    residual = d - d.mean()
    variance = 0.0
    for g in range(6):
        mine = codes == g
        block = np.eye(mine.sum()) - hat[np.ix_(mine, mine)]
        w, v = np.linalg.eigh(block)
        adjusted = v @ np.diag(w**-0.5) @ v.T @ residual[mine]
        variance += adjusted.sum() ** 2 / n**2
    se, _ = cluster_se(np.bincount(codes, weights=d), sizes.astype(float))
    assert se == pytest.approx(math.sqrt(variance))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=15))
def test_degrees_of_freedom_are_satterthwaites_and_never_more_than_clusters_less_one(sizes: list[int]) -> None:
    s = np.array(sizes, dtype=float)
    w = s / s.sum()
    found = []
    for spread in (w, w**2):
        centre = np.eye(len(w)) - np.outer(w, np.ones(len(w)))
        m = centre @ np.diag(spread) @ centre.T / np.sqrt(np.outer(1 - w, 1 - w))
        found.append(np.trace(m) ** 2 / np.trace(m @ m))
    df = cluster_se(np.arange(len(s), dtype=float), s)[1]
    assert df == pytest.approx(min(found))
    assert df <= len(s) - 1 + 1e-9


# -- sign flips --------------------------------------------------------------------------------------------------------


@given(st.lists(values, min_size=1, max_size=9))
def test_the_sign_flip_p_is_the_share_of_all_flips_written_out(sums: list[float]) -> None:
    flips = [sum(s * x for s, x in zip(signs, sums, strict=True)) for signs in itertools.product((1, -1), repeat=len(sums))]
    assert sign_flip_p(np.array(sums)) == pytest.approx(np.mean([f <= sum(sums) + 1e-9 for f in flips]))


def test_the_sign_flip_p_agrees_with_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    for n in (5, 8, 11):
        d = rng.normal(-0.2, 1, n)
        theirs = stats.permutation_test((d,), np.sum, permutation_type="samples", alternative="less", n_resamples=np.inf)
        assert sign_flip_p(d) == pytest.approx(theirs.pvalue)


@given(st.lists(values, min_size=1, max_size=10), st.integers(0, 3), st.sampled_from([0.01, 0.03, 0.05, 0.1]))
def test_the_bounds_are_exactly_where_the_sign_flip_test_stops_rejecting(sums: list[float], extra: int, alpha: float) -> None:
    s, n = np.array(sums), np.arange(len(sums)) % (extra + 1) + 1.0
    low, high = sign_flip_bounds(s, n, alpha)
    for bound, sign in ((low, -1.0), (high, 1.0)):
        if math.isinf(bound):
            assert 0.5 ** len(sums) > alpha
            continue
        # H: the mean is at least (at most) h, tested by flipping what is left after h is taken off
        outside, inside = bound + sign * 1e-6, bound - sign * 1e-6
        assert sign_flip_p(sign * (s - n * outside)) <= alpha + 1e-12
        assert sign_flip_p(sign * (s - n * inside)) > alpha


def test_random_flips_approach_the_exact_p_and_are_never_zero() -> None:
    rng = np.random.default_rng(4)
    d = rng.normal(-0.3, 1, 14)
    assert sign_flip_p_drawn(d, 40_000) == pytest.approx(sign_flip_p(d), abs=0.01)
    assert sign_flip_p_drawn(np.full(200, -1.0), 100) == pytest.approx(1 / 101)
    assert sign_flip_p_drawn(d) == sign_flip_p_drawn(d)


@pytest.mark.parametrize(("worse", "better"), [(5, 0), (12, 3), (3, 12), (0, 0), (0, 4), (40, 22)])
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(worse: int, better: int) -> None:
    n = worse + better
    expected = stats.binomtest(worse, n, 0.5, alternative="greater").pvalue if n else 1.0
    assert mcnemar_p(worse, better) == pytest.approx(expected)


def test_single_trials_of_separate_tasks_are_decided_by_mcnemar() -> None:
    d = np.r_[np.full(4, -1.0), np.zeros(96)]
    got = paired_difference(d, np.arange(100))
    assert (got.method, got.p_worse) == ("McNemar", 0.0625)
    assert stats.ttest_1samp(d, 0, alternative="less").pvalue < 0.05  # which is what a t test would have claimed
    assert got.high == 0.0
    assert judge(got, margin=0.02) == "inconclusive"


# -- what a plain implementation gets wrong ------------------------------------------------------------------------------


@given(values, st.integers(1, 40), st.integers(1, 3))
def test_the_interval_of_a_difference_without_variance_is_the_point(value: float, clusters: int, tasks: int) -> None:
    got = paired_difference(np.full(clusters * tasks, value), np.repeat(np.arange(clusters), tasks))
    assert got.low == got.mean == got.high == pytest.approx(value)
    assert got.method == "constant"


@given(st.lists(values, min_size=1, max_size=60), st.integers(1, FEW - 1), st.floats(0, 0.5))
def test_fewer_than_five_clusters_are_never_a_regression(d: list[float], clusters: int, margin: float) -> None:
    got = paired_difference(np.array(d) - 0.5, np.arange(len(d)) % clusters)
    assert judge(got, margin) != "regression"
    assert judge(got, margin, p_adjusted=0.0) != "regression"


@settings(max_examples=80)
@given(st.lists(st.tuples(values, st.integers(0, 40)), min_size=1, max_size=120), st.sampled_from([0.03, 0.05]))
def test_a_claim_and_its_interval_never_contradict_each_other(pairs: list[tuple[float, int]], alpha: float) -> None:
    d, codes = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    got = paired_difference(d, codes, alpha)
    assert got.low <= got.mean + 1e-9
    assert got.high >= got.mean - 1e-9
    if got.clusters >= FEW:
        assert (got.p_worse <= alpha and got.mean < 0) == (got.high < 0)
    mirrored = paired_difference(-d, codes, alpha)
    if got.method in ("sign-flip", "none"):
        assert (mirrored.low, mirrored.high) == (pytest.approx(-got.high), pytest.approx(-got.low))


def test_no_task_and_one_task_are_inconclusive_and_nan_is_refused() -> None:
    assert judge(paired_difference(np.array([]), np.array([], dtype=int)), 0.05) == "inconclusive"
    one = paired_difference(np.array([-1.0]), np.array([3]))
    assert (one.clusters, one.tasks, judge(one, 0.05)) == (1, 1, "inconclusive")
    with pytest.raises(ValueError, match="not a finite number"):
        paired_difference(np.array([0.0, math.nan]), np.array([0, 1]))


def test_nineteen_clusters_flip_signs_and_twenty_take_t() -> None:
    rng = np.random.default_rng(5)
    assert paired_difference(rng.normal(size=MANY - 1), np.arange(MANY - 1)).method == "sign-flip"
    assert paired_difference(rng.normal(size=MANY), np.arange(MANY)).method == "cluster t"


# -- outcomes ----------------------------------------------------------------------------------------------------------


def test_the_four_outcomes() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 1, 40)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * math.sqrt(40)  # standard error 1

    def outcome(mean: float, se: float, margin: float) -> str:
        return judge(paired_difference(mean + se * noise, np.arange(40)), margin)

    assert outcome(0.0, 0.01, 0.05) == "pass"
    assert outcome(-0.03, 0.01, 0.05) == "tolerated"
    assert outcome(-0.06, 0.01, 0.05) == "regression"
    assert outcome(-0.02, 0.03, 0.05) == "inconclusive"
    assert outcome(-0.05, 0.0, 0.05) == "tolerated"  # a point at the margin itself holds nothing to be afraid of


def test_what_is_needed_would_have_decided() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(size=30)
    d = (noise - noise.mean()) / noise.std(ddof=1) * 0.2 - 0.01
    got = paired_difference(d, np.arange(30))
    needed = clusters_needed(got, 0.05)
    assert judge(got, 0.05) == "inconclusive"
    assert needed is not None
    spread = got.se * math.sqrt(30)

    def decides(n: int) -> bool:
        half = stats.t.ppf(0.95, n - 1) * spread / math.sqrt(n)
        return got.mean - half > -0.05 or got.mean + half < 0

    assert decides(needed)
    assert not decides(needed - max(2, needed // 100))


def test_the_detectable_drop_is_found_with_the_power_it_states() -> None:
    rng = np.random.default_rng(8)
    drop = mde(0.02, 29, 0.0, 0.05, 0.8)
    assert drop is not None
    d = rng.normal(-drop, 0.02 * math.sqrt(30), (4000, 30))
    se = d.std(axis=1, ddof=1) / math.sqrt(30)
    found = (d.mean(axis=1) + stats.t.ppf(0.95, 29) * se < 0).mean()
    assert found == pytest.approx(0.8, abs=0.025)


# -- error rates, by simulation ------------------------------------------------------------------------------------------

RUNS = 600
SUITES = {"30 families of 3": [3] * 30, "12 unequal": [20, 10, 5, 5, 5, 5, 1, 1, 1, 1, 1, 1], "1 to 30": list(range(1, 31))}


@pytest.mark.parametrize("sizes", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("family_sd", [0.0, 0.06])
def test_an_unchanged_agent_fails_no_more_often_than_alpha(sizes: list[int], family_sd: float) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    success = np.random.default_rng(9).beta(1.2, 0.6, len(codes)) * 0.8 + 0.1  # away from the ends: effects keep mean zero
    found = simulate(success, codes, 4, 4, 0.05, cluster_sd=family_sd, runs=RUNS, seed=10)
    assert found["regression"] + found["tolerated"] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_tasks_taken_as_independent_would_fail_unchanged_agents_far_more_often() -> None:
    codes = np.repeat(np.arange(20), 15)
    rng = np.random.default_rng(11)
    ours = theirs = 0
    for _ in range(300):
        d = rng.normal(0, 0.08, 20)[codes] + rng.normal(0, 0.25, 300)
        ours += paired_difference(d, codes).p_worse <= 0.05
        theirs += paired_difference(d, np.arange(300)).p_worse <= 0.05
    assert theirs / 300 > 0.10
    assert ours / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
