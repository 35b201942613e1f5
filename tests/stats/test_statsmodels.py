# SPDX-License-Identifier: Apache-2.0
"""Agreement with statsmodels, from what it said about fixed data (`reference_statsmodels.py` asks it again)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.stats.exact import lower_bound, upper_bound
from agentgym.stats.multiple import holm
from agentgym.stats.paired import mcnemar_p, paired_difference
from agentgym.stats.power import chances

THEIRS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/statsmodels.json").read_text())


def test_the_cluster_robust_interval_agrees() -> None:
    ref = THEIRS["cluster"]
    got = paired_difference(np.array(ref["d"]), np.array(ref["clusters"]))
    assert (got.mean, got.se) == (pytest.approx(ref["mean"]), pytest.approx(ref["se"]))
    assert (got.low, got.high) == (pytest.approx(ref["low"]), pytest.approx(ref["high"]))
    assert got.p_worse == pytest.approx(ref["p_two_sided"] / 2 if got.mean < 0 else 1 - ref["p_two_sided"] / 2)


def test_holm_agrees() -> None:
    assert holm(THEIRS["holm"]["p"]) == pytest.approx(THEIRS["holm"]["adjusted"])


@pytest.mark.parametrize(("worse", "better", "two_sided"), THEIRS["mcnemar"])
def test_mcnemar_agrees(worse: int, better: int, two_sided: float) -> None:
    assert min(1.0, 2 * mcnemar_p(max(worse, better), min(worse, better))) == pytest.approx(two_sided)


@pytest.mark.parametrize(("effect", "n", "power"), THEIRS["power"])
def test_power_of_the_t_test_agrees(effect: float, n: int, power: float) -> None:
    got = chances(1 / np.sqrt(n), n - 1, -effect, margin=0.0)
    assert got.regression == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize(("k", "n", "low", "high"), THEIRS["clopper"])
def test_exact_binomial_bounds_agree(k: int, n: int, low: float, high: float) -> None:
    assert (lower_bound(k, n), upper_bound(k, n)) == (pytest.approx(low), pytest.approx(high))
