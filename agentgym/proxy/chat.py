# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``: OpenAI's chat dialect, plain and streamed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message
from agentgym.policies.wire import ShapeError, from_openai
from agentgym.protocols import Sampling
from agentgym.proxy.common import (
    MOST_CHOICES,
    RequestError,
    events,
    function_tool,
    message,
    number,
    pieces,
    refuse,
    rows_of,
    texts,
    told,
)
from agentgym.proxy.session import Asked, Node

_KNOWN = {
    "frequency_penalty", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "modalities",
    "model", "n", "presence_penalty", "response_format", "seed", "stop", "stream", "stream_options", "temperature",
    "tool_choice", "tools", "top_k", "top_p",
}  # fmt: skip

_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "abort": "stop", "error": "stop"}


def read(body: dict[str, Any]) -> Asked:
    """The request.

    Raises:
        RequestError: it is not well-formed, or asks for what the answer would not keep.
    """
    for field in ("frequency_penalty", "presence_penalty", "logit_bias", "logprobs"):
        if body.get(field):
            refuse(field, "is not supported: what is sampled and recorded would not be what was asked for; leave it out")
    if body.get("functions"):
        refuse("functions", "is the old form of tools; use tools")
    form = body.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type", "text") != "text"):
        refuse("response_format", "only text is supported; ask for JSON in the prompt")
    if body.get("modalities") not in (None, ["text"]):
        refuse("modalities", "only text is supported")
    most = body.get("max_completion_tokens") is not None
    options = body.get("stream_options")
    return Asked(
        [_message(row) for row in rows_of(body, "messages")] or refuse("messages", "there are none"),
        _tools(body),
        Sampling(
            temperature=number(body, "temperature", 0, 2),
            top_p=number(body, "top_p", 0, 1),
            top_k=number(body, "top_k", 0, 1 << 20, whole=True),
            max_tokens=number(body, "max_completion_tokens" if most else "max_tokens", 1, 1 << 20, whole=True),
            stop=texts(body.get("stop"), "stop"),
            seed=number(body, "seed", -(1 << 62), 1 << 62, whole=True),
        ),
        str(body.get("model") or "")[:200],
        tuple(sorted(k[:80] for k, v in body.items() if k not in _KNOWN and v is not None)),
        body.get("stream") is True,
        isinstance(options, dict) and options.get("include_usage") is True,
        number(body, "n", 1, MOST_CHOICES, whole=True) or 1,
    )


def _message(row: dict[str, Any]) -> Message:
    role = row.get("role")
    if role == "assistant":
        try:
            return from_openai(row)
        except ShapeError as e:
            raise RequestError(f"messages: {e}", "messages") from None
    if role in ("system", "developer"):
        return message("system", row.get("content"))
    if role == "user":
        return message("user", row.get("content"))
    if role == "tool":
        return message("tool", row.get("content"), str(row.get("tool_call_id") or ""))
    raise RequestError(f"messages: the role {str(role)[:40]!r} is unknown", "messages")


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        refuse("tool_choice", "only auto and none are supported: no call can be forced on the model")
    tools = []
    for row in rows_of(body, "tools"):
        if row.get("type", "function") != "function" or not isinstance(row.get("function"), dict):
            refuse("tools", "only tools of type function are supported")
        tools.append(function_tool(row["function"], "tools"))
    return [] if choice == "none" else tools


def write(asked: Asked, nodes: Sequence[Node], name: str) -> tuple[str, bytes]:
    """The reply: media type and body.

    Args:
        asked: the request.
        nodes: an answer for each choice.
        name: begins the reply's id.
    """
    head = {"id": f"chatcmpl-{name}-{nodes[0].call.index}", "created": int(time.time()), "model": asked.model or "agentgym"}
    if asked.stream:
        return "text/event-stream", events((None, row) for row in _stream(asked, nodes, head))
    choices = [
        {"index": i, "message": _answer(n.call.message), "finish_reason": _FINISH[n.call.finish_reason], "logprobs": None}
        for i, n in enumerate(nodes)
    ]
    return "application/json", msgspec.json.encode(
        {**head, "object": "chat.completion", "choices": choices, "usage": _usage(nodes), "agentgym": told(asked, nodes)}
    )


def _answer(said: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": "assistant", "content": said.text or (None if said.tool_calls else "")}
    if said.reasoning:
        row["reasoning_content"] = said.reasoning
    if said.tool_calls:
        row["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in said.tool_calls
        ]
    return row


def _usage(nodes: Sequence[Node]) -> dict[str, Any]:
    prompt, sampled = nodes[0].call.usage.prompt_tokens, sum(n.call.usage.completion_tokens for n in nodes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "prompt_tokens_details": {"cached_tokens": nodes[0].call.usage.cached_tokens},
    }


def _stream(asked: Asked, nodes: Sequence[Node], head: dict[str, Any]) -> Iterator[Any]:
    head = {**head, "object": "chat.completion.chunk"}
    for i, node in enumerate(nodes):

        def chunk(delta: dict[str, Any], finish: str | None = None, i: int = i) -> dict[str, Any]:
            return {**head, "choices": [{"index": i, "delta": delta, "finish_reason": finish, "logprobs": None}]}

        said = node.call.message
        yield chunk({"role": "assistant", "content": ""})
        for piece in pieces(said.reasoning):
            yield chunk({"reasoning_content": piece})
        for piece in pieces(said.text):
            yield chunk({"content": piece})
        for at, c in enumerate(said.tool_calls):
            function = {"name": c.name, "arguments": ""}
            yield chunk({"tool_calls": [{"index": at, "id": c.id, "type": "function", "function": function}]})
            for piece in pieces(c.arguments):
                yield chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
        last = chunk({}, _FINISH[node.call.finish_reason])
        yield {**last, "agentgym": told(asked, nodes)} if i == len(nodes) - 1 else last
    if asked.stream_usage:
        yield {**head, "choices": [], "usage": _usage(nodes)}
    yield "[DONE]"


def error(status: int, text: str, code: str, parameter: str | None = None) -> bytes:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return msgspec.json.encode({"error": {"message": text, "type": kind, "param": parameter, "code": code}})
