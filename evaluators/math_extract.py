# SPDX-License-Identifier: Apache-2.0
r"""What a text answers, under a declared protocol: a box, a tag, a marked or a last line, or the last statement.

What a reader does not see is no answer: thoughts, comments, phantoms, echoes of the instructions. What is denied or hedged
is none either, and the last word counts: an honest correction is an answer.
"""

from __future__ import annotations

import collections
import re
from typing import Any, NamedTuple

from agentgym.errors import DefinitionError
from agentgym.evaluators.math_number import CHANGING, choice, number, without_unit
from agentgym.evaluators.math_parse import Unreadable, parse
from agentgym.evaluators.math_visible import WINDOW, visible

MOST_CHARACTERS = 1_000_000
"""A longer text is refused unread: no answer needs it."""

PROTOCOLS = (
    "any", "number", "answer_line", "boxed", "hash", "last_boxed", "last_letter", "last_hash", "tagged", "final_line",
    "last_stated",
)  # fmt: skip
r"""How an answer is declared to be given: ``number``: nothing but the number; ``answer_line``: the last line is
``Answer: X``; ``boxed``: the last line holds ``\boxed{X}``; ``hash``: the last line is ``#### X``; ``last_boxed``: the last
``\boxed{X}``, wherever it stands; ``last_letter``: the same, of a choice: ``\boxed{B}``; ``last_hash``: the last line that
begins with ``####``; ``tagged``: ``<answer>X</answer>``, once; ``final_line``: the last line is the answer; ``last_stated``:
the last statement of an answer, be it boxed or not; ``any``: the last box, else the last statement, else the best guess at
what was meant, for judging correctness apart from format."""

_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++,[0-9]{2}(?![0-9,])|[0-9]++)(?:\.[0-9]++)?+"
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
_STATEMENT = re.compile(r"\banswer\b[\s*_]{0,4}(?:\bis\b|:|=)|^[ \t*_]{0,4}A:", re.IGNORECASE | re.MULTILINE)
_HASHES = re.compile(r"^[ \t]{0,4}####(.*)$", re.MULTILINE)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>")
_BRACES = re.compile(r"\\(?:boxed|[hv]?phantom)\s{0,3}\{|\\.|[{}]", re.DOTALL)
# Between two boxes that are one answer together.
_TOGETHER = re.compile(
    r"(?:[\s$,;&]|\\[,;()\[\]]|\\q?quad\b|\b(?:and|or|maybe|perhaps|possibly|alternatively|either|else)\b|\\text\s?\{[^{}]{0,30}(?:\band|\bor|,)\s{0,3}\}"
    r"|\b[A-Za-z](?:_\{?\w\}?)?\s?=){0,12}",
    re.IGNORECASE,
)
_PROSE = re.compile(r"[A-Za-z\s,.;:'\"\u2019()*`%$€£!?-]*")
_VARIABLE = re.compile(r"(?<!['\u2019])\b[b-hj-zB-HJ-Z]\b|[0-9]\s?i\b")
# Words right before an answer, or right behind it, that take it back.
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|except|instead of|all but|anything but)|n't|\\not)"
    r"(?:\s(?:be|an?|the|my|our|your|its|equal|to|final|correct|right|real|really)){0,4}\W*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\W{0,4}(?:is|was|are|were)(?:n't|\s(?:[a-z]{3,12}ly\s)?(?:not|never|wrong|incorrect|false))\b", re.IGNORECASE
)
# Behind one of these stands what a line comes down to.
_COMES_TO = re.compile(r"[-=]>|(?<![!/<>\\])=|[\u2248\u2192:]\s|\b(?:is|are|equals?|gives|makes)\b|[.!?]\$*\s", re.IGNORECASE)
_NOTE = re.compile(r"<<[^<>]{0,400}>>")  # of the calculator of GSM8K's own solutions: <<48/2=24>>24
_SENTENCE = re.compile(r"(?<=[0-9$%)])\.\s+(?=[A-Z])")

_MARKS = re.compile(r"\*\*|`|\\[()\[\]]|\\(?=\$)")
_DIGIT = re.compile(r"[0-9]")


def last_boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` whose braces are balanced; of nested ones, the outermost.

    >>> last_boxed(r"first \boxed{1}, then \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


class Found(NamedTuple):
    """What was found in a text."""

    answer: str | None
    """The answer as it was written; None where there is none."""
    flags: tuple[str, ...] = ()
    """Why there is none, where that is worth a name: ``malformed``, ``several_answers``, ``hidden``."""


class _Box(NamedTuple):
    start: int
    """Where ``\\boxed`` begins."""
    end: int
    """Behind its closing brace."""
    content: str


_MOST_TOGETHER = 16
"""Boxes that may be one answer together."""

# An instruction or an example that is repeated, not an answer.
_ECHO = re.compile(
    r"(?:\b(?:for example|for instance|e\.\s?g\.|such as|example (?:answer|output|format)|"
    r"(?:an )?example(?: of .{1,20})?(?::| is)|"
    r"(?:(?:put|write|give|place|enclose|express|return) your|"
    r"(?:^|[.!?:\n]\s?)(?:put|write|give|place|enclose|return) (?:the|an?))"
    r"(?: \w+){0,2} (?:answer|result|solution)"
    r"(?: \w+){0,2} (?:in|inside|within|as|like|in the form)|in the (?:form|format)(?: of)?|formatted (?:as|like)|"
    r"(?:expected|required) (?:form|format)(?: is)?:?|"
    r"(?:prompt|question|user|instructions?|task) (?:says?|said|asks?|asked)(?: \w+){0,6}))"
    r"[\s:,$\"'`(\u201c]*$",
    re.IGNORECASE,
)


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
    ``#### X``; else ``<answer>X</answer>``; else the last statement ``answer is X``, ``Answer: X`` or ``A: X``; else the text,
    where it is nothing but mathematics; else what the last line with a number in it comes down to (``3 + 4 = 7 eggs``). What
    is denied, or one number of several, is no answer. Any other protocol (see `PROTOCOLS`) is taken by its word: None where it
    was not kept exactly.

    Args:
        text: an answer's words, without reasoning; only its last `WINDOW` characters are looked at.
        protocol: one of `PROTOCOLS`.

    >>> extract("3 + 4 = 7, so the answer is 7 apples.")
    '7'
    """
    return find(text, protocol).answer


def find(text: str, protocol: str = "any") -> Found:
    """As `extract`, and why nothing was found."""
    seen = visible(text)
    if protocol in ("any", "last_stated"):
        found = _find_any(seen)
    elif protocol == "tagged":
        found = _tagged(seen) or Found(None)
    else:
        found = Found(_extract_exactly(seen, protocol))
    if found.answer is None and not found.flags and len(seen) < len(text) <= WINDOW and _answers(text) > _answers(seen):
        return Found(None, ("hidden",))
    return found


def _answers(text: str) -> int:
    return text.count("\\boxed") + text.count("<answer>") + text.count("####")


def _find_any(text: str) -> Found:
    text = _DISPLAYED.sub(lambda m: m[0].replace("\n", " "), text)
    in_box = boxed(text)
    if in_box is not None:
        # "\\boxed{255} ... Final answer: 10,455": the last word counts
        final = _last(_FINAL, text[_last_box_end(text) :])
        if final is not None:
            in_box = None
            text = text[_last_box_end(text) :]
    elif "####" not in text and "<answer" in text:
        tagged = _tagged(text)
        if tagged is not None:
            return tagged
    stated = in_box if in_box is not None else _stated(text)
    if stated is not None:
        return Found(stated or None)
    alone = _TAG.sub(" ", text).strip()
    if len(alone) <= 300 and "\n" not in alone and _is_mathematics(alone):
        return Found(alone)
    for line in reversed(text.split("\n")):
        if _DIGIT.search(line) or "$" in line or "\\)" in line or "\\]" in line:
            found = _concluded(line)
            return Found(_span(line) if found is None else found)
    return Found(None)


_DISPLAYED = re.compile(r"\$\$[^$]{0,500}\$\$|\\\[[^$\[]{0,500}?\\\]")
_FINAL = re.compile(r"\bfinal answer\b[\s*_]{0,4}(?:\bis\b|:|=)", re.IGNORECASE)


def _last_box_end(text: str) -> int:
    boxes = _boxes(text)
    return boxes[-1].end if boxes else 0


def _is_mathematics(text: str) -> bool:
    """Whether a text is one expression and no words."""
    if number(text) is not None:
        return True
    try:
        node = parse(without_unit(text))
    except (Unreadable, RecursionError):
        return False
    return not _has_words(node)


def _has_words(node: Any) -> bool:
    return type(node) is tuple and (node[0] == "text" or any(_has_words(n) for n in node[1:]))


_LONGEST_LINE = 2000
"""Characters at the end of a line in which a formula is looked for."""

_SPAN = re.compile(r"\$\$([^$\n]+)\$\$|\$((?:[^$\\\n]|\\.)+)\$|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]")
_CLAUSE = re.compile(r"\b(?:is|are|equals?|gives|that|therefore|thus|answer|matrix|get|have|find)\b|[.!?:,]\s", re.IGNORECASE)


def _span(line: str) -> str | None:
    """The one formula of what a line comes down to, where nothing but plain words stand around it."""
    line = line[-_LONGEST_LINE:]
    spans = list(_SPAN.finditer(line))
    if not spans:
        return None
    last = spans[-1]
    begin = 0 if len(spans) == 1 else spans[-2].end()
    before = line[begin : last.start()]
    clause = _last(_CLAUSE, before)
    if clause is not None:
        before = before[clause.end() :]
    elif len(spans) > 1:
        return None  # "$7$ or $8$"
    after = line[last.end() :]
    if _denied(line, last.start(), last.end()) or any(
        not _PROSE.fullmatch(words) or CHANGING.search(words) for words in (before, after)
    ):
        return None
    content = next(g for g in last.groups() if g is not None).strip()
    sides = re.split(r"(?<![<>!\\])=", content.replace("\\$", ""))
    return sides[-1].strip() if len(sides) > 1 and "<" not in content and "," not in content else content


_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_CORRECTED = re.compile(
    r"\b(?:wait|actually|correction|corrected|mistake|sorry|instead|wrong|incorrect|recheck|rechecking|oops|no)\b",
    re.IGNORECASE,
)


def _tagged(text: str) -> Found | None:
    """What stands between answer tags. None without tags; several that differ are no answer, unless the last corrects them."""
    marks = list(_ANSWER_TAG.finditer(text))
    if not marks:
        return None
    contents: list[str] = []
    for i, mark in enumerate(marks):
        if bool(mark[1]) != bool(i % 2):
            return Found(None, ("malformed",))
        if mark[1]:
            contents.append(text[marks[i - 1].end() : mark.start()].strip())
    if len(marks) % 2 or not contents:
        return Found(None, ("malformed",))
    if len(set(contents)) > 1 and not _CORRECTED.search(text[marks[-3].end() : marks[-2].start()]):
        return Found(None, ("several_answers",))
    said = contents[-1]
    in_box = boxed(said)
    if in_box is not None:
        return Found(in_box or None)
    return Found(_said(said) or None) if "\n" not in said else Found(said)


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
    plain = _PROSE.fullmatch(rest) and not CHANGING.search(rest) and not _VARIABLE.search(words)
    return numbers[0][0] if plain else None


def _plain(line: str) -> str:
    """A line without the marks of bold type, code and formulas around its words and numbers."""
    return _MARKS.sub("", line)


def _denied(text: str, start: int, end: int) -> bool:
    """Whether the words around these places, on the same line, take back what stands between them."""
    before = text[max(start - 60, 0) : start].rpartition("\n")[2]
    return _DENIED.search(before) is not None or _DENIED_AFTER.match(text, end) is not None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    found = collections.deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1].strip()


def submitted(text: str) -> Found:
    """What a text says that was handed in as the answer itself, by a tool made for it."""
    text = visible(text)
    stated = _stated(text)
    return Found((_said(text) if stated is None else stated) or None)


def _stated(text: str) -> str | None:
    """The answer of an explicit statement; empty where the statement is; None where there is no statement."""
    in_box = boxed(text)
    if in_box is not None:
        return in_box
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


def boxed(text: str) -> str | None:
    """What the last box says, with those that follow each other up to it; empty where nothing is said; None without one."""
    boxes = _boxes(text)
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _TOGETHER.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    if len(boxes) - first > _MOST_TOGETHER:  # a flood is no list of solutions
        if len({box.content for box in boxes[first:]}) > 2:
            return ""
        first = len(boxes) - 1
    if _ECHO.search(text[max(boxes[first].start - 60, 0) : boxes[first].start]):
        return ""
    if _denied(text, boxes[first].start, boxes[-1].end):
        return ""
    contents = dict.fromkeys(box.content.strip() for box in boxes[first:])
    return ", ".join(contents) if all(contents) else ""


_REASON = re.compile(r"[\s,;]\s?(?:because|since)\s", re.IGNORECASE)


def _said(line: str) -> str:
    """The number where a line is one number among plain words, else the line."""
    line = _SENTENCE.split(line.strip(" \t\r*_`:\"'"), maxsplit=1)[0]
    found = _only_number(_plain(line))
    if found is None and (reason := _REASON.search(line)) is not None:
        line = line[: reason.start()]
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
        found = boxed(line)
    elif protocol == "hash":
        found = line.removeprefix("#### ") if line.startswith("#### ") else None
    elif protocol == "last_boxed":
        found = boxed(text)
    elif protocol == "last_letter":
        found = choice(boxed(text) or "")
    elif protocol == "last_hash":
        lines = _HASHES.findall(text)
        found = _said(lines[-1]) if lines else None
    elif protocol == "final_line":
        in_box = boxed(line)
        stated = _stated(line) if in_box is None else in_box
        found = _said(line) if stated is None else stated
    else:
        raise DefinitionError(f"there is no answer protocol {protocol!r}; there are: {', '.join(PROTOCOLS)}")
    return (found or "").strip() or None
