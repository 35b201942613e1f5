# SPDX-License-Identifier: Apache-2.0
"""What happened: the record of one episode, turn by turn, and its canonical form.

A trajectory is written once and never changed. Scores, labels and advantages are rows of their own that point at it.
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import msgspec
import numpy as np

from agentgym.chat import Message
from agentgym.protocols import NO_USAGE, FinishReason, Sampling, Tokens, Usage
from agentgym.task import canonical, pack, unpack_extension

FORMAT = 1
"""Version of the encoded trajectory; readers refuse newer ones with a sentence and migrate older ones."""

Outcome = Literal["terminated", "truncated", "infrastructure"]
"""How an episode ended: by itself; cut by a limit; or by a failure that is not the agent's (never scored)."""

ToolStatus = Literal["ok", "tool_error", "unknown_tool", "bad_arguments"]


class StateChange(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One difference that one call made to the task's state."""

    path: str
    """JSON pointer (RFC 6901) into the state."""
    operation: Literal["add", "remove", "replace"]
    before: Any = None
    """Value before, as plain values; None for ``add``."""
    after: Any = None
    """Value after, as plain values; None for ``remove``."""
    call_id: str = ""
    """The tool call that did it; empty where the environment itself did."""


class ToolResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How one tool call went. What the agent was told is the tool message with the same id in `Turn.observation`."""

    call_id: str
    name: str
    status: ToolStatus = "ok"
    writes: bool = False
    """Whether the tool is declared to write."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Something noticed besides messages and state: by the environment, or out of band by an observer."""

    turn: int
    """Index of the turn in which it was noticed; -1 before the first."""
    kind: str
    """Dotted name, e.g. ``state.undeclared_write``, ``process.start``."""
    source: Literal["env", "observer", "policy"] = "env"
    """``observer``: seen from outside of the agent's reach (sandbox supervisor), so it cannot be forged or suppressed.
    ``policy``: what a policy tells of itself (`Completion.notes`); its kinds begin with ``policy.``, and convict nobody."""
    resource: str = ""
    """What it was done to: a path, an address, a table row."""
    data: Any = None
    """Details, as plain values."""


class Turn(msgspec.Struct, omit_defaults=True, gc=False):
    """One model call and all that it caused until the next one."""

    index: int
    """0-based position in `Trajectory.turns`."""
    message: Message
    """What the policy answered, as the environment received it."""
    agent: str = ""
    """Who acted; empty in single-agent episodes."""
    parent: int = -1
    """Index of the turn whose conversation this one continues; -1 for the first. Not ``index - 1`` for sub-agents."""
    results: tuple[ToolResult, ...] = ()
    """One a tool call, in the order of the calls."""
    observation: tuple[Message, ...] = ()
    """New messages that the environment answered with."""
    changes: tuple[StateChange, ...] = ()
    """What the turn changed in the state, in order."""
    events: tuple[Event, ...] = ()
    """What was noticed during the turn."""
    reward: float = 0.0
    """Proxy reward that this turn was paid, as delivered to the policy (after wrappers)."""
    finish_reason: FinishReason = "stop"
    usage: Usage = NO_USAGE
    sampling: Sampling | None = None
    """The parameters that were really used; None where nothing was sampled."""
    latency_s: float = 0.0
    """Seconds of the policy's call (monotonic clock). Not part of the canonical form."""


class EpisodeError(msgspec.Struct, frozen=True):
    """Why an episode could not be finished."""

    kind: Literal["policy", "environment", "sandbox", "verifier", "internal", "replay"]
    """The layer that failed; ``replay``: nothing did, but a reply that was to be replayed is not kept."""
    message: str
    """For a person; holds no secret."""
    detail: str = ""
    """Type of the exception and the last frames of its traceback, for whoever mends it."""


class Trajectory(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The record of one episode."""

    task_id: str
    """``FAMILY/VARIANT/ITEM``."""
    task_hash: str = ""
    """`content_hash` of the frozen task; the task itself is kept once in the run record."""
    trial: int = 0
    """0-based repetition of the task; the trials of one task form a group."""
    seed: int = 0
    """Seed that the policy was given for this episode."""
    policy: str = ""
    """Name of the policy."""
    opening: tuple[Message, ...] = ()
    """The first observation."""
    turns: list[Turn] = []
    """In the order in which they ended."""
    state_before: Any = None
    """The task's state at reset, as plain values; None where the task has none."""
    state_after: Any = None
    """The task's state at the end."""
    outcome: Outcome = "terminated"
    truncation: str | None = None
    """The limit that cut the episode: ``turns``, ``time``, ``tokens``, ``cost`` or ``environment``; None if none did."""
    error: EpisodeError | None = None
    """Set exactly where ``outcome`` is ``infrastructure``."""
    started_at: float = 0.0
    """Unix time (UTC) of the reset. Not part of the canonical form."""
    duration_s: float = 0.0
    """Seconds from reset to end (monotonic clock). Not part of the canonical form."""
    tokens: list[Tokens | None] | None = None
    """Exact tokens, one entry a turn; None where the policy gave none at all. Stored apart, loaded on request."""

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, oldest first (single-agent episodes)."""
        result = list(self.opening)
        for t in self.turns:
            result.append(t.message)
            result += t.observation
        return result

    @property
    def total_reward(self) -> float:
        """Sum of the turn rewards as delivered; meaningless where the episode could not be scored."""
        return sum(t.reward for t in self.turns)

    @property
    def usage(self) -> Usage:
        """Sum over the turns."""
        for turn in self.turns:
            if turn.usage is not NO_USAGE:
                break
        else:
            return NO_USAGE
        return Usage(
            sum(t.usage.prompt_tokens for t in self.turns),
            sum(t.usage.completion_tokens for t in self.turns),
            sum(t.usage.cached_tokens for t in self.turns),
            sum(t.usage.cost_usd for t in self.turns),
        )

    @property
    def final_text(self) -> str:
        """Text of the last turn's message; empty where no turn was played."""
        return self.turns[-1].message.text if self.turns else ""

    def canonical(self) -> bytes:
        """JSON that is byte-equal for equal episodes: sorted keys, no clock readings, no tokens.

        A scripted policy on the same task id, variant and seed gives the same bytes in every process.
        """
        plain = msgspec.to_builtins(canonical(msgspec.structs.replace(self, started_at=0.0, duration_s=0.0, tokens=None)))
        for turn in plain.get("turns", ()):
            turn.pop("latency_s", None)
        return msgspec.json.encode(plain, order="deterministic")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Trajectory, ext_hook=unpack_extension)


def encode_trajectory(trajectory: Trajectory) -> bytes:
    """MessagePack of everything but the tokens, which `encode_tokens` writes."""
    if trajectory.tokens is not None:
        trajectory = msgspec.structs.replace(trajectory, tokens=None)
    return pack(_encoder, trajectory)


def decode_trajectory(data: bytes) -> Trajectory:
    """The inverse of `encode_trajectory`."""
    return _decoder.decode(data)


_I4, _F4, _U1 = np.dtype("<i4"), np.dtype("<f4"), np.dtype("|u1")
_ARRAYS = (("output_ids", _I4), ("logprobs", _F4), ("prompt_ids", _I4), ("versions", _I4), ("mask", _U1))


def checked_tokens(tokens: Tokens) -> Tokens:
    """The tokens with arrays of the types that are kept; the same object where they are of these types already.

    Raises:
        TypeError: an array is missing, or is none.
        ValueError: an array has another shape than ``output_ids``, or numbers that its type cannot hold.
    """
    if not isinstance(tokens, Tokens):
        raise TypeError(f"expected Tokens, not {type(tokens).__name__}")
    changed: dict[str, Any] = {}
    for name, dtype in _ARRAYS:
        array = getattr(tokens, name)
        if array is None and name not in ("output_ids", "logprobs"):
            continue
        if not isinstance(array, np.ndarray) or array.ndim != 1:
            raise TypeError(f"tokens.{name} must be a numpy array of one dimension")
        if name != "prompt_ids" and len(array) != len(tokens.output_ids):
            raise ValueError(f"tokens.{name} holds {len(array)} numbers for {len(tokens.output_ids)} tokens")
        if array.dtype is dtype or array.dtype == dtype:
            continue
        kept = array.astype(dtype)
        if array.dtype.kind not in ("f" if name == "logprobs" else "iub") or (name != "logprobs" and (kept != array).any()):
            raise ValueError(f"tokens.{name} must hold {dtype}, not {array.dtype}")
        changed[name] = kept
    return msgspec.structs.replace(tokens, **changed) if changed else tokens


def _buffer(array: Any, dtype: np.dtype[Any]) -> bytes | None:
    return None if array is None else array.astype(dtype, copy=False).tobytes()


def encode_tokens(tokens: list[Tokens | None]) -> bytes:
    """MessagePack of the token arrays of all turns as little-endian buffers, with nothing rounded or re-tokenized.

    A prompt that begins with the whole turn before it is kept from there on (``more``): an episode grows with its own length,
    not with its square.
    """
    rows: list[dict[str, Any] | None] = []
    held: bytes | None = None
    for t in tokens:
        if t is None:
            rows.append(None)
            held = None
            continue
        output, prompt = _buffer(t.output_ids, _I4), _buffer(t.prompt_ids, _I4)
        row = {
            "kind": t.logprob_kind,
            "stop": t.stop_token_in_output,
            "output_ids": output,
            "logprobs": _buffer(t.logprobs, _F4),
            "versions": _buffer(t.versions, _I4),
            "mask": _buffer(t.mask, _U1),
        }
        if held is not None and prompt is not None and prompt.startswith(held):
            row["more"] = prompt[len(held) :]
        else:
            row["prompt_ids"] = prompt
        held = None if prompt is None or output is None else prompt + output
        rows.append(row)
    return _encoder.encode(rows)


def decode_tokens(data: bytes) -> list[Tokens | None]:
    """The inverse of `encode_tokens`."""
    result: list[Tokens | None] = []
    held = b""
    for row in msgspec.msgpack.decode(data):
        if row is None:
            result.append(None)
            continue
        if "more" in row:
            row["prompt_ids"] = held + row["more"]
        held = (row["prompt_ids"] or b"") + row["output_ids"]
        arrays: dict[str, Any] = {n: None if row[n] is None else np.frombuffer(row[n], dtype) for n, dtype in _ARRAYS}
        result.append(Tokens(**arrays, logprob_kind=row["kind"], stop_token_in_output=row["stop"]))
    return result


def _pointer(path: str, key: str) -> str:
    """The JSON pointer of a key below ``path``."""
    if "~" in key or "/" in key:
        key = key.replace("~", "~0").replace("/", "~1")
    return f"{path}/{key}"


def diff_state(before: Any, after: Any, call_id: str = "") -> tuple[StateChange, ...]:
    """What turns ``before`` into ``after``, both plain values: leaf changes as JSON pointers, dictionaries in key order.

    Lists are compared place by place, a longer or shorter tail as additions or removals. 1, 1.0 and True differ.
    """
    changes: list[StateChange] = []
    _diff(before, after, "", call_id, changes)
    return tuple(changes)


_LEAVES = frozenset((str, int, float, bool, type(None)))
_MISSING = object()


def _diff(a: Any, b: Any, path: str, call_id: str, out: list[StateChange]) -> None:
    # Written for speed: it runs after every writing call, and most of a state stays as it was, so that leaves are told
    # apart here, without a call or a path for each, and loops that are mostly empty stand where comprehensions would.
    kind = type(b)
    if kind is dict and type(a) is dict:
        start, kept = len(out), 0
        for key, value in b.items():
            old = a.get(key, _MISSING)
            if old is value:
                kept += 1
                continue
            if old is _MISSING:
                out.append(StateChange(_pointer(path, key), "add", None, value, call_id))
                continue
            kept += 1
            kind = type(value)
            if kind in _LEAVES and type(old) is kind:
                if old != value:
                    out.append(StateChange(_pointer(path, key), "replace", old, value, call_id))
            else:
                _diff(old, value, _pointer(path, key), call_id, out)
        if kept < len(a):  # what was removed comes first
            out[start:start] = [StateChange(_pointer(path, key), "remove", a[key], None, call_id) for key in a if key not in b]
    elif (kind is list or kind is tuple) and isinstance(a, (list, tuple)):
        before, after = len(a), len(b)
        # copies share what is immutable, so that a log that only grew is told at once; 1 and True are not the same object
        same = before <= after and all(map(operator.is_, a, b))
        for i in () if same else range(before if before < after else after):
            x, y = a[i], b[i]
            if x is not y and not (type(x) is type(y) and type(x) in _LEAVES and x == y):
                _diff(x, y, f"{path}/{i}", call_id, out)
        if before != after:
            out += [StateChange(f"{path}/{i}", "remove", a[i], None, call_id) for i in range(before - 1, after - 1, -1)]
            out += [StateChange(f"{path}/{i}", "add", None, b[i], call_id) for i in range(before, after)]
    elif a is not b and (type(a) is not kind or a != b):
        out.append(StateChange(path, "replace", a, b, call_id))
