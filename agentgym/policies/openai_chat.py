# SPDX-License-Identifier: Apache-2.0
"""Models behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, or a provider): ``--model openai:MODEL@URL``.

    openai:Qwen3-8B@http://localhost:8000/v1
    openai:gpt-x                                          $OPENAI_BASE_URL, else OpenAI itself
    openai:smol@http://localhost:8000/v1#tool_format=hermes,tokens=yes

Options stand behind ``#``, separated by commas; they are the keyword arguments of `OpenAIPolicy`. The key is that of
``$OPENAI_API_KEY``; it, and credentials in the URL, are sent and never recorded, logged or shown.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import numpy as np

from agentgym.chat import Message
from agentgym.errors import InfrastructureError, UsageError, did_you_mean
from agentgym.policies.http1 import Http1, HttpFault, Origin, Reply, parse_url
from agentgym.policies.transport import BUSY, RETRIED, Caller, Fault, Patience, count, dollars, retry_after
from agentgym.policies.wire import Encoder, Reasoning, ShapeError, error_text, from_openai, loads, turn_seed
from agentgym.protocols import Completion, EpisodeContext, FinishReason, Policy, PolicyBase, Sampling, Tokens, Usage
from agentgym.tool_text import ToolFormat, parse_tool_calls, to_text_conversation
from agentgym.toolspec import ToolSpec

OPENAI = "https://api.openai.com/v1"

PROBE_S = 5.0
"""Seconds that a server has to say what its models are, for the record."""

_TOO_LONG = re.compile(
    r"maximum context length|context length (of|is)|model's context length|available context size|context window"
    r"|longer than the maximum model length|(prompt|input) is too long",
    re.IGNORECASE,
)
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_DESCRIBED = ("id", "root", "parent", "owned_by", "max_model_len", "meta")
"""What is kept of a server's description of a model; the rest (time stamps, permissions) changes without meaning."""


class TooLong(Exception):
    """The conversation does not fit the model's context."""

    def __init__(self, prompt_tokens: int) -> None:
        super().__init__()
        self.prompt_tokens = prompt_tokens


class OpenAIPolicy(PolicyBase):
    """A model behind ``/chat/completions``.

    A conversation that does not fit the model's context is the agent's own doing, not a failure of infrastructure: the
    answer is then empty with finish reason ``length``, and the episode is scored.

    Args:
        argument: ``MODEL[@URL][#OPTIONS]``. Without a URL, ``$OPENAI_BASE_URL``, else OpenAI.
        tool_format: ``native``: tools go through the API; else how calls are written in text, for servers that do not
            parse them (see `tool_text`).
        reasoning: whether earlier reasoning is sent back, see `wire.Reasoning`.
        tokens: ask for the exact token ids and log-probabilities (vLLM; other servers as far as they give them).
        omit: names of request fields that this server does not accept, e.g. ``("seed",)``.
        extra: further request fields, e.g. ``{"chat_template_kwargs": {"enable_thinking": False}}``.
        price: US dollars for a million prompt tokens and a million sampled ones; None: what the server says, else 0.
        patience: time limits and retries.

    Raises:
        UsageError: the argument makes no sense; its text holds no part of URL or key.
    """

    def __init__(
        self,
        argument: str = "",
        *,
        tool_format: ToolFormat | str = "native",
        reasoning: Reasoning = "drop",
        tokens: bool = False,
        omit: Sequence[str] = (),
        extra: dict[str, Any] | None = None,
        price: tuple[float, float] | None = None,
        patience: Patience | None = None,
    ) -> None:
        argument, _, options = argument.partition("#")
        model, url = _split(argument)
        given = _options(options)
        self.model = model
        self.tool_format = str(given.get("tool_format", tool_format))
        formats = ("native", *get_args(ToolFormat))
        if self.tool_format not in formats:
            close = did_you_mean(self.tool_format, formats)
            raise UsageError(f"no tool format {self.tool_format!r}; there are: {', '.join(formats)}.{close}")
        self.reasoning: Reasoning = given.get("reasoning", reasoning)
        self.tokens: bool = given.get("tokens", tokens)
        self.omit = (*omit, *given.get("omit", ()))
        self.extra = extra or {}
        self.price: tuple[float, float] | None = given.get("price", price)
        patience = patience or Patience()
        changes: dict[str, Any] = {k: given[k] for k in ("timeout_s", "in_flight") if k in given}
        if "timeout_s" in changes:
            changes["deadline_s"] = max(patience.deadline_s, 2 * changes["timeout_s"])
        self.patience = msgspec.structs.replace(patience, **changes)

        default = os.environ.get("OPENAI_BASE_URL") or OPENAI
        self._origin = _origin(url or default)
        self.name = f"{self.kind}:{model}@{self._origin.shown}" if url else f"{self.kind}:{model}"
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and not self._origin.credentials and _is_openai(self._origin):
            raise UsageError(
                f"{self.kind}:{model} would ask OpenAI, and there is no key for it: set OPENAI_API_KEY; or name another server,"
                f" e.g. {self.kind}:{model}@http://localhost:8000/v1"
            )
        # the URL's own credentials are meant for this server; the key in the environment might be another's
        self._headers = {"Authorization": f"Bearer {key}"} if key and not self._origin.credentials else {}
        self._has_key = bool(self._headers or self._origin.credentials)
        secrets = (key, self._origin.basic or "", *self._origin.credentials.split(":", 1))
        self._http = Http1(self._origin, self._headers)
        self._caller = Caller(self.name, self.patience, tuple(s for s in secrets if len(s) >= 4))
        self._models: list[dict[str, Any]] | None = None
        self._served: set[str] = set()
        self._systems: set[str] = set()

    kind = "openai"
    """What stands before the model's name."""
    replayable = True
    """The same conversation may be answered from the reply cache: a player keeps nothing but what it has written."""

    def begin(self, context: EpisodeContext) -> Policy:
        """A player that writes each message of its conversation to JSON only once."""
        return _Player(self)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation; see the class for what happens when it is too long.

        Raises:
            InfrastructureError: the server failed or refused, after all retries.
        """
        return await self._act(Encoder(self.reasoning), conversation, tools, sampling)

    async def _act(
        self, encoder: Encoder, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling
    ) -> Completion:
        begun = time.monotonic()
        seed = None if "seed" in self.omit else turn_seed(sampling, len(conversation))
        used = msgspec.structs.replace(sampling, seed=seed)
        request = self._request(encoder, conversation, tools, used)
        try:
            message, usage, finish, tokens = await self._ask(request)
        except TooLong as e:
            empty = Message("assistant")
            return Completion(empty, Usage(e.prompt_tokens), "length", None, used, time.monotonic() - begun)
        if tools and self.tool_format != "native":
            message = parse_tool_calls(message, self.tool_format)  # type: ignore[arg-type]
        if message.tool_calls and finish == "stop":
            finish = "tool_calls"
        return Completion(message, usage, finish, tokens, used, time.monotonic() - begun)

    def fingerprint(self) -> dict[str, Any]:
        """Server, model and what the server says about it, options; and what was served so far.

        Asks the server for its models once, for 5 seconds at most; where it does not answer, ``models`` is missing.
        """
        if self._models is None:
            self._models = self._probe()
        result: dict[str, Any] = {
            "name": self.name,
            "server": self._origin.shown,
            "model": self.model,
            "tool_format": self.tool_format,
            "reasoning": self.reasoning,
        }
        if self.omit:
            result["omit"] = list(self.omit)
        if self.extra:
            result["extra"] = self.extra
        mine = [m for m in self._models if m.get("id") == self.model]
        if mine:
            result["described"] = mine[0]
        if self._caller.counts:
            result["served"] = {
                "models": sorted(self._served),
                "system_fingerprints": sorted(self._systems),
                "calls": dict(sorted(self._caller.counts.items())),
            }
        return result

    async def aclose(self) -> None:
        """Closes the connections; a later `act` opens new ones."""
        await self._http.aclose()

    # -- asking ---------------------------------------------------------------------------------------------------------

    def _request(
        self, encoder: Encoder, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling
    ) -> dict[str, Any]:
        native = self.tool_format == "native"
        if not native:
            # writes consecutive tool messages as one, so what has been sent before may change
            encoder = Encoder(self.reasoning)
            conversation = to_text_conversation(conversation, tools, self.tool_format)  # type: ignore[arg-type]
        limit = "max_completion_tokens" if _is_openai(self._origin) else "max_tokens"
        request: dict[str, Any] = {
            "model": self.model,
            "messages": encoder.messages(conversation),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            limit: sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            "tools": encoder.tools(tools) if native and tools else None,
        }
        if self.tokens:
            # two spellings of the same wish: vLLM's and llama.cpp's; servers pass over fields that they do not know
            request |= {"logprobs": True, "top_logprobs": 1, "return_token_ids": True, "return_tokens": True, "verbose": True}
        request |= self.extra
        return {k: v for k, v in request.items() if v is not None and k not in self.omit}

    async def _ask(self, request: dict[str, Any]) -> tuple[Message, Usage, FinishReason, Tokens | None]:
        body = msgspec.json.encode(request)

        async def attempt(timeout: float) -> tuple[Message, Usage, FinishReason, Tokens | None]:
            try:
                reply = await self._http.call("POST", "/chat/completions", body, timeout)
            except HttpFault as e:
                raise Fault(e.kind, str(e)) from None
            if reply.status != 200:
                self._refused(reply)
            return self._read(reply.body)

        try:
            return await self._caller.call(attempt)
        except TooLong:
            limits = [k for k in ("max_tokens", "max_completion_tokens") if k in request]
            if not limits:
                raise
        # Prompt and limit together are too long. Without the limit the answer ends where the context does, which is
        # before the limit would have ended it.
        body = msgspec.json.encode({k: v for k, v in request.items() if k not in limits})
        return await self._caller.call(attempt)

    def _refused(self, reply: Reply) -> None:
        """Raises what follows from a status other than 200.

        Raises:
            Fault: the same request may be accepted later.
            InfrastructureError: it will not be.
        """
        text, codes = error_text(reply.body)
        status = reply.status
        said = f": {text}" if text else ""
        if status == 429 and "insufficient_quota" in codes:
            raise self._final(f"the account has no credit left (429){said}")
        if status in BUSY:
            raise Fault("busy", f"the server is busy ({status}){said}", retry_after(reply.headers))
        if status in RETRIED:
            raise Fault("server", f"the server failed ({status}){said}", retry_after(reply.headers))
        if status in (400, 413, 422) and (codes & _TOO_LONG_CODES or _TOO_LONG.search(text)):
            found = loads(reply.body) if "exceed_context_size_error" in codes else {}
            raise TooLong(count((found.get("error") or {}).get("n_prompt_tokens")))
        if status == 401:
            what = "does not accept the key" if self._has_key else "wants a key, and none is set"
            raise self._final(f"the server {what} (401){said}; set OPENAI_API_KEY to a key of this server")
        if status == 402:
            raise self._final(f"the account has no credit left (402){said}")
        if status == 403:
            raise self._final(f"the key may not use this model, or not from here (403){said}")
        if status == 404:
            known = [str(m.get("id")) for m in self._models or ()]
            close = did_you_mean(self.model, known) or (f" It has: {', '.join(known[:8])}." if known else "")
            raise self._final(f"the server has no model {self.model!r}, or the URL is not its API's (404){said}.{close}")
        if 300 <= status < 400:
            raise self._final(f"the server redirects ({status}), which is not followed: give the address that it redirects to")
        if 200 <= status < 300:
            raise Fault("malformed", f"the server answered with status {status} instead of a reply")
        raise self._final(
            f"the server refuses the request ({status}){said}; if it does not know one of its fields, leave that out:"
            f" {self.kind}:{self.model}#omit=FIELD"
        )

    def _final(self, message: str) -> InfrastructureError:
        return InfrastructureError(self._caller.clean(f"{self.name}: {message}"), retryable=False)

    # -- reading --------------------------------------------------------------------------------------------------------

    def _read(self, body: bytes) -> tuple[Message, Usage, FinishReason, Tokens | None]:
        """Message, usage, finish reason and tokens of a reply.

        Raises:
            Fault: it is not of the expected form, or the server broke off.
        """
        try:
            reply = loads(body)
        except ShapeError as e:
            raise Fault("malformed", f"the server's reply is not a chat completion: {e}") from None
        if isinstance(reply, dict) and reply.get("error"):  # some gateways report errors with status 200
            text, codes = error_text(body)
            busy = any(c.isdigit() and int(c) in BUSY for c in codes)
            raise Fault("busy" if busy else "server", f"the server failed: {text}")
        message, finish, choice = read_completion(reply)
        for key, seen in (("model", self._served), ("system_fingerprint", self._systems)):
            if isinstance(value := reply.get(key), str) and value and len(seen) < 20:
                seen.add(value[:200])
        usage = read_usage(reply.get("usage"), self.price)
        return message, usage, finish, _tokens(reply, choice, finish) if self.tokens else None

    def _probe(self) -> list[dict[str, Any]]:
        """The server's own list of models, shortened; empty where it cannot be had."""
        result: list[dict[str, Any]] = []

        async def ask() -> None:
            client = Http1(self._origin, self._headers)
            try:
                reply = await client.call("GET", "/models", None, PROBE_S)
                rows = loads(reply.body).get("data") if reply.status == 200 else None
                result.extend({k: r[k] for k in _DESCRIBED if k in r} for r in rows or () if isinstance(r, dict))
            except (HttpFault, InfrastructureError, ShapeError, AttributeError, TypeError):
                pass  # not every server can tell, and one that is down will be noticed soon enough
            finally:
                await client.aclose()

        # the caller's event loop is running, and this is asked for by a plain function
        thread = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(ask(), 2 * PROBE_S)), name="agentgym-probe")
        thread.start()
        thread.join()
        return result


class _Player(PolicyBase):
    """One episode of a model."""

    def __init__(self, policy: OpenAIPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._encoder = Encoder(policy.reasoning)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The model's answer."""
        return await self._policy._act(self._encoder, conversation, tools, sampling)


# ---------------------------------------------------------------------------------------------------------------------


def read_completion(reply: Any) -> tuple[Message, FinishReason, dict[str, Any]]:
    """Message, finish reason and first choice of a chat completion.

    Raises:
        Fault: it is none, or the server broke off.
    """
    try:
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ShapeError("it has no choices")
        choice: dict[str, Any] = choices[0]
        message = from_openai(choice.get("message"))
    except ShapeError as e:
        raise Fault("malformed", f"the server's reply is not a chat completion: {e}") from None
    reason = choice.get("finish_reason")
    if reason in ("abort", "error"):
        raise Fault("server", f"the server broke off the answer (finish_reason {reason!r})")
    return message, "length" if reason == "length" else "abort" if reason == "content_filter" else "stop", choice


def read_usage(said: Any, price: tuple[float, float] | None = None) -> Usage:
    """Usage as a server says it, with 0 for what it does not say or cannot be.

    Args:
        said: the reply's ``usage``.
        price: US dollars for a million prompt tokens and a million sampled ones; None: what the server says.
    """
    if not isinstance(said, dict):
        return Usage()
    prompt, sampled = count(said.get("prompt_tokens")), count(said.get("completion_tokens"))
    details = said.get("prompt_tokens_details")
    cached = min(prompt, count(details.get("cached_tokens"))) if isinstance(details, dict) else 0
    cost = dollars(said.get("cost")) if price is None else (prompt * price[0] + sampled * price[1]) / 1e6
    return Usage(prompt, sampled, cached, cost)


def _tokens(reply: dict[str, Any], choice: dict[str, Any], finish: FinishReason) -> Tokens | None:
    """The exact tokens, where the server gave all of them with a log-probability each; else None."""
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    raw = reply.get("__verbose")
    ids = choice.get("token_ids") or (raw.get("tokens") if isinstance(raw, dict) else None)
    if not isinstance(ids, list) or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        return None
    try:
        output = np.array(ids, np.int32)
        given = np.array([e["logprob"] for e in entries], np.float32)
        prompt = reply.get("prompt_token_ids")
        prompt_ids = np.array(prompt, np.int32) if isinstance(prompt, list) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if output.ndim != 1 or (prompt_ids is not None and prompt_ids.ndim != 1):
        return None
    values = np.full(len(output), np.nan, np.float32)
    if len(given) == len(output):
        values[:] = given
    elif len(given) == len(output) - 1:  # llama.cpp lists the token that ended the answer without a log-probability
        values[:-1] = given
    # vLLM says what ended the answer: a stop text, or None for the model's own last token
    stopped = finish == "stop" and not isinstance(choice.get("stop_reason"), str) and "token_ids" in choice
    if isinstance(raw, dict) and "token_ids" not in choice:
        stopped = raw.get("stop_type") == "eos"
    return Tokens(output, values, prompt_ids, stop_token_in_output=stopped)


def _split(argument: str) -> tuple[str, str]:
    """Model and URL of ``MODEL[@URL]``; names may hold ``@`` and ``/`` themselves."""
    match = re.fullmatch(r"(.*?)(?:@(https?://.*))?", argument, re.DOTALL)
    assert match is not None
    model, url = match[1].strip(), (match[2] or "").strip()
    if not model or model.startswith(("http://", "https://")):
        raise UsageError("which model? Expected openai:MODEL@URL, e.g. openai:Qwen3-8B@http://localhost:8000/v1")
    tail = model.rpartition("@")[2] if "@" in model else ""
    if re.search(r"localhost|[:/]|\d+\.\d+\.\d+\.\d+", tail):
        # without this the conversation would go to the default server instead of the one that was meant
        raise UsageError(
            f"a server's URL begins with http:// or https://: openai:{model.partition('@')[0]}@http://HOST:PORT/v1"
        )
    return model, url


def _origin(url: str) -> Origin:
    origin = parse_url(url)
    path = origin.path.removesuffix("/chat/completions") or "/v1"
    return origin._replace(path=path)


def _is_openai(origin: Origin) -> bool:
    return origin.host == "api.openai.com"


def _options(text: str) -> dict[str, Any]:
    """The options behind ``#``.

    Raises:
        UsageError: an unknown one, or one with a bad value.
    """
    result: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        reader = _READERS.get(name.strip())
        if reader is None:
            raise UsageError(
                f"no option {name!r} for openai: models; there are: {', '.join(_READERS)}.{did_you_mean(name, _READERS)}"
            )
        key, read = reader
        try:
            result[key] = read(value.strip())
        except (ValueError, KeyError):
            raise UsageError(f"option {name}={value}: expected {_EXPECTED[name]}") from None
    return result


def _choice(*values: str) -> Any:
    return {v: v for v in values}.__getitem__


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def _price(text: str) -> tuple[float, float]:
    prompt, _, sampled = text.partition("/")
    prices = (float(prompt), float(sampled))
    if not all(0 <= p < 1e9 for p in prices):
        raise ValueError
    return prices


_YES = {"yes": True, "true": True, "1": True, "": True, "no": False, "false": False, "0": False}
_READERS: dict[str, tuple[str, Any]] = {
    "tool_format": ("tool_format", str),
    "reasoning": ("reasoning", _choice("drop", "send")),
    "tokens": ("tokens", _YES.__getitem__),
    "omit": ("omit", lambda text: tuple(text.split("+"))),
    "price": ("price", _price),
    "timeout": ("timeout_s", _positive),
    "connections": ("in_flight", lambda text: max(1, int(_positive(text)))),
}
_EXPECTED = {
    "tool_format": "native, auto, hermes, bare_json or fenced",
    "reasoning": "drop or send",
    "tokens": "yes or no",
    "omit": "names joined by +, e.g. seed+top_k",
    "price": "US dollars for a million tokens, prompt/sampled, e.g. 0.15/0.60",
    "timeout": "seconds",
    "connections": "a number of at least 1",
}
