# SPDX-License-Identifier: Apache-2.0
"""Scores that were given later: sets beside a run's own scores, each in a file of its own.

What an episode was and what it was paid is history. A later judgement goes to ``scores/NAME.sqlite`` in the run's
directory: complete (gold, reward, every score and finding of every episode it covers), made whole or not at all, and the
run's own database is not touched. A directory that is copied takes its sets along; a file that is deleted is a set less.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from agentgym.errors import NotFoundError, RecordError, UsageError, did_you_mean
from agentgym.scoring import Finding, Score

FOLDER = "scores"
"""Name of the folder of sets inside of a run's directory."""

VERSION = 1
"""Of the tables of a set, kept in ``PRAGMA user_version``; newer ones are refused."""

APPLICATION_ID = 0x41475953
"""``AGYS``: marks the file as a set of scores."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;   -- JSON

CREATE TABLE judged (                   -- one row for each episode that the set covers
    episode    INTEGER PRIMARY KEY,     -- episodes.id of the run
    reward     REAL,
    gold       REAL,
    exposures  INTEGER NOT NULL,
    violations INTEGER NOT NULL
);

CREATE TABLE scores (                   -- as in the run
    episode INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, value REAL,
    status TEXT NOT NULL, reason TEXT NOT NULL, flags TEXT NOT NULL, evidence TEXT, verifier_hash TEXT NOT NULL,
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;

CREATE TABLE findings (
    episode INTEGER NOT NULL, position INTEGER NOT NULL, dimension TEXT NOT NULL, rule TEXT NOT NULL,
    exposure INTEGER NOT NULL, violation INTEGER NOT NULL, weight REAL NOT NULL, turn INTEGER, evidence TEXT,
    verifier_hash TEXT NOT NULL,
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;

CREATE TABLE changes (                  -- what differs from the scores that the run itself has
    episode INTEGER NOT NULL, position INTEGER NOT NULL, what TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, reason TEXT NOT NULL,           -- before, after: JSON
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;
"""

# A set that is in use stands in front of the run's own tables: names without a schema are looked up in TEMP first.
_VIEWS = """
CREATE TEMP VIEW scores AS SELECT * FROM later.scores;
CREATE TEMP VIEW findings AS SELECT * FROM later.findings;
CREATE TEMP VIEW episodes AS SELECT
    e.id, e.task_id, e.family, e.variant, e.item, e.trial, e.attempt, e.cluster, e.tags, e.outcome, e.truncation,
    e.error_kind, e.error, j.reward AS reward, j.gold AS gold, coalesce(j.exposures, 0) AS exposures,
    coalesce(j.violations, 0) AS violations, e.turns, e.tool_calls, e.tool_errors, e.tool_exceptions, e.cached_turns,
    e.prompt_tokens, e.completion_tokens, e.cost_usd, e.started_at, e.duration_s, e.task_hash, e.task_object
    FROM main.episodes e LEFT JOIN later.judged j ON j.episode = e.id;
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")


class Change(msgspec.Struct, frozen=True):
    """One thing that a set says of an episode and the run's own scores say otherwise."""

    what: str
    """``gold``, ``reward``, ``score NAME``, ``proxy NAME``, ``finding DIMENSION/RULE``."""
    before: float | str | None
    """None: not scored, or not looked at. Findings: ``violated``, ``kept`` or ``not exposed``."""
    after: float | str | None
    reason: str = ""
    """What the verifier says about the new value."""


class Judged(msgspec.Struct):
    """What a set says about one episode."""

    episode: int
    """Its number in the run."""
    reward: float | None
    gold: float | None
    scores: list[Score]
    findings: list[Finding]
    changes: list[Change]


def check_name(name: str) -> str:
    """The name, if it is fit for a set: it becomes a file's.

    Raises:
        UsageError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a set of scores: use letters, digits and . _ + -, at most 80 of them")
    return name


def set_names(path: Path) -> list[str]:
    """The sets of a run, in the order of their names."""
    try:
        return sorted(p.stem for p in (path / FOLDER).iterdir() if p.suffix == ".sqlite" and _NAME.fullmatch(p.stem))
    except OSError:
        return []


def _file(path: Path, name: str) -> Path:
    file = path / FOLDER / f"{check_name(name)}.sqlite"
    if not file.is_file():
        known = set_names(path)
        has = f"it has: {', '.join(known)}" if known else "it has only its own; `agentgym rescore` makes others"
        raise NotFoundError(f"{path} has no set of scores {name!r}; {has}.{did_you_mean(name, known)}")
    return file


def attach(db: sqlite3.Connection, path: Path, name: str) -> None:
    """Puts a set in front of the run's own scores, for everything that is read through this connection.

    Raises:
        NotFoundError: the run has no such set.
        RecordError: it is damaged, newer than this version reads, or no set.
    """
    file = _file(path, name)
    try:
        db.execute("ATTACH ? AS later", (f"file:{urllib.parse.quote(str(file.resolve()))}?mode=ro",))
        application = db.execute("PRAGMA later.application_id").fetchone()[0]
        version = db.execute("PRAGMA later.user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise RecordError(f"{file} is no set of scores")
        if version > VERSION:
            raise RecordError(
                f"{file} was written by a newer agentgym (version {version}; this one reads up to {VERSION}): upgrade agentgym"
            )
        db.execute("PRAGMA temp_store=MEMORY")
        db.executescript(_VIEWS)
    except sqlite3.DatabaseError as e:
        raise RecordError(f"{file} cannot be read as a set of scores ({e}): delete it and score again") from e


class SetWriter:
    """Writes a set; it appears under its name when `finish` returns, whole, or never.

    Args:
        path: the run.
        name: of the set; None takes ``like`` with the first number behind it that is free.
        like: a name to begin with where none is given.

    Raises:
        RecordError: the run's directory cannot be written.
        UsageError: there is a set of that name: what was once given is not replaced.
    """

    def __init__(self, path: Path, name: str | None, like: str = "set") -> None:
        self.path = path
        self.folder = path / FOLDER
        self._given = None if name is None else check_name(name)
        self._like = re.sub(r"[^A-Za-z0-9_.+-]+", "-", like).strip("-.")[:60] or "set"
        if self._given in set_names(path):
            raise self._taken()
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            _sweep(self.folder)
            handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        except OSError as e:
            raise RecordError(
                f"cannot write in {path}: {e.strerror}; copy the run's directory to where it may be written, and score it there"
            ) from e
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._lock = handle
        self._part = Path(part)
        self._db = sqlite3.connect(part, isolation_level=None)
        # nobody sees the file before it is whole, so nothing has to be taken back in it
        self._db.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA application_id={APPLICATION_ID};"
            f" PRAGMA user_version={VERSION}; {_TABLES}"
        )

    def _taken(self) -> UsageError:
        return UsageError(
            f"{self.path} has a set of scores {self._given!r} already, and what was given once is not replaced:"
            " take another name, or none"
        )

    def add(self, rows: Iterable[Judged]) -> None:
        """Takes what was judged.

        Raises:
            RecordError: the disk is full.
        """
        judged, scores, findings, changes = [], [], [], []
        for j in rows:
            exposures, violations = sum(f.exposure for f in j.findings), sum(f.violation for f in j.findings)
            judged.append((j.episode, j.reward, j.gold, exposures, violations))
            for i, s in enumerate(j.scores):
                flags = _json(list(s.flags))
                row = (s.name, s.role, s.value, s.status, s.reason, flags, _evidence(s.evidence), s.verifier_hash)
                scores.append((j.episode, i, *row))
            for i, f in enumerate(j.findings):
                found = (f.dimension, f.rule, f.exposure, f.violation, f.weight, f.turn, _evidence(f.evidence), f.verifier_hash)
                findings.append((j.episode, i, *found))
            changes += [(j.episode, i, c.what, _json(c.before), _json(c.after), c.reason) for i, c in enumerate(j.changes)]
        with self._telling():
            self._db.execute("BEGIN")
            for table, values in (("judged", judged), ("scores", scores), ("findings", findings), ("changes", changes)):
                if values:
                    self._db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(values[0]))})", values)
            self._db.execute("COMMIT")

    def changes(self) -> Iterator[tuple[int, Change]]:
        """Every change taken so far, by episode."""
        rows = self._db.execute("SELECT episode, what, before, after, reason FROM changes ORDER BY episode, position")
        for episode, what, before, after, reason in rows:
            yield episode, Change(what, msgspec.json.decode(before), msgspec.json.decode(after), reason)

    def finish(self, meta: dict[str, Any]) -> str:
        """Makes the set appear; returns its name."""
        with self._telling():
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", [(k, _json(v)) for k, v in meta.items()])
        try:
            os.fsync(self._lock)
            number = 1
            while True:
                name = self._given or (self._like if number == 1 else f"{self._like}-{number}")
                try:
                    os.link(self._part, self.folder / f"{name}.sqlite")  # unlike a renaming it replaces nothing
                    return name
                except FileExistsError:
                    if self._given:
                        raise self._taken() from None
                    number += 1
        except OSError as e:
            raise RecordError(f"cannot write in {self.folder}: {e.strerror}") from e

    def close(self) -> None:
        """Frees what it holds; what was not finished is gone."""
        self._db.close()
        with contextlib.suppress(OSError):
            self._part.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # empty: there is no set
        os.close(self._lock)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise RecordError(f"{self.folder} takes no more scores ({e}): is the disk full? The run itself is untouched") from e


def _sweep(folder: Path) -> None:
    """Removes what writers that were killed have left."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(handle)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _evidence(value: Any) -> str | None:
    return None if value is None else _json(value)
