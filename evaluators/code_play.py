# SPDX-License-Identifier: Apache-2.0
"""A data set's own tests: learns what they ask of a reference, and plays them with a candidate's answers.

Test code runs in a sandbox of its own, never here and never beside the candidate. It is the task's, not the candidate's, so
one sandbox serves the tests of all tasks, a new process for each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.evaluators.code_ask import START_S, Candidate, Reply, call_text, dumps, program, script
from agentgym.evaluators.code_compare import LEVELS, Sameness
from agentgym.evaluators.code_guest import NotPlain, decode
from agentgym.evaluators.code_report import Case, CodeReport, refusal

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend, Sandbox

_MOST_KEPT = 4096
_T = TypeVar("_T")


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None


_kept: OrderedDict[str, _Entry] = OrderedDict()
_keeping = threading.Lock()


def once(key: str, make: Callable[[], _T]) -> _T:
    """``make()``, once for a key in this process; threads that ask meanwhile wait."""
    name = digest(key)
    with _keeping:
        entry = _kept.get(name)
        if entry is None:
            entry = _kept[name] = _Entry()
            if len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end(name)
    with entry.lock:
        if entry.value is None:
            entry.value = make()
        value: _T = entry.value
        return value


def digest(text: str) -> str:
    """Names a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seed_of(text: str) -> int:
    """Chance that is the same whenever the same is judged, and that no program can know of itself."""
    return int(digest(text)[:15], 16)


_MOST_USES = 300


class _TestsBox:
    """A sandbox in which tests run, until it has run many."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.uses = self.users = 0
        self.owner = os.getpid()


_boxes: weakref.WeakKeyDictionary[Backend, _TestsBox] = weakref.WeakKeyDictionary()
_boxing = threading.Lock()


@contextlib.contextmanager
def tests_box(backend: Backend) -> Iterator[Sandbox]:
    """The sandbox in which a backend's tests run; a new one where it has died, or has run many. Closed with its backend."""
    with _boxing:
        held = _boxes.get(backend)
        if held is None or not held.box.alive or held.uses >= _MOST_USES or held.owner != os.getpid():
            old, held = held, _TestsBox(backend.create())
            _boxes[backend] = held
            if old is not None and not old.users and old.owner == os.getpid():
                old.box.close()
        held.uses += 1
        held.users += 1
    try:
        yield held.box
    finally:
        with _boxing:
            held.users -= 1
            unused = not held.users and _boxes.get(backend) is not held
        if unused:
            held.box.close()


class Learned(msgspec.Struct):
    """What tests ask of a reference."""

    cases: list[Case]
    """Their calls, and the reference's answers."""
    further: list[Case]
    """Other calls like these, and the reference's answers. None where it gives none."""
    tests: int
    allowed: Sameness
    """How far an answer may be from the reference's for the tests to hold all the same, where that was tried."""


def learn(
    backend: Backend,
    tests: Sequence[str],
    entry_point: str,
    reference: str,
    *,
    inputs: Sequence[Any] = (),
    further: int = 0,
    changes: bool = False,
    timeout_s: float = START_S,
) -> Learned:
    """Runs tests against their reference.

    Args:
        backend: where.
        tests: the tests.
        entry_point: the function.
        reference: a program that defines it.
        inputs: instead of tests: wire forms of positional arguments.
        further: how many further inputs are wanted.
        changes: whether to try which other answers the tests would let pass.
        timeout_s: wall seconds.

    Raises:
        InfrastructureError: the sandbox failed.
        DefinitionError: the reference does not pass, or the tests cannot be carried to a candidate.
    """
    asked = {
        "tests": list(tests),
        "support": reference,
        "entry_point": entry_point,
        "seed": _seed(tests, entry_point, reference),
        "inputs": list(inputs),
        "further": further,
        "changes": changes,
    }
    text, stdin = program("learn()", "code_guest", "code_vary", "code_player")
    for attempt in range(2):
        try:
            with tests_box(backend) as box:
                result = box.exec(text, stdin=stdin + dumps(asked).encode(), timeout_s=timeout_s)
            break
        except InfrastructureError:
            if attempt:
                raise
    try:
        told = json.loads(result.stdout)
    except ValueError:
        why = f"{result.status}: {result.error_text[-300:]}"
        raise DefinitionError(f"the tests of {entry_point} ended with {why}") from None
    if not all(told["passed"]):
        raise DefinitionError(f"the reference of {entry_point} does not pass its own tests: {told['error']}")
    if not told["calls"]:
        raise DefinitionError(f"the tests of {entry_point} never call it")
    cases = [
        Case(
            args=tuple(decode(a)),
            kwargs=decode(k),
            expected=decode(said[1]) if said[0] == "ok" else None,
            raises=said[1] if said[0] == "raised" else "",
        )
        for a, k, said in told["calls"]
    ]
    more = [Case(args=tuple(decode(a)), expected=decode(e), perturbed=True) for a, e in told["further"]]
    allowed: Sameness = max(told["allowed"], key=LEVELS.index, default="exact")
    return Learned(cases, more, len(told["passed"]), allowed)


def _seed(tests: Sequence[str], entry_point: str, support: str) -> int:
    return seed_of("\0".join(["tests", support, entry_point, *tests]))


def play(
    backend: Backend,
    source: str,
    entry_point: str,
    tests: Sequence[str],
    support: str,
    known: Sequence[tuple[Case, Reply]],
    candidate: Candidate,
) -> CodeReport:
    """Runs tests with answers that are there already, and carries the other calls to the candidate.

    Raises:
        InfrastructureError: a sandbox failed.
    """
    asked = {
        "tests": list(tests),
        "support": support,
        "entry_point": entry_point,
        "seed": _seed(tests, entry_point, support),
        "answers": [[*json.loads(f"[{call_text(case.args, case.kwargs)}]"), reply] for case, reply in known],
        "renew": candidate.fresh == "test",
    }
    with tests_box(backend) as box, contextlib.closing(box.session("python")) as session:
        session.run(script("code_guest", "code_vary", "code_player"), timeout_s=START_S)
        message = dumps(asked)
        while True:
            result = session.run(f"play({message!r})", timeout_s=candidate.timeout_s + START_S)
            try:
                told = json.loads(result.stdout)
            except ValueError:
                why = {"timeout": "timeout", "oom": "memory"}.get(result.status, "ended")
                return refusal(why, f"the tests did not come to an end with its answers: {why}", candidate.spent, len(tests))
            if "passed" in told:
                break
            if "renew" in told:
                candidate.next_test()
                message = "null"
                continue
            reply, why = candidate.ask(f"{dumps(told['call'][0])},{dumps(told['call'][1])}")
            if reply is not None and reply[0] in ("ok", "raised"):
                try:
                    decode(reply[1])
                    message = dumps(reply)
                    continue
                except NotPlain:
                    reply = ["refused"]
            why = why if reply is None else reply[0]
            return refusal(why, f"a call was not answered: {why}", candidate.spent, len(tests))
    held = [bool(p) for p in told["passed"]]
    held += [False] * (len(tests) - len(held))
    error = f"{held.count(False)} of {len(tests)} tests do not hold; the first: {told['error']}"
    return CodeReport(
        passed=all(held),
        value=sum(held) / len(held),
        reason="" if all(held) else error,
        tests=tuple(held),
        wall_s=candidate.spent,
    )
