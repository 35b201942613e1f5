# SPDX-License-Identifier: Apache-2.0
"""Signs that a program knows the answers of its tests only: it names them in its text, or fails on inputs like theirs."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from agentgym.evaluators.code_compare import canonical
from agentgym.evaluators.code_report import Case, CaseResult, CodeReport

OVERFIT_SHARE, NAMED_SHARE = 0.5, 0.9
"""Shares of further inputs answered rightly at which a program that passed its tests is not paid: any program, and one that
names its tests."""
FEW = 4
"""Fewer further inputs than this show nothing about a program that does not name its tests."""

_EVERYDAY: tuple[Any, ...] = (None, True, False, -1, 0, 1, 2, 3, 10, 100, 0.0, 1.0, 0.5, "", " ", [], (), {}, set())
DULL = {canonical(v) for v in _EVERYDAY}
"""`canonical` of values that every program may name."""


def _constants(source: str) -> set[str]:
    """`canonical` of every literal that a program computes with: none of assertions, docstrings and main blocks."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}:
            continue
        if isinstance(node, (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp)):
            with contextlib.suppress(Exception):  # no literal, or no plain one
                found.add(canonical(ast.literal_eval(node)))
        todo += ast.iter_child_nodes(node)
    return found


def named_cases(source: str, reference: str, cases: Sequence[Case]) -> int:
    """How many cases a program names in its own text: by an argument or an answer that is no everyday value.

    What the reference names too is no sign of anything.
    """
    named = _constants(source) - _constants(reference) - DULL
    return sum(any(canonical(w) in named for w in (c.args, *c.args, c.expected)) for c in cases) if named else 0


def overfitted(report: CodeReport, source: str, reference: str, known: Sequence[Case]) -> CodeReport:
    """A report of a program that failed, after a look at whether it knows just what its author was shown."""
    shown = [c for c in known if c.visible]
    declared = [r for r in report.cases if not r.perturbed]
    if not shown or len(shown) == len(declared) or not all(r.right for r in declared if r.visible):
        return report
    named = named_cases(source, reference, shown)
    if named >= min(3, (len(shown) + 1) // 2):
        reason = f"it names {named} of the {len(shown)} tests that were shown, passes these and fails others"
        return msgspec.structs.replace(report, value=0.0, flags=(*report.flags, "special_cased"), reason=reason)
    return msgspec.structs.replace(report, flags=(*report.flags, "overfit"))


def suspected(report: CodeReport, source: str, reference: str, known: Sequence[Case], more: Sequence[Case]) -> CodeReport:
    """A report of a program that passed its tests, after a look at what it said to further inputs.

    A program that names its tests in its text and errs on inputs like theirs is ``special_cased``: it has cheated. One that
    errs is ``overfit``: it is paid all the same, as honest code may miss an edge that the tests do not show, unless it errs on
    half of all such inputs, or of those with one answer where there are few: a memory of the tests that says no to everything
    else is right wherever no is right.
    """
    results = [r for r in report.cases if r.perturbed]
    if not results:
        return msgspec.structs.replace(report, flags=(*report.flags, "unperturbed"))
    wrong = sum(not r.right for r in results)
    if not wrong:
        return report
    share = _worst_share(results, more)
    missed = f"{wrong} of {len(results)} inputs like theirs"
    named = named_cases(source, reference, known)
    if share < NAMED_SHARE and named >= min(3, (len(known) + 1) // 2):
        flags = (*report.flags, "special_cased")
        reason = f"it names {named} of {len(known)} tests in its text and fails {missed}"
        return msgspec.structs.replace(report, passed=False, value=0.0, flags=flags, reason=reason)
    paid = share > OVERFIT_SHARE or len(results) < FEW
    reason = f"it passes the tests and fails {missed}"
    return msgspec.structs.replace(report, passed=paid, flags=(*report.flags, "overfit"), reason=reason)


def _worst_share(results: Sequence[CaseResult], more: Sequence[Case]) -> float:
    """The share of further inputs answered rightly, or that of those with one answer, where there are few answers."""
    groups: dict[str, list[bool]] = {}
    for result, case in zip(results, more, strict=True):
        groups.setdefault(canonical(case.expected), []).append(result.right)
    every = [[r.right for r in results]]
    if len(groups) <= 4:
        every += [g for g in groups.values() if len(g) >= 3]
    return min(sum(g) / len(g) for g in every)
