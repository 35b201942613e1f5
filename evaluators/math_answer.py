# SPDX-License-Identifier: Apache-2.0
r"""Whether a mathematical answer is right: what was answered, and whether it is the gold. Exact, bounded, no ``eval``.

What was answered (`extract`) and whether it is right (`same_answer`) are separate questions, and whether the declared
format was kept (`has_format`) is a third one with a score of its own. Numbers are compared as exact fractions: no
tolerance, no floats, no percent leniency. Other answers are compared as normalized strings: ``x+1`` is not ``1+x`` here.
Symbolic equality needs a computer algebra system in a killable process and is not part of this module.

In doubt an answer is refused: a policy under training finds whatever is paid without being right, and nobody notices. So
a hedge (``7 or 8``), a bound (``at least 7``), a denial (``7 is wrong``) and an expression that is not worked out (``14/2``)
are no answers, and no text is ever paid for two different golds.

Everything is linear in the text, and at most `WINDOW` characters of it are looked at.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import inspect
import re
import sys
from fractions import Fraction
from typing import NamedTuple

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError
from agentgym.scoring import Score, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory, Turn

WINDOW = 20_000
"""Characters at the end of a text that are looked at."""

MOST_CHARACTERS = 1_000_000
"""A longer text is refused unread: no answer needs it."""

MOST_NUMBER = 400
"""A number written with more characters is compared as text."""

PROTOCOLS = ("any", "number", "answer_line", "boxed", "hash")
r"""How an answer is declared to be given: ``number``: nothing but the number; ``answer_line``: the last line is
``Answer: X``; ``boxed``: the last line holds ``\boxed{X}``; ``hash``: the last line is ``#### X``; ``any``: the best
guess at what was meant, for judging correctness apart from format."""

_COUNT = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\\w{3,5}teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)
# Words that make of a number beside them another number, or of a statement no statement.
_CHANGING = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|lakhs?|crores?|dozens?|half|halves|quarters?|thirds?|"
    r"minus|negative|plus|times|over|divided|multiplied|modulo|mod|choose|power|root|squared|cubed|factorial|sqrt|pi|below|"
    r"not|never|cannot|wrong|incorrect|or|either|neither|nor|except|all but|anything but|between|than|least|most|if|unless|"
    rf"otherwise|maybe|perhaps|possibly|point (?:zero|{_COUNT}))\b|n't\b",
    re.IGNORECASE,
)
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?+"
# A number in running text. Possessive quantifiers: a long run of digits is walked over once.
_NUMBER = re.compile(
    r"(?<![\w.,/^\\{\u2013])(?:[-+]?[$€£]?[-+]?(?:" + _DECIMAL + r"|\.[0-9]++)(?:/[0-9]++)?+(?![\w/^}]|[.,][0-9])"
    r"|[-+]?\\[dt]?frac\{[-+]?[0-9]++\}\{[0-9]++\}(?!\^))"
    r"(?!\s?(?:hundred|thousand|million|billion|trillion|dozen)s?\b)"
)
_RESULT = re.compile(rf"(?<![!/<>:\\])=\s{{0,3}}\$?({_NUMBER.pattern})")
# What follows a result and makes it another number, or one of several.
_ALTERING = re.compile(
    r"(?:\*\*|[\s$)\]]){0,4}(?:[^\sA-Za-z.,;:!?%*$)\]]|\*(?!\s?$|[.,;!])|[,;:]\s{0,3}[-+$]?[0-9]|[ix-z]\b|(?:to|and) \$?[0-9]"
    r"|(?:is|was) (?:not|wrong|incorrect|false)\b|and a \w|[,;]?\s?"
    r"(?:or|point|plus|minus|times|over|divided|multiplied|mod|modulo|choose|squared|cubed|factorial|half)\b(?!\s?[.,;!]|\s?$))",
    re.IGNORECASE,
)
_ONE_OF_SEVERAL = re.compile(r"\b(?:or|and)\s+\S{1,4}\s*$", re.IGNORECASE)
_PLAIN = re.compile(r"([-+]?)(?:([0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.([0-9]*+))?+|\.([0-9]++))(?:/([0-9]++))?+")
_SIGN = re.compile(r"^([-+])\s{1,4}")
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?[0-9]++)\}\{([0-9]++)\}")
# A unit: up to four words behind the number. Two letters are more often two variables, so these are listed.
_TWO_LETTERS = "mm|cm|dm|km|ft|in|yd|mi|mg|kg|lb|oz|ml|cl|dl|gb|mb|kb|hz|kw|ms|hr|pm|am|sq|cu"
_UNIT = re.compile(
    rf"(\S+)\s+((?:(?i:{_TWO_LETTERS})|[A-Za-z]{{3,20}})\.?(?:\s[A-Za-z]{{1,20}}\.?){{0,3}})(?:\s?\^\{{?[23]\}}?)?"
)
_COUNTED = re.compile(rf"\b(?:zero|{_COUNT})\b", re.IGNORECASE)
_STATEMENT = re.compile(r"\banswer\b[\s*_]{0,4}(?:\bis\b|:|=)|^[ \t*_]{0,4}A:", re.IGNORECASE | re.MULTILINE)
_HASHES = re.compile(r"^[ \t]{0,4}####(.*)$", re.MULTILINE)
_TEX_COMMENT = re.compile(r"^[ \t]*+%.*$", re.MULTILINE)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>")
_BRACES = re.compile(r"\\(?:boxed|[hv]?phantom)\s{0,3}\{|\\.|[{}]", re.DOTALL)
# Between two boxes that are one answer together.
_TOGETHER = re.compile(
    r"(?:[\s$,;&]|\\[,;()\[\]]|\\q?quad\b|\b(?:and|or)\b|\\text\s?\{\s{0,3}(?:and|or|,)\s{0,3}\}){0,12}", re.IGNORECASE
)
_PROSE = re.compile(r"[A-Za-z\s,.;:'\"\u2019()*`%$€£!?-]*")
_VARIABLE = re.compile(r"(?<!['\u2019])\b[b-hj-zB-HJ-Z]\b|[0-9]\s?i\b")
# Words right before an answer, or right behind it, that take it back.
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|except|instead of|all but|anything but)|n't|\\not)"
    r"(?:\s(?:be|an?|the|my|our|your|its|equal|to|final|correct|right|real|really)){0,4}\W*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(r"\W{0,4}(?:is|was|are|were)(?:n't|\s(?:not|never|wrong|incorrect|false))\b", re.IGNORECASE)
# Behind one of these stands what a line comes down to.
_COMES_TO = re.compile(r"[-=]>|(?<![!/<>\\])=|[\u2248\u2192:]\s|\b(?:is|are|equals?|gives|makes)\b|[.!?]\s", re.IGNORECASE)
_NOTE = re.compile(r"<<[^<>]{0,400}>>")  # of the calculator of GSM8K's own solutions: <<48/2=24>>24
_SENTENCE = re.compile(r"(?<=[0-9$%)])\.\s+(?=[A-Z])")
_EQUATION = re.compile(r"(?:[\w\s+*/().,\u00d7\u00f7$-]*[\w)$]\s*)?=(?=[^=]*$)")

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s{0,3}\{([^{}]*)\}")
_REPLACED = (
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s+\{"), r"\\frac{"),
    (re.compile(r"\\!|\\(?:displaystyle|limits)(?![A-Za-z])"), ""),
    (re.compile(r"(?<=[0-9])(?:\\,|\{,\}\\?,?)(?=[0-9]{3})"), ","),
    (re.compile(r"(?<!\\)\\[,;: ]|~"), " "),
    (re.compile(r"\^\{?\s?\\circ\s?\}?|°"), ""),
    (re.compile(r"\\frac\s?([0-9])\s?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s?([0-9])\s?\{"), r"\\frac{\1}{"),
    (re.compile(r"\\frac\{([^{}]*)\}\s?([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s?([0-9A-Za-z])"), r"\\sqrt{\1}"),
)
_SPACES = re.compile(r"\s+")
_MARKS = re.compile(r"\*\*|`|\\[()\[\]]|\\(?=\$)")
_CUT_WORD = re.compile(r"^\S*")
_DIGIT = re.compile(r"[0-9]")


# -- what was answered ------------------------------------------------------------------------------------------------


def last_boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` whose braces are balanced; of nested ones, the outermost.

    >>> last_boxed(r"first \boxed{1}, then \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


class _Box(NamedTuple):
    start: int
    """Where ``\\boxed`` begins."""
    end: int
    """Behind its closing brace."""
    content: str


def _boxes(text: str) -> list[_Box]:
    r"""Every box whose braces are balanced, in order; not those inside of another, nor what ``\phantom`` hides."""
    if "\\boxed" not in text:
        return []
    found: list[tuple[int, int, int]] = []
    opened: list[tuple[int, int, str]] = []
    hidden = 0
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "}":
            if opened:
                start, inner, kind = opened.pop()
                if kind == "phantom":
                    hidden -= 1
                elif kind == "boxed" and not hidden:
                    while found and found[-1][0] > start:
                        found.pop()
                    found.append((start, inner, match.start()))
        elif len(token) > 2 or token == "{":
            kind = "" if token == "{" else "boxed" if "boxed" in token else "phantom"
            hidden += kind == "phantom"
            opened.append((match.start(), match.end(), kind))
    return [_Box(start, end + 1, text[inner:end]) for start, inner, end in found]


def extract(text: str, protocol: str = "any") -> str | None:
    r"""The one answer that a text gives, or None.

    With ``"any"``: the last ``\boxed{}`` (several that follow each other directly are one answer, ``1, 2``); else
    ``#### X``; else the last statement ``answer is X``, ``Answer: X`` or ``A: X``; else what the last line with a number in
    it comes down to (``3 + 4 = 7 eggs``). What is denied, or one number of several, is no answer. Any other protocol (see
    `PROTOCOLS`) is taken by its word: None where it was not kept exactly.

    Args:
        text: an answer's words, without reasoning; only its last `WINDOW` characters are looked at.
        protocol: one of `PROTOCOLS`.

    >>> extract("3 + 4 = 7, so the answer is 7 apples.")
    '7'
    """
    text = _window(text)
    if protocol != "any":
        return _extract_exactly(text, protocol)
    stated = _stated(text)
    if stated is not None:
        return stated or None
    for line in reversed(text.split("\n")):
        if _DIGIT.search(line):
            return _concluded(line)
    return None


def _concluded(line: str) -> str | None:
    """The number that a line without a declared answer comes down to.

    The one right behind its last ``=``, else the only one behind its last ``is`` or the like, else the only one.
    """
    line = _plain(_TAG.sub(" ", _NOTE.sub("", line)))
    if number(line.strip()) is not None:
        return line.strip()
    result = _last(_RESULT, line)
    if result is not None and "=" not in line[result.end() :]:
        words = _SENTENCE.split(line[result.end() :], maxsplit=1)[0]
        if _ALTERING.match(words) or _ONE_OF_SEVERAL.search(line[: result.start()][-12:]):
            return None
        return None if _denied(line, result.start(), result.end()) else result[1]
    last = _last(_NUMBER, line)
    if last is None:
        return None
    begin = 0
    for match in _COMES_TO.finditer(line, 0, last.start()):
        begin = match.end()
    if _denied(line, begin, len(line)):
        return None
    return _only_number(_SENTENCE.split(line[begin:], maxsplit=1)[0])


def _only_number(words: str) -> str | None:
    """The number, where a text is one number among plain words that leave it as it is."""
    numbers = list(_NUMBER.finditer(words))
    # "- 5" may be a list item or a negative number
    if not numbers or len({n[0] for n in numbers}) > 1 or words[: numbers[0].start()].rstrip().endswith("-"):
        return None
    rest = _NUMBER.sub(" ", words)
    plain = _PROSE.fullmatch(rest) and not _CHANGING.search(rest) and not _VARIABLE.search(words)
    return numbers[0][0] if plain else None


def _plain(line: str) -> str:
    """A line without the marks of bold type, code and formulas around its words and numbers."""
    return _MARKS.sub("", line)


def _denied(text: str, start: int, end: int) -> bool:
    """Whether the words around these places, on the same line, take back what stands between them."""
    before = text[max(start - 60, 0) : start].rpartition("\n")[2]
    return _DENIED.search(before) is not None or _DENIED_AFTER.match(text, end) is not None


def _window(text: str) -> str:
    """The end of a text, as far as it is looked at.

    Left out is what a reader does not see: thoughts under think tags, comments of HTML and lines of TeX comment.
    """
    if "<think>" in text or "</think>" in text:
        text = text.rpartition("</think>")[2].partition("<think>")[0]
    if "<!--" in text:
        text = _without_comments(text)
    if "%" in text:
        text = _TEX_COMMENT.sub("", text)
    text = text[-WINDOW - 1 :].replace("\u2212", "-")
    if len(text) <= WINDOW:
        return text
    # what the cut went through would be read as another number
    return _CUT_WORD.sub("", text)


def _without_comments(text: str) -> str:
    kept: list[str] = []
    at = 0
    while (start := text.find("<!--", at)) >= 0:
        kept.append(text[at:start])
        end = text.find("-->", start + 4)
        if end < 0:
            return "".join(kept)
        at = end + 3
    return "".join(kept) + text[at:]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    found = collections.deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1].strip()


def _stated(text: str) -> str | None:
    """The answer of an explicit statement; empty where the statement is; None where there is no statement."""
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    if "####" in text:
        hashes = _HASHES.findall(text)
        if hashes:
            return _said(hashes[-1])
    last = _last(_STATEMENT, text)
    if last is None:
        return None
    if _denied(text, last.start(), last.end()):  # "not the answer: 7"
        return ""
    lines = (line.strip(" \t*_`:") for line in text[last.end() :].split("\n"))
    return _said(next((line for line in lines if line), ""))


def _boxed(text: str) -> str | None:
    """What the last box says, with those that follow each other up to it; empty where nothing is said; None without one."""
    boxes = _boxes(text)
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _TOGETHER.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    if _denied(text, boxes[first].start, boxes[-1].end):
        return ""
    contents = dict.fromkeys(box.content.strip() for box in boxes[first:])
    return ", ".join(contents) if all(contents) else ""


def _said(line: str) -> str:
    """The number where a line is one number among plain words, else the line."""
    line = _SENTENCE.split(line.strip(" \t\r*_`:"), maxsplit=1)[0]
    found = _only_number(_plain(line))
    if found is not None:
        return found
    return line[:-1].rstrip(" *_`") if line.endswith(".") else line


def _extract_exactly(text: str, protocol: str) -> str | None:
    text = text.strip()
    line = _last_line(text)
    found: str | None = None
    if protocol == "number":
        found = text if _NUMBER.fullmatch(text) else None
    elif protocol == "answer_line":
        found = line.removeprefix("Answer: ") if line.startswith("Answer: ") else None
    elif protocol == "boxed":
        found = _boxed(line)
    elif protocol == "hash":
        found = line.removeprefix("#### ") if line.startswith("#### ") else None
    else:
        raise DefinitionError(f"there is no answer protocol {protocol!r}; there are: {', '.join(PROTOCOLS)}")
    return (found or "").strip() or None


# -- whether it is right ----------------------------------------------------------------------------------------------


def number(text: str) -> Fraction | None:
    r"""The exact value of a text that is one number, else None.

    Understood: integers, decimals, ``3/4``, ``\frac{3}{4}``, thousands separators where they belong, currency signs,
    a percent sign (42% is 42), degrees, and up to four words of unit behind it. Not understood, so no number:
    exponents, mixed numbers, ``5 million``, more than `MOST_NUMBER` characters.

    >>> number("$1,234.50"), number("1,2,3"), number(r"\dfrac{3}{4}")
    (Fraction(2469, 2), None, Fraction(3, 4))
    """
    return _number(text)[0] if 0 < len(text) <= MOST_NUMBER else None


@functools.lru_cache(maxsize=4096)
def _number(text: str) -> tuple[Fraction | None, bool]:
    """The value, and whether it is worked out: ``14/2`` is a number, but one that is left to be divided."""
    if not text.isdecimal() or not text.isascii():
        text = _WRAPPED.sub(r" \1 ", _latex(text)).replace("\\$", "").replace("\\%", "%")
        text = text.strip().strip("$€£ ").rstrip(".% ")
        if text[:1] in "-+" and text[1:2] in ("$", "€", "£"):
            text = text[0] + text[2:]
        text = _SIGN.sub(r"\1", text)
        unit = _UNIT.fullmatch(text)
        if unit is not None and not _CHANGING.search(unit[2]) and not _COUNTED.search(unit[2]):
            text = unit[1].rstrip("%")
    match = _PLAIN.fullmatch(text)
    if match is not None:
        sign, whole, decimals, bare, below = match.groups()
        digits = (whole or "").replace(",", "") + (decimals or bare or "")
        scale = 10 ** len(decimals or bare or "") * int(below or 1)
        divided = below is not None
    else:
        match = _FRACTION.fullmatch(text)
        if match is None:
            return None, False
        sign, digits, under = match.groups()
        scale = int(under)
        divided = True
    if not scale:
        return None, False
    value = Fraction(-int(digits) if sign == "-" else int(digits), scale)
    return value, not divided or value.denominator == scale > 1


def _latex(text: str) -> str:
    """``text`` with what only concerns its looks taken out."""
    text = text.replace("\u2212", "-").replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    if "\\" in text or "{" in text or "°" in text or "~" in text:
        for pattern, by in _REPLACED:
            text = pattern.sub(by, text)
    return text


def normal(text: str) -> str:
    r"""A text as it is compared where it is no number: without spaces, dollar signs, a final period and LaTeX's looks.

    >>> normal(r"$\left( 3, \dfrac{\pi}{2} \right)$.")
    '(3,\\frac{\\pi}{2})'
    """
    text = _WRAPPED.sub(r"\1", _latex(text)).replace("\\$", "").replace("$", "").replace("\\%", "%")
    return _SPACES.sub("", text).rstrip(".").rstrip("%")


def is_missing(gold: str) -> bool:
    """Whether a gold is what a broken data row leaves instead of one (``""``, ``None``, ``nan``): it must match nothing."""
    return gold.strip().lower() in ("", "none", "null", "nan")


def same_answer(answer: str, gold: str) -> bool:
    r"""Whether an extracted answer is the gold: as exact numbers where the gold is one, else as normalized strings.

    ``x = 5`` and ``2 + 3 = 5`` answer 5; an inequality does not, nor does a fraction that is not in its lowest terms.
    Text over `WINDOW` characters is never the gold.

    >>> same_answer("0.75", "3/4"), same_answer("4200", "42"), same_answer("40_0", "400")
    (True, False, False)
    """
    if len(answer) > WINDOW:
        return False
    if "=" in answer and "=" not in gold:
        match = _EQUATION.match(answer) if answer.count("=") == 1 else None
        if match is not None and not _DENIED.search(match[0]):
            answer = answer[match.end() :]
    value = number(gold)
    if value is not None:
        answer = answer.strip()
        if not 0 < len(answer) <= MOST_NUMBER:
            return False
        given, done = _number(answer)
        # a policy that answers "14 / 2" with "14/2" has only copied the question
        return given == value and (done or normal(answer) == normal(gold))
    wanted, said = normal(gold), normal(answer)
    return bool(wanted) and (said == wanted or (wanted.isalpha() and said.casefold() == wanted.casefold()))


# -- verifiers --------------------------------------------------------------------------------------------------------


@functools.cache
def _digest() -> str:
    return hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:12]


_NO_ANSWER = ("no_answer",)


class _Judge:
    """What the verifiers close over. Its repr names this whole file, so `Verifier.hash` changes with any part of it."""

    def __init__(self, protocol: str) -> None:
        if protocol not in PROTOCOLS:
            raise DefinitionError(f"there is no answer protocol {protocol!r}; there are: {', '.join(PROTOCOLS)}")
        self.protocol = protocol

    def __repr__(self) -> str:
        return f"{self.protocol}:{_digest()}"

    def answer(self, trajectory: Trajectory, context: VerifierContext) -> Score:
        gold = context.task.gold
        if not isinstance(gold, str) or is_missing(gold):
            raise DefinitionError(f"{context.task.id}: its gold must be an answer as text, not {gold!r}")
        text, submitted = _answered(trajectory)
        if text is not None and len(text) > MOST_CHARACTERS:
            reason = f"the answer is longer than {MOST_CHARACTERS:,} characters"
            return Score("answer", value=0.0, status="refused", reason=reason, flags=("too_long",))
        said = None
        if text is not None and submitted:
            text = _window(text)
            stated = _stated(text)
            said = _said(text) if stated is None else stated
        elif text is not None:
            said = extract(text, self.protocol)
        if not said:
            evidence = {"extracted": None, "gold": gold}
            return Score("answer", value=0.0, status="refused", reason="no answer found", flags=_NO_ANSWER, evidence=evidence)
        right = same_answer(said, gold)
        evidence = {"extracted": said[:200], "gold": gold}
        return Score("answer", value=float(right), reason="" if right else "not the gold", evidence=evidence)

    def format(self, trajectory: Trajectory, context: VerifierContext) -> bool:
        text, submitted = _answered(trajectory)
        if text is None or len(text) > MOST_CHARACTERS:
            return False
        return bool(text.strip()) if submitted else extract(text, self.protocol) is not None


def _answered(trajectory: Trajectory) -> tuple[str | None, bool]:
    """The text that holds the answer, and whether it was submitted. None: the last turn answered nothing."""
    if not trajectory.turns:
        return None, False
    turn: Turn = trajectory.turns[-1]
    if not turn.results:
        return turn.message.text, False
    done = {r.call_id for r in turn.results if r.name == "submit" and r.status == "ok"}
    for call in turn.message.tool_calls:
        if call.id in done:
            try:
                arguments = parse_arguments(call.arguments)
            except ArgumentError:
                return None, True
            answer = arguments.get("answer", "")
            # "refused" and "impossible" carry a reason, not an answer
            return (answer if isinstance(answer, str) and arguments.get("status", "done") == "done" else None), True
    return None, False  # cut off while it was still calling tools


def math_answer(protocol: str = "any") -> Verifier:
    """A verifier named ``answer``: 1.0 where the last turn answers with the task's gold, else 0.0.

    The answer is the ``answer`` argument where the last turn called ``submit``, else what `extract` finds in its text;
    reasoning is never looked at. No answer at all is 0.0 with status ``refused`` and the flag ``no_answer``.

    Args:
        protocol: how the answer is looked for, one of `PROTOCOLS`; by default leniently, with format scored apart.

    Raises:
        DefinitionError: an unknown protocol. A task whose gold is not text is unscorable.
    """
    judge = _Judge(protocol)

    @verifier(name="answer")
    def answer(trajectory: Trajectory, context: VerifierContext) -> Score:
        return judge.answer(trajectory, context)

    return answer


def has_format(protocol: str) -> Verifier:
    """A verifier named ``format``: whether the answer was given exactly as declared, be it right or wrong.

    Args:
        protocol: one of `PROTOCOLS`. Where the last turn called ``submit``, any answer that is not empty will do.

    Raises:
        DefinitionError: an unknown protocol.
    """
    judge = _Judge(protocol)

    @verifier(name="format")
    def format_(trajectory: Trajectory, context: VerifierContext) -> bool:
        return judge.format(trajectory, context)

    return format_


def used_tool(name: str) -> Verifier:
    """A verifier named ``NAME used``: whether the tool was called with success at least once.

    Args:
        name: the tool's name.
    """

    @verifier(name=f"{name} used")
    def used(trajectory: Trajectory, context: VerifierContext) -> bool:
        return any(r.name == name and r.status == "ok" for turn in trajectory.turns for r in turn.results)

    return used
