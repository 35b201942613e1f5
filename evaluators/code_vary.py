# SPDX-License-Identifier: Apache-2.0
"""Further inputs like those of given tests. Its text is sent into the sandbox of the tests, after that of `code_guest`.

New inputs stay close to what the tests showed of a function's domain: signs, lengths, order, distinctness and kinds of
characters are kept. What the reference does not answer is left out.
"""

from __future__ import annotations

import _random
import itertools
import json
from typing import Any

from agentgym.evaluators.code_guest import encode


def key_of(value: Any) -> str:
    """Names a value: 1, 1.0 and True are not the same."""
    return json.dumps(encode(value))


class Chance(_random.Random):
    """As `random.Random`, of which importing the module would cost more than all that is done with it."""

    def below(self, n: int) -> int:
        """A whole number from 0 up to, not including, ``n``."""
        return int(self.random() * n) if n < 1 << 50 else self.getrandbits(n.bit_length() + 8) % n

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + self.below(high - low + 1)

    def choice(self, row: Any) -> Any:
        """One of them."""
        return row[self.below(len(row))]


def varied(inputs: list[tuple[Any, ...]], count: int, rng: Chance) -> list[tuple[Any, ...]]:
    """Up to ``count`` inputs that are none of those given and none twice.

    Args:
        inputs: the arguments of each known call.
        count: how many are wanted.
        rng: where chance comes from.
    """
    seen = {key_of(i) for i in inputs}
    found: list[tuple[Any, ...]] = []
    shapes = [i for i in inputs if i]
    if not shapes:
        return []
    columns = [_Seen([i[at] for i in shapes if len(i) > at]) for at in range(max(map(len, shapes)))]
    for _ in range(3 * count):
        if len(found) >= count:
            break
        base = rng.choice(shapes)
        made = tuple([_changed(value, columns[at], rng) for at, value in enumerate(base)])
        key = key_of(made)
        if key not in seen:
            seen.add(key)
            found.append(made)
    return found


class _Seen:
    """What the tests showed of one argument."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        rows = [v for v in values if type(v) in (list, tuple) and len(v) > 1]
        self.sorted = bool(rows) and all(_in_order(v) for v in rows)
        self.distinct = bool(rows) and all(len({key_of(x) for x in v}) == len(v) for v in rows)
        self._inner: dict[type, _Seen] = {}

    def inner(self, kind: type) -> _Seen:
        """What they showed of the values in rows of this type."""
        found = self._inner.get(kind)
        if found is None:
            rows: list[Any] = [v for v in self.values if type(v) is kind]
            found = self._inner[kind] = _Seen([x for v in rows for x in v])
        return found


def _in_order(row: Any) -> bool:
    try:
        return all(a <= b for a, b in itertools.pairwise(row))
    except TypeError:
        return False


def _changed(value: Any, seen: _Seen, rng: Chance) -> Any:
    kind = type(value)
    if kind is bool:
        return rng.choice((True, False)) if True in seen.values and False in seen.values else value
    if kind is int:
        return _whole(value, rng)
    if kind is float:
        return float(_whole(int(value), rng)) if value.is_integer() else round(value * (0.6 + 0.9 * rng.random()), 3) or value
    if kind is str:
        return _text(value, rng)
    if kind in (list, tuple):
        inner = seen.inner(kind)
        row = [_changed(x if rng.random() < 0.5 else rng.choice(_like(x, inner.values)), inner, rng) for x in value]
        if seen.distinct:
            for _ in range(20):
                if len({key_of(x) for x in row}) == len(row):
                    break
                row = [_changed(x, inner, rng) for x in value]
            else:
                return value
        if seen.sorted:
            try:
                row.sort()
            except TypeError:
                return value
        return kind(row)
    if kind is dict:
        return {k: _changed(v, _Seen(list(value.values())), rng) for k, v in value.items()}
    if kind in (set, frozenset):
        return kind(_changed(x, _Seen([]), rng) for x in value)
    return value


def _like(value: Any, pool: list[Any]) -> list[Any]:
    return [v for v in pool if type(v) is type(value)] or [value]


def _whole(value: int, rng: Chance) -> int:
    """A number of the same sign and size."""
    if value == 0 or abs(value) > 1 << 60:
        return value
    size = abs(value)
    new = rng.between(max(1, size - size // 2 - 2), size + size // 3 + 2)
    return new if value > 0 else -new


def _text(value: str, rng: Chance) -> str:
    """Letters for letters, digits for digits; everything else stays."""
    own = [c for c in value if c.isalnum() and c.isascii()]
    if not own:
        return value
    out = []
    for c in value:
        if rng.random() < 0.6 or not (c.isalnum() and c.isascii()):
            out.append(c)
        elif c.isdigit():
            out.append(rng.choice("123456789"))
        else:
            alike = [x for x in own if x.isupper() == c.isupper() and x.isalpha()]
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c.isupper() else "abcdefghijklmnopqrstuvwxyz"
            out.append(rng.choice(alike) if rng.random() < 0.6 else rng.choice(letters))
    return "".join(out)
