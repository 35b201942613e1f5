# SPDX-License-Identifier: Apache-2.0
"""Token in, token out: plays an episode on an engine that continues token ids, with the ids of earlier turns held as sampled.

What a model said is never written down and tokenized again: the next prompt is the last one, what was sampled after it, and the
new messages (`agentgym.tokens.renderer`). Only where that cannot be proved to be right is the conversation rendered anew; the
linearizer then sees a fork, and counts it.

An engine may break an answer off because its weights change. The player goes on with prompt and partial answer, so one turn may
hold tokens of several weight versions; each token tells its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np

from agentgym.chat import ImagePart, Message, Part, TextPart, clean_message
from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import Completion, FinishReason, PolicyBase, Sampling, Tokens, Usage
from agentgym.tokens.renderer import Renderer
from agentgym.tool_text import ToolFormat, parse_tool_calls, to_text_conversation
from agentgym.toolspec import ToolSpec

LogprobKind = Literal["raw", "temperature_scaled", "processed"]

DEFAULT_MAX_TOKENS = 192

MOST_BREAKS = 64
"""Breaks of one answer after which the engine is taken to be broken itself."""

_BREAK_S = 0.05
"""Pause after a break that brought no token; it doubles, up to a second, since an update of a server's weights takes long."""


class Generated(msgspec.Struct, eq=False):
    """What an engine sampled after a prompt."""

    output_ids: list[int]
    """Stop token included."""
    logprobs: list[float]
    """Natural log, one a token; NaN where unknown."""
    finish_reason: FinishReason
    """``abort``: broken off because the weights change, to be gone on with."""
    versions: list[int] | None = None
    """Weight version of each token; None where the engine does not tell."""
    cached_tokens: int = 0
    """Prompt tokens that were in the engine's cache."""
    logprob_kind: LogprobKind = "raw"
    """Of which distribution the log-probabilities are, see `agentgym.protocols.Tokens`."""
    prompt_too_long: bool = False
    """The prompt does not fit the model; nothing was sampled."""


class Engine(Protocol):
    """Continues token ids."""

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        """Samples after a prompt.

        Args:
            key: of the episode; what is held for it may be used again.
            prompt_ids: the whole prompt.
            stop_ids: tokens that end the answer; the engine may know more of its own.
            sampling: every field but ``top_p``, ``top_k`` and ``seed`` is set.

        Raises:
            InfrastructureError: the engine failed.
        """
        ...

    async def forget(self, key: object) -> None:
        """What is held for the episode is no longer needed."""
        ...


def effective(sampling: Sampling, turn: int) -> Sampling:
    """The parameters that are really used: temperature 1.0 from the whole distribution unless told otherwise, a seed of its own
    for every turn: with the episode's own in each, all turns would see the same random numbers.

    Raises:
        UsageError: one of them makes no sense.
    """
    for what, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{what} must be a number of at least 0, not {value}")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1, not {sampling.max_tokens}")
    seed = sampling.seed
    if seed is not None:
        seed = int.from_bytes(hashlib.sha256(f"{seed}:{turn}".encode()).digest()[:4], "little") % 2**31
    return msgspec.structs.replace(
        sampling,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        max_tokens=sampling.max_tokens or DEFAULT_MAX_TOKENS,
        seed=seed,
    )


class TokenPlayer(PolicyBase):
    """One episode, its token ids held.

    A conversation that does not fit the model gets an empty answer with finish reason ``length``: the agent's own doing.

    Args:
        name: of the policy.
        renderer: between messages and ids.
        engine: samples.
        tool_format: ``native``: the renderer tells tools and reads calls as the model was trained to; else as text, see
            `tool_text`.
        effective: from what the caller asks for, and the length of the conversation, to the parameters that are really used.
    """

    def __init__(
        self,
        name: str,
        renderer: Renderer,
        engine: Engine,
        tool_format: ToolFormat | Literal["native"] = "native",
        effective: Callable[[Sampling, int], Sampling] = effective,
    ) -> None:
        self.name = name
        self._renderer = renderer
        self._engine = engine
        self._tool_format: ToolFormat | Literal["native"] = tool_format
        self._effective = effective
        self._seen: list[Message] = []
        """The conversation of the last turn, and its answer."""
        self._prompt: list[int] = []
        self._output: list[int] = []

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation.

        Raises:
            InfrastructureError: the engine failed, or the conversation holds an image.
        """
        begun = time.monotonic()
        if any(isinstance(p, ImagePart) for m in conversation if not isinstance(m.content, str) for p in m.content):
            raise InfrastructureError(f"{self.name} reads text only, and the conversation holds an image", retryable=False)
        used = self._effective(sampling, len(conversation))
        prompt = self._next_prompt(conversation, tools)
        stop_ids = frozenset(self._renderer.stop_ids)
        made = await self._whole(prompt, stop_ids, used)
        message, finish, stopped = self._read(made, stop_ids, used, bool(tools))
        self._seen = [*conversation, message]
        self._prompt, self._output = prompt, made.output_ids
        tokens = Tokens(
            np.array(made.output_ids, np.int32),
            np.array(made.logprobs, np.float32),
            np.array(prompt, np.int32),
            None if made.versions is None else np.array(made.versions, np.int32),
            logprob_kind=made.logprob_kind,
            stop_token_in_output=stopped,
        )
        usage = Usage(len(prompt), len(made.output_ids), made.cached_tokens)
        return Completion(message, usage, finish, tokens, used, time.monotonic() - begun)

    async def end(self) -> None:
        """Lets the engine forget the episode."""
        await self._engine.forget(self)

    # -------------------------------------------------------------------------------------------------------------------

    def _next_prompt(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        if self._output and (new := self._new(conversation)):
            bridged = self._renderer.bridge(self._prompt, self._output, self._written(new, ()), self._told(tools))
            if bridged is not None:
                return bridged
        return self._renderer.initial(self._written(conversation, tools), self._told(tools))

    def _new(self, conversation: Sequence[Message]) -> Sequence[Message]:
        """What follows the player's own last answer; empty where this is not the conversation it was in.

        Messages never change, so the same objects are the same words; the answer itself comes back with call ids given.
        """
        known = len(self._seen) - 1
        if len(conversation) <= known + 1 or any(a is not b for a, b in zip(self._seen[:-1], conversation, strict=False)):
            return ()
        own, kept = self._seen[-1], conversation[known]
        same = kept.role == "assistant" and own.content == kept.content and len(own.tool_calls) == len(kept.tool_calls)
        if not same or any(
            (a.name, a.arguments) != (b.name, b.arguments) for a, b in zip(own.tool_calls, kept.tool_calls, strict=True)
        ):
            return ()
        return conversation[known + 1 :]

    def _told(self, tools: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
        return tools if self._tool_format == "native" else ()

    def _written(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
        if self._tool_format != "native":
            messages = to_text_conversation(messages, tools, self._tool_format)
        return [clean_message(m) for m in messages]

    async def _whole(self, prompt: list[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        """The answer, gone on with wherever the engine breaks it off."""
        assert sampling.max_tokens is not None
        ids: list[int] = []
        logprobs: list[float] = []
        versions: list[int] | None = []
        cached = 0
        pause = _BREAK_S
        for attempt in range(MOST_BREAKS):
            rest = sampling
            if ids:
                # the same seed would draw the same random numbers again
                seed = None if sampling.seed is None else (sampling.seed + len(ids)) % 2**31
                rest = msgspec.structs.replace(sampling, max_tokens=sampling.max_tokens - len(ids), seed=seed)
            made = await self._engine.generate(self, [*prompt, *ids], stop_ids, rest)
            ids += made.output_ids
            logprobs += made.logprobs
            # where the engine does not tell it of some tokens, nobody knows it
            versions = None if versions is None or made.versions is None else versions + made.versions
            cached = made.cached_tokens if attempt == 0 else cached
            finish = made.finish_reason
            if finish == "abort" and len(ids) >= sampling.max_tokens:
                finish = "length"
            if finish != "abort":
                too_long = made.prompt_too_long and not ids
                return Generated(ids, logprobs, finish, versions, cached, made.logprob_kind, too_long)
            if made.output_ids:
                pause = _BREAK_S
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
        raise InfrastructureError(f"{self.name}: the engine broke one answer off {MOST_BREAKS} times")

    def _read(
        self, made: Generated, stop_ids: frozenset[int], sampling: Sampling, with_tools: bool
    ) -> tuple[Message, FinishReason, bool]:
        """Message, finish reason, and whether the last token is the one that ended the answer."""
        ids = made.output_ids
        if not ids:
            return Message("assistant"), "length" if made.prompt_too_long else made.finish_reason, False
        limited = made.finish_reason == "length"
        parsed = self._renderer.parse(ids, limited)
        message = parsed.message
        cut = _cut(message, sampling.stop) if sampling.stop else None
        if cut is not None:
            message = cut
        stopped = ids[-1] in stop_ids or (cut is None and parsed.stop_token_in_output)
        finish: FinishReason = "stop" if stopped or cut is not None else made.finish_reason
        if with_tools and not message.tool_calls:
            message = parse_tool_calls(message, "auto" if self._tool_format == "native" else self._tool_format)
        if message.tool_calls and finish == "stop":
            finish = "tool_calls"
        return message, finish, stopped


def _cut(message: Message, stops: Sequence[str]) -> Message | None:
    """The message up to the first of the texts that end an answer; None where it holds none of them."""
    text = message.text
    places = [at for s in stops if s and (at := text.find(s)) >= 0]
    if not places:
        return None
    at = min(places)
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=text[:at])
    parts: list[Part] = []
    for part in message.content:
        if isinstance(part, TextPart):
            if part.text[:at]:
                parts.append(TextPart(part.text[:at]))
            at = max(0, at - len(part.text))
        else:
            parts.append(part)
    return msgspec.structs.replace(message, content=tuple(parts))
