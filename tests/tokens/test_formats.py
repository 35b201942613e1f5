# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 - DeepSeek's tokens are written like this
"""How families write calls and reasoning, read out of text: what is whole is read, what is not stays text, nothing raises."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import Message
from agentgym.tokens.formats import FORMATS, PLAIN, types_of
from agentgym.tokens.renderer import Control
from agentgym.toolspec import ToolSpec

TOOL = ToolSpec("f", "F.", {"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}}})
BY_NAME = {f.name: f for f in (*FORMATS, PLAIN)}
CONTROL = re.compile(r"(<\|[a-z]+\|>)")


def read(name: str, text: str, *, opened: bool = False, whole: bool = True, tools: Sequence[ToolSpec] = (TOOL,)) -> Message:
    runs = [Control(part) if at % 2 else part for at, part in enumerate(CONTROL.split(text)) if part]
    return BY_NAME[name].read(runs, opened, whole, types_of(tools))


def calls(message: Message) -> list[tuple[str, Any]]:
    return [(c.name, json.loads(c.arguments)) for c in message.tool_calls]


ONE = {
    "hermes": '<tool_call>\n{"name": "f", "arguments": {"s": "3", "n": 4}}\n</tool_call>',
    "bare_json": '{"name": "f", "parameters": {"s": "3", "n": 4}}',
    "glm": "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>3</arg_value>\n"
    "<arg_key>n</arg_key>\n<arg_value>4</arg_value>\n</tool_call>",
    "qwen_xml": "<tool_call>\n<function=f>\n<parameter=s>\n3\n</parameter>\n"
    "<parameter=n>\n4\n</parameter>\n</function>\n</tool_call>",
    "deepseek": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"s": "3", "n": 4}\n```'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "harmony": '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"s": "3", "n": 4}',
}


@pytest.mark.parametrize("name", ONE)
def test_a_call_is_read_with_its_types(name: str) -> None:
    assert calls(read(name, ONE[name])) == [("f", {"s": "3", "n": 4})]


@pytest.mark.parametrize("name", ["hermes", "glm", "qwen_xml"])
def test_words_and_reasoning_may_stand_before_calls_and_nothing_behind(name: str) -> None:
    said = read(name, f"<think>\nhm\n</think>\n\nLet me look.\n{ONE[name]}\n{ONE[name]}")
    assert (said.reasoning, said.text, len(said.tool_calls)) == ("hm", "Let me look.", 2)
    assert not read(name, f"{ONE[name]} and so on").tool_calls


@pytest.mark.parametrize("name", ["hermes", "glm", "qwen_xml", "deepseek", "bare_json"])
def test_calls_in_reasoning_are_none(name: str) -> None:
    for text, opened in ((f"<think>{ONE[name]}</think>", False), (f"{ONE[name]}</think>done", True), (ONE[name], True)):
        said = read(name, text, opened=opened)
        assert not said.tool_calls
        assert ONE[name] in said.reasoning


def test_deepseek_s_newer_way_without_fences() -> None:
    text = '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"s": "a"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    assert calls(read("deepseek", text)) == [("f", {"s": "a"})]
    assert calls(read("text", text)) == [("f", {"s": "a"})]


def test_harmony_s_channels() -> None:
    said = read(
        "harmony",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>"
        f"<|start|>assistant{ONE['harmony']}",
    )
    assert (said.reasoning, said.text, calls(said)) == ("hm", "Let me look.", [("f", {"s": "3", "n": 4})])
    assert not read("harmony", "<|channel|>analysis to=functions.f<|message|>{}").tool_calls
    assert not read("harmony", '<|channel|>commentary to=functions.f<|message|>{"s', whole=False).tool_calls
    assert read("harmony", "no channel at all").text == "no channel at all"


def test_values_without_quotes_follow_the_parameter_s_type() -> None:
    def value(text: str, tools: Sequence[ToolSpec], key: str = "s") -> Any:
        ((_, given),) = calls(
            read("glm", f"<tool_call>f<arg_key>{key}</arg_key><arg_value>{text}</arg_value></tool_call>", tools=tools)
        )
        return given[key]

    assert value("3", (TOOL,)) == "3"
    assert value("3", (TOOL,), "n") == 3
    assert value("3", ()) == 3
    assert value("three", (TOOL,), "n") == "three"  # the environment says what is wrong with it
    assert value("NaN", ()) == "NaN"
    assert value('{"a": [1]}', ()) == {"a": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key><arg_value>2</arg_value></tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>f<arg_key>a</arg_key></tool_call>",
        "<tool_call>f",
        "<tool_call><function=f><parameter=a>1</function></tool_call>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f<｜tool▁call▁end｜>",
    ],
)
@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_is_malformed_stays_text(name: str, text: str) -> None:
    if name == "qwen_xml" and "<function" not in text:
        return
    said = read(name, text)
    assert all(c.name for c in said.tool_calls)
    assert said.tool_calls or said.text == text


MARKS = (
    "<think> </think> <tool_call> </tool_call> <arg_key> </arg_value> { <|message|> <|channel|> <|end|> <function= </function>"
    " > to=functions.f"
)
PIECES = st.sampled_from([*ONE.values(), *MARKS.split(), "\n"])


@given(st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=12), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_message_in_any_format(pieces: list[str], opened: bool, whole: bool) -> None:
    for name in BY_NAME:
        said = read(name, "".join(pieces), opened=opened, whole=whole)
        assert said.role == "assistant"
        assert all(c.name for c in said.tool_calls)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_depth_and_length_do_no_harm(name: str) -> None:
    for text in ("<tool_call>" * 20_000, "{" * 50_000, "[" * 5000, "<think>" * 20_000, "<|message|><|end|>" * 10_000,
                 "<tool_call>f<arg_key>a</arg_key><arg_value>" + "[" * 50_000 + "</arg_value></tool_call>"):  # fmt: skip
        read(name, text)
