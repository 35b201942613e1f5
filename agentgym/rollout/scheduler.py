# SPDX-License-Identifier: Apache-2.0
"""Plays a plan: many episodes at once in one process, retried where infrastructure failed, saved as they end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, Limits, Reins, episode_error, play, public_name, waits
from agentgym.errors import DefinitionError, InfrastructureError, UsageError
from agentgym.protocols import Policy, Sampling
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter
from agentgym.rollout.selection import Plan
from agentgym.rollout.steering import Steering
from agentgym.sandbox.shared import shared_backend
from agentgym.task import FrozenTask, Task, TaskId, content_hash
from agentgym.trajectory import EpisodeError, Trajectory

DEFAULT_CONCURRENCY = 64
COMMIT_EVERY_S = 0.05
"""Seconds that a finished episode waits at most for its commit."""
COMMIT_EVERY = 256
"""Episodes that wait at most for a commit."""
YIELD_EVERY_S = 0.002
"""Seconds for which episodes that never wait may keep the event loop to themselves."""
HOPELESS = 20
"""If so many episodes end as infrastructure outcomes before the first one is scored, the run stops: nothing works."""


class Options(msgspec.Struct, frozen=True):
    """How a plan is played."""

    concurrency: int | None = None
    """Episodes at once; None: `DEFAULT_CONCURRENCY`. A policy's own ``slots`` bounds it."""
    retries: int = 2
    """Further attempts after an infrastructure outcome that may pass; nothing else is ever retried."""
    seed: int = 0
    """Run seed; with task and trial it gives each episode's sampling seed."""
    sampling: Sampling = Sampling()
    limits: Limits | None = None
    max_cost_usd: float | None = None
    """No new episode starts once the run has cost so much."""
    step_threads: int = 16
    """Threads for environments whose ``step`` blocks."""
    processes: int = 1
    """Processes that play, each its share; see `rollout.processes`."""
    exitfirst: bool = False
    """Stop at the first episode that ends as an infrastructure outcome."""
    sandbox: str | None = None
    """Backend that code runs in; None: what ``AGENTGYM_SANDBOX`` says, else the first that works here."""


class Tally(msgspec.Struct):
    """Counts of one family and variant, or of everything."""

    planned: int = 0
    done: int = 0
    """Acknowledged outcomes, infrastructure included."""
    infrastructure: int = 0
    cancelled: int = 0
    """By a person; neither infrastructure nor scored."""
    gold_sum: float = 0.0
    gold_count: int = 0


class Progress(msgspec.Struct):
    """How far a run is; counts acknowledged (committed) episodes only."""

    total: Tally
    by_family: dict[str, Tally]
    turns: int = 0
    tokens: int = 0
    """Sampled tokens."""
    cost_usd: float = 0.0
    retried: int = 0
    """Failed attempts that were tried again."""
    elapsed_s: float = 0.0
    resumed: int = 0
    """Episodes that were on record before this sitting; counted as done."""
    last_error: str = ""
    paused: bool = False
    """Somebody has paused the run."""

    @property
    def episodes_per_s(self) -> float:
        """Throughput of this sitting."""
        return (self.total.done - self.resumed) / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at this throughput; None before the first result."""
        rate = self.episodes_per_s
        return (self.total.planned - self.total.done) / rate if rate else None


ProgressCallback = Callable[[Progress], None]


def episode_seed(seed: int, task_id: str, trial: int) -> int:
    """A 31-bit seed from run seed, task and trial: equal in every rerun, different between trials."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{trial}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


class _Prepared(msgspec.Struct):
    """A task made ready once for all its trials."""

    task: Task
    frozen: FrozenTask
    data: bytes
    hash: str


class Attempted(msgspec.Struct, gc=False, array_like=True):
    """What the counts need to know of an attempt that waits for its commit."""

    family: str
    gold: float | None
    error: str | None
    """Why it ended as an infrastructure outcome; None if it did not."""
    turns: int
    tokens: int
    cost_usd: float
    again: bool = False
    """It failed and is about to be made again: not an outcome yet."""
    cancelled: bool = False


@contextlib.contextmanager
def _rarely_collecting() -> Iterator[None]:
    """Lets the collector of cyclic garbage run less often: thousands of live episodes are much to look through, and what
    they leave behind is freed without it. Looking through them at the usual pace was a fifth of the cost of a turn."""
    before = gc.get_threshold()
    if before[0] and before[0] < _THRESHOLDS[0]:  # 0: somebody has switched it off
        gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


_THRESHOLDS = (50_000, 20, 100)
"""Of the three generations, while episodes are played."""


class _Stop(Exception):
    """Ends a run early, in an orderly way; the text says why."""


class Scheduler:
    """Plays a plan with one policy and writes what happens.

    Args:
        plan: what to play.
        policy: who plays.
        writer: where it is kept; the plan has been written into it.
        options: see `Options`.
        on_progress: called after commits, at most five times a second, from the event loop.
        judge: whom verifiers ask that need one.
        steering: what heeds a person's commands; None: one of its own.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        writer: RunWriter,
        options: Options,
        on_progress: ProgressCallback | None = None,
        judge: Policy | None = None,
        steering: Steering | None = None,
    ) -> None:
        self.plan = plan
        self.policy = policy
        self.judge = judge
        self.writer = writer
        self.options = options
        self.stopped: str | None = None
        """Why the run ended before its plan did; None if it did not."""
        self._steering = steering or Steering(writer.path)
        self._on_progress = on_progress
        self._on_record = writer.finished()
        self._idle: dict[tuple[int, str], list[ChatEnv]] = {}
        self._prepared: dict[int, _Prepared] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._worked = False
        """Whether any episode of this sitting was a real outcome."""
        self._spoiled = 0
        """Episodes of this sitting that ended as infrastructure outcomes, retries included."""
        self._waiting: list[Attempted] = []
        """What was added to the writer and not committed yet."""
        self._cost = writer.cost()
        self._last_commit = self._last_report = self._last_yield = time.monotonic()
        self._started = time.monotonic()
        self.progress = self._initial_progress()
        slots = getattr(policy, "slots", None)
        wanted = options.concurrency or DEFAULT_CONCURRENCY
        self.concurrency = max(1, min(wanted, slots) if slots else wanted)

    def _initial_progress(self) -> Progress:
        progress = Progress(Tally(), {})
        for task in self.plan.tasks:
            tally = progress.by_family.setdefault(TaskId.parse(task.task_id).family, Tally())
            for t in (tally, progress.total):
                t.planned += task.trials
            for trial in range(task.trials):
                if self._on_record.get((task.task_id, trial), (0, False))[1]:
                    tally.done += 1
                    progress.total.done += 1
                    progress.resumed += 1
        return progress

    def _jobs(self) -> Iterator[tuple[int, PlannedTask, int, int]]:
        """What is still to be played: (position, task, trial, number of the next attempt)."""
        for position, task in enumerate(self.plan.tasks):
            for trial in range(task.trials):
                attempts, done = self._on_record.get((task.task_id, trial), (0, False))
                if not done:
                    yield position, task, trial, attempts

    async def run(self) -> Progress:
        """Plays everything that is not on record yet. Cancellation keeps what is done.

        Raises:
            RecordError: the record cannot be written; what was acknowledged is safe.
            DefinitionError: an environment or policy is written wrongly.
        """
        with _rarely_collecting():
            return await self._run()

    async def _run(self) -> Progress:
        jobs = self._jobs()
        everyone: set[asyncio.Task[None]] = set()
        # Told by each task as it ends: waiting for the first of thousands would attach to all of them, each time anew.
        ended: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(work)
            everyone.add(task)
            task.add_done_callback(ended.put_nowait)

        begin(self._commit_regularly())
        working = 0
        try:
            for _ in range(min(self.concurrency, self.progress.total.planned - self.progress.total.done)):
                begin(self._work(jobs))
                working += 1
                # one at a time: the first episodes get ahead, so the first result does not wait for all to start
                await asyncio.sleep(0)
                while not ended.empty():
                    working -= 1
                    ended.get_nowait().result()  # raises what it raised
                if not working:
                    break
            while working:
                task = await ended.get()
                working -= 1
                task.result()
        except _Stop as e:
            self.stopped = str(e)
        finally:
            for task in everyone:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                # several may have failed, of a full disk for one; asyncio prints those that nobody has asked for
                await asyncio.gather(*everyone, return_exceptions=True)
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
            for envs in self._idle.values():
                for env in envs:
                    env.close()
            self._steering.close()
            self._commit()
            self._report(force=True)
        return self.progress

    # -- one worker -----------------------------------------------------------------------------------------------------

    async def _work(self, jobs: Iterator[tuple[int, PlannedTask, int, int]]) -> None:
        for position, planned, trial, attempt in jobs:
            if self._steering.paused:
                await self._steering.may_begin()
            if not self._may_start():
                return
            error = await self._job(position, planned, trial, attempt)
            now = time.monotonic()
            if self.writer.pending >= COMMIT_EVERY or now - self._last_commit >= COMMIT_EVERY_S:
                self._commit()
            if error is not None and error.kind != "replay" and self.stopped is None:
                if self.options.exitfirst:
                    self.stopped = f"an episode ended as an infrastructure outcome: {error.message}"
                elif self._spoiled >= HOPELESS and not self._worked:
                    n = self._spoiled
                    self.stopped = f"the first {n} episodes all failed for reasons of infrastructure: {error.message}"
                if self.stopped is not None:
                    raise _Stop(self.stopped)
            # scripted policies never wait; without this, one worker would play the whole plan alone, and nothing else run
            if now - self._last_yield >= YIELD_EVERY_S:
                await asyncio.sleep(0)
                self._last_yield = time.monotonic()

    def _may_start(self) -> bool:
        """Whether a further attempt may begin. What is under way when the money is spent may finish: it is paid for."""
        limit = self.options.max_cost_usd
        if limit is not None and self._cost >= limit and self.stopped is None:
            self.stopped = (
                f"the run has cost ${self._cost:.2f}, its limit of ${limit:.2f} is reached; a higher one lets it be resumed"
            )
        return self.stopped is None

    async def _job(self, position: int, planned: PlannedTask, trial: int, attempt: int) -> EpisodeError | None:
        """Plays one trial of one task, again where infrastructure failed; returns why it failed in the end, if it did."""
        reins = self._steering.begin(planned.task_id, trial)
        try:
            return await self._held(reins, position, planned, trial, attempt)
        finally:
            self._steering.end(reins)

    async def _held(self, reins: Reins, position: int, planned: PlannedTask, trial: int, attempt: int) -> EpisodeError | None:
        key = (planned.environment, planned.variant)
        for retry in range(self.options.retries + 1):
            idle = self._idle.setdefault(key, [])
            try:
                env = idle.pop() if idle else self._make(planned)
            except (UsageError, DefinitionError):
                raise
            except Exception as e:
                prepared, result = _broken_task(planned, trial, self.policy.name, e)
            else:
                prepared, result = await self._attempt(env, position, planned, trial, reins)
                if result.trajectory.error is None:
                    idle.append(env)  # an environment that failed is not trusted again
                else:
                    with contextlib.suppress(Exception):
                        env.close()
            attempted = self._keep(prepared, result, attempt + retry)
            if not result.retryable or retry == self.options.retries or not self._may_start():
                break
            attempted.again = True
            # full jitter: clients of a server that just came back do not all knock at once
            await reins.nap(random.uniform(0.0, min(30.0, 0.5 * 2.0**retry)))
        if trial == planned.trials - 1:
            self._prepared.pop(position, None)
        error = result.trajectory.error
        if error is None:
            self._worked = True
        elif error.kind == "cancelled":
            return None
        elif error.kind != "replay":
            self._spoiled += 1
        return error

    def _make(self, planned: PlannedTask) -> ChatEnv:
        env = self.plan.environments[planned.environment].make(planned.variant)
        env.sandboxes = functools.partial(shared_backend, self.options.sandbox)
        return env

    def _keep(self, prepared: _Prepared, result: EpisodeResult, attempt: int) -> Attempted:
        """Hands an attempt to the writer; it counts once it is committed."""
        t = result.trajectory
        usage = t.usage
        cost = usage.cost_usd + _judging_cost(result)
        self._cost += cost
        self.writer.add(
            EpisodeRecord(t, result.task, prepared.data, attempt, result.reward, result.gold, result.scores, result.findings)
        )
        cancelled = t.outcome == "cancelled"
        error = None if t.error is None or cancelled else t.error.message
        attempted = Attempted(
            result.task.family, result.gold, error, len(t.turns), usage.completion_tokens, cost, cancelled=cancelled
        )
        self._waiting.append(attempted)
        return attempted

    async def _attempt(
        self, env: ChatEnv, position: int, planned: PlannedTask, trial: int, reins: Reins
    ) -> tuple[_Prepared, EpisodeResult]:
        prepared = self._prepared.get(position)
        if prepared is None:
            try:
                task = env.make_task(planned.item)
                frozen = env.freeze(task)
                data = frozen.encode()
            except (UsageError, DefinitionError):
                raise
            except Exception as e:  # one seed on which an author's generator breaks must not end the run
                return _broken_task(planned, trial, self.policy.name, e)
            prepared = _Prepared(task, frozen, data, content_hash(data))
            if planned.trials > 1:
                self._prepared[position] = prepared
        if self._threads is None and waits(env):
            self._threads = ThreadPoolExecutor(self.options.step_threads, thread_name_prefix="agentgym-step")
        result = await play(
            env,
            prepared.task,
            self.policy,
            frozen=prepared.frozen,
            task_hash=prepared.hash,
            trial=trial,
            seed=episode_seed(self.options.seed, planned.task_id, trial),
            sampling=self.options.sampling,
            limits=self.options.limits,
            threads=self._threads,
            judge=self.judge,
            reins=reins,
        )
        return prepared, result

    # -- commits and progress ---------------------------------------------------------------------------------------------

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            self._steering.look()
            self._commit()

    def _commit(self) -> None:
        self._last_commit = time.monotonic()
        progress = self.progress
        if self.writer.flush():
            waiting, self._waiting = self._waiting, []
            for o in waiting:
                failed = o.error is not None
                if failed:
                    progress.last_error = o.error or ""
                if o.again:
                    progress.retried += 1
                else:
                    for tally in (progress.total, progress.by_family[o.family]):
                        tally.done += 1
                        tally.infrastructure += failed
                        tally.cancelled += o.cancelled
                        if o.gold is not None:
                            tally.gold_sum += o.gold
                            tally.gold_count += 1
                progress.turns += o.turns
                progress.tokens += o.tokens
                progress.cost_usd += o.cost_usd
        self._report()

    def _report(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not force and now - self._last_report < 0.2):
            return
        self._last_report = now
        self.progress.elapsed_s = now - self._started
        self.progress.paused = self._steering.paused
        self._on_progress(self.progress)


def _judging_cost(result: EpisodeResult) -> float:
    """US dollars that judges have cost, as verifiers keep it in their evidence; each score's own, entered under one role."""
    spent = {s.name: s.evidence["judge"] for s in result.scores if isinstance(s.evidence, dict) and "judge" in s.evidence}
    costs = [j.get("cost_usd", 0.0) for j in spent.values() if isinstance(j, dict)]
    return sum(c for c in costs if isinstance(c, (int, float)))


def _broken_task(planned: PlannedTask, trial: int, policy: str, error: Exception) -> tuple[_Prepared, EpisodeResult]:
    """The record of a task that could not even be made."""
    id_ = TaskId.parse(planned.task_id)
    told = episode_error("environment", error)
    frozen = FrozenTask(
        family=id_.family, version=0, variant=id_.variant, item=id_.item, seed=None, params={}, opening=(), tools=(),
        state=None, gold=None, hidden=None, cluster=id_.family, tags=(),
    )  # fmt: skip
    data = frozen.encode()
    trajectory = Trajectory(
        task_id=planned.task_id, task_hash=content_hash(data), trial=trial, policy=public_name(policy), turns=[],
        started_at=time.time(), outcome="infrastructure",
        error=EpisodeError("environment", f"the task could not be made: {told.message}", told.detail),
    )  # fmt: skip
    retryable = isinstance(error, InfrastructureError) and error.retryable
    result = EpisodeResult(trajectory, frozen, None, None, [], [], retryable)
    return _Prepared(Task(opening=""), frozen, data, content_hash(data)), result
