# SPDX-License-Identifier: Apache-2.0
"""Whether two plain values are the same: exactly, as Python's ``==`` has it, or nearly.

All of them are values that `code_guest.decode` gave, of Python's own types exactly, so that comparing them runs no code of
anybody's.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from agentgym.evaluators.code_guest import encode

Sameness = Literal["exact", "equal", "near", "unordered"]
"""``exact``: the same types throughout (1, 1.0 and True differ, nan is nan); ``equal``: as ``==``, and nan is nan; ``near``:
also floats that differ in the sixth place, and lists for tuples; ``unordered``: and in any order."""
LEVELS: tuple[Sameness, ...] = ("exact", "equal", "near", "unordered")
_NEAR = 1e-5


_dumps = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def canonical(value: Any) -> str:
    """One text for values that are exactly the same, another for others."""
    return canonical_wire(encode(value))


def canonical_wire(wire: Any) -> str:
    """The same for a value's wire form, which may be malformed: then it is the text of no value."""
    return _dumps(_sorted(wire))


def _sorted(wire: Any) -> Any:
    if type(wire) is not list or not wire:
        return 0.0 if type(wire) is float and wire == 0 else wire
    tag, *rest = wire
    rest = [_sorted(w) for w in rest]
    if tag in ("s", "z"):
        rest.sort(key=_dumps)
    elif tag == "d" and len(wire) % 2:
        pairs = sorted(zip(rest[::2], rest[1::2], strict=True), key=lambda pair: _dumps(pair[0]))
        rest = [part for pair in pairs for part in pair]
    return [tag, *rest]


def same(a: Any, b: Any, how: Sameness = "exact", tolerance: float = 0.0) -> bool:
    """Whether two plain values are the same.

    Args:
        a: one of them.
        b: the other.
        how: by which measure.
        tolerance: for floats, relative to the larger of 1 and the numbers.

    >>> same(1, True), same(1, True, "equal"), same((1,), [1], "equal"), same([2, 1], (1, 2), "unordered")
    (False, True, False, True)
    """
    if canonical(a) == canonical(b):
        return True
    if how == "exact":
        return tolerance > 0 and _walk(a, b, True, tolerance, False, False)
    loose = how in ("near", "unordered")
    return _walk(a, b, False, max(tolerance, _NEAR if loose else 0.0), loose, how == "unordered")


_NUMBERS = (bool, int, float, complex)


def _close(a: Any, b: Any, tolerance: float) -> bool:
    try:
        if a == b:
            return True
        if type(a) is complex or type(b) is complex:
            return tolerance > 0 and abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))
        x, y = float(a), float(b)
    except OverflowError:
        return False
    if math.isnan(x) and math.isnan(y):
        return True
    if float not in (type(a), type(b)) or not (math.isfinite(x) and math.isfinite(y)):
        return False
    return tolerance > 0 and abs(x - y) <= tolerance * max(1.0, abs(x), abs(y))


def _walk(a: Any, b: Any, typed: bool, tolerance: float, loose: bool, unordered: bool) -> bool:
    if type(a) in _NUMBERS and type(b) in _NUMBERS:
        return (not typed or type(a) is type(b)) and _close(a, b, tolerance)
    rows = (list, tuple, set, frozenset) if unordered else (list, tuple)
    if (loose and type(a) in rows and type(b) in rows) or (type(a) is type(b) and type(a) in (list, tuple)):
        if len(a) != len(b):
            return False
        if unordered:
            a, b = (sorted(x, key=_place) for x in (a, b))
        return all(_walk(x, y, typed, tolerance, loose, unordered) for x, y in zip(a, b, strict=True))
    if type(a) is dict and type(b) is dict:
        if len(a) != len(b):
            return False
        if typed:
            named = {canonical(k): v for k, v in b.items()}
            return all(
                (key := canonical(k)) in named and _walk(v, named[key], typed, tolerance, loose, unordered)
                for k, v in a.items()
            )
        return all(k in b and _walk(v, b[k], typed, tolerance, loose, unordered) for k, v in a.items())
    if typed and type(a) is not type(b):
        return False
    return type(a) not in (list, tuple, dict) and bool(a == b)


def _place(value: Any) -> tuple[str, float, str]:
    """Where a value stands among others, so that nearly equal ones stand at nearly the same place."""
    if type(value) in (bool, int, float):
        try:
            return "", float(value), ""
        except OverflowError:
            return "", math.inf, str(value.bit_length())
    if type(value) in (list, tuple, set, frozenset):
        return "row", float(len(value)), "".join(str(_place(v)) for v in sorted(value, key=_place))
    return type(value).__name__, 0.0, canonical(value)


def sameness(pairs: list[tuple[Any, Any]]) -> Sameness | None:
    """The strictest measure by which all pairs are the same, or None."""
    for how in LEVELS:
        if all(same(a, b, how) for a, b in pairs):
            return how
    return None
