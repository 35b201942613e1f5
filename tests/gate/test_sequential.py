# SPDX-License-Identifier: Apache-2.0
"""Stopping early: in both directions, rarely wrongly, and never by what happened to end first."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from agentgym.errors import UsageError
from agentgym.gate.rows import INFRASTRUCTURE, Exposures, Rows
from agentgym.gate.rules import FloorRule, MetricRule, Rules, for_rows
from agentgym.gate.sequential import Sequential
from tests.gate.simulated import TODAY, suite

TASKS = 300


def place(s: Sequential, rows: Rows) -> np.ndarray:
    """Place of each row's task in the order of play."""
    at = {task: i for i, task in enumerate(s.order())}
    return np.array([at[name] for name in rows.task.names])[rows.task.codes]


def play(drop: float, seed: int, batch: int = 20) -> tuple[Sequential, Rows]:
    """An eval of 300 hand-written tasks that is looked at after every batch."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 1.0, TASKS)
    baseline, candidate = (suite(1, TASKS, 4, q, rng, by_hand=True) for q in (p, p - drop))
    s = Sequential(baseline, for_rows(Rules(), baseline, candidate), trials=4, seed=seed)
    at = place(s, candidate)
    for n in range(batch, TASKS + 1, batch):
        part = candidate.take(at < n)
        if s.feed(part) != "running":
            return s, part
    return s, candidate


def test_a_bad_candidate_is_stopped_long_before_the_end_and_a_good_one_is_passed() -> None:
    s, played = play(0.2, seed=1)
    v = s.verdict(played, today=TODAY)
    assert (s.state, v.outcome, v.exit_code) == ("regression", "regression", 1)
    assert s.clusters < 150
    assert any(c.name == "sequential" and "stopped after" in c.text for c in v.checks)
    s, played = play(-0.05, seed=2)
    v = s.verdict(played, today=TODAY)
    assert (s.state, v.outcome, v.exit_code) == ("pass", "pass", 0)
    assert s.clusters < TASKS


def test_looking_after_every_batch_errs_no_more_often_than_promised() -> None:
    runs = 40
    wrong_fail = wrong_pass = 0
    for seed in range(runs):
        s, played = play(0.0, seed=seed, batch=60)
        wrong_fail += s.verdict(played, today=TODAY).outcome == "regression"
        wrong_pass += play(0.05, seed=1000 + seed, batch=60)[0].state == "pass"
    assert wrong_fail / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong_pass / runs <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / runs)


def test_what_ends_first_waits_for_what_was_drawn_first() -> None:
    baseline = suite(1, 60, 1, 1.0, by_hand=True)
    candidate = suite(1, 60, 1, 0.0, by_hand=True)
    s = Sequential(baseline, for_rows(Rules(), baseline, candidate), trials=1)
    at = place(s, candidate)
    assert s.feed(candidate.take(at >= 1)) == "running"
    assert s.clusters == 0
    assert s.feed(candidate) == "regression"


def test_a_cluster_is_looked_at_once_all_its_trials_have_ended_whatever_their_status() -> None:
    baseline = suite(10, 3, 2, 1.0)
    s = Sequential(baseline, for_rows(Rules(), baseline, baseline), trials=2)
    at = place(s, baseline)
    status = baseline.status.copy()
    status[at < 3] = INFRASTRUCTURE
    broken = msgspec.structs.replace(baseline, status=status)
    s.feed(broken.take((at < 3) & (baseline.trial < 1)))
    assert s.clusters == 0
    s.feed(broken.take(at < 3))
    assert s.clusters == 1
    s.feed(broken.take(at < 8))
    assert s.clusters == 2


def test_batches_do_not_change_what_is_found() -> None:
    assert play(0.08, seed=5, batch=20)[0].state == play(0.08, seed=5, batch=TASKS)[0].state == "regression"


def test_clusters_are_played_whole_and_in_an_order_that_the_seed_decides() -> None:
    baseline = suite(6, 4, 1, 1.0)
    rules = for_rows(Rules(), baseline, baseline)
    orders = [Sequential(baseline, rules, trials=1, seed=seed).order() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(baseline.task.names)
    families = [t.split("/")[0] for t in orders[0]]
    assert len([f for i, f in enumerate(families) if i == 0 or families[i - 1] != f]) == 6


def test_without_a_stop_the_fixed_rule_decides_with_the_rest_of_alpha() -> None:
    baseline = suite(10, 6, 4, 0.7, np.random.default_rng(8))
    s = Sequential(baseline, for_rows(Rules(), baseline, baseline), trials=4)
    assert s.feed(baseline) == "running"
    v = s.verdict(baseline, today=TODAY)
    assert v.outcome == "pass"
    assert v.metrics[0].confidence == pytest.approx(0.94)
    assert "not stopped early" in v.checks[-1].text


def test_what_was_stopped_as_a_pass_still_fails_by_an_invariant() -> None:
    s, played = play(-0.05, seed=2)
    hit = (np.arange(len(played)) == 5).astype(np.int64)
    bad = msgspec.structs.replace(played, exposures={"exfiltration": Exposures(np.ones_like(hit), hit, hit * 1.0)})
    s.rules = for_rows(Rules(), s.baseline, bad)
    v = s.verdict(bad, today=TODAY)
    assert (s.state, v.outcome, v.exit_code) == ("pass", "invariant", 11)


def test_a_floor_that_needs_more_trials_keeps_a_pass_running_and_no_regression() -> None:
    rules = Rules(floors=(FloorRule(metric="gold", at_least=0.99),))  # takes 349 trials at alpha = .03

    def watch(level: float) -> tuple[Sequential, Rows]:
        baseline, candidate = suite(1, 400, 1, 1.0, by_hand=True), suite(1, 400, 1, level, by_hand=True)
        s = Sequential(baseline, for_rows(rules, baseline, candidate), trials=1)
        at = place(s, candidate)
        for n in range(20, 401, 20):
            if s.feed(candidate.take(at < n)) != "running":
                break
        return s, candidate.take(at < n)

    s, played = watch(1.0)
    assert (s.state, s.clusters, s.verdict(played, today=TODAY).outcome) == ("pass", 360, "pass")
    with pytest.raises(UsageError, match="It takes 349 trials"):
        Sequential(played.take(np.arange(340)), for_rows(rules, played, played), trials=1)
    s, played = watch(0.0)
    assert (s.state, s.clusters, s.verdict(played, today=TODAY).outcome) == ("regression", 20, "regression")


def test_metrics_without_bounds_cannot_be_watched() -> None:
    rows = suite(6, 4, 1, 7.0)
    with pytest.raises(UsageError, match="values from 0 to 1"):
        Sequential(rows, for_rows(Rules(), rows, rows), trials=1)
    with pytest.raises(UsageError, match="no metric of the rules"):
        Sequential(rows, for_rows(Rules(metrics={"gold": MetricRule(kind="report")}), rows, rows), trials=1)
