# SPDX-License-Identifier: Apache-2.0
"""A task: one concrete instance of an environment family, as its author writes it and as it is kept.

`Task` holds typed Python values and is what environments and oracles work with. `FrozenTask` holds the same as plain
JSON-like values; it is hashed, kept in the run record and given to verifiers, so that a rescore years later sees
exactly what the first scoring saw.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from agentgym.chat import Message, clean_text
from agentgym.errors import UsageError
from agentgym.toolspec import ToolSpec

_canonical = msgspec.msgpack.Encoder(order="deterministic")

_BIG_INT = 1
"""MessagePack extension type of integers beyond 64 bits: two's complement, big endian."""


def from_numpy(value: Any) -> Any:
    """The ``enc_hook`` that turns numpy scalars and arrays into numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no plain form: use a msgspec Struct or JSON-like values")


plain: Callable[[Any], Any] = functools.partial(msgspec.to_builtins, order="deterministic", str_keys=True, enc_hook=from_numpy)
"""``plain(value)``: ``value`` as a copy of plain values: dict with text keys, list, str, int, float, bool, None.

Equal values give equal copies in every process: sets become sorted lists. Numpy scalars become numbers. Raises
`TypeError` where something in it has no such form.
"""


_DEFAULTS: dict[type, tuple[tuple[str, Any], ...]] = {}
"""Struct type -> name and default of each field; `msgspec.structs.fields` resolves type hints anew at every call."""


def _defaults(cls: type) -> tuple[tuple[str, Any], ...]:
    found = _DEFAULTS.get(cls)
    if found is None:
        found = _DEFAULTS[cls] = tuple((f.name, f.default) for f in msgspec.structs.fields(cls))
    return found


def canonical(value: Any) -> Any:
    """``value`` with every field of its structs that equals the default replaced by the default object.

    msgspec's ``omit_defaults`` goes by identity: without this, equal values could give unequal bytes.
    """
    plain_message = type(value) is Message and type(value.content) is str and value.content and not value.tool_calls
    if plain_message and value.tool_call_id is None and value.name is None:
        return value  # the usual opening; an empty tuple is always the same object
    if isinstance(value, msgspec.Struct):
        changed = {}
        for name, default in _defaults(type(value)):
            given = getattr(value, name)
            if given is default:
                continue
            kept = default if type(given) is type(default) and given == default else canonical(given)
            if kept is not given:
                changed[name] = kept
        return msgspec.structs.replace(value, **changed) if changed else value
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], msgspec.Struct):
        items = [canonical(v) for v in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(items)
    return value


def pack(encoder: msgspec.msgpack.Encoder, value: Any) -> bytes:
    """``value`` as MessagePack, also where tools computed integers beyond 64 bits or text that is not Unicode.

    What an agent can bring about in a state must never make its episode impossible to keep.
    """
    try:
        return encoder.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return encoder.encode(_packable(msgspec.to_builtins(value, builtin_types=(bytes,))))


def _packable(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return msgspec.msgpack.Ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, signed=True))
    if isinstance(value, dict):
        return {_packable(k): _packable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packable(v) for v in value]
    return value


def unpack_extension(code: int, data: memoryview) -> Any:
    """The ``ext_hook`` of decoders that read what `pack` wrote."""
    if code == _BIG_INT:
        return int.from_bytes(data, signed=True)
    raise ValueError(f"unknown MessagePack extension type {code}")


class TaskId(NamedTuple):
    """``FAMILY/VARIANT/ITEM``. ITEM is the seed of a generated task or the row id of a data task, and may hold slashes."""

    family: str
    variant: str
    item: str

    def __str__(self) -> str:
        return f"{self.family}/{self.variant}/{self.item}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """The parts of a task id.

        Raises:
            UsageError: fewer than three parts.
        """
        parts = text.split("/", 2)
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"{text!r} is not a task id: expected FAMILY/VARIANT/ITEM, e.g. math.add/control/0")
        return cls(*parts)


class Task(msgspec.Struct, kw_only=True):
    """One instance of a family. Authors fill in the upper fields; the environment fills in the lower ones."""

    opening: str | Message | tuple[Message, ...]
    """What the agent is first shown; a plain string becomes one user message."""
    state: Any = None
    """A msgspec Struct that tools read and write, or None. Played on a copy: this one stays as it was."""
    gold: Any = None
    """The answer or the end state that is really wanted. Never shown to the agent."""
    hidden: Any = None
    """Anything else that verifiers and oracles need and the agent must not see (hidden tests, planted secrets)."""
    cluster: str | None = None
    """Unit of statistical clustering: tasks that rise and fall together share one. None: see `ChatEnv.cluster_of`."""
    tags: tuple[str, ...] = ()
    """Free labels to filter and group results by, e.g. ``level:2``."""

    family: str = ""
    version: int = 1
    """Version of the environment class; a changed golden hash raises it."""
    variant: str = "control"
    item: str = ""
    seed: int | None = None
    """The seed it was generated from; None for data tasks."""
    params: dict[str, Any] = {}
    """Constructor arguments of the environment that differ from their defaults; JSON values."""

    @property
    def id(self) -> str:
        """``FAMILY/VARIANT/ITEM``."""
        return f"{self.family}/{self.variant}/{self.item}"


class FrozenTask(msgspec.Struct, frozen=True, kw_only=True):
    """A `Task` as plain values (dict, list, str, int, float, bool, None), with the tools it was offered with."""

    family: str
    version: int
    variant: str
    item: str
    seed: int | None
    params: dict[str, Any]
    opening: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    state: Any
    gold: Any
    hidden: Any
    cluster: str
    tags: tuple[str, ...]

    @property
    def id(self) -> str:
        """``FAMILY/VARIANT/ITEM``."""
        return f"{self.family}/{self.variant}/{self.item}"

    def encode(self) -> bytes:
        """Canonical MessagePack: equal tasks give equal bytes, in every process and on every machine."""
        # of its fields only these hold structs; the tools are the same for all tasks of an environment
        opening = canonical(self.opening)
        try:
            return _canonical.encode(msgspec.structs.replace(self, opening=opening, tools=_packed(self.tools)))
        except (OverflowError, UnicodeEncodeError):
            return pack(_canonical, msgspec.structs.replace(self, opening=opening))


_packed_tools: dict[int, tuple[tuple[ToolSpec, ...], msgspec.Raw]] = {}


def _packed(tools: tuple[ToolSpec, ...]) -> Any:
    """``tools`` encoded, kept by identity: environments of one class share the very same tuple or an equal one."""
    known = _packed_tools.get(id(tools))
    if known is None or known[0] is not tools:
        if len(_packed_tools) >= 1000:
            _packed_tools.clear()
        known = _packed_tools[id(tools)] = tools, msgspec.Raw(_canonical.encode(canonical(tools)))
    return known[1]


def content_hash(data: bytes) -> str:
    """Name of a content-addressed object: the first 32 hex digits (128 bits) of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def decode_task(data: bytes) -> FrozenTask:
    """The inverse of `FrozenTask.encode`."""
    return msgspec.msgpack.decode(data, type=FrozenTask, ext_hook=unpack_extension)
