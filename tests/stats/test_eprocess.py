# SPDX-License-Identifier: Apache-2.0
"""E-processes: error rates under peeking after every value, which a t test that is peeked at does not keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agentgym.stats.eprocess import BETS, EProcess, paths


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.sampled_from([-0.1, -0.05, 0.0, 0.2]), st.integers(1, 7))
def test_evidence_is_the_formula_whatever_the_batches(x: list[float], h: float, batch: int) -> None:
    e = EProcess(h)
    for start in range(0, len(x), batch):
        e.feed(x[start : start + batch])
    expected = [np.mean([np.prod([1 + bet * (v - h) / (1 + h) for v in x[: i + 1]]) for bet in BETS]) for i in range(len(x))]
    assert math.exp(e.log_e) == pytest.approx(expected[-1])
    assert e.p == pytest.approx(1 / max(1.0, *expected))
    assert np.exp(paths(np.array([x]), h))[0] == pytest.approx(expected)
    assert e.n == len(x)


@pytest.mark.parametrize("h", [-0.05, 0.0])
@pytest.mark.parametrize("alpha", [0.02, 0.05])
def test_peeking_after_every_value_keeps_the_error_rate(h: float, alpha: float) -> None:
    runs, n = 2000, 400
    rng = np.random.default_rng(1)
    p = (1 - h) / 2
    walls = np.where(rng.random((runs, n)) < p, -1.0, 1.0)  # mean exactly h, as spread as can be
    k = 4
    tasks = (rng.binomial(k, 0.6, (runs, n)) - rng.binomial(k, 0.6 - h, (runs, n))) / k  # mean h: two arms of four trials
    for values in (walls, tasks):
        ever = (paths(values, h).max(axis=1) >= math.log(1 / alpha)).mean()
        assert ever <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_a_t_test_that_is_peeked_at_does_not() -> None:
    rng = np.random.default_rng(2)
    d = (rng.binomial(4, 0.6, (500, 400)) - rng.binomial(4, 0.6, (500, 400))) / 4
    looks = np.arange(20, 401, 20)
    worse = np.zeros(500, dtype=bool)
    for n in looks:
        t = d[:, :n].mean(axis=1) / (d[:, :n].std(axis=1, ddof=1) / math.sqrt(n))
        worse |= t < stats.t.ppf(0.05, n - 1)
    assert worse.mean() > 0.13


def test_real_drops_are_found_early() -> None:
    rng = np.random.default_rng(3)
    d = (rng.binomial(4, 0.6, (300, 400)) - rng.binomial(4, 0.5, (300, 400))) / 4  # turned: the candidate is 10 points worse
    crossed = paths(d, 0.0) >= math.log(1 / 0.02)
    assert crossed.any(axis=1).mean() > 0.95
    assert np.median(crossed.argmax(axis=1)) < 150


def test_what_it_cannot_bound_is_refused() -> None:
    e = EProcess(0.0)
    for wrong in ([1.5], [math.nan], [-2.0]):
        with pytest.raises(ValueError, match="from -1 to 1"):
            e.feed(wrong)
    assert e.n == 0
    with pytest.raises(ValueError, match="between -1 and 1"):
        EProcess(-1.0)
    e.feed([])
    assert (e.n, e.p) == (0, 1.0)
