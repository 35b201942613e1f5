# SPDX-License-Identifier: Apache-2.0
"""Several processes play one run: the same record as one would write, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentgym
from agentgym.errors import DefinitionError, InfrastructureError, UsageError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.run import Run, find_run
from agentgym.rollout.processes import merge_served
from tests.envs import Bank, Guess

POLICY = '''
import asyncio, os
from pathlib import Path
from agentgym import Completion, PolicyBase, Usage, assistant
from agentgym.errors import InfrastructureError

FOLDER = Path(__file__).parent

class Slow(PolicyBase):
    name = "slow"
    async def act(self, conversation, tools, sampling):
        await asyncio.sleep(0.05)
        print("what an agent prints goes elsewhere")
        return Completion(assistant("7"), Usage(10, 5, cost_usd=0.5))

class DiesOnce(Slow):
    """The first process to get so far kills itself in the middle of its share."""
    turns = 0
    async def act(self, conversation, tools, sampling):
        type(self).turns += 1
        if self.turns == 20:
            try:
                (FOLDER / "dead").touch(exist_ok=False)
                os.kill(os.getpid(), 9)
            except FileExistsError:
                pass
        return await super().act(conversation, tools, sampling)

class Poisoned(Slow):
    """One task ends the process that plays it."""
    def begin(self, context):
        if context.task_id.endswith("/7"):
            os._exit(3)
        return self

class Flaky(Slow):
    def begin(self, context):
        self.first = not (seen := FOLDER / f"seen-{context.task_id}".replace("/", "-")).exists()
        seen.touch()
        return self
    async def act(self, conversation, tools, sampling):
        if self.first:
            raise InfrastructureError("not now", retryable=True)
        return await super().act(conversation, tools, sampling)
'''


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    file = tmp_path / "slow.py"
    file.write_text(POLICY)
    return file


def episodes(run: Run) -> Counter[tuple[str, int]]:
    return Counter((e.task_id, e.trial) for e in run.episodes(all_attempts=True))


def test_the_record_is_the_one_that_a_single_process_writes(tmp_path: Path) -> None:
    runs = [
        agentgym.evaluate([Bank, Guess, "math.add"], "oracle:honest", limit=15, trials=2, processes=n, runs=tmp_path)
        for n in (1, 3)
    ]
    alone, together = ({(e.task_id, e.trial): e for e in run.episodes()} for run in runs)
    assert alone.keys() == together.keys()
    assert len(alone) == 90
    for key, e in together.items():
        assert e.trajectory.canonical() == alone[key].trajectory.canonical()
        assert e.task == alone[key].task
        assert (e.gold, e.reward, e.all_scores) == (alone[key].gold, alone[key].reward, alone[key].all_scores)
    assert runs[1].status == "finished"
    (tasks,) = next(runs[1]._rows("SELECT count(*) FROM objects"))
    assert tasks == 45, "each task is kept once"


def test_progress_counts_what_is_on_record_of_all_processes(tmp_path: Path, policies: Path) -> None:
    reports = []

    def report(progress: Any) -> None:
        reports.append((progress.total.done, progress.total.infrastructure, progress.retried, progress.turns))

    run = agentgym.evaluate(Guess, f"{policies}:Flaky", limit=12, processes=2, runs=tmp_path, on_progress=report)
    assert reports[-1] == (12, 0, 12, sum(e.turns for e in run.episodes(all_attempts=True)))
    assert [done for done, *_ in reports] == sorted(done for done, *_ in reports)
    assert Counter(e.attempt for e in run.episodes()) == {1: 12}


def test_a_process_that_is_killed_is_replaced_and_no_episode_counts_twice(tmp_path: Path, policies: Path) -> None:
    run = agentgym.evaluate(
        Guess, f"{policies}:DiesOnce", limit=60, processes=2, concurrency=8, runs=tmp_path, params={"level": 2}
    )
    assert (tmp_path / "dead").exists()
    assert run.status == "finished"
    assert len(episodes(run)) == 60
    assert set(episodes(run).values()) == {1}


def test_processes_that_die_again_and_again_end_the_run_in_words_and_the_rest_can_be_played(
    tmp_path: Path, policies: Path
) -> None:
    with pytest.raises(InfrastructureError, match=r"ended with exit code 3, 3 times in a row.*--resume") as caught:
        agentgym.evaluate(Guess, f"{policies}:Poisoned", limit=20, processes=2, concurrency=2, runs=tmp_path)
    path = find_run("latest", tmp_path)
    assert str(path) in str(caught.value)
    with Run(path) as run:
        assert 0 < run.count() < 20
        have = set(episodes(run))
    policies.write_text(POLICY.replace("os._exit(3)", "pass"))
    again = agentgym.evaluate(resume_run=path, runs=tmp_path, concurrency=100)
    assert again.status == "finished"
    assert len(episodes(again)) == 20
    assert have <= set(episodes(again))
    assert set(episodes(again).values()) == {1}


def test_the_money_is_that_of_all_processes_together(tmp_path: Path, policies: Path) -> None:
    run = agentgym.evaluate(Guess, f"{policies}:Slow", limit=200, processes=2, concurrency=4, max_cost=10.0, runs=tmp_path)
    assert "its limit of $10.00 is reached" in (run.stopped or "")
    spent = sum(e.cost_usd for e in run.episodes())
    assert 10.0 <= spent < 30.0
    assert run.status == "interrupted"


def test_an_object_cannot_be_shared_and_no_run_is_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the model by a text"):
        agentgym.evaluate(Guess, ScriptedPolicy(["1"]), processes=2, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_author_is_the_one_that_a_single_process_raises(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="no cheater oracle"):
        agentgym.evaluate(Guess, "oracle:cheater", limit=4, processes=2, runs=tmp_path)


def started(tmp_path: Path, policies: Path, n: int = 400) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "agentgym", "eval", "tests.envs:Guess", "--limit", str(n), "-m", f"{policies}:Slow", "-n", "4",
        "--processes", "2", "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2]
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
        found = list((tmp_path / "runs").glob("*/run.sqlite"))
        try:
            if found and agentgym.open_run(str(found[0].parent)).count() >= 5:
                return process
        except agentgym.errors.RecordError:
            continue  # not there yet
    raise AssertionError(process.communicate()[0])


def test_ctrl_c_keeps_what_was_played_and_leaves_no_process(tmp_path: Path, policies: Path) -> None:
    process = started(tmp_path, policies)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "--resume" in said
    assert not [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
    with Run(find_run("latest", tmp_path / "runs")) as run:
        assert run.status == "interrupted"
        assert 5 <= run.count() < 400
        assert set(episodes(run).values()) == {1}


def test_workers_end_with_the_process_that_started_them(tmp_path: Path, policies: Path) -> None:
    process = started(tmp_path, policies)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    with Run(find_run("latest", tmp_path / "runs")) as run:
        assert run.status == "killed"


def test_what_processes_learn_of_one_server_is_added_up() -> None:
    one = {"calls": {"requests": 3, "retries": 1}, "models": ["m-1"], "version": "7"}
    other = {"calls": {"requests": 4}, "models": ["m-1", "m-2"], "version": "7"}
    assert merge_served([one, other, {}]) == {
        "calls": {"requests": 7, "retries": 1},
        "models": ["m-1", "m-2"],
        "version": "7",
    }
