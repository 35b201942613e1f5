# SPDX-License-Identifier: Apache-2.0
"""What held-out tasks come to before and after a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.errors import InfrastructureError
from agentgym.policies.oracle import OraclePolicy
from agentgym.protocols import EpisodeContext, Policy
from agentgym.training.run import Training, held_out, measure

OPTIONS = Training(("math.add:level=3",), "hf:x", held_out=10)


class KnowsMost(OraclePolicy):
    """Answers every sum, but for so many tasks for which the server is gone."""

    def __init__(self, gone: int) -> None:
        super().__init__("honest")
        self.lost = held_out(OPTIONS)[:gone]

    def begin(self, context: EpisodeContext) -> Policy:
        if context.task_id in self.lost:
            raise InfrastructureError("the server is gone", retryable=False)
        return super().begin(context)


def test_an_episode_that_infrastructure_spoiled_is_counted_and_is_not_a_wrong_answer(tmp_path: Path) -> None:
    found = measure(KnowsMost(3), OPTIONS, tmp_path)
    assert (found.items, found.unscored, found.gold) == (10, 3, 1.0)


def test_nothing_is_said_of_held_out_tasks_of_which_none_could_be_scored(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="every episode failed"):
        measure(KnowsMost(10), OPTIONS, tmp_path)
