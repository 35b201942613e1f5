# SPDX-License-Identifier: Apache-2.0
"""AReaL: any environment as a `RolloutWorkflow` (white box), or as an agent behind AReaL's own proxy (black box).

    from agentgym.training import areal

    with PPOTrainer(config, train_dataset=areal.dataset("tools.lookup")) as trainer:
        trainer.train(workflow="agentgym.training.areal.Workflow",
                      workflow_kwargs=dict(gconfig=config.gconfig, tokenizer=config.tokenizer_path, group=8))

With ``group`` the workflow plays all episodes of a task itself and hands over advantages, each episode compared with the others
of its task: exact however many rows an episode makes, and whatever failed. Without it AReaL makes the groups; release 1.0 does
so by position in the batch, so every episode is then exactly one row, and one that cannot be scored takes its group along.

Written against AReaL 1.0.4 and the keys that its main branch adds; `problems` reads a configuration for what would undo this.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentgym import registry
from agentgym.chat import Message
from agentgym.episode import play, waits
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import from_openai, message_to_openai
from agentgym.protocols import Completion, FinishReason, PolicyBase, Sampling, Usage
from agentgym.rollout.selection import parse_label
from agentgym.task import TaskId
from agentgym.tokens.rows import Row
from agentgym.tool_text import ToolFormat, parse_tool_calls
from agentgym.toolspec import ToolSpec
from agentgym.training import engine
from agentgym.training.engine import OnEpisode, Piece, Played, Seat, Wrap, dataset_of, play_task, tasks_of
from agentgym.training.groups import Baseline, advantages

if TYPE_CHECKING:
    Workflow: Any

_log = logging.getLogger("agentgym.training.areal")

Release = Literal["1.0", "main"]

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def dataset(families: str | Sequence[str], *, split: str | None = "train", variant: str = "control", tasks: int = 256) -> Any:
    """A ``datasets.Dataset`` with the columns ``task_id`` and ``messages`` (the opening, for AReaL's filters and logs).

    Args:
        families: one family, with parameters if need be (``tools.lookup:level=2``), or several, which take turns.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family.
    """
    found = tasks_of(families, split=split, variant=variant, tasks=tasks)
    return dataset_of({"task_id": task_id, "messages": messages} for task_id, messages in found)


def losses(family: str, variant: str = "control", *, group: bool = True) -> list[str]:
    """What of a family is lost under AReaL, in sentences.

    Args:
        family: with parameters if need be.
        variant: which twin.
        group: whether the workflow is made with ``group``; else AReaL makes the groups.
    """
    said = engine.losses(family, variant, one_row=not group)
    if group:
        said.append("AReaL's log of rewards shows advantages; the reward itself is logged as agentgym/reward")
    else:
        said.append("release 1.0: a group with an episode that cannot be scored is rejected whole, since its places count")
    said.append("release 1.0 has no flag of truncation: a cut episode is paid for what it did (main: is_truncated)")
    return said


def problems(config: Any, *, group: int | None = None, agent: bool = False) -> list[str]:
    """What in an AReaL configuration would undo what this adapter sees to, in sentences; empty where nothing would.

    Args:
        config: a ``GRPOConfig`` or ``PPOConfig``, or anything with the same fields.
        group: as the workflow is made with.
        agent: whether `Agent` is trained with instead of `Workflow`.
    """
    said = []

    def of(path: str, default: Any = None) -> Any:
        value = config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
            if value is None:
                return default
        return value

    samples, norm = of("gconfig.n_samples", 1), of("actor.reward_norm")
    level = of("actor.reward_norm.mean_level"), of("actor.reward_norm.std_level")
    if group is not None:
        if samples != 1:
            said.append(f"gconfig.n_samples is {samples}: with group={group} the workflow plays the group itself; set it to 1")
        if norm is not None:
            said.append("actor.reward_norm normalizes advantages once more; set it to null")
        if of("actor.reward_bias", 0.0) or of("actor.reward_scaling", 1.0) != 1.0:
            said.append("actor.reward_bias and actor.reward_scaling move and stretch advantages; set them to 0.0 and 1.0")
    elif "group" in level and of("actor.reward_norm.group_size", 1) != samples:
        size = of("actor.reward_norm.group_size", 1)
        said.append(f"actor.reward_norm.group_size is {size} and gconfig.n_samples is {samples}: groups would be mixed up")
    if of("actor.adv_norm.mean_level") is not None:
        said.append(
            "actor.adv_norm subtracts a mean over the batch, so that groups without differences, which teach nothing, are "
            "pushed up or down; set its mean_level to null"
        )
    if of("actor.mask_no_eos_with_zero", False):
        said.append(
            "actor.mask_no_eos_with_zero takes the reward from the longest row of each batch in release 1.0; set it to false"
        )
    if agent and of("rollout.agent.export_style", "individual") == "individual" and norm is not None:
        said.append(
            "rollout.agent.export_style individual makes a row of each turn, which release 1.0 compares by position; use concat"
        )
    if agent and of("scheduler.type") == "ray":
        said.append("release 1.0 has no proxy under the ray scheduler; use the Workflow there")
    return said


def keys_of(release: Release) -> tuple[str, ...]:
    """The columns that a release's trainer knows of."""
    base = ("input_ids", "loss_mask", "logprobs", "versions", "attention_mask", "rewards")
    return base if release == "1.0" else (*base, "turn_ids", "original_rewards", "is_truncated")


def release() -> Release:
    """Which of the two key sets the installed AReaL has, by what its own record of an interaction holds."""
    import dataclasses

    from areal.experimental.openai.types import InteractionWithTokenLogpReward

    names = {f.name for f in dataclasses.fields(InteractionWithTokenLogpReward)}
    return "main" if "original_reward" in names else "1.0"


def tensors(row: Row, reward: float, *, paid: float, truncated: bool, keys: Sequence[str]) -> dict[str, Any]:
    """One row as AReaL takes it, batch dimension 1. AReaL shifts by itself; nothing is shifted here.

    Args:
        row: T tokens.
        reward: what the trainer sees: the reward, or the advantage.
        paid: what the episode was paid.
        truncated: whether a limit cut it.
        keys: of the release, see `keys_of`.
    """
    import torch

    def line(array: np.ndarray, kind: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(kind).unsqueeze(0)

    # AReaL takes a Python int for a mistake in places, and numpy scalars make float64 columns
    all_columns = {
        "input_ids": lambda: line(row.token_ids, torch.int32),
        "loss_mask": lambda: line(row.loss_mask, torch.int32),
        "logprobs": lambda: line(row.logprobs, torch.float32),
        "versions": lambda: line(row.versions, torch.int32),
        "attention_mask": lambda: torch.ones(1, len(row.token_ids), dtype=torch.bool),
        "rewards": lambda: torch.tensor([float(reward)], dtype=torch.float32),
        "turn_ids": lambda: line(np.where(row.loss_mask != 0, row.turn_ids, -1), torch.int32),
        "original_rewards": lambda: torch.tensor([float(paid)], dtype=torch.float32),
        "is_truncated": lambda: torch.tensor([bool(truncated)]),
    }
    return {key: all_columns[key]() for key in keys}


def teaches(trajectory: dict[str, Any]) -> bool:
    """For AReaL's ``dynamic_filter_fn``, with ``group``: leaves out groups in which nobody did better than anybody."""
    return bool((trajectory["rewards"] != 0).any())


class _Workflow:
    """Plays the environment on AReaL's engine. `Workflow` is this class on top of AReaL's own `RolloutWorkflow`.

    Everything but a renderer is plain data or a place, so that AReaL can send it to other processes.

    Args:
        gconfig: AReaL's ``GenerationHyperparameters``: ``max_new_tokens`` is of a turn, ``max_tokens`` of a whole row.
        tokenizer: of transformers, or where to load it from.
        group: episodes of one task that the workflow plays and compares itself; set ``gconfig.n_samples`` to 1 and
            ``actor.reward_norm`` to null. None: AReaL makes the groups.
        baseline: with ``group``: see `agentgym.training.groups.Baseline`.
        renderer: name of the model's family, where the tokenizer's template does not tell; or a renderer.
        max_prompt_tokens: a longer first prompt raises before the engine is asked.
        wrap: wrappers of the environment, or the place of such a function (``pkg.module:function``).
        on_episode: told of every episode, or the place of such a function.
        retries: how often an episode that infrastructure spoiled is played again.
        keys: key set of a release; None: of the installed one.
    """

    def __init__(
        self,
        gconfig: Any,
        tokenizer: Any,
        *,
        group: int | None = None,
        baseline: Baseline = "grpo",
        renderer: Any = None,
        max_prompt_tokens: int | None = None,
        wrap: Wrap | str | None = None,
        on_episode: OnEpisode | str | None = None,
        retries: int = 1,
        keys: Release | None = None,
    ) -> None:
        if group is not None and group < 2:
            raise UsageError(f"a group has at least 2 episodes, not {group}; None lets AReaL make the groups")
        if group is not None and gconfig.n_samples != 1:
            raise UsageError(
                f"with group={group} the workflow plays the group itself: set gconfig.n_samples to 1, not {gconfig.n_samples}"
            )
        self.tokenizer = _tokenizer(tokenizer)
        self.renderer = _renderer(self.tokenizer, renderer)
        stops = sorted({*gconfig.stop_token_ids, *self.renderer.stop_ids})
        if gconfig.stop:
            raise UsageError("gconfig.stop cuts answers in the middle of a token; let the model end its turns (stop_token_ids)")
        self.gconfig = gconfig.new(n_samples=1, stop_token_ids=stops)
        self.group, self.baseline = group, baseline
        self.max_prompt_tokens = max_prompt_tokens
        self.wrap: Wrap | None = _placed(wrap)
        self.on_episode: OnEpisode | None = _placed(on_episode)
        self.retries = retries
        self.release: Release = release()
        self.keys = keys_of(keys or self.release)
        self._trials = itertools.count()

    async def arun_episode(self, engine: Any, data: dict[str, Any]) -> dict[str, Any] | None:
        """One episode, or with ``group`` all of a task; None: there is nothing to train on, and the log says why.

        Raises:
            InfrastructureError: an episode could not be scored, and AReaL would count its place (release 1.0, no ``group``).
            PromptTooLong: before the engine was asked.
        """
        if self.group is None:
            played = await self._play(engine, data)
            self._log([played])
            if played.reason is not None:
                if self.release == "1.0":
                    raise InfrastructureError(f"{played.result.trajectory.task_id}: {played.reason}; its group is rejected")
                return None
            reward = played.reward
            return tensors(engine_row(played), reward, paid=reward, truncated=played.truncated, keys=self.keys)
        group = await asyncio.gather(*(self._play(engine, data) for _ in range(self.group)))
        self._log(group)
        found = advantages([None if p.reason else p.reward for p in group], [0] * len(group), baseline=self.baseline)
        columns = [
            tensors(row, float(value), paid=p.reward, truncated=p.truncated, keys=self.keys)
            for p, value, used in zip(group, found.values, found.used, strict=True)
            if used
            for row in p.rows.rows
        ]
        if not columns:
            _log.warning("%s: fewer than two episodes of the group could be scored", group[0].result.trajectory.task_id)
            return None
        from areal.utils.data import concat_padded_tensors

        result: dict[str, Any] = concat_padded_tensors(columns)
        return result

    async def _play(self, engine: Any, data: dict[str, Any]) -> Played:
        # AReaL hands one and the same object to every episode of a group
        row = copy.deepcopy(data)

        def seat() -> Seat:
            g = self.gconfig
            sampling = Sampling(
                temperature=0.0 if g.greedy else g.temperature, top_p=g.top_p, top_k=g.top_k, max_tokens=g.max_new_tokens
            )
            return Seat(
                self.renderer,
                self._generate(engine),
                name="areal",
                max_new_tokens=g.max_new_tokens,
                max_prompt=self.max_prompt_tokens,
                max_row=g.max_tokens,
                one_row=self.group is None,
                sampling=sampling,
            )

        return await play_task(
            _task_of(row), seat, trial=next(self._trials), wrap=self.wrap, retries=self.retries, on_episode=self.on_episode
        )

    def _generate(self, engine: Any) -> Any:
        from areal.api import ModelRequest

        async def generate(prompt: list[int], most: int, request: str) -> Piece:
            asked = ModelRequest(
                rid=request, input_ids=prompt, gconfig=self.gconfig.new(max_new_tokens=most), tokenizer=self.tokenizer
            )
            answer = await engine.agenerate(asked)
            if list(answer.input_tokens) != prompt:
                raise InfrastructureError("the engine answered another prompt than it was sent", retryable=False)
            reason = answer.stop_reason
            return Piece(
                answer.output_tokens,
                answer.output_logprobs,
                "abort" if reason == "abort" else "length" if reason == "length" else "stop",
                answer.output_versions,
            )

        return generate

    def _log(self, episodes: Sequence[Played]) -> None:
        """What was paid, in AReaL's own statistics and, where an episode is rejected, in the log."""
        from areal import workflow_context
        from areal.utils import stats_tracker

        tracker = stats_tracker.get(workflow_context.stat_scope())
        for p in episodes:
            t = p.result.trajectory
            if p.reason is not None:
                _log.warning("%s is not trained on: %s", t.task_id, p.reason)
                tracker.scalar(**{"agentgym/rejected": 1.0})
                continue
            told = {"reward": p.reward, "turns": float(len(t.turns)), "truncated": float(p.truncated), "rejected": 0.0}
            if p.result.gold is not None:
                told["gold"] = float(p.result.gold)
            tracker.scalar(**{f"agentgym/{name}": value for name, value in told.items()})


engine_row = engine.only


class Agent:
    """The same environments as an agent program: AReaL's proxy is the model, and this returns what the episode was paid.

    Plain data in, so that it can be pickled for ``mode: subproc``.

    Args:
        rewards: ``episode``: one float, AReaL's last reward. ``turns``: a float for each completion id, what that turn was
            paid; they add up to the episode's reward. With a ``turn_discount`` AReaL turns them into returns.
        max_tokens: of one turn; AReaL takes 512 where it is not told.
        temperature: None leaves it to AReaL.
        tool_format: how calls are read out of text where the server gives none.
        wrap: wrappers of the environment, or the place of such a function.
        on_episode: told of every episode, or the place of such a function.
    """

    def __init__(
        self,
        *,
        rewards: Literal["episode", "turns"] = "episode",
        max_tokens: int = 512,
        temperature: float | None = None,
        tool_format: ToolFormat = "auto",
        wrap: Wrap | str | None = None,
        on_episode: OnEpisode | str | None = None,
    ) -> None:
        if rewards not in ("episode", "turns"):
            raise UsageError(f"rewards is 'episode' or 'turns', not {rewards!r}")
        self.rewards = rewards
        self.max_tokens, self.temperature, self.tool_format = max_tokens, temperature, tool_format
        self.wrap, self.on_episode = wrap, on_episode

    async def run(self, data: dict[str, Any], **extra: Any) -> float | dict[str, float]:
        """Plays one episode.

        Args:
            data: a row of `dataset`.
            **extra: what AReaL gives: ``base_url``, ``api_key``, ``http_client``; or ``client``, an OpenAI client
                (`ArealOpenAI`, say). Without any, the environment variables of the openai package.

        Raises:
            InfrastructureError: the episode could not be scored. AReaL then rejects it, which a reward of 0 would not.
        """
        client = extra.get("client")
        if client is None:
            from openai import AsyncOpenAI

            given = {k: extra[k] for k in ("base_url", "api_key", "http_client") if extra.get(k) is not None}
            client = AsyncOpenAI(max_retries=0, **given)  # a retry would be a second, orphaned completion of the turn
        policy = _ChatPolicy(client, self)
        family, variant, item = TaskId.parse(_task_of(copy.deepcopy(data)))
        name, params = parse_label(family)
        core = registry.env_class(name)(variant=variant, **params)
        wrap: Wrap | None = _placed(self.wrap)
        env = core if wrap is None else wrap(core)
        result = await play(env, core.make_task(item), policy, threads=engine.threads() if waits(core) else None)
        told: OnEpisode | None = _placed(self.on_episode)
        if told is not None:
            told(result)
        t = result.trajectory
        if result.reward is None or not np.isfinite(result.reward):
            reason = t.error.message if t.error is not None else "a verifier could not score it"
            raise InfrastructureError(f"{t.task_id}: {reason}")
        if self.rewards == "turns":
            return {id: float(turn.reward) for id, turn in zip(policy.ids, t.turns, strict=True)}
        return float(result.reward)


class _ChatPolicy(PolicyBase):
    """A chat client that sends the model's own messages back exactly as they came: AReaL joins turns by them."""

    name = "areal:proxy"

    def __init__(self, client: Any, agent: Agent) -> None:
        self._client, self._agent = client, agent
        self._sent: list[dict[str, Any]] = []
        self._known = 0
        self.ids: list[str] = []
        """Of the completions, one a turn."""

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """One request."""
        self._sent += [message_to_openai(m) for m in conversation[self._known :]]
        asked: dict[str, Any] = {"model": "default", "messages": self._sent, "max_completion_tokens": self._agent.max_tokens}
        if self._agent.temperature is not None:
            asked["temperature"] = self._agent.temperature
        if tools:
            asked["tools"] = [t.to_openai() for t in tools]
        answer = await self._client.chat.completions.create(**asked)
        choice = answer.choices[0]
        row = choice.message.model_dump(exclude_none=True)
        self.ids.append(answer.id)
        self._sent = [*self._sent, row]  # a new list: AReaL keeps the one it was given
        self._known = len(conversation) + 1
        message = from_openai(row)
        finish: FinishReason = _FINISH.get(choice.finish_reason, "stop")
        if tools:
            message = parse_tool_calls(message, self._agent.tool_format)
            if message.tool_calls and finish == "stop":
                finish = "tool_calls"
        usage = answer.usage
        spent = Usage(usage.prompt_tokens, usage.completion_tokens) if usage else Usage()
        return Completion(message, spent, finish, sampling=Sampling(self._agent.temperature, max_tokens=self._agent.max_tokens))


def _task_of(row: dict[str, Any]) -> str:
    if "task_id" not in row:
        raise UsageError(
            f"a row of the data set has no task_id; it has {sorted(row)}. Make it with agentgym.training.areal.dataset"
        )
    return str(row["task_id"])


def _tokenizer(given: Any) -> Any:
    if not isinstance(given, (str, os.PathLike)):
        return given
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(given)


def _renderer(tokenizer: Any, given: Any) -> Any:
    if given is not None and not isinstance(given, str):
        return given
    from agentgym.tokens.renderer import renderer_for

    return renderer_for(tokenizer, given)


def _placed(given: Any) -> Any:
    return registry.load_place(given) if isinstance(given, str) else given


def __getattr__(name: str) -> Any:
    if name == "Workflow":  # made when it is asked for: its base is AReaL's, whose import takes half a minute
        from areal.api import RolloutWorkflow

        made = type("Workflow", (_Workflow, RolloutWorkflow), {"__module__": __name__, "__doc__": _Workflow.__doc__})
        globals()[name] = made
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
