# SPDX-License-Identifier: Apache-2.0
"""Sandboxes made by bubblewrap (``bwrap``, 0.8 or newer): a second, independent and widely audited way to the same walls.

bubblewrap makes the namespaces and the file tree, drops every privilege and loads the system call filter before anything of
ours runs inside; process 1 is the guest (`_guest`), sent in through standard input as to a container. What bubblewrap does
not have is put around it by `_stage`, which becomes it: a user id of its own for each sandbox where root asks (root mapped
into the sandbox would not be held to the number of processes), limits of inodes and of bytes in total, control groups.

Where a plain user's Python may not make namespaces but bubblewrap may (an AppArmor profile, or an old set-user-id build), its
own means are used: `Limits.disk` is then split as in a container, and inodes are counted every 10 ms.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import json
import marshal
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agentgym.errors import InfrastructureError
from agentgym.sandbox import _disk, _guest, _linux, _seccomp
from agentgym.sandbox._backend import GuestBackend, await_guest, environment, filled, kept
from agentgym.sandbox._channel import Channel, SocketStream
from agentgym.sandbox._client import Box
from agentgym.sandbox._groups import Groups
from agentgym.sandbox.namespace import elsewhere, shown_packages, steps_to_namespaces
from agentgym.sandbox.protocol import Capabilities, Limits, SandboxError, SandboxSpec, SandboxUnavailableError, Snapshot

_TAGS = itertools.count(1)
_ETC = {
    "passwd": "root:x:0:0::/:/usr/sbin/nologin\nagent:x:65534:65534::/workspace:/bin/bash\n",
    "group": "root:x:0:\nagent:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
}


@functools.cache
def _guest_code() -> bytes:
    """The guest's program, compiled: the interpreter inside is this one, and compiling would be a large part of its price."""
    text = Path(_guest.__file__).read_bytes()
    return marshal.dumps(compile(text, "_guest.py", "exec", dont_inherit=True))


def _new_users() -> itertools.count[int]:
    """User ids far from those that people, systemd or containers use."""
    return itertools.count(2_000_000_000 + int.from_bytes(os.urandom(2), "little") % 2000 * 65536)


class _Box:
    """One sandbox: a process that is bubblewrap, and the sandbox's process 1 below it."""

    def __init__(self, backend: BwrapBackend, spec: SandboxSpec, own_mounts: bool) -> None:
        limits = spec.limits
        self._owner = os.getpid()
        self._backend = backend
        self._inside = -1
        self._group = ""
        self._seen = 0
        groups = backend.groups()
        counted = "memory" in groups.bases
        address_space = limits.address_space or 2 * limits.memory + (512 << 20)
        guest = {
            "workspace": "/workspace",
            "run": "/run",
            "nofile": limits.open_files,
            "memory": 0 if counted and own_mounts else limits.memory,
            "counted": ["/tmp", "/run"] if own_mounts else ["/workspace", "/tmp", "/dev/shm", "/run"],
            "inodes": 0 if own_mounts else limits.inodes,
            "first_victim": True,
            "preimport": list(backend.preimport),
            "rlimits": {
                "NPROC": limits.pids + 1,  # counted in the sandbox's own user namespace, so it is set inside
                "AS": address_space,
                "FSIZE": limits.disk,
                "CORE": 0,
                "MSGQUEUE": 0,
                "MEMLOCK": 65536,
                "SIGPENDING": 256,
                "STACK": 8 << 20,
                "NOFILE": 4096,
            },
        }
        source = _guest_code()
        with contextlib.ExitStack() as held:

            def keep(fd: int) -> int:
                held.callback(os.close, fd)
                return fd

            ours, theirs = socket.socketpair()
            held.enter_context(theirs)
            gate_read, gate_write = os.pipe()
            gate = held.enter_context(os.fdopen(gate_write, "wb"))
            keep(gate_read)
            info_read, info_write = map(keep, os.pipe())
            messages = keep(os.memfd_create("messages"))

            def told(name: str, data: bytes) -> int:
                fd = keep(os.memfd_create(name))
                os.write(fd, data)
                os.lseek(fd, 0, os.SEEK_SET)
                return fd

            law = told("filter", _seccomp.program(_linux.MACHINE, accounted=counted))
            etc = {name: told(name, text.encode()) for name, text in _ETC.items()}
            on_disk = limits.disk > limits.memory
            device = keep(_disk.make(limits.disk, limits.inodes)) if on_disk else None
            given = [gate_read, info_write, law, *etc.values(), *([] if device is None else [device])]
            self._process = subprocess.Popen(
                [backend.python, "-I", "-S", "-B", str(Path(__file__).with_name("_stage.py")), str(gate_read)],
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                cwd="/",
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=messages,
                pass_fds=given,
                start_new_session=True,
            )
            theirs.close()  # so that its end is seen at once
            self.channel = Channel(SocketStream(ours))
            try:
                if counted:  # before it goes on: what it becomes and starts is counted from the beginning
                    self._group, self._seen = backend.take_group(limits, self._process.pid)
                command = backend.command(spec, law, info_write, etc, [str(len(source)), json.dumps(guest)])
                config = {
                    "own_mounts": own_mounts,
                    "user": backend.next_user() if backend.privileged else None,
                    "device": device,
                    "disk": limits.disk,
                    "inodes": limits.inodes,
                    "shown": backend.shown,
                    "otherwise": backend.plain_mounts(limits),
                    "command": command,
                }
                gate.write(marshal.dumps(config))
                gate.close()
                self.channel.stream.send(source)
                await_guest(self.channel, "the sandbox")
                child = json.loads(os.read(info_read, 4096))["child-pid"]
                self._inside = os.pidfd_open(child)
                self.pid: int = child
            except BaseException as e:
                self.channel.close()
                with contextlib.suppress(OSError):
                    gate.close()
                self._abandon(info_read)
                self.kill()
                said = os.pread(messages, 2000, 0).decode(errors="replace").strip()
                if isinstance(e, (OSError, SandboxError)):
                    raise SandboxError(f"{e}: {said}" if said else str(e)) from None
                raise

    def _abandon(self, info: int) -> None:
        """It did not start: ends whatever of it there is."""
        os.set_blocking(info, False)
        with contextlib.suppress(OSError, ValueError, KeyError):
            if self._inside < 0:
                self._inside = os.pidfd_open(json.loads(os.read(info, 4096))["child-pid"])
        self._process.kill()

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed something in it since the last question."""
        count = self._backend.killed(self._group)
        more, self._seen = count > self._seen, count
        return more

    def kill(self) -> bool:
        """Ends it from outside; back when nothing of it is left."""
        if self._owner != os.getpid():
            return False
        if self._inside >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inside, signal.SIGKILL)
            select.select([self._inside], [], [], 30)  # the kernel reports process 1 when all others of its namespace are gone
            os.close(self._inside)
            self._inside = -1
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        more = self._backend.killed(self._group) > self._seen
        self._backend.give_back_group(self._group)
        self._group = ""
        return more


class BwrapBackend(GuestBackend):
    """Makes sandboxes with bubblewrap.

    Args:
        packages: distributions that sandboxed Python can import, with what they require; none of the host's others.
        preimport: modules that each sandbox imports when it starts, which takes its time; Python code then finds them loaded.
        program: where bubblewrap is; None: as ``bwrap`` on the path.
    """

    name = "bwrap"

    def __init__(
        self, packages: Sequence[str] = ("numpy", "sympy"), preimport: Sequence[str] = (), *, program: str | None = None
    ) -> None:
        super().__init__()
        self._packages = tuple(packages)
        self.preimport = tuple(preimport)
        self._program = program
        self._can: Capabilities | None = None
        self._groups: Groups | None = None
        self._own_mounts = True
        self._owner = os.getpid()
        self._users = _new_users()
        self.python: str = getattr(sys, "_base_executable", sys.executable) or sys.executable
        self.privileged = os.getuid() == 0
        """Whether each sandbox has a user id of its own."""
        self.shown: list[str] = []
        """What of the host is shown inside, read-only, besides the system's own folders."""
        self._tree: list[str | int] = []

    def _found(self) -> str:
        if sys.platform != "linux":
            raise SandboxUnavailableError(elsewhere("the sandbox of bubblewrap"))
        program = self._program or shutil.which("bwrap")
        if program is None:
            raise SandboxUnavailableError(
                "bubblewrap is not installed: install the package bubblewrap (apt, dnf or pacman), or use another backend"
            )
        return program

    # around a sandbox

    def groups(self) -> Groups:
        """Control groups for the sandboxes of this backend, as far as this process may make some."""
        with self._lock:
            if self._groups is None or self._owner != os.getpid():  # a fork of the host leaves its parent's alone
                self._groups = Groups(f"-b{next(_TAGS)}")
                self._owner, self._users = os.getpid(), _new_users()
            return self._groups

    def take_group(self, limits: Limits, pid: int) -> tuple[str, int]:
        """Puts a process into a group of its own; the group's name, and how often the kernel has killed in it."""
        with self._lock:
            groups = self.groups()
            name = groups.take({"memory": limits.memory, "cpus": limits.cpus, "pids": limits.pids}, pid)
            return name, groups.killed(name)

    def killed(self, name: str) -> int:
        """How many processes of a group the kernel killed for want of memory."""
        return self.groups().killed(name) if name else 0

    def give_back_group(self, name: str) -> None:
        """Nothing is in it any more."""
        if name:
            with self._lock:
                self.groups().give_back(name)

    def next_user(self) -> int:
        """A user id that nothing else on this machine has."""
        return next(self._users)

    # what bubblewrap is told

    def command(
        self, spec: SandboxSpec, law: int, info: int, etc: dict[str, int], arguments: list[str]
    ) -> list[str | int | None]:
        """Its arguments; numbers stand for what of `shown` is where, None for what can be written: `_stage` fills them in."""
        words: list[str | int | None] = [self._found(), "--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1"]
        words += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--new-session"]
        words += ["--seccomp", str(law), "--info-fd", str(info), "--clearenv"]
        folder = os.path.dirname(os.path.realpath(self.python))
        path = ":".join(dict.fromkeys([folder, "/usr/local/bin", "/usr/bin", "/bin"]))
        for name, value in {"PATH": path, **environment(spec)}.items():
            words += ["--setenv", name, value]
        words += ["--proc", "/proc", "--perms", "0755", "--size", "65536", "--tmpfs", "/dev"]
        for name in ("null", "zero", "full", "random", "urandom"):
            words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            words += ["--symlink", target, f"/dev/{name}"]
        for name in _linux.HIDDEN_IN_PROC:
            if os.path.exists("/proc/" + name):
                words += ["--dev-bind", "/dev/null", "/proc/" + name]
        for name in ("bin", "lib", "lib32", "lib64", "sbin"):
            if os.path.islink("/" + name):
                words += ["--symlink", os.readlink("/" + name), "/" + name]
            elif os.path.isdir("/" + name):
                words += ["--ro-bind", "/" + name, "/" + name]
        words += ["--ro-bind", "/usr", "/usr", "--dir", "/home", "--dir", "/etc", "--dir", "/var"]
        words += ["--symlink", "/tmp", "/var/tmp"]
        for name, fd in etc.items():
            words += ["--perms", "0644", "--file", str(fd), "/etc/" + name]
        for name in ("alternatives", "ld.so.cache", "localtime"):
            words += ["--ro-bind-try", "/etc/" + name, "/etc/" + name]
        words += [*self._tree, None, "--remount-ro", "/dev", "--remount-ro", "/"]
        python = os.path.realpath(self.python)
        return [*words, "--chdir", "/workspace", "--", python, "-I", "-B", "-u", "-c", _guest.BOOT, *arguments]

    def _interpreter(self) -> list[str | int]:
        """Shows this interpreter and the packages asked for, none of the host's others; numbers stand for `shown`."""
        prefix = os.path.realpath(sys.base_prefix)
        words: list[str | int] = []
        self.shown = []

        def show(source: str, target: str) -> None:
            words.extend(["--ro-bind", len(self.shown), target])
            self.shown.append(source)

        if not (prefix + "/").startswith("/usr/"):
            if prefix in ("/", os.path.expanduser("~"), "/root", "/home"):
                raise SandboxUnavailableError(
                    f"the interpreter's prefix is {prefix}: all of it would be shown to sandboxed code. Use an interpreter "
                    "with a folder of its own."
                )
            show(prefix, prefix)
        sites = [os.path.realpath(p) for p in site.getsitepackages([sys.base_prefix]) if os.path.isdir(p)]
        system = glob.glob("/usr/lib/python3*/dist-packages") + glob.glob("/usr/local/lib/python3*/*-packages")
        sources = [p for p in ("/usr/src", "/usr/local/src", prefix + "/envs", prefix + "/pkgs") if os.path.isdir(p)]
        for place in dict.fromkeys([*sites, *map(os.path.realpath, system), *sources]):
            if not (place + "/").startswith(("/usr/", prefix + "/")):
                continue  # not shown in the first place
            words.extend(["--perms", "0755", "--size", "1048576", "--tmpfs", place])
            if sites and place == sites[0]:
                for source, name in shown_packages(self._packages):
                    show(source, f"{place}/{name}")
            words.extend(["--remount-ro", place])
        return words

    @staticmethod
    def plain_mounts(limits: Limits) -> list[str]:
        """What can be written, by bubblewrap's own means: a file system for each place, with a share of the bytes."""
        words = []
        for place, eighths, mode in (("/workspace", 5, "0755"), ("/tmp", 2, "1777"), ("/dev/shm", 1, "1777")):
            words += ["--perms", mode, "--size", str(limits.disk * eighths // 8), "--tmpfs", place]
        return [*words, "--perms", "0755", "--size", str(16 << 20), "--tmpfs", "/run"]

    # the backend

    def _attempt(self, own_mounts: bool, limits: Limits) -> str:
        """Makes a sandbox and ends it; why that failed, if it did."""
        try:
            box = _Box(self, SandboxSpec(limits=limits), own_mounts)
        except InfrastructureError as e:
            return str(e)
        box.channel.close()
        box.kill()
        return ""

    def capabilities(self) -> Capabilities:
        """What it enforces here, after one sandbox was really made.

        Raises:
            SandboxUnavailableError: bubblewrap is not there or not allowed; the text says what to do.
        """
        with self._lock:
            if self._can is not None:
                return self._can
            self._found()
            self._tree = self._interpreter()
            self._own_mounts = True
            why = self._attempt(True, Limits())
            if (
                why and not self.privileged
            ):  # this interpreter may not make namespaces; bubblewrap may have a profile that lets it
                self._own_mounts = False
                again = self._attempt(False, Limits())
                why = again and f"{why}; without own mounts: {again}"
            if why:
                raise SandboxUnavailableError(
                    f"bubblewrap cannot work here: {why}. What to do: it needs version 0.8 or newer; {steps_to_namespaces()}"
                )
            small = Limits(memory=16 << 20, disk=17 << 20, inodes=16, address_space=4 << 30)
            groups = self.groups()
            self._can = Capabilities(
                backend=self.name,
                isolation="namespaces",
                memory_total="cgroup" if "memory" in groups.bases else "watched",
                cpu_share="cpu" in groups.bases,
                pids=True,
                disk=True,
                inodes=True if self._own_mounts else "watched",
                no_network=True,
                seccomp=True,
                own_user=self.privileged,
                disk_backed=self.privileged and not _disk.why_not() and not self._attempt(True, small),
                snapshot="copy",
                packages=self._packages,
            )
            return self._can

    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Box:
        """Starts an instance, the files of a snapshot copied in."""
        kept(snapshot)
        return filled(_Box(self, spec, self._own_mounts), snapshot)

    def close(self) -> None:
        """Ends everything that it made."""
        super().close()
        with self._lock:
            groups, self._groups = self._groups, None
        if groups is not None and self._owner == os.getpid():
            groups.close()
