# SPDX-License-Identifier: Apache-2.0
"""Messages and the strict reading of tool arguments."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentgym.chat import (
    MAX_ARGUMENT_BYTES,
    MAX_ARGUMENT_DEPTH,
    ArgumentError,
    ImagePart,
    Message,
    Observation,
    ReasoningPart,
    TextPart,
    ToolCall,
    assistant,
    call,
    clean_message,
    clean_text,
    is_unicode,
    parse_arguments,
    submit,
    system,
    to_openai,
    user,
)

text = st.text(st.characters(exclude_categories=("Cs",)))
any_text = st.text(st.characters())
integers = st.integers(-(2**63), 2**64 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1, 1.0 and True apart."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


# -- arguments --------------------------------------------------------------------------------------------------------


@given(st.dictionaries(text, json_values, max_size=5), st.booleans())
def test_any_object_is_read_back_as_it_was_written(value: dict[str, Any], ascii_only: bool) -> None:
    assert same(parse_arguments(json.dumps(value, ensure_ascii=ascii_only)), value)


@given(any_text | st.text('{}[]":,0123456789eE.+-tfn\\u \ud800', max_size=40))
@example("")
@example("\ud800")
@example('{"a": 1}x')
@example("\ufeff{}")
@example('{"a": "\\ud800"}')
@example("{" * 100_000)
@example('{"a":' * 100_000)
@example('{"a": 1' + "0" * 5000 + "}")
@example('{"a": 1e' + "9" * 5000 + "}")
@example('{"a": .5}')
@example("{\x00}")
def test_arbitrary_text_gives_an_object_or_an_argument_error_and_nothing_else(arguments: str) -> None:
    refusal = ""
    value: Any = {}
    try:
        value = parse_arguments(arguments)
    except ArgumentError as e:
        refusal = str(e)
    assert is_unicode(refusal)
    assert len(refusal) < 200
    assert type(value) is dict
    msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": 1, "a": 1}',
        '{"a": {"b": 1, "c": 2, "b": 3}}',
        '{"a": [[{"b": 1, "b": 1}]]}',
        '{"a": 1, "\\u0061": 2}',
    ],
)
def test_a_key_given_twice_is_refused_at_any_depth(arguments: str) -> None:
    with pytest.raises(ArgumentError, match="given twice"):
        parse_arguments(arguments)


def test_equal_keys_in_different_objects_are_no_duplicates() -> None:
    assert parse_arguments('{"a": {"a": [{"a": 1}, {"a": 2}]}}') == {"a": {"a": [{"a": 1}, {"a": 2}]}}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400 + ".0"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    with pytest.raises(ArgumentError, match=r"not a JSON number|too large"):
        parse_arguments(f'{{"a": [{number}]}}')


@pytest.mark.parametrize("written", [str(2**64), str(-(2**63) - 1), "9" * 100, "-1" + "0" * 5000], ids=len)
def test_integers_beyond_64_bits_are_refused_because_no_record_could_hold_them(written: str) -> None:
    with pytest.raises(ArgumentError, match="too large"):
        parse_arguments(f'{{"a": {written}}}')


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0])
def test_integers_of_64_bits_are_read_exactly(number: int) -> None:
    assert parse_arguments(f'{{"a": {number}}}') == {"a": number}


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": "\ud800"}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"a": [{"b": "x\\udc00\\ud800"}]}',
        '{"\ud800": 1}',
    ],
)
def test_lone_surrogates_are_refused_raw_and_escaped_in_keys_and_values(arguments: str) -> None:
    with pytest.raises(ArgumentError, match="lone surrogate"):
        parse_arguments(arguments)


def test_an_escaped_surrogate_pair_is_a_character() -> None:
    assert parse_arguments('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_arguments_are_refused_unread_beyond_the_limit_in_bytes_not_characters() -> None:
    fits = '{"a": "' + "x" * (MAX_ARGUMENT_BYTES - 9) + '"}'
    assert len(fits) == MAX_ARGUMENT_BYTES
    parse_arguments(fits)
    for too_long in (fits + " ", '{"a": "' + "é" * (MAX_ARGUMENT_BYTES // 2) + '"}'):
        with pytest.raises(ArgumentError, match="longer than"):
            parse_arguments(too_long)


def test_nesting_is_refused_beyond_the_limit_and_brackets_in_strings_do_not_count() -> None:
    deepest = '{"a":' + "[" * (MAX_ARGUMENT_DEPTH - 1) + "]" * (MAX_ARGUMENT_DEPTH - 1) + "}"
    parse_arguments(deepest)
    with pytest.raises(ArgumentError, match="nest deeper"):
        parse_arguments('{"a":[' + deepest + "]}")
    brackets = '\\"' + "[{" * 100
    assert parse_arguments(json.dumps({"a": brackets})) == {"a": brackets}
    wide = {"a": [[]] * 1000}
    assert parse_arguments(json.dumps(wide)) == wide


@pytest.mark.parametrize("arguments", ["[]", '"x"', "1", "null", "true", "1.5"])
def test_anything_but_an_object_is_refused(arguments: str) -> None:
    with pytest.raises(ArgumentError, match="must be one JSON object"):
        parse_arguments(arguments)


@pytest.mark.parametrize("arguments", ["", " ", "{", '{"a": 1,}', "{'a': 1}", '{"a": 1} {"b": 2}', '{"a": "\n"}', "```{}```"])
def test_anything_but_json_is_refused(arguments: str) -> None:
    with pytest.raises(ArgumentError, match="not valid JSON"):
        parse_arguments(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        "[" * MAX_ARGUMENT_BYTES,
        '{"a":[' + "[]," * (MAX_ARGUMENT_BYTES // 3 - 10) + "[]]}",
        '{"a":"' + '\\"' * (MAX_ARGUMENT_BYTES // 2 - 10) + '"}',
        '{"a":' + "1" * (MAX_ARGUMENT_BYTES - 10) + "}",
        '{"a":' + "1" * (MAX_ARGUMENT_BYTES - 10) + ".0}",
        "x" * 10_000_000,
        "é" * 10_000_000,
    ],
    ids=["deep", "wide", "escapes", "digits", "decimals", "long", "long and not ascii"],
)
def test_no_text_is_expensive_to_judge(arguments: str) -> None:
    start = time.process_time()
    with contextlib.suppress(ArgumentError):
        parse_arguments(arguments)
    assert time.process_time() - start < 5.0  # tenths of a second on an idle machine; what recurses or backtracks never ends


# -- text that is not Unicode -----------------------------------------------------------------------------------------


@given(any_text)
def test_clean_text_is_unicode_idempotent_and_leaves_unicode_alone(value: str) -> None:
    cleaned = clean_text(value)
    assert is_unicode(cleaned)
    assert clean_text(cleaned) is cleaned
    assert (cleaned == value) == is_unicode(value)


def test_each_lone_surrogate_becomes_one_replacement_character() -> None:
    assert clean_text("a\ud800b\udc00\udc00c\ud800") == "a\ufffdb\ufffd\ufffdc\ufffd"
    assert clean_text("\ufeffa\ud800") == "\ufeffa\ufffd"


def parts(strings: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.lists(
        st.builds(TextPart, strings) | st.builds(ReasoningPart, strings) | st.builds(ImagePart, st.binary(max_size=4)),
        max_size=3,
    ).map(tuple)


def messages(strings: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        strings | parts(strings),
        st.lists(st.builds(ToolCall, strings, strings, strings), max_size=3).map(tuple),
        st.none() | strings,
        st.none() | strings,
    )


def strings_in(message: Message) -> list[str]:
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                walk(v)

    walk(msgspec.to_builtins(message))
    return found


@given(messages(any_text))
def test_a_cleaned_message_can_be_stored_and_keeps_its_shape(message: Message) -> None:
    cleaned = clean_message(message)
    assert (cleaned is message) == all(map(is_unicode, strings_in(message)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(cleaned), type=Message) == cleaned
    assert clean_message(cleaned) is cleaned
    assert (cleaned.role, len(cleaned.tool_calls)) == (message.role, len(message.tool_calls))
    assert [type(p) for p in cleaned.content] == [type(p) for p in message.content]


def test_a_raw_surrogate_in_arguments_is_still_refused_after_cleaning_and_not_run_with_another_text() -> None:
    cleaned = clean_message(assistant("", ToolCall("t", '{"a": "\ud800"}')))
    assert is_unicode(cleaned.tool_calls[0].arguments)
    with pytest.raises(ArgumentError, match="lone surrogate"):
        parse_arguments(cleaned.tool_calls[0].arguments)


# -- messages ---------------------------------------------------------------------------------------------------------


@given(messages(text))
def test_messages_survive_json_messagepack_pickle_and_copying(message: Message) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) == message
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.deepcopy(message) == message
    assert hash(copy.deepcopy(message)) == hash(message)


def test_messages_are_immutable() -> None:
    with pytest.raises(AttributeError):
        user("hi").content = "ho"  # type: ignore[misc]


def test_text_and_reasoning_are_kept_apart() -> None:
    message = assistant("four", reasoning="two and two")
    assert (message.text, message.reasoning) == ("four", "two and two")
    assert (assistant("four").text, assistant("four").reasoning) == ("four", "")
    assert assistant("", reasoning="hm").content == (ReasoningPart("hm"),)


def test_call_and_submit_write_what_parse_arguments_reads() -> None:
    message = call("refund", name="x", cents=5)
    assert message.tool_calls[0].name == "refund"
    assert parse_arguments(message.tool_calls[0].arguments) == {"name": "x", "cents": 5}
    assert submit(answer="1").tool_calls == (ToolCall("submit", '{"answer":"1"}'),)


def test_openai_form_leaves_reasoning_out_and_carries_calls_results_and_images() -> None:
    rows = to_openai(
        [
            system("s"),
            Message("user", (TextPart("look"), ImagePart(b"\x01", "image/jpeg"))),
            Message("assistant", (ReasoningPart("secret"), TextPart("ok")), (ToolCall("f", "{}", "c1"),)),
            Message("tool", "done", (), "c1", "f"),
        ]
    )
    assert rows == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AQ=="}},
            ],
        },
        {
            "role": "assistant",
            "content": "ok",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "done", "tool_call_id": "c1", "name": "f"},
    ]
    json.dumps(rows)


# -- observations -----------------------------------------------------------------------------------------------------


def test_an_observation_is_a_tuple_with_the_dtype_that_pettingzoo_asks_for() -> None:
    observation = Observation([user("a"), user("b")])
    assert isinstance(observation, tuple)
    assert observation == (user("a"), user("b"))
    assert observation.dtype == np.dtype(object)
    assert hash(observation) == hash((user("a"), user("b")))


def test_an_observation_stays_one_when_copied_and_pickled() -> None:
    observation = Observation([user("a")])
    for other in (copy.copy(observation), copy.deepcopy(observation), pickle.loads(pickle.dumps(observation))):
        assert type(other) is Observation
        assert other == observation
        assert other.dtype == np.dtype(object)
