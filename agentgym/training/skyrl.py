# SPDX-License-Identifier: Apache-2.0
"""SkyRL: any environment as a ``BaseTextEnv`` of skyrl-gym. SkyRL's generator owns the tokens; text goes in and out.

    agentgym.training.skyrl.register("agentgym-lookup", "tools.lookup")

and ``env_class: agentgym-lookup`` in the rows of `dataset`. Written against skyrl-gym 0.4.0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentgym import registry
from agentgym.chat import Message
from agentgym.env import ChatEnv
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import message_to_openai
from agentgym.rollout.selection import parse_label
from agentgym.task import TaskId
from agentgym.tool_text import parse_tool_calls, to_text_conversation
from agentgym.training import engine
from agentgym.training.engine import dataset_of, tasks_of

if TYPE_CHECKING:
    Env: Any


def dataset(
    families: str | Sequence[str], *, env: str, split: str | None = "train", variant: str = "control", tasks: int = 256
) -> Any:
    """A ``datasets.Dataset`` with SkyRL's columns: ``prompt`` (tools told in words), ``env_class``, ``task_id``.

    Args:
        families: one, or several, which take turns.
        env: the id that was given to `register`.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family.
    """
    found = tasks_of(families, split=split, variant=variant, tasks=tasks)
    return dataset_of({"prompt": prompt_of(task_id), "env_class": env, "task_id": task_id} for task_id, _ in found)


def prompt_of(task_id: str) -> list[dict[str, Any]]:
    """The first prompt of a task for a model without a tool channel."""
    core, item = _made(task_id)
    opening = core.freeze(core.make_task(item)).opening
    return [message_to_openai(m) for m in to_text_conversation(opening, core.tool_specs)]


def losses(family: str, variant: str = "control") -> list[str]:
    """What of a family is lost under SkyRL, in sentences."""
    name, params = parse_label(family)
    env = registry.env_class(name)(variant=variant, **params)
    said = [s for s in engine.losses(family, variant, one_row=False) if "rewards of turns" not in s]
    said.append("tokens are SkyRL's: what it renders and re-tokenizes is not ours to prove")
    said.append("skyrl-gym has no truncation: an episode that max_turns cuts is done like any other (metadata says truncated)")
    said.append("an episode that cannot be scored raises, and SkyRL's generator fails with it: it has no reward that is none")
    if env.tools:
        said.append("tools are told in the prompt and answered in messages of the user; calls are read out of text")
    return said


def register(id: str, families: str | Sequence[str] = ()) -> None:
    """Makes the environment known to skyrl-gym under ``id``; call it in the process that makes environments.

    Args:
        id: any name.
        families: checked for being there; which task is played stands in each row.
    """
    import skyrl_gym

    for name in [families] if isinstance(families, str) else families:
        registry.env_class(parse_label(name)[0])
    skyrl_gym.register(id=id, entry_point="agentgym.training.skyrl:Env")


class _Env:
    """One episode. `Env` is this class on top of skyrl-gym's ``BaseTextEnv``.

    Args:
        env_config: SkyRL's configuration of the environment; not read.
        extras: the row of the data set; ``task_id`` names the task.
    """

    def __init__(self, env_config: Any = None, extras: dict[str, Any] | None = None) -> None:
        super().__init__()
        row = copy.deepcopy(dict(extras or {}))
        info = row.get("extra_info") or {}
        task_id = row.get("task_id") or info.get("task_id")
        if not task_id:
            raise UsageError("the row has no task_id; make the data set with agentgym.training.skyrl.dataset")
        self.task_id = str(task_id)
        self._core, self._item = _made(self.task_id)
        self.max_turns = self._core.max_turns
        self._truncated = False

    def init(self, prompt: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Begins the task; the prompt is the task's own, whatever the row says."""
        observation, _ = self._core.reset(options={"item": self._item})
        told = to_text_conversation(list(observation), self._core.tool_specs)
        return [message_to_openai(m) for m in told], {"task_id": self.task_id}

    def step(self, action: str) -> dict[str, Any]:
        """One turn.

        Raises:
            InfrastructureError: the episode cannot be scored; a reward of 0 would be a lie.
        """
        message = parse_tool_calls(Message("assistant", str(action)))
        new, reward, terminated, truncated, info = self._core.step(message)
        self._truncated = truncated
        if "unscorable" in info:
            raise InfrastructureError(f"{self.task_id}: {info['unscorable']}")
        told = [message_to_openai(m) for m in to_text_conversation(list(new), ())]
        done = terminated or truncated
        metadata = {"task_id": self.task_id, "truncated": truncated}
        return {"observations": [] if done else told, "reward": float(reward), "done": done, "metadata": metadata}

    def get_metrics(self) -> dict[str, Any]:
        """Turns, and whether the episode was truncated."""
        return {"turns": len(self._core.trajectory.turns), "truncated": float(self._truncated)}

    def close(self) -> None:
        """Gives back what the episode holds."""
        self._core.close()


def _made(task_id: str) -> tuple[ChatEnv, str]:
    family, variant, item = TaskId.parse(task_id)
    name, params = parse_label(family)
    return registry.env_class(name)(variant=variant, **params), item


def __getattr__(name: str) -> Any:
    if name == "Env":  # made when it is asked for: its base is skyrl-gym's
        from skyrl_gym.envs.base_text_env import BaseTextEnv

        made = type("Env", (_Env, BaseTextEnv), {"__module__": __name__, "__doc__": _Env.__doc__})
        globals()[name] = made
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
