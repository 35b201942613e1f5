# SPDX-License-Identifier: Apache-2.0
"""Tasks that are scored by a judge: who is asked, what is refused, what is kept."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import agentgym
from agentgym.background import run_blocking
from agentgym.errors import UsageError
from tests.evaluators.judges import ScriptedJudge

ENV = textwrap.dedent(
    '''
    """An open question that a judge scores."""
    from agentgym import ChatEnv, Task, assistant
    from agentgym.evaluators.judge import rubric_judge
    from agentgym.protocols import PolicyBase
    from tests.evaluators.judges import ScriptedJudge


    class Sky(ChatEnv):
        """Why the sky is blue."""

        family = "test.sky"
        gold = [rubric_judge(["names Rayleigh scattering", "says shorter wavelengths scatter more"])]

        def new_task(self, rng):
            return Task(opening=f"Explain why the sky is blue. ({rng.integers(10**9)})")

        def honest(self, task):
            yield assistant("Rayleigh scattering: shorter wavelengths scatter more than longer ones.")


    class Informed(Sky):
        """A judge that only informs."""

        family = "test.informed"
        gold = []
        metrics = Sky.gold
    '''
)


@pytest.fixture
def sky(tmp_path: Path) -> Path:
    file = tmp_path / "sky.py"
    file.write_text(ENV, encoding="utf-8")
    return file


def test_the_judge_that_is_named_scores_the_episodes(sky: Path, tmp_path: Path) -> None:
    judge = ScriptedJudge()
    run = agentgym.evaluate(f"{sky}:Sky", "oracle:honest", judge=judge, limit=3, trials=2, runs=tmp_path / "runs")
    assert [e.gold for e in run.episodes()] == [1.0] * 6
    lazy = agentgym.evaluate(f"{sky}:Sky", "oracle:lazy", judge=judge, limit=3, runs=tmp_path / "runs")
    assert [e.gold for e in lazy.episodes()] == [0.0] * 3
    assert run.meta["judge"] == "scripted-judge"
    about = [r for r in judge.requests if "sky is blue" in r]
    assert len(about) == len(set(about))  # trials share what nothing said is worth, and equal answers are asked once


def test_without_a_judge_nothing_is_played(sky: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--judge MODEL"):
        agentgym.evaluate(f"{sky}:Sky", "oracle:honest", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    run = agentgym.evaluate(f"{sky}:Informed", "oracle:honest", limit=1, runs=tmp_path / "runs")  # a metric stops nothing
    (score,) = next(run.episodes()).all_scores
    assert (score.value, score.status) == (None, "unscorable")
    assert "there is none" in score.reason


def test_the_command_line_names_it_for_several_processes_and_a_resume_knows_it(sky: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    runs = tmp_path / "runs"
    command = [
        sys.executable,
        "-m",
        "agentgym",
        "eval",
        f"{sky}:Sky",
        "-m",
        "oracle:honest",
        "--limit",
        "4",
        "--runs",
        str(runs),
        "-q",
    ]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert refused.returncode == 2
    assert "test.sky is scored by a judge" in refused.stderr
    command += ["--judge", f"{sky}:ScriptedJudge", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    (path,) = runs.iterdir()
    with agentgym.Run(path) as run:
        assert [e.gold for e in run.episodes()] == [1.0] * 4
        assert run.meta["judge"] == f"{sky}:ScriptedJudge"


def test_the_money_that_a_judge_costs_counts(sky: Path, tmp_path: Path) -> None:
    run = agentgym.evaluate(
        f"{sky}:Sky", "oracle:honest", judge=ScriptedJudge(), limit=50, max_cost=0.02, concurrency=1, runs=tmp_path / "runs"
    )
    assert run.meta["stopped"] is not None
    assert 0 < run.count() < 50


def test_code_on_the_background_loop_cannot_wait_for_itself() -> None:
    async def inner() -> None:
        run_blocking(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="await"):
        run_blocking(inner())
    assert run_blocking(asyncio.sleep(0, "done")) == "done"
