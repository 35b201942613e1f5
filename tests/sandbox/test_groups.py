# SPDX-License-Identifier: Apache-2.0
"""Control groups of version 2: by the kernel itself as far as one is free here, and against a tree of the same shape.

Where the kernel has given memory, cpu and pids to version 1, a real group of version 2 can only have what is left. So what
the kernel decides (who may be where, what can be switched on and removed) is tried with a controller that is free, and what is
written into which file with a folder that holds the files which the kernel would make.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentgym.sandbox import _groups
from agentgym.sandbox._groups import Groups

SPEC = {"memory": 64 << 20, "cpus": 0.5, "pids": 20}
FILES = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.procs", "cgroup.subtree_control")


def free_controller() -> tuple[str, str]:
    """Where version 2 is mounted on this machine, and a controller that it has; empty texts where there is none."""
    with open("/proc/self/mountinfo") as f:
        tops = [line.split()[4] for line in f if " - cgroup2 " in line]
    for top in tops:
        if os.access(top, os.W_OK):
            names = Path(top, "cgroup.controllers").read_text().split()
            return top, names[0] if names else ""
    return "", ""


def told(folder: Path, top: str) -> str:
    """A folder like /proc/self that tells of version 2 alone."""
    (folder / "mountinfo").write_text(f"30 20 0:26 / {top} rw - cgroup2 cgroup2 rw\n")
    (folder / "cgroup").write_text("0::/\n")
    return str(folder)


def test_the_kernel_lets_version_two_hold_a_process_and_be_removed(tmp_path: Path) -> None:
    top, controller = free_controller()
    if not controller or os.getuid() != 0:
        pytest.skip("no writable hierarchy of version 2 with a free controller: the tree of the same shape is what is left")
    groups = Groups("-two", process=told(tmp_path, top), second=(controller,))
    ours = Path(top, f"agentgym-{os.getpid()}-two")
    try:
        assert (groups.kind, groups.why) == ("v2", "")
        assert controller in (ours / "cgroup.subtree_control").read_text().split()
        with subprocess.Popen(["sleep", "60"]) as process:
            name = groups.take(SPEC, process.pid)
            assert (ours / name / "cgroup.procs").read_text().split() == [str(process.pid)]
            assert controller in (ours / name / "cgroup.controllers").read_text().split()
            assert groups.killed(name) == 0
            process.kill()
        groups.give_back(name)
        with subprocess.Popen(["sleep", "60"]) as process:
            assert groups.take(SPEC, process.pid) == name, "groups are used again"
            process.kill()
        groups.give_back(name)
    finally:
        groups.close()
    assert not ours.exists()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which new folders hold the files that the kernel would make."""
    top = tmp_path / "hierarchy"
    top.mkdir()
    (top / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    make = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        for name in FILES:
            os.close(os.open(f"{path}/{name}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=dir_fd))

    monkeypatch.setattr(_groups.os, "mkdir", mkdir)
    return top


def test_the_limits_of_version_two_go_where_the_kernel_reads_them(tree: Path, tmp_path: Path) -> None:
    groups = Groups(process=told(tmp_path, str(tree)))
    assert (groups.kind, groups.why, sorted(groups.bases)) == ("v2", "", ["cpu", "memory", "pids"])
    name = groups.take(SPEC, 4711)
    ours = tree / f"agentgym-{os.getpid()}"
    assert (tree / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (ours / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    values = {file: (ours / name / file).read_text() for file in FILES[:5]}
    assert values == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "pids.max": "21",
        "cgroup.procs": "4711",
    }
    (ours / name / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert groups.killed(name) == 2


def test_version_two_without_a_controller_of_memory_is_none(tree: Path, tmp_path: Path) -> None:
    (tree / "cgroup.controllers").write_text("hugetlb\n")
    groups = Groups(process=told(tmp_path, str(tree)))
    assert (groups.kind, groups.bases) == ("none", {})
    assert "has no controller of memory here, only: hugetlb" in groups.why


def test_version_two_without_shares_of_processors_still_holds_memory(tree: Path, tmp_path: Path) -> None:
    (tree / "cgroup.controllers").write_text("memory pids\n")
    groups = Groups(process=told(tmp_path, str(tree)))
    assert sorted(groups.bases) == ["memory", "pids"]
    name = groups.take({**SPEC, "cpus": None}, 4711)
    assert (tree / f"agentgym-{os.getpid()}" / name / "cpu.max").read_text() == ""
