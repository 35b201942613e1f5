# SPDX-License-Identifier: Apache-2.0
"""Tools: schemas out of signatures and docstrings, and strictness about what agents pass."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentgym.chat import ArgumentError, ToolCall, parse_arguments
from agentgym.env import ToolEnv, tool
from agentgym.errors import DefinitionError
from agentgym.toolspec import ToolFunction, parse_google_docstring, sample_arguments, tools_of
from tests.envs import Bank


class Address(msgspec.Struct, forbid_unknown_fields=True):
    city: str
    zip: Annotated[str, msgspec.Meta(min_length=2, max_length=5)] = "00"


class Tree(msgspec.Struct):
    value: int
    left: Tree | None = None
    right: Tree | None = None


class Required(msgspec.Struct):
    left: Required | None
    right: Required | None


def many(
    s: str,
    i: int,
    f: float,
    b: bool,
    choice: Literal["x", "y"],
    items: list[int],
    table: dict[str, float],
    where: Address,
    maybe: int | None = None,
    bounded: Annotated[int, msgspec.Meta(ge=1, le=3)] = 2,
    word: str = "w",
) -> str:
    """Takes all kinds of things.

    And says so in two paragraphs.

    Args:
        s: a string
        i: an integer that is
            described on two lines
        where (Address): a place
        word: a word: with a colon

    Returns:
        nothing of interest
    """
    return f"{s}{i}{f}{b}{choice}{items}{table}{where}{maybe}{bounded}{word}"


GOOD: dict[str, Any] = {
    "s": "a",
    "i": 1,
    "f": 1.5,
    "b": True,
    "choice": "x",
    "items": [1, 2],
    "table": {"k": 1.0},
    "where": {"city": "Ulm"},
}


def define(function: Callable[..., Any]) -> ToolFunction:
    made = ToolFunction(function)
    assert made.spec
    return made


# -- schema -----------------------------------------------------------------------------------------------------------


def test_the_schema_is_made_of_signature_and_docstring() -> None:
    spec = define(many).spec
    assert spec.name == "many"
    assert spec.description == "Takes all kinds of things.\n\nAnd says so in two paragraphs."
    schema = spec.parameters
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["s", "i", "f", "b", "choice", "items", "table", "where"]
    properties = schema["properties"]
    assert properties["s"] == {"type": "string", "description": "a string"}
    assert properties["i"]["description"] == "an integer that is described on two lines"
    assert properties["f"] == {"type": "number"}
    assert properties["b"] == {"type": "boolean"}
    assert properties["choice"] == {"enum": ["x", "y"]}
    assert properties["items"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["table"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert properties["maybe"]["default"] is None
    assert properties["bounded"] == {"type": "integer", "minimum": 1, "maximum": 3, "default": 2}
    assert properties["word"]["description"] == "a word: with a colon"
    assert schema["$defs"]["Address"]["properties"]["zip"] == {
        "type": "string",
        "minLength": 2,
        "maxLength": 5,
        "default": "00",
    }
    json.dumps(spec.to_openai())


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    def ping() -> None:
        """Pings."""

    made = define(ping)
    assert made.spec.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert made.parse(ToolCall("ping")) == {}


def test_the_method_stays_an_ordinary_method() -> None:
    env = Bank()
    env.reset(seed=1)
    assert env.balance("a") == {"cents": 1000}


def test_defaults_are_filled_in_and_structs_are_made() -> None:
    assert define(many).convert(GOOD) == {**GOOD, "where": Address("Ulm"), "maybe": None, "bounded": 2, "word": "w"}


# -- strictness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"i": "3"}, r"Expected `int`, got `str` - at `\$.i`"),
        ({"i": True}, r"Expected `int`, got `bool`"),
        ({"i": 3.0}, r"Expected `int`, got `float`"),
        ({"i": None}, r"\$.i"),
        ({"f": "1.5"}, r"\$.f"),
        ({"f": True}, r"\$.f"),
        ({"b": 1}, r"\$.b"),
        ({"b": "true"}, r"\$.b"),
        ({"s": 1}, r"\$.s"),
        ({"choice": "z"}, r"\$.choice"),
        ({"items": "1"}, r"\$.items"),
        ({"items": [1, "2"]}, r"\$.items\[1\]"),
        ({"items": {"0": 1}}, r"\$.items"),
        ({"table": {"k": "v"}}, r"\$.table"),
        ({"where": {"city": "Ulm", "street": "x"}}, "street"),
        ({"where": {}}, "city"),
        ({"where": {"city": "Ulm", "zip": "123456"}}, "zip"),
        ({"bounded": 4}, r"\$.bounded"),
        ({"unknown": 1}, "unknown"),
        ({"self": 1}, "self"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_and_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        define(many).convert({**GOOD, **change})


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_missing_key_is_refused_and_named(missing: str) -> None:
    with pytest.raises(ArgumentError, match=f"`{missing}`"):
        define(many).convert({k: v for k, v in GOOD.items() if k != missing})


def test_an_integer_is_a_number() -> None:
    assert define(many).convert({**GOOD, "f": 3})["f"] == 3.0


@pytest.mark.parametrize("arguments", [{"k" * 100_000: 1}, {**GOOD, "choice": "z" * 100_000}], ids=["key", "value"])
def test_a_refusal_does_not_repeat_what_was_passed_at_length(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as e:
        define(many).convert(arguments)
    assert len(str(e.value)) < 400


# -- definition -------------------------------------------------------------------------------------------------------


def no_docstring(a: int) -> None: ...


def no_hint(a) -> None:  # type: ignore[no-untyped-def]
    """Does."""


def stars(*a: int) -> None:
    """Does."""


def keywords(**a: int) -> None:
    """Does."""


def positional(a: int, /) -> None:
    """Does."""


def mutable(a: list[int] = []) -> None:  # noqa: B006
    """Does."""


def described_but_absent(a: int) -> None:
    """Does.

    Args:
        a: one
        b: two
    """


def unresolvable(a: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Does."""


def bad_docstring(a: int) -> None:
    """Does.

    Args:
        the first one is a
    """


async def asynchronous(a: int) -> None:
    """Does."""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (no_docstring, "no docstring"),
        (no_hint, "'a' has no type hint"),
        (stars, "ordinary named parameter"),
        (keywords, "ordinary named parameter"),
        (positional, "ordinary named parameter"),
        (mutable, "mutable default"),
        (described_but_absent, r"describes \['b'\]"),
        (unresolvable, "Nowhere"),
        (bad_docstring, "'the first one is a'"),
        (asynchronous, "not async"),
    ],
)
def test_a_tool_that_is_written_wrongly_is_refused_with_a_sentence_that_names_it(
    function: Callable[..., Any], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says) as e:
        define(function)
    assert function.__name__ in str(e.value) or function is bad_docstring


def test_a_tool_may_not_take_the_name_of_what_environments_have() -> None:
    with pytest.raises(DefinitionError, match="'items'"):

        class Shop(ToolEnv):
            @tool
            def items(self) -> str:  # type: ignore[override]
                """Lists what is sold."""
                return ""


def test_a_tool_has_the_name_of_its_attribute() -> None:
    def helper(self: Any) -> str:
        """Helps."""
        return ""

    with pytest.raises(DefinitionError, match="'helper'"):

        class Desk(ToolEnv):
            find = tool(helper)


# -- inheritance ------------------------------------------------------------------------------------------------------


class Base(ToolEnv):
    @tool
    def first(self, a: int) -> str:
        """First.

        Args:
            a: a number
        """
        return "base"

    @tool
    def second(self) -> str:
        """Second."""
        return "base"


class Derived(Base):
    @tool(writes=True)
    def first(self, a: str) -> str:  # type: ignore[override]
        """First, otherwise."""
        return "derived"

    second = None  # type: ignore[assignment]

    @tool
    def third(self) -> str:
        """Third."""
        return ""


def test_tools_are_inherited_overridden_and_taken_away() -> None:
    assert list(tools_of(Base)) == ["submit", "first", "second"]
    tools = tools_of(Derived)
    assert list(tools) == ["submit", "first", "third"]
    assert tools["first"].spec.description == "First, otherwise."
    assert tools["first"].writes
    assert not tools_of(Base)["first"].writes


class WithoutSubmit(Base):
    submit = None  # type: ignore[assignment]


def test_even_submit_can_be_taken_away() -> None:
    assert "submit" not in WithoutSubmit().tools


def test_taking_a_tool_from_one_environment_leaves_the_others_alone() -> None:
    env = Base()
    del env.tools["first"]
    assert "first" in Base().tools


# -- samples, pickles -------------------------------------------------------------------------------------------------


def bounds(
    low: Annotated[int, msgspec.Meta(ge=1000)],
    high: Annotated[int, msgspec.Meta(le=-1000)],
    above: Annotated[int, msgspec.Meta(gt=5, lt=7)],
    even: Annotated[int, msgspec.Meta(ge=3, multiple_of=4)],
    real: Annotated[float, msgspec.Meta(gt=0.0, le=0.001)],
    negative: Annotated[float, msgspec.Meta(lt=-1e6)],
    five: Annotated[list[int], msgspec.Meta(min_length=5)],
    two: Annotated[list[list[bool]], msgspec.Meta(max_length=2)],
    short: Annotated[str, msgspec.Meta(max_length=3)],
    long: Annotated[str, msgspec.Meta(min_length=50)],
    pair: tuple[int, str],
    mixed: int | str | None,
    nothing: None,
    tree: Tree,
    deep: Required,
    anything: Any,
    rows: dict[str, dict[str, list[Address]]],
    level: Literal[1, 2, 3] = 1,
) -> None:
    """Has bounds on everything."""


@given(st.sampled_from([many, bounds]), st.integers(0, 2**32))
def test_sampled_arguments_are_accepted_also_after_json(function: Callable[..., Any], seed: int) -> None:
    made = define(function)
    arguments = sample_arguments(made.spec.parameters, np.random.default_rng(seed))
    made.parse(ToolCall(made.name, msgspec.json.encode(arguments).decode()))


def test_sampling_is_determined_by_the_generator_and_leaves_optional_keys_out_at_times() -> None:
    made = define(many)
    drawn = [sample_arguments(made.spec.parameters, np.random.default_rng(i)) for i in range(50)]
    assert drawn == [sample_arguments(made.spec.parameters, np.random.default_rng(i)) for i in range(50)]
    assert {"word" in d for d in drawn} == {True, False}


def test_a_tool_survives_pickling_and_copying_after_use() -> None:
    made = Bank().tools["transfer"]
    made.convert({"cents": 1})
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert other.spec == made.spec
        assert other.convert({"cents": 1}) == {"cents": 1, "to": "b"}
        with pytest.raises(ArgumentError):
            other.convert({"cents": 0})


def test_a_docstring_without_arguments_is_all_description() -> None:
    assert parse_google_docstring("Does.\n\n  Indented.\n\nNote: this\nReturns: that") == ("Does.\n\n  Indented.", {})


# -- the quick way through arguments, and the thorough one --------------------------------------------------------------


def _pay(account: str, cents: int, share: float = 1.0, loud: bool = False) -> None:
    """Pays."""


_values = st.one_of(
    st.integers(-(2**65), 2**65).map(str), st.floats(allow_nan=True).map(repr), st.booleans().map(lambda b: str(b).lower()),
    st.text(max_size=5).map(json.dumps), st.sampled_from(["null", "[]", "{}", '"a:b"', '"\\ud800"', "1e400", "NaN", "01"]),
)  # fmt: skip
_pairs = st.lists(st.tuples(st.sampled_from(["account", "cents", "share", "loud", "other", "a:b"]), _values), max_size=5)


@given(_pairs)
@example([("account", '"x"'), ("cents", "1")])
@example([("account", '"x"'), ("account", '"y"'), ("cents", "1")])
@example([("account", '"x"'), ("account", '"y"')])
@example([("account", '"x"'), ("cents", str(2**64))])
def test_arguments_read_in_one_go_are_those_that_the_thorough_way_accepts(pairs: list[tuple[str, str]]) -> None:
    function = ToolFunction(_pay)
    assert function.spec.parameters["required"] == ["account", "cents"]  # and the quick way is made ready
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"

    def outcome(parse: Callable[[], dict[str, Any]]) -> Any:
        try:
            return [(key, type(value), value) for key, value in parse().items()]
        except ArgumentError as e:
            return str(e)

    assert outcome(lambda: function.parse(ToolCall("_pay", text))) == outcome(lambda: function.convert(parse_arguments(text)))
