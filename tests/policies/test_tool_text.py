# SPDX-License-Identifier: Apache-2.0
"""Tool calls written as text: told in a prompt, and read where the whole answer is calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import (
    ArgumentError,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    assistant,
    parse_arguments,
    system,
    user,
)
from agentgym.errors import UsageError
from agentgym.tool_text import MAX_DEPTH, parse_tool_calls, render_tools, to_text_conversation
from agentgym.toolspec import ToolSpec

PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})
REFUND = ToolSpec("refund", "Refunds an örder.", {"type": "object", "properties": {}})

BANANA = '{"name": "lookup_price", "arguments": {"item": "banana"}}'


def calls_of(text: str, tool_format: Any = "auto") -> list[tuple[str, str, str]]:
    message = assistant(text)
    parsed = parse_tool_calls(message, tool_format)
    if not parsed.tool_calls:
        assert parsed is message  # untouched, not merely equal
        return []
    assert parsed.content == ""
    return [(c.name, c.arguments, c.origin) for c in parsed.tool_calls]


# What models were seen to write, or write by their training; None: not a call.
OUTPUTS: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    ("hermes", f"<tool_call>\n{BANANA}\n</tool_call>", [("lookup_price", '{"item": "banana"}', "hermes")]),
    ("hermes on one line", f"<tool_call>{BANANA}</tool_call>", [("lookup_price", '{"item": "banana"}', "hermes")]),
    (
        "two hermes calls",
        f'<tool_call>\n{BANANA}\n</tool_call>\n<tool_call>\n{{"arguments":{{}},"name":"submit"}}\n</tool_call>\n',
        [("lookup_price", '{"item": "banana"}', "hermes"), ("submit", "{}", "hermes")],
    ),
    ("bare json", BANANA, [("lookup_price", '{"item": "banana"}', "bare_json")]),
    ("bare json in space", f"\n\n  {BANANA}\n", [("lookup_price", '{"item": "banana"}', "bare_json")]),
    ("parameters", '{"name": "f", "parameters": {"a": 1}}', [("f", '{"a": 1}', "bare_json")]),
    ("fenced", f"```json\n{BANANA}\n```", [("lookup_price", '{"item": "banana"}', "fenced")]),
    ("closing tag in a string", '<tool_call>{"name":"f","arguments":{"a":"</tool_call>"}}</tool_call>',
     [("f", '{"a":"</tool_call>"}', "hermes")]),
    ("fence in a string", '```json\n{"name":"f","arguments":{"a":"```"}}\n```', [("f", '{"a":"```"}', "fenced")]),
    ("unicode", '{"name": "f", "arguments": {"a": "naïve 📝 \\u00e9"}}', [("f", '{"a": "naïve 📝 \\u00e9"}', "bare_json")]),
    ("prose before", f"Sure, let me check.\n<tool_call>\n{BANANA}\n</tool_call>", []),
    ("prose after", f"<tool_call>\n{BANANA}\n</tool_call>\nThe price is 3.", []),
    ("prose between", f"<tool_call>{BANANA}</tool_call> and <tool_call>{BANANA}</tool_call>", []),
    ("prose before bare json", f"Here you go: {BANANA}", []),
    ("prose before a fence", f"I will call:\n```json\n{BANANA}\n```", []),
    ("thinking in the text", f"<think>I could <tool_call>{BANANA}</tool_call></think>", []),
    ("thinking, then a call", f"<think>hm</think>\n<tool_call>{BANANA}</tool_call>", []),
    ("cut off", '<tool_call>\n{"name": "lookup_price", "arguments": {"item": "ban', []),
    ("no closing tag", f"<tool_call>\n{BANANA}", []),
    ("two objects in a tag", f"<tool_call>{BANANA}{BANANA}</tool_call>", []),
    ("two bare objects", f"{BANANA}\n{BANANA}", []),
    ("nested tags", f"<tool_call><tool_call>{BANANA}</tool_call></tool_call>", []),
    ("empty tag", "<tool_call></tool_call>", []),
    ("trailing comma", '{"name": "f", "arguments": {"a": 1,}}', []),
    ("python quotes", "{'name': 'f', 'arguments': {}}", []),
    ("raw line break in a string", '{"name": "f", "arguments": {"a": "1\n2"}}', []),
    ("no arguments", '{"name": "f"}', []),
    ("arguments as a string", '{"name": "f", "arguments": "{}"}', []),
    ("arguments as a list", '{"name": "f", "arguments": [1]}', []),
    ("both spellings", '{"name": "f", "arguments": {}, "parameters": {}}', []),
    ("name twice", '{"name": "f", "name": "g", "arguments": {}}', []),
    ("another key", '{"name": "Ada", "arguments": {}, "age": 3}', []),
    ("name is a number", '{"name": 3, "arguments": {}}', []),
    ("name is empty", '{"name": "", "arguments": {}}', []),
    ("another object", '{"answer": 42}', []),
    ("a list of calls", f"[{BANANA}]", []),
    ("a plain fence", f"```\n{BANANA}\n```", []),
    ("a python fence", f"```python\n{BANANA}\n```", []),
    ("two fences", f"```json\n{BANANA}\n```\n```json\n{BANANA}\n```", []),
    ("only a fence's ends", "```json```", []),
    ("shorter than its ends", "```json``", []),
    ("an answer", "The price of a banana is 3.", []),
    ("nothing", "", []),
    ("a lone bracket", "{", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [o[1:] for o in OUTPUTS], ids=[o[0] for o in OUTPUTS])
def test_what_models_write_is_read_as(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert calls_of(text) == expected


@pytest.mark.parametrize("tool_format", ["hermes", "bare_json", "fenced"])
def test_one_format_reads_no_other(tool_format: str) -> None:
    for _, text, expected in OUTPUTS:
        assert calls_of(text, tool_format) == [c for c in expected if c[2] == tool_format]


# -- where calls are not read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [BANANA, f"<tool_call>{BANANA}</tool_call>", f"```json\n{BANANA}\n```"])
def test_a_call_inside_reasoning_is_never_parsed(text: str) -> None:
    for message in (assistant(reasoning=text), assistant("Done.", reasoning=text)):
        assert parse_tool_calls(message) is message


def test_a_call_after_reasoning_is_parsed_and_the_reasoning_stays() -> None:
    parsed = parse_tool_calls(assistant(BANANA, reasoning="I need the price."))
    assert parsed.content == (ReasoningPart("I need the price."),)
    assert [c.name for c in parsed.tool_calls] == ["lookup_price"]


def test_text_and_reasoning_do_not_add_up_to_a_call() -> None:
    message = Message("assistant", (ReasoningPart("<tool_call>"), TextPart(BANANA + "</tool_call>")))
    assert parse_tool_calls(message) is message


def test_only_assistants_without_calls_of_their_own_are_read() -> None:
    for message in (user(BANANA), system(BANANA), Message("tool", BANANA), assistant(BANANA, ToolCall("g"))):
        assert parse_tool_calls(message) is message


# -- nothing is hidden from whoever judges the arguments --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": NaN}', "not a JSON number"),
        ('{"a": -Infinity}', "not a JSON number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": %s}' % ("9" * 5000), "too large"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        ('{"a": ' + "[" * 100 + "1" + "]" * 100 + "}", "nest deeper"),
        ('{"a": "%s"}' % ("x" * (1 << 20)), "longer than"),
    ],
    ids=["duplicate key", "NaN", "infinity", "overflow", "digits", "surrogate", "deep", "long"],
)
def test_arguments_that_will_be_refused_are_passed_on_as_written(arguments: str, complaint: str) -> None:
    ((_, written, _),) = calls_of(f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>')
    assert written == arguments
    with pytest.raises(ArgumentError, match=complaint):
        parse_arguments(written)


def test_arguments_keep_their_very_spelling() -> None:
    odd = '{ "b" :1.50,\n\t"a":[ 1 , 2e3 ],"c":"\\u0041\\/" }'
    assert calls_of(f'{{"arguments" : {odd} , "name":"f"}}') == [("f", odd, "bare_json")]


# -- hostile text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["", '{"name":"f","arguments":', '<tool_call>{"name":"f","arguments":', "```json"])
@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, '"' + '\\"' * 100_000 + "[" * 1000]
)
def test_deep_nesting_is_left_alone(head: str, body: str) -> None:
    assert calls_of(head + body) == []


def test_nesting_is_read_up_to_a_fixed_depth() -> None:
    def nested(depth: int) -> str:
        return '{"name":"f","arguments":{"a":' + "[" * depth + "]" * depth + "}}"

    assert len(calls_of(nested(MAX_DEPTH - 2))) == 1
    assert calls_of(nested(MAX_DEPTH - 1)) == []


def test_brackets_in_strings_are_not_nesting() -> None:
    assert len(calls_of('{"name":"f","arguments":{"a":"%s"}}' % ('[{\\"' * 10_000))) == 1


TEN_MB = 10_000_000


@pytest.mark.parametrize(
    "text",
    [
        "x" * TEN_MB,
        "{" * TEN_MB,
        "<tool_call>" * (TEN_MB // 11),
        "`" * TEN_MB,
        "```json" + " " * TEN_MB,
        "{" + " " * TEN_MB,
        '{"' + '\\"' * (TEN_MB // 2),
        '{"name":"f","arguments":{"a":"' + "[" * TEN_MB + "\\" * 1001,
        '{"name":"' + "[" * 5000 + '\\"' * (TEN_MB // 2),
        "<tool_call>" + " " * TEN_MB + "</tool_call>",
        '{"name":"f",' * (TEN_MB // 12),
    ],
    ids=range(11),
)
def test_ten_megabytes_of_anything_are_left_alone(text: str) -> None:
    # a quadratic reader would not come back from these
    assert calls_of(text) == []


def test_ten_megabytes_of_calls_are_read() -> None:
    one = f"<tool_call>{BANANA}</tool_call>\n"
    assert len(calls_of(one * (TEN_MB // len(one)))) == TEN_MB // len(one)
    ((_, written, _),) = calls_of('{"name":"f","arguments":{"a":"%s"}}' % ('\\"[' * (TEN_MB // 3)))
    assert len(written) > TEN_MB - 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
written_objects = st.builds(
    lambda value, ascii_, indent: json.dumps(value, ensure_ascii=ascii_, indent=indent),
    st.dictionaries(st.text(), json_values, max_size=4),
    st.booleans(),
    st.none() | st.integers(0, 3),
)
tool_calls = st.builds(ToolCall, name=st.text(min_size=1), arguments=written_objects)


@given(calls=st.lists(tool_calls, min_size=1, max_size=4))
def test_calls_written_into_a_conversation_are_read_back_the_same(calls: list[ToolCall]) -> None:
    (written,) = to_text_conversation([assistant("", *calls)], [])
    assert written.tool_calls == ()
    back = parse_tool_calls(written, "hermes").tool_calls
    assert [(c.name, c.arguments) for c in back] == [(c.name, c.arguments) for c in calls]
    assert {c.origin for c in back} == {"hermes"}


@given(call=tool_calls, tool_format=st.sampled_from(["bare_json", "fenced"]))
def test_a_single_call_is_read_back_in_every_format(call: ToolCall, tool_format: Any) -> None:
    (written,) = to_text_conversation([assistant("", call)], [], tool_format)
    (back,) = parse_tool_calls(written).tool_calls
    assert (back.name, back.arguments, back.origin) == (call.name, call.arguments, tool_format)


@given(call=tool_calls, prose=st.text(alphabet=st.characters(blacklist_categories=("Z", "C")), min_size=1), after=st.booleans())
def test_any_prose_around_a_call_makes_it_prose(call: ToolCall, prose: str, after: bool) -> None:
    (written,) = to_text_conversation([assistant("", call)], [])
    message = assistant(f"{written.text}{prose}" if after else f"{prose}{written.text}")
    assert parse_tool_calls(message) is message


@given(text=st.text(alphabet='<tool_cal>/{}[]":,\\`jsn name arguments 01\n') | st.text())
def test_no_text_makes_it_raise_and_what_is_read_is_a_slice_of_it(text: str) -> None:
    for c in parse_tool_calls(assistant(text)).tool_calls:
        assert c.arguments in text
        assert isinstance(json.loads(c.arguments), dict)


# -- telling a model its tools ----------------------------------------------------------------------------------------


def test_tools_are_told_one_a_line_as_the_models_know_them() -> None:
    text = render_tools([PRICE, REFUND], "hermes")
    listed = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [PRICE.to_openai(), REFUND.to_openai()]
    assert "örder" in text
    assert text.count("<tool_call>") == 2
    assert render_tools([PRICE]) == render_tools([PRICE], "hermes")


def test_without_tools_nothing_is_told() -> None:
    assert render_tools([], "hermes") == ""
    conversation = [system("Be brief."), user("Hello.")]
    assert to_text_conversation(conversation, []) == conversation


@pytest.mark.parametrize(("tool_format", "other"), [("bare_json", "```"), ("fenced", "<tool_call>")])
def test_each_format_is_told_in_its_own_shape(tool_format: Any, other: str) -> None:
    text = render_tools([PRICE], tool_format)
    assert other not in text
    assert ("```json" in text) == (tool_format == "fenced")
    assert "nothing else" in text


def test_tools_go_into_the_system_message_or_a_new_one() -> None:
    with_system = to_text_conversation([system("Be brief."), user("Hi.")], [PRICE])
    assert [m.role for m in with_system] == ["system", "user"]
    assert with_system[0].text == "Be brief.\n\n" + render_tools([PRICE])
    without = to_text_conversation([user("Hi.")], [PRICE])
    assert [m.role for m in without] == ["system", "user"]
    assert without[0].text == render_tools([PRICE])


def test_a_tool_conversation_becomes_plain_turns() -> None:
    conversation = [
        user("Price of a banana and a kiwi?"),
        assistant("Checking.", ToolCall("p", '{"item": "banana"}', "1"), ToolCall("p", "{broken", "2"), reasoning="hm"),
        Message("tool", "3", tool_call_id="1", name="p"),
        Message("tool", "error", tool_call_id="2", name="p"),
        assistant("3."),
        Message("tool", "late"),
    ]
    before = list(conversation)
    told = to_text_conversation(conversation, [])
    assert [m.role for m in told] == ["user", "assistant", "user", "assistant", "user"]
    assert told[1].text == (
        'Checking.\n<tool_call>\n{"name": "p", "arguments": {"item": "banana"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "p", "arguments": {broken}\n</tool_call>'
    )
    assert told[1].reasoning == "hm"
    assert told[2].text == "<tool_response>\n3\n</tool_response>\n<tool_response>\nerror\n</tool_response>"
    assert told[4].text == "<tool_response>\nlate\n</tool_response>"
    assert not any(m.tool_calls or m.tool_call_id for m in told)
    assert conversation == before


def test_images_of_a_system_message_survive_the_tools() -> None:
    picture = ImagePart(b"x")
    (message,) = to_text_conversation([Message("system", (TextPart("Look."), picture))], [PRICE])
    assert picture in message.content
    assert message.text.startswith("Look.\n\n# Tools")


def test_an_unknown_format_is_refused_by_name() -> None:
    bad: Any = "hermess"
    for ask in (
        lambda: parse_tool_calls(user(""), bad),
        lambda: render_tools([], bad),
        lambda: to_text_conversation([], [], bad),
    ):
        with pytest.raises(UsageError, match="Did you mean: hermes"):
            ask()
