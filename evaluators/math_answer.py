# SPDX-License-Identifier: Apache-2.0
r"""Whether a mathematical answer is right: what was answered, and whether it is the gold. Exact, bounded, no ``eval``.

Two doors: `grade` for a gold and a text, `math_answer` for a verifier of episodes. What was answered (`extract`) and whether
it is right (`same_answer`) are separate questions, and whether the declared format was kept (`has_format`) is a third one with
a score of its own. What is accepted and what is refused is a policy, declared in docs/verifiers.md, not leniency.

In doubt an answer is refused: a policy under training finds whatever is paid without being right, and nobody notices. So
a hedge (``7 or 8``), a bound (``at least 7``) and a denial (``7 is wrong``) are no answers, an expression that is not worked
out (``14/2``) is flagged, and no text is ever paid for two different golds.

Nearly every answer is settled here in some 0.1 ms. What is not (is tan(y)^2 + 1 the same as sec(y)^2?) goes to a worker
process that can be killed, under a limit of CPU time and memory (`math_workers`).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError
from agentgym.evaluators.math_compare import Verdict, compare
from agentgym.evaluators.math_extract import MOST_CHARACTERS, PROTOCOLS, Found, boxed, extract, find, last_boxed, submitted
from agentgym.evaluators.math_number import MOST_NUMBER, choice, is_missing, normal, number
from agentgym.evaluators.math_parse import Unreadable, parse
from agentgym.evaluators.math_visible import WINDOW
from agentgym.scoring import Score, Status, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory, Turn

__all__ = [
    "MOST_CHARACTERS", "MOST_NUMBER", "PROTOCOLS", "WINDOW", "extract", "grade", "has_format", "is_missing", "last_boxed",
    "math_answer", "normal", "number", "same_answer", "used_tool",
]  # fmt: skip

_SPOKEN = {
    "last boxed answer, else last stated answer": "any",
    "last boxed answer": "last_boxed",
    "last boxed letter": "last_letter",
    "GSM8K: last #### line": "last_hash",
    "last stated answer": "last_stated",
    "tagged answer": "tagged",
    "0.1 format + 1.0 correct": "tagged",
    "final line": "final_line",
    "submitted answer": "submitted",
}
"""How data sets name their protocols, and what these are here."""


def grade(
    gold: str, response: str, protocol: str = "last boxed answer, else last stated answer", *, unevaluated: bool = True
) -> float | tuple[float, list[str]]:
    r"""1.0 where a response answers with the gold, else 0.0; with flags, where there is more to say than that.

    May be called from any thread, from a forked process and inside a running event loop (it blocks for some 0.1 ms, rarely for
    as long as `math_workers.CPU_S`). It never raises for what a response says, and never runs it.

    Args:
        gold: the right answer; a solution that ends in a box will do. A missing one (``""``, ``None``) matches nothing.
        response: what the model said, without separate reasoning; thoughts under think tags are not looked at.
        protocol: how the answer is declared to be given: one of `PROTOCOLS`, or in words ``last boxed answer, else last
            stated answer``, ``last boxed answer``, ``last boxed letter``, ``GSM8K: last #### line``, ``last stated answer``,
            ``tagged answer``, ``final line``, ``submitted answer``.
        unevaluated: whether an expression that is left to work out (``17 * 23`` for 391) is paid, with a flag of this name.

    Returns: the value alone, or the value and flags: ``no_answer``, ``malformed``, ``several_answers``, ``hidden`` (only where
    no reader sees it), ``unevaluated``, ``unparsed``, ``too_long``, ``too_large``, ``timeout``, ``undecided``, ``worker_died``,
    ``unscorable`` (the gold is missing).

    Raises:
        DefinitionError: an unknown protocol.

    >>> grade("42", r"So it is \boxed{42}."), grade("42", "I do not know."), grade("391", r"\boxed{17 \times 23}")
    (1.0, (0.0, ['no_answer']), (1.0, ['unevaluated']))
    """
    named = _protocol(protocol)
    if type(gold) is not str or is_missing(gold):  # a data row may hold anything
        return 0.0, ["unscorable"]
    if type(response) is not str:
        return 0.0, ["no_answer"]
    verdict = _judged(response, gold, named)
    right = verdict.right and (unevaluated or "unevaluated" not in verdict.flags)
    return (float(right), list(verdict.flags)) if verdict.flags else float(right)


def _protocol(name: str) -> str:
    found = _SPOKEN.get(name, name if name in PROTOCOLS else "")
    if found:
        return found
    raise DefinitionError(f"there is no answer protocol {name!r}; there are: {', '.join((*PROTOCOLS, *_SPOKEN))}")


def _judged(response: str, gold: str, protocol: str) -> Verdict:
    if protocol == "any" and len(gold) <= WINDOW and response.strip() == gold.strip():
        return Verdict(True)  # also a gold of words and formulas
    found = _found(response, protocol)
    if found.answer is None:
        return Verdict(False, found.flags or ("no_answer",))
    if protocol == "last_letter":
        return Verdict(choice(gold_answer(gold)) == found.answer)
    return compare(found.answer, gold_answer(gold))


def _found(text: str, protocol: str) -> Found:
    if len(text) > MOST_CHARACTERS:
        return Found(None, ("too_long",))
    return submitted(text) if protocol == "submitted" else find(text, protocol)


@functools.lru_cache(maxsize=1024)
def gold_answer(gold: str) -> str:
    r"""The answer of a gold: what its box holds, of a whole solution what it states, else the gold itself."""
    if "\\boxed" in gold:
        return boxed(gold) or gold
    if number(gold) is None and len(gold) > 12:
        try:
            parse(gold)
        except (Unreadable, RecursionError):
            if " is " in gold or "nswer" in gold or ". " in gold:
                stated = extract(gold)
                if stated and (number(stated) is not None or "\\" in stated or "$" in gold):
                    return stated
    return gold


def same_answer(answer: str, gold: str) -> bool:
    r"""Whether an extracted answer is the gold and is worked out.

    ``x = 5`` and ``2 + 3 = 5`` answer 5; an inequality does not, nor does a fraction that is not in its lowest terms.

    >>> same_answer("0.75", "3/4"), same_answer("4200", "42"), same_answer("40_0", "400"), same_answer("6/8", "3/4")
    (True, False, False, False)
    """
    if len(answer) > WINDOW:
        return False
    verdict = compare(answer, gold)
    return verdict.right and not verdict.flags


# -- verifiers --------------------------------------------------------------------------------------------------------


@functools.cache
def _digest() -> str:
    """Over the source of everything that takes part in a verdict."""
    files = sorted(Path(__file__).parent.glob("math_*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


_NO_ANSWER = ("no_answer",)
_WHY: dict[str, tuple[str, Status]] = {
    "unparsed": ("not the gold, and not read as mathematics", "ok"),
    "unevaluated": ("an expression that is left to work out", "refused"),
    "too_large": ("more digits or operations than an answer needs", "refused"),
    "undecided": ("could not be told from the gold, nor shown to be it", "refused"),
    "timeout": ("comparing it with the gold took too much CPU time", "refused"),
    "worker_died": ("the process that compared it was killed from outside", "unscorable"),
}


class _Judge:
    """What the verifiers close over. Its repr names this whole file, so `Verifier.hash` changes with any part of it."""

    def __init__(self, protocol: str) -> None:
        if protocol not in PROTOCOLS:
            raise DefinitionError(f"there is no answer protocol {protocol!r}; there are: {', '.join(PROTOCOLS)}")
        self.protocol = protocol

    def __repr__(self) -> str:
        return f"{self.protocol}:{_digest()}"

    def answer(self, trajectory: Trajectory, context: VerifierContext) -> Score:
        gold = context.task.gold
        if not isinstance(gold, str) or is_missing(gold):
            raise DefinitionError(f"{context.task.id}: its gold must be an answer as text, not {gold!r}")
        text, handed_in = _answered(trajectory)
        if text is not None and len(text) > MOST_CHARACTERS:
            reason = f"the answer is longer than {MOST_CHARACTERS:,} characters"
            return Score("answer", value=0.0, status="refused", reason=reason, flags=("too_long",))
        found = Found(None) if text is None else _found(text, "submitted" if handed_in else self.protocol)
        if found.answer is None:
            evidence = {"extracted": None, "gold": gold}
            flags = found.flags or _NO_ANSWER
            return Score("answer", value=0.0, status="refused", reason="no answer found", flags=flags, evidence=evidence)
        verdict = compare(found.answer, gold_answer(gold))
        evidence = {"extracted": found.answer[:200], "gold": gold}
        if verdict.right and not verdict.flags:
            return Score("answer", value=1.0, evidence=evidence)
        flags = verdict.flags
        reason = "not the gold"
        status: Status = "ok"
        for flag, (why, state) in _WHY.items():
            if flag in flags:
                reason, status = why, state
        # what the answer itself costs is the policy's doing; a killed worker is not
        value = None if status == "unscorable" else 0.0
        return Score("answer", value=value, status=status, reason=reason, flags=flags, evidence=evidence)

    def format(self, trajectory: Trajectory, context: VerifierContext) -> bool:
        text, handed_in = _answered(trajectory)
        if text is None or len(text) > MOST_CHARACTERS:
            return False
        return bool(text.strip()) if handed_in else extract(text, self.protocol) is not None


def _answered(trajectory: Trajectory) -> tuple[str | None, bool]:
    """The text that holds the answer, and whether it was submitted. None: the last turn answered nothing."""
    if not trajectory.turns:
        return None, False
    turn: Turn = trajectory.turns[-1]
    if not turn.results:
        return turn.message.text, False
    done = {r.call_id for r in turn.results if r.name == "submit" and r.status == "ok"}
    for call in turn.message.tool_calls:
        if call.id in done:
            try:
                arguments = parse_arguments(call.arguments)
            except ArgumentError:
                return None, True
            answer = arguments.get("answer", "")
            # "refused" and "impossible" carry a reason, not an answer
            return (answer if isinstance(answer, str) and arguments.get("status", "done") == "done" else None), True
    return None, False  # cut off while it was still calling tools


def math_answer(protocol: str = "any") -> Verifier:
    """A verifier named ``answer``: 1.0 where the last turn answers with the task's gold, else 0.0.

    The answer is the ``answer`` argument where the last turn called ``submit``, else what `extract` finds in its text;
    reasoning is never looked at. No answer at all is 0.0 with status ``refused`` and the flag ``no_answer``.

    Args:
        protocol: how the answer is looked for, one of `PROTOCOLS`; by default leniently, with format scored apart.

    Raises:
        DefinitionError: an unknown protocol. A task whose gold is not text is unscorable.
    """
    judge = _Judge(protocol)

    @verifier(name="answer")
    def answer(trajectory: Trajectory, context: VerifierContext) -> Score:
        return judge.answer(trajectory, context)

    return answer


def has_format(protocol: str) -> Verifier:
    """A verifier named ``format``: whether the answer was given exactly as declared, be it right or wrong.

    Args:
        protocol: one of `PROTOCOLS`. Where the last turn called ``submit``, any answer that is not empty will do.

    Raises:
        DefinitionError: an unknown protocol.
    """
    judge = _Judge(protocol)

    @verifier(name="format")
    def format_(trajectory: Trajectory, context: VerifierContext) -> bool:
        return judge.format(trajectory, context)

    return format_


def used_tool(name: str) -> Verifier:
    """A verifier named ``NAME used``: whether the tool was called with success at least once.

    Args:
        name: the tool's name.
    """

    @verifier(name=f"{name} used")
    def used(trajectory: Trajectory, context: VerifierContext) -> bool:
        return any(r.name == name and r.status == "ok" for turn in trajectory.turns for r in turn.results)

    return used
