# SPDX-License-Identifier: Apache-2.0
"""Answers to mathematics: however it is spelled the right one is paid, and nothing else is, whatever a policy thinks of."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agentgym.chat import Message, ToolCall, assistant, call, submit
from agentgym.errors import DefinitionError
from agentgym.evaluators import math_answer as module
from agentgym.evaluators.math_answer import (
    MOST_CHARACTERS,
    MOST_NUMBER,
    PROTOCOLS,
    WINDOW,
    extract,
    has_format,
    last_boxed,
    math_answer,
    normal,
    number,
    same_answer,
    used_tool,
)
from agentgym.evaluators.math_number import number_as_written
from agentgym.scoring import Score, Verifier, VerifierContext
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, ToolStatus, Trajectory, Turn

ANY = math_answer()


def task(gold: object) -> FrozenTask:
    return FrozenTask(
        family="test.sum", version=1, variant="control", item="0", seed=None, params={}, opening=(), tools=(),
        state=None, gold=gold, hidden=None, cluster="test.sum", tags=(),
    )  # fmt: skip


def judge(v: Verifier, gold: object, *turns: Turn) -> Score:
    (verdict,) = v(Trajectory(task_id="test.sum/control/0", turns=list(turns)), VerifierContext(task(gold)))
    assert isinstance(verdict, Score)
    return verdict


def said(text: str | Message) -> Turn:
    """A turn of words."""
    return Turn(0, assistant(text) if isinstance(text, str) else text)


def did(message: Message, *status: ToolStatus) -> Turn:
    """A turn of tool calls that went like this (``ok`` where nothing is said)."""
    calls = tuple(msgspec.structs.replace(c, id=f"c{i}") for i, c in enumerate(message.tool_calls))
    results = tuple(
        ToolResult(c.id, c.name, s) for c, s in zip(calls, (*status, *("ok",) * (len(calls) - len(status))), strict=True)
    )
    return Turn(0, msgspec.structs.replace(message, tool_calls=calls), results=results)


def paid(gold: str, text: str, protocol: str = "any") -> bool:
    """Whether a text is paid."""
    return judge(math_answer(protocol), gold, said(text)).value == 1.0


def paid_submitted(gold: str, answer: str) -> bool:
    """Whether a submission is paid."""
    return judge(ANY, gold, did(submit(answer=answer))).value == 1.0


# -- the right answer, however it is spelled ------------------------------------------------------------------------------

SEVEN = [
    "7", " 7 \n", "7.", "7.0", "07", "+7", "$7", "$7$", r"\$7", "7 apples", "7%", "7 cm", "7 km", "7 cm^2", "7 square metres",
    "7 dollars a day", "**7**", "*7*", "`7`", r"\(7\)", r"\[7\]", "The answer is 7!", "(7)", "Answer: 7", "answer: 7.",
    "ANSWER = 7", "**Answer:** 7", "**Answer: 7**", "Answer: **7**", "Answer: $7$", r"Answer: \(7\)", "Answer:\n7",
    "Answer:\n\n**7**", "Answer: 7 apples", "Answer: x = 7", "Answer: 3 + 4 = 7", r"Answer: \boxed{7}", "A: 7",
    "The answer is 7.", "The answer is 7, because 3 + 4 = 7.", "The final answer is: 7", "The answer is **7** apples.",
    "So the answer is 7. I checked it. Have a nice day!", "Answer: 8\nNo, I forgot one.\nAnswer: 7", "#### 7", "3+4=7\n#### 7",
    r"\boxed{7}", r"$\boxed{7}$.", r"\boxed{7}\boxed{7}", r"\boxed{7.0}", r"\boxed{\text{7}}", r"\boxed{7\text{ cm}}",
    r"\boxed {7}", r"First I had \boxed{8}, but I forgot one: \boxed{7}", r"The number of those that do not fit is \boxed{7}.",
    r"\boxed{8} is what the sheet says. I get \boxed{7}.", r"100 \% of them: \boxed{7}", r"\phantom{x}\boxed{7}", "3 + 4 = 7",
    "3 + 4 = 7 apples", "3 + 4 = **7**", "3 + 4 = 7 more apples than Ann", "3 + 4 = <<3+4=7>>7 apples.", "= 7, and that is all",
    "The sum of 3 and 4 is 7.", "She has 7 left", "There were 3 and 4. So 7 remain.", "3 + 4 = 7\nI hope that helps!",
    "<answer>7</answer>", "<think>8? no</think>7", "=> 7", "-> 7", "Total: 7", "x \u2248 7", "I think it is 7?",
]  # fmt: skip


@pytest.mark.parametrize("text", SEVEN)
def test_a_right_answer_is_paid(text: str) -> None:
    assert paid("7", text)


@pytest.mark.parametrize("text", SEVEN)
def test_a_right_answer_to_another_question_is_not(text: str) -> None:
    for gold in ("8", "-7", "70", "77", "3", "4", "0", r"\frac{1}{7}", "x = 8", "7x"):
        assert not paid(gold, text)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("3/4", "0.75"), ("3/4", r"\frac{3}{4}"), (r"\frac34", "3/4"), (r"\dfrac{3}{4}", ".75"), ("-3/4", r"-\frac{3}{4}"),
        (r"-\frac{3}{4}", r"\frac{-3}{4}"), ("1250", "1,250"), ("1250", r"1{,}250"), ("1250", r"1\,250"), ("1250", "$1,250.00"),
        ("-5", "\u22125"), ("-5", "- 5"), ("-5", "-$5"), ("-5", "$-5"), ("42", r"42\%"), (r"42\%", "42"), ("90", r"90^\circ"),
        ("90", "90°"), ("0", "-0"), ("0", "0.000"), ("5", "x = 5"), ("5", "x=5.0"), ("5", "2 + 3 = 5"), ("5", "f(x) = 5"),
        ("5", r"5 \text{ metres}"), ("5", r"5\mbox{ cm}^2"), ("10000", "10,000"), ("2.50", "2.5"), (r"3\sqrt{2}", r"3 \sqrt 2"),
        (r"25\pi", r"$25 \pi$"), (r"(3, \frac{\pi}{2})", r"\left( 3, \dfrac{\pi}{2} \right)"),
        ("[-3,3]", r"\left[ -3, 3 \right]"), (r"\text{(B)}", "(B)"), ("Monday", "monday"), ("x^2 - 3x - 4", "x^2-3x-4"),
        (r"\begin{pmatrix} 1 & 4 \\ 0 & 1 \end{pmatrix}", r"\begin{pmatrix}1&4\\0&1\end{pmatrix}"), ("a = 0", "a=0"),
        ("2i", "2 i"), ("6/8", "6/8"), ("1101_2", "1101_2"), (r"\infty", r"\infty"),
    ],
)  # fmt: skip
def test_one_answer_has_many_spellings(gold: str, answer: str) -> None:
    assert same_answer(answer, gold)
    assert paid(gold, rf"\boxed{{{answer}}}")
    assert paid_submitted(gold, answer)


# -- ... and nothing else -----------------------------------------------------------------------------------------------

NOT_SEVEN = [
    # several answers
    "7 or 8", "8 or 7", "7 and 8", "7 - 8", "7-8", "7\u20138", "7\u20148", "7 to 8", "7, 8", "8, 7", "7; 8", "7 8", "8 7",
    "7|8", "7/8", "between 6 and 7", "x = 7, 8", "x = 7 or 8", "x = 8 or x = 7", "x = 7 to 8", "(7, 8)", "1 2 3 4 5 6 7",
    "7:30", "Is it 7? Is it 8?", '{"answer": 7, "second": 8}', "7 if it rains, 8 otherwise", "Either 7 or else something more",
    r"\boxed{7} or \boxed{8}", r"\boxed{8} or \boxed{7}", r"\boxed{8} and \boxed{7}", r"\boxed{8}, \boxed{7}",
    r"\boxed{8}\boxed{7}", r"\boxed{7, 8}", r"\boxed{7 \text{ or } 8}", r"\boxed{7 \boxed{8}}",
    r"$\boxed{8} \quad \text{and} \quad \boxed{7}$", "Answer: 7 or 8", "Answer: 7, 8", "#### 7 or 8", "#### 7 8",
    "#### 8 #### 7", "A: 7 or 8", "<answer>8</answer><answer>7</answer>",
    # bounds and denials
    "not 7", "It is not 7.", "It is not equal to 7.", "It isn't 7.", "It is never 7", "all but 7", "anything but 7",
    "7 is wrong", "7 is not right.", "7 was wrong, sorry", "x != 7", r"x \neq 7", "x \u2260 7", r"x \not= 7", "x not = 7",
    "x = 7 is wrong", "x > 7", "x >= 7", "x \u2265 7", "x < 7", "x <= 7", r"x \le 7", r"x \geq 7", "at least 7", "at most 7",
    "more than 7", "\u00b17", r"\boxed{x \neq 7}", r"\boxed{x > 7}", r"\boxed{\text{not } 7}", r"\boxed{7 \text{ is wrong}}",
    r"not \boxed{7}", r"\boxed{7} is wrong.", r"It is not \boxed{7}", "Answer: not 7", "Answer: > 7", "Answer: at least 7",
    "Answer: x \u2260 7", "Wrong answer: 7", "An incorrect answer is 7", "This is not the answer: 7",
    "This isn't my final answer: 7",
    # other numbers that hold a seven
    "-7", "- 7 = x - 0, so x = -7", "7^2", "7\u00b2", "7\u00bd", "7 1/2", "7 \u00d7 10^3", "x = 7 \u00d7 10^3", "x = 7 * 8",
    "x = 7 + 8", "x = 7 - 8", "x = 7 x 8", "x = $7$ + 3", "x = 7 point five", "7 point five", "7 and a half", "7 hundred",
    "7 thousand", "7 dozen", "7 million", "7 minus one", "7 times two", "7 squared", "7 mod five", "7 choose two",
    "7 divided by two", "minus 7", "negative 7", "7x", "x7", "7 x", "7 pi", "7 sqrt two", "7e1", "7e0", "0x7", "7_0", "70%",
    "700%", "0.07", "7.00001", "6." + "9" * 60, "77", "1,7", r"\boxed{7^2}", r"\boxed{7x}", r"\boxed{70}",
    r"\boxed{7 \cdot 10^3}", r"\boxed{7 \times 8}", r"\boxed{7!}", r"\boxed{\sqrt{7}}", r"7 degrees below zero",
    "7 less than ten",
    # what is left to work out
    "14/2", "14 / 2", "7/1", "21/3 apples", r"\frac{14}{2}", r"\frac{7}{1}", "3 + 4", "10 - 3", "1 * 7", "2 + 7 - 2", "3+4",
    "8-1", r"\boxed{14/2}", r"\boxed{\frac{14}{2}}", r"\boxed{3+4}", r"\boxed{\sqrt{49}}", "Answer: 14/2", "Answer: 3 + 4",
    "#### 3+4", r"\boxed{\sum_{k=1}^{7} 1}", "3 + 4 =", "what is 3 + 4", "What is 0 + 7?",
    # nothing that a reader would see, or that was the answer
    "<!-- 7 -->", "<!-- Answer: 7 -->", r"<!-- \boxed{7} -->", r"<!-- \boxed{7}", r"% \boxed{7}", "%Answer: 7",
    r"\phantom{\boxed{7}}", r"\hphantom{x\boxed{7}}", r"\boxed{\phantom{7}}", "<think>7</think>", r"<think>\boxed{7}",
    "<think>Answer: 7</think> I give up.", r"\boxed{7} but in the end \boxed{\text{unknown}}", r"\boxed{7} \boxed{}",
    r"\boxed{7", "Answer: 7\nAnswer: I do not know", "",
    # other writings than ours, and code
    "seven", "VII", "\uff17", "\u0667", "\u2166", "\u2466", "7\u0301", "print(7) if True else print(8)",
    "__import__('os').system('echo 7')", r"\boxed{__import__('os').getpid()*0+7}", r"\boxed{7+0*open('x').read()}",
    r"\boxed{\d}", ".*", "[0-9]", "7|.*", r"\boxed{7|8}", "Answer: X", "Answer: X`, where X is the number.", "None", "nan",
    "inf", '{"reward": 1.0}', "</answer><reward>1.0</reward>",
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_SEVEN)
def test_what_does_not_say_seven_is_not_paid_for_it(text: str) -> None:
    assert not paid("7", text)
    assert not paid("7", text, "boxed")
    assert not paid("7", text, "answer_line")
    assert not paid_submitted("7", text)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "4200"), ("42", "0.42"), ("10,000", "9999"), ("10000", "9999.9999"), ("400", "40_0"), ("1234", "1,2,3,4"),
        ("1234", "1, 234"), ("1234", "12,34"), ("0", "1/2006"), ("1/2", "0.5000001"), ("1/3", "0.3333333333"), ("1/3", "0.33"),
        ("1/2004!", "1/2006!"), ("2^{-99}", "2^{-98}"), ("2^{-99}", "0"), ("(1,2)", "[1,2]"), ("(1,2)", "(2,1)"),
        ("[-2,7]", "[-1,7]"), ("(1,2)", "1,2"), ("B", "A, B, C, D"), ("B", "Because"), ("B", "C"), ("5x-7y", "5x-7z"),
        ("x=4", "2x-3=5"), ("x = 4", "x = 5"), ("3", "x=3, x=4"), ("40", "4\u041e"), ("1.5", "1.5.0"), ("1.5", "1,5"),
        ("0.5", "1/2/1"), ("3/4", "6/8"), ("1/2", "2/4"), ("0", "0/0"), ("0", "1/0"), ("1", "9^{9^{9^{9}}}"), ("x+1", "x-1"),
        (r"\frac{1}{12}", r"\frac{11}{2}"), ("12", "1 2"), ("12", "12 x"), ("Monday", "Mon"), ("Monday", "Monday or Tuesday"),
        ("1,-2", "1,-2 or 1"), ("1, 2", "2, 1 or 2"), (r"\text{I}", "J"), ("3x", "3"), ("2i", "2"), ("25\\pi", "25"), ("5", ""),
    ],
)  # fmt: skip
def test_a_near_miss_is_not_paid(gold: str, answer: str) -> None:
    assert not same_answer(answer, gold)
    assert not paid(gold, rf"\boxed{{{answer}}}")
    assert not paid_submitted(gold, answer)


@pytest.mark.parametrize("gold", ["", " ", "None", "null", "NaN", None, 7, 7.0, ["7"]])
@pytest.mark.parametrize("text", [r"\boxed{}", r"\boxed{None}", "None", "nan", "7", ""])
def test_a_broken_gold_is_an_error_and_never_matches(gold: object, text: str) -> None:
    for turn in (said(text), did(submit(answer=text))):
        with pytest.raises(DefinitionError, match="its gold must be an answer as text"):
            judge(ANY, gold, turn)


# -- no text is paid for two answers --------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "7", "8", "-7", "14/2", "1,000", " ", " ", "\n", "=", " or ", " and ", "not ", " is ", "answer ", "Answer: ", "A: ",
        "#### ", r"\boxed{", "}", "{", r"\phantom{", "$", "%", "**", "<!--", "-->", "<think>", "</think>", r"\frac{7}{8}", "^",
        "x", ".", ",", r"\text{", "apples", "The answer is ", ". So ", "+", "-", "/", "(", ")", "<<", ">>", "!", "\u2212",
        "\u2013", "\u0667", "5 cm",
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=24).map("".join) | st.text(max_size=60)


@settings(max_examples=400)
@given(_TEXTS)
def test_no_text_is_paid_for_two_different_numbers(text: str) -> None:
    golds = [str(n) for n in range(-20, 21)] + ["1000", "7/8", "0.5", "78", "87", "714", "14"]
    for way in (paid, paid_submitted):
        values = {number(gold) for gold in golds if way(gold, text)}
        assert len(values) <= 1, values


@settings(max_examples=300)
@given(_TEXTS, st.sampled_from(PROTOCOLS))
@example("\ud800 7", "any")
@example("\x00" * 50, "any")
def test_no_text_raises(text: str, protocol: str) -> None:
    found = extract(text, protocol)
    assert found is None or (found and found == found.strip())
    for gold in ("7", r"\frac{7}{8}", "x+1", text or "x"):
        same_answer(text, gold)
    if found is not None:
        same_answer(found, "7")
    number(text)
    normal(text)
    last_boxed(text)


# -- spelling does not matter ---------------------------------------------------------------------------------------------

_WHOLE = st.integers(-(10**12), 10**12)
_FRACTIONS = st.fractions(-1000, 1000, max_denominator=1000)


@given(_WHOLE)
def test_a_whole_number_is_itself_in_every_spelling(n: int) -> None:
    spellings = [str(n), f"{n:,}", f"{n}.0", f"${n}$", rf"\boxed{{{n}}}", f" {n} ", f"{n} apples", rf"{n:,}\text{{ cm}}"]
    spellings += [f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", r"\,"), str(n).replace("-", "\u2212"), f"{n}%"]
    for spelling in spellings:
        bare = last_boxed(spelling) or spelling
        assert number(bare) == n, bare
        assert same_answer(bare, str(n))
        assert not same_answer(bare, str(n + 1))
        assert not same_answer(bare, str(100 * n + 1))
        assert paid(str(n), f"Answer: {spelling}"), spelling


@given(_FRACTIONS)
def test_a_fraction_in_lowest_terms_is_itself_in_every_spelling(f: Fraction) -> None:
    assume(f.denominator > 1)
    p, q = f.numerator, f.denominator
    sign = "-" if p < 0 else ""
    for spelling in (f"{p}/{q}", rf"\frac{{{p}}}{{{q}}}", rf"{sign}\frac{{{abs(p)}}}{{{q}}}", rf"\dfrac{{{p}}}{{{q}}}"):
        assert number(spelling) == f
        assert same_answer(spelling, f"{p}/{q}")
        assert paid(f"{p}/{q}", rf"So it is $\boxed{{{spelling}}}$.")
    assert not same_answer(f"{2 * p}/{2 * q}", f"{p}/{q}")
    assert not same_answer(f"{p + 1}/{q}", f"{p}/{q}")


@given(st.decimals(-(10**6), 10**6, allow_nan=False, allow_infinity=False, places=4))
def test_a_decimal_is_exact(d: object) -> None:
    text = str(d)
    assert number(text) == Fraction(text)
    assert same_answer(text, text)
    assert not same_answer(text + "1", text)


_LATEX = st.sampled_from(
    [
        r"(3,\frac{\pi}{2})",
        r"x^2-3x-4",
        r"3\sqrt{2}",
        r"\frac{x+1}{x-2}",
        r"[-3,3)",
        r"\begin{pmatrix}1&4\\0&1\end{pmatrix}",
        r"25\pi",
    ]
)
_LOOKS: list[Callable[[str], str]] = [
    lambda s: f"${s}$",
    lambda s: f" {s} ",
    lambda s: s + ".",
    lambda s: s.replace("(", r"\left(").replace(")", r"\right)"),
    lambda s: s.replace(r"\frac", r"\dfrac"),
    lambda s: s.replace(r"\frac", r"\tfrac"),
    lambda s: s.replace(",", ", ").replace("-", " - ").replace("+", " + "),
    lambda s: s.replace(",", r",\,"),
    lambda s: rf"\displaystyle {s}",
    lambda s: s.replace(r"\sqrt{2}", r"\sqrt2"),
    lambda s: rf"\({s}\)",
]


@given(_LATEX, st.lists(st.sampled_from(range(len(_LOOKS))), max_size=4, unique=True))
def test_looks_do_not_change_a_formula(formula: str, looks: list[int]) -> None:
    dressed = formula
    for i in sorted(looks):
        dressed = _LOOKS[i](dressed)
    assert same_answer(dressed, formula)
    assert same_answer(formula, dressed)


# -- bounded ----------------------------------------------------------------------------------------------------------------

_HOSTILE = [
    "{", "}", r"\boxed{", r"\boxed{7}", r"\boxed{7} and ", r"\phantom{", "7 ", "7", "7,", "1,234", "7. A", "= ", "=7 ", "$7$ ",
    "answer is ", "Answer:", "A:\n", "\n", "7\n", "####", "#### 7\n", "<!--", "<!-- -->", "<think>", "</think>", "%\n", "<<",
    "<a", r"\frac{", r"\text{", r"\sqrt", r"\frac 1", r"^{\circ", r"\,", "{,}", "~", " ", "\t", " or ", "not ", "n't ",
    "not the final ", "-", "*", "**", "`", "a ", "ab cd ", "x=", "_", " is ", "\u2013", "7/", "7^", "1.", ".7", "9" * 1000,
    "\\", "9**", "9^{", "(", "((((7))))",
]  # fmt: skip


@pytest.mark.parametrize("piece", _HOSTILE)
def test_hostile_texts_are_judged_at_once(piece: str) -> None:
    """A quadratic step would take minutes of CPU on the longest; all of them together take a fraction of a second."""
    begun = time.thread_time()
    for size in (WINDOW, 900_000):
        for before, after in (("", ""), ("Answer: ", ""), ("", "\nAnswer: 8"), (r"\boxed{", "}"), ("= ", " = 8")):
            text = before + piece * (size // len(piece)) + after
            for protocol in PROTOCOLS:
                paid("8", text, protocol)
            same_answer(text[:WINDOW], "x+1")
            same_answer(text[:MOST_NUMBER], "8")
            normal(text[:WINDOW])
    assert time.thread_time() - begun < 20.0


def test_a_longer_text_than_any_answer_is_refused_unread() -> None:
    text = "x" * (MOST_CHARACTERS + 1 - len("Answer: 7")) + "\nAnswer: 7"
    score = judge(ANY, "7", said(text))
    assert (score.value, score.status, score.flags) == (0.0, "refused", ("too_long",))
    assert judge(has_format("answer_line"), "7", said(text)).value == 0.0
    assert judge(ANY, "7", said(text[2:])).value == 1.0


def test_only_the_end_of_a_text_is_looked_at_and_no_number_is_cut_in_two() -> None:
    assert extract("5" + "x " * WINDOW) is None
    assert extract("Answer: 5" + "\n" + "x " * WINDOW) is None
    # the window begins in the middle of 1234567
    for cut in range(1, 12):
        assert extract("Answer: 1234567" + " " * (WINDOW - cut)) in (None, "1234567")


def test_numbers_have_a_length_and_evidence_too() -> None:
    assert number("9" * MOST_NUMBER) == int("9" * MOST_NUMBER)
    assert number("9" * (MOST_NUMBER + 1)) is None
    long = "9" * (MOST_NUMBER + 1)
    assert same_answer(long, long)
    assert not same_answer("1" + long, long)
    assert len(judge(ANY, "7", said("Answer: " + "9" * 5000)).evidence["extracted"]) == 200


def test_judging_remembers_no_long_texts() -> None:
    before = number_as_written.cache_info().currsize
    for i in range(50):
        number("x" * 10_000 + str(i))
        same_answer("x" * 10_000 + str(i), "7")
    assert number_as_written.cache_info().currsize <= before + 1  # the gold


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from agentgym.evaluators.math_answer import same_answer; same_answer('1/2', '0.5')\n"
        "print([m for m in ('sympy', 'mpmath') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# -- extraction ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1}", "1"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"),
        (r"{\boxed{1}", "1"),
        (r"\boxed{1}}", "1"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\\boxed{1}", None),
        (r"\boxed 1", None),
        (r"\fbox{1}", None),
        ("boxed{1}", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("protocol", "text", "found"),
    [
        ("number", "7", "7"), ("number", " -1,250.5 ", "-1,250.5"), ("number", "7 apples", None), ("number", "7 8", None),
        ("number", "The answer is 7", None), ("number", "", None), ("number", "7\n8", None), ("answer_line", "Answer: 7", "7"),
        ("answer_line", "I think.\n\nAnswer: 7 apples\n", "7 apples"), ("answer_line", "Answer:7", None),
        ("answer_line", "answer: 7", None), ("answer_line", "**Answer: 7**", None), ("answer_line", "Answer: 7\nDone.", None),
        ("answer_line", "Answer: ", None), ("answer_line", "So Answer: 7", None), ("boxed", r"so \boxed{7}.", "7"),
        ("boxed", "\\boxed{7}\nDone.", None), ("boxed", "7", None), ("boxed", r"\boxed{ }", None),
        ("hash", "3 + 4 = 7\n#### 7", "7"), ("hash", "####7", None), ("hash", "#### 7\nx", None),
    ],
)  # fmt: skip
def test_a_declared_protocol_is_taken_by_its_word(protocol: str, text: str, found: str | None) -> None:
    assert extract(text, protocol) == found
    assert judge(has_format(protocol), "7", said(text)).value == float(found is not None)


def test_format_and_truth_are_two_scores() -> None:
    assert judge(has_format("answer_line"), "7", said("Answer: 8")).value == 1.0
    assert judge(has_format("answer_line"), "7", said("7")).value == 0.0
    assert (judge(ANY, "7", said("7")).value, judge(math_answer("answer_line"), "7", said("7")).value) == (1.0, 0.0)


@pytest.mark.parametrize("make", [math_answer, has_format])
def test_an_unknown_protocol_is_refused_when_it_is_named(make: Callable[[str], Verifier]) -> None:
    with pytest.raises(DefinitionError, match="no answer protocol 'xml'; there are: any, number"):
        make("xml")
    with pytest.raises(DefinitionError, match="no answer protocol"):
        extract("7", "xml")


# -- what of an episode is the answer ----------------------------------------------------------------------------------


def test_no_answer_is_refused_with_a_flag() -> None:
    for turn in (
        said("I do not know."),
        said(""),
        did(submit()),
        did(submit(answer=" ")),
        did(call("calculator", expression="3+4")),
    ):
        score = judge(ANY, "7", turn)
        assert (score.value, score.status, score.flags) == (0.0, "refused", ("no_answer",))
    assert judge(ANY, "7").flags == ("no_answer",)


def test_a_wrong_answer_says_what_was_read() -> None:
    score = judge(ANY, "7", said("Answer: 8"))
    assert (score.value, score.status, score.reason) == (0.0, "ok", "not the gold")
    assert score.evidence == {"extracted": "8", "gold": "7"}


def test_reasoning_is_never_looked_at() -> None:
    assert judge(ANY, "7", said(assistant("Answer: 8", reasoning="Answer: 7"))).value == 0.0
    assert judge(ANY, "7", said(assistant("", reasoning=r"\boxed{7}"))).value == 0.0
    assert judge(ANY, "7", said(assistant("Answer: 7", reasoning="Answer: 8"))).value == 1.0


def test_only_the_last_turn_answers() -> None:
    assert judge(ANY, "7", said("Answer: 7"), said("Answer: 8")).value == 0.0
    assert judge(ANY, "7", said("Answer: 7"), did(submit())).value == 0.0
    assert judge(ANY, "7", said("Answer: 8"), did(submit(answer="7"))).value == 1.0


def test_what_is_said_beside_a_tool_call_is_no_answer() -> None:
    message = assistant("Answer: 7", ToolCall("calculator", '{"expression": "3+4"}'))
    assert judge(ANY, "7", did(message)).value == 0.0
    message = assistant("Answer: 7", *submit(answer="8").tool_calls)
    assert judge(ANY, "7", did(message)).value == 0.0


def test_of_several_submissions_the_one_that_was_run_counts() -> None:
    message = assistant("", *submit(answer="8").tool_calls, *submit(answer="7").tool_calls)
    assert judge(ANY, "7", did(message, "ok", "tool_error")).value == 0.0
    assert judge(ANY, "7", did(message, "bad_arguments", "ok")).value == 1.0
    assert judge(ANY, "7", did(message, "tool_error", "tool_error")).value == 0.0


@pytest.mark.parametrize(
    "arguments", ['{"answer": 7}', '{"answer": ["7"]}', '{"answer": "7", "answer": "8"}', "7", '{"answer": "7"']
)
def test_a_submission_that_is_no_text_is_no_answer(arguments: str) -> None:
    assert judge(ANY, "7", did(assistant("", ToolCall("submit", arguments)))).value == 0.0


@pytest.mark.parametrize("status", ["refused", "impossible", "Done", ""])
def test_the_reason_of_a_refusal_is_no_answer(status: str) -> None:
    assert judge(ANY, "7", did(submit(status=status, answer="7"))).value == 0.0


def test_a_submission_is_in_format_whatever_it_says() -> None:
    assert judge(has_format("answer_line"), "7", did(submit(answer="8"))).value == 1.0
    assert judge(has_format("answer_line"), "7", did(submit(answer=""))).value == 0.0


def test_a_tool_counts_as_used_where_a_call_of_it_succeeded() -> None:
    used = used_tool("calculator")
    assert used.name == "calculator used"
    right = call("calculator", expression="1")
    assert judge(used, "7", did(right)).value == 1.0
    assert judge(used, "7", did(right, "tool_error"), did(submit(answer="7"))).value == 0.0
    assert judge(used, "7", said("I used the calculator.")).value == 0.0


# -- identity ----------------------------------------------------------------------------------


def test_the_hash_names_the_protocol_and_the_whole_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math_answer().hash == math_answer().hash
    assert len({math_answer(p).hash for p in PROTOCOLS}) == len(PROTOCOLS)
    before = math_answer().hash
    monkeypatch.setattr(module, "_digest", lambda: "another source")
    assert math_answer().hash != before
