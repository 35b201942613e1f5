# SPDX-License-Identifier: Apache-2.0
"""What there is on this machine of things that sandboxes are made of: to be the same before and after."""

from __future__ import annotations

import gc
import glob
import os
import threading
from collections.abc import Sequence

OURS = 2_000_000_000
"""User ids from here on belong to sandboxes that root made."""
LABEL = {"label": "agentgym=sandbox"}
"""Which containers are ours."""


def footprint(helpers: Sequence[int] = (), users: range = range(0), containers: bool = False) -> dict[str, int]:
    """Counts, by kind.

    Args:
        helpers: processes of ours that live longer than a sandbox (a launcher): their descriptors, mounts and children count.
        users: ids that our sandboxes have, as `users_of` tells; what they own counts wherever it hangs.
        containers: whether to ask the container engine.
    """
    gc.collect()  # sockets of libraries that wait to be forgotten
    mine = {os.getpid(), *helpers}
    processes = _processes()
    family = _family(processes, os.getpid())
    states = [state for pid, (_, state, uid) in processes.items() if pid in family or uid in users]
    with open("/proc/sysvipc/shm") as f:
        shared = [int(line.split()[7]) for line in f.readlines()[1:]]
    counts = {
        "processes": sum(state != "Z" for state in states),
        "zombies": states.count("Z"),
        "threads": threading.active_count(),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in mine),
        "mounts": sum(_mounts(pid) for pid in mine),
        "control groups": len(_groups(mine)),
        "shared memory": sum(owner in users for owner in shared),
        "files": sum(_owner(e) in users for place in ("/tmp", "/var/tmp", "/dev/shm") for e in os.scandir(place)),
        "loop devices": len(glob.glob("/sys/block/loop*/loop/backing_file")),
    }
    if containers:
        import docker

        client = docker.from_env()
        counts["containers"] = len(client.containers.list(all=True, filters=LABEL, ignore_removed=True))
        client.close()
    return counts


def users_of(inside: int) -> range:
    """The ids among which a backend chooses for its sandboxes, by a process of one of them; none for a plain user."""
    uid = os.stat(f"/proc/{inside}").st_uid
    if uid < OURS:
        return range(0)
    first = OURS + (uid - OURS) // 65536 * 65536
    return range(first, first + 65536)


def groups_of(pid: int) -> list[str]:
    """Control groups of sandboxes that a process made."""
    return [*glob.glob(f"/sys/fs/cgroup/**/agentgym-{pid}", recursive=True), *glob.glob(f"/sys/fs/cgroup/*/agentgym-{pid}-*")]


def _mounts(pid: int) -> int:
    """Those that a process sees, but for what container engines of other tests have mounted meanwhile."""
    with open(f"/proc/{pid}/mountinfo") as f:
        return sum("docker" not in line and "agentgym-engine-" not in line for line in f)


def _groups(makers: set[int]) -> list[str]:
    """Theirs, with those of single sandboxes: which are used again, so there are as many as lived at once."""
    tops = [path for pid in makers for path in groups_of(pid)]
    return [*tops, *(inner for top in tops for inner in glob.glob(top + "/*/"))]


def _processes() -> dict[int, tuple[int, str, int]]:
    """pid -> parent, state, user."""
    found = {}
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(path + "/stat", "rb") as f:
                fields = f.read().rsplit(b")", 1)[1].split()
            found[int(path[6:])] = (int(fields[1]), fields[0].decode(), os.stat(path).st_uid)
        except OSError:
            continue
    return found


def _family(processes: dict[int, tuple[int, str, int]], root: int) -> set[int]:
    """Descendants of a process."""
    found, more = {root}, {root}
    while more:
        more = {pid for pid, (parent, _, _) in processes.items() if parent in found} - found
        found |= more
    return found - {root}


def _owner(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:
        return -1
