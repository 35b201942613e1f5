# SPDX-License-Identifier: Apache-2.0
"""Ensembles of reward models: what they are, and that they take the turn-over of the best of n away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agentgym.errors import DefinitionError
from agentgym.evaluators.ensemble import combine

SCRIPT = Path(__file__).parent.parent.parent / "bench" / "repro" / "ensembles.py"


@given(arrays(np.float64, (4, 7), elements=st.floats(-1e3, 1e3)), st.floats(0, 5))
def test_the_ways_are_ordered_and_blind_to_the_order_of_the_members(scores: np.ndarray, penalty: float) -> None:
    mean, worst, doubtful = (combine(scores, how, penalty=penalty) for how in ("mean", "worst", "uncertainty"))  # type: ignore[arg-type]
    assert (worst <= mean + 1e-9).all()
    assert (doubtful <= mean + 1e-9).all()
    np.testing.assert_allclose(combine(scores[::-1], "uncertainty", penalty=penalty), doubtful, atol=1e-9)
    same = np.repeat(scores[:1], 4, 0)
    for how in ("mean", "worst", "uncertainty"):
        np.testing.assert_allclose(combine(same, how, penalty=penalty), scores[0], atol=1e-9)  # type: ignore[arg-type]


def test_what_cannot_be_combined_is_refused() -> None:
    for wrong in ({"how": "best"}, {"penalty": -1.0}):
        with pytest.raises(DefinitionError):
            combine(np.zeros((2, 2)), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError):
        combine(np.zeros((0, 2)))


def test_a_single_reward_model_turns_over_and_the_ensembles_do_not() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--seeds", "3", "--most", "512"], capture_output=True, text=True, check=True
    ).stdout
    ours = json.loads(done.splitlines()[-1])["ours"]
    assert ours["single"]["turn_over"] > 0.3
    for how in ("worst", "uncertainty"):
        assert ours[how]["turn_over"] < 0.05
        assert ours[how]["end"] > ours["single"]["end"] + 0.5
