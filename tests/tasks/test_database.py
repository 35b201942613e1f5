# SPDX-License-Identifier: Apache-2.0
"""A database as state: rows go in and come out alike, changes are recorded, SQL of agents reads and does no harm."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import call, submit
from agentgym.env import Plan, Task, tool
from agentgym.errors import DefinitionError, ToolError
from agentgym.evaluators.state import state_equals_gold
from agentgym.scoring import VerifierContext
from agentgym.tasks.tools.database import MOST_ROWS, Database, QueryEnv, Schema, Tables

SCHEMA = Schema(
    """
    CREATE TABLE accounts (id TEXT PRIMARY KEY, owner TEXT NOT NULL, cents INTEGER NOT NULL CHECK (cents >= 0))
        STRICT, WITHOUT ROWID;
    CREATE TABLE payments (number INTEGER PRIMARY KEY, account TEXT REFERENCES accounts ON DELETE CASCADE, cents INT) STRICT;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT) STRICT;
    """
)


def rows() -> Tables:
    return {
        "accounts": {"A-1": {"owner": "Ada", "cents": 500}, "A-2": {"owner": "Bo", "cents": 0}},
        "payments": {7: {"account": "A-1", "cents": 20}},
        "secrets": {"pin": {"value": "4711"}},
    }


@pytest.fixture
def db() -> Database:
    database = Database(SCHEMA)
    database.load(rows())
    return database


class Till(QueryEnv):
    family = "test.till"
    schema = SCHEMA
    readable = ("accounts", "payments")
    gold = [state_equals_gold()]

    def new_task(self, rng: np.random.Generator) -> Task:
        state = rows()
        return Task(opening="Move 100 cents from A-1 to A-2.", state=state, gold=self.after(state, moved))

    @tool(writes=True)
    def move(self, cents: int) -> None:
        """Moves money from A-1 to A-2.

        Args:
            cents: how much
        """
        with self.db:
            self.db.execute("UPDATE accounts SET cents = cents + ? WHERE id = 'A-2'", cents)
            self.db.execute("UPDATE accounts SET cents = cents - ? WHERE id = 'A-1'", cents)

    def honest(self, task: Task) -> Plan:
        yield call("query", sql="SELECT cents FROM accounts WHERE id = 'A-1'")
        yield call("move", cents=100)
        yield submit()


def moved(db: Database) -> None:
    db.update("accounts", "A-1", cents=400)
    db.update("accounts", "A-2", cents=100)


def played(*actions: Any) -> Till:
    env = Till()
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return env


# -- as a state -------------------------------------------------------------------------------------------------------


def test_changes_are_recorded_row_by_row_and_the_end_state_is_compared_with_gold() -> None:
    env = played(call("move", cents=100), submit())
    changes = {(c.path, c.before, c.after) for c in env.trajectory.turns[0].changes}
    assert changes == {("/accounts/A-1/cents", 500, 400), ("/accounts/A-2/cents", 0, 100)}
    (score,) = Till.gold[0](env.trajectory, VerifierContext(env.frozen_task))
    assert score.value == 1.0
    env = played(call("move", cents=101), submit())
    assert Till.gold[0](env.trajectory, VerifierContext(env.frozen_task))[0].value == 0.0


def test_a_tool_that_is_refused_half_way_has_changed_nothing() -> None:
    env = played(call("move", cents=501))
    assert env.trajectory.turns[0].results[0].status == "tool_error"
    assert env.trajectory.turns[0].changes == ()
    assert env.db.value("SELECT cents FROM accounts WHERE id = 'A-2'") == 0


def test_an_episode_starts_from_its_own_rows_whatever_the_one_before_did() -> None:
    env = played(call("move", cents=100))
    env.reset(seed=0)
    assert env.db.value("SELECT cents FROM accounts WHERE id = 'A-1'") == 500
    env.step(submit())
    assert env.trajectory.state_before == env.trajectory.state_after
    env.close()
    env.reset(seed=0)
    assert env.db.value("SELECT cents FROM accounts WHERE id = 'A-1'") == 500


def test_a_row_that_is_deleted_takes_along_what_refers_to_it_and_both_are_recorded(db: Database) -> None:
    db.delete("accounts", "A-1")
    assert db.tables["payments"] == {}
    assert list(db.tables["accounts"]) == ["A-2"]


def test_what_sqlite_refuses_is_told_to_the_agent(db: Database) -> None:
    for wrong in (
        lambda: db.insert("accounts", id="A-1", owner="x", cents=1),
        lambda: db.insert("payments", number=8, account="A-9", cents=1),
        lambda: db.update("accounts", "A-1", cents=-1),
        lambda: db.update("accounts", "A-1", cents="much"),
        lambda: db.update("accounts", "A-1", cents=1 << 64),
        lambda: db.update("accounts", "A-9", cents=1),
        lambda: db.delete("accounts", "A-9"),
    ):
        with pytest.raises(ToolError):
            wrong()
    assert db.tables == rows()


def test_loading_the_same_rows_again_undoes_what_was_done_to_them(db: Database) -> None:
    for change in (lambda: db.update("accounts", "A-1", cents=1), lambda: db.delete("accounts", "A-1")):
        change()
        assert not db.holds(db.tables)
        assert db.holds(rows())
        db.load(rows())
        assert db.tables == rows()
        assert db.one("SELECT cents FROM accounts WHERE id = 'A-1'") == {"cents": 500}
        assert db.query("SELECT count(*) FROM payments")["rows"] == [[1]]
    db.__enter__()  # an episode that is left in the middle of a tool
    db.delete("payments", 7)
    db.load(rows())
    assert db.value("SELECT count(*) FROM payments") == 1
    db.update("accounts", "A-2", cents=9)
    assert db.tables["accounts"]["A-2"]["cents"] == 9


def test_rows_that_differ_in_type_or_order_alone_are_not_the_same() -> None:
    db = Database(Schema("CREATE TABLE t (id TEXT PRIMARY KEY, v ANY) STRICT"))
    for value in (1, 1.0, "1"):
        db.load({"t": {"a": {"v": value}}})
        assert type(db.value("SELECT v FROM t")) is type(value)
    for order in ("ab", "ba"):
        db.load({"t": {k: {"v": 0} for k in order}})
        assert "".join(r["id"] for r in db.all("SELECT id FROM t ORDER BY rowid")) == order


def test_references_that_are_checked_late_are_checked_where_a_tool_is_done() -> None:
    parent = "CREATE TABLE a (id TEXT PRIMARY KEY) STRICT;"
    db = Database(Schema(f"{parent} CREATE TABLE b (id TEXT PRIMARY KEY, a TEXT REFERENCES a DEFERRABLE INITIALLY DEFERRED)"))
    with pytest.raises(DefinitionError, match="FOREIGN KEY"):
        db.load({"b": {"x": {"a": "nowhere"}}})
    db.load({"b": {"x": {"a": None}}})
    with db:
        db.update("b", "x", a="later")
        db.insert("a", id="later")
    for wrong in (lambda: db.update("b", "x", a="never"), lambda: db.delete("a", "later")):
        with pytest.raises(ToolError, match="FOREIGN KEY"):
            wrong()
        assert db.tables == {"a": {"later": {}}, "b": {"x": {"a": "later"}}}
        assert db.all("SELECT * FROM b") == [{"id": "x", "a": "later"}]


def test_a_constraint_that_undoes_all_leaves_the_rows_of_before_the_tool() -> None:
    db = Database(Schema("CREATE TABLE t (id TEXT PRIMARY KEY, n INT UNIQUE ON CONFLICT ROLLBACK) STRICT, WITHOUT ROWID"))
    db.load({"t": {"a": {"n": 1}, "b": {"n": 2}}})
    db.update("t", "a", n=3)

    def both() -> None:
        with db:
            db.update("t", "a", n=4)
            db.update("t", "b", n=4)

    for wrong in (lambda: db.update("t", "b", n=3), both):
        with pytest.raises(ToolError):
            wrong()
    assert db.tables == {"t": {"a": {"n": 3}, "b": {"n": 2}}}
    assert db.all("SELECT id, n FROM t") == [{"id": "a", "n": 3}, {"id": "b", "n": 2}]
    db.update("t", "b", n=5)
    assert db.value("SELECT sum(n) FROM t") == 8


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE accounts",
        "ATTACH 'x' AS y",
        "PRAGMA user_version = 3",
        "COMMIT",
        "CREATE TABLE t (a)",
        "UPDATE nothing SET x = 1",
    ],
)
def test_tools_read_and_write_rows_and_nothing_else(db: Database, sql: str) -> None:
    with pytest.raises(DefinitionError):
        db.execute(sql)


def test_mistakes_of_authors_are_named() -> None:
    for sql, what in (
        ("CREATE TABLE t (a, b)", "primary key"),
        ("CREATE TABLE t (a, b, PRIMARY KEY (a, b))", "primary key"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", "AUTOINCREMENT"),
        ("CREATE TABLE t (", "SQLite"),
        ("CREATE TABLE t (a PRIMARY KEY); CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END", "trigger"),
    ):
        with pytest.raises(DefinitionError, match=what):
            Schema(sql)
    for wrong, what in (
        ({"nothing": {}}, "does not have"),
        ({"accounts": {"A-1": {"owner": "x"}}}, "lacks the column 'cents'"),
        ({"accounts": {"A-1": {"owner": "x", "cents": True}}}, "went in"),
        ({"accounts": {"A-1": {"owner": "x", "cents": 1, "colour": 2}}}, "went in"),
        ({"accounts": {"A-1": {"owner": "x", "cents": "1 000"}}}, "refused"),
        ({"payments": {1: {"account": "A-1", "cents": 5}}}, "refused"),
    ):
        with pytest.raises(DefinitionError, match=what):
            Database(SCHEMA).load(wrong)  # type: ignore[arg-type]


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
tables = st.dictionaries(text, st.fixed_dictionaries({"owner": text, "cents": st.integers(0, (1 << 63) - 1)}), max_size=30)


@settings(max_examples=60, deadline=None)
@given(tables, tables)
def test_rows_come_out_as_they_went_in_whatever_was_loaded_before(first: Any, second: Any) -> None:
    database = Database(SCHEMA)
    database.load({"accounts": dict(first)})
    database.load({"accounts": dict(second)})
    database.insert("accounts", id="another one, longer than the rest", owner="x", cents=1)
    del database.tables["accounts"]["another one, longer than the rest"]
    assert database.tables["accounts"] == second
    assert database.tables["payments"] == {}


# -- SQL of agents ----------------------------------------------------------------------------------------------------


def test_an_agent_reads_with_sql(db: Database) -> None:
    assert db.query("SELECT owner, cents FROM accounts ORDER BY id") == {
        "columns": ["owner", "cents"],
        "rows": [["Ada", 500], ["Bo", 0]],
        "more": False,
    }
    assert db.query("WITH t AS (SELECT sum(cents) AS s FROM accounts) SELECT s FROM t")["rows"] == [[500]]
    assert db.query("SELECT count(*) FROM sqlite_master")["rows"][0][0] >= 3
    db.update("accounts", "A-2", cents=9)
    assert db.query("SELECT cents FROM accounts WHERE id = 'A-2'")["rows"] == [[9]]


HOSTILE = [
    "DELETE FROM accounts",
    "WITH t AS (SELECT 1) DELETE FROM accounts",
    "WITH t AS (SELECT 1) INSERT INTO accounts VALUES ('x', 'y', 1)",
    "SELECT 1; DELETE FROM accounts",
    "ATTACH '/tmp/x' AS y",
    "PRAGMA user_version",
    "SELECT * FROM pragma_table_info('accounts')",
    "SELECT * FROM pragma_database_list",
    "EXPLAIN SELECT 1",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/x', 'y')",
    "SELECT random()",
    "SELECT date('now')",
    "SELECT current_timestamp",
    "SELECT sqlite_version()",
    "SELECT randomblob(1000000000)",
    "SELECT zeroblob(1000000000)",
    "SELECT printf('%.*c', 1000000000, 'x')",
    "SELECT replace(hex(printf('%.*c', 9000, 'x')), '7', printf('%.*c', 9000, 'y'))",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x FROM t WHERE x < 0",
    "SELECT * FROM accounts WHERE id LIKE '" + "%a" * 100 + "'",
    "SELECT " + "(" * 500 + "1" + ")" * 500,
    "SELECT " + "1, " * 20_000 + "1",
    "SELECT 1 \0",
    "SELECT '\ud800'",
    "VACUUM INTO '/tmp/x'",
    "SELECT * FROM json_each('[1]')",
    "SELECT * FROM dbstat",
    "SELECT * FROM secrets",
    "SELECT (SELECT value FROM secrets)",
    "SELECT * FROM accounts JOIN secrets",
    "SELECT count(*) FROM secrets",
    "SELECT",
    "",
]


@pytest.mark.parametrize("sql", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_sql_is_refused_in_words_at_a_bounded_cost_and_changes_nothing(db: Database, sql: str) -> None:
    before = time.process_time()
    with pytest.raises(ToolError):
        db.query(sql, tables=("accounts", "payments"))
    assert time.process_time() - before < 5  # CPU seconds; the endless ones take about 0.01
    assert db.query("SELECT count(*) FROM accounts")["rows"] == [[2]]
    assert db.tables == rows()


def test_many_rows_are_cut_and_said_to_be(db: Database) -> None:
    sql = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < {}) SELECT x FROM t"
    assert len(db.query(sql.format(MOST_ROWS))["rows"]) == MOST_ROWS
    assert not db.query(sql.format(MOST_ROWS))["more"]
    assert db.query(sql.format(MOST_ROWS + 1))["more"]


def test_the_query_runs_on_a_copy_so_that_even_a_query_that_may_write_changes_nothing(db: Database) -> None:
    db.query("SELECT 1")
    assert db._reader is not None
    db._reader.set_authorizer(None)
    db._reader.execute("DELETE FROM accounts")
    assert db.value("SELECT count(*) FROM accounts") == 2
    with pytest.raises(sqlite3.Error):
        db._reader.execute("ATTACH ':memory:' AS y")


def test_the_tool_shows_rows_as_json_and_only_of_readable_tables() -> None:
    env = played(call("query", sql="SELECT id FROM accounts"), call("query", sql="SELECT * FROM secrets"))
    shown = [t.observation[0].text for t in env.trajectory.turns]
    assert shown[0] == '{"columns":["id"],"rows":[["A-1"],["A-2"]],"more":false}'
    assert shown[1].startswith("error: refused")
    assert "4711" not in shown[1]
