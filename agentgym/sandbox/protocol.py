# SPDX-License-Identifier: Apache-2.0
"""What a sandbox is: the contract between tasks or verifiers that run untrusted code and the backends that hold it in.

Everything here is synchronous and may be called from several threads; `asyncio.to_thread` makes it asynchronous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from agentgym.errors import AgentGymError, InfrastructureError, UsageError
from agentgym.sandbox import _allowed
from agentgym.trajectory import Event

Language = Literal["python", "bash"]

Status = Literal["ok", "timeout", "interrupted", "output", "oom", "killed", "error"]
"""Why a run ended. ``ok``: by itself, with whatever exit code. ``timeout``: at its wall limit. ``interrupted``: by
`Session.interrupt`. ``output``: it wrote more than `Limits.output_stop`. ``oom``: for want of memory. ``killed``: by a
signal that was none of these, or with its whole sandbox. ``error``: it could not be started, since what runs in the sandbox
already has used up its processes, memory or files. All of these are the doing of the code; what is not is an exception."""


class SandboxError(InfrastructureError):
    """A sandbox failed in a way that is not the doing of the code in it: never a score of zero."""


class SandboxDeadError(SandboxError):
    """The sandbox is gone: closed, killed with a run that could not be ended otherwise, or died. Its files are gone too."""


class SandboxExhaustedError(AgentGymError):
    """What runs in the sandbox has used up the processes or files that a new session needs: the doing of the code in it."""


class SandboxUnavailableError(UsageError):
    """This machine cannot run the backend; the text says what is missing and how to get it."""


class SandboxFileError(UsageError):
    """A file could not be read or written in the sandbox: missing, a link, too large, no space."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What code in one sandbox may use. Every number is enforced, or the backend refuses the spec."""

    wall_s: float = 10.0
    """Seconds that one run or turn may take; may be given again with each call."""
    cpu_s: int | None = None
    """Seconds of CPU time of any one process of a program (not of a session); None: as the wall limit allows."""
    cpus: float | None = None
    """Processors' worth of CPU time for all processes together; None: as many as there are."""
    memory: int = 512 << 20
    """Bytes for everything together: processes, files in memory, shared memory."""
    address_space: int | None = None
    """Bytes of virtual memory of any one process; None: twice `memory` and room for what is mapped beforehand."""
    pids: int = 64
    """Processes and threads at once."""
    disk: int = 64 << 20
    """Bytes of all files together, in the workspace, /tmp and /dev/shm. Files lie in memory and count there too, unless this
    is above `memory`: then they lie on the machine's disk (`Capabilities.disk_backed`)."""
    inodes: int = 8192
    """Files and folders together, everywhere that can be written."""
    open_files: int = 256
    """Descriptors of one process."""
    output: int = 1 << 20
    """Bytes kept of each output of a run; what is more is counted and dropped."""
    output_stop: int = 64 << 20
    """Bytes written in one run at which it is ended."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"sandbox limit {name} is {value}: it must be above 0")


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a backend."""

    limits: Limits = Limits()
    network: Literal["none"] | tuple[str, ...] = "none"
    """``none``: nothing but the sandbox's own loopback device. Otherwise TCP to exactly these, e.g. ``("pypi.org:443",
    "192.0.2.7:5432", "localhost:8000")``, the last being the host's own loopback; no patterns, no ranges. What is listed is a
    way out for whatever the code has seen. A name that leads into the host's own networks is not followed: list its address.
    Nothing else is reachable, and there is no DNS: names are in the sandbox's ``/etc/hosts`` (`Capabilities.network_allow`)."""
    env: dict[str, str] = {}
    """Environment variables besides the few that every sandbox has. Nothing of the host's environment is handed on."""
    require: tuple[str, ...] = ()
    """Names of `Capabilities` that must hold, e.g. ``("memory_total", "seccomp")``."""
    events: bool = False
    """Whether what the code does is observed from outside: `Sandbox.events`. Without it nothing is, at no cost."""
    protected: tuple[str, ...] = ()
    """Patterns of workspace paths that the code has no business to change, e.g. ``("tests/**", "*.lock")``: ``*`` and ``?``
    within a name, ``**`` for any folders; a folder stands for all that is in it. They are watched, not write-protected."""

    def __post_init__(self) -> None:
        if isinstance(self.network, tuple):
            _allowed.parse_all(self.network)
            if "no_network" in self.require:
                raise UsageError("a sandbox spec allows network entries and requires 'no_network': leave one of them out")
        elif self.network != "none":
            raise UsageError(f"sandbox network {self.network!r}: say 'none', or give a tuple of host:port")
        if self.protected and not self.events:
            raise UsageError("a sandbox spec names protected paths, but does not ask to be observed: add events=True")
        for pattern in self.protected:
            if not pattern.strip("/") or pattern.startswith("/") or ".." in pattern.split("/"):
                raise UsageError(f"protected path {pattern!r}: give a pattern relative to the workspace, without '..'")


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend really enforces on this machine, found out by doing it."""

    backend: str
    isolation: Literal["namespaces", "container", "none"]
    """How code is held in; ``none`` only behind an explicit flag."""
    memory_total: Literal["cgroup", "watched", ""]
    """How the total of memory is held: by the kernel; by adding up every 10 ms and killing; not at all."""
    cpu_share: bool
    """Whether `Limits.cpus` can be asked for."""
    pids: bool
    disk: bool
    inodes: bool | Literal["watched"]
    """Whether the number of files is held: by the kernel; by counting every 10 ms and killing."""
    no_network: bool
    """Whether nothing but the sandbox's own loopback device can be reached, unless the spec lists more."""
    seccomp: bool
    own_user: bool
    """Whether code runs under a user id that nothing else on the machine has."""
    disk_backed: bool = False
    """Whether `Limits.disk` may be above `Limits.memory`: files then lie on the machine's disk, bytes and inodes limited all
    the same."""
    network_allow: bool = False
    """Whether `SandboxSpec.network` can be a list, to which connections are then held."""
    landlock: int = 0
    """Version of Landlock that stands behind the other walls, 0 without."""
    snapshot: Literal["overlay", "copy", ""] = ""
    """How forks get their files: shared until written, or copied."""
    sessions: bool = True
    events: tuple[str, ...] = ()
    """Families of `SandboxEvent` kinds that are observed when `SandboxSpec.events` asks for it; empty: none can be."""
    packages: tuple[str, ...] = ()
    """Packages that sandboxed Python finds beside the standard library."""


class ExecResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a run or a turn ended, and what it wrote."""

    status: Status
    exit_code: int | None
    """Below 0: the signal that ended it. None where it never came to an end of its own."""
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    """All that was written, kept or not."""
    stderr_bytes: int = 0
    wall_s: float = 0.0
    """Seconds, measured outside of the code's reach."""
    cpu_s: float | None = None
    """CPU seconds of the program and the children it waited for; None for turns of sessions."""
    session_over: bool = False
    """Whether the session of this turn has ended."""

    @property
    def ok(self) -> bool:
        """It ended by itself with exit code 0."""
        return self.status == "ok" and self.exit_code == 0

    @property
    def truncated(self) -> bool:
        """Whether something that was written is not here."""
        return self.stdout_bytes > len(self.stdout) or self.stderr_bytes > len(self.stderr)

    @property
    def text(self) -> str:
        """`stdout` as text, invalid bytes replaced. Untrusted: show it through `agentgym.report.text.plain`."""
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """`stderr` as text, invalid bytes replaced."""
        return self.stderr.decode(errors="replace")


class SandboxEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that code in a sandbox did or tried, as seen from outside of its reach.

    Kinds, by family (``docs/security.md`` says which are complete and which a lower bound):

    - ``process.exec``: a program was to be started.
    - ``network.connect``, ``network.bind``, ``network.send``: an address of the internet was to be used, allowed or not
      (the address is the one inside: see ``/etc/hosts`` there); ``network.socket``: a socket of a family that is refused.
    - ``clock.set``: the clock was to be set.
    - ``monitor.trace``, ``monitor.signal``, ``monitor.hide``, ``monitor.filter``: looking into other processes, signals to the
      sandbox's process 1, closing one's own memory to the observer, taking over its notifications.
    - ``privilege.call``: mounts, namespaces, kernel modules and the like, refused. ``call.refused``: any other that was.
    - ``file.created``, ``file.changed``, ``file.deleted``, ``file.mode``: see `Sandbox.manifest`; of protected paths at
      once, and ``file.opened`` (for writing) and ``file.attributes`` too.
    - ``events.dropped``: more happened than was kept; ``data`` counts it by kind.
    """

    seq: int
    """Counts from 1 over everything noticed in this sandbox: a gap is what was dropped."""
    kind: str
    resource: str = ""
    """Program, address, name of the system call, or path in the workspace. Untrusted text."""
    data: dict[str, Any] = {}
    """Details, as plain values; texts are cut. Untrusted."""
    time_s: float = 0.0
    """Seconds since the sandbox was made, by a clock outside of it."""
    pid: int = 0
    """Process id as the code itself sees it; 0 where it is not known, as for files."""
    run: int = 0
    """Which `Sandbox.exec` or `Session.run` of this sandbox was under way, from 1; 0 where none was or several were."""
    protected: bool = False
    """It concerns a path of `SandboxSpec.protected`."""

    def as_event(self, turn: int) -> Event:
        """As it is recorded in a trajectory.

        Args:
            turn: index of the turn in which it happened, -1 before the first.
        """
        details = {"seq": self.seq, "time_s": round(self.time_s, 6)}
        details |= {name: value for name in ("pid", "run", "protected") if (value := getattr(self, name))}
        return Event(turn, self.kind, "observer", self.resource, {**self.data, **details})


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One thing in a workspace."""

    path: str
    """Relative, with ``/``; bytes that are not UTF-8 as surrogate escapes."""
    kind: Literal["file", "folder", "link"]
    mode: int
    content: bytes = b""
    """Of a file; of a link, where it points."""


class Tree(msgspec.Struct, frozen=True):
    """The files of a workspace as they were at one moment."""

    entries: tuple[Entry, ...]
    refused: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what was left out."""

    @property
    def files(self) -> dict[str, bytes]:
        """Plain files by path."""
        return {e.path: e.content for e in self.entries if e.kind == "file"}

    def manifest(self) -> dict[str, tuple[str, int]]:
        """Path -> (sha256, mode), the state of a workspace as it is recorded and compared."""
        return {e.path: (hashlib.sha256(e.content).hexdigest(), e.mode) for e in self.entries if e.kind != "folder"}


class Snapshot(Protocol):
    """A workspace kept aside: any number of sandboxes may start from it. Processes and /tmp are not part of it."""

    @property
    def tree(self) -> Tree:
        """What it holds."""
        ...

    def close(self) -> None:
        """Frees it; sandboxes made from it live on."""
        ...


class Session(Protocol):
    """A shell or a Python interpreter that lives on between turns: variables, working directory, background jobs."""

    @property
    def alive(self) -> bool:
        """Whether it can take another turn, as far as the last answer told."""
        ...

    def run(self, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """Runs code and waits for it. The output is this turn's alone: a job that an earlier turn left running writes
        into the void. At its time limit a turn is interrupted; if that does not help, the session is ended.

        Raises:
            SandboxError: the session or its sandbox is gone, or busy with another turn.
        """
        ...

    def interrupt(self) -> bool:
        """As Ctrl-C in a terminal, from another thread; whether a turn was under way."""
        ...

    def close(self) -> None:
        """Ends it and the processes that descend from it."""
        ...


class Sandbox(Protocol):
    """One place where untrusted code runs and cannot get out of. A context manager."""

    @property
    def alive(self) -> bool:
        """Whether it still answers, as far as is known without asking."""
        ...

    def capabilities(self) -> Capabilities:
        """What is enforced."""
        ...

    def exec(
        self,
        code: str | None = None,
        lang: Language = "python",
        *,
        argv: Sequence[str] | None = None,
        stdin: bytes = b"",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> ExecResult:
        """Runs code in a fresh process, or a program by its arguments.

        Args:
            code: Python or shell source; up to 8 MiB, as `stdin`.
            lang: what `code` is.
            argv: instead of `code`: a program and its arguments.
            stdin: what it can read.
            cwd: where it starts; None: the workspace.
            env: environment variables besides the sandbox's own.
            timeout_s: wall limit in seconds; None: the spec's. At the limit every process in the sandbox that does not
                belong to a session or another run is killed.

        Raises:
            SandboxDeadError: there is no sandbox any more.
        """
        ...

    def session(self, lang: Language = "bash", *, env: Mapping[str, str] | None = None) -> Session:
        """Starts a stateful shell or interpreter.

        Raises:
            SandboxExhaustedError: what runs in the sandbox has left no room for it.
        """
        ...

    def put(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """Writes a file, folders above it included; relative paths lie in the workspace.

        Raises:
            SandboxFileError: it cannot be written there.
        """
        ...

    def get(self, path: str, *, most: int = 16 << 20) -> bytes:
        """Reads a plain file; links are not followed.

        Raises:
            SandboxFileError: it is missing, no plain file, or larger than `most` bytes.
        """
        ...

    def tree(self, *, most_files: int = 2000, most_bytes: int = 64 << 20, most_depth: int = 64) -> Tree:
        """All files of the workspace, read where no link can lead out of the sandbox; what is over a limit or no plain
        file is in `Tree.refused`."""
        ...

    def manifest(self) -> dict[str, tuple[str, int]]:
        """Path -> (sha256, mode) of every file and link in the workspace; ``""`` instead of a hash where one is over a limit.

        Of a link the hash is of where it points. Where events are asked for it is read from outside, files that have not
        changed since the last time are not read again, and what differs from the last time becomes ``file.*`` events: call it
        after each turn. The first call sets the state to compare with, as do `put` and a snapshot.
        """
        ...

    def events(self, since: int = 0) -> list[SandboxEvent]:
        """What was noticed, in order, everything up to the end of the last run included. Also after `close`.

        Args:
            since: the highest `SandboxEvent.seq` that was dealt with; those up to it are forgotten.

        Raises:
            UsageError: the spec did not ask for events.
        """
        ...

    def copy_out(self, to: str | Path, *, most_files: int = 2000, most_bytes: int = 64 << 20) -> Tree:
        """Ends all processes, then writes the workspace's plain files into a new folder of the host.

        Links are not written, nor names that the host could misread; both are in `Tree.refused`.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Keeps the workspace aside.

        Raises:
            SandboxError: some of it cannot be kept (the text names it).
        """
        ...

    def fork(self, snapshot: Snapshot | None = None) -> Sandbox:
        """A new sandbox that starts from a snapshot, or from this workspace as it is now."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot: processes, sessions and /tmp are gone."""
        ...

    def check(self) -> None:
        """Asks whether it lives.

        Raises:
            SandboxDeadError: it does not answer.
        """
        ...

    def close(self) -> None:
        """Ends every process and frees everything. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Backend(Protocol):
    """Makes sandboxes of one kind. A context manager: closing it closes what it made."""

    name: str

    def capabilities(self) -> Capabilities:
        """What it enforces here.

        Raises:
            SandboxUnavailableError: it cannot work on this machine.
        """
        ...

    def create(self, spec: SandboxSpec | None = None, snapshot: Snapshot | None = None) -> Sandbox:
        """A new sandbox, its workspace empty or as in a snapshot.

        Raises:
            UsageError: the spec asks for what this backend cannot enforce.
            SandboxUnavailableError: it cannot work on this machine.
        """
        ...

    def close(self) -> None:
        """Ends everything that it made."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def check_spec(spec: SandboxSpec, can: Capabilities) -> None:
    """Refuses a spec that asks for more than is enforced.

    Raises:
        UsageError: it does.
    """
    limits = spec.limits
    if limits.cpus is not None and not can.cpu_share:
        raise UsageError(f"the sandbox backend {can.backend!r} cannot limit the share of CPU time here: leave out `cpus`")
    for name in ("memory_total", "pids", "disk", "inodes"):
        if can.isolation != "none" and not getattr(can, name):
            raise UsageError(f"the sandbox backend {can.backend!r} cannot enforce {name} on this machine")
    if limits.disk > limits.memory and can.isolation != "none" and not can.disk_backed:
        raise UsageError(
            f"a disk limit of {limits.disk} bytes is above the memory limit of {limits.memory}, and the sandbox backend "
            f"{can.backend!r} keeps files in memory here: raise `memory`, lower `disk`, or use the backend 'namespace' as root "
            "on a machine with loop devices and mkfs.ext4, which keeps such files on disk"
        )
    if spec.network != "none" and not can.network_allow:
        raise UsageError(
            f"the sandbox backend {can.backend!r} cannot hold connections to a list of hosts on this machine, and the spec "
            f"allows {', '.join(spec.network)}: use the backend 'namespace', or network='none'"
        )
    if spec.events and not can.events:
        raise UsageError(
            f"the sandbox backend {can.backend!r} cannot observe what code does on this machine, and the spec asks for events."
        )
    for name in spec.require:
        if name not in Capabilities.__struct_fields__:
            raise UsageError(
                f"there is no sandbox capability {name!r}: choose from {', '.join(Capabilities.__struct_fields__)}"
            )
        if not getattr(can, name):
            raise UsageError(
                f"the sandbox backend {can.backend!r} does not have {name!r} on this machine, which the task needs"
            )
