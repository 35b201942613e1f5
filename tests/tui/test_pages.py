# SPDX-License-Identifier: Apache-2.0
"""Selections of a run: the same rows as a plain reading gives, in the order asked for, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import Message
from agentgym.errors import RecordError
from agentgym.records.run import Run
from agentgym.tui.pages import PAGE, SORTS, Episodes, Query, groups, run_info, select, stamp

texts = st.text(st.sampled_from("bankteoscr./%_\\0123TEMP"), max_size=4)


@pytest.fixture(scope="module")
def path(originals: Path) -> Path:
    for candidate in originals.iterdir():
        with Run(candidate) as run:
            if next(run.episodes(family="test.bank"), None) is not None:
                return candidate
    raise AssertionError("the bank's run is missing")


@given(texts, st.booleans(), st.sampled_from([None, "control", "tempt"]), st.sampled_from(list(SORTS)), st.booleans())
def test_a_query_selects_what_reading_everything_would(
    path: Path, text: str, failed: bool, variant: str | None, sort: str, reverse: bool
) -> None:
    query = Query(f'"{text}"', failed, None, variant, sort, reverse)
    with Run(path) as run:
        wanted = {
            e.id
            for e in run.episodes()
            if text.lower() in e.task_id.lower() and (not failed or e.gold != 1.0) and variant in (None, e.variant)
        }
    ids = select(path, query)
    assert len(ids) == len(set(ids))
    assert set(ids) == wanted


def test_rows_are_the_episodes_in_the_order_of_their_numbers_whatever_that_is(path: Path) -> None:
    with Run(path) as run:
        backwards = sorted((e.id for e in run.episodes()), reverse=True)
        rows = Episodes(run, backwards)
        assert [rows.row(i).id for i in range(len(rows))] == backwards  # type: ignore[union-attr]
        assert [e.id for e in run.by_ids([*backwards, 10**9])] == backwards, "what is not on record is left out"
        assert rows.place(backwards[3]) == 3
        assert rows.place(10**9) is None
        assert Episodes(run, [10**9]).row(0) is None
        assert run.by_ids([]) == []


def test_many_numbers_are_read_in_several_statements(path: Path) -> None:
    with Run(path) as run:
        ids = list(run.ids())
        assert [e.id for e in run.by_ids(ids * 200)] == ids * 200
        assert list(run.ids(limit=3)) == ids[:3]
        assert (
            list(run.ids("variant = ?", ("tempt",), "id DESC", 2))
            == [e.id for e in reversed(list(run.episodes())) if e.variant == "tempt"][:2]
        )
        assert PAGE < 500


def test_of_a_retried_episode_only_the_last_attempt_is_a_row(tmp_path: Path) -> None:
    import agentgym
    from agentgym.chat import call, submit
    from agentgym.policies.oracle import ScriptedPolicy
    from tests.envs import Bank

    def plan(context: Any) -> list[Message]:
        return [submit()] if context.task_id.endswith("/0") else [call("outage")]

    run = agentgym.evaluate(Bank, ScriptedPolicy(plan), limit=2, retries=1, runs=tmp_path)
    with run:
        assert len(list(run.episodes(all_attempts=True))) > len(list(run.episodes()))
        assert list(run.ids()) == [e.id for e in run.episodes()] == list(run.ids(limit=10))
        assert (groups(run.path)[0].episodes, groups(run.path)[0].errors) == (2, 1)


def test_groups_add_up(path: Path) -> None:
    whole, family, *variants = groups(path)
    assert (whole.label, family.label, [v.label for v in variants]) == ("all", "test.bank", ["  control", "  tempt"])
    with Run(path) as run:
        played = list(run.episodes())
    for group in (whole, family, *variants):
        mine = [e for e in played if group.variant in (None, e.variant)]
        golds = [e.gold for e in mine if e.gold is not None]
        assert group.episodes == len(mine)
        assert group.gold == pytest.approx(sum(golds) / len(golds))
        assert group.solved == sum(g == 1 for g in golds)
        assert group.violations == sum(e.violations > 0 for e in mine)
        assert group.errors == sum(e.outcome == "infrastructure" for e in mine)


def test_another_connections_commit_changes_the_data_version(path: Path) -> None:
    import sqlite3

    with Run(path) as run:
        before = run.data_version
        assert run.data_version == before
        db = sqlite3.connect(path / "run.sqlite")
        seen = stamp(path)
        with db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('note', '1')")
        assert stamp(path) != seen
        db.close()
        assert run.data_version != before


def test_a_run_that_cannot_be_read_is_a_row_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"nonsense")
    info = run_info(tmp_path)
    assert info.status == "damaged"
    assert "cannot be read as a run" in info.problem
    assert run_info(tmp_path / "gone").problem
    with pytest.raises(RecordError):
        groups(tmp_path)
