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

Outcome = Literal["terminated", "truncated", "infrastructure", "cancelled"]

SPOILED: tuple[Outcome, ...] = ("infrastructure", "cancelled")
"""Outcomes that say nothing of the agent, and have no scores: infrastructure failed, or a person cancelled the episode."""
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


class ModelCall(msgspec.Struct, omit_defaults=True, eq=False):
    """One call of a program to its model, where it is the program that asks and not the episode loop.

    A program may ask any number of times between two turns: sub-agents, second thoughts, answers that it throws away. The
    calls are a forest: each goes on with the conversation of its ``parent``, or begins one. What the program then does is a
    `Turn`; ``turns`` says which of them came out of this answer.
    """

    index: int
    """0-based position in `Trajectory.calls`, in the order in which they were asked."""
    message: Message
    """What the model answered."""
    new: tuple[Message, ...] = ()
    """What the program sent after the answer that this call goes on from; the whole conversation where there is none."""
    parent: int = -1
    """The call whose conversation this one continues; -1: it begins one."""
    agent: str = ""
    """Who asked: empty for the first conversation, ``agent1`` and so on for others, as sub-agents have."""
    played: int = 0
    """Turns that had been played when it was asked."""
    turns: tuple[int, ...] = ()
    """The turns that its answer became; none where the program made nothing of it."""
    void: str = ""
    """Why its answer counts for nothing and is never trained on, e.g. that nobody was there to receive it; else empty."""
    model: str = ""
    """The name that the program asked for; whatever it is, the run's own model answers."""
    ignored: tuple[str, ...] = ()
    """Fields of the request that had no effect."""
    repeats: int = 0
    """Requests that were sent again, after a timeout say, and were given this same answer."""
    finish_reason: FinishReason = "stop"
    usage: Usage = NO_USAGE
    sampling: Sampling | None = None
    """The parameters that were really used; None where nothing was sampled."""
    latency_s: float = 0.0
    """Seconds of the call (monotonic clock). Not part of the canonical form."""
    tokens: Tokens | None = None
    """Its exact tokens; None where the policy gave none. Stored apart, as `Trajectory.tokens` is."""


class EpisodeError(msgspec.Struct, frozen=True):
    """Why an episode could not be finished."""

    kind: Literal["policy", "environment", "sandbox", "verifier", "internal", "replay", "cancelled"]
    """The layer that failed; ``replay``: nothing did, but a reply that was to be replayed is not kept; ``cancelled``: nothing
    did, but a person has cancelled it."""
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
    """Set exactly where ``outcome`` is ``infrastructure`` or ``cancelled``."""
    started_at: float = 0.0
    """Unix time (UTC) of the reset. Not part of the canonical form."""
    duration_s: float = 0.0
    """Seconds from reset to end (monotonic clock). Not part of the canonical form."""
    tokens: list[Tokens | None] | None = None
    """Exact tokens, one entry a turn; None where the policy gave none at all. Stored apart, loaded on request."""
    calls: list[ModelCall] = []
    """Every call of a program to its model (`agentgym.proxy`); empty where the episode loop asks, once a turn."""

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
        prompt = completion = cached = 0
        cost = 0.0
        told = False
        for turn in self.turns:
            usage = turn.usage
            if usage is not NO_USAGE:
                told = True
                prompt += usage.prompt_tokens
                completion += usage.completion_tokens
                cached += usage.cached_tokens
                cost += usage.cost_usd
        return Usage(prompt, completion, cached, cost) if told else NO_USAGE

    @property
    def final_text(self) -> str:
        """Text of the last turn's message; empty where no turn was played."""
        return self.turns[-1].message.text if self.turns else ""

    def canonical(self) -> bytes:
        """JSON that is byte-equal for equal episodes: sorted keys, no clock readings, no tokens.

        A scripted policy on the same task id, variant and seed gives the same bytes in every process.
        """
        plain = msgspec.to_builtins(canonical(_without_tokens(msgspec.structs.replace(self, started_at=0.0, duration_s=0.0))))
        for turn in (*plain.get("turns", ()), *plain.get("calls", ())):
            turn.pop("latency_s", None)
        return msgspec.json.encode(plain, order="deterministic")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Trajectory, ext_hook=unpack_extension)


def encode_trajectory(trajectory: Trajectory) -> bytes:
    """MessagePack of everything but the tokens, which `encode_all_tokens` writes."""
    return pack(_encoder, _without_tokens(trajectory))


def decode_trajectory(data: bytes) -> Trajectory:
    """The inverse of `encode_trajectory`."""
    return _decoder.decode(data)


def _without_tokens(trajectory: Trajectory) -> Trajectory:
    if trajectory.calls:
        calls = [msgspec.structs.replace(c, tokens=None) for c in trajectory.calls]
        return msgspec.structs.replace(trajectory, tokens=None, calls=calls)
    return trajectory if trajectory.tokens is None else msgspec.structs.replace(trajectory, tokens=None)


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
    output, logprobs, prompt = tokens.output_ids, tokens.logprobs, tokens.prompt_ids
    versions, mask = tokens.versions, tokens.mask
    if (
        _is_kept(output, _I4)
        and _is_kept(logprobs, _F4)
        and (prompt is None or _is_kept(prompt, _I4))
        and (versions is None or _is_kept(versions, _I4))
        and (mask is None or _is_kept(mask, _U1))
    ):
        n = len(output)
        if len(logprobs) == n and (versions is None or len(versions) == n) and (mask is None or len(mask) == n):
            return tokens  # the usual case; what follows says what is wrong, or converts
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


def _is_kept(array: Any, dtype: np.dtype[Any]) -> bool:
    """Whether it is an array of one dimension and of the very type that is kept."""
    return type(array) is np.ndarray and array.dtype is dtype and array.ndim == 1


def _buffer(array: Any, dtype: np.dtype[Any]) -> bytes | None:
    if array is None:
        return None
    return (array if array.dtype is dtype else array.astype(dtype, copy=False)).tobytes()  # type: ignore[no-any-return]


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


def encode_all_tokens(trajectory: Trajectory) -> bytes | None:
    """The tokens of an episode's turns and, behind them, of its calls; None where there are none.

    A turn that came out of a call has that call's tokens, which are written once.
    """
    if not trajectory.calls:
        return None if trajectory.tokens is None else encode_tokens(trajectory.tokens)
    if trajectory.tokens is None and all(c.tokens is None for c in trajectory.calls):
        return None
    turns = list(trajectory.tokens or [None] * len(trajectory.turns))
    for c in trajectory.calls:
        if c.turns and c.turns[0] < len(turns):
            turns[c.turns[0]] = None
    return encode_tokens([*turns, *(c.tokens for c in trajectory.calls)])


def put_tokens(trajectory: Trajectory, data: bytes) -> None:
    """Puts back what `encode_all_tokens` wrote of this episode."""
    tokens = decode_tokens(data)
    if not trajectory.calls:
        trajectory.tokens = tokens
        return
    turns = tokens[: len(trajectory.turns)]
    for c, kept in zip(trajectory.calls, tokens[len(trajectory.turns) :], strict=True):
        c.tokens = kept
        if c.turns and c.turns[0] < len(turns):
            turns[c.turns[0]] = kept
    trajectory.tokens = turns if any(t is not None for t in turns) else None


def sampled_turns(trajectory: Trajectory) -> tuple[list[Turn], list[Tokens | None]]:
    """What was sampled in an episode, in order, as turns with their tokens: what a linearizer is given.

    Of an episode that a program played, these are its calls that count, ``index`` being their place in `Trajectory.calls`.
    A turn's reward goes to the call that it came out of; that of one which the program made without its model, to the last
    call before it, as what a turn is paid is also for all that it caused until the next.

    Raises:
        ValueError: the tokens of the turns are missing, or some are.
    """
    if not trajectory.calls:
        tokens = trajectory.tokens or []
        if len(tokens) != len(trajectory.turns):
            raise ValueError("tokens are missing")
        return trajectory.turns, tokens
    counting = [c for c in trajectory.calls if not c.void]
    if counting and all(c.tokens is None for c in counting):
        raise ValueError("tokens are missing")
    rewards = dict.fromkeys((c.index for c in counting), 0.0)
    origin = {turn: c.index for c in counting for turn in c.turns}
    for turn in trajectory.turns:
        call = origin.get(turn.index)
        if call is None:
            call = max((c.index for c in counting if c.played <= turn.index), default=counting[0].index if counting else None)
        if call is not None:
            rewards[call] += turn.reward
    turns = [
        Turn(c.index, c.message, c.agent, c.parent, reward=rewards[c.index], finish_reason=c.finish_reason, usage=c.usage)
        for c in counting
    ]
    return turns, [c.tokens for c in counting]


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
_exact = msgspec.msgpack.Encoder().encode


def _same(a: Any, b: Any) -> bool:
    """Whether two containers are surely the same, told at the speed of C: equal, also as bytes, which 1 and True are not."""
    if a != b:
        return False
    try:
        return _exact(a) == _exact(b)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return False


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
            elif not _same(old, value):
                _diff(old, value, _pointer(path, key), call_id, out)
        if kept < len(a):  # what was removed comes first
            out[start:start] = [StateChange(_pointer(path, key), "remove", a[key], None, call_id) for key in a if key not in b]
    elif (kind is list or kind is tuple) and isinstance(a, (list, tuple)):
        before, after = len(a), len(b)
        # copies share what is immutable, so that a log that only grew is told at once; 1 and True are not the same object
        same = before <= after and all(map(operator.is_, a, b))
        for i in () if same else range(before if before < after else after):
            x, y = a[i], b[i]
            if x is not y and not (type(x) is type(y) and type(x) in _LEAVES and x == y) and not _same(x, y):
                _diff(x, y, f"{path}/{i}", call_id, out)
        if before > after:
            out += [StateChange(f"{path}/{i}", "remove", a[i], None, call_id) for i in range(before - 1, after - 1, -1)]
        elif before < after:
            out += [StateChange(f"{path}/{i}", "add", None, b[i], call_id) for i in range(before, after)]
    elif a is not b and (type(a) is not kind or a != b):
        out.append(StateChange(path, "replace", a, b, call_id))
