# SPDX-License-Identifier: Apache-2.0
"""TRL: any environment as what `trl.GRPOTrainer` takes.

    from trl import GRPOTrainer
    trainer = GRPOTrainer(model, **agentgym.training.trl.kit("tools.lookup", split="train"))

TRL's own loop then samples, calls tools and masks what they answered; episodes run in agentgym's environments and are paid by
their verifiers. TRL 1.16 cannot express everything; `losses` says what of a family it drops.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import typing
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, get_args

from agentgym import registry
from agentgym.chat import Message, assistant, call
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, Limits, play, score
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import message_to_openai
from agentgym.protocols import Policy, Sampling
from agentgym.rollout.selection import parse_label
from agentgym.task import content_hash
from agentgym.tokens import linearize
from agentgym.training.groups import advantages

OnEpisode = Callable[[EpisodeResult], None]
Pay = Callable[[EpisodeResult], float | None]
"""What an episode is paid in training; None: it takes no part."""

MOST_ERROR = 1e-2
"""Largest difference between a log-probability as it was sampled and as the trainer computes it; more is an error."""

How = Literal["environment_factory", "rollout_func"]

_OVER = "error: not run, the task has ended"


def kit(
    families: str | Sequence[str],
    *,
    split: str | None = "train",
    variant: str = "control",
    tasks: int = 256,
    on_episode: OnEpisode | None = None,
    how: How = "environment_factory",
    **rollout: Any,
) -> dict[str, Any]:
    """Keyword arguments for ``GRPOTrainer``: ``train_dataset``, ``reward_funcs`` and, where there are tools,
    ``environment_factory``; or ``rollout_func``.

    Args:
        families: one family, with parameters if need be (``tools.lookup:level=2``), or several to mix.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: rows of the data set, the tasks of a family in their order.
        on_episode: called with every episode, scored: for a record, or curves of what the policy is not paid for.
        how: ``environment_factory``: TRL samples and calls the tools. ``rollout_func``: agentgym plays whole episodes with the
            trainer's model and hands over their exact tokens; any family will do, users that talk back included.
        **rollout: with ``rollout_func``, see `Rollout`.

    Raises:
        UsageError: a family that TRL cannot play: its users talk back, or a tool takes what TRL cannot describe.
    """
    from datasets import Dataset

    if how not in get_args(How):
        raise UsageError(f"how is one of {', '.join(get_args(How))}, not {how!r}")
    if how == "rollout_func":
        return _rollout_kit(families, split, variant, tasks, on_episode, rollout)
    if rollout:
        raise UsageError(f'{", ".join(rollout)}: only for how="rollout_func"')

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


# -- whole episodes, played here --------------------------------------------------------------------------------------------


def _rollout_kit(
    families: str | Sequence[str],
    split: str | None,
    variant: str,
    tasks: int,
    on_episode: OnEpisode | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    from datasets import Dataset

    names = [families] if isinstance(families, str) else list(families)
    if not names:
        raise UsageError("name at least one family to train on")
    rows = []
    for index, name in enumerate(names):
        env = _any_environment(name, variant, split)
        for item in distinct(env, tasks):
            prompt = [message_to_openai(m) for m in env.freeze(env.make_task(item)).opening]
            # TRL hands a rollout function the prompts alone: the task's name travels in its last message
            prompt[-1]["task"] = f"{index}:{item}"
            rows.append({"prompt": prompt})
    rollout = Rollout(names, variant=variant, on_episode=on_episode, **options)
    return {"train_dataset": Dataset.from_list(rows), "reward_funcs": [_paid], "rollout_func": rollout}


def distinct(env: ChatEnv, count: int) -> list[str]:
    """So many tasks of the environment, no two of them the same question under different seeds; all, if there are fewer."""
    found: dict[Hashable, str] = {}
    asked = 0
    for round_ in range(1, 9):
        items = env.items(count * round_)
        if len(items) == asked:
            break
        for item in items[asked:]:
            found.setdefault(env.split_key(int(item)) if item.isdigit() else item, item)
        asked = len(items)
        if len(found) >= count:
            break
    return list(found.values())[:count]


def _paid(completions: Sequence[Any], paid: Sequence[float | None], **_: Any) -> list[float | None]:
    return list(paid)


_paid.__name__ = "agentgym"


def _any_environment(name: str, variant: str, split: str | None) -> ChatEnv:
    family, params = parse_label(name)
    return registry.env_class(family)(variant=variant, split=split, **params)


class Rollout:
    """What TRL takes as ``rollout_func``: plays an episode for each prompt and gives its exact tokens.

    Episodes of a batch are under way at once, with the trainer's own model, in evaluation mode. Each becomes one row, tool
    results and users' words masked. What one row cannot hold, and what nobody could score, has no reward, which takes it out of
    its group: an episode whose turns do not continue each other token by token (`forked`), and one that infrastructure spoiled
    (`spoiled`). One that a length limit cut is kept, and marked in the field ``truncated``; with ``overlong="mask"`` its tokens
    do not count in the loss.

    Args:
        names: families, as in `kit`.
        variant: which twin.
        policy: who plays; None: the trainer's model.
        sampling: of each turn.
        limits: of each episode.
        pay: what an episode is paid; None: its reward.
        on_episode: called with each, in the order of the prompts.
        seed: of the sampling; the step is mixed in.
        overlong: ``keep`` or ``mask``.
        parity: whether log-probabilities are compared with the trainer's.

    Raises:
        InfrastructureError: they differ by more than `MOST_ERROR`: it would learn from what it never did.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        variant: str = "control",
        policy: Policy | None = None,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        pay: Pay | None = None,
        on_episode: OnEpisode | None = None,
        seed: int = 0,
        overlong: Literal["keep", "mask"] = "keep",
        parity: bool = True,
    ) -> None:
        self.names = list(names)
        self.variant = variant
        self.policy = policy
        self.sampling = sampling or Sampling(temperature=1.0)
        self.limits = limits
        self.pay: Pay = pay or (lambda result: result.reward)
        self.on_episode = on_episode
        self.seed = seed
        self.overlong = overlong
        self.parity = parity
        self.forked = 0
        """Episodes left out since they are more than one row."""
        self.spoiled = 0
        """Episodes left out since infrastructure failed or nothing could be scored."""
        self.idle = 0
        """Episodes left out since the policy never said anything in them: a clock ran out before its first turn."""
        self.shrunk = 0
        """Groups that were compared over fewer episodes than were played, or over none."""
        self.largest_error = 0.0
        """Largest difference of log-probabilities so far."""

    def __call__(self, prompts: Sequence[Sequence[dict[str, Any]]], trainer: Any) -> dict[str, list[Any]]:
        """One row for each prompt, in their order; TRL has repeated each prompt for its group already."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        step = int(trainer.state.global_step)
        policy = self.policy
        if policy is None:
            from agentgym.policies.hf_model import HFPolicy

            policy = self.policy = HFPolicy.of(model, tokenizer)
        if callable(to := getattr(policy, "set_version", None)):
            to(step)
        results = asyncio.run(self._play(prompts, policy, step))
        if len(results) != len(prompts):
            raise InfrastructureError(f"{len(results)} episodes for {len(prompts)} prompts", retryable=False)
        names = ("prompt_ids", "completion_ids", "logprobs", "env_mask", "paid", "truncated")
        out: dict[str, list[Any]] = {name: [] for name in names}
        for result in results:
            for name, value in zip(names, self._row(result, tokenizer), strict=True):
                out[name].append(value)
            if self.on_episode is not None:
                self.on_episode(result)
        self.shrunk += len(advantages(out["paid"], [str(prompt[-1]["task"]) for prompt in prompts]).shrunk)
        if self.parity:
            self._check(model, out)
        return out

    async def _play(self, prompts: Sequence[Sequence[dict[str, Any]]], policy: Policy, step: int) -> list[EpisodeResult]:
        """Plays them all; results are in the order of the prompts, whichever ends first."""
        repeated: dict[str, int] = {}

        async def one(task: str, repetition: int) -> EpisodeResult:
            index, _, item = task.partition(":")
            env = _any_environment(self.names[int(index)], self.variant, None)
            made = env.make_task(item)
            frozen = env.freeze(made)
            seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{step}:{task}:{repetition}".encode()).digest()[:6], "little")
            return await play(
                env, made, policy, frozen=frozen, task_hash=content_hash(frozen.encode()), trial=repetition, seed=seed,
                sampling=self.sampling, limits=self.limits,
            )  # fmt: skip

        waiting = []
        for prompt in prompts:
            task = str(prompt[-1]["task"])
            repetition = repeated[task] = repeated.get(task, -1) + 1
            waiting.append(one(task, repetition))
        return list(await asyncio.gather(*waiting))

    def _row(
        self, result: EpisodeResult, tokenizer: Any
    ) -> tuple[list[int], list[int], list[float], list[int], float | None, bool]:
        end = int(tokenizer.eos_token_id)
        nothing = ([end], [end], [0.0], [0])
        if result.trajectory.outcome == "infrastructure" or not result.trajectory.turns:
            idle = result.trajectory.outcome != "infrastructure"
            self.idle += idle
            self.spoiled += not idle
            return *nothing, None, False
        rows = linearize(result.trajectory).rows
        truncated = result.trajectory.outcome == "truncated" or any(r.truncated for r in rows)
        if len(rows) != 1 or len(rows[0].token_ids) == rows[0].prompt_len:
            self.forked += len(rows) > 1
            return *nothing, None, truncated
        row = rows[0]
        paid = self.pay(result)
        self.spoiled += paid is None
        begin = row.prompt_len
        mask = row.loss_mask[begin:].tolist()
        if truncated and self.overlong == "mask":
            mask = [0] * len(mask)
        ids = row.token_ids.tolist()
        return ids[:begin], ids[begin:], row.logprobs[begin:].tolist(), mask, None if paid is None else float(paid), truncated

    def _check(self, model: Any, out: dict[str, list[Any]]) -> None:
        """Compares one row with what the trainer will compute, in the mode in which it will."""
        import torch

        at = next((i for i, mask in enumerate(out["env_mask"]) if any(mask)), None)
        if at is None:
            return
        prompt, completion = out["prompt_ids"][at], out["completion_ids"][at]
        ids = torch.tensor([[*prompt, *completion]], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=len(completion) + 1, use_cache=False).logits[0, :-1].float()
        told = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
        mask = torch.tensor(out["env_mask"][at], dtype=torch.bool)
        error = float((told - torch.tensor(out["logprobs"][at]))[mask].abs().max())
        self.largest_error = max(self.largest_error, error)
        if not error <= MOST_ERROR:
            raise InfrastructureError(
                f"log-probabilities as sampled and as the trainer computes them differ by {error:.2g} (up to {MOST_ERROR:g} is"
                " rounding): they are not of the same model. Dropout does that, or an adapter that is off while sampling, or"
                " another precision, or gradient checkpointing with a sampler in training mode",
                retryable=False,
            )
