# SPDX-License-Identifier: Apache-2.0
"""The host's side of what is observed: asks the observer of one instance, and numbers what came from several in a row."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from agentgym.sandbox.protocol import SandboxEvent

_ANSWER_S = 60.0
_MOST = 64 << 20
"""Bytes of an answer: more than a full workspace can make."""
_KEPT = 20_000
"""Events kept for whoever never says that they were dealt with; the oldest go first."""


class FeedLostError(Exception):
    """The observer is gone or does not answer: what happens in the sandbox is not seen."""

    def __init__(self, why: str = "has died") -> None:
        super().__init__(f"the observer of the sandbox {why}: what runs in it is not seen, so it was ended")


class _Answer(msgspec.Struct):
    """What the observer says, checked by type."""

    error: str = ""
    events: list[tuple[int, str, str, dict[str, Any], float, int, bool]] = []
    seq: int = 0
    files: list[tuple[str, str, int]] = []


class Feed:
    """The way to the observer of one instance of a sandbox. One question at a time, from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.start = time.monotonic()
        self._socket = sock
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._last: list[SandboxEvent] = []
        """What came with the last question of all, and was not asked for yet."""
        self.seq = 0
        """The highest number so far."""
        self._closed = self._lost = False

    def _ask(self, request: dict[str, Any]) -> _Answer:
        with self._lock:
            if self._closed:
                raise FeedLostError("was let go")
            if self._lost:
                raise FeedLostError
            try:
                self._socket.settimeout(_ANSWER_S)
                self._socket.send(msgspec.json.encode(request))
                data, fds, _, _ = socket.recv_fds(self._socket, 1 << 17, 1)
                if not data:
                    raise FeedLostError
            except BaseException as e:  # a late answer would be taken for the next one's
                self._lost = True
                if isinstance(e, OSError):
                    raise FeedLostError("does not answer" if isinstance(e, TimeoutError) else "has died") from None
                raise
        if fds:
            with open(fds[0], "rb") as f:
                f.seek(0)
                data = f.read(_MOST)
        answer = msgspec.json.decode(data, type=_Answer)
        if answer.error:
            raise FeedLostError(f"reports: {answer.error}")
        return answer

    def lost(self) -> bool:
        """Whether the observer left a question without an answer."""
        return self._lost and not self._closed

    def take(self) -> list[SandboxEvent]:
        """What was noticed since the last time."""
        if self._closed or self._owner != os.getpid():
            last, self._last = self._last, []
            return last
        answer = self._ask({"do": "take"})
        self.seq = answer.seq
        return [
            SandboxEvent(seq=seq, kind=kind, resource=resource, data=data, time_s=when, pid=pid, protected=protected)
            for seq, kind, resource, data, when, pid, protected in answer.events
        ]

    def manifest(self, files: int = 1 << 20, size: int = 1 << 30, *, quiet: bool = False) -> dict[str, tuple[str, int]]:
        """The workspace's files; what differs from last time is noticed, unless ``quiet``."""
        answer = self._ask({"do": "manifest", "files": files, "bytes": size, "quiet": quiet})
        return {path.encode("latin-1").decode(errors="surrogateescape"): (found, mode) for path, found, mode in answer.files}

    def settle(self) -> None:
        """What happened to files so far is noticed before this returns."""
        self._ask({"do": "settle"})

    @contextlib.contextmanager
    def writing(self, path: str, content: bytes, mode: int) -> Iterator[None]:
        """While the host writes a file, which is no event and sets the state to compare with.

        Args:
            path: in the workspace; absolute where it lies elsewhere.
        """
        with contextlib.suppress(FeedLostError):
            self._ask({"do": "writing"})
        wrote = {"do": "wrote", "path": "", "sha256": "", "mode": mode}
        try:
            yield
            if not path.startswith("/"):
                wrote |= {"path": os.fsencode(path).decode("latin-1"), "sha256": hashlib.sha256(content).hexdigest()}
        finally:
            with contextlib.suppress(FeedLostError):  # whoever asks next is told
                self._ask(wrote)

    def close(self) -> None:
        """Takes what there is, and lets the observer go: what still runs can start nothing any more."""
        if self._closed:
            return
        if self._owner == os.getpid():
            with contextlib.suppress(FeedLostError):
                self._last += self.take()
        self._closed = True
        self._socket.close()


class History:
    """What was noticed in one sandbox, over all its instances, in one numbering."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feed: Feed | None = None
        self._base = 0
        self._origin = time.monotonic()
        self._kept: deque[SandboxEvent] = deque(maxlen=_KEPT)
        self._runs: deque[list[float]] = deque(maxlen=4096)
        """Begin and end of each run, by the clock that the observer uses too; end 0 while it lasts."""
        self._count = 0

    def follow(self, feed: Feed | None) -> None:
        """From now on this one; what the one before has to say is taken first."""
        if feed is None:
            return
        with self._lock:
            if self._feed is None:
                self._origin = feed.start
            else:
                with contextlib.suppress(FeedLostError):
                    self._take()
                self._base += self._feed.seq
            self._feed = feed

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """While a program or a turn is under way. Whether it was seen to its end `Feed.lost` says after it."""
        feed = self._feed
        if feed is None:
            yield
            return
        with self._lock:
            self._count += 1
            mine = [time.monotonic(), 0.0, float(self._count)]
            self._runs.append(mine)
        try:
            yield
        finally:
            # files are told of with a delay, and have no times of their own; and that there was an observer all along is known
            # from its answer alone: that it died is seen in here before it is seen out there
            with contextlib.suppress(FeedLostError):
                feed.settle()
            mine[1] = time.monotonic()

    def _take(self) -> None:
        feed = self._feed
        if feed is None:
            return
        for event in feed.take():
            at = event.time_s
            during = [int(number) for begin, end, number in self._runs if begin <= at and (at <= end or not end)]
            run = during[0] if len(during) == 1 else 0
            self._kept.append(msgspec.structs.replace(event, seq=event.seq + self._base, time_s=at - self._origin, run=run))

    def since(self, seq: int) -> list[SandboxEvent]:
        """What came after that number; forgets what came up to it.

        Raises:
            FeedLostError: nobody sees any more.
        """
        with self._lock:
            self._take()
            while self._kept and self._kept[0].seq <= seq:
                self._kept.popleft()
            return list(self._kept)
