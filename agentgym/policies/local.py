# SPDX-License-Identifier: Apache-2.0
"""A model in this very process: ``--model local:smollm2``, or any GGUF file; no key, no GPU, no server.

The engine is llama.cpp in the prebuilt ``xllamacpp`` wheel, imported and loaded at the first turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import math
import os
import random
import secrets
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agentgym.chat import ImagePart, Message, Part, ReasoningPart, TextPart, clean_message, to_openai
from agentgym.errors import InfrastructureError, ModelFileError, NotFoundError, UsageError, did_you_mean
from agentgym.policies import modelfiles
from agentgym.policies.gguf_tokenizer import GGUFTokenizer
from agentgym.policies.token_player import Generated, TokenPlayer
from agentgym.protocols import Completion, EpisodeContext, FinishReason, Policy, PolicyBase, Sampling, Tokens, Usage
from agentgym.tokens.renderer import Renderer, renderer_for
from agentgym.tool_text import ToolFormat, parse_tool_calls, to_text_conversation
from agentgym.toolspec import ToolSpec

_T = TypeVar("_T")

SLOTS = 4
"""Turns that the engine works on at once; they share each pass through the weights."""

CONTEXT = 4096
"""Tokens, prompt and answer together, that one turn may have."""

DEFAULT_MAX_TOKENS = 192
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 0.95
DEFAULT_TOP_K = 0
"""0: no limit."""

_SEEDS = 2**32 - 1
"""The engine's seeds are 32 bits, and the last of them means "random"."""


def _print_progress(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class LocalPolicy(PolicyBase):
    """A GGUF model run in process.

    Tools are told in the prompt and calls are read out of the answer's text (see `tool_text`). The same file, seed
    and conversation give the same answer, however many turns run at once, on the same machine and engine version.

    Where the file's tokenizer and chat template are known (SmolLM2's), prompts are made of token ids and those of earlier turns
    are held as they were sampled, so an episode makes one clean row for training (see `token_player`). The engine renders the
    chats of other files; their answers' tokens are exact too, their prompts' are not told.

    A conversation that does not fit the context is the agent's own doing (or its model's limit), not a failure of
    infrastructure: the answer is then empty with finish reason ``length``, and the episode is scored. Leaving such
    episodes out would flatter a model for losing the thread.

    A turn that is cancelled (time limit, Ctrl-C) is given up at once, but the engine finishes it in the background: a
    process may take that long to exit. ``max_tokens`` bounds it, 192 by default: a few seconds.

    Args:
        argument: a name that `modelfiles` knows (default ``smollm2``), or the path of a GGUF file: one that ends in
            ``.gguf`` or has a ``/`` in it.
        tool_format: how tool calls are written.
        threads: CPU threads; None: half of the CPUs that this process may use, since most are the second thread of a core
            and a thread that waits for a busy one holds up all; at most 8.
        context: tokens, prompt and answer together, that one turn may have.
        verbose: whether the engine may print its log to stderr; None: whether ``AGENTGYM_VERBOSE`` is set.
        progress: is given pieces of a line about the download, should there be one; None prints them to stderr.

    Raises:
        NotFoundError: an unknown name, or no such file.
        UsageError: the file is not a GGUF file.
    """

    slots = SLOTS

    def __init__(
        self,
        argument: str = "smollm2",
        *,
        tool_format: ToolFormat = "auto",
        threads: int | None = None,
        context: int = CONTEXT,
        verbose: bool | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        argument = argument or "smollm2"
        self.name = f"local:{argument}"
        self.tool_format: ToolFormat = tool_format
        self.context = context
        self.threads = threads or max(1, min(_cpus() // 2, 8))
        self.verbose = bool(os.environ.get("AGENTGYM_VERBOSE")) if verbose is None else verbose
        """May be changed until the model is loaded."""
        self._progress = progress or _print_progress
        self._known = modelfiles.KNOWN.get(argument)
        self._path: Path | None = None
        if self._known is None:
            if "/" not in argument and not argument.endswith(".gguf"):
                raise NotFoundError(
                    f"no local model {argument!r}.{did_you_mean(argument, modelfiles.KNOWN)}"
                    f" There are: {', '.join(modelfiles.KNOWN)}; or the path of a file: local:/path/to/model.gguf"
                )
            self._path = Path(argument).expanduser().absolute()
            _check_gguf(self._path)
        self._engine: _Engine | None = None
        self._broken: ModelFileError | None = None
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def prepare(self) -> None:
        """Fetches the file if it is missing and loads the model, so that a failure is known before any episode starts.

        Raises:
            ModelFileError: there is no file to load, or the engine does not accept it.
        """
        with self._lock:
            if self._broken is not None:  # not tried again for each of a hundred episodes
                raise self._broken
            if self._engine is None:
                try:
                    self._engine = _engine(self._file(), self.threads, self.context, self.verbose)
                except ModelFileError as e:
                    self._broken = e
                    raise

    replayable = True
    """The same conversation may be answered from the reply cache: what a player did not say is rendered from its words."""

    def begin(self, context: EpisodeContext) -> Policy:
        """A player that holds the tokens of its episode."""
        return _Player(self)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation, which the engine renders; see the class for what happens when it is too long.

        Raises:
            InfrastructureError: the model cannot be had, or the engine failed.
            UsageError: a sampling parameter that makes no sense.
        """
        begun = time.monotonic()
        used = _effective(sampling, len(conversation))
        request = _request(to_text_conversation(conversation, tools, self.tool_format), used)
        reply = await self._in_thread(self._ask, request)
        message, usage, finish, tokens = _read(reply, self.context)
        if tools:
            message = parse_tool_calls(message, self.tool_format)
            if message.tool_calls and finish == "stop":
                finish = "tool_calls"
        return Completion(message, usage, finish, tokens, used, time.monotonic() - begun)

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        """Samples after a prompt of token ids; see `token_player.Engine`. The engine finds by itself what it has in a slot.

        Raises:
            InfrastructureError: the model cannot be had, or the engine failed.
        """
        reply = await self._in_thread(self._ask, {"prompt": list(prompt_ids), **_how(sampling)})
        if _too_long(reply) is not None:
            return Generated([], [], "length", prompt_too_long=True)
        _, usage, finish, tokens = _read(reply, self.context)
        if tokens is None:
            raise InfrastructureError(f"{self.name}: the engine did not tell all tokens of its answer")
        return Generated(tokens.output_ids.tolist(), tokens.logprobs.tolist(), finish, None, usage.cached_tokens)

    async def forget(self, key: object) -> None:
        """Nothing is held outside of the engine's slots."""

    def fingerprint(self) -> dict[str, Any]:
        """Name, file and its SHA-256 (of an unknown file: computed once, reading it whole), engine and defaults."""
        if self._known is not None:
            file = {"file": self._known.filename, "sha256": self._known.sha256, "bytes": self._known.size}
        else:
            assert self._path is not None
            file = {"file": self._path.name, "sha256": _sha256(self._path), "bytes": self._path.stat().st_size}
        try:
            version = importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
        return {
            "name": self.name,
            **file,
            "engine": "xllamacpp",
            "engine_version": version,
            "context": self.context,
            "tool_format": self.tool_format,
            "sampling": {
                "temperature": DEFAULT_TEMPERATURE,
                "top_p": DEFAULT_TOP_P,
                "top_k": DEFAULT_TOP_K,
                "max_tokens": DEFAULT_MAX_TOKENS,
            },
        }

    async def aclose(self) -> None:
        """Lets go of threads and model; turns still in the engine end in the background. A later `act` loads it anew."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._engine = None

    def _file(self) -> Path:
        if self._known is None:
            assert self._path is not None
            return self._path
        if modelfiles.find(self._known.name) is None:
            return modelfiles.fetch(self._known.name, self._progress)
        # it may have been put there by hand, and what is recorded as having played is this hash
        return modelfiles.verify(self._known.name)

    async def _in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(SLOTS, thread_name_prefix="agentgym-local")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def _renderer(self) -> Renderer | None:
        """What is proved to render as the engine does; None: the engine has to do it. Loads the model on first use."""
        engine = self._loaded()
        with self._lock:
            return engine.renderer(self._file)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One turn of the engine, loaded on first use; blocks, without holding Python's lock."""
        return self._loaded().ask(request)

    def _loaded(self) -> _Engine:
        try:
            self.prepare()
        except ModelFileError as e:
            raise InfrastructureError(str(e), retryable=False) from e
        engine = self._engine
        if engine is None:
            raise InfrastructureError(f"{self.name} was closed while a turn waited for it", retryable=False)
        return engine


class _Player(PolicyBase):
    """One episode. Whether its tokens can be held is known once the model is loaded."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._by: TokenPlayer | LocalPolicy | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The model's answer."""
        if self._by is None:
            policy = self._policy
            renderer = await policy._in_thread(policy._renderer)
            self._by = policy if renderer is None else TokenPlayer(self.name, renderer, policy, policy.tool_format, _effective)
        return await self._by.act(conversation, tools, sampling)


# ---------------------------------------------------------------------------------------------------------------------
# The engine


class _Engine:
    """One loaded model."""

    def __init__(self, path: Path, threads: int, context: int, verbose: bool) -> None:
        try:
            with _no_spinning():
                import xllamacpp
        except ImportError as e:
            raise ModelFileError(
                f"local models need the package xllamacpp, which cannot be imported ({e}): pip install xllamacpp."
                " `--model oracle:honest` works without it"
            ) from e
        p = xllamacpp.CommonParams()
        p.model.path = str(path)
        p.n_parallel = SLOTS
        p.n_ctx = SLOTS * context
        p.cpuparams.n_threads = threads
        p.cpuparams_batch.n_threads = threads
        p.warmup = False
        # on a CPU its flash attention takes twice the time once a conversation is a few hundred tokens long
        p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        p.cache_ram_mib = 0  # the default keeps up to 8 GiB of past prompts
        if not verbose:
            p.verbosity = 0
        # The engine insists on listening for HTTP. It gets a socket file in a private folder instead of a port, which
        # is unlinked as soon as it is bound, so nobody can connect at all; the key covers the moment in between.
        p.api_keys = [secrets.token_hex(32)]
        with _socket_path() as socket:
            p.hostnames = [socket]
            try:
                self._server = xllamacpp.Server(p)
            except RuntimeError as e:
                raise ModelFileError(
                    f"the engine cannot load {path}: it is damaged, or of an architecture that xllamacpp does not know."
                    " AGENTGYM_VERBOSE=1 shows the engine's own log"
                ) from e
        # A server that is freed before its loop has begun waits for ever (seen in about half of the cases), so it is
        # not handed out before it has answered once.
        self.ask({"messages": [{"role": "user", "content": "."}], "max_tokens": 1})
        self._rendered: Renderer | None = None
        self._tried = False

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The engine's reply, which may be an error object."""
        handle = self._server.handle_completions if "prompt" in request else self._server.handle_chat_completions
        try:
            reply = handle(request)
        except Exception as e:  # RuntimeError, ValueError: whatever the binding makes of a C++ exception
            raise InfrastructureError(f"the local engine failed: {e}", retryable=False) from e
        if not isinstance(reply, dict):
            raise InfrastructureError(f"the local engine answered with {type(reply).__name__}, not an object")
        return reply

    def renderer(self, file: Callable[[], Path]) -> Renderer | None:
        """The renderer whose prompts are the engine's own, text and number of tokens; None where there is none."""
        if not self._tried:
            self._rendered, self._tried = self._proved(file()), True
        return self._rendered

    def _proved(self, path: Path) -> Renderer | None:
        try:
            tokenizer = GGUFTokenizer(path)
        except UsageError:
            return None
        asked = [Message("user", " What is 12 + 7?\n")]
        talks = [asked, [Message("system", "Be brief."), *asked, Message("assistant", "19 "), Message("user", "And?")]]
        own = []
        for messages in talks:
            reply = self.ask({"messages": to_openai(messages), "max_tokens": 1, "verbose": True})
            own.append((reply.get("__verbose", {}).get("prompt"), reply.get("usage", {}).get("prompt_tokens")))
        for name in ("smollm2", "chatml"):
            try:
                renderer = renderer_for(tokenizer, name)
            except UsageError:
                continue
            made = [renderer.initial(messages, ()) for messages in talks]
            if own == [(tokenizer.decode(ids), len(ids)) for ids in made]:
                return renderer
        return None


_engines: weakref.WeakValueDictionary[tuple[Any, ...], _Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.Lock()


def _engine(path: Path, threads: int, context: int, verbose: bool) -> _Engine:
    """The engine of that file: one a process, shared by all policies alive that want the same."""
    try:
        status = path.stat()
    except OSError as e:
        raise ModelFileError(f"the model file {path} cannot be read: {e.strerror or e}") from e
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, threads, context)
    with _engines_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = _Engine(path, threads, context, verbose)
        return engine


@contextlib.contextmanager
def _no_spinning() -> Iterator[None]:
    """Makes the engine's threads sleep soon when they wait for each other; its OpenMP library reads this as it is loaded.

    They wait for each other some hundred times a token. Spinning meanwhile, as they do otherwise, costs a time slice
    each time once another process wants the cores: two threads were ten times slower than one.
    """
    name = "GOMP_SPINCOUNT"
    if name in os.environ or "OMP_WAIT_POLICY" in os.environ:  # somebody has decided already
        yield
        return
    os.environ[name] = "1000"
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def _socket_path() -> Iterator[str]:
    """A path for a socket in a folder that only this user can enter; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agentgym-", ignore_cleanup_errors=True) as folder:
        # socket paths longer than some 100 bytes cannot be bound
        if len(os.fsencode(folder)) <= 80:
            yield f"{folder}/engine.sock"
            return
    with tempfile.TemporaryDirectory(prefix="agentgym-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield f"{folder}/engine.sock"


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_gguf(path: Path) -> None:
    """Refuses by its first bytes what would only fail deep in the engine."""
    try:
        with path.open("rb") as f:
            magic = f.read(4)
    except FileNotFoundError:
        raise NotFoundError(f"there is no model file {path}") from None
    except OSError as e:
        raise UsageError(f"the model file {path} cannot be read: {e.strerror or e}") from e
    if magic != b"GGUF":
        raise UsageError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")


_hashes: dict[tuple[int, int, int, int], str] = {}


def _sha256(path: Path) -> str:
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = modelfiles.file_sha256(path)
    return _hashes[key]


# ---------------------------------------------------------------------------------------------------------------------
# Requests and replies


def _effective(sampling: Sampling, messages: int) -> Sampling:
    """The parameters that the engine is given: defaults filled in, and a seed of its own for every turn.

    With the episode's seed in each turn, the random numbers of all turns would be the same ones.
    """
    for what, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{what} must be a number of at least 0, not {value}")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1, not {sampling.max_tokens}")
    if sampling.seed is None:
        seed = random.SystemRandom().randrange(_SEEDS)
    else:
        digest = hashlib.sha256(f"{sampling.seed}:{messages}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little") % _SEEDS
    return Sampling(
        temperature=DEFAULT_TEMPERATURE if sampling.temperature is None else sampling.temperature,
        top_p=DEFAULT_TOP_P if sampling.top_p is None else sampling.top_p,
        top_k=DEFAULT_TOP_K if sampling.top_k is None else sampling.top_k,
        max_tokens=DEFAULT_MAX_TOKENS if sampling.max_tokens is None else sampling.max_tokens,
        stop=sampling.stop,
        seed=seed,
    )


def _request(messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The engine's request.

    Raises:
        InfrastructureError: the conversation holds an image.
    """
    if any(isinstance(p, ImagePart) for m in messages if not isinstance(m.content, str) for p in m.content):
        raise InfrastructureError("local models read text only, and the conversation holds an image", retryable=False)
    rows = to_openai([clean_message(m) for m in messages])  # the engine refuses lone surrogates
    for row in rows:
        row.pop("name", None)
    return {"messages": rows, "top_logprobs": 1, **_how(sampling)}


def _how(sampling: Sampling) -> dict[str, Any]:
    """The sampling of a request, and what it is to tell."""
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop": list(sampling.stop),
        "seed": sampling.seed,
        # just what was asked for, in the order that other engines apply it: the engine's own chain of samplers begins
        # with penalties, cuts at min_p 0.05 and comes to the temperature last
        "samplers": ["temperature", "top_k", "top_p"],
        "logprobs": True,
        "return_tokens": True,
        "verbose": True,  # of the reply: without it, the exact tokens are left out
    }


def _too_long(reply: dict[str, Any]) -> int | None:
    """How many tokens a prompt has that does not fit the context; None: that is not what the reply says."""
    error = reply.get("error")
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        return int(error.get("n_prompt_tokens", 0))
    return None


def _read(reply: dict[str, Any], context: int) -> tuple[Message, Usage, FinishReason, Tokens | None]:
    """Message, usage, finish reason and tokens out of the engine's reply.

    Raises:
        InfrastructureError: the reply is an error, or not what it should be.
    """
    error = reply.get("error")
    if (prompt_tokens := _too_long(reply)) is not None:
        tokens = Tokens(np.empty(0, np.int32), np.empty(0, np.float32))
        return Message("assistant"), Usage(prompt_tokens=prompt_tokens), "length", tokens
    if isinstance(error, dict):
        code = error.get("code", 500)
        raise InfrastructureError(
            f"the local engine refused the turn: {error.get('message', error)}",
            retryable=isinstance(code, int) and code >= 500,
        )
    try:
        choice = reply["choices"][0]
        said = choice["message"] if "message" in choice else {"content": choice["text"]}
        counts = reply["usage"]
        usage = Usage(
            counts["prompt_tokens"],
            counts["completion_tokens"],
            (counts.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        )
        text, thought = said.get("content") or "", said.get("reasoning_content") or ""
        content: str | tuple[Part, ...] = text
        if thought:
            content = (ReasoningPart(thought), TextPart(text)) if text else (ReasoningPart(thought),)
        finish: FinishReason = "length" if choice["finish_reason"] == "length" else "stop"
        return Message("assistant", content), usage, finish, _tokens(choice, reply.get("__verbose") or {}, usage)
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise InfrastructureError(f"the local engine's reply is not of the expected form ({type(e).__name__}: {e})") from e


def _tokens(choice: dict[str, Any], raw: dict[str, Any], usage: Usage) -> Tokens | None:
    """The exact tokens; None where the engine did not tell all of them.

    Log-probabilities come only with tokens that complete a character: of an emoji of three tokens, the first two have
    none. Which token an entry belongs to is then found by its id; where more than one place would do, it is left NaN.
    They are of the model's own distribution: the same at every temperature and top_p.
    """
    ids: list[int] = raw.get("tokens") or []
    if len(ids) != usage.completion_tokens:
        return None
    entries = [(e["id"], e["logprob"]) for e in (choice.get("logprobs") or {}).get("content") or ()]
    logprobs = np.full(len(ids), np.nan, np.float32)
    first = _places(ids, [e[0] for e in entries])
    last = _places(ids[::-1], [e[0] for e in reversed(entries)])
    if first is not None and last is not None:
        for (_, logprob), i, from_end in zip(entries, first, reversed(last), strict=True):
            if i == len(ids) - 1 - from_end:
                logprobs[i] = logprob
    return Tokens(
        np.array(ids, np.int32),
        logprobs,
        logprob_kind="raw",
        stop_token_in_output=raw.get("stop_type") == "eos",
    )


def _places(ids: Sequence[int], wanted: Sequence[int]) -> list[int] | None:
    """Earliest places of ``wanted``, in order, within ``ids``; None where it is not a subsequence."""
    places: list[int] = []
    at = 0
    for w in wanted:
        while at < len(ids) and ids[at] != w:
            at += 1
        if at == len(ids):
            return None
        places.append(at)
        at += 1
    return places
