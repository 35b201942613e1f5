# SPDX-License-Identifier: Apache-2.0
"""Verifiers of texts: exact, numeric, by pattern, by JSON schema, by similarity, by length. Form and content never mix.

What is judged is the answer: what was submitted, else the last message, without its reasoning; with ``within`` what a
declared pattern finds in it. Whether that form was kept is a score of its own (`pattern`, under whatever name), so that a
policy cannot be paid for the form of a wrong answer, nor a right one be lost without a trace.

Patterns are RE2's: matched in linear time whatever pattern and text are, so that no time limit, process or thread is needed
and no load of the machine changes a verdict. Look-around and back-references are no part of it and are refused when the
verifier is made.
"""

from __future__ import annotations

import collections
import functools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from agentgym.chat import clean_text
from agentgym.errors import DefinitionError
from agentgym.evaluators.made import made
from agentgym.evaluators.state import answer_of, submission_of
from agentgym.scoring import Score, Verifier, VerifierContext
from agentgym.trajectory import Trajectory

MOST_CHARACTERS = 100_000
"""A longer answer is refused unread."""

Step = Literal["strip", "spaces", "case", "nfc", "nfkc", "punctuation", "articles"]

_SPACES = re.compile(r"\s+")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)
_STEPS: dict[str, Callable[[str], str]] = {
    "strip": str.strip,
    "spaces": lambda s: _SPACES.sub(" ", s),
    "case": str.casefold,
    "nfc": lambda s: unicodedata.normalize("NFC", s),
    "nfkc": lambda s: unicodedata.normalize("NFKC", s),
    "punctuation": lambda s: "".join(c for c in s if not unicodedata.category(c).startswith("P")),
    "articles": lambda s: _ARTICLES.sub(" ", s),
}
"""``strip``: white space at both ends; ``spaces``: each run of it is one blank; ``case``: upper and lower case are the
same; ``nfc``, ``nfkc``: Unicode's normal forms; ``punctuation``: none; ``articles``: no English ones."""


# -- what is judged ---------------------------------------------------------------------------------------------------


def compiled(pattern: str, *, group: str = "") -> Any:
    """An RE2 pattern.

    Args:
        pattern: in RE2's syntax; ``\\w``, ``\\d`` and ``\\s`` are ASCII, ``\\pL`` is any letter.
        group: a named group that it must have.

    Raises:
        DefinitionError: it is none, or the library is missing.
    """
    try:
        import re2
    except ImportError as e:
        raise DefinitionError("patterns need google-re2: pip install 'agentgym-harness[text]'") from e
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    try:
        made_of = re2.compile(pattern, options)
    except re2.error as e:
        raise DefinitionError(f"{pattern!r} is no pattern that RE2 can match in linear time: {_words(e)}") from e
    if group and group not in made_of.groupindex:
        raise DefinitionError(f"{pattern!r} must hold the group (?P<{group}>...): what is in it is the answer")
    return made_of


def _words(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


@functools.lru_cache(maxsize=64)
def _within(pattern: str) -> Any:
    return compiled(pattern, group="answer")


class _Unread(Exception):
    """There is no answer to judge."""


def _answer(trajectory: Trajectory, within: str | None) -> str:
    """The text that is judged.

    Raises:
        _Unread: it is too long, empty, or not in the declared form; the argument is a flag.
    """
    submission = submission_of(trajectory)
    text = clean_text(trajectory.final_text if submission is None else answer_of(submission))
    if len(text) > MOST_CHARACTERS:
        raise _Unread("too_long")
    if within is not None:
        matches = collections.deque(_within(within).finditer(text), maxlen=1)
        if not matches:
            raise _Unread("no_form")
        text = matches[0].group("answer") or ""
    if not text.strip():
        raise _Unread("no_answer")
    return text


_WHY = {
    "too_long": f"the answer is longer than {MOST_CHARACTERS:,} characters",
    "no_form": "the answer is not in the declared form",
    "no_answer": "there is no answer",
}


def _unread(name: str, flag: str) -> Score:
    return Score(name, value=0.0, status="refused", reason=_WHY[flag], flags=(flag,))


def _wanted(context: VerifierContext, key: str | None) -> list[Any]:
    """What is wanted: the gold, or what the hidden half keeps under a key; a list is a choice."""
    wanted = context.task.gold if key is None else (context.task.hidden or {}).get(key)
    several = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    if not several or any(w is None or isinstance(w, (dict, bool)) for w in several):
        where = "gold" if key is None else f"hidden[{key!r}]"
        raise DefinitionError(f"{context.task.id}: its {where} must be what is wanted, or a list of what is equally good")
    return several


# -- exact ------------------------------------------------------------------------------------------------------------


def exact(*, normalize: Sequence[Step] = ("strip",), within: str | None = None, key: str | None = None) -> Verifier:
    """1.0 where the answer is the wanted text, or one of several, after declared normalization; else 0.0.

    Args:
        normalize: steps that are applied to both, in this order; see `Step`.
        within: a pattern whose group ``answer`` holds the answer; the last match counts.
        key: where the hidden half keeps what is wanted; None: the gold.

    Raises:
        DefinitionError: an unknown step or a bad pattern. In the verifier, so that the episode is unscorable: what is
            wanted is missing, no text, or nothing is left of it.
    """
    steps = tuple(normalize)
    for step in steps:
        if step not in _STEPS:
            raise DefinitionError(f"there is no step {step!r}; there are: {', '.join(_STEPS)}")
    _check(within)
    return made("exact", _exact, "agentgym.evaluators.state", steps=steps, within=within, key=key)


def _check(within: str | None) -> None:
    if within is not None:
        _within(within)


def normal(text: str, steps: Sequence[str]) -> str:
    """The text after these steps of `exact`.

    >>> normal("  The  Eiffel Tower. ", ("case", "punctuation", "articles", "spaces", "strip"))
    'eiffel tower'
    """
    for step in steps:
        text = _STEPS[step](text)
    return text


def _exact(
    trajectory: Trajectory, context: VerifierContext, steps: Sequence[str], within: str | None, key: str | None
) -> Score:
    wanted = _wanted(context, key)
    forms = [normal(w, steps) if isinstance(w, str) else "" for w in wanted]
    if not all(f.strip() for f in forms):
        raise DefinitionError(f"{context.task.id}: a wanted text is missing, or nothing is left of it")
    try:
        answer = _answer(trajectory, within)
    except _Unread as e:
        return _unread("exact", str(e))
    form = normal(answer, steps)
    evidence = {"answer": form[:300], "wanted": forms[:10]}
    return Score("exact", value=float(form in forms), evidence=evidence)


# -- numeric ----------------------------------------------------------------------------------------------------------

_MOST_DIGITS = 400
_NUMBER = re.compile(
    r"[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?", re.ASCII
)


def number(text: str) -> Decimal | None:
    """The number that a text is, exactly; None where it is none, or not that alone.

    >>> number(" 1,050.50 "), number("1e3"), number("3 or 4"), number("nan"), number("50%"), number("1,05")
    (Decimal('1050.50'), Decimal('1E+3'), None, None, None, None)
    """
    text = text.strip()
    if len(text) > _MOST_DIGITS or not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace(",", "").replace("\u2212", "-"))
    except InvalidOperation:
        return None


def numeric(*, absolute: float = 0.0, relative: float = 0.0, within: str | None = None, key: str | None = None) -> Verifier:
    """1.0 where the answer is the wanted number, or one of several, up to declared tolerances; else 0.0.

    The answer must be a number and nothing else: no unit, no percent sign, no words (use ``within`` to cut it out). It and
    the tolerances are compared as decimal fractions, exactly.

    Args:
        absolute: greatest difference.
        relative: greatest difference as a share of the wanted number. It forgives whole numbers, too: 9999 is 10,000
            within 0.001.
        within: see `exact`.
        key: see `exact`.

    Raises:
        DefinitionError: a tolerance is no finite number of 0 or more. In the verifier: what is wanted is no number.
    """
    tolerances = []
    for name, value in (("absolute", absolute), ("relative", relative)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise DefinitionError(f"the {name} tolerance must be a finite number of 0 or more, not {value!r}")
        tolerances.append(Decimal(str(value)))
    _check(within)
    return made("numeric", _numeric, "agentgym.evaluators.state", tolerances=tuple(tolerances), within=within, key=key)


def _numeric(
    trajectory: Trajectory, context: VerifierContext, tolerances: tuple[Decimal, Decimal], within: str | None, key: str | None
) -> Score:
    wanted = [number(str(w)) for w in _wanted(context, key)]
    if any(w is None for w in wanted):
        raise DefinitionError(f"{context.task.id}: what is wanted is no finite number")
    try:
        answer = _answer(trajectory, within)
    except _Unread as e:
        return _unread("numeric", str(e))
    got = number(answer)
    if got is None:
        evidence = {"answer": answer[:300]}
        return Score(
            "numeric", value=0.0, status="refused", reason="not a number alone", flags=("no_number",), evidence=evidence
        )
    absolute, relative = tolerances
    right = any(_near(got, w, absolute, relative) for w in wanted if w is not None)
    return Score("numeric", value=float(right), evidence={"answer": str(got), "wanted": [str(w) for w in wanted][:10]})


def _near(got: Decimal, wanted: Decimal, absolute: Decimal, relative: Decimal) -> bool:
    if got == wanted:
        return True
    if not absolute and not relative:
        return False
    # as fractions, whose size the limits of digits and exponents above bound
    from fractions import Fraction

    difference = abs(Fraction(got) - Fraction(wanted))
    return difference <= max(Fraction(absolute), Fraction(relative) * abs(Fraction(wanted)))


# -- pattern, length --------------------------------------------------------------------------------------------------


def pattern(regex: str, *, whole: bool = True, name: str = "format") -> Verifier:
    """1.0 where the answer has the form of a pattern, else 0.0. It says nothing about whether the answer is right.

    Args:
        regex: in RE2's syntax; see `compiled`. ``.`` is any character but a line break, ``(?s)`` makes it any.
        whole: all of the answer must match, not only a part of it.
        name: of the score.

    Raises:
        DefinitionError: it is no pattern.
    """
    compiled(regex)
    return made(name, _pattern, "agentgym.evaluators.state", regex=regex, whole=whole, name=name)


@functools.lru_cache(maxsize=64)
def _compiled(regex: str) -> Any:
    return compiled(regex)


def _pattern(trajectory: Trajectory, context: VerifierContext, regex: str, whole: bool, name: str) -> Score:
    try:
        answer = _answer(trajectory, None)
    except _Unread as e:
        if str(e) == "too_long":
            return _unread(name, str(e))
        answer = ""
    p = _compiled(regex)
    found = p.fullmatch(answer) if whole else p.search(answer)
    return Score(name, value=float(found is not None), reason="" if found else "not in the declared form")


def length(*, most: int, least: int = 0, unit: Literal["characters", "words"] = "characters", name: str = "length") -> Verifier:
    """1.0 where the answer keeps a budget, else 0.0: within it nothing is gained by a longer answer or by a shorter one.

    Args:
        most: characters, or words (what white space parts).
        least: an answer that is shorter does not keep it either.
        unit: what is counted.
        name: of the score.

    Raises:
        DefinitionError: the budget is none.
    """
    if not 0 <= least <= most or unit not in ("characters", "words"):
        raise DefinitionError(f"a budget is 0 <= least <= most characters or words, not {least} to {most} {unit}")
    return made(name, _length, "agentgym.evaluators.state", most=most, least=least, unit=unit, name=name)


def _length(trajectory: Trajectory, context: VerifierContext, most: int, least: int, unit: str, name: str) -> Score:
    submission = submission_of(trajectory)
    text = trajectory.final_text if submission is None else answer_of(submission)
    count = len(text) if unit == "characters" else len(text.split())
    kept = least <= count <= most
    return Score(name, value=float(kept), reason="" if kept else f"{count:,} {unit}", evidence={unit: count})


# -- JSON -------------------------------------------------------------------------------------------------------------


def json_schema(schema: Mapping[str, Any] | bool, *, within: str | None = None, name: str = "json_schema") -> Verifier:
    """1.0 where the answer is JSON that a schema describes, else 0.0; beside it ``NAME.is_json``: whether it is JSON at all.

    JSON is read strictly: one value and nothing around it, no key twice, no NaN or infinity, at most 64 levels. The
    schema is of the draft that its ``$schema`` names, by default 2020-12; its patterns are RE2's (`compiled`), it
    may refer to its own parts, and nothing is ever fetched. It says whether the form fits, not whether it is right.

    Args:
        schema: as plain values.
        within: see `exact`: ``(?s)```json\\n(?P<answer>.*?)````` for a fenced block.
        name: of the score.

    Raises:
        DefinitionError: the schema is none, or refers to what is elsewhere.
    """
    from agentgym.evaluators.json_text import plain_schema

    _check(within)
    kept = plain_schema(schema)
    return made(
        name, _json_schema, "agentgym.evaluators.state", "agentgym.evaluators.json_text", schema=kept, within=within, name=name
    )


def _json_schema(trajectory: Trajectory, context: VerifierContext, schema: str, within: str | None, name: str) -> list[Score]:
    from agentgym.evaluators.json_text import NotJSON, first_error, read_json

    try:
        value = read_json(_answer(trajectory, within))
    except (_Unread, NotJSON) as e:
        score = _unread(name, str(e)) if isinstance(e, _Unread) else None
        reason = str(e) if score is None else score.reason
        score = score or Score(name, value=0.0, status="refused", reason=f"not JSON: {reason}", flags=("not_json",))
        return [score, Score(f"{name}.is_json", value=0.0, reason=reason)]
    error = first_error(schema, value)
    return [Score(name, value=float(not error), reason=error), Score(f"{name}.is_json", value=1.0)]


# -- similarity -------------------------------------------------------------------------------------------------------


def similarity(*, at_least: float | None = None, within: str | None = None, key: str | None = None) -> Verifier:
    """How near the answer's meaning is to the wanted text's: the cosine of their MiniLM embeddings, 0.0 where it is negative.

    Of several wanted texts the nearest counts. It is a measure, not a proof: texts that say the opposite are near each
    other, and a policy that is paid by it finds texts that are near everything. Use it as a metric, or to sort.

    Args:
        at_least: 1.0 from this cosine on, else 0.0; None: the cosine itself.
        within: see `exact`.
        key: see `exact`.

    Raises:
        DefinitionError: ``at_least`` is no cosine above 0, or the libraries are missing.
    """
    from agentgym.evaluators.embedding import require

    if at_least is not None and not 0.0 < at_least <= 1.0:
        raise DefinitionError(f"at_least must be above 0 and at most 1, not {at_least!r}")
    _check(within)
    require()
    modules = ("agentgym.evaluators.state", "agentgym.evaluators.embedding")
    return made("similarity", _similarity, *modules, at_least=at_least, within=within, key=key)


def _similarity(
    trajectory: Trajectory, context: VerifierContext, at_least: float | None, within: str | None, key: str | None
) -> Score:
    from agentgym.evaluators.embedding import cosine

    wanted = _wanted(context, key)
    if not all(isinstance(w, str) and w.strip() for w in wanted):
        raise DefinitionError(f"{context.task.id}: what is wanted must be text")
    try:
        answer = _answer(trajectory, within)
    except _Unread as e:
        return _unread("similarity", str(e))
    found = [cosine(answer, w) for w in wanted]
    nearest = max(c for c, _ in found)
    flags = ("cut",) if any(cut for _, cut in found) else ()
    value = max(nearest, 0.0) if at_least is None else float(nearest >= at_least)
    return Score("similarity", value=value, flags=flags, evidence={"cosine": nearest})
