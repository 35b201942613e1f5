# SPDX-License-Identifier: Apache-2.0
"""The process that sees what code in sandboxes does: outside of their namespaces, one for all sandboxes of a launcher.

A fork of the launcher, so it holds no secret either, with three capabilities at most. The kernel tells it of system calls
(`_notify`) and of files (`_watch`); it keeps what is worth telling until the host asks. Nothing that comes from a sandbox
can make it wait, grow or end: it asks the kernel only for what is there, keeps a bounded number of events of each family,
and serves a sandbox that calls too often more slowly. When it ends all the same, what it observed is refused by the
kernel and the launcher ends the sandboxes.

Standard library only and no import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or "agentgym.sandbox" in sys.modules:
    from agentgym.sandbox import _linux, _notify, _watch
else:
    import _linux
    import _notify
    import _watch

KEPT, KEPT_BYTES = 1000, 256 << 10
"""Events, and bytes of their texts, kept of one family of kinds until the host asks."""
INLINE = 32 << 10
"""Longer answers travel in a file in memory, whose descriptor is sent: no write here ever waits for a reader."""
_BURST, _PER_S = 4000, 2000
"""Calls of one sandbox that are answered at once, and each second after that: about a tenth of a processor."""
_FILES_EVERY_S = 0.02
_RECEIVE, _ANSWER, _VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_REQUEST, _REPLY = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_GO_ON = 1
_DAC_OVERRIDE, _DAC_READ_SEARCH, _SYS_PTRACE = 1, 2, 19


def hand_over(observer: int, listener: int) -> None:
    """In a sandbox's first process, before any code runs in it: the observer takes what it needs, which is closed here.

    Raises:
        OSError: it could not.
    """
    workspace = os.open("/workspace", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    numbers = [listener, workspace, processes, _device_of_mappings()]
    os.write(observer, json.dumps(numbers).encode())  # calls that need no answer of the observer
    answer = os.read(observer, 4096)
    for fd in (listener, workspace, processes, observer):
        os.close(fd)
    if answer != b"taken":
        raise OSError(0, "it cannot be observed: " + (answer.decode(errors="replace") or "the observer has died"))
    _linux.prctl(_linux.PR_SET_DUMPABLE, 0, 0, 0, 0)


def _device_of_mappings() -> int:
    """As which device the kernel shows mapped files of the workspace: of layered ones it may be that of a layer."""
    name = f"/workspace/.{os.urandom(8).hex()}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, 1)
        with mmap.mmap(fd, 1), open("/proc/self/maps", "rb") as f:
            major, _, minor = next(line.split()[3] for line in f if name.encode() in line).partition(b":")
        return os.makedev(int(major, 16), int(minor, 16))
    finally:
        os.unlink(name)
        os.close(fd)


class Box:
    """One sandbox, as it is observed."""

    def __init__(self, pid: int, protected: list[str], feed: socket.socket, hand: socket.socket) -> None:
        self.pid, self.protected, self.feed, self.hand = pid, protected, feed, hand
        self.listener = -1
        self.watch: _watch.Watch | None = None
        self.seq = 0
        self.kept: list[tuple[int, str, str, dict[str, Any], float, int, bool]] = []
        self.room: dict[str, list[int]] = {}
        """Family -> how many events and bytes more are kept."""
        self.dropped: dict[str, int] = {}
        self.tokens = float(_BURST)
        self.counted_at = time.monotonic()
        self.host_writes = False
        """Until it has said what it wrote, what is told of files is not taken in."""

    def add(self, kind: str, resource: str, data: dict[str, Any], pid: int = 0, protected: bool = False) -> None:
        """Keeps an event, or counts it. Each family has its own room, so that a flood of one hides none of another; what
        concerns protected paths is a family of its own."""
        self.seq += 1
        family = "protected" if protected else kind.partition(".")[0]
        room = self.room.setdefault(family, [KEPT, KEPT_BYTES])
        size = len(resource) + sum(len(w) + 8 for v in data.values() for w in (v if isinstance(v, list) else [str(v)]))
        if room[0] <= 0 or room[1] < size:
            self.dropped[kind] = self.dropped.get(kind, 0) + 1
            return
        room[0] -= 1
        room[1] -= size
        self.kept.append((self.seq, kind, resource, data, time.monotonic(), pid, protected))

    def take(self) -> dict[str, Any]:
        """Everything kept, for the host; there is room again."""
        if self.watch is not None:
            self.watch.read()
        if self.dropped:
            self.room.pop("events", None)
            dropped, self.dropped = self.dropped, {}
            self.add("events.dropped", "", dropped)
        kept, self.kept = self.kept, []
        self.room.clear()
        return {"events": kept, "seq": self.seq}

    def may(self) -> float:
        """Seconds until it may be served again, 0 for now."""
        now = time.monotonic()
        self.tokens = min(_BURST, self.tokens + (now - self.counted_at) * _PER_S)
        self.counted_at = now
        if self.tokens < 1:
            return 0.02
        self.tokens -= 1
        return 0.0

    def close_sight(self) -> None:
        """Its processes are gone, or may go on no longer."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1


class Observer:
    """Serves the launcher, the kernel and the host until the launcher is gone."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        """Descriptor -> what takes the events of epoll."""
        self.later: list[tuple[float, int]] = []
        """(when, descriptor) of what is not looked at before."""
        self.jobs: deque[tuple[Box, Iterator[Any]]] = deque()
        self._listen(control.fileno(), self._told)

    def _listen(self, fd: int, handler: Callable[[int], None]) -> None:
        self.handlers[fd] = handler
        self.poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self.poll.unregister(fd)
        self.later = [entry for entry in self.later if entry[1] != fd]

    def _pause(self, fd: int, seconds: float) -> None:
        self.poll.modify(fd, 0)
        self.later.append((time.monotonic() + seconds, fd))

    def serve(self) -> None:
        """Until the launcher is gone."""
        while True:
            due = min((when for when, _ in self.later), default=None)
            timeout = 0.0 if self.jobs else -1 if due is None else max(0.0, due - time.monotonic()) + 0.0005
            for fd, mask in self.poll.poll(timeout):
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler(mask)
            if self.later:
                now = time.monotonic()
                for when, fd in list(self.later):
                    if when <= now:
                        self.later.remove((when, fd))
                        self.poll.modify(fd, select.EPOLLIN)
            for _ in range(len(self.jobs)):
                box, job = self.jobs.popleft()
                try:
                    next(job)
                    self.jobs.append((box, job))
                except StopIteration:
                    continue
                except OSError as e:
                    self._answer(box, {"error": f"{e.strerror or e}"})

    # sandboxes

    def _told(self, mask: int) -> None:
        message, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 4)
        if not message:
            os._exit(0)
        if len(fds) != 2:  # no room for more descriptors: who waits for an answer finds that nobody is there
            for fd in fds:
                os.close(fd)
            return
        told = json.loads(message)
        feed, hand = (socket.socket(fileno=fd) for fd in fds)
        box = Box(told["pid"], told["protected"], feed, hand)
        feed.setblocking(False)
        self._listen(feed.fileno(), lambda mask: self._asked(box))
        self._listen(hand.fileno(), lambda mask: self._handed(box))

    def _handed(self, box: Box) -> None:
        """The sandbox's first process says what it has for us."""
        taken: list[int] = []
        try:
            message = box.hand.recv(4096)
            if message:
                *numbers, device = json.loads(message)
                taken.extend(_linux.fetch_descriptor(box.pid, n) for n in numbers)
                listener, workspace, processes = taken
                watch = _watch.Watch(workspace, processes, device, box.protected, lambda *told: _tell(box, *told))
                taken.clear()
                box.watch, box.listener = watch, listener
                with contextlib.suppress(OSError):  # hand over to the caller's processor at once (6.6 and newer)
                    fcntl.ioctl(listener, _SET_FLAGS, 1)
                self._listen(listener, lambda mask: self._notified(box, mask))
                if watch.notes >= 0:
                    self._listen(watch.notes, lambda mask: self._files(box))
                box.hand.send(b"taken")
        except (OSError, ValueError) as e:
            for fd in taken:
                os.close(fd)
            with contextlib.suppress(OSError):
                box.hand.send(str(e).encode()[:2000])
        self._forget(box.hand.fileno())
        box.hand.close()

    def _close(self, box: Box) -> None:
        self.jobs = deque(entry for entry in self.jobs if entry[0] is not box)
        for fd in (box.feed.fileno(), box.hand.fileno(), box.listener, -1 if box.watch is None else box.watch.notes):
            self._forget(fd)
        box.close_sight()
        if box.watch is not None:
            box.watch.close()
        box.feed.close()
        box.hand.close()

    # the kernel

    def _notified(self, box: Box, mask: int) -> None:
        """One call, if there is one: older kernels let whoever asks in vain wait, perhaps for ever."""
        if not mask & select.EPOLLIN:  # nobody is left who could call
            self._forget(box.listener)
            box.close_sight()
            return
        wait = box.may()
        if wait:
            self._pause(box.listener, wait)
            return
        buffer = bytearray(_REQUEST.size)
        try:
            fcntl.ioctl(box.listener, _RECEIVE, buffer)
        except OSError:  # it was killed in between: the kernel remembers that it had called, so this has not waited
            return
        number, pid, _, call, _, _, *arguments = _REQUEST.unpack(buffer)
        call &= 0xFFFFFFFF
        error = _notify.answer(call)
        try:
            if pid != box.pid:
                self._note(box, _notify.Request(number, pid, call, tuple(arguments)))
        except Exception as e:  # nothing that a caller has in its memory may end this process
            box.add("call.refused" if error else "process.unknown", _notify.name_of(call), {"error": type(e).__name__})
        with contextlib.suppress(OSError):  # it was killed meanwhile
            fcntl.ioctl(box.listener, _ANSWER, _REPLY.pack(number, 0, -error, 0 if error else _GO_ON))

    @staticmethod
    def _note(box: Box, request: _notify.Request) -> None:
        memory = _notify.Memory(request.pid)
        try:
            # the caller waits in this very call, so the id is its own: what was opened is not another process's of the same id
            fcntl.ioctl(box.listener, _VALID, struct.pack("<Q", request.id))
            seen = _notify.look(request, memory, box.pid)
            if seen is not None:
                box.add(*seen, pid=_inner_pid(request.pid))
        except OSError:  # it is gone, and its call was never made
            return
        finally:
            memory.close()

    def _files(self, box: Box) -> None:
        if box.watch is not None:
            if not box.host_writes:
                box.watch.read(INLINE)
            self._pause(box.watch.notes, _FILES_EVERY_S)

    # the host

    def _asked(self, box: Box) -> None:
        try:
            message = box.feed.recv(1 << 16)
        except OSError:
            message = b""
        if not message:
            self._close(box)
            return
        request = json.loads(message)
        what = request["do"]
        if what == "take":
            self._answer(box, box.take())
        elif box.watch is None:
            self._answer(box, {"error": "it is not ready"})
        elif what == "manifest":
            self.jobs.append((box, self._manifest(box, box.watch, request)))
        elif what in ("settle", "writing"):
            box.watch.read()
            box.host_writes = what == "writing"
            self._answer(box, {})
        elif what == "wrote":
            if request["path"]:
                box.watch.wrote(request["path"].encode("latin-1"), request["sha256"], request["mode"])
            box.host_writes = False
            self._answer(box, {})

    def _manifest(self, box: Box, watch: _watch.Watch, request: dict[str, Any]) -> Iterator[None]:
        files: dict[bytes, _watch.Known] = {}
        for step in watch.manifest(request["files"], request["bytes"], request["quiet"]):
            files = step or files
            yield
        self._answer(box, {"files": [(p.decode("latin-1"), k.hash, k.mode) for p, k in files.items()]})

    @staticmethod
    def _answer(box: Box, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        try:
            if len(data) <= INLINE:
                box.feed.send(data)
                return
            fd = os.memfd_create("answer", os.MFD_CLOEXEC)
            try:
                with open(fd, "wb", closefd=False) as f:
                    f.write(data)
                socket.send_fds(box.feed, [b"{}"], [fd])
            finally:
                os.close(fd)
        except OSError as e:
            with contextlib.suppress(OSError):  # the host has hung up
                box.feed.send(json.dumps({"error": f"{e.strerror or e}"}).encode())


def _tell(box: Box, kind: str, path: bytes, data: dict[str, Any], protected: bool) -> None:
    box.add(kind, _notify.shown(path[: _notify.PATH_BYTES]), data, protected=protected)


def _inner_pid(pid: int) -> int:
    """A process's id inside of its namespace."""
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, 4096)
        finally:
            os.close(fd)
        at = data.index(b"\nNStgid:") + 8
        return int(data[at : data.index(b"\n", at)].split()[-1])
    except (OSError, ValueError):
        return 0


def become(control: socket.socket) -> NoReturn:
    """In a fork of the launcher: serves until the launcher is gone. Never returns."""
    try:
        fd = os.dup2(control.detach(), 3, inheritable=False)
        os.closerange(4, 1 << 20)
        _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _linux.prctl(_linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _linux.keep_capabilities((_DAC_OVERRIDE, _DAC_READ_SEARCH, _SYS_PTRACE))
        _linux.prctl(_linux.PR_SET_DUMPABLE, 1, 0, 0, 0)  # for /proc/self
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        gc.enable()
        Observer(socket.socket(fileno=fd)).serve()
    finally:
        os._exit(1)
