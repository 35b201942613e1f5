# SPDX-License-Identifier: Apache-2.0
"""What a program is judged by, and what came of it: cases, hidden tests and reports, as data."""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym.errors import DefinitionError
from agentgym.evaluators.code_guest import NotPlain, decode, encode

MOST_SOURCE = 200_000
"""Characters of a program; a longer one is refused unread."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One call and what must come of it. All values are plain data of exactly Python's own types."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    expected: Any = None
    raises: str = ""
    """Name of the built-in exception that must be raised instead, e.g. ``ValueError``."""
    tolerance: float = 0.0
    """For floats: largest difference, relative to the larger of 1 and the numbers. 0: the same number."""
    visible: bool = False
    """Whether the candidate's author was shown this case."""
    perturbed: bool = False
    """Made out of other cases; its expected answer is the reference's."""


class CodeTests(msgspec.Struct, frozen=True, kw_only=True):
    """What a task keeps hidden to judge a program by. `hidden` is the form for ``Task.hidden``.

    >>> tests = CodeTests(entry_point="pair", cases=(Case(args=(1,), expected=(1, 1)),))
    >>> CodeTests.of(tests.hidden()) == tests
    True
    """

    entry_point: str = ""
    cases: tuple[Case, ...] = ()
    tests: tuple[str, ...] = ()
    """A data set's own test code: one text with a ``check(candidate)``, or assertions about the entry point."""
    output: tuple[tuple[str, str], ...] = ()
    """(standard input, standard output) of a program without an entry point."""
    reference: str = ""
    """A program that is right, whole: it defines the entry point and what the tests use beside it."""
    prefix: str = ""
    """Put in front of what was submitted: imports, or the beginning of a function that is to be completed."""

    def hidden(self) -> dict[str, Any]:
        """As plain values that keep tuples, sets, bytes and numbers apart.

        Raises:
            DefinitionError: a case is no plain data.
        """
        found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, cases=()))
        try:
            found["cases"] = [
                [encode(list(c.args)), encode(c.kwargs), encode(c.expected), c.raises, c.tolerance, c.visible]
                for c in self.cases
            ]
        except NotPlain as e:
            raise DefinitionError(f"a case of {self.entry_point} is no plain data: {e}") from None
        return found

    @classmethod
    def of(cls, hidden: Any) -> CodeTests:
        """From what `hidden` gave.

        Raises:
            DefinitionError: it is nothing of the kind.
        """
        try:
            cases = tuple(
                Case(args=tuple(decode(a)), kwargs=decode(k), expected=decode(e), raises=raises, tolerance=near, visible=shown)
                for a, k, e, raises, near, shown in hidden.get("cases", ())
            )
            return msgspec.structs.replace(msgspec.convert({**hidden, "cases": ()}, cls), cases=cases)
        except (AttributeError, TypeError, ValueError, NotPlain, msgspec.ValidationError) as e:
            raise DefinitionError(
                f"these are no tests of a program; keep CodeTests(...).hidden() in Task.hidden: {e}"
            ) from None


class CaseResult(msgspec.Struct, frozen=True, gc=False):
    """How one case went."""

    right: bool
    outcome: str
    """``right``, ``wrong``, ``raised TYPE``, ``refused`` (no plain data), ``unloadable`` (the program itself raises or defines no
    such function), ``ended`` (its process), ``timeout``, ``memory``."""
    visible: bool = False
    perturbed: bool = False


class CodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a program."""

    passed: bool
    """Whether it is to be paid: every test holds, and it is not found to know their answers only."""
    value: float
    """Share of the tests that hold, perturbed ones not counted; 0 where it was found to cheat."""
    reason: str = ""
    """What first went wrong, for a person. May hold words of the candidate's."""
    flags: tuple[str, ...] = ()
    """``no_code``, ``too_long``, ``unloadable``, ``refused``, ``forged``, ``ended``, ``timeout``, ``memory``;
    ``special_cased``, ``overfit``, ``unperturbed``."""
    cases: tuple[CaseResult, ...] = ()
    tests: tuple[bool, ...] = ()
    """Of `grade_program`: each test."""
    wall_s: float = 0.0
    """Seconds that the candidate ran, measured outside."""

    def right(self, *, perturbed: bool = False) -> tuple[int, int]:
        """How many cases hold, and of how many."""
        chosen = [c for c in self.cases if c.perturbed == perturbed]
        return sum(c.right for c in chosen), len(chosen)


def refusal(flag: str, reason: str, wall_s: float = 0.0, tests: int = 0) -> CodeReport:
    """A report of nothing achieved."""
    return CodeReport(passed=False, value=0.0, reason=reason, flags=(flag,), wall_s=wall_s, tests=(False,) * tests)


def unread(source: str) -> CodeReport | None:
    """A report on a program that is not even run; None for others."""
    if not source.strip():
        return refusal("no_code", "there is no program")
    if len(source) > MOST_SOURCE:
        return refusal("too_long", f"a program of more than {MOST_SOURCE:,} characters")
    return None


_TROUBLE = ("unloadable", "refused", "ended", "timeout", "memory")


def summary(results: list[CaseResult], forged: bool, wall_s: float) -> CodeReport:
    """A report over cases: all that were declared must hold."""
    declared = [r for r in results if not r.perturbed]
    right = sum(r.right for r in declared)
    wrong = next((r for r in declared if not r.right), None)
    flags = [t for t in _TROUBLE if any(r.outcome == t for r in declared)]
    reason = (
        "" if wrong is None else f"{len(declared) - right} of {len(declared)} cases do not hold; the first: {wrong.outcome}"
    )
    if forged:
        flags.insert(0, "forged")
        reason = "it wrote replies of its own"
    return CodeReport(
        passed=wrong is None and not forged,
        value=0.0 if forged else right / len(declared),
        reason=reason,
        flags=tuple(flags),
        cases=tuple(results),
        wall_s=wall_s,
    )
