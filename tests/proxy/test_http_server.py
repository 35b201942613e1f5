# SPDX-License-Identifier: Apache-2.0
"""The server: whatever arrives, it answers well-formed or hangs up, and goes on serving others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentgym.proxy.chat import error
from agentgym.proxy.http import MAX_BODY_BYTES, MAX_HEAD_BYTES, Answer, Request, Server

seen: list[Request] = []


async def echo(request: Request) -> Answer:
    seen.append(request)
    return Answer(200, json.dumps([request.method, request.path, request.body.decode("latin-1")]).encode())


def served(work: Callable[[int], Awaitable[None]]) -> None:
    async def main() -> None:
        server = Server(echo, lambda status, why: error(status, why, "bad"))
        await server.start()
        try:
            await asyncio.wait_for(work(int(server.url.rpartition(":")[2])), 30)
        finally:
            await server.close()

    seen.clear()
    asyncio.run(main())


async def sent(port: int, *pieces: bytes) -> bytes:
    """All that comes back; the sending side is closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof() if pieces and pieces[-1] == b"" else None
        return await asyncio.wait_for(reader.read(1 << 20), 5)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


GOOD = b"POST /x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


def test_requests_are_read_whole_however_they_are_cut() -> None:
    async def work(port: int) -> None:
        assert b'["POST", "/x", "abc"]' in await sent(port, GOOD)
        assert b'["POST", "/x", "abc"]' in await sent(port, *(GOOD[i : i + 1] for i in range(len(GOOD))))
        chunked = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        assert b'["POST", "/c", "abc"]' in await sent(port, chunked)

    served(work)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(5)))
        got = b""
        while got.count(b"HTTP/1.1 200") < 5:
            got += await reader.read(1 << 16)
        assert [got.index(b'"/%d"' % i) for i in range(5)] == sorted(got.index(b'"/%d"' % i) for i in range(5))
        writer.close()

    served(work)


def test_what_smuggles_or_never_ends_is_refused() -> None:
    async def work(port: int) -> None:
        both = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert b" 400 " in await sent(port, both)
        twice = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
        assert b" 400 " in await sent(port, twice)
        assert b" 431 " in await sent(port, b"GET / HTTP/1.1\r\nX: " + b"a" * (MAX_HEAD_BYTES + 10))
        many = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"
        assert b" 431 " in await sent(port, many)
        assert b" 400 " in await sent(port, b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        huge = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
        assert not any(r.body for r in seen)
        assert b" 413 " in await sent(port, huge, b"a")

    served(work)


_LINE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"Host: h", b"Content-Length: 5", b"Content-Length: -1", b"Transfer-Encoding: chunked", b": x", b"a:\x00b"]
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"GET", b"POST", b"get", b"\xff", b""]), st.binary(max_size=30), st.lists(_LINE, max_size=6),
    st.binary(max_size=60), st.integers(1, 50),
)  # fmt: skip
@example(b"POST", b"/", [b"Content-Length: 5"], b"", 1)
@example(b"GET", b"/", [b"Transfer-Encoding: chunked"], b"ffffffffffffffff\r\n", 50)
def test_no_request_however_malformed_breaks_the_server(
    method: bytes, target: bytes, lines: list[bytes], body: bytes, cut: int
) -> None:
    data = b"\r\n".join([method + b" /" + target + b" HTTP/1.1", *lines, b"", body])

    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in range(0, len(data), cut):
            writer.write(data[i : i + cut])
        writer.write_eof()
        try:
            got = await reader.read(1 << 20)
        except ConnectionError:
            got = b""
        writer.close()
        assert not got or got.startswith(b"HTTP/1.1 ")
        assert b" 500 " not in got.split(b"\r\n")[0]
        assert b'["POST", "/x", "abc"]' in await sent(port, GOOD)

    served(work)
