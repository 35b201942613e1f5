# SPDX-License-Identifier: Apache-2.0
"""Functions that can be worked out slowly or fast: both programs, drawn together with the text of what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from agentgym.tasks.code.problem import Arguments, between, code, pick

Rng = np.random.Generator


class Quick(NamedTuple):
    """A function of a list of whole numbers that takes its slow program the square of the time of its fast one."""

    name: str
    parameters: str
    text: str
    slow: str
    """Statements that end with ``return``."""
    fast: str
    more: tuple[int, ...] = ()
    """Arguments after the list."""

    @property
    def signature(self) -> str:
        """The first line."""
        return f"def {self.name}({self.parameters}) -> int:"

    def arguments(self, rng: Rng, length: int) -> Arguments:
        """Drawn ones; short lists of small numbers, so that they hold what is looked for."""
        most = 99 if length > 99 else 9
        return [int(n) for n in rng.integers(-most, most + 1, length)], *self.more


def _pairs(rng: Rng) -> Quick:
    k = between(rng, 2, 9)
    return Quick(
        "count_pairs", "numbers: list[int], total: int",
        "In how many ways two entries of the list (at different places, the order does not matter) add up to the total.",
        code("""
            found = 0
            for i in range(len(numbers)):
                for j in range(i):
                    if numbers[i] + numbers[j] == total:
                        found += 1
            return found
        """),
        code("""
            found, seen = 0, {}
            for n in numbers:
                found += seen.get(total - n, 0)
                seen[n] = seen.get(n, 0) + 1
            return found
        """),
        (k,),
    )  # fmt: skip


def _stretch(rng: Rng) -> Quick:
    most = pick(rng, ("largest", "smallest"))
    sign = ">" if most == "largest" else "<"
    return Quick(
        f"{most}_stretch", "numbers: list[int]",
        f"The {most} sum of entries that stand next to each other, at least one of them; 0 for an empty list.",
        code("""
            best = None
            for i in range(len(numbers)):
                total = 0
                for j in range(i, len(numbers)):
                    total += numbers[j]
                    if best is None or total $sign best:
                        best = total
            return 0 if best is None else best
        """, sign=sign),
        code("""
            best, here = None, 0
            for n in numbers:
                here = here + n if here $sign 0 else n
                if best is None or here $sign best:
                    best = here
            return 0 if best is None else best
        """, sign=sign),
    )  # fmt: skip


def _nearest(rng: Rng) -> Quick:
    word, sign = pick(rng, (("smaller", "<"), ("larger", ">")))
    return Quick(
        f"steps_to_{word}", "numbers: list[int]",
        f"For each entry the number of places to the next entry on its right that is {word}, or to the end of the list (the "
        "place behind the last entry) where none is; the sum of these numbers.",
        code("""
            steps = 0
            for i in range(len(numbers)):
                j = i + 1
                low = len(numbers)
                while j < len(numbers):
                    if numbers[j] $sign numbers[i] and j < low:
                        low = j
                    j += 1
                steps += low - i
            return steps
        """, sign=sign),
        code("""
            steps, waiting = 0, []
            for i, n in enumerate(numbers):
                while waiting and n $sign numbers[waiting[-1]]:
                    steps += i - waiting.pop()
                waiting.append(i)
            return steps + sum(len(numbers) - i for i in waiting)
        """, sign=sign),
    )  # fmt: skip


def _before(rng: Rng) -> Quick:
    word, sign = pick(rng, (("greater", ">"), ("smaller", "<")))
    low, high = ("n + 1", "200") if word == "greater" else ("0", "n")
    return Quick(
        f"{word}_before", "numbers: list[int]",
        f"Of how many pairs of entries the one on the left is {word}. Entries lie between -99 and 99.",
        code("""
            found = 0
            for i in range(len(numbers)):
                for j in range(i):
                    if numbers[j] $sign numbers[i]:
                        found += 1
            return found
        """, sign=sign),
        code("""
            found, seen = 0, [0] * 200
            for n in (n + 99 for n in numbers):
                found += sum(seen[$low:$high])
                seen[n] += 1
            return found
        """, low=low, high=high),
    )  # fmt: skip


LEVELS: tuple[tuple[Callable[[Rng], Quick], ...], ...] = ((_pairs, _stretch), (_stretch, _nearest), (_nearest, _before))
"""What is drawn from at levels 1 to 3."""
