# SPDX-License-Identifier: Apache-2.0
"""What a policy is: the contract between the episode loop and whatever answers (a model, an agent, an oracle, a person)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from agentgym.chat import Message
from agentgym.toolspec import ToolSpec

FinishReason = Literal["stop", "length", "tool_calls", "abort", "error"]


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a model is asked to sample. None leaves the choice to the policy; what it chose is recorded."""

    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    """Most new tokens in one turn."""
    stop: tuple[str, ...] = ()
    """Texts that end the turn."""
    seed: int | None = None
    """Set by the episode loop from run seed, task and trial, so that trials differ and reruns do not."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one model call consumed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Sampled tokens, reasoning included."""
    cached_tokens: int = 0
    """Part of ``prompt_tokens`` that the server had in its cache."""
    cost_usd: float = 0.0
    """US dollars; 0.0 where the policy costs nothing or its price is unknown."""
    from_cache: bool = False
    """The reply came from agentgym's own reply cache: no model was asked and nothing paid; the counts are the kept ones."""


NO_USAGE = Usage()
"""What everything that consumes nothing says it consumed."""


class Tokens(msgspec.Struct, eq=False):
    """The exact tokens of one turn, as the engine sampled them; never re-tokenized text.

    P prompt tokens, O output tokens. Arrays are one-dimensional; None means the policy could not tell.
    """

    output_ids: np.ndarray
    """int32[O], stop token included where the engine returned it."""
    logprobs: np.ndarray
    """float32[O], natural log; NaN where unknown."""
    prompt_ids: np.ndarray | None = None
    """int32[P], the whole prompt that the engine saw."""
    versions: np.ndarray | None = None
    """int32[O], weight version that sampled each token; one turn may hold several after an interrupt."""
    mask: np.ndarray | None = None
    """uint8[O], 1 where the token may be trained on; None means all ones."""
    logprob_kind: Literal["raw", "temperature_scaled", "processed"] = "raw"
    """``raw``: of the model's own distribution; ``processed``: after top-k, top-p and the like."""
    stop_token_in_output: bool = False
    """Whether the last of ``output_ids`` is the token that ended the turn."""


class Completion(msgspec.Struct, eq=False, gc=False):
    """A policy's answer for one turn."""

    message: Message
    usage: Usage = NO_USAGE
    finish_reason: FinishReason = "stop"
    tokens: Tokens | None = None
    sampling: Sampling | None = None
    """The parameters that were really used; None where nothing was sampled."""
    latency_s: float = 0.0
    """Seconds the call took, waiting for the model included."""
    notes: tuple[tuple[str, Any], ...] = ()
    """How the answer came about, where more than one model had a part in it: kind and data, kept as events ``policy.KIND``."""


class EpisodeContext(msgspec.Struct, frozen=True):
    """What a policy is told when an episode begins."""

    task_id: str
    trial: int
    """0-based repetition of the task."""
    seed: int
    """Derived from run seed, task and trial; equal in a rerun."""
    env: Any = None
    """The environment itself, answers included; only for policies that declare ``privileged = True``."""


class Left(Exception):
    """Raised by a policy that plays no further and is free to: a person who leaves. The episode is then truncated
    (``abort``) and scored on what was done until then; it is no infrastructure outcome."""

    def __str__(self) -> str:
        return "abort"


class Policy(Protocol):
    """Whatever answers.

    ``begin`` is called once an episode and returns what plays it: the policy itself where it keeps no state between
    turns, else a fresh object of the same shape. ``act`` sees the whole conversation, which it must not change.
    """

    name: str
    """How it is shown and recorded, e.g. ``local:smollm2``."""

    def begin(self, context: EpisodeContext) -> Policy:
        """What plays this episode."""
        ...

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation.

        Args:
            conversation: every message so far, oldest first; the last one is not the policy's own.
            tools: offered tools; the same objects in every turn of an episode.
            sampling: what the caller asks for; None fields are the policy's to choose.

        Raises:
            InfrastructureError: what the agent is not to blame for; the episode becomes an infrastructure outcome.
        """
        ...


class PolicyBase:
    """Defaults for `Policy`; inherit from it or match the protocol."""

    name = "policy"
    privileged = False
    """Whether `EpisodeContext.env` is handed over: oracles, never a model."""
    slots: int | None = None
    """Most calls that make sense at once, None without limit; the scheduler starts no more episodes than that."""

    def begin(self, context: EpisodeContext) -> Policy:
        """Itself: stateless between turns."""
        return self

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Must be written by every policy."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it acts")

    def prepare(self) -> None:
        """Gets ready what takes long or may be missing (a file, a model), before a run is made; may be called twice.

        Raises:
            AgentGymError: the policy cannot play; the text says what to do.
        """
        return

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the policy across runs: model file hash, resolved version, parameters. JSON-compatible."""
        return {"name": self.name}

    async def end(self) -> None:
        """Frees what `begin` returned holds for its episode; called once on it when the episode is over, however it ended."""

    async def aclose(self) -> None:
        """Frees what the policy holds; called once, after the last episode."""
