# SPDX-License-Identifier: Apache-2.0
"""What the dialects have in common: reading fields strictly, refusing what would change what is sampled, writing events."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from agentgym.chat import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCall
from agentgym.errors import UsageError
from agentgym.policies.wire import ShapeError, loads
from agentgym.policies.wire import _content as content_parts
from agentgym.proxy.session import Asked, Node

MOST_CHOICES = 16

PIECE = 24
"""Characters in one event of a streamed text."""


class RequestError(UsageError):
    """A request that cannot be carried out as it stands; the program is told why.

    Args:
        message: a sentence.
        parameter: the field that is to blame.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


def refuse(field: str, why: str) -> NoReturn:
    """Ends a request whose answer would not be what was asked for."""
    raise RequestError(f"{field}: {why}", field)


def read_object(body: bytes) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        RequestError: it is none.
    """
    try:
        value = loads(body)
    except ShapeError as e:
        raise RequestError(f"the request's body cannot be read: {e}") from None
    if not isinstance(value, dict):
        raise RequestError("the request's body must be a JSON object")
    return value


def number(body: Mapping[str, Any], field: str, low: float, high: float, *, whole: bool = False) -> Any:
    """A number of the request within bounds; None where it is not given."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, float) and whole and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        refuse(field, f"must be {'a whole number' if whole else 'a number'} from {low:g} to {high:g}")
    return value if whole else float(value)


def texts(value: Any, field: str) -> tuple[str, ...]:
    """One text or a list of them."""
    if value is None:
        return ()
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or not all(isinstance(r, str) for r in rows):
        refuse(field, "must be a text or a list of texts")
    return tuple(r for r in rows if r)


def rows_of(body: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    """A list of objects of the request; empty where it is not given."""
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(r, dict) for r in value):
        refuse(field, "must be a list of objects")
    return value


def function_tool(row: Mapping[str, Any], field: str, parameters: str = "parameters") -> dict[str, Any]:
    """A tool in OpenAI's chat form."""
    name = row.get("name")
    schema = row.get(parameters)
    if not isinstance(name, str) or not name:
        refuse(field, "each tool must be a function with a name")
    if schema is not None and not isinstance(schema, dict):
        refuse(field, f"the parameters of {name[:80]!r} must be a JSON schema")
    description = row.get("description")
    function = {"name": name, "description": description if isinstance(description, str) else "", "parameters": schema or {}}
    return {"type": "function", "function": function}


def message(role: Any, content: Any, call_id: str | None = None) -> Message:
    """A message that the program wrote; text parts become one text.

    Raises:
        RequestError: its content has an unknown form.
    """
    try:
        parts: Sequence[Part] = content_parts(content)
    except ShapeError as e:
        raise RequestError(f"messages: {e}", "messages") from None
    return Message(role, plain_content(parts), (), call_id)


def plain_content(parts: Sequence[Part]) -> str | tuple[Part, ...]:
    """The parts as one text, where they are nothing but text."""
    if all(isinstance(p, TextPart) for p in parts):
        return "".join(p.text for p in parts if isinstance(p, TextPart))
    return tuple(parts)


def base64_image(data: Any, mime: Any, field: str) -> ImagePart:
    """An image that came in the request itself; others are not fetched."""
    try:
        return ImagePart(base64.b64decode(data, validate=True), mime if isinstance(mime, str) else "image/png")
    except (TypeError, ValueError, binascii.Error):
        refuse(field, "an image must be given in base64: others are not fetched")


def spoken(message: Message) -> tuple[str, str, tuple[ToolCall, ...]]:
    """Reasoning, text and calls of an answer."""
    return message.reasoning, message.text, message.tool_calls


def with_reasoning(thought: str, text: str) -> str | tuple[Part, ...]:
    """An answer's content."""
    if not thought:
        return text
    return (ReasoningPart(thought), TextPart(text)) if text else (ReasoningPart(thought),)


def told(asked: Asked, nodes: Sequence[Node]) -> dict[str, Any]:
    """What the reply says, beside the answer, of how it came about: above all how it was really sampled."""
    calls = [{"call": n.call.index, "parent": n.call.parent, "sampling": msgspec.to_builtins(n.call.sampling)} for n in nodes]
    return {**(calls[0] if len(calls) == 1 else {"choices": calls}), "ignored": list(asked.ignored)}


def pieces(text: str) -> list[str]:
    """A text in the pieces in which it is streamed."""
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]


def events(rows: Iterable[tuple[str | None, Any]]) -> bytes:
    """Server-sent events, with their names where they have one."""
    out = []
    for name, data in rows:
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        out.append(f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n")
    return "".join(out).encode()
