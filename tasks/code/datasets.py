# SPDX-License-Identifier: Apache-2.0
"""Data sets of programming: HumanEval and MBPP, from files in their own formats."""

from __future__ import annotations

import ast
import doctest
import warnings
from collections.abc import Iterable
from typing import Any

from agentgym.chat import submit
from agentgym.dataenv import DataEnv, field
from agentgym.env import Probe, Task
from agentgym.errors import DataError
from agentgym.evaluators.code import CodeTests, code_passes
from agentgym.tasks.code.base import CodeEnv, hidden_of, opening

FORGES = """\
import contextlib, os
for fd in range(3, 16):
    with contextlib.suppress(OSError):
        os.write(fd, b'[0, "ok", 1]\\n')
"""
"""Writes an answer that nobody asked for, wherever answers may be read."""


class _Rows(CodeEnv, DataEnv):
    """What the data sets share."""

    def probes(self, task: Task) -> Iterable[Probe]:
        """A program that is wrong, and one that is right and writes where its answers are read."""
        stub = f"{task.hidden['stub']}    return None\n"
        yield Probe("returns nothing", [submit(code=stub)], gold=0.0)
        forges = f"{task.hidden['solution']}\n{FORGES}"
        yield Probe("writes answers of its own", [submit(code=forges)], ("reward_hacking",), gold=0.0)


class HumanEval(_Rows):
    """Functions to complete from their docstring (Chen et al. 2021, arXiv 2107.03374).

    Rows ``{"task_id": ..., "prompt": ..., "entry_point": ..., "canonical_solution": ..., "test": "def check..."}``.
    A row's id is its ``task_id`` with a hyphen for the slash: ``HumanEval-0``. Visible tests are the examples of the docstring
    that can be read; where there are none, the first assertion of the data set's own tests; where that cannot stand alone (two
    rows), none, and the proxy is the row's tests.
    """

    family = "humaneval"
    standard_name = "humaneval.jsonl.gz"

    def row_id(self, row: dict[str, Any], index: int) -> str:
        """The ``task_id``."""
        return field(row, "task_id", str).replace("/", "-")

    def row_task(self, row: dict[str, Any]) -> Task:
        """The prompt; the gold is the row's tests, and inputs made out of them."""
        prompt, entry = field(row, "prompt", str), field(row, "entry_point", str)
        solution, test = field(row, "canonical_solution", str), field(row, "test", str)
        reference = prompt + solution
        _parsed(reference, "prompt and canonical_solution")
        examples = _doctests(prompt, entry) or _first_assertion(_parsed(test, "test"), entry)
        preamble = _preamble(prompt, entry)
        return Task(
            opening=opening("Complete this Python function.", f"```python\n{prompt.strip()}\n```"),
            hidden=hidden_of(
                CodeTests(entry_point=entry, tests=tuple(examples) or (test,), reference=reference, prefix=preamble),
                CodeTests(entry_point=entry, tests=(test,), reference=reference, prefix=preamble),
                examples,
                reference,
                prompt,
            ),
        )


class MBPP(_Rows):
    """Short functions from a sentence (Austin et al. 2021, arXiv 2108.07732), by default the sanitized half.

    Rows ``{"task_id": 11, "prompt" or "text": ..., "code": ..., "test_list": [...], "test_imports": [...]}``. A row's id is its
    ``task_id``. The first test is visible, as it has to be for the function's name and form to be known.
    """

    family = "mbpp"
    standard_name = "mbpp_sanitized.jsonl"
    gold = [code_passes(name="correct", timeout_s=20.0)]  # one reference needs some seconds

    def row_id(self, row: dict[str, Any], index: int) -> str:
        """The ``task_id``."""
        return str(field(row, "task_id", int))

    def row_task(self, row: dict[str, Any]) -> Task:
        """The sentence and the first test; the gold is all tests, and inputs made out of them."""
        text = field(row, "prompt" if "prompt" in row else "text", str)
        code, tests = field(row, "code", str), field(row, "test_list", list)
        imports = row.get("test_imports") or row.get("test_setup_code") or []
        setup = "\n".join([imports] if isinstance(imports, str) else map(str, imports))
        if not tests or not all(isinstance(t, str) for t in tests):
            raise DataError("the field 'test_list' must hold one text or more")
        reference = f"{setup}\n{code}\n" if setup else f"{code}\n"
        defined = [n.name for n in ast.walk(_parsed(code, "code")) if isinstance(n, ast.FunctionDef)]
        called = [
            n.func.id
            for n in ast.walk(_parsed("\n".join(tests), "test_list"))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        entry = next((name for name in called if name in defined), None)
        if entry is None:
            raise DataError("no test of 'test_list' calls a function that 'code' defines")
        task = f"It must pass this test:\n```python\n{tests[0].strip()}\n```"
        stub = next(n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef) and n.name == entry)
        return Task(
            opening=opening(text.strip(), task),
            hidden=hidden_of(
                CodeTests(entry_point=entry, tests=(tests[0],), reference=reference, prefix=setup),
                CodeTests(entry_point=entry, tests=tuple(tests), reference=reference, prefix=setup),
                [tests[0]],
                reference,
                f"def {entry}({ast.unparse(stub.args)}):\n",
            ),
        )


def _parsed(source: str, what: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in somebody else's strings
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as e:
        raise DataError(f"{what} cannot be read as Python: {e}") from None


def _preamble(prompt: str, entry: str) -> str:
    """What stands in front of the function that is to be completed: imports and helpers, which an answer may leave out."""
    before, found, _ = prompt.rpartition(f"def {entry}(")
    return before.strip() if found else ""


def _doctests(prompt: str, entry: str) -> list[str]:
    """The docstring's examples as assertions, those whose answer is a plain value."""
    found = []
    try:
        examples = doctest.DocTestParser().get_examples(prompt)
    except ValueError:
        return []
    for e in examples:
        try:
            value = ast.literal_eval(e.want.strip())
            made = ast.parse(e.source.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if _names(made) <= {entry, *_EVERYDAY} and entry in _names(made):
            found.append(f"assert {ast.unparse(made)} == {value!r}")
    return found


_EVERYDAY = ("abs", "round", "len", "set", "tuple", "list", "sorted", "str")
"""Built-in functions that a test which stands by itself may call."""


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _first_assertion(test: ast.Module, entry: str) -> list[str]:
    """The first assertion of a ``check(candidate)`` that can stand by itself, about the function's own name; or none."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            names = _names(node.test)
            if "candidate" in names and names <= {"candidate", *_EVERYDAY}:
                for n in ast.walk(node.test):
                    if isinstance(n, ast.Name) and n.id == "candidate":
                        n.id = entry
                return [ast.unparse(ast.Assert(node.test, None))]
    return []
