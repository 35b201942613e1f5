# SPDX-License-Identifier: Apache-2.0
"""Messages: what agents and environments say to each other, and the checks on text that comes from outside.

The shapes follow the OpenAI chat format (role, content, tool_calls, tool_call_id), which every model server and
trainer of the field speaks; reasoning and images are parts of the content. Messages are immutable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec
import numpy as np

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)

MAX_ARGUMENT_BYTES = 1 << 20
"""A tool call whose argument text is longer (UTF-8 bytes) is refused unread: parsing it would cost more than a turn."""

MAX_ARGUMENT_DEPTH = 64
"""Nesting of arrays and objects in arguments beyond which a call is refused; Python's parser recurses."""


# gc=False, here and in other records: they refer to nothing that refers back, so the collector need not look at them


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text", gc=False):
    """Words that are part of the answer proper."""

    text: str


class ReasoningPart(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning", gc=False):
    """What a model thought before it answered. Tool calls are never parsed out of it."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image", gc=False):
    """A picture, carried whole."""

    data: bytes
    """The encoded file."""
    mime: str = "image/png"
    """IANA media type of ``data``."""


Part = TextPart | ReasoningPart | ImagePart


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request to run a tool, exactly as the model wrote it."""

    name: str
    """Tool name; may name a tool that does not exist."""
    arguments: str = "{}"
    """JSON text, unparsed and possibly malformed; `parse_arguments` judges it."""
    id: str = ""
    """Joins the call to its result. Empty or repeated ids are replaced by the environment."""
    origin: str = "native"
    """``native`` (the model's tool channel), or the text format it was parsed from: ``hermes``, ``bare_json``, ``fenced``."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One message of a conversation."""

    role: Role
    content: str | tuple[Part, ...] = ""
    """Plain text, or parts in the order they were produced."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Assistant messages only, in the order they are to be run."""
    tool_call_id: str | None = None
    """Tool messages only: the `ToolCall.id` this answers."""
    name: str | None = None
    """Speaker's name in multi-agent conversations, or the tool's name; None where the role says it all."""

    @property
    def text(self) -> str:
        """The answer's words: the text parts, joined; reasoning and images left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(p.text for p in self.content if isinstance(p, TextPart))

    @property
    def reasoning(self) -> str:
        """The reasoning parts, joined; empty where there are none."""
        if isinstance(self.content, str):
            return ""
        return "".join(p.text for p in self.content if isinstance(p, ReasoningPart))


class Observation(tuple[Message, ...]):
    """The NEW messages since the last action, in order; never the history again.

    A tuple of `Message`. ``dtype`` is there because PettingZoo's own tests ask every observation for one.
    """

    __slots__ = ()
    dtype = np.dtype(object)

    def __repr__(self) -> str:
        return f"Observation({tuple.__repr__(self)})"


Action = Message | str
"""What an agent does: an assistant message, or its text."""


def system(text: str) -> Message:
    """A system message."""
    return Message("system", text)


def user(text: str) -> Message:
    """A user message."""
    return Message("user", text)


def assistant(text: str = "", *calls: ToolCall, reasoning: str = "") -> Message:
    """An assistant message of text, tool calls and, in front, reasoning."""
    if reasoning:
        parts: tuple[Part, ...] = (ReasoningPart(reasoning), TextPart(text)) if text else (ReasoningPart(reasoning),)
        return Message("assistant", parts, calls)
    return Message("assistant", text, calls)


def call(name: str, /, **arguments: Any) -> Message:
    """An assistant message with one tool call, for oracles, scripts and tests.

    >>> call("refund", order_id="O-1", cents=500).tool_calls[0].arguments
    '{"order_id":"O-1","cents":500}'
    """
    return Message("assistant", "", (ToolCall(name, msgspec.json.encode(arguments).decode()),))


def submit(**arguments: Any) -> Message:
    """`call` of the ``submit`` tool, with which an agent ends a tool task."""
    return call("submit", **arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Text from outside


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8, that is, holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean_text(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD, so that it can be stored and sent."""
    return text if is_unicode(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean_arguments(text: str) -> str:
    """Lone surrogates as JSON escapes: storable, and still refused by `parse_arguments` instead of run with another text."""
    return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def clean_message(message: Message) -> Message:
    """``message`` with `clean_text` applied to every string in it; the same object where nothing had to change.

    In the arguments of calls, lone surrogates become JSON escapes, so that the call is still refused.
    """
    content = message.content
    if isinstance(content, str) and content.isascii() and message.name is None and message.tool_call_id is None:
        for c in message.tool_calls:
            if not (str.isascii(c.arguments) and str.isascii(c.name) and str.isascii(c.id)):
                break
        else:
            return message
    strings: list[str] = [message.content] if isinstance(message.content, str) else []
    if not isinstance(message.content, str):
        strings += [p.text for p in message.content if not isinstance(p, ImagePart)]
    for c in message.tool_calls:
        strings += (c.name, c.arguments, c.id)
    strings += [s for s in (message.name, message.tool_call_id) if s]
    if all(map(is_unicode, strings)):
        return message
    if isinstance(content, str):
        content = clean_text(content)
    else:
        content = tuple(p if isinstance(p, ImagePart) else msgspec.structs.replace(p, text=clean_text(p.text)) for p in content)
    return Message(
        message.role,
        content,
        tuple(
            ToolCall(clean_text(c.name), _clean_arguments(c.arguments), clean_text(c.id), c.origin) for c in message.tool_calls
        ),
        None if message.tool_call_id is None else clean_text(message.tool_call_id),
        None if message.name is None else clean_text(message.name),
    )


class ArgumentError(ValueError):
    """Tool-call arguments that are refused; the text is what the agent is told."""


class _DuplicateKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Any:
    raise ArgumentError(f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ArgumentError(f"the number {text[:40]} is too large")
    return value


def _int(text: str) -> int:
    # beyond 64 bits nothing downstream agrees on the value, and MessagePack cannot hold it
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        raise ArgumentError(f"the number {text[:40]} is too large: integers have 64 bits")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int
).decode


_decode_fast = msgspec.json.Decoder().decode
_PLAIN = frozenset((str, float, bool, type(None)))


def _usual_object(text: str) -> dict[str, Any] | None:
    """The object that ``text`` is, where it is one that is surely without a key given twice; else None.

    The usual case, ten times as fast as the parser that checks everything. The fast parser keeps the last of equal
    keys; as each key needs a colon of its own, as many colons as keys in the result mean that none was dropped.
    """
    try:
        value = _decode_fast(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # the other parser says what is wrong
    if type(value) is not dict or _keys(value, 0) != text.count(":"):
        return None
    return value


def _keys(value: Any, depth: int) -> int:
    """How many keys there are in an object or array and everything in it; below 0 where the other parser has to look."""
    count, values = (len(value), value.values()) if type(value) is dict else (0, value)
    for v in values:
        kind = type(v)
        if kind in _PLAIN or (kind is int and -(1 << 63) <= v < 1 << 64):
            continue
        if kind is int or depth >= MAX_ARGUMENT_DEPTH // 2:
            return -1
        inner = _keys(v, depth + 1)
        if inner < 0:
            return -1
        count += inner
    return count


_BRACKET = re.compile(r'[\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A bracket, or a whole string, in which brackets mean nothing. Possessive: text that never closes is read once."""


def _depth_exceeds(text: str, limit: int) -> bool:
    """Whether brackets outside of strings nest deeper than ``limit``."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for m in _BRACKET.finditer(text):
        mark = m[0]
        if mark in "[{":
            depth += 1
            if depth > limit:
                return True
        elif mark in "]}":
            depth -= 1
    return False


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for k, v in value.items():
            yield k
            yield from _strings(v)
    elif isinstance(value, list):
        for v in value:
            yield from _strings(v)


def parse_arguments(text: str) -> dict[str, Any]:
    """The argument object of a tool call, read strictly.

    Refused: text over `MAX_ARGUMENT_BYTES`, nesting over `MAX_ARGUMENT_DEPTH`, anything that is not one JSON object,
    a key given twice (most parsers silently keep the last), NaN and infinities, integers beyond 64 bits, and lone
    surrogates.

    Raises:
        ArgumentError: with a sentence for the agent.
    """
    ascii_ = text.isascii()
    if len(text) > MAX_ARGUMENT_BYTES or (not ascii_ and len(text.encode("utf-8", "replace")) > MAX_ARGUMENT_BYTES):
        raise ArgumentError(f"the arguments are longer than {MAX_ARGUMENT_BYTES:,} bytes")
    if not ascii_ and not is_unicode(text):
        raise ArgumentError("the arguments hold a lone surrogate, which is not a character")
    if (usual := _usual_object(text)) is not None:
        return usual
    if len(text) > MAX_ARGUMENT_DEPTH and _depth_exceeds(text, MAX_ARGUMENT_DEPTH):
        raise ArgumentError(f"the arguments nest deeper than {MAX_ARGUMENT_DEPTH} levels")
    try:
        value = _decode(text)
    except _DuplicateKey as e:
        raise ArgumentError(f"the key {str(e)[:80]!r} is given twice") from None
    except ArgumentError:
        raise
    except json.JSONDecodeError as e:
        raise ArgumentError(f"the arguments are not valid JSON: {e.msg} at character {e.pos}") from None
    if not isinstance(value, dict):
        raise ArgumentError(f"the arguments must be one JSON object, not {type(value).__name__}")
    if "\\u" in text and not all(map(is_unicode, _strings(value))):
        raise ArgumentError("the arguments hold a lone surrogate, which is not a character")
    return value


def to_openai(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation as OpenAI chat-completions dictionaries; reasoning is left out, images become data URLs."""
    import base64

    result: list[dict[str, Any]] = []
    for m in messages:
        row: dict[str, Any] = {"role": m.role}
        if isinstance(m.content, str):
            row["content"] = m.content
        elif any(isinstance(p, ImagePart) for p in m.content):
            parts: list[dict[str, Any]] = []
            for p in m.content:
                if isinstance(p, TextPart):
                    parts.append({"type": "text", "text": p.text})
                elif isinstance(p, ImagePart):
                    url = f"data:{p.mime};base64,{base64.b64encode(p.data).decode()}"
                    parts.append({"type": "image_url", "image_url": {"url": url}})
            row["content"] = parts
        else:
            row["content"] = m.text
        if m.tool_calls:
            row["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in m.tool_calls
            ]
        if m.tool_call_id is not None:
            row["tool_call_id"] = m.tool_call_id
        if m.name is not None:
            row["name"] = m.name
        result.append(row)
    return result
