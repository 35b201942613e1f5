# SPDX-License-Identifier: Apache-2.0
"""The reply cache: the same question costs once, every answer from it says so, and another question is another question."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

import agentgym
import tests.envs
from agentgym.chat import user
from agentgym.errors import UsageError
from agentgym.policies.cache import CachedPolicy
from agentgym.policies.load import load_policy
from agentgym.policies.modelfiles import REPLIES, clear_replies, list_replies
from agentgym.protocols import Sampling
from agentgym.records.run import Episode
from tests.policies.fault_server import FaultServer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path / "cache" / REPLIES


def play(model: Any, runs: Path, **options: Any) -> list[Episode]:
    options = {"limit": 3, "trials": 2, **options}
    episodes = agentgym.evaluate(tests.envs.Guess, model, runs=runs, **options).episodes()
    return sorted(episodes, key=lambda e: (e.task_id, e.trial))


def priced(request: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    made["usage"]["cost"] = 0.25
    made["choices"][0] |= {"token_ids": [7, 2], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}}
    return made


def test_a_run_played_again_asks_nothing_costs_nothing_and_says_so(tmp_path: Path, cache: Path) -> None:
    with FaultServer(reply=priced) as server:
        model = f"cached:openai:m@{server.url}#tokens=yes"
        first = play(model, tmp_path / "a")
        asked = len(server.requests)
        second = play(model, tmp_path / "b")
        assert asked == len(server.requests) == sum(e.turns for e in first)
    assert [e.cached_turns for e in first] == [0] * len(first)
    assert [e.cached_turns for e in second] == [e.turns for e in second]
    turns = [t for e in first for t in e.trajectory.turns], [t for e in second for t in e.trajectory.turns]
    for live, again in zip(*turns, strict=True):
        assert again.message == live.message
        assert (live.usage.from_cache, again.usage.from_cache) == (False, True)
        assert (live.usage.cost_usd, again.usage.cost_usd) == (0.25, 0.0)
        assert again.usage.completion_tokens == live.usage.completion_tokens
        assert again.sampling == live.sampling
    for a, b in zip(first, second, strict=True):
        assert a.gold == b.gold == 1.0
        assert a.trajectory.tokens is not None
        assert b.trajectory.tokens is not None
        for x, y in zip(a.trajectory.tokens, b.trajectory.tokens, strict=True):
            assert x is not None
            assert y is not None
            assert (x.output_ids.tolist(), x.logprobs.tolist()) == (y.output_ids.tolist(), y.logprobs.tolist())
    run = agentgym.open_run(str(next((tmp_path / "b").iterdir())))
    assert run.meta["served"]["cache"] == {"hits": asked, "misses": 0}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    listed = list_replies()
    assert listed is not None
    assert (listed.name, listed.path) == ("replies", str(cache))
    assert cache in clear_replies()
    assert list_replies() is None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"sampling": Sampling(temperature=0.3)},
        {"params": {"level": 2}},
        {"trials": 3},
        {"model": "#tool_format=hermes"},
    ],
)
def test_another_question_is_asked(change: dict[str, Any], tmp_path: Path) -> None:
    with FaultServer() as server:
        model = f"cached:openai:m@{server.url}"
        play(model, tmp_path / "a")
        asked = len(server.requests)
        play(model + change.pop("model", ""), tmp_path / "b", **change)
        assert len(server.requests) > asked


def test_without_asking_for_it_nothing_is_cached(tmp_path: Path, cache: Path) -> None:
    with FaultServer() as server:
        for runs in ("a", "b"):
            play(f"openai:m@{server.url}", tmp_path / runs)
        assert len(server.requests) % 2 == 0
    assert not cache.exists()


def test_replies_of_another_version_of_the_model_are_not_used_once_the_new_one_is_seen(tmp_path: Path) -> None:
    with FaultServer() as server:
        model = f"openai:m@{server.url}"
        play(CachedPolicy(model), tmp_path / "a")
        asked = len(server.requests)
        server.reply = lambda request, made: {**made, "model": "m-2027"}
        policy = CachedPolicy(model)
        # new tasks first, so that a live reply tells the version
        agentgym.evaluate(tests.envs.Guess, policy, limit=6, trials=2, concurrency=1, seed=5, runs=tmp_path / "b")
        before = len(server.requests)
        play(policy, tmp_path / "c")
        assert len(server.requests) == before + asked


def test_a_cache_that_cannot_be_used_is_a_warning(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_bytes(b"this is no database, but it is long enough to be taken for one" * 20)
    with FaultServer() as server, pytest.warns(RuntimeWarning, match="the run goes on without"):
        episodes = play(f"cached:openai:m@{server.url}", tmp_path / "a")
    assert all(e.gold == 1.0 for e in episodes)


@pytest.mark.parametrize("inner", ["oracle:honest", "agent:tests.policies.bots:drive", ""])
def test_only_models_are_cached(inner: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be cached|which model"):
        load_policy(f"cached:{inner}")


def test_each_trial_has_replies_of_its_own_even_without_seeds(tmp_path: Path) -> None:
    policy = CachedPolicy("openai:m@http://127.0.0.1:9/v1", folder=tmp_path)
    first, second = (policy._key(trial, [user("hi")], (), Sampling()) for trial in (0, 1))
    assert first != second
    assert first == policy._key(0, [user("hi")], (), Sampling())
