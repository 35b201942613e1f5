# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/1.1 client for many calls at once to one server: asyncio for the sockets, httptools for the parsing.

Why not a ready-made client: with 5,000 calls in flight to a server that takes a second, one call may cost 0.2 ms of CPU.
``bench/concurrency.py --client`` measures what each takes: aiohttp some 2 to 4 times that, httpx far more, as its pool
looks through all connections for every request. What is left out is what a model server does not need: redirects (a
key must not follow them), cookies, compression, HTTP/2. What can be got wrong in reading replies is httptools' part.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import ipaddress
import socket
import ssl
import urllib.parse
import urllib.request
from typing import Any, Literal, NamedTuple

from agentgym.errors import InfrastructureError, UsageError

IDLE_S = 4.0
"""Seconds after which an unused connection is not used again. Just below 5, when uvicorn, and so vLLM, closes it."""

CONNECT_S = 15.0
"""Seconds that a connection may take, TLS included."""

RESOLVE_S = 60.0
"""Seconds for which the addresses of a host name are believed."""

MAX_REPLY_BYTES = 64 << 20
"""A longer reply is cut off: no model writes so much, and it has to be held in memory."""

FILES_IN_RESERVE = 128
"""File descriptors left to everything that is not a connection."""

FaultKind = Literal["connect", "timeout", "cut", "malformed"]


class HttpFault(Exception):
    """A call that got no whole reply; the text says why, and holds no part of URL or headers."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind


class Reply(NamedTuple):
    """An HTTP reply."""

    status: int
    headers: dict[str, str]
    """Names in lower case; of a repeated one, the last."""
    body: bytes


class Origin(NamedTuple):
    """A URL, taken apart into what may be shown and what must not be."""

    tls: bool
    host: str
    port: int
    path: str
    """Begins with ``/`` or is empty; never ends with ``/``."""
    credentials: str
    """``user:password`` of the URL, unquoted; empty where it had none. A secret."""

    @property
    def shown(self) -> str:
        """The URL without credentials: for names, records and errors."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """Host and port, as in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def basic(self) -> str | None:
        """Value of an Authorization header for the URL's credentials. A secret."""
        return f"Basic {base64.b64encode(self.credentials.encode()).decode()}" if self.credentials else None


def parse_url(url: str) -> Origin:
    """Takes a URL apart.

    Raises:
        UsageError: it is not one, or has a query; the text repeats no part that could be a secret.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError("the server's URL cannot be read; expected e.g. http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host or any(c in url for c in "\r\n\t "):
        raise UsageError("the server's URL must begin with http:// or https:// and a host, e.g. http://localhost:8000/v1")
    if parts.query:
        raise UsageError(
            "the server's URL must not have a query (what follows ?): it would be sent, and keys in it shown, with every call"
        )
    tls = parts.scheme == "https"
    secret = urllib.parse.unquote(parts.netloc.rpartition("@")[0])
    return Origin(tls, host, port or (443 if tls else 80), parts.path.rstrip("/"), secret)


class Http1:
    """Calls to one server over as many connections as calls are in flight; kept open between calls.

    Belongs to one event loop at a time; used on another one, it starts afresh there.

    Args:
        origin: the server; its path is put in front of every target.
        headers: sent with every call, e.g. Authorization.
    """

    def __init__(self, origin: Origin, headers: dict[str, str] | None = None) -> None:
        self.origin = origin
        fields = {"Host": origin.authority, "User-Agent": "agentgym", "Accept": "application/json"}
        if origin.basic:
            fields["Authorization"] = origin.basic
        fields |= headers or {}
        for name, value in fields.items():
            # a key with a line end in it would be two headers; the value is not repeated, it may be that key
            if not value.isascii() or any(ord(c) < 32 or ord(c) == 127 for c in name + value):
                raise UsageError(
                    f"the {name} header has a character that headers cannot have; is the key complete and in one line?"
                )
        self._head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[_Connection] = []
        self._open = 0
        self._addresses: list[tuple[Any, ...]] = []
        self._resolved_at = 0.0
        self._tls: ssl.SSLContext | None = None
        self._proxy = _proxy(origin)
        if self._proxy is not None and self._proxy.basic and not origin.tls:
            self._head += f"Proxy-Authorization: {self._proxy.basic}\r\n"

    async def call(self, method: str, target: str, body: bytes | None, timeout: float) -> Reply:
        """One request and its reply.

        Args:
            method: in capitals.
            target: path below the origin's; with the leading ``/``.
            body: JSON text, or None.
            timeout: seconds for everything, connecting included.

        Raises:
            HttpFault: there was no whole reply.
            InfrastructureError: this process cannot open further connections.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._forget(loop)
        deadline = loop.time() + timeout
        connection = self._reuse(loop.time())
        if connection is None:
            connection = await self._connect(loop, min(timeout, CONNECT_S))
        path = f"{self.origin.path}{target}"
        if self._proxy is not None and not self.origin.tls:
            path = f"http://{self.origin.authority}{path}"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        data = head.encode() + b"\r\n" + (body or b"")
        try:
            reply = await connection.exchange(data, max(0.0, deadline - loop.time()), timeout)
        except BaseException:  # cancelled, too: what would still arrive is the answer to a call that nobody waits for
            connection.abort()
            raise
        if connection.reusable and connection.alive:
            connection.idle_since = loop.time()
            self._idle.append(connection)
        else:
            connection.abort()
        return reply

    async def aclose(self) -> None:
        """Closes the connections that are not in use."""
        self._forget(None)

    def _forget(self, loop: asyncio.AbstractEventLoop | None) -> None:
        for connection in self._idle:
            connection.on_close = None
            with contextlib.suppress(RuntimeError):  # its loop is closed already
                connection.abort()
        self._idle = []
        self._open = 0
        self._loop = loop
        self._addresses = []

    def _reuse(self, now: float) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last: the others may grow old and be closed
            if connection.alive and now - connection.idle_since < IDLE_S:
                return connection
            connection.abort()
        return None

    # -- connecting -----------------------------------------------------------------------------------------------------

    async def _connect(self, loop: asyncio.AbstractEventLoop, timeout: float) -> _Connection:
        _make_room(self._open)
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connect_to_any(loop)
        except TimeoutError:
            raise HttpFault("connect", f"no connection to {self.origin.shown} within {timeout:.0f} s") from None
        except ssl.SSLCertVerificationError as e:
            raise HttpFault("connect", f"the certificate of {self.origin.shown} is not trusted: {e.verify_message}") from None
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE):
                raise InfrastructureError(
                    f"this process may open no more files, and each call in flight needs one ({self._open:,} are open):"
                    " lower --concurrency, or raise the limit (ulimit -n)",
                    retryable=False,
                ) from None
            what = e.strerror or str(e) or type(e).__name__
            raise HttpFault("connect", f"cannot connect to {self.origin.shown}: {what}") from None
        self._open += 1
        connection.on_close = self._closed
        return connection

    def _closed(self) -> None:
        self._open = max(0, self._open - 1)

    async def _connect_to_any(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        failure: OSError | None = None
        for address in await self._resolve(loop):
            try:
                connection = await self._connect_to(loop, address)
            except ssl.SSLError:
                raise
            except OSError as e:
                failure = failure or e
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                continue
            if self._addresses and self._addresses[0] is not address:
                self._addresses = [address, *(a for a in self._addresses if a is not address)]
            return connection
        raise failure or OSError("the host has no address")

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[tuple[Any, ...]]:
        if not self._addresses or loop.time() - self._resolved_at > RESOLVE_S:
            host, port = (self._proxy.host, self._proxy.port) if self._proxy else (self.origin.host, self.origin.port)
            # asked once for all connections: each question would take a thread
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
            self._resolved_at = loop.time()
        return list(self._addresses)

    async def _connect_to(self, loop: asyncio.AbstractEventLoop, address: tuple[Any, ...]) -> _Connection:
        family, where = address
        tunnel = self._proxy is not None and self.origin.tls
        tls = self._context() if self.origin.tls and not tunnel else None
        # a socket of our own: asyncio's way from an address to a connection costs as much again as all the rest
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, where)
            transport, connection = await loop.create_connection(
                _Connection, sock=sock, ssl=tls, server_hostname=self.origin.host if tls else None
            )
        except BaseException:
            sock.close()
            raise
        connection.loop = loop
        if tunnel:
            try:
                assert self._proxy is not None
                await connection.tunnel(self.origin, self._proxy.basic)
                upgraded = await loop.start_tls(transport, connection, self._context(), server_hostname=self.origin.host)
                assert upgraded is not None
                connection.connection_made(upgraded)
            except BaseException:
                transport.abort()
                raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Connection(asyncio.Protocol):
    """One connection; at most one call at a time."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        import httptools

        self._httptools = httptools
        self.alive = False
        self.reusable = False
        self.idle_since = 0.0
        self.on_close: Any = None
        self._transport: Any = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._status = 0
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._until_close = False
        """Whether the reply has no length of its own, so that it ends where the connection does."""
        self._connecting = False
        """Whether a proxy is being asked for a tunnel: its reply has no body, whatever its headers say (RFC 9110, 9.3.6)."""

    async def exchange(self, data: bytes, left: float, timeout: float) -> Reply:
        """Sends a request and waits for the whole reply.

        Args:
            data: the request.
            left: seconds to wait.
            timeout: seconds that the whole call was given, for the error.

        Raises:
            HttpFault: there was none.
        """
        if not self.alive:
            raise HttpFault("cut", "the server closed the connection")
        self._parser = self._httptools.HttpResponseParser(self)
        self._status = self._size = 0
        self._body = []
        self._until_close = self.reusable = False
        self._waiting = waiting = self.loop.create_future()
        # a timer of our own: asyncio.timeout costs several times as much
        timer = self.loop.call_later(left, self._fail, "timeout", f"no reply within {timeout:.0f} s")
        try:
            self._transport.write(data)
            reply: Reply = await waiting
            return reply
        finally:
            timer.cancel()
            self._waiting = None

    def abort(self) -> None:
        """Closes it at once."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    async def tunnel(self, origin: Origin, authorization: str | None) -> None:
        """Asks a proxy for a connection through to ``origin``."""
        to = f"{origin.host}:{origin.port}"
        key = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        self._connecting = True
        reply = await self.exchange(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{key}\r\n".encode(), CONNECT_S, CONNECT_S)
        self._connecting = False
        if reply.status != 200:
            raise OSError(f"the proxy refused with status {reply.status}")

    def _fail(self, kind: FaultKind, message: str) -> None:
        self.reusable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(HttpFault(kind, message))

    # -- asyncio's calls --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport
        self.alive = True

    def data_received(self, data: bytes) -> None:
        """Feeds the parser."""
        if self._waiting is None or self._waiting.done():
            self.abort()  # nobody asked for anything: what comes next could not be told from an answer
            return
        self._size += len(data)
        if self._size > MAX_REPLY_BYTES:
            self._fail("malformed", f"the reply is longer than {MAX_REPLY_BYTES >> 20} MiB")
            return
        try:
            self._parser.feed_data(data)
        except self._httptools.HttpParserUpgrade:
            self._fail("malformed", "the server answered with another protocol")
        except self._httptools.HttpParserError as e:
            self._fail("malformed", f"the server's answer is not HTTP: {e}")

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the call that waits, if any."""
        self.alive = False
        if self.on_close is not None:
            self.on_close()
            self.on_close = None
        if self._until_close and error is None:
            self.on_message_complete()
        elif self._status:
            self._fail("cut", "the connection was closed in the middle of the reply")
        else:
            self._fail("cut", "the server closed the connection without a reply")

    # -- the parser's calls -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A reply begins."""
        if self._waiting is None or self._waiting.done():
            self.abort()  # a second answer to one question: which is whose could not be told any more
        self._fields = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The headers are there; the body follows."""
        self._status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive()
        self._until_close = "content-length" not in self._fields and "transfer-encoding" not in self._fields
        if self._connecting and 200 <= self._status < 300:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The reply is whole."""
        if 100 <= self._status < 200:
            return
        self._until_close = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Reply(self._status, self._fields, b"".join(self._body)))
        self._body = []


def _proxy(origin: Origin) -> Origin | None:
    """The proxy that the environment (``https_proxy``, ``no_proxy`` ...) names for this server; never for this machine."""
    with contextlib.suppress(ValueError):
        if origin.host == "localhost" or ipaddress.ip_address(origin.host).is_loopback:
            return None
    url = urllib.request.getproxies().get("https" if origin.tls else "http")
    if not url or urllib.request.proxy_bypass(origin.host):
        return None
    return parse_url(url if "://" in url else f"http://{url}")


def _make_room(connections: int) -> None:
    """Raises the soft limit of open files when it comes near; the hard one is the machine's to set."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and connections + FILES_IN_RESERVE > soft:
        wanted = max(2 * soft, 4096)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if wanted > soft:
            with contextlib.suppress(ValueError, OSError):  # not allowed here: opening the next file will say so
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
