# SPDX-License-Identifier: Apache-2.0
"""Asks a candidate for answers, in sandboxes made for it, and reads what its process wrote, which may be anything.

A sandbox that fails before the candidate has run is the machine's failure and an `InfrastructureError`. One that dies while
it runs is tried once more: what dies twice with the same candidate is the candidate's doing.
"""

from __future__ import annotations

import functools
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentgym.errors import AgentGymError, DefinitionError, InfrastructureError
from agentgym.evaluators.code_guest import NotPlain, encode

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend, ExecResult, Sandbox, Session

Fresh = Literal["auto", "call", "test", "program"]
"""How often a candidate gets a new process and new files: for each call, each test, or once. ``auto``: once where calls come
in an order that the candidate cannot know, else for each call."""

Reply = list[Any]
"""``["ok", wire]``, ``["raised", type, text]``, ``["refused", why]``, ``["ended", type]``, ``["unloadable", type]``."""
_KINDS = {"ok": 2, "raised": 3, "refused": 2, "ended": 2, "unloadable": 2}

START_S = 5.0
"""Seconds of patience with our own code in a sandbox, beyond the candidate's."""

dumps = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def call_text(args: Any, kwargs: Any) -> str:
    """A call as it is sent.

    Raises:
        DefinitionError: an argument is no plain data.
    """
    try:
        return f"{dumps(encode(list(args)))},{dumps(encode(kwargs))}"
    except NotPlain as e:
        raise DefinitionError(f"an argument of a case is no plain data: {e}") from None


@functools.cache
def script(*names: str, last: str = "") -> str:
    """A guest program as it is sent: compiled, for interpreters like this one, which saves the candidate's time."""
    import marshal

    texts = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in names]
    source = "\n".join([*(t.replace("from agentgym.evaluators.code_guest", "# from") for t in texts), last])
    code = marshal.dumps(compile(source, "<tests>", "exec", dont_inherit=True, optimize=2))
    return (
        f"import sys, marshal\nif sys.hexversion == {sys.hexversion}: exec(marshal.loads({code!r}))\n"
        f"else: exec(compile({source!r}, '<tests>', 'exec'))\n"
    )


class Answers(msgspec.Struct):
    """What a candidate said to a list of calls."""

    replies: list[Reply | None]
    """None: nothing."""
    why: str = "ended"
    """Why nothing, where there is nothing."""
    forged: bool = False
    """It wrote where only replies are written."""
    wall_s: float = 0.0


def ask(
    backend: Backend, source: str, entry_point: str, calls: Sequence[str], timeout_s: float, each_s: float = 0.0
) -> Answers:
    """Answers of one new process in a new sandbox.

    Args:
        backend: makes the sandbox.
        source: the program.
        entry_point: the function.
        calls: as `call_text` gives them.
        timeout_s: wall seconds for all.
        each_s: of programs that are trusted: CPU seconds for each call.

    Raises:
        InfrastructureError: the sandbox failed.
    """
    numbers = [secrets.randbits(60) for _ in calls]
    listed = ",".join([f"[{n},{c}]" for n, c in zip(numbers, calls, strict=True)])
    stdin = f'{{"source":{dumps(source)},"entry_point":{dumps(entry_point)},"calls":[{listed}]}}'.encode()
    program = script("code_guest", last=f"answer({each_s})")
    for attempt in range(2):
        box = backend.create()
        try:
            result = box.exec(program, stdin=stdin, timeout_s=timeout_s)
            lost = result.status == "killed" and result.exit_code is None and not box.alive
        except InfrastructureError:
            if attempt:
                raise
            continue
        finally:
            box.close()
        if not lost:
            break
    return read(result, numbers)


def read(result: ExecResult, numbers: list[int]) -> Answers:
    """Replies out of what a candidate's process wrote."""
    found: dict[int, Reply] = {}
    forged = False
    *lines, rest = result.stdout.split(b"\n")  # the rest was cut off, by a limit or the end of the process
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        ok = type(said) is list and len(said) > 1 and type(said[0]) is int and type(said[1]) is str
        if not ok or said[0] in found or _KINDS.get(said[1]) != len(said) - 1 or not (said[1] == "ok" or _texts(said)):
            forged = True
            continue
        found[said[0]] = said[1:]
    replies = [found.pop(n, None) for n in numbers]
    cut = result.stdout_bytes > len(result.stdout)
    why = {"timeout": "timeout", "oom": "memory", "output": "refused"}.get(result.status, "refused" if cut else "ended")
    return Answers(replies, why, forged or bool(found) or (bool(rest) and result.status == "ok" and not cut), result.wall_s)


def _texts(said: list[Any]) -> bool:
    return all(type(part) is str for part in said[2:])


def answers(
    backend: Backend, source: str, entry_point: str, calls: Sequence[str], timeout_s: float, *, each: bool = False
) -> Answers:
    """As `ask`; with ``each``, every call goes to a process and a sandbox of its own."""
    if not each:
        return ask(backend, source, entry_point, calls, timeout_s)
    replies: list[Reply | None] = []
    forged, spent, why = False, 0.0, "ended"
    for call in calls:
        one = ask(backend, source, entry_point, [call], max(0.01, timeout_s - spent))
        replies += one.replies
        forged, spent, why = forged or one.forged, spent + one.wall_s, one.why
        if one.replies[0] is None:
            break
    return Answers(replies + [None] * (len(calls) - len(replies)), why, forged, spent)


class Candidate:
    """A candidate that is asked call by call.

    Args:
        backend: makes its sandboxes.
        source: the program.
        entry_point: the function.
        fresh: how often it starts anew.
        timeout_s: wall seconds for all calls.
    """

    def __init__(self, backend: Backend, source: str, entry_point: str, fresh: Fresh, timeout_s: float) -> None:
        self.backend, self.source, self.entry_point = backend, source, entry_point
        self.fresh: Fresh = "call" if fresh == "auto" else fresh
        self.timeout_s = timeout_s
        self.spent = 0.0
        self._box: Sandbox | None = None
        self._session: Session | None = None

    def next_test(self) -> None:
        """Another test begins."""
        if self.fresh != "program":
            self.close()

    def close(self) -> None:
        """Ends its process and its sandbox."""
        if self._box is not None:
            self._box.close()
        self._box = self._session = None

    def ask(self, call: str) -> tuple[Reply | None, str]:
        """Its reply, or why there is none.

        Raises:
            InfrastructureError: a sandbox failed.
        """
        left = self.timeout_s - self.spent
        if left <= 0:
            return None, "timeout"
        if self.fresh == "call":
            found = ask(self.backend, self.source, self.entry_point, [call], left)
        else:
            number = secrets.randbits(60)
            try:
                result = self._turn(f"[[{number},{call}]]", left)
            except AgentGymError:  # it lived when it was last asked: the candidate has ended its own sandbox, unless
                self.backend.create().close()  # nothing works any more
                return None, "ended"
            found = read(result, [number])
        self.spent += found.wall_s
        return (None, "forged") if found.forged else (found.replies[0], found.why)

    def _turn(self, calls: str, left: float) -> ExecResult:
        program = ""
        if self._session is None:
            self._box = self.backend.create()
            self._session = self._box.session("python")
            self._session.run(script("code_guest"), timeout_s=START_S)
            program = f'"source":{dumps(self.source)},"entry_point":{dumps(self.entry_point)},'
        message = f'{{{program}"calls":{calls}}}'
        return self._session.run(f"one({message!r})", timeout_s=left)
