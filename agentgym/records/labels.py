# SPDX-License-Identifier: Apache-2.0
"""What people think of a run's episodes: which of two trials is better and why, and notes on turns; and what to ask next.

Labels lie beside the run, in ``labels.sqlite`` of its directory, made with the first label; the run's own database is never
touched. Whoever calls `Labels.add` may rely on what it returned: it is on the disk. Several people may label at once, each
under a name of their own.
"""

from __future__ import annotations

import collections
import getpass
import os
import random
import sqlite3
import time
import urllib.parse
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from agentgym.errors import RecordError, UsageError
from agentgym.records.run import Run

FILE = "labels.sqlite"
"""Name of the database of labels inside of a run's directory."""

VERSION = 1
"""Of its tables, kept in ``PRAGMA user_version``; newer ones are refused."""

APPLICATION_ID = 0x4147594C
"""``AGYL``: marks the file as labels."""

Choice = Literal["a", "b", "tie", "skip"]
"""Which of two episodes is better: the one with the smaller number, the other, neither, or no answer."""

_TABLES = """
CREATE TABLE labels (
    id        INTEGER PRIMARY KEY,      -- in the order in which they were given
    annotator TEXT NOT NULL,
    task_id   TEXT NOT NULL,
    a         INTEGER NOT NULL,         -- episodes.id of the run; a < b
    b         INTEGER NOT NULL,
    dimension TEXT NOT NULL,            -- what was asked; '' = on the whole
    choice    TEXT NOT NULL,            -- a, b, tie, skip
    reasons   TEXT NOT NULL,            -- JSON list of words
    first     INTEGER NOT NULL,         -- a or b: which was shown first, to find habits of reading
    at        REAL NOT NULL,            -- Unix time, UTC
    UNIQUE (annotator, a, b, dimension)
);
CREATE TABLE notes (
    id        INTEGER PRIMARY KEY,
    annotator TEXT NOT NULL,
    task_id   TEXT NOT NULL,
    episode   INTEGER NOT NULL,
    turn      INTEGER,                  -- NULL = on the episode as a whole
    text      TEXT NOT NULL,
    at        REAL NOT NULL
);
CREATE INDEX notes_by_episode ON notes (episode);
"""


class Pair(NamedTuple):
    """Two episodes of one task, by their numbers in the run."""

    a: int
    """The smaller number."""
    b: int


class Label(msgspec.Struct, frozen=True):
    """One answer of one person."""

    id: int
    annotator: str
    task_id: str
    a: int
    b: int
    dimension: str
    """What was asked about; empty: on the whole."""
    choice: Choice
    reasons: tuple[str, ...]
    first: int
    """The episode that was shown first."""
    at: float
    """Unix time."""

    @property
    def better(self) -> int | None:
        """The episode that is better; None for a tie or no answer."""
        return self.a if self.choice == "a" else self.b if self.choice == "b" else None


class Note(msgspec.Struct, frozen=True):
    """What somebody wrote about a turn."""

    id: int
    annotator: str
    task_id: str
    episode: int
    turn: int | None
    """None: the episode as a whole."""
    text: str
    at: float


class Labels:
    """The labels of a run. Usable as a context manager.

    Args:
        path: the run's directory.

    Raises:
        RecordError: the file is damaged, of a newer version, or something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / FILE
        self._db: sqlite3.Connection | None = self._open("rw") if self._there else None

    @property
    def _there(self) -> bool:
        # who was killed while making the tables leaves an empty file
        return self.file.is_file() and self.file.stat().st_size > 0

    def _open(self, mode: str) -> sqlite3.Connection:
        name = f"file:{urllib.parse.quote(str(self.file.resolve()))}?mode="
        try:
            db = sqlite3.connect(name + mode, uri=True, isolation_level=None, timeout=30.0, check_same_thread=False)
            try:
                # FULL: what was acknowledged is on the disk, and a person's minute is dearer than a write
                db.execute("PRAGMA synchronous=FULL")
                self._check(db, mode)
            except BaseException:
                db.close()
                raise
        except sqlite3.Error as e:
            if mode == "rw" and self._there:
                return self._open("ro")  # a read-only place: what is there can be read
            raise self._failed(e) from e
        return db

    def _check(self, db: sqlite3.Connection, mode: str) -> None:
        if mode == "rwc":
            # one of two who begin at once makes the tables, the other waits and finds them
            db.execute("BEGIN IMMEDIATE")
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                for statement in (
                    *_TABLES.split(";\n"),
                    f"PRAGMA application_id={APPLICATION_ID}",
                    f"PRAGMA user_version={VERSION}",
                ):
                    db.execute(statement)
            db.execute("COMMIT")
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise RecordError(f"{self.file} does not hold labels: move it away, and label again")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise RecordError(
                f"{self.file} was written by a newer agentgym (version {version}; this one reads up to {VERSION}):"
                " upgrade agentgym"
            )

    def _failed(self, error: sqlite3.Error) -> RecordError:
        return RecordError(
            f"{self.file} cannot be used ({error}): is the directory writable, the disk full, the file damaged?"
            " The run itself is untouched"
        )

    def _run(self, sql: str, values: Sequence[Any] = (), *, write: bool = False) -> list[tuple[Any, ...]]:
        if self._db is None:
            if not write and not self._there:
                return []
            self._db = self._open("rwc" if write else "rw")
        try:
            # the commit has returned when this does: a single statement is its own transaction
            return self._db.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as e:
            raise self._failed(e) from e

    # -- answers ------------------------------------------------------------------------------------------------------

    def add(
        self,
        pair: Pair,
        choice: Choice,
        *,
        annotator: str,
        task_id: str,
        first: int,
        dimension: str = "",
        reasons: Iterable[str] = (),
    ) -> Label:
        """Takes an answer; another of the same person to the same question is replaced.

        Args:
            pair: what was compared.
            choice: see `Choice`.
            annotator: who answers.
            task_id: the task of both.
            first: the episode that was shown first.
            dimension: what was asked about; empty: on the whole.
            reasons: words for it.

        Raises:
            RecordError: it could not be written; then it is not on record.
        """
        if choice not in get_args(Choice) or first not in pair or pair.a >= pair.b:
            raise ValueError(f"{choice!r} is no answer about {pair} of which {first} was shown first")
        row = (check_annotator(annotator), task_id, *pair, dimension, choice, tuple(reasons), first, time.time())
        sql = (
            "INSERT OR REPLACE INTO labels (annotator, task_id, a, b, dimension, choice, reasons, first, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
        )
        stored = [msgspec.json.encode(v).decode() if isinstance(v, tuple) else v for v in row]
        return Label(self._run(sql, stored, write=True)[0][0], *row)

    def undo(self, annotator: str) -> Label | None:
        """Takes back the last answer of a person and returns it; None if there is none."""
        last = self._labels("WHERE annotator = ? ORDER BY id DESC LIMIT 1", (annotator,))
        if not last:
            return None
        self._run("DELETE FROM labels WHERE id = ?", (last[0].id,), write=True)
        return last[0]

    def labels(self, *, annotator: str | None = None, dimension: str | None = None) -> list[Label]:
        """Answers in the order in which they were given, of one person and to one question if wished."""
        where, values = ["1"], []
        for column, value in (("annotator", annotator), ("dimension", dimension)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        return self._labels(f"WHERE {' AND '.join(where)} ORDER BY id", values)

    def _labels(self, rest: str, values: Sequence[Any]) -> list[Label]:
        columns = "id, annotator, task_id, a, b, dimension, choice, reasons, first, at"
        try:
            return [
                Label(i, who, task, a, b, dimension, choice, tuple(msgspec.json.decode(reasons)), first, at)
                for i, who, task, a, b, dimension, choice, reasons, first, at in self._run(
                    f"SELECT {columns} FROM labels {rest}", values
                )
            ]
        except (msgspec.MsgspecError, TypeError) as e:
            raise RecordError(f"{self.file} is damaged ({e})") from e

    @property
    def reasons(self) -> list[str]:
        """Every reason that was given, the most frequent first."""
        given = collections.Counter(word for label in self.labels() for word in label.reasons)
        return [word for word, _ in given.most_common()]

    # -- notes --------------------------------------------------------------------------------------------------------

    def note(self, text: str, *, annotator: str, task_id: str, episode: int, turn: int | None = None) -> Note:
        """Takes a note on a turn (None: on the episode)."""
        row = (check_annotator(annotator), task_id, episode, turn, text, time.time())
        sql = "INSERT INTO notes (annotator, task_id, episode, turn, text, at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
        return Note(self._run(sql, row, write=True)[0][0], *row)

    def notes(self, *, annotator: str | None = None, episode: int | None = None) -> list[Note]:
        """Notes in the order in which they were written, of one person and on one episode if wished."""
        where, values = ["1"], []
        for column, value in (("annotator", annotator), ("episode", episode)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        columns = "id, annotator, task_id, episode, turn, text, at"
        return [Note(*row) for row in self._run(f"SELECT {columns} FROM notes WHERE {' AND '.join(where)} ORDER BY id", values)]

    def close(self) -> None:
        """Closes the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Labels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_annotator(name: str) -> str:
    """The name, if it can be told apart from others on a screen.

    Raises:
        UsageError: it cannot.
    """
    if not name or name != name.strip() or len(name) > 40 or not name.isprintable():
        raise UsageError(f"{name!r} cannot name an annotator: use 1 to 40 characters that can be printed")
    return name


def default_annotator() -> str:
    """``$AGENTGYM_ANNOTATOR``, else the user's name on this machine."""
    name = os.environ.get("AGENTGYM_ANNOTATOR")
    if name:
        return check_annotator(name)
    try:
        return check_annotator(getpass.getuser())
    except (OSError, KeyError, UsageError):  # a user id without a name, as in a container
        return "somebody"


# -- what to ask ------------------------------------------------------------------------------------------------------


class Queue:
    """The pairs of a run in the order in which they are asked; of a million episodes it keeps their numbers.

    Pairs come in rounds, as in a tournament in which everybody meets everybody: in each round every trial of a task is shown
    once (with an odd number one rests), so that whenever somebody stops, all have been judged about equally often. Within a
    round tasks come in an order drawn by the seed. Everybody is asked in the same order, so that answers can be compared;
    which of two is shown first is drawn for each person anew.

    Args:
        run: whose trials; those that infrastructure spoiled are left out.
        seed: of the order.
        keyword: only tasks whose id contains this.
        rounds: most rounds; None: until everybody has met everybody.
    """

    def __init__(self, run: Run, *, seed: int = 0, keyword: str = "", rounds: int | None = None) -> None:
        self.seed = seed
        self.rounds = rounds
        self._ids = array("q")
        self._starts = array("q", [0])
        """Where the numbers of each task's trials begin in `_ids`, and at last where they end."""
        where = "outcome NOT IN ('infrastructure', 'cancelled') AND instr(lower(task_id), lower(?))"
        last: str | None = None
        held = array("q")
        for task_id, number in run._rows(
            f"SELECT task_id, id FROM episodes WHERE {where} AND {run._counting()} ORDER BY task_id, id", (keyword,)
        ):
            if task_id != last:
                self._keep(held)
                last = task_id
            held.append(number)
        self._keep(held)

    def _keep(self, held: array[int]) -> None:
        if len(held) > 1:
            self._ids.extend(held)
            self._starts.append(len(self._ids))
        del held[:]

    @property
    def tasks(self) -> int:
        """Tasks with two trials or more."""
        return len(self._starts) - 1

    def _rounds(self, trials: int) -> int:
        most = trials - 1 + trials % 2
        return most if self.rounds is None else min(most, self.rounds)

    def __len__(self) -> int:
        """Pairs."""
        sizes = (end - start for start, end in zip(self._starts, self._starts[1:], strict=False))
        return sum(n // 2 * self._rounds(n) for n in sizes)

    def __iter__(self) -> Iterator[Pair]:
        """Every pair once."""
        if not self.tasks:
            return
        largest = max(end - start for start, end in zip(self._starts, self._starts[1:], strict=False))
        tasks = list(range(self.tasks))
        for number in range(self._rounds(largest)):
            random.Random(f"{self.seed}/{number}").shuffle(tasks)
            for table in range(largest // 2):
                for task in tasks:
                    start, end = self._starts[task], self._starts[task + 1]
                    n = end - start
                    if number < self._rounds(n) and table < n // 2:
                        ids = list(self._ids[start:end])
                        random.Random(f"{self.seed}/{ids[0]}").shuffle(ids)
                        i, j = _meeting(n, number, table)
                        yield Pair(min(ids[i], ids[j]), max(ids[i], ids[j]))

    def first(self, pair: Pair, annotator: str) -> int:
        """Which of two is shown first to a person."""
        return random.Random(f"{self.seed}/{pair.a}/{pair.b}/{annotator}").choice(pair)


def _meeting(n: int, number: int, table: int) -> tuple[int, int]:
    """Who sits at a table in a round, where n players meet each other once: the circle method.

    >>> [[_meeting(4, r, t) for t in range(2)] for r in range(3)]
    [[(3, 0), (1, 2)], [(3, 1), (2, 0)], [(3, 2), (0, 1)]]
    >>> [_meeting(3, r, 0) for r in range(3)]
    [(1, 2), (2, 0), (0, 1)]
    """
    circle = n - 1 + n % 2
    if n % 2:
        table += 1  # at the first table the player who rests would meet nobody
    if table == 0:
        return circle, number
    return (number + table) % circle, (number - table) % circle


# -- what they come to ------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What people think of a pair, by majority."""

    better: int
    worse: int
    margin: float
    """(votes for - votes against) / votes, ties included; above 0 and at most 1."""
    annotators: int
    """Who answered, ties included."""
    reasons: list[str]
    """Of those who were for it, in order of names, each once."""


def verdicts(labels: Iterable[Label]) -> list[Verdict]:
    """Pairs with a majority for one of the two, in the order in which they were first answered.

    Args:
        labels: answers to one question; those that were skipped do not count.
    """
    by_pair: dict[Pair, list[Label]] = {}
    for label in labels:
        if label.choice != "skip":
            by_pair.setdefault(Pair(label.a, label.b), []).append(label)
    result = []
    for pair, answers in by_pair.items():
        votes = collections.Counter(label.better for label in answers)
        lead = votes[pair.a] - votes[pair.b]
        if lead:
            better, worse = (pair.a, pair.b) if lead > 0 else (pair.b, pair.a)
            reasons = sorted({word for label in answers if label.better == better for word in label.reasons})
            result.append(Verdict(better, worse, abs(lead) / len(answers), len(answers), reasons))
    return result
