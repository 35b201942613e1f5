# SPDX-License-Identifier: Apache-2.0
"""Writing a run: a directory, a lock, and group commits that survive the death of the process.

Acknowledged means committed. A commit in SQLite's write-ahead log needs no recovery command: whatever kills the
process, the next plain open sees every acknowledged episode.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import random
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from agentgym.errors import RecordError
from agentgym.records import schema
from agentgym.records.place import LOCK, refuse_network_file_system
from agentgym.scoring import Finding, Score
from agentgym.task import FrozenTask
from agentgym.trajectory import Trajectory, encode_all_tokens, encode_trajectory


class EpisodeRecord(msgspec.Struct):
    """One finished attempt, as the scheduler hands it to the writer."""

    trajectory: Trajectory
    task: FrozenTask
    task_data: bytes
    """`FrozenTask.encode` of ``task``."""
    attempt: int
    reward: float | None
    gold: float | None
    scores: list[Score]
    findings: list[Finding]


class PlannedTask(msgspec.Struct, frozen=True):
    """One task of a run's plan."""

    environment: int
    """Index into the run's environments."""
    variant: str
    item: str
    task_id: str
    trials: int


def new_run_directory(root: Path, label: str) -> Path:
    """Makes ``root/2026-11-22T14-03-LABEL-k3fa`` (local time, four random characters), readable by its owner alone.

    Raises:
        RecordError: it cannot be made.
    """
    label = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-")[:40] or "run"
    stamp = time.strftime("%Y-%m-%dT%H-%M")
    draw = random.SystemRandom()
    try:
        root.mkdir(parents=True, exist_ok=True)
        refuse_network_file_system(root)
        while True:
            tail = "".join(draw.choices("abcdefghijkmnpqrstuvwxyz23456789", k=4))
            path = root / f"{stamp}-{label}-{tail}"
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
    except OSError as e:
        raise RecordError(
            f"cannot make a run directory in {root}: {e.strerror or e}; choose another place with --runs DIR"
        ) from e


def host() -> dict[str, Any]:
    """Versions and machine, for the record; no user name, host name or environment variable."""
    import numpy
    from gymnasium import __version__ as gymnasium_version

    import agentgym

    return {
        "agentgym": agentgym.__version__,
        "python": platform.python_version(),
        "gymnasium": gymnasium_version,
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" for _ in columns.split(","))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"


_EPISODE = (
    "id, task_id, family, variant, item, trial, attempt, cluster, tags, outcome, reward, gold, exposures, violations, turns,"
    " tool_calls, tool_errors, tool_exceptions, cached_turns, prompt_tokens, completion_tokens, cost_usd, started_at,"
    " duration_s, task_hash, task_object"
)
_OBJECT = _EPISODE.count(",")
"""Place of ``task_object`` in a row."""
_SCORE = "episode, position, name, role, value, status, reason, flags, verifier_hash"
# Columns that are mostly NULL are left out where they are, and blobs are bytearrays: to bind None or bytes, Python's
# sqlite3 first looks for an adapter in four places, which costs more than the insertion.
_INSERTS = (
    _insert("episodes", _EPISODE),
    _insert("episodes", f"{_EPISODE}, truncation, error_kind, error"),
    _insert("trajectories", "episode, data"),
    _insert("trajectories", "episode, data, tokens"),
    _insert("scores", _SCORE),
    _insert("scores", f"{_SCORE}, evidence"),
    _insert("findings", "episode, position, dimension, rule, exposure, violation, weight, turn, verifier_hash, evidence"),
)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def explain(error: sqlite3.Error, path: Path) -> RecordError:
    """What an SQLite error means for the person who runs the eval."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return RecordError(
            f"the disk is full or cannot be written, so {path} takes no more episodes. What was acknowledged is safe:"
            f" make room and go on with --resume {path}"
        )
    if "locked" in text or "busy" in text:
        return RecordError(f"{path} is locked by another process for too long; try again with --resume {path}")
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return RecordError(f"{path / schema.FILE} is damaged ({text}); copy what can be read with `agentgym list RUN`")
    return RecordError(f"{path}: {text}")


class Batch(msgspec.Struct, array_like=True):
    """Episodes as rows, on their way from the process that played them to the one that writes."""

    count: int
    """Episodes."""
    first: int
    """Number of the first of them, by the sender's count."""
    objects: list[tuple[int, str, str, bytes]]
    """Tasks that the sender had not sent before: number by its count, hash, kind, data."""
    rows: list[list[list[Any]]]
    """For each statement of a commit, its rows."""


class EpisodeRows:
    """Episodes as the rows of a commit. `RunWriter` commits them; another process sends them to the one that does."""

    def __init__(self) -> None:
        self._next = 1
        """Number of the first episode of the next commit."""
        self._pending = 0
        self._rows: dict[str, list[tuple[Any, ...]]] = {sql: [] for sql in _INSERTS}
        """What the next commit writes, by statement."""
        self._objects: dict[str, int] = {}
        """Hash -> number of every task on record or about to be."""
        self._new_objects: list[tuple[int, str, str, bytearray]] = []
        # a fifth larger than level 1 and more than twice as fast on a few kilobytes: no Huffman table for each
        self._compress = zstandard.ZstdCompressor(level=-1, write_checksum=True).compress

    @property
    def pending(self) -> int:
        """Episodes added since the last `flush`."""
        return self._pending

    def add(self, record: EpisodeRecord) -> None:
        """Takes an episode; it is not safe before it is committed.

        It is encoded at once, while what it is made of is still in the processor's caches: then only bytes and numbers
        wait for the commit, which is cheaper and smaller than the episodes themselves.

        Raises:
            TypeError: something in it has no plain form. Nothing of it was taken.
        """
        t, task = record.trajectory, record.task
        compress = self._compress
        data = bytearray(compress(encode_trajectory(t)))
        arrays = encode_all_tokens(t)
        tokens = None if arrays is None else bytearray(compress(arrays))
        number = self._next + self._pending
        ended, cut, blobs, with_tokens, scores, with_evidence, findings = self._rows.values()
        calls = failed = broken = cached = 0
        for turn in t.turns:
            calls += len(turn.results)
            if turn.usage.from_cache:
                cached += 1
            for result in turn.results:
                if result.status != "ok":
                    failed += 1
            for event in turn.events:
                if event.kind == "tool.exception":
                    broken += 1
        exposures = violations = 0
        # into lists of its own first: what fails half-way must leave nothing behind
        found: list[tuple[Any, ...]] = []
        scored: list[tuple[Any, ...]] = []
        evidenced: list[tuple[Any, ...]] = []
        for i, f in enumerate(record.findings):
            exposures += f.exposure
            violations += f.violation
            evidence = None if f.evidence is None else _json(f.evidence)
            found.append((number, i, f.dimension, f.rule, f.exposure, f.violation, f.weight, f.turn, f.verifier_hash, evidence))
        for i, s in enumerate(record.scores):
            flags = _json(s.flags) if s.flags else "[]"
            score = (number, i, s.name, s.role, s.value, s.status, s.reason, flags, s.verifier_hash)
            if s.evidence is None:
                scored.append(score)
            else:
                evidenced.append((*score, _json(s.evidence)))
        object_ = self._objects.get(t.task_hash)
        if object_ is None:
            object_ = self._objects[t.task_hash] = len(self._objects) + 1
            self._new_objects.append((object_, t.task_hash, "task", bytearray(compress(record.task_data))))
        usage = t.usage
        row = (
            number, t.task_id, task.family, task.variant, task.item, t.trial, record.attempt, task.cluster,
            f" {' '.join(task.tags)} " if task.tags else "", t.outcome, record.reward, record.gold, exposures, violations,
            len(t.turns), calls, failed, broken, cached, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd,
            t.started_at, t.duration_s, t.task_hash, object_,
        )  # fmt: skip
        if t.error is None and t.truncation is None:
            ended.append(row)
        else:
            kind, message = (t.error.kind, t.error.message) if t.error else (None, None)
            cut.append((*row, t.truncation, kind, message))
        if tokens is None:
            blobs.append((number, data))
        else:
            with_tokens.append((number, data, tokens))
        scores += scored
        with_evidence += evidenced
        findings += found
        self._pending += 1

    def take(self) -> Batch:
        """Everything that is pending, for `RunWriter.merge` in another process."""
        batch = Batch(self._pending, self._next, list(self._new_objects), [list(r) for r in self._rows.values()])  # type: ignore[arg-type]
        self._done()
        return batch

    def _done(self) -> None:
        self._next += self._pending
        self._pending = 0
        self._new_objects.clear()
        for values in self._rows.values():
            values.clear()


class RunWriter(EpisodeRows):
    """Appends episodes to a run. One process at a time may hold a run; a lock file sees to that.

    Args:
        path: the run's directory.
        create: make the database; otherwise it must be there.

    Raises:
        RecordError: another process works on the run, it is damaged, or the disk is full.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        super().__init__()
        self.path = path
        self._file = path / schema.FILE
        if not create and not self._file.exists():
            raise RecordError(f"{path} holds no run ({schema.FILE} is missing)")
        refuse_network_file_system(path)
        try:
            self._lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise RecordError(f"cannot write in {path}: {e.strerror}") from e
        for last in (False, False, True):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if last:
                    os.close(self._lock)
                    raise RecordError(f"another process is working on {path}; wait for it or stop it first") from None
                time.sleep(0.02)  # somebody may only be looking: `is_held`
        self._sitting: int | None = None
        self._started = time.monotonic()
        try:
            self._db = sqlite3.connect(self._file, isolation_level=None, timeout=30.0, check_same_thread=False)
            if create:
                os.chmod(self._file, 0o600)
                schema.create(self._db)
            else:
                schema.check(self._db, str(path))
                self._objects = dict(self._db.execute("SELECT hash, id FROM objects"))
            # WAL with NORMAL survives the death of the process at any moment; a power cut may cost the last commits
            self._db.execute("PRAGMA synchronous=NORMAL")
            # pages that every commit touches then go into the database once in a few megabytes, not at each one
            self._db.execute("PRAGMA wal_autocheckpoint=2000")
            self._next = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM episodes").fetchone()[0]
        except sqlite3.Error as e:
            os.close(self._lock)
            raise explain(e, path) from e
        except RecordError:
            os.close(self._lock)
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as e:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(e, sqlite3.Error):
                raise explain(e, self.path) from e
            raise

    def set_meta(self, values: dict[str, Any]) -> None:
        """Sets entries of the run's description; JSON values. Callers keep secrets out."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, _json(v)) for k, v in values.items()])

    def set_plan(self, environments: Iterable[Any], tasks: Iterable[PlannedTask]) -> None:
        """Writes down what the run sets out to do, before it does anything.

        Called again it adds to that: environments and tasks that are not in it yet; of a task that is, the larger number
        of trials stands.
        """
        with self._transaction() as db:
            known = {ref: number for number, ref in db.execute("SELECT id, ref FROM environments")}
            numbers: list[int] = []
            for ref in map(_json, environments):
                if ref not in known:
                    known[ref] = len(known)
                    db.execute("INSERT INTO environments VALUES (?, ?)", (known[ref], ref))
                numbers.append(known[ref])
            start = db.execute("SELECT coalesce(max(position), -1) + 1 FROM plan").fetchone()[0]
            db.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (task_id) DO UPDATE SET trials = max(trials, excluded.trials)",
                ((i, numbers[t.environment], t.variant, t.item, t.task_id, t.trials) for i, t in enumerate(tasks, start)),
            )

    def begin_sitting(self) -> None:
        """Notes that this process starts to work on the run."""
        with self._transaction() as db:
            row = (time.time(), "running", _json(host()))
            cursor = db.execute("INSERT INTO sittings (started_at, status, host) VALUES (?, ?, ?)", row)
            self._sitting = cursor.lastrowid

    def finished(self) -> dict[tuple[str, int], tuple[int, bool]]:
        """What is on record: (task id, trial) -> (attempts made, whether the last one was a real outcome)."""
        rows = self._db.execute(schema.ATTEMPTS)
        return {(task_id, trial): (attempts, bool(done)) for task_id, trial, attempts, done in rows}

    def cost(self) -> float:
        """US dollars that the episodes on record have cost, failed attempts included."""
        return self._db.execute("SELECT total(cost_usd) FROM episodes").fetchone()[0]  # type: ignore[no-any-return]

    def flush(self) -> int:
        """Commits what is pending; returns how many episodes: these are acknowledged.

        Raises:
            RecordError: nothing of it was committed; it stays pending, so that a later `flush` may succeed.
        """
        acknowledged = self._pending
        if not acknowledged:
            return 0
        with self._transaction() as db:
            if self._new_objects:
                db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?)", self._new_objects)
            for sql, values in self._rows.items():
                if values:
                    db.executemany(sql, values)
        self._done()
        return acknowledged

    def merge(self, batch: Batch, numbers: dict[int, int]) -> None:
        """Takes what another process has played; like `add`, it is not safe before `flush` returns.

        Args:
            batch: its episodes.
            numbers: that process's number of a task -> the number here; begins empty, and is filled in.
        """
        for theirs, hash_, kind, data in batch.objects:
            known = self._objects.get(hash_)
            if known is None:
                known = self._objects[hash_] = len(self._objects) + 1
                self._new_objects.append((known, hash_, kind, bytearray(data)))
            numbers[theirs] = known
        shift = self._next + self._pending - batch.first
        for position, (mine, rows) in enumerate(zip(self._rows.values(), batch.rows, strict=True)):
            for row in rows:
                row[0] += shift
                if position < 2:  # of the table of episodes
                    row[_OBJECT] = numbers[row[_OBJECT]]
                mine.append(tuple(bytearray(v) if type(v) is bytes else v for v in row))
        self._pending += batch.count

    def close(self, status: str = "finished") -> None:
        """Ends the sitting and gives the run free. Call `flush` before. May be called twice."""
        if self._lock < 0:
            return
        try:
            if self._sitting is not None:
                # the record is complete without this; a full disk must not hide the error that led here
                with contextlib.suppress(RecordError), self._transaction() as db:
                    row = (time.time(), status, time.monotonic() - self._started, self._sitting)
                    db.execute("UPDATE sittings SET ended_at = ?, status = ?, wall_s = ? WHERE id = ?", row)
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._db.close()
            os.close(self._lock)
            self._lock = -1
