# SPDX-License-Identifier: Apache-2.0
"""Tool calls written as text: telling a model its tools in a prompt, and reading its calls out of its answer.

For models whose server does not do this. The rules are narrow on purpose: a call is read only where the whole answer
is calls, never out of prose and never out of reasoning, so that nobody is held to a call they merely talked about.
What is read keeps its argument text as written; whether that text is acceptable is `parse_arguments`' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from agentgym.chat import Message, Part, TextPart, ToolCall
from agentgym.errors import UsageError, did_you_mean
from agentgym.toolspec import ToolSpec

ToolFormat = Literal["auto", "hermes", "bare_json", "fenced"]
"""``hermes``: ``<tool_call>{...}</tool_call>``, one or more; ``bare_json``: one JSON object; ``fenced``: one JSON object
in a ```` ```json ```` block; ``auto``: whichever of these it is when reading, ``hermes`` when writing."""

MAX_DEPTH = 200
"""Nesting beyond which a text is not read as a call: Python's parser recurses, and how deep it can differs by version."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_SPACE = re.compile(r"[ \t\n\r]*+")
# Possessive, so that a long string costs no memory; the closing quote optional, so that an unclosed string is found
# once and not tried again at each quote in it, which would take quadratic time.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

# Everything stays text: a number with too many digits, NaN and repeated keys are to be judged later, by name.
_scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode


def render_tools(tools: Sequence[ToolSpec], tool_format: ToolFormat = "auto") -> str:
    """The part of a system prompt that tells a model its tools and how to call them; empty without tools.

    The wording is the one that models with Hermes-style templates (Hermes, Qwen) were trained on.

    Raises:
        UsageError: an unknown format.
    """
    _check(tool_format)
    if not tools:
        return ""
    listed = "\n".join(json.dumps(t.to_openai(), ensure_ascii=False) for t in tools)
    shape = '{"name": <function-name>, "arguments": <args-json-object>}'
    head = (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
    )
    if tool_format == "bare_json":
        return (
            f"{head}To call a function, answer with a json object with function name and arguments, and nothing else:\n{shape}"
        )
    if tool_format == "fenced":
        return (
            f"{head}To call a function, answer with a json object with function name and arguments in one fenced block,"
            f" and nothing else:\n```json\n{shape}\n```"
        )
    return (
        f"{head}For each function call, return a json object with function name and arguments within"
        f" <tool_call></tool_call> XML tags, and nothing else:\n{_OPEN}\n{shape}\n{_CLOSE}"
    )


def parse_tool_calls(message: Message, tool_format: ToolFormat = "auto") -> Message:
    """``message`` with its text turned into tool calls, where its whole text is calls; else the same object.

    Reasoning parts stay as they are and are never looked into. Ids are left empty for the environment to give.
    Takes time linear in the text's length and raises nothing on any text.

    Args:
        message: an assistant message; others, and those that have tool calls already, are returned as they are.
        tool_format: the one format to read, or ``auto`` for any of them.

    Raises:
        UsageError: an unknown format.
    """
    _check(tool_format)
    if message.role != "assistant" or message.tool_calls:
        return message
    text = message.text.strip()
    # All formats begin with one of three characters, so prose is told apart without a scan.
    if not text or text[0] not in "<{`" or _too_deep(text):
        return message
    calls: tuple[ToolCall, ...] = ()
    try:
        if text[0] == "<" and tool_format in ("auto", "hermes"):
            calls = _hermes(text)
        elif text[0] == "{" and tool_format in ("auto", "bare_json"):
            calls = _single(text, 0, len(text), "bare_json")
        elif tool_format in ("auto", "fenced") and text.startswith("```json") and text.endswith("```") and len(text) >= 10:
            calls = _single(text, 7, len(text) - 3, "fenced")
    except (ValueError, RecursionError):  # RecursionError: the caller was deep in the stack already
        return message
    if not calls:
        return message
    if isinstance(message.content, str):
        content: str | tuple[Part, ...] = ""
    else:
        content = tuple(p for p in message.content if not isinstance(p, TextPart)) or ""
    return msgspec.structs.replace(message, content=content, tool_calls=calls)


def to_text_conversation(
    messages: Sequence[Message], tools: Sequence[ToolSpec], tool_format: ToolFormat = "auto"
) -> list[Message]:
    """The conversation for a model without a tool channel: only system, user and assistant messages, no tool calls.

    Tools are told in the system message, which is added where there is none; calls become text, after the words they
    came with; consecutive tool messages become one user message of ``<tool_response>`` elements, in order.

    Raises:
        UsageError: an unknown format.
    """
    _check(tool_format)
    result: list[Message] = []
    after_tool = False
    for m in messages:
        if m.role == "tool":
            response = f"<tool_response>\n{m.text}\n</tool_response>"
            if after_tool:
                result[-1] = Message("user", f"{result[-1].text}\n{response}")
            else:
                result.append(Message("user", response))
        elif m.tool_calls:
            result.append(_with_text(m, "\n".join(_written(c, tool_format) for c in m.tool_calls)))
        else:
            result.append(m)
        after_tool = m.role == "tool"
    told = render_tools(tools, tool_format)
    if told:
        if result and result[0].role == "system":
            result[0] = _with_text(result[0], told, gap="\n\n")
        else:
            result.insert(0, Message("system", told))
    return result


# ---------------------------------------------------------------------------------------------------------------------


def _check(tool_format: str) -> None:
    formats = get_args(ToolFormat)
    if tool_format not in formats:
        raise UsageError(
            f"no tool format {tool_format!r}; there are: {', '.join(formats)}.{did_you_mean(tool_format, formats)}"
        )


def _with_text(message: Message, more: str, gap: str = "\n") -> Message:
    """``message`` without tool calls and with more text at its end."""
    more = f"{gap}{more}" if message.text.strip() else more
    if isinstance(message.content, str):
        content: str | tuple[Part, ...] = f"{message.content}{more}" if message.text.strip() else more
    else:
        content = (*message.content, TextPart(more))
    return msgspec.structs.replace(message, content=content, tool_calls=())


def _written(call: ToolCall, tool_format: ToolFormat) -> str:
    """A call as the model would have written it; its arguments are passed on unread, be they malformed."""
    text = f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}'
    if tool_format == "bare_json":
        return text
    return f"```json\n{text}\n```" if tool_format == "fenced" else f"{_OPEN}\n{text}\n{_CLOSE}"


def _too_deep(text: str) -> bool:
    """Whether brackets outside of strings nest deeper than `MAX_DEPTH`."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in "]}":
            depth -= 1
    return False


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[Any, int, int]:
    """The JSON value that begins at or after ``at``, and where it begins and ends.

    Raises:
        ValueError: there is none.
    """
    start = _skip(text, at)
    value, end = _scan(text, start)
    return value, start, end


def _call(text: str, at: int, origin: str) -> tuple[ToolCall, int]:
    """The call object that begins at ``at``, and where it ends.

    Raises:
        ValueError: it is anything but an object of exactly a name and an argument object.
    """
    if not text.startswith("{", at):
        raise ValueError
    at += 1
    found: dict[str, tuple[Any, str]] = {}
    while True:
        key, _, at = _value(text, at)
        key = "arguments" if key == "parameters" else key
        if key not in ("name", "arguments") or key in found:
            raise ValueError
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise ValueError
        value, start, at = _value(text, at + 1)
        found[key] = (value, text[start:at])
        at = _skip(text, at)
        if text.startswith("}", at):
            break
        if not text.startswith(",", at):
            raise ValueError
        at += 1
    if len(found) != 2:
        raise ValueError
    (name, written_name), (arguments, written) = found["name"], found["arguments"]
    # numbers and constants were left as text, so a name is a string only if it was written as one
    if not isinstance(name, str) or not written_name.startswith('"') or not name or not isinstance(arguments, dict):
        raise ValueError
    return ToolCall(name, written, origin=origin), at + 1


def _single(text: str, start: int, end: int, origin: str) -> tuple[ToolCall, ...]:
    call, at = _call(text, _skip(text, start), origin)
    if _skip(text, at) != end:
        raise ValueError
    return (call,)


def _hermes(text: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    at = 0
    while at < len(text):
        if not text.startswith(_OPEN, at):
            raise ValueError
        call, at = _call(text, _skip(text, at + len(_OPEN)), "hermes")
        at = _skip(text, at)
        if not text.startswith(_CLOSE, at):
            raise ValueError
        calls.append(call)
        at = _skip(text, at + len(_CLOSE))
    return tuple(calls)
