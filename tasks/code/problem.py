# SPDX-License-Identifier: Apache-2.0
"""A generated programming problem: what its text says, what its reference does, and how inputs for it are drawn.

A template draws a `Problem`; text and reference come from the same draw, so they cannot disagree. `cases` runs the reference,
which is this project's own code, to see what it answers.
"""

from __future__ import annotations

import copy
import string
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from agentgym.tasks.math.base import between, pick

Arguments = tuple[Any, ...]


class Problem(NamedTuple):
    """A function to write."""

    name: str
    parameters: str
    """As they stand in the signature, with types: ``numbers: list[int], k: int``."""
    returns: str
    """Type of the result."""
    text: str
    """What the function does, for its docstring; lines are wrapped later."""
    body: str
    """The reference: Python statements that end with ``return``."""
    inputs: Callable[[np.random.Generator], Arguments]
    """Draws arguments."""
    edges: tuple[Arguments, ...] = ()
    """Arguments at the edges, which hidden tests always hold."""

    @property
    def signature(self) -> str:
        """The first line."""
        return f"def {self.name}({self.parameters}) -> {self.returns}:"

    @property
    def reference(self) -> str:
        """The whole function, without a docstring."""
        return f"{self.signature}\n{textwrap.indent(self.body, '    ')}\n"

    def stub(self, examples: list[tuple[Arguments, Any]]) -> str:
        """The function as it is asked for: signature and docstring with examples."""
        lines = [line for part in self.text.split("\n") for line in textwrap.wrap(part, 96) or [""]]
        shown = [f">>> {call_text(self.name, args)}\n{value!r}" for args, value in examples]
        doc = "\n".join([*lines, "", *shown])
        return f"{self.signature}\n{textwrap.indent(f'{QUOTES}{doc}{chr(10)}{QUOTES}', '    ')}\n"


QUOTES = '"""'


def call_text(name: str, args: Arguments) -> str:
    """A call as Python source.

    >>> call_text("f", ([1], "a"))
    "f([1], 'a')"
    """
    return f"{name}({', '.join(map(repr, args))})"


def code(template: str, **values: Any) -> str:
    """Python source with ``$name`` replaced, indentation and blank ends removed."""
    return string.Template(textwrap.dedent(template).strip("\n")).substitute(values)


def function_of(source: str, name: str) -> Callable[..., Any]:
    """The function that a source of this project defines."""
    space: dict[str, Any] = {}
    exec(compile(source, f"<{name}>", "exec"), space)
    found: Callable[..., Any] = space[name]
    return found


def cases(problem: Problem, rng: np.random.Generator, count: int) -> list[tuple[Arguments, Any]]:
    """Distinct arguments, the edges first, and what the reference answers; ``count`` drawn ones."""
    function = function_of(problem.reference, problem.name)
    found: dict[str, tuple[Arguments, Any]] = {}
    wanted = count + len(problem.edges)
    for args in problem.edges:
        found[repr(args)] = args, function(*copy.deepcopy(args))
    for _ in range(20 * count):
        if len(found) >= wanted:
            break
        args = problem.inputs(rng)
        found.setdefault(repr(args), (args, function(*copy.deepcopy(args))))
    return list(found.values())


# -- drawing ----------------------------------------------------------------------------------------------------------

WORDS = (
    "amber birch cedar delta ember frost grove hazel ivory juniper kelp linen maple north olive pearl quartz river slate "
    "tulip umber violet willow yarrow zephyr anchor basket candle drum engine feather garden hammer island jacket kettle "
    "ladder mirror needle orchard pencil quilt ribbon saddle timber velvet wagon oak fig elm sun fog ice map pen tin"
).split()


def numbers(rng: np.random.Generator, most: int = 8, low: int = -20, high: int = 30, least: int = 0) -> list[int]:
    """Whole numbers."""
    return [between(rng, low, high) for _ in range(between(rng, least, most))]


def words(rng: np.random.Generator, most: int = 6, least: int = 0) -> list[str]:
    """Words, some of them twice."""
    return [pick(rng, WORDS) for _ in range(between(rng, least, most))]


def letters(rng: np.random.Generator, alphabet: str, most: int, least: int = 0) -> str:
    """A text of some of the letters."""
    return "".join(pick(rng, alphabet) for _ in range(between(rng, least, most)))


__all__ = ["Problem", "between", "call_text", "cases", "code", "function_of", "letters", "numbers", "pick", "words"]
