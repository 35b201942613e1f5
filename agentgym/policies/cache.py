# SPDX-License-Identifier: Apache-2.0
"""A cache of models' replies, so that a run that is played again costs nothing: ``--model cached:openai:MODEL@URL``.

Off unless asked for. A reply is used again only for the same conversation, tools, sampling parameters (seed included),
trial, model version as far as it is known, and way of writing the conversation down; every turn that came from the cache
says so (``Usage.from_cache``) and costs nothing. Kept in ``$AGENTGYM_CACHE/replies.sqlite``; delete it to forget.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agentgym.chat import Message
from agentgym.errors import MissingReplyError, UsageError, redact
from agentgym.policies.load import load_policy
from agentgym.policies.modelfiles import REPLIES, cache_dir
from agentgym.protocols import Completion, EpisodeContext, FinishReason, Policy, PolicyBase, Sampling, Usage
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import decode_tokens, encode_tokens

if TYPE_CHECKING:
    from agentgym.policies.replies import RepliesFile

FORMAT = 1
"""Of keys and rows; part of each key, so that rows of another format are never found."""


class Kept(msgspec.Struct):
    """One reply."""

    message: Message
    usage: Usage
    finish_reason: FinishReason
    sampling: Sampling | None
    tokens: bytes | None


class CachedPolicy(PolicyBase):
    """Answers from the cache, and asks ``inner`` for what is not in it.

    A model's name may come to mean a newer model. The server's description of it is part of the key; and once this process
    has seen a live reply, replies of another model version are not used. Where a server tells neither, nothing can.

    Args:
        inner: a model that keeps nothing between turns, or the text that names one.
        folder: where the cache is; None: `modelfiles.cache_dir`.
        replies: a file of replies to use instead of the cache, in git for example; see `policies.replies`.
        replay_only: never ask ``inner``: an episode whose next reply is missing is skipped.

    Raises:
        UsageError: ``inner`` has a course of its own (an agent, an oracle), which skipped turns would break.
    """

    def __init__(
        self, inner: str | Policy, *, folder: Path | None = None, replies: Path | None = None, replay_only: bool = False
    ) -> None:
        if not inner:
            raise UsageError(
                "which model's replies? Expected cached:MODEL, e.g. cached:openai:Qwen3-8B@http://localhost:8000/v1"
            )
        self.inner = load_policy(inner)
        stateless = getattr(type(self.inner), "begin", None) is PolicyBase.begin or getattr(self.inner, "replayable", False)
        if not stateless or getattr(self.inner, "privileged", False):
            raise UsageError(
                f"{self.inner.name} cannot be cached: it acts by more than the conversation, so skipped turns would break it."
                " Models can: openai:, litellm:, local:"
            )
        self.name = f"cached:{self.inner.name}"
        self.slots = getattr(self.inner, "slots", None)
        self.replay_only = replay_only
        self._store: _Store | RepliesFile
        self._version: str | None = None
        if replies is None:
            self._store = _Store((folder or cache_dir()) / REPLIES)
        else:
            from agentgym.policies.replies import RepliesFile

            self._store = RepliesFile(replies)
            # the server may be out of reach where the file is used, and where it stands must not matter
            named = self.inner.name.partition("@")[0]
            self._version = msgspec.json.encode([FORMAT, named, _template()], order="deterministic").decode()

    def begin(self, context: EpisodeContext) -> Policy:
        """A player of this trial."""
        return _Player(self, None if self.replay_only else self.inner.begin(context), context)

    def fingerprint(self) -> dict[str, Any]:
        """That of the model inside, and how many replies came from the cache."""
        result = {} if self.replay_only else dict(_fingerprint(self.inner))
        served = dict(result.get("served", {}))
        if models := getattr(self._store, "models", None):
            served["models"] = sorted({*served.get("models", []), *models})
        if self._store.hits or self._store.misses:
            served["cache"] = {"hits": self._store.hits, "misses": self._store.misses}
        return {**result, "name": self.name, **({"served": served} if served else {})}

    async def aclose(self) -> None:
        """Closes the cache and the model."""
        self._store.close()
        if (close := getattr(self.inner, "aclose", None)) is not None:
            await close()

    def _key(self, trial: int, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> bytes:
        if self._version is None:
            told = {k: v for k, v in _fingerprint(self.inner).items() if k != "served"}
            self._version = msgspec.json.encode([FORMAT, told, _template()], order="deterministic").decode()
        parts = [self._version, trial, list(conversation), list(tools), sampling]
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).digest()


class _Player(PolicyBase):
    """One episode."""

    def __init__(self, policy: CachedPolicy, inner: Policy | None, context: EpisodeContext) -> None:
        self.name = policy.name
        self._policy = policy
        self._inner = inner
        self._trial = context.trial
        self._task = context.task_id

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The kept reply, or the model's."""
        store = self._policy._store
        key = self._policy._key(self._trial, conversation, tools, sampling)
        begun = time.monotonic()
        models = self._models()
        kept = store.get(key, models)
        if kept is not None:
            tokens = None if kept.tokens is None else decode_tokens(kept.tokens)[0]
            usage = msgspec.structs.replace(kept.usage, cost_usd=0.0, from_cache=True)
            return Completion(
                kept.message, usage, kept.finish_reason, tokens, kept.sampling, max(1e-9, time.monotonic() - begun)
            )
        if self._inner is None:
            raise MissingReplyError(
                f"SKIPPED: no reply is kept for turn {sum(m.role == 'assistant' for m in conversation)} of {self._task}, trial"
                f" {self._trial}: its conversation is new or changed. Play it once with the model to keep it"
            )
        done = await self._inner.act(conversation, tools, sampling)
        if done.finish_reason in ("stop", "length", "tool_calls"):
            data = None if done.tokens is None else encode_tokens([done.tokens])
            after = self._models()
            model = after[0] if len(after) == 1 else ""
            store.put(key, model, Kept(done.message, done.usage, done.finish_reason, done.sampling, data))
        return done

    def _models(self) -> list[str]:
        """Versions of the model seen in live replies of this process."""
        served = getattr(self._policy.inner, "_served", None)
        return sorted(served) if served else []


class _Store:
    """The database. What goes wrong with it is a warning, once: a cache that cannot be used must not stop a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = self.misses = 0
        self._db: sqlite3.Connection | None = None
        self._broken = False
        self._lock = threading.Lock()

    def get(self, key: bytes, models: Sequence[str]) -> Kept | None:
        """The reply of that key, unless it is of another model than those."""
        row = self._try(lambda db: db.execute("SELECT model, data FROM replies WHERE key = ?", (key,)).fetchone())
        if row is not None and not (row[0] and models and row[0] not in models):
            try:
                kept = msgspec.msgpack.decode(row[1], type=Kept)
                self.hits += 1
                return kept
            except msgspec.MsgspecError:
                pass  # damaged; it will be written anew
        self.misses += 1
        return None

    def put(self, key: bytes, model: str, kept: Kept) -> None:
        """Keeps a reply."""
        row = (key, time.time(), model, msgspec.msgpack.encode(kept))
        self._try(lambda db: db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", row))

    def close(self) -> None:
        """Closes the database; it is opened again when needed."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _try(self, action: Any) -> Any:
        if self._broken:
            return None
        try:
            with self._lock:
                return action(self._open())
        except (sqlite3.Error, OSError) as e:
            self._broken = True
            warnings.warn(
                f"the reply cache {self.path} cannot be used ({redact(str(e))}); the run goes on without", RuntimeWarning, 2
            )
            return None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # conversations may be private; made before SQLite would, with the user's own mask
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS replies"
                " (key BLOB PRIMARY KEY, created_at REAL NOT NULL, model TEXT NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
            )
        return self._db


def _fingerprint(policy: Policy) -> dict[str, Any]:
    told = getattr(policy, "fingerprint", None)
    result: dict[str, Any] = told() if callable(told) else {"name": policy.name}
    return result


@functools.cache
def _template() -> str:
    """Hash of the code that writes conversations down: with another wording, the model sees another prompt."""
    digest = hashlib.sha256()
    for name in ("wire.py", "../tool_text.py", "../chat.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]
