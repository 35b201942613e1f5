# SPDX-License-Identifier: Apache-2.0
"""What a system call that the filter tells of means: an event's kind, what it concerns, and the answer to the caller.

The number and the arguments come from the kernel and are true. What a pointer leads to lies in the caller's memory, where
another thread may change it after this has looked and before the kernel does: paths, arguments and addresses are what was
seen, never a ground for letting something happen. What is let go on (`_seccomp.CONTINUED`) is allowed without an observer too.

Standard library only and no import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING or "agentgym.sandbox" in sys.modules:
    from agentgym.sandbox import _seccomp
else:
    import _seccomp

PATH_BYTES, WORD_BYTES, WORDS = 1024, 256, 32
"""How much of a path, of one argument, and how many arguments of a program are kept."""
_EPERM, _EBUSY, _ENOSYS, _EAFNOSUPPORT = 1, 16, 38, 97
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000

_CLOCK = ("clock_settime", "clock_adjtime", "adjtimex", "settimeofday")
_TRACE = (*("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise", "perf_event_open"),)
_PRIVILEGE = (
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "move_mount", "open_tree", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "bpf", "init_module", "finit_module", "delete_module", "kexec_load"),
    *("kexec_file_load", "keyctl", "add_key", "request_key", "open_by_handle_at", "reboot", "swapon", "swapoff", "acct"),
    *("sethostname", "setdomainname", "quotactl", "quotactl_fd", "iopl", "ioperm", "syslog", "fanotify_init"),
    *("clone", "mknod", "mknodat", "ioctl"),  # told of only where they ask for what is not theirs
)
_FAMILIES = {
    9: "x25",
    16: "netlink",
    17: "packet",
    21: "rds",
    29: "can",
    30: "tipc",
    31: "bluetooth",
    38: "alg",
    40: "vsock",
    44: "xdp",
}


class Request(NamedTuple):
    """A notification of the kernel."""

    id: int
    pid: int
    """Of the thread, in the observer's pid namespace."""
    number: int
    arguments: tuple[int, ...]


class Seen(NamedTuple):
    """What an event says."""

    kind: str
    resource: str
    data: dict[str, Any]


class Memory:
    """Another process's memory and descriptors, as far as they can be read."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    @property
    def readable(self) -> bool:
        """Whether it could be opened: a process of the same user may have closed it to all without privilege."""
        return self._fd >= 0

    def read(self, address: int, size: int) -> bytes:
        """What is there: less than ``size`` at the end of what is mapped, nothing at a wild pointer."""
        if self._fd < 0 or not 0 < address < 1 << 63:
            return b""
        try:
            return os.pread(self._fd, size, address)
        except (OSError, OverflowError):
            return b""

    def text(self, address: int, most: int) -> str | None:
        """A string that ends with a zero, cut at ``most`` bytes; None where nothing can be read."""
        data = self.read(address, most)
        return shown(data.split(b"\0", 1)[0]) if data else None

    def link(self, name: str) -> str:
        """Where a link in its folder of /proc points; empty where that cannot be read."""
        try:
            return shown(os.readlink(os.fsencode(f"/proc/{self.pid}/{name}"))[:PATH_BYTES])
        except OSError:
            return ""

    def close(self) -> None:
        """Frees it."""
        if self._fd >= 0:
            os.close(self._fd)


def shown(data: bytes) -> str:
    """Bytes as text that any encoder takes."""
    return data.decode(errors="backslashreplace")


def name_of(number: int) -> str:
    """The name of a system call on this machine."""
    if number & _seccomp.X32:
        return f"x32 call {number & ~_seccomp.X32 & 0xFFFFFFFF}"
    return _NAMES.get(number) or f"call {number}"


_MACHINE = os.uname().machine
_NAMES = {n: name for name, n in _seccomp.NUMBERS.get(_MACHINE, {}).items()} | _seccomp.REFUSED.get(_MACHINE, {})
_GO_ON = frozenset(_seccomp.NUMBERS.get(_MACHINE, {}).get(name, -1) for name in _seccomp.CONTINUED) - {-1}


def answer(number: int) -> int:
    """The error that the caller gets; 0: the call goes on. Hangs on nothing but the number."""
    if number in _GO_ON:
        return 0
    if number & _seccomp.X32:
        return _ENOSYS
    return {"socket": _EAFNOSUPPORT, "seccomp": _EBUSY}.get(_NAMES.get(number, ""), _EPERM)


def look(request: Request, memory: Memory, first: int) -> Seen | None:
    """What a call means; None where it is of no interest.

    Args:
        first: process 1 of the sandbox, by its id out here.
    """
    name, args = name_of(request.number), request.arguments
    if name in ("execve", "execveat"):
        return _program(name, args, memory)
    if name in ("connect", "bind", "sendto", "sendmsg", "sendmmsg"):
        return _address(name, args, memory)
    if name == "socket":
        family = args[0] & 0xFFFFFFFF
        return Seen("network.socket", _FAMILIES.get(family, f"family {family}"), {"type": args[1] & 0xF})
    if name == "prctl":
        return Seen("monitor.hide", "prctl PR_SET_DUMPABLE", {})
    if name == "seccomp":
        return Seen("monitor.filter", "seccomp NEW_LISTENER", {})
    if name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        signal = args[2 if name in ("tgkill", "rt_tgsigqueueinfo") else 1] & 0xFFFFFFFF
        return Seen("monitor.signal", "process 1", {"call": name, "signal": signal})
    if name == "pidfd_open":
        return Seen("monitor.signal", "process 1", {"call": name})
    if name == "pidfd_send_signal":
        return _by_descriptor(name, args, memory, first)
    if name in _CLOCK:
        return Seen("clock.set", name, {})
    if name in _TRACE:
        return Seen("monitor.trace", name, {"arguments": [hex(a) for a in args[:2]]})
    data = {"arguments": [hex(a) for a in args[:3]]}
    if name in ("mount", "umount2", "chroot", "pivot_root"):
        paths = [memory.text(a, PATH_BYTES) for a in args[: {"mount": 2, "pivot_root": 2}.get(name, 1)]]
        data = {"paths": [p for p in paths if p is not None]}
    return Seen("privilege.call" if name in _PRIVILEGE else "call.refused", name, data)


def _program(name: str, args: tuple[int, ...], memory: Memory) -> Seen:
    data: dict[str, Any] = {}
    at = 0 if name == "execve" else 1
    path = memory.text(args[at], PATH_BYTES)
    if name == "execveat":
        folder = struct.unpack("<i", struct.pack("<I", args[0] & 0xFFFFFFFF))[0]
        if path == "" and args[4] & _AT_EMPTY_PATH:
            path = memory.link(f"fd/{folder}") or f"descriptor {folder}"
            data["by_descriptor"] = True
        elif path and not path.startswith("/") and folder != _AT_FDCWD:
            data["folder"] = memory.link(f"fd/{folder}")
    if path is None:
        data["unreadable"] = True
    elif path and not path.startswith("/") and not data:
        data["folder"] = memory.link("cwd")
    words: list[str] = []
    table = memory.read(args[at + 1], 8 * (WORDS + 1))
    for n in range(len(table) // 8):
        pointer = int.from_bytes(table[8 * n : 8 * n + 8], "little")
        if pointer == 0:
            break
        if n == WORDS:
            data["cut"] = True
            break
        word = memory.read(pointer, WORD_BYTES + 1)
        if b"\0" not in word:
            data["cut"] = True
        words.append(shown(word.split(b"\0", 1)[0][:WORD_BYTES]))
    data["argv"] = words
    data["by"] = memory.link("exe")
    return Seen("process.exec", path or "", data)


def _address(name: str, args: tuple[int, ...], memory: Memory) -> Seen | None:
    kind = {"connect": "network.connect", "bind": "network.bind"}.get(name, "network.send")
    if name in ("connect", "bind"):
        places = [(args[1], args[2])]
    elif name == "sendto":
        places = [(args[4], args[5])]
    else:
        heads = memory.read(args[1], 56) if name == "sendmsg" else memory.read(args[1], 64 * min(args[2] & 0xFFFFFFFF, 16))
        places = [struct.unpack_from("<QI", heads, at) for at in range(0, len(heads) - 11, 64)]
    found = []
    for pointer, size in places:
        if pointer == 0:
            continue
        family, text = parse_address(memory.read(pointer, min(size & 0xFFFFFFFF, 128)))
        if family in ("inet", "inet6") and (family, text) not in found:
            found.append((family, text))
    if found:
        more = {"others": [text for _, text in found[1:]]} if len(found) > 1 else {}
        return Seen(kind, found[0][1], {"family": found[0][0], "call": name, **more})
    if not memory.readable:
        return Seen(kind, "", {"call": name, "unreadable": True})
    return None


def parse_address(data: bytes) -> tuple[str, str]:
    """Family and address with port of a ``struct sockaddr``; empty where it is neither of the internet's."""
    family = int.from_bytes(data[:2], "little")
    if family == socket.AF_INET and len(data) >= 8:
        return "inet", f"{socket.inet_ntop(socket.AF_INET, data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_INET6 and len(data) >= 24:
        return "inet6", f"[{socket.inet_ntop(socket.AF_INET6, data[8:24])}]:{int.from_bytes(data[2:4], 'big')}"
    return "", ""


def _by_descriptor(name: str, args: tuple[int, ...], memory: Memory, first: int) -> Seen | None:
    fd = args[0] & 0xFFFFFFFF
    target = "unknown"
    try:
        with open(f"/proc/{memory.pid}/fdinfo/{fd}", "rb") as f:
            for line in f.read(4096).splitlines():
                if line.startswith(b"Pid:"):
                    target = "process 1" if int(line[4:]) == first else ""
    except (OSError, ValueError):
        pass
    if target == "unknown" and memory.link(f"fd/{fd}").endswith("/1"):  # a folder of /proc will do as well
        target = "process 1"
    return Seen("monitor.signal", target, {"call": name, "signal": args[1] & 0xFFFFFFFF}) if target else None
