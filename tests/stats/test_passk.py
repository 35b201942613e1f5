# SPDX-License-Identifier: Apache-2.0
"""pass@k and pass^k: against every subset of the tries, written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.stats.passk import pass_at_k, pass_hat_k, pass_hat_k_of


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_both_are_the_mean_over_all_subsets_of_k_tries(tries: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(tries)))
    subsets = list(itertools.combinations(tries, k))
    n, c = len(tries), sum(tries)
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]))
    assert pass_hat_k(n, c, k) == pytest.approx(np.mean([all(s) for s in subsets]))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_both_are_unbiased_at_any_chance_of_success(k: int) -> None:
    p, n = 0.37, 5
    from scipy.stats import binom

    chance = binom.pmf(range(n + 1), n, p)
    assert chance @ pass_at_k(n, range(n + 1), k) == pytest.approx(1 - (1 - p) ** k)
    assert chance @ pass_hat_k(n, range(n + 1), k) == pytest.approx(p**k)


def test_fewer_tries_than_k_are_refused_and_not_extrapolated() -> None:
    with pytest.raises(ValueError, match="3 scored tries, fewer than k = 4"):
        pass_hat_k([8, 3], [8, 3], 4)
    with pytest.raises(ValueError, match="at least 1"):
        pass_at_k(4, 2, 0)


@pytest.mark.parametrize(("n", "c"), [(4, 5), (4, -1), (4, 1.5), (4, float("nan"))])
def test_what_is_no_count_is_refused(n: int, c: float) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        pass_at_k(n, c, 1)


def test_tasks_may_have_unequal_numbers_of_tries() -> None:
    assert pass_hat_k_of([[1, 1, 1, 0], [1, 0]], 2).tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="NaN"):
        pass_hat_k_of([[1, float("nan")]], 1)


def test_a_thousand_tries_neither_overflow_nor_lose_digits() -> None:
    assert pass_hat_k(1000, 500, 4) == pytest.approx(500 * 499 * 498 * 497 / (1000 * 999 * 998 * 997))
    assert pass_at_k(1000, 1000, 500) == 1.0
