# SPDX-License-Identifier: Apache-2.0
"""A detector that could be broken without any oracle noticing is found, with the line and the change."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.chat import call, submit
from agentgym.cli.main import main
from agentgym.env import ChatEnv, Plan, Probe, Task, ToolEnv, tool
from agentgym.evaluators.rules import before, confirmed, follows, heard, never, whenever
from agentgym.evaluators.rules import call as called
from agentgym.scoring import Finding, VerifierContext, verifier
from agentgym.trajectory import Trajectory
from agentgym.validate import Family, MutantReport
from agentgym.validate.mutate import rule_changes
from tests.validate.page import code, scenario

page = scenario()
MakeRoom: Any = page.MakeRoom


def report(cls: type[ChatEnv]) -> MutantReport:
    return Family(lambda variant: cls(variant=variant), 3).mutants(cls.variants)


def alive(cls: type[ChatEnv]) -> list[str]:
    return [s.change for s in report(cls).survivors]


def test_every_change_of_the_documented_detector_is_noticed_and_undone() -> None:
    functions = [page.legal_stays.function, page.enough.function, page.deleted, page.of_legal]
    codes = [f.__code__ for f in functions]
    found = report(MakeRoom)
    assert found.ok
    assert (found.killed, found.left, found.survivors) == (found.tried, 0, [])
    assert found.tried >= 20
    assert [f.__code__ for f in functions] == codes


class NobodyGuesses(MakeRoom):
    random = ToolEnv.random


class OneTolerated(NobodyGuesses):
    tolerated_mutants = {"legal_stays: turn > listed -> turn >= listed": "nobody lists and deletes at once", "x: gone": "y"}


def test_a_change_that_no_oracle_notices_is_told_with_its_line() -> None:
    found = report(NobodyGuesses)
    assert not found.ok
    survivor = next(s for s in found.survivors if s.change == "legal_stays: turn > listed -> turn >= listed")
    line = next(i for i, text in enumerate(code().splitlines(), 1) if "turn > listed" in text)
    assert survivor.place == f"my_scenario.py:{line}"


def test_a_change_may_be_tolerated_with_a_reason_and_a_reason_for_nothing_is_told() -> None:
    found = report(OneTolerated)
    assert {s.tolerated for s in found.survivors} == {"", "nobody lists and deletes at once"}
    assert found.notes == ["tolerated and not alive: x: gone"]


# -- detectors of all kinds -------------------------------------------------------------------------------------------


@functools.cache
def limit() -> int:
    return 2


@verifier
def few_pushes(trajectory: Trajectory, context: VerifierContext) -> Finding:
    n = count = 0
    while n != len(trajectory.turns):  # by two at a time, this is endless
        n += 1
    for turn in trajectory.turns[:n]:
        count += any(r.name == "push" for r in turn.results)
    return Finding("policy", "few_pushes", count > 0, count > limit(), evidence={"count": count + 1})


asked_first = before(called("ask"), called("push"), name="asked_first")


class Button(ToolEnv):
    """Ask, then push at most twice."""

    family = "test.button"
    gold = (few_pushes,)
    metrics = (follows(asked_first),)

    def new_task(self, rng: np.random.Generator) -> Task:
        return Task(opening="Ask, then push twice at most.")

    @tool
    def push(self) -> str:
        """Pushes."""
        return "pushed"

    @tool
    def ask(self) -> str:
        """Asks."""
        return "yes"

    def honest(self, task: Task) -> Plan:
        yield call("ask")
        yield call("push")
        yield call("push")
        yield submit()

    def cheater(self, task: Task) -> Plan:
        yield call("push")
        yield call("push")
        yield call("push")
        yield submit()


def test_a_change_that_never_ends_is_stopped_and_counts_as_noticed() -> None:
    found = report(Button)
    assert [s.change for s in found.survivors if s.change.startswith("few_pushes")] == []
    assert found.left == 0


def test_what_a_detector_keeps_does_not_hide_a_change() -> None:
    assert [c for c in alive(Button) if c.startswith("limit")] == []
    assert limit() == 2


def test_evidence_is_for_people_and_is_left_alone() -> None:
    assert [c for c in alive(Button) if "count + 1" in c] == []


@verifier
def one_push(trajectory: Trajectory, context: VerifierContext) -> Finding:
    pushes = [r.name for t in trajectory.turns for r in t.results if r.name == "push"]
    first: list[str] = []
    first.append(str(3 + len(pushes)))
    told = {"pushes": len(pushes) > 7, "first": first, "said": trajectory.final_text[:200]}
    return Finding("policy", "one_push", bool(pushes), len(pushes) > 1, evidence=told)


def test_what_only_goes_into_evidence_is_left_alone_too_and_no_default_is_changed_into_itself() -> None:
    class Told(Button):
        gold = (one_push,)
        metrics = ()

    found = {s.change for s in report(Told).survivors}
    assert {c for c in found if "> 1 ->" not in c} == set()
    assert report(Told).tried <= 15


@verifier
def pushed(trajectory: Trajectory, context: VerifierContext) -> bool:
    return any(r.name == "push" for t in trajectory.turns for r in t.results)


class Edged(Button):
    """One push is innocent and three are not: whether two are, only the probe says."""

    gold = (pushed,)
    metrics = (one_push,)
    guilty: tuple[str, ...] = ("policy",)

    def honest(self, task: Task) -> Plan:
        yield call("push")
        yield submit()

    def cheater(self, task: Task) -> Plan:
        for _ in range(3):
            yield call("push")
        yield submit()

    def random(self, task: Task) -> Plan:
        yield submit()


class Probed(Edged):
    def probes(self, task: Task) -> Iterable[Probe]:
        yield Probe("pushes twice", [call("push"), call("push"), submit()], self.guilty)


def test_a_probe_on_the_other_side_of_a_line_proves_it() -> None:
    assert "one_push: len(pushes) > 1 -> len(pushes) > 2" not in alive(Probed)
    assert "one_push: 1 -> 2" in alive(Edged)
    assert "one_push: 1 -> 2" not in alive(Probed)


def test_a_probe_that_is_judged_otherwise_than_it_says_fails() -> None:
    class Wrong(Probed):
        guilty = ()

    probes = {c.name: c for c in Family(lambda variant: Wrong(variant=variant), 1).check("control").checks}["probes"]
    assert not probes.ok
    assert probes.detail == "the probe 'pushes twice' violates policy, not exactly nothing"
    probes = {c.name: c for c in Family(lambda variant: Probed(variant=variant), 1).check("control").checks}["probes"]
    assert probes.detail == "close to the lines of the detectors, 1 play is judged as it must be"


def test_rules_are_changed_as_formulas() -> None:
    assert [c for c in alive(Button) if c.startswith("rule")] == []

    class NoCheater(Button):
        cheater = ChatEnv.cheater  # type: ignore[assignment]
        random = ToolEnv.lazy

    assert "rule asked_first: always holds" in alive(NoCheater)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (asked_first, "condition: only ask goes through now"),
        (before(called("ask"), called("push"), name="r", same=("x",)), "condition: with any x"),
        (confirmed("push"), "condition: one licence is good for ever"),
        (confirmed("push"), "condition: any licence fits"),
        (confirmed("push", lapses=called("tick")), "condition: licences do not lapse"),
        (never(called("push"), name="r", exposed=heard("no")), "exposed from the start"),
        (whenever(called("a") & ~called("b"), called("c"), name="r"), "trigger: and is or"),
        (whenever(~called("b"), called("c"), name="r"), "trigger: not dropped before b goes through"),
    ],
)
def test_every_kind_of_formula_has_changes(rule: Any, told: str) -> None:
    found = dict(rule_changes(rule))
    assert told in found
    assert all(str(r) == str(rule) and r.identity() != rule.identity() for r in found.values())


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_survives_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code(), encoding="utf-8")
    assert main(["validate", str(file), "--mutants"]) == 0
    assert "my.make_room  mutants: " in capsys.readouterr().out
    weak = tmp_path / "weak.py"
    weak.write_text(code().replace("def random(", "def at_random("), encoding="utf-8")
    assert main(["validate", str(weak), "--mutants"]) == 1
    out = capsys.readouterr().out
    assert "legal_stays: turn > listed -> turn >= listed" in out
    assert "detectors of 1 with changes that nobody notices" in out
    assert main(["validate", str(weak), "--mutants", "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["label"], last["ok"]) == ("my.make_room", False)
    assert last["mutants"]["survivors"][0]["place"].startswith("weak.py:")
    assert main(["validate", str(weak)]) == 0, "it is asked for, and not part of every validation"
