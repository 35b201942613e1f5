# SPDX-License-Identifier: Apache-2.0
"""Power: the published table is reproduced by the formula and by simulation, and both agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from agentgym.stats.power import chances, simulate, standard_error

TABLE = {  # families, tasks each, trials, margin -> true shift -> (pass, regression); None: not given
    (10, 6, 4, 0.05): {0.0: (0.35, 0.05), -0.02: (0.20, 0.13), -0.05: (0.06, 0.35), -0.10: (None, 0.77)},
    (20, 15, 4, 0.05): {0.0: (0.89, 0.04), -0.02: (0.54, 0.27), -0.05: (0.05, 0.86), -0.10: (None, 1.0)},
    (30, 3, 4, 0.10): {0.0: (0.95, 0.04), -0.02: (0.86, 0.11), -0.05: (0.52, 0.42), -0.10: (0.06, 0.92)},
    (30, 10, 8, 0.03): {0.0: (0.76, 0.06), -0.02: (0.20, 0.50), -0.05: (0.00, 0.99), -0.10: (None, 1.0)},
}
ROWS = [(design, shift, *expected) for design, row in TABLE.items() for shift, expected in row.items()]


@pytest.fixture(scope="module")
def beta() -> np.ndarray:
    return np.random.default_rng(0).beta(1.2, 0.6, 100_000)


@pytest.mark.parametrize(("design", "shift", "passed", "worse"), ROWS)
def test_the_formula_reproduces_the_measured_table(
    design: tuple[int, int, int, float], shift: float, passed: float | None, worse: float, beta: np.ndarray
) -> None:
    families, tasks, trials, margin = design
    se = standard_error(families, tasks, trials, trials, float((beta * (1 - beta)).mean()), 0.03)
    got = chances(se, families - 1, shift, margin)
    assert sum(got) == pytest.approx(1.0)
    assert got.regression == pytest.approx(worse, abs=0.06)
    if passed is not None:
        assert got.passed == pytest.approx(passed, abs=0.03)


@pytest.mark.parametrize("design", [(10, 6, 4, 0.05), (30, 3, 4, 0.10), (30, 10, 8, 0.03)], ids=str)
@pytest.mark.parametrize("shift", [0.0, -0.02, -0.05])
def test_simulation_reproduces_the_measured_table(design: tuple[int, int, int, float], shift: float, beta: np.ndarray) -> None:
    families, tasks, trials, margin = design
    passed, worse = TABLE[design][shift]
    runs = 400
    found = dict.fromkeys(("pass", "tolerated", "regression", "inconclusive"), 0.0)
    codes = np.repeat(np.arange(families), tasks)
    for part in range(4):  # the table draws new tasks for every run; four suites are enough to see it
        success = beta[part * 500 : part * 500 + families * tasks]
        one = simulate(success, codes, trials, trials, margin, shift=shift, cluster_sd=0.03, runs=runs // 4, seed=part)
        for name, share in one.items():
            found[name] += share / 4
    for share, expected in ((found["pass"] + found["tolerated"], passed), (found["regression"], worse)):
        assert expected is not None
        # 0.03: the table has two digits, and a shift is cut off where a chance would leave 0..1
        assert share == pytest.approx(expected, abs=3 * math.sqrt(max(expected * (1 - expected), 0.01) / runs) + 0.03)


def test_the_formula_is_the_noncentral_t_distribution() -> None:
    got = chances(0.02, 19, -0.05, 0.02)
    t = stats.t.ppf(0.95, 19)
    assert got.regression == pytest.approx(stats.nct.cdf(-t, 19, -2.5), abs=1e-6)
    assert got.passed == pytest.approx(stats.nct.sf(t, 19, -1.5), abs=1e-6)


def test_chances_are_chances_however_small_the_error() -> None:
    for se in (1e-12, 1e-4, 0.0017, 0.01, 1.0, 1e6):
        for shift in (0.0, -0.01, -0.05, -0.5):
            got = chances(se, 9, shift, 0.05)
            assert all(0.0 <= p <= 1.0 for p in got)
            assert sum(got) == pytest.approx(1.0)
    assert chances(1e-12, 9, -0.06, 0.05).regression == pytest.approx(1.0)
    assert chances(1e-12, 9, -0.04, 0.05).passed == pytest.approx(1.0)


def test_baseline_trials_and_tasks_buy_precision_as_the_formula_says() -> None:
    once = standard_error(20, 10, 4, 4, 0.15)
    assert standard_error(20, 10, 4, 16, 0.15) / once == pytest.approx(math.sqrt(1.25 / 2))
    assert standard_error(80, 10, 4, 4, 0.15) == pytest.approx(once / 2)
    assert standard_error(20, 10, 1000, 1000, 0.0, 0.1) == pytest.approx(0.1 / math.sqrt(20))


def test_equal_seeds_give_equal_simulations() -> None:
    success = np.full(60, 0.6)
    codes = np.repeat(np.arange(10), 6)
    first = simulate(success, codes, 2, 4, 0.05, runs=50, seed=3)
    assert first == simulate(success, codes, 2, 4, 0.05, runs=50, seed=3)
    assert sum(first.values()) == pytest.approx(1.0)
