# SPDX-License-Identifier: Apache-2.0
"""Many selections played one after another, by code that is not async, and kept in one run for each model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Policy
from agentgym.records.run import Run
from agentgym.records.store import PlannedTask, RunWriter, new_run_directory
from agentgym.rollout.evaluate import _check, _closing, _play, _prepare, check_judge, describe
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import EnvRef, Plan, absolute

_Result = TypeVar("_Result")

LEAVE_S = 10.0
"""Seconds that Ctrl-C waits for what is under way to be saved."""


class Played(msgspec.Struct):
    """What became of one selection."""

    path: Path
    """The run that holds its episodes, perhaps beside those of other selections."""
    tasks: list[PlannedTask]
    """What was selected."""
    stopped: str | None = None
    """Why the playing ended before all of it was played; None if it did not."""


class _Record(msgspec.Struct):
    """One run of the session."""

    path: Path
    who: Any
    """The model as named, or the policy itself: a model and its options fill one run."""
    options: Options
    refs: dict[str, EnvRef]
    """Task id -> environment, of everything planned so far."""


class Session:
    """Plays selections into as few runs as tell the truth: one for each model and set of options.

    What is on record is not played again: selections that share tasks share the episodes. Policies are loaded once and
    closed in the end. The playing is done by an event loop on a thread of its own, so that `play` may be called from
    anywhere, under a running loop as well. Usable as a context manager.

    Args:
        root: folder of runs.
        title: of the runs, and in the names of their directories.
    """

    def __init__(self, root: Path, title: str) -> None:
        self.root = root
        self.title = title
        self._policies: dict[Any, Policy] = {}
        self._records: list[_Record] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def runs(self) -> list[Path]:
        """The runs so far, oldest first."""
        return [r.path for r in self._records]

    def play(self, plan: Plan, options: Options, model: str | Policy | None = None) -> Played:
        """Plays what of a plan is not on record yet.

        Raises:
            UsageError: there is no such model, or an option makes no sense.
            DefinitionError: an environment or the policy is written wrongly.
            RecordError: the record cannot be written.
        """
        _check(options)
        return self._call(self._play(plan, options, DEFAULT if model is None else model))

    async def _play(self, plan: Plan, options: Options, model: str | Policy) -> Played:
        policy = self._policies.get(_key(model))
        if policy is None:
            policy = load_policy(model)
            await _prepare(policy)
            self._policies[_key(model)] = policy
        check_judge(plan, None)
        refs = [absolute(e) for e in plan.environments]
        mine = {t.task_id: refs[t.environment] for t in plan.tasks}
        name = model if isinstance(model, str) else policy.name
        description = await describe(plan, policy, options, name)
        record = next((r for r in self._records if _fits(r, model, options, mine)), None)
        if record is None:
            record = _Record(new_run_directory(self.root, self.title), model, options, {})
            writer = RunWriter(record.path, create=True)
            self._records.append(record)
        else:
            writer = RunWriter(record.path, create=False)
            with Run(record.path) as run:
                before = run.meta
            description = {"code": {**before.get("code", {}), **description["code"]}}
        try:
            writer.set_meta({**description, "title": self.title} if not record.refs else description)
            writer.set_plan(refs, plan.tasks)
            outcome = await _play(writer, plan, policy, options, None, None, resumed=bool(record.refs))
        finally:
            record.refs.update(mine)
            writer.close("failed")
        return Played(record.path, plan.tasks, outcome.stopped)

    def close(self) -> None:
        """Closes the policies and ends the thread. May be called twice."""
        if self._loop is None:
            return
        for policy in self._policies.values():
            self._call(_close(policy))
        self._policies.clear()
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        if thread is not None:
            thread.join()

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs a coroutine on the thread and waits for it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="agentgym-session", daemon=True)
            self._thread.start()
        ended = threading.Event()

        async def to_the_end() -> _Result:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(to_the_end(), self._loop)
        try:
            while not wait([future], 0.1).done:  # a wait without end may sleep through Ctrl-C
                pass
            return future.result()
        except BaseException:
            # Ctrl-C reaches the waiting thread and not the other, which would go on playing, and paying, unseen
            if not future.done():
                future.cancel()
                ended.wait(LEAVE_S)
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(model: str | Policy) -> Any:
    return model if isinstance(model, str) else id(model)


def _fits(record: _Record, model: str | Policy, options: Options, refs: dict[str, EnvRef]) -> bool:
    """Whether a record may take these tasks: one model, one set of options, and no task id with two meanings."""
    same = record.who == model if isinstance(model, str) else record.who is model
    return same and record.options == options and all(record.refs.get(task, ref) == ref for task, ref in refs.items())


async def _close(policy: Policy) -> None:
    async with _closing(policy):
        pass


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
