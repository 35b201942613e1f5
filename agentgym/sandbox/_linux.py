# SPDX-License-Identifier: Apache-2.0
"""The Linux calls of the sandbox that Python has no name for: mounts, namespaces, Landlock, capabilities.

Standard library only and no import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
import sys
from collections.abc import Sequence

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000,
    0x2000000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS, PR_CAP_AMBIENT = (
    1,
    4,
    24,
    38,
    40,
    47,
)

HIDDEN_IN_PROC = ("kcore", "keys", "key-users", "timer_list", "sched_debug", "kallsyms", "kmsg", "config.gz", "interrupts")
"""What /proc tells about the machine beyond what programs need."""

MACHINE = os.uname().machine if sys.platform != "win32" else ""
_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "seccomp": 317, "pidfd_getfd": 438},
    "aarch64": {"clone": 220, "pivot_root": 41, "seccomp": 277, "pidfd_getfd": 438},
}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same number on every machine

if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)
    # a second handle that keeps the interpreter's lock: a child made by a bare clone must find it held by itself
    _locked = ctypes.PyDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def number_of(name: str) -> int:
    """The number of a system call on this machine.

    Raises:
        OSError: this processor is not supported.
    """
    if MACHINE not in _NUMBERS:
        raise OSError(f"processor {MACHINE} is not supported: the sandbox knows x86_64 and aarch64")
    return _NUMBERS[MACHINE][name]


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if x is None else os.fsencode(x) for x in (source, target, kind, data)]
    _check(
        _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]),
        f"mount {kind or source} on {target}",
    )


Mount = tuple[bytes | None, bytes, bytes | None, ctypes.c_ulong, bytes | None]


def prepare_mounts(steps: Sequence[tuple[str | None, str, str | None, int, str | None]]) -> tuple[Mount, ...]:
    """Arguments of `mount` in the form that the C library takes, for `do_mounts`."""

    def raw(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    return tuple((raw(s), os.fsencode(t), raw(k), ctypes.c_ulong(f), raw(d)) for s, t, k, f, d in steps)


def do_mounts(steps: Sequence[Mount]) -> None:
    """Mounts one after the other."""
    call = _libc.mount
    for step in steps:
        if call(*step) < 0:
            _check(-1, f"mount {step[2] or step[0]!r} on {step[1]!r}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def bind_read_only(source: str, target: str) -> None:
    """Shows a file or a tree at another place, never writable, without devices or set-user-id programs."""
    mount(source, target, None, MS_BIND | MS_REC)
    have = os.statvfs(target).f_flag
    # a mount inherited from another user namespace is locked: the flags that it has must be repeated
    keep = 0
    for told, flag in (
        (os.ST_NOEXEC, MS_NOEXEC),
        (os.ST_NOATIME, 1 << 10),
        (os.ST_NODIRATIME, 1 << 11),
        (os.ST_RELATIME, 1 << 21),
    ):
        if have & told:
            keep |= flag
    mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | keep)


def pivot(root: str, old: str) -> None:
    """Makes ``root`` the root of this mount namespace and drops everything else. ``old`` is a folder's name in it."""
    os.chdir(root)
    _check(_libc.syscall(number_of("pivot_root"), b".", os.fsencode(old)), "pivot_root")
    os.chroot(".")
    umount("/" + old)
    os.chdir("/")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def prctl(*args: int) -> int:
    """prctl(2); the result, negative where it failed."""
    return int(_libc.prctl(*[ctypes.c_ulong(a) for a in args]))


def clone(flags: int = 0) -> int:
    """fork(2) straight through the kernel, with new namespaces where asked; 0 in the child.

    Only for a process with one thread. `os.fork` runs the hooks that modules registered (logging, random, threading), which
    touch hundreds of pages of a process that has sympy loaded; each is a page fault and a copy in the child. That is more
    than half of the price of a fork, and none of the hooks does anything that a single thread needs.
    """
    slot = ctypes.c_ulong(0)
    if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(slot), 0, 0, 0) == 0 and slot.value:
        flags |= 0x01000000 | 0x00200000  # the C library's own note of the thread's number stays right in the child
    none = ctypes.c_ulong(0)
    tid = ctypes.c_ulong(slot.value)
    tail = (tid, none) if MACHINE == "x86_64" else (none, tid)
    return _check(_locked.syscall(number_of("clone"), ctypes.c_ulong(flags | 17), none, none, *tail), "clone")


_ZERO = ctypes.c_ulong(0)


def drop_capabilities() -> None:
    """Gives up every capability, for this process and for what it will execute."""
    call = _libc.prctl
    for capability in range(64):
        if call(PR_CAPBSET_DROP, ctypes.c_ulong(capability), _ZERO, _ZERO, _ZERO) < 0:
            break
    prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, b"\0" * 24), "capset")


def keep_capabilities(numbers: Sequence[int]) -> None:
    """Gives up every capability but these, as far as it has them."""
    with open("/proc/self/status", "rb") as f:  # after the change of root no codec can be loaded any more
        have = next(int(line.split()[1], 16) for line in f if line.startswith(b"CapPrm:"))
    low, high = divmod(have & sum(1 << n for n in numbers), 1 << 32)[::-1]
    for capability in range(64):
        if capability not in numbers and _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), _ZERO, _ZERO, _ZERO) < 0:
            break
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname")


def loopback_up() -> None:
    """Starts the loopback device of a new network namespace, so that a server and its client can meet inside."""
    import socket  # here, for the sake of programs that only mount something: it brings half of the library with it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def add_address(address: str) -> None:
    """Gives the loopback device one more address, so that this network namespace takes it for its own, at once.

    By rtnetlink(7), for the flag that an ioctl has not: without it the kernel takes an IPv6 address for its own only when
    a worker of its own has looked for duplicates, even on loopback, and until then nothing can listen there.
    """
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    body = struct.pack("=BBBBi", family, 8 * len(raw), 0x02, 0, socket.if_nametoindex("lo"))  # IFA_F_NODAD
    for kind in (1, 2):  # IFA_ADDRESS, IFA_LOCAL
        body += struct.pack("=HH", 4 + len(raw), kind) + raw
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:  # NETLINK_ROUTE
        s.send(struct.pack("=IHHII", 16 + len(body), 20, 1 | 4, 1, 0) + body)  # RTM_NEWADDR, to be acknowledged
        error = -struct.unpack_from("=i", s.recv(4096), 16)[0]
    if error:
        raise OSError(error, os.strerror(error), address)


def landlock_abi() -> int:
    """The version of Landlock that the kernel offers, 0 without."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock(writable: Sequence[str], devices: Sequence[str]) -> int:
    """A second wall behind the mounts: from now on only these places can be written, and no outside process signalled.

    Everything may be read and executed. Returns the version used, 0 where the kernel has none.
    """
    abi = landlock_abi()
    if abi < 1:
        return 0
    everything = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}.get(abi, 0xFFFF)
    scoped = 3 if abi >= 6 else 0  # abstract sockets and signals stay inside
    attributes = struct.pack("=QQQ", everything, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = _check(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    try:
        read = 1 | 4 | 8  # execute, read files, list folders
        for places, access in ((["/"], read), (writable, everything), (devices, 2 | 4 | 0x4000 | 0x8000)):
            for place in places:
                try:
                    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
                except OSError:
                    continue
                allowed = access & everything
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    allowed &= 1 | 2 | 4 | 0x4000 | 0x8000
                _check(_libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed, fd), 0), f"landlock {place}")
                os.close(fd)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock")
    finally:
        os.close(rules)
    return abi


class Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    program: ctypes.Array[ctypes.c_char]
    """What ``instructions`` points at."""


def prepare_filter(program: bytes) -> Filter:
    """A BPF program in the form that `install_filter` takes."""
    buffer = ctypes.create_string_buffer(program, len(program))
    made = Filter(len(program) // 8, ctypes.addressof(buffer))
    made.program = buffer
    return made


def install_filter(made: Filter) -> None:
    """Puts a BPF program before every system call of this process and its children, for good."""
    _check(_libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(made), 0, 0), "seccomp")


def install_observed_filter(made: Filter) -> int:
    """As `install_filter`; the descriptor on which the kernel tells of the calls that the program says so of."""
    # a signal does not make the kernel ask again (5.19 and newer): a timer could otherwise keep a call from ever going on
    for flags in (8 | 32, 8):
        fd = int(_libc.syscall(number_of("seccomp"), ctypes.c_uint(1), ctypes.c_uint(flags), ctypes.byref(made)))
        if fd >= 0:
            return fd
    return _check(fd, "seccomp with a listener")


def fetch_descriptor(pid: int, number: int) -> int:
    """A copy of another process's descriptor."""
    process = os.pidfd_open(pid)
    try:
        fd = int(_libc.syscall(number_of("pidfd_getfd"), ctypes.c_int(process), ctypes.c_int(number), ctypes.c_uint(0)))
        return _check(fd, "pidfd_getfd")
    finally:
        os.close(process)


def collapse_memory() -> int:
    """Gathers this process's heap in huge pages, so that a fork copies a few entries instead of thousands.

    Returns:
        How many pages of 2 MiB were made; 0 where the kernel (before 6.1) cannot.
    """
    madvise = _libc.madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size, made = 2 << 20, 0
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        lines = f.read().splitlines()
    for line in lines:
        fields = line.split()
        if fields[1] != "rw-p" or (len(fields) > 5 and fields[5] != "[heap]"):
            continue
        low, high = (int(x, 16) for x in fields[0].split("-"))
        at = -(-low // size) * size
        while at + size <= high:
            made += madvise(at, size, 25) == 0  # MADV_COLLAPSE
            at += size
    return made


def mount_disk(device: int, target: str, size: int, inodes: int) -> None:
    """Mounts a new file system of `_disk.make`, by the descriptor of its device, and leaves exactly this much of it.

    What the image has beyond that is taken by files in a folder that sandboxes do not see.

    Args:
        size: bytes that may be written.
        inodes: files and folders that may be made.
    """
    mount(f"/proc/self/fd/{device}", target, "ext4", MS_NOSUID | MS_NODEV, "noinit_itable,discard")
    hidden = target + "/lost+found"
    with open(hidden + "/0", "wb") as f:
        for n in range(1, os.statvfs(target).f_ffree - inodes + 1):
            os.mknod(f"{hidden}/{n}", 0o600 | stat.S_IFREG)
        have = os.statvfs(target)
        surplus = have.f_bavail * have.f_frsize - size
        if surplus > 0:
            os.posix_fallocate(f.fileno(), 0, surplus)
