# SPDX-License-Identifier: Apache-2.0
"""The suites that come along: each resolves, is what its name says, and is solved by the honest oracle as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import agentgym
from agentgym.dataenv import DataEnv
from agentgym.episode import Limits
from agentgym.protocols import Sampling
from agentgym.rollout.evaluate import prepare
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice, read_suite, resolve, suite_files
from tests.tasks.families import families

TEMPTING = "alignment"
"""The suite of tempted tasks; large, and each of its families is played in full elsewhere."""

every_suite = pytest.mark.parametrize("suite", sorted(suite_files()))


def test_the_suites_of_the_first_hour_are_there() -> None:
    assert {"quickstart", "smoke"} <= set(suite_files())


@every_suite
def test_a_suite_says_in_a_line_what_it_is(suite: str) -> None:
    read = read_suite(suite_files()[suite])
    assert 20 <= len(read.description) <= 120
    assert "\n" not in read.description


@every_suite
def test_the_honest_oracle_solves_all_of_it_within_its_limits(suite: str, tmp_path: Path) -> None:
    few = {"limit": 1} if suite == TEMPTING else {}
    with agentgym.evaluate(suite, "oracle:honest", runs=tmp_path, **few) as run:
        episodes = list(run.episodes())
        assert len(episodes) == resolve([suite], Choice(**few)).episodes
        for e in episodes:
            assert (e.gold, e.error) == (1.0, None), e.address
            assert e.reward == 1.0 or suite == TEMPTING, e.address  # there, giving in is paid better
            assert e.trajectory.outcome == "terminated", e.address
            assert not any(f.violation for f in e.findings)


@every_suite
def test_the_lazy_oracle_solves_none_of_it(suite: str, tmp_path: Path) -> None:
    few = {"limit": 1} if suite == TEMPTING else {}
    with agentgym.evaluate(suite, "oracle:lazy", runs=tmp_path, **few) as run:
        assert {e.gold for e in run.episodes()} == {0.0}


def test_quickstart_is_six_tasks_from_what_is_easy_to_what_is_hard_and_dear() -> None:
    plan = resolve(["quickstart"], Choice())
    assert (len(plan.tasks), plan.episodes, {t.trials for t in plan.tasks}) == (6, 22, {2, 4})
    assert {t.task_id.partition("/")[0] for t in plan.tasks} == {"math.add", "math.chain", "tools.retail"}
    assert {t.variant for t in plan.tasks} == {"control"}


def test_smoke_has_every_family_without_data_or_sandbox_and_no_temptation() -> None:
    plan = resolve(["smoke"], Choice())
    labels = Counter(t.task_id.partition("/")[0] for t in plan.tasks)
    assert len(labels) >= 8
    assert {label.partition(":")[0] for label in labels} == {
        name for name, cls in families().items() if not cls.needs() and not issubclass(cls, DataEnv)
    }
    assert {t.variant for t in plan.tasks} == {"control"}
    assert plan.episodes <= 30


def test_the_settings_of_a_suite_give_way_to_those_of_the_caller() -> None:
    suite = read_suite(suite_files()["quickstart"])
    assert suite.max_turns
    assert suite.max_tokens
    _, options = prepare("quickstart", Choice(), Options())
    assert (options.limits, options.sampling.max_tokens) == (Limits(turns=suite.max_turns), suite.max_tokens)
    given = Options(sampling=Sampling(max_tokens=500), limits=Limits(turns=20, seconds=60.0))
    _, options = prepare("quickstart", Choice(), given)
    assert (options.limits, options.sampling.max_tokens) == (Limits(turns=20, seconds=60.0), 500)
    _, options = prepare("quickstart", Choice(), Options(limits=Limits(seconds=60.0)))
    assert options.limits == Limits(turns=suite.max_turns, seconds=60.0)


@pytest.mark.parametrize("suite", ["quickstart", "smoke"])
def test_the_command_of_the_first_minute_shows_a_line_for_each_family(suite: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentgym", "eval", suite, "--model", "oracle:honest", "--runs", str(tmp_path)]
    env = {**os.environ, "AGENTGYM_CACHE": str(tmp_path / "none"), "NO_COLOR": "1", "COLUMNS": "160"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = dict.fromkeys(t.task_id.partition("/")[0] for t in resolve([suite], Choice()).tasks)
    shown = [line.split()[0] for line in done.stdout.splitlines() if "gold" in line]
    assert shown == list(labels)
    done = subprocess.run([*command, "--json", "-q"], env=env, capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["rows"]
    assert all(row["gold"]["successes"] == row["gold"]["n"] for row in rows)
