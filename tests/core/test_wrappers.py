# SPDX-License-Identifier: Apache-2.0
"""Rewards that are delayed, sparse, noisy, biased, shifting or a proxy: what is delivered, and that the truth is kept."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit, TransformReward
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import call, submit
from agentgym.env import ChatEnv, Task
from agentgym.episode import EpisodeResult, Limits, play
from agentgym.errors import UsageError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.scoring import VerifierContext, verifier
from agentgym.trajectory import Trajectory
from agentgym.wrappers import (
    BiasReward,
    DelayReward,
    NoiseReward,
    ProxyGold,
    RewardChange,
    ShiftReward,
    SparseReward,
    length_bias,
)
from tests.envs import Bank, Guess


class Paid(ChatEnv):
    """Pays each turn what it is asked for, ends on 'end'."""

    family = "test.paid"
    max_turns = 20

    def new_task(self, rng: np.random.Generator) -> Task:
        return Task(opening="How much?")

    def respond(self, message: Any) -> str | None:
        if message.text == "end":
            return None
        self.pay(float(message.text))
        return "paid"


def rewards(env: Any, *amounts: float, options: dict[str, Any] | None = None) -> list[float]:
    env.reset(seed=1, options=options)
    told = [env.step(str(a))[1] for a in amounts]
    return [*told, env.step("end")[1]]


def played(env: Any, *actions: Any, limits: Limits | None = None, trial: int = 0) -> EpisodeResult:
    core = env.unwrapped
    return asyncio.run(play(env, core.make_task("1"), ScriptedPolicy(list(actions)), limits=limits, trial=trial))


# -- what is delivered ---------------------------------------------------------------------------------------------------


def test_a_delayed_reward_comes_so_many_turns_later_and_what_is_owed_comes_at_the_end() -> None:
    assert rewards(DelayReward(Paid(), 2), 1, 2, 3, 4) == [0, 0, 1, 2, 7]
    assert rewards(DelayReward(Paid(), 0), 1, 2) == [1, 2, 0]


def test_a_sparse_reward_comes_at_the_end_alone() -> None:
    assert rewards(SparseReward(Paid()), 1, 2, 3) == [0, 0, 0, 6]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3)), max_size=8), st.integers(0, 10))
def test_nothing_that_was_earned_is_lost_by_delay(amounts: list[float], turns: int) -> None:
    for env in (DelayReward(Paid(), turns), SparseReward(Paid())):
        assert math.fsum(rewards(env, *amounts)) == pytest.approx(math.fsum(amounts), abs=1e-9)


def test_noise_is_the_same_for_the_same_trial_and_another_for_the_next() -> None:
    env = NoiseReward(Paid(), std=1.0, every=True)
    first = rewards(env, 0, 0, options={"trial": 0, "item": "1"})
    assert first == rewards(NoiseReward(Paid(), std=1.0, every=True), 0, 0, options={"trial": 0, "item": "1"})
    assert len({*first, *rewards(env, 0, 0, options={"trial": 1, "item": "1"})}) == 6
    assert first != rewards(NoiseReward(Paid(), std=1.0, every=True, seed=2), 0, 0, options={"trial": 0, "item": "1"})


def test_noise_has_the_rate_and_the_spread_that_were_asked_for() -> None:
    flips = [played(NoiseReward(Guess(), flip=0.25), "0", trial=t, limits=Limits(turns=1)).reward for t in range(400)]
    assert set(flips) <= {0.0, 1.0}
    assert abs(np.mean(flips) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
    env = NoiseReward(Paid(), std=2.0, every=True)
    drawn = [r for t in range(60) for r in rewards(env, *[0] * 9, options={"trial": t, "item": "1"})]
    assert np.std(drawn) == pytest.approx(2.0, rel=0.15)
    assert abs(np.mean(drawn)) < 4 * 2 / math.sqrt(len(drawn))


def test_only_rewards_between_0_and_1_are_flipped() -> None:
    assert rewards(NoiseReward(Paid(), flip=1.0, every=True), 1, 0.25, -3, 7) == [0, 0.75, -3, 7, 1]


def test_a_length_bias_pays_words_up_to_a_limit() -> None:
    env = BiasReward(Guess(), length_bias(0.1, most=0.25))
    env.reset(seed=1)
    assert env.step("I do not know")[1] == pytest.approx(0.25)
    assert env.step("no")[1] == pytest.approx(0.1)


def test_a_shift_changes_the_rule_between_episodes_and_never_within_one() -> None:
    env = ShiftReward(Paid(), lambda r, progress: r if progress < 1 else -r)
    assert rewards(env, 1) == [1, 0]
    assert rewards(env, 1) == [-1, 0]
    env.advance(0)
    assert rewards(env, 1) == [1, 0]
    env.reset(seed=1)
    env.advance(5)
    assert env.step("1")[1] == 1, "the episode goes on as it began"


# -- the truth is kept -----------------------------------------------------------------------------------------------------


def test_true_and_delivered_reward_stand_side_by_side_in_info_and_in_the_record() -> None:
    env = DelayReward(TransformReward(Paid(), lambda r: 2 * r), 1)
    env.reset(seed=1)
    _, reward, _, _, info = env.step("3")
    assert (reward, info["true_reward"]) == (0.0, 6.0)
    (event,) = env.unwrapped.trajectory.turns[0].events
    assert (event.kind, event.resource, event.data) == ("reward.delivered", "delay", {"true": 6.0, "delivered": 0.0})


def test_in_a_stack_the_innermost_wrapper_tells_the_truth() -> None:
    env = SparseReward(NoiseReward(Paid(), std=1.0, every=True))
    env.reset(seed=1)
    assert env.step("3")[4]["true_reward"] == 3.0


@verifier
def wordy(trajectory: Trajectory, context: VerifierContext) -> float:
    return min(1.0, len(trajectory.final_text.split()) / 4)


def test_a_proxy_pays_while_the_environment_s_own_verdict_is_kept_as_gold() -> None:
    env = ProxyGold(Guess(), [wordy])
    result = played(env, "one two three four", limits=Limits(turns=1))
    assert (result.reward, result.gold) == (1.0, 0.0)
    right = Guess().make_task("1").gold["number"]
    result = played(env, right)
    assert (result.reward, result.gold) == (0.25, 1.0)
    assert Guess().proxy == (), "other environments of the class are left alone"


def test_what_a_policy_is_told_never_holds_the_gold() -> None:
    env = ProxyGold(Guess(), [wordy])
    env.reset(seed=1)
    _, reward, terminated, _, info = env.step(env.unwrapped.task.gold["number"])
    assert terminated
    assert reward == 0.25
    assert "guessed" not in repr(info)


# -- an episode that is cut -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda env: DelayReward(env, 1), [0.0, 0.25 + 0.25 + 1.0]),
        (lambda env: SparseReward(env), [0.0, 1.5]),
        (lambda env: DelayReward(TransformReward(env, lambda r: 10 * r), 1), [0.0, 15.0]),
        (lambda env: TransformReward(DelayReward(env, 1), lambda r: 10 * r), [0.0, 15.0]),
        (lambda env: BiasReward(env, lambda turn: 5.0), [5.25, 5.25 + 1.0]),
    ],
)
def test_what_is_owed_at_a_cut_is_paid_into_the_last_turn(wrap: Any, expected: list[float]) -> None:
    rich = call("transfer", cents=99)
    by_wrapper = played(TimeLimit(wrap(Bank()), 2), *[rich] * 8)
    by_limit = played(wrap(Bank()), *[rich] * 8, limits=Limits(turns=2))
    by_limit_of_gymnasium_outside = played(wrap(TimeLimit(Bank(), 2)), *[rich] * 8)
    for result in (by_limit, by_wrapper, by_limit_of_gymnasium_outside):
        assert result.trajectory.outcome == "truncated"
        assert [t.reward for t in result.trajectory.turns] == expected


def test_an_episode_that_ends_by_itself_is_paid_once() -> None:
    result = played(DelayReward(Bank(), 1), call("transfer", cents=99), submit())
    assert result.reward == 1.25


# -- real wrappers --------------------------------------------------------------------------------------------------------


def test_they_are_gymnasium_wrappers_that_tell_how_they_were_made() -> None:
    env = NoiseReward(DelayReward(Bank(), 2), std=0.1)
    assert isinstance(env, gymnasium.Wrapper)
    assert env._saved_kwargs == {"std": 0.1, "flip": 0.0, "every": False, "seed": 0}  # what Gymnasium makes specs of


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayReward(Bank(), -1),
        lambda: NoiseReward(Bank(), std=-1),
        lambda: NoiseReward(Bank(), flip=2),
        lambda: ProxyGold(Bank(), []),
        lambda: SparseReward(gymnasium.make("CartPole-v1")),
        lambda: ProxyGold(gymnasium.make("CartPole-v1"), [wordy]),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_at_once(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_rule_that_gives_no_finite_number_is_refused() -> None:
    env: RewardChange = ShiftReward(Paid(), lambda r, progress: math.inf)
    env.reset(seed=1)
    with pytest.raises(UsageError, match="must be finite"):
        env.step("1")
