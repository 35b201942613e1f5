# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and full disks, as a person at a terminal meets them: the real command in a real process."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentgym.errors import NotFoundError, RecordError
from agentgym.records.run import Run, find_run

POLICY = '''
"""Answers after a while, and says what it plays."""
import asyncio, os
from agentgym import Completion, PolicyBase, assistant

class Slow(PolicyBase):
    name = "slow"

    def begin(self, context):
        with open(os.environ["PLAYED"], "a") as file:
            print(context.task_id, context.trial, file=file)
        return self

    async def act(self, conversation, tools, sampling):
        await asyncio.sleep(float(os.environ.get("DELAY", "0.01")))
        return Completion(assistant("7"))
'''

EPISODES = 120


class Terminal:
    """A folder in which ``agentgym`` is run as a person would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.played = folder / "played.txt"
        (folder / "slow.py").write_text(POLICY)

    def start(
        self, *arguments: str, cwd: Path | None = None, most_bytes: int | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        def limit() -> None:
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

        return subprocess.Popen(
            [sys.executable, "-m", "agentgym", "eval", "--runs", str(self.runs), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd or self.folder,
            env={**os.environ, "PLAYED": str(self.played), "COLUMNS": "200", **environment},
            preexec_fn=limit,
        )

    def eval(self, *more: str, **options: str) -> subprocess.Popen[str]:
        tasks = ["math.add", "--limit", str(EPISODES // 2), "--trials", "2", "-n", "4"]
        return self.start(*tasks, "--model", "./slow.py:Slow", *more, **options)

    def ended(self, child: subprocess.Popen[str]) -> str:
        """What the command said until it ended."""
        try:
            return child.communicate(timeout=100)[0]
        finally:
            child.kill()

    def has_played(self, episodes: int) -> Path:
        """Waits until so many are on record, reading beside the writer; returns the run."""
        for _ in range(3000):
            try:
                path = find_run("latest", self.runs)
                with Run(path) as run:
                    if run.count() >= episodes:
                        return path
            except (NotFoundError, RecordError):
                pass  # not made yet
            time.sleep(0.02)
        raise AssertionError("nothing was played")

    def on_record(self) -> set[str]:
        with Run(find_run("latest", self.runs)) as run:
            return {f"{e.task_id} {e.trial}" for e in run.episodes() if e.trajectory.turns}


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_ctrl_c_saves_what_was_played_and_resume_plays_the_rest(terminal: Terminal, tmp_path: Path) -> None:
    child = terminal.eval()
    path = terminal.has_played(8)
    child.send_signal(signal.SIGINT)
    said = terminal.ended(child)
    saved = terminal.on_record()
    assert child.returncode == 130, said
    advice = re.search(rf"stopped: {len(saved)} of {EPISODES} episodes are saved in {path}; continue with --resume (\S+)", said)
    assert advice, said
    assert "Traceback" not in said
    assert 8 <= len(saved) < EPISODES
    with Run(path) as run:
        assert run.status == "interrupted"

    terminal.played.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    child = terminal.start("--resume", advice[1], cwd=elsewhere, DELAY="0")
    said = terminal.ended(child)
    assert child.returncode == 0, said
    assert re.search(rf"\b{len(saved)} .*on record", said)
    played = terminal.played.read_text().splitlines()
    assert len(played) == len(set(played)) == EPISODES - len(saved)
    assert not set(played) & saved
    with Run(path) as run:
        assert (run.status, run.count(), len(list(run.episodes(all_attempts=True)))) == ("finished", EPISODES, EPISODES)


def test_an_impatient_ctrl_c_loses_nothing_either(terminal: Terminal) -> None:
    child = terminal.eval()
    path = terminal.has_played(8)
    before = terminal.on_record()
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    said = terminal.ended(child)
    assert child.returncode == 130, said
    assert before <= terminal.on_record()
    child = terminal.start("--resume", DELAY="0")
    said = terminal.ended(child)
    assert child.returncode == 0, said
    with Run(path) as run:
        assert (run.status, run.count()) == ("finished", EPISODES)


def test_a_terminated_run_is_resumed_like_a_killed_one(terminal: Terminal) -> None:
    child = terminal.eval()
    path = terminal.has_played(8)
    child.terminate()
    terminal.ended(child)
    before = terminal.on_record()
    assert len(before) >= 8
    child = terminal.start("--resume", DELAY="0")
    said = terminal.ended(child)
    assert child.returncode == 0, said
    with Run(path) as run:
        assert run.count() == EPISODES


def test_resuming_a_run_that_is_under_way_is_refused(terminal: Terminal) -> None:
    child = terminal.eval(DELAY="0.3")
    path = terminal.has_played(1)
    second = terminal.start("--resume", path.name)
    said = terminal.ended(second)
    assert second.returncode == 12, said
    assert f"another process is working on {path}" in said
    child.send_signal(signal.SIGINT)
    terminal.ended(child)


def test_a_full_disk_is_exit_12_with_what_to_do_and_resume_goes_on(terminal: Terminal) -> None:
    child = terminal.eval(most_bytes=250_000, DELAY="0.001")  # type: ignore[arg-type]
    said = terminal.ended(child)
    assert child.returncode == 12, said
    path = find_run("latest", terminal.runs)
    assert re.search(rf"agentgym: the disk is full or cannot be written.*make room and go on with --resume {path}", said)
    assert "Traceback" not in said
    assert "never retrieved" not in said
    saved = terminal.on_record()
    terminal.played.unlink()
    child = terminal.start("--resume", str(path), DELAY="0")
    said = terminal.ended(child)
    assert child.returncode == 0, said
    assert not set(terminal.played.read_text().splitlines()) & saved
    with Run(path) as run:
        assert (run.status, run.count()) == ("finished", EPISODES)


def test_resume_with_tasks_or_without_a_run_says_what_to_do(terminal: Terminal) -> None:
    for arguments, words in (
        (["--resume"], "there are no runs"),
        (["math.add", "--resume", "nowhere"], "takes no further tasks"),
    ):
        child = terminal.start(*arguments)
        said = terminal.ended(child)
        assert child.returncode == 2, said
        assert words in said
