# SPDX-License-Identifier: Apache-2.0
"""The decision: each outcome, in its order, and what must not be mistaken for another."""

from __future__ import annotations

import datetime
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from agentgym.errors import DataError, UsageError
from agentgym.gate.rows import INFRASTRUCTURE, OK, SKIPPED, UNSCORABLE, Exposures, Rows
from agentgym.gate.rules import FloorRule, Known, MetricRule, Quarantine, Rules, TwinRule
from agentgym.gate.verdict import Verdict
from tests.gate.simulated import gate, suite

LATER, BEFORE = datetime.date(2026, 2, 1), datetime.date(2025, 12, 31)


def change(rows: Rows, **columns: Any) -> Rows:
    return msgspec.structs.replace(rows, **columns)


def texts(verdict: Verdict, name: str) -> str:
    return " | ".join(c.text for c in verdict.checks if c.name == name)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def chances() -> np.ndarray:
    return np.random.default_rng(2).beta(1.2, 0.6, 300)


# -- the plain cases -----------------------------------------------------------------------------------------------------


def test_a_run_against_itself_passes_even_with_three_clusters() -> None:
    rows = suite(3, 10, 2, 1.0)
    v = gate(rows, rows)
    assert (v.outcome, v.exit_code) == ("pass", 0)
    assert (v.metrics[0].low, v.metrics[0].high, v.metrics[0].method) == (0.0, 0.0, "constant")


def test_a_model_that_is_worse_everywhere_is_a_regression(rng: np.random.Generator, chances: np.ndarray) -> None:
    v = gate(suite(20, 15, 4, chances, rng), suite(20, 15, 4, chances * 0.8, rng))
    assert (v.outcome, v.exit_code) == ("regression", 1)
    r = v.metrics[0]
    assert r.baseline is not None
    assert r.candidate is not None
    assert r.low is not None
    assert r.high is not None
    assert r.candidate - r.baseline == pytest.approx(r.diff)
    assert r.low < r.candidate - r.baseline < r.high < 0
    assert v.summary.startswith("REGRESSION: gold 0.")
    assert v.flips.harmful > v.flips.beneficial
    assert v.flips.worst[0].address.startswith("run::")


def test_a_family_that_fails_a_fifth_more_is_named_though_the_suite_hardly_moves(rng: np.random.Generator) -> None:
    before = np.full(600, 0.9)
    after = np.r_[np.full(60, 0.7), np.full(540, 0.9)]
    v = gate(suite(10, 60, 4, before, rng), suite(10, 60, 4, after, rng))
    assert (v.outcome, v.exit_code) == ("regression", 1)
    assert [f.family for f in v.families if f.outcome == "regression"] == ["t.f00"]
    assert "in t.f00" in v.summary
    assert v.metrics[0].outcome != "regression"


def test_worse_within_the_margin_is_tolerated() -> None:
    rng = np.random.default_rng(3)
    rows = suite(40, 15, 8, 0.7, rng)
    drop = np.where(rng.random(len(rows)) < 0.04, 0.0, rows.metrics["gold"])
    v = gate(rows, change(rows, metrics={"gold": drop}), Rules(metrics={"gold": MetricRule(margin=0.1)}))
    assert (v.outcome, v.exit_code) == ("tolerated", 0)


def test_too_little_data_is_inconclusive_and_says_how_much_more_is_needed() -> None:
    rng = np.random.default_rng(4)
    before, after = suite(10, 3, 2, 0.6, rng), suite(10, 3, 2, 0.6, rng)
    v = gate(before, after)
    assert (v.outcome, v.exit_code) == ("inconclusive", 10)
    assert v.metrics[0].needed is not None
    assert v.metrics[0].needed > 10
    warn = gate(before, after, Rules(on_inconclusive="warn"))
    assert (warn.outcome, warn.exit_code) == ("inconclusive", 0)


@pytest.mark.parametrize("clusters", [1, 2, 3, 4])
def test_fewer_than_five_clusters_are_never_a_regression_of_the_suite(clusters: int) -> None:
    v = gate(suite(clusters, 5, 2, 1.0), suite(clusters, 5, 2, 0.0))
    assert (v.outcome, v.exit_code) == ("inconclusive", 10)
    assert "fewer than 5" in v.metrics[0].reason


def test_a_hand_written_task_is_a_cluster_of_its_own() -> None:
    v = gate(suite(1, 6, 1, 1.0, by_hand=True), suite(1, 6, 1, 0.0, by_hand=True))
    assert (v.outcome, v.metrics[0].clusters) == ("regression", 6)


def test_few_clusters_pass_where_each_family_passes_on_its_own_tasks() -> None:
    rng = np.random.default_rng(5)
    rows = suite(2, 200, 4, 0.9, rng)
    v = gate(rows, suite(2, 200, 4, 0.9, rng))
    assert v.outcome == "pass"
    assert v.metrics[0].method == "families"
    worse = suite(2, 200, 4, np.r_[np.full(200, 0.9), np.full(200, 0.8)], rng)
    assert gate(rows, worse).outcome == "regression"


def test_lower_is_better_for_metrics_that_say_so() -> None:
    rules = Rules(metrics={"gold": MetricRule(direction="lower")})
    low, high = suite(8, 3, 2, 0.1), suite(8, 3, 2, 0.4)
    assert gate(low, high, rules).outcome == "regression"
    better = gate(high, low, rules)
    assert better.outcome == "pass"
    assert better.metrics[0].diff == pytest.approx(-0.3)
    noisy = gate(suite(8, 9, 4, 0.3, np.random.default_rng(6)), suite(8, 9, 4, 0.5, np.random.default_rng(7)), rules).metrics[0]
    assert noisy.low is not None
    assert noisy.high is not None
    assert noisy.diff is not None
    assert noisy.low < noisy.diff < noisy.high


def test_equal_rows_give_equal_bytes(rng: np.random.Generator, chances: np.ndarray) -> None:
    before, after = suite(20, 15, 2, chances, rng), suite(20, 15, 2, chances, rng)
    assert gate(before, after).encode() == gate(before, after).encode()


# -- trials that are missing -----------------------------------------------------------------------------------------------


def test_missing_trials_are_never_zeros(rng: np.random.Generator) -> None:
    rows = suite(20, 15, 4, 1.0)
    status = rows.status.copy()
    status[rng.choice(len(rows), 24, replace=False)] = INFRASTRUCTURE
    half = change(rows, status=status, metrics={"gold": np.where(status == OK, 1.0, np.nan)})
    v = gate(half, half)
    assert v.outcome == "pass"
    assert v.metrics[0].candidate == 1.0
    assert v.candidate.infrastructure == 24


def test_unequal_trials_are_compared_by_task_means() -> None:
    rng = np.random.default_rng(8)
    chance = rng.beta(1.2, 0.6, 300)
    v = gate(suite(20, 15, 16, chance, rng), suite(20, 15, 4, chance, rng))
    assert v.outcome == "pass"
    assert (v.metrics[0].trials, v.metrics[0].tasks, v.metrics[0].exposures) == (4, 300, 1200)


def test_infrastructure_errors_above_the_limit_are_coverage_and_never_a_pass() -> None:
    rows = suite(10, 10, 4, 1.0)
    for share, outcome in ((0.04, "pass"), (0.06, "coverage")):
        status = rows.status.copy()
        status[: round(share * len(rows))] = INFRASTRUCTURE
        broken = change(rows, status=status)
        v = gate(broken if outcome == "pass" else rows, broken)
        assert (v.outcome, v.exit_code) == (outcome, 0 if outcome == "pass" else 12)
    assert "24 of 400 trials of the candidate (6.0%)" in texts(v, "coverage")
    assert not v.metrics
    assert gate(broken, rows).outcome == "coverage"  # a baseline that is half there is no baseline


@pytest.mark.parametrize("kind", ["infrastructure", "unscorable", "nan", "never played"])
def test_trials_that_are_missing_in_one_arm_only_are_coverage_below_the_limit_too(kind: str) -> None:
    rows = suite(10, 20, 4, 1.0)
    some = np.arange(24)  # 3 %
    status, gold, planned = rows.status.copy(), rows.metrics["gold"].copy(), None
    candidate = rows
    if kind == "nan":
        gold[some] = math.nan
    elif kind == "never played":
        candidate, planned = rows.take(np.arange(24, len(rows))), len(rows)
        status, gold = candidate.status, candidate.metrics["gold"]
    else:
        status[some] = INFRASTRUCTURE if kind == "infrastructure" else UNSCORABLE
    origin = msgspec.structs.replace(rows.origin, planned=planned)
    v = gate(rows, change(candidate, status=status, metrics={"gold": gold}, origin=origin))
    assert (v.outcome, v.exit_code) == ("coverage", 12)
    assert "24 of 800 trials of the candidate and 0 of 800 of the baseline" in texts(v, "coverage")


def test_a_run_that_stopped_halfway_is_coverage_and_not_another_suite() -> None:
    rows = suite(10, 20, 4, 1.0)
    half = rows.take(np.arange(len(rows) // 2))
    stopped = change(half, origin=msgspec.structs.replace(half.origin, planned=len(rows)))
    assert gate(rows, stopped).outcome == "coverage"
    assert gate(rows, half).outcome == "incompatible"


def test_where_nothing_could_be_played_the_verdict_is_neither_red_nor_green() -> None:
    rows = suite(6, 5, 1, 1.0)
    skipped = change(rows, status=np.full(len(rows), SKIPPED, dtype=np.uint8), metrics={"gold": np.full(len(rows), np.nan)})
    v = gate(rows, skipped)
    assert (v.outcome, {t.outcome for t in v.tasks}) == ("inconclusive", {"skipped"})
    assert gate(rows, skipped, Rules(on_inconclusive="warn")).exit_code == 0


# -- compatibility -----------------------------------------------------------------------------------------------------------


def hashes(rows: Rows, of_task: list[str]) -> Rows:
    from agentgym.gate.rows import Codes

    return change(rows, env_hash=Codes.of([of_task[c] for c in rows.task.codes]))


def test_only_unchanged_tasks_are_compared_and_too_few_of_them_are_incompatible() -> None:
    rows = suite(10, 10, 2, 1.0)
    before = hashes(rows, ["a"] * 100)
    lost = change(rows, metrics={"gold": np.where(rows.task.codes < 15, 0.0, 1.0)})
    v = gate(before, hashes(lost, ["b"] * 15 + ["a"] * 85))
    assert (v.outcome, v.metrics[0].tasks) == ("pass", 85)
    assert "15 changed" in texts(v, "compatibility")
    v = gate(before, hashes(lost, ["b"] * 21 + ["a"] * 79))
    assert (v.outcome, v.exit_code) == ("incompatible", 13)
    assert gate(rows, hashes(lost, ["b"] * 100)).outcome != "incompatible"  # a source that does not say counts as unchanged


def test_tasks_that_the_baseline_lacks_are_told_and_not_compared() -> None:
    v = gate(suite(10, 10, 2, 1.0), suite(11, 10, 2, np.r_[np.ones(100), np.zeros(10)]))
    assert v.outcome == "pass"
    assert "10 new" in texts(v, "compatibility")
    assert sum(t.outcome == "new" for t in v.tasks) == 10


def test_no_task_in_common_is_incompatible() -> None:
    rows = suite(2, 5, 1, 1.0)
    renamed = change(rows, task=rows.task._replace(names=tuple(n + "x" for n in rows.task.names)))
    assert gate(rows, renamed).exit_code == 13


# -- invariants --------------------------------------------------------------------------------------------------------------


def exposed(rows: Rows, violations: np.ndarray, name: str = "exfiltration") -> Rows:
    n = len(rows)
    return change(rows, exposures={name: Exposures(np.ones(n, dtype=np.int64), violations.astype(np.int64), violations * 1.0)})


def test_one_violation_where_the_baseline_had_none_is_exit_11() -> None:
    rows = suite(10, 10, 2, 1.0)
    clean, one = exposed(rows, np.zeros(200)), exposed(rows, np.arange(200) == 7)
    v = gate(clean, one)
    assert (v.outcome, v.exit_code) == ("invariant", 11)
    assert (v.flagged[0].address, v.flagged[0].level, v.flagged[0].known) == (one.address.at(7), "error", False)
    assert gate(clean, clean).outcome == "pass"
    assert "violations at most 1.5%" in texts(gate(clean, clean), "invariant")


def test_a_violation_counts_even_if_the_trial_broke_afterwards() -> None:
    rows = suite(10, 10, 2, 1.0)
    one = exposed(rows, np.arange(200) == 7)
    status = rows.status.copy()
    status[7] = INFRASTRUCTURE
    assert gate(exposed(rows, np.zeros(200)), change(one, status=status)).outcome == "invariant"


def test_violations_that_the_baseline_has_too_fail_only_when_they_become_more_frequent() -> None:
    rows = suite(10, 10, 2, 1.0)
    before = exposed(rows, np.arange(200) < 4)
    same = gate(before, exposed(rows, np.arange(200) < 5))
    assert same.outcome == "pass"
    assert "not yet under [[known]]" in texts(same, "invariant")
    assert gate(before, exposed(rows, np.arange(200) < 20)).outcome == "invariant"


@pytest.mark.parametrize(("expires", "outcome"), [(LATER, "pass"), (BEFORE, "invariant")])
def test_a_known_violation_is_known_until_its_day(expires: datetime.date, outcome: str) -> None:
    rows = suite(10, 10, 2, 1.0)
    before = exposed(rows, np.arange(200) < 2)
    known = Known(task=rows.task.at(0), rule="exfiltration", owner="ann", expires=expires)
    assert gate(before, before, Rules(known=(known,))).outcome == outcome


def test_coverage_comes_before_invariants_and_compatibility_before_both() -> None:
    rows = suite(10, 10, 2, 1.0)
    clean, one = exposed(rows, np.zeros(200)), exposed(rows, np.arange(200) == 150)
    status = rows.status.copy()
    status[:40] = INFRASTRUCTURE
    broken = change(one, status=status)
    v = gate(clean, broken)
    assert (v.exit_code, [c.outcome for c in v.checks if c.name == "invariant"]) == (12, ["fail"])
    assert gate(clean, broken.take(np.arange(100))).exit_code == 13


def test_an_invariant_score_may_not_get_worse_on_a_single_task() -> None:
    rules = Rules(metrics={"gold": MetricRule(kind="invariant")})
    rows = suite(10, 10, 2, 1.0)
    worse = change(rows, metrics={"gold": np.where(np.arange(200) == 3, 0.0, 1.0)})
    assert (gate(rows, worse, rules).exit_code, gate(worse, rows, rules).exit_code) == (11, 0)


# -- cached replies ----------------------------------------------------------------------------------------------------------


def test_replayed_trials_neither_hide_a_drop_nor_add_to_the_variance() -> None:
    rng = np.random.default_rng(9)
    before = suite(30, 10, 10, 0.8, rng)
    cached = before.trial < 4  # 40 %
    fresh = suite(30, 10, 10, 0.7, rng)
    candidate = change(fresh, metrics={"gold": np.where(cached, before.metrics["gold"], fresh.metrics["gold"])}, cached=cached)
    r = gate(before, candidate).metrics[0]
    expected = gate(before.take(~cached), fresh.take(~cached)).metrics[0]
    assert (r.diff, r.low, r.high) == (expected.diff, expected.low, expected.high)


def test_more_than_half_replayed_is_inconclusive_whatever_the_numbers_say() -> None:
    rows = suite(10, 10, 4, 1.0)
    v = gate(rows, change(rows, cached=rows.trial < 3))
    assert (v.outcome, v.exit_code) == ("inconclusive", 10)
    assert "75% of the candidate's trials were replayed" in v.metrics[0].reason
    assert gate(rows, change(rows, cached=rows.trial < 2)).outcome == "pass"


# -- quarantine, model drift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires", "proof", "counts"), [(LATER, ("a", "b"), False), (BEFORE, ("a", "b"), True), (LATER, ("a", "a"), True)]
)
def test_only_proven_nondeterminism_is_quarantined_and_only_until_it_expires(
    expires: datetime.date, proof: tuple[str, ...], counts: bool
) -> None:
    rows = suite(8, 5, 1, 1.0)
    q = Quarantine(task=rows.task.names[0], owner="ann", expires=expires, proof=proof)
    v = gate(rows, rows, Rules(quarantine=(q,)))
    assert v.metrics[0].tasks == 40 - (not counts)
    assert (v.tasks[0].outcome == "quarantined") is not counts
    assert any("quarantine" in w for w in v.warnings)


def test_another_model_behind_the_same_name_is_a_warning() -> None:
    rows = suite(8, 5, 1, 1.0)
    from agentgym.gate.rows import Codes

    old, new = (change(rows, fingerprint=Codes.of([f"model@{n}"] * len(rows))) for n in (1, 2))
    v = gate(old, new)
    assert v.outcome == "pass"
    assert any("--canary" in w for w in v.warnings)
    assert not gate(old, old).warnings


def test_arms_that_were_sampled_differently_are_a_warning() -> None:
    rows = suite(8, 5, 1, 1.0)
    cold, warm = (change(rows, origin=msgspec.structs.replace(rows.origin, sampling={"temperature": t})) for t in (0.0, 1.0))
    assert "sampled differently" in gate(cold, warm).warnings[0]
    assert not gate(cold, cold).warnings


def test_many_unscorable_trials_in_both_arms_are_told() -> None:
    rows = suite(8, 5, 4, 1.0)
    status = np.where(np.arange(160) % 8 == 0, UNSCORABLE, OK).astype(np.uint8)
    half = change(rows, status=status)
    assert [c.outcome for c in gate(half, half).checks if c.name == "coverage"] == ["warn"]


def test_a_canary_tells_a_model_that_drifted_from_code_that_is_worse() -> None:
    rng = np.random.default_rng(10)
    baseline = suite(20, 15, 8, 0.9, rng)
    canary, same = suite(20, 15, 8, 0.7, rng), suite(20, 15, 8, 0.7, rng)
    assert gate(baseline, same).outcome == "regression"
    v = gate(baseline, same, canary=canary)
    assert v.outcome == "pass"
    assert any("the model drifted" in w for w in v.warnings)
    assert gate(baseline, suite(20, 15, 8, 0.5, rng), canary=canary).outcome == "regression"
    still = gate(baseline, suite(20, 15, 8, 0.9, rng), canary=suite(20, 15, 8, 0.9, rng))
    assert "no drift" in texts(still, "canary")
    with pytest.raises(UsageError, match="the canary played 15 of the 300 tasks"):
        gate(baseline, same, canary=canary.take(canary.family.codes == 0))


# -- twins -------------------------------------------------------------------------------------------------------------------


def twins(tempted: Any, plain: Any, rng: np.random.Generator | None = None) -> Rows:
    from agentgym.gate.rows import Origin, columns

    parts: dict[str, list[Any]] = {"task": [], "variant": [], "twin_of": [], "family": [], "score": []}
    for f in range(10):
        for i in range(6):
            for variant, level in (("control", plain), ("tempt", tempted)):
                control = f"t.f{f}/control/{i}"
                parts["task"].append(f"t.f{f}/{variant}/{i}")
                parts["variant"].append(variant)
                parts["twin_of"].append("" if variant == "control" else control)
                parts["family"].append(f"t.f{f}")
                parts["score"].append(level if rng is None else float(rng.random() < level))
    score = parts.pop("score")
    task = parts.pop("task")
    return columns(Origin(), task=task, trial=[0] * 120, metrics={"gold": score}, cluster=parts["family"], **parts)


def test_a_temptation_that_works_better_than_before_is_a_regression_of_the_contrast() -> None:
    rules = Rules(metrics={"gold": MetricRule(kind="report")}, twins=(TwinRule(metric="gold", variant="tempt"),))
    v = gate(twins(0.9, 0.9), twins(0.6, 0.9), rules)
    assert v.outcome == "regression"
    assert (v.twins[0].contrast, v.twins[0].diff) == ("tempt-control", pytest.approx(-0.3))
    both = gate(twins(0.9, 0.9), twins(0.6, 0.6), rules)  # worse at everything is not worse under temptation
    assert (both.outcome, both.twins[0].diff) == ("pass", pytest.approx(0.0))


@pytest.mark.parametrize(("families", "outcome"), [(1, "regression"), (3, "inconclusive"), (10, "regression")])
def test_a_contrast_over_few_families_is_no_claim_but_one_family_is_judged_on_its_pairs(families: int, outcome: str) -> None:
    rules = Rules(metrics={"gold": MetricRule(kind="report")}, twins=(TwinRule(metric="gold", variant="tempt"),))
    before, after = twins(1.0, 1.0), twins(0.0, 1.0)
    few = before.family.codes < families
    assert gate(before.take(few), after.take(few), rules).outcome == outcome


def test_twins_that_nobody_played_are_inconclusive() -> None:
    rules = Rules(metrics={"gold": MetricRule(kind="report")}, twins=(TwinRule(metric="gold", variant="cue"),))
    v = gate(twins(1.0, 1.0), twins(1.0, 1.0), rules)
    assert (v.outcome, v.exit_code) == ("inconclusive", 10)
    assert "no twins" in v.twins[0].reason


# -- floors ------------------------------------------------------------------------------------------------------------------


def test_a_floor_is_kept_broken_or_undecided_by_the_exact_bound() -> None:
    rows = suite(6, 20, 1, 1.0)

    def floor(ones: int, **bound: Any) -> str:
        some = change(rows, metrics={"gold": (np.arange(120) < ones) * 1.0})
        return gate(some, some, Rules(floors=(FloorRule(metric="gold", **bound),))).outcome

    assert floor(120, at_least=0.97) == "pass"
    assert floor(100, at_least=0.97) == "regression"
    assert floor(116, at_least=0.97) == "inconclusive"
    assert floor(0, at_most=0.03) == "pass"
    assert floor(20, at_most=0.03) == "regression"


def test_a_floor_that_no_result_could_reach_is_an_error_before_anything_is_judged() -> None:
    rows = suite(6, 5, 1, 1.0)
    with pytest.raises(UsageError, match="It takes 299 trials"):
        gate(rows, rows, Rules(floors=(FloorRule(metric="gold", at_least=0.99),)))
    stopped = change(rows, origin=msgspec.structs.replace(rows.origin, planned=400))
    assert gate(rows, stopped, Rules(floors=(FloorRule(metric="gold", at_least=0.99),))).outcome == "coverage"


def test_a_floor_of_one_family_looks_at_that_family_only() -> None:
    rows = suite(6, 40, 1, np.repeat([0.0, 1, 1, 1, 1, 1], 40))
    for family, outcome in (("t.f00", "regression"), ("t.f01", "pass"), ("t", "regression")):
        rule = FloorRule(metric="gold", at_least=0.9, family=family)
        assert gate(rows, rows, Rules(floors=(rule,))).outcome == outcome


def test_a_floor_of_scores_between_0_and_1_resamples_tasks() -> None:
    rng = np.random.default_rng(11)
    rows = suite(6, 20, 2, rng.uniform(0.5, 0.7, 120))
    for bound, outcome in ((0.55, "pass"), (0.65, "regression"), (float(rows.metrics["gold"].mean()), "inconclusive")):
        assert gate(rows, rows, Rules(floors=(FloorRule(metric="gold", at_least=bound),))).outcome == outcome


# -- odd numbers ---------------------------------------------------------------------------------------------------------------


def test_metrics_that_are_reported_decide_nothing() -> None:
    rows = suite(8, 5, 2, 1.0)
    worse = change(rows, metrics={"gold": rows.metrics["gold"], "speed": np.zeros(len(rows))})
    before = change(rows, metrics={"gold": rows.metrics["gold"], "speed": np.full(len(rows), 900.0)})
    v = gate(before, worse)
    assert v.outcome == "pass"
    assert [(r.metric, r.outcome, r.diff) for r in v.metrics] == [("gold", "pass", 0.0), ("speed", "report", -900.0)]


def test_an_infinite_score_is_refused_where_it_stands() -> None:
    rows = suite(8, 5, 2, 1.0)
    with pytest.raises(DataError, match=r"gold of the candidate is infinite in run::t.f00/control/1/1"):
        gate(rows, change(rows, metrics={"gold": np.where(np.arange(80) == 3, math.inf, 1.0)}))


def test_too_few_exposures_are_inconclusive() -> None:
    rows = suite(8, 5, 2, 1.0)
    rules = Rules(metrics={"gold": MetricRule(min_exposure=100)})
    v = gate(rows, rows, rules)
    assert (v.outcome, v.metrics[0].reason) == ("inconclusive", "80 trials with a value, fewer than min_exposure = 100")


def test_a_claim_among_many_is_corrected_and_says_so() -> None:
    rng = np.random.default_rng(12)
    noise = rng.normal(0, 1, 30)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    d = 0.05 * noise - 0.05 * 1.9 / math.sqrt(30)  # t = -1.9: p = .034
    before = suite(30, 1, 1, 0.5)
    names = ["gold", "b", "c"]
    after = change(before, metrics={"gold": 0.5 + d, "b": np.full(30, 0.5), "c": np.full(30, 0.5)})
    base = change(before, metrics={n: np.full(30, 0.5) for n in names})
    alone = gate(base, after, Rules(metrics={"gold": MetricRule(margin=0.01)}))
    assert alone.outcome == "regression"
    among = gate(base, after, Rules(metrics={n: MetricRule(margin=0.01) for n in names}))
    assert among.outcome == "inconclusive"
    assert "not among all that was tested" in among.metrics[0].reason
