# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on 127.0.0.1 that answers like a chat server, or fails in the ways in which real ones fail."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Bot = Callable[[dict[str, Any]], dict[str, Any]]
"""From a request to the assistant message that answers it."""

FAULTS = ("429", "500", "503", "hang", "cut", "html", "shape", "liar", "closed", "late_close")
"""What `FaultServer` can do instead of answering; ``liar`` answers, with usage figures that are none."""

LIES: tuple[Any, ...] = (
    {"prompt_tokens": -5, "completion_tokens": -7, "cost": -1.0},
    {"prompt_tokens": "many", "completion_tokens": None, "cost": "free"},
    {"prompt_tokens": 1e300, "completion_tokens": True, "cost": 1e300},
    {"prompt_tokens": 1.5, "completion_tokens": [], "prompt_tokens_details": "?"},
    "none of your business",
    None,
)


def say(text: str) -> Bot:
    """A bot that always says the same."""
    return lambda request: {"role": "assistant", "content": text}


def guesser(request: dict[str, Any]) -> dict[str, Any]:
    """Plays test.guess by halving, and always wins."""
    low, high, guess = 0, 9, 4
    for m in request["messages"]:
        if m["role"] == "assistant":
            guess = int(m["content"])
        elif m["content"] == "higher":
            low = guess + 1
        elif m["content"] == "lower":
            high = guess - 1
    return {"role": "assistant", "content": str((low + high) // 2)}


class FaultServer:
    """The server; use as a context manager.

    Args:
        bot: what it answers where it does.
        faults: what goes wrong in a share of ``rate`` of the calls.
        rate: share of the calls, drawn with ``seed``.
        script: what the first calls get, one each: a fault, or ``ok``; before ``rate`` applies.
        headers: added to refusals, e.g. Retry-After.
        status: answers every call with this and ``body``.
    """

    def __init__(
        self,
        bot: Bot = guesser,
        *,
        faults: Sequence[str] = FAULTS,
        rate: float = 0.0,
        seed: int = 0,
        script: Sequence[str] = (),
        headers: dict[str, str] | None = None,
        status: int = 200,
        body: Any = None,
        reply: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.bot = bot
        self.faults = list(faults)
        self.rate = rate
        self.script = list(script)
        self.headers = headers or {}
        self.status = status
        self.body = body
        self.reply = reply or (lambda request, made: made)
        self.requests: list[dict[str, Any]] = []
        self.sent_headers: list[dict[str, str]] = []
        self.done: collections.Counter[str] = collections.Counter()
        self.most_at_once = 0
        self._now = 0
        self._rng = random.Random(seed)
        self._lies = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        if first.startswith("GET"):
            await self._send(writer, 200, {"data": [{"id": "m", "created": 1, "owned_by": "tests", "max_model_len": 4096}]})
            return True
        self.sent_headers.append(headers)
        request = json.loads(data)
        self.requests.append(request)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._act(self._fate(), request, writer)
        finally:
            self._now -= 1

    def _fate(self) -> str:
        if self.script:
            fate = self.script.pop(0)
        else:
            fate = self._rng.choice(self.faults) if self._rng.random() < self.rate else "ok"
        self.done[fate] += 1
        return fate

    async def _act(self, fate: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if fate.isdigit():
            await self._send(writer, int(fate), {"error": {"message": f"no luck with {fate}"}}, self.headers)
            return True
        if fate == "hang":
            await asyncio.sleep(3600)
        if fate == "closed":
            return False
        if fate == "html":
            await self._send(writer, 200, b"<html>Bad gateway</html>")
            return True
        if fate == "shape":
            odd = (
                {"choices": []},
                [],
                {"choices": [{"message": {"content": 7}}]},
                {"choices": {}},
                "text",
                {"choices": [None]},
            )
            await self._send(writer, 200, self._rng.choice(odd))
            return True
        if self.status != 200:
            await self._send(writer, self.status, self.body, self.headers)
            return True
        message = self.bot(request)
        usage: Any = {"prompt_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
        if fate == "liar":
            usage = LIES[self._lies % len(LIES)]
            self._lies += 1
        made = {
            "model": f"{request.get('model')}-2026",
            "system_fingerprint": "fp_1",
            "choices": [{"message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}],
            "usage": usage,
        }
        data = json.dumps(self.reply(request, made)).encode()
        if fate == "cut":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[: len(data) // 2])
            await writer.drain()
            return False
        if fate == "late_close":
            await self._send(writer, 200, data)
            return False
        if fate == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(0, len(data), 7):
                piece = data[i : i + 7]
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            return True
        if fate == "unsized":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)
            await writer.drain()
            writer.close()
            return False
        await self._send(writer, 200, data)
        return True

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        await writer.drain()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can while this lasts."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]
