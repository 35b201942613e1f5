# SPDX-License-Identifier: Apache-2.0
"""What runs beside a candidate in its sandbox: plain data in, the candidate's answers out as plain data, and nothing else.

The text of this file is sent into the sandbox; the host uses the same `encode` and `decode`. Standard library only, and no
import of agentgym. Nothing in here is trusted by the host: the candidate shares the process, can replace all of it, and gains
by that no more than to write answers of its own.

Wire form of a value, as JSON: None, bool, int, float (``NaN``, ``Infinity`` too) and str stand for themselves; everything else
is a list whose first item names its type: ``l`` list, ``t`` tuple, ``s`` set, ``z`` frozenset, ``d`` dict (keys and values in
turn), ``b`` bytes, ``a`` bytearray (as latin-1 text), ``c`` complex, ``i`` an int of many digits (hexadecimal), ``r`` range,
``m`` a match of a regular expression, of which nothing is told but that there is one.
"""

import json
import os
import signal
import sys
import types
from typing import Any

MOST_DEPTH = 60
MOST_NODES = 200_000
_LONG = 1 << 256


class NotPlain(Exception):
    """A value that is no plain data, or too much of it."""


class Match:
    """Stands for a match of a regular expression: true, and equal to nothing but itself."""

    def __repr__(self) -> str:
        return "Match()"


_TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_MAKE: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset}
_DICTS = {("collections", "Counter"), ("collections", "OrderedDict"), ("collections", "defaultdict")}
"""Dictionaries of the standard library that honest answers often are; they arrive as dict, as which they compare."""


def encode(
    value: Any, depth: int = 0, left: Any = None, _type: Any = type, _len: Any = len, _items: Any = dict.items, _int: Any = int
) -> Any:
    """The wire form of a value of builtin types, exactly; subclasses are refused, but for the standard library's dictionaries.

    Raises:
        NotPlain: it is something else.
    """
    kind = _type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is _int:
        return value if -_LONG < value < _LONG else ["i", hex(value)]
    if left is None:
        left = [MOST_NODES]
    if depth > MOST_DEPTH:
        raise NotPlain("nested too deeply")
    name = _TAGS.get(kind)
    if name is not None:
        left[0] -= _len(value) + 1
        if left[0] < 0:
            raise NotPlain("too many values")
        return [name, *[encode(v, depth + 1, left) for v in value]]
    if kind is dict or ((kind.__module__, kind.__qualname__) in _DICTS and issubclass(kind, dict)):
        left[0] -= 2 * _len(value) + 1
        if left[0] < 0:
            raise NotPlain("too many values")
        out: list[Any] = ["d"]
        for k, v in _items(value):
            out.append(encode(k, depth + 1, left))
            out.append(encode(v, depth + 1, left))
        return out
    if kind is bytes or kind is bytearray:
        return ["b" if kind is bytes else "a", value.decode("latin-1")]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", value.start, value.stop, value.step]
    if kind is Match or (kind.__module__ == "re" and kind.__qualname__ == "Match"):
        return ["m"]
    raise NotPlain("it is of type " + str(kind.__name__)[:80])


def decode(wire: Any, depth: int = 0, left: Any = None) -> Any:
    """The value of a wire form. Strict: the form may have been written by anybody.

    Raises:
        NotPlain: it is none.
    """
    kind = type(wire)
    if wire is None or kind is bool or kind is str or kind is float or kind is int:
        return wire
    if left is None:
        left = [MOST_NODES]
    if kind is not list or not wire or depth > MOST_DEPTH:
        raise NotPlain("no plain data")
    left[0] -= len(wire)
    if left[0] < 0:
        raise NotPlain("too many values")
    tag = wire[0]
    if type(tag) is not str:
        raise NotPlain("no plain data")
    try:
        if tag in _MAKE:
            return _MAKE[tag]([decode(w, depth + 1, left) for w in wire[1:]])
        if tag == "d" and len(wire) % 2:
            values = [decode(w, depth + 1, left) for w in wire[1:]]
            return dict(zip(values[::2], values[1::2], strict=True))
        if tag in ("b", "a") and len(wire) == 2 and type(wire[1]) is str:
            data = wire[1].encode("latin-1")
            return data if tag == "b" else bytearray(data)
        if tag == "c" and len(wire) == 3 and type(wire[1]) is float and type(wire[2]) is float:
            return complex(wire[1], wire[2])
        if tag == "r" and len(wire) == 4 and all(type(w) is int for w in wire[1:]):
            return range(*wire[1:])
        if tag == "i" and len(wire) == 2 and type(wire[1]) is str:
            return int(wire[1], 16)
        if tag == "m" and len(wire) == 1:
            return Match()
    except (TypeError, ValueError):  # an unhashable key, bytes that are none, a step of 0
        pass
    raise NotPlain("no plain data")


def quiet() -> int:
    """Takes the process's output for the replies alone; what the candidate prints goes nowhere. The fd of the replies."""
    out = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    return out


def write(fd: int, data: bytes, _write: Any = os.write, _len: Any = len) -> None:
    """All of it."""
    while data:
        data = data[_write(fd, data) :]


def load(source: str, name: str) -> dict[str, Any]:
    """Runs a program as the module ``name`` and gives its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, name + ".py", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def reply(
    function: Any,
    args: Any,
    kwargs: Any,
    _encode: Any = encode,
    _decode: Any = decode,
    _base: Any = BaseException,
    _exception: Any = Exception,
) -> list[Any]:
    """Calls a function with wire forms; the reply: ``["ok", value]``, ``["raised", type, text]``, ``["refused", why]`` for what
    is no plain data, ``["ended", type]`` for what would have ended the process."""
    try:
        value = function(*_decode(args), **_decode(kwargs))
    except _exception as e:
        kind = type(e)
        try:
            text = str(e)[:500]
        except _base:
            text = ""
        return ["raised", kind.__name__[:80] if kind.__module__ == "builtins" else "Exception", text]
    except _base as e:
        return ["ended", type(e).__name__[:80]]
    try:
        return ["ok", _encode(value)]
    except _base as e:
        return ["refused", str(e)[:200]]


def begin(source: str, entry_point: str) -> tuple[Any, list[Any] | None]:
    """The candidate's function, or the reply that stands for it where there is none."""
    try:
        return load(source, "solution")[entry_point], None
    except BaseException as e:
        return None, ["unloadable", type(e).__name__[:80]]


def answer(
    each_s: float = 0.0,
    _dumps: Any = json.dumps,
    _write: Any = write,
    _exit: Any = os._exit,
    _reply: Any = reply,
    _base: Any = BaseException,
    _timer: Any = signal.setitimer,
) -> None:
    """Reads a program and calls from stdin, answers each on a line of its own, and ends the process.

    Args:
        each_s: for programs that are trusted: CPU seconds after which a call is given up.
    """
    asked = json.loads(sys.stdin.buffer.read())
    out = quiet()
    function, failed = begin(asked["source"], asked["entry_point"])
    if each_s:
        signal.signal(signal.SIGVTALRM, signal.default_int_handler)  # no Exception, so that no program takes it for its own
    for number, args, kwargs in asked["calls"]:
        try:
            if each_s:
                _timer(signal.ITIMER_VIRTUAL, each_s)
            said = failed or _reply(function, args, kwargs)
            if each_s:
                _timer(signal.ITIMER_VIRTUAL, 0)
        except _base as e:
            said = ["ended", type(e).__name__[:80]]
        try:
            line = _dumps([number, *said])
        except _base:
            line = _dumps([number, "refused", "it cannot be written"])
        _write(out, line.encode() + b"\n")
    _exit(0)


_candidate: Any = None


def one(message: str, _dumps: Any = json.dumps, _write: Any = write, _reply: Any = reply, _base: Any = BaseException) -> None:
    """A turn of a candidate that lives on: its program, or a call, which is answered."""
    global _candidate
    asked = json.loads(message)
    out = quiet()
    if "source" in asked:
        _candidate = begin(asked["source"], asked["entry_point"])
    function, failed = _candidate
    for number, args, kwargs in asked["calls"]:
        said = failed or _reply(function, args, kwargs)
        try:
            line = _dumps([number, *said])
        except _base:
            line = _dumps([number, "refused", "it cannot be written"])
        _write(out, line.encode() + b"\n")
    os.close(out)
