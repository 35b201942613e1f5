# SPDX-License-Identifier: Apache-2.0
"""Episodes on a trainer's own engine: token ids in, token ids out. What the adapters of AReaL, verl and slime share.

The episode loop plays the environment; the policy renders each prompt from the very tokens of the turns before, asks the engine
to go on, and keeps what came back. Nothing that was sampled is ever decoded and encoded again.

    seat = Seat(renderer, generate, name="areal", max_new_tokens=256)
    played = await play_task("tools.lookup/control/7", seat)

Limits are kept before they are broken: a first prompt that is too long raises before the engine is asked (cutting it would lose
the system message), and an episode whose next prompt leaves no room is truncated, and says so, before that prompt is sent.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import msgspec
import numpy as np

from agentgym import registry
from agentgym.chat import Message, Observation
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, play, waits
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import message_to_openai
from agentgym.protocols import Completion, FinishReason, PolicyBase, Sampling, Tokens, Usage
from agentgym.rollout.selection import parse_label
from agentgym.task import TaskId
from agentgym.tokens.rows import Drift, Row, RowSet, linearize
from agentgym.toolspec import ToolSpec

if TYPE_CHECKING:
    from agentgym.tokens.renderer import Renderer

Wrap = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]
OnEpisode = Callable[[EpisodeResult], None]

_ABORTS = 200
"""Aborts in a row without one new token, after which the engine is taken for dead."""

_threads: Executor | None = None


class Piece(msgspec.Struct, frozen=True):
    """What one call of an engine gave: a whole answer, or as much as there was when the engine aborted it."""

    output_ids: Sequence[int]
    logprobs: Sequence[float] | None
    """As many as ``output_ids``; None: the engine was not asked for them."""
    finish: Literal["stop", "length", "abort"]
    versions: Sequence[int] | None = None
    """Weight version of each token; None: the engine does not tell."""


Generate = Callable[[list[int], int, str], Awaitable[Piece]]
"""(prompt ids, most new tokens, id of the episode's requests) -> `Piece`."""


class PromptTooLong(UsageError):
    """The first prompt does not fit what the trainer keeps of a prompt: a matter of configuration, not of the episode."""


class Seat(PolicyBase):
    """The policy of ONE episode: make a new one for each.

    Args:
        renderer: of the model under training.
        generate: asks the engine.
        name: how the policy is recorded.
        max_new_tokens: of one turn.
        max_prompt: longest first prompt; a longer one raises before the engine is asked.
        max_response: tokens after the first prompt, those of tools included.
        max_row: tokens of a whole row.
        one_row: the trainer takes one row an episode. Where the next prompt cannot be proved to go on with this one (a model
            that wrote control tokens, say), the episode then ends there, truncated, instead of beginning a second row.
        sampling: what the engine samples with, for the record.
    """

    def __init__(
        self,
        renderer: Renderer,
        generate: Generate,
        *,
        name: str,
        max_new_tokens: int,
        max_prompt: int | None = None,
        max_response: int | None = None,
        max_row: int | None = None,
        one_row: bool = True,
        sampling: Sampling | None = None,
    ) -> None:
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        self.name = name
        self.renderer, self.generate = renderer, generate
        self.max_new_tokens, self.max_prompt, self.max_response = max_new_tokens, max_prompt, max_response
        self.max_row, self.one_row = max_row, one_row
        self.sampling = sampling or Sampling(max_tokens=max_new_tokens)
        self.request = uuid.uuid4().hex
        """The same in every call of the episode, so that a router keeps it where its cache is."""
        self.refusal: PromptTooLong | None = None
        self._conversation: list[Message] = []
        self._tools: Sequence[ToolSpec] = ()
        self._prompt: list[int] = []
        self._output: list[int] = []
        self._next: list[int] | None = None
        self._limit: int | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers with what the engine sampled.

        Raises:
            PromptTooLong: the first prompt does not fit.
            InfrastructureError: the engine's answer is not one, or it does nothing but abort.
        """
        begun = time.monotonic()
        if self._next is None:
            self._tools = tools
            self._next = self.renderer.initial(conversation, tools)
            self._check_first(len(self._next))
        self._conversation = list(conversation)
        self._prompt, self._next = self._next, None
        ids, logprobs, versions, cut = await self._sample(self._prompt)
        self._output = ids
        parsed = self.renderer.parse(ids, cut)
        tokens = Tokens(
            np.array(ids, np.int32),
            np.array(logprobs, np.float32),
            np.array(self._prompt, np.int32),
            None if versions is None else np.array(versions, np.int32),
            logprob_kind="raw" if self.sampling.temperature in (None, 1.0) else "temperature_scaled",
            stop_token_in_output=parsed.stop_token_in_output,
        )
        finish: FinishReason = "length" if cut else parsed.finish_reason
        usage = Usage(len(self._prompt), len(ids))
        return Completion(parsed.message, usage, finish, tokens, self.sampling, time.monotonic() - begun)

    def cut(self, said: Message, new: Sequence[Message]) -> str | None:
        """Why the episode must end after a turn: the name of the limit; None: the next prompt is ready, and there is room."""
        prompt = self.renderer.bridge(self._prompt, self._output, new, self._tools)
        if prompt is None:
            if self.one_row:
                return "environment"
            prompt = self.renderer.initial([*self._conversation, said, *new], self._tools)
        if self._limit is not None and len(prompt) >= self._limit:
            return "tokens"
        self._next = prompt
        return None

    def _check_first(self, length: int) -> None:
        limits = [self.max_row, None if self.max_response is None else length + self.max_response]
        self._limit = min((x for x in limits if x is not None), default=None)
        for name, most in (("prompt", self.max_prompt), ("row", None if self.max_row is None else self.max_row - 1)):
            if most is not None and length > most:
                self.refusal = PromptTooLong(
                    f"the first prompt has {length} tokens, and the trainer's longest {name} leaves room for {most}: raise "
                    "that limit, or leave the task out; cut from the left it would lose its system message"
                )
                raise self.refusal

    async def _sample(self, prompt: list[int]) -> tuple[list[int], list[float], list[int] | None, bool]:
        """Tokens, log-probabilities, versions, and whether for want of room. Goes on after every abort of the engine."""
        budget = self.max_new_tokens if self._limit is None else min(self.max_new_tokens, self._limit - len(prompt))
        ids: list[int] = []
        logprobs: list[float] = []
        versions: list[int] | None = []
        idle = 0
        while True:
            piece = await self.generate([*prompt, *ids], budget - len(ids), self.request)
            n = len(piece.output_ids)
            for what, column in (("log-probabilities", piece.logprobs), ("versions", piece.versions)):
                if column is not None and len(column) != n:
                    raise InfrastructureError(f"the engine gave {n} tokens and {len(column)} {what}", retryable=False)
            ids += map(int, piece.output_ids)
            logprobs += [math.nan] * n if piece.logprobs is None else map(float, piece.logprobs)
            versions = None if versions is None or piece.versions is None else versions + list(map(int, piece.versions))
            if len(ids) > budget:
                raise InfrastructureError(f"the engine gave {len(ids)} tokens where {budget} were asked for", retryable=False)
            if piece.finish != "abort":
                return ids, logprobs, versions, piece.finish == "length"
            if len(ids) == budget:
                return ids, logprobs, versions, True
            # weights are being updated, say: the same turn goes on with what it has, under other weights
            idle = 0 if n else idle + 1
            if idle > _ABORTS:
                raise InfrastructureError(f"the engine aborted {idle} times in a row without a token")
            if idle:
                await asyncio.sleep(min(1.0, 0.01 * 2 ** min(idle, 7)))


class _Room(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Ends an episode whose next prompt has no room, before anybody is asked to answer it."""

    def __init__(self, env: ChatEnv, seat: Seat) -> None:
        super().__init__(env)
        self._seat = seat

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        core: ChatEnv = self.env.unwrapped  # type: ignore[assignment]
        new, reward, terminated, truncated, info = core.step(action)
        if not terminated and not truncated:
            turn = core.trajectory.turns[-1]
            limit = self._seat.cut(turn.message, new)
            if limit is not None:
                core.finish(limit)  # verifiers judge what was done so far, and the turn is paid for it
                return new, turn.reward, False, True, info
        return new, float(reward), terminated, truncated, info


class Played(msgspec.Struct, frozen=True):
    """One episode as trainers take it."""

    result: EpisodeResult
    rows: RowSet
    """Empty where the episode could not be finished."""
    reason: str | None
    """Why it must not be trained on; None: it may be."""

    @property
    def reward(self) -> float:
        """What was paid, a plain finite float. Only where there is no ``reason``."""
        assert self.result.reward is not None
        return float(self.result.reward)

    @property
    def truncated(self) -> bool:
        """Whether a limit cut the episode, or one of its answers."""
        t = self.result.trajectory
        return t.outcome == "truncated" or any(turn.finish_reason == "length" for turn in t.turns)

    @property
    def turn_rewards(self) -> list[float]:
        """What each turn was paid."""
        return [float(turn.reward) for turn in self.result.trajectory.turns]


async def play_task(
    task_id: str,
    seat: Callable[[], Seat],
    *,
    trial: int = 0,
    wrap: Wrap | None = None,
    retries: int = 1,
    logprobs: bool = True,
    on_episode: OnEpisode | None = None,
) -> Played:
    """Plays one task in an environment of its own; nothing is shared with any other episode.

    Args:
        task_id: ``FAMILY/VARIANT/ITEM``.
        seat: makes the policy; called again for each retry.
        trial: which repetition of the task.
        wrap: puts Gymnasium wrappers around the environment, those of `agentgym.wrappers` say.
        retries: how often an episode that infrastructure spoiled is played again, where that may help.
        logprobs: whether tokens without a log-probability must not be trained on; else the trainer computes its own.
        on_episode: is told of every episode, scored, gold and findings included.

    Raises:
        PromptTooLong: before the engine was asked.
        UsageError: there is no such task.
    """
    family, variant, item = TaskId.parse(str(task_id))
    name, params = parse_label(family)
    kind = registry.env_class(name)
    while True:
        policy = seat()
        core: ChatEnv = kind(variant=variant, **params)
        env: gymnasium.Env[Any, Any] = _Room(core, policy)
        if wrap is not None:
            env = wrap(env)
        result = await play(
            env, core.make_task(item), policy, trial=trial, sampling=policy.sampling, threads=threads() if waits(core) else None
        )
        if policy.refusal is not None:
            raise policy.refusal
        if on_episode is not None:
            on_episode(result)
        if result.trajectory.outcome != "infrastructure" or not result.retryable or retries < 1:
            return judged(result, logprobs=logprobs)
        retries -= 1


def judged(result: EpisodeResult, *, logprobs: bool = True) -> Played:
    """The episode with its rows, and whether it may be trained on."""
    t = result.trajectory
    nothing = RowSet((), Drift(), 0)
    if t.outcome == "infrastructure":
        error = t.error
        return Played(result, nothing, f"infrastructure failed ({error.kind}: {error.message})" if error else "it failed")
    if result.reward is None:
        return Played(result, nothing, "a verifier could not score it")
    if not math.isfinite(result.reward):
        return Played(result, nothing, f"its reward is {result.reward}")
    rows = linearize(t)
    if not logprobs:
        rows = msgspec.structs.replace(rows, rows=tuple(_all_sampled(row) for row in rows.rows))
    kept = tuple(row for row in map(ended, rows.rows) if row is not None)
    if not kept:
        return Played(result, msgspec.structs.replace(rows, rows=()), "no token of it may be trained on")
    return Played(result, msgspec.structs.replace(rows, rows=kept), None)


def ended(row: Row) -> Row | None:
    """The row without what follows its last trained token; None where there is no trained token.

    Trainers put the reward at the last token, and AReaL's and verl's loss masks then take it away again where that token is
    not the model's: prompts of a turn that was never sampled, say.
    """
    places = np.flatnonzero(row.loss_mask)
    if not len(places):
        return None
    end = int(places[-1]) + 1
    if end == len(row.token_ids):
        return row
    arrays = ("token_ids", "loss_mask", "logprobs", "versions", "turn_ids", "token_rewards")
    return msgspec.structs.replace(row, **{name: getattr(row, name)[:end] for name in arrays})


def _all_sampled(row: Row) -> Row:
    """The row for a trainer that computes log-probabilities itself: every sampled token counts."""
    return msgspec.structs.replace(row, loss_mask=(row.turn_ids >= 0).astype(np.uint8), logprobs=np.zeros_like(row.logprobs))


def only(played: Played) -> Row:
    """The row of an episode that must have one.

    Raises:
        UsageError: it has more. Seats with ``one_row`` end such an episode before.
    """
    rows = played.rows.rows
    if len(rows) != 1:
        raise UsageError(
            f"{played.result.trajectory.task_id}: the episode makes {len(rows)} rows, and the trainer takes one an episode"
        )
    return rows[0]


def threads() -> Executor:
    """Where steps run that may block, for all episodes of the process."""
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(32, thread_name_prefix="agentgym-step")
    return _threads


def tasks_of(
    families: str | Sequence[str], *, split: str | None = "train", variant: str = "control", tasks: int = 256
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Task ids with their opening messages in OpenAI's form; several families take turns.

    Raises:
        UsageError: there is no such family, variant or split.
    """
    names = [families] if isinstance(families, str) else list(families)
    if not names:
        raise UsageError("name at least one family to train on")
    columns: list[list[tuple[str, list[dict[str, Any]]]]] = []
    for name in names:
        family, params = parse_label(name)
        env = registry.env_class(family)(variant=variant, split=split, **params)
        made = (env.make_task(item) for item in env.items(tasks))
        columns.append([(task.id, [message_to_openai(m) for m in env.freeze(task).opening]) for task in made])
    for at in range(max(map(len, columns))):
        for column in columns:
            if at < len(column):
                yield column[at]


def dataset_of(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a ``datasets.Dataset``.

    Raises:
        UsageError: the library is missing.
    """
    try:
        from datasets import Dataset
    except ImportError:
        raise UsageError("data sets need the package datasets: pip install datasets") from None
    return Dataset.from_list(list(rows))


def losses(family: str, variant: str = "control", *, one_row: bool = True) -> list[str]:
    """What of a family is lost where a trainer takes one reward an episode, in sentences."""
    name, params = parse_label(family)
    env = registry.env_class(name)(variant=variant, **params)
    said = []
    if env.max_turns > 1:
        said.append("rewards of turns are added up into one reward of the episode")
        if one_row:
            said.append(
                "one row an episode: where the next prompt cannot be proved to go on with the last one (the model wrote "
                "control tokens, the template drops earlier reasoning), the episode ends there, truncated"
            )
    said.append("findings and gold are for the record and on_episode; the trainer sees the reward alone")
    return said
