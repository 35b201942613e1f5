# SPDX-License-Identifier: Apache-2.0
"""verifiers (Prime Intellect): families without tools as a ``Taskset``, which its trainer and its evals load from a package.

    # my_package/__init__.py
    from agentgym.training.verifiers import taskset

    Adding = taskset("math.add", split="train")

The agent is verifiers' own, and so are tokens and turns; the answer is then played into the environment, which pays it. What an
environment would answer in the middle cannot be had there: families with tools, or whose users talk back, are refused.
Written against verifiers 0.4.0 (its ``v1``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from agentgym import registry
from agentgym.chat import Message
from agentgym.env import ChatEnv
from agentgym.episode import score, waits
from agentgym.errors import InfrastructureError, UsageError
from agentgym.rollout.selection import parse_label
from agentgym.task import TaskId
from agentgym.training import engine
from agentgym.training.engine import tasks_of


def losses(family: str, variant: str = "control") -> list[str]:
    """What of a family is lost under verifiers, in sentences; one that is refused says so in an error.

    Raises:
        UsageError: the family has tools, or somebody talks back.
    """
    _environment(family, variant)
    said = engine.losses(family, variant, one_row=False)
    said.append("tokens, turns and limits are verifiers' own; only the last answer is played into the environment")
    said.append("an episode that cannot be scored becomes an error of its trace, which its trainer leaves out")
    return said


def taskset(families: str | Sequence[str], *, split: str | None = "train", variant: str = "control", tasks: int = 256) -> Any:
    """A subclass of ``verifiers.v1.Taskset``, to be exported by a package.

    Args:
        families: one family, with parameters if need be, or several, which take turns.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family.

    Raises:
        UsageError: a family has tools, or somebody talks back.
    """
    import verifiers.v1 as vf

    for name in [families] if isinstance(families, str) else families:
        _environment(name, variant)

    class AgentGymData(vf.TaskData):  # type: ignore[misc, unused-ignore]
        """What travels: the opening, and which task it is."""

        task_id: str = ""

    class AgentGymTask(vf.Task[AgentGymData]):  # type: ignore[misc, unused-ignore]
        """One task."""

        @property
        def key(self) -> str:
            """The task's id: the same in every load."""
            return str(self.data.task_id)

        @vf.reward(weight=1.0)  # type: ignore[untyped-decorator, unused-ignore]
        async def agentgym(self, trace: Any) -> float:
            """What the environment pays for the last answer."""
            return await reward(self.data.task_id, trace.last_reply)

    class AgentGymTaskset(vf.Taskset[AgentGymTask, vf.TasksetConfig]):  # type: ignore[misc, unused-ignore]
        """The tasks of agentgym's families."""

        def load(self) -> Iterable[Any]:
            """The tasks in their order."""
            for task_id, messages in tasks_of(families, split=split, variant=variant, tasks=tasks):
                told = [m["content"] for m in messages if m["role"] == "system"]
                asked = [m["content"] for m in messages if m["role"] != "system"]
                data = AgentGymData(
                    id=task_id,
                    name=task_id,
                    task_id=task_id,
                    prompt="\n\n".join(asked),
                    system_prompt="\n\n".join(told) or None,
                )
                yield AgentGymTask(data, self.config.task)

    return AgentGymTaskset


async def reward(task_id: str, answer: str) -> float:
    """What the environment pays for an answer.

    Raises:
        InfrastructureError: it could not be scored.
    """
    family, variant, item = TaskId.parse(task_id)
    core = _environment(family, variant)

    def judge() -> float | None:
        core.reset(options={"item": item})
        _, _, terminated, truncated, _ = core.step(Message("assistant", str(answer)))
        if not (terminated or truncated):
            core.finish("environment")
        return score(core, core.trajectory, core.frozen_task).reward

    paid = await asyncio.get_running_loop().run_in_executor(engine.threads(), judge) if waits(core) else judge()
    if paid is None:
        raise InfrastructureError(f"{task_id}: a verifier could not score the answer")
    return float(paid)


def _environment(name: str, variant: str) -> ChatEnv:
    family, params = parse_label(name)
    env = registry.env_class(family)(variant=variant, **params)
    if env.tools or type(env).respond is not ChatEnv.respond:
        raise UsageError(
            f"{name}: it has tools, or somebody answers the agent, and a Taskset of verifiers cannot ask the environment in "
            "the middle of an episode: train it with AReaL, verl, slime, SkyRL or TRL"
        )
    return env
