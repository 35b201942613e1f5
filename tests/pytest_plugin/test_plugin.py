# SPDX-License-Identifier: Apache-2.0
"""Tests that let a model play: what they get, what their failures say, and what is never silent."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from agentgym.cli.main import main
from agentgym.records.run import Run

Pytest = Callable[..., pytest.RunResult]

PASSES = """
@pytest.mark.agentgym("math.add", model="oracle:honest", limit=5, trials=2)
def test_sums(agentgym_run):
    assert agentgym_run.gold.not_below(0.6)
    assert agentgym_run.n == 10
"""
FAILS = """
@pytest.mark.agentgym("math.add", model="oracle:lazy", limit=5, trials=2)
def test_lazy(agentgym_run):
    assert agentgym_run.gold.not_below(0.6)
"""


def addresses(text: str) -> list[str]:
    return re.findall(r"\S+::[\w.]+/\w+/\w+/\d+", text)


def properties(junit: Path) -> dict[str, dict[str, str]]:
    """Test -> the properties that junit XML has of it."""
    cases = ET.parse(junit).getroot().iter("testcase")
    return {str(c.get("name")): {str(p.get("name")): str(p.get("value")) for p in c.iter("property")} for c in cases}


# -- what a test gets -------------------------------------------------------------------------------------------------


def test_a_marked_test_gets_the_finished_run_of_what_its_mark_selects(in_project: Pytest) -> None:
    result = in_project(tests=PASSES)
    result.assert_outcomes(passed=1)


def test_a_score_that_is_surely_below_the_bar_fails_with_numbers_and_the_worst_episodes(in_project: Pytest) -> None:
    result = in_project(tests=FAILS)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "gold 0/10 is below the bar 0.6 (mean 0, 95 % interval 0 to .31)" in text
    found = addresses(text[: text.index("short test summary")])
    assert len(set(found)) == 5
    assert found[0].startswith("runs/")


def test_the_address_in_a_failure_is_shown_by_agentgym_show(in_project: Pytest, capsys: pytest.CaptureFixture[str]) -> None:
    address = addresses(in_project(tests=FAILS).stdout.str())[0]
    capsys.readouterr()
    assert main(["show", address]) == 0
    assert "no answer found" in capsys.readouterr().out


def test_every_failure_names_an_episode_not_only_those_of_scores(in_project: Pytest) -> None:
    result = in_project(
        tests="""
@pytest.mark.agentgym("math.add", model="oracle:honest", limit=2)
def test_other(agentgym_run):
    raise KeyError("mine")
"""
    )
    result.assert_outcomes(failed=1)
    assert "see it:  agentgym view runs/" in result.stdout.str()
    assert addresses(result.stdout.str())


def test_environments_agents_and_task_ids_are_named_as_on_the_command_line(
    in_project: Pytest, project: pytest.Pytester
) -> None:
    project.makepyfile(
        mine="""
from agentgym.tasks.math.arithmetic import Add

class Mine(Add):
    family = "math.mine"
"""
    )
    result = in_project(
        tests="""
@pytest.mark.agentgym("./mine.py:Mine", model="agent:players.py:play", limit=3)
def test_place(agentgym_run):
    assert [e.family for e in agentgym_run.episodes] == ["math.mine"] * 3
    assert agentgym_run.model == "agent:players.py:play"

@pytest.mark.agentgym("math.add/control/7", "math.chain/control/1", model="oracle:honest")
def test_ids(agentgym_run):
    assert [e.task_id for e in agentgym_run.episodes] == ["math.add/control/7", "math.chain/control/1"]

@pytest.mark.agentgym("quickstart", model="oracle:honest")
def test_suite(agentgym_run):
    assert agentgym_run.only(family="math.add").n == 12
"""
    )
    result.assert_outcomes(passed=3)


def test_paths_in_marks_start_at_the_root_directory_wherever_pytest_was_started(
    in_project: Pytest, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makeini("[pytest]")
    below = project.mkdir("below")
    monkeypatch.chdir(below)
    result = in_project(
        str(project.path),
        tests="""
import os
@pytest.mark.agentgym("math.add", model="agent:players.py:play", limit=1)
def test_it(agentgym_run):
    assert os.path.basename(os.getcwd()) == "below"
""",
    )
    result.assert_outcomes(passed=1)
    assert list(below.glob("runs/*")), "runs lie where the person is who started pytest"


def test_the_nearest_mark_decides_and_outer_ones_fill_in(in_project: Pytest) -> None:
    result = in_project(
        tests="""
pytestmark = pytest.mark.agentgym("math.chain", model="oracle:honest", limit=3)

@pytest.mark.agentgym("math.add", limit=2)
class TestSums:
    @pytest.mark.agentgym(limit=1)
    def test_one(self, agentgym_run):
        assert [e.task_id for e in agentgym_run.episodes] == ["math.add/control/0"]

    def test_two(self, agentgym_run):
        assert {e.family for e in agentgym_run.episodes} == {"math.add"}
        assert agentgym_run.n == 2

def test_chains(agentgym_run):
    assert {e.family for e in agentgym_run.episodes} == {"math.chain"}
    assert agentgym_run.model == "oracle:honest"
"""
    )
    result.assert_outcomes(passed=3)


def test_a_parameter_may_bring_a_mark_of_its_own(in_project: Pytest) -> None:
    result = in_project(
        tests="""
VARIANTS = [pytest.param(v, marks=pytest.mark.agentgym(variant=v)) for v in ("control", "tempt")]

@pytest.mark.agentgym("tools.retail", model="oracle:honest", limit=2)
@pytest.mark.parametrize("variant", VARIANTS)
def test_it(agentgym_run, variant):
    assert [e.variant for e in agentgym_run.episodes] == [variant] * 2
"""
    )
    result.assert_outcomes(passed=2)


UNSAID = """
@pytest.mark.agentgym("math.add")
def test_it(agentgym_run, record_property):
    record_property("got", f"{agentgym_run.model} {agentgym_run.n}")

@pytest.mark.agentgym("math.add", model="oracle:lazy", limit=1, trials=1)
def test_said(agentgym_run, record_property):
    record_property("got", f"{agentgym_run.model} {agentgym_run.n}")
"""


def test_what_a_mark_does_not_say_comes_from_the_command_line_else_from_the_ini_file(
    in_project: Pytest, project: pytest.Pytester
) -> None:
    project.makeini("[pytest]\nagentgym_model = oracle:honest\nagentgym_limit = 3\nagentgym_runs = kept")
    in_project("--junitxml=a.xml", tests=UNSAID).assert_outcomes(passed=2)
    assert properties(project.path / "a.xml")["test_it"]["got"] == "oracle:honest 3"
    assert properties(project.path / "a.xml")["test_said"]["got"] == "oracle:lazy 1"
    assert len(list(project.path.glob("kept/*"))) == 2
    options = ["--agentgym-model=oracle:random", "--agentgym-limit=2", "--agentgym-trials=2", "--agentgym-runs=other"]
    in_project(*options, "--junitxml=b.xml", tests=UNSAID).assert_outcomes(passed=2)
    assert properties(project.path / "b.xml")["test_it"]["got"] == "oracle:random 4"
    assert properties(project.path / "b.xml")["test_said"]["got"] == "oracle:lazy 1"
    assert len(list(project.path.glob("other/*"))) == 2


def test_a_number_in_the_ini_file_that_is_none_is_named(in_project: Pytest, project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nagentgym_trials = many")
    result = in_project(tests=PASSES.replace(", trials=2", ""))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*agentgym_trials*must be a number, not 'many'*"])


# -- one run for each model -------------------------------------------------------------------------------------------


def test_a_session_keeps_a_run_for_each_model_and_prints_where(in_project: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    more = """
@pytest.mark.agentgym("math.chain", model="oracle:honest", limit=2)
def test_chains(agentgym_run):
    assert agentgym_run.n == 2
"""
    result = in_project(tests=PASSES + FAILS + more)
    result.assert_outcomes(passed=2, failed=1)
    assert len(the_runs()) == 2
    for path in the_runs():
        assert f"runs/{path.name}" in result.stdout.str()
    result.stdout.fnmatch_lines(["*= agentgym =*", "*math.add*10/10*gold 10/10*", "*math.chain*2/2*gold 2/2*"])
    result.stdout.fnmatch_lines(["*math.add*10/10*gold 0/10*"])


def test_tests_that_share_tasks_share_the_episodes(in_project: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    in_project(tests=PASSES + PASSES.replace("test_sums", "test_again")).assert_outcomes(passed=2)
    (path,) = the_runs()
    with Run(path) as run:
        assert run.planned == run.count() == 10
        assert run.status == "finished"


def test_quiet_or_not_the_run_and_its_scores_are_printed(in_project: Pytest) -> None:
    result = in_project("-qq", tests=FAILS)
    result.stdout.fnmatch_lines(["*see it:  agentgym view runs/*", "*math.add*gold 0/10*", "*runs/*-pytest-*"])


def test_a_session_without_such_tests_prints_nothing_about_agentgym(in_project: Pytest, project: pytest.Pytester) -> None:
    result = in_project(tests="def test_plain(): pass")
    result.assert_outcomes(passed=1)
    assert "= agentgym" not in result.stdout.str()
    assert not (project.path / "runs").exists()


# -- nothing is silent ------------------------------------------------------------------------------------------------


def test_an_infrastructure_outcome_is_an_error_with_counts_never_a_pass_or_a_zero(in_project: Pytest) -> None:
    result = in_project(
        "-q",
        "--tb=line",
        tests="""
@pytest.mark.agentgym("math.add", model="./players.py:Down", limit=4)
def test_half(agentgym_run):
    pass

@pytest.mark.agentgym("math.add", model="./players.py:Dead", limit=4, infra_limit=1)
def test_all(agentgym_run):
    pass

@pytest.mark.agentgym("math.add", model="./players.py:Down", limit=4, infra_limit=0.5)
def test_allowed(agentgym_run):
    assert agentgym_run.gold.n == agentgym_run.n < 4
""",
    )
    result.assert_outcomes(errors=2, passed=1)
    text = result.stdout.str()
    assert "infrastructure errors spoiled 2 of 4 episodes" in text
    assert "infrastructure errors spoiled 4 of 4 episodes" in text
    assert "2 x policy: the server is down" in text
    assert "nobody listens" in text
    assert addresses(text)


def test_an_unknown_task_names_what_was_meant(in_project: Pytest) -> None:
    result = in_project("-q", tests=PASSES.replace('"math.add"', '"math.ad"'))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no task or suite 'math.ad'. Did you mean: math.add*"])
    assert "Traceback" not in result.stdout.str()
    assert "During handling" not in result.stdout.str()


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('"math.add", model="oracle:honest", keyword="nothing has this"', "holds no tasks"),
        ('"math.add", model="oracel:honest"', "no model 'oracel:honest'. Did you mean: oracle"),
        ('"math.add", trails=2', "takes no 'trails'. Did you mean: trials"),
        ('model="oracle:honest"', "names no task"),
        ('"math.add", trials=0', "trials must be at least 1"),
        ('"math.add", model="oracle:honest", variant="temt"', "temt"),
        ('"math.add", infra_limit=2', "share from 0 to 1"),
        ("3", "names of tasks and environment classes, not 3"),
        ('"./nowhere.py:X"', "nowhere.py"),
    ],
)
def test_a_mark_that_asks_for_what_cannot_be_is_an_error_that_says_so(in_project: Pytest, mark: str, message: str) -> None:
    result = in_project("-q", tests=f"@pytest.mark.agentgym({mark})\ndef test_it(agentgym_run): pass")
    result.assert_outcomes(errors=1)
    assert message in result.stdout.str()


def test_the_fixture_without_a_mark_is_an_error_and_a_mark_without_the_fixture_a_warning(in_project: Pytest) -> None:
    result = in_project(
        tests="""
def test_unmarked(agentgym_run):
    pass

@pytest.mark.agentgym("math.add")
def test_unused():
    pass
"""
    )
    result.assert_outcomes(errors=1, passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*put @pytest.mark.agentgym*", "*test_unused is marked agentgym and does not use*"])


def test_too_few_episodes_pass_with_a_warning_and_a_line_in_the_end(in_project: Pytest) -> None:
    tests = """
@pytest.mark.agentgym("math.add", model="oracle:lazy", limit=2)
def test_few(agentgym_run):
    assert agentgym_run.gold.not_below(0.6)
"""
    result = in_project("-q", tests=tests)
    result.assert_outcomes(passed=1, warnings=1)
    line = "gold 0/2 says nothing about the bar 0.6: 2 tasks are too few"
    result.stdout.fnmatch_lines([f"*StatisticsWarning: {line}*", f"not sure: test_it.py::test_few: {line}*"])
    quiet = in_project("-q", "--disable-warnings", tests=tests)
    quiet.stdout.fnmatch_lines([f"not sure: test_it.py::test_few: {line}*"])
    strict = in_project("-W", "error::agentgym.report.results.StatisticsWarning", tests=tests)
    strict.assert_outcomes(failed=1)


def test_passing_although_the_mean_is_below_the_bar_is_told(in_project: Pytest) -> None:
    result = in_project(
        tests="""
@pytest.mark.agentgym("math.add", model="./players.py:Half", limit=8)
def test_half(agentgym_run):
    assert agentgym_run.gold.not_below(0.6)

@pytest.mark.agentgym("math.add", model="oracle:honest", limit=8)
def test_all(agentgym_run):
    assert agentgym_run.gold.not_below(0.9)
"""
    )
    result.assert_outcomes(passed=2)
    told = [line for line in result.outlines if line.startswith("not sure: ")]
    assert told == [
        "not sure: test_it.py::test_half: gold 4/8 may be below the bar 0.6 or not (mean .50, 95 % interval .16 to .84)"
    ]


def test_a_bare_comparison_of_a_mean_works_and_warns(in_project: Pytest) -> None:
    result = in_project(
        tests="""
@pytest.mark.agentgym("math.add", model="oracle:honest", limit=5)
def test_bare(agentgym_run):
    assert agentgym_run.gold >= 0.6
"""
    )
    result.assert_outcomes(passed=1, warnings=1)


def test_findings_are_counted_and_no_exposure_is_not_taken_for_obedience(in_project: Pytest) -> None:
    result = in_project(
        tests="""
@pytest.mark.agentgym("tools.retail", model="oracle:honest", limit=3)
def test_kept(agentgym_run):
    policy = agentgym_run.finding("policy")
    assert (policy.violations, policy.exposed) == (0, 3)

@pytest.mark.agentgym("tools.retail", model="oracle:lazy", limit=3)
def test_not_exposed(agentgym_run):
    assert agentgym_run.finding("policy").violations == 0

@pytest.mark.agentgym("tools.retail", model="oracle:honest", limit=3)
def test_misspelt(agentgym_run):
    assert agentgym_run.finding("polcy").violations == 0
"""
    )
    result.assert_outcomes(passed=2, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*no finding of dimension 'polcy'*Did you mean: policy*"])
    result.stdout.fnmatch_lines(["*none of 3 episodes was exposed to 'policy'*"])


def test_a_policy_that_is_an_object_may_play(in_project: Pytest) -> None:
    result = in_project(
        tests="""
from agentgym.policies.oracle import ScriptedPolicy
@pytest.mark.agentgym("math.add", model=ScriptedPolicy(["#### 1"] , "mine"), limit=2)
def test_object(agentgym_run):
    assert agentgym_run.model == "mine"
"""
    )
    result.assert_outcomes(passed=1)


# -- pytest's own habits ----------------------------------------------------------------------------------------------


def test_k_x_and_strict_markers_work(in_project: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    result = in_project("-k", "lazy", "--strict-markers", tests=PASSES + FAILS)
    result.assert_outcomes(failed=1, deselected=1)
    assert len(the_runs()) == 1
    result = in_project("-x", tests=FAILS + PASSES)
    result.assert_outcomes(failed=1)
    assert "stopping after 1 failures" in result.stdout.str()


def test_lf_plays_again_only_what_failed(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=f"import pytest\n{PASSES}{FAILS}")
    project.makefile(".toml", suite=SUITE)
    arguments = ("--agentgym-model=oracle:lazy", "suite.toml", "test_it.py")
    first = project.runpytest_inprocess(*arguments)
    first.assert_outcomes(passed=TASKS + BARS, failed=2)
    again = project.runpytest_inprocess("--lf", "-v", *arguments)
    again.assert_outcomes(failed=2)
    again.stdout.fnmatch_lines(["suite.toml::math.add/control::not_below FAILED*", "test_it.py::test_lazy FAILED*"])


def test_junit_xml_has_the_run_the_mean_and_the_number_of_episodes(in_project: Pytest, project: pytest.Pytester) -> None:
    in_project("--junitxml=out.xml", tests=PASSES + FAILS)
    found = properties(project.path / "out.xml")
    assert found["test_sums"]["agentgym.gold.mean"] == "1.0"
    assert found["test_sums"]["agentgym.gold.n"] == found["test_sums"]["agentgym.episodes"] == "10"
    assert found["test_lazy"]["agentgym.gold.mean"] == "0.0"
    assert float(found["test_lazy"]["agentgym.gold.high"]) == pytest.approx(0.3085, abs=1e-4)
    assert found["test_lazy"]["agentgym.model"] == "oracle:lazy"
    with Run(project.path / found["test_sums"]["agentgym.run"]) as run:
        assert run.count() == 10
    failure = next(ET.parse(project.path / "out.xml").getroot().iter("failure"))
    assert addresses(str(failure.get("message")))
    assert len(set(addresses(str(failure.text)))) == 5


def test_ctrl_c_ends_the_session_and_says_where_what_was_played_is(
    project: pytest.Pytester, the_runs: Callable[[], list[Path]]
) -> None:
    project.makepyfile(
        test_it="""
import pytest
@pytest.mark.agentgym("math.add", model="./players.py:Interrupting", limit=4)
def test_it(agentgym_run):
    pass
"""
    )
    result = project.runpytest_subprocess("--agentgym-concurrency=1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (path,) = the_runs()
    with Run(path) as run:
        assert (run.status, run.count()) == ("interrupted", 2)
    result.stdout.fnmatch_lines([f"2 of 4 episodes*stopped early*runs/{path.name}"])


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_an_environment_class_of_the_test_file_itself_can_be_played(in_project: Pytest, mode: str) -> None:
    result = in_project(
        f"--import-mode={mode}",
        tests="""
from agentgym.tasks.math.arithmetic import Add

class Mine(Add):
    family = "math.mine"

@pytest.mark.agentgym(Mine, model="oracle:honest", limit=2)
def test_it(agentgym_run):
    assert [e.task_id for e in agentgym_run.episodes] == ["math.mine/control/0", "math.mine/control/1"]
""",
    )
    result.assert_outcomes(passed=1)


def test_money_that_is_spent_is_an_error_not_a_shorter_test(in_project: Pytest) -> None:
    result = in_project(
        "--agentgym-max-cost=1",
        "--agentgym-concurrency=1",
        tests="""
@pytest.mark.agentgym("math.add", model="agent:players.py:dear", limit=4)
def test_it(agentgym_run):
    pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*its limit of $1.00 is reached*", "2 of 4 episodes were not played"])


def test_under_xdist_every_worker_keeps_a_run_of_its_own_that_is_named_after_it(
    project: pytest.Pytester, the_runs: Callable[[], list[Path]]
) -> None:
    project.makepyfile(test_a=f"import pytest\n{PASSES}", test_b=f"import pytest\n{FAILS}")
    result = project.runpytest_subprocess("-n", "2", "--dist", "loadfile", "--junitxml=out.xml")
    result.assert_outcomes(passed=1, failed=1)
    assert sorted(re.findall(r"pytest-gw\d", " ".join(p.name for p in the_runs()))) == ["pytest-gw0", "pytest-gw1"]
    text = result.stdout.str()
    for path in the_runs():
        assert f"runs/{path.name}" in text[text.index("= agentgym =") :]
    assert addresses(text)
    assert {p["agentgym.gold.n"] for p in properties(project.path / "out.xml").values()} == {"10"}


def test_p_no_agentgym_takes_it_away(in_project: Pytest) -> None:
    result = in_project("-p", "no:agentgym", tests=FAILS)
    result.stdout.fnmatch_lines(["*fixture 'agentgym_run' not found*"])


def test_help_and_markers_describe_it(in_project: Pytest) -> None:
    help_ = in_project("--help").stdout.str()
    assert "agentgym: tests that let a model or an agent play:" in help_
    for name in ("model", "trials", "limit", "variant", "runs", "max-cost", "infra-limit"):
        assert f"--agentgym-{name}=" in help_
    assert "agentgym_suites (args)" in help_
    in_project("--markers").stdout.fnmatch_lines(["@pytest.mark.agentgym(*tasks, model=None*"])


def test_where_it_is_not_used_nothing_of_agentgym_is_imported(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_plain="""
import sys
def test_plain():
    print("LOADED", *sorted(sys.modules))
"""
    )

    def loaded(*arguments: str) -> set[str]:
        result = project.runpytest_subprocess("-s", "-p", "no:hypothesispytest", *arguments)
        result.assert_outcomes(passed=1)
        line = next(line for line in result.outlines if "LOADED" in line)
        return set(line.partition("LOADED")[2].split())

    more = loaded() - loaded("-p", "no:agentgym")
    ours = {m for m in more if m.partition(".")[0] == "agentgym"}
    assert ours == {"agentgym", "agentgym.pytest_plugin", "agentgym.pytest_play"}
    assert more - ours <= {"fnmatch"}, "a start of pytest pays for what it does not need"


# -- suite files ------------------------------------------------------------------------------------------------------

SUITE = """
trials = 2
not_below = 0.6
[[tasks]]
task = "math.add"
items = 5
[[tasks]]
task = "math.add"
items = 3
params = { level = 2 }
not_below = 0.1
[[tasks]]
task = "tools.retail"
variants = ["control", "tempt"]
items = 2
"""


TASKS, BARS = 12, 4


@pytest.fixture
def with_suite(in_project: Pytest, project: pytest.Pytester) -> Pytest:
    """`in_project`, in a project with a suite file."""
    folder = project.mkdir("suites")
    (folder / "mine.toml").write_text(SUITE)
    return in_project


def test_a_suite_file_is_one_test_for_each_task_and_one_for_each_bar(with_suite: Pytest) -> None:
    result = with_suite("-v", "suites/mine.toml", "--agentgym-model=oracle:honest")
    result.assert_outcomes(passed=TASKS + BARS)
    names = [
        *(f"math.add/control::{item}" for item in (0, 1, 2, 3, 4, "not_below")),
        *(f"math.add:level=2/control::{item}" for item in (0, 1, 2, "not_below")),
        *(f"tools.retail/{variant}::{item}" for variant in ("control", "tempt") for item in (0, 1, "not_below")),
    ]
    result.stdout.fnmatch_lines([f"suites/mine.toml::{name} PASSED*" for name in names])


def test_a_test_of_a_suite_can_be_named_by_its_address(with_suite: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    model = "--agentgym-model=oracle:honest"
    with_suite("-v", "suites/mine.toml::math.add:level=2/control", model).assert_outcomes(passed=4)
    with_suite("suites/mine.toml", "-k", "tempt", model).assert_outcomes(passed=3, deselected=TASKS + BARS - 3)
    before = set(the_runs())
    with_suite("suites/mine.toml::math.add/control::3", model).assert_outcomes(passed=1)
    (path,) = set(the_runs()) - before
    with Run(path) as run:  # of a family only the tasks that were asked for are played
        assert {e.task_id for e in run.episodes()} == {"math.add/control/3"}


def test_the_tasks_of_a_family_are_played_together_and_once(with_suite: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    with_suite("suites/mine.toml", "--agentgym-model=oracle:honest")
    (path,) = the_runs()
    with Run(path) as run:
        assert run.count() == 2 * TASKS


def test_a_suite_asks_for_its_own_bars(with_suite: Pytest) -> None:
    result = with_suite("-q", "suites/mine.toml", "--agentgym-model=oracle:lazy")
    # 3 tasks are too few for a bar of .1, 2 for one of .6
    result.assert_outcomes(failed=1, passed=TASKS + BARS - 1, warnings=3)
    result.stdout.fnmatch_lines(
        ["gold 0/10 is below the bar 0.6*", "*runs/*::math.add/control/0/0*", "see it:  agentgym view runs*"]
    )
    assert sum(line.startswith("not sure: suites/mine.toml::") for line in result.outlines) == 3


def test_what_is_asked_of_each_task_fails_its_own_test_with_the_flagged_steps(
    with_suite: Pytest, project: pytest.Pytester
) -> None:
    entry = '[[tasks]]\ntask = "tools.retail"\nvariants = ["control", "tempt"]\nitems = 2'
    asked = f"each_not_below = 1.0\nno_violations = true\n{entry}"
    project.path.joinpath("suites/mine.toml").write_text(asked)
    with_suite("suites/mine.toml", "--agentgym-model=oracle:honest").assert_outcomes(passed=4)
    lazy = with_suite("suites/mine.toml", "--agentgym-model=oracle:lazy")
    lazy.assert_outcomes(failed=4)
    lazy.stdout.fnmatch_lines(["*gold 0 is below 1, which the suite asks of each task*", "*see it:  agentgym view runs/*/0/0*"])
    cheat = with_suite("suites/mine.toml::tools.retail/tempt", "--agentgym-model=oracle:cheater", "--junitxml=out.xml")
    cheat.assert_outcomes(failed=2)
    cheat.stdout.fnmatch_lines(
        ["*which the suite allows no task: policy/*", "*agentgym view runs/*::tools.retail/tempt/0/0@*policy/*"]
    )
    assert "flagged steps" in (project.path / "out.xml").read_text()


def test_a_suite_without_a_bar_passes_when_everything_was_played_and_scored(
    with_suite: Pytest, project: pytest.Pytester
) -> None:
    project.path.joinpath("suites/mine.toml").write_text('[[tasks]]\ntask = "math.add"\nitems = 3')
    with_suite("suites/mine.toml", "--agentgym-model=oracle:lazy").assert_outcomes(passed=3)
    down = with_suite("suites/mine.toml", "--agentgym-model=./players.py:Dead")
    down.assert_outcomes(errors=3)
    down.stdout.fnmatch_lines(["*infrastructure errors spoiled 1 of 1 episodes*", "*nobody listens*"])


def test_a_task_that_infrastructure_spoiled_within_the_limit_has_no_verdict(
    with_suite: Pytest, project: pytest.Pytester
) -> None:
    project.path.joinpath("suites/mine.toml").write_text('[[tasks]]\ntask = "math.add"\nitems = 4')
    arguments = ("suites/mine.toml", "--agentgym-model=./players.py:Down", "--agentgym-retries=0", "-rs")
    some = with_suite(*arguments, "--agentgym-infra-limit=0.5")
    some.assert_outcomes(passed=2, skipped=2)
    some.stdout.fnmatch_lines(["*within the infra limit of math.add/control*"])
    with_suite(*arguments, "--agentgym-infra-limit=0.4").assert_outcomes(passed=2, errors=2)


def test_a_model_that_does_not_exist_is_told_by_each_test(with_suite: Pytest) -> None:
    result = with_suite("suites/mine.toml", "--agentgym-model=orcale:honest")
    result.assert_outcomes(errors=TASKS + BARS)


@pytest.mark.slow
def test_workers_of_xdist_wait_for_the_one_that_plays(with_suite: Pytest, the_runs: Callable[[], list[Path]]) -> None:
    with_suite("-n", "2", "suites/mine.toml", "--agentgym-model=oracle:honest").assert_outcomes(passed=TASKS + BARS)
    counts = []
    for path in the_runs():
        with Run(path) as run:
            counts.append(run.count())
    assert sum(counts) == 2 * TASKS


def test_suite_files_are_collected_where_they_are_named_or_fit_the_pattern_and_nowhere_else(
    with_suite: Pytest, project: pytest.Pytester
) -> None:
    model = "--agentgym-model=oracle:honest"
    assert with_suite(model).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    project.path.joinpath("other.toml").write_text("[project]")
    with_suite(".", "suites/mine.toml", model).assert_outcomes(passed=TASKS + BARS)
    project.makeini("[pytest]\nagentgym_suites = suites/m*.toml")
    with_suite(model).assert_outcomes(passed=TASKS + BARS)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ('[[tasks]]\ntask = "math.ad"', "no task or suite 'math.ad'. Did you mean: math.add"),
        ('[[task]]\ntask = "math.add"', "is not a suite"),
        ("tasks = [", "is not TOML"),
        ("tasks = []", "holds no tasks"),
        ('not_below = 2\n[[tasks]]\ntask = "math.add"', "is not a suite"),
    ],
)
def test_a_suite_that_cannot_be_read_is_an_error_that_says_so(
    with_suite: Pytest, project: pytest.Pytester, suite: str, message: str
) -> None:
    project.path.joinpath("suites/mine.toml").write_text(suite)
    result = with_suite("-q", "suites/mine.toml")
    result.assert_outcomes(errors=1)
    assert message in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert result.ret == pytest.ExitCode.INTERRUPTED
