# SPDX-License-Identifier: Apache-2.0
"""Verifiers of texts pay what they declare, never the form for the content, and take linear time on anything."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import Message, ReasoningPart, TextPart
from agentgym.errors import DefinitionError
from agentgym.evaluators.json_text import NotJSON, first_error, plain_schema, read_json
from agentgym.evaluators.text import MOST_CHARACTERS, compiled, exact, json_schema, length, normal, number, numeric, pattern
from agentgym.scoring import Score, Verifier, verify
from agentgym.trajectory import Turn
from tests.evaluators.made_records import context, record, said, tool

ANSWER = r"(?s).*Answer: (?P<answer>[^\n]*)"


def scores(v: Verifier, text: str, gold: Any = None, hidden: Any = None) -> dict[str, Score]:
    found, _ = verify([v], "gold", record(said(text)), context(gold, hidden))
    return {s.name: s for s in found}


def paid(v: Verifier, text: str, gold: Any = None) -> float | None:
    return scores(v, text, gold)[v.name].value


# -- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "text", "gold", "value"),
    [
        (("strip",), " Paris\n", "Paris", 1.0),
        (("strip",), "paris", "Paris", 0.0),
        (("strip",), "Paris or Rome", "Paris", 0.0),
        (("strip", "case"), "PARIS", "Paris", 1.0),
        (("strip", "case"), "STRASSE", "Straße", 1.0),
        ((), " Paris", "Paris", 0.0),
        (("spaces",), "New  York", "New York", 1.0),
        (("nfc",), "Cafe\u0301", "Café", 1.0),
        (("strip",), "Cafe\u0301", "Café", 0.0),
        (("nfkc",), "\uff11\uff12", "12", 1.0),
        (("case", "punctuation", "articles", "spaces", "strip"), "The Eiffel Tower.", "eiffel tower", 1.0),
        (("strip",), "Rome", ["Paris", "Rome"], 1.0),
    ],
)
def test_a_text_is_compared_after_the_declared_steps_and_no_others(steps: Any, text: str, gold: Any, value: float) -> None:
    assert paid(exact(normalize=steps), text, gold) == value


@pytest.mark.parametrize("gold", [None, [], "", "  ", ["Paris", ""], 7, True, {"a": 1}])
def test_a_gold_that_is_missing_or_empty_matches_nothing_and_is_unscorable(gold: Any) -> None:
    for text in ("", "Paris", "None", "null"):
        found = scores(exact(), text, gold)["exact"]
        assert (found.value, found.status) == (None, "unscorable")


def test_a_gold_of_which_nothing_is_left_is_unscorable() -> None:
    assert scores(exact(normalize=("punctuation",)), "...", "!?")["exact"].status == "unscorable"


@pytest.mark.parametrize(
    ("text", "flag"), [("", "no_answer"), ("  \n", "no_answer"), ("x" * (MOST_CHARACTERS + 1), "too_long")]
)
def test_no_answer_and_one_too_long_are_refused_with_a_flag(text: str, flag: str) -> None:
    found = scores(exact(), text, "x")["exact"]
    assert (found.value, found.status, found.flags) == (0.0, "refused", (flag,))


def test_the_answer_is_what_was_submitted_and_never_a_thought() -> None:
    def value(t: Any) -> float | None:
        return verify([exact()], "gold", t, context("Paris"))[0][0].value

    assert value(record(said("Rome"), tool("submit", answer="Paris"))) == 1.0
    assert value(record(said("Paris"), tool("submit", answer="Rome"))) == 0.0
    assert value(record(said("Paris", "Sure?"), said("Rome"))) == 0.0
    thought = Turn(0, Message("assistant", (ReasoningPart("Paris"), TextPart("Rome"))))
    assert value(record(thought)) == 0.0
    assert value(record()) == 0.0


def test_what_is_wanted_may_lie_in_the_hidden_half() -> None:
    assert scores(exact(key="name"), "Paris", "Rome", {"name": "Paris"})["exact"].value == 1.0


def test_form_and_content_are_scores_of_their_own() -> None:
    form, content = pattern(ANSWER, name="format"), exact(within=ANSWER)
    for text, kept, right in [
        ("Well. Answer: Paris", 1.0, 1.0),
        ("Answer: Rome", 1.0, 0.0),
        ("Paris", 0.0, 0.0),
        ("Answer: Rome, no.\nAnswer: Paris", 1.0, 1.0),
        ("Answer: Paris or Rome", 1.0, 0.0),
    ]:
        found, _ = verify([form, content], "metric", record(said(text)), context("Paris"))
        assert {s.name: s.value for s in found} == {"format": kept, "exact": right}
    assert scores(content, "Paris", "Paris")["exact"].flags == ("no_form",)


def test_what_is_declared_wrongly_is_an_error_at_once() -> None:
    for make in (
        lambda: exact(normalize=("lower",)), lambda: exact(within="(x)"), lambda: exact(within="("), lambda: pattern("(?=x)y"),
        lambda: pattern(r"(a)\1"), lambda: length(most=1, least=2), lambda: length(most=1, unit="tokens"),
        lambda: numeric(absolute=-1),
        lambda: numeric(relative=float("nan")), lambda: numeric(absolute=True), lambda: json_schema({"type": "thing"}),
        lambda: json_schema({"$ref": "https://example.test/s.json"}),
        lambda: json_schema({"properties": {"a": {"pattern": "(?<=x)"}}}),
        lambda: json_schema({"a": {1, 2}}), lambda: json_schema({"items": {"$ref": "other.json"}}),
    ):  # fmt: skip
        with pytest.raises(DefinitionError):
            make()


@given(st.text(max_size=60))
def test_normalizing_twice_is_normalizing_once(text: str) -> None:
    steps = ("nfkc", "case", "punctuation", "articles", "spaces", "strip")
    once = normal(text, steps)
    assert normal(normal(once, steps), steps) == normal(once, steps)


# -- numeric ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "gold", "options", "value"),
    [
        ("42", 42, {}, 1.0), (" 42.0 ", 42, {}, 1.0), ("4.2e1", "42", {}, 1.0), ("1,000", 1000, {}, 1.0),
        ("\u22125", -5, {}, 1.0),
        (".5", 0.5, {}, 1.0), ("0.1", 0.1, {}, 1.0), ("42.0000001", 42, {}, 0.0), ("9999", 10000, {}, 0.0),
        ("0.3", "1/3", {}, None),
        ("42 apples", 42, {}, 0.0), ("42%", 42, {}, 0.0), ("41 or 42", 42, {}, 0.0), ("nan", 42, {}, 0.0), ("inf", 42, {}, 0.0),
        ("4_2", 42, {}, 0.0), ("\u0664\u0662", 42, {}, 0.0), ("0x2a", 42, {}, 0.0), ("6*7", 42, {}, 0.0), ("--42", 42, {}, 0.0),
        ("1e99999", 42, {}, 0.0), ("9" * 401, 42, {}, 0.0), ("42", [7, 42], {}, 1.0),
        ("42.05", 42, {"absolute": 0.05}, 1.0), ("42.06", 42, {"absolute": 0.05}, 0.0), ("41.95", 42, {"absolute": 0.05}, 1.0),
        ("101", 100, {"relative": 0.01}, 1.0), ("102", 100, {"relative": 0.01}, 0.0), ("0.001", 0, {"relative": 0.5}, 0.0),
        ("1e9999", 1, {"relative": 1.0}, 0.0),
        ("42", float("nan"), {}, None), ("42", None, {}, None), ("True", True, {}, None),
    ],
)  # fmt: skip
def test_a_number_is_compared_by_its_value_within_declared_tolerances(text: str, gold: Any, options: Any, value: Any) -> None:
    assert paid(numeric(**options), text, gold) == value


@given(st.decimals(-1000, 1000, places=3), st.decimals(-1000, 1000, places=3), st.integers(0, 2000))
def test_tolerances_are_exact(got: Decimal, wanted: Decimal, thousandths: int) -> None:
    v = numeric(absolute=thousandths / 1000)
    near = abs(Fraction(got) - Fraction(wanted)) <= Fraction(thousandths, 1000)
    assert paid(v, f"{got:f}", str(wanted)) == float(near)


@given(st.text(max_size=80))
def test_any_text_is_a_number_or_none(text: str) -> None:
    value = number(text)
    assert value is None or value.is_finite()


# -- pattern and length -----------------------------------------------------------------------------------------------


def test_a_pattern_matches_all_of_the_answer_or_a_part() -> None:
    assert paid(pattern(r"\d+"), "42") == 1.0
    assert paid(pattern(r"\d+"), "42 ") == 0.0
    assert paid(pattern(r"\d+", whole=False), "It is 42.") == 1.0
    assert paid(pattern(r"\d*"), "") == 1.0
    assert paid(pattern(r"\d+"), "") == 0.0


HOSTILE = [
    r"(a+)+$", r"(a|aa)+$", r"(a|a?)+$", r"(.*a){20}$", r"(x+x+)+y", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(a*)*b", r"(?s)(.*)*Z",
    r"([a-zA-Z]+)*$", r"(a?){60}a{60}$", r"(\w+\s?)*$", r"((a{1,30}){1,30})$",
]  # fmt: skip
TEXTS = ["a" * 50_000 + "!", "ab" * 25_000, "x" * 50_000, "a b " * 12_500 + "!", "\n" * 50_000, "é" * 30_000, "\ud800" * 1000]


def test_hostile_patterns_on_hostile_texts_take_little_cpu() -> None:
    for regex in HOSTILE:
        v = pattern(regex)
        for text in TEXTS:
            begun = time.process_time()
            assert paid(v, text) in (0.0, 1.0)
            assert time.process_time() - begun < 1.0, (regex, text[:10])


def test_a_pattern_that_could_be_cut_out_everywhere_is_read_in_linear_time() -> None:
    def cost(n: int) -> float:
        begun = time.process_time()
        assert paid(exact(within=r"(?P<answer>a)"), "ab" * n, "a") == 1.0
        return time.process_time() - begun

    cost(100)
    assert cost(48_000) < 12 * max(cost(12_000), 0.02)


def test_the_verdict_is_the_same_while_other_threads_compute() -> None:
    going = True

    def burn() -> None:
        while going:
            sum(range(1000))

    threads = [threading.Thread(target=burn, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        found = {paid(pattern(r"(a|aa)+"), "a" * 90_000) for _ in range(3)}
    finally:
        going = False
        for t in threads:
            t.join()
    assert found == {1.0}


def test_a_pattern_too_large_to_be_matched_is_refused_when_it_is_made() -> None:
    with pytest.raises(DefinitionError, match="linear time"):
        compiled("((a{1000}){1000}){1000}")


def test_a_budget_is_kept_or_not_and_nothing_is_gained_within_it() -> None:
    assert [paid(length(most=5, least=2), "x" * n) for n in range(8)] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert [paid(length(most=2, unit="words"), t) for t in ("", "a b", "a  b\nc", "a" * 1000)] == [1.0, 1.0, 0.0, 1.0]
    assert scores(length(most=5), "x" * 10**6)["length"].evidence == {"characters": 10**6}


# -- JSON -------------------------------------------------------------------------------------------------------------

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^O-[0-9]+$"}, "items": {"type": "array", "uniqueItems": True}},
    "required": ["id"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "fits", "is_json"),
    [
        ('{"id": "O-1"}', 1.0, 1.0), (' {"id": "O-1", "items": [1, 2]}\n', 1.0, 1.0), ('{"id": 1}', 0.0, 1.0), ("[]", 0.0, 1.0),
        ('{"id": "X"}', 0.0, 1.0), ('{"id": "O-1", "x": 1}', 0.0, 1.0), ('{"id": "O-1", "items": [1, 1.0]}', 0.0, 1.0),
        ('{"id": "O-1", "items": [1, true, "1", [1], {"a": 1}]}', 1.0, 1.0),
        ('{"id": "O-1", "items": [{"a": 1}, {"a": 1}]}', 0.0, 1.0),
        ('{"id": "X", "id": "O-1"}', 0.0, 0.0), ('{"id": "O-1"} {"id": "O-1"}', 0.0, 0.0), ('Here: {"id": "O-1"}', 0.0, 0.0),
        ('{"id": "O-1",}', 0.0, 0.0), ("{'id': 'O-1'}", 0.0, 0.0), ('{"id": "O-1", "items": [NaN]}', 0.0, 0.0),
        ('{"id": "O-1", "items": [Infinity]}', 0.0, 0.0), ('{"id": "O-1", "items": [1e999]}', 0.0, 0.0), ("", 0.0, 0.0),
        ('{"id": "O-1", "items": [' + "9" * 500 + "]}", 0.0, 0.0), ("[" * 100_000, 0.0, 0.0),
        ('{"a":' * 65 + "1" + "}" * 65, 0.0, 0.0),
        ('{"id": "\\ud800"}', 0.0, 1.0),
    ],
)  # fmt: skip
def test_json_is_read_strictly_and_its_form_scored_beside(text: str, fits: float, is_json: float) -> None:
    found = scores(json_schema(ORDER), text)
    assert {name: s.value for name, s in found.items()} == {"json_schema": fits, "json_schema.is_json": is_json}
    assert (found["json_schema"].role, found["json_schema.is_json"].role) == ("gold", "metric")


def test_what_does_not_fit_is_named_with_its_place() -> None:
    assert scores(json_schema(ORDER), '{"id": 7}')["json_schema"].reason == "at /id: 7 is not of type 'string'"


def test_json_may_be_cut_out_of_a_fence() -> None:
    v = json_schema(ORDER, within=r"(?s)```json\n(?P<answer>.*?)```")
    assert paid(v, 'Here you are:\n```json\n{"id": "O-1"}\n```\nBye') == 1.0
    assert paid(v, '{"id": "O-1"}') == 0.0


def test_a_schema_may_refer_to_its_own_parts() -> None:
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    assert paid(json_schema(tree), "[[], [[]]]") == 1.0
    assert paid(json_schema(tree), "[[], [7]]") == 0.0


def test_a_hostile_value_takes_little_cpu() -> None:
    v = json_schema({"type": "array", "uniqueItems": True, "items": {"pattern": "^(a+)+$"}})
    many = ",".join(f'{{"a":{i}}},{i}' for i in range(6000))
    for text in (f"[{many}]", json.dumps(["a" * 90_000 + "b"]), "[" + "1," * 49_000 + "1]", '"' + "\\\\" * 49_000 + '"'):
        begun = time.process_time()
        scores(v, text)
        assert time.process_time() - begun < 2.0


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=20))  # fmt: skip
def test_what_was_written_as_json_is_read_as_it_was(value: Any) -> None:
    assert read_json(json.dumps(value)) == value
    assert first_error(plain_schema(True), value) == ""


@given(st.text(max_size=200))
def test_any_text_is_json_or_not(text: str) -> None:
    try:
        read_json(text)
    except NotJSON:
        pass
    else:
        json.loads(text)


def test_other_settings_are_another_verifier() -> None:
    made = [exact(), exact(normalize=()), numeric(), numeric(absolute=1), pattern("a"), pattern("b"), pattern("a", whole=False)]
    made += [length(most=1), length(most=2), json_schema(ORDER), json_schema({}), exact(within=ANSWER), exact(key="x")]
    assert len({v.hash for v in made}) == len(made)
