# SPDX-License-Identifier: Apache-2.0
"""Token in, token out, behind a server: ``--model vllm:MODEL@URL`` and ``--model sglang:MODEL@URL``.

    vllm:Qwen/Qwen3-8B@http://localhost:8000/v1#tokenizer=models/Qwen3-8B
    sglang:Qwen/Qwen3-8B@http://localhost:30000#tokenizer=models/Qwen3-8B

The prompt is rendered here, with the tokenizer in that folder (a MODEL that is a folder needs none), and sent as token ids;
what comes back is token ids with a log-probability each. Nothing is tokenized twice, so an episode makes one clean row.
Options, key, retries and time limits are those of `openai_chat`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentgym.chat import Message
from agentgym.errors import UsageError
from agentgym.policies.http1 import Http1, HttpFault
from agentgym.policies.openai_chat import OpenAIPolicy, TooLong
from agentgym.policies.token_player import Generated, LogprobKind, TokenPlayer
from agentgym.policies.transport import Fault, count
from agentgym.policies.wire import ShapeError, error_text, loads
from agentgym.protocols import Completion, EpisodeContext, FinishReason, Policy, PolicyBase, Sampling
from agentgym.tokens.renderer import Renderer, renderer_for
from agentgym.tool_text import ToolFormat
from agentgym.toolspec import ToolSpec


class TokenServerPolicy(OpenAIPolicy):
    """What servers that continue token ids have in common.

    Args:
        argument: ``MODEL@URL[#OPTIONS]``; beside the options of ``openai:`` there is ``tokenizer=FOLDER``.
        renderer: between messages and ids; None: the one that is proved for the tokenizer.
        options: see `OpenAIPolicy`.

    Raises:
        UsageError: the argument makes no sense, or there is no tokenizer to render with.
    """

    kind = ""

    def __init__(self, argument: str = "", *, renderer: Renderer | None = None, **options: Any) -> None:
        argument, folder = _tokenizer(argument)
        super().__init__(argument, **options)
        self._folder = folder or (self.model if Path(self.model, "tokenizer.json").is_file() else "")
        self._renderer = renderer
        self._version: int | None = None
        self._lock = threading.Lock()
        if renderer is None:
            if not self._folder or not Path(self._folder, "tokenizer.json").is_file():
                raise UsageError(
                    f"{self.name} renders its prompts itself and needs the model's tokenizer: add #tokenizer=FOLDER, a folder"
                    f" with tokenizer.json in it; or let the server render, openai:{self.model}@URL#tokens=yes"
                )
            if importlib.util.find_spec("transformers") is None:
                raise UsageError(f"{self.kind}: needs the package transformers: pip install 'agentgym-harness[hf]'")

    def begin(self, context: EpisodeContext) -> Policy:
        """A player that holds the tokens of its episode."""
        return _Player(self)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation, its whole prompt rendered anew.

        Raises:
            InfrastructureError: the server failed or refused, after all retries.
        """
        return await _Player(self).act(conversation, tools, sampling)

    def set_version(self, version: int) -> None:
        """The server's weights are now of this version: for trainers that update them and whose server does not tell it.

        It holds for every call that begins from now on, so tell it before the server takes calls again.
        """
        self._version = version

    def renderer(self) -> Renderer:
        """Between messages and ids.

        Raises:
            UsageError: none can be proved for the tokenizer.
        """
        with self._lock:
            if self._renderer is None:
                import transformers

                tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
                self._renderer = renderer_for(tokenizer)
            return self._renderer

    def prepare(self) -> None:
        """Loads the tokenizer.

        Raises:
            UsageError: no renderer can be proved for it.
        """
        self.renderer()

    def fingerprint(self) -> dict[str, Any]:
        """As of `OpenAIPolicy`, and the renderer."""
        return {**super().fingerprint(), "renderer": self.renderer().name}

    # -- the engine -------------------------------------------------------------------------------------------------------

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        """Samples after a prompt; see `token_player.Engine`."""
        try:
            return await self._attempted(prompt_ids, stop_ids, sampling)
        except TooLong:
            # Prompt and limit together may be too long. What is left of the context ends the answer before the limit would.
            if self._models is None:
                self._models = await asyncio.to_thread(self._probe)
            lengths = [m.get("max_model_len") for m in self._models if m.get("id") == self.model or len(self._models) == 1]
            left = count(lengths[0]) - len(prompt_ids) if lengths else 0
            if 1 <= left < (sampling.max_tokens or 0):
                with contextlib.suppress(TooLong):
                    shorter = msgspec.structs.replace(sampling, max_tokens=left)
                    return await self._attempted(prompt_ids, stop_ids, shorter)
            return Generated([], [], "length", None, prompt_too_long=True)

    async def _attempted(self, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        version = self._version
        path, request = self._asked(prompt_ids, stop_ids, sampling)
        body = msgspec.json.encode({k: v for k, v in request.items() if k not in self.omit})

        async def attempt(timeout: float) -> Generated:
            try:
                reply = await self._http.call("POST", path, body, timeout)
            except HttpFault as e:
                raise Fault(e.kind, str(e)) from None
            if reply.status != 200:
                self._refused(reply)
            try:
                value = loads(reply.body)
            except ShapeError as e:
                raise Fault("malformed", f"the server's reply is not {self.kind}'s: {e}") from None
            if isinstance(value, dict) and value.get("error"):
                raise Fault("server", f"the server failed: {error_text(reply.body)[0]}")
            try:
                return self._made(value, prompt_ids, sampling)
            except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as e:
                raise Fault("malformed", f"the server's reply is not {self.kind}'s ({type(e).__name__}: {e})") from None

        made = await self._caller.call(attempt)
        if made.versions is None and version is not None:
            made.versions = [version] * len(made.output_ids)
        return made

    async def forget(self, key: object) -> None:
        """Nothing is held."""

    def _asked(self, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> tuple[str, dict[str, Any]]:
        """Path and request."""
        raise NotImplementedError

    def _made(self, reply: Any, prompt_ids: Sequence[int], sampling: Sampling) -> Generated:
        """What a reply says.

        Raises:
            ValueError: and others: it is not of the server's form.
        """
        raise NotImplementedError


class VLLMPolicy(TokenServerPolicy):
    """A vLLM server that knows ``return_token_ids``: ``/v1/completions`` with ids as the prompt.

    Its log-probabilities are raw, as long as the server runs with ``--logprobs-mode raw_logprobs``, the default. It does not
    tell weight versions; see `set_version`. An answer that the server aborts, as it does when it is paused for new weights, is
    gone on with.
    """

    kind = "vllm"

    def _asked(self, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> tuple[str, dict[str, Any]]:
        request: dict[str, Any] = {
            "model": self.model,
            "prompt": list(prompt_ids),
            "add_special_tokens": False,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            # said in any case: what is left out is taken from the model's generation_config.json
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": sampling.top_k or 0,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "stop_token_ids": sorted(stop_ids),
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
            **self.extra,
        }
        return "/completions", {k: v for k, v in request.items() if v is not None}

    def _made(self, reply: Any, prompt_ids: Sequence[int], sampling: Sampling) -> Generated:
        choice = reply["choices"][0]
        seen = choice.get("prompt_token_ids")
        if seen is not None and seen != list(prompt_ids):
            raise ValueError("it answers to another prompt than the one that was sent")
        ids = _ids(choice["token_ids"])
        logprobs = _floats(choice["logprobs"]["token_logprobs"], len(ids))
        reason = choice["finish_reason"]
        finish: FinishReason = "abort" if reason == "abort" else "length" if reason == "length" else "stop"
        details = (reply.get("usage") or {}).get("prompt_tokens_details") or {}
        return Generated(ids, logprobs, finish, None, count(details.get("cached_tokens")))


class SGLangPolicy(TokenServerPolicy):
    """An SGLang server: ``/generate`` with ``input_ids``.

    Its log-probabilities are of the distribution after the temperature; at temperature 1 (and 0, where it takes the likeliest
    token and tells its probability unscaled) that is the model's own. ``meta_info.weight_version`` becomes the version of all
    tokens of that reply where it is a whole number. The server heeds seeds with ``--enable-deterministic-inference``.
    """

    kind = "sglang"

    def __init__(self, argument: str = "", **options: Any) -> None:
        super().__init__(argument, **options)
        # /generate lies beside the API under /v1, not in it
        beside = self._origin._replace(path=self._origin.path.removesuffix("/v1"))
        self._http = Http1(beside, self._headers)

    def _asked(self, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> tuple[str, dict[str, Any]]:
        how: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": sampling.top_k or -1,
            "sampling_seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "stop_token_ids": sorted(stop_ids),
            "skip_special_tokens": False,
            "no_stop_trim": True,
            **self.extra,
        }
        how = {k: v for k, v in how.items() if v is not None and k not in self.omit}
        return "/generate", {"input_ids": list(prompt_ids), "sampling_params": how, "return_logprob": True, "stream": False}

    def _made(self, reply: Any, prompt_ids: Sequence[int], sampling: Sampling) -> Generated:
        meta = reply["meta_info"]
        reason = meta["finish_reason"]["type"]
        finish: FinishReason = "abort" if reason == "abort" else "length" if reason == "length" else "stop"
        told = meta.get("output_token_logprobs") or []
        ids = _ids([entry[1] for entry in told])
        if "output_ids" in reply and _ids(reply["output_ids"]) != ids:
            raise ValueError("output_ids and output_token_logprobs are not of the same tokens")
        logprobs = _floats([entry[0] for entry in told], len(ids))
        version = meta.get("weight_version")
        known = isinstance(version, int) or (isinstance(version, str) and version.isdecimal())
        versions = [int(version)] * len(ids) if known and version is not None else None
        scaled: LogprobKind = "raw" if sampling.temperature in (0.0, 1.0) else "temperature_scaled"
        return Generated(ids, logprobs, finish, versions, count(meta.get("cached_tokens")), logprob_kind=scaled)


class _Player(PolicyBase):
    """One episode; the tokenizer is loaded off the event loop."""

    def __init__(self, policy: TokenServerPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._player: TokenPlayer | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The model's answer."""
        if self._player is None:
            policy = self._policy
            renderer = await asyncio.to_thread(policy.renderer)
            tool_format: ToolFormat | Literal["native"] = policy.tool_format  # type: ignore[assignment]
            self._player = TokenPlayer(self.name, renderer, policy, tool_format)
        return await self._player.act(conversation, tools, sampling)


def _tokenizer(argument: str) -> tuple[str, str]:
    """The argument without its option ``tokenizer``, and what that says."""
    model, mark, options = argument.partition("#")
    items = options.split(",")
    folder = next((i.partition("=")[2].strip() for i in items if i.partition("=")[0].strip() == "tokenizer"), "")
    rest = ",".join(i for i in items if i.partition("=")[0].strip() != "tokenizer")
    return (f"{model}#{rest}" if mark and rest else model), folder


def _ids(value: Any) -> list[int]:
    """Raises ValueError for anything but token ids."""
    if not isinstance(value, list) or any(type(i) is not int or not 0 <= i < 2**31 for i in value):
        raise ValueError("token ids are whole numbers from 0 up")
    return value


def _floats(value: Any, wanted: int) -> list[float]:
    """Log-probabilities, NaN where the server gives none; ValueError for another number of them."""
    result = [math.nan if v is None else float(v) for v in value]
    if len(result) != wanted:
        raise ValueError(f"{len(result)} log-probabilities for {wanted} tokens")
    return [v if math.isfinite(v) else math.nan for v in result]
