# SPDX-License-Identifier: Apache-2.0
"""Reading a run: its description, its episodes, one episode's trajectory; while it is being written or years later."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from agentgym.errors import NotFoundError, RecordError, UsageError, did_you_mean
from agentgym.records import schema
from agentgym.scoring import Finding, Score
from agentgym.task import FrozenTask, decode_task
from agentgym.trajectory import Trajectory, decode_tokens, decode_trajectory

RUNS = Path("runs")
"""Where runs are kept, relative to the working directory, unless ``--runs`` or ``$AGENTGYM_RUNS`` says otherwise."""


def runs_root(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of runs: as given, else ``$AGENTGYM_RUNS``, else ``runs``."""
    return Path(given or os.environ.get("AGENTGYM_RUNS") or RUNS)


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
        if "@" in rest:
            rest, _, number = rest.rpartition("@")
            if not number.isdigit():
                raise UsageError(f"{text!r}: after @ comes the number of a turn, e.g. @1")
            turn = int(number)
        parts = rest.split("/")
        if len(parts) < 3 or not all(parts):
            raise UsageError(f"{text!r} is not an address: expected RUN::FAMILY/VARIANT/ITEM/TRIAL[@TURN]")
        if len(parts) == 3 or not parts[-1].isdigit():
            return cls(run, rest, None, turn)
        return cls(run, "/".join(parts[:-1]), int(parts[-1]), turn)


_COLUMNS = (
    "id, task_id, family, variant, item, trial, attempt, cluster, tags, outcome, truncation, error_kind, error, reward, gold,"
    " exposures, violations, turns, tool_calls, tool_errors, tool_exceptions, prompt_tokens, completion_tokens, cost_usd, started_at, duration_s,"
    " task_hash"
)


class Episode:
    """One attempt on record. Columns are attributes; `trajectory`, `scores`, `findings` and `task` are read on request.

    Attributes:
        task_id: ``FAMILY/VARIANT/ITEM``.
        trial: 0-based repetition.
        outcome: ``terminated``, ``truncated`` or ``infrastructure``.
        reward: proxy as delivered; None where it could not be scored.
        gold: in [0, 1]; None where it could not be scored.
    """

    __slots__ = (
        "_run", "_scores", "_trajectory", "attempt", "cluster", "completion_tokens", "cost_usd", "duration_s", "error",
        "error_kind", "exposures", "family", "gold", "id", "item", "outcome", "prompt_tokens", "reward", "started_at", "tags",
        "task_hash", "task_id", "tool_calls", "tool_errors", "tool_exceptions", "trial", "truncation", "turns", "variant", "violations",
    )  # fmt: skip

    def __init__(self, run: Run, row: tuple[Any, ...]) -> None:
        self._run = run
        self._scores: list[Score] | None = None
        self._trajectory: Trajectory | None = None
        (
            self.id, self.task_id, self.family, self.variant, self.item, self.trial, self.attempt, self.cluster, tags,
            self.outcome, self.truncation, self.error_kind, self.error, self.reward, self.gold, self.exposures,
            self.violations, self.turns, self.tool_calls, self.tool_errors, self.tool_exceptions, self.prompt_tokens, self.completion_tokens,
            self.cost_usd, self.started_at, self.duration_s, self.task_hash,
        ) = row  # fmt: skip
        self.tags: tuple[str, ...] = tuple(tags.split())

    @property
    def address(self) -> str:
        """``RUN::FAMILY/VARIANT/ITEM/TRIAL``."""
        return f"{self._run.path}::{self.task_id}/{self.trial}"

    @property
    def all_scores(self) -> list[Score]:
        """Every score in the order in which it was given; a verifier that both pays and is gold stands in it twice."""
        if self._scores is None:
            rows = self._run._rows(
                "SELECT name, role, value, status, reason, flags, evidence, verifier_hash FROM scores"
                " WHERE episode = ? ORDER BY position",
                (self.id,),
            )
            self._scores = [
                Score(n, role, value, status, reason, tuple(msgspec.json.decode(flags)), _decode(evidence), verifier)
                for n, role, value, status, reason, flags, evidence, verifier in rows
            ]
        return self._scores

    @property
    def scores(self) -> dict[str, Score]:
        """Name -> score; where one name has several roles, gold stands before proxy before metric."""
        ranked = sorted(self.all_scores, key=lambda s: ("metric", "proxy", "gold").index(s.role))
        return {s.name: s for s in ranked}

    @property
    def findings(self) -> list[Finding]:
        """Every finding, in the order in which it was given."""
        rows = self._run._rows(
            "SELECT dimension, rule, exposure, violation, weight, turn, evidence, verifier_hash FROM findings"
            " WHERE episode = ? ORDER BY position",
            (self.id,),
        )
        return [Finding(d, r, bool(e), bool(v), w, t, _decode(ev), h) for d, r, e, v, w, t, ev, h in rows]

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
                    trajectory.tokens = decode_tokens(_decompress(tokens))
            except (zstandard.ZstdError, msgspec.DecodeError) as e:
                raise RecordError(
                    f"{self.address}: the stored trajectory is damaged ({e}); other episodes are unaffected"
                ) from e
            self._trajectory = trajectory
        return self._trajectory

    @property
    def task(self) -> FrozenTask:
        """The task as it was played, hidden half included."""
        return self._run.task(self.task_hash)

    def __repr__(self) -> str:
        return f"Episode({self.task_id}/{self.trial}, {self.outcome}, reward={self.reward}, gold={self.gold})"


def _decode(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _decompress(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 31)


class Run:
    """A run on disk, opened for reading. Usable as a context manager; safe to read while another process writes it.

    Raises:
        RecordError: it is damaged, newer than this version reads, or not a run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = self.path / schema.FILE
        if not file.is_file():
            raise NotFoundError(f"{self.path} is not a run: it holds no {schema.FILE}")
        self._db = self._connect(file)
        self._tasks: dict[str, FrozenTask] = {}

    def _connect(self, file: Path) -> sqlite3.Connection:
        quoted = urllib.parse.quote(str(file.resolve()))
        last: sqlite3.Error | None = None
        # A killed writer leaves a log that SQLite folds in at the next open, for which it must write; a read-only
        # place gets a read-only open, and a place where not even the log's index can be made an immutable one.
        for mode in ("mode=rw", "mode=ro", "immutable=1"):
            if mode == "immutable=1" and (file.parent / (file.name + "-wal")).exists():
                break
            try:
                db = sqlite3.connect(
                    f"file:{quoted}?{mode}", uri=True, isolation_level=None, timeout=30.0, check_same_thread=False
                )
                db.execute("PRAGMA query_only=ON")
                schema.check(db, str(self.path))
                return db
            except sqlite3.DatabaseError as e:
                last = e
                if not isinstance(e, sqlite3.OperationalError):
                    break
        raise RecordError(
            f"{file} cannot be read as a run ({last}): the file is damaged or was cut. If there is a copy, use that;"
            " `sqlite3 FILE .recover` may save rows"
        ) from last

    def _rows(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.DatabaseError as e:
            raise RecordError(f"{self.path / schema.FILE} is damaged ({e}); rows before the damage were read") from e

    @property
    def meta(self) -> dict[str, Any]:
        """The run's description: title, model, fingerprint, options, versions, creation time."""
        return {key: msgspec.json.decode(value) for key, value in self._rows("SELECT key, value FROM meta")}

    @property
    def status(self) -> str:
        """``finished``, ``running`` (or killed: nobody can tell from the file alone), ``interrupted`` or ``failed``."""
        rows = list(self._rows("SELECT status FROM sittings ORDER BY id DESC LIMIT 1"))
        return rows[0][0] if rows else "planned"

    @property
    def planned(self) -> int:
        """Episodes that the run set out to play."""
        return next(self._rows("SELECT coalesce(sum(trials), 0) FROM plan"))[0]  # type: ignore[no-any-return]

    @property
    def wall_s(self) -> float:
        """Seconds of work over all sittings that ended properly."""
        return next(self._rows("SELECT coalesce(sum(wall_s), 0.0) FROM sittings"))[0]  # type: ignore[no-any-return]

    def count(self) -> int:
        """Episodes on record, counting the last attempt of each."""
        return next(self._rows(f"SELECT count(*) FROM episodes WHERE {schema.LAST_ATTEMPT}"))[0]  # type: ignore[no-any-return]

    def episodes(
        self, *, task_id: str | None = None, family: str | None = None, outcome: str | None = None, all_attempts: bool = False
    ) -> Iterator[Episode]:
        """The episodes on record, oldest first; of retried ones the last attempt.

        Args:
            task_id: only this task's.
            family: only this family's.
            outcome: only those that ended so.
            all_attempts: also the attempts that failed and were retried.
        """
        conditions = [] if all_attempts else [schema.LAST_ATTEMPT]
        values: list[Any] = []
        for column, value in (("task_id", task_id), ("family", family), ("outcome", outcome)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        for row in self._rows(f"SELECT {_COLUMNS} FROM episodes{where} ORDER BY id", tuple(values)):
            yield Episode(self, row)

    def episode(self, task_id: str, trial: int = 0) -> Episode:
        """One episode.

        Raises:
            NotFoundError: it is not on record.
        """
        for e in self.episodes(task_id=task_id):
            if e.trial == trial:
                return e
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

    def task(self, task_hash: str) -> FrozenTask:
        """The frozen task of that content hash."""
        if task_hash not in self._tasks:
            rows = list(self._rows("SELECT data FROM objects WHERE hash = ?", (task_hash,)))
            if not rows:
                raise RecordError(f"{self.path}: task {task_hash} is missing from the record")
            try:
                self._tasks[task_hash] = decode_task(_decompress(rows[0][0]))
            except (zstandard.ZstdError, msgspec.DecodeError) as e:
                raise RecordError(f"{self.path}: task {task_hash} is damaged ({e})") from e
        return self._tasks[task_hash]

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def find_runs(root: Path) -> list[Path]:
    """The runs in a folder, oldest first by name and then by time of creation."""
    if not root.is_dir():
        return []
    found = [p for p in root.iterdir() if (p / schema.FILE).is_file()]
    return sorted(found, key=lambda p: (p.stat().st_ctime, p.name) if p.name[:1].isdigit() else (0.0, p.name))


def find_run(name: str | os.PathLike[str], root: Path | None = None) -> Path:
    """The directory of a run: a path, a name in the folder of runs, the unique end of one, or ``latest``.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    root = root or runs_root()
    path = Path(name)
    if path.name == schema.FILE and path.is_file():
        path = path.parent
    if (path / schema.FILE).is_file():
        return path
    text = str(name)
    if text and (root / text / schema.FILE).is_file():
        return root / text
    runs = find_runs(root)
    if text in ("latest", ""):
        if not runs:
            raise NotFoundError(f"there are no runs in {root}/ yet: `agentgym eval quickstart` makes one")
        return max(runs, key=lambda p: (p / schema.FILE).stat().st_mtime)
    matches = [p for p in runs if p.name.endswith(text)] or [p for p in runs if text in p.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFoundError(f"{text!r} fits {len(matches)} runs: {', '.join(p.name for p in matches[:5])}")
    near = did_you_mean(text, [p.name for p in runs])
    raise NotFoundError(f"there is no run {text!r} here or in {root}/.{near} `agentgym list runs` shows all {len(runs)}.")


def open_run(name: str | os.PathLike[str] = "latest", root: str | os.PathLike[str] | None = None) -> Run:
    """Opens a run for reading.

    Args:
        name: its path, its name in the folder of runs, the end of its name, or ``latest``.
        root: the folder of runs; None for the usual one.

    Raises:
        NotFoundError: there is no such run.
        RecordError: it is damaged or newer than this version reads.
    """
    return Run(find_run(name, runs_root(root)))
