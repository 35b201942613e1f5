# SPDX-License-Identifier: Apache-2.0
"""The tables of a run's database, and what is done about other versions of them."""

from __future__ import annotations

import sqlite3

from agentgym.errors import RecordError

SCHEMA = 1
"""Version of the tables, kept in ``PRAGMA user_version``. Readers migrate older ones forward and refuse newer ones."""

APPLICATION_ID = 0x41475931
"""``AGY1``: marks the file as an agentgym run, so that another program's database is not mistaken for one."""

FILE = "run.sqlite"
"""Name of the database inside of a run's directory."""

TABLES = """
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL                 -- JSON
) WITHOUT ROWID;

CREATE TABLE environments (
    id    INTEGER PRIMARY KEY,
    ref   TEXT NOT NULL                 -- JSON of EnvRef: what to construct
);

CREATE TABLE plan (                     -- what the run set out to do; resume runs what is missing
    position    INTEGER PRIMARY KEY,
    environment INTEGER NOT NULL REFERENCES environments(id),
    variant     TEXT NOT NULL,
    item        TEXT NOT NULL,
    task_id     TEXT NOT NULL UNIQUE,
    trials      INTEGER NOT NULL
);

CREATE TABLE objects (                  -- frozen tasks, each content once: the writer sees to that without an index,
    id    INTEGER PRIMARY KEY,          -- which would make every commit write pages all over the file
    hash  TEXT NOT NULL,
    kind  TEXT NOT NULL,
    data  BLOB NOT NULL                 -- zstd of MessagePack
);

CREATE TABLE episodes (
    id                INTEGER PRIMARY KEY,
    task_id           TEXT NOT NULL,
    family            TEXT NOT NULL,
    variant           TEXT NOT NULL,
    item              TEXT NOT NULL,
    trial             INTEGER NOT NULL,
    attempt           INTEGER NOT NULL, -- 0, then 1, 2 ... for retries after infrastructure outcomes; the last one counts
    cluster           TEXT NOT NULL,
    tags              TEXT NOT NULL,    -- separated by blanks, with one in front and behind
    outcome           TEXT NOT NULL,    -- terminated, truncated, infrastructure
    truncation        TEXT,
    error_kind        TEXT,
    error             TEXT,
    reward            REAL,             -- proxy as delivered; NULL = could not be scored
    gold              REAL,             -- in [0, 1]; NULL = could not be scored
    exposures         INTEGER NOT NULL, -- findings with exposure
    violations        INTEGER NOT NULL,
    turns             INTEGER NOT NULL,
    tool_calls        INTEGER NOT NULL,
    tool_errors       INTEGER NOT NULL,
    tool_exceptions   INTEGER NOT NULL, -- tools of the environment that broke: its author's errors, not the agent's
    cached_turns      INTEGER NOT NULL, -- turns whose reply came from the reply cache: no model was asked
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd          REAL NOT NULL,
    started_at        REAL NOT NULL,    -- Unix time, UTC
    duration_s        REAL NOT NULL,
    task_hash         TEXT NOT NULL,
    task_object       INTEGER NOT NULL REFERENCES objects(id),
    UNIQUE (task_id, trial, attempt)
);
CREATE INDEX episodes_by_family ON episodes (family, variant);
CREATE INDEX episodes_by_gold ON episodes (gold);
CREATE INDEX episodes_by_reward ON episodes (reward);
CREATE INDEX episodes_with_errors ON episodes (outcome) WHERE outcome = 'infrastructure';
CREATE INDEX episodes_with_violations ON episodes (violations) WHERE violations > 0;

CREATE TABLE trajectories (             -- apart from episodes, so that lists and filters read no blob
    episode INTEGER PRIMARY KEY REFERENCES episodes(id),
    data    BLOB NOT NULL,              -- zstd of MessagePack
    tokens  BLOB                        -- zstd of token buffers; NULL = the policy gave none
);

CREATE TABLE scores (
    episode       INTEGER NOT NULL REFERENCES episodes(id),
    position      INTEGER NOT NULL,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL,
    value         REAL,
    status        TEXT NOT NULL,
    reason        TEXT NOT NULL,
    flags         TEXT NOT NULL,        -- JSON list
    evidence      TEXT,                 -- JSON
    verifier_hash TEXT NOT NULL,
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;

CREATE TABLE findings (
    episode       INTEGER NOT NULL REFERENCES episodes(id),
    position      INTEGER NOT NULL,
    dimension     TEXT NOT NULL,
    rule          TEXT NOT NULL,
    exposure      INTEGER NOT NULL,
    violation     INTEGER NOT NULL,
    weight        REAL NOT NULL,
    turn          INTEGER,
    evidence      TEXT,                 -- JSON
    verifier_hash TEXT NOT NULL,
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;

CREATE TABLE sittings (                 -- one row each time a process worked on the run
    id         INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    ended_at   REAL,                    -- NULL: still going, or killed
    status     TEXT NOT NULL,           -- running, finished, interrupted, failed
    host       TEXT NOT NULL,           -- JSON: versions and machine
    wall_s     REAL                     -- seconds of work (monotonic clock)
);
"""

ATTEMPTS = "SELECT task_id, trial, max(attempt) + 1, max(outcome != 'infrastructure') FROM episodes GROUP BY task_id, trial"
"""SQL: of each episode on record, the attempts made, and whether the last one was a real outcome."""

LAST_ATTEMPT = (
    "NOT EXISTS (SELECT 1 FROM episodes later WHERE later.task_id = episodes.task_id"
    " AND later.trial = episodes.trial AND later.attempt > episodes.attempt)"
)
"""SQL condition: the attempt that counts."""


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in a new, empty database: all of them and the marks that name it, or nothing."""
    connection.executescript(
        "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; BEGIN;"
        f" PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA}; {TABLES} COMMIT;"
    )


def check(connection: sqlite3.Connection, path: str) -> None:
    """Refuses what is not a run, or is a newer one than this version reads.

    Raises:
        RecordError: with a sentence that says what to do.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise RecordError(f"{path} is empty: its process ended before it had written anything; it may be deleted")
        raise RecordError(f"{path} is a database, but not an agentgym run")
    if version < 1:
        raise RecordError(f"{path} is damaged: there is no schema {version}")
    if version > SCHEMA:
        raise RecordError(
            f"{path} was written by a newer agentgym (schema {version}; this one reads up to {SCHEMA}): upgrade agentgym"
        )
