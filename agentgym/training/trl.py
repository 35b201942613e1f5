# SPDX-License-Identifier: Apache-2.0
"""TRL: any environment as what `trl.GRPOTrainer` takes.

    from trl import GRPOTrainer
    trainer = GRPOTrainer(model, **agentgym.training.trl.kit("tools.lookup", split="train"))

TRL's own loop then samples, calls tools and masks what they answered; episodes run in agentgym's environments and are paid by
their verifiers. TRL 1.16 cannot express everything; `losses` says what of a family it drops.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from agentgym import registry
from agentgym.chat import Message, assistant, call
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, score
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import message_to_openai
from agentgym.rollout.selection import parse_label

OnEpisode = Callable[[EpisodeResult], None]

_OVER = "error: not run, the task has ended"


def kit(
    families: str | Sequence[str],
    *,
    split: str | None = "train",
    variant: str = "control",
    tasks: int = 256,
    on_episode: OnEpisode | None = None,
) -> dict[str, Any]:
    """Keyword arguments for ``GRPOTrainer``: ``train_dataset``, ``reward_funcs`` and, where there are tools,
    ``environment_factory``.

    Args:
        families: one family, with parameters if need be (``tools.lookup:level=2``), or several to mix.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: rows of the data set, the tasks of a family in their order.
        on_episode: called with every episode, scored: for a record, or curves of what the policy is not paid for.

    Raises:
        UsageError: a family that TRL cannot play: its users talk back, or a tool takes what TRL cannot describe.
    """
    from datasets import Dataset

    names = [families] if isinstance(families, str) else list(families)
    if not names:
        raise UsageError("name at least one family to train on")
    environments = {name: _environment(name, variant, split) for name in names}
    with_tools = {name for name, env in environments.items() if env.tools}
    if with_tools and len(with_tools) < len(names):
        raise UsageError(f"TRL cannot mix families with tools ({', '.join(sorted(with_tools))}) and without in one training")
    rows = []
    for name, env in environments.items():
        for item in env.items(tasks):
            prompt = [message_to_openai(m) for m in env.freeze(env.make_task(item)).opening]
            rows.append({"prompt": prompt, "environment": name, "task": item})
    result: dict[str, Any] = {"train_dataset": Dataset.from_list(rows), "reward_funcs": [_reward(names, variant, on_episode)]}
    if with_tools:
        factories = {name: _factory(name, variant, split) for name in names}
        result["environment_factory"] = factories if len(names) > 1 else factories[names[0]]
    return result


def losses(family: str, variant: str = "control") -> list[str]:
    """What of a family is lost under TRL's trainer, in sentences; empty where nothing is."""
    env = _environment(family, variant, None)
    said = []
    if env.tools:
        said.append("several tool calls of one message are played as turns of their own, in TRL's order")
        said.append(
            f"an episode goes on until the model stops calling tools or TRL's limit of iterations, not {env.max_turns} turns"
        )
    said.append("rewards of turns are added up into one reward of the episode")
    said.append("an answer that TRL cuts at max_completion_length is paid as it stands, not as truncated")
    return said


def _environment(name: str, variant: str, split: str | None) -> ChatEnv:
    family, params = parse_label(name)
    env = registry.env_class(family)(variant=variant, split=split, **params)
    if env.max_turns > 1 and not env.tools and type(env).respond is not ChatEnv.respond:
        raise UsageError(f"{name}: somebody answers the agent's messages, and TRL has no turns of a user: train it elsewhere")
    return env


class _Seat:
    """One environment as TRL plays it; reused for many episodes. Public functions of subclasses are tools to TRL."""

    def __init__(self, env: ChatEnv) -> None:
        self._env = env
        self._over = True
        self._failed = False

    def reset(self, **row: Any) -> None:
        """Begins the task that a row of the data set names; its prompt holds the opening already."""
        self._failed = False
        self._env.reset(options={"item": str(row["task"])})
        self._over = False

    def _step(self, message: Message) -> str:
        if self._over:
            return _OVER
        try:
            observation, _, terminated, truncated, _ = self._env.step(message)
        except InfrastructureError:
            # nobody's score: the episode gets none, and TRL leaves it out of its group
            self._failed = self._over = True
            raise
        self._over = terminated or truncated
        return "\n".join(m.text for m in observation)

    def _finish(self, completion: Sequence[dict[str, Any]]) -> EpisodeResult | None:
        """Ends the episode with the last message, and scores it; None where it failed for want of something."""
        last = completion[-1] if completion else {}
        try:
            if not self._over and last.get("role") == "assistant" and not last.get("tool_calls"):
                self._step(assistant(str(last.get("content") or "")))
            if self._failed:
                return None
            if not self._over:
                self._env.finish("environment")
                self._over = True
        except InfrastructureError:
            return None
        return score(self._env, self._env.trajectory, self._env.frozen_task)


def _factory(name: str, variant: str, split: str | None) -> Callable[[], _Seat]:
    """A callable without arguments that makes a seat whose methods are the family's tools."""
    env = _environment(name, variant, split)
    members = {tool: _method(tool, function.function) for tool, function in env.tools.items()}
    kind = type("".join(part.title() for part in env.family.replace("_", ".").split(".")), (_Seat,), members)

    def make() -> _Seat:
        seat: _Seat = kind(_environment(name, variant, split))
        return seat

    return make


def _method(name: str, function: Callable[..., Any]) -> Callable[..., str]:
    """A method that TRL describes to the model as our tool, and that hands over whatever the model passes: it is the
    environment that says, in words for the agent, what is wrong with an argument."""
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function)

    def method(self: _Seat, **arguments: Any) -> str:
        return self._step(call(name, **arguments))

    method.__name__ = name
    method.__doc__ = inspect.getdoc(function)
    method.__annotations__ = {**{p: hints[p] for p in signature.parameters if p != "self"}, "return": str}
    parameters = [p.replace(annotation=hints.get(n, p.annotation)) for n, p in signature.parameters.items()]
    method.__signature__ = signature.replace(parameters=parameters, return_annotation=str)  # type: ignore[attr-defined]
    try:
        from transformers.utils import get_json_schema

        get_json_schema(method)
    except ImportError:
        pass
    except Exception as e:  # whatever transformers cannot describe, TRL would refuse later with less to go by
        raise UsageError(f"the tool {name!r} cannot be described to TRL: {e}") from e
    return method


def _reward(names: Sequence[str], variant: str, on_episode: OnEpisode | None) -> Callable[..., list[float | None]]:
    def agentgym(completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        seats = kwargs.get("environments")
        if seats is None:
            seats = [_Seat(_environment(name, variant, None)) for name in kwargs["environment"]]
            for seat, item in zip(seats, kwargs["task"], strict=True):
                seat.reset(task=item)
        rewards: list[float | None] = []
        for seat, completion in zip(seats, completions, strict=True):
            result = seat._finish(completion)
            # TRL reads None as "not scored", and a plain float alone as a reward
            rewards.append(None if result is None or result.reward is None else float(result.reward))
            if result is not None and on_episode is not None:
                on_episode(result)
        return rewards

    return agentgym
