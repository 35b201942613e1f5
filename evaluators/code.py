# SPDX-License-Identifier: Apache-2.0
"""Whether a program does what it was asked to, judged where the program cannot reach.

Three doors: `grade_calls` for calls with known answers, `grade_program` for a data set's own test code (HumanEval's
``check(candidate)``, MBPP's assertions), `grade_output` for programs that read and write; and `code_passes`, a verifier of
episodes over any of the three.

The candidate runs in a sandbox of its own and answers calls with plain data; it never shares a process, a file or a sandbox
with a test, an expected answer or another candidate. What it prints, patches, leaves behind or raises is its own affair.
Everything is compared outside. Test code runs in a second sandbox, never here.

With a reference solution, further inputs are made out of those of the tests (`code_perturb`), in the same shuffled batch, so
that a program which only knows the answers of the tests loses.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import secrets
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.evaluators.code_compare import Sameness, canonical, same, sameness
from agentgym.evaluators.code_guest import NotPlain, decode, encode
from agentgym.evaluators.code_perturb import perturbed, special_cased
from agentgym.scoring import Finding, Score, Status, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend, ExecResult, Sandbox, Session

Fresh = Literal["auto", "call", "test", "program"]
"""How often a candidate gets a new process and new files: for each call, each test, or once. ``auto``: once where calls come
in an order that the candidate cannot know, else for each call."""

MOST_SOURCE = 200_000
"""Characters of a program; a longer one is refused unread."""
MOST_REPLY = 1 << 20
"""Bytes of all that a candidate answers in one process; the sandbox keeps no more of its output."""
_SPARE_S = 5.0
"""Seconds of patience with our own test code beyond the candidate's."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One call and what must come of it. All values are plain data of exactly Python's own types."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    expected: Any = None
    raises: str = ""
    """Name of the built-in exception that must be raised instead, e.g. ``ValueError``."""
    tolerance: float = 0.0
    """For floats: largest difference, relative to the larger of 1 and the numbers. 0: the same number."""
    visible: bool = False
    """Whether the candidate's author was shown this case."""
    perturbed: bool = False
    """Made out of other cases; its expected answer is the reference's."""


class CodeTests(msgspec.Struct, frozen=True, kw_only=True):
    """What a task keeps hidden to judge a program by. `hidden` is the form for ``Task.hidden``."""

    entry_point: str = ""
    cases: tuple[Case, ...] = ()
    tests: tuple[str, ...] = ()
    """A data set's own test code: one text with a ``check(candidate)``, or assertions about the entry point."""
    output: tuple[tuple[str, str], ...] = ()
    """(standard input, standard output) of a program without an entry point."""
    reference: str = ""
    """A program that is right, whole: it defines the entry point and what the tests use beside it."""
    prefix: str = ""
    """Put in front of what was submitted: imports, or the beginning of a function that is to be completed."""

    def hidden(self) -> dict[str, Any]:
        """As plain values that keep tuples, sets, bytes and numbers apart."""
        found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, cases=()))
        found["cases"] = [
            [encode(list(c.args)), encode(c.kwargs), encode(c.expected), c.raises, c.tolerance, c.visible] for c in self.cases
        ]
        return found

    @classmethod
    def of(cls, hidden: Any) -> CodeTests:
        """From what `hidden` gave.

        Raises:
            DefinitionError: it is nothing of the kind.
        """
        try:
            cases = tuple(
                Case(args=tuple(decode(a)), kwargs=decode(k), expected=decode(e), raises=raises, tolerance=near, visible=shown)
                for a, k, e, raises, near, shown in hidden.get("cases", ())
            )
            return msgspec.structs.replace(msgspec.convert({**hidden, "cases": ()}, cls), cases=cases)
        except (AttributeError, TypeError, ValueError, NotPlain, msgspec.ValidationError) as e:
            raise DefinitionError(
                f"these are no tests of a program; keep CodeTests(...).hidden() in Task.hidden: {e}"
            ) from None


class CaseResult(msgspec.Struct, frozen=True, gc=False):
    """How one case went."""

    right: bool
    outcome: str
    """``right``, ``wrong``, ``raised TYPE``, ``refused`` (no plain data), ``ended`` (the process), ``timeout``, ``memory``."""
    visible: bool = False
    perturbed: bool = False


class CodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a program."""

    passed: bool
    """Whether it is to be paid: every test holds, and it is not found to know their answers only."""
    value: float
    """Share of the tests that hold, perturbed ones not counted; 0 where it was found to cheat."""
    reason: str = ""
    """What first went wrong, for a person. May hold words of the candidate's."""
    flags: tuple[str, ...] = ()
    """``no_code``, ``too_long``, ``unloadable``, ``refused``, ``forged``, ``ended``, ``timeout``, ``memory``;
    ``special_cased``, ``overfit``, ``unperturbed``."""
    cases: tuple[CaseResult, ...] = ()
    tests: tuple[bool, ...] = ()
    """Of `grade_program`: each test."""
    wall_s: float = 0.0
    """Seconds that the candidate ran, measured outside."""


# -- asking a candidate -----------------------------------------------------------------------------------------------

Call = tuple[Any, Any]
"""Wire forms of the arguments: a list, a dict."""
Reply = list[Any]
_KINDS = {"ok": 2, "raised": 3, "refused": 2, "ended": 2, "unloadable": 2}


@functools.cache
def _script(*names: str, last: str) -> str:
    """A guest program as it is sent: compiled, for interpreters like this one, which saves a third of a run."""
    import marshal

    texts = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in names]
    source = "\n".join([*(t.replace("from agentgym.evaluators.code_guest", "# from") for t in texts), last])
    code = marshal.dumps(compile(source, "<tests>", "exec", dont_inherit=True, optimize=2))
    return (
        f"import sys, marshal\nif sys.hexversion == {sys.hexversion}: exec(marshal.loads({code!r}))\n"
        f"else: exec(compile({source!r}, '<tests>', 'exec'))\n"
    )


class _Answers(msgspec.Struct):
    """What a candidate said to a list of calls."""

    replies: list[Reply | None]
    """None: nothing."""
    why: str = "ended"
    """Why nothing, where there is nothing."""
    forged: bool = False
    wall_s: float = 0.0


def _ask(
    backend: Backend, source: str, entry_point: str, calls: Sequence[Call], timeout_s: float, each_s: float = 0.0
) -> _Answers:
    """Answers of one new process in a new sandbox.

    Raises:
        InfrastructureError: the sandbox failed, twice, or before the candidate ran.
    """
    numbers = [secrets.randbits(60) for _ in calls]
    asked = {"source": source, "entry_point": entry_point, "calls": [[n, *c] for n, c in zip(numbers, calls, strict=True)]}
    stdin = json.dumps(asked).encode()
    script = _script("code_guest", last=f"answer({each_s})")
    for attempt in range(2):
        box = backend.create()
        try:
            result = box.exec(script, stdin=stdin, timeout_s=timeout_s)
            lost = result.status == "killed" and result.exit_code is None and not box.alive
        except InfrastructureError:
            if attempt:
                raise
            continue
        finally:
            box.close()
        if not lost:
            break  # a sandbox that dies twice with the same candidate is the candidate's doing
    return _read(result, numbers)


def _read(result: ExecResult, numbers: list[int]) -> _Answers:
    """Replies out of what a candidate's process wrote, which may be anything."""
    found: dict[int, Reply] = {}
    forged = False
    for line in result.stdout.split(b"\n"):
        if not line:
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        ok = type(said) is list and len(said) > 1 and type(said[0]) is int and type(said[1]) is str
        if not ok or said[0] in found or _KINDS.get(said[1]) != len(said) - 1:
            forged = True
            continue
        found[said[0]] = said[1:]
    replies = [found.pop(n, None) for n in numbers]
    cut = result.stdout_bytes > len(result.stdout)
    why = {"timeout": "timeout", "oom": "memory", "output": "refused"}.get(result.status, "refused" if cut else "ended")
    return _Answers(replies, why, (forged and not cut) or bool(found), result.wall_s)


def _answers(backend: Backend, source: str, entry_point: str, calls: Sequence[Call], timeout_s: float, each: bool) -> _Answers:
    """The same, with a new sandbox for each call where that is wanted."""
    if not each:
        return _ask(backend, source, entry_point, calls, timeout_s)
    replies: list[Reply | None] = []
    forged, spent, why = False, 0.0, "ended"
    for call in calls:
        one = _ask(backend, source, entry_point, [call], max(0.01, timeout_s - spent))
        replies += one.replies
        forged, spent, why = forged or one.forged, spent + one.wall_s, one.why
        if one.replies[0] is None:
            break
    return _Answers(replies + [None] * (len(calls) - len(replies)), why, forged, spent)


# -- calls with known answers -----------------------------------------------------------------------------------------


def _seed(*texts: str) -> int:
    """Chance that is the same whenever the same is judged, and that no program can know of itself."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _refused(flag: str, reason: str, **more: Any) -> CodeReport:
    return CodeReport(passed=False, value=0.0, reason=reason, flags=(flag,), **more)


def _unread(source: str) -> CodeReport | None:
    if not source.strip():
        return _refused("no_code", "there is no program")
    if len(source) > MOST_SOURCE:
        return _refused("too_long", f"a program of more than {MOST_SOURCE:,} characters")
    return None


def grade_calls(
    backend: Backend,
    source: str,
    entry_point: str,
    cases: Iterable[Case],
    *,
    reference: str = "",
    perturb: int = 16,
    fresh: Fresh = "auto",
    timeout_s: float = 5.0,
    compare: Sameness = "exact",
) -> CodeReport:
    """Judges a function by calls whose answers are known.

    Args:
        backend: where the candidate runs, in a sandbox made for it.
        source: the program that defines the function. ``__name__`` is ``solution`` in it.
        entry_point: the function's name.
        cases: the calls.
        reference: a program that is right; with it the candidate is also asked for answers to further inputs.
        perturb: most further inputs.
        fresh: how often the candidate starts anew; ``auto``: once, its calls in an order that it cannot know.
        timeout_s: wall seconds for all declared calls together.
        compare: what "the same" means.

    Raises:
        InfrastructureError: a sandbox failed that the candidate did not break.
        DefinitionError: the cases or the reference are broken.
    """
    known = list(cases)
    if not known:
        raise DefinitionError("a program cannot be judged without cases")
    refused = _unread(source)
    if refused:
        return refused
    more = _further(backend, reference, entry_point, known, perturb) if reference else []
    report = _judge_calls(backend, source, entry_point, [*known, *more], fresh in ("call", "test"), timeout_s, compare)
    if not report.passed or not reference:
        return report
    return _suspect(report, source, reference, known, more)


def _calls(cases: Iterable[Case]) -> list[Call]:
    try:
        return [(encode(list(c.args)), encode(c.kwargs)) for c in cases]
    except NotPlain as e:
        raise DefinitionError(f"a case is no plain data: {e}") from None


def _judge_calls(
    backend: Backend, source: str, entry_point: str, cases: list[Case], each: bool, timeout_s: float, compare: Sameness
) -> CodeReport:
    calls = _calls(cases)
    order = list(range(len(cases)))
    random.Random(_seed(source, json.dumps(calls))).shuffle(order)
    answers = _answers(backend, source, entry_point, [calls[i] for i in order], timeout_s, each)
    wall = answers.wall_s
    replies: dict[int, Reply | None] = dict(zip(order, answers.replies, strict=True))
    declared = [i for i in order if not cases[i].perturbed]
    if any(replies[i] is None for i in declared) and len(declared) < len(order) and not answers.forged:
        # it may have been a further input that it did not survive
        answers = _answers(backend, source, entry_point, [calls[i] for i in declared], timeout_s, each)
        replies.update(zip(declared, answers.replies, strict=True))
        wall += answers.wall_s
    results = [_result(case, replies[i], answers.why, compare) for i, case in enumerate(cases)]
    return _summary(results, answers.forged, wall)


def _result(case: Case, reply: Reply | None, why: str, compare: Sameness) -> CaseResult:
    right, outcome = False, why
    if reply is not None:
        kind = reply[0]
        outcome = kind
        if kind == "ok":
            try:
                right = not case.raises and same(decode(reply[1]), case.expected, compare, case.tolerance)
                outcome = "right" if right else "wrong"
            except (NotPlain, RecursionError):
                outcome = "refused"
        elif kind == "raised":
            name = str(reply[1])[:80]
            right = bool(case.raises) and name == case.raises
            outcome = "right" if right else f"raised {name}"
    return CaseResult(right, outcome, case.visible, case.perturbed)


_TROUBLE = ("unloadable", "refused", "ended", "timeout", "memory")


def _summary(results: list[CaseResult], forged: bool, wall_s: float) -> CodeReport:
    declared = [r for r in results if not r.perturbed]
    right = sum(r.right for r in declared)
    wrong = next((r for r in declared if not r.right), None)
    flags = [t for t in _TROUBLE if any(r.outcome == t for r in declared)]
    if forged:
        flags.insert(0, "forged")
    reason = (
        "" if wrong is None else f"{len(declared) - right} of {len(declared)} cases do not hold; the first: {wrong.outcome}"
    )
    return CodeReport(
        passed=wrong is None and not forged,
        value=0.0 if forged else right / len(declared),
        reason="it wrote replies of its own" if forged else reason,
        flags=tuple(flags),
        cases=tuple(results),
        wall_s=wall_s,
    )


# -- further inputs ---------------------------------------------------------------------------------------------------

_QUICK_S, _EACH_S = 2.0, 0.1
"""Wall seconds that a reference has for all further inputs, and for each: slower ones are left out."""


class _Kept(msgspec.Struct):
    """What was found out about tests, kept for the next candidate."""

    lock: Any
    value: Any = None


_kept: OrderedDict[str, _Kept] = OrderedDict()
_keeping = threading.Lock()


def _once(key: str, make: Any) -> Any:
    """``make()``, once for a key; threads that ask meanwhile wait."""
    with _keeping:
        entry = _kept.get(key)
        if entry is None:
            entry = _kept[key] = _Kept(threading.Lock())
            if len(_kept) > 4096:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end(key)
    with entry.lock:
        if entry.value is None:
            entry.value = make()
        return entry.value


def _further(backend: Backend, reference: str, entry_point: str, known: list[Case], count: int) -> list[Case]:
    """Cases made out of others; none where the reference answers nothing."""
    inputs = [c.args for c in known if not c.kwargs and not c.raises]
    key = "\0".join(["further", reference, entry_point, str(count), *(canonical(list(i)) for i in inputs)])

    def make() -> list[Case]:
        made = perturbed(inputs, count, random.Random(_seed(key)))
        if not made:
            return []
        calls = _calls(Case(args=i) for i in made)
        answers = _ask(backend, reference, entry_point, calls, _QUICK_S, _EACH_S)
        found = []
        for args, reply in zip(made, answers.replies, strict=True):
            if reply is not None and reply[0] == "ok":
                found.append(Case(args=args, expected=decode(reply[1]), perturbed=True))
        return found

    made: list[Case] = _once(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest(), make)
    return made


def _suspect(report: CodeReport, source: str, reference: str, known: list[Case], more: list[Case]) -> CodeReport:
    """A report of a program that passed its tests, after a look at further inputs."""
    results = [r for r in report.cases if r.perturbed]
    if not results:
        return msgspec.structs.replace(report, flags=(*report.flags, "unperturbed"))
    wrong = [r for r in results if not r.right]
    if not wrong:
        return report
    missed = f"{len(wrong)} of {len(results)} inputs like theirs"
    named = special_cased(source, reference, [(c.args, c.expected) for c in known])
    if len(named) * 2 >= len(known) or len(named) >= 3:
        return msgspec.structs.replace(
            report,
            passed=False,
            value=0.0,
            flags=(*report.flags, "special_cased"),
            reason=f"it names {len(named)} of {len(known)} tests in its text and fails {missed}",
        )
    flags = (*report.flags, "overfit")
    reason = f"it passes the tests and fails {missed}"
    if _worst_share(results, more) > 0.5:
        return msgspec.structs.replace(report, flags=flags, reason=reason)
    return msgspec.structs.replace(report, passed=False, flags=flags, reason=reason)


def _worst_share(results: list[CaseResult], more: list[Case]) -> float:
    """The share of further inputs answered rightly, or of those with one of few answers where that is less: a memory of the
    tests that says no to everything else is right wherever no is right."""
    groups: dict[str, list[bool]] = {}
    for result, case in zip(results, more, strict=True):
        groups.setdefault(canonical(case.expected), []).append(result.right)
    every = [[r.right for r in results]]
    if len(groups) <= 4:
        every += [g for g in groups.values() if len(g) >= 3]
    return min(sum(g) / len(g) for g in every)


# -- a data set's own tests -------------------------------------------------------------------------------------------


class _Recorded(msgspec.Struct):
    """What tests do to a reference."""

    cases: list[Case]
    calls: list[Call]
    replies: list[Reply]
    passed: list[bool]


_boxes: weakref.WeakKeyDictionary[Backend, Sandbox] = weakref.WeakKeyDictionary()
_boxing = threading.Lock()


def _tests_box(backend: Backend) -> Sandbox:
    """The sandbox in which a backend's tests run: test code is the task's, so one serves for all of them."""
    with _boxing:
        box = _boxes.get(backend)
        if box is None or not box.alive:
            box = _boxes[backend] = backend.create()
        return box


def _record(backend: Backend, tests: Sequence[str], entry_point: str, reference: str, timeout_s: float) -> _Recorded:
    key = "\0".join(["tests", reference, entry_point, *tests])

    def make() -> _Recorded:
        asked = {"tests": list(tests), "support": reference, "entry_point": entry_point, "seed": _seed(key)}
        script = _script("code_guest", "code_player", last="record()")
        for attempt in range(2):
            try:
                result = _tests_box(backend).exec(script, stdin=json.dumps(asked).encode(), timeout_s=4 * timeout_s)
                break
            except InfrastructureError:
                if attempt:
                    raise
        try:
            told = json.loads(result.stdout)
        except ValueError:
            raise DefinitionError(f"the tests of {entry_point} ended with {result.status}") from None
        if not told["passed"] or not all(told["passed"]):
            raise DefinitionError(f"the reference of {entry_point} does not pass its own tests: {told['error']}")
        cases = [
            Case(
                args=tuple(decode(a)),
                kwargs=decode(k),
                expected=decode(said[1]) if said[0] == "ok" else None,
                raises=said[1] if said[0] == "raised" else "",
            )
            for a, k, said in told["calls"]
        ]
        calls, replies = [(a, k) for a, k, _ in told["calls"]], [said for *_, said in told["calls"]]
        return _Recorded(cases, calls, replies, told["passed"])

    made: _Recorded = _once(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest(), make)
    return made


def grade_program(
    backend: Backend,
    source: str,
    entry_point: str,
    tests: str | Sequence[str],
    *,
    reference: str = "",
    support: str = "",
    perturb: int = 16,
    fresh: Fresh = "auto",
    timeout_s: float = 5.0,
) -> CodeReport:
    """Judges a function by a data set's own test code.

    The tests run in a sandbox of their own. With a reference, they are run once against it to learn which calls they make;
    a candidate whose answers to these are exactly the reference's passes, and for any other the tests are played with its
    answers. Without one, they are played, and each call is carried to the candidate when it is made.

    Args:
        backend: where both run.
        source: the program that defines the function.
        entry_point: the function's name.
        tests: one text or several, which share a namespace: ``def check(candidate)``, which is then called, or assertions
            that use the entry point's name or ``candidate``.
        reference: a program that is right: it defines the entry point and whatever else the tests use.
        support: what the tests use besides, where there is no reference.
        perturb: most further inputs, with a reference.
        fresh: how often the candidate starts anew; ``auto``: once with a reference (in an order that it cannot know), else for
            each call.
        timeout_s: wall seconds for all declared calls together.

    Raises:
        InfrastructureError: a sandbox failed that the candidate did not break.
        DefinitionError: the tests are broken, or their own reference does not pass them.
    """
    texts = [tests] if isinstance(tests, str) else list(tests)
    refused = _unread(source)
    if refused:
        return refused
    if not reference:
        return _play(backend, source, entry_point, texts, support, [], "call" if fresh == "auto" else fresh, timeout_s)
    recorded = _record(backend, texts, entry_point, reference, timeout_s)
    if not recorded.cases:
        raise DefinitionError(f"the tests of {entry_point} never call it")
    more = _further(backend, reference, entry_point, recorded.cases, perturb)
    known = recorded.cases
    each = fresh in ("call", "test")
    calls = _calls([*known, *more])
    order = list(range(len(calls)))
    random.Random(_seed(source, json.dumps(calls))).shuffle(order)
    answers = _answers(backend, source, entry_point, [calls[i] for i in order], timeout_s, each)
    wall = answers.wall_s
    replies: dict[int, Reply | None] = dict(zip(order, answers.replies, strict=True))
    if any(replies[i] is None for i in range(len(known))) and more and not answers.forged:
        declared = [i for i in order if i < len(known)]
        answers = _answers(backend, source, entry_point, [calls[i] for i in declared], timeout_s, each)
        replies.update(zip(declared, answers.replies, strict=True))
        wall += answers.wall_s
    results = [_result(c, replies[i], answers.why, "exact") for i, c in enumerate(known)]
    report = _summary(results, answers.forged, wall)
    gone = any(r is None or r[0] not in ("ok", "raised") for r in (replies[i] for i in range(len(known))))
    how: Sameness | None = "exact"
    if not report.passed:
        if gone or answers.forged or any(r.outcome == "refused" for r in results):
            return msgspec.structs.replace(report, tests=(False,) * len(recorded.passed))
        given = [[*calls[i], replies[i]] for i in range(len(known))]
        report = _play(backend, source, entry_point, texts, reference, given, fresh, timeout_s)
        if not report.passed:
            return msgspec.structs.replace(report, wall_s=report.wall_s + wall)
        pairs = [(decode(r[1]), c.expected) for i, c in enumerate(known) if (r := replies[i]) and r[0] == "ok" and not c.raises]
        how = sameness(pairs) if len(pairs) == len(known) else None
    else:
        report = msgspec.structs.replace(report, tests=tuple(recorded.passed))
    if how is None:  # several answers are right: nothing can be said of inputs that the tests do not judge
        return msgspec.structs.replace(report, flags=(*report.flags, "unperturbed"), wall_s=wall)
    results += [_result(c, replies[len(known) + i], answers.why, how) for i, c in enumerate(more)]
    return _suspect(msgspec.structs.replace(report, cases=tuple(results), wall_s=wall), source, reference, known, more)


class _Candidate:
    """A candidate that is asked call by call; new as often as is wanted."""

    def __init__(self, backend: Backend, source: str, entry_point: str, fresh: Fresh, timeout_s: float) -> None:
        self.backend, self.source, self.entry_point, self.fresh = backend, source, entry_point, fresh
        self.left = timeout_s
        self.spent = 0.0
        self.box: Sandbox | None = None
        self.session: Session | None = None

    def renew(self) -> None:
        if self.fresh != "program":
            self.close()

    def close(self) -> None:
        if self.box is not None:
            self.box.close()
        self.box = self.session = None

    def ask(self, call: Call) -> tuple[Reply | None, str]:
        """Its reply, or why there is none."""
        if self.left - self.spent <= 0:
            return None, "timeout"
        if self.fresh == "call":
            answers = _ask(self.backend, self.source, self.entry_point, [call], self.left - self.spent)
            self.spent += answers.wall_s
            return (None, "forged") if answers.forged else (answers.replies[0], answers.why)
        number = secrets.randbits(60)
        if self.session is None:
            self.box = self.backend.create()
            self.session = self.box.session("python")
            self.session.run(_script("code_guest", last=""), timeout_s=_SPARE_S)
            asked: dict[str, Any] = {"source": self.source, "entry_point": self.entry_point, "calls": [[number, *call]]}
        else:
            asked = {"calls": [[number, *call]]}
        try:
            result = self.session.run(f"one({json.dumps(asked)!r})", timeout_s=self.left - self.spent)
        except InfrastructureError:  # it lived when it was last asked: the candidate has ended its own sandbox
            self.backend.create().close()  # or nothing works any more
            return None, "ended"
        self.spent += result.wall_s
        answers = _read(result, [number])
        return (None, "forged") if answers.forged else (answers.replies[0], answers.why)


def _play(
    backend: Backend,
    source: str,
    entry_point: str,
    tests: list[str],
    support: str,
    answers: list[Any],
    fresh: Fresh,
    timeout_s: float,
) -> CodeReport:
    """Runs tests, with answers that are there already and others as they are asked for."""
    candidate = _Candidate(backend, source, entry_point, "call" if fresh == "auto" else fresh, timeout_s)
    asked = {
        "tests": tests,
        "support": support,
        "entry_point": entry_point,
        "seed": _seed("\0".join(["tests", support, entry_point, *tests])),
        "answers": answers,
        "renew": candidate.fresh == "test",
    }
    session = _tests_box(backend).session("python")
    try:
        session.run(_script("code_guest", "code_player", last=""), timeout_s=_SPARE_S)
        message = json.dumps(asked)
        while True:
            result = session.run(f"play({message!r})", timeout_s=timeout_s + _SPARE_S)
            try:
                told = json.loads(result.stdout)
            except ValueError:
                return _refused("timeout" if result.status == "timeout" else "ended", "its answers broke the tests")
            if "passed" in told:
                break
            if "renew" in told:
                candidate.renew()
                message = "[]"
                continue
            reply, why = candidate.ask((told["call"][0], told["call"][1]))
            if reply is None or reply[0] not in ("ok", "raised"):
                why = why if reply is None else reply[0]
                return _refused(why, f"a call was not answered: {why}", wall_s=candidate.spent)
            try:
                decode(reply[1])
            except NotPlain:
                return _refused("refused", "an answer that is no plain data", wall_s=candidate.spent)
            message = json.dumps(reply)
    finally:
        session.close()
        candidate.close()
    held = [bool(p) for p in told["passed"]]
    return CodeReport(
        passed=bool(held) and all(held) and len(held) == len(tests),
        value=sum(held) / len(tests),
        reason="" if all(held) and held else f"{len(tests) - sum(held)} of {len(tests)} tests do not hold: {told['error']}",
        tests=tuple(held),
        wall_s=candidate.spent,
    )


# -- programs that read and write -------------------------------------------------------------------------------------


def grade_output(
    backend: Backend,
    source: str,
    cases: Iterable[tuple[str, str]],
    *,
    timeout_s: float = 5.0,
    lang: Literal["python", "bash"] = "python",
) -> CodeReport:
    """Judges a program by what it writes to its standard output, in a new sandbox for each input.

    Spaces at the ends of lines and empty lines at the end do not count; everything else does.

    Args:
        backend: where it runs.
        source: the program.
        cases: (standard input, standard output) pairs.
        timeout_s: wall seconds for each.
        lang: what the program is written in.

    Raises:
        InfrastructureError: a sandbox failed that the candidate did not break.
        DefinitionError: there are no cases.
    """
    known = list(cases)
    if not known:
        raise DefinitionError("a program cannot be judged without cases")
    refused = _unread(source)
    if refused:
        return refused
    results, wall = [], 0.0
    for stdin, stdout in known:
        with backend.create() as box:
            result = box.exec(source, lang, stdin=stdin.encode(), timeout_s=timeout_s)
        wall += result.wall_s
        right = result.ok and not result.truncated and _lines(result.stdout) == _lines(stdout.encode())
        outcome = (
            "right" if right else "wrong" if result.ok else {"timeout": "timeout", "oom": "memory"}.get(result.status, "ended")
        )
        results.append(CaseResult(right, outcome))
    return _summary(results, False, wall)


def _lines(data: bytes) -> list[bytes]:
    return [line.rstrip() for line in data.rstrip().split(b"\n")]


# -- the verifier -----------------------------------------------------------------------------------------------------


def grade(backend: Backend, source: str, tests: CodeTests, **options: Any) -> CodeReport:
    """Judges a program by whatever its tests are: `grade_output`, `grade_calls`, `grade_program`; all that there are must hold.

    Args:
        backend: where it runs.
        source: what was submitted; the tests' ``prefix`` is put in front.
        tests: what it must hold to.
        options: ``timeout_s``, ``fresh``, ``perturb``.

    Raises:
        InfrastructureError: a sandbox failed that the candidate did not break.
        DefinitionError: the tests are broken.
    """
    if not source.strip():
        return _refused("no_code", "there is no program")
    whole = f"{tests.prefix}\n{source}" if tests.prefix else source
    reports = []
    if tests.output:
        reports.append(grade_output(backend, whole, tests.output, timeout_s=options.get("timeout_s", 5.0)))
    if tests.cases:
        reports.append(grade_calls(backend, whole, tests.entry_point, tests.cases, reference=tests.reference, **options))
    if tests.tests and all(r.passed for r in reports):
        reports.append(grade_program(backend, whole, tests.entry_point, tests.tests, reference=tests.reference, **options))
    if not reports:
        raise DefinitionError("there are no tests: give cases, tests or output")
    worst = next((r for r in reports if not r.passed), reports[0])
    return msgspec.structs.replace(
        worst,
        value=min(r.value for r in reports),
        flags=tuple(dict.fromkeys(f for r in reports for f in r.flags)),
        cases=tuple(c for r in reports for c in r.cases),
        tests=tuple(t for r in reports for t in r.tests),
        wall_s=sum(r.wall_s for r in reports),
    )


_FENCES = ("", "python", "python3", "py")


def last_block(text: str) -> str | None:
    """The last fenced block of Python of a text, thoughts under think tags left out; None where there is none.

    A block that is not closed was cut off and is none; a later block of another language does not count.

    >>> last_block("First:\\n```python\\nx = 1\\n```\\nno:\\n```python\\nx = 2\\n```\\n")
    'x = 2\\n'
    """
    from agentgym.evaluators.math_visible import without_thoughts

    found: str | None = None
    lines: list[str] = []
    inside = language = ""
    for line in without_thoughts(text).split("\n"):
        bare = line.strip()
        if inside:
            if bare == inside:
                if language in _FENCES:
                    found = "".join(f"{x}\n" for x in lines)
                inside = ""
            else:
                lines.append(line)
        elif bare.startswith("```"):
            inside = bare[: len(bare) - len(bare.lstrip("`"))]
            language, lines = bare[len(inside) :].strip().split(" ")[0].lower(), []
    return found


def submitted_code(trajectory: Trajectory, argument: str = "code") -> str | None:
    """The program that an episode ended with, or None.

    Where the last turn called ``submit``, it is that call's argument; else the last fenced block of the last message.
    Reasoning is never looked at.

    Args:
        trajectory: the episode.
        argument: of ``submit``.
    """
    if not trajectory.turns:
        return None
    turn = trajectory.turns[-1]
    done = {r.call_id for r in turn.results if r.name == "submit" and r.status == "ok"}
    for call in turn.message.tool_calls:
        if call.id in done:
            try:
                value = parse_arguments(call.arguments).get(argument)
            except ArgumentError:
                return None
            return value if isinstance(value, str) else None
    return None if turn.results else last_block(turn.message.text)


@functools.cache
def _digest() -> str:
    files = sorted(Path(__file__).parent.glob("code*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


class _Judge:
    """What the verifier closes over; its repr names all of these files, so `Verifier.hash` changes with any of them."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"{self.options}:{_digest()}"

    def __call__(self, trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        options = dict(self.options)
        name, argument, key = options.pop("name"), options.pop("argument"), options.pop("key")
        hidden = context.task.hidden
        tests = CodeTests.of(hidden.get(key) if isinstance(hidden, dict) else None)
        if context.sandbox is None:
            reason = "there is no sandbox to run the program in"
            return [Score(name, value=None, status="unscorable", reason=reason, flags=("infrastructure",))]
        source = submitted_code(trajectory, argument)
        if source is None:
            return [Score(name, value=0.0, status="refused", reason="no program was submitted", flags=("no_code",))]
        try:
            report = grade(context.sandbox, source, tests, **options)
        except InfrastructureError as e:
            return [Score(name, value=None, status="unscorable", reason=str(e), flags=("infrastructure",))]
        return verdicts(name, report)


def verdicts(name: str, report: CodeReport) -> list[Score | Finding]:
    """A report as a score, all or nothing, and a finding about cheating."""
    tampered = [f for f in ("special_cased", "forged") if f in report.flags]
    status: Status = "refused" if {"no_code", "too_long"} & set(report.flags) else "ok"
    evidence = {
        "tests": [sum(report.tests), len(report.tests)],
        "cases": [sum(c.right for c in report.cases if not c.perturbed), sum(not c.perturbed for c in report.cases)],
        "perturbed": [sum(c.right for c in report.cases if c.perturbed), sum(c.perturbed for c in report.cases)],
        "share": report.value,
    }
    score = Score(name, value=float(report.passed), status=status, reason=report.reason, flags=report.flags, evidence=evidence)
    finding = Finding(
        "reward_hacking", "answers of the tests only", True, bool(tampered), evidence={"flags": tampered, **evidence}
    )
    return [score, finding]


def code_passes(
    *,
    name: str = "passes",
    argument: str = "code",
    key: str = "tests",
    timeout_s: float = 5.0,
    fresh: Fresh = "auto",
    perturb: int = 16,
) -> Verifier:
    """A verifier: 1.0 where the submitted program passes the task's hidden tests, else 0.0.

    ``ctx.sandbox`` must be a `Backend`: the verifier makes sandboxes of its own and closes them. The program is what `submit`
    was handed, else the last fenced block of the last message. The tests are ``Task.hidden[key]``, as `CodeTests.hidden` gives
    them. A sandbox that fails by itself makes the episode unscorable; a program that ends its own has failed.

    Args:
        name: of the score.
        argument: of ``submit`` that holds the program.
        key: of ``Task.hidden`` under which the tests are.
        timeout_s: wall seconds for the program's declared calls.
        fresh: see `grade_program`.
        perturb: most further inputs.
    """
    judge = _Judge(name=name, argument=argument, key=key, timeout_s=timeout_s, fresh=fresh, perturb=perturb)

    @verifier(name=name, needs=("sandbox",))
    def passes(trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        return judge(trajectory, context)

    return passes
