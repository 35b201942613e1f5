# SPDX-License-Identifier: Apache-2.0
"""Rewards made of many feedbacks, constraints that hold, shaping that changes no best policy, credit that adds up."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.chat import assistant, user
from agentgym.errors import DefinitionError, UsageError
from agentgym.evaluators.compose import ConstrainedReward, Constraint, clean, gated, lexicographic, weighted
from agentgym.evaluators.credit import (
    as_delivered,
    best_of_n,
    by_potential,
    by_shares,
    kl_best_of_n,
    majority,
    majority_at_k,
    shaping,
    to_all,
    to_last,
)
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, proxy_reward, verifier, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import Trajectory, Turn

CONTEXT = VerifierContext(
    FrozenTask(
        family="test.x", version=1, variant="control", item="0", seed=None, params={}, opening=(user("?"),), tools=(),
        state=None, gold=None, hidden=None, cluster="x", tags=(),
    )
)  # fmt: skip
UNIT = st.floats(0, 1)


def says(name: str, value: Any) -> Verifier:
    @verifier(name=name)
    def fixed(trajectory: Trajectory, context: VerifierContext) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return fixed


def played(*rewards: float) -> Trajectory:
    return Trajectory(task_id="test.x/control/0", turns=[Turn(i, assistant("hm"), reward=r) for i, r in enumerate(rewards)])


def asked(v: Verifier) -> tuple[Score | None, list[Score], list[Finding]]:
    """The composed score as proxy, the components' scores, the findings."""
    scores, findings = verify([v], "proxy", played(0.0), CONTEXT)
    own = [s for s in scores if s.name == v.name]
    assert all(s.role == ("proxy" if s.name == v.name else "metric") for s in scores)
    return (own[0] if own else None), [s for s in scores if s.name != v.name], findings


def value(v: Verifier) -> float | None:
    score, _, _ = asked(v)
    assert score is not None
    return score.value


# -- composition ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(UNIT, st.floats(0.1, 9)), min_size=1, max_size=5))
def test_a_weighted_reward_is_the_weighted_mean_and_keeps_its_components(pairs: list[tuple[float, float]]) -> None:
    parts = {says(f"c{i}", v): w for i, (v, w) in enumerate(pairs)}
    score, components, _ = asked(weighted(parts))
    assert score is not None
    assert score.value == pytest.approx(sum(v * w for v, w in pairs) / sum(w for _, w in pairs))
    assert [s.value for s in components] == [v for v, _ in pairs]


def test_a_component_that_could_not_be_scored_leaves_the_whole_without_a_value_unless_declared() -> None:
    parts = [says("a", 1.0), says("b", RuntimeError("broken"))]
    score, components, _ = asked(weighted(parts))
    assert score is not None
    assert (score.value, score.status, score.flags) == (None, "unscorable", ("missing",))
    assert [(s.name, s.value) for s in components] == [("a", 1.0), ("b", None)]
    assert proxy_reward([score, *components], [weighted(parts)]) is None
    score, _, _ = asked(weighted(parts, missing="skip"))
    assert score is not None
    assert (score.value, score.flags) == (1.0, ("missing:b",))
    assert value(weighted([says("b", RuntimeError("broken"))], missing="skip")) is None


def test_a_component_that_has_nothing_to_say_is_left_out() -> None:
    assert value(weighted([says("a", 0.5), says("b", None)])) == 0.5
    assert asked(weighted([says("b", None)]))[0] is None


@pytest.mark.parametrize(("gate", "paid"), [(1.0, 0.7), (0.99, 0.0), (None, 0.7), (RuntimeError("x"), None)])
def test_a_gate_must_pass(gate: Any, paid: float | None) -> None:
    score, components, _ = asked(gated(says("format", gate), says("answer", 0.7)))
    assert score is not None
    assert score.value == paid
    assert "answer" in {s.name for s in components}  # also where the gate is closed


def test_compositions_compose() -> None:
    inner = weighted([says("a", 1.0), says("b", 0.0)], name="quality")
    outer = gated(says("safe", 1.0), inner)
    score, components, _ = asked(outer)
    assert score is not None
    assert score.value == 0.5
    assert {s.name for s in components} == {"safe", "quality", "a", "b"}


@given(st.lists(UNIT, min_size=3, max_size=3), st.lists(UNIT, min_size=3, max_size=3))
def test_a_lexicographic_reward_orders_as_its_levels_do(left: list[float], right: list[float]) -> None:
    def number(values: list[float]) -> tuple[float, list[int]]:
        score, _, _ = asked(lexicographic([says(f"c{i}", v) for i, v in enumerate(values)]))
        assert score is not None
        assert score.value is not None
        assert 0.0 <= score.value <= 1.0
        return score.value, list(score.evidence["levels"].values())

    (a, levels_a), (b, levels_b) = number(left), number(right)
    assert (a < b) == (levels_a < levels_b)
    assert (a == b) == (levels_a == levels_b)


def test_findings_become_a_feedback_and_stay_findings() -> None:
    broken = says("rules", [Finding("policy", "asked first", True, True), Finding("policy", "told", True, False, weight=3.0)])
    score, _, findings = asked(clean(broken, dimension="policy"))
    assert score is not None
    assert score.value == 0.75
    assert len(findings) == 2
    assert asked(clean(says("rules", Finding("policy", "asked first", False))))[0] is None


def test_needs_and_hashes_are_those_of_the_parts() -> None:
    asking = Verifier(lambda t, c: 1.0, "judge", frozenset({"policy"}))
    whole = weighted([asking, says("a", 1.0)])
    assert whole.needs == {"policy"}
    assert whole.hash != weighted([asking, says("a", 0.5)]).hash
    assert weighted({says("a", 1.0): 1.0}).hash != weighted({says("a", 1.0): 2.0}).hash
    assert weighted([says("a", 1.0)]).hash == weighted([says("a", 1.0)]).hash


def test_what_cannot_be_composed_is_refused() -> None:
    a, b = says("a", 1.0), says("b", 1.0)
    for wrong in (
        lambda: weighted([]),
        lambda: weighted([a, says("a", 0.0)]),
        lambda: weighted({a: 0.0}),
        lambda: weighted([a], name="a"),
        lambda: lexicographic([a, b], levels=1),
        lambda: lexicographic([says(str(i), 1.0) for i in range(40)]),
        lambda: ConstrainedReward(a, [Constraint(b, 1.5)]),
        lambda: weighted([a], missing="zero"),  # type: ignore[arg-type]
    ):
        with pytest.raises(DefinitionError):
            wrong()


# -- constraints ------------------------------------------------------------------------------------------------------


def test_multipliers_find_the_price_at_which_the_limit_is_met() -> None:
    """Two ways to act: one pays 1.0 and breaks the rule, one pays 0.6 and does not. At most a fifth may break it."""
    episode = {"reward": 0.0, "kept": 1.0}
    reward = Verifier(lambda t, c: episode["reward"], "reward")
    kept = Verifier(lambda t, c: episode["kept"], "kept")
    constrained = ConstrainedReward(reward, [Constraint(kept, limit=0.2, rate=0.05)])
    preference, rng, rates, prices = 3.0, np.random.default_rng(0), [], []
    for _ in range(1500):
        chance = 1 / (1 + math.exp(-preference))
        paid, scores = {}, {}
        for cheats in (True, False):
            episode.update(reward=1.0 if cheats else 0.6, kept=float(not cheats))
            score, components, _ = asked(constrained.verifier)
            assert score is not None
            assert score.value is not None
            paid[cheats], scores[cheats] = score.value, [score, *components]
        rates.append(constrained.update([scores[bool(c)] for c in rng.random(64) < chance])["kept"])
        prices.append(constrained.multipliers["kept"])
        preference += 4 * chance * (1 - chance) * (paid[True] - paid[False])  # the policy gradient
    assert np.mean(rates[-1000:]) == pytest.approx(0.2, abs=0.02)
    assert np.mean(prices[-1000:]) == pytest.approx(0.4, abs=0.1)  # what breaking the rule gains


def test_the_formula_is_the_documented_one_and_stands_still_between_updates() -> None:
    constrained = ConstrainedReward(says("r", 0.8), [Constraint(says("kept", 0.0), limit=0.25, rate=0.5, most=0.9)])
    assert value(constrained.verifier) == pytest.approx(0.8)
    assert constrained.update([[Score("kept", value=0.0)], [Score("kept", value=1.0)]]) == {"kept": 0.5}
    assert constrained.multipliers == {"kept": pytest.approx(0.125)}
    assert value(constrained.verifier) == pytest.approx((0.8 - 0.125 * (1.0 - 0.25)) / 1.125)
    assert value(constrained.verifier) == value(constrained.verifier)
    assert constrained.update([[Score("kept", value=None, status="unscorable")]]) == {}
    assert constrained.multipliers == {"kept": pytest.approx(0.125)}  # no measurement moves nothing
    for _ in range(20):
        constrained.update([[Score("kept", value=0.0)]])
    assert constrained.multipliers == {"kept": 0.9}
    for _ in range(20):
        constrained.update([[Score("kept", value=1.0)]])
    assert constrained.multipliers == {"kept": 0.0}


def test_a_state_is_kept_and_goes_on(tmp_path: Path) -> None:
    def make() -> ConstrainedReward:
        return ConstrainedReward(says("r", 0.8), [Constraint(says("kept", 0.0), limit=0.25)])

    first, second = make(), make()
    first.update([[Score("kept", value=0.0)]])
    first.save(tmp_path / "state.json")
    second.load(tmp_path / "state.json")
    assert second.state() == first.state()
    assert value(second.verifier) == value(first.verifier)
    for wrong in ({}, {"multipliers": {"other": 1.0}}, {"multipliers": {"kept": -1.0}}, {"multipliers": {"kept": math.nan}}):
        with pytest.raises(UsageError):
            second.restore(wrong)


# -- shaping ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), UNIT)
def test_shaping_telescopes(potentials: list[float], gamma: float) -> None:
    shaped = shaping(potentials, gamma)
    turns = len(shaped)
    total = sum(gamma**t * f for t, f in enumerate(shaped))
    assert total == pytest.approx(gamma**turns * potentials[-1] - potentials[0], abs=1e-6)
    ended = shaping(potentials, gamma, terminated=True)
    assert sum(gamma**t * f for t, f in enumerate(ended)) == pytest.approx(-potentials[0], abs=1e-6)


@given(st.integers(0, 10_000))
def test_shaping_changes_no_best_action(seed: int) -> None:
    """A random episodic process of 5 states and 3 actions: the best actions with and without are the same."""
    rng = np.random.default_rng(seed)
    states, actions, gamma = 5, 3, 0.9
    move = rng.dirichlet(np.ones(states + 1), (states, actions))  # the last one is the end
    reward = rng.normal(size=(states, actions, states + 1))
    phi = np.append(rng.normal(size=states) * 10, 123.0)
    bonus = np.array(
        [[shaping([phi[s], phi[t]], gamma, terminated=t == states)[0] for t in range(states + 1)] for s in range(states)]
    )

    def best(paid: np.ndarray) -> np.ndarray:
        q = np.zeros((states, actions))
        for _ in range(400):
            q = (move * (paid + gamma * np.append(q.max(1), 0.0))).sum(-1)
        return q

    plain, shaped = best(reward), best(reward + bonus[:, None, :])
    np.testing.assert_allclose(plain - phi[:states, None], shaped, atol=1e-6)
    assert (plain.argmax(1) == shaped.argmax(1)).all()


# -- credit -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(-10, 10), st.data())
def test_every_credit_adds_up_to_the_reward(rewards: list[float], reward: float, data: st.DataObject) -> None:
    trajectory = played(*rewards)
    n = len(rewards)
    shares = data.draw(st.lists(UNIT, min_size=n, max_size=n))
    potentials = data.draw(st.lists(st.floats(-5, 5), min_size=n + 1, max_size=n + 1))
    for credit in (to_last, to_all, as_delivered, by_shares(shares), by_potential(potentials)):
        given_ = credit(trajectory, reward)
        assert given_.shape == (n,)
        assert given_.sum() == pytest.approx(reward, abs=1e-9)


def test_credit_goes_where_it_is_due() -> None:
    trajectory = played(0.25, 0.0, 0.75)
    assert to_last(trajectory, 1.0).tolist() == [0, 0, 1]
    assert as_delivered(trajectory, 1.0).tolist() == [0.25, 0, 0.75]
    assert as_delivered(trajectory, 2.0).tolist() == [0.25, 0, 1.75]
    assert by_shares([1, 3, 0])(trajectory, 1.0).tolist() == [0.25, 0.75, 0]
    assert by_potential([0, 0.5, 0.5, 1])(trajectory, 1.0).tolist() == [0.5, 0, 0.5]
    with pytest.raises(UsageError):
        by_shares([1.0])(trajectory, 1.0)
    with pytest.raises(UsageError):
        to_last(played(), 1.0)


# -- several ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 1)), min_size=1, max_size=7), st.data())
def test_the_best_of_n_is_that_of_all_subsets(samples: list[tuple[int, float]], data: st.DataObject) -> None:
    proxy, gold = [float(p) for p, _ in samples], [g for _, g in samples]
    n = data.draw(st.integers(1, len(samples)))
    total = 0.0
    subsets = list(itertools.combinations(range(len(samples)), n))
    for subset in subsets:
        best = max(proxy[i] for i in subset)
        tied = [gold[i] for i in subset if proxy[i] == best]
        total += sum(tied) / len(tied)
    if len(set(proxy)) == len(proxy):
        assert best_of_n(proxy, gold, n) == pytest.approx(total / len(subsets))
    assert best_of_n(proxy, n=n) == pytest.approx(sum(max(proxy[i] for i in s) for s in subsets) / len(subsets))


def test_the_best_of_n_is_unbiased_for_the_policy() -> None:
    rng = np.random.default_rng(0)
    found = [best_of_n(rng.normal(size=12), n=4) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(1.0294, abs=0.03)  # the mean of the greatest of 4 standard normals


def test_ties_are_broken_evenly() -> None:
    assert best_of_n([1.0, 1.0, 1.0], [0.0, 0.3, 0.6], 3) == pytest.approx(0.3)


def test_majority() -> None:
    assert majority(["a", "b", "b", None, "a"]) == 0
    assert majority(["x", "b", "b"]) == 1
    answers, right = ["1", "2", "2", "3", None], [0.0, 1.0, 1.0, 0.0, 0.0]
    assert majority_at_k(answers, right, 1) == pytest.approx(2 / 5)
    assert majority_at_k(answers, right, 5) == 1.0
    big = (["2"] * 30 + ["1"] * 20 + ["3"] * 10, [1.0] * 30 + [0.0] * 30)
    assert majority_at_k(*big, 1) == pytest.approx(0.5)
    assert majority_at_k(*big, 15) > 0.7
    with pytest.raises(UsageError):
        majority_at_k(answers, right, 6)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_divergence_of_the_best_of_n_is_that_of_an_enumerable_policy(n: int) -> None:
    outcomes = 4000  # equally likely, all of another value: P(best <= i) = (i / outcomes)^n
    edges = (np.arange(outcomes + 1) / outcomes) ** n
    q = np.diff(edges)
    exact = float((q[q > 0] * np.log(q[q > 0] * outcomes)).sum())
    assert kl_best_of_n(n) == pytest.approx(exact, abs=1e-3)
