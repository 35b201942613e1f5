# SPDX-License-Identifier: Apache-2.0
"""A person pauses a run, and cancels a task of it, from another process: what is played heeds it and loses nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.chat import assistant
from agentgym.errors import RecordError, UsageError
from agentgym.gate.rows import SKIPPED
from agentgym.gate.sources_run import run_rows
from agentgym.protocols import Completion, PolicyBase
from agentgym.records.control import COMMANDS, Now, playing, send
from agentgym.records.run import Run
from agentgym.report.summary import summarize
from agentgym.training.export import choose
from tests.envs import Guess


class Slow(PolicyBase):
    """Says a number that is never right, once its ``gate`` is open; may be stopped in the middle of a call."""

    name = "slow"

    def __init__(self, hang: tuple[str, ...] = (), heeds: bool = True, gate: asyncio.Event | None = None) -> None:
        self.acts: list[str] = []
        self.gate = gate
        self._hang, self._heeds = hang, heeds

    def begin(self, context: Any) -> Any:
        return _Player(self, context.task_id)


class _Player(PolicyBase):
    name = "slow"

    def __init__(self, owner: Slow, task: str) -> None:
        self.owner, self.task = owner, task

    async def act(self, conversation: Any, tools: Any, sampling: Any) -> Completion:
        self.owner.acts.append(self.task)
        if self.task in self.owner._hang:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if self.owner._heeds:
                    raise
                raise ValueError("what a client makes of it") from None
        if self.owner.gate is not None:
            await self.owner.gate.wait()
        await asyncio.sleep(0.15)
        return Completion(assistant("-1"))


def ids(n: int) -> list[str]:
    return [f"test.guess/control/{i}" for i in range(n)]


async def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)
    return found


async def path_of(root: Path) -> Path:
    path: Path = await until(lambda: next(iter(root.glob("*/run.sqlite")), None))
    await until(lambda: (path.parent / "lock").exists())
    return path.parent


def now(path: Path) -> Now:
    return playing(path) or Now()


def test_a_cancelled_episode_keeps_its_turns_and_is_neither_a_zero_nor_an_error(tmp_path: Path) -> None:
    first, second, third = ids(3)

    async def work() -> Run:
        run = asyncio.create_task(agentgym.aevaluate([Guess], policy, limit=3, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: any(e.task_id == second for e in now(path).episodes))
        send(path, "cancel", second, 0)
        send(path, "cancel", third)  # before it has begun, perhaps; every trial of it
        return await run

    policy = Slow(hang=(second, third))
    with asyncio.run(work()) as run:
        by_id = {e.task_id: e for e in run.episodes()}
        assert [by_id[i].outcome for i in (first, second, third)] == ["truncated", "cancelled", "cancelled"]
        e = by_id[second]
        assert (e.reward, e.gold, e.error_kind, e.all_scores) == (None, None, "cancelled", [])
        assert e.error is not None
        assert e.error.startswith("by ")
        assert e.trajectory.opening
        assert run.status == "finished"
        summary = summarize(run)
        assert (summary.cancelled, summary.infrastructure, summary.unscorable, summary.done) == (2, 0, 0, 3)
        assert list(run_rows(run, "x").status).count(SKIPPED) == 2
        chosen = choose(run)
        assert (len(chosen.episodes), chosen.spoiled) == (1, 2)
        assert len(list(run.episodes(where="is:cancelled"))) == 2
        assert playing(run.path) is None, "what is over is not being played"
        with pytest.raises(UsageError, match="nobody plays"):
            send(run.path, "pause")
    before = len(policy.acts)
    agentgym.evaluate(model=policy, resume_run=run.path, runs=tmp_path).close()
    assert len(policy.acts) == before, "who cancels a task does not want it played again"


def test_a_client_that_turns_cancellation_into_an_error_is_cancelled_all_the_same(tmp_path: Path) -> None:
    async def work() -> Run:
        run = asyncio.create_task(agentgym.aevaluate([Guess], Slow(hang=ids(1)[:1], heeds=False), limit=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: now(path).episodes)
        send(path, "cancel", ids(1)[0], 0)
        return await run

    with asyncio.run(work()) as run:
        assert [e.outcome for e in run.episodes()] == ["truncated", "cancelled"]


def test_a_paused_run_asks_no_model_and_goes_on_with_what_it_had(tmp_path: Path) -> None:
    async def work() -> Run:
        run = asyncio.create_task(agentgym.aevaluate([Guess], policy, limit=4, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: policy.acts)
        send(path, "pause")
        await until(lambda: now(path).paused)
        paused = time.monotonic()
        assert all(e.paused for e in now(path).episodes)
        gate.set()
        await asyncio.sleep(0.5)  # the turns under way end
        asked = len(policy.acts)
        await asyncio.sleep(0.5)
        assert len(policy.acts) == asked
        pauses.append(time.monotonic() - paused)
        send(path, "resume")
        return await run

    gate, pauses = asyncio.Event(), []
    policy = Slow(gate=gate)
    begun = time.monotonic()
    with asyncio.run(work()) as run:
        assert [(e.outcome, e.turns) for e in run.episodes()] == [("truncated", Guess.max_turns)] * 4
        whole = time.monotonic() - begun
        assert all(e.duration_s <= whole - pauses[0] / 2 for e in run.episodes()), "a pause is not the episode's time"


def test_one_task_is_paused_and_the_others_are_played(tmp_path: Path) -> None:
    first = ids(1)[0]

    async def work() -> Run:
        run = asyncio.create_task(agentgym.aevaluate([Guess], policy, limit=3, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: policy.acts)
        send(path, "pause", first, 0)
        await until(lambda: [e.task_id for e in now(path).episodes if e.paused] == [first])
        gate.set()
        await until(lambda: [e.task_id for e in now(path).episodes if e.paused] == [first] and len(now(path).episodes) == 1)
        assert not now(path).paused
        send(path, "resume", first, 0)
        return await run

    gate = asyncio.Event()
    policy = Slow(gate=gate)
    with asyncio.run(work()) as run:
        assert [e.task_id for e in run.episodes()][-1] == first
        assert {e.outcome for e in run.episodes()} == {"truncated"}


def test_ctrl_c_ends_a_paused_run(tmp_path: Path) -> None:
    async def work() -> None:
        slow = Slow(gate=asyncio.Event())
        run = asyncio.create_task(agentgym.aevaluate([Guess], slow, limit=4, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: now(path).episodes)
        send(path, "pause")
        await until(lambda: now(path).paused)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(work())
    run = agentgym.evaluate(model=Slow(), resume_run="latest", runs=tmp_path)
    assert run.count() == 4, "a pause does not outlive the process that heeded it"
    run.close()


def test_several_processes_heed_one_command(tmp_path: Path) -> None:
    """Each of them plays its share, and each hears of it."""

    async def work() -> Run:
        model = f"{Path(__file__).resolve()}:Slow"
        run = asyncio.create_task(agentgym.aevaluate(["math.add"], model, limit=40, concurrency=2, processes=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: len(list(path.glob("playing-*.json"))) == 2)
        send(path, "pause")
        await until(lambda: now(path).paused)
        send(path, "resume")
        return await run

    with asyncio.run(work()) as run:
        assert run.count() == 40
        assert not list(run.path.glob("playing-*"))


def test_a_directory_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    async def work() -> Run:
        run = asyncio.create_task(agentgym.aevaluate([Guess], Slow(), limit=1, runs=tmp_path))
        path = await path_of(tmp_path)
        (path / COMMANDS).mkdir()  # as root one may write anywhere else
        with pytest.raises(RecordError, match="Only who may write"):
            send(path, "pause")
        return await run

    asyncio.run(work()).close()


def test_a_training_loop_waits_between_its_steps(tmp_path: Path) -> None:
    from agentgym.records.control import Commands, wait_while_paused

    (tmp_path / "lock").touch()
    lock = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    commands = Commands(tmp_path)
    wait_while_paused(tmp_path, commands)
    send(tmp_path, "pause")
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(wait_while_paused, tmp_path, commands)
        end = time.monotonic() + 30
        while not now(tmp_path).paused:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not step.done()
        send(tmp_path, "resume")
        step.result(30)
    assert not now(tmp_path).paused
    send(tmp_path, "pause")
    asked = iter([False, False, True])
    wait_while_paused(tmp_path, commands, lambda: next(asked))
    assert now(tmp_path).paused, "it was, and what ends the training did not wait for it"
    os.close(lock)


def test_lines_that_are_not_commands_are_passed_over(tmp_path: Path) -> None:
    from agentgym.records.control import Commands

    file = tmp_path / COMMANDS
    file.write_text('{"do":"pause"}\n{"do":"cancel","task":"a/b/c"}\n')
    commands = Commands(tmp_path)
    assert [c.do for c in commands.news()] == ["cancel"], "a pause is for the process that it was given to"
    with file.open("ab") as f:
        f.write(b'\xff\xfe\n{"do":"dance"}\n[]\n{"do":"resume"}\n{"do":"pa')
    assert [c.do for c in commands.news()] == ["resume"]
    with file.open("ab") as f:
        f.write(b'use"}\n')
    assert [c.do for c in commands.news()] == ["pause"]
    os.truncate(file, 0)
    assert commands.news() == []
