# SPDX-License-Identifier: Apache-2.0
"""A person in the agent's seat: a policy whose answer somebody types, and what a form for a tool's arguments asks for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message
from agentgym.errors import UsageError
from agentgym.protocols import Completion, Left, PolicyBase, Sampling
from agentgym.toolspec import ToolSpec


class HumanPolicy(PolicyBase):
    """Waits for a person.

    Args:
        ask: called with the conversation and the tools whenever it is the person's turn; the answer comes by `answer`.
    """

    name = "human"
    slots = 1

    def __init__(self, ask: Callable[[Sequence[Message], Sequence[ToolSpec]], None]) -> None:
        self._ask = ask
        self._waiting: asyncio.Future[Message] | None = None
        self._left = False

    @property
    def waiting(self) -> bool:
        """Whether it is the person's turn."""
        return self._waiting is not None and not self._waiting.done()

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The person's message. Raises `Left` where the person has gone."""
        if self._left:
            raise Left
        self._waiting = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._ask(conversation, tools)
        message = await self._waiting
        reason: Any = "tool_calls" if message.tool_calls else "stop"
        return Completion(message, finish_reason=reason, latency_s=time.monotonic() - began)

    def answer(self, message: Message) -> None:
        """What the person says; without effect while nobody waits for it."""
        if self.waiting:
            assert self._waiting is not None
            self._waiting.set_result(message)

    def leave(self) -> None:
        """The person goes: the episode is cut here, and scored on what was done."""
        self._left = True
        if self.waiting:
            assert self._waiting is not None
            self._waiting.set_exception(Left())


class Field(msgspec.Struct, frozen=True):
    """One argument of a tool, as a form asks for it."""

    name: str
    kind: str
    """``string``, ``integer``, ``number``, ``boolean``, or ``json`` for all else."""
    about: str
    """Description and bounds, for a person."""
    required: bool
    choices: tuple[str, ...] = ()
    """As texts, where the schema names them all; empty else."""
    default: str = ""
    """As text."""


def fields(spec: ToolSpec) -> list[Field]:
    """What a form for a tool asks for, in the order of its schema."""
    schema = spec.parameters
    required = schema.get("required", ())
    return [
        _field(name, part, name in required, schema.get("$defs", {})) for name, part in schema.get("properties", {}).items()
    ]


def _field(name: str, part: dict[str, Any], required: bool, defs: dict[str, Any]) -> Field:
    known = _resolved(part, defs)
    options = [o for o in known.get("anyOf", ()) if _resolved(o, defs).get("type") != "null"]
    if len(options) == 1:
        known = {**known, **_resolved(options[0], defs)}
    kind = known.get("type")
    values = known.get("enum") or ([known["const"]] if "const" in known else [True, False] if kind == "boolean" else [])
    if kind is None and values:
        kind = "string" if all(isinstance(v, str) for v in values) else "json"
    kind = kind if kind in ("string", "integer", "number", "boolean") else "json"
    bounds = [
        f"{word} {known[key]}"
        for key, word in (
            ("minimum", "at least"), ("maximum", "at most"), ("exclusiveMinimum", "above"), ("exclusiveMaximum", "below"),
            ("minLength", "characters, at least"), ("maxLength", "characters, at most"), ("pattern", "like"),
        )
        if key in known
    ]  # fmt: skip
    about = "; ".join(filter(None, [str(known.get("description", "")), *bounds]))
    if kind == "json" and not about:
        about = json.dumps(part)
    default = "" if known.get("default") is None else _text(known["default"], kind)
    return Field(name, kind, about, required, tuple(_text(v, kind) for v in values), default)


def _resolved(part: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    name = str(part.get("$ref", "")).rpartition("/")[2]
    return {**defs.get(name, {}), **part} if name else part


def _text(value: Any, kind: str) -> str:
    return value if kind == "string" and isinstance(value, str) else json.dumps(value)


def arguments(asked: Sequence[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that were typed into a form; what was left empty and need not be given is left out.

    Raises:
        UsageError: something is missing or is not what its kind says; the text names it.
    """
    result: dict[str, Any] = {}
    for field in asked:
        text = typed.get(field.name, "")
        if not text and not (field.required and field.kind == "string"):
            if field.required:
                raise UsageError(f"{field.name}: is needed")
            continue
        if field.kind == "string":
            result[field.name] = text
            continue
        try:
            value = json.loads(text)
        except ValueError:
            raise UsageError(f"{field.name}: {text[:60]!r} is not {_ARTICLES[field.kind]}") from None
        if not isinstance(value, _TYPES[field.kind]) or (isinstance(value, bool) and field.kind in ("integer", "number")):
            raise UsageError(f"{field.name}: {text[:60]!r} is not {_ARTICLES[field.kind]}")
        result[field.name] = value
    return result


_TYPES: dict[str, Any] = {"integer": int, "number": (int, float), "boolean": bool, "json": object}
_ARTICLES = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "json": "JSON"}
