# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/1.1 server for programs on this machine: asyncio for the sockets, httptools (llhttp) for the parsing.

What reading requests can get wrong is llhttp's part, which is strict about what smuggling lives by. One request of a connection
is answered at a time, in order. The server notices when whoever asked has gone before the answer was sent: to a recorder, an
answer that nobody received is another thing than one that was.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import ipaddress
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import msgspec

from agentgym.errors import InfrastructureError, UsageError

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers together; a longer head is refused with 431."""

MAX_BODY_BYTES = 64 << 20
"""A longer body is refused with 413: no conversation is as long, and it has to be held in memory."""

MAX_WAITING = 16
"""Requests that one connection may send ahead of their answers."""

HEAD_S = 60.0
"""Seconds in which a request must have arrived whole once it has begun."""


class Request(msgspec.Struct):
    """A request, read whole."""

    method: str
    path: str
    """Without the query, as it was sent."""
    headers: dict[str, str]
    """Names in lower case; of a repeated one, all values joined by commas."""
    body: bytes = b""
    keep_alive: bool = True
    fault: tuple[int, str] | None = None
    """Status and sentence, where it is refused unread."""
    waiting: Callable[[], bool] = bool
    """Whether whoever sent it is still there."""


class Answer(msgspec.Struct):
    """What is sent back."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    sent: Callable[[bool], None] | None = None
    """Called once: True where the whole answer was handed over to a connection that was still open."""


Handler = Callable[[Request], Awaitable[Answer]]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """Listens until it is closed. Belongs to the event loop that it was started on.

    Args:
        handler: answers each request; what it raises becomes a 500 that tells nothing.
        refuse: the body of an answer to what is not HTTP, from a status and a sentence.
    """

    def __init__(self, handler: Handler, refuse: Callable[[int, str], bytes]) -> None:
        self.handler = handler
        self.refuse = refuse
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        """``http://HOST:PORT``, once it listens."""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 is any free one.

        Raises:
            InfrastructureError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Connection(self), host, port)
        except OSError as e:
            raise InfrastructureError(f"the proxy cannot listen at {host}:{port}: {e.strerror or e}", retryable=False) from None
        bound = self._server.sockets[0].getsockname()
        self.url = f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Ends listening and every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        if server is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 2.0)


class _Connection(asyncio.Protocol):
    """One connection: collects requests and answers them in order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._work: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = False
        self._deaf = False  # after what was no HTTP: nothing more is read
        self._head = 0  # bytes of the head that is being read; -1 in a body
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._fault: tuple[int, str] | None = None

    # -- asyncio --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._writable.set()
        self._server.connections.discard(self)
        self._stop_timer()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HEAD_S, self.abort)
        if self._head >= 0:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server speaks plain HTTP/1.1 and upgrades to nothing else")
        except httptools.HttpParserError:
            self._refuse(400, "this is not a well-formed HTTP/1.1 request")
        else:
            if self._head < 0 and self._fault is not None:  # not worth waiting for the rest
                self._refuse(*self._fault)
            elif self._head > MAX_HEAD_BYTES:
                self._refuse(431, f"the head of the request is longer than {MAX_HEAD_BYTES:,} bytes")

    def _is_there(self) -> bool:
        return not self._gone

    def abort(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- httptools ------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target, self._fields, self._body, self._size, self._fault = b"", [], [], 0, None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        self._head = -1  # what is left of this piece is body, or the next request
        if sum(len(n) + len(v) + 4 for n, v in self._fields) + len(self._target) > MAX_HEAD_BYTES:
            self._fault = (431, f"the head of the request is longer than {MAX_HEAD_BYTES:,} bytes")
        declared = next((v.strip() for n, v in self._fields if n.lower() == b"content-length"), b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES):
            self._fault = (413, f"the body is longer than {MAX_BODY_BYTES:,} bytes")
        if any(n.lower() == b"expect" and v.lower() == b"100-continue" for n, v in self._fields) and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._fault, self._body = (413, f"the body is longer than {MAX_BODY_BYTES:,} bytes"), []
        elif self._fault is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._head = 0
        headers: dict[str, str] = {}
        for name, value in self._fields:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        method = self._parser.get_method().decode("latin-1")
        path = self._target.split(b"?", 1)[0].decode("latin-1")
        alive = self._parser.should_keep_alive() and self._fault is None
        self._waiting.append(Request(method, path, headers, b"".join(self._body), alive, self._fault, self._is_there))
        if len(self._waiting) > MAX_WAITING:
            self.abort()
        elif self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._answer_all())

    # -- answers --------------------------------------------------------------------------------------------------------

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, why: str) -> None:
        """Answers what cannot be read, behind what could, and hangs up."""
        self._deaf = True
        self._stop_timer()
        self._waiting.append(Request("", "", {}, keep_alive=False, fault=(status, why)))
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while self._waiting and not self._gone:
            request = self._waiting.popleft()
            if request.fault is not None:
                answer = Answer(request.fault[0], self._server.refuse(*request.fault))
            else:
                try:
                    answer = await self._server.handler(request)
                except Exception as e:  # nothing of it is told: it may quote what must not leave
                    answer = Answer(
                        500, self._server.refuse(500, f"the proxy failed ({type(e).__name__}); this is a bug of it")
                    )
            await self._send(request, answer)
            if not request.keep_alive and self._transport is not None:
                self._deaf = True
                self._transport.close()
                return

    async def _send(self, request: Request, answer: Answer) -> None:
        whole = not self._gone and self._transport is not None and not self._transport.is_closing()
        if whole:
            assert self._transport is not None
            try:
                reason = http.HTTPStatus(answer.status).phrase
            except ValueError:
                reason = "Unknown"
            head = [
                f"HTTP/1.1 {answer.status} {reason}",
                f"Content-Type: {answer.content_type}",
                f"Content-Length: {len(answer.body)}",
                f"Connection: {'keep-alive' if request.keep_alive else 'close'}",
                *(f"{name}: {value}" for name, value in answer.headers),
            ]
            body = b"" if request.method == "HEAD" else answer.body
            self._transport.write("\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + body)
            await self._writable.wait()
            whole = not self._gone
        if answer.sent is not None:
            answer.sent(whole)


def check_host(host: str, allowed: bool) -> None:
    """Refuses an address that other machines reach, unless somebody asked for it by name.

    Raises:
        UsageError: it is one.
    """
    if not allowed and not is_loopback(host):
        raise UsageError(f"the proxy listens on this machine alone (127.0.0.1), not at {host!r}, unless --host says so")
