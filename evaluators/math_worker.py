# SPDX-License-Identifier: Apache-2.0
"""A worker process that settles whether two expressions have the same value: high precision first, SymPy where it must.

Run as a program (`python math_worker.py BYTES`), never imported by agentgym: it imports mpmath and SymPy. It is
handed trees of plain values as JSON lines and answers each with one JSON line. No text of a model is ever parsed here.

The process that was started only forks: a child serves, and where the kernel ends the child (too much CPU, killed from outside)
the parent answers for it and forks another. Both end with the process that started them: their input closes, and where a
fork of it keeps the input open they see that it is gone.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import resource
import select
import signal
import sys
import time
from typing import Any

IDLE_S = 60.0
"""Wall seconds without work after which the worker ends by itself."""

DIGITS = 60
"""Decimal digits to which values must agree; more where very small or large numbers are about."""

MOST_EXTRA = 900
"""Further digits; what needs more is left undecided."""

POINTS = 6
"""Points at which expressions with variables are compared."""

UNREAD = b"\xff" * 8
"""Stands for the number of a request that is there and has not been read; it is told as 0."""

_CALCULUS = ("sum", "prod", "int", "lim")


class Undecided(Exception):
    """There is no value, or more would have to be computed than is granted."""


class Evaluator:
    """Values with mpmath; remembers by how many digits the numbers on the way differ in size."""

    def __init__(self, env: dict[str, Any]) -> None:
        import mpmath

        self.mp = mpmath.mp
        self.env = env
        self.spread = 0.0
        """The largest decimal exponent seen, of either sign."""

    def value(self, node: Any) -> Any:
        """The value of a tree, a real or complex number."""
        value = self._value(node)
        size = self.mp.mag(value) if value else 0
        if not self.mp.isfinite(value):
            raise Undecided
        spread = abs(float(size)) * 0.30103
        if spread > MOST_EXTRA:
            raise Undecided
        self.spread = max(self.spread, spread)
        return value

    def _value(self, node: Any) -> Any:
        mp, kind = self.mp, node[0]
        if kind == "num":
            return mp.mpf(node[1]) / node[2]
        if kind == "sym":
            return self.env[node[1]]
        if kind == "const":
            if node[1] == "oo":
                raise Undecided
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[node[1]]
        if kind == "opaque":
            return self.env[node[1]]
        if kind == "fn":
            return self._function(node[1], [self.value(n) for n in node[2:]])
        values = [self.value(n) for n in node[1:]]
        if kind == "neg":
            return -values[0]
        if kind == "add":
            return mp.fsum(values)
        if kind == "mul":
            return mp.fprod(values)
        if kind == "div":
            return values[0] / values[1]
        if kind == "pow":
            base, exponent = values
            if base and abs(exponent) * max(1, abs(mp.mag(base))) > 4 * MOST_EXTRA:
                raise Undecided
            return mp.power(base, exponent)
        raise Undecided

    def _function(self, name: str, values: list[Any]) -> Any:
        mp, v = self.mp, values[0]
        if name == "abs":
            return abs(v)
        if name in ("log", "ln"):
            return mp.log(v)
        if name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"):
            if abs(v) > 10**6:
                raise Undecided
            return getattr(mp, name)(v)
        if name in ("arcsin", "arccos", "arctan"):
            return getattr(mp, "a" + name[3:])(v)
        if name == "factorial" and abs(v) < 400:
            return mp.factorial(v)
        if name == "binom" and all(abs(n) < 400 for n in values):
            return mp.binomial(*values)
        raise Undecided


def names(tree: Any, found: set[str]) -> set[str]:
    """Everything that needs a value before the tree has one."""
    if isinstance(tree, list):
        if tree and tree[0] in ("sym", "opaque"):
            found.add(tree[1])
        else:
            for part in tree:
                names(part, found)
    return found


def compare(a: Any, b: Any) -> bool:
    """Whether two trees have the same value wherever both have a real one.

    Raises:
        Undecided: where that could not be found out.
    """
    import mpmath

    mp = mpmath.mp
    free = sorted(names(a, set()) | names(b, set()))
    real = '["const", "i"]' not in json.dumps([a, b])
    digits = DIGITS + 20
    while True:
        mp.dps = digits + 15
        spread, agreed = 0.0, 0
        rng = random.Random(0)
        for point in range(4 * POINTS if free else 1):
            env = {}
            for name in free:
                n = rng.randrange(10**6, 9 * 10**6)
                env[name] = mp.mpf(n) / 999_983 * (-1 if point % 2 and rng.random() < 0.7 else 1)
            one, two = Evaluator(env), Evaluator(env)
            try:
                x, y = one.value(a), two.value(b)
            except (ZeroDivisionError, ValueError, OverflowError):
                if not free:
                    raise Undecided from None
                continue
            if free and real and (_unreal(mp, x, digits) or _unreal(mp, y, digits)):
                continue  # outside of what the expression is defined for
            spread = max(spread, one.spread, two.spread)
            largest = max(abs(x), abs(y), mp.mpf(10) ** -MOST_EXTRA)
            noise = mp.mpf(10) ** (one.spread + two.spread - mp.dps + 5)
            if abs(x - y) > largest * mp.mpf(10) ** -digits and abs(x - y) > noise:
                return False
            agreed += 1
            if agreed >= POINTS:
                break
        if not agreed or (free and agreed < 3):
            raise Undecided
        if digits >= DIGITS + 2 * spread:
            return True
        digits = DIGITS + int(2 * spread) + 5
        if digits > DIGITS + 2 * MOST_EXTRA:
            raise Undecided


def _unreal(mp: Any, value: Any, digits: int) -> bool:
    return bool(abs(mp.im(value)) > max(abs(value), 1) * mp.mpf(10) ** (-digits // 2))


def worked_out(tree: Any) -> Any:
    """A tree in which sums, products, integrals and limits are replaced by their values, as SymPy finds them."""
    if not isinstance(tree, list):
        return tree
    if tree and tree[0] == "fn" and tree[1] in _CALCULUS:
        return _calculus(tree)
    return [worked_out(part) for part in tree]


def _calculus(tree: Any) -> Any:
    import sympy

    name, *parts = tree[1:]
    body = parts.pop()
    bounds = {p[1]: p[2] for p in parts}
    lower, upper = bounds.get("_"), bounds.get("^")
    if name == "int":
        factors = body[1:] if body[0] == "mul" else [body]
        if len(factors) < 2 or factors[-2] != ["sym", "d"] or factors[-1][0] != "sym" or lower is None or upper is None:
            raise Undecided
        variable = factors[-1]
        body = ["mul", *factors[:-2]] if len(factors) > 2 else ["num", 1, 1]
        result = sympy.integrate(to_sympy(body), (sympy.Symbol(variable[1]), to_sympy(lower), to_sympy(upper)))
    elif name == "lim":
        if lower is None or lower[0] != "rel" or lower[1] != "to":
            raise Undecided
        result = sympy.limit(to_sympy(body), sympy.Symbol(lower[2][1]), to_sympy(lower[3]))
    else:
        if lower is None or upper is None or lower[0] != "rel" or lower[1] != "=" or lower[2][0] != "sym":
            raise Undecided
        make = sympy.summation if name == "sum" else sympy.product
        result = make(to_sympy(body), (sympy.Symbol(lower[2][1]), to_sympy(lower[3]), to_sympy(upper)))
    return from_sympy(result)


def to_sympy(tree: Any) -> Any:
    """A tree as a SymPy expression, node by node."""
    import sympy

    kind = tree[0]
    if kind == "num":
        return sympy.Rational(tree[1], tree[2])
    if kind == "sym":
        return sympy.Symbol(tree[1])
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[tree[1]]
    if kind == "fn":
        known = {"ln": "log", "abs": "Abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "ceil": "ceiling"}
        known.update(
            {n: n for n in ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "log", "floor", "factorial"]}
        )
        if tree[1] in known:
            return getattr(sympy, known[tree[1]])(to_sympy(tree[2]))
        raise Undecided
    parts = [to_sympy(t) for t in tree[1:]]
    if kind == "neg":
        return -parts[0]
    if kind in ("add", "mul"):
        return (sympy.Add if kind == "add" else sympy.Mul)(*parts)
    if kind == "div":
        return parts[0] / parts[1]
    if kind == "pow":
        if parts[1].is_number and abs(parts[1]) > MOST_EXTRA:
            raise Undecided
        return sympy.Pow(*parts)
    raise Undecided


def from_sympy(e: Any) -> Any:
    """A SymPy expression as a tree."""
    import sympy

    if e.is_Rational:
        return ["num", int(e.p), int(e.q)]
    if e.is_Symbol:
        return ["sym", e.name]
    constants = {sympy.pi: "pi", sympy.E: "e", sympy.I: "i"}
    if e in constants:
        return ["const", constants[e]]
    if e.is_Add or e.is_Mul:
        return ["add" if e.is_Add else "mul", *map(from_sympy, e.args)]
    if e.is_Pow or isinstance(e, sympy.exp):
        return ["pow", *map(from_sympy, e.as_base_exp())]
    name = type(e).__name__
    if name in ("sin", "cos", "tan", "log", "factorial"):
        return ["fn", name, from_sympy(e.args[0])]
    raise Undecided


def answer(request: Any) -> str:
    """``same``, ``different`` or ``undecided``."""
    try:
        a, b = worked_out(request[0]), worked_out(request[1])
        return "same" if compare(a, b) else "different"
    except Exception:
        return "undecided"


def serve(owner: int, under_way: mmap.mmap) -> None:
    """Answers until the input ends, nothing has come for a while, or the owner or the parent is gone.

    Args:
        owner: process for which the work is done.
        under_way: shared with the parent, which must know for what request it has to answer.
    """
    parent = os.getppid()
    waited = 0.0
    while waited < IDLE_S:
        ready, _, _ = select.select([0], [], [], 2.0)
        if not ready:
            waited += 2.0
            if os.getppid() != parent or not alive(owner):
                return
            continue
        under_way[:8] = UNREAD
        line = receive()
        if not line:
            under_way[:8] = bytes(8)
            return
        waited = 0.0
        number, cpu_s, *request = json.loads(line)
        under_way[:8] = number.to_bytes(8, "little")
        if any(f'"{name}"' in line.decode() for name in _CALCULUS):
            import sympy  # noqa: F401  half a second, which is not the answer's fault
        # the kernel ends this process when its CPU time is over, whatever it is in the midst of
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        begun = time.process_time()
        verdict = answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        # told first: where this process is killed in between, it is told twice, which does no harm
        tell(number, verdict, time.process_time() - begun)
        under_way[:8] = bytes(8)


def tell(number: int, verdict: str, cpu_s: float = 0.0) -> None:
    """One line of output: the request's number, what came of it, and how much CPU that took."""
    os.write(1, (json.dumps([number, verdict, round(cpu_s, 4)]) + "\n").encode())


def receive() -> bytes:
    """One line of input; empty where it ended. One request is under way at a time, so that nothing is read too far."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            return b""
        line += part
    return line


def alive(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> int:
    """Forks one serving child after the other, until one ends by itself."""
    most_bytes = int(sys.argv[1])
    owner = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    import mpmath  # noqa: F401  before the fork: every child has it

    under_way = mmap.mmap(-1, 8)
    while True:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                serve(owner, under_way)
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return 0
        pending = under_way[:8]
        under_way[:8] = bytes(8)
        if any(pending):
            number = 0 if pending == UNREAD else int.from_bytes(pending, "little")
            tell(number, "timeout" if os.WTERMSIG(status) == signal.SIGPROF else "died")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
