# SPDX-License-Identifier: Apache-2.0
"""File systems of a fixed size on this machine's disk, for sandboxes whose files may take more room than their memory.

A file system image lies in a sparse file that has no name, behind a loop device that lets go of it by itself when the last
mount and the last descriptor are gone. So nothing is left of it however its makers end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile

from agentgym.sandbox._client import ON_DISK
from agentgym.sandbox.protocol import SandboxError

_SET_FREE, _CONFIGURE, _AUTOCLEAR = 0x4C82, 0x4C0A, 4
_OPTIONS = ["-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"]


def why_not() -> str:
    """What is missing on this machine for such file systems; empty where they should work."""
    if os.getuid() != 0:
        return "only root can make a file system of a fixed size on disk"
    if not _mkfs():
        return "mkfs.ext4 is not installed (package e2fsprogs)"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices (/dev/loop-control)"
    return ""


def _mkfs() -> str | None:
    return shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def make(size: int, inodes: int) -> int:
    """A new, empty file system; an open descriptor of its loop device, which is all that holds it until it is mounted.

    Args:
        size: bytes that files may take. The image has more, for the file system's own tables; `_linux.mount_disk` takes
            the surplus away.
        inodes: files and folders.

    Raises:
        SandboxError: the disk has not that much room, or the kernel refuses.
    """
    folder = ON_DISK if os.path.isdir(ON_DISK) else tempfile.gettempdir()
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < size:
        raise SandboxError(f"a workspace of {size} bytes does not fit on the disk: {folder} has less room than that")
    with tempfile.TemporaryFile(dir=folder) as image:
        image.truncate((size + size // 32 + inodes * 320 + (16 << 20)) & ~4095)
        command = [_mkfs() or "mkfs.ext4", *_OPTIONS, "-N", str(inodes + 64), f"/proc/self/fd/{image.fileno()}"]
        made = subprocess.run(
            command, pass_fds=[image.fileno()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/"
        )
        if made.returncode:
            raise SandboxError(f"no file system could be made on disk: {made.stderr.strip()[-300:]}")
        try:
            return _attach(image.fileno())
        except OSError as e:
            raise SandboxError(f"no loop device could be had: {e.strerror}") from None


def _attach(image: int) -> int:
    """A loop device over a file."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(100):
            number = fcntl.ioctl(control, _SET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config: descriptor, block size, struct loop_info64 (its flags after six numbers), eight reserved
            info = struct.pack("<5Q4I", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR) + b"\0" * (64 + 64 + 32 + 16)
            try:
                fcntl.ioctl(device, _CONFIGURE, struct.pack("<II", image, 4096) + info + b"\0" * 64)
                return device
            except OSError as e:
                os.close(device)
                if e.errno != errno.EBUSY:  # somebody else was faster
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free")
