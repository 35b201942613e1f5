# SPDX-License-Identifier: Apache-2.0
"""Reading a run: what an episode offers, what opening costs, how runs are found, and what damage does."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.chat import assistant, call, submit
from agentgym.errors import NotFoundError, RecordError, UsageError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import Completion, Tokens, Usage
from agentgym.records import schema
from agentgym.records.run import Address, Run, find_run, find_runs, open_run, runs_root
from agentgym.records.store import RunWriter, new_run_directory
from agentgym.report.summary import summarize
from agentgym.scoring import Finding, Score
from agentgym.trajectory import encode_trajectory
from tests.conftest import ROOT
from tests.envs import Bank, Guess
from tests.records.made import record, written
from tests.rollout.playing import Told


def failing(text: str = "down") -> Any:
    def answer(context: Any, turn: int) -> Any:
        raise ConnectionError(text)

    return Told(answer)


# -- what an episode offers -------------------------------------------------------------------------------------------


def test_an_episode_has_its_numbers_as_columns_and_the_rest_on_request(tmp_path: Path) -> None:
    script = [call("transfer", cents=99), call("crash"), call("nope"), call("cook", row=1), submit()]
    one = record("3", env=Bank(variant="tempt"), script=script, trial=2)
    with Run(written(tmp_path / "run", one)) as run:
        (e,) = run.episodes()
        assert (e.task_id, e.family, e.variant, e.item, e.trial, e.attempt) == (
            "test.bank/tempt/3",
            "test.bank",
            "tempt",
            "3",
            2,
            0,
        )
        assert (e.outcome, e.truncation, e.error, e.error_kind) == ("terminated", None, None, None)
        assert (e.reward, e.gold, e.turns, e.tool_calls, e.tool_errors, e.tool_exceptions) == (1.25, 0.0, 5, 5, 2, 1)
        assert (e.exposures, e.violations, e.tags, e.cluster) == (1, 1, ("bank",), "test.bank")
        assert e.trajectory == one.trajectory
        assert e.task == one.task
        assert e.all_scores == one.scores
        assert e.findings == one.findings
        assert {name: (s.role, s.value) for name, s in e.scores.items()} == {
            "moved": ("proxy", 1.0),
            "honest_books": ("gold", 0.0),
            "calls": ("metric", 5.0),
        }
        assert e.address == f"{tmp_path}/run::test.bank/tempt/3/2"
        assert repr(e) == "Episode(test.bank/tempt/3/2, terminated, reward=1.25, gold=0.0)"


def test_every_field_of_scores_and_findings_survives(tmp_path: Path) -> None:
    scores = [
        Score("a", "proxy", 0.1 + 0.2, "ok", "why\n", ("x", "y"), {"k": [1, None, "é"]}, "h1"),
        Score("a", "gold", None, "timeout"),
        Score("a", "metric", -1e300, "refused", evidence=[]),
        Score("b", "metric", 5e-324),
    ]
    findings = [Finding("policy", "r", True, True, 2.5, 3, {"e": 1}, "h"), Finding("truthful", "s", False)]
    one = msgspec.structs.replace(record(), scores=scores, findings=findings, reward=-0.1, gold=None)
    with Run(written(tmp_path / "run", one)) as run:
        (e,) = run.episodes()
        assert e.all_scores == scores
        assert e.scores == {"a": scores[1], "b": scores[3]}, "gold speaks before proxy before metric"
        assert e.findings == findings
        assert (e.reward, e.gold) == (-0.1, None)


def test_episodes_are_selected_by_columns_and_the_last_attempt_counts(tmp_path: Path) -> None:
    path = written(
        tmp_path / "run",
        record("0", policy=failing()),
        record("1"),
        record("0", env=Guess(), script=["12"] * 6),
        record("0", attempt=1),
        record("1", trial=1, policy=failing()),
    )
    with Run(path) as run:

        def found(**by: Any) -> list[int]:
            return [e.id for e in run.episodes(**by)]

        assert found() == [2, 3, 4, 5]
        assert run.count() == 4
        assert found(all_attempts=True) == [1, 2, 3, 4, 5]
        assert found(family="test.guess") == [3]
        assert found(task_id="test.bank/control/0") == [4]
        assert found(task_id="test.bank/control/0", all_attempts=True) == [1, 4]
        assert found(outcome="infrastructure") == [5]
        assert found(outcome="infrastructure", all_attempts=True) == [1, 5]
        assert found(outcome="infrastructure", family="test.guess") == []
        assert [e.id for e in run.by_ids(run.ids())] == [2, 3, 4, 5]


def test_one_episode_is_looked_up_by_task_and_trial(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record("0", policy=failing()), record("0", attempt=1), record("0", trial=4), record("12"))
    with Run(path) as run:
        assert run.episode("test.bank/control/0").id == 2
        assert run.episode("test.bank/control/0", 4).id == 3
        with pytest.raises(NotFoundError, match=r"no trial 3 of test.bank/control/0; it has \[0, 4\]"):
            run.episode("test.bank/control/0", 3)
        with pytest.raises(NotFoundError, match=r"no episode of 'test.bank/control/13'.*test.bank/control/12"):
            run.episode("test.bank/control/13")


def test_a_generator_left_unfinished_does_not_complain_when_the_run_is_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record("0"), record("1"))
    with Run(path) as run:
        unfinished = run.episodes()
        next(unfinished)
    del unfinished  # PytestUnraisableExceptionWarning is an error here
    with pytest.raises(RecordError, match="closed"):
        run.count()


# -- addresses --------------------------------------------------------------------------------------------------------

part = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/:@"), min_size=1, max_size=6)
items = st.lists(part, min_size=1, max_size=3).map("/".join)


@given(part, part, part, items, st.integers(0, 10**6), st.none() | st.integers(0, 10**6))
def test_an_address_is_cut_into_what_it_was_made_of(
    run: str, family: str, variant: str, item: str, trial: int, turn: int | None
) -> None:
    task_id = f"{family}/{variant}/{item}"
    text = f"{run}::{task_id}/{trial}" + ("" if turn is None else f"@{turn}")
    assert Address.parse(text) == Address(run, task_id, trial, turn)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("latest", ("latest", None, None, None)),
        ("runs/x", ("runs/x", None, None, None)),
        ("x::math.add/control/0", ("x", "math.add/control/0", None, None)),
        ("x::math.add/control/0@2", ("x", "math.add/control/0", None, 2)),
        ("x::math.add:level=3/control/0/1", ("x", "math.add:level=3/control/0", 1, None)),
        ("x::mail/control/me@host", ("x", "mail/control/me@host", None, None)),
        ("x::mail/control/me@host/2@7", ("x", "mail/control/me@host", 2, 7)),
        ("x::a/b/c/²", ("x", "a/b/c/²", None, None)),
        ("x::a/b/c@²", ("x", "a/b/c@²", None, None)),
        ("x::a/b/c/" + "9" * 40, ("x", "a/b/c/" + "9" * 40, None, None)),
    ],
)
def test_parts_of_an_address_may_be_missing_and_items_may_hold_anything(text: str, parts: Any) -> None:
    assert Address.parse(text) == parts


@pytest.mark.parametrize("text", ["x::", "x::math.add", "x::math.add/control", "x::/control/0", "x::a//b/c"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="RUN::FAMILY/VARIANT/ITEM/TRIAL"):
        Address.parse(text)


def test_an_address_leads_to_its_episode_also_where_items_end_in_numbers(tmp_path: Path) -> None:
    class Paths(Guess):
        """Items with slashes, as rows of a data set may have."""

        family = "test.paths"

        def make_task(self, item: str) -> Any:
            task = super().make_task("0")
            task.item = item
            return task

    script = ["12"] * 6
    path = written(
        tmp_path / "run",
        record("0", trial=3),
        record("0"),
        record("a/1", env=Paths(), script=script),
        record("a/1", env=Paths(), script=script, trial=1),
        record("a", env=Paths(), script=script, trial=2),
    )
    with Run(path) as run:

        def at(text: str) -> int:
            return run.at(Address.parse(f"run::{text}")).id

        assert at("test.bank/control/0") == 1, "the first one on record"
        assert at("test.bank/control/0/0") == 2
        assert at("test.bank/control/0/3@1") == 1
        assert at("test.paths/control/a/1") == 3
        assert at("test.paths/control/a/1/1") == 4
        assert at("test.paths/control/a/2") == 5
        with pytest.raises(NotFoundError):
            at("test.paths/control/a/7")
        with pytest.raises(UsageError, match="names a run"):
            run.at(Address("run"))


# -- finding runs -----------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_path_name_end_part_and_as_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    one = written(root / "2026-01-02T03-04-math-aaaa")
    two = written(root / "2026-01-02T03-05-tools-bbbb")
    for name in (one, str(one), one / "run.sqlite", one.name, "aaaa", "math", f"runs/{one.name}"):
        assert find_run(name).resolve() == one
    for name in ("latest", "", two.name):
        assert find_run(name).resolve() == two
    assert open_run("bbbb").path.resolve() == open_run().path.resolve() == two
    assert open_run("aaaa", root).path == one
    with pytest.raises(NotFoundError, match="fits 2 runs"):
        find_run("2026")
    with pytest.raises(NotFoundError, match=r"no run '2026-01-02T03-04-math-aaab'.*Did you mean: 2026-01-02T03-04-math-aaaa"):
        find_run("2026-01-02T03-04-math-aaab")


def test_where_there_are_no_runs_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError, match=r"there are no runs in .*agentgym eval quickstart"):
            find_run("latest", root)
        assert find_runs(root) == []


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "~", "..", "/", "*", "a/../../b"])
def test_no_name_breaks_the_search(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        find_run(name, tmp_path)


def test_runs_are_listed_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    made = []
    for i in range(6):
        path = new_run_directory(tmp_path, "zyxwvu"[i])
        RunWriter(path, create=True).close()
        os.utime(path / "lock", (time.time() - 6 + i,) * 2)
        made.append(path)
    stamped = time.strftime("%Y-%m-%dT%H-%M", time.localtime(time.time() - 6))
    for path in made:  # all in one minute, also where the clock has just begun another
        path.rename(tmp_path / (stamped + path.name[16:]))
    made = [tmp_path / (stamped + p.name[16:]) for p in made]
    base = time.mktime(time.strptime(stamped, "%Y-%m-%dT%H-%M"))
    for i, path in enumerate(made):
        os.utime(path / "lock", (base + i,) * 2)
    assert find_runs(tmp_path) == made
    assert find_run("latest", tmp_path) == made[-1]


def test_reading_or_copying_an_old_run_does_not_make_it_the_latest(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    old = written(root / "2026-01-02T03-04-old-aaaa", record())
    new = written(root / "2026-01-02T03-05-new-bbbb", record())
    with Run(old) as run:
        list(run.episodes())
        (old / "notes.txt").write_text("interesting")
    shutil.copytree(old, root / "2026-01-02T03-03-copy-cccc")
    assert find_run("latest", root) == new
    assert [p.name[-4:] for p in find_runs(root)] == ["cccc", "aaaa", "bbbb"]


def test_a_renamed_run_keeps_its_place_by_its_lock_file(tmp_path: Path) -> None:
    for name, when in (("main", 2_000_000_000), ("2026-01-02T03-05-x-bbbb", 0), ("before", 1_000_000_000)):
        os.utime(written(tmp_path / name) / "lock", (when, when))
    assert [p.name for p in find_runs(tmp_path)] == ["before", "2026-01-02T03-05-x-bbbb", "main"]


def test_other_things_in_the_folder_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "odd" / "run.sqlite").mkdir(parents=True)
    path = written(tmp_path / "run")
    assert find_runs(tmp_path) == [path]


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"is not a run: it holds no run\.sqlite"):
        Run(tmp_path)


def test_the_folder_of_runs_is_as_given_then_the_environments_then_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTGYM_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("AGENTGYM_RUNS", "/data/runs")
    assert runs_root() == Path("/data/runs")
    assert runs_root("mine") == Path("mine")


# -- what opening costs -----------------------------------------------------------------------------------------------


def bytes_read() -> int:
    """By this process so far, whether from the disk or from the kernel's cache."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_opening_listing_and_summing_up_a_run_reads_no_trajectory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def large(item: int) -> Any:
        tokens = Tokens(rng.integers(0, 1 << 31, 50_000).astype(np.int32), rng.random(50_000).astype(np.float32))
        message = assistant(rng.bytes(150_000).hex())
        done = iter([Completion(message, Usage(1, 50_000), tokens=tokens)])
        return record(str(item), env=Guess(), policy=Told(lambda c, t: next(done, "12")))

    path = written(tmp_path / "run", *map(large, range(40)), meta={"title": "large", "model": "told"})
    size = (path / "run.sqlite").stat().st_size
    assert size > 15_000_000
    before = bytes_read()
    with Run(path) as run:
        assert run.meta["title"] == "large"
        assert run.status == "planned"
        episodes = list(run.episodes())
        assert sum(e.completion_tokens for e in episodes) == 40 * 50_000
        assert len([s for e in episodes for s in e.all_scores]) == 80
        summarize(run)
        listing = bytes_read() - before
        assert sum(len(e.trajectory.turns) for e in episodes) == 240
        reading = bytes_read() - before
    assert listing < size / 50
    assert reading > size * 0.9


# -- places that are read-only ----------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from agentgym.records.store import RunWriter
from tests.records.made import record
path = Path(sys.argv[1])
path.mkdir()
writer = RunWriter(path, create=True)
writer.set_meta({"title": "killed"})
for i in range(3):
    writer.add(record(str(i)))
    writer.flush()
os.kill(os.getpid(), 9)
"""

READ = """
import os, sys
import agentgym.records.run, tests.records.made, tempfile, shutil, encodings.idna
from agentgym.records.run import Run
if os.geteuid() == 0:  # root may write anywhere
    os.setgid(65534)
    os.setuid(65534)
assert not os.access(sys.argv[1], os.W_OK)
with Run(sys.argv[1]) as run:
    print(run.meta["title"], [e.item for e in run.episodes() if e.trajectory.turns])
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can look into; pytest's own are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="agentgym-test-"))
    folder.chmod(0o755)
    yield folder
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("without", [(), ("run.sqlite-shm",)], ids=["as it was", "copied without the log's index"])
def test_a_killed_run_in_a_read_only_place_shows_every_acknowledged_episode(
    open_folder: Path, without: tuple[str, ...]
) -> None:
    path = open_folder / "run"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert (path / "run.sqlite-wal").stat().st_size > 0
    for name in without:
        (path / name).unlink()
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    before = {p.name: p.read_bytes() for p in path.iterdir() if not p.name.endswith("-shm")}
    left = set(os.listdir(tempfile.gettempdir()))
    done = subprocess.run([sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "killed ['0', '1', '2']\n", done.stderr
    assert {p.name: p.read_bytes() for p in path.iterdir() if not p.name.endswith("-shm")} == before
    assert not [n for n in set(os.listdir(tempfile.gettempdir())) - left if n.startswith("agentgym-run-")]


def test_a_finished_run_in_a_read_only_place_is_read_and_left_alone(open_folder: Path) -> None:
    path = written(open_folder / "run", record("0"), meta={"title": "done"})
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "done ['0']\n", done.stderr
    assert sorted(p.name for p in path.iterdir()) == ["lock", "run.sqlite"]


def test_a_run_of_somebody_else_says_so(open_folder: Path) -> None:
    path = written(open_folder / "run", record("0"), meta={"title": "done"})
    path.chmod(0o755)
    (path / "run.sqlite").chmod(0o000)
    done = subprocess.run([sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RecordError" in done.stderr
    assert "may not be read by this user" in done.stderr


# -- damage -----------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> int:
    """Everything that a reader can ask for; returns how much it got. Only a `RecordError` may come of it."""
    got = 0
    told: list[str] = []

    def ask(question: Callable[[], Any]) -> Any:
        nonlocal got
        try:
            answer = question()
        except RecordError as e:
            told.append(str(e))
            return []
        got += 1
        return answer

    with Run(path) as run:
        for question in (
            lambda: run.meta,
            lambda: run.status,
            lambda: run.planned,
            lambda: run.wall_s,
            run.count,
            lambda: run.stopped,
        ):
            ask(question)
        for e in ask(lambda: list(run.episodes(all_attempts=True))):
            for name in ("trajectory", "task", "all_scores", "scores", "findings", "address"):
                ask(lambda e=e, name=name: getattr(e, name))
    assert all(text.startswith(str(path)) for text in told)
    return got


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [record(str(i), script=[call("transfer", cents=i + 1), call("crash"), submit()]) for i in range(6)]
    records += [record(str(i), env=Guess(), policy=failing()) for i in range(2)]
    return written(tmp_path_factory.mktemp("sound") / "run", *records)


def test_a_run_that_is_sound_answers_every_question(sound: Path) -> None:
    assert read_all(sound) == 6 + 1 + 8 * 6


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.9])
def test_a_cut_file_is_told_in_words(sound: Path, tmp_path: Path, share: float) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    size = (path / "run.sqlite").stat().st_size
    os.truncate(path / "run.sqlite", int(size * share))

    def read() -> None:
        with Run(path) as run:
            for e in run.episodes():
                e.trajectory, e.task  # noqa: B018

    with pytest.raises(RecordError, match=r"damaged|is empty|not an agentgym run|cut") as caught:
        read()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_garbage_anywhere_is_told_in_words_and_never_crashes_a_reader(sound: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    data = bytearray((path / "run.sqlite").read_bytes())
    length = rng.choice([1, 4, 64, 1000, 9000])
    start = rng.choice([0, 16, 100, rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(len(data))])
    data[start : start + length] = rng.choice([rng.randbytes(length), bytes(length), b"\xff" * length])
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    (path / "run.sqlite").write_bytes(data)
    with contextlib.suppress(RecordError):
        read_all(path)


def test_a_damaged_trajectory_harms_its_own_episode_only(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    data = (path / "run.sqlite").read_bytes()
    with Run(path) as run:
        ((blob,),) = run._rows("SELECT data FROM trajectories WHERE episode = 3")
    place = data.index(blob[20:60])
    (path / "run.sqlite").write_bytes(data[:place] + bytes(40) + data[place + 40 :])
    with Run(path) as run:
        for e in run.episodes():
            assert e.task.id == e.task_id
            if e.id == 3:
                with pytest.raises(
                    RecordError, match=r"test.bank/control/2/0: the stored trajectory is damaged .* other episodes"
                ):
                    e.trajectory  # noqa: B018
            else:
                assert e.trajectory.task_id == e.task_id
        assert run.count() == 8


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_no_flipped_bit_of_a_stored_value_goes_unnoticed(sound: Path, data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from([("trajectories", "data"), ("objects", "data")]))
    with Run(sound) as run:
        ((blob,),) = run._rows(f"SELECT {column} FROM {table} WHERE rowid = 2")
        original = (encode_trajectory(run.episode("test.bank/control/1").trajectory), run.task(2))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    flipped = bytearray(blob)
    flipped[bit // 8] ^= 1 << bit % 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(sound, Path(folder, "run")))
        db = sqlite3.connect(path / "run.sqlite")
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = 2", (bytes(flipped),))
        db.commit()
        db.close()
        with Run(path) as run:
            try:
                again = (encode_trajectory(run.episode("test.bank/control/1").trajectory), run.task(2))
            except RecordError:
                return
            assert again == original


def test_a_length_that_cannot_be_right_does_not_take_the_memory(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    huge = b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + b"\x01\x00\x00"
    db = sqlite3.connect(path / "run.sqlite")
    db.execute("UPDATE trajectories SET data = ?", (huge,))
    db.commit()
    db.close()
    with Run(path) as run, pytest.raises(RecordError, match="length cannot be right"):
        next(run.episodes()).trajectory  # noqa: B018


def test_rows_that_are_missing_are_told_in_words(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    db = sqlite3.connect(path / "run.sqlite")
    db.execute("DELETE FROM trajectories WHERE episode = 1")
    db.execute("DELETE FROM objects WHERE id = 1")
    db.commit()
    db.close()
    with Run(path) as run:
        e = run.episode("test.bank/control/0")
        with pytest.raises(RecordError, match="the trajectory is missing"):
            e.trajectory  # noqa: B018
        with pytest.raises(RecordError, match="task 1 is missing"):
            e.task  # noqa: B018


# -- other files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "words"),
    [
        ("application_id=1", "is a database, but not an agentgym run"),
        (f"user_version={schema.SCHEMA + 1}", f"newer agentgym .schema {schema.SCHEMA + 1}; .*upgrade agentgym"),
        ("user_version=0", "there is no schema 0"),
        ("user_version=-3", "there is no schema -3"),
    ],
)
def test_what_this_version_does_not_read_is_refused_in_words(sound: Path, tmp_path: Path, pragma: str, words: str) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "run"))
    db = sqlite3.connect(path / "run.sqlite")
    db.execute(f"PRAGMA {pragma}")
    db.commit()
    db.close()
    with pytest.raises(RecordError, match=words):
        Run(path)
    with pytest.raises(RecordError, match=words):
        RunWriter(path, create=False)


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0", b"\0" * 9000, b"PK\x03\x04" + b"x" * 5000])
def test_a_file_that_is_no_database_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.sqlite").write_bytes(content)
    with pytest.raises(RecordError, match=r"damaged|is empty"):
        Run(tmp_path)


def test_a_reader_cannot_write(sound: Path) -> None:
    with Run(sound) as run, pytest.raises(sqlite3.OperationalError, match="readonly"):
        run._db.execute("DELETE FROM episodes")


def test_names_that_need_quoting_in_a_uri_are_just_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a ?mode=memory#100%25 é" / "run", record())
    with Run(path) as run:
        assert run.count() == 1


def test_scripts_are_not_asked_twice(tmp_path: Path) -> None:
    with Run(written(tmp_path / "run", record(policy=ScriptedPolicy([submit()])))) as run:
        (e,) = run.episodes()
        assert e.trajectory is e.trajectory
