# SPDX-License-Identifier: Apache-2.0
"""Models of any provider that litellm knows: ``--model litellm:anthropic/claude-...`` (extra ``litellm``).

Keys are those that litellm reads from the environment (``ANTHROPIC_API_KEY`` ...). Retries, limits and records are ours, as
with ``openai:`` models; litellm's own retries, price download and telemetry are off. What a call costs is looked up in the
price list that comes with the package.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from agentgym.chat import Message
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.http1 import parse_url
from agentgym.policies.openai_chat import read_completion, read_usage
from agentgym.policies.transport import BUSY, RETRIED, Caller, Fault, Patience, dollars, retry_after
from agentgym.policies.wire import Reasoning, message_to_openai, turn_seed
from agentgym.protocols import Completion, FinishReason, PolicyBase, Sampling, Usage
from agentgym.toolspec import ToolSpec

COMPROMISED = ("1.82.7", "1.82.8")
"""Releases of 24 March 2026 that stole credentials; they are never imported."""


class LiteLLMPolicy(PolicyBase):
    """A model through litellm.

    Parameters that the provider does not know (``seed`` and ``top_k`` often) are left out, and so not recorded as used. A
    conversation that does not fit the model's context gets an empty answer with finish reason ``length``.

    Args:
        argument: ``PROVIDER/MODEL[@URL]``; the URL for providers that are servers of one's own.
        reasoning: whether earlier reasoning is sent back, see `wire.Reasoning`.
        extra: further arguments for ``litellm.acompletion``.
        patience: time limits and retries.

    Raises:
        UsageError: no model was named, or litellm is missing or a compromised release.
    """

    replayable = True

    def __init__(
        self,
        argument: str,
        *,
        reasoning: Reasoning = "drop",
        extra: dict[str, Any] | None = None,
        patience: Patience | None = None,
    ) -> None:
        model, at, url = argument.partition("@http")
        if not model or "/" not in model:
            raise UsageError("which model? Expected litellm:PROVIDER/MODEL, e.g. litellm:anthropic/claude-sonnet-4-5")
        if importlib.util.find_spec("litellm") is None:
            raise UsageError("litellm: models need the package litellm: pip install 'agentgym-harness[litellm]'")
        self.version = importlib.metadata.version("litellm")
        if self.version in COMPROMISED:
            raise UsageError(
                f"litellm {self.version} is a compromised release that steals credentials: change every key that this machine"
                " has, then pip install 'agentgym-harness[litellm]'"
            )
        self.model = model
        self.reasoning: Reasoning = reasoning
        self.extra = extra or {}
        self._base = f"http{url}" if at else None
        self.name = f"litellm:{model}"
        secrets: tuple[str, ...] = ()
        if self._base is not None:
            origin = parse_url(self._base)
            self.name += f"@{origin.shown}"
            secrets = (origin.basic or "", *origin.credentials.split(":", 1))
        self.patience = patience or Patience()
        self._caller = Caller(self.name, self.patience, tuple(s for s in secrets if len(s) >= 4))
        self._served: set[str] = set()
        self._supported: set[str] | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation; see the class for what happens when it is too long.

        Raises:
            InfrastructureError: the provider failed or refused, after all retries.
        """
        begun = time.monotonic()
        # imports for seconds, during which other episodes should go on
        litellm = await asyncio.get_running_loop().run_in_executor(None, _litellm)
        used = self._used(litellm, sampling, len(conversation))
        request = {
            **{k: v for k, v in msgspec.to_builtins(used).items() if v not in (None, ())},
            "model": self.model,
            "messages": [message_to_openai(m, self.reasoning) for m in conversation],
            **({"tools": [t.to_openai() for t in tools]} if tools else {}),
            **({"api_base": self._base} if self._base else {}),
            "num_retries": 0,
            "max_retries": 0,
            **self.extra,
        }

        async def attempt(timeout: float) -> Any:
            try:
                return await litellm.acompletion(**request, timeout=timeout)
            except litellm.exceptions.ContextWindowExceededError:
                return None
            except Exception as e:
                raise self._failure(e) from None

        async def attempt_and_read(timeout: float) -> tuple[Message, Usage, FinishReason]:
            reply = await attempt(timeout)
            if reply is None:
                return Message("assistant"), Usage(), "length"
            return self._read(litellm, reply)

        message, usage, finish = await self._caller.call(attempt_and_read)
        if message.tool_calls and finish == "stop":
            finish = "tool_calls"
        return Completion(message, usage, finish, None, used, time.monotonic() - begun)

    def fingerprint(self) -> dict[str, Any]:
        """Model, litellm's version; and what was served so far."""
        result: dict[str, Any] = {"name": self.name, "model": self.model, "litellm": self.version, "reasoning": self.reasoning}
        if self._caller.counts:
            result["served"] = {"models": sorted(self._served), "calls": dict(sorted(self._caller.counts.items()))}
        return result

    async def aclose(self) -> None:
        """Closes litellm's connections."""
        if self._supported is not None:
            with contextlib.suppress(Exception):  # not in every version, and nothing depends on it
                await _litellm().close_litellm_async_clients()

    def _used(self, litellm: Any, sampling: Sampling, messages: int) -> Sampling:
        """The parameters that are really sent."""
        if self._supported is None:
            with contextlib.suppress(Exception):  # raises for models that it does not know
                self._supported = set(litellm.get_supported_openai_params(model=self.model) or ())
            self._supported = self._supported or {"temperature", "top_p", "max_tokens", "stop", "seed"}
        wanted = msgspec.structs.replace(sampling, seed=turn_seed(sampling, messages))
        given = msgspec.to_builtins(wanted)
        dropped = {k: () if k == "stop" else None for k in given if k not in self._supported}
        return msgspec.structs.replace(wanted, **dropped)

    def _read(self, litellm: Any, reply: Any) -> tuple[Message, Usage, FinishReason]:
        row = reply.model_dump()
        message, finish, _ = read_completion(row)
        if isinstance(model := row.get("model"), str) and len(self._served) < 20:
            self._served.add(model[:200])
        usage = read_usage(row.get("usage"))
        cost: Any = (getattr(reply, "_hidden_params", None) or {}).get("response_cost")
        if cost is None:
            with contextlib.suppress(Exception):  # no price is known for this model
                cost = litellm.completion_cost(completion_response=reply, model=self.model)
        return message, msgspec.structs.replace(usage, cost_usd=dollars(cost) or usage.cost_usd), finish

    def _failure(self, error: Exception) -> Exception:
        """What an exception of litellm means for the call."""
        status = getattr(error, "status_code", None)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        if status in BUSY and "insufficient_quota" not in text:
            return Fault("busy", text, retry_after(headers))
        if status == 408 or isinstance(error, TimeoutError):
            return Fault("timeout", text)
        if status in RETRIED and "insufficient_quota" not in text:
            return Fault("server", text, retry_after(headers))
        hint = "; set the provider's key in the environment" if status == 401 else ""
        return InfrastructureError(self._caller.clean(f"{self.name}: {text}{hint}"), retryable=False)


def _litellm() -> Any:
    """The package, told to stay at home: no price list is fetched, nothing is reported, nothing is printed."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    return litellm
