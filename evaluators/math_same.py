# SPDX-License-Identifier: Apache-2.0
"""Whether two trees of mathematics are the same thing: kinds first (a tuple is no interval), then values."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from typing import Any

from agentgym.evaluators.math_parse import Node
from agentgym.evaluators.math_values import Inexact, TooLarge, canonical, exact, rough, symbols
from agentgym.evaluators.math_workers import CPU_S, same_value

CPU_TOTAL_S = 0.5
"""CPU seconds of all worker questions of one verdict together."""

MOST_ITEMS = 60
"""Of a list, set, tuple or matrix."""

_CALCULUS = ("sum", "prod", "int", "lim", "iint", "oint")


class Undecided(Exception):
    """Carries the flag that says why."""


class Budget:
    """CPU that is left for workers, and how strictly lists are taken.

    Args:
        once: whether an answer that repeats what it has listed already is refused: with an "or" in it, it hedges.
    """

    def __init__(self, *, once: bool = False) -> None:
        self.once = once
        self.left = CPU_TOTAL_S
        self.flags: set[str] = set()

    def ask(self, a: Node, b: Node) -> bool:
        """Whether two trees are the same, from a worker."""
        if self.left <= 0.01:
            raise Undecided("timeout")
        outcome, used = same_value(_plain(a), _plain(b), min(CPU_S, self.left))
        self.left -= used
        if outcome in ("same", "different"):
            return outcome == "same"
        raise Undecided("worker_died" if outcome == "died" else outcome)


# -- kinds of things --------------------------------------------------------------------------------------------------


def same(a: Node, g: Node, budget: Budget) -> bool:
    """Whether two trees are the same thing."""
    if a[0] == "union" and g[0] == "list":
        intervals = [_interval(n) for n in g[1:]]
        if None not in intervals:
            g = ("union", "\\cup", *intervals)
    several = _items(a), _items(g)
    if len(several[0]) > 1 or len(several[1]) > 1 or a[0] in ("set", "list") or g[0] in ("set", "list"):
        if a[0] == "set" and g[0] not in ("set", "list", "pm"):
            return False
        if _different_names(several[1]) and not any(item[0] == "rel" for item in several[0]):
            # x = 1, y = 2 may be answered by 1, 2: in this order
            if len(several[0]) != len(several[1]):
                return False
            return all(same(x, y, budget) for x, y in zip(several[0], several[1], strict=True))
        return _same_items(several[0], several[1], budget, once=budget.once)
    a, g = several[0][0], several[1][0]
    if a[0] in ("rel", "chain") or g[0] in ("rel", "chain"):
        return _same_relation(a, g, budget)
    if a[0] in _STRUCTURED or g[0] in _STRUCTURED:
        a, g = _whole_matrix(a), _whole_matrix(g)
        if a[0] != g[0]:
            return False
        if a[0] == "base":
            return a == g
        if a[0] == "text":
            return bool(a[1].casefold() == g[1].casefold())
        if a[0] == "union":
            if a[1] != g[1]:
                return False
            if a[1] == "\\setminus":
                return len(a) == len(g) and all(same(x, y, budget) for x, y in zip(a[2:], g[2:], strict=True))
            return _same_items(a[2:], g[2:], budget)
        fixed = {"seq": 3, "ratio": 1, "matrix": 2}[a[0]]
        if len(a) != len(g) or a[1:fixed] != g[1:fixed] or len(a) > MOST_ITEMS + fixed:
            return False
        return all(same(x, y, budget) for x, y in zip(a[fixed:], g[fixed:], strict=True))
    return _same_value(a, g, budget)


_STRUCTURED = ("seq", "ratio", "union", "matrix", "base", "text")


def _different_names(items: tuple[Node, ...]) -> bool:
    """Whether items are equations of different variables; x_1 and x_2 are roots of one."""
    names = [item[2] for item in items if item[0] == "rel" and item[1] == "="]
    return len(names) == len(items) > 1 == len({n[0] for n in names}) and len({str(n[:2]) for n in names if n[0] == "sym"}) > 1


def _items(node: Node) -> tuple[Node, ...]:
    """The alternatives that a tree lists; a plus-or-minus is two."""
    if node[0] in ("list", "set"):
        return tuple(itertools.chain.from_iterable(_items(n) if n[0] in ("list", "pm", "rel") else (n,) for n in node[1:]))
    if node[0] == "rel" and node[1] in ("=", "in") and node[3][0] in ("list", "set") and _is_name(node[2]):
        return _items(node[3])
    signs = _signs(node)
    if not signs:
        return (node,)
    if signs > 3:
        raise TooLarge
    return tuple(_with_signs(node, list(choice)) for choice in itertools.product((1, -1), repeat=signs))


def _signs(node: Any) -> int:
    if type(node) is not tuple:
        return 0
    if node[0] in ("seq", "matrix", "union", "chain"):
        return 0
    return int(node[0] == "pm") + sum(map(_signs, node[1:]))


def _with_signs(node: Any, choice: list[int]) -> Any:
    if type(node) is not tuple:
        return node
    if node[0] == "pm":
        sign = choice.pop()
        left, right = _with_signs(node[1], choice), _with_signs(node[2], choice)
        return ("add", left, right if sign > 0 else ("neg", right))
    return tuple(_with_signs(n, choice) for n in node)


def _same_items(a: tuple[Node, ...], g: tuple[Node, ...], budget: Budget, *, once: bool = False) -> bool:
    """Whether each of the one is among the other, in any order.

    With ``once``, an answer may not list again what it has listed already.
    """
    if max(len(a), len(g)) > MOST_ITEMS:
        raise TooLarge
    if not a or not g:
        return not a and not g
    left = list(range(len(g)))
    for item in a:
        among = left if once else range(len(g))
        found = next((j for j in among if same(item, g[j], budget)), None)
        if found is None:
            return False
        if found in left:
            left.remove(found)
    # what is listed twice in the gold is matched once
    return all(any(same(g[j], g[k], budget) for k in range(len(g)) if k not in left) for j in left)


def _whole_matrix(node: Node) -> Node:
    """Sums and multiples of matrices as one matrix."""
    if node[0] == "neg":
        inner = _whole_matrix(node[1])
        return ("matrix", inner[1], *(("neg", n) for n in inner[2:])) if inner[0] == "matrix" else node
    if node[0] == "add":
        parts = [_whole_matrix(n) for n in node[1:]]
        if all(p[0] == "matrix" for p in parts) and len({(p[1], len(p)) for p in parts}) == 1:
            return ("matrix", parts[0][1], *(("add", *cells) for cells in zip(*(p[2:] for p in parts), strict=True)))
    if node[0] in ("mul", "div"):
        parts = [_whole_matrix(n) for n in node[1:]]
        matrices = [p for p in parts if p[0] == "matrix"]
        if len(matrices) == 1 and (node[0] == "mul" or parts[0][0] == "matrix"):
            m = matrices[0]
            others = [p for p in parts if p is not m]
            return ("matrix", m[1], *((node[0], n, *others) for n in m[2:]))
    return node


# -- relations ------------------------------------------------------------------------------------------------------------


def _is_name(node: Node) -> bool:
    """Whether a side of an equation only names what is on the other side: x, f(x), |AB|, a - b; not 2x - 3, not -x."""
    if node[0] in ("sym", "text"):
        return True
    if node[0] == "fn":
        return node[1] in ("index", "call", *_CALCULUS) or all(_is_name(n) for n in node[2:])
    if node[0] in ("mul", "add", "div", "ratio", "seq"):
        parts = [n[1] if n[0] == "neg" and node[0] == "add" else n for n in node[1:] if type(n) is tuple]
        return all(_is_name(n) for n in parts)
    return False


def _closed(node: Node) -> bool:
    return not symbols(node) if node[0] not in ("rel", "chain", "text") else False


def _value_of(node: Node) -> Node | None:
    """What an equation says that something is: of ``x = 5``, ``5 = x`` and ``2 + 3 = 5`` the 5; None where it says no value."""
    if node[0] == "chain" and all(r[1] in ("=", "~") for r in node[1:]):
        while len(node) > 2 and node[-1][1] == "~":  # x = 1/3 = 0.33 roughly
            node = node[:-1]
        node = ("rel", "=", node[1][2], node[-1][3])
    if node[0] != "rel" or node[1] not in ("=", "~", "in"):
        return None
    left: Node = node[2]
    right: Node = node[3]
    if _is_name(left):
        return right
    if node[1] == "in":
        return None
    if _is_name(right) and _closed(left):
        return left
    if _closed(left) and _closed(right):
        if node[1] == "=" and _same_exactly(left, right, []) is False:
            return None  # 1 + 1 = 3
        if node[1] == "~":  # sqrt(3)/3 = 0.577 roughly
            return left if _roughly(left, right) else None
        return right
    return None


def _adds_names(node: Node) -> bool:
    """Whether an equation has a sum of names on the side that is a name: x + y = 5."""
    return any(side[0] == "add" and _is_name(side) and _closed(other) for side, other in (node[2:4], node[3:1:-1]))


def _roughly(a: Node, b: Node) -> bool:
    try:
        x, y = rough(a, {}), rough(b, {})
    except (Inexact, ArithmeticError, ValueError):
        return False
    return abs(x - y) <= 0.02 * max(abs(x), abs(y))


def _same_relation(a: Node, g: Node, budget: Budget) -> bool:
    if a[0] == "rel" and a[1] == "in" and _is_name(a[2]) and (interval := _interval(g)) is not None:
        return same(a[3], interval, budget)
    if a[0] in ("rel", "chain") and g[0] in ("rel", "chain"):
        if a[0] == "chain" or g[0] == "chain":
            return _same_chain(a, g, budget)
        return _same_two(a, g, budget)
    relation, other = (a, g) if a[0] in ("rel", "chain") else (g, a)
    value = _value_of(relation)
    if relation is g and g[0] == "rel" and _adds_names(g):
        value = None  # a gold x + y = 5 is an equation; an answer a + b = 5 may name what was asked for
    if value is None and relation is g:
        value = _interval(g)
    if value is None:
        return False
    return same(value, other, budget) if relation is a else same(other, value, budget)


def _interval(node: Node) -> Node | None:
    """The interval of an inequality in one variable: the same set, as people write it. Only of golds, see the policy."""
    infinite: Node = ("const", "oo")
    if node[0] == "rel" and node[1] in _TURNED and len(node) == 4:
        operator, left, right = node[1:]
        if _is_name(right) and not _is_name(left):
            operator, left, right = _TURNED[operator], right, left
        if left[0] != "sym" or not _closed(right):
            return None
        closed = len(operator) == 2
        if operator[0] == "<":
            return ("seq", "(", "]" if closed else ")", ("neg", infinite), right)
        return ("seq", "[" if closed else "(", ")", right, infinite)
    if node[0] == "chain" and len(node) == 3 and node[1][1] in _TURNED and node[2][1][0] == node[1][1][0]:
        first, second = node[1:]
        if first[1][0] == ">":
            first, second = ("rel", _TURNED[second[1]], second[3], second[2]), ("rel", _TURNED[first[1]], first[3], first[2])
        if first[3][0] == "sym" and _closed(first[2]) and _closed(second[3]):
            brackets = "[" if len(first[1]) == 2 else "(", "]" if len(second[1]) == 2 else ")"
            return ("seq", *brackets, first[2], second[3])
    return None


def _same_chain(a: Node, g: Node, budget: Budget) -> bool:
    values = _value_of(a), _value_of(g)
    if values[0] is not None and values[1] is not None:
        return same(values[0], values[1], budget)
    if a[0] == g[0] == "chain" and len(a) == len(g):
        for turned in (a, ("chain", *(("rel", _TURNED.get(r[1], r[1]), r[3], r[2]) for r in reversed(a[1:])))):
            ops = [r[1] for r in turned[1:]] == [r[1] for r in g[1:]]
            if ops and all(
                same(x[2], y[2], budget) and same(x[3], y[3], budget) for x, y in zip(turned[1:], g[1:], strict=True)
            ):
                return True
    return False


_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def _same_two(a: Node, g: Node, budget: Budget) -> bool:
    """Two relations: the same sides, or the same up to a factor."""
    for turned in (a, ("rel", _TURNED.get(a[1], a[1]), a[3], a[2])):
        if turned[1] != g[1]:
            continue
        if turned is not a and a[1] not in ("=", "!=", "==", "~", *_TURNED):
            continue
        sides = _same_side(turned[2], g[2], budget) and same(turned[3], g[3], budget)
        if sides:
            return True
        if g[1] not in ("=", "!=", *_TURNED) or any(_odd(n) for n in (turned[2], turned[3], g[2], g[3])):
            continue
        factor = _factor(("add", turned[2], ("neg", turned[3])), ("add", g[2], ("neg", g[3])))
        if factor is not None and (factor > 0 or g[1] in ("=", "!=")):
            value = _value_of(g)
            if (
                value is not None
                and _closed(value)
                and not _adds_names(g)
                and not ((_is_name(a[2]) and _closed(a[3])) or (_is_name(a[3]) and _closed(a[2])))
            ):
                raise Undecided("unevaluated")  # 2x - 3 = 5 is the question, x = 4 the answer
            return True
    return False


def _odd(node: Node) -> bool:
    return node[0] in ("seq", "set", "list", "ratio", "union", "matrix", "base", "text", "pm")


def _same_side(a: Node, g: Node, budget: Budget) -> bool:
    """The left sides of two equations; of functions the argument's name does not matter: W(n), W(x)."""
    if a[0] == g[0] == "mul" and len(a) == len(g) == 3 and a[1] == g[1] and a[1][0] == a[2][0] == g[2][0] == "sym":
        return True
    return same(a, g, budget)


def _factor(a: Node, g: Node) -> Fraction | None:
    """The constant c with a = c g, for rational functions; None where there is none."""
    names = sorted(symbols(a) | symbols(g))
    factor: Fraction | None = None
    for env in _points(names, 5):
        try:
            x, y = exact(a, env), exact(g, env)
        except (Inexact, ZeroDivisionError):
            return None
        if not y or not x:
            if x or y or not names:
                return None
            continue
        if factor is None:
            factor = x / y
        elif factor != x / y:
            return None
    return factor


# -- values ---------------------------------------------------------------------------------------------------------------


def _points(names: list[str], count: int) -> list[dict[str, Fraction]]:
    """Where expressions are compared: the same points in every process."""
    if not names:
        return [{}]
    rng = random.Random(len(names))
    return [
        {
            name: Fraction(rng.randrange(2, 3000), rng.randrange(1, 12)) * (-1 if i % 2 and rng.random() < 0.6 else 1)
            for name in names
        }
        for i in range(count)
    ]


def _same_value(a: Node, g: Node, budget: Budget) -> bool:
    """Whether two expressions have the same value wherever they have one; what is left to work out is flagged."""
    calculus = _holds_calculus(a)
    if canonical(a) == canonical(g):
        if not _literal(a) and _literal(g):
            budget.flags.add("unevaluated")
        return True
    if calculus:
        # a sum, integral or limit that the gold does not have is the question over again
        raise Undecided("unevaluated")
    if _has(a, "oo") or _has(g, "oo"):
        return False
    names = sorted(symbols(a) | symbols(g))
    from_calculus = _holds_calculus(g)
    decided = None if from_calculus else _same_exactly(a, g, names)
    if decided is None and not from_calculus:
        if _far_apart(a, g, names):
            return False
        if not names and _literal(a) and a[0] in ("num", "neg") and not _literal(g) and _close_float(a, g):
            return True
    if decided is None:
        decided = budget.ask(a, g)
    if decided and _literal(g) and not _literal(a):
        budget.flags.add("unevaluated")
    return decided


def _same_exactly(a: Node, g: Node, names: list[str]) -> bool | None:
    """By exact values; None where they are not rational."""
    agreed = 0
    for env in _points(names, 8):
        try:
            x, y = exact(a, env), exact(g, env)
        except Inexact:
            return None
        except ZeroDivisionError:
            if not names:
                return False
            continue
        if x != y:
            return False
        agreed += 1
    return True if agreed >= (4 if names else 1) else None


def _far_apart(a: Node, g: Node, names: list[str]) -> bool:
    """Whether floating point is enough to see that two expressions differ."""
    for env in _points(names, 3):
        at = {name: complex(value) / (500 if names else 1) for name, value in env.items()}
        try:
            x, y = rough(a, at), rough(g, at)
        except (Inexact, ArithmeticError, ValueError, TypeError):
            continue
        if names and (abs(x.imag) > 1e-9 * abs(x) or abs(y.imag) > 1e-9 * abs(y)):
            continue
        largest = max(abs(x), abs(y))
        if 1e-100 < largest < 1e100 and abs(x - y) > 1e-5 * largest and abs(x - y) > 1e-9:
            return True
    return False


def _close_float(a: Node, g: Node) -> bool:
    """Whether a decimal is what a computer prints for an irrational value."""
    value = exact(a, {})
    digits = len(str(value.numerator * 10**30 // value.denominator).lstrip("-").rstrip("0"))
    try:
        y = rough(g, {})
    except (Inexact, ArithmeticError, ValueError):
        return False
    return digits >= 15 and abs(y.imag) < 1e-15 and math.isclose(float(value), y.real, rel_tol=1e-15, abs_tol=0.0)


def _holds_calculus(node: Any) -> bool:
    if type(node) is not tuple:
        return False
    return (node[0] == "fn" and node[1] in _CALCULUS) or any(_holds_calculus(n) for n in node[1:])


def _has(node: Any, constant: str) -> bool:
    return type(node) is tuple and (node == ("const", constant) or any(_has(n, constant) for n in node[1:]))


def _literal(node: Node) -> bool:
    """Whether a tree is a number as one writes a result: 5, -5, 0.5, 1/2, 1 1/2, 1.5 x 10^3; not 3 + 4, 14/2 or 2/4."""
    kind = node[0]
    if kind == "num":
        return bool(node[3])
    if kind == "neg":
        return node[1][0] != "neg" and _literal(node[1])
    if kind == "div":
        p, q = node[1], node[2]
        p = p[1] if p[0] == "neg" else p
        return bool(p[0] == q[0] == "num" and p[2] == q[2] == 1 < q[1] and math.gcd(p[1], q[1]) == 1)
    if kind == "add":
        return len(node) == 3 and node[1][0] == "num" and node[1][2] == 1 and node[2][0] == "div" and _literal(node[2])
    if kind == "mul":
        return (
            len(node) == 3 and _literal(node[1]) and node[1][0] in ("num", "neg") and node[2][0] == "pow"
            and node[2][1] == ("num", 10, 1, True) and _literal(node[2][2]) and node[2][2][0] in ("num", "neg")
        )  # fmt: skip
    return False


def _plain(node: Node) -> Node:
    """A tree for a worker: what has no value of its own becomes a name."""
    if node[0] == "fn" and node[1] not in (*_CALCULUS, "_", "^") and repr(canonical(node)) in symbols(node):
        return ("opaque", repr(canonical(node)))
    if node[0] in ("text", "seq", "set", "list", "matrix", "union", "ratio", "base", "pm"):
        raise Undecided("undecided")
    return tuple(_plain(n) if type(n) is tuple else n for n in node)
