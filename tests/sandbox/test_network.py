# SPDX-License-Identifier: Apache-2.0
"""Of the network a sandbox reaches exactly what its spec lists, and holds nothing of the host's while it does."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.sandbox import _allowed, _relay, open_backend
from agentgym.sandbox.namespace import NamespaceBackend
from agentgym.sandbox.protocol import Backend, Limits, Sandbox, SandboxSpec
from tests.sandbox.footprint import footprint


class _Tells(http.server.BaseHTTPRequestHandler):
    """Answers with the name by which it was asked for, and with what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = b"at " + self.headers["Host"].encode() + b" got %d" % len(self.rfile.read(length))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of a web server on the host's loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Tells) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the host's loopback whose connections the test takes itself."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        server.settimeout(20)
        yield server


@pytest.fixture(scope="module")
def netted() -> Iterator[NamespaceBackend]:
    with NamespaceBackend(packages=()) as backend:
        yield backend


def allowing(*entries: str, **more: Any) -> SandboxSpec:
    return SandboxSpec(network=entries, limits=Limits(wall_s=30), **more)


def fetch(url: str) -> str:
    return f"import urllib.request\nprint(urllib.request.urlopen({url!r}, timeout=20).read().decode())"


def relay_of(box: Sandbox) -> _relay.Relay:
    relay: _relay.Relay = box._box.relay  # type: ignore[attr-defined]
    assert relay is not None
    return relay


def until(truth: Callable[[], bool]) -> bool:
    for _ in range(200):
        if truth():
            return True
        time.sleep(0.05)
    return False


# what is listed


def test_a_listed_server_answers_by_name_and_by_address_in_every_language(netted: NamespaceBackend, web: int) -> None:
    with netted.create(allowing(f"localhost:{web}", f"127.0.0.1:{web}")) as box:
        assert box.exec(fetch(f"http://localhost:{web}/")).text == f"at localhost:{web} got 0\n"
        assert box.exec(fetch(f"http://127.0.0.1:{web}/")).text == f"at 127.0.0.1:{web} got 0\n"
        shell = f"exec 3<>/dev/tcp/127.0.0.1/{web}; printf 'GET / HTTP/1.0\\r\\nHost: sh\\r\\n\\r\\n' >&3; tail -n 1 <&3"
        assert box.exec(shell, "bash").text == "at sh got 0"
        assert box.session("python").run(fetch(f"http://localhost:{web}/")).text == f"at localhost:{web} got 0\n"
        post = f"import urllib.request\nprint(urllib.request.urlopen('http://localhost:{web}/', b'x' * 5_000_000).read())"
        assert box.exec(post).text == f"b'at localhost:{web} got 5000000'\n"


def test_a_name_is_found_without_dns_and_reaches_the_server_under_its_name(
    netted: NamespaceBackend, web: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's resolver and its idea of a public address are replaced: the test has no server on the internet."""
    monkeypatch.setattr(_relay.socket, "getaddrinfo", resolver("127.0.0.1"))
    monkeypatch.setattr(_allowed, "public", lambda text: True)
    with netted.create(allowing(f"files.example:{web}", "files.example:443", "other.example:443")) as box:
        assert box.exec(fetch(f"http://files.example:{web}/")).text == f"at files.example:{web} got 0\n"
        hosts = box.exec("cat /etc/hosts", "bash").text
        assert hosts == "127.0.1.1 files.example\n127.0.1.2 other.example\n127.0.0.1 localhost sandbox\n::1 localhost\n"
        assert "Read-only" in box.exec("echo 127.0.0.1 x >> /etc/hosts", "bash").error_text


def test_addresses_stand_for_themselves_inside(netted: NamespaceBackend) -> None:
    with netted.create(allowing("192.0.2.7:5432", "[2001:db8::7]:80")) as box:
        seen = box.exec("cat /proc/net/tcp /proc/net/tcp6", "bash").text
        assert f"{socket.htonl(0xC0000207):08X}:{5432:04X}" in seen
        assert "B80D0120000000000000000007000000:0050" in seen


def test_forks_restored_and_spare_sandboxes_have_the_same_network(web: int) -> None:
    with NamespaceBackend(packages=(), spare=1) as backend:
        spec = allowing(f"127.0.0.1:{web}")
        url = fetch(f"http://127.0.0.1:{web}/")
        with backend.create(spec) as box:
            assert backend._spares.wait()
            with backend.create(spec) as spare, box.fork() as twin:
                assert [b.exec(url).ok for b in (box, spare, twin)] == [True] * 3
            snapshot = box.snapshot()
            box.restore(snapshot)
            assert box.exec(url).ok
        with backend.create() as plain:
            assert not plain.exec(url).ok


# what is not


NOTHING_ELSE = """
import errno, socket
def tried(family, kind, place, data=None):
    try:
        s = socket.socket(family, kind, 1 if kind == socket.SOCK_RAW else 0)
        s.settimeout(3)
        if data is None: s.connect(place)
        else:
            s.connect(place); s.send(data); s.recv(10)
        return "REACHED"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
print(tried(socket.AF_INET, TCP, ("127.0.0.1", OTHER)))
print(tried(socket.AF_INET, TCP, ("127.0.1.1", LISTED)))
print(tried(socket.AF_INET, TCP, ("192.0.2.1", LISTED)))
print(tried(socket.AF_INET6, TCP, ("2001:db8::1", LISTED)))
print(tried(socket.AF_INET, UDP, ("127.0.0.1", LISTED), b"x"))
print(tried(socket.AF_INET, UDP, ("192.0.2.1", 53), b"x"))
print(tried(socket.AF_INET, socket.SOCK_RAW, ("127.0.0.1", 0), b"x"))
print(tried(17, socket.SOCK_RAW, ("lo", 0)))
try: print("RESOLVED", socket.getaddrinfo("example.org", 80))
except OSError: print("no DNS")
"""


def test_other_ports_hosts_protocols_and_dns_are_not_reached(
    netted: NamespaceBackend, web: int, listener: socket.socket
) -> None:
    other = listener.getsockname()[1]
    with netted.create(allowing(f"127.0.0.1:{web}")) as box:
        result = box.exec(NOTHING_ELSE.replace("LISTED", str(web)).replace("OTHER", str(other)))
        told = result.text.split("\n")
        assert told[:3] == ["ECONNREFUSED", "ECONNREFUSED", "ENETUNREACH"], result.error_text
        assert told[3] in ("ENETUNREACH", "EADDRNOTAVAIL")
        assert told[4:9] == ["ECONNREFUSED", "ENETUNREACH", "EPERM", "EAFNOSUPPORT", "no DNS"]
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def resolver(*addresses: str) -> Callable[..., Any]:
    def look_up(host: str, port: int, *args: Any, **more: Any) -> list[Any]:
        families = [socket.AF_INET6 if ":" in a else socket.AF_INET for a in addresses]
        return [(f, socket.SOCK_STREAM, 6, "", (a, port)) for f, a in zip(families, addresses, strict=True)]

    return look_up


def test_a_name_that_leads_into_the_hosts_networks_is_not_followed(
    netted: NamespaceBackend, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's resolver is replaced: whoever owns a listed name may point it anywhere, and no test can own one."""
    port = listener.getsockname()[1]
    monkeypatch.setattr(_relay.socket, "getaddrinfo", resolver("127.0.0.1", "::1", "::ffff:127.0.0.1"))
    with netted.create(allowing(f"rebound.example:{port}")) as box:
        code = f"import socket\ns = socket.create_connection(('rebound.example', {port}), 20)\ns.recv(1)"
        assert "ConnectionResetError" in box.exec(code).error_text
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "fec0::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "2001:db8::1",
    ],
)
def test_addresses_that_a_name_may_not_lead_to(address: str) -> None:
    assert not _allowed.public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet(address: str) -> None:
    assert _allowed.public(address)


@pytest.mark.parametrize(
    "entry",
    [
        "pypi.org",
        "pypi.org:",
        "pypi.org:0",
        "pypi.org:65536",
        "pypi.org:080",
        "pypi.org:80-90",
        "pypi.org:*",
        "*:80",
        "*.pypi.org:443",
        ".org:1",
        "a..b:1",
        "a.org.:1",
        "PyPI.org:443",
        "-a.org:1",
        "a-.org:1",
        "a_b.org:1",
        "http://a.org:80",
        "a.org/x:80",
        "u@a.org:80",
        "127.1:80",
        "2130706433:80",
        "0x7f.1:80",
        "0x7f000001:80",
        "127.0.0.01:80",
        "1.2.3.4.5:80",
        "::1:80",
        "[::1]80",
        "[0:0::1]:80",
        "[fe80::1%lo]:80",
        "[127.0.0.1]:80",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        ":80",
        "bücher.de:80",
        "a.org:\uff18\uff10",
        "a b:80",
        "a.org:80\n",
        "a.org\n:80",
        "127.0.0.1 a:80",
        "",
    ],
)
def test_entries_that_are_not_exactly_one_host_and_port_are_refused(entry: str) -> None:
    with pytest.raises(UsageError, match=r"allowed network entry .*:"):
        SandboxSpec(network=(entry,))


@given(st.text(alphabet="ab1-.:[]%*\n 0x", max_size=20))
def test_what_is_taken_as_an_entry_is_taken_literally(text: str) -> None:
    try:
        to = _allowed.parse(text)
    except UsageError:
        return
    assert text == (f"[{to.host}]:{to.port}" if ":" in to.host else f"{to.host}:{to.port}")
    hosts, places = _allowed.layout([to])
    assert len(places) == 1
    assert len(hosts.splitlines()) == (2 if to.literal else 3)


def test_a_spec_that_makes_no_sense_is_refused() -> None:
    for network in ((), ("a.org:1", "a.org:1"), tuple(f"a.org:{n}" for n in range(1, 40)), "all"):
        with pytest.raises(UsageError):
            SandboxSpec(network=network)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no_network"):
        SandboxSpec(network=("a.org:1",), require=("no_network",))


def test_only_a_backend_that_can_hold_to_a_list_takes_one(backend: Backend) -> None:
    can = backend.capabilities()
    assert can.network_allow == (can.backend == "namespace")
    if not can.network_allow:
        with pytest.raises(UsageError, match=r"cannot hold connections to a list of hosts .* allows a\.org:1: use the backend"):
            backend.create(SandboxSpec(network=("a.org:1",)))


def test_the_unsafe_backend_takes_no_list() -> None:
    with open_backend("unsafe_local", unsafe=True) as unsafe, pytest.raises(UsageError, match="cannot hold connections"):
        unsafe.create(SandboxSpec(network=("a.org:1",)))


# against the host


def test_nothing_inside_holds_what_listens_or_what_leads_outside(netted: NamespaceBackend, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    look = (
        "import os, socket\nfound = []\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: found += [os.readlink(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd')]\n"
        "    except PermissionError: print('closed', pid)\n    except OSError: pass\n"
        "rows = [line.split() for line in open('/proc/net/tcp')][1:]\n"
        "print(sum(row[3] == '0A' for row in rows), sum(f'socket:[{row[9]}]' in found for row in rows))\n"
        "for reuse in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):\n    s = socket.socket()\n    s.setsockopt(1, reuse, 1)\n"
        f"    try: s.bind(('127.0.0.1', {port})); s.listen(); print('taken')\n    except OSError as e: print(e.strerror)"
    )
    with netted.create(allowing(f"127.0.0.1:{port}")) as box:
        box.session("python").run(f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))")
        with listener.accept()[0]:
            one_listens_and_one_end_is_the_programs = "1 1\n"
            assert box.exec(look).text == (
                f"closed 1\n{one_listens_and_one_end_is_the_programs}Address already in use\nAddress already in use\n"
            )


def test_the_sandboxs_own_process_keeps_nothing_that_listens(netted: NamespaceBackend) -> None:
    def sockets(box: Sandbox) -> int:
        folder = f"/proc/{box._box.pid}/fd"  # type: ignore[attr-defined]
        return sum(os.readlink(f"{folder}/{n}").startswith("socket:") for n in os.listdir(folder))

    with netted.create(allowing("a.example:443", "a.example:80")) as box, netted.create() as plain:
        if os.getuid():
            with pytest.raises(PermissionError):
                sockets(box)
        else:
            assert sockets(box) == sockets(plain) == 1


def test_connections_end_with_the_sandbox_and_with_its_state(netted: NamespaceBackend, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    connect = f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))\ns.sendall(b'x')"

    def connected() -> socket.socket:
        box.session("python").run(connect)
        reached = listener.accept()[0]
        reached.settimeout(20)
        assert reached.recv(1) == b"x"
        return reached

    def ended(reached: socket.socket) -> bool:
        with reached:
            try:
                return reached.recv(1) == b""
            except ConnectionResetError:
                return True

    box = netted.create(allowing(f"127.0.0.1:{port}"))
    before = connected()
    box.restore(box.snapshot())
    assert ended(before)
    after, relay = connected(), relay_of(box)
    box.close()
    assert ended(after)
    assert relay.connections <= 0
    box = netted.create(allowing(f"127.0.0.1:{port}"))
    killed = connected()
    os.kill(box._box.pid, 9)  # type: ignore[union-attr]
    assert ended(killed)
    box.close()


def test_a_flood_of_connections_is_bounded_and_carrying_goes_on(
    netted: NamespaceBackend, listener: socket.socket, web: int
) -> None:
    port = listener.getsockname()[1]
    listener.settimeout(1)
    with netted.create(allowing(f"127.0.0.1:{port}")) as box, netted.create(allowing(f"127.0.0.1:{web}")) as other:
        threads = threading.active_count()
        session = box.session("python")
        session.run(
            "import socket\nopen_ = []\nfor _ in range(101):\n    s = socket.socket(); s.setblocking(False)\n"
            f"    s.connect_ex(('127.0.0.1', {port})); open_.append(s)"
        )
        reached = []
        with contextlib.suppress(TimeoutError):
            while True:
                reached.append(listener.accept()[0])
        assert len(reached) == _relay.AT_ONCE
        assert threading.active_count() == threads
        assert other.exec(fetch(f"http://127.0.0.1:{web}/")).ok, "others have their own"
        for sock in reached:
            sock.close()
        session.run("for s in open_: s.close()")
        assert until(lambda: relay_of(box).connections == 0 or _drain(listener))
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port})).sendall(b'again')"
        assert box.exec(code).ok
        listener.settimeout(20)
        while True:
            with listener.accept()[0] as sock:
                if sock.recv(5) == b"again":
                    break


def _drain(listener: socket.socket) -> bool:
    with contextlib.suppress(TimeoutError):
        listener.accept()[0].close()
    return False


def test_new_connections_are_slowed_down_not_refused(
    netted: NamespaceBackend, web: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_relay, "BURST", 2.0)
    with netted.create(allowing(f"127.0.0.1:{web}")) as box:
        code = (
            "import socket, time\nt = time.monotonic()\nfor _ in range(27):\n"
            f"    with socket.create_connection(('127.0.0.1', {web})) as s:\n"
            "        s.sendall(b'GET / HTTP/1.0\\r\\nHost: a\\r\\n\\r\\n'); assert s.recv(1)\nprint(time.monotonic() - t)"
        )
        assert float(box.exec(code).text) > 20 / _relay.PER_SECOND


def test_a_server_that_is_not_there_resets_and_an_idle_connection_ends(
    netted: NamespaceBackend, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener.getsockname()[1]
    code = f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))\ns.recv(1)"
    monkeypatch.setattr(_relay, "IDLE_S", 0.4)
    with netted.create(allowing(f"127.0.0.1:{port}")) as box:
        assert "ConnectionResetError" in box.exec(code).error_text
        listener.close()
        assert "ConnectionResetError" in box.exec(code).error_text


def test_a_child_of_the_host_keeps_no_socket(netted: NamespaceBackend, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with netted.create(allowing(f"127.0.0.1:{port}")) as box:
        session = box.session("python")
        session.run(f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))\ns.sendall(b'1')")
        with listener.accept()[0] as reached:
            assert reached.recv(1) == b"1"
            held = [(s.fileno(), os.fstat(s.fileno()).st_ino) for s in relay_of(box)._sockets]
            assert len(held) == 3
            pid = os.fork()
            if pid == 0:
                left = 0
                for fd, inode in held:
                    try:
                        left += os.fstat(fd).st_ino == inode
                    except OSError:
                        continue
                box.close()  # as a context manager would, on its way out
                os._exit(left)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            session.run("s.sendall(b'2')")
            assert reached.recv(1) == b"2", "the parent carries on"


def test_what_is_connected_to_is_an_event(netted: NamespaceBackend, web: int) -> None:
    with netted.create(allowing(f"127.0.0.1:{web}", events=True)) as box:
        assert box.exec(fetch(f"http://127.0.0.1:{web}/")).ok
        assert [e.resource for e in box.events() if e.kind == "network.connect"] == [f"127.0.0.1:{web}"]


def test_without_a_network_there_is_no_thread_for_it_and_with_one_nothing_is_left(web: int) -> None:
    def carriers() -> int:
        return sum(t.name == "agentgym-network" for t in threading.enumerate())

    others = carriers()
    with NamespaceBackend(packages=()) as backend:
        backend.create().close()
        assert carriers() == others
        spec = allowing(f"127.0.0.1:{web}")
        with backend.create(spec) as box:
            box.fork().close()
        assert carriers() == others + 1
        launcher = backend.launcher().process.pid
        first = footprint([launcher])
        for _ in range(10):
            with backend.create(spec) as box:
                box.session("python").run(
                    f"import socket\ns = [socket.create_connection(('127.0.0.1', {web})) for _ in range(5)]"
                )
        assert until(lambda: footprint([launcher]) == first), (first, footprint([launcher]))
    assert carriers() == others


@pytest.mark.slow
def test_a_plain_users_sandboxes_have_it_too(as_plain_user: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    if os.environ.get("AGENTGYM_TEST_AS_PLAIN_USER"):
        return  # this is that run
    run = as_plain_user(
        "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/sandbox/test_network.py", "-k", "not list_takes"
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
