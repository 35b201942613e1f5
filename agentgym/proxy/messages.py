# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/messages``: Anthropic's dialect, plain and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message, Part, TextPart, ToolCall
from agentgym.policies.wire import ShapeError, loads
from agentgym.protocols import Sampling
from agentgym.proxy.common import (
    base64_image,
    events,
    function_tool,
    number,
    pieces,
    plain_content,
    refuse,
    rows_of,
    texts,
    told,
    with_reasoning,
)
from agentgym.proxy.session import Asked, Node

_KNOWN = {
    "max_tokens", "messages", "model", "stop_sequences", "stream", "system", "temperature", "tool_choice", "tools", "top_k",
    "top_p",
}  # fmt: skip

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "abort": "end_turn", "error": "end_turn"}


def read(body: dict[str, Any]) -> Asked:
    """The request.

    Raises:
        RequestError: it is not well-formed, or asks for what the answer would not keep.
    """
    conversation: list[Message] = []
    if body.get("system"):
        conversation.append(Message("system", _content(body["system"], "system")))
    for row in rows_of(body, "messages"):
        conversation += _messages(row)
    if not conversation:
        refuse("messages", "there are none")
    return Asked(
        conversation,
        _tools(body),
        Sampling(
            temperature=number(body, "temperature", 0, 1),
            top_p=number(body, "top_p", 0, 1),
            top_k=number(body, "top_k", 0, 1 << 20, whole=True),
            max_tokens=number(body, "max_tokens", 1, 1 << 20, whole=True) or refuse("max_tokens", "is missing"),
            stop=texts(body.get("stop_sequences"), "stop_sequences"),
        ),
        str(body.get("model") or "")[:200],
        tuple(sorted(k[:80] for k, v in body.items() if k not in _KNOWN and v is not None)),
        body.get("stream") is True,
    )


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind not in (None, "auto", "none"):
        refuse("tool_choice", "only auto and none are supported: no call can be forced on the model")
    tools = []
    for row in rows_of(body, "tools"):
        if row.get("type", "custom") not in (None, "custom"):
            refuse("tools", "only tools with an input_schema are supported, none that the server would run")
        tools.append(function_tool(row, "tools", "input_schema"))
    return [] if kind == "none" else tools


def _blocks(content: Any, field: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(b, dict) for b in content):
        refuse(field, "content must be a text or a list of blocks")
    return content


def _content(content: Any, field: str) -> str | tuple[Part, ...]:
    parts: list[Part] = []
    for block in _blocks(content, field):
        source = block.get("source")
        if block.get("type") == "text":
            parts.append(TextPart(str(block.get("text") or "")))
        elif block.get("type") == "image" and isinstance(source, dict):
            parts.append(base64_image(source.get("data"), source.get("media_type"), field))
        else:
            refuse(field, f"blocks of type {str(block.get('type'))[:40]!r} are not supported")
    return plain_content(parts)


def _messages(row: dict[str, Any]) -> list[Message]:
    """The messages that one of theirs means: results of tools are blocks of the user's there, messages here."""
    role, blocks = row.get("role"), _blocks(row.get("content"), "messages")
    if role == "assistant":
        thought, text, calls = "", "", []
        for block in blocks:
            kind = block.get("type")
            if kind == "text":
                text += str(block.get("text") or "")
            elif kind == "thinking":
                thought += str(block.get("thinking") or "")
            elif kind == "tool_use":
                arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
                calls.append(ToolCall(str(block.get("name") or ""), arguments, str(block.get("id") or "")))
            elif kind != "redacted_thinking":
                refuse("messages", f"blocks of type {str(kind)[:40]!r} are not supported")
        return [Message("assistant", with_reasoning(thought, text), tuple(calls))]
    if role not in ("user", "system"):
        refuse("messages", f"the role {str(role)[:40]!r} is unknown")
    result = [
        Message("tool", _content(b.get("content"), "messages"), (), str(b.get("tool_use_id") or ""))
        for b in blocks
        if b.get("type") == "tool_result"
    ]
    rest = [b for b in blocks if b.get("type") != "tool_result"]
    if rest or not result:
        result.append(Message(role, _content(rest, "messages")))
    return result


def write(asked: Asked, nodes: Sequence[Node], name: str) -> tuple[str, bytes]:
    """The reply: media type and body."""
    call, usage = nodes[0].call, nodes[0].call.usage
    blocks: list[dict[str, Any]] = []
    if call.message.reasoning:
        blocks.append({"type": "thinking", "thinking": call.message.reasoning, "signature": f"{name}_{call.index}"})
    if call.message.text:
        blocks.append({"type": "text", "text": call.message.text})
    blocks += [{"type": "tool_use", "id": c.id, "name": c.name, "input": _input(c)} for c in call.message.tool_calls]
    reply = {
        "id": f"msg_{name}_{call.index}",
        "type": "message",
        "role": "assistant",
        "model": asked.model or "agentgym",
        "content": blocks,
        "stop_reason": _STOP[call.finish_reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": usage.completion_tokens,
        },
        "agentgym": told(asked, nodes),
    }
    if not asked.stream:
        return "application/json", msgspec.json.encode(reply)
    return "text/event-stream", events((row["type"], row) for row in _stream(reply, blocks))


def _input(call: ToolCall) -> dict[str, Any]:
    """The arguments as the object that this dialect wants; what is none is shown as what it is."""
    try:
        value = loads(call.arguments)
    except ShapeError:
        value = None
    return value if isinstance(value, dict) else {"malformed_arguments": call.arguments}


def _stream(reply: dict[str, Any], blocks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    usage = {**reply["usage"], "output_tokens": 0}
    yield {"type": "message_start", "message": {**reply, "content": [], "stop_reason": None, "usage": usage}}
    for at, block in enumerate(blocks):
        kind = block["type"]
        if kind == "tool_use":
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces(json.dumps(block["input"]))]
        elif kind == "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": p} for p in pieces(block["text"])]
        yield {"type": "content_block_start", "index": at, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    ended = {"stop_reason": reply["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": reply["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def error(status: int, text: str) -> bytes:
    """An error in Anthropic's form."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
             413: "request_too_large"}  # fmt: skip
    return msgspec.json.encode({"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": text}})
