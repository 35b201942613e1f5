# SPDX-License-Identifier: Apache-2.0
"""A saved run teaches: trained on pairs of its own episodes, without playing, a model is paid more on held-out tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "offline_dpo" / "train.py"


@pytest.mark.timeout(900)
def test_pairs_of_a_saved_run_raise_what_held_out_tasks_are_paid_beyond_noise() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE), "--seeds", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told["reward_after"] > told["reward_before"], told
    assert told["low"] > 0, told
    assert told["rejected"] < told["chosen"], told
