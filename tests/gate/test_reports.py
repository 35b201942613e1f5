# SPDX-License-Identifier: Apache-2.0
"""The reports: whatever a task is called or a model said, they stay what they are, and agree with each other."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from agentgym.gate.report_files import junit, sarif
from agentgym.gate.report_text import markdown, print_verdict
from agentgym.gate.verdict import Arm, Check, Flagged, Flip, Flips, MetricResult, TaskResult, Verdict, decode_verdict
from tests.cli.conftest import AgentGym
from tests.cli.players import HOSTILE

NASTY = HOSTILE.replace("\ud800", "") + " | <img src=x onerror=alert(1)> `code` ]]> & @everyone [x](http://evil.test) ::error::"

WORST = Verdict(
    outcome="regression",
    exit_code=1,
    summary=NASTY,
    baseline=Arm(name=NASTY),
    candidate=Arm(name=NASTY),
    checks=(Check(name="floor", outcome="fail", text=NASTY), Check(name="coverage", outcome="pass", text=NASTY)),
    metrics=(
        MetricResult(metric=NASTY, outcome="regression", diff=-0.5, low=-0.7, high=-0.3, margin=0.05, reason=NASTY),
        MetricResult(metric="m2", outcome="inconclusive", reason=NASTY),
    ),
    families=(MetricResult(metric="m", family=NASTY, outcome="pass"),),
    flips=Flips(harmful=1, churn=1.0, tasks=1, worst=(Flip(task=NASTY, metric="m", baseline=1, candidate=0, harmful=True),)),
    flagged=(Flagged(address=f"run::{NASTY}", rule=NASTY, text=NASTY, task=NASTY, source="a b.py:12", level="error"),),
    tasks=(
        TaskResult(task=NASTY, family=NASTY, outcome="infrastructure", text=NASTY),
        TaskResult(task="t2", outcome="skipped", text=NASTY),
        TaskResult(task="t3", outcome="worse"),
    ),
    warnings=(NASTY,),
)  # fmt: skip
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e\u2066-\u2069\u2028\U000e0041]")


def test_nothing_that_was_said_steers_a_terminal_a_page_or_a_parser() -> None:
    screen = Console(file=io.StringIO(), width=100, highlight=False, markup=False, emoji=False)
    print_verdict(screen, WORST)
    page = markdown(WORST)
    for text in (screen.file.getvalue(), page, junit(WORST), sarif(WORST)):  # type: ignore[attr-defined]
        assert not UNSAFE.search(text)
    outside = re.sub("`[^`\n]*`", "", page)
    assert not re.search(r"<img|\]\(http|@everyone", outside)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {11}


def test_junit_has_failures_where_the_gate_says_so_and_nowhere_else() -> None:
    root = ElementTree.fromstring(junit(WORST).encode())
    suites = {s.get("name"): s for s in root}
    failed = {(s.get("name"), c.get("name")) for s in root for c in s if c.find("failure") is not None}
    assert {name for name, _ in failed} == {"gate"}
    assert ("gate", "verdict") in failed
    assert [c.find("skipped") is not None for c in suites["gate"] if str(c.get("name")).startswith("m2")] == [True]
    assert sum(c.find("error") is not None for s in root for c in s) == 1  # infrastructure
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("3", "1", "2")


def test_a_verdict_is_the_same_after_json() -> None:
    assert decode_verdict(WORST.encode()) == WORST
    told = msgspec.structs.replace(WORST, outcome="inconclusive", exit_code=0)
    root = ElementTree.fromstring(junit(told).encode())
    verdict = next(c for s in root for c in s if c.get("name") == "verdict")
    assert verdict.find("failure") is None  # a rule lets it pass


SUMS = """
from agentgym import PolicyBase, Completion, assistant
from agentgym.tasks.math.arithmetic import Add


class Sums(Add):
    '''Sums of this repository.'''

    family = "my.sums"


class Wrong(PolicyBase):
    name = "wrong"

    async def act(self, conversation, tools, sampling):
        return Completion(assistant("Answer: -1"))
"""


def test_sarif_points_at_the_scenarios_line_and_names_an_alert_the_same_in_every_run(agentgym: AgentGym, place: Path) -> None:
    (place / "my").mkdir()
    (place / "my/sums.py").write_text(SUMS)
    play = ("eval", "my/sums.py:Sums", "--limit", "20", "-q")
    assert agentgym(*play, "-m", "oracle:honest").code == 0
    assert agentgym("baseline", "create", "latest", "-o", "base.jsonl").code == 0
    found = []
    for _ in range(2):
        assert agentgym(*play, "-m", "my/sums.py:Wrong").code == 0
        assert agentgym("gate", "latest", "--baseline", "base.jsonl", "-q", "--report", "sarif=out.sarif").code == 1
        (run,) = json.loads((place / "out.sarif").read_text())["runs"]
        found.append([r for r in run["results"] if r["message"]["text"].startswith("my.sums/control/0:")])
        assert {r["ruleId"] for r in run["results"]} <= {r["id"] for r in run["tool"]["driver"]["rules"]}
    (first,), (second,) = found
    location = first["locations"][0]["physicalLocation"]
    line = next(i for i, text in enumerate(SUMS.splitlines(), 1) if text.startswith("class Sums"))
    assert location == {"artifactLocation": {"uri": "my/sums.py"}, "region": {"startLine": line}}
    assert first["partialFingerprints"] == second["partialFingerprints"]
    assert first["baselineState"] == "new"


def test_the_step_summary_is_appended_to_and_its_absence_is_told(
    agentgym: AgentGym, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "t.csv").write_text("task,score\n" + "".join(f"t{i},1\n" for i in range(8)))
    ran = agentgym("gate", "t.csv", "--baseline", "t.csv", "--step-summary")
    assert (ran.code, "GITHUB_STEP_SUMMARY is not set" in ran.err) == (0, True)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    for _ in range(2):
        agentgym("gate", "t.csv", "--baseline", "t.csv", "--step-summary")
    assert (place / "summary.md").read_text().count("## ✅ agentgym gate") == 2
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "no" / "such" / "folder"))
    assert agentgym("gate", "t.csv", "--baseline", "t.csv", "--step-summary").code == 12
