# SPDX-License-Identifier: Apache-2.0
"""Where runs are kept, and whether that place is fit for them. Light: it imports nothing that costs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from agentgym.errors import RecordError

RUNS = Path("runs")
"""Where runs are kept, relative to the working directory, unless ``--runs`` or ``$AGENTGYM_RUNS`` says otherwise."""

LOCK = "lock"
"""Name of the file inside of a run's directory that its writer holds a lock on."""

_NETWORK_FILE_SYSTEMS = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "glusterfs", "fuse.glusterfs", "ceph", "fuse.ceph",
    "lustre", "beegfs", "gpfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "davfs", "fuse.rclone",
}  # fmt: skip


def runs_root(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of runs: as given, else ``$AGENTGYM_RUNS``, else ``runs``."""
    return Path(given or os.environ.get("AGENTGYM_RUNS") or RUNS)


class Mount(NamedTuple):
    """A file system, as the kernel's mount table names it."""

    kind: str
    """``ext4``, ``tmpfs``, ``nfs4`` ...; empty where the table cannot be read."""
    point: str
    """Where it is mounted."""

    @property
    def network(self) -> bool:
        """Whether it lies on another machine."""
        return self.kind in _NETWORK_FILE_SYSTEMS


def mount_of(path: Path, table: Path = Path("/proc/self/mountinfo")) -> Mount:
    """The file system that ``path`` lies on, whether the path exists yet or not."""
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return Mount("", "")
    real = os.path.realpath(path)
    best = Mount("", "")
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields.split()[4])
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best.point):
            best = Mount(rest.split()[0], point)
    return best


def is_held(path: Path) -> bool:
    """Whether a process works on the run at ``path``; its lock dies with it. True where that cannot be told."""
    import fcntl

    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def refuse_network_file_system(path: Path) -> None:
    """SQLite's locks and shared memory do not work over a network.

    Raises:
        RecordError: ``path`` lies on a network file system.
    """
    mount = mount_of(path)
    if mount.network:
        raise RecordError(
            f"{path} lies on a network file system ({mount.kind} at {mount.point}), where SQLite's locks cannot be trusted:"
            " keep runs on a local disk with --runs DIR and copy them afterwards"
        )
