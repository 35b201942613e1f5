# SPDX-License-Identifier: Apache-2.0
"""Several episodes in one context: one conversation, each episode paid and judged by itself, and whether the last is better."""

from __future__ import annotations

import asyncio
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from agentgym.episode import EpisodeResult, Limits, play
from agentgym.errors import UsageError
from agentgym.meta import EPISODE, MetaEpisode, episodes_of
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.registry import env_class
from agentgym.wrappers import NoiseReward
from tests.envs import Bank, Guess


def played(env: Any, policy: Any, item: str = "1", **options: Any) -> EpisodeResult:
    return asyncio.run(play(env, env.unwrapped.make_task(item), policy, **options))


def numbers(env: Any, item: str = "1") -> list[str]:
    return [Guess().make_task(i).gold["number"] for i in env.unwrapped.make_task(item).hidden["items"]]


def test_a_policy_that_learns_within_the_conversation_shows_as_adaptation() -> None:
    env = MetaEpisode(Guess(), 3)
    wrong = [str((int(numbers(env)[0]) + 1) % 10)] * 6  # the first episode ends by its limit of six turns, unsolved
    result = played(env, ScriptedPolicy([*wrong, *numbers(env)[1:]]))
    scores = {s.name: s.value for s in result.scores}
    assert (scores["adaptation"], result.reward, result.gold) == (1.0, 2.0, pytest.approx(2 / 3))
    assert [t.reward for t in result.trajectory.turns] == [0.0] * 6 + [1.0, 1.0], "paid where it was earned, and once"
    assert [len(t.turns) for t, _ in episodes_of(result.trajectory)] == [6, 1, 1]


def test_the_conversation_goes_on_and_says_what_was_paid() -> None:
    env = MetaEpisode(Guess(), 2)
    result = played(env, ScriptedPolicy(numbers(env)))
    assert [m.role for m in result.trajectory.messages] == ["user", "assistant", "user", "assistant"]
    assert result.trajectory.turns[0].observation[0].text == "Episode 1 of 2 is over. Reward: 1.\n\nGuess a number below 10."
    assert result.trajectory.outcome == "terminated"


def test_each_task_is_another_one_unless_the_same_is_asked_for() -> None:
    hidden = MetaEpisode(Guess(split="eval"), 4).unwrapped.make_task("1").hidden["items"]
    assert len(set(hidden)) == 4
    assert hidden == MetaEpisode(Guess(split="eval"), 4).unwrapped.make_task("1").hidden["items"]
    assert MetaEpisode(Guess(), 3, same=True).unwrapped.make_task("1").hidden["items"] == ["1"] * 3


@pytest.mark.parametrize("family", ["tools.lookup", "tools.retail", "math.add"])
def test_the_family_s_expert_solves_every_episode_of_a_series(family: str) -> None:
    result = played(MetaEpisode(env_class(family)(), 3), OraclePolicy("honest"))
    assert (result.gold, result.reward) == (1.0, 3.0), result.scores
    assert {s.name: s.value for s in result.scores}["adaptation"] == 0.0


def test_changes_and_findings_stay_with_their_episode_and_their_turn() -> None:
    alone = played(Bank(), OraclePolicy("honest"))
    series = played(MetaEpisode(Bank(), 2, same=True), OraclePolicy("honest"))
    first, second = (t for t, _ in episodes_of(series.trajectory))
    for one in (first, second):
        assert one.state_after == alone.trajectory.state_after
        assert [[c.path for c in t.changes] for t in one.turns] == [[c.path for c in t.changes] for t in alone.trajectory.turns]
        assert [t.index for t in one.turns] == list(range(len(one.turns)))
    assert series.gold == alone.gold


def test_a_series_that_is_cut_pays_what_it_came_to_and_says_nothing_of_adaptation() -> None:
    env = MetaEpisode(Guess(), 3)
    result = played(env, ScriptedPolicy([numbers(env)[0], "x", "x"]), limits=Limits(turns=2))
    assert (result.reward, result.gold) == (1.0, pytest.approx(1 / 3))
    assert "adaptation" not in {s.name for s in result.scores}
    ends = [e.data["outcome"] for t in result.trajectory.turns for e in t.events if e.kind == EPISODE]
    assert ends == ["terminated", "truncated"]


def test_wrappers_stand_below_and_above() -> None:
    env = NoiseReward(MetaEpisode(NoiseReward(Guess(), flip=1.0), 2), flip=0.0)
    result = played(env, ScriptedPolicy(numbers(env)))
    assert (result.reward, result.gold) == (0.0, 1.0), "the noise below turned both, gold is not touched"
    assert "Reward: 0." in result.trajectory.turns[0].observation[0].text


def test_it_is_a_gymnasium_environment(recwarn: pytest.WarningsRecorder) -> None:
    env = MetaEpisode(Guess(), 2)
    assert isinstance(env, gymnasium.Wrapper)
    check_env(env.unwrapped, skip_render_check=True)
    with pytest.raises(UsageError, match="at least 2"):
        MetaEpisode(Guess(), 1)
