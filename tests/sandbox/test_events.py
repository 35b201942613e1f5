# SPDX-License-Identifier: Apache-2.0
"""What sandboxed code did is seen from outside, whatever it does about it, and seeing it opens nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import InfrastructureError, UsageError
from agentgym.sandbox import _linux, _notify, _observer, _seccomp, _watch, open_backend
from agentgym.sandbox.namespace import NamespaceBackend
from agentgym.sandbox.protocol import Limits, Sandbox, SandboxDeadError, SandboxEvent, SandboxSpec
from agentgym.trajectory import Event
from tests.sandbox.footprint import footprint
from tests.sandbox.test_namespace import ALLOW, MACHINES, verdict

NOTIFY = 0x7FC00000
PROTECTED = ("tests/**", "*.lock")
SEEN = SandboxSpec(events=True, protected=PROTECTED, limits=Limits(wall_s=30))
SHELL = "/bin/bash" if os.getuid() == 0 else ""
"""The shell that the sandbox itself starts: until then it shares the memory of process 1, which a plain user cannot read."""
CALLS = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nraw = libc.syscall\nraw.restype = ctypes.c_long\n"


@pytest.fixture(scope="module")
def watched() -> Iterator[NamespaceBackend]:
    with NamespaceBackend(packages=()) as backend:
        yield backend


@pytest.fixture
def box(watched: NamespaceBackend) -> Iterator[Sandbox]:
    with watched.create(SEEN) as sandbox:
        yield sandbox


def of(box: Sandbox, kind: str) -> list[SandboxEvent]:
    return [e for e in box.events() if e.kind.startswith(kind)]


def files(box: Sandbox) -> set[tuple[str, str, str]]:
    return {(e.kind, e.resource, e.data.get("seen", "")) for e in box.events() if e.kind.startswith("file.")}


def observer_of(backend: NamespaceBackend) -> int:
    """The launcher's child that is in the launcher's own pid namespace."""
    launcher = backend.launcher().process.pid
    with open(f"/proc/{launcher}/task/{launcher}/children") as f:
        children = [int(x) for x in f.read().split()]
    with open("/proc/self/status") as f:
        depth = next(len(line.split()) for line in f if line.startswith("NSpid:"))
    found = []
    for pid in children:
        with open(f"/proc/{pid}/status") as f:
            if next(len(line.split()) for line in f if line.startswith("NSpid:")) == depth:
                found.append(pid)
    assert len(found) == 1, children
    return found[0]


# what is seen


def test_programs_are_seen_with_their_arguments_and_who_started_them(box: Sandbox) -> None:
    box.exec("/bin/echo one 'two words'", "bash")
    shell, echo = of(box, "process.exec")
    assert (shell.resource, echo.resource) == (SHELL, "/bin/echo")
    assert echo.data["argv"] == ["/bin/echo", "one", "two words"]
    assert echo.data["by"].endswith("/bash")
    assert echo.pid > shell.pid > 1


def test_python_runs_and_turns_start_no_program(box: Sandbox) -> None:
    assert box.exec("print(1)").ok
    session = box.session("python")
    assert session.run("x = 1").ok
    assert box.events() == []


def test_a_program_in_memory_is_seen_by_what_it_is(box: Sandbox) -> None:
    code = (
        "import os, shutil\nfd = os.memfd_create('hidden')\n"
        "with open('/bin/true', 'rb') as f, open(fd, 'wb', closefd=False) as g: shutil.copyfileobj(f, g)\n"
        "if os.fork() == 0: os.execve(fd, ['true'], {})\nos.wait()"
    )
    if box.exec(code).exit_code:  # refused where no control group counts memory
        assert of(box, "call.refused")[0].resource == "memfd_create"
        return
    (event,) = of(box, "process.exec")
    assert event.resource.startswith("/memfd:hidden")
    assert event.data["by_descriptor"]


def test_attempts_at_the_network_are_seen_with_their_address_whatever_the_call(box: Sandbox) -> None:
    code = """
    import os, socket, tempfile
    def quiet(call, *arguments):
        try: call(*arguments)
        except OSError: pass
    tcp, udp, six = socket.socket(), socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    tcp.settimeout(1)
    quiet(tcp.connect, ("192.0.2.1", 80))
    quiet(udp.sendto, b"x", ("192.0.2.2", 53))
    quiet(udp.sendmsg, [b"x"], [], 0, ("192.0.2.3", 53))
    quiet(six.sendto, b"x", ("2001:db8::4", 53))
    quiet(udp.bind, ("127.0.0.1", 5353))
    quiet(socket.socket, 16, 3)
    quiet(socket.socket, 17, 3)
    a, b = socket.socketpair()
    a.sendmsg([b"not the network"])
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("/tmp/s"); unix.listen(); socket.socket(socket.AF_UNIX).connect("/tmp/s")
    """
    result = box.exec("\n".join(line[4:] for line in code.splitlines()))
    assert result.ok, result.error_text
    assert [(e.kind, e.resource) for e in box.events()] == [
        ("network.connect", "192.0.2.1:80"),
        ("network.send", "192.0.2.2:53"),
        ("network.send", "192.0.2.3:53"),
        ("network.send", "[2001:db8::4]:53"),
        ("network.bind", "127.0.0.1:5353"),
        ("network.socket", "netlink"),
        ("network.socket", "packet"),
    ]


REFUSED = {
    "clock_settime": ("clock.set", errno.EPERM),
    "clock_adjtime": ("clock.set", errno.EPERM),
    "adjtimex": ("clock.set", errno.EPERM),
    "settimeofday": ("clock.set", errno.EPERM),
    "ptrace": ("monitor.trace", errno.EPERM),
    "process_vm_readv": ("monitor.trace", errno.EPERM),
    "process_vm_writev": ("monitor.trace", errno.EPERM),
    "pidfd_getfd": ("monitor.trace", errno.EPERM),
    "mount": ("privilege.call", errno.EPERM),
    "unshare": ("privilege.call", errno.EPERM),
    "setns": ("privilege.call", errno.EPERM),
    "bpf": ("privilege.call", errno.EPERM),
    "chroot": ("privilege.call", errno.EPERM),
    "keyctl": ("privilege.call", errno.EPERM),
    "io_uring_setup": ("call.refused", errno.EPERM),
    "userfaultfd": ("call.refused", errno.EPERM),
}


def test_what_is_refused_is_seen_by_name_and_answered_as_without_an_observer(box: Sandbox, watched: NamespaceBackend) -> None:
    numbers = {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items()}
    code = CALLS + (
        f"for n in {[numbers[name] for name in REFUSED]}:\n    print(raw(n, 0, 0, 0, 0, 0, 0), ctypes.get_errno())\n"
        f"print(raw({_seccomp.NUMBERS[_linux.MACHINE]['clone']}, 0x10000011, 0, 0, 0, 0), ctypes.get_errno())\n"
    )
    seen = box.exec(code).text
    assert seen == "".join(f"-1 {error}\n" for _, error in REFUSED.values()) + f"-1 {errno.EPERM}\n"
    expected = [(kind, name) for name, (kind, _) in REFUSED.items()] + [("privilege.call", "clone")]
    assert [(e.kind, e.resource) for e in box.events()] == expected
    with watched.create() as plain:
        assert plain.exec(code).text == seen


def test_tampering_with_the_sandboxs_own_process_is_seen(box: Sandbox) -> None:
    code = CALLS + (
        "import os, signal\nfor n in (0, 9, 15):\n    os.kill(1, n)\n"
        "fd = os.pidfd_open(1)\nsignal.pidfd_send_signal(fd, 0)\n"
        "signal.pidfd_send_signal(os.open('/proc/1', os.O_RDONLY), 0)\n"
        "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)\nlibc.prctl(4, 0, 0, 0, 0)\nlibc.prctl(4, 1, 0, 0, 0)"
    )
    result = box.exec(code)
    assert result.ok, result.error_text
    told = [(e.kind, e.data.get("call", ""), e.data.get("signal")) for e in box.events()]
    assert told[:3] == [("monitor.signal", "kill", n) for n in (0, 9, 15)]
    assert told[3:] == [
        ("monitor.signal", "pidfd_open", None),
        ("monitor.signal", "pidfd_send_signal", 0),
        ("monitor.signal", "pidfd_send_signal", 0),
        ("monitor.hide", "", None),
    ]
    assert box.exec("print(1)").text == "1\n"


# files


def test_a_manifest_tells_what_changed_and_only_that(box: Sandbox) -> None:
    box.put("kept", "1")
    box.put("edited", "1")
    box.put("gone", "1")
    box.put("script", "1")
    first = box.manifest()
    assert first == box.tree().manifest()
    assert box.manifest() == first
    assert box.events() == [], "what the host wrote is no event"
    box.exec("echo 2 > edited; rm gone; chmod 755 script; mkdir d; echo 3 > d/new; ln -s /etc/passwd link", "bash")
    after = box.manifest()
    assert after == box.tree().manifest()
    assert {(kind, path) for kind, path, _ in files(box)} == {
        ("file.changed", "edited"),
        ("file.deleted", "gone"),
        ("file.mode", "script"),
        ("file.created", "d/new"),
        ("file.created", "link"),
    }
    (event,) = of(box, "file.changed")
    assert (event.data["before"], event.data["sha256"]) == (first["edited"][0], after["edited"][0])
    assert not event.protected


EDIT_AND_RESTORE = {
    "in place": "cp tests/t.py /tmp/k; echo 'assert True' > tests/t.py; cat /tmp/k > tests/t.py",
    "through another name": "ln tests/t.py other; cp other /tmp/k; echo 'assert True' > other; cat /tmp/k > other; rm other",
    "by moving it": "mv tests/t.py /workspace/k; echo 'assert True' > tests/t.py; mv k tests/t.py",
    "by moving its folder": "mv tests kept; mkdir tests; echo 'assert True' > tests/t.py; rm -r tests; mv kept tests",
    "through a mapping": (
        "python3 -c \"import mmap, os; m = mmap.mmap(os.open('tests/t.py', os.O_RDWR), 0);"
        " m[0:6] = b'return'; m[0:6] = b'assert'\""
    ),
    "cut and filled": (
        "python3 -c \"d = open('tests/t.py').read(); open('tests/t.py', 'w').close(); open('tests/t.py', 'w').write(d)\""
    ),
}


@pytest.mark.parametrize("way", EDIT_AND_RESTORE)
@pytest.mark.parametrize("start", ["fresh", "from a snapshot"])
def test_a_protected_file_that_is_changed_and_put_back_within_a_turn_is_seen(
    way: str, start: str, watched: NamespaceBackend
) -> None:
    with watched.create(SEEN) as first:
        first.put("tests/t.py", "assert 1 == 2\n")
        first.put("other.py", "x = 1\n")
        with first.fork() if start == "from a snapshot" else first as box:
            before = box.manifest()
            assert box.events() == []
            result = box.exec(EDIT_AND_RESTORE[way], "bash")
            assert result.ok, result.error_text
            assert box.manifest() == before
            seen = [e for e in box.events() if e.kind.startswith("file.")]
            assert seen
            assert all(e.protected and e.resource.split("/")[0] == "tests" and e.run == 1 for e in seen)


def test_a_protected_file_that_somebody_keeps_mapped_for_writing_is_seen_without_a_close(box: Sandbox) -> None:
    box.put("tests/t.py", "assert 1 == 2\n")
    session = box.session("python")
    session.run("import mmap, os\nfd = os.open('tests/t.py', os.O_RDWR)\nm = mmap.mmap(fd, 0)\nm[0:1] = b'b'\nm[0:1] = b'a'")
    before = box.manifest()
    assert before == box.tree().manifest()
    assert [(e.kind, e.data) for e in box.events() if e.protected] == [("file.opened", {"mapped": True})]


def test_innocent_work_beside_protected_files_is_no_event(box: Sandbox) -> None:
    box.put("tests/t.py", "assert 1\n")
    box.manifest()
    box.exec("cat tests/t.py; ls -la tests; grep -r assert .; python3 tests/t.py; mkdir out; echo 1 > out/x; rm -r out", "bash")
    box.manifest()
    assert [e for e in box.events() if e.kind.startswith("file.")] == []


def test_new_protected_files_and_what_becomes_of_them_are_seen(box: Sandbox) -> None:
    box.exec("mkdir -p tests/deep; sleep .2; echo 1 > tests/deep/conftest.py; sleep .2; rm -r tests; touch a.lock", "bash")
    told = files(box)
    assert ("file.created", "tests/deep/conftest.py", "watch") in told
    assert ("file.deleted", "tests/deep/conftest.py", "watch") in told
    assert ("file.created", "a.lock", "watch") in told


@pytest.mark.parametrize("start", ["fresh", "from a snapshot"])
def test_content_that_changes_behind_unchanged_times_is_found(start: str, watched: NamespaceBackend) -> None:
    """The times of content are the code's to set, and a page that was written once is written again without a trace."""
    with watched.create(SEEN) as first:
        first.put("f", "a" * 8192)
        first.put("g", "a" * 8192)
        with first.fork() if start == "from a snapshot" else first as box:
            session = box.session("python")
            session.run("import mmap, os, time\nm = mmap.mmap(os.open('f', os.O_RDWR), 0)\nm[0:1] = b'b'\ntime.sleep(.2)")
            box.manifest()
            status = session.run("before = os.stat('f')\nm[0:1] = b'c'\nprint(before == os.stat('f'))")
            assert status.text == "True\n", "the kernel takes note of it: this test tests nothing"
            session.run("s = os.stat('g')\nopen('g', 'r+').write('z')\nos.utime('g', ns=(s.st_atime_ns, s.st_mtime_ns))")
            box.manifest()
            assert [e.resource for e in of(box, "file.changed")].count("f") == 2
            assert [e.resource for e in of(box, "file.changed")].count("g") == 1
            assert box.manifest() == box.tree().manifest()


def test_files_that_did_not_change_are_not_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for n in range(20):
        (tmp_path / f"f{n}").write_text(str(n))
    told: list[tuple[Any, ...]] = []
    watch = _watch.Watch(os.open(tmp_path, os.O_RDONLY), os.open("/dev", os.O_RDONLY), 0, (), lambda *e: told.append(e))
    read: list[bytes] = []
    real = watch._hash
    monkeypatch.setattr(watch, "_hash", lambda at, name: read.append(name) or real(at, name))

    def manifest() -> list[bytes]:
        read.clear()
        list(watch.manifest(1000, 1 << 20))
        return sorted(read)

    for n in range(20):  # old enough that its times can be believed
        os.utime(tmp_path / f"f{n}", (0, 0))
    time.sleep(0.1)
    assert len(manifest()) == 20
    assert manifest() == []
    (tmp_path / "f3").write_text("x")
    assert manifest() == [b"f3"]
    assert manifest() == [b"f3"], "it changed too shortly before it was read"
    monkeypatch.setattr(watch, "_mapped", lambda: None)
    manifest()
    assert len(manifest()) == 20, "nothing is believed while somebody has a file mapped"
    watch.close()


@given(
    st.lists(st.sampled_from(["tests/**", "*.lock", "a?c", "src", "**/conftest.py", "d*/x"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["tests", "a.lock", "abc", "src", "conftest.py", "dd", "x", "+("]), min_size=1, max_size=4),
)
def test_patterns_name_what_they_say(patterns: list[str], parts: list[str]) -> None:
    path = "/".join(parts)
    expected = False
    for p in patterns:
        expected |= {
            "tests/**": parts[0] == "tests" and len(parts) > 1,
            "*.lock": parts[0] == "a.lock",
            "a?c": parts[0] == "abc",
            "src": parts[0] == "src",
            "**/conftest.py": "conftest.py" in parts,
            "d*/x": parts[:2] == ["dd", "x"],
        }[p]
    assert bool(_watch.pattern(patterns).fullmatch(path.encode())) == expected


# how it is told


def test_events_are_numbered_timed_attributed_and_forgotten_when_dealt_with(box: Sandbox) -> None:
    box.exec("true; /bin/true", "bash")
    box.exec("/bin/true", "bash")
    events = box.events()
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.run for e in events] == [1, 1, 2] or [e.run for e in events] == [1, 1, 2, 2]
    assert [e.time_s for e in events] == sorted(e.time_s for e in events)
    assert 0 < events[0].time_s < 60
    assert box.events(since=events[1].seq) == events[2:]
    assert box.events() == events[2:]
    box.close()
    assert box.events() == events[2:]
    recorded = events[0].as_event(turn=3)
    assert isinstance(recorded, Event)
    assert (recorded.turn, recorded.kind, recorded.source, recorded.resource) == (3, "process.exec", "observer", SHELL)
    assert recorded.data["seq"] == 1
    assert recorded.data["run"] == 1


def test_the_numbering_goes_on_over_a_restore(box: Sandbox) -> None:
    box.exec("/bin/true", "bash")
    with_snapshot = box.snapshot()
    box.restore(with_snapshot)
    box.exec("/bin/true", "bash")
    events = box.events()
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert {e.run for e in events} == {1, 2}
    with_snapshot.close()


def test_events_that_nobody_asked_for_are_refused_not_made_up(watched: NamespaceBackend) -> None:
    with watched.create() as plain:
        with pytest.raises(UsageError, match="events=True"):
            plain.events()
        plain.put("f", "1")
        assert plain.manifest() == plain.tree().manifest()
    with pytest.raises(UsageError, match="events=True"):
        SandboxSpec(protected=("tests/**",))
    for wrong in ("/etc", "../x", ""):
        with pytest.raises(UsageError, match="relative to the workspace"):
            SandboxSpec(events=True, protected=(wrong,))
    with open_backend("unsafe_local", unsafe=True) as unsafe:
        assert unsafe.capabilities().events == ()
        with pytest.raises(UsageError, match="events"):
            unsafe.create(SandboxSpec(events=True))


def test_a_machine_where_nothing_can_be_observed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with NamespaceBackend(packages=()) as backend:
        real = backend.launcher().ask

        def ask(request: dict[str, Any], fds: Any = ()) -> dict[str, Any]:
            if request.get("spec", {}).get("observed"):
                from agentgym.sandbox.namespace import LauncherError

                raise LauncherError("seccomp with a listener: Invalid argument")
            return real(request, fds)

        monkeypatch.setattr(backend.launcher(), "ask", ask)
        assert backend.capabilities().events == ()
        with pytest.raises(UsageError, match="seccomp with a listener: Invalid argument"):
            backend.create(SandboxSpec(events=True))
        assert backend.create().exec("print(1)").text == "1\n"


def test_every_family_is_observed_here(watched: NamespaceBackend) -> None:
    assert watched.capabilities().events == ("clock", "file", "monitor", "network", "privilege", "process")


# against the observer


def test_a_flood_is_bounded_its_gap_is_visible_and_it_hides_nothing_else(box: Sandbox) -> None:
    number = {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items()}[
        "sysfs" if _linux.MACHINE == "x86_64" else "syslog"
    ]
    code = CALLS + (
        f"for n in range(5000):\n    raw({number}, 0, 0, 0)\n"
        "import os, socket\nos.kill(1, 0)\ntry: socket.socket().connect(('192.0.2.1', 80))\nexcept OSError: pass"
    )
    assert box.exec(code, timeout_s=60).ok
    events = box.events()
    assert len(events) < 2 * _observer.KEPT + 100
    assert {"monitor.signal", "network.connect"} <= {e.kind for e in events}
    (gap,) = [e for e in events if e.kind == "events.dropped"]
    assert sum(gap.data.values()) + len(events) == gap.seq == 5003
    assert box.exec("print(1)").text == "1\n"


def test_an_argv_bomb_and_wild_pointers_are_cut_short(box: Sandbox) -> None:
    execve = _seccomp.NUMBERS[_linux.MACHINE]["execve"]
    connect, sendmsg = (_seccomp.NUMBERS[_linux.MACHINE][n] for n in ("connect", "sendmsg"))
    code = CALLS + (
        "import os, subprocess\n"
        "subprocess.run(['/bin/true', *['x' * 100_000] * 12])\n"
        f"for p in (0, 1, 8, -1, -4096, 1 << 47, 1 << 63, id(raw) & ~7):\n"
        f"    raw({execve}, ctypes.c_long(p), ctypes.c_long(p), 0)\n"
        f"    raw({connect}, 0, ctypes.c_long(p), 1 << 40)\n    raw({sendmsg}, 0, ctypes.c_long(p), 0)\n"
        "words = (ctypes.c_char_p * 1)(b'/bin/none')\n"
        f"raw({execve}, b'/bin/none', ctypes.byref(words), 0)\n"
    )
    result = box.exec(code)
    assert result.ok, result.error_text
    first = of(box, "process.exec")[0]
    assert first.resource == "/bin/true"
    assert first.data["cut"] is True
    assert all(len(w) <= _notify.WORD_BYTES for w in first.data["argv"])
    assert sum(e.data.get("unreadable", False) for e in of(box, "process.exec")) >= 5
    assert box.exec("print(1)").text == "1\n"


def test_memory_that_changes_while_it_is_read_changes_only_what_is_said(box: Sandbox) -> None:
    """Another thread forges the address meanwhile: it may pass for a local one, but it reaches nothing, and nobody is misled
    about where it would have gone."""
    connect = _seccomp.NUMBERS[_linux.MACHINE]["connect"]
    code = CALLS + (
        "import socket, threading\ns = socket.socket(type=socket.SOCK_DGRAM)\n"
        "unix = b'\\1\\0' + bytes(14)\ninet = b'\\2\\0\\0\\x50\\xc0\\0\\2\\1' + bytes(8)\n"
        "b = ctypes.create_string_buffer(inet, 16)\nstop = False\n"
        "def flip():\n    while not stop:\n        b[0] = b'\\1'\n        b[0] = b'\\2'\n"
        "t = threading.Thread(target=flip)\nt.start()\nfor _ in range(200):\n"
        f"    if raw({connect}, s.fileno(), b, 16) == 0: print('ESCAPED')\nstop = True\nt.join()\n"
    )
    result = box.exec(code)
    assert result.ok
    assert "ESCAPED" not in result.text
    assert all(e.resource == "192.0.2.1:80" for e in of(box, "network."))


def test_processes_that_die_between_question_and_answer_and_forks_without_end_do_no_harm(box: Sandbox) -> None:
    code = (
        "import os, signal, time\nend = time.time() + 1.5\nwhile time.time() < end:\n    pids = []\n    for _ in range(8):\n"
        "        pid = os.fork()\n        if pid == 0:\n            os.execv('/bin/true', ['true'])\n        pids.append(pid)\n"
        "    for pid in pids:\n        os.kill(pid, signal.SIGKILL)\n        os.waitpid(pid, 0)\n"
    )
    assert box.exec(code, timeout_s=60).ok
    box.exec("f() { /bin/true & f & f; }; f", "bash", timeout_s=1)
    assert box.exec("print(1)").text == "1\n"
    assert of(box, "process.exec")


def test_a_timer_cannot_make_a_call_unseen_or_seen_for_ever(box: Sandbox) -> None:
    connect = _seccomp.NUMBERS[_linux.MACHINE]["connect"]
    code = CALLS + (
        "import signal, socket\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, .0002, .0002)\ns = socket.socket(type=socket.SOCK_DGRAM)\nmade = 0\n"
        "for _ in range(100):\n"
        f"    raw({connect}, s.fileno(), b'\\2\\0\\0\\x50\\xc0\\0\\2\\1' + bytes(8), 16)\n"
        "    made += ctypes.get_errno() == 101\n"  # no network: the kernel looked; otherwise it was interrupted before
        "signal.setitimer(signal.ITIMER_REAL, 0)\nprint(made)"
    )
    made = int(box.exec(code).text)
    assert made > 10
    assert made <= len(of(box, "network.connect")) <= 100


SECOND_LISTENER = (
    CALLS
    + """
import struct, os
def fprog(rules):
    data = b''.join(struct.pack('=HBBI', *r) for r in rules)
    buffer = ctypes.create_string_buffer(data, len(data))
    made = ctypes.create_string_buffer(struct.pack('=HxxxxxxQ', len(rules), ctypes.addressof(buffer)), 16)
    made.keep = buffer
    return made
SECCOMP, TARGET = {seccomp}, {target}
libc.prctl(38, 1, 0, 0, 0)
take = fprog([(0x20, 0, 0, 0), (0x15, 0, 1, TARGET), (6, 0, 0, 0x7FC00000), (6, 0, 0, 0x7FFF0000)])
fd = raw(SECCOMP, 1, 8, take)
print('listener', fd, ctypes.get_errno())
if fd >= 0:
    if os.fork() == 0:
        import fcntl
        b = bytearray(80)
        fcntl.ioctl(fd, 0xC0502100, b)
        fcntl.ioctl(fd, 0xC0182101, b[:8] + struct.pack('<qiI', 0, 0, 1))
        os._exit(0)
    if raw(TARGET, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (1, 38): print('ESCAPED')
plain = fprog([(0x20, 0, 0, 0), (0x15, 0, 1, {harmless}), (6, 0, 0, 0x50000 | 77), (6, 0, 0, 0x7FFF0000)])
print('plain', raw(SECCOMP, 1, 0, plain), raw({harmless}, 0), ctypes.get_errno())
"""
)


def second_listener() -> str:
    allowed, refused = _seccomp.NUMBERS[_linux.MACHINE], {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items()}
    text = SECOND_LISTENER
    for name, n in (("seccomp", allowed["seccomp"]), ("target", refused["ptrace"]), ("harmless", allowed["getppid"])):
        text = text.replace("{" + name + "}", str(n))
    return text


def test_code_cannot_take_over_the_notifications_but_may_have_filters_of_its_own(box: Sandbox) -> None:
    result = box.exec(second_listener())
    assert result.text == f"listener -1 {errno.EBUSY}\nplain 0 -1 77\n", result.error_text
    assert [e.kind for e in box.events()] == ["monitor.filter"]


def test_the_listener_cannot_be_found_stolen_or_used_up(box: Sandbox) -> None:
    getfd = {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items()}["pidfd_getfd"]
    code = CALLS + (
        "import os\nprint([n for n in range(256) if os.path.lexists(f'/proc/self/fd/{n}')"
        " and 'seccomp' in os.readlink(f'/proc/self/fd/{n}')])\n"
        "try: print(os.listdir('/proc/1/fd'))\nexcept OSError as e: print(e.errno)\n"
        f"print([n for n in range(64) if raw({getfd}, os.pidfd_open(1), n, 0) >= 0])\n"
        "held = []\ntry:\n    while True: held.append(os.open('/dev/null', 0))\nexcept OSError as e: print(e.errno)\n"
        "for fd in range(3, 300):\n    try: os.close(fd)\n    except OSError: pass\n"
        "print(end='', flush=True)\ntry: os.execv('/bin/echo', ['echo', 'still seen'])\nexcept OSError as e: print(e)"
    )
    result = box.exec(code)
    assert result.text == f"[]\n{errno.EACCES}\n[]\n{errno.EMFILE}\nstill seen\n", result.text + result.error_text
    assert of(box, "process.exec")[-1].data["argv"] == ["echo", "still seen"]


def test_other_entries_to_the_kernel_stay_shut(box: Sandbox) -> None:
    if _linux.MACHINE != "x86_64":
        return  # it has none
    code = CALLS + (
        "import mmap, os\nprint(raw((1 << 30) + 101, 0, 0, 0, 0), ctypes.get_errno())\n"
        "print(raw((1 << 30) + 520, 0, 0, 0), ctypes.get_errno())\npid = os.fork()\nif pid == 0:\n"
        "    m = mmap.mmap(-1, 4096, prot=7)\n    m.write(bytes([0xB8, 11, 0, 0, 0, 0xCD, 0x80, 0xC3]))\n"
        "    ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    result = box.exec(code)
    assert result.text == f"-1 {errno.ENOSYS}\n-1 {errno.ENOSYS}\n{-signal.SIGSYS}\n", result.error_text
    assert [(e.kind, e.resource) for e in box.events()] == [("call.refused", "x32 call 101"), ("call.refused", "x32 call 520")]


def test_children_made_in_every_way_are_seen(box: Sandbox) -> None:
    clone = _seccomp.NUMBERS[_linux.MACHINE]["clone"]
    code = CALLS + (
        "import os, subprocess\nos.wait4(os.posix_spawn('/bin/true', ['spawned'], {}), 0)\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: os.execv('/bin/true', ['orphan'])\n"
        "    os._exit(0)\nos.wait()\n"
        f"if raw({clone}, 17 | 0x8000, 0, 0, 0, 0) == 0: os.execv('/bin/true', ['parented'])\n"
        "import time; time.sleep(.3)"
    )
    result = box.exec(code)
    assert {e.data["argv"][0] for e in of(box, "process.exec")} == {"spawned", "orphan", "parented"}, result.error_text


def test_when_the_observer_dies_nothing_more_is_allowed_and_the_sandbox_is_reported_dead() -> None:
    with NamespaceBackend(packages=()) as backend:
        box = backend.create(SEEN)
        box.exec("/bin/true", "bash")
        session = box.session("python")
        session.run("import subprocess, time")
        observer = observer_of(backend)
        plain = backend.create()
        os.kill(observer, signal.SIGKILL)
        with pytest.raises(SandboxDeadError) as caught:
            session.run("for _ in range(100):\n    subprocess.run(['/bin/true'])\n    time.sleep(.1)")
        assert isinstance(caught.value, InfrastructureError)
        assert "observer" in str(caught.value)
        with pytest.raises(SandboxDeadError):
            box.check()
        assert plain.exec("print(1)").text == "1\n", "whoever is not observed lives on"
        with backend.create(SEEN) as fresh:
            fresh.exec("/bin/true", "bash")
            assert of(fresh, "process.exec")
        box.close()


def test_when_the_observer_dies_idle_sandboxes_are_ended_though_nobody_asks() -> None:
    with NamespaceBackend(packages=()) as backend, backend.create(SEEN) as box, backend.create() as plain:
        pids = [b._box.pid for b in (box, plain)]  # type: ignore[union-attr]
        os.kill(observer_of(backend), signal.SIGKILL)

        def running(pid: int) -> bool:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] != "Z"

        for _ in range(100):
            if not running(pids[0]):
                break
            time.sleep(0.05)
        assert [running(pid) for pid in pids] == [False, True]


def test_without_an_observer_the_kernel_refuses_by_itself(watched: NamespaceBackend) -> None:
    """Let go on purpose, as if it had died and the sandbox had not been ended yet: no second listener, no refused call."""
    with watched.create(SEEN) as box:
        session = box.session("python")
        feed = box._box.feed  # type: ignore[union-attr]
        assert feed is not None
        feed.close()
        time.sleep(0.2)
        result = session.run(second_listener())
        assert f"listener -1 {errno.ENOSYS}\n" in result.text, result.text + result.error_text
        assert "ESCAPED" not in result.text
        names = {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items()}
        code = CALLS + f"print([raw({names['ptrace']}, 0, 0, 0), raw({names['unshare']}, 0x10000000)], ctypes.get_errno())"
        assert session.run(code).text == f"[-1, -1] {errno.ENOSYS}\n"
        assert "Function not implemented" in session.run("import os\nos.execv('/bin/true', ['true'])").error_text


def test_nothing_is_left_of_observed_sandboxes() -> None:
    with NamespaceBackend(packages=()) as backend:
        with backend.create(SEEN) as box:  # two at once, as below: control groups are kept for the next ones
            box.fork().close()
        launcher = backend.launcher().process.pid
        observer = observer_of(backend)

        def left() -> dict[str, int]:
            held = len(os.listdir(f"/proc/{observer}/fd")) if os.getuid() == 0 else 0
            return {**footprint([launcher]), "descriptors of the observer": held}

        def settled(wanted: dict[str, int] | None) -> dict[str, int]:
            """The kernel and the observer take things apart in their own time."""
            now = left()
            for _ in range(50):
                time.sleep(0.1)
                before, now = now, left()
                if now == (before if wanted is None else wanted):
                    break
            return now

        first = settled(None)
        for n in range(20):
            with backend.create(SEEN) as box:
                box.put("tests/t.py", "1")
                box.exec("(setsid sleep 300 &); echo 2 > tests/t.py", "bash")
                box.manifest()
                if n % 10 == 0:
                    box.fork().close()
        assert settled(first) == first
    assert not os.path.exists(f"/proc/{observer}")


def test_a_plain_backend_has_no_observer_running() -> None:
    with NamespaceBackend(packages=()) as backend, backend.create() as box:
        box.exec("print(1)")
        with pytest.raises(AssertionError):
            observer_of(backend)


@pytest.mark.slow
def test_a_plain_users_sandboxes_are_observed_too(as_plain_user: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    if os.environ.get("AGENTGYM_TEST_AS_PLAIN_USER"):
        return  # this is that run
    run = as_plain_user(
        "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/sandbox/test_events.py", timeout_s=280
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


# the filter, by interpreting it


@settings(max_examples=300)
@given(st.integers(0, 520), st.sampled_from(sorted(MACHINES)), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_what_an_observer_lets_go_on_is_allowed_without_one_too(number: int, machine: str, arguments: list[int]) -> None:
    """So that nothing hangs on what it reads: the same call, with whatever arguments, passes the filter of a plain sandbox."""
    audit = MACHINES[machine]
    plain = verdict(_seccomp.program(machine, accounted=True), number, tuple(arguments), audit)
    observed = verdict(_seccomp.program(machine, accounted=True, observed=True), number, tuple(arguments), audit)
    names = {n: name for name, n in _seccomp.NUMBERS[machine].items()}
    if observed == NOTIFY:
        assert names.get(number) not in _seccomp.CONTINUED or plain == ALLOW
    else:
        assert observed == plain


@pytest.mark.parametrize("machine", MACHINES)
def test_the_observed_filter_asks_about_what_it_should(machine: str) -> None:
    program, numbers, audit = (
        _seccomp.program(machine, accounted=True, observed=True),
        _seccomp.NUMBERS[machine],
        MACHINES[machine],
    )

    def asks(name: str, *arguments: int) -> bool:
        answer = verdict(program, numbers[name], arguments, audit)
        assert answer in (ALLOW, NOTIFY)
        return answer == NOTIFY

    for name in ("execve", "execveat", "connect", "bind", "sendmsg", "sendmmsg", "pidfd_send_signal"):
        assert asks(name)
        assert name in _seccomp.CONTINUED
    assert [asks("sendto", 3, 1, 1, 0, a) for a in (0, 1, 1 << 32, 1 << 47)] == [False, True, True, True]
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_open"):
        assert [asks(name, p) for p in (1, 2, 0, 0xFFFFFFFF)] == [True, False, False, False]
    assert [asks("prctl", 4, a) for a in (0, 1)] + [asks("prctl", 15, 0)] == [True, False, False]
    assert [asks("seccomp", 1, flags) for flags in (0, 1, 8, 9)] == [False, False, True, True]
    assert [asks("socket", f) for f in (1, 2, 10, 16, 40)] == [False, False, False, True, True]
    assert [asks("clone", f) for f in (17, 0x10000011)] == [False, True]
    for number in _seccomp.REFUSED[machine]:
        assert verdict(program, number, (), audit) == NOTIFY
    assert verdict(program, 20, (), 0x40000003) == 0x80000000, "32-bit calls kill"


@given(st.integers(0, 2**32 - 1))
def test_only_the_list_goes_on(number: int) -> None:
    allowed = {_seccomp.NUMBERS[_linux.MACHINE].get(name) for name in _seccomp.CONTINUED}
    assert (_notify.answer(number) == 0) == (number in allowed)
    assert _notify.answer(number) in (0, errno.EPERM, errno.EBUSY, errno.ENOSYS, errno.EAFNOSUPPORT)


@given(st.binary(max_size=64))
def test_any_bytes_are_some_address_or_none(data: bytes) -> None:
    family, text = _notify.parse_address(data)
    assert (family == "") == (text == "")


def test_refused_names_have_this_machines_numbers() -> None:
    """Against the kernel's own header, where it is installed."""
    for place in (f"/usr/include/{_linux.MACHINE}-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if os.path.exists(place):
            with open(place) as f:
                words = [line.split() for line in f if line.startswith("#define __NR_")]
            known = {w[1][5:]: int(w[2]) for w in words}
            wrong = {name: n for n, name in _seccomp.REFUSED[_linux.MACHINE].items() if known.get(name, n) != n}
            assert wrong == {}
            return
