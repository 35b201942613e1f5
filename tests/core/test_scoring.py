# SPDX-License-Identifier: Apache-2.0
"""Scores: what verifiers may say, and that "could not be scored" never becomes a zero."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.scoring import Finding, Score, Verifier, VerifierContext, gold_value, proxy_reward, verifier, verify
from agentgym.trajectory import Trajectory
from tests.envs import Bank

TRAJECTORY = Trajectory(task_id="a/b/c")
CONTEXT = VerifierContext(Bank().freeze(Bank().make_task("0")))


def says(verdict: Any, **kwargs: Any) -> Verifier:
    return Verifier(lambda trajectory, context: verdict, "v", **kwargs)


def label(value: Any) -> str:
    return "object" if type(value) is object else repr(value)[:40]


def judged(verdict: Any, role: Any = "proxy") -> list[Score]:
    scores, _ = verify([says(verdict)], role, TRAJECTORY, CONTEXT)
    return scores


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verdict",
    [0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")]
    + [Score("", value=v) for v in (0.5, np.float32(0.5))],
    ids=repr,
)
def test_any_kind_of_number_becomes_a_plain_float(verdict: Any) -> None:
    (score,) = judged(verdict)
    assert (score.name, score.role, score.value, score.status) == ("v", "proxy", 0.5, "ok")
    assert type(score.value) is float
    msgspec.msgpack.encode(score)


@pytest.mark.parametrize("verdict", [True, np.True_, np.int64(1), 1], ids=repr)
def test_truth_is_one(verdict: Any) -> None:
    (score,) = judged(verdict)
    assert (score.value, type(score.value)) == (1.0, float)


@pytest.mark.parametrize(
    "verdict",
    [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400, "1", b"1", "", object(), 1j, [0.5, math.nan]]
    + [Score("v", value=v) for v in (math.nan, math.inf, "1")],
    ids=label,
)
def test_what_is_no_finite_number_is_unscorable_and_not_zero(verdict: Any) -> None:
    scores = judged(verdict)
    assert [(s.name, s.role, s.value, s.status, s.flags) for s in scores] == [
        ("v", "proxy", None, "unscorable", ("verifier_error",))
    ]
    assert "test_scoring.py" in scores[0].reason or "scoring.py" in scores[0].reason
    assert proxy_reward(scores, [says(0)]) is None


def test_a_verifier_that_raises_is_named_with_its_error_and_place() -> None:
    def broken(trajectory: Trajectory, context: VerifierContext) -> float:
        raise LookupError("no such \ud800 row")

    ((score,), findings) = verify([Verifier(broken)], "gold", TRAJECTORY, CONTEXT)
    assert findings == []
    assert (score.name, score.role, score.value, score.status) == ("broken", "gold", None, "unscorable")
    assert score.reason.startswith("verifier raised LookupError: no such \ufffd row (test_scoring.py:")
    assert score.verifier_hash


def test_a_broken_verifier_does_not_keep_the_others_from_judging() -> None:
    def broken(trajectory: Trajectory, context: VerifierContext) -> float:
        raise RecursionError

    scores, _ = verify([Verifier(broken), says(1.0)], "proxy", TRAJECTORY, CONTEXT)
    assert [s.value for s in scores] == [None, 1.0]
    assert proxy_reward(scores, []) is None


def test_none_means_not_applicable_and_gives_no_score() -> None:
    assert judged(None) == []
    assert proxy_reward([], []) is None
    assert gold_value([]) is None


def test_a_score_without_a_value_is_unscorable_unless_it_says_why() -> None:
    assert [judged(Score("v", value=None, status=s))[0].status for s in ("ok", "refused", "timeout", "unscorable")] == [
        "unscorable",
        "unscorable",
        "timeout",
        "unscorable",
    ]


@pytest.mark.parametrize("value", [-0.01, 1.01, 100.0])
def test_gold_outside_of_zero_and_one_is_unscorable(value: float) -> None:
    (score,) = judged(value, "gold")
    assert (score.value, score.status) == (None, "unscorable")
    assert "[0, 1]" in score.reason
    assert judged(value, "proxy")[0].value == value


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_gold_may_be_zero_and_one(value: float) -> None:
    assert judged(value, "gold")[0].value == value


def test_metrics_beside_the_main_score_stay_metrics() -> None:
    scores = judged([Score("v", value=0.5), Score("length", value=300.0)], "gold")
    assert [(s.name, s.role, s.value) for s in scores] == [("v", "gold", 0.5), ("length", "metric", 300.0)]


# -- sums -------------------------------------------------------------------------------------------------------------


def test_the_proxy_is_the_weighted_mean() -> None:
    a, b = says(1.0, weight=3.0), Verifier(lambda t, c: 0.0, "w", weight=1.0)
    scores, _ = verify([a, b], "proxy", TRAJECTORY, CONTEXT)
    assert proxy_reward(scores, [a, b]) == 0.75
    assert proxy_reward([*scores, Score("gold", "gold", 0.0), Score("m", "metric", 9.0)], [a, b]) == 0.75


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.01, 10)), min_size=1, max_size=5))
def test_the_proxy_lies_between_the_scores_it_is_made_of(pairs: list[tuple[float, float]]) -> None:
    verifiers = [Verifier(lambda t, c: 0.0, f"v{i}", weight=w) for i, (_, w) in enumerate(pairs)]
    reward = proxy_reward([Score(f"v{i}", "proxy", v) for i, (v, _) in enumerate(pairs)], verifiers)
    values = [v for v, _ in pairs]
    assert reward is not None
    assert min(values) - 1e-9 <= reward <= max(values) + 1e-9


def test_gold_is_the_least_because_all_that_is_wanted_must_hold() -> None:
    scores = [Score("a", "gold", 1.0), Score("b", "gold", 0.25), Score("p", "proxy", 0.0)]
    assert gold_value(scores) == 0.25
    assert gold_value([*scores, Score("c", "gold", None, "timeout")]) is None


# -- findings, evidence -----------------------------------------------------------------------------------------------


def test_a_violation_without_exposure_is_the_verifiers_error() -> None:
    scores, findings = verify([says(Finding("policy", "rule", exposure=False, violation=True))], "gold", TRAJECTORY, CONTEXT)
    assert findings == []
    assert "a violation without exposure" in scores[0].reason
    assert scores[0].value is None


def test_findings_of_numpy_become_plain() -> None:
    finding = Finding("policy", "rule", np.True_, np.False_, np.float64(2.0), evidence={"n": np.int64(3)})  # type: ignore[arg-type]
    _, (found,) = verify([says(finding)], "gold", TRAJECTORY, CONTEXT)
    assert (found.exposure, found.violation, found.weight, found.evidence) == (True, False, 2.0, {"n": 3})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Finding) == found


@pytest.mark.parametrize(
    "evidence", [{"n": np.array([1, 2])}, {1: {2}}, object(), "\ud800", {"a": [10**5000]}, 2**70], ids=lambda v: repr(type(v))
)
@pytest.mark.parametrize("kind", [Score, Finding])
def test_evidence_of_any_kind_never_decides_the_score_and_can_be_stored(kind: Any, evidence: Any) -> None:
    if kind is Score:
        (kept,) = judged(Score("v", value=1.0, evidence=evidence, reason="\ud800"))
        assert kept.value == 1.0
    else:
        _, (kept,) = verify([says(Finding("d", "r", True, evidence=evidence))], "gold", TRAJECTORY, CONTEXT)
    assert kept.evidence
    msgspec.json.encode(kept)


# -- hashes -----------------------------------------------------------------------------------------------------------


def closing_over(*values: Any) -> Verifier:
    @verifier
    def closed(trajectory: Trajectory, context: VerifierContext) -> float:
        return float(bool(values))

    return closed


def test_the_hash_changes_with_source_and_with_what_is_closed_over() -> None:
    def one(trajectory: Trajectory, context: VerifierContext) -> float:
        return 1.0

    def two(trajectory: Trajectory, context: VerifierContext) -> float:
        return 2.0

    def helper() -> int:
        return 1

    def other() -> int:
        return 2

    hashes = [
        Verifier(one).hash,
        Verifier(two).hash,
        *(
            closing_over(v).hash
            for v in (1, 2, "1", {1, 2}, {1, 3}, {"a": 1}, {"a": 2}, helper, other, Verifier(one), Verifier(two))
        ),
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 12 for h in hashes)
    assert Verifier(one).hash == Verifier(one).hash
    assert closing_over({"a", "b", "c"}).hash == closing_over({"c", "b", "a"}).hash


def test_the_hash_is_stable_across_processes_with_and_without_source(fresh_python: Any, tmp_path: Path) -> None:
    source = """
from agentgym.scoring import verifier

def make(words, helper):
    @verifier
    def judge(trajectory, context):
        return float(len({"alpha", "beta", "gamma"} & words) + helper() + (lambda: 1)())
    return judge

def helper():
    return 1

print(make(frozenset({"alpha", "beta", "delta", "epsilon"}), helper).hash)
print(make([object()], helper).hash)
"""
    (tmp_path / "with_source.py").write_text(source)
    for code in ("import with_source", source):
        first, second = (fresh_python(code, path=(tmp_path,), hash_seed=s) for s in ("1", "2"))
        assert first == second
        assert len(set(first.split())) == 2
