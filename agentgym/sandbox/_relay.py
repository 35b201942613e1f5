# SPDX-License-Identifier: Apache-2.0
"""The host's side of an allowed network: carries bytes between a sandbox and the hosts that its spec names.

A socket belongs for good to the network namespace in which it was made. Process 1 of a sandbox makes one that listens for each
entry, hands them to this process and keeps none, so nothing inside holds more than its own end of a connection: what is
accepted here comes from inside, what is connected here goes outside, and between them only bytes pass.

One thread per backend serves all its sandboxes. It starts with the first sandbox that has a network.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any

from agentgym.sandbox import _allowed
from agentgym.sandbox._allowed import Destination
from agentgym.sandbox.protocol import SandboxError

AT_ONCE = 16
"""Connections of one sandbox; more wait until one has ended."""
PER_SECOND, BURST = 50.0, 100.0
"""New connections of one sandbox: each keeps a port of the host's taken for a minute after its end."""
CONNECT_S = 10.0
"""How long looking up a name and connecting may take together."""
IDLE_S = 300.0
"""How long a connection may carry nothing."""
_PIECE = 1 << 16
_BUFFER = 1 << 18
"""Bytes that the kernel keeps for one direction of one socket, on the host's account."""
_LOOPBACK = ("127.0.0.1", "::1")

_live: weakref.WeakSet[Relay] = weakref.WeakSet()


def _after_fork() -> None:
    """A child of the host has copies of the sockets, which would keep connections and namespaces alive."""
    for relay in list(_live):
        relay.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Relay:
    """The network of one instance of a sandbox, until it is closed.

    Args:
        relays: whose thread it runs in.
        listeners: sockets that listen inside of the sandbox, and what each of them leads to. Taken over.
    """

    def __init__(self, relays: Relays, listeners: Sequence[tuple[socket.socket, Destination]]) -> None:
        self._relays = relays
        self._owner = os.getpid()
        self._sockets = {listener for listener, _ in listeners}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._locks = {to: asyncio.Lock() for _, to in listeners}
        self._next = 0.0
        self._closed = False
        _live.add(self)
        relays.call(self._start(listeners))

    @property
    def connections(self) -> int:
        """How many there are, the ones being made included."""
        return len(self._tasks) - len(self._locks)

    async def _start(self, listeners: Sequence[tuple[socket.socket, Destination]]) -> None:
        for listener, to in listeners:
            self._spawn(self._accept(listener, to))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, to: Destination) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                inside, _ = await loop.sock_accept(listener)
            except OSError:  # the host is out of descriptors, or the connection is gone already
                await asyncio.sleep(0.1)
                continue
            self._sockets.add(inside)
            await self._slots.acquire()
            self._next = max(self._next + 1 / PER_SECOND, loop.time() - BURST / PER_SECOND)
            await asyncio.sleep(max(0.0, self._next - loop.time()))
            self._spawn(self._carry(inside, to))

    async def _carry(self, inside: socket.socket, to: Destination) -> None:
        outside = None
        try:
            async with asyncio.timeout(CONNECT_S):
                outside = await self._connect(to)
            await self._exchange(inside, outside)
        except (OSError, TimeoutError):  # reset, so that what was cut off does not look complete
            with contextlib.suppress(OSError):
                inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self._slots.release()
            self._end(inside)
            if outside is not None:
                self._end(outside)

    def _end(self, sock: socket.socket) -> None:
        self._sockets.discard(sock)
        sock.close()

    async def _connect(self, to: Destination) -> socket.socket:
        loop = asyncio.get_running_loop()
        why: OSError = OSError(f"{to.host} has no address of the internet")
        for address in await self._addresses(to):
            outside = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            self._sockets.add(outside)
            try:
                _prepare(outside)
                outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                await loop.sock_connect(outside, (address, to.port))
                return outside
            except OSError as e:
                self._end(outside)
                why = e
            except BaseException:
                self._end(outside)
                raise
        raise why

    async def _addresses(self, to: Destination) -> Sequence[str]:
        """Where it is now. What a name leads to is not up to whoever listed it: into the host's own networks it may not."""
        if to.literal:
            return [to.host]
        if to.host == "localhost":
            return _LOOPBACK
        async with self._locks[to]:  # a resolver that hangs has one thread of ours, not sixteen
            return [address for address in await _resolve(to) if _allowed.public(address)]

    async def _exchange(self, inside: socket.socket, outside: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        _prepare(inside)
        seen = [loop.time()]
        ways = [loop.create_task(_pump(inside, outside, seen)), loop.create_task(_pump(outside, inside, seen))]
        try:
            while waiting := [way for way in ways if not way.done()]:
                done, _ = await asyncio.wait(waiting, timeout=IDLE_S / 8, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
                if loop.time() - seen[0] > IDLE_S:
                    raise TimeoutError
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop(self) -> None:
        """Lets go of every socket, without a word to the other sides: for a child of a fork."""
        for sock in list(self._sockets):
            sock.close()
        self._sockets.clear()

    def close(self) -> None:
        """Ends every connection. May be called twice."""
        if self._closed or self._owner != os.getpid():
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            self._relays.call(self._stop())
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):  # whoever has a copy has nothing of it
                sock.shutdown(socket.SHUT_RDWR)
        self.drop()


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


async def _pump(source: socket.socket, target: socket.socket, seen: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _PIECE):
        seen[0] = loop.time()
        await loop.sock_sendall(target, data)
        await asyncio.sleep(0)  # neither of the two waits while there is something to do: others would
    target.shutdown(socket.SHUT_WR)


async def _resolve(to: Destination) -> list[str]:
    """Addresses of a name. In a thread that nobody waits for at the end, unlike an executor's: a resolver may hang."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def look_up() -> None:
        try:
            told = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
            found: list[str] | OSError = list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in told))
        except OSError as e:
            found = e
        except UnicodeError:
            found = OSError("no name that can be looked up")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name="agentgym-resolver", daemon=True).start()
    return await answer


class Opening:
    """The network of a sandbox that is being made. A context manager around asking for it.

    Attributes:
        asked: what the launcher is told.
        theirs: what process 1 inside is to send its listening sockets through.
        certificates: where TLS inside finds whom to trust.
    """

    certificates = "/etc/ssl/certs/ca-certificates.crt"

    def __init__(self, relays: Relays, entries: Sequence[str]) -> None:
        hosts, places = _allowed.layout(_allowed.parse_all(entries))
        self._relays = relays
        self._leads_to = list(places.values())
        self.asked = {"hosts": hosts, "listen": list(places)}
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *error: object) -> None:
        self.theirs.close()

    def relay(self) -> Relay:
        """Starts to carry, once the sandbox has said that it is ready: before that nothing untrusted runs in it.

        Raises:
            SandboxError: it did not send what was asked for.
        """
        with self._ours:
            self._ours.setblocking(False)  # it has been sent, if it ever will
            try:
                _, fds, _, _ = socket.recv_fds(self._ours, 16, _allowed.MOST)
            except BlockingIOError:
                fds = []
        listeners = [socket.socket(fileno=fd) for fd in fds]
        for listener in listeners:
            listener.setblocking(False)
            listener.set_inheritable(False)
        if len(listeners) != len(self._leads_to):
            for listener in listeners:
                listener.close()
            raise SandboxError("the sandbox did not start: it opened no network")
        return Relay(self._relays, list(zip(listeners, self._leads_to, strict=True)))

    def close(self) -> None:
        """Nothing came of it."""
        self._ours.close()


class Relays:
    """The thread that carries for all sandboxes of a backend, started when the first one needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in the thread, and waits for it."""
        with self._lock:
            if self._loop is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._loop = asyncio.SelectorEventLoop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="agentgym-network", daemon=True)
                self._thread.start()
            loop = self._loop
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    def opening(self, entries: Sequence[str]) -> Opening:
        """Begins with the network of one sandbox.

        Raises:
            UsageError: an entry is wrong.
        """
        return Opening(self, entries)

    def close(self) -> None:
        """Ends the thread. What it carried has been closed before."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or self._owner != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        if not thread.is_alive():
            loop.close()
