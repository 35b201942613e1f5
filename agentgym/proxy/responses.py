# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/responses``: OpenAI's dialect of items, plain and streamed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentgym.chat import ImagePart, Message, Part, TextPart, ToolCall
from agentgym.policies.wire import ShapeError
from agentgym.policies.wire import _image as data_url
from agentgym.protocols import Sampling
from agentgym.proxy.common import (
    RequestError,
    events,
    function_tool,
    number,
    pieces,
    plain_content,
    refuse,
    rows_of,
    told,
    with_reasoning,
)
from agentgym.proxy.session import Asked, Node

_KNOWN = {
    "background", "conversation", "input", "instructions", "max_output_tokens", "model", "previous_response_id", "prompt",
    "stream", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p",
}  # fmt: skip


def read(body: dict[str, Any]) -> Asked:
    """The request; of one with ``previous_response_id``, ``conversation`` holds the instructions and what is new.

    Raises:
        RequestError: it is not well-formed, or asks for what the answer would not keep.
    """
    for field in ("background", "conversation", "prompt", "top_logprobs"):
        if body.get(field):
            refuse(field, "is not supported; leave it out")
    form = body.get("text")
    form = form.get("format") if isinstance(form, dict) else None
    if form is not None and (not isinstance(form, dict) or form.get("type", "text") != "text"):
        refuse("text", "only plain text is supported; ask for JSON in the prompt")
    conversation: list[Message] = []
    instructions = body.get("instructions")
    if isinstance(instructions, str) and instructions:
        conversation.append(Message("system", instructions))
    given = body.get("input")
    conversation += [Message("user", given)] if isinstance(given, str) else _items(rows_of(body, "input"))
    previous = body.get("previous_response_id")
    if not conversation:
        refuse("input", "there is none")
    return Asked(
        conversation,
        _tools(body),
        Sampling(
            temperature=number(body, "temperature", 0, 2),
            top_p=number(body, "top_p", 0, 1),
            max_tokens=number(body, "max_output_tokens", 1, 1 << 20, whole=True),
        ),
        str(body.get("model") or "")[:200],
        tuple(sorted(k[:80] for k, v in body.items() if k not in _KNOWN and v is not None)),
        body.get("stream") is True,
        previous=previous if isinstance(previous, str) else "",
        instructions=int(bool(instructions)),
    )


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        refuse("tool_choice", "only auto and none are supported: no call can be forced on the model")
    tools = []
    for row in rows_of(body, "tools"):
        if row.get("type", "function") != "function":
            refuse("tools", "only tools of type function are supported")
        tools.append(function_tool(row, "tools"))
    return [] if choice == "none" else tools


def _parts(content: Any) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for row in content if isinstance(content, list) else [content]:
        kind = row.get("type") if isinstance(row, dict) else None
        if kind in ("input_text", "output_text", "text", "refusal"):
            parts.append(TextPart(str(row.get("text") or row.get("refusal") or "")))
        elif kind == "input_image":
            try:
                image = data_url(row.get("image_url"))
            except ShapeError as e:
                raise RequestError(f"input: {e}", "input") from None
            assert isinstance(image, ImagePart)
            parts.append(image)
        else:
            refuse("input", f"content of type {str(kind)[:40]!r} is not supported")
    return plain_content(parts)


def _items(rows: Sequence[dict[str, Any]]) -> list[Message]:
    """The messages that a list of items means: what an answer consisted of becomes one message again."""
    result: list[Message] = []
    thought, text, open_ = "", "", False
    calls: list[ToolCall] = []

    def close() -> None:
        nonlocal thought, text, calls, open_
        if open_:
            result.append(Message("assistant", with_reasoning(thought, text), tuple(calls)))
        thought, text, calls, open_ = "", "", [], False

    for row in rows:
        kind = row.get("type", "message")
        role = row.get("role")
        if kind == "reasoning":
            if text or calls:
                close()
            open_ = True
            content = row.get("content")
            thought += "".join(str(p.get("text") or "") for p in content if isinstance(p, dict)) if content else ""
        elif kind == "function_call":
            open_ = True
            calls.append(ToolCall(str(row.get("name") or ""), str(row.get("arguments") or "{}"), str(row.get("call_id") or "")))
        elif kind == "message" and role == "assistant":
            if calls or text:
                close()
            open_ = True
            said = _parts(row.get("content"))
            text = said if isinstance(said, str) else "".join(p.text for p in said if isinstance(p, TextPart))
        elif kind == "function_call_output":
            close()
            result.append(Message("tool", _parts(row.get("output")), (), str(row.get("call_id") or "")))
        elif kind == "message" and role in ("user", "system", "developer"):
            close()
            result.append(Message("user" if role == "user" else "system", _parts(row.get("content"))))
        else:
            refuse("input", f"items of type {str(kind)[:40]!r}, role {str(role)[:40]!r}, are not supported")
    close()
    return [m for m in result if m.role != "assistant" or m.content or m.tool_calls]


def write(asked: Asked, nodes: Sequence[Node], name: str) -> tuple[str, bytes]:
    """The reply: media type and body."""
    node = nodes[0]
    call, usage = node.call, node.call.usage
    number_ = f"{name}_{call.index}"
    items: list[dict[str, Any]] = []
    content: list[dict[str, Any]]
    if call.message.reasoning:
        content = [{"type": "reasoning_text", "text": call.message.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{number_}", "summary": [], "content": content, "status": "completed"})
    if call.message.text or not call.message.tool_calls:
        content = [{"type": "output_text", "text": call.message.text, "annotations": [], "logprobs": []}]
        items.append(
            {"type": "message", "id": f"msg_{number_}", "role": "assistant", "status": "completed", "content": content}
        )
    items += [
        {"type": "function_call", "id": f"fc_{number_}_{i}", "call_id": c.id, "name": c.name, "arguments": c.arguments,
         "status": "completed"}
        for i, c in enumerate(call.message.tool_calls)
    ]  # fmt: skip
    cut = call.finish_reason == "length"
    reply = {
        "id": f"resp_{number_}",
        "object": "response",
        "created_at": int(time.time()),
        "model": asked.model or "agentgym",
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "output": items,
        "parallel_tool_calls": True,
        "previous_response_id": asked.previous or None,
        "temperature": call.sampling.temperature if call.sampling else None,
        "top_p": call.sampling.top_p if call.sampling else None,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "agentgym": told(asked, nodes),
    }
    if not asked.stream:
        return "application/json", msgspec.json.encode(reply)
    rows = [{"type": kind, "sequence_number": i, **row} for i, (kind, row) in enumerate(_stream(reply, items))]
    return "text/event-stream", events((row["type"], row) for row in rows)


def _stream(reply: dict[str, Any], items: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**reply, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for at, item in enumerate(items):
        where = {"output_index": at, "item_id": item["id"]}
        blank: dict[str, Any] = {"arguments": ""} if "arguments" in item else {"content": []}
        empty = {**item, "status": "in_progress", **blank}
        yield "response.output_item.added", {"output_index": at, "item": empty}
        if item["type"] == "function_call":
            for piece in pieces(item["arguments"]):
                yield "response.function_call_arguments.delta", {**where, "delta": piece}
            done = {**where, "name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", done
        else:
            part = item["content"][0]
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            extra: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
            yield "response.content_part.added", {**where, "content_index": 0, "part": {**part, "text": ""}}
            for piece in pieces(part["text"]):
                yield f"response.{kind}.delta", {**where, "content_index": 0, "delta": piece, **extra}
            yield f"response.{kind}.done", {**where, "content_index": 0, "text": part["text"], **extra}
            yield "response.content_part.done", {**where, "content_index": 0, "part": part}
        yield "response.output_item.done", {"output_index": at, "item": item}
    yield f"response.{reply['status']}", {"response": reply}
