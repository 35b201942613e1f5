# SPDX-License-Identifier: Apache-2.0
"""The whole way on a CPU: a tiny model learns a task of several turns from its own episodes, with exact tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_grpo" / "train.py"


@pytest.mark.timeout(1200)
def test_a_tiny_model_learns_a_task_of_three_turns_that_imitation_alone_has_not_taught_it(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--seed", "0", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["held_out"] == 200
    assert told["solved_after_grpo"] >= 0.9, told
    assert told["solved_after_grpo"] > told["solved_after_imitation"], told
    assert told["largest_logprob_error"] <= 1e-4, "what was sampled is what is trained on"
    assert len(list(tmp_path.iterdir())) > 10, "every step is a run on record"
