# SPDX-License-Identifier: Apache-2.0
"""Writing a run: who may, where, what a commit promises, and what becomes of one that fails."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentgym.errors import RecordError
from agentgym.records.place import is_held, mount_of, refuse_network_file_system
from agentgym.records.run import Run
from agentgym.records.store import PlannedTask, RunWriter, new_run_directory
from tests.conftest import ROOT
from tests.records.made import record, written

# -- the directory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_run_is_a_directory_that_its_owner_alone_can_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = new_run_directory(tmp_path / "some" / "runs", "quick start!/:é")
        writer = RunWriter(path, create=True)
        writer.add(record())
        writer.flush()
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.iterdir()}
        writer.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert modes["run.sqlite"] == modes["run.sqlite-wal"] == modes["lock"] == 0o600
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-quick-start-[a-z2-9]{4}", path.name)
    assert path.name.startswith(time.strftime("%Y-"))


def test_runs_made_in_the_same_minute_get_directories_of_their_own(tmp_path: Path) -> None:
    assert len({new_run_directory(tmp_path, "x") for _ in range(200)}) == 200


@pytest.mark.parametrize("label", ["", "...", "../../etc", "a" * 500, "\x1b[2J", "日本"])
def test_no_title_leads_out_of_the_folder(tmp_path: Path, label: str) -> None:
    path = new_run_directory(tmp_path, label)
    assert path.parent == tmp_path
    assert path.name.isascii()
    assert path.name.isprintable()
    assert len(path.name) < 100


def test_a_run_is_one_database_in_wal_mode(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record())
    assert sorted(p.name for p in path.iterdir()) == ["lock", "run.sqlite"]
    db = sqlite3.connect(path / "run.sqlite")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


# -- network file systems ---------------------------------------------------------------------------------------------

TABLE = r"""
21 26 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
26 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 26 0:35 / /home rw shared:2 - nfs4 server:/export/home rw,vers=4.2
41 40 8:2 / /home/me/local\040disk rw - xfs /dev/sdb rw
42 26 0:36 / /mnt/share rw shared:3 master:4 - cifs //server/share rw
43 26 0:37 / /mnt/over rw - ext4 /dev/sdc rw
44 43 0:38 / /mnt/over rw - fuse.sshfs me@host: rw
45 26 0:39 / /mnt/sharedthings rw - btrfs /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "point", "network"),
    [
        ("/root/runs", "ext4", "/", False),
        ("/home/me/runs", "nfs4", "/home", True),
        ("/home/me/local disk/runs", "xfs", "/home/me/local disk", False),
        ("/mnt/share", "cifs", "/mnt/share", True),
        ("/mnt/over/runs", "fuse.sshfs", "/mnt/over", True),
        ("/mnt/sharedthings/runs", "btrfs", "/mnt/sharedthings", False),
        ("/sys", "sysfs", "/sys", False),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_innermost_mount(
    tmp_path: Path, path: str, kind: str, point: str, network: bool
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE.strip() + "\n")
    mount = mount_of(Path(path), table)
    assert (mount.kind, mount.point, mount.network) == (kind, point, network)


def test_where_there_is_no_table_nothing_is_refused(tmp_path: Path) -> None:
    assert not mount_of(tmp_path, tmp_path / "missing").network


def test_a_run_on_a_network_file_system_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"26 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 26 0:35 / {tmp_path}/far rw - nfs4 server:/export rw\n")
    (tmp_path / "far").mkdir()
    defaults = mount_of.__defaults__
    monkeypatch.setattr(mount_of, "__defaults__", (table,))
    assert defaults == (Path("/proc/self/mountinfo"),)
    refuse_network_file_system(tmp_path)
    for attempt in (
        lambda: new_run_directory(tmp_path / "far" / "runs", "x"),
        lambda: RunWriter(tmp_path / "far", create=True),
    ):
        with pytest.raises(RecordError, match=r"network file system \(nfs4 at .*far\).*keep runs on a local disk"):
            attempt()


# -- one writer at a time ---------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    first = RunWriter(path, create=False)
    with pytest.raises(RecordError, match=r"another process is working on .*wait for it or stop it first"):
        RunWriter(path, create=False)
    first.close()
    first.close()
    RunWriter(path, create=False).close()


HOLDS = """
import sys
from pathlib import Path
from agentgym.records.store import RunWriter
writer = RunWriter(Path(sys.argv[1]), create=False)
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_writer_in_another_process_is_noticed_and_its_death_frees_the_run(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "holds\n"
    with pytest.raises(RecordError, match="another process"):
        RunWriter(path, create=False)
    with Run(path) as run:  # readers are not kept out
        assert run.count() == 0
    child.kill()
    child.communicate()
    RunWriter(path, create=False).close()


def test_writing_where_no_run_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no run \(run.sqlite is missing\)"):
        RunWriter(tmp_path, create=False)


@pytest.mark.parametrize(
    "content", [b"no database at all, but some text that is long enough to be read as one" * 20, b"SQLite format 3\0"]
)
def test_writing_into_what_is_no_run_is_refused_and_frees_the_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.sqlite").write_bytes(content)
    for _ in range(2):
        with pytest.raises(RecordError):
            RunWriter(tmp_path, create=False)
    assert (tmp_path / "run.sqlite").read_bytes() == content


# -- commits ----------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_what_every_reader_sees(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    writer = RunWriter(path, create=False)
    reader = Run(path)
    assert writer.flush() == 0
    for i in range(5):
        writer.add(record(str(i)))
    assert (writer.pending, reader.count()) == (5, 0)
    assert writer.flush() == 5
    assert (writer.pending, reader.count()) == (0, 5)
    assert [e.task_id for e in reader.episodes()] == [f"test.bank/control/{i}" for i in range(5)]
    reader.close()
    writer.close()


def test_readers_work_while_a_writer_writes_and_see_whole_commits(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    writer = RunWriter(path, create=False)
    template = record()
    reader = Run(path)
    seen = []
    for batch in range(20):
        for i in range(10):
            trajectory = msgspec.structs.replace(template.trajectory, trial=10 * batch + i)
            writer.add(msgspec.structs.replace(template, trajectory=trajectory))
        half_read = reader.episodes()
        next(half_read, None)  # a reader in the middle of a query
        writer.flush()
        rest = sum(1 for _ in half_read)
        assert rest == max(0, 10 * batch - 1), "it reads the moment at which it began"
        seen.append(reader.count())
        if batch % 7 == 3:
            writer._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert seen == [10 * (b + 1) for b in range(20)]
    reader.close()
    writer.close()


def test_a_commit_that_fails_acknowledges_nothing_and_can_be_made_up_for(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record("0"))
    writer = RunWriter(path, create=False)
    writer._db.execute("PRAGMA busy_timeout=0")
    writer.add(record("1"))
    other = sqlite3.connect(path / "run.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecordError, match="is locked by another process"):
        writer.flush()
    assert writer.pending == 1
    other.execute("ROLLBACK")
    other.close()
    writer.add(record("2"))
    assert writer.flush() == 2
    writer.close()
    with Run(path) as run:
        assert [e.item for e in run.episodes()] == ["0", "1", "2"]


def test_an_episode_that_cannot_be_written_leaves_no_half_open_commit(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    writer = RunWriter(path, create=False)
    bad = record("1")
    bad = msgspec.structs.replace(bad, task=msgspec.structs.replace(bad.task, cluster="\ud800"))
    writer.add(record("0"))
    assert writer.flush() == 1
    writer.add(record("2"))
    writer.add(bad)
    with pytest.raises((RecordError, UnicodeEncodeError)):
        writer.flush()
    assert not writer._db.in_transaction
    writer.close()
    with Run(path) as run:
        assert [e.item for e in run.episodes()] == ["0"]


def test_what_cannot_be_encoded_is_refused_whole_and_stops_no_other_episode(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    writer = RunWriter(path, create=False)
    bad = record("1")
    with pytest.raises(TypeError):
        writer.add(msgspec.structs.replace(bad, trajectory=msgspec.structs.replace(bad.trajectory, state_after=object())))
    writer.add(record("0"))
    assert writer.flush() == 1
    writer.close()
    with Run(path) as run:
        assert [e.item for e in run.episodes()] == ["0"]


def test_the_same_attempt_is_never_on_record_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record())
    writer = RunWriter(path, create=False)
    writer.add(record())
    with pytest.raises(RecordError, match="UNIQUE"):
        writer.flush()
    writer.close()
    with Run(path) as run:
        assert run.count() == 1


def test_a_task_is_kept_once_whoever_plays_it_and_in_however_many_sittings(tmp_path: Path) -> None:
    path = written(tmp_path / "run", record("0"), record("0", trial=1), record("1"))
    writer = RunWriter(path, create=False)
    writer.add(record("0", trial=2))
    writer.add(record("2"))
    writer.add(record("2", trial=1))
    writer.flush()
    writer.close()
    with Run(path) as run:
        assert list(run._rows("SELECT count(*), count(DISTINCT hash) FROM objects")) == [(3, 3)]
        assert [e.task.item for e in run.episodes()] == ["0", "0", "1", "0", "2", "2"]


def test_attempts_are_counted_and_what_is_done_is_told_from_what_failed(tmp_path: Path) -> None:
    class Down(Exception):
        pass

    def fail(context: Any) -> Any:
        raise Down

    from agentgym.policies.oracle import ScriptedPolicy

    failing = ScriptedPolicy(fail)
    path = written(
        tmp_path / "run",
        record("0", policy=failing),
        record("0", attempt=1),
        record("1", policy=failing),
        record("2"),
        record("1", attempt=1, policy=failing),
    )
    writer = RunWriter(path, create=False)
    assert writer.finished() == {
        ("test.bank/control/0", 0): (2, True),
        ("test.bank/control/1", 0): (2, False),
        ("test.bank/control/2", 0): (1, True),
    }
    writer.close()


def test_a_plan_can_grow_and_a_task_in_it_twice_keeps_the_larger_number_of_trials(tmp_path: Path) -> None:
    writer = RunWriter(written(tmp_path / "run"), create=False)
    writer.set_plan([{"place": "x:A"}], [PlannedTask(0, "control", "0", "a/control/0", 3)])
    more = [PlannedTask(0, "control", "0", "b/control/0", 1), PlannedTask(1, "control", "0", "a/control/0", 2)]
    writer.set_plan([{"place": "x:B"}, {"place": "x:A"}], [*more, PlannedTask(1, "control", "1", "a/control/1", 1)])
    writer.close()
    with Run(tmp_path / "run") as run:
        planned = "SELECT task_id, trials, ref FROM plan JOIN environments ON environment = environments.id ORDER BY position"
        assert list(run._rows(planned)) == [
            ("a/control/0", 3, '{"place":"x:A"}'),
            ("b/control/0", 1, '{"place":"x:B"}'),
            ("a/control/1", 1, '{"place":"x:A"}'),
        ]


def test_the_plan_and_the_sittings_are_written_down(tmp_path: Path) -> None:
    writer = RunWriter(written(tmp_path / "run"), create=False)
    plan = [PlannedTask(0, "control", str(i), f"f/control/{i}", trials) for i, trials in enumerate((3, 2))]
    writer.set_plan([{"place": "x:Y"}], plan)
    with Run(tmp_path / "run") as run:
        assert (run.planned, run.status) == (5, "planned")
        writer.begin_sitting()
        assert run.status == "running"
        assert not is_held(tmp_path / "elsewhere")
        writer.close("interrupted")
        assert run.status == "interrupted"
        assert 0 <= run.wall_s < 1000
        ((host,),) = run._rows("SELECT host FROM sittings")
        assert set(msgspec.json.decode(host)) == {"agentgym", "python", "gymnasium", "numpy", "system", "cpus"}
