# SPDX-License-Identifier: Apache-2.0
"""A run that goes on: pace and time to go follow from the episodes on record, gold comes with an interval."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import agentgym
from agentgym.policies.oracle import OraclePolicy
from agentgym.records.live import live
from agentgym.records.run import Run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    with agentgym.evaluate("tools.retail", OraclePolicy("cheater"), limit=8, variants=["control", "tempt"], runs=root) as run:
        path = run.path
    with sqlite3.connect(path / "run.sqlite") as db:
        db.execute("UPDATE plan SET trials = 3")  # two thirds are still to be played
        db.execute(
            "UPDATE episodes SET started_at = 1000 + id, duration_s = 2, cost_usd = 0.5, gold = (id % 3) / 2.0, cluster = item"
        )
    db.close()
    return path


def test_pace_time_to_go_cost_and_gold_follow_from_what_is_on_record(path: Path) -> None:
    with Run(path) as run:
        ends = [e.started_at + e.duration_s for e in run.episodes()]
        found = live(run, now=max(ends))
        assert (found.done, found.planned) == (16, 48)
        assert found.per_s == pytest.approx(1.0)
        assert found.eta_s == pytest.approx(32.0)
        assert found.cost_usd == pytest.approx(8.0)
        golds = [e.gold for e in run.episodes() if e.gold is not None]
        assert found.gold == pytest.approx(sum(golds) / len(golds))
        assert found.low is not None
        assert found.high is not None
        assert found.gold is not None
        assert 0 <= found.low < found.gold < found.high <= 1
        hanging = live(run, now=max(ends) + 1000)
        assert hanging.per_s is not None
        assert hanging.per_s < 0.02, "a run that hangs is seen to become slower"


def test_many_clusters_give_the_interval_of_the_few_made_narrower(path: Path) -> None:
    from agentgym.records.live import _interval

    few = [(1.0, 2), (0.0, 2), (2.0, 2), (1.0, 2), (2.0, 2)]
    low, high = _interval(few * 50, 0.6)
    many_low, many_high = _interval(few * 100, 0.6)
    assert low is not None
    assert high is not None
    assert many_low is not None
    assert many_high is not None
    assert (many_high - many_low) == pytest.approx((high - low) / 2**0.5, rel=0.1)
    assert _interval([(1.0, 1)], 1.0) == (None, None)
