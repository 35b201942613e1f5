# SPDX-License-Identifier: Apache-2.0
"""Requests and answers between a host and a guest over one stream, for any number of threads at once."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from agentgym.sandbox import _guest
from agentgym.sandbox.protocol import Status

_MOST_HEAD, _MOST_BODY = 8 << 20, 80 << 20
"""Bytes of a frame from a guest; it sits next to untrusted code."""

Listed = tuple[str, str, int, int]
"""Path, kind, mode and size of something in a workspace, as `_guest.walk` tells of it."""
Frame = tuple[list[Listed], bytes]
"""Some of them, and their contents one after the other."""


class Reply(msgspec.Struct):
    """What a guest answers, checked by type: it sits next to untrusted code."""

    id: int
    error: str | None = None
    errno: int = 0
    busy: bool = False
    over: bool = False
    ready: bool = False
    status: Status = "ok"
    code: int | None = None
    out: int = 0
    total_out: int = 0
    total_err: int = 0
    wall: float = 0.0
    cpu: float | None = None
    session: int = 0
    size: int = 0
    processes: int = 0
    sessions: int = 0
    entries: list[Listed] = []
    more: bool = False


class ClosedError(Exception):
    """The guest hung up."""


class LateError(Exception):
    """The guest did not answer in time."""


class Stream(Protocol):
    """A way to a guest."""

    def send(self, data: bytes) -> None:
        """All of it."""
        ...

    def receive(self, timeout_s: float) -> bytes | None:
        """Some bytes; None where none came in time, empty where the guest hung up."""
        ...

    def hang_up(self) -> None:
        """Wakes up whoever waits in `receive`."""
        ...

    def close(self) -> None:
        """Frees it; nobody waits any more."""
        ...


class SocketStream:
    """Over a socket of this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes | None:
        """Some bytes."""
        if not self._poll.poll(max(0.0, timeout_s) * 1000):
            return None
        try:
            return self._socket.recv(1 << 18)
        except OSError:
            return b""

    def hang_up(self) -> None:
        """Wakes up whoever waits in `receive`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees it."""
        self._socket.close()


class Channel:
    """Requests and answers over a stream; any number of threads may wait at once, one of them reads for all."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Reply)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._reading = False
        self._owner = os.getpid()
        self._closed = False
        """The guest hung up, or we did."""
        self._hung_up = False
        """We did."""
        self._next = 0
        self._waiting: dict[int, deque[tuple[Reply, bytes]]] = {0: deque()}
        self._buffer = bytearray()

    def ask(self, request: dict[str, Any], data: bytes, timeout_s: float) -> Iterator[tuple[Reply, bytes]]:
        """Sends a request; the frames of its answer.

        Raises:
            ClosedError: the guest hung up.
            LateError: no answer within ``timeout_s`` seconds.
        """
        with self._changed:
            self._next += 1
            number = self._next
            self._waiting[number] = deque()
        try:
            request["id"] = number
            head = self._encoder.encode(request)
            try:
                with self._sending:
                    self.stream.send(_guest.HEADER.pack(len(head), len(data)) + head + data)
            except OSError:
                raise ClosedError from None
            deadline = time.monotonic() + timeout_s
            while True:
                reply, body = self.wait(number, deadline)
                yield reply, body
                if not reply.more:
                    return
        finally:
            with self._changed:
                self._waiting.pop(number, None)

    def wait(self, number: int, deadline: float) -> tuple[Reply, bytes]:
        """The next frame of one answer (0: what the guest says unasked)."""
        while True:
            with self._changed:
                mine = self._waiting[number]
                while not mine and self._reading and not self._closed:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        raise LateError
                if mine:
                    return mine.popleft()
                if self._closed:
                    raise ClosedError
                self._reading = True
            try:
                self._read(deadline)
            finally:
                with self._changed:
                    self._reading = False
                    if self._hung_up:
                        self.stream.close()
                    self._changed.notify_all()
            if time.monotonic() > deadline and not mine:
                raise LateError

    def _read(self, deadline: float) -> None:
        """Takes in what comes next, for whoever waits for it."""
        data = self.stream.receive(deadline - time.monotonic())
        if data is None:
            return
        if not data:
            self._closed = True
            return
        self._buffer += data
        while len(self._buffer) >= _guest.HEADER.size:
            head, body = _guest.HEADER.unpack_from(self._buffer)
            if head > _MOST_HEAD or body > _MOST_BODY:
                self._closed = True
                return
            start, end = _guest.HEADER.size + head, _guest.HEADER.size + head + body
            if len(self._buffer) < end:
                return
            try:
                reply = self._decoder.decode(bytes(self._buffer[_guest.HEADER.size : start]))
            except msgspec.DecodeError:
                self._closed = True
                return
            with self._changed:
                if reply.id in self._waiting:
                    self._waiting[reply.id].append((reply, bytes(self._buffer[start:end])))
            del self._buffer[:end]

    def close(self) -> None:
        """Wakes up everybody with `ClosedError`."""
        with self._changed:
            self._closed = self._hung_up = True
            if self._owner == os.getpid():  # a forked child lets go of its copy and leaves its parent's alone
                self.stream.hang_up()
            if not self._reading:  # a descriptor that is closed under a reader could be somebody else's at once
                self.stream.close()
            self._changed.notify_all()
