# SPDX-License-Identifier: Apache-2.0
"""Servers that fail: nothing is scored that was not played, nothing is lost, and no storm of requests comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
import tests.envs
from agentgym.chat import user
from agentgym.errors import InfrastructureError
from agentgym.policies.http1 import Http1, HttpFault, Origin, parse_url
from agentgym.policies.openai_chat import OpenAIPolicy
from agentgym.policies.transport import Caller, Fault, Gate, Patience, Purse, count, dollars, retry_after
from agentgym.protocols import Completion, Sampling
from tests.policies.fault_server import FAULTS, FaultServer, closed_port, say

QUICK = Patience(timeout_s=60.0, deadline_s=120.0, base_s=0.01, cap_s=0.1)
"""Short pauses; long limits, for a call that is merely slow on a busy machine is no fault."""

IMPATIENT = Patience(timeout_s=2.0, deadline_s=120.0, base_s=0.01, cap_s=0.1)
"""For servers that hang."""


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def ask(url: str, patience: Patience = QUICK, calls: int = 1) -> list[Completion | BaseException]:
    """Answers, or errors, of calls made at once."""

    async def together() -> list[Completion | BaseException]:
        policy = OpenAIPolicy(f"m@{url}", patience=patience)
        try:
            jobs = (policy.act([user("hi")], (), Sampling()) for _ in range(calls))
            return await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await policy.aclose()

    return asyncio.run(together())


def failure(url: str, patience: Patience = QUICK) -> InfrastructureError:
    (error,) = ask(url, patience)
    assert isinstance(error, InfrastructureError)
    return error


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_with_faults_at_a_fifth_of_the_calls_no_episode_is_a_zero_and_none_is_lost(tmp_path: Path, seed: int) -> None:
    with FaultServer(rate=0.2, seed=seed) as server:
        policy = OpenAIPolicy(f"m@{server.url}", patience=IMPATIENT)
        run = agentgym.evaluate(tests.envs.Guess, policy, limit=100, concurrency=32, runs=tmp_path)
    episodes = list(run.episodes())
    assert len(episodes) == 100
    for e in episodes:
        assert (e.outcome, e.gold) in (("terminated", 1.0), ("infrastructure", None)), (e.outcome, e.gold, e.error)
    played = [e for e in episodes if e.gold == 1.0]
    assert len(played) >= 95, "retries help"
    assert set(FAULTS) <= set(server.done), "every kind of fault happened"
    turns = sum(e.turns for e in played)
    assert len(server.requests) < 2 * turns, "retries are no storm"
    for e in played:
        for turn in e.trajectory.turns:
            assert 0 <= turn.usage.prompt_tokens <= 11
            assert 0 <= turn.usage.completion_tokens <= 2
            assert turn.usage.cost_usd == 0.0


@pytest.mark.parametrize("fault", ["500", "cut", "closed", "html", "shape"])
def test_a_server_that_never_works_is_asked_a_bounded_number_of_times(tmp_path: Path, fault: str) -> None:
    with FaultServer(faults=[fault], rate=1.0) as server:
        policy = OpenAIPolicy(f"m@{server.url}", patience=QUICK)
        with pytest.raises(InfrastructureError):
            agentgym.evaluate(tests.envs.Guess, policy, limit=60, concurrency=30, retries=1, runs=tmp_path)
    run = agentgym.open_run(str(next(tmp_path.iterdir())))
    outcomes = [e.outcome for e in run.episodes()]
    assert set(outcomes) == {"infrastructure"}
    # one first try for each attempt at an episode, and the reserve of the purse
    assert len(server.requests) <= 60 * 2 + QUICK.reserve


def test_a_server_that_refuses_everything_is_left_alone_more_and_more(tmp_path: Path) -> None:
    patience = Patience(timeout_s=60.0, deadline_s=2.0, base_s=0.05, cap_s=0.5)
    with FaultServer(faults=["429"], rate=1.0) as server, contextlib.suppress(InfrastructureError):
        policy = OpenAIPolicy(f"m@{server.url}", patience=patience)
        agentgym.evaluate(tests.envs.Guess, policy, limit=50, concurrency=50, retries=0, runs=tmp_path)
    # all fifty knock once; after that one call at a time, after pauses
    assert len(server.requests) <= 50 + 40
    assert server.most_at_once <= 50


# -- single calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "html", "shape", "closed", "hang"])
def test_a_passing_fault_is_not_noticed(fault: str) -> None:
    with FaultServer(say("ok"), script=[fault, fault]) as server:
        (done,) = ask(server.url, IMPATIENT)
    assert isinstance(done, Completion)
    assert done.message.text == "ok"
    assert len(server.requests) >= 3


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "leave that out"),
        (401, "set OPENAI_API_KEY"),
        (402, "credit"),
        (403, "may not use"),
        (404, "no model 'm'"),
        (405, "refuses the request"),
        (308, "redirects"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(status: int, advice: str) -> None:
    with FaultServer(status=status, body={"error": {"message": "details of it"}}) as server:
        error = failure(server.url)
    assert len(server.requests) == 1
    assert not error.retryable
    assert advice in str(error)
    assert server.url in str(error)


def test_an_account_without_credit_is_not_a_busy_server() -> None:
    with FaultServer(status=429, body={"error": {"message": "pay", "code": "insufficient_quota"}}) as server:
        error = failure(server.url)
    assert (len(server.requests), error.retryable) == (1, False)


def test_where_nobody_listens_it_is_said_soon() -> None:
    with closed_port() as port:
        error = failure(f"http://127.0.0.1:{port}/v1", Patience(base_s=0.01))
    assert "is the server running" in str(error)
    assert not error.retryable


def test_a_server_that_restarts_is_waited_for() -> None:
    async def play() -> str:
        first = FaultServer(say("before"))
        with first:
            policy = OpenAIPolicy(f"m@{first.url}", patience=QUICK)
            assert (await policy.act([user("hi")], (), Sampling())).message.text == "before"
        waiting = asyncio.create_task(policy.act([user("hi")], (), Sampling()))
        while policy._caller.counts["connect"] < 3:
            await asyncio.sleep(0.01)
        second = FaultServer(say("after"))
        second.port = first.port
        with second:
            text = (await waiting).message.text
            await policy.aclose()
        return text

    assert asyncio.run(play()) == "after"


def test_a_server_says_how_long_to_wait() -> None:
    with FaultServer(say("ok"), script=["429"], headers={"Retry-After": "0.3"}) as server:
        begun = time.monotonic()
        (done,) = ask(server.url)
        waited = time.monotonic() - begun
    assert isinstance(done, Completion)
    assert waited >= 0.3


def test_a_server_that_wants_an_hour_is_not_waited_for() -> None:
    with FaultServer(script=["429"], headers={"Retry-After": "3600"}) as server:
        error = failure(server.url)
    assert "asks to wait 3600 s" in str(error)
    assert (len(server.requests), error.retryable) == (1, False)


def test_a_call_that_is_cancelled_leaves_nothing_behind() -> None:
    async def play() -> None:
        with FaultServer(say("ok"), script=["hang", "ok"]) as server:
            policy = OpenAIPolicy(f"m@{server.url}")
            task = asyncio.create_task(policy.act([user("hi")], (), Sampling()))
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert policy._caller.gate.in_flight == 0
            await asyncio.sleep(0)
            assert policy._http._open == 0, "the answer to come would be taken for that of the next call"
            assert (await policy.act([user("hi")], (), Sampling())).message.text == "ok"
            await policy.aclose()

    asyncio.run(play())


def test_a_server_that_bears_few_calls_gets_few() -> None:
    """More than eight at once are refused: the gate finds that out, and everybody is served."""

    async def play() -> tuple[int, int]:
        with FaultServer(say("ok")) as server:
            original = server._act

            async def act(fate: str, request: dict[str, Any], writer: Any) -> bool:
                if server._now > 8:
                    return await original("429", request, writer)
                await asyncio.sleep(0.005)
                return await original("ok", request, writer)

            server._act = act  # type: ignore[method-assign]
            policy = OpenAIPolicy(f"m@{server.url}", patience=QUICK)
            await asyncio.gather(*(policy.act([user("hi")], (), Sampling()) for _ in range(300)))
            await policy.aclose()
            return len(server.requests), policy._caller.counts["busy"]

    requests, refused = asyncio.run(play())
    assert requests == 300 + refused
    assert refused < 700, "halving: 300 + 150 + 75 + 38 + 19 + 10, and now and then one more"


# -- the parts --------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=400), st.floats(0, 50), st.floats(0, 2))
def test_retries_never_exceed_the_reserve_and_the_share_of_successes(events: list[bool], reserve: float, earned: float) -> None:
    purse = Purse(reserve, earned)
    successes = paid = 0
    for success in events:
        if success:
            purse.earn()
            successes += 1
        else:
            paid += purse.pay()
        assert paid <= reserve + earned * successes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.sampled_from(["enter", "leave", "ok", "shrink", "pause", "tick"]), max_size=120), st.integers(1, 9))
def test_a_gate_never_lets_in_more_than_its_limit_and_never_loses_a_place(events: list[str], limit: int) -> None:
    async def play() -> None:
        clock = Clock()
        gate = Gate(limit, 0.5, 4.0, clock)
        inside = 0
        queue: list[asyncio.Task[float]] = []
        for event in events:
            if event == "enter":
                queue.append(asyncio.create_task(gate.enter()))
            elif event == "leave" and inside:
                gate.leave()
                inside -= 1
            elif event == "ok":
                gate.succeeded()
            elif event == "shrink":
                gate.shrink(clock.now)
            elif event == "pause":
                gate.pause(None, clock.now)
            elif event == "tick":
                clock.now += 5.0
                gate._let_in()
            before = inside
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside += sum(t.done() for t in queue)
            queue = [t for t in queue if not t.done()]
            assert gate.in_flight == inside
            assert 1.0 <= gate.limit <= limit
            assert inside <= max(before, limit)
        for task in queue:
            task.cancel()
        await asyncio.gather(*queue, return_exceptions=True)
        assert gate.in_flight == inside
        clock.now += 1000.0
        for _ in range(inside):
            gate.leave()
        await asyncio.wait_for(gate.enter(), 1.0)  # whatever happened, it opens again
        gate.leave()
        assert gate.in_flight == 0

    asyncio.run(play())


def test_while_a_server_is_down_one_call_tries_for_all() -> None:
    async def play() -> None:
        gate = Gate(None, 0.001, 0.002)
        begun = await gate.enter()
        gate.pause(None, begun)
        gate.leave()
        waiting = [asyncio.create_task(gate.enter()) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert sum(t.done() for t in waiting) == 1
        gate.succeeded()
        gate.leave()
        await asyncio.gather(*waiting)

    asyncio.run(play())


def test_when_a_server_stays_away_everyone_is_told() -> None:
    async def play() -> None:
        patience = Patience(timeout_s=60.0, deadline_s=0.5, base_s=0.05, cap_s=0.1, in_flight=1)
        caller = Caller("the server", patience)
        calls = 0

        async def attempt(timeout: float) -> None:
            nonlocal calls
            calls += 1
            raise Fault("busy", "not now")

        results = await asyncio.gather(*(caller.call(attempt) for _ in range(200)), return_exceptions=True)
        assert all(isinstance(r, InfrastructureError) for r in results)
        # the one or two that tried may have come to the end of their own time first
        assert sum("it has not answered for" in str(r) for r in results) > 190
        assert calls < 100, "nearly all of them never had to ask"

    asyncio.run(play())


@given(st.text(max_size=20) | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_is_a_time_or_none(text: str) -> None:
    wait = retry_after({"retry-after": text})
    assert wait is None or 0.0 <= wait < float("inf")


def test_retry_after_may_be_a_date() -> None:
    assert retry_after({"retry-after": email.utils.formatdate(1000, usegmt=True)}, now=990.0) == 10.0
    assert retry_after({"retry-after": email.utils.formatdate(1000, usegmt=True)}, now=2000.0) == 0.0
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_whatever_a_server_counts_is_kept_as_a_number_that_can_be_added(value: Any) -> None:
    assert 0 <= count(value) < 1 << 40
    assert 0.0 <= dollars(value) < 1e13


# -- HTTP -------------------------------------------------------------------------------------------------------------


def _get(url: str, timeout: float = 5.0, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    async def once() -> tuple[int, bytes]:
        client = Http1(parse_url(url), headers)
        try:
            reply = await client.call("POST", "/chat/completions", b"{}", timeout)
            return reply.status, reply.body
        finally:
            await client.aclose()

    return asyncio.run(once())


@pytest.mark.parametrize("way", ["ok", "chunked", "unsized", "late_close"])
def test_replies_are_read_whole_however_they_come(way: str) -> None:
    with FaultServer(say("a" * 5000), script=[way]) as server:
        status, body = _get(server.url)
    assert status == 200
    assert b"a" * 5000 in body


@contextlib.contextmanager
def raw_server(answer: bytes, tls: Any = None, wrap: Any = None) -> Iterator[int]:
    """Answers whatever comes with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError):
                    if tls is not None:
                        connection = tls.wrap_socket(connection, server_side=True)
                    if wrap is not None:
                        connection = wrap(connection)
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.0\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Enc", "cut"),
        (b"", "cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (65 << 20), "malformed"),
    ],
)
def test_what_is_no_whole_http_reply_is_none(answer: bytes, kind: str) -> None:
    with raw_server(answer) as port, pytest.raises(HttpFault) as fault:
        _get(f"http://127.0.0.1:{port}")
    assert fault.value.kind == kind


def test_an_interim_reply_is_not_the_reply() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    with raw_server(answer) as port:
        assert _get(f"http://127.0.0.1:{port}") == (200, b"hi")


def test_calls_share_connections_but_never_answers() -> None:
    async def play() -> None:
        bot = lambda request: {"role": "assistant", "content": request["messages"][0]["content"]}  # noqa: E731
        with FaultServer(bot) as server:
            policy = OpenAIPolicy(f"m@{server.url}")
            for _ in range(3):
                texts = [f"call {i}" for i in range(50)]
                answers = await asyncio.gather(*(policy.act([user(t)], (), Sampling()) for t in texts))
                assert [a.message.text for a in answers] == texts
            assert policy._http._open <= 50
            await policy.aclose()

    asyncio.run(play())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A certificate for localhost and model.test, and a server's context with it."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    assert openssl, "the openssl command makes this test's certificate; it comes with every Linux and macOS"
    key, file = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(file), "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:model.test"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return file, context


HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_encrypted_servers_are_checked(certificate: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    file, context = certificate
    with raw_server(HELLO, context) as port:
        with pytest.raises(HttpFault, match="not trusted"):
            _get(f"https://localhost:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert _get(f"https://localhost:{port}") == (200, b"hi")


def test_a_proxy_is_asked_for_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(say("through the proxy")) as proxy, FaultServer(say("direct")) as server:
        monkeypatch.setenv("http_proxy", f"http://u:pw@127.0.0.1:{proxy.port}")
        assert b"through the proxy" in _get("http://model.test/v1")[1]
        assert b"direct" in _get(server.url)[1]
        assert proxy.sent_headers[0]["host"] == "model.test"
        assert proxy.sent_headers[0]["proxy-authorization"] == "Basic dTpwdw=="
        monkeypatch.setenv("no_proxy", "127.0.0.1,model.test")
        with pytest.raises(HttpFault):
            _get("http://model.test/v1")


@pytest.mark.parametrize("status", [200, 407])
def test_an_encrypted_server_is_reached_through_a_tunnel(
    status: int, certificate: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    asked: list[bytes] = []

    def tunnel(connection: socket.socket) -> socket.socket:
        asked.append(connection.recv(65536))
        length = "" if status == 200 else "Content-Length: 0\r\n"
        connection.sendall(f"HTTP/1.1 {status} X\r\n{length}\r\n".encode())
        return context.wrap_socket(connection, server_side=True)  # type: ignore[no-any-return]

    with raw_server(HELLO, wrap=tunnel) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        if status == 200:
            assert _get("https://model.test/v1", headers={"Authorization": "Bearer planted"}) == (200, b"hi")
        else:
            with pytest.raises(HttpFault, match="the proxy refused with status 407"):
                _get("https://model.test/v1", headers={"Authorization": "Bearer planted"})
    assert asked[0].startswith(b"CONNECT model.test:443 HTTP/1.1\r\n")
    assert b"planted" not in asked[0], "the proxy sees no key"


def test_urls_are_taken_apart() -> None:
    assert parse_url("http://u:p%40@[::1]:80/a/") == Origin(False, "::1", 80, "/a", "u:p@")
    assert parse_url("http://u:p%40@[::1]:80/a/").shown == "http://[::1]/a"
    assert parse_url("https://h").shown == "https://h"
    assert "p@" not in parse_url("https://u:p%40@h/v1").shown


def test_more_calls_than_open_files_are_allowed_says_so() -> None:
    """In a process of its own, whose hard limit can be lowered."""
    code = """
import asyncio, resource, sys
from agentgym.policies.openai_chat import OpenAIPolicy
from agentgym.policies.transport import Patience
from agentgym.chat import user
from agentgym.protocols import Sampling
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
async def main():
    policy = OpenAIPolicy(f"m@{sys.argv[1]}", patience=Patience(base_s=0.01))
    done = await asyncio.gather(*(policy.act([user("hi")], (), Sampling()) for _ in range(150)), return_exceptions=True)
    print(sum(not isinstance(d, BaseException) for d in done), {str(d)[:60] for d in done if isinstance(d, BaseException)})
    await policy.aclose()
asyncio.run(main())
"""
    with FaultServer(say("ok")) as server:
        original = server._act

        async def act(fate: str, request: dict[str, Any], writer: Any) -> bool:
            await asyncio.sleep(0.2)
            return await original(fate, request, writer)

        server._act = act  # type: ignore[method-assign]

        def run(hard: int) -> str:
            command = [sys.executable, "-c", code, server.url, str(hard)]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        assert run(1024).startswith("150 "), "a soft limit is raised"
        assert "may open no more files" in run(80)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 80
