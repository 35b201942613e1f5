# SPDX-License-Identifier: Apache-2.0
"""A process that plays a share of a run: ``python -m agentgym.rollout.worker``, started by `rollout.processes`.

It reads the run for what to do, and sends what it played through what was its standard output. Whatever tasks and agents
print goes to standard error. It ends when its input does: with the process that started it, or when that says so.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

from agentgym.errors import AgentGymError
from agentgym.policies.load import load_policy
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRows
from agentgym.rollout.evaluate import _closing, _fingerprint, _prepare, judging, read_plan
from agentgym.rollout.processes import Frame, Share, pack_frame
from agentgym.rollout.scheduler import Options, Scheduler
from agentgym.rollout.selection import Plan
from agentgym.rollout.steering import Steering


class _Rows(EpisodeRows):
    """What a scheduler takes for its writer."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def finished(self) -> dict[tuple[str, int], tuple[int, bool]]:
        with Run(self.path) as run:
            return run.attempts()

    def cost(self) -> float:
        return 0.0  # the process that writes counts the money


class _Sending(Scheduler):
    """A scheduler whose commits are frames."""

    def __init__(
        self, plan: Plan, policy: Any, rows: _Rows, options: Options, pipe: int, judge: Any = None, index: int = 0
    ) -> None:
        super().__init__(plan, policy, rows, options, judge=judge, steering=Steering(rows.path, index))  # type: ignore[arg-type]
        self._pipe = pipe

    def _commit(self) -> None:
        self._last_commit = asyncio.get_running_loop().time()
        if self.writer.pending:
            self.send(Frame(self.writer.take(), self._waiting))
            self._waiting = []

    def send(self, frame: Frame) -> None:
        """Writes a frame; waits where the reader is behind, which slows this process down as it should."""
        data = memoryview(pack_frame(frame))
        while data:
            data = data[os.write(self._pipe, data) :]


def _read_share() -> Share:
    size = struct.unpack(">I", _exactly(4))[0]
    return msgspec.msgpack.decode(_exactly(size), type=Share)


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(1)  # whoever started this has died
        data += more
    return data


async def _play(share: Share, pipe: int) -> None:
    path = Path(share.path)
    frame = Frame(ended=True)
    scheduler: _Sending | None = None
    try:
        plan, _, _ = read_plan(path)
        plan = msgspec.structs.replace(plan, tasks=plan.tasks[share.index :: share.count])
        policy = load_policy(share.model)
        judge = load_policy(share.judge) if share.judge else None
        async with _closing(policy), judging(judge):
            await _prepare(policy)
            scheduler = _Sending(plan, policy, _Rows(path), share.options, pipe, judge, share.index)
            _listen(scheduler, asyncio.current_task())
            try:
                await scheduler.run()
                frame.stopped = scheduler.stopped
            except asyncio.CancelledError:
                pass  # told to end: what was played is handed over
            frame.served = _fingerprint(policy).get("served", {})
    except AgentGymError as e:
        frame.error = type(e).__name__, str(e)
    data = memoryview(pack_frame(frame))
    while data:
        data = data[os.write(pipe, data) :]


def _listen(scheduler: Scheduler, playing: asyncio.Task[Any] | None) -> None:
    """Heeds what comes through the input: a line to stop, or its end."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        if os.read(0, 4096):
            scheduler.stopped = scheduler.stopped or ""
            return
        loop.remove_reader(0)
        if playing is not None:
            playing.cancel()

    loop.add_reader(0, told)


def main() -> None:
    """Plays the share that the input tells."""
    pipe = os.dup(1)
    os.dup2(2, 1)  # a task that prints must not break a frame
    share = _read_share()
    sys.path[:] = share.sys_path
    asyncio.run(_play(share, pipe))


if __name__ == "__main__":
    main()
