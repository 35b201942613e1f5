# SPDX-License-Identifier: Apache-2.0
"""Reading a run: its description, its episodes, one episode's trajectory; while it is being written or years later."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import urllib.parse
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from agentgym.errors import NotFoundError, RecordError, UsageError, did_you_mean
from agentgym.records import called, schema, sets
from agentgym.records.filter import parse
from agentgym.records.place import RUNS as RUNS
from agentgym.records.place import is_held
from agentgym.records.place import runs_root as runs_root
from agentgym.scoring import Finding, Score
from agentgym.task import FrozenTask, decode_task
from agentgym.trajectory import Trajectory, decode_trajectory, put_tokens


class Address(NamedTuple):
    """``RUN::FAMILY/VARIANT/ITEM/TRIAL@TURN``, cut into its parts; later parts may be missing."""

    run: str
    task_id: str | None = None
    trial: int | None = None
    turn: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """The parts of an address.

        Raises:
            UsageError: it is not one.
        """
        run, separator, rest = text.partition("::")
        if not separator:
            return cls(run)
        turn: int | None = None
        head, separator, number = rest.rpartition("@")
        if separator and _is_number(number):  # else the @ is part of the item: row ids may hold anything
            rest, turn = head, int(number)
        parts = rest.split("/")
        if len(parts) < 3 or not all(parts):
            raise UsageError(f"{text!r} is not an address: expected RUN::FAMILY/VARIANT/ITEM/TRIAL[@TURN]")
        if len(parts) == 3 or not _is_number(parts[-1]):
            return cls(run, rest, None, turn)
        return cls(run, "/".join(parts[:-1]), int(parts[-1]), turn)


def _is_number(text: str) -> bool:
    """Whether ``text`` counts turns or trials: ASCII digits, no more of them than SQLite can compare."""
    return text.isascii() and text.isdigit() and len(text) <= 18


_COLUMNS = (
    "id, task_id, family, variant, item, trial, attempt, cluster, tags, outcome, truncation, error_kind, error, reward, gold,"
    " exposures, violations, turns, tool_calls, tool_errors, tool_exceptions, cached_turns, prompt_tokens, completion_tokens,"
    " cost_usd, started_at, duration_s, task_hash, task_object"
)


class Episode:
    """One attempt on record. Columns are attributes; `trajectory`, `scores`, `findings` and `task` are read on request.

    Attributes:
        task_id: ``FAMILY/VARIANT/ITEM``.
        trial: 0-based repetition.
        outcome: ``terminated``, ``truncated``, ``infrastructure`` or ``cancelled`` (by a person).
        reward: proxy as delivered; None where it could not be scored.
        gold: in [0, 1]; None where it could not be scored.
    """

    __slots__ = (
        "_run", "_scores", "_trajectory", "attempt", "cached_turns", "cluster", "completion_tokens", "cost_usd", "duration_s",
        "error", "error_kind", "exposures", "family", "gold", "id", "item", "outcome", "prompt_tokens", "reward", "started_at",
        "tags", "task_hash", "task_id", "task_object", "tool_calls", "tool_errors", "tool_exceptions", "trial", "truncation",
        "turns", "variant", "violations",
    )  # fmt: skip

    def __init__(self, run: Run, row: tuple[Any, ...]) -> None:
        self._run = run
        self._scores: list[Score] | None = None
        self._trajectory: Trajectory | None = None
        (
            self.id, self.task_id, self.family, self.variant, self.item, self.trial, self.attempt, self.cluster, tags,
            self.outcome, self.truncation, self.error_kind, self.error, self.reward, self.gold, self.exposures,
            self.violations, self.turns, self.tool_calls, self.tool_errors, self.tool_exceptions, self.cached_turns,
            self.prompt_tokens, self.completion_tokens, self.cost_usd, self.started_at, self.duration_s, self.task_hash,
            self.task_object,
        ) = row  # fmt: skip
        try:
            self.tags: tuple[str, ...] = tuple(tags.split())
        except AttributeError:
            raise self._damaged("row", f"tags hold {type(tags).__name__}") from None

    @property
    def run_path(self) -> Path:
        """The directory of its run."""
        return self._run.path

    @property
    def address(self) -> str:
        """``RUN::FAMILY/VARIANT/ITEM/TRIAL``."""
        return f"{self._run.path}::{self.task_id}/{self.trial}"

    def _damaged(self, part: str, why: object) -> RecordError:
        return RecordError(f"{self.address}: the stored {part} is damaged ({why}); other episodes are unaffected")

    @property
    def all_scores(self) -> list[Score]:
        """Every score in the order in which it was given; a verifier that both pays and is gold stands in it twice."""
        if self._scores is None:
            rows = self._run._rows(
                "SELECT name, role, value, status, reason, flags, evidence, verifier_hash FROM scores"
                " WHERE episode = ? ORDER BY position",
                (self.id,),
            )
            try:
                self._scores = [
                    Score(n, role, value, status, reason, tuple(msgspec.json.decode(flags)), _decode(evidence), verifier)
                    for n, role, value, status, reason, flags, evidence, verifier in rows
                ]
            except _UNREADABLE as e:
                raise self._damaged("score", e) from e
        return self._scores

    @property
    def scores(self) -> dict[str, Score]:
        """Name -> score; where one name has several roles, gold stands before proxy before metric."""
        ranked = sorted(self.all_scores, key=lambda s: _RANK.get(s.role, 0))
        return {s.name: s for s in ranked}

    @property
    def findings(self) -> list[Finding]:
        """Every finding, in the order in which it was given."""
        rows = self._run._rows(
            "SELECT dimension, rule, exposure, violation, weight, turn, evidence, verifier_hash FROM findings"
            " WHERE episode = ? ORDER BY position",
            (self.id,),
        )
        try:
            return [Finding(d, r, bool(e), bool(v), w, t, _decode(ev), h) for d, r, e, v, w, t, ev, h in rows]
        except _UNREADABLE as e:
            raise self._damaged("finding", e) from e

    @property
    def trajectory(self) -> Trajectory:
        """What happened, tokens included.

        Raises:
            RecordError: its bytes are damaged.
        """
        if self._trajectory is None:
            rows = list(self._run._rows("SELECT data, tokens FROM trajectories WHERE episode = ?", (self.id,)))
            if not rows:
                raise RecordError(f"{self.address}: the trajectory is missing from the record")
            data, tokens = rows[0]
            try:
                trajectory = decode_trajectory(_decompress(data))
                if tokens is not None:
                    put_tokens(trajectory, _decompress(tokens))
            except _UNREADABLE as e:
                raise self._damaged("trajectory", e) from e
            self._trajectory = trajectory
        return self._trajectory

    @property
    def task(self) -> FrozenTask:
        """The task as it was played, hidden half included."""
        return self._run.task(self.task_object)

    def __repr__(self) -> str:
        return f"Episode({self.task_id}/{self.trial}, {self.outcome}, reward={self.reward}, gold={self.gold})"


_RANK = {"metric": 0, "proxy": 1, "gold": 2}
"""Of scores of one name, the one whose role ranks highest speaks for it."""

_UNREADABLE = (zstandard.ZstdError, msgspec.MsgspecError, ValueError, TypeError, LookupError, RecursionError, MemoryError)
"""What decoders raise on bytes that are not what was written."""

_NO_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}
"""SQLite's errors where a place does not allow what opening takes; others tell of the file itself."""

_TASKS_KEPT = 1000
"""Decoded tasks that are kept for the next episode of the same: a long run has more than there is memory."""

_MOST_BYTES = 1 << 31
"""Of one decompressed value: a damaged or malicious length must not take the machine's memory."""


def _decode(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _decompress(data: bytes) -> bytes:
    if zstandard.frame_content_size(data) > _MOST_BYTES:
        raise ValueError("its length cannot be right")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_BYTES)


class Run:
    """A run on disk, opened for reading. Usable as a context manager; safe to read while another process writes it.

    Args:
        path: its directory.
        scores: name of a set of later scores (`agentgym.records.sets`) that stands for the run's own: rewards, gold,
            scores and findings are then those of the set, and None where it does not cover an episode. None: its own.

    Raises:
        NotFoundError: it is not a run, or has no such set.
        RecordError: it is damaged, or newer than this version reads.
    """

    def __init__(self, path: str | os.PathLike[str], *, scores: str | None = None) -> None:
        self.path = Path(path)
        self.scores_name = scores
        file = self.path / schema.FILE
        if not file.is_file():
            raise NotFoundError(f"{self.path} is not a run: it holds no {schema.FILE}")
        self._tools: Callable[[int], str] | None = None
        self._db = self._connect(file)
        self._tasks: dict[int, FrozenTask] = {}

    def _connect(self, file: Path) -> sqlite3.Connection:
        """Opens the database so that every acknowledged episode is seen, wherever the file lies.

        A killed writer leaves a log, which SQLite folds in at the next open, for which it must write. A read-only place
        gets a read-only open; where not even the log's index can be made, the run is read in a copy, or, where there
        is no log, as a file that nobody changes.
        """
        if not os.access(file, os.R_OK):
            raise RecordError(f"{file} may not be read by this user: ask its owner, or copy the run's directory")
        log = file.with_name(file.name + "-wal")
        last: sqlite3.Error | None = None
        for mode in ("mode=rw", "mode=ro", "immutable=1"):
            if mode == "immutable=1" and log.exists() and log.stat().st_size:
                folder = tempfile.mkdtemp(prefix="agentgym-run-")
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                try:
                    shutil.copyfile(log, Path(folder, log.name))
                    file, mode = Path(shutil.copyfile(file, Path(folder, file.name))), "mode=rw"
                except OSError as e:
                    raise RecordError(
                        f"{self.path} lies in a place that is read-only, and cannot be copied to {folder} to be read there"
                        f" ({e.strerror}): copy the run's directory to a disk with room and open it there"
                    ) from e
            try:
                return self._open(file, mode)
            except sqlite3.DatabaseError as e:
                last = e
                if e.sqlite_errorcode & 0xFF not in _NO_PLACE:
                    break
        raise RecordError(
            f"{file} cannot be read as a run ({last}): the file is damaged or was cut. If there is a copy, use that;"
            " `sqlite3 FILE .recover` may save rows"
        ) from last

    def _open(self, file: Path, mode: str) -> sqlite3.Connection:
        name = f"file:{urllib.parse.quote(str(file.resolve()))}?{mode}"
        db = sqlite3.connect(name, uri=True, isolation_level=None, timeout=30.0, check_same_thread=False)
        try:
            db.execute("PRAGMA query_only=ON")
            schema.check(db, str(self.path))
            db.create_function("called", 1, self._called, deterministic=True)
            if self.scores_name is not None:
                db.execute("PRAGMA query_only=OFF")
                sets.attach(db, self.path, self.scores_name)
                db.execute("PRAGMA query_only=ON")
        except BaseException:
            db.close()
            raise
        return db

    def _called(self, episode: int) -> str:
        """For filters (``tool:NAME``): the tools that an episode called."""
        if self._tools is None:
            self._tools = called.reader(self.path / schema.FILE, self._encoded)
        return self._tools(episode)

    def _encoded(self, episode: int) -> bytes | None:
        row = self._db.execute("SELECT data FROM trajectories WHERE episode = ?", (episode,)).fetchone()
        try:
            return None if row is None else _decompress(row[0])
        except _UNREADABLE:
            return None

    def _rows(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            # not `yield from`: a generator that is left unfinished would close its cursor, after the file perhaps
            for row in self._db.execute(sql, values):  # noqa: UP028
                yield row
        except sqlite3.ProgrammingError as e:
            raise RecordError(f"{self.path} cannot be read: {e}") from e
        except sqlite3.DatabaseError as e:
            raise RecordError(f"{self.path / schema.FILE} is damaged ({e}); rows before the damage were read") from e

    @property
    def meta(self) -> dict[str, Any]:
        """The run's description: title, model, fingerprint, options, versions, creation time."""
        try:
            return {key: msgspec.json.decode(value) for key, value in self._rows("SELECT key, value FROM meta")}
        except _UNREADABLE as e:
            raise RecordError(f"{self.path}: the run's description is damaged ({e})") from e

    @property
    def score_sets(self) -> list[str]:
        """Names of the sets of later scores that it has."""
        return sets.set_names(self.path)

    @property
    def scores_meta(self) -> dict[str, Any]:
        """Description of the set in use: who judged, when, how many; empty for the run's own scores."""
        if self.scores_name is None:
            return {}
        try:
            return {key: msgspec.json.decode(value) for key, value in self._rows("SELECT key, value FROM later.meta")}
        except _UNREADABLE as e:
            raise RecordError(f"{self.path}: the description of the scores {self.scores_name!r} is damaged ({e})") from e

    @property
    def status(self) -> str:
        """``planned``, ``running``, ``finished``, ``interrupted``, ``failed``, or ``killed``: nobody works on it any more."""
        rows = list(self._rows("SELECT status FROM sittings ORDER BY id DESC LIMIT 1"))
        status: str = rows[0][0] if rows else "planned"
        return "killed" if status == "running" and not is_held(self.path) else status

    @property
    def stopped(self) -> str | None:
        """Why the last sitting ended before the plan did (a cost limit, nothing worked); None if nothing stopped it."""
        return self.meta.get("stopped")

    @property
    def planned(self) -> int:
        """Episodes that the run set out to play."""
        return next(self._rows("SELECT coalesce(sum(trials), 0) FROM plan"))[0]  # type: ignore[no-any-return]

    @property
    def wall_s(self) -> float:
        """Seconds of work over all sittings; of one that goes on or was killed, until its last episode on record."""
        until_last = (
            "(SELECT max(e.started_at + e.duration_s) FROM episodes e WHERE e.started_at >= s.started_at AND e.started_at <"
            " coalesce((SELECT min(n.started_at) FROM sittings n WHERE n.id > s.id), 9e99)) - s.started_at"
        )
        return next(self._rows(f"SELECT coalesce(sum(coalesce(wall_s, {until_last}, 0.0)), 0.0) FROM sittings s"))[0]  # type: ignore[no-any-return]

    def attempts(self) -> dict[tuple[str, int], tuple[int, bool]]:
        """(task id, trial) -> (attempts made, whether the last one was a real outcome)."""
        return {(task_id, trial): (n, bool(done)) for task_id, trial, n, done in self._rows(schema.ATTEMPTS)}

    def count(self) -> int:
        """Episodes on record, counting the last attempt of each."""
        return next(self._rows(f"SELECT count(*) FROM episodes WHERE {schema.LAST_ATTEMPT}"))[0]  # type: ignore[no-any-return]

    def episodes(
        self,
        *,
        task_id: str | None = None,
        family: str | None = None,
        outcome: str | None = None,
        where: str = "",
        all_attempts: bool = False,
    ) -> Iterator[Episode]:
        """The episodes on record, oldest first; of retried ones the last attempt.

        Args:
            task_id: only this task's.
            family: only this family's.
            outcome: only those that ended so.
            where: only those that fit this filter (`agentgym.records.filter`), such as ``gold<1 dim:policy``.
            all_attempts: also the attempts that failed and were retried.

        Raises:
            FilterError: the filter cannot be read.
        """
        conditions = [] if all_attempts else [schema.LAST_ATTEMPT]
        values: list[Any] = []
        for column, value in (("task_id", task_id), ("family", family), ("outcome", outcome)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        wanted = parse(where)
        conditions.append(wanted.sql)
        sql = f"SELECT {_COLUMNS} FROM episodes WHERE {' AND '.join(conditions)} ORDER BY id"
        for row in self._rows(sql, (*values, *wanted.values)):
            yield Episode(self, row)

    def _counting(self) -> str:
        """SQL condition for the attempts that count; looking for later ones is dear, and few runs have any."""
        retried = next(self._rows("SELECT coalesce(max(attempt), 0) FROM episodes"))[0]
        return schema.LAST_ATTEMPT if retried else "1"

    def ids(self, where: str = "1", values: tuple[Any, ...] = (), order: str = "id", limit: int | None = None) -> array[int]:
        """Numbers of the episodes that fit, in order; of retried ones the last attempt's. Eight bytes each.

        Together with `by_ids` it pages through any selection at the same cost at its end as at its start, which SQL's
        OFFSET does not.

        Args:
            where: SQL condition over the columns of ``episodes``. It is code: what people type belongs in ``values``.
            values: what the ``?`` of the condition stand for.
            order: SQL terms to sort by.
            limit: at most so many.

        Raises:
            RecordError: the file is damaged.
        """
        counting = self._counting() if limit is None else schema.LAST_ATTEMPT  # a few rows are checked one by one
        sql = f"SELECT id FROM episodes WHERE ({where}) AND {counting} ORDER BY {order} LIMIT ?"
        return array("q", (row[0] for row in self._rows(sql, (*values, -1 if limit is None else limit))))

    def by_ids(self, ids: Iterable[int]) -> list[Episode]:
        """The episodes of these numbers, in the order given; numbers that are not on record are left out."""
        wanted = list(ids)
        found: dict[int, Episode] = {}
        for start in range(0, len(wanted), 500):  # SQLite takes 999 values a statement in its oldest builds
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            for row in self._rows(f"SELECT {_COLUMNS} FROM episodes WHERE id IN ({marks})", tuple(part)):
                found[row[0]] = Episode(self, row)
        return [found[i] for i in wanted if i in found]

    @property
    def data_version(self) -> int:
        """A number that changes when another process (or connection) has committed something to the file."""
        return next(self._rows("PRAGMA data_version"))[0]  # type: ignore[no-any-return]

    def episode(self, task_id: str, trial: int = 0) -> Episode:
        """One episode.

        Raises:
            NotFoundError: it is not on record.
        """
        sql = f"SELECT {_COLUMNS} FROM episodes WHERE task_id = ? AND trial = ? ORDER BY attempt DESC LIMIT 1"
        for row in self._rows(sql, (task_id, trial)):
            return Episode(self, row)
        known = [row[0] for row in self._rows("SELECT DISTINCT task_id FROM episodes LIMIT 10000")]
        if task_id in known:
            trials = [e.trial for e in self.episodes(task_id=task_id)]
            raise NotFoundError(f"{self.path} has no trial {trial} of {task_id}; it has {trials}")
        raise NotFoundError(f"{self.path} has no episode of {task_id!r}.{did_you_mean(task_id, known)}")

    def at(self, address: Address) -> Episode:
        """The episode at an address; without a trial the first one on record.

        Raises:
            NotFoundError: it is not on record.
            UsageError: the address names no task.
        """
        if address.task_id is None:
            raise UsageError(f"{address.run} names a run; an episode is RUN::FAMILY/VARIANT/ITEM/TRIAL")
        if address.trial is not None:
            whole = f"{address.task_id}/{address.trial}"  # an item may hold slashes and end in a number
            episode = next(self.episodes(task_id=whole), None)
            return episode or self.episode(address.task_id, address.trial)
        episode = next(self.episodes(task_id=address.task_id), None)
        return episode or self.episode(address.task_id, 0)

    def task(self, number: int) -> FrozenTask:
        """The frozen task of that number (`Episode.task_object`)."""
        if number not in self._tasks:
            rows = list(self._rows("SELECT data FROM objects WHERE id = ?", (number,)))
            if not rows:
                raise RecordError(f"{self.path}: task {number} is missing from the record")
            if len(self._tasks) >= _TASKS_KEPT:
                self._tasks.clear()
            try:
                self._tasks[number] = decode_task(_decompress(rows[0][0]))
            except _UNREADABLE as e:
                raise RecordError(f"{self.path}: task {number} is damaged ({e})") from e
        return self._tasks[number]

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def _is_run(path: Path) -> bool:
    try:
        return (path / schema.FILE).is_file()
    except OSError:  # somebody else's directory, or a name that is too long for one
        return False


_STAMP = "%Y-%m-%dT%H-%M"


def _created(path: Path) -> tuple[float, str]:
    """When a run was made, and its name, to sort by.

    Its name says the minute; a copy keeps that. Within the minute, and for a directory that was renamed, the lock file
    tells: it is made with the run and never written again. The other files' times change when the run is read.
    """
    try:
        seconds = (path / "lock").stat().st_mtime
    except OSError:
        seconds = 0.0
    try:
        minute = time.mktime(time.strptime(path.name[:16], _STAMP))
    except (ValueError, OverflowError):
        return seconds, path.name
    return (seconds if minute <= seconds < minute + 60 else minute), path.name


def find_runs(root: Path) -> list[Path]:
    """The runs in a folder, oldest first."""
    try:
        found = [p for p in root.iterdir() if _is_run(p)]
    except OSError:
        return []
    return sorted(found, key=_created)


def find_run(name: str | os.PathLike[str], root: Path | None = None) -> Path:
    """The directory of a run: a path, a name in the folder of runs, the unique end of one, or ``latest``.

    ``latest`` is the run that was begun last.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    root = root or runs_root()
    path = Path(name)
    if path.name == schema.FILE and _is_run(path.parent):
        path = path.parent
    if _is_run(path):
        return path
    text = str(name)
    if text and _is_run(root / text):
        return root / text
    runs = find_runs(root)
    if text in ("latest", ""):
        if not runs:
            raise NotFoundError(f"there are no runs in {root}/ yet: `agentgym eval quickstart` makes one")
        return runs[-1]
    matches = [p for p in runs if p.name.endswith(text)] or [p for p in runs if text in p.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFoundError(f"{text!r} fits {len(matches)} runs: {', '.join(p.name for p in matches[:5])}")
    near = did_you_mean(text, [p.name for p in runs])
    raise NotFoundError(f"there is no run {text!r} here or in {root}/.{near} `agentgym list runs` shows all {len(runs)}.")


def open_run(
    name: str | os.PathLike[str] = "latest", root: str | os.PathLike[str] | None = None, *, scores: str | None = None
) -> Run:
    """Opens a run for reading.

    Args:
        name: its path, its name in the folder of runs, the end of its name, or ``latest``.
        root: the folder of runs; None for the usual one.
        scores: a set of later scores to read instead of its own; see `Run`.

    Raises:
        NotFoundError: there is no such run or set.
        RecordError: it is damaged or newer than this version reads.
    """
    return Run(find_run(name, runs_root(root)), scores=scores)
