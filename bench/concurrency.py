# SPDX-License-Identifier: Apache-2.0
"""Many episodes at once against a model server that takes its time: how much of the ideal throughput is reached.

The server is a process of its own on 127.0.0.1 and answers every call after ``--latency`` seconds, however many there
are. Each turn is one validated tool call that changes the state; everything is committed to SQLite, as in a real run.
Ideal is ``concurrency / latency`` turns a second. Prints one JSON line.

    python bench/concurrency.py --concurrency 5000 --turns 5
    python bench/concurrency.py --client          # CPU time a call of HTTP clients alone (those that are installed)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

ROLE = b'"role":"assistant"'


class _Server(asyncio.Protocol):
    """One connection: reads requests, answers each after a while. Just fast enough not to be what is measured."""

    latency = 1.0
    turns = 5

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (head := self.data.find(b"\r\n\r\n")) >= 0:
            at = self.data.find(b"Content-Length: ", 0, head)
            length = int(self.data[at + 16 : self.data.find(b"\r\n", at)]) if at >= 0 else 0
            if len(self.data) < head + 4 + length:
                return
            body, self.data = self.data[head + 4 : head + 4 + length], self.data[head + 4 + length :]
            last = body.count(ROLE) >= self.turns - 1
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, _answer(last))


def _answer(last: bool) -> bytes:
    if last not in _answers:
        call = ("submit", '{"status":"done"}') if last else ("deposit", '{"account":"a1","cents":1}')
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": call[0], "arguments": call[1]}}],
        }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220}
        body = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}).encode()
        _answers[last] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body),
            body,
        )
    return _answers[last]


_answers: dict[bool, bytes] = {}


async def serve(port: int, latency: float, turns: int) -> None:
    """Runs the server until its standard input is closed."""
    _Server.latency, _Server.turns = latency, turns
    raise_file_limit(20_000)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", port, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.disable()
    await loop.run_in_executor(None, sys.stdin.read)


def raise_file_limit(wanted: int) -> None:
    """Raises the soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


@contextlib.contextmanager
def server(latency: float, turns: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server in a process of its own; gives its URL."""
    command = [sys.executable, __file__, "--serve", "--latency", str(latency), "--turns", str(turns)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process
    finally:
        process.stdin.close()
        process.wait(30)


def cpu_of_this() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _peak_mb(processes: int) -> float:
    """Most memory at a time: of this process, and of as many workers as the largest of its children takes."""
    mine, theirs = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine + theirs * processes if processes > 1 else mine


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def episodes(args: argparse.Namespace) -> dict[str, Any]:
    """Plays the episodes."""
    from bank import Bank

    import agentgym

    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    try:
        with server(args.latency, args.turns) as (url, process):
            play = functools.partial(
                agentgym.evaluate, Bank, f"openai:m@{url}", params={"turns": args.turns}, processes=args.processes, runs=folder
            )
            # one episode first: imports and the like are not what is measured
            play(limit=1)
            before, server_before, wall = cpu_of_this(), cpu_of(process.pid), time.perf_counter()
            run = play(limit=args.episodes, concurrency=args.concurrency)
            wall, cpu, server_cpu = (
                time.perf_counter() - wall,
                cpu_of_this() - before,
                cpu_of(process.pid) - server_before,
            )
        rows = list(run.episodes())
        assert len(rows) == args.episodes
        assert all(e.gold == 1.0 for e in rows), {e.error for e in rows}
        turns = args.episodes * args.turns
        ideal = min(args.concurrency, args.episodes) / args.latency
        calls = run.meta["served"]["calls"]
        return {
            "bench": "concurrency",
            "episodes": args.episodes,
            "turns": args.turns,
            "concurrency": args.concurrency,
            "processes": args.processes,
            "latency_s": args.latency,
            "turns_per_s": round(turns / wall, 1),
            "of_ideal": round(turns / wall / ideal, 4),
            "wall_s": round(wall, 2),
            "harness_cpu_s": round(cpu, 2),
            "harness_cpu_share": round(cpu / wall, 3),
            "cpu_ms_per_turn": round(cpu / turns * 1e3, 3),
            "server_cpu_s": round(server_cpu, 2),
            "requests": calls["requests"],
            "retries": calls.get("retries", 0),
            "peak_mb": round(_peak_mb(args.processes), 1),
            "load": round(os.getloadavg()[0], 1),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clients(args: argparse.Namespace) -> dict[str, Any]:
    """CPU milliseconds a call of HTTP clients alone, at a concurrency, against the same server without latency."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 400}] * 4}).encode()
    result: dict[str, Any] = {"bench": "http_clients", "calls": args.calls, "concurrency": args.concurrency}

    async def measure(post: Callable[[], Awaitable[bytes]], calls: int) -> float:
        left = calls

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                assert b"choices" in await post()

        begun = time.process_time()
        await asyncio.gather(*(work() for _ in range(args.concurrency)))
        return round((time.process_time() - begun) / calls * 1e3, 3)

    async def own(url: str) -> float:
        from agentgym.policies.http1 import Http1, parse_url

        client = Http1(parse_url(url))

        async def post() -> bytes:
            return (await client.call("POST", "/chat/completions", body, 600.0)).body

        try:
            return await measure(post, args.calls)
        finally:
            await client.aclose()

    async def aiohttp(url: str) -> float:
        import aiohttp

        options = {"connector": aiohttp.TCPConnector(limit=0), "cookie_jar": aiohttp.DummyCookieJar()}
        async with aiohttp.ClientSession(**options) as session:

            async def post() -> bytes:
                async with session.post(f"{url}/chat/completions", data=body) as reply:
                    return await reply.read()

            return await measure(post, args.calls)

    async def httpx(url: str) -> float:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=600) as session:

            async def post() -> bytes:
                return (await session.post(f"{url}/chat/completions", content=body)).content

            return await measure(post, min(args.calls, 2000))

    with server(0.0, args.turns) as (url, _):
        for client in (own, aiohttp, httpx):
            if client is own or importlib.util.find_spec(client.__name__):
                result[f"{client.__name__}_cpu_ms"] = asyncio.run(client(url))
    result["load"] = round(os.getloadavg()[0], 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, help="default: as many as --concurrency")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, help="default: 5000; 64 with --client")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that the server takes for a call")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--client", action="store_true", help="measure HTTP clients alone")
    parser.add_argument("--calls", type=int, default=5000, help="calls of each client")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(0, args.latency, args.turns))
        return
    args.concurrency = args.concurrency or (64 if args.client else 5000)
    args.episodes = args.episodes or args.concurrency
    print(json.dumps(clients(args) if args.client else episodes(args)))


if __name__ == "__main__":
    main()
