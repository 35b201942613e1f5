# SPDX-License-Identifier: Apache-2.0
"""Generated mathematics: every question has the answer that its gold says, found here by other means; and the calculator."""

from __future__ import annotations

import ast
import operator
import re
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentgym.chat import ToolCall, assistant, call, submit
from agentgym.env import MAX_CALLS_PER_TURN, ChatEnv
from agentgym.errors import ToolError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.tasks.math.algebra import Algebra, _terms
from agentgym.tasks.math.arithmetic import Add, Arith
from agentgym.tasks.math.base import ANSWER_LINE, stands_in
from agentgym.tasks.math.calculator import MOST_CHARACTERS, MOST_DIGITS, calculate, shown
from agentgym.tasks.math.chain import Chain
from agentgym.tasks.math.word import SCENES, Word
from tests.tasks.families import environments, played

SEEDS = 300

_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(expression: str) -> Fraction:
    """The value of an expression by Python's own grammar, in exact fractions."""

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(left, op, right):
                return _OPERATORS[type(op)](walk(left), walk(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -walk(operand)
            case ast.UnaryOp(ast.UAdd(), operand):
                return walk(operand)
            case ast.Constant(int() | float()):
                return Fraction(ast.get_source_segment(expression, node) or "")
        raise AssertionError(ast.dump(node))

    return walk(ast.parse(expression, mode="eval").body)


def levels(family: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("env", list(environments(family)), ids=lambda env: env.label)


def questions(env: ChatEnv) -> list[tuple[str, int]]:
    """Questions, without what is said about the form of the answer, and golds."""
    tasks = [env.make_task(item) for item in env.items(SEEDS)]
    return [(str(t.opening).removesuffix(ANSWER_LINE).strip(), int(t.gold)) for t in tasks]


# -- the gold is the answer -------------------------------------------------------------------------------------------


@levels("math.add")
def test_sums_are_right_and_as_long_as_the_level_says(env: Add) -> None:
    for text, gold in questions(env):
        found = re.fullmatch(r"Calculate (\d+) \+ (\d+)\. Answer with the number only\.", text)
        assert found, text
        assert int(found[1]) + int(found[2]) == gold
        assert len(found[1]) == len(found[2]) == env.level
        assert "0" not in (found[1], found[2])


@levels("math.arith")
def test_expressions_have_the_value_and_every_division_comes_out_even(env: Arith) -> None:
    for text, gold in questions(env):
        found = re.fullmatch(r"Calculate (.+)\.", text)
        assert found, text
        assert value(found[1]) == gold, text
        assert calculate(found[1]) == gold
        numbers = re.findall(r"\d+", found[1])
        assert len(numbers) == env.level + 1
        assert all(int(n) >= 2 for n in numbers)
        for node in ast.walk(ast.parse(found[1], mode="eval")):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                assert value(ast.unparse(node)).denominator == 1, text


@levels("math.arith")
def test_no_parentheses_stand_without_need(env: Arith) -> None:
    for text, _ in questions(env):
        expression = text.removeprefix("Calculate ").removesuffix(".")
        tree = ast.parse(expression, mode="eval")
        assert ast.unparse(tree).replace(" ", "") == expression.replace(" ", "")


@levels("math.chain")
def test_chains_lead_to_the_result_over_whole_numbers(env: Chain) -> None:
    words = {"add": "+", "subtract": "-", "multiply by": "*", "divide by": "/"}
    for text, gold in questions(env):
        start = re.match(r"Start with (\d+) and", text)
        steps = re.findall(r"^(\d)\. (add|subtract|multiply by|divide by) (\d+)$", text, re.MULTILINE)
        assert start
        assert [int(n) for n, _, _ in steps] == list(range(1, env.level + 3))
        result = Fraction(start[1])
        for _, kind, n in steps:
            result = _OPERATORS[{"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div}[words[kind]]](result, Fraction(n))
            assert result.denominator == 1
        assert result == gold
        assert abs(gold) >= 1000  # a shorter one is sometimes guessed


def side(text: str, **letters: int) -> Fraction:
    """The value of a side of an equation as it is written by hand: ``-2x^2 + 3y - 4``."""
    for letter, number in letters.items():
        text = re.sub(rf"(\d){letter}", rf"\1*{letter}", text)
        text = text.replace(f"{letter}^2", f"({number})*({number})").replace(letter, f"({number})")
    return value(text)


def linear(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """p, q and r of an expression ``px + qy + r``."""
    r = side(text, x=0, y=0)
    p, q = side(text, x=1, y=0) - r, side(text, x=0, y=1) - r
    assert side(text, x=5, y=-7) == 5 * p - 7 * q + r
    return p, q, r


@levels("math.algebra")
def test_equations_have_the_solution_and_no_other(env: Algebra) -> None:
    for text, gold in questions(env):
        if env.level <= 2:
            found = re.fullmatch(r"Solve for ([a-z]): (.+) = (.+)", text)
            assert found, text
            (p, _, r), (s, _, t) = (linear(part.replace(found[1], "x")) for part in found.groups()[1:])
            assert p != s, text
            assert (t - r) / (p - s) == gold
        elif env.level <= 4:
            head, *equations, last = text.split("\n")
            assert head == "Both of these equations hold:"
            (a, b, e), (c, d, f) = (linear(f"{e.replace(' = ', ' - (')})") for e in equations)
            determinant = a * d - b * c
            assert determinant != 0, text
            x, y = (b * f - e * d) / determinant, (e * c - a * f) / determinant
            wanted = re.fullmatch(r"What is (.+)\?", last)
            assert wanted, text
            p, q, r = linear(wanted[1])
            assert p * x + q * y + r == gold, text
        else:
            found = re.fullmatch(r"The equation (.+) = 0 has two solutions\. What is the (larger|smaller) one\?", text)
            assert found, text
            at0, at1, before = (side(found[1], x=x) for x in (0, 1, -1))
            a, b = (at1 + before) / 2 - at0, (at1 - before) / 2
            other = -b / a - gold
            assert a * gold * other == at0, text
            assert gold > other if found[2] == "larger" else gold < other


def story(text: str) -> int:
    """The answer of a word problem, by reading it with the scenes as patterns."""

    def pattern(template: str, end: str = "") -> re.Pattern[str]:
        parts = re.split(r"(\{\w+\})", template)
        return re.compile(
            "".join(r"(\d+)" if p == "{n}" else r"[\w ]+?" if p.startswith("{") else re.escape(p) for p in parts) + end
        )

    results = set()
    for scene in SCENES:
        begin = pattern(scene.start, " ").match(text)
        if begin is None or not pattern(scene.question, "$").search(text):
            continue
        total, at = int(begin[1]), begin.end()
        while True:
            steps = [(kind, found) for kind, sentence in scene.steps if (found := pattern(sentence, " ").match(text, at))]
            if not steps:
                break
            ((kind, found),) = steps  # no sentence is read in two ways
            n = int(found[1])
            assert n >= 2
            if kind == "-":
                assert n < total, text
            if kind == "/":
                assert total % n == 0, text
            total = total + n if kind == "+" else total - n if kind == "-" else total * n if kind == "*" else total // n
            at = found.end()
        if pattern(scene.question, "$").match(text, at):
            results.add(total)
    (total,) = results
    return total


@levels("math.word")
def test_stories_end_with_what_is_there_in_the_end(env: Word) -> None:
    for text, gold in questions(env):
        assert story(text) == gold >= 2, text
        assert "{" not in text
        assert "  " not in text
        assert len(re.findall(r"[.?](?= |$)", text)) == env.level + 2, text


def test_every_scene_and_every_step_is_told() -> None:
    env = Word(level=4)
    told = " ".join(str(env.make_task(str(i)).opening) for i in range(1500))
    for scene in SCENES:
        assert all(thing in told for thing in scene.things)
        for kind, sentence in scene.steps:
            longest = max(re.split(r"\{\w+\}", sentence), key=len)
            # a division ends a story, so at level 4 it is seldom
            assert longest in told or kind == "/", sentence
    told = " ".join(str(Word(level=1).make_task(str(i)).opening) for i in range(1500))
    for scene in SCENES:
        for _, sentence in scene.steps:
            assert max(re.split(r"\{\w+\}", sentence), key=len) in told, sentence


def test_every_scene_names_only_what_it_is_given() -> None:
    known = {"name", "they", "They", "their", "Their", "thing", "n"}
    for scene in SCENES:
        for text in (scene.start, scene.question, *(s for _, s in scene.steps)):
            assert set(re.findall(r"\{(\w+)\}", text)) <= known
            assert text.count("{n}") == (0 if text is scene.question else 1)
        assert {kind for kind, _ in scene.steps} <= set("+-*/")
        assert [kind for kind, _ in scene.steps].count("+") >= 2


def test_terms_are_written_as_by_hand() -> None:
    assert _terms((2, "x"), (-1, "y"), (3, "")) == "2x - y + 3"
    assert _terms((-1, "x^2"), (0, "x"), (-1, "")) == "-x^2 - 1"
    assert _terms((1, "x"), (1, "y")) == "x + y"
    assert _terms((0, "x")) == "0"


def test_a_number_stands_in_a_question_whatever_its_sign() -> None:
    assert stands_in("2x - 3 = 12", 3)
    assert stands_in("2x - 3 = 12", -12)
    assert not stands_in("2x - 3 = 12", 1)
    assert not stands_in("2x - 3 = 120", 12)


def test_a_step_of_difficulty_changes_the_tasks() -> None:
    for cls in (Add, Arith, Chain, Algebra, Word):
        openings = [str(cls(level=level).make_task("5").opening) for level in range(1, cls.top_level + 1)]
        assert len(set(openings)) == len(openings)


# -- the calculator: right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1+2*3", "7"), ("(1+2)*3", "9"), ("2 - 3 - 4", "-5"), ("24/4/2", "3"), ("-2*-3", "6"), ("--2", "2"), ("+-+2", "-2"),
        ("2*(3+0.5)-1/3", "20/3"), ("1/8", "0.125"), ("-1/8", "-0.125"), ("1/3", "1/3"), ("-1/3", "-1/3"), ("0.1+0.2", "0.3"),
        (".5*2", "1"), ("5.*2", "10"), ("0/5", "0"), ("-0", "0"), ("1/1024", "0.0009765625"), ("1/2", "0.5"),
        ("3\u00d74\u00f76\u22121", "1"), (" 1 \t+\n 2 ", "3"), ("1/10000000000000", "1/10000000000000"), ("007", "7"),
        ("99999999999999999999 * 99999999999999999999", "9999999999999999999800000000000000000001"),
    ],
)  # fmt: skip
def test_the_calculator_is_exact(expression: str, result: str) -> None:
    assert shown(calculate(expression)) == result


_NUMBERS = st.integers(0, 10**6).map(str) | st.decimals(0, 1000, places=3).map(str)
_EXPRESSIONS = st.recursive(
    _NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " - ", " * "]), inner).map("".join)
        | inner.map(lambda e: f"({e})")
        | inner.map(lambda e: f"-{e}")
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS)
def test_the_calculator_agrees_with_python_on_every_expression(expression: str) -> None:
    expression = re.sub(r"\b0+(?=\d)", "", expression)
    if len(expression) > MOST_CHARACTERS:
        with pytest.raises(ToolError, match="longer than"):
            calculate(expression)
        return
    try:
        wanted = value(expression)
    except ZeroDivisionError:
        with pytest.raises(ToolError, match="division by zero"):
            calculate(expression)
        return
    result = calculate(expression)
    assert result == wanted
    assert Fraction(shown(result)) == wanted


# -- the calculator: safe ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("9**9**9", "powers are not supported"), ("2**2", "powers are not supported"), ("9^9", "powers are not supported"),
        ("1e999", "not 'e'"), ("9!", "not '!'"), ("__import__('os').system('id')", "not '_'"), ("().__class__", "not '.'"),
        ("print(1)", "not 'p'"), ("x", "not 'x'"), ("1;2", "not ';'"), ("1,000", "write numbers without separators"),
        ("5%", "not '%'"), ("1//2", "a number was expected, not '/'"), ("1<<9", "not '<'"), ("0x10", "unexpected 'x'|not 'x'"),
        ("1_0", "not '_'"), ("\u0667", "not '\u0667'"), ("\uff17+1", "not '\uff17'"), ("\u00b2", "not '\u00b2'"),
        ("\x00", "not "), ("\ud800", "not "), ("\u00a01", "not "), ("", "is empty"), ("   ", "is empty"),
        ("()", "a number was expected"), ("(", "ends where a number"), ("(1", "closing parenthesis is missing"),
        ("(1 2)", "closing parenthesis is missing before '2'"), ("1)", "unexpected ')'"), ("1 2", "unexpected '2'"),
        ("1.2.3", "unexpected '.3'"), ("+", "ends where a number"), ("1+", "ends where a number"),
        ("*1", "a number was expected"), (".", "not '.'"), ("1/0", "division by zero"), ("1/(2-2)", "division by zero"),
        ("1/0.0", "division by zero"), ("(" * 25 + "1" + ")" * 25, "nest deeper"), ("-" * 30 + "1", "nest deeper"),
        ("(" * 200, "nest deeper"), ("1" * 201, "longer than 200"), ("1+" * 500_000 + "1", "longer than 200"),
        ("1" * 51, "more than 50 digits"), ("0." + "1" * 60, "more than 50 digits"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words(expression: str, why: str) -> None:
    with pytest.raises(ToolError) as caught:
        calculate(expression)
    assert any(w in str(caught.value) for w in why.split("|")), str(caught.value)


@settings(max_examples=300)
@given(st.text(st.sampled_from("0123456789.+-*/() ^%eE_x,"), max_size=MOST_CHARACTERS + 5) | st.text(max_size=50))
@example("9" * 50 + "*" + "9" * 50 + "*" + "9" * 50)
@example("1/9" * 60)
def test_no_expression_does_anything_but_calculate_or_refuse(expression: str) -> None:
    try:
        result = shown(calculate(expression))
    except ToolError:
        return
    # without powers no result has more digits than were typed, twice that for both halves of a fraction
    assert len(result) <= 2 * MOST_CHARACTERS + 20
    assert re.fullmatch(r"-?\d+(\.\d+|/\d+)?", result, re.ASCII)


@pytest.mark.parametrize(
    "expression",
    [
        "*".join(["9" * MOST_DIGITS] * 3), "*".join("9" * 100),
        "+".join("1/" + str(p) for p in (97, 89, 83, 79, 73, 71, 67, 61, 59)), "/".join("7" * 100), "-" * 19 + "1",
        "(" * 19 + "1" + ")" * 19, "1/" * 99 + "3",
    ],
)  # fmt: skip
def test_the_largest_expressions_cost_next_to_nothing(expression: str) -> None:
    begun = time.thread_time()
    for _ in range(100):
        shown(calculate(expression))
    assert time.thread_time() - begun < 5.0


# -- the calculator in an episode -------------------------------------------------------------------------------------


def test_an_agent_that_floods_the_calculator_gets_a_bounded_turn() -> None:
    env = Chain()
    env.reset(options={"item": "0"})
    bomb = ToolCall("calculator", '{"expression": "9**9**9"}')
    obs, _, terminated, _, _ = env.step(assistant("", *[bomb] * 1000))
    assert len(obs) == 1000
    assert not terminated
    told = Counter(m.text for m in obs)
    assert told["error: powers are not supported; multiply step by step"] == MAX_CALLS_PER_TURN
    assert told[f"error: not run, more than {MAX_CALLS_PER_TURN} calls in one message"] == 1000 - MAX_CALLS_PER_TURN
    assert not env.trajectory.turns[-1].events


def test_refused_calls_do_not_count_as_use() -> None:
    result = played(Chain(), ScriptedPolicy([call("calculator", expression="2**9"), submit(answer="1")]), "0")
    assert {s.name: s.value for s in result.scores if s.role == "metric"} == {"format": 1.0, "calculator used": 0.0}
    result = played(Chain(), "honest", "0")
    assert {s.name: s.value for s in result.scores if s.role == "metric"} == {"format": 1.0, "calculator used": 1.0}


def test_a_chain_may_be_answered_in_words_or_by_submission() -> None:
    gold = Chain().make_task("3").gold
    for action in (assistant(f"Answer: {gold}"), submit(answer=gold), submit(answer=f"Answer: {gold}"), assistant(gold)):
        assert played(Chain(), ScriptedPolicy([action]), "3").gold == 1.0


def test_one_turn_is_all_there_is_where_there_are_no_tools() -> None:
    for env in (Add(), Arith(), Algebra(), Word()):
        gold = env.make_task("0").gold
        calling = assistant("", ToolCall("calculator", '{"expression": "1"}'))
        result = played(env, ScriptedPolicy([calling, assistant(f"Answer: {gold}")]), "0")
        assert (result.gold, len(result.trajectory.turns), result.trajectory.outcome) == (0.0, 1, "truncated")
