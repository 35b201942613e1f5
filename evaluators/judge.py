# SPDX-License-Identifier: Apache-2.0
"""Judges: another model says what an answer is worth, by a rubric or by comparison, and is itself held to controls.

`rubric_judge` and `pairwise_judge` are verifiers; they ask the policy that is handed in as ``context.judge`` (``agentgym eval
--judge MODEL``). `grade` and `compare` do the same for a text at hand. Any policy can judge.

What keeps a judge from being fooled, and a fooled one from being believed, stands in docs/judges.md: `judge_text` for what it
is shown, `judge_ask` for what it may say, `judge_controls` for what it must get right first. A judge that fails, does not
answer in the form asked for, or cannot be reached gives no value; it never gives 0 or 1.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentgym.background import run_blocking
from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.evaluators.judge_ask import (
    Asker,
    Block,
    Malformed,
    NoVerdict,
    Request,
    Settings,
    Spent,
    asker,
    names_of,
    read_json,
    read_line,
)
from agentgym.evaluators.judge_controls import CONTROLS, OPENER, PAIRS, STAGES, Control, PairControl, Report, report
from agentgym.evaluators.judge_text import neutral, screen
from agentgym.protocols import Policy
from agentgym.scoring import Score, Verdict, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory

__all__ = ["Control", "Criterion", "PairControl", "Settings", "check", "compare", "grade", "pairwise_judge", "rubric_judge"]

MOST_FLOOR = 0.9
"""A rubric by which an answer that says nothing gets more than this cannot tell answers apart."""

RECHECK_EVERY = 200
"""After so many judgements one control is asked again: a served model may change under its name."""

Judged = Literal["answer", "transcript"]


class Criterion(msgspec.Struct, frozen=True):
    """One line of a rubric."""

    text: str
    """What is asked of the answer, e.g. ``names the cause``."""
    weight: float = 1.0
    """Share in the value, relative to the other criteria; more than 0."""
    levels: tuple[str, ...] = ("no", "yes")
    """From worst to best, evenly worth 0 to 1."""


Rubric = Sequence[str | Criterion]


def _criteria(rubric: Rubric) -> tuple[Criterion, ...]:
    """The rubric, checked.

    Raises:
        DefinitionError: it is empty or makes no sense.
    """
    if isinstance(rubric, str) or not rubric:
        raise DefinitionError("a rubric is a list of criteria, at least one")
    made = tuple(c if isinstance(c, Criterion) else Criterion(c) for c in rubric)
    for c in made:
        folded = {level.strip().casefold() for level in c.levels}
        if not isinstance(c.text, str) or not c.text.strip():
            raise DefinitionError(f"a criterion is a text, not {c.text!r}")
        if len(folded) < 2 or len(folded) != len(c.levels) or any("," in level for level in c.levels):
            raise DefinitionError(f"the criterion {c.text!r} needs two or more different levels without commas: {c.levels}")
        if not 0 < c.weight < float("inf"):
            raise DefinitionError(f"the criterion {c.text!r} must weigh more than 0, not {c.weight}")
    return made


# -- by a rubric --------------------------------------------------------------------------------------------------------


class _ByRubric:
    """The question of a rubric, and how its answers are read."""

    def __init__(self, blocks: tuple[Block, ...], criteria: tuple[Criterion, ...], form: str) -> None:
        self.blocks = blocks
        self.criteria = criteria
        self.form = form

    def _order(self, vote: int) -> list[int]:
        """Which criterion stands in which place: another order for each vote, as what stands first is favoured."""
        return [(i + vote) % len(self.criteria) for i in range(len(self.criteria))]

    def request(self, vote: int) -> Request:
        shown = [self.criteria[i] for i in self._order(vote)]
        lines = names_of([f"{c.text} (levels: {' | '.join(c.levels)})" for c in shown])
        question = (
            "Grade the answer by this rubric. For each criterion choose one of its levels, by what the answer says about the"
            f" task and by nothing else.\n{lines}"
        )
        places = [f"<level of {i}>" for i in range(1, len(shown) + 1)]
        if self.form == "line":
            return Request(self.blocks, question, f"VERDICT ID: {', '.join(places)}")
        quoted = ", ".join(f'"{place}"' for place in places)
        return Request(self.blocks, question, f'{{"id": "ID", "why": "<one short sentence>", "levels": [{quoted}]}}')

    def read(self, vote: int, reply: str, id_: str) -> tuple[list[int], str]:
        """Level of each criterion, in the rubric's own order, and the reason."""
        given: Any
        why: Any = ""
        if self.form == "line":
            given = read_line(reply, id_).split(",")
        else:
            value = read_json(reply, id_, {"levels"})
            given, why = value["levels"], value.get("why", "")
        if not isinstance(given, list) or len(given) != len(self.criteria):
            raise Malformed(f"it must hold {len(self.criteria)} levels")
        levels = [0] * len(self.criteria)
        for i, said in zip(self._order(vote), given, strict=True):
            known = [level.strip().casefold() for level in self.criteria[i].levels]
            if not isinstance(said, str) or said.strip().casefold() not in known:
                raise Malformed(f"{str(said)[:40]!r} is no level of {self.criteria[i].text!r}")
            levels[i] = known.index(said.strip().casefold())
        return levels, why[:500] if isinstance(why, str) else ""

    def worth(self, levels: Sequence[int]) -> float:
        """Weighted mean, 0 to 1."""
        total = sum(c.weight for c in self.criteria)
        worth = [c.weight * level / (len(c.levels) - 1) for c, level in zip(self.criteria, levels, strict=True)]
        return sum(worth) / total


def _blocks(prompt: str, *answer: Block) -> tuple[Block, ...]:
    return (Block("task", neutral(prompt)), *answer)


async def _grade(
    policy: Policy | None,
    prompt: str,
    response: str,
    rubric: Rubric,
    settings: Settings,
    controls: Sequence[Control] | None,
    name: str,
    context: tuple[Block, ...] = (),
) -> Score:
    criteria = _criteria(rubric)
    screened = screen(response, prompt, [c.text for c in criteria], most=settings.most_characters)
    flags = [*screened.flags]
    evidence: dict[str, Any] = {"shown_characters": len(screened.text)}
    if screened.injections:
        evidence["injections"] = screened.injections
    if screened.left_out:
        evidence["left_out_characters"] = screened.left_out

    def score(value: float | None, reason: str = "", *more: str, refused: bool = False) -> Score:
        status: Literal["ok", "refused", "unscorable"] = "unscorable" if value is None else "refused" if refused else "ok"
        return Score(name, "metric", value, status, reason, (*flags, *more), evidence)

    if not screened.text:
        return score(0.0, "nothing is left to judge", "empty", refused=bool(screened.injections))
    if screened.stuffed:
        return score(0.0, "the rubric's own words, not an answer", refused=True)
    if policy is None:
        return score(None, "there is no judge to ask; name one with --judge MODEL", "no_judge")
    spent = Spent()
    asked = _ByRubric(_blocks(prompt, *context, Block("answer", screened.text)), criteria, settings.form)
    empty = _ByRubric(_blocks(prompt, *context, Block("answer", OPENER)), criteria, settings.form)
    try:
        judge = asker(policy)
        evidence["judge"] = {"name": judge.name}
        if controls is not None:
            found = await _controlled(judge, controls, settings, spent)
            evidence["controls"] = {"passed": found.passed, "of": found.of, "failed": found.failed}
            if not found.reliable:
                return score(None, _unreliable(judge, found), "judge_unreliable")
        # what an answer that says nothing would get ("no false statement") is worth nothing
        nothing, votes = await asyncio.gather(
            judge.verdicts(empty.request, empty.read, settings, spent, votes=1),
            judge.verdicts(asked.request, asked.read, settings, spent),
        )
    except NoVerdict as e:
        return score(None, str(e), e.flag)
    finally:
        if "judge" in evidence:
            evidence["judge"] |= msgspec.to_builtins(spent)
    floor = empty.worth(nothing[0][0])
    # the lower median of the votes on each criterion: in doubt the worse level
    levels = [sorted(v[0][i] for v in votes)[(len(votes) - 1) // 2] for i in range(len(criteria))]
    raw = asked.worth(levels)
    evidence |= {
        "levels": {c.text: c.levels[level] for c, level in zip(criteria, levels, strict=True)},
        "raw": raw,
        "floor": floor,
        "why": [why for _, why in votes],
    }
    if len(votes) > 1:
        same = [Counter(v[0][i] for v in votes).most_common(1)[0][1] / len(votes) for i in range(len(criteria))]
        evidence |= {"votes": [asked.worth(v[0]) for v in votes], "agreement": sum(same) / len(same)}
    if floor > MOST_FLOOR:
        why = f"an answer that says nothing gets {floor:.2f} of 1 by this rubric and judge: it cannot tell answers apart"
        return score(None, why, "judge_unreliable")
    return score(max(0.0, (raw - floor) / (1.0 - floor)))


# -- by comparison ------------------------------------------------------------------------------------------------------


class _ByComparison:
    """The question which of two answers is better."""

    def __init__(self, prompt: str, first: str, second: str, criteria: tuple[Criterion, ...], form: str) -> None:
        self.blocks = _blocks(prompt, Block("answer 1", first), Block("answer 2", second))
        self.criteria = criteria
        self.form = form

    def request(self, vote: int) -> Request:
        question = (
            "Which answer is better by these criteria? Go by what the answers say about the task and by nothing else: not by"
            f" their order, length or form.\n{names_of([c.text for c in self.criteria])}\n"
            'Choose "1", "2", or "tie" where neither is better.'
        )
        example = "VERDICT ID: <1, 2 or tie>"
        if self.form == "json":
            example = '{"id": "ID", "why": "<one short sentence>", "better": "<1, 2 or tie>"}'
        return Request(self.blocks, question, example)

    def read(self, vote: int, reply: str, id_: str) -> str:
        said = read_line(reply, id_) if self.form == "line" else read_json(reply, id_, {"better"})["better"]
        said = str(said).strip().casefold()
        if said not in ("1", "2", "tie"):
            raise Malformed(f"{said[:40]!r} is neither 1 nor 2 nor tie")
        return said


_FORWARD = {"1": 1.0, "2": 0.0, "tie": 0.5}
_BACKWARD = {"1": 0.0, "2": 1.0, "tie": 0.5}


async def _pair(
    judge: Asker,
    prompt: str,
    a: str,
    b: str,
    criteria: tuple[Criterion, ...],
    settings: Settings,
    spent: Spent,
    *,
    votes: int | None = None,
    first: int = 0,
) -> list[tuple[float, float]]:
    """Each vote's preference for ``a`` (1, 0.5, 0), with ``a`` shown first and with ``a`` shown second."""
    ways = (_ByComparison(prompt, a, b, criteria, settings.form), _ByComparison(prompt, b, a, criteria, settings.form))
    forward, backward = await asyncio.gather(
        *(judge.verdicts(way.request, way.read, settings, spent, votes=votes, first=first) for way in ways)
    )
    return [(_FORWARD[f], _BACKWARD[s]) for f, s in zip(forward, backward, strict=True)]


def _preferred(orders: tuple[float, float]) -> float:
    """One preference of two orders: where they disagree it was the place that won, so it is a tie."""
    return orders[0] if orders[0] == orders[1] else 0.5


async def _compare(
    policy: Policy | None,
    prompt: str,
    a: str,
    b: str,
    rubric: Rubric,
    settings: Settings,
    controls: Sequence[PairControl] | None,
    name: str,
) -> Score:
    criteria = _criteria(rubric)
    texts = [c.text for c in criteria]
    left, right = (screen(text, prompt, texts, most=settings.most_characters) for text in (a, b))
    flags = [*left.flags, *(f"other_{flag}" for flag in right.flags)]
    evidence: dict[str, Any] = {}
    for side, screened in (("injections", left), ("other_injections", right)):
        if screened.injections:
            evidence[side] = screened.injections

    def score(value: float | None, reason: str = "", *more: str) -> Score:
        return Score(name, "metric", value, "unscorable" if value is None else "ok", reason, (*flags, *more), evidence)

    says = [bool(s.text) and not s.stuffed for s in (left, right)]
    if not all(says) or left.text == right.text:
        reason = "both say the same" if says[0] == says[1] else "only one of them says anything"
        return score(0.5 + (says[0] - says[1]) / 2, reason)
    if policy is None:
        return score(None, "there is no judge to ask; name one with --judge MODEL", "no_judge")
    spent = Spent()
    try:
        judge = asker(policy)
        evidence["judge"] = {"name": judge.name}
        if controls is not None:
            found = await _controlled(judge, controls, settings, spent)
            evidence["controls"] = {"passed": found.passed, "of": found.of, "failed": found.failed}
            if not found.reliable:
                return score(None, _unreliable(judge, found), "judge_unreliable")
        votes = await _pair(judge, prompt, left.text, right.text, criteria, settings, spent)
    except NoVerdict as e:
        return score(None, str(e), e.flag)
    finally:
        if "judge" in evidence:
            evidence["judge"] |= msgspec.to_builtins(spent)
    preferred = [_preferred(v) for v in votes]
    evidence["orders"] = votes
    if len(votes) > 1:
        evidence["agreement"] = Counter(preferred).most_common(1)[0][1] / len(votes)
    mean = sum(preferred) / len(preferred)
    value = 1.0 if mean > 0.5 else 0.0 if mean < 0.5 else 0.5
    disagree = sum(f != s for f, s in votes)
    if value == 0.5 and disagree:
        return score(value, "the two orders disagree: the place won, not the answer", "order_disagreement")
    return score(value)


# -- controls -----------------------------------------------------------------------------------------------------------


def _unreliable(judge: Asker, found: Report) -> str:
    return (
        f"{judge.name} failed {len(found.failed)} of {found.of} controls, so what it says is no score; the first:"
        f" {found.failed[0] if found.failed else 'none were asked'}"
    )


async def _controlled(
    judge: Asker, controls: Sequence[Control] | Sequence[PairControl], settings: Settings, spent: Spent
) -> Report:
    """The report on a judge: asked for once, and from time to time one control anew."""
    key = tuple(controls), settings
    known = judge.results.get(key)
    if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
        judge.results[key] = asyncio.get_running_loop().create_task(_ask_controls(judge, controls, settings, spent))
    found: Report = await asyncio.shield(judge.results[key])
    judge.judged += 1
    if found.reliable and judge.judged % RECHECK_EVERY == 0:
        number = judge.judged // RECHECK_EVERY
        right, text = await _ask_control(judge, controls[number % len(controls)], settings, spent, first=number)
        if not right:
            found = report([*itertools.repeat((True, ""), found.passed), (False, f"after {judge.judged} judgements: {text}")])
            done: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
            done.set_result(found)
            judge.results[key] = done
    return found


async def _ask_controls(
    judge: Asker, controls: Sequence[Control] | Sequence[PairControl], settings: Settings, spent: Spent
) -> Report:
    results: list[tuple[bool, str]] = []
    left: Iterator[Control | PairControl] = iter(controls)
    for count in STAGES:
        part = itertools.islice(left, count)
        results += await asyncio.gather(*(_ask_control(judge, c, settings, spent) for c in part))
        if not all(right for right, _ in results):
            break
    return report(results)


async def _ask_control(
    judge: Asker, control: Control | PairControl, settings: Settings, spent: Spent, *, first: int = 0
) -> tuple[bool, str]:
    """Whether the judge got it right, and what it was and what was said."""
    what = f"{control.kind} answer to {control.prompt!r}"
    criteria = _criteria(control.rubric)
    try:
        if isinstance(control, Control):
            answer = Block("answer", neutral(control.response))
            asked = _ByRubric(_blocks(control.prompt, answer), criteria, settings.form)
            ((levels, _),) = await judge.verdicts(asked.request, asked.read, settings, spent, votes=1, first=first)
            value = asked.worth(levels)
            return control.holds(value), f"{what}: {value:.2f} of 1"
        better, worse = neutral(control.better), neutral(control.worse)
        (orders,) = await _pair(judge, control.prompt, better, worse, criteria, settings, spent, votes=1, first=first)
        least = 0.5 if control.tie else 1.0
        return _preferred(orders) >= least, f"{what}: preferred {orders[0]:g} shown first, {orders[1]:g} shown second"
    except NoVerdict as e:
        if e.flag != "no_verdict":  # a server that is down says nothing about its judgement
            raise
        return False, f"{what}: {e}"


def check(
    judge: Policy, *, settings: Settings | None = None, controls: Sequence[Control] | Sequence[PairControl] = CONTROLS
) -> Report:
    """How a judge does on controls.

    Args:
        judge: any policy.
        settings: how it is asked.
        controls: `CONTROLS`, `PAIRS`, or your own.

    Raises:
        InfrastructureError: it cannot be reached.
    """
    settings = (settings or Settings()).checked()

    async def work() -> Report:
        try:
            return await _ask_controls(asker(judge), controls, settings, Spent())
        except NoVerdict as e:
            raise InfrastructureError(str(e)) from e

    return run_blocking(work())


# -- doors --------------------------------------------------------------------------------------------------------------


def grade(
    judge: Policy,
    prompt: str,
    response: str,
    rubric: Rubric,
    *,
    settings: Settings | None = None,
    controls: Sequence[Control] | None = CONTROLS,
    name: str = "judge",
) -> Score:
    """What a judge says an answer is worth by a rubric, 0 to 1; None where the judge cannot be believed or reached.

    An answer that says nothing is worth 0, and what such an answer would get is subtracted: the value is
    ``max(0, (raw - floor) / (1 - floor))``. Blocks; may be called from any thread.

    Args:
        judge: any policy.
        prompt: the task that was answered.
        response: the answer.
        rubric: criteria, as text (levels no and yes) or `Criterion`.
        settings: form, votes, limits.
        controls: what the judge must get right first; None believes it unseen.
        name: of the score.

    Raises:
        DefinitionError: the rubric or a setting makes no sense, or the judge is no policy.
    """
    return run_blocking(_grade(judge, prompt, response, rubric, (settings or Settings()).checked(), controls, name))


def compare(
    judge: Policy,
    prompt: str,
    a: str,
    b: str,
    rubric: Rubric,
    *,
    settings: Settings | None = None,
    controls: Sequence[PairControl] | None = PAIRS,
    name: str = "preference",
) -> Score:
    """Whether ``a`` is better than ``b``: 1, 0, or 0.5 for a tie; None where the judge cannot be believed or reached.

    Both orders are asked. Where they disagree it is a tie with the flag ``order_disagreement``. Flags of ``b`` begin with
    ``other_``.

    Raises:
        DefinitionError: the rubric or a setting makes no sense, or the judge is no policy.
    """
    return run_blocking(_compare(judge, prompt, a, b, rubric, (settings or Settings()).checked(), controls, name))


@functools.cache
def _digest() -> str:
    """Over the source of everything that takes part in a verdict."""
    files = sorted(Path(__file__).parent.glob("judge*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


class _Setup:
    """What a verifier closes over. Its repr names all of these files, so `Verifier.hash` changes with any part of them."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __repr__(self) -> str:
        return f"{self.settings!r}:{_digest()}"


def _text_of(task: Any, key: str, task_id: str) -> Any:
    hidden = task if isinstance(task, dict) else {}
    if key not in hidden:
        raise DefinitionError(f"{task_id}: its hidden half must have the key {key!r}")
    return hidden[key]


def _prompt(trajectory: Trajectory) -> str:
    return "\n\n".join(m.text for m in trajectory.opening if m.role in ("system", "user"))


def _answer(trajectory: Trajectory) -> str:
    """The text of the last turn, and the answer that it submitted. Reasoning is not judged."""
    if not trajectory.turns:
        return ""
    turn = trajectory.turns[-1]
    parts = [turn.message.text]
    done = {r.call_id for r in turn.results if r.name == "submit" and r.status == "ok"}
    for call in turn.message.tool_calls:
        if call.id in done:
            try:
                answer = parse_arguments(call.arguments).get("answer", "")
            except ArgumentError:
                continue
            parts.append(answer if isinstance(answer, str) else "")
    return "\n\n".join(p for p in parts if p.strip())


def _transcript(trajectory: Trajectory, most: int) -> tuple[Block, ...]:
    """What came before the last turn, one block for each message: who speaks is said by the mark, never by the text."""
    blocks = []
    messages = [m for t in trajectory.turns[:-1] for m in (t.message, *t.observation)]
    share = max(200, most // max(1, len(messages)))
    for i, m in enumerate(messages, 1):
        who = {"assistant": "the one who is graded", "tool": f"tool {m.name or ''}".strip()}.get(m.role, m.role)
        calls = "".join(f"\ncalls {c.name}({c.arguments})" for c in m.tool_calls)
        safe = screen(m.text + calls, most=share)
        blocks.append(Block(f"message {i} ({neutral(who)[:60]})", safe.text))
    return tuple(blocks)


def rubric_judge(
    rubric: Rubric | str,
    *,
    name: str = "judge",
    judged: Judged = "answer",
    settings: Settings | None = None,
    controls: Sequence[Control] | None = CONTROLS,
    weight: float = 1.0,
) -> Verifier:
    """A verifier that asks ``context.judge`` what an episode is worth by a rubric; see `grade`.

    Args:
        rubric: criteria; or the key of ``Task.hidden`` that holds them, as texts.
        name: of the verifier and its score.
        judged: ``answer``: the last message or what was submitted. ``transcript``: that, with the messages before it in view.
        settings: form, votes, limits.
        controls: what the judge must get right first; None believes it unseen.
        weight: share in the proxy reward.

    Raises:
        DefinitionError: the rubric or a setting makes no sense.
    """
    how = (settings or Settings()).checked()
    if not isinstance(rubric, str):
        rubric = _criteria(rubric)
    if judged not in ("answer", "transcript"):
        raise DefinitionError(f"judged is 'answer' or 'transcript', not {judged!r}")
    setup = _Setup(rubric=rubric, judged=judged, settings=how, controls=controls, name=name)

    @verifier(name=name, needs={"policy"}, weight=weight)
    def judge(trajectory: Trajectory, context: VerifierContext) -> Verdict:
        given = setup.settings["rubric"]
        criteria = _text_of(context.task.hidden, given, context.task.id) if isinstance(given, str) else given
        before = _transcript(trajectory, how.most_characters) if judged == "transcript" else ()
        prompt, answer = _prompt(trajectory), _answer(trajectory)
        return run_blocking(_grade(context.judge, prompt, answer, criteria, how, controls, name, before))

    return judge


def pairwise_judge(
    rubric: Rubric,
    against: str,
    *,
    name: str = "preference",
    settings: Settings | None = None,
    controls: Sequence[PairControl] | None = PAIRS,
    weight: float = 1.0,
) -> Verifier:
    """A verifier that asks ``context.judge`` whether the answer is better than another one (1), worse (0) or neither (0.5).

    Args:
        rubric: criteria.
        against: the key of ``Task.hidden`` that holds the other answer.
        name: of the verifier and its score.
        settings: form, votes, limits.
        controls: what the judge must get right first; None believes it unseen.
        weight: share in the proxy reward.

    Raises:
        DefinitionError: the rubric or a setting makes no sense.
    """
    how = (settings or Settings()).checked()
    criteria = _criteria(rubric)
    setup = _Setup(rubric=criteria, against=against, settings=how, controls=controls, name=name)

    @verifier(name=name, needs={"policy"}, weight=weight)
    def preference(trajectory: Trajectory, context: VerifierContext) -> Verdict:
        other = _text_of(context.task.hidden, setup.settings["against"], context.task.id)
        prompt, answer = _prompt(trajectory), _answer(trajectory)
        return run_blocking(_compare(context.judge, prompt, answer, str(other), criteria, how, controls, name))

    return preference
