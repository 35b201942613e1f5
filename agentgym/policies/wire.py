# SPDX-License-Identifier: Apache-2.0
"""Messages as other programs write them: OpenAI chat dictionaries to and from ours, read strictly, whoever sent them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from agentgym.chat import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCall, clean_message, clean_text, to_openai
from agentgym.protocols import Sampling
from agentgym.toolspec import ToolSpec

Reasoning = Literal["drop", "send"]
"""What becomes of a model's earlier reasoning in the next request: left out, as most chat templates want it, or sent as
``reasoning_content``, which some models need between tool calls."""

_SEEDS = 2**31


class ShapeError(ValueError):
    """A reply that is not of the expected form; the text says where."""


def loads(data: bytes | str) -> Any:
    """JSON from a program; what a model wrote may hold what strict parsers refuse: escaped lone surrogates, made U+FFFD.

    Raises:
        ShapeError: it is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _without_surrogates(json.loads(data))
    except (ValueError, RecursionError):
        pass
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    raise ShapeError(f"it is not JSON; it begins with {text[:60]!r}" if text.strip() else "it is empty")


def from_openai(row: Any) -> Message:
    """An assistant message from an OpenAI chat dictionary.

    ``reasoning_content`` (or ``reasoning``) becomes a reasoning part, and so does a ``<think>`` block with which the text
    begins where the server left it there. Arguments given as an object become its JSON text; a ``refusal`` is text.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(row, dict):
        raise ShapeError(f"the message must be an object, not {_kind(row)}")
    if row.get("role", "assistant") != "assistant":
        raise ShapeError(f"the message's role must be 'assistant', not {str(row['role'])[:40]!r}")
    parts = _content(row.get("content"))
    if not parts and isinstance(refusal := row.get("refusal"), str):
        parts = [TextPart(refusal)]
    thought = row.get("reasoning_content") or row.get("reasoning")
    if isinstance(thought, str) and thought:
        parts.insert(0, ReasoningPart(thought))
    elif parts and isinstance(first := parts[0], TextPart):
        parts[:1] = _unthink(first.text)
    calls = tuple(_call(c) for c in _list(row.get("tool_calls"), "tool_calls"))
    content: str | tuple[Part, ...] = tuple(parts)
    if all(isinstance(p, TextPart) for p in parts):
        content = "".join(p.text for p in parts if isinstance(p, TextPart))
    return Message("assistant", content, calls)


def message_to_openai(message: Message, reasoning: Reasoning = "drop") -> dict[str, Any]:
    """A message for a server, such that nothing a model wrote makes the server refuse the next request.

    Lone surrogates are replaced. Arguments that are not a JSON object, which some servers parse to fill their template
    and fail, are sent as ``{"malformed_arguments": TEXT}``. Tool messages go without a name, calls without empty text.
    """
    row = to_openai([clean_message(message)])[0]
    if message.role == "tool":
        row.pop("name", None)
    elif message.role == "assistant":
        if reasoning == "send" and (thought := message.reasoning):
            row["reasoning_content"] = clean_text(thought)
        if message.tool_calls:
            row["content"] = row["content"] or None
            for call in row["tool_calls"]:
                function = call["function"]
                if not _is_object(function["arguments"]):
                    function["arguments"] = json.dumps({"malformed_arguments": function["arguments"]})
    return row


class Encoder:
    """The JSON of a growing conversation: each message and the tools are written once, however many turns follow.

    For one conversation at a time; one that does not continue the last is written anew.
    """

    def __init__(self, reasoning: Reasoning = "drop") -> None:
        self._reasoning: Reasoning = reasoning
        self._messages: list[Message] = []
        self._written: list[msgspec.Raw] = []
        self._tools: Sequence[ToolSpec] | None = None
        self._tools_written = msgspec.Raw(b"[]")

    def messages(self, conversation: Sequence[Message]) -> list[msgspec.Raw]:
        """The conversation's messages."""
        known = len(self._messages)
        # messages never change and conversations only grow, so the last known one tells whether this is the same one
        if known > len(conversation) or (known and conversation[known - 1] is not self._messages[known - 1]):
            self._messages, self._written, known = [], [], 0
        for message in conversation[known:]:
            self._messages.append(message)
            self._written.append(msgspec.Raw(msgspec.json.encode(message_to_openai(message, self._reasoning))))
        return list(self._written)

    def tools(self, tools: Sequence[ToolSpec]) -> msgspec.Raw:
        """The list of tools."""
        if tools is not self._tools:
            self._tools = tools
            self._tools_written = msgspec.Raw(msgspec.json.encode([t.to_openai() for t in tools]))
        return self._tools_written


def turn_seed(sampling: Sampling, messages: int) -> int | None:
    """A seed of 31 bits for this turn: with the episode's own in each, all turns would see the same random numbers."""
    if sampling.seed is None:
        return None
    digest = hashlib.sha256(f"{sampling.seed}:{messages}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % _SEEDS


def error_text(body: bytes, most: int = 300) -> tuple[str, set[str]]:
    """What an error reply says, in one line, and its error code and type, as far as it has them.

    Knows OpenAI's form, FastAPI's ``detail``, plain strings; of anything else, the beginning.
    """
    text, codes = body[: 4 * most].decode("utf-8", "replace"), set()
    try:
        value = loads(body)
    except ShapeError:
        value = None
    if isinstance(value, dict):
        error = value.get("error", value)
        if isinstance(error, dict):
            codes = {str(error[k]) for k in ("code", "type") if error.get(k)}
            text = str(error.get("message") or error.get("detail") or text)
        else:
            text = str(error)
    return " ".join(text.split())[:most], codes


# ---------------------------------------------------------------------------------------------------------------------


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_without_surrogates(v) for v in value]
    return {clean_text(k): _without_surrogates(v) for k, v in value.items()} if isinstance(value, dict) else value


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _list(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ShapeError(f"{what} must be a list, not {_kind(value)}")
    return value


def _content(content: Any) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    parts: list[Part] = []
    for item in _list(content, "content"):
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "image_url":
            parts.append(_image(item.get("image_url")))
            continue
        text = item.get("text") if kind in ("text", "output_text", "refusal") else item.get(kind) if kind else None
        if kind == "refusal":
            text = item.get("refusal")
        if not isinstance(text, str):
            raise ShapeError(f"content holds a part of unknown form, type {str(kind)[:40]!r}")
        parts.append(ReasoningPart(text) if kind in ("reasoning", "thinking") else TextPart(text))
    return parts


def _image(value: Any) -> ImagePart:
    url = value.get("url") if isinstance(value, dict) else value
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise ShapeError("an image must be a data URL in base64: others are not fetched")
    try:
        return ImagePart(base64.b64decode(data, validate=True), head[5:-7] or "image/png")
    except (binascii.Error, ValueError):
        raise ShapeError("an image's base64 is damaged") from None


def _unthink(text: str) -> list[Part]:
    stripped = text.lstrip()
    if not stripped.startswith("<think>") or "</think>" not in stripped:
        return [TextPart(text)]
    thought, _, answer = stripped[len("<think>") :].partition("</think>")
    parts: list[Part] = [ReasoningPart(thought.strip())] if thought.strip() else []
    if answer.strip():
        parts.append(TextPart(answer.lstrip()))
    return parts


def _call(row: Any) -> ToolCall:
    function = row.get("function") if isinstance(row, dict) else None
    if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
        raise ShapeError("a tool call must be an object with a function that has a name")
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = "{}"  # a call of a tool without parameters
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    id_ = row.get("id")
    return ToolCall(name, arguments, id_ if isinstance(id_, str) else "")


def _is_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (ValueError, RecursionError):
        pass
    try:  # knows NaN, as the servers' own parsers do
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
