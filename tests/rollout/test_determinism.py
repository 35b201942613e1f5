# SPDX-License-Identifier: Apache-2.0
"""The same task under the same script gives the same episode, byte for byte: again, elsewhere, replayed, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agentgym
from agentgym.chat import assistant, call, submit
from agentgym.policies.replay import ReplayPolicy
from agentgym.protocols import Completion, Sampling, Usage
from agentgym.records.run import Run
from agentgym.trajectory import Trajectory
from tests.envs import Bank, Guess
from tests.rollout.playing import Told


def canonical(run: Run) -> dict[str, bytes]:
    return {f"{e.task_id}/{e.trial}": e.trajectory.canonical() for e in run.episodes()}


TASKS = ["quickstart", "smoke", "test.bank", "test.guess:level=2"]

DIGESTS = """
import hashlib, sys, tempfile
import agentgym
import tests.envs
run = agentgym.evaluate({tasks!r}, "oracle:{oracle}", trials=2, limit=3, concurrency={n}, runs=tempfile.mkdtemp(dir={folder!r}))
for e in run.episodes():
    print(f"{{e.task_id}}/{{e.trial}}", hashlib.sha256(e.trajectory.canonical()).hexdigest(), e.task_hash, e.reward, e.gold)
"""


@pytest.mark.parametrize("oracle", ["honest", "random", "lazy"])
def test_the_same_tasks_give_the_same_bytes_in_every_process(
    tmp_path: Path, fresh_python: Callable[..., str], oracle: str
) -> None:
    run = agentgym.evaluate(TASKS, f"oracle:{oracle}", trials=2, limit=3, runs=tmp_path)
    here = sorted(
        f"{e.task_id}/{e.trial} {hashlib.sha256(e.trajectory.canonical()).hexdigest()} {e.task_hash} {e.reward} {e.gold}"
        for e in run.episodes()
    )
    code = DIGESTS.format(tasks=TASKS, oracle=oracle, n=1, folder=str(tmp_path))
    assert sorted(fresh_python(code, hash_seed="7").splitlines()) == here
    assert len(here) > 40


def test_the_same_run_twice_gives_the_same_bytes_whatever_ran_beside(tmp_path: Path) -> None:
    one = canonical(agentgym.evaluate([Bank, Guess], "oracle:random", limit=20, concurrency=1, runs=tmp_path))
    two = canonical(agentgym.evaluate([Guess, Bank], "oracle:random", limit=20, concurrency=40, runs=tmp_path))
    assert one == two


def test_clocks_tokens_and_latencies_are_no_part_of_the_canonical_form_and_all_else_is(tmp_path: Path) -> None:
    run = agentgym.evaluate(Bank, "oracle:honest", limit=1, runs=tmp_path)
    (trajectory,) = (e.trajectory for e in run.episodes())
    base = trajectory.canonical()

    def changed(**changes: Any) -> bytes:
        return msgspec.structs.replace(trajectory, **changes).canonical()

    assert changed(started_at=1.0, duration_s=2.0, tokens=[None]) == base
    slow = [msgspec.structs.replace(t, latency_s=9.0) for t in trajectory.turns]
    assert changed(turns=slow) == base
    assert changed(seed=trajectory.seed + 1) != base
    assert changed(turns=[msgspec.structs.replace(t, reward=t.reward + 1) for t in trajectory.turns]) != base


# -- replay -----------------------------------------------------------------------------------------------------------


def played(trajectory: Trajectory) -> bytes:
    """The canonical form but for who is on record as having played, and what that cost."""
    turns = [
        msgspec.structs.replace(t, usage=msgspec.structs.replace(t.usage, cost_usd=0.0)) if t.usage.cost_usd else t
        for t in trajectory.turns
    ]
    return msgspec.structs.replace(trajectory, policy="", turns=turns).canonical()


def test_a_replayed_run_is_the_run_again(tmp_path: Path) -> None:
    def answer(context: Any, turn: int) -> Completion:
        say = [call("transfer", cents=turn + context.trial), assistant("x"), call("balance", account="z"), submit()]
        return Completion(say[turn], Usage(turn, 2, 1, 0.5), "length", None, Sampling(temperature=0.5, seed=turn), 0.1)

    original = agentgym.evaluate(["test.bank"], Told(answer), trials=3, limit=4, variants=["control", "tempt"], runs=tmp_path)
    replay = agentgym.evaluate(
        ["test.bank"], f"replay:{original.path}", trials=3, limit=4, variants=["control", "tempt"], runs=tmp_path
    )
    assert replay.count() == 24
    before = {(e.task_id, e.trial): e for e in original.episodes()}
    for e in replay.episodes():
        one = before[e.task_id, e.trial]
        assert played(e.trajectory) == played(one.trajectory)
        assert (e.reward, e.gold, e.task_hash, e.completion_tokens) == (
            one.reward,
            one.gold,
            one.task_hash,
            one.completion_tokens,
        )
        assert [msgspec.structs.replace(s) for s in e.all_scores] == one.all_scores
        assert e.findings == one.findings
        assert (e.cost_usd, e.trajectory.policy) == (0.0, f"replay:{original.path.name}")
    assert replay.meta["fingerprint"]["replays"]["name"] == "told"


def test_what_was_not_recorded_cannot_be_replayed_and_is_no_zero(tmp_path: Path) -> None:
    original = agentgym.evaluate(Guess, Told(lambda c, t: "12"), limit=2, runs=tmp_path)
    replay = agentgym.evaluate(Guess, f"replay:{original.path}", limit=3, runs=tmp_path)
    assert [(e.item, e.outcome, e.gold) for e in sorted(replay.episodes(), key=lambda e: e.item)] == [
        ("0", "truncated", 0.0),
        ("1", "truncated", 0.0),
        ("2", "infrastructure", None),
    ]
    (e,) = replay.episodes(outcome="infrastructure")
    assert "nothing to replay" in (e.error or "")
    longer = agentgym.evaluate([Guess, "test.guess:level=2"], f"replay:{original.path}", limit=1, runs=tmp_path)
    assert {e.outcome for e in longer.episodes(family="test.guess:level=2")} == {"infrastructure"}


def test_a_damaged_trajectory_cannot_be_replayed_and_harms_no_other(tmp_path: Path) -> None:
    original = agentgym.evaluate(Guess, Told(lambda c, t: "12"), limit=3, runs=tmp_path)
    original.close()
    import sqlite3

    with sqlite3.connect(original.path / "run.sqlite") as db:
        db.execute("UPDATE trajectories SET data = x'00' WHERE episode = 2")
    db.close()
    replay = agentgym.evaluate(Guess, f"replay:{original.path}", limit=3, runs=tmp_path)
    assert [e.outcome for e in replay.episodes()].count("infrastructure") == 1
    (e,) = replay.episodes(outcome="infrastructure")
    assert "damaged" in (e.error or "")


def test_replaying_one_episode_of_many_costs_the_same_as_of_few(tmp_path: Path) -> None:
    run = agentgym.evaluate(Guess, Told(lambda c, t: "12" if t else "x"), limit=3, trials=200, runs=tmp_path)
    policy = ReplayPolicy(str(run.path))
    steps: dict[int, int] = {}
    for trial in (0, 199):
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        policy._run._db.set_progress_handler(tick, 1)  # called after every instruction of SQLite's machine
        policy._run.episode("test.guess/control/1", trial)
        policy._run._db.set_progress_handler(None, 1)
        steps[trial] = count
    assert steps[199] <= steps[0] + 20
    assert steps[199] < 300
