# SPDX-License-Identifier: Apache-2.0
"""Intervals over clusters: the t interval where they are few, and coverage by simulation on either side of twenty."""

from __future__ import annotations

import numpy as np
import pytest

from agentgym.stats.cluster import Floats, cluster_interval


def ratio(sums: Floats) -> Floats:
    return np.asarray(sums[:, 0] / sums[:, 1])


def test_of_few_equal_clusters_it_is_the_t_interval_of_their_means() -> None:
    from scipy import stats

    means = np.array([0.1, 0.4, 0.3, 0.9, 0.5, 0.2])
    found = cluster_interval(np.column_stack([means * 10, np.full(6, 10.0)]), ratio)
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert found is not None
    assert (found.low, found.high, found.method) == (pytest.approx(low), pytest.approx(high), "t")


def test_clusters_count_by_their_size() -> None:
    table = np.array([[1.0, 4], [2, 5], [9, 30], [3, 6], [1, 8], [12, 20]])
    whole, n = 28 / 73, len(table)
    left_out = [(28 - a) / (73 - b) for a, b in table]
    pseudo = np.array([n * whole - (n - 1) * x for x in left_out])
    found = cluster_interval(table, ratio)
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(pseudo.mean())
    assert (found.high - found.low) / 2 == pytest.approx(2.5706 * pseudo.std(ddof=1) / np.sqrt(n), rel=1e-4)


@pytest.mark.parametrize("clusters", [8, 30])
def test_it_holds_the_truth_where_tasks_of_a_template_are_alike(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    held = naive = 0
    for _ in range(400):
        shares = rng.beta(3, 5, size=clusters)  # each template has a rate of its own
        v = rng.binomial(10, shares)
        found = cluster_interval(np.column_stack([v, np.full(clusters, 10.0)]).astype(float), ratio, draws=400)
        assert found is not None
        held += found.low <= 3 / 8 <= found.high
        p = v.sum() / (10 * clusters)
        naive += abs(p - 3 / 8) <= 1.96 * np.sqrt(p * (1 - p) / (10 * clusters))
    assert held / 400 >= 0.91
    assert held > naive


@pytest.mark.parametrize("clusters", [8, 30])
def test_a_geometric_mean_of_scores_is_covered_too(clusters: int) -> None:
    def headline(s: Floats) -> Floats:
        a, b = 1 - (s[:, 0] + 0.5) / (s[:, 1] + 1), 1 - (s[:, 2] + 0.5) / (s[:, 3] + 1)
        return np.asarray(np.sqrt(a * b))

    rng = np.random.default_rng(clusters)
    truth, held = float(np.sqrt(0.7 * 0.9)), 0
    for _ in range(400):
        a, b = rng.binomial(12, rng.beta(3, 7, size=clusters)), rng.binomial(12, rng.beta(1, 9, size=clusters))
        n = np.full(clusters, 12.0)
        found = cluster_interval(np.column_stack([a, n, b, n]).astype(float), headline, draws=400)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / 400 >= 0.90


def test_clusters_that_are_alike_or_few_tell_nothing_of_others() -> None:
    assert cluster_interval(np.ones((4, 2)), ratio) is None
    assert cluster_interval(np.ones((6, 2)), ratio) is None
    assert cluster_interval(np.ones((25, 2)), ratio) is None
