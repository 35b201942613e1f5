# SPDX-License-Identifier: Apache-2.0
"""The backend over bubblewrap beyond what all backends promise: its traps, its fallback, what it says where it cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentgym.sandbox import _ORDER, open_backend
from agentgym.sandbox.bwrap import BwrapBackend
from agentgym.sandbox.protocol import SandboxUnavailableError
from tests.sandbox.footprint import OURS, groups_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def opened(bubblewrap: str) -> Iterator[BwrapBackend]:
    with BwrapBackend(packages=()) as backend:
        yield backend


def test_it_is_tried_after_the_built_in_one_and_before_containers() -> None:
    assert _ORDER == ("namespace", "bwrap", "docker")


def test_without_bubblewrap_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SandboxUnavailableError, match="install the package bubblewrap"):
        BwrapBackend().capabilities()


def test_another_system_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(SandboxUnavailableError, match=f"needs Linux, and this is {system}: use a container engine"):
            BwrapBackend().capabilities()


def test_a_program_that_is_not_bubblewrap_is_told_as_its_own_words(bubblewrap: str, tmp_path: Path) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho 'bwrap: Unknown option --disable-userns' >&2\nexit 1\n")
    old.chmod(0o755)
    tmp_path.chmod(0o755)
    with pytest.raises(SandboxUnavailableError, match=r"bubblewrap cannot work here.*it needs version 0\.8 or newer"):
        BwrapBackend(packages=(), program=str(old)).capabilities()


def test_every_sandbox_of_root_has_a_user_of_its_own_and_no_other_rights(opened: BwrapBackend) -> None:
    with opened.create() as one, opened.create() as two:
        owners = {os.stat(f"/proc/{box._box.pid}").st_uid for box in (one, two)}  # type: ignore[union-attr]
        if os.getuid() == 0:
            assert opened.capabilities().own_user
            assert len(owners) == 2
            assert min(owners) >= OURS
        status = one.exec("cat /proc/self/status", "bash").text
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status


def test_the_end_of_the_thread_that_made_it_does_not_end_a_sandbox(opened: BwrapBackend) -> None:
    made = []
    thread = threading.Thread(target=lambda: made.append(opened.create()))
    thread.start()
    thread.join()
    with made[0] as box:
        assert box.exec("print(1)").text == "1\n"


def test_a_fork_of_the_host_has_groups_and_users_of_its_own_and_cannot_end_its_parents(opened: BwrapBackend) -> None:
    with opened.create() as box:
        owner = os.stat(f"/proc/{box._box.pid}").st_uid  # type: ignore[union-attr]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                box.close()
                with opened.create() as other:
                    uid = os.stat(f"/proc/{other._box.pid}").st_uid  # type: ignore[union-attr]
                    os.write(write, f"{other.exec('print(2)').text.strip()} {uid}".encode())
                opened.close()
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        answer, uid = os.read(read, 100).split()
        os.close(read)
        assert answer == b"2"
        assert os.getuid() != 0 or int(uid) != owner
        assert groups_of(pid) == []
        assert box.exec("print(1)").text == "1\n"
    with opened.create() as after:
        assert after.exec("print(3)").text == "3\n"


def test_a_start_that_is_given_up_leaves_no_process(bubblewrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with BwrapBackend(packages=()) as backend:
        backend.create().close()
        before = children()
        monkeypatch.setattr("agentgym.sandbox.bwrap.await_guest", interrupted)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                backend.create()
        assert children() == before


def children() -> list[str]:
    me = os.getpid()
    return Path(f"/proc/{me}/task/{me}/children").read_text().split()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_host_that_is_killed_takes_its_sandboxes_with_it(bubblewrap: str) -> None:
    code = (
        "import os, time\nfrom agentgym.sandbox.bwrap import BwrapBackend\nbox = BwrapBackend(packages=()).create()\n"
        "box.session('bash').run('sleep 300 &')\n"
        "print(os.getpid(), box._box.pid, box._box._process.pid, flush=True)\ntime.sleep(300)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as host:
        assert host.stdout is not None
        me, *pids = [int(x) for x in host.stdout.readline().split()]
        assert all(os.path.exists(f"/proc/{p}") for p in pids)
        host.kill()
    for _ in range(200):
        if not any(os.path.exists(f"/proc/{p}") for p in pids):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("processes outlive their host")
    with BwrapBackend(packages=()) as next_one:
        next_one.create().close()
        assert groups_of(me) == [], "the next one sweeps up after a killed one"


def test_where_only_bubblewrap_may_make_namespaces_its_own_means_are_used(
    bubblewrap: str, as_plain_user: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As under Ubuntu's profile for bubblewrap: this interpreter really may not make a mount namespace."""
    code = (
        "import struct\n"
        "from agentgym.sandbox import _linux, open_backend\n"
        "from agentgym.sandbox.protocol import Limits, SandboxSpec\n"
        "unshare = 272 if _linux.MACHINE == 'x86_64' else 97\n"
        "rules = [(0x20, 0, 0, 0), (0x15, 0, 3, unshare), (0x20, 0, 0, 16), (0x45, 0, 1, 0x20000), (6, 0, 0, 0x50001),\n"
        "         (6, 0, 0, 0x7FFF0000)]\n"
        "_linux.prctl(38, 1, 0, 0, 0)\n"
        "_linux.install_filter(_linux.prepare_filter(b''.join(struct.pack('=HBBI', *r) for r in rules)))\n"
        "with open_backend('auto', packages=()) as backend:\n"
        "    can = backend.capabilities()\n"
        "    print(can.backend, can.inodes, can.disk_backed)\n"
        "    with backend.create(SandboxSpec(limits=Limits(disk=8 << 20, inodes=500))) as box:\n"
        "        print(box.exec('print(6 * 7)').text.strip(), box.session('bash').run('echo turn').text.strip())\n"
        "        box.exec('for f in /workspace/f /tmp/f /dev/shm/f; do dd if=/dev/zero of=$f bs=1M count=50; done', 'bash')\n"
        "        print(box.exec('cat /workspace/f /tmp/f /dev/shm/f | wc -c', 'bash').text.strip())\n"
        "    with backend.create(SandboxSpec(limits=Limits(inodes=500))) as box:\n"
        '        flood = \'n = 0\\nwhile True:\\n    open(f"f{n}", "w").close(); n += 1\'\n'
        "        result = box.exec(flood, timeout_s=20)\n"
        "        print(result.status, len(box.tree(most_files=200_000).entries))\n"
    )
    run = as_plain_user("-c", code)
    lines = run.stdout.splitlines()
    assert lines[:2] == ["bwrap watched False", "42 turn"], run.stderr[-2000:]
    assert 4 << 20 < int(lines[2]) <= 8 << 20
    status, count = lines[3].split()
    assert status == "killed"
    assert int(count) < 50_000, "ended some milliseconds after it went over its number"


def test_what_the_host_has_installed_is_not_shown(opened: BwrapBackend) -> None:
    with opened.create() as box:
        for name in ("agentgym", "msgspec", "pytest", "numpy"):
            assert "ModuleNotFoundError" in box.exec(f"import {name}").error_text
    with open_backend("bwrap") as backend, backend.create() as box:
        assert box.exec("import numpy; print(numpy.arange(3).sum())").text == "3\n"
