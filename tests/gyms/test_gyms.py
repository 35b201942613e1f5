# SPDX-License-Identifier: Apache-2.0
"""Our environments as those of skyrl-gym, and our tasks as those of verifiers, by their own doors."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import skyrl_gym
import verifiers.v1 as vf

from agentgym.errors import UsageError
from agentgym.training import skyrl, verifiers
from tests.token_engine import calling, honest

LOOKUP = "tools.lookup/control/0"


def test_skyrl_makes_and_plays_an_environment_by_its_own_registry() -> None:
    skyrl.register("agentgym-lookup", "tools.lookup")
    env = skyrl_gym.make("agentgym-lookup", env_config={}, extras={"task_id": LOOKUP})
    prompt, info = env.init([{"role": "user", "content": "not this"}])
    assert info == {"task_id": LOOKUP}
    assert prompt == skyrl.prompt_of(LOOKUP)
    assert "<tools>" in prompt[0]["content"]
    rewards = []
    for said in honest():
        out = env.step(said)
        rewards.append(out["reward"])
    assert (rewards, out["done"], out["observations"]) == ([0.0, 0.0, 1.0], True, [])
    assert all(type(r) is float for r in rewards)
    assert env.get_metrics() == {"turns": 3, "truncated": 0.0}
    env.close()


def test_skyrl_sees_a_malformed_call_answered_and_a_cut_episode_marked() -> None:
    env = skyrl.Env({}, {"extra_info": {"task_id": LOOKUP}})
    env.init([])
    out: dict[str, Any] = {"done": False}
    turns = 0
    while not out["done"]:
        out = env.step(calling("get", key="k99"))
        turns += 1
        if not out["done"]:
            assert "there is no key" in out["observations"][0]["content"]
    assert (turns, out["metadata"]["truncated"], out["reward"]) == (8, True, 0.0)


class Trace:
    """What a reward of verifiers reads."""

    def __init__(self, reply: str) -> None:
        self.last_reply = reply
        self.rewards: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}

    def record_reward(self, key: str, value: float, weight: float) -> None:
        self.rewards[key] = (value, weight)


def test_verifiers_loads_tasks_and_scores_them_with_our_verifiers() -> None:
    made = verifiers.taskset("math.add", tasks=3)
    assert issubclass(made, vf.Taskset)
    tasks = list(made(vf.TasksetConfig()))
    assert [t.key for t in tasks] == [t.data.task_id for t in tasks]
    assert len({t.key for t in tasks}) == 3
    task = tasks[0]
    a, b = map(int, re.findall(r"(\d+) \+ (\d+)", task.data.prompt_text)[-1])
    for answer, paid in ((str(a + b), 1.0), (str(a + b + 1), 0.0)):
        trace = Trace(answer)
        asyncio.run(task.score(trace))
        assert trace.rewards == {"agentgym": (paid, 1.0)}


def test_what_verifiers_cannot_play_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="train it with AReaL"):
        verifiers.taskset("tools.lookup")
    assert verifiers.losses("math.add")
    assert any("truncat" in s for s in skyrl.losses("tools.lookup"))
