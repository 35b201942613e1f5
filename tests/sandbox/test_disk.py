# SPDX-License-Identifier: Apache-2.0
"""Workspaces larger than memory: on disk, bounded in bytes and inodes, gone without a trace; refused where that cannot be."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentgym.errors import UsageError
from agentgym.sandbox import _disk, _guest, open_backend
from agentgym.sandbox._client import KeptSnapshot, tree_of
from agentgym.sandbox.protocol import Backend, Limits, SandboxError, SandboxSpec
from tests.sandbox.conftest import NEEDS

ROOT = Path(__file__).resolve().parents[2]
LARGE = SandboxSpec(limits=Limits(memory=64 << 20, disk=256 << 20, inodes=300, address_space=4 << 30, wall_s=60))


def loop_devices() -> set[str]:
    return set(glob.glob("/sys/block/loop*/loop/backing_file"))


def left(before: set[str]) -> set[str]:
    """Devices that are there to stay; the kernel lets go in its own time, and other tests' backends try theirs meanwhile."""
    for _ in range(200):
        if not (more := loop_devices() - before):
            break
        time.sleep(0.05)
    return more


@pytest.fixture(params=["namespace", "bwrap"])
def backend(request: pytest.FixtureRequest, alone: None) -> Iterator[Backend]:
    if request.param in NEEDS:
        request.getfixturevalue(NEEDS[request.param])
    with open_backend(request.param, packages=()) as opened:
        if os.getuid() == 0:
            assert opened.capabilities().disk_backed, _disk.why_not() or "it says that it cannot"
        yield opened


def test_files_larger_than_memory_lie_on_disk_and_are_bounded(backend: Backend) -> None:
    if not backend.capabilities().disk_backed:
        with pytest.raises(UsageError, match="keeps files in memory here: raise `memory`, lower `disk`, or use"):
            backend.create(LARGE)
        return
    before = loop_devices()
    with backend.create(LARGE) as box:
        places = "/workspace/f /tmp/f /dev/shm/f"
        code = (
            f"for f in {places}; do dd if=/dev/zero of=$f bs=1M count=150 2>/dev/null; done; cat {places} | wc -c; rm {places}"
        )
        assert 240 << 20 < int(box.exec(code, "bash").text) <= 256 << 20
        box.exec("rm -f f /tmp/f /dev/shm/f", "bash")
        code = "for i in $(seq 400); do : > f$i || break; done 2>/dev/null; ls | wc -l; rm f*"
        assert box.exec(code, "bash").text == "300\n", "so many inodes and not one more"
        assert box.exec("ls -A / /workspace /tmp /dev/shm | grep -c lost", "bash").text == "0\n"
        assert "nosuid,nodev" in box.exec("grep ' /workspace ' /proc/self/mountinfo", "bash").text
        assert loop_devices() - before
    assert not left(before)


def test_a_large_workspace_can_be_forked_restored_and_copied_out(backend: Backend, tmp_path: Path) -> None:
    if not backend.capabilities().disk_backed:
        return  # refused, see above
    before = loop_devices()
    with backend.create(LARGE) as box:
        code = "mkdir d; head -c 90000000 /dev/urandom > d/big; chmod 400 d/big; echo x > small; sha256sum < d/big"
        word = box.exec(code, "bash").text
        snapshot = box.snapshot()
        assert snapshot._file is not None, "what is large is not held in memory"  # type: ignore[attr-defined]
        with box.fork(snapshot) as twin:
            assert twin.exec("sha256sum < d/big; stat -c %a d/big", "bash").text == word + "400\n"
            twin.exec("rm -rf d; echo y > small", "bash")
        box.exec("rm -rf d small", "bash")
        box.restore(snapshot)
        assert box.exec("sha256sum < d/big; cat small", "bash").text == word + "x\n"
        box.copy_out(tmp_path / "out", most_bytes=100 << 20)
        assert (tmp_path / "out/d/big").stat().st_size == 90_000_000
        snapshot.close()
    assert not left(before)


def test_a_host_that_is_killed_leaves_no_device_and_no_file(backend: Backend) -> None:
    if not backend.capabilities().disk_backed:
        return
    before = loop_devices()
    code = (
        "import time\nfrom agentgym.sandbox import open_backend\nfrom tests.sandbox.test_disk import LARGE\n"
        f"box = open_backend({backend.name!r}, packages=()).create(LARGE)\n"
        "box.session('bash').run('head -c 100000000 /dev/zero > f; sleep 300 &')\nprint('up', flush=True)\ntime.sleep(300)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        assert loop_devices() - before
        host.send_signal(signal.SIGKILL)
    assert not left(before), "a loop device outlives its host"


def test_what_does_not_fit_on_the_machines_disk_is_refused_at_once() -> None:
    with pytest.raises(SandboxError, match="does not fit on the disk"):
        _disk.make(1 << 60, 10)


def test_a_container_keeps_files_in_memory_and_says_so(engine: str) -> None:
    with open_backend("docker") as backend:
        assert not backend.capabilities().disk_backed
        with pytest.raises(UsageError, match="above the memory limit"):
            backend.create(LARGE)


def test_a_plain_user_is_told_who_can_have_it(as_plain_user: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "from agentgym.sandbox import _disk, open_backend\nfrom tests.sandbox.test_disk import LARGE\n"
        "print(_disk.why_not())\n"
        "try:\n    open_backend('namespace', packages=()).create(LARGE)\nexcept Exception as e:\n    print(type(e).__name__, e)"
    )
    run = as_plain_user("-c", code)
    assert "only root can make a file system of a fixed size on disk" in run.stdout, run.stderr
    assert "UsageError a disk limit of 268435456 bytes is above the memory limit of 67108864" in run.stdout
    assert "use the backend 'namespace' as root" in run.stdout


def test_a_file_longer_than_a_piece_travels_in_pieces_and_arrives_whole(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    sizes = {"a": 0, "b": 1, "c": _guest.PIECE, "d": _guest.PIECE + 1, "e": 3 * _guest.PIECE - 1}
    for name, size in sizes.items():
        (one / name).write_bytes(os.urandom(size))
        (one / name).chmod(0o400)
    frames = [([tuple(entry)], content) for entry, content in _guest.walk(str(one), 100, 1 << 30, 10)]
    assert max(len(content) for _, content in frames) == _guest.PIECE
    snapshot = KeptSnapshot(frames)  # type: ignore[arg-type]
    for entries, data in snapshot.frames:
        _guest.unpack(str(two), [list(e) for e in entries], memoryview(data))
    for name in sizes:
        assert (two / name).read_bytes() == (one / name).read_bytes()
        assert (two / name).stat().st_mode & 0o777 == 0o400
    assert {n: len(c) for n, c in tree_of(snapshot.frames).files.items()} == sizes


def test_a_piece_that_belongs_to_no_file_is_refused() -> None:
    tree = tree_of([([("a", "+", 0o644, 1), ("b", "f", 0o644, 1), ("a", "+", 0o644, 1), ("l", "l", 0o777, 1)], b"1234")])
    assert tree.files == {"b": b"2"}
    assert [path for path, _ in tree.refused] == ["a", "a"]


def test_a_file_larger_than_a_frame_does_not_cost_the_sandbox_its_life(alone: None) -> None:
    with open_backend("namespace", packages=()) as backend:
        limits = Limits(memory=512 << 20, disk=200 << 20)
        with backend.create(SandboxSpec(limits=limits)) as box:
            box.exec("head -c 150000000 /dev/zero > f", "bash")
            with box.fork() as twin:
                assert twin.exec("stat -c %s f", "bash").text == "150000000\n"
