# SPDX-License-Identifier: Apache-2.0
"""Values of parsed mathematics: exact fractions where there are any, quick floating-point ones to tell answers apart.

All is bounded: no number of more than `MOST_BITS`, and no more than `MOST_STEPS` operations.
"""

from __future__ import annotations

import cmath
import math
import threading
from collections.abc import Mapping
from fractions import Fraction

from agentgym.evaluators.math_parse import Node

MOST_BITS = 20_000
"""Of an exact numerator or denominator: 2006! has 19,118."""

MOST_WORK = 30_000_000
"""Steps over 64 bits of exact arithmetic for one verdict; some 0.1 s of CPU."""

MOST_NODES = 600
"""Of one tree."""


class Inexact(Exception):
    """Not a rational number, as far as is easily seen."""


class TooLarge(Exception):
    """More digits or operations than are granted."""


def size(node: Node) -> int:
    """How many nodes a tree has."""
    count, left = 0, [node]
    while left:
        n = left.pop()
        count += 1
        left += [c for c in n if type(c) is tuple]
    return count


def symbols(node: Node) -> set[str]:
    """The names of what is free in a tree: variables, and opaque things such as f(x), by their canonical names."""
    found: set[str] = set()
    left = [node]
    while left:
        n = left.pop()
        if n[0] == "sym":
            found.add(n[1])
        elif n[0] == "fn" and n[1] not in _KNOWN:
            found.add(repr(canonical(n)))
        else:
            left += [c for c in n if type(c) is tuple]
    return found


_KNOWN = frozenset(
    [
        *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln"),
        *("abs", "floor", "ceil", "gcd", "lcm", "min", "max", "factorial", "binom"),
    ]
)


_work = threading.local()


def begin_work() -> None:
    """Grants this thread `MOST_WORK` for one verdict."""
    _work.left = MOST_WORK


def _guard(value: Fraction) -> Fraction:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if bits > MOST_BITS:
        raise TooLarge
    _work.left = getattr(_work, "left", MOST_WORK) - (bits >> 6) ** 2 - 10
    if _work.left < 0:
        raise TooLarge
    return value


def exact(node: Node, env: Mapping[str, Fraction]) -> Fraction:
    """The exact value, with these values of the symbols.

    Raises:
        Inexact: what is irrational or unknown.
        TooLarge: see `MOST_BITS`.
        ZeroDivisionError: a division by 0.
    """
    kind = node[0]
    if kind == "num":
        return Fraction(node[1], node[2])
    if kind == "sym":
        return env[node[1]]
    if kind == "neg":
        return -exact(node[1], env)
    if kind == "add":
        total = Fraction(0)
        for n in node[1:]:
            total = _guard(total + exact(n, env))
        return total
    if kind == "mul":
        product = Fraction(1)
        for n in node[1:]:
            product = _guard(product * exact(n, env))
        return product
    if kind == "div":
        return _guard(exact(node[1], env) / exact(node[2], env))
    if kind == "pow":
        return _exact_power(exact(node[1], env), exact(node[2], env))
    if kind == "fn":
        if node[1] not in _KNOWN:
            if not env:
                raise Inexact
            return env[repr(canonical(node))]
        return _exact_function(node[1], [exact(n, env) for n in node[2:]])
    raise Inexact


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 1 or exponent == 0:
        if base == 0:
            raise Inexact
        return Fraction(1)
    if exponent.denominator > 1:
        if exponent.denominator > 64 or base < 0:
            raise Inexact
        roots = [_root(n, exponent.denominator) for n in (base.numerator, base.denominator)]
        base, exponent = Fraction(roots[0], roots[1]), Fraction(exponent.numerator)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent.numerator) * bits > MOST_BITS and abs(base) != 1 and base != 0:
        raise TooLarge
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    return _guard(Fraction(base ** int(exponent)))


def _root(n: int, degree: int) -> int:
    """The whole root; Inexact where there is none."""
    if n < 2:
        return n
    if degree == 2:
        root = math.isqrt(n)
    elif n.bit_length() > 512:
        raise Inexact
    else:
        low, high = 1, 1 << (n.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            if middle**degree <= n:
                low = middle
            else:
                high = middle - 1
        root = low
    if root**degree != n:
        raise Inexact
    return root


def _exact_function(name: str, values: list[Fraction]) -> Fraction:
    v = values[0]
    if name == "abs":
        return abs(v)
    if name in ("floor", "ceil"):
        return Fraction(math.floor(v) if name == "floor" else math.ceil(v))
    if name in ("min", "max"):
        return min(values) if name == "min" else max(values)
    if any(value.denominator > 1 for value in values):
        raise Inexact
    if name in ("gcd", "lcm"):
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(value) for value in values)))
    if name == "factorial":
        if v < 0 or v > 5000:
            raise TooLarge
        return _guard(Fraction(math.factorial(int(v))))
    if name == "binom" and len(values) == 2:
        if not 0 <= values[1] <= v <= 5000:
            raise TooLarge
        return _guard(Fraction(math.comb(int(v), int(values[1]))))
    if v == 0 and name in ("sin", "tan", "arcsin", "arctan", "sinh", "tanh"):
        return Fraction(0)
    if name in ("ln", "log") and v == 1:
        return Fraction(0)
    raise Inexact


def rough(node: Node, env: Mapping[str, complex]) -> complex:
    """The value in floating point; nan where it has none.

    Raises:
        Inexact: what has no value here.
        ArithmeticError, ValueError: overflow, division by 0.
    """
    kind = node[0]
    if kind == "num":
        return complex(Fraction(node[1], node[2]))
    if kind == "sym":
        return env[node[1]]
    if kind == "const":
        if node[1] == "oo":
            raise Inexact
        return {"pi": cmath.pi, "e": cmath.e, "i": 1j}[node[1]]
    if kind == "neg":
        return -rough(node[1], env)
    if kind == "add":
        return sum((rough(n, env) for n in node[1:]), 0j)
    if kind == "mul":
        product = 1 + 0j
        for n in node[1:]:
            product *= rough(n, env)
        return product
    if kind == "div":
        return rough(node[1], env) / rough(node[2], env)
    if kind == "pow":
        base, exponent = rough(node[1], env) + 0j, rough(node[2], env)  # a zero without a sign: it chooses the branch
        value = base**exponent
        # a real base to an odd root is more often meant as real; not decided here
        return complex(value)
    if kind == "fn":
        if node[1] not in _KNOWN:
            return env[repr(canonical(node))]
        return _rough_function(node[1], [rough(n, env) for n in node[2:]])
    raise Inexact


def _rough_function(name: str, values: list[complex]) -> complex:
    v = values[0] + 0j
    if name == "abs":
        return complex(abs(v))
    if name in ("log", "ln"):  # log without a base is taken as the natural one on both sides, and as the decimal one nowhere
        return cmath.log(v)
    if name in ("cot", "sec", "csc"):
        return 1 / {"cot": cmath.tan, "sec": cmath.cos, "csc": cmath.sin}[name](v)
    if name.startswith("arc"):
        return complex(getattr(cmath, "a" + name[3:])(v))
    if name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
        return complex(getattr(cmath, name)(v))
    if abs(v.imag) > 1e-9 or len(values) != 1:
        raise Inexact
    if name == "factorial":
        return complex(math.gamma(v.real + 1))
    raise Inexact


# -- structure --------------------------------------------------------------------------------------------------------

_COMMUTES = frozenset(("add", "mul"))


def canonical(node: Node) -> Node:
    """A tree in which the order of sums and products, and how a number is written, make no difference.

    It decides what opaque parts (f(x), a sum over k) are the same; values decide everything else.
    """
    kind = node[0]
    if kind == "num":
        return ("num", node[1], node[2])
    if kind in ("sym", "const", "text", "base"):
        return node
    try:
        value = exact(node, {})
    except (Inexact, TooLarge, ZeroDivisionError, KeyError):
        pass
    else:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) <= 10_000:  # Python refuses to print more
            return ("num", value.numerator, value.denominator)
    parts = [canonical(c) if type(c) is tuple else c for c in node[1:]]
    if kind in _COMMUTES:
        flat: list[Node] = []
        for part in parts:
            flat += part[1:] if part[0] == kind else (part,)
        return (kind, *sorted(flat, key=repr))
    if kind == "neg" and parts[0][0] == "add":
        return ("add", *sorted((canonical(("neg", p)) for p in parts[0][1:]), key=repr))
    if kind == "neg" and parts[0][0] == "neg":
        negated: Node = parts[0][1]
        return negated
    return (kind, *parts)
