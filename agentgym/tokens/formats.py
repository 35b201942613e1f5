# SPDX-License-Identifier: Apache-2.0
"""How families of models write their reasoning and their tool calls, and how that is read out of what was sampled.

The rules are those of `tool_text`: calls are read where the rest of an answer is nothing but calls, and never out of reasoning.
What cannot be read stays text. Everything takes time linear in the text's length and raises nothing on any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message, ToolCall, assistant
from agentgym.tokens.renderer import Control
from agentgym.tool_text import parse_tool_calls
from agentgym.toolspec import ToolSpec

Calls = tuple[str, tuple[ToolCall, ...]]
"""Words before the calls, and the calls."""

Types = Mapping[tuple[str, str], Any]
"""JSON type of each parameter, by names of tool and parameter, for formats that write values without quotes."""


class Format(msgspec.Struct, frozen=True):
    """One way of writing."""

    name: str
    read: Callable[[Sequence[str], bool, bool, Types], Message]
    """From what tokens spell, whether the prompt had begun the reasoning, whether the turn is whole, and `Types`."""
    stops: tuple[str, ...] = ()
    """Tokens that end a turn, beside the one that the template puts behind an answer."""
    ends_turn: bool = True
    """Whether what the template puts behind an answer is what a model ends its turn with."""


def types_of(tools: Sequence[ToolSpec]) -> Types:
    """See `Types`; what is not told is left out."""
    result: dict[tuple[str, str], Any] = {}
    for tool in tools:
        properties = tool.parameters.get("properties")
        for key, schema in properties.items() if isinstance(properties, dict) else ():
            if isinstance(schema, dict) and "type" in schema:
                result[tool.name, key] = schema["type"]
    return result


def _tagged(calls: Callable[[str, Types], Calls]) -> Callable[[Sequence[str], bool, bool, Types], Message]:
    """Reasoning within ``<think>``, then words, then calls."""

    def read(runs: Sequence[str], opened: bool, whole: bool, types: Types) -> Message:
        reasoning, visible = split_reasoning("".join(runs), opened)
        try:
            text, found = calls(visible, types)
        except (ValueError, RecursionError):
            text, found = visible, ()
        return assistant(text, *found, reasoning=reasoning)

    return read


def split_reasoning(text: str, opened: bool) -> tuple[str, str]:
    """What stands in ``<think>`` at the beginning, and what comes after it.

    Args:
        text: what was sampled.
        opened: whether the prompt ended with the opening tag. Reasoning that never ends is all there is.
    """
    begun = text.lstrip()
    if begun.startswith("<think>"):
        text = begun[len("<think>") :]
    elif not opened:
        return "", text
    inner, closed, rest = text.partition("</think>")
    return inner.strip("\n"), rest.lstrip("\n") if closed else ""


# -- JSON in text -----------------------------------------------------------------------------------------------------


def _hermes(text: str, types: Types) -> Calls:
    at = text.find("<tool_call>")
    if at < 0:
        return text, ()
    read = parse_tool_calls(Message("assistant", text[at:]), "hermes")
    return (text[:at].rstrip(), read.tool_calls) if read.tool_calls else (text, ())


def _bare_json(text: str, types: Types) -> Calls:
    body = text.strip().removeprefix("<|python_tag|>")
    read = parse_tool_calls(Message("assistant", body), "bare_json")
    return ("", read.tool_calls) if read.tool_calls else (text, ())


def _narrow(text: str, types: Types) -> Calls:
    if _BEGIN in text:  # DeepSeek's templates show no tools, and its models know this way to call all the same
        return _deepseek(text, types)
    read = parse_tool_calls(Message("assistant", text))
    return read.text, read.tool_calls


# -- tags -------------------------------------------------------------------------------------------------------------


class _Scan:
    """A place in a text. Every method raises ValueError where the text goes on otherwise."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1

    def over(self, *marks: str) -> bool:
        """Goes over marks and the white space before each, or over nothing."""
        begun = self.at
        for mark in marks:
            self.space()
            if not self.text.startswith(mark, self.at):
                self.at = begun
                return False
            self.at += len(mark)
        return True

    def need(self, mark: str) -> None:
        if not self.over(mark):
            raise ValueError

    def until(self, mark: str) -> str:
        """What stands before the next mark; goes over both."""
        end = self.text.index(mark, self.at)
        found = self.text[self.at : end]
        self.at = end + len(mark)
        return found

    @property
    def done(self) -> bool:
        self.space()
        return self.at == len(self.text)


def _all_calls(text: str, mark: str, one: Callable[[_Scan], ToolCall], end: str = "") -> Calls:
    at = text.find(mark)
    if at < 0:
        return text, ()
    scan = _Scan(text, at + (len(mark) if end else 0))
    calls = []
    while not (scan.over(end) if end else scan.done):
        calls.append(one(scan))
    if not scan.done:
        raise ValueError
    return text[:at].rstrip(), tuple(calls)


_STRICT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=lambda name: [][0])


def _value(text: str, type_: Any) -> str:
    """A value that was written without quotes, as JSON text: by its parameter's type where that is known."""
    types = type_ if isinstance(type_, list) else [type_]
    if "string" not in types:
        try:
            _STRICT.decode(text.strip())
        except (ValueError, IndexError, RecursionError):
            pass
        else:
            return text.strip()
    return json.dumps(text, ensure_ascii=False)


def _call(name: str, pairs: Sequence[tuple[str, str]], types: Types, origin: str) -> ToolCall:
    name = name.strip()
    if not name or len({key for key, _ in pairs}) != len(pairs):
        raise ValueError
    written = (f"{json.dumps(key, ensure_ascii=False)}: {_value(value, types.get((name, key)))}" for key, value in pairs)
    return ToolCall(name, "{" + ", ".join(written) + "}", origin=origin)


def _glm(text: str, types: Types) -> Calls:
    def one(scan: _Scan) -> ToolCall:
        scan.need("<tool_call>")
        begun = scan.at
        while scan.at < len(text) and text[scan.at] not in "<\n":
            scan.at += 1
        name, pairs = text[begun : scan.at], []
        while not scan.over("</tool_call>"):
            scan.need("<arg_key>")
            key = scan.until("</arg_key>").strip()
            scan.need("<arg_value>")
            pairs.append((key, scan.until("</arg_value>")))
        return _call(name, pairs, types, "glm")

    return _all_calls(text, "<tool_call>", one)


def _qwen_xml(text: str, types: Types) -> Calls:
    def one(scan: _Scan) -> ToolCall:
        scan.need("<tool_call>")
        scan.need("<function=")
        name, pairs = scan.until(">"), []
        while scan.over("<parameter="):
            key = scan.until(">").strip()
            pairs.append((key, scan.until("</parameter>").removeprefix("\n").removesuffix("\n")))
        scan.need("</function>")
        scan.need("</tool_call>")
        return _call(name, pairs, types, "qwen_xml")

    return _all_calls(text, "<tool_call>", one)


_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001 - DeepSeek's tokens are written like this


def _deepseek(text: str, types: Types) -> Calls:
    def one(scan: _Scan) -> ToolCall:
        scan.need("<｜tool▁call▁begin｜>")  # noqa: RUF001
        name = scan.until("<｜tool▁sep｜>")  # noqa: RUF001
        body = scan.until("<｜tool▁call▁end｜>")  # noqa: RUF001
        fence = body.find("```json\n")
        if fence >= 0:  # "function", then the name, then the arguments in a fence
            name, body = body[:fence], body[fence + len("```json\n") :].strip().removesuffix("```")
        if not name.strip():
            raise ValueError
        return ToolCall(name.strip(), body.strip(), origin="deepseek")

    return _all_calls(text, _BEGIN, one, _END)


# -- harmony ----------------------------------------------------------------------------------------------------------

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_TO = re.compile(r"to=functions\.([^\s<]+)")


def _harmony(runs: Sequence[str], opened: bool, whole: bool, types: Types) -> Message:
    """Messages on channels: analysis is reasoning, commentary to a function is a call, the rest is words."""
    said: dict[str, list[str]] = {"reasoning": [], "text": []}
    calls: list[ToolCall] = []
    header, body, inside = "", "", False

    def close() -> None:
        nonlocal header, body, inside
        channel = _CHANNEL.search(header)
        to = _TO.search(header)
        if not inside:
            said["text"].append(header.removeprefix("<|start|>assistant"))
        elif channel is not None and channel[1] == "analysis":
            said["reasoning"].append(body)
        elif to is not None:
            calls.append(ToolCall(to[1], body.strip(), origin="harmony"))
        else:
            said["text"].append(body)
        header, body, inside = "", "", False

    for run in runs:
        if isinstance(run, Control) and run == "<|message|>" and not inside:
            inside = True
        elif isinstance(run, Control) and run == "<|end|>":
            close()
        elif inside:
            body += run
        else:
            header += run
    if inside and _TO.search(header) and not whole:  # a call that was cut is none
        header, inside = f"{header}<|message|>{body}", False
    if inside or header:
        close()
    return assistant("".join(said["text"]), *calls, reasoning="\n".join(said["reasoning"]))


FORMATS = (
    Format("hermes", _tagged(_hermes)),
    Format("glm", _tagged(_glm), ("<|user|>", "<|observation|>")),
    Format("qwen_xml", _tagged(_qwen_xml)),
    Format("deepseek", _tagged(_deepseek)),
    Format("bare_json", _tagged(_bare_json), ("<|eom_id|>",)),
    Format("harmony", _harmony, ("<|return|>", "<|call|>"), ends_turn=False),
)
"""Tried in this order."""

PLAIN = Format("text", _tagged(_narrow))
"""For templates that know no tools: they are told in the system message, and calls are read by `tool_text`'s rules."""
