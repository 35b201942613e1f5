# SPDX-License-Identifier: Apache-2.0
"""What every backend over a guest process (`_guest`) has in common: it makes sandboxes, knows those that live, closes them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TypeVar

from agentgym.errors import UsageError
from agentgym.sandbox._channel import Channel, ClosedError, LateError
from agentgym.sandbox._client import Box, GuestSandbox, KeptSnapshot
from agentgym.sandbox.protocol import Capabilities, SandboxError, SandboxSpec, Snapshot, check_spec

READY_S = 60.0
"""How long a guest may take to start, and to take in one piece of a snapshot."""


def environment(spec: SandboxSpec) -> dict[str, str]:
    """The environment variables of a sandbox, all of them: nothing of the host's is handed on."""
    return {
        "HOME": "/workspace",
        "USER": "agent",
        "LOGNAME": "agent",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/tmp",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **spec.env,
    }


def await_guest(channel: Channel, what: str) -> None:
    """Waits until a new guest says that it is ready.

    Raises:
        SandboxError: it says that it is not, says nothing, or is gone.
    """
    try:
        reply, _ = channel.wait(0, time.monotonic() + READY_S)
    except (ClosedError, LateError) as e:
        raise SandboxError(f"{what} did not start" + (" in time" if isinstance(e, LateError) else "")) from None
    if reply.error is not None:
        raise SandboxError(f"{what} did not start: {reply.error}")


def kept(snapshot: Snapshot | None) -> KeptSnapshot | None:
    """A snapshot, held to being one of ours.

    Raises:
        UsageError: it is another's.
    """
    if snapshot is not None and not isinstance(snapshot, KeptSnapshot):
        raise UsageError(f"{type(snapshot).__name__} is no snapshot of this backend")
    return snapshot


_Made = TypeVar("_Made", bound=Box)


def filled(box: _Made, snapshot: Snapshot | None) -> _Made:
    """A fresh box, the files of a snapshot copied into it; a box that will not take them is ended.

    Raises:
        SandboxError: it does not take them.
    """
    try:
        files = kept(snapshot)
        for entries, data in files.frames if files is not None else ():
            reply, _ = next(box.channel.ask({"do": "fill", "entries": entries}, data, READY_S))
            if reply.error is not None:
                raise SandboxError(f"a snapshot could not be copied into a sandbox: {reply.error}")
    except BaseException as e:
        box.channel.close()
        box.kill()
        if isinstance(e, (ClosedError, LateError)):
            raise SandboxError("a snapshot could not be copied into a sandbox: it died") from None
        raise
    return box


class GuestBackend(ABC):
    """`Backend` over guest processes; a backend of its own says what it can do and how an instance is made."""

    name: str

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: set[GuestSandbox] = set()

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it enforces here.

        Raises:
            SandboxUnavailableError: it cannot work on this machine.
        """

    @abstractmethod
    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Box:
        """Starts an instance, its workspace empty or as in a snapshot."""

    def create(self, spec: SandboxSpec | None = None, snapshot: Snapshot | None = None) -> GuestSandbox:
        """A new sandbox.

        Raises:
            UsageError: the spec asks for what cannot be enforced.
            SandboxUnavailableError: the backend cannot work on this machine.
        """
        spec = spec or SandboxSpec()
        check_spec(spec, self.capabilities())
        return GuestSandbox(self, spec, snapshot)

    def adopt(self, sandbox: GuestSandbox) -> None:
        """To be closed with the backend."""
        with self._lock:
            self._open.add(sandbox)

    def forget(self, sandbox: GuestSandbox) -> None:
        """It is closed."""
        with self._lock:
            self._open.discard(sandbox)

    def close(self) -> None:
        """Ends everything that it made."""
        with self._lock:
            sandboxes = list(self._open)
        for sandbox in sandboxes:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
