# SPDX-License-Identifier: Apache-2.0
"""Chat environments are Gymnasium environments: its checker, its wrappers and its vector environments accept them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import (
    Autoreset,
    FlattenObservation,
    FrameStackObservation,
    NormalizeReward,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    TimeLimit,
    TransformReward,
)

from agentgym.chat import Message, Observation, call, submit
from agentgym.env import ChatEnv
from agentgym.registry import env_class, tasks
from agentgym.scoring import VerifierContext, verifier
from agentgym.trajectory import Trajectory
from tests.envs import Bank, Guess

OWN = [("agentgym/test.bank-v1", {"variant": v}) for v in Bank.variants] + [("agentgym/test.guess-v1", {"level": 2})]
own = pytest.mark.parametrize(("name", "kwargs"), OWN, ids=str)


def bank() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("agentgym/test.bank-v1")


# -- one environment --------------------------------------------------------------------------------------------------


@own
@pytest.mark.parametrize("render_mode", [None, "ansi"])
def test_the_environment_checker_accepts_it_without_a_warning(
    name: str, kwargs: dict[str, Any], render_mode: str | None
) -> None:
    env = gymnasium.make(name, render_mode=render_mode, **kwargs)
    # calls that Gymnasium's checker samples may hit the tool whose server is down: that one error is meant to pass
    env.unwrapped.action_space.tools.pop("outage", None)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # frames a second mean nothing to text
        warnings.filterwarnings("ignore", message=".*No render fps was declared")
        # the checker closes the environments that it makes itself, by its spec
        check_env(env.unwrapped)


def test_every_declared_environment_passes_the_checker() -> None:
    checked = 0
    for name in tasks.places():
        cls: type[ChatEnv] = env_class(name)
        if getattr(cls, "standard_name", ""):
            continue  # needs a data file
        env = gymnasium.make(f"agentgym/{name}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*No render fps was declared")
            check_env(env.unwrapped)
        checked += 1
    assert checked


def test_making_is_lazy_and_a_task_module_is_imported_only_then(fresh_python: Any) -> None:
    code = """
import sys
import agentgym, gymnasium
assert not [m for m in sys.modules if m.startswith(("agentgym.tasks", "agentgym.evaluators"))]
env = gymnasium.make("agentgym/math.add-v1")
assert "agentgym.tasks.math.arithmetic" in sys.modules
observation, info = env.reset(seed=3)
assert info["task_id"] == "math.add/control/3"
assert observation in env.observation_space
print(observation[0].text)
"""
    assert fresh_python(code).strip()


def test_reset_and_step_return_what_gymnasium_says() -> None:
    env = bank()
    observation, info = env.reset(seed=3)
    assert type(observation) is Observation
    assert observation in env.observation_space
    assert info == {"task_id": "test.bank/control/3", "turn": 0}
    observation, reward, terminated, truncated, info = env.step(call("balance", account="a"))
    assert type(observation) is Observation
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info == {"task_id": "test.bank/control/3", "turn": 1}


def test_an_observation_holds_only_what_is_new() -> None:
    env = bank()
    env.reset(seed=3)
    for _ in range(3):
        observation, *_ = env.step(call("balance", account="a"))
        assert len(observation) == 1


def test_what_is_returned_belongs_to_the_caller() -> None:
    env = Bank()
    first = env.reset(seed=1)[1]
    first.clear()
    assert env.reset(seed=1)[1] == {"task_id": "test.bank/control/1", "turn": 0}
    info = env.step(call("balance", account="a"))[4]
    info["turn"] = 99
    *_, last = env.step(submit())
    last["proxy"].clear()
    assert env.proxy_scores[0].name == "moved"
    assert env.trajectory.turns[0].index == 0


def test_equal_seeds_give_equal_episodes_and_none_goes_on_from_the_last() -> None:
    a, b = bank(), bank()
    assert a.reset(seed=5) == b.reset(seed=5)
    for _ in range(5):
        assert a.reset() == b.reset()
    assert len({a.reset()[1]["task_id"] for _ in range(5)}) == 5


def test_options_choose_the_item_or_the_very_task() -> None:
    env = bank()
    assert env.reset(options={"item": "17"})[1]["task_id"] == "test.bank/control/17"
    assert env.reset(options={"item": 17})[1]["task_id"] == "test.bank/control/17"
    task = Bank(variant="tempt").make_task("4")
    task.opening = "Something else."
    observation, info = env.reset(options={"task": task})
    assert (observation[0].text, info["task_id"]) == ("Something else.", "test.bank/tempt/4")


@own
@pytest.mark.filterwarnings("ignore:.*No render fps was declared")
def test_rendering_shows_the_conversation(name: str, kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(name, render_mode="ansi", **kwargs)
    env.reset(seed=0)
    env.step(call("nothing", a=1))
    shown = env.render()
    assert isinstance(shown, str)
    assert shown.startswith("[user] ")
    assert "-> nothing(" in shown
    assert Bank().render() is None


def test_stepping_before_reset_is_refused_with_gymnasiums_own_error() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        bank().step("x")


# -- wrappers ---------------------------------------------------------------------------------------------------------


def test_wrappers_that_count_and_transform_work_as_documented() -> None:
    env = RecordEpisodeStatistics(TransformReward(OrderEnforcing(PassiveEnvChecker(Bank())), lambda r: 2 * r))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("x")
    env.reset(seed=0)
    env.step(call("transfer", cents=99))
    *_, info = env.step(submit())
    assert info["episode"]["r"] == 2 * 1.25
    assert info["episode"]["l"] == 2


def test_rewards_can_be_normalized() -> None:
    env = NormalizeReward(Bank())
    env.reset(seed=0)
    assert np.isfinite(env.step(call("transfer", cents=1))[1])


def test_autoreset_begins_the_next_episode() -> None:
    env = Autoreset(Bank())
    env.reset(seed=0)
    _, reward, terminated, *_ = env.step(submit())
    assert (reward, terminated) == (0.0, True)
    observation, reward, terminated, _, info = env.step("ignored")
    assert (reward, terminated, info["turn"]) == (0.0, False, 0)
    assert observation[0].role == "user"


@pytest.mark.parametrize(
    "make",
    [lambda: TimeLimit(Bank(), 2), lambda: gymnasium.make("agentgym/test.bank-v1", max_episode_steps=2)],
    ids=["wrapper", "make"],
)
def test_a_time_limit_truncates_from_outside_so_the_proxy_is_not_paid(make: Any) -> None:
    env = make()
    env.reset(seed=0)
    env.step(call("transfer", cents=99))
    _, reward, terminated, truncated, info = env.step(call("balance", account="a"))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "proxy" not in info
    env.reset(seed=1)


def test_the_passive_checker_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    env = bank()
    env.reset(seed=0)
    env.step("words")
    assert not recwarn.list


def test_stacking_observations_is_refused_when_the_wrapper_is_made() -> None:
    with pytest.raises(gymnasium.error.CustomSpaceError, match="ObservationSpace"):
        FrameStackObservation(Bank(), 2)


def test_flattening_observations_is_refused_when_the_wrapper_is_made() -> None:
    with pytest.raises(NotImplementedError, match="ObservationSpace"):
        FlattenObservation(Bank())


# -- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = {
    "sync": lambda: SyncVectorEnv([bank, bank]),
    "async": lambda: AsyncVectorEnv([bank, bank], shared_memory=False),
    "make_vec sync": lambda: gymnasium.make_vec("agentgym/test.bank-v1", num_envs=2, vectorization_mode="sync"),
    "make_vec async": lambda: gymnasium.make_vec(
        "agentgym/test.bank-v1", num_envs=2, vectorization_mode="async", vector_kwargs={"shared_memory": False}
    ),
}


@pytest.fixture(params=VECTORS, ids=str)
def vector(request: pytest.FixtureRequest) -> Iterator[VectorEnv[Any, Any, Any]]:
    envs = VECTORS[request.param]()
    yield envs
    envs.close()


def test_vector_environments_play_chat_environments(vector: VectorEnv[Any, Any, Any]) -> None:
    observations, infos = vector.reset(seed=3)
    assert [o[0].role for o in observations] == ["user", "user"]
    assert all(type(o) is Observation for o in observations)
    assert observations in vector.observation_space
    assert list(infos["task_id"]) == ["test.bank/control/3", "test.bank/control/4"]
    observations, rewards, terminated, truncated, infos = vector.step((call("transfer", cents=99), submit()))
    assert [o[0].text for o in observations] == ["moved", "submitted"]
    assert rewards.tolist() == [0.25, 0.0]
    assert terminated.tolist() == [False, True]
    assert truncated.tolist() == [False, False]
    assert infos["proxy"]["moved"].tolist() == [0.0, 0.0]
    assert infos["_proxy"].tolist() == [False, True]
    observations, _, terminated, _, infos = vector.step((submit(), "ignored"))
    assert terminated.tolist() == [True, False]
    assert observations[1][0].role == "user"
    assert infos["turn"].tolist() == [2, 0]


def test_sampled_batches_of_actions_can_be_played() -> None:
    envs = SyncVectorEnv([lambda: Guess(level=1)] * 3)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(20):
        actions = envs.action_space.sample()
        assert actions in envs.action_space
        envs.step(actions)
    envs.close()


def test_episodes_that_end_in_the_same_step_hand_over_the_last_observation() -> None:
    envs = SyncVectorEnv([bank, bank], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    observations, _, terminated, _, infos = envs.step((submit(), call("balance", account="a")))
    assert terminated.tolist() == [True, False]
    assert observations[0][0].role == "user"
    assert infos["final_obs"][0][0].text == "submitted"
    assert infos["final_info"]["proxy"]["moved"].tolist() == [0.0, 0.0]
    envs.close()


@verifier
def fails_at_times(trajectory: Trajectory, context: VerifierContext) -> float:
    if trajectory.final_text == "break":
        raise ValueError
    return 1.0


class Fragile(Guess):
    family = "test.fragile"
    gold = (fails_at_times,)

    def respond(self, message: Message) -> None:
        return None


def test_an_unscorable_episode_does_not_upset_its_neighbours() -> None:
    envs = SyncVectorEnv([Fragile, Fragile])
    envs.reset(seed=0)
    _, rewards, terminated, _, infos = envs.step(("fine", "break"))
    assert rewards.tolist() == [1.0, 0.0]
    assert terminated.all()
    assert infos["unscorable"].tolist()[1] == "no value from: fails_at_times"
    assert infos["_unscorable"].tolist() == [False, True]
    assert infos["proxy"]["fails_at_times"][0] == 1.0
    assert np.isnan(infos["proxy"]["fails_at_times"][1])
    envs.close()


def test_shared_memory_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="shared_memory=False"):
        AsyncVectorEnv([bank, bank])


def test_a_whole_environment_can_be_pickled_in_the_middle_of_an_episode() -> None:
    env = Bank()
    env.reset(seed=3)
    env.step(call("transfer", cents=3))
    other = pickle.loads(pickle.dumps(env))
    for e in (env, other):
        e.step(call("transfer", cents=4))
        e.step(submit())
    assert other.trajectory.canonical() == env.trajectory.canonical()
