# SPDX-License-Identifier: Apache-2.0
"""A real SQLite database as the state of a tool environment: tables in memory, recorded as plain rows.

The state of a task is plain values, table -> primary key -> row (a dict of the other columns), so that diffs,
`state_equals_gold` and rescoring need no database. While an episode runs the rows live in SQLite, which holds what a
database must hold (types, checks, references, all or nothing), and after each change the tables that it touched are read
back. Agents reach it through tools; where they may write SQL themselves it runs on a copy, see `Database.query`.

    SCHEMA = Schema("CREATE TABLE accounts (id TEXT PRIMARY KEY, owner TEXT, cents INTEGER NOT NULL) STRICT, WITHOUT ROWID")

    class Bank(DatabaseEnv):
        schema = SCHEMA

        def new_task(self, rng):
            state = {"accounts": {"A-1": {"owner": "Ada", "cents": 500}}}
            return Task(opening="...", state=state, gold=self.after(state, lambda db: db.update("accounts", "A-1", cents=0)))

        @tool(writes=True)
        def empty(self, account: str) -> None:
            ...
            self.db.update("accounts", account, cents=0)
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Annotated, Any, ClassVar

import msgspec

from agentgym.env import ToolEnv, tool
from agentgym.errors import DefinitionError, ToolError
from agentgym.evaluators.state import canonical_state
from agentgym.task import plain

Tables = dict[str, dict[Any, dict[str, Any]]]
"""Table -> primary key -> the row's other columns."""

Value = str | int | float | None
"""What a column can hold. Truth values are kept as 1 and 0."""

MOST_STEPS = 200_000
"""Instructions of SQLite's machine that one query of an agent may take; a scan of a thousand rows takes about ten thousand."""

MOST_ROWS = 50
"""Rows that a query of an agent is shown."""

MOST_BYTES = 20_000
"""Longest text that a query of an agent may make or read: one instruction must stay a bounded amount of work."""

_FUNCTIONS = frozenset(
    # chosen so that the same query has the same answer everywhere: no chance, clocks, versions or files
    """abs avg char coalesce count dense_rank first_value glob group_concat hex ifnull iif instr lag last_value lead
    length like lower ltrim max min ntile nullif quote rank replace round row_number rtrim sign substr substring sum
    total trim typeof unicode upper""".split()  # noqa: SIM905
)
"""What a query of an agent may call."""

_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 10_000),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 10),
    (sqlite3.SQLITE_LIMIT_VDBE_OP, 10_000),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)

_ordered = msgspec.msgpack.Encoder()


def _form(tables: Tables) -> bytes | None:
    """The rows as bytes, equal only for rows of the same types in the same order; None where they are no plain values."""
    try:
        return _ordered.encode(tables)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return None


_WRITES = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
_HARMLESS = (*_WRITES, sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def _connect() -> sqlite3.Connection:
    # the episode loop may step an environment on another thread than the one that made it, never on two at once
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)


_AT_ONCE = 8
"""Rows in one statement; together they cost half as much as one by one."""


@functools.lru_cache(maxsize=512)
def _inserts(table: str, columns: tuple[str, ...], count: int) -> str:
    """The statement that adds so many whole rows."""
    names = ", ".join(f'"{c}"' for c in columns)
    marks = f"({', '.join('?' * len(columns))})"
    return f'INSERT INTO "{table}" ({names}) VALUES {", ".join([marks] * count)}'


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: dict[Any, dict[str, Any]]) -> None:
    """Adds rows, given by key; ``columns`` begins with the key's.

    Raises:
        KeyError: a row lacks a column.
    """
    others = columns[1:]
    values: list[Any] = []
    count = 0
    for key, row in rows.items():
        values.append(key)
        values += [row[c] for c in others]
        count += 1
        if count == _AT_ONCE:
            connection.execute(_inserts(table, columns, count), values)
            values, count = [], 0
    if count:
        connection.execute(_inserts(table, columns, count), values)


class Schema:
    """The tables of a database: ``CREATE TABLE`` statements, read by SQLite itself.

    Args:
        sql: the statements. Each table has a primary key of one column and no ``AUTOINCREMENT``; ``STRICT, WITHOUT ROWID``
            keeps types exact and is fastest. Indexes, views, checks, and references to tables that come before are allowed.

    Raises:
        DefinitionError: SQLite does not take it, or a table has no such key.
    """

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tables: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Table -> the column of its primary key, and its other columns in order."""
        connection = _connect()
        try:
            connection.executescript(sql)
        except sqlite3.Error as e:
            raise DefinitionError(f"the schema is not taken by SQLite: {e}") from e
        if connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchone():
            raise DefinitionError("the schema has a trigger, which would run while rows are loaded, too: write it as a tool")
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
        for (name,) in names:
            if name.startswith("sqlite_"):
                raise DefinitionError(f"the schema makes the table {name}: leave AUTOINCREMENT out, ids come from the task")
            columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
            keys = [c for c, pk in columns if pk]
            if len(keys) != 1:
                raise DefinitionError(f"the table {name} needs a primary key of exactly one column; it has {len(keys)}")
            self.tables[name] = keys[0], tuple(c for c, pk in columns if not pk)
        connection.close()
        self.deferred = "deferr" in sql.lower()
        """Whether references may be checked at the end of a transaction only."""
        self._written: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        """Statement -> the columns that it gives."""
        self.reads = {
            name: f'SELECT {", ".join(_quoted((key, *columns)))} FROM "{name}" ORDER BY "{key}"'
            for name, (key, columns) in self.tables.items()
        }
        """Table -> the statement that reads it whole."""
        self.finds = {name: f'SELECT * FROM "{name}" WHERE "{key}" = ?' for name, (key, _) in self.tables.items()}
        """Table -> the statement that finds a row by its key."""

    def open(self) -> sqlite3.Connection:
        """A database in memory with empty tables."""
        connection = _connect()
        # never switched off while rows are loaded: that would make SQLite prepare every statement anew
        connection.executescript(f"PRAGMA foreign_keys = ON; {self.sql}")
        return connection

    def names(self, sql: str, cursor: sqlite3.Cursor) -> tuple[str, ...]:
        """The columns that a statement of tools gives; ``cursor`` has just run it."""
        found = self._names.get(sql)
        if found is None:
            found = tuple(d[0] for d in cursor.description or ())
            if len(self._names) < 1000:
                self._names[sql] = found
        return found

    def written(self, sql: str, values: Any) -> tuple[str, ...]:
        """The tables that a statement may write, those that follow by reference included.

        Raises:
            DefinitionError: it does something else than read and write rows.
        """
        found = self._written.get(sql)
        if found is None:
            tables: dict[str, None] = {}
            others: list[int] = []

            def look(action: int, table: str | None, *_: Any) -> int:
                if action in _WRITES:
                    tables[str(table)] = None
                elif action not in _HARMLESS:
                    others.append(action)
                return sqlite3.SQLITE_OK

            connection = self.open()
            connection.set_authorizer(look)
            try:
                connection.execute(f"EXPLAIN {sql}", values)
            except sqlite3.Error as e:
                raise DefinitionError(f"SQLite does not take {sql!r}: {e}") from e
            finally:
                connection.close()
            if others:
                raise DefinitionError(f"{sql!r} does more than read and write rows: the schema and transactions are fixed")
            found = self._written[sql] = tuple(t for t in tables if t in self.tables)
        return found


def _quoted(names: Collection[str]) -> list[str]:
    return [f'"{n}"' for n in names]


@functools.lru_cache(maxsize=512)
def _inserting(table: str, columns: tuple[str, ...]) -> str:
    return f'INSERT INTO "{table}" ({", ".join(_quoted(columns))}) VALUES ({", ".join("?" * len(columns))})'


@functools.lru_cache(maxsize=512)
def _updating(table: str, key: str, columns: tuple[str, ...]) -> str:
    return f'UPDATE "{table}" SET {", ".join(f"{c} = ?" for c in _quoted(columns))} WHERE "{key}" = ?'


class Database:
    """The rows of one episode, in SQLite. Made once for an environment and loaded anew for each episode.

    Every statement is done as a whole or not at all; ``with db:`` makes one of several, undone where the block raises.
    What SQLite refuses (a check, a reference, a key that exists) is a `ToolError` for the agent.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tables: Tables = {}
        """The rows as they are recorded; renewed after each change. To look at, not to write."""
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._loaded: bytes | None = None
        """The rows that the savepoint of that name goes back to, see `_form`; None: there is none."""
        self._fresh = False
        """Whether the reader's copy is up to date."""
        self._checked = False
        self._depth = 0
        self._touched: set[str] = set()
        self._allowed: Collection[str] = ()
        self._ticks = 0

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(self, tables: Tables) -> None:
        """Begins anew with these rows; ``tables`` is then kept up to date.

        Raises:
            DefinitionError: the rows are not of the schema.
        """
        for name in tables:
            if name not in self.schema.tables:
                raise DefinitionError(f"the state has a table {name!r} that the schema does not have")
        for name in self.schema.tables:
            tables.setdefault(name, {})
        connection = self._connection = self._connection or self.schema.open()
        self._depth = 0
        self._fresh = False
        self._touched.clear()
        if not self._returned(tables):
            self._fill(connection, tables)
        self.tables = tables
        if not self._checked:
            self._check()

    def holds(self, tables: Tables) -> bool:
        """Whether these are the rows that it was loaded with last, so that to load them costs next to nothing."""
        return self._loaded is not None and self._loaded == _form(tables)

    def _returned(self, tables: Tables) -> bool:
        """Whether the rows are those that were loaded last, and the database went back to them."""
        if self._loaded is None or not self._live.in_transaction or not self.holds(tables):
            return False
        self._live.execute("ROLLBACK TO loaded")
        return True

    def _fill(self, connection: sqlite3.Connection, tables: Tables) -> None:
        """Puts the rows into empty tables.

        All of an episode is one transaction that is never committed: to go back is then all that it takes to empty the
        tables or to begin anew, which costs a fraction of deleting and inserting rows.
        """
        self._loaded = None
        execute = connection.execute
        if connection.in_transaction:
            execute("ROLLBACK")
        execute("BEGIN")
        try:
            for name, (key, columns) in self.schema.tables.items():
                rows = tables[name]
                if rows:
                    _insert(connection, name, (key, *columns), rows)
            self._settle()
        except KeyError as e:
            raise DefinitionError(f"a row of the table {name!r} lacks the column {e}: rows name each column but the key") from e
        except (sqlite3.Error, OverflowError) as e:
            raise DefinitionError(f"the table {name!r} of the state is refused by SQLite: {e}") from e
        execute("SAVEPOINT loaded")
        self._loaded = _form(tables)

    def _settle(self) -> None:
        """What SQLite would check where a transaction ends, which those of an episode never do."""
        if self.schema.deferred and self._live.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.IntegrityError("FOREIGN KEY constraint failed")

    def _check(self) -> None:
        """The rows come back as they went in, in columns and types. Once: authors make the same mistake every time."""
        for name in self.schema.tables:
            was, now = self.tables[name], self._read(name)
            if canonical_state(plain(was)) != canonical_state(plain(now)):
                row = next(k for k in [*was, *now] if canonical_state(was.get(k)) != canonical_state(now.get(k)))
                raise DefinitionError(
                    f"the table {name!r} does not hold what the state says: row {row!r} went in as {was.get(row)} and came "
                    f"back as {now.get(row)}; give the types of its columns (1 for True), and no columns that it lacks"
                )
        self._checked = True

    def _read(self, name: str) -> dict[Any, dict[str, Any]]:
        columns = self.schema.tables[name][1]
        return {key: dict(zip(columns, values)) for key, *values in self._live.execute(self.schema.reads[name])}  # noqa: B905

    @property
    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise DefinitionError("the database holds nothing yet: it is loaded when an episode begins")
        return self._connection

    # -- for tools ----------------------------------------------------------------------------------------------------

    def all(self, sql: str, *values: Value) -> list[dict[str, Any]]:
        """The rows that a ``SELECT`` gives, each as column -> value."""
        cursor = self._live.execute(sql, values)
        names = self.schema.names(sql, cursor)
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def one(self, sql: str, *values: Value) -> dict[str, Any] | None:
        """The first row; None where there is none."""
        cursor = self._live.execute(sql, values)
        row = cursor.fetchone()
        return None if row is None else dict(zip(self.schema.names(sql, cursor), row, strict=True))

    def value(self, sql: str, *values: Value) -> Any:
        """The first column of the first row; None where there is none."""
        row = self._live.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def row(self, table: str, key: Value) -> dict[str, Any] | None:
        """The row with this key, key included; None where there is none."""
        return self.one(self.schema.finds[table], key)

    def execute(self, sql: str, *values: Value) -> int:
        """Runs a statement that writes; returns how many rows it changed.

        Raises:
            ToolError: a check, a reference or a key forbids it, or a value is too large; then nothing has changed.
            DefinitionError: it is no statement of this schema.
        """
        tables = self.schema.written(sql, values)
        if self.schema.deferred and not self._depth:
            with self:
                return self.execute(sql, *values)
        connection = self._live
        try:
            changed = connection.execute(sql, values).rowcount
        except sqlite3.IntegrityError as e:
            if not connection.in_transaction:  # ON CONFLICT ROLLBACK: all of the episode was undone
                self._restore()
            raise ToolError(f"refused: {e}") from e
        except (OverflowError, UnicodeEncodeError) as e:
            raise ToolError("refused: a value is too large or no text") from e
        self._touched.update(tables)
        if not self._depth:
            self._renew()
        return changed

    def insert(self, table: str, **values: Value) -> None:
        """Adds a row, key included."""
        self.execute(_inserting(table, tuple(values)), *values.values())

    def update(self, table: str, key: Value, **values: Value) -> None:
        """Changes columns of the row with this key.

        Raises:
            ToolError: there is no such row.
        """
        if not self.execute(_updating(table, self.schema.tables[table][0], tuple(values)), *values.values(), key):
            raise ToolError(f"there is no {str(key)[:60]!r} in {table}")

    def delete(self, table: str, key: Value) -> None:
        """Removes the row with this key.

        Raises:
            ToolError: there is no such row.
        """
        if not self.execute(f'DELETE FROM "{table}" WHERE "{self.schema.tables[table][0]}" = ?', key):
            raise ToolError(f"there is no {str(key)[:60]!r} in {table}")

    def __enter__(self) -> Database:
        if not self._depth:
            self._live.execute("SAVEPOINT block")
        self._depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth:
            return
        execute = self._live.execute
        if kind is None:
            try:
                self._settle()
            except sqlite3.IntegrityError as e:
                self._undo()
                raise ToolError(f"refused: {e}") from e
            execute("RELEASE block")
            self._renew()
        else:
            self._undo()

    def _undo(self) -> None:
        self._live.execute("ROLLBACK TO block")
        self._live.execute("RELEASE block")
        self._touched.clear()

    def _restore(self) -> None:
        """Puts the rows back that were there before a statement, or the block that it is in, which SQLite undid further."""
        self._fill(self._live, self.tables)
        self._touched.clear()
        self._fresh = False
        if self._depth:
            self._live.execute("SAVEPOINT block")

    def _renew(self) -> None:
        for name in self._touched:
            self.tables[name] = self._read(name)
        self._touched.clear()
        self._fresh = False

    # -- for agents ---------------------------------------------------------------------------------------------------

    def query(self, sql: str, *, tables: Collection[str] | None = None) -> dict[str, Any]:
        """What SQL that an agent wrote gives: ``columns``, ``rows`` (at most `MOST_ROWS`) and whether there are ``more``.

        It can do no harm: it runs on a copy of the rows, may only read, only ``tables`` and ``sqlite_master``, may call
        only functions that give the same everywhere, and is stopped after `MOST_STEPS`.

        Args:
            sql: one ``SELECT``, or ``WITH`` or ``VALUES``.
            tables: that may be read; None: all of the schema.

        Raises:
            ToolError: it is refused or stopped, in words.
        """
        if not sql.lstrip(" \t\r\n(").lower().startswith(("select", "with", "values")):
            raise ToolError("a query is one SELECT (or WITH, or VALUES): it reads, and nothing else")
        reader = self._reader
        if reader is None:
            reader = self._reader = _connect()
            for what, most in _LIMITS:
                reader.setlimit(what, most)
            reader.text_factory = lambda b: b.decode("utf-8", "replace")
            reader.set_progress_handler(self._tick, 1000)
        allowed = frozenset(self.schema.tables if tables is None else tables)
        if not self._fresh:
            reader.set_authorizer(None)
            reader.deserialize(self._live.serialize())
            self._fresh = True
            self._allowed = ()
        if allowed != self._allowed:
            reader.set_authorizer(_reads_only(allowed))
            self._allowed = allowed
        self._ticks = 0
        try:
            cursor = reader.execute(sql)
            rows = cursor.fetchmany(MOST_ROWS + 1)
            columns = [d[0] for d in cursor.description or ()]
            cursor.close()
        except sqlite3.DatabaseError as e:
            if "interrupted" in str(e):
                raise ToolError(f"the query was stopped: it takes more than {MOST_STEPS} steps") from None
            if "not authorized" in str(e) or "prohibited" in str(e):
                raise ToolError(f"refused: {e}. A query may read {', '.join(sorted(allowed))}, and nothing else") from None
            raise ToolError(f"SQL: {e}") from None
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as e:
            raise ToolError(f"SQL: {e}") from None
        return {"columns": columns, "rows": [list(r) for r in rows[:MOST_ROWS]], "more": len(rows) > MOST_ROWS}

    def _tick(self) -> bool:
        self._ticks += 1000
        return self._ticks > MOST_STEPS

    def close(self) -> None:
        """Gives the memory back; `load` begins anew."""
        for connection in (self._connection, self._reader):
            if connection is not None:
                connection.close()
        self._connection = self._reader = self._loaded = None


def _reads_only(tables: frozenset[str]) -> Callable[..., int]:
    readable = tables | {"sqlite_master", "sqlite_schema"}

    def decide(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_OK if first in readable else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").lower() in _FUNCTIONS else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY

    return decide


class DatabaseEnv(ToolEnv):
    """A `ToolEnv` whose state is a database: tools work on ``self.db``, records and verifiers see plain rows.

    Beside scenarios: ``class Bank(DatabaseEnv, ScenarioEnv)``. A task's ``state`` and ``gold`` are `Tables`.
    """

    schema: ClassVar[Schema]
    """The tables; made once, at the module's top."""

    state: Tables

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._db = Database(self.schema)
        self._scratch = Database(self.schema)
        self._loaded: object = None

    @property
    def db(self) -> Database:
        """The database of the running episode; loaded when it is first asked for."""
        if self._loaded is not self.trajectory:
            if self._scratch.holds(self.state):  # the gold state was made from the same rows just now
                self._db, self._scratch = self._scratch, self._db
            self._db.load(self.state)
            self._loaded = self.trajectory
        return self._db

    def after(self, state: Tables, *changes: Callable[[Database], object]) -> Tables:
        """The rows after some changes, which are made as tools make them: for gold states. ``state`` stays as it was.

        Raises:
            DefinitionError: a change is refused.
        """
        self._scratch.load({name: dict(rows) for name, rows in state.items()})
        try:
            for change in changes:
                change(self._scratch)
        except ToolError as e:
            raise DefinitionError(f"{self.family}: what the gold state is made by is refused: {e}") from e
        return self._scratch.tables

    def close(self) -> None:
        """Ends the episode that runs and gives the databases' memory back."""
        super().close()
        self._loaded = None
        self._db.close()
        self._scratch.close()


class QueryEnv(DatabaseEnv):
    """A `DatabaseEnv` whose agent may read the tables with SQL of its own."""

    readable: ClassVar[Collection[str] | None] = None
    """Tables that queries may read; None: all."""

    @tool
    def query(self, sql: Annotated[str, msgspec.Meta(max_length=10_000)]) -> dict[str, Any]:
        """Reads from the database with one SELECT statement of SQLite. The tables are described in sqlite_master.

        Args:
            sql: the statement
        """
        return self.db.query(sql, tables=self.readable)
