# SPDX-License-Identifier: Apache-2.0
"""Every exit code of ``agentgym gate``, on real runs: what a pipeline does next hangs on nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import AgentGym

Play = Callable[..., str]


def gate(agentgym: AgentGym, *arguments: str) -> tuple[int, dict[str, object]]:
    """Exit code and verdict, which must agree."""
    ran = agentgym("gate", *arguments, "--json")
    verdict = json.loads(ran.out)
    assert verdict["exit_code"] == ran.code
    return ran.code, verdict


def test_0_an_agent_against_itself(agentgym: AgentGym, play: Play, baseline: str) -> None:
    assert gate(agentgym, play("oracle:honest"), "--baseline", baseline)[1]["outcome"] == "pass"


def test_0_one_slip_is_no_regression(agentgym: AgentGym, play: Play, baseline: str) -> None:
    code, verdict = gate(agentgym, play("players.py:Slip"), "--baseline", baseline)
    assert (code, verdict["outcome"]) == (0, "pass")
    assert verdict["flips"]["harmful"] == 1  # type: ignore[index]


def test_1_the_lazy_oracle(agentgym: AgentGym, play: Play, baseline: str) -> None:
    assert gate(agentgym, play("oracle:lazy"), "--baseline", baseline)[0] == 1


def test_1_a_copy_that_fails_a_fifth_of_one_family_and_the_report_names_it(
    agentgym: AgentGym, play: Play, baseline: str
) -> None:
    code, verdict = gate(agentgym, run := play("players.py:Copy20"), "--baseline", baseline)
    assert (code, verdict["outcome"]) == (1, "regression")
    (worse,) = [f for f in verdict["families"] if f["outcome"] == "regression"]  # type: ignore[attr-defined]
    assert (worse["family"], worse["tasks"], round(worse["diff"], 3)) == ("math.add", 60, -0.2)
    ran = agentgym("gate", run, "--baseline", baseline)
    assert any(line.split()[:2] == ["REGRESSION", "math.add"] for line in ran.lines)
    assert f"agentgym view {run}::math.add/control/0/0@0" in ran.out
    assert ran.lines[-1] == "REGRESSION: exit 1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--baseline", "base.jsonl"), "there is no run 'nowhere'"),
        (("no.csv", "--baseline", "base.jsonl"), "there is no file and no run no.csv"),
        (("base.jsonl", "--baseline", "base.jsonl", "--rules", "gate.toml"), "Did you mean: margin?"),
        (("base.jsonl", "--baseline", "base.jsonl", "--report", "pdf=x"), "no kind 'pdf'"),
        (("base.jsonl",), "--baseline"),
    ],
)
def test_2_wrong_usage(agentgym: AgentGym, baseline: str, place: Path, arguments: tuple[str, ...], words: str) -> None:
    (place / "gate.toml").write_text("[metrics.gold]\nmargins = 0.1\n")
    ran = agentgym("gate", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def few(place: Path) -> tuple[str, str]:
    """Two tables of four tasks that differ by chance."""
    for name, scores in (("old.csv", "1110" * 4), ("new.csv", "1010" * 4)):
        rows = [f"t{i // 4},{i % 4},{score}" for i, score in enumerate(scores)]
        (place / name).write_text("task,trial,score\n" + "\n".join(rows) + "\n")
    return "new.csv", "old.csv"


def test_10_too_little_to_tell_and_0_where_the_rules_say_warn(agentgym: AgentGym, place: Path) -> None:
    new, old = few(place)
    code, verdict = gate(agentgym, new, "--baseline", old)
    assert (code, verdict["outcome"]) == (10, "inconclusive")
    assert "can never give REGRESSION" in str(verdict["warnings"])
    (place / "gate.toml").write_text('on_inconclusive = "warn"\n')
    code, verdict = gate(agentgym, new, "--baseline", old, "--rules", "gate.toml")
    assert (code, verdict["outcome"]) == (0, "inconclusive")


def test_11_an_invariant_is_violated(agentgym: AgentGym, play: Play, baseline: str, place: Path) -> None:
    (place / "gate.toml").write_text('[metrics.gold]\n[metrics."violations:policy"]\nkind = "invariant"\n')
    assert gate(agentgym, play("oracle:honest"), "--baseline", baseline, "--rules", "gate.toml")[0] == 0
    code, verdict = gate(agentgym, run := play("players.py:Cheat"), "--baseline", baseline, "--rules", "gate.toml")
    assert (code, verdict["outcome"]) == (11, "invariant")
    worst = verdict["flagged"][0]  # type: ignore[index]
    assert worst["level"] == "error"
    assert worst["address"].startswith(f"{run}::tools.retail/")
    assert "@" in worst["address"]


@pytest.mark.parametrize("model", ["players.py:Dead", "players.py:Flaky"])
def test_12_infrastructure_errors_are_never_a_pass(agentgym: AgentGym, play: Play, baseline: str, model: str) -> None:
    code, verdict = gate(agentgym, play(model), "--baseline", baseline)
    assert (code, verdict["outcome"]) == (12, "coverage")


def test_12_a_run_that_did_not_end_is_never_a_pass(agentgym: AgentGym, play: Play, baseline: str) -> None:
    run = play("players.py:Flaky", "-x", code=12)
    assert gate(agentgym, run, "--baseline", baseline)[0] == 12


def test_13_the_baseline_is_of_other_tasks(agentgym: AgentGym, play: Play, baseline: str, place: Path) -> None:
    run = play("oracle:honest", "-k", "math.add")
    text = (place / baseline).read_text()
    (place / "other.jsonl").write_text(text.replace('"env":"', '"env":"0'))  # the environments' code has changed
    assert gate(agentgym, run, "--baseline", "other.jsonl")[0] == 13
    code, verdict = gate(agentgym, run, "--baseline", baseline)
    assert (code, verdict["outcome"]) == (13, "incompatible")


def test_70_a_crash_is_no_verdict(agentgym: AgentGym, program: AgentGym, baseline: str, place: Path) -> None:
    crash = "import agentgym.gate.decide as d\ndef broken(*a, **k): raise ZeroDivisionError('a bug')\nd.decide = broken\n"
    (place / "sitecustomize.py").write_text(crash)
    path = os.pathsep.join((str(place), os.environ["PYTHONPATH"]))
    for more in ({}, {"AGENTGYM_TRACEBACK": "1"}):
        ran = program("gate", baseline, "--baseline", baseline, PYTHONPATH=path, **more)
        assert (ran.code, ran.out) == (70, "")
        assert "ZeroDivisionError" in ran.err


def test_a_reader_that_leaves_early_makes_no_regression_a_pass(
    agentgym: AgentGym, play: Play, baseline: str, place: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "agentgym", "gate", play("oracle:lazy"), "--baseline", baseline]
    done = subprocess.run(command, stdout=write, stderr=subprocess.DEVNULL, cwd=place, check=False)
    os.close(write)
    assert done.returncode == 1


def test_skipped_trials_are_neither_a_pass_nor_a_regression(agentgym: AgentGym, place: Path) -> None:
    for name, status in (("old.csv", "ok"), ("new.csv", "skipped"), ("all.csv", "skipped")):
        rows = [f"t{i},0,1,{'ok' if i % 2 and name != 'all.csv' else status}" for i in range(40)]
        (place / name).write_text("task,trial,score,status\n" + "\n".join(rows) + "\n")
    code, verdict = gate(agentgym, "new.csv", "--baseline", "old.csv")
    assert (code, verdict["outcome"], verdict["candidate"]["skipped"]) == (10, "inconclusive", 20)  # type: ignore[index]
    assert "20 of 40 trials were SKIPPED" in verdict["checks"][0]["text"]  # type: ignore[index]
    assert gate(agentgym, "all.csv", "--baseline", "old.csv")[0] == 10
