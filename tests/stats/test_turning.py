# SPDX-License-Identifier: Apache-2.0
"""The turning point of a gold curve: found without a formula, and not found in what never turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.stats.turning import turning_point


def test_worked_example() -> None:
    # rising side pools 0.5 and 0.3 to 0.4; the falling side stands
    found = turning_point([[0.1, 0.5, 0.3, 0.8, 0.6, 0.2]])
    assert found.fitted.tolist() == pytest.approx([0.1, 0.4, 0.4, 0.8, 0.6, 0.2])
    assert (found.at, found.peak, found.end, found.drop) == (3, 0.8, 0.2, pytest.approx(0.6))
    assert found.low is None


def test_a_curve_that_never_turns_peaks_at_its_end_and_has_lost_nothing() -> None:
    for curve in ([0.1, 0.2, 0.9], [0.5, 0.5, 0.5]):
        found = turning_point([curve])
        assert (found.at, found.drop) == (2, 0.0)


def test_the_loss_after_a_real_turn_is_beyond_noise_and_noise_alone_is_not() -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(60)
    curve = np.where(steps < 20, steps / 20, 1 - (steps - 20) / 80)
    turned = turning_point([curve + 0.05 * rng.normal(size=60) for _ in range(5)], window=7)
    assert abs(turned.at - 20) <= 4
    assert turned.low is not None
    assert turned.low > 0.2
    false = 0
    for _ in range(60):
        found = turning_point([0.5 + 0.05 * rng.normal(size=60) for _ in range(5)], window=7)
        false += found.low is not None and found.low > 0
    assert false <= 15, "the peak was chosen by the same data: more than 2.5 % of flat curves, but few"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_fit_rises_to_its_peak_and_falls_from_there_and_no_other_split_is_nearer(gold: list[float]) -> None:
    found = turning_point([gold])
    assert (np.diff(found.fitted[: found.at + 1]) >= -1e-12).all()
    assert (np.diff(found.fitted[found.at :]) <= 1e-12).all()
    error = ((found.fitted - np.array(gold)) ** 2).sum()
    for flat in (np.mean(gold), 0.5):  # two unimodal curves among all
        assert error <= ((flat - np.array(gold)) ** 2).sum() + 1e-9
    assert found.drop >= 0


def test_what_has_no_curve_is_refused() -> None:
    with pytest.raises(UsageError, match="one and the same length"):
        turning_point([[1.0], [1.0, 2.0]])
    with pytest.raises(UsageError, match="must be known"):
        turning_point([[1.0, float("nan")]])
