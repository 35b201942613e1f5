# SPDX-License-Identifier: Apache-2.0
"""Look values up in a store, one by one, and add them: the smallest task that cannot be done in one turn.

Made for learning: its turns are short, its reward is exact, and a tiny model can learn it in minutes on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from agentgym.chat import call, submit
from agentgym.env import Plan, Task, ToolEnv, tool
from agentgym.errors import ToolError, UsageError
from agentgym.evaluators.math_answer import math_answer, used_tool
from agentgym.tasks.math.base import Levelled, between


class Lookup(Levelled, ToolEnv):
    """The sum of the values that stand under ``level`` + 1 keys of a store of ten.

    Parameters:
        most: the largest value; the smallest is 0. With small values the answer can be guessed now and then.
    """

    family = "tools.lookup"
    top_level = 4
    max_turns = 8
    gold = [math_answer()]
    metrics = [used_tool("get")]
    parameters: ClassVar[Mapping[str, Any]] = {"level": 1, "most": 9999}

    most: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.most < 1:
            raise UsageError(f"{self.family}: most is the largest value and at least 1, not {self.most}")

    @tool
    def get(self, key: str) -> str:
        """Reads one value of the store.

        Args:
            key: e.g. "k3".
        """
        values = self.task.hidden["values"]
        if key not in values:
            raise ToolError(f"there is no key {key[:20]!r}; keys are k0 to k9")
        return str(values[key])

    def new_task(self, rng: np.random.Generator) -> Task:
        """Ten values, some of whose keys are asked for; the values are hidden, and found only by asking."""
        values = {f"k{i}": between(rng, 0, self.most) for i in range(10)}
        wanted = [f"k{i}" for i in rng.permutation(10)[: self.level + 1]]
        question = (
            f"A store holds a number under each of the keys k0 to k9. What is the sum of {' + '.join(wanted)}? "
            "Read each value with `get` and submit the sum as the answer."
        )
        total = sum(values[key] for key in wanted)
        return Task(
            opening=question, gold=str(total), hidden={"values": values, "wanted": wanted}, tags=(f"level:{self.level}",)
        )

    def honest(self, task: Task) -> Plan:
        """Reads what is asked for and adds it up."""
        total = 0
        for key in task.hidden["wanted"]:
            observation = yield call("get", key=key)
            total += int(observation[0].text)
        yield submit(answer=str(total))

    def lazy(self, task: Task) -> Plan:
        """Submits at once, without an answer."""
        yield submit()
