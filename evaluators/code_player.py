# SPDX-License-Identifier: Apache-2.0
"""What runs a data set's own tests, in a sandbox of their own: the candidate is only ever a name that asks for answers.

Its text is sent into the sandbox after that of `code_guest`, whose names it uses. Two ways: `record` runs the tests
against a reference beside them and tells which calls they made; `play` runs them with answers that were given beforehand,
and asks for those that were not, turn by turn.
"""

import builtins
import json
import os
import random
import sys
import threading
import time
import traceback
from typing import Any

from agentgym.evaluators.code_guest import decode, encode, load, quiet, reply, write  # cut off where it is sent

MOST_TRIED_S = 0.5
"""CPU seconds that tests may take to be tried with changed answers."""


class NoAnswer(BaseException):
    """The candidate gave none. Not an Exception: tests that expect one shall not take it for theirs."""


def key_of(args: Any, kwargs: Any) -> str:
    """Names a call: the same text for the same arguments."""
    return json.dumps([args, kwargs])


def answered(said: list[Any]) -> Any:
    """What a test sees of a reply."""
    if said[0] == "ok":
        return decode(said[1])
    if said[0] == "raised":
        kind = getattr(builtins, said[1], None)
        if not isinstance(kind, type) or not issubclass(kind, Exception) or issubclass(kind, UnicodeError):
            kind = Exception
        raise kind(said[2])
    raise NoAnswer


class Tests:
    """A program of tests over a candidate that is elsewhere."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.entry: str = asked["entry_point"]
        random.seed(asked["seed"])
        self.passed: list[bool] = []
        self.error = ""

    def run(self, candidate: Any, own: dict[str, Any], before: Any = None) -> None:
        """Each test in turn, in one namespace that has what ``own`` has; stops at nothing but `NoAnswer`."""
        space = {k: v for k, v in own.items() if not k.startswith("__")}
        theirs = space.get(self.entry, candidate)
        space[self.entry] = candidate
        space["candidate"] = candidate
        for test in self.asked["tests"]:
            if before is not None:
                before()
            space.pop("check" if self.entry != "check" else "", None)
            try:
                exec(compile(test, "tests.py", "exec", dont_inherit=True), space)
                check = space.get("check")
                if check is not candidate and callable(check):
                    space[self.entry] = theirs
                    check(candidate)
                    space[self.entry] = candidate
            except NoAnswer:
                self.error = self.error or "no answer"
                return
            except BaseException as e:
                self.passed.append(False)
                self.error = self.error or traceback.format_exception_only(e)[-1].strip()[:300]
            else:
                self.passed.append(True)


class Known:
    """Answers by call; where a call is made again, in the order in which they were given."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows: dict[str, list[list[Any]]] = {}
        for args, kwargs, said in rows:
            self.rows.setdefault(key_of(args, kwargs), []).append(said)
        self.used: dict[str, int] = {}

    def get(self, args: Any, kwargs: Any) -> list[Any] | None:
        """The next answer to a call, or None."""
        key = key_of(args, kwargs)
        found = self.rows.get(key)
        if found is None:
            return None
        at = self.used[key] = self.used.get(key, -1) + 1
        return found[min(at, len(found) - 1)]


def changed(wire: Any, how: str) -> Any:
    """An answer as somebody else might give it: ``equal`` whole numbers as floats, ``near`` floats a little off and tuples for
    lists, ``unordered`` rows the other way round."""
    kind = type(wire)
    if how == "equal":
        if kind is int and abs(wire) < 1 << 50:
            return float(wire)
    elif kind is float and how == "near":
        return wire * (1 + 1e-7)
    if kind is not list:
        return wire
    tag, *rest = wire
    if tag not in ("l", "t", "s", "d"):
        return wire
    rest = [changed(w, how) for w in rest]
    if how == "near" and tag in ("l", "t"):
        tag = "t" if tag == "l" else "l"
    if how == "unordered" and tag in ("l", "t"):
        rest.reverse()
    return [tag, *rest]


def tolerated(asked: dict[str, Any], own: dict[str, Any], calls: list[Any]) -> list[str]:
    """Which changes of right answers the tests let pass. Found out by trying, since a test may compare as it likes."""
    found = []
    for how in ("equal", "near", "unordered"):
        known = Known([[a, k, ["ok", changed(said[1], how)] if said[0] == "ok" else said] for a, k, said in calls])
        tests = Tests(asked)

        def candidate(*args: Any, known: Known = known, **kwargs: Any) -> Any:
            return answered(known.get(encode(list(args)), encode(kwargs)) or ["ended"])

        try:
            tests.run(candidate, own)
        except BaseException:
            continue
        if len(tests.passed) == len(asked["tests"]) and all(tests.passed):
            found.append(how)
    return found


def record() -> None:
    """Reads tests and a reference from stdin, writes the calls that the tests make and what the reference answers."""
    asked = json.loads(sys.stdin.buffer.read())
    out = quiet()
    calls: list[Any] = []
    allowed: list[str] = []
    tests = Tests(asked)
    try:
        own = load(asked["support"], "reference")
        reference = own[tests.entry]

        def candidate(*args: Any, **kwargs: Any) -> Any:
            a, k = encode(list(args)), encode(kwargs)
            said = reply(reference, a, k)
            calls.append([a, k, said])
            return answered(said)

        begun = time.process_time()
        tests.run(candidate, own)
        if all(tests.passed) and time.process_time() - begun < MOST_TRIED_S:
            allowed = tolerated(asked, own, calls)
    except BaseException as e:
        tests.error = tests.error or traceback.format_exception_only(e)[-1].strip()[:300]
        tests.passed.append(False)
    told = {"passed": tests.passed, "error": tests.error, "calls": calls, "allowed": allowed}
    write(out, json.dumps(told).encode() + b"\n")
    os._exit(0)


class Player:
    """Tests in a thread of their own, which waits wherever an answer is missing."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.tests = Tests(asked)
        self.known = Known(asked["answers"])
        self.says: dict[str, Any] = {}
        self.given: list[Any] = []
        self.theirs = threading.Semaphore(0)
        self.ours = threading.Semaphore(0)
        threading.Thread(target=self.work, daemon=True).start()

    def candidate(self, *args: Any, **kwargs: Any) -> Any:
        """Its answer, known or asked for."""
        a, k = encode(list(args)), encode(kwargs)
        known = self.known.get(a, k)
        if known is not None:
            return answered(known)
        return answered(self.ask({"call": [a, k]}))

    def ask(self, what: dict[str, Any]) -> list[Any]:
        """Says what is wanted and waits for it."""
        self.says = what
        self.ours.release()
        self.theirs.acquire()
        return self.given

    def next_test(self) -> None:
        """Says that another test begins, where that matters."""
        if self.tests.asked["renew"]:
            self.ask({"renew": True})

    def work(self) -> None:
        """All the tests, in their thread."""
        tests = self.tests
        try:
            tests.run(self.candidate, load(tests.asked["support"], "reference"), self.next_test)
        except BaseException as e:
            tests.error = traceback.format_exception_only(e)[-1].strip()[:300]
            tests.passed.append(False)
        self.says = {"passed": tests.passed, "error": tests.error}
        self.ours.release()


_player: Any = None


def play(message: str) -> None:
    """One turn: starts the tests, or gives them the answer that they wait for; writes what they want next."""
    global _player
    out = quiet()
    if _player is None:
        _player = Player(json.loads(message))
    else:
        _player.given = json.loads(message)
        _player.theirs.release()
    _player.ours.acquire()
    data = json.dumps(_player.says).encode() + b"\n"
    write(out, data)
    os.close(out)
