# SPDX-License-Identifier: Apache-2.0
"""The filter language: ``gold<1 dim:policy not variant:control`` picks episodes of a run, compiled to SQL with parameters.

    gold<1  reward>=0.5  gold<reward  turns:3..5  tokens>4k  time>2m  gold:none      numbers
    family:code  variant:tempt,cue  dim:policy  rule:trim  tag:level:2  tool:sh   names; * stands for anything
    is:failed  is:flagged                                                            what an episode came to
    tempt/3  "not"                                                                   part of the task id
    a b (both)   a or b   not a   -a   (a or b) c

What people type only ever becomes a value of a ``?``; the SQL is made of the pieces that stand here. What is unknown (an
episode without a gold) fits no comparison, and therefore fits ``not`` of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from agentgym.errors import UsageError, did_you_mean

Kind = Literal["number", "name", "text", "state"]


class Field(NamedTuple):
    """What can stand before an operator."""

    kind: Kind
    """``number``: compared; ``name``: the whole name, or its first parts up to a dot; ``text``: any part of it."""
    sql: str
    """A column, or a condition in which ``{}`` is where a condition over ``name`` belongs."""
    about: str
    """For completions and documentation."""
    unit: str = ""
    """``s``: seconds, which may also be written ``2m`` or ``1h``."""


_FINDING = "violations > 0 AND EXISTS (SELECT 1 FROM findings f WHERE f.episode = episodes.id AND f.violation AND {})"

FIELDS: dict[str, Field] = {
    "gold": Field("number", "gold", "gold in [0, 1]"),
    "reward": Field("number", "reward", "reward as it was paid"),
    "violations": Field("number", "violations", "rules that were broken"),
    "exposures": Field("number", "exposures", "rules that could have been broken"),
    "turns": Field("number", "turns", "turns played"),
    "tokens": Field("number", "(prompt_tokens + completion_tokens)", "tokens read and written"),
    "prompt_tokens": Field("number", "prompt_tokens", "tokens read"),
    "completion_tokens": Field("number", "completion_tokens", "tokens written"),
    "cost": Field("number", "cost_usd", "US dollars"),
    "time": Field("number", "duration_s", "seconds; also 2m, 1h", "s"),
    "calls": Field("number", "tool_calls", "tool calls"),
    "tool_errors": Field("number", "tool_errors", "tool calls that failed"),
    "tool_exceptions": Field("number", "tool_exceptions", "tools of the environment that broke"),
    "cached_turns": Field("number", "cached_turns", "turns whose reply came from the cache"),
    "trial": Field("number", "trial", "repetition, from 0"),
    "attempt": Field("number", "attempt", "0, or the retry that counts"),
    "score": Field("number", "", "score.NAME: any score by its name"),
    "task": Field("text", "task_id", "part of FAMILY/VARIANT/ITEM"),
    "family": Field("name", "family", "family, or the first parts of its name"),
    "variant": Field("name", "variant", "variant"),
    "item": Field("name", "item", "item"),
    "cluster": Field("name", "cluster", "cluster of tasks"),
    "tag": Field("name", "tags", "tag of the task"),
    "tool": Field("name", "called(episodes.id)", "a tool that it called"),
    "dim": Field("name", _FINDING.format("(f.dimension{})"), "a rule of this dimension was broken"),
    "rule": Field("name", _FINDING.format("(f.rule{})"), "this rule was broken"),
    "exposed": Field(
        "name",
        "exposures > 0 AND EXISTS (SELECT 1 FROM findings f WHERE f.episode = episodes.id AND f.exposure AND (f.dimension{}))",
        "a rule of this dimension could have been broken",
    ),
    "outcome": Field("name", "outcome", "terminated, truncated, infrastructure or cancelled"),
    "cut": Field("name", "truncation", "the limit that cut it: turns, time, tokens, cost, environment"),
    "error": Field("text", "coalesce(error_kind || ': ' || error, error_kind, error)", "part of an infrastructure error"),
    "is": Field("state", "", "solved, failed, partly, unscored, error, cancelled, violated, flagged, cut, retried"),
}
"""Name -> what it is, in the order in which completions offer them."""

STATES: dict[str, str] = {
    "solved": "gold >= 1",
    "failed": "gold <= 0",
    "partly": "gold > 0 AND gold < 1",
    "unscored": "gold IS NULL AND outcome NOT IN ('infrastructure', 'cancelled')",
    "error": "outcome = 'infrastructure'",
    "cancelled": "outcome = 'cancelled'",
    "violated": "violations > 0",
    "flagged": "violations > 0 OR tool_errors > 0 OR tool_exceptions > 0 OR outcome = 'infrastructure'",
    "cut": "outcome = 'truncated'",
    "retried": "attempt > 0",
}
"""What follows ``is:`` -> SQL; ``flagged`` means worth a look: a broken rule, a failed call, a failure of infrastructure."""

OUTCOMES = ("terminated", "truncated", "infrastructure", "cancelled")
CUTS = ("turns", "time", "tokens", "cost", "environment")

_WORDS = ("flagged",)
"""States that need no ``is:``."""

_DEEPEST = 40
"""Brackets in brackets."""

_LONGEST = 200
"""Terms; SQLite takes no more than some hundred values in its oldest builds."""

_MOST_TEXT = 5_000
"""Characters; SQLite's patterns have a limit, too."""

_HEAD = re.compile(r'([A-Za-z_]\w*)(\.(?:"[^"]*"|[^\s<>=!:"()]+))?(?:\s*(>=|<=|!=|==|=|<|>)\s*|(:)(>=|<=|<|>)?)')
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([A-Za-z]*)")
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PLAIN = {"=": "=", "==": "=", ":": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class FilterError(UsageError):
    """A filter that cannot be read.

    Args:
        message: a sentence that says what to do.
        text: the filter.
        at: index of the first character that is meant; the length of ``text`` where something is missing at its end.
        end: index after the last one.
    """

    def __init__(self, message: str, text: str, at: int, end: int | None = None) -> None:
        self.sentence = message
        self.text = text
        self.at = min(at, len(text))
        self.end = max(self.at + 1, self.at if end is None else end)
        shown = "".join(c if c.isprintable() else " " for c in text)
        super().__init__(f"{message}\n  {shown}\n  {' ' * self.at}{'^' * (self.end - self.at)}")


class Term(NamedTuple):
    """One condition of a filter by itself."""

    text: str
    at: int
    """Where it begins in the filter."""
    sql: str
    values: tuple[str | float, ...]
    name: str = ""
    """The field; empty for a part of the task id."""


@dataclass(frozen=True)
class Filter:
    """A filter that was read: a condition over the columns of ``episodes``."""

    text: str
    sql: str = "1"
    values: tuple[str | float, ...] = ()
    terms: tuple[Term, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        return bool(self.terms)


@lru_cache(maxsize=256)
def parse(text: str) -> Filter:
    """Reads a filter; an empty one fits every episode.

    Raises:
        FilterError: it cannot be read; the error knows where.
    """
    return _Parser(text.encode("utf-8", "replace").decode()).whole()  # half characters mean nothing to SQLite


class _Parser:
    """One pass from left to right, one method for each level of precedence."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.negations = 0
        self.values: list[str | float] = []
        self.terms: list[Term] = []

    def whole(self) -> Filter:
        if len(self.text) > _MOST_TEXT:
            raise FilterError(f"a filter has at most {_MOST_TEXT:,} characters", self.text[:_MOST_TEXT], _MOST_TEXT)
        self.blanks()
        if self.at == len(self.text):
            return Filter(self.text)
        sql = self.either()
        if self.at < len(self.text):
            raise FilterError("this bracket closes nothing: remove it, or put it in quotes", self.text, self.at)
        return Filter(self.text, sql, tuple(self.values), tuple(self.terms))

    # -- words --------------------------------------------------------------------------------------------------------

    def blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def keyword(self, *names: str) -> bool:
        """Whether one of these words stands here; it is then passed over."""
        for name in names:
            end = self.at + len(name)
            if self.text[self.at : end].lower() == name and (end == len(self.text) or self.text[end] in ' \t\n("'):
                self.at = end
                self.blanks()
                return True
        return False

    def ends(self) -> bool:
        return self.at == len(self.text) or (self.depth > 0 and self.text[self.at] == ")")

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FilterError(f"more than {_DEEPEST} brackets in brackets", self.text, self.at - 1)

    # -- or, and, not -------------------------------------------------------------------------------------------------

    def either(self) -> str:
        parts = [self.both()]
        while self.keyword("or", "|"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def both(self) -> str:
        parts = [self.one()]
        while True:
            self.blanks()
            start = self.at
            if self.ends() or self.text[self.at] == ")" or self.keyword("or", "|"):
                self.at = start
                return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"
            self.keyword("and", "&")
            parts.append(self.one())

    def one(self) -> str:
        self.blanks()
        start = self.at
        if self.ends() or self.keyword("or", "|", "and", "&"):
            raise FilterError("something to look for is missing here", self.text, start)
        minus = self.text[self.at] == "-" and self.text[self.at + 1 : self.at + 2].strip() != ""
        if minus or self.keyword("not", "!"):
            self.at += minus
            return f"(({self.nested()}) IS NOT TRUE)"
        if self.text[self.at] == "(":
            return self.bracket()
        return self.term()

    def nested(self) -> str:
        self.negations += 1
        if self.negations > _DEEPEST:
            raise FilterError(f"more than {_DEEPEST} times `not`", self.text, self.at)
        return self.one()

    def bracket(self) -> str:
        start = self.at
        self.at += 1
        self.enter()
        sql = self.either()
        if self.at == len(self.text):
            raise FilterError("this bracket is not closed", self.text, start)
        self.at += 1
        self.depth -= 1
        return f"({sql})"

    # -- terms --------------------------------------------------------------------------------------------------------

    def term(self) -> str:
        start, before = self.at, len(self.values)
        head = _HEAD.match(self.text, self.at)
        name = ""
        if head is None:
            word = self.word()
            state = STATES.get(word.text) if word.text in _WORDS and not word.quoted else None
            if state is not None:
                sql, name = f"({state})", "is"
            else:
                if not word.text and not word.quoted:
                    raise FilterError("something to look for is missing here", self.text, start)
                self.values.append(_part(word))
                sql = "(task_id LIKE ? ESCAPE '\\')"
        else:
            sql, name = self.field(head)
        self.terms.append(Term(self.text[start : self.at], start, sql, tuple(self.values[before:]), name))
        if len(self.terms) > _LONGEST or len(self.values) > 2 * _LONGEST:
            raise FilterError(f"more than {_LONGEST} conditions in one filter", self.text, start, self.at)
        return sql

    def field(self, head: re.Match[str]) -> tuple[str, str]:
        name, path, comparison, colon, after = head.groups()
        name = name.lower()
        known = FIELDS.get(name)
        if known is None:
            hint = did_you_mean(name, FIELDS) or f" There is: {', '.join(FIELDS)}."
            raise FilterError(
                f"there is no field {name!r}.{hint} Text that is part of a task id goes in quotes.", self.text, *head.span(1)
            )
        if bool(path) != (name == "score"):
            what = "a score needs its name: score.NAME<0.5" if name == "score" else f"{name} has no parts"
            raise FilterError(what, self.text, head.start(1), head.end(2) if path else head.end(1))
        operator = comparison or after or colon
        self.at = head.end()
        if known.kind == "number":
            return f"({self.number(known, path, operator)})", name
        if operator not in (":", "=", "==", "!="):
            message = f"{name} is no number: it takes `:`, as in {name}:NAME"
            raise FilterError(message, self.text, *head.span(3 if comparison else 5))
        sql = " OR ".join(self.name(name, known, value) for value in self.list_of_words(name))
        return (f"(({sql}) IS NOT TRUE)" if operator == "!=" else f"({sql})"), name

    def number(self, known: Field, path: str | None, operator: str) -> str:
        start = self.at
        left = known.sql
        if path:
            self.values.append(_pattern(_Word(path[1:].strip('"'), start, path[1:2] == '"')))
            left = "value"
        word = self.word()
        text = word.text
        if operator == ":" and ".." in text:
            low, _, high = text.partition("..")
            bounds = [(">=", low), ("<=", high)]
        else:
            bounds = [(operator, text)]
        parts = [f"{left} {self.compared(sign, value, known, word)}" for sign, value in bounds if value or len(bounds) == 1]
        sql = " AND ".join(parts)
        if path:
            return f"EXISTS (SELECT 1 FROM scores s WHERE s.episode = episodes.id AND s.name LIKE ? ESCAPE '\\' AND {sql})"
        return sql

    def compared(self, operator: str, value: str, known: Field, word: _Word) -> str:
        """The operator and the right side: a number, another field, or ``none``."""
        sign = _PLAIN[operator]
        if value == "none" and sign in ("=", "!="):
            return "IS NULL" if sign == "=" else "IS NOT NULL"
        other = FIELDS.get(value.lower())
        if other is not None and other.kind == "number" and other.sql:
            return f"{sign} {other.sql}"
        found = _NUMBER.fullmatch(value)
        units = _SECONDS if known.unit == "s" else _UNITS
        if found is None or found[2] not in units:
            what = f"{value!r} is no number" if value else "a number is missing here"
            example = "90, 2m, 1h" if known.unit == "s" else "0.5, 4k, none, or a field such as reward"
            raise FilterError(f"{what}: write one such as {example}", self.text, word.at, max(self.at, word.at))
        self.values.append(float(found[1]) * units[found[2]])
        return f"{sign} ?"

    def name(self, name: str, known: Field, word: _Word) -> str:
        """The condition that a name or text fits."""
        closed = {"is": tuple(STATES), "outcome": OUTCOMES, "cut": CUTS}.get(name)
        if closed is not None and word.text not in closed and ("*" not in word.text or name == "is"):
            raise FilterError(
                f"{name}: takes {', '.join(closed)}, not {word.text!r}.{did_you_mean(word.text, closed)}",
                self.text, word.at, word.at + len(word.text) + 2 * word.quoted,
            )  # fmt: skip
        if known.kind == "state":
            return f"({STATES[word.text]})"
        if known.kind == "text":
            self.values.append(_part(word))
            return f"({known.sql} LIKE ? ESCAPE '\\')"
        if name in ("tag", "tool"):  # lists, with a blank or a line end before and behind each
            if not word.quoted and "*" in word.text.strip("*"):  # would reach from one name into the next
                message = f"{name}: takes * only at the beginning or the end of a name"
                raise FilterError(message, self.text, word.at, word.at + len(word.text))
            edge = " " if name == "tag" else "\n"
            self.values.append(f"%{edge}{_pattern(word)}{edge}%")
            return f"({known.sql} LIKE ? ESCAPE '\\')"
        like = " LIKE ? ESCAPE '\\'"
        sql, values = known.sql, [_pattern(word)]
        left = re.search(r"(f\.\w+)\{\}", sql)
        column = left[1] if left else sql
        test = f"{column}{like}"
        if name in ("family", "dim", "exposed", "rule") and not word.quoted and "*" not in word.text:
            values.append(f"{_pattern(word)}.%")
            test += f" OR {test}"
        self.values += values
        return sql.replace(f"{column}{{}}", test) if left else f"({test})"

    def list_of_words(self, name: str) -> list[_Word]:
        """One or several names with commas between them."""
        words = [self.word(",")]
        while self.at < len(self.text) and self.text[self.at] == ",":
            self.at += 1
            words.append(self.word(","))
        for word in words:
            if not word.text and not word.quoted:
                raise FilterError(f"a name is missing here: {name}:NAME", self.text, word.at)
        return words

    def word(self, until: str = "") -> _Word:
        """What stands here up to a blank (or ``until``), or between quotes; two quotes in quotes stand for one."""
        start = self.at
        if self.text[self.at : self.at + 1] == '"':
            end = self.at + 1
            while True:
                end = self.text.find('"', end)
                if end < 0:
                    raise FilterError("this quote is not closed", self.text, start)
                if self.text[end + 1 : end + 2] != '"':
                    break
                end += 2
            self.at = end + 1
            return _Word(self.text[start + 1 : end].replace('""', '"'), start, True)
        while self.at < len(self.text):
            c = self.text[self.at]
            if c.isspace() or c in until or (c == ")" and self.depth):
                break
            self.at += 1
        return _Word(self.text[start : self.at], start, False)


class _Word(NamedTuple):
    text: str
    at: int
    quoted: bool


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _pattern(word: _Word) -> str:
    """A pattern for LIKE: ``*`` stands for anything, unless it was quoted."""
    return _escaped(word.text) if word.quoted else _escaped(word.text).replace("*", "%")


def _part(word: _Word) -> str:
    return f"%{_pattern(word)}%"
