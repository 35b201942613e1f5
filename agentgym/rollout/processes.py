# SPDX-License-Identifier: Apache-2.0
"""One run played by several processes: each plays its share, this one writes what they played.

Where one event loop is one core: past some thousand model calls a second, or where environments compute. The worker
(`rollout.worker`) is a scheduler like the one of this process, whose rows go through a pipe instead of into the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from agentgym import errors
from agentgym.errors import AgentGymError, InfrastructureError, NotFoundError, UsageError
from agentgym.policies.load import load_policy
from agentgym.protocols import Policy
from agentgym.records.store import Batch, RunWriter
from agentgym.rollout.scheduler import COMMIT_EVERY_S, Attempted, Options, ProgressCallback, Scheduler
from agentgym.rollout.selection import Plan
from agentgym.rollout.steering import Steering

RESTARTS = 2
"""A process that dies is started again, and what it had not handed over played again; so often in a row at most, if no
episode gets done in between."""
LEAVE_S = 15.0
"""Seconds that a process may take to hand over what it has once it is told to end."""


class Share(msgspec.Struct):
    """What a worker process is told, in one frame on its standard input."""

    path: str
    """The run: plan, options and what is on record are read from there."""
    model: str
    """The text that names the model. May hold credentials, which is why it is neither an argument nor read from the run."""
    index: int
    count: int
    """It plays every ``count``-th task from ``index`` on."""
    sys_path: list[str]
    """Where modules of tasks and agents are found."""
    options: Options
    judge: str = ""
    """The text that names the judge; empty: none."""


class Frame(msgspec.Struct):
    """What a worker process sends, on what was its standard output."""

    batch: Batch | None = None
    attempted: list[Attempted] = []
    ended: bool = False
    """The last frame: everything of its share was handed over, or it was told to stop."""
    stopped: str | None = None
    """Why it ended early by itself."""
    error: tuple[str, str] | None = None
    """Class and text of the error that ended it."""
    served: dict[str, Any] = {}
    """What its policy learned of the server; see `Policy.fingerprint`."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def pack_frame(value: Any) -> bytes:
    """A value with its length (4 bytes, big endian) in front."""
    data = _encode(value)
    return struct.pack(">I", len(data)) + data


def require_named(policy: Policy, model: str | None) -> str:
    """The text by which each process can make a policy of its own.

    Raises:
        UsageError: there is none.
    """
    refused = f"{policy.name} is an object, which several processes cannot share: name the model by a text"
    if model is None:
        raise UsageError(f"{refused}, e.g. openai:MODEL@URL or my_agent.py:Agent, or play with one process")
    try:
        load_policy(model)
    except NotFoundError as e:
        raise UsageError(f"{refused} ({e})") from e
    return model


class Processes(Scheduler):
    """Plays a plan with ``options.processes`` processes of ``python -m agentgym.rollout.worker``.

    Args:
        plan: what to play; on record already.
        policy: who plays; each process makes one of its own from ``model``.
        writer: where it is kept.
        options: as for `Scheduler`; ``concurrency`` is of all processes together.
        model: the text that names the policy; see `require_named`.
        on_progress: see `Scheduler`.
        judge: the text that names the judge; empty: none.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        writer: RunWriter,
        options: Options,
        model: str,
        on_progress: ProgressCallback | None = None,
        judge: str = "",
    ) -> None:
        super().__init__(plan, policy, writer, options, on_progress, steering=Steering(writer.path, None))
        self._model = model
        self._judge = judge
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._told_to_stop = False
        self.served: list[dict[str, Any]] = []
        """What each process learned of the server."""

    async def run(self) -> Any:
        """As `Scheduler.run`. Cancellation lets the processes hand over what they have played."""
        waiting = self.progress.total.planned - self.progress.total.done
        count = max(1, min(self.options.processes, len(self.plan.tasks), waiting))
        tasks = [asyncio.create_task(self._serve(i, count)) for i in range(count)]
        ticker = asyncio.create_task(self._commit_regularly())
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            self._told_to_stop = True  # whoever dies now is not replaced
            for process in self._running.values():
                assert process.stdin is not None
                process.stdin.close()  # for a worker, the end of its input is the end of its run
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([*tasks], timeout=LEAVE_S)
            raise
        finally:
            for task in (*tasks, ticker):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, ticker, return_exceptions=True)
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self._commit()
            self._report(force=True)
        return self.progress

    async def _serve(self, index: int, count: int) -> None:
        """One share, with as many processes one after the other as it takes."""
        deaths = 0
        while True:
            ended, code, episodes = await self._live(index, count)
            self._commit()  # what it had handed over is then on record, for the next one to see
            if ended or self._told_to_stop:
                return
            deaths = 1 if episodes else deaths + 1
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if deaths > RESTARTS:
                raise InfrastructureError(
                    f"a worker process {how}, {deaths} times in a row; what it wrote to the terminal stands above."
                    f" Everything that was played is on record: --resume {self.writer.path}",
                    retryable=False,
                )

    async def _live(self, index: int, count: int) -> tuple[bool, int, int]:
        """One process: whether it said that it had finished, its exit code, and how many episodes it handed over."""
        options = msgspec.structs.replace(
            self.options, processes=1, concurrency=-(-self.concurrency // count), max_cost_usd=None
        )
        sys_path = [str(Path(p).absolute()) for p in sys.path]
        share = Share(str(self.writer.path.absolute()), self._model, index, count, sys_path, options, self._judge)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentgym.rollout.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then tells the others
        )  # fmt: skip
        assert process.stdin is not None
        self._running[index] = process
        numbers: dict[int, int] = {}
        ended, episodes = False, 0
        try:
            with contextlib.suppress(ConnectionError):  # it has died; its exit code says how
                process.stdin.write(pack_frame(share))
                await process.stdin.drain()
            if self._told_to_stop:
                self._tell(process)
            async for frame in _frames(process):
                if frame.batch is not None:
                    episodes += frame.batch.count
                    self._take(frame.batch, frame.attempted, numbers)
                if frame.ended:
                    ended = True
                    self.served.append(frame.served)
                    if frame.error is not None:
                        raise _error(*frame.error)
                    if frame.stopped is not None:
                        self._stop(frame.stopped)
        finally:
            with contextlib.suppress(ConnectionError):
                process.stdin.close()
        code = await process.wait()
        self._running.pop(index, None)
        return ended, code, episodes

    def _take(self, batch: Batch, attempted: list[Attempted], numbers: dict[int, int]) -> None:
        self.writer.merge(batch, numbers)
        self._waiting += attempted
        self._cost += sum(a.cost_usd for a in attempted)
        if not self._may_start():
            self._stop(self.stopped)
        if time.monotonic() - self._last_commit >= COMMIT_EVERY_S:
            self._commit()

    def _stop(self, why: str | None) -> None:
        """Lets all processes finish what they are at, and no more."""
        self.stopped = self.stopped or why
        if not self._told_to_stop:
            self._told_to_stop = True
            for process in self._running.values():
                self._tell(process)

    def _tell(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            process.stdin.write(b"stop\n")


async def _frames(process: asyncio.subprocess.Process) -> AsyncIterator[Frame]:
    """What a process sends, until it ends."""
    assert process.stdout is not None
    while True:
        try:
            size = struct.unpack(">I", await process.stdout.readexactly(4))[0]
            data = await process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            return
        yield _decode(data)


def _error(kind: str, text: str) -> AgentGymError:
    cls = getattr(errors, kind, None)
    if isinstance(cls, type) and issubclass(cls, AgentGymError) and cls is not InfrastructureError:
        with contextlib.suppress(TypeError):
            return cls(text)
    return InfrastructureError(text, retryable=False)


def merge_served(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What several processes learned of one server: counts added up, lists united."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key not in result:
                result[key] = value
            elif isinstance(value, dict) and isinstance(result[key], dict):
                result[key] = merge_served([result[key], value])
            elif isinstance(value, list) and isinstance(result[key], list):
                result[key] = result[key] + [v for v in value if v not in result[key]]
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                result[key] += value
    return result
