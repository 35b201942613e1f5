# SPDX-License-Identifier: Apache-2.0
"""The simple door: one gold, one text, one number; the same from everywhere, whatever a policy writes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import DefinitionError
from agentgym.evaluators.math_answer import extract, grade


def value(gold: str, response: str, protocol: str = "last boxed answer, else last stated answer") -> float:
    """The number alone."""
    found = grade(gold, response, protocol)
    return found[0] if isinstance(found, tuple) else found


def flags(gold: str, response: str, protocol: str = "last boxed answer, else last stated answer") -> list[str]:
    found = grade(gold, response, protocol)
    return found[1] if isinstance(found, tuple) else []


# -- one thing in many spellings ------------------------------------------------------------------------------------------

SAME = [
    # numbers
    (r"1\frac12", "1.5"), ("1024", "2^{10}"), ("0.001", r"1.0 \times 10^{-3}"), ("1/3", r"0.\overline{3}"), ("1000", "1 000"),
    ("1/12", "0.0833333333333333"), (r"\log_2 8", "3"), ("120", r"\binom{10}{3}"), ("2.74", "2,74"),
    # terms
    ("x^2-1", "(x-1)(x+1)"), ("1+x", "x+1"), (r"\frac{x}{2}", "0.5x"), ("3x^2", "3*x**2"), ("a^2b", "ba^2"), ("xy^2", "y^2x"),
    (r"\frac{1}{x+1}", "(x+1)^{-1}"), ("6-5i", "-5i+6"), (r"25\pi", r"\pi \cdot 25"), (r"\frac{\pi}{4}", "π/4"),
    ("e^{2}", "e^2"),
    # what only a worker can tell
    (r"\sqrt{18}", r"3\sqrt2"), (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt3}{3}"), (r"\tan^2(y)+1", r"\sec^2(y)"),
    (r"\sin 2x", r"2\sin x\cos x"), (r"2\cos^2 x - 1", r"\cos 2x"), (r"\sqrt{\sqrt{2}}", "2**(1/4)"),
    (r"\tan^{-1} 2", r"\arctan 2"),
    # lists, sets, tuples, intervals, matrices
    ("1,2,3", r"\{3,2,1\}"), ("1, -2", "-2, 1"), (r"1\pm\sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    ("(0.5,3)", r"\left(\frac{1}{2}, 3\right)"), ("6 and 8", "6,8"), ("3,22", "22, 3"), ("x=1, y=2", "1, 2"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,+\infty)\cup(-\infty,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left[\begin{array}{c} 1 \\ 2 \end{array}\right]"), (r"\emptyset", r"\{\}"),
    ("7:32", "7 : 32"),
    # equations, inequalities
    ("4", "x=4"), ("x=4", "4"), ("4=x", "x=4"), ("x^2+y^2=1", "y^2+x^2=1"), ("y=2x+3", "2x-y+3=0"), (r"x \leq 5", r"5 \geq x"),
    (r"x \ge 2", r"[2,\infty)"), ("-1 < x < 1", "(-1,1)"), ("x < -1 or x > 3", r"(-\infty,-1)\cup(3,\infty)"),
    ("391", "17*23=391"),
    ("2, 3", r"x=2 \text{ or } x=3"), ("x+1", "f(x) = x+1"), ("1", r"\lim_{x \to 0} \frac{\sin x}{x} = 1"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k"), ("f(x)+g(y)", "g(y)+f(x)"),
    # units, money, percent, degrees
    ("12", r"12\text{ m}^2"), (r"16\pi", r"16\pi \text{ square units}"), ("5", "5cm"), (r"5\text{ cm}", "5 centimeters"),
    ("5", r"\$5.00"),
    (r"42\%", "42"), ("90", r"90^\circ"), (r"\frac{\sqrt{3}}{3}", r"\frac{\sqrt{3}}{3} \approx 0.577"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_thing_in_another_spelling_is_paid(gold: str, answer: str) -> None:
    assert value(gold, rf"So it is \boxed{{{answer}}}.") == 1.0


DIFFERENT = [
    ("(1,2)", "[1,2)"), ("(1,2)", "[1,2]"), ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), ("(3,5)", "3,5"), ("2", "[2]"),
    ("2", "(2,2)"),
    ("x=1,y=2", "y=1,x=2"), ("x=1,y=2", "2, 1"), (r"5\text{ cm}", r"5\text{ m}"), ("5 hours", "5 minutes"), (r"10\%", "0.1"),
    ("|x|", "x"),
    ("x", r"\sqrt{x^2}"),
    (r"\pi", "3.14"), (r"\pi", "22/7"), ("2", "2i"), ("1,2", "1"), ("1", "1,2"), ("x>2", r"x\ge 2"), ("x>2", "x<2"),
    ("a+b", "a-b"),
    ("[2,3]", r"2 \le x \le 3"), ("east", "seat"), ("AB", "BA"), ("40_9", "40"), ("40_9", "40_8"), ("12", "1 2"), ("5", "5!"),
    ("x", "y"),
    ("7", "7x=49"), ("7", "-x=7"), ("a=0", "-a=0"), ("3", "2x-3=3"), ("3", "1+1=3"),
    ("7", r"7 \neq x"), ("B", "B or C"), (r"\infty", r"-\infty"),
    ("0", r"\frac{1}{10^{30}}"),
    (r"\pi", r"\pi+10^{-40}"), (r"\pi", r"\pi+10^{-90000}"), (r"\sqrt2", r"\sqrt2+10^{-200}"), ("42", "42+10^{-300}"),
    ("2^{1000}", "2^{1001}"),
    ("e^{1000}", "e^{1000}+1"), (r"\ln 2", r"\log_{10} 2"), ("1/3", "0.3333"), ("f(x)", "g(x)"), ("0", r"\sin(10^{-20})"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cap(3,\infty)"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_another_thing_is_not_paid(gold: str, answer: str) -> None:
    assert value(gold, rf"So it is \boxed{{{answer}}}.") == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "paid"),
    [
        ("391", r"17 \times 23", 1.0), ("7", "3+4", 1.0), ("1/2", "2/4", 1.0), ("4", r"\sqrt{16}", 1.0),
        ("5050", r"\sum_{k=1}^{100} k", 0.0), (r"\frac{1}{3}", r"\int_0^1 x^2 dx", 0.0), ("x=4", "2x-3=5", 0.0),
    ],
)  # fmt: skip
def test_what_is_left_to_work_out_is_flagged_and_refused_on_demand(gold: str, answer: str, paid: float) -> None:
    text = rf"\boxed{{{answer}}}"
    assert grade(gold, text) == (paid, ["unevaluated"])
    assert grade(gold, text, unevaluated=False) == (0.0, ["unevaluated"])


def test_a_gold_may_be_an_integral_and_the_answer_its_value() -> None:
    assert value(r"\int_0^1 x^2 dx", "1/3") == 1.0
    assert value(r"\int_0^1 x^2 dx", "1/4") == 0.0
    assert value(r"\sum_{k=1}^{100} k", "5050") == 1.0
    assert value(r"\lim_{x \to 0} \frac{\sin x}{x}", "1") == 1.0


# -- what was answered ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"It is 7. Wait, that is wrong. So \boxed{8}.", "8"), ("<answer>7</answer> Wait, no. <answer>8</answer>", "8"),
        ("Answer: 7 was a wrong guess.\nAnswer: 8", "8"), (r"\boxed{7} ... Final answer: 8", "8"),
        ("<answer>8</answer>", "8"), (r"<answer>\boxed{8}</answer>", "8"), ("<thinking>7</thinking><answer>8</answer>", "8"),
        ("We get $x \\neq 8$.", r"x \neq 8"), (r"The final answer is \((-6, 10)\). I hope it is correct.", r"\((-6, 10)\)"),
        ("185\\", "185\\"), ("Answer $$\n8\n$$", "8"), ("The answer is 8<|im_end|>\n<|im_start|>user", "8"),
        ("It grew by 100%.", "100"),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"), (r"50% of them: \boxed{8}", "8"),
        ("The answer is 8 because 4 + 4 = 8", "8"),
        # nothing
        ("<answer>7</answer><answer>8</answer>", None), ("<answer><answer>8</answer></answer>", None), ("<answer>8", None),
        ("<think>8</think>", None), (r"<reasoning>\boxed{8}</reasoning>", None), (r"Not solved. % \boxed{8}", None),
        ("\\iffalse\n\\boxed{8}\n\\fi", None), (r"\begin{comment}\boxed{8}\end{comment}", None), (r"[//]: # (\boxed{8})", None),
        (r"/* \boxed{8} */", None), (r"Put your final answer in \boxed{8}", None), (r"For example, \boxed{8}", None),
        (r"The prompt said \boxed{8}", None),

        (r"We write the final answer as \boxed{8}", "8"), (r"So the result in the form a+b is: \boxed{8}", "8"),
        ("It is $7$ or $8$", None), ("at least $8$", None),
        (r"\vphantom{\boxed{8}}", None),
    ],
)  # fmt: skip
def test_the_last_word_that_a_reader_sees_is_the_answer(text: str, found: str | None) -> None:
    assert extract(text) == found


@pytest.mark.parametrize(
    ("protocol", "gold", "text", "paid"),
    [
        ("last boxed answer", "8", "The answer is 8", 0.0), ("last boxed answer", "8", r"\boxed{7}, no, \boxed{8}. Done.", 1.0),
        ("last boxed letter", "B", r"\boxed{B}", 1.0), ("last boxed letter", "B", r"\boxed{\text{(B)}}", 1.0),
        ("last boxed letter", "(B)", r"\boxed{B) 7}", 1.0), ("last boxed letter", "B", r"\boxed{A, B}", 0.0),
        ("last boxed letter", "B", r"\boxed{\text{Because}}", 0.0), ("last boxed letter", "B", r"\boxed{C}", 0.0),
        ("last boxed letter", "B", r"\boxed{B) or C)}", 0.0), ("last boxed letter", "B", "B", 0.0),
        ("GSM8K: last #### line", "18", "#### $18.00", 1.0), ("GSM8K: last #### line", "18", "#### 17\n#### 18", 1.0),
        ("GSM8K: last #### line", "18", "#### 18 #### 19", 0.0), ("GSM8K: last #### line", "18", "18", 0.0),
        ("tagged answer", "8", "<answer>8</answer>", 1.0), ("tagged answer", "8", "8", 0.0),
        ("tagged answer", "8", r"\boxed{8}", 0.0),
        ("0.1 format + 1.0 correct", "8", "<think>x</think><answer>8</answer>", 1.0),
        ("final line", "8", "7\n8", 1.0), ("final line", "8", "8\nI hope that helps!", 0.0),
        ("last stated answer", "8", "A: 8", 1.0),
        ("submitted answer", "8", "8", 1.0), ("submitted answer", "8", "7 or 8", 0.0),
    ],
)  # fmt: skip
def test_a_protocol_is_kept_to(protocol: str, gold: str, text: str, paid: float) -> None:
    assert value(gold, text, protocol) == paid


def test_an_unknown_protocol_is_an_error_of_the_caller() -> None:
    with pytest.raises(DefinitionError, match="no answer protocol 'xml'; there are"):
        grade("7", "7", "xml")


@pytest.mark.parametrize(
    ("gold", "text", "flag"),
    [
        ("", r"\boxed{}", "unscorable"), ("None", r"\boxed{None}", "unscorable"), ("7", "I do not know.", "no_answer"),
        ("7", "", "no_answer"),
        ("7", "<answer><answer>7</answer></answer>", "malformed"),
        ("7", "<answer>7</answer><answer>8</answer>", "several_answers"),
        ("7", r"<!-- \boxed{7} -->", "hidden"), ("7", r"<think>\boxed{7}</think>", "hidden"), ("7", "7 " * 10**6, "too_long"),
        ("7", r"\boxed{9^{9^{9^{9}}}}", "too_large"), ("7", r"\boxed{5\text{ or maybe 6, 7, 8}}", "unparsed"),
        ("7", r"\boxed{" + "x" * 3000 + "}", "too_large"), (r"\pi", r"\boxed{\pi+10^{-90000}}", "undecided"),
    ],
)  # fmt: skip
def test_nought_says_why(gold: str, text: str, flag: str) -> None:
    assert grade(gold, text) == (0.0, [flag])


def test_a_stray_backslash_does_no_harm() -> None:
    assert value("185", "185\\") == value("185\\", "185") == 1.0


def test_a_whole_solution_may_be_the_gold() -> None:
    assert value(r"First $1+1=2$. Thus the answer is $\boxed{14{,}916}$.", r"\boxed{14916}") == 1.0
    assert value("The answer is 10000", r"\boxed{10^4}") == 1.0


# -- the page that declares all this -----------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")


def declared() -> list[tuple[str, str, bool]]:
    """(gold, answer, accepted) of the table of what is the same."""
    table = PAGE.partition("## What is the same")[2].partition("\n## ")[0]
    found = []
    for line in table.splitlines():
        cells = [cell.replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) < 6 or "`" not in cells[1]:
            continue
        for gold in re.findall(r"`([^`]+)`", cells[1]):
            for cell, accepted in ((cells[2], True), (cells[3], False)):
                found += [(gold, answer, accepted) for answer in re.findall(r"`([^`]+)`", cell) if answer not in NAMES]
    return found


NAMES = ("unevaluated", "unscorable")


def test_the_policy_is_the_one_that_is_declared() -> None:
    rows = declared()
    assert len(rows) > 60
    for gold, answer, accepted in rows:
        assert value(gold, rf"\boxed{{{answer}}}") == float(accepted), (gold, answer)


def test_what_the_page_shows_is_what_comes_out() -> None:
    code = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
    scope: dict[str, Any] = {}
    exec(code, scope)
    shown = re.findall(r"^(grade\(.*\)) +# (.*)$", code, re.MULTILINE)
    assert len(shown) == 4
    for call, result in shown:
        assert eval(call, scope) == ast.literal_eval(result), call


# -- spelling ----------------------------------------------------------------------------------------------------------------

_ATOMS = st.sampled_from(["2", "3", "x", "y", r"\pi", r"\sqrt{2}", "a", "0.5", r"\frac{1}{3}"])
_TERMS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"{p[0]} + {p[1]}"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]})({p[1]})"),
        st.tuples(inner, inner).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
        inner.map(lambda p: f"({p})^2"),
    ),
    max_leaves=5,
)
_WRITTEN = [
    lambda s: s.replace("+", " +  "),
    lambda s: s.replace(r"\frac", r"\dfrac"),
    lambda s: s.replace("(", r"\left(").replace(")", r"\right)"),
    lambda s: f"$ {s} $",
    lambda s: s.replace(" + ", r" \,+\; "),
    lambda s: rf"\displaystyle {s}",
    lambda s: s.replace(r"\sqrt{2}", r"\sqrt2"),
    lambda s: s.replace(r"\frac{1}{3}", r"\frac13"),
    lambda s: s.replace(r"\pi", r"{\pi}"),
]


@settings(max_examples=150, deadline=None)
@given(_TERMS, _TERMS, st.sampled_from(_WRITTEN), st.sampled_from(_WRITTEN))
def test_no_verdict_changes_with_spaces_or_with_the_spelling_of_latex(gold, answer, one, two) -> None:  # type: ignore[no-untyped-def]
    assert value(gold, rf"\boxed{{{two(one(gold))}}}") == 1.0
    assert value(gold, rf"\boxed{{{two(one(answer))}}}") == value(gold, rf"\boxed{{{answer}}}")
    assert value(one(gold), rf"\boxed{{{answer}}}") == value(gold, rf"\boxed{{{answer}}}")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_TERMS, _TERMS), min_size=2, max_size=6))
def test_no_verdict_changes_with_threads_and_load(pairs: list[tuple[str, str]]) -> None:
    rows = [(gold, rf"\boxed{{{answer}}}") for pair in pairs for gold, answer in (pair, (pair[0], f"{pair[0]} + 0"))]
    alone = [grade(*row) for row in rows]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda row: grade(*row), rows * 4)) == alone * 4


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet=r"\{}()[]$^_0123456789xyfracsqrtboxed,=+- ", max_size=120))
def test_no_text_raises_and_none_is_paid_for_two_numbers(text: str) -> None:
    for response in (text, rf"\boxed{{{text}}}"):
        assert sum(value(gold, response) for gold in ("7", "8", "x+1", r"\sqrt{2}", "(1,2)", "1, 2")) <= 1.0


def test_a_plain_number_needs_no_computer_algebra_and_no_process() -> None:
    code = (
        "import sys, json; from agentgym.evaluators.math_answer import grade\n"
        "from agentgym.evaluators.math_workers import worker_pids\n"
        "found = [grade('42', r'\\boxed{42}'), grade('1/2', 'Answer: 0.5'), grade('x+1', r'\\boxed{1+x}')]\n"
        "heavy = [m for m in ('sympy', 'mpmath', 'multiprocessing', 'asyncio') if m in sys.modules]\n"
        "print(json.dumps([found, heavy, worker_pids()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[1.0, 1.0, 1.0], [], []]
