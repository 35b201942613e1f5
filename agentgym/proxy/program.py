# SPDX-License-Identifier: Apache-2.0
"""Programs as policies: ``agentgym proxy TASK --model MODEL -- my-agent``, ``--model "program:MODEL -- my-agent"``."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from typing import Any

from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.agents import GRACE_S, PROCESSES, STDERR_BYTES
from agentgym.policies.load import load_policy
from agentgym.protocols import EpisodeContext, Policy, PolicyBase
from agentgym.proxy.gateway import Gateway
from agentgym.proxy.http import check_host
from agentgym.proxy.seat import SILENCE_S, Left, Seat


class ProxiedPolicy(PolicyBase):
    """A policy whose episodes are played by whoever has the key of each.

    Args:
        model: who answers what they ask their model.
        name: how it is recorded.
        host: where the proxy listens. Whatever else than this machine alone must be asked for with ``open_to_others``.
        port: 0 for any.
        on_seat: called with a seat when its episode has begun; starts nothing by itself.
        silence_s: seconds without a request after which a program is taken to hang.
    """

    # to hand over the environment: a program is told how its last action ended, which the loop tells nobody; and a model
    # that is an oracle needs it. Nothing of it reaches the program.
    privileged = True

    def __init__(
        self,
        model: Policy,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        open_to_others: bool = False,
        on_seat: Callable[[Seat], None] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        check_host(host, open_to_others)
        self.model = model
        self.name = name
        self.gateway = Gateway()
        self._host, self._port, self._on_seat, self._silence_s = host, port, on_seat, silence_s

    def begin(self, context: EpisodeContext) -> Policy:
        """The seat of one episode."""
        return Seat(self.name, self.model, context, self._launch, self._leave, self._silence_s)

    async def _launch(self, seat: Seat) -> None:
        await self.gateway.open(self._host, self._port)
        self.gateway.seat(seat)
        if self._on_seat is not None:
            self._on_seat(seat)

    async def _leave(self, seat: Seat) -> None:
        """Nothing: until the policy is closed, whoever has the key is told that the episode is over."""

    def prepare(self) -> None:
        """Gets the model ready."""
        get_ready = getattr(self.model, "prepare", None)
        if callable(get_ready):
            get_ready()

    def fingerprint(self) -> dict[str, Any]:
        """The model's."""
        told = getattr(self.model, "fingerprint", None)
        return {"name": self.name, "model": told() if callable(told) else {"name": self.model.name}}

    async def aclose(self) -> None:
        """Ends the server, and closes the model."""
        await self.gateway.close()
        close = getattr(self.model, "aclose", None)
        if close is not None:
            await close()


class ProgramPolicy(ProxiedPolicy):
    """A program that is started once an episode and finds its model, task and tools through environment variables.

    It runs as the user's own, without a sandbox, with the user's environment. When it ends by itself with exit status 0 it has
    nothing more to say; with any other, its episode is an infrastructure outcome, as it is where it never asked for anything.
    When the episode is over first, it has two seconds to end before it and its process group are killed.

    Args:
        argument: ``MODEL -- COMMAND``, the command as in a shell, but without one.

    Raises:
        UsageError: no command, or one that cannot be read.
        NotFoundError: there is no such model or program.
    """

    slots = PROCESSES

    def __init__(self, argument: str) -> None:
        model, separator, command = argument.partition(" -- ")
        try:
            self.command = shlex.split(command)
        except ValueError as e:
            raise UsageError(f"the command of program: cannot be read: {e}") from None
        if not separator or not model.strip() or not self.command:
            raise UsageError('which model, which program? Expected --model "program:MODEL -- PROGRAM arguments"')
        if shutil.which(self.command[0]) is None:
            raise NotFoundError(f"there is no program {self.command[0]!r} to run; is it installed, executable and on the PATH?")
        policy = load_policy(model.strip())
        super().__init__(policy, f"program:{policy.name} -- {command}")
        self.resume_as = f"program:{argument}"
        self._running: dict[str, tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = {}

    def fingerprint(self) -> dict[str, Any]:
        """The model's, and a hash of each file that the command names."""
        files = {}
        for word in self.command:
            with contextlib.suppress(OSError), open(shutil.which(word) or word, "rb") as f:
                files[os.path.basename(word)] = hashlib.sha256(f.read()).hexdigest()[:12]
        return {**super().fingerprint(), "files": files}

    async def _launch(self, seat: Seat) -> None:
        await super()._launch(seat)
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT,
                env=self.gateway.environ(seat), start_new_session=True,
            )  # fmt: skip
        except OSError as e:
            raise InfrastructureError(f"{self.name} cannot be started: {e.strerror or e}", retryable=False) from None
        self._running[seat.episode] = process, asyncio.create_task(self._watch(seat, process))

    async def _watch(self, seat: Seat, process: asyncio.subprocess.Process) -> None:
        """Reads what a program prints, and tells its seat when it ends."""
        tail = b""

        async def listen() -> None:
            nonlocal tail
            while process.stdout is not None and (data := await process.stdout.read(65536)):
                tail = (tail + data)[-STDERR_BYTES:]

        reading = asyncio.create_task(listen())
        status = await process.wait()
        with contextlib.suppress(TimeoutError):
            # the pipe stays open as long as anyone holds it whom the program has started
            await asyncio.wait_for(reading, 1.0)
        if status == 0:
            seat.left(Left())
            return
        said = " ".join(tail.decode("utf-8", "replace").replace(seat.key, "***").split())
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        seat.left(Left(f"the program {how}; {f'its output ends: ...{said[-500:]}' if said else 'it printed nothing'}"))

    async def _leave(self, seat: Seat) -> None:
        running = self._running.pop(seat.episode, None)
        try:
            if running is None:
                return
            process, watching = running
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(watching), GRACE_S)
            # also when it has ended: what it started may not have
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watching, GRACE_S)
        finally:
            self.gateway.unseat(seat)
