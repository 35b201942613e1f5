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
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.evaluators.code_ask import Candidate, Fresh, Reply, answers, call_text
from agentgym.evaluators.code_compare import LEVELS, Sameness, canonical, canonical_wire, same, sameness
from agentgym.evaluators.code_guest import NotPlain, decode
from agentgym.evaluators.code_perturb import further, suspected
from agentgym.evaluators.code_play import Recorded, once, play, record, seed_of
from agentgym.evaluators.code_report import Case, CaseResult, CodeReport, CodeTests, refusal, summary, unread
from agentgym.evaluators.math_visible import without_thoughts
from agentgym.scoring import Finding, Score, Status, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend

__all__ = [
    "Case", "CaseResult", "CodeReport", "CodeTests", "Fresh", "Sameness", "code_passes", "grade", "grade_calls",
    "grade_output", "grade_program", "last_block", "submitted_code",
]  # fmt: skip

PERTURBED = 24
"""Further inputs, where a reference can answer them."""


class _Ready(msgspec.Struct):
    """Cases as they are asked and compared."""

    cases: list[Case]
    calls: list[str]
    wanted: list[str]
    """What the answer's `canonical` must be."""


def _ready(cases: Sequence[Case]) -> _Ready:
    try:
        wanted = [canonical(c.expected) for c in cases]
    except NotPlain as e:
        raise DefinitionError(f"an expected answer is no plain data: {e}") from None
    return _Ready(list(cases), [call_text(c.args, c.kwargs) for c in cases], wanted)


class _Said(msgspec.Struct):
    """A candidate's replies to declared and further cases, in the order of the cases."""

    replies: list[Reply | None]
    why: str
    forged: bool
    wall_s: float

    def result(self, ready: _Ready, at: int, compare: Sameness) -> CaseResult:
        """How one case went."""
        case, reply = ready.cases[at], self.replies[at]
        right, outcome = False, self.why
        if reply is not None:
            outcome = reply[0]
            if outcome == "ok":
                try:
                    right = not case.raises and (
                        canonical_wire(reply[1]) == ready.wanted[at]
                        or same(decode(reply[1]), case.expected, compare, case.tolerance)
                    )
                    outcome = "right" if right else "wrong"
                except (NotPlain, RecursionError):
                    outcome = "refused"
            elif outcome == "raised":
                right = reply[1] == case.raises
                outcome = "right" if right else f"raised {reply[1][:80]}"
        return CaseResult(right, outcome, case.visible, case.perturbed)


def _ask_all(
    backend: Backend, source: str, entry_point: str, ready: _Ready, declared: int, each: bool, timeout_s: float
) -> _Said:
    """All cases in one batch, in an order that the candidate cannot know; the first ``declared`` of them count."""
    order = list(range(len(ready.calls)))
    random.Random(seed_of(source + ready.calls[0])).shuffle(order)
    found = answers(backend, source, entry_point, [ready.calls[i] for i in order], timeout_s, each=each)
    replies: dict[int, Reply | None] = dict(zip(order, found.replies, strict=True))
    wall = found.wall_s
    if declared < len(order) and not found.forged and any(replies[i] is None for i in range(declared)):
        # it may have been a further input that it did not survive
        order = [i for i in order if i < declared]
        found = answers(backend, source, entry_point, [ready.calls[i] for i in order], timeout_s, each=each)
        replies.update(zip(order, found.replies, strict=True))
        wall += found.wall_s
    return _Said([replies[i] for i in range(len(ready.calls))], found.why, found.forged, wall)


def grade_calls(
    backend: Backend,
    source: str,
    entry_point: str,
    cases: Iterable[Case],
    *,
    reference: str = "",
    perturb: int = PERTURBED,
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
    refused = unread(source)
    if refused:
        return refused
    more = further(backend, reference, entry_point, known, perturb) if reference and perturb > 0 else []
    ready = _ready([*known, *more])
    said = _ask_all(backend, source, entry_point, ready, len(known), fresh in ("call", "test"), timeout_s)
    results = [said.result(ready, i, compare) for i in range(len(known) + len(more))]
    report = summary(results, said.forged, said.wall_s)
    return suspected(report, source, reference, known, more) if report.passed and reference and perturb > 0 else report


def _learned(
    backend: Backend, tests: Sequence[str], entry_point: str, reference: str, perturb: int, timeout_s: float
) -> tuple[Recorded, list[Case], _Ready]:
    """What the tests ask, further cases, and both as they are asked; found out once for each process."""

    def make() -> tuple[Recorded, list[Case], _Ready]:
        recorded = record(backend, tests, entry_point, reference, timeout_s)
        more = further(backend, reference, entry_point, recorded.cases, perturb) if perturb > 0 else []
        return recorded, more, _ready([*recorded.cases, *more])

    return once("\0".join(["learned", entry_point, reference, str(perturb), *tests]), make)


def grade_program(
    backend: Backend,
    source: str,
    entry_point: str,
    tests: str | Sequence[str],
    *,
    reference: str = "",
    support: str = "",
    perturb: int = PERTURBED,
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
    refused = unread(source)
    if refused:
        return refused
    candidate = Candidate(backend, source, entry_point, fresh, timeout_s)
    try:
        if not reference:
            return play(backend, source, entry_point, texts, support, [], candidate)
        recorded, more, ready = _learned(backend, texts, entry_point, reference, perturb, timeout_s)
        count = len(recorded.cases)
        said = _ask_all(backend, source, entry_point, ready, count, fresh in ("call", "test"), timeout_s)
        results = [said.result(ready, i, "exact") for i in range(count)]
        report = msgspec.structs.replace(summary(results, said.forged, said.wall_s), tests=(True,) * recorded.tests)
        how: Sameness | None = recorded.allowed
        if not report.passed:
            given = [r for r in said.replies[:count] if r is not None and r[0] in ("ok", "raised")]
            if said.forged or len(given) < count or any(r.outcome == "refused" for r in results):
                return msgspec.structs.replace(report, tests=(False,) * recorded.tests)
            known = list(zip(recorded.cases, given, strict=True))
            report = play(backend, source, entry_point, texts, reference, known, candidate)
            report = msgspec.structs.replace(report, wall_s=report.wall_s + said.wall_s)
            if not report.passed:
                return report
            pairs = [(decode(r[1]), case.expected) for case, r in known if r[0] == "ok" and not case.raises]
            seen = sameness(pairs) if len(pairs) == count else None
            how = None if seen is None else max(seen, recorded.allowed, key=LEVELS.index)
    finally:
        candidate.close()
    if perturb <= 0:
        return report
    if how is None:  # more than one answer is right: nothing can be said of inputs that the tests do not judge
        return msgspec.structs.replace(report, flags=(*report.flags, "unperturbed"))
    results += [said.result(ready, count + i, how) for i in range(len(more))]
    return suspected(msgspec.structs.replace(report, cases=tuple(results)), source, reference, recorded.cases, more)


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
    refused = unread(source)
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
    return summary(results, False, wall)


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
        return refusal("no_code", "there is no program")
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
            raise InfrastructureError("there is no sandbox to run the program in", retryable=False)
        source = submitted_code(trajectory, argument)
        if source is None:
            return [Score(name, value=0.0, status="refused", reason="no program was submitted", flags=("no_code",))]
        return verdicts(name, grade(context.sandbox, source, tests, **options))


def verdicts(name: str, report: CodeReport) -> list[Score | Finding]:
    """A report as a score, all or nothing, and a finding about cheating."""
    tampered = [f for f in ("special_cased", "forged") if f in report.flags]
    status: Status = "refused" if {"no_code", "too_long"} & set(report.flags) else "ok"
    evidence = {
        "tests": [sum(report.tests), len(report.tests)],
        "cases": report.right(),
        "perturbed": report.right(perturbed=True),
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
    perturb: int = PERTURBED,
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
