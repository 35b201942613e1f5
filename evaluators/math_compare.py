# SPDX-License-Identifier: Apache-2.0
r"""Whether an extracted answer is the gold, as declared policy: same value and same kind of thing. See docs/verifiers.md.

The quick ways come first and settle nearly everything: exact numbers, normalized text, exact values at chosen points.
Only what two quick looks cannot tell apart goes to a worker process.
"""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction
from typing import NamedTuple

from agentgym.evaluators.math_number import (
    CHANGING,
    MOST_NUMBER,
    choice,
    is_missing,
    normal,
    number,
    number_as_written,
    plain_unit,
    without_unit,
)
from agentgym.evaluators.math_parse import LONGEST, Node, Unreadable, parse
from agentgym.evaluators.math_same import Budget, Undecided, same
from agentgym.evaluators.math_values import MOST_NODES, TooLarge, begin_work, size


class Verdict(NamedTuple):
    """What came of a comparison."""

    right: bool
    flags: tuple[str, ...] = ()
    """``unevaluated``: an expression that is left to work out; ``unparsed``, ``too_large``, ``timeout``, ``undecided``,
    ``worker_died``: why it could not be compared."""


WRONG = Verdict(False)
RIGHT = Verdict(True)


def compare(answer: str, gold: str) -> Verdict:
    """Whether an answer, as it was extracted, is the gold.

    >>> compare("0.75", "3/4"), compare("x+1", "1+x"), compare("4200", "42").right
    (Verdict(right=True, flags=()), Verdict(right=True, flags=()), False)
    """
    if is_missing(gold):
        return Verdict(False, ("unscorable",))
    if answer == gold and answer.isdecimal():
        return RIGHT
    answer, gold = answer.strip(), gold.strip()
    if plain_unit(answer) and plain_unit(gold) and plain_unit(answer) != plain_unit(gold):
        return WRONG
    value = number(gold)
    if value is not None:
        given, done = number_as_written(answer) if 0 < len(answer) <= MOST_NUMBER else (None, False)
        if given is not None:
            if given == value:
                # a policy that answers "14 / 2" with "14/2" has only copied the question
                return RIGHT if done or normal(answer) == normal(gold) else Verdict(True, ("unevaluated",))
            return RIGHT if _float_of(answer, value) or _float_of(gold, given) else WRONG
    wanted, said = normal(gold), normal(answer)
    apart = _DIGITS_APART.search(answer) is not None and _DIGITS_APART.search(gold) is None  # 1 2 is not 12
    if wanted and not apart and (said == wanted or (wanted.isalpha() and said.casefold() == wanted.casefold())):
        return RIGHT
    if len(gold) <= 3 and len(answer) <= LONGEST and (letter := choice(gold)) is not None and choice(answer) == letter:
        return RIGHT
    if len(answer) > LONGEST or len(gold) > LONGEST:
        return Verdict(False, ("too_large",))
    verdict = _compared(answer, gold)
    if not verdict.right and (_DECIMAL_COMMA.search(answer) or _DECIMAL_COMMA.search(gold)):
        decimal = compare(_DECIMAL_COMMA.sub(r"\1.\2", answer), _DECIMAL_COMMA.sub(r"\1.\2", gold))
        verdict = decimal if decimal.right else verdict
    return verdict


def _compared(answer: str, gold: str) -> Verdict:
    budget = Budget(once=_OR.search(answer) is not None)
    begin_work()
    try:
        tree = _tree(gold)
    except TooLarge:
        return Verdict(False, ("too_large",))
    except (Unreadable, RecursionError):
        return WRONG  # a gold of words is compared as words
    try:
        return Verdict(same(_tree(answer), tree, budget), tuple(sorted(budget.flags)))
    except Undecided as e:
        return Verdict(False, (str(e),))
    except TooLarge:
        return Verdict(False, ("too_large",))
    except (Unreadable, RecursionError):
        return Verdict(False, ("unparsed",))
    except (ArithmeticError, ValueError, KeyError, TypeError):  # whatever an answer is made of, it is no reason to stop a run
        return Verdict(False, ("undecided",))


def _tree(text: str) -> Node:
    return _remembered_tree(text) if len(text) <= 100 else _parsed(text)


def _parsed(text: str) -> Node:
    text = without_unit(text)
    named = _NAMED.match(text)
    if named is not None and not _NEGATED.search(text) and not CHANGING.search(named[0]):
        text = text[named.end() :]
    tree = parse(text)
    if size(tree) > MOST_NODES:
        raise TooLarge
    return tree


_remembered_tree = functools.lru_cache(maxsize=1024)(_parsed)
_NAMED = re.compile(r"^(?:\\(?:text|mathrm|textbf|mbox)\s?\{[A-Za-z0-9 ,.']*\}|[A-Za-z][A-Za-z ]{3,40})\s*(?:=|:)\s*(?!=)")
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_DIGITS_APART = re.compile(r"[0-9]\s+[0-9]")
_NEGATED = re.compile(r"\b(?:not|never|no|wrong|incorrect|isn't)\b", re.IGNORECASE)
# 1,22 is 1.22 where a comma is the decimal sign; 1,5 may be two answers, and 1,234 is a thousand
_DECIMAL_COMMA = re.compile(r"^([-+]?[0-9]+),([0-9]{2}|[0-9]{4,})$")


def _float_of(answer: str, value: Fraction | float) -> bool:
    """Whether a decimal is what a computer prints for a value that has no finite decimal: 15 digits or more, all right."""
    match = re.fullmatch(r"[-+]?([0-9]*)\.([0-9]+)", answer.strip("$ "))
    if match is None or len((match[1] + match[2]).lstrip("0")) < 15:
        return False
    if isinstance(value, Fraction):
        rest = value.denominator
        for p in (2, 5):
            while rest % p == 0:
                rest //= p
        return rest > 1 and abs(Fraction(match[0]) - value) < Fraction(1, 10 ** len(match[2]))
    return math.isclose(float(match[0]), value, rel_tol=1e-15, abs_tol=0.0)
