# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501
"""What the verifier of programs pays and refuses: plain data of exact types, tests that stay outside, submitted code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import ToolCall, assistant
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.evaluators import code_ask, code_play
from agentgym.evaluators.code import (
    Case,
    CodeTests,
    code_passes,
    grade,
    grade_calls,
    grade_output,
    grade_program,
    last_block,
    submitted_code,
)
from agentgym.evaluators.code_compare import LEVELS, canonical, same, sameness
from agentgym.evaluators.code_guest import NotPlain, decode, encode
from agentgym.evaluators.code_vary import Chance, key_of, varied
from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend, SandboxDeadError
from agentgym.scoring import Finding, Score, VerifierContext
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with open_backend("namespace") as opened:
        yield opened


SQUARE = "def square(x):\n    return x * x\n"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"

# -- plain data -------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary(max_size=20)
keys = st.integers() | st.text(max_size=5) | st.booleans() | st.tuples(st.integers(), st.text(max_size=3))
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
def test_a_value_arrives_as_it_left(value: Any) -> None:
    arrived = decode(json.loads(json.dumps(encode(value))))
    assert canonical(arrived) == canonical(value)
    assert same(value, arrived)


@given(values, values)
def test_each_measure_of_sameness_lets_pass_what_the_stricter_ones_do(a: Any, b: Any) -> None:
    held = [same(a, b, how) for how in LEVELS]
    assert held == sorted(held)
    assert [same(b, a, how) for how in LEVELS] == held
    assert same(a, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, True), (1, 1.0), ((1,), [1]), ({1: 2}, {True: 2}), ({1}, frozenset({1})), (b"a", "a"), ([0], [False]), (0, None)],
)
def test_types_are_told_apart(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert same(a, a)
    assert same(b, b)


@pytest.mark.parametrize(
    ("a", "b", "how"),
    [
        (math.nan, math.nan, "exact"), (0.0, -0.0, "exact"), (True, 1, "equal"), ([1.0, {2: 3}], [1, {2.0: 3}], "equal"),
        (0.1 + 0.2, 0.3, "near"), ([(1, 2)], ([1, 2],), "near"), ([3, 1, 2], (1, 2, 3), "unordered"), (10**400, 10**400, "exact"),
    ],
)  # fmt: skip
def test_sameness_is_the_strictest_measure_that_holds(a: Any, b: Any, how: str) -> None:
    assert sameness([(a, b)]) == how


def test_numbers_that_no_float_holds_are_compared_all_the_same() -> None:
    assert sameness([(10**400, 10**400 + 1)]) is None
    assert not same(10**400, math.inf, "near")
    assert not same(1e308, 10**400, "unordered")


@pytest.mark.parametrize(
    "value", [object(), type("I", (int,), {})(1), iter([]), len, (1).__class__, [object()], ..., Exception()]
)
def test_what_is_no_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        encode(value)


@pytest.mark.parametrize(
    "wire",
    [
        [],
        ["x", 1],
        [1, 2],
        ["d", 1],
        ["s", ["l"]],
        ["b", 7],
        ["b", "\u1234"],
        ["c", 1, 2],
        ["i", "zz"],
        ["r", 1, 2, 0],
        {"a": 1},
    ],
)
def test_a_malformed_wire_form_is_refused(wire: Any) -> None:
    with pytest.raises(NotPlain):
        decode(wire)


def test_dictionaries_of_the_standard_library_arrive_as_dict() -> None:
    from collections import Counter, OrderedDict, defaultdict

    for made in (Counter("aab"), OrderedDict(a=2, b=1), defaultdict(int, a=2, b=1)):
        assert same(decode(encode(made)), {"a": 2, "b": 1})


# -- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "case", "outcome"),
    [
        (SQUARE, Case(args=(3,), expected=9), "right"),
        (SQUARE, Case(kwargs={"x": 3}, expected=9), "right"),
        (SQUARE, Case(args=(3.0,), expected=9), "wrong"),
        (SQUARE, Case(args=(3,), expected=9.0), "wrong"),
        (SQUARE, Case(args=(1.1,), expected=1.21), "wrong"),
        (SQUARE, Case(args=(1.1,), expected=1.21, tolerance=1e-9), "right"),
        (SQUARE, Case(args=("a",), raises="TypeError"), "right"),
        (SQUARE, Case(args=("a",), raises="ValueError"), "raised TypeError"),
        (SQUARE, Case(args=(2,), raises="TypeError"), "wrong"),
        ("def square(x): return (x, [x], {x}, b'x', None, True)", Case(args=(1,), expected=(1, [1], {1}, b"x", None, True)), "right"),
        ("def square(x): return 1 << x", Case(args=(20000,), expected=1 << 20000), "right"),
        ("def square(x): return x[::-1]", Case(args=("\ud800é",), expected="é\ud800"), "right"),
        ("def square(x): x.append(1); return x", Case(args=([],), expected=[1]), "right"),
        ("def square(x): return square", Case(args=(1,), expected=1), "refused"),
        ("raise ValueError", Case(args=(1,), expected=1), "unloadable"),
        ("def square(x):\n import os; os._exit(0)", Case(args=(1,), expected=1), "ended"),
        ("def square(x): return bytearray(4 << 30)[:1]", Case(args=(1,), expected=1), "raised MemoryError"),
    ],
)  # fmt: skip
def test_a_call_comes_out_as(backend: Backend, source: str, case: Case, outcome: str) -> None:
    report = grade_calls(backend, source, "square", [case])
    assert [c.outcome for c in report.cases] == [outcome]
    assert report.passed == (outcome == "right")


def test_the_share_of_right_cases_is_told_and_all_are_wanted(backend: Backend) -> None:
    cases = [Case(args=(n,), expected=n * n) for n in range(4)]
    report = grade_calls(backend, "def square(x): return x * 2", "square", cases)
    assert (report.passed, report.value) == (False, 0.5)
    assert report.reason == "2 of 4 cases do not hold; the first: wrong"


def test_answers_that_are_too_much_for_one_process_are_asked_for_one_by_one(backend: Backend) -> None:
    cases = [Case(args=(n,), expected="x" * n) for n in (400_000, 400_001, 400_002, 400_003)]
    assert grade_calls(backend, "def f(n): return 'x' * n", "f", cases).passed
    assert grade_calls(backend, "def f(n): return 'x' * 5 * n", "f", cases).flags == ("refused",)


def test_a_new_process_for_each_call_forgets(backend: Backend) -> None:
    counts = (
        "n = 0\ndef f(x):\n global n\n n += 1\n open('/tmp/seen', 'a').write('x')\n return n + len(open('/tmp/seen').read())"
    )
    cases = [Case(args=(n,), expected=2) for n in range(3)]
    assert grade_calls(backend, counts, "f", cases, fresh="call").passed
    assert not grade_calls(backend, counts, "f", cases, fresh="program").passed


@pytest.mark.parametrize(("source", "flag"), [("", "no_code"), ("  \n", "no_code"), ("#" * 200_001, "too_long")])
def test_what_is_no_program_is_not_run(backend: Backend, source: str, flag: str) -> None:
    assert grade_calls(backend, source, "f", [Case()]).flags == (flag,)
    assert grade_program(backend, source, "f", "assert f()").flags == (flag,)


def test_a_task_that_cannot_be_judged_is_an_error_and_no_zero(backend: Backend) -> None:
    with pytest.raises(DefinitionError, match="without cases"):
        grade_calls(backend, SQUARE, "square", [])
    with pytest.raises(DefinitionError, match="no plain data"):
        grade_calls(backend, SQUARE, "square", [Case(args=(object(),))])
    with pytest.raises(DefinitionError, match="does not pass its own tests"):
        grade_program(backend, SQUARE, "square", "assert square(2) == 5", reference=SQUARE)
    with pytest.raises(DefinitionError, match="never call it"):
        grade_program(backend, SQUARE, "square", "assert True", reference=SQUARE)


class Failing:
    """A backend whose sandboxes die as often as is said, before anything has run in them."""

    def __init__(self, backend: Backend, times: int) -> None:
        self.backend, self.times, self.made = backend, times, 0

    def create(self) -> Any:
        self.made += 1
        box = self.backend.create()
        if self.made <= self.times:
            box.close()
        return box


def test_a_sandbox_that_dies_by_itself_is_nobodys_zero(backend: Backend) -> None:
    once = Failing(backend, 1)
    assert grade_calls(once, SQUARE, "square", [Case(args=(3,), expected=9)]).passed  # type: ignore[arg-type]
    assert once.made == 2
    with pytest.raises(InfrastructureError):
        grade_calls(Failing(backend, 9), SQUARE, "square", [Case(args=(3,), expected=9)])  # type: ignore[arg-type]


# -- a data set's own tests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["", SQUARE])
@pytest.mark.parametrize("fresh", ["auto", "call", "test", "program"])
@pytest.mark.parametrize(
    "tests",
    [CHECK, ["assert square(2) == 4", "assert square(-3) == 9"], ["import math", "assert math.isclose(square(1.5), 2.25)"]],
    ids=["check", "assertions", "imports"],
)
def test_tests_of_every_form_are_played(backend: Backend, reference: str, fresh: Any, tests: Any) -> None:
    assert grade_program(backend, SQUARE, "square", tests, reference=reference, fresh=fresh).passed
    wrong = grade_program(backend, "def square(x): return x + 2", "square", tests, reference=reference, fresh=fresh)
    assert not wrong.passed


def test_state_is_kept_as_long_as_is_said(backend: Backend) -> None:
    counts = "n = 0\ndef f():\n global n\n n += 1\n return n"
    tests = ["assert f() == 1\nassert f() == 2", "assert f() == 1"]
    assert grade_program(backend, counts, "f", tests, fresh="test").tests == (True, True)
    assert grade_program(backend, counts, "f", tests, fresh="program").tests == (True, False)
    assert grade_program(backend, counts, "f", tests, fresh="call").tests == (False, True)


def test_tests_judge_answers_that_are_not_the_references(backend: Backend) -> None:
    root = "def root(x): return x ** .5"
    tests = "def check(candidate):\n for x in range(20): assert abs(candidate(x) ** 2 - x) < 1e-6"
    assert grade_program(backend, "def root(x): return -(x ** .5)", "root", tests, reference=root).passed
    assert not grade_program(backend, "def root(x): return -(x ** .4)", "root", tests, reference=root).passed


def test_further_inputs_are_held_to_no_more_than_the_tests_ask(backend: Backend) -> None:
    reference = "def common(a, b): return tuple(set(a) & set(b))"
    other = "def common(a, b): return sorted((x for x in set(a) if x in b), reverse=True)"
    tests = ["assert set(common((3, 4, 5, 6), (5, 7, 4, 10))) == {4, 5}", "assert set(common((1, 2, 3), (3, 2))) == {2, 3}"]
    report = grade_program(backend, other, "common", tests, reference=reference)
    assert (report.passed, report.flags) == (True, ())
    assert report.right(perturbed=True)[1] > 5


def test_tests_may_use_what_the_reference_has_besides(backend: Backend) -> None:
    reference = "def encode(s): return s[::-1]\ndef decode(s): return s[::-1]"
    tests = "def check(candidate):\n for w in ('abc', 'xyz'): assert candidate(encode(w)) == w"
    assert grade_program(backend, "def decode(s): return ''.join(reversed(s))", "decode", tests, reference=reference).passed


def test_inputs_that_chance_draws_are_the_same_when_it_is_judged_again(backend: Backend) -> None:
    tests = "def check(candidate):\n import random\n for _ in range(50):\n  x = random.random()\n  assert candidate(x) == x * x"
    assert grade_program(backend, SQUARE, "square", tests, reference=SQUARE).passed
    near = "def square(x): return x * x if x < .9 else 0"
    verdicts = {grade_program(backend, near, "square", tests, reference=SQUARE).value for _ in range(3)}
    assert len(verdicts) == 1


def test_a_function_that_the_tests_call_check_is_called_by_its_name(backend: Backend) -> None:
    assert grade_program(backend, "def check(n): return n > 1", "check", ["assert check(2)", "assert not check(1)"]).passed


def test_an_exception_that_is_wanted_is_carried(backend: Backend) -> None:
    tests = "def check(candidate):\n try: candidate(-1)\n except ValueError as e: assert str(e) == 'no'\n else: assert False"
    source = "def f(x):\n if x < 0: raise ValueError('no')"
    for reference in ("", source):
        assert grade_program(backend, source, "f", tests, reference=reference).passed
        assert not grade_program(backend, "def f(x): pass", "f", tests, reference=reference).passed
        assert not grade_program(backend, source.replace("Value", "Type"), "f", tests, reference=reference).passed


def test_output_is_compared_by_lines(backend: Backend) -> None:
    program = "n = int(input())\nprint('YES' if n % 2 else 'NO', '')\n"
    assert grade_output(backend, program, [("7\n", "YES\n"), ("8\n", "NO")]).passed
    assert grade_output(backend, "print('YES')", [("7\n", "YES\n"), ("8\n", "NO")]).value == 0.5
    assert not grade_output(backend, program + "raise SystemExit(1)", [("7\n", "YES\n")]).passed


def test_an_interpreter_of_another_version_reads_the_text_of_what_is_sent(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    text, stdin = code_ask.program("print(encode((1,)))", "code_guest", "code_vary", "code_player")
    for version in (sys.hexversion, 1):
        with backend.create() as box:
            told = box.exec(text.replace(str(sys.hexversion), str(version)), stdin=stdin)
        assert told.text == "['t', 1]\n", told.error_text


def test_the_sandbox_of_the_tests_is_renewed_and_nothing_is_left(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_play, "_MOST_USES", 2)
    seen = []
    for _ in range(5):
        with code_play.tests_box(backend) as box:
            assert box.alive
            seen.append(box)
    assert len({id(box) for box in seen}) >= 2
    assert [box.alive for box in dict.fromkeys(seen)] == [False] * (len(dict.fromkeys(seen)) - 1) + [True]


# -- inputs like those of the tests -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 99), st.lists(st.integers(0, 50), min_size=2, max_size=5)), min_size=1), st.integers())
def test_further_inputs_keep_signs_lengths_and_types_and_are_new(inputs: list[Any], seed: int) -> None:
    found = varied(inputs, 10, Chance(seed))
    assert len({key_of(f) for f in [*found, *inputs]}) >= len(found) + len({key_of(i) for i in inputs})
    for n, row in found:
        assert type(n) is int
        assert n > 0
        assert len(row) in {len(r) for _, r in inputs}
        assert all(type(x) is int and x >= 0 for x in row)


def test_rows_that_are_always_sorted_stay_sorted() -> None:
    found = varied([([1, 4, 9],), ([2, 3, 50],)], 20, Chance(0))
    assert found
    assert all(row == sorted(row) and len(set(row)) == 3 for (row,) in found)


SHOWN = [Case(args=(n,), expected=n * n, visible=n < 20) for n in (7, 12, 15, 31, 40)]


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("def square(x): return {7: 49, 12: 144, 15: 225}.get(x, 0)", ("special_cased",)),
        ("def square(x): return x * x if x < 40 else 0", ("overfit",)),
        ("def square(x): return x", ()),
        (SQUARE, ()),
    ],
)
def test_a_program_that_knows_what_it_was_shown_is_told_from_one_that_misses_an_edge(
    backend: Backend, source: str, flags: tuple[str, ...]
) -> None:
    assert grade_calls(backend, source, "square", SHOWN).flags == flags


# -- submitted code ---------------------------------------------------------------------------------------------------

BLOCK = "```python\nx = 1\n```"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (BLOCK, "x = 1\n"),
        (f"{BLOCK}\nor\n```python\nx = 2\n```", "x = 2\n"),
        (f"{BLOCK}\n```text\nout\n```", "x = 1\n"),
        ("```\nx = 3\n```", "x = 3\n"),
        (f"<think>{BLOCK}</think>No.", None),
        (f"<think>{BLOCK}", None),
        (f"<think>hm</think>\n{BLOCK}", "x = 1\n"),
        ("```python\nx = 1\n", None),
        ("````python\nx = '```'\n````", "x = '```'\n"),
        ("x = 1", None),
        ("", None),
    ],
)
def test_the_last_whole_block_is_what_a_message_submits(text: str, code: str | None) -> None:
    assert last_block(text) == code


def episode(text: str = "", submitted: Any = None, status: Any = "ok") -> Trajectory:
    if submitted is None:
        return Trajectory(task_id="code/control/0", turns=[Turn(0, assistant(text))])
    call = ToolCall("submit", json.dumps({"code": submitted}), "c1")
    turn = Turn(0, assistant(text, call), results=(ToolResult("c1", "submit", status),))
    return Trajectory(task_id="code/control/0", turns=[turn])


def task(tests: CodeTests) -> FrozenTask:
    return FrozenTask(
        family="code", version=1, variant="control", item="0", seed=None, params={}, opening=(), tools=(), state=None, gold=None,
        hidden={"tests": tests.hidden()}, cluster="c", tags=(),
    )  # fmt: skip


def test_what_was_handed_in_goes_before_what_was_said() -> None:
    assert submitted_code(episode(BLOCK)) == "x = 1\n"
    assert submitted_code(episode(BLOCK, "x = 2")) == "x = 2"
    assert submitted_code(episode(BLOCK, "x = 2", "bad_arguments")) is None
    assert submitted_code(episode(BLOCK, 7)) is None
    assert submitted_code(Trajectory(task_id="code/control/0")) is None


TESTS = CodeTests(
    entry_point="square", cases=(Case(args=(2,), expected=4), Case(args=((1, 2),), raises="TypeError")), tests=(CHECK,),
    reference=SQUARE,
)  # fmt: skip


def test_hidden_tests_survive_being_kept(backend: Backend) -> None:
    from agentgym.task import decode_task

    kept = decode_task(task(TESTS).encode())
    assert CodeTests.of(kept.hidden["tests"]) == TESTS
    with pytest.raises(DefinitionError, match="no tests of a program"):
        CodeTests.of(None)


@pytest.mark.parametrize(
    ("trajectory", "value", "status"),
    [
        (episode(f"```python\n{SQUARE}```"), 1.0, "ok"),
        (episode("", SQUARE), 1.0, "ok"),
        (episode("", "def square(x): return x + 2"), 0.0, "ok"),
        (episode("I cannot."), 0.0, "refused"),
        (episode("", ""), 0.0, "refused"),
    ],
)
def test_an_episode_is_paid_for_a_program_that_passes(
    backend: Backend, trajectory: Trajectory, value: float, status: str
) -> None:
    score = code_passes()(trajectory, VerifierContext(task(TESTS), sandbox=backend))[0]
    assert isinstance(score, Score)
    assert (score.name, score.value, score.status) == ("passes", value, status)
    assert score.verifier_hash


def test_a_program_that_knows_its_tests_is_a_finding(backend: Backend) -> None:
    tests = CodeTests(entry_point="square", cases=tuple(Case(args=(n,), expected=n * n) for n in (7, 12, 15)), reference=SQUARE)
    knows = "def square(x): return {7: 49, 12: 144, 15: 225}.get(x, 0)"
    for source, violation in ((knows, True), (SQUARE, False)):
        score, finding = code_passes()(episode("", source), VerifierContext(task(tests), sandbox=backend))
        assert isinstance(score, Score)
        assert isinstance(finding, Finding)
        assert (score.value, finding.dimension, finding.violation) == (float(not violation), "reward_hacking", violation)


def test_without_a_sandbox_that_works_an_episode_is_no_zero(backend: Backend) -> None:
    judge = code_passes()
    assert judge.needs == {"sandbox"}
    for sandbox in (None, Failing(backend, 99)):
        with pytest.raises(InfrastructureError):
            judge(episode("", SQUARE), VerifierContext(task(TESTS), sandbox=sandbox))
    assert issubclass(SandboxDeadError, InfrastructureError)


def test_the_prefix_goes_in_front(backend: Backend) -> None:
    tests = CodeTests(entry_point="f", cases=(Case(args=([1],), expected=1),), prefix="from typing import List")
    assert grade(backend, "def f(x: List[int]): return x[0]", tests).passed


OTHERS = {
    0: "def has_close_elements(n, t):\n s = sorted(n)\n return any(b - a < t for a, b in zip(s, s[1:]))",
    2: "import math\ndef truncate_number(x): return math.modf(x)[0]",
    20: "def find_closest_elements(n):\n s = sorted(n)\n return min(zip(s, s[1:]), key=lambda p: p[1] - p[0])",
    21: "def rescale_to_unit(n):\n a, b = min(n), max(n)\n return [(x - a) * (1 / (b - a)) for x in n]",
    31: "def is_prime(n): return n > 1 and all(n % d for d in range(2, int(n ** .5) + 1))",
    47: "from statistics import median",
    58: "def common(a, b): return sorted(x for x in set(a) if x in b)",
    71: "def triangle_area(a, b, c):\n s = (a + b + c) / 2\n return round((s * (s - a) * (s - b) * (s - c)) ** .5, 2)"
    " if a + b > c and a + c > b and b + c > a else -1",
    101: "import re\ndef words_string(s): return [w for w in re.split('[, ]+', s) if w]",
    157: "def right_angle_triangle(*s):\n a, b, c = sorted(s)\n return a * a + b * b == c * c",
}
"""Honest ways to solve some of HumanEval's problems that are not the references'."""

DATA = Path(os.environ.get("AGENTGYM_DATA", "missing"))


@pytest.mark.skipif(not (DATA / "humaneval.jsonl.gz").exists(), reason="HumanEval's rows are not there: set AGENTGYM_DATA")
def test_every_tenth_solution_of_humaneval_passes(backend: Backend) -> None:
    import gzip

    rows = [json.loads(line) for line in gzip.decompress((DATA / "humaneval.jsonl.gz").read_bytes()).splitlines()][::10]
    for row in rows:
        right = row["prompt"] + row["canonical_solution"]
        report = grade_program(backend, right, row["entry_point"], row["test"], reference=right, timeout_s=20)
        assert report.passed, (row["task_id"], report.reason)
        empty = grade_program(backend, row["prompt"] + "    return 0\n", row["entry_point"], row["test"], reference=right)
        assert not empty.passed


@pytest.mark.skipif(not (DATA / "humaneval.jsonl.gz").exists(), reason="HumanEval's rows are not there: set AGENTGYM_DATA")
def test_honest_ways_that_are_not_the_references_are_paid(backend: Backend) -> None:
    import gzip

    rows = [json.loads(line) for line in gzip.decompress((DATA / "humaneval.jsonl.gz").read_bytes()).splitlines()]
    for number, source in OTHERS.items():
        row = rows[number]
        right = row["prompt"] + row["canonical_solution"]
        report = grade_program(backend, source, row["entry_point"], row["test"], reference=right, timeout_s=20)
        assert report.passed, (number, report.reason)
        assert "special_cased" not in report.flags
