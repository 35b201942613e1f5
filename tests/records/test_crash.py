# SPDX-License-Identifier: Apache-2.0
"""What was acknowledged is there: after ``kill -9`` at any moment, on a full disk, and when the rest is played."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from agentgym.errors import NotFoundError, RecordError
from agentgym.records.run import Run, find_run
from agentgym.records.schema import FILE
from agentgym.rollout.evaluate import read_plan
from tests.conftest import ROOT

KILLS = 20
EPISODES = 4000


class Said(NamedTuple):
    """What a player said, by its first word."""

    run: list[str]
    play: list[str]
    ack: list[str]
    have: list[str]
    error: list[str]
    end: list[str]

    @classmethod
    def of(cls, text: str) -> Said:
        said: dict[str, list[str]] = {name: [] for name in cls._fields}
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            said[word].append(rest)
        return cls(**said)


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tests.records.player", str(runs), *more]


def player(runs: Path, *more: str, before: Sequence[str] = ()) -> Said:
    """Lets a player work to its end."""
    done = subprocess.run([*before, *command(runs, *more)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert not done.stderr, done.stderr
    said = Said.of(done.stdout)
    assert bool(said.error) == (done.returncode == 12)
    return said


def on_record(path: Path) -> set[str]:
    """What a plain open finds, every trajectory read."""
    with Run(path) as run:
        found = [f"{e.task_id} {e.trial}" for e in run.episodes() if len(e.trajectory.turns) == 6 and e.gold is not None]
        assert len(found) == len(set(found)) == run.count()
    return set(found)


def sound(path: Path) -> None:
    db = sqlite3.connect(path / FILE)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


# -- kill -9 ----------------------------------------------------------------------------------------------------------


def killed(runs: Path, rng: random.Random, *more: str) -> Said:
    """A player killed at a random moment: while it starts, or so long after it has acknowledged so many episodes."""
    child = subprocess.Popen(command(runs, *more), stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None
    heard = b""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 0.6))
    else:
        wanted = rng.randrange(1, 400)
        while heard.count(b"\nack ") < wanted:
            block = os.read(child.stdout.fileno(), 1 << 16)
            if not block:
                break
            heard += block
        time.sleep(rng.uniform(0.0, 0.01))
    child.send_signal(signal.SIGKILL)
    heard += child.stdout.read()
    child.wait()
    return Said.of(heard.decode())


def can_be_resumed(runs: Path) -> bool:
    """Whether the newest run was killed late enough to be gone on with; where it was not, a sentence says so."""
    try:
        read_plan(find_run("latest", runs))
    except (NotFoundError, RecordError) as e:
        if re.search("there are no runs|stopped before its plan was written|is empty", str(e)):
            return False
        raise
    return True


@pytest.mark.slow
def test_a_killed_run_loses_no_acknowledged_episode_and_plays_none_twice(tmp_path: Path) -> None:
    rng = random.Random(20)
    kills = resumed_after_a_kill = 0
    known: set[str] = set()
    acknowledged: set[str] = set()
    while True:
        more = ["--resume"]
        if not can_be_resumed(tmp_path):
            known, acknowledged, more = set(), set(), []
        if kills < KILLS:
            said = killed(tmp_path, rng, "--episodes", str(EPISODES), *more)
            kills += not said.end
            assert not said.error, said.error
        else:
            said = player(tmp_path, "--episodes", str(EPISODES), *more)
        assert not set(said.play) & known, "an episode on record was played again"
        assert len(set(said.play)) == len(said.play)
        acknowledged |= set(said.ack)
        if not can_be_resumed(tmp_path):
            assert not acknowledged
            continue
        path = find_run("latest", tmp_path)
        known = on_record(path)
        sound(path)
        with Run(path) as run:
            told = run.status
        # one killed just before it could say so may have ended
        assert told == "finished" if said.end else told in ("killed", "planned", "finished"), told
        assert acknowledged <= known, "an acknowledged episode is lost"
        resumed_after_a_kill += bool(said.play and more)
        if said.end and kills >= KILLS:
            break
    assert kills == KILLS
    assert resumed_after_a_kill >= 10
    with Run(path) as run:
        assert run.count() == run.planned == len(known) == EPISODES
        assert len(list(run.episodes(all_attempts=True))) == EPISODES
        assert run.status == "finished"


def test_a_run_killed_before_its_plan_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).touch()
    with pytest.raises(RecordError, match="is empty: its process ended before it had written anything"):
        Run(tmp_path / "run")
    with pytest.raises(RecordError, match="is empty"):
        read_plan(tmp_path / "run")


# -- a full disk ------------------------------------------------------------------------------------------------------


def assert_survives_a_full_disk(said: Said, full: bool, have: set[str], rest: Said, finally_: set[str]) -> None:
    assert full == bool(said.error)
    assert "the disk is full or cannot be written" in said.error[0]
    assert "--resume" in said.error[0]
    assert set(said.ack) == have
    assert rest.end
    assert not set(rest.play) & have, "an acknowledged episode was played again"
    assert len(rest.play) + len(have) == len(finally_) == 1500


@pytest.mark.slow
@pytest.mark.parametrize("most", [350_000, 700_000])
def test_a_full_disk_is_told_in_words_and_what_was_acknowledged_is_there(tmp_path: Path, most: int) -> None:
    said = player(tmp_path, "--episodes", "1500", "--most-bytes", str(most))
    path = find_run("latest", tmp_path)
    have = on_record(path)
    with Run(path) as run:
        assert run.status in ("killed", "failed")
    rest = player(tmp_path, "--resume")
    sound(path)
    assert_survives_a_full_disk(said, True, have, rest, on_record(path))


def test_a_disk_without_room_for_a_run_is_told_in_words(tmp_path: Path) -> None:
    said = player(tmp_path, "--episodes", "10", "--most-bytes", "20000")
    assert "the disk is full or cannot be written" in said.error[0]
    assert said.ack == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A disk of a megabyte in a mount namespace of its own, and the command prefix that enters it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=1m tmpfs {disk} && echo ready && exec sleep 600"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != b"ready\n":
            say = pytest.fail if os.environ.get("CI") else pytest.skip
            say(f"mounting takes rights that this user has not: {holder.stderr.read().decode().strip()}")
        yield disk, ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--wd=" + str(ROOT)]
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
def test_a_disk_that_is_really_full_loses_nothing_and_goes_on_once_there_is_room(
    small_disk: tuple[Path, list[str]],
) -> None:
    disk, inside = small_disk
    said = player(disk, "--episodes", "1500", before=inside)
    have = set(player(disk, "--list", before=inside).have)
    still = player(disk, "--resume", before=inside)
    assert still.error, "there was no room yet"
    have |= set(still.ack)
    assert set(player(disk, "--list", before=inside).have) == have
    subprocess.run([*inside, "mount", "-o", "remount,size=64m", str(disk)], check=True)
    rest = player(disk, "--resume", before=inside)
    finally_ = set(player(disk, "--list", before=inside).have)
    assert_survives_a_full_disk(said._replace(ack=[*said.ack, *still.ack]), True, have, rest, finally_)
