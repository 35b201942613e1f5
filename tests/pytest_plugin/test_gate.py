# SPDX-License-Identifier: Apache-2.0
"""The gate in pytest: a real pytest on a project with a suite, a baseline in git, and models that get better and worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agentgym.cli.main import main
from agentgym.records.run import open_run

Pytest = Callable[..., pytest.RunResult]

SUITE = """
trials = 2
[[tasks]]
task = "math.add"
items = 20
[[tasks]]
task = "math.chain"
items = 3
[[tasks]]
task = "tools.retail"
variants = ["control", "tempt"]
items = 2
"""
TASKS = 27
GATES = 3  # gold, policy violations, and all else


@pytest.fixture
def gated(in_project: Pytest, project: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Pytest:
    """`in_project`, with a suite and a baseline that the honest oracle made."""
    project.mkdir("suites").joinpath("pr.toml").write_text(SUITE)
    assert main(["eval", "suites/pr.toml", "-m", "oracle:honest", "-q", "--runs", "first"]) == 0
    (run,) = Path("first").iterdir()
    assert main(["baseline", "create", str(run), "-o", "baselines/pr.jsonl"]) == 0
    capsys.readouterr()
    return lambda *arguments: in_project("suites/pr.toml", "--agentgym-baseline=baselines/pr.jsonl", *arguments)


def test_each_metric_that_decides_is_a_test_beside_those_of_the_suite(gated: Pytest) -> None:
    result = gated("-v", "--agentgym-model=oracle:honest")
    result.assert_outcomes(passed=TASKS + GATES)
    names = ("gate/gold", "gate/violations:policy", "gate")
    result.stdout.fnmatch_lines([f"suites/pr.toml::{name} PASSED*" for name in names])


def test_a_regression_fails_the_metrics_test_and_names_family_and_steps(gated: Pytest, project: pytest.Pytester) -> None:
    result = gated("-q", "--agentgym-model=oracle:lazy", "--junitxml=out.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["math.add: gold 1.00 -> 0.00*", "*agentgym view runs/*::math.*@*", "FAILED suites/pr.toml::gate/gold*"]
    )
    # what no episode was exposed to can be told neither way
    assert result.parseoutcomes() == {"passed": TASKS, "failed": 2, "skipped": 1}
    cases = {c.get("name"): c for c in ElementTree.parse(project.path / "out.xml").iter("testcase")}
    assert "math.add: gold 1.00 -> 0.00" in str(cases["gate/gold"].find("failure").get("message"))  # type: ignore[union-attr]
    properties = {p.get("name"): p.get("value") for p in cases["gate/gold"].iter("property")}
    assert (properties["agentgym.gate"], properties["agentgym.gate.exit_code"]) == ("regression", "1")


@pytest.mark.slow
def test_workers_of_xdist_play_parts_and_one_verdict_is_made_of_all(gated: Pytest, project: pytest.Pytester) -> None:
    result = gated("-n", "2", "--agentgym-model=oracle:lazy")
    assert result.parseoutcomes() == {"passed": TASKS, "failed": 2, "skipped": 1}
    result.stdout.fnmatch_lines(["*math.add: gold 1.00 -> 0.00*"])
    runs = list((project.path / "runs").glob("*-pytest-gw*"))
    counts = []
    for path in runs:
        with open_run(path) as run:
            counts.append(run.count())
    # a part is played by the worker that comes to it first, however the scheduler deals the tests out, and by no other
    assert sum(counts) == 2 * TASKS
    assert not list((project.path / "runs").glob(".gate-*"))


def test_what_a_selection_leaves_out_is_played_for_the_comparison(gated: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    result = gated("-k", "gate and gold", "--agentgym-model=oracle:honest")
    result.assert_outcomes(passed=1, deselected=TASKS + GATES - 1)
    assert len(the_runs()) == 1


def test_last_failed_plays_the_gate_again(gated: Pytest, project: pytest.Pytester) -> None:
    cached = ("-p", "cacheprovider")
    gated(*cached, "--agentgym-model=oracle:lazy").assert_outcomes(passed=TASKS, failed=2, skipped=1)
    again = gated(*cached, "--lf", "--agentgym-model=oracle:honest")
    assert again.parseoutcomes()["passed"] == 2


def test_infrastructure_errors_are_an_error_of_the_gate_and_never_a_pass(gated: Pytest) -> None:
    result = gated("-q", "--agentgym-model=./players.py:Dead")
    outcomes = result.parseoutcomes()
    assert (outcomes.get("passed", 0), outcomes["errors"]) == (0, TASKS + 1)
    result.stdout.fnmatch_lines(["*COVERAGE: * spoiled by infrastructure*"])


def test_a_suite_that_the_baseline_knows_nothing_of_has_no_gate(gated: Pytest, project: pytest.Pytester) -> None:
    project.path.joinpath("suites/pr.toml").write_text('[[tasks]]\ntask = "math.word"\nitems = 2')
    gated("--agentgym-model=oracle:honest").assert_outcomes(passed=2)


def test_a_baseline_or_rules_that_cannot_be_read_are_an_error_that_says_so(gated: Pytest, project: pytest.Pytester) -> None:
    project.path.joinpath("gate.toml").write_text("[metrics.gold]\nmargn = 0.1\n")
    result = gated("--agentgym-rules=gate.toml", "--agentgym-model=oracle:honest")
    result.assert_outcomes(errors=1)
    assert "there is no key 'margn'. Did you mean: margin?" in result.stdout.str()
    project.path.joinpath("baselines/pr.jsonl").write_text('{"schema":"agentgym.baseline/1","tasks":"many"}\n')
    result = gated("--agentgym-model=oracle:honest")
    result.assert_outcomes(errors=1)
    assert "baselines/pr.jsonl:1 is not the header of a baseline" in result.stdout.str()


def test_to_rerun_an_agent_until_it_passes_is_refused_with_advice(gated: Pytest, project: pytest.Pytester) -> None:
    # the option as pytest-rerunfailures declares it
    project.makeconftest("def pytest_addoption(parser):\n    parser.addoption('--reruns', type=int)")
    result = gated("--reruns=2", "--agentgym-model=oracle:honest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*must not be rerun*Raise its trials*"])
