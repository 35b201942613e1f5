# SPDX-License-Identifier: Apache-2.0
"""The built-in backend: Linux namespaces, a system call filter and control groups, in standard-library Python.

Works as root and as a plain user, with control groups of version 1, version 2 or none, without any other program. Python
code starts in a fork of a process that has packages imported already, so numpy and sympy cost nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.errors import UsageError
from agentgym.sandbox import _disk, _guest
from agentgym.sandbox._backend import READY_S, GuestBackend, await_guest, environment, filled, kept
from agentgym.sandbox._channel import Channel, ClosedError, LateError, SocketStream
from agentgym.sandbox._client import GuestSandbox, KeptSnapshot
from agentgym.sandbox._events import Feed, FeedLostError
from agentgym.sandbox.protocol import (
    Capabilities,
    Limits,
    SandboxError,
    SandboxSpec,
    SandboxUnavailableError,
    Snapshot,
)

if TYPE_CHECKING:
    from agentgym.sandbox._relay import Opening, Relay, Relays

_START_S = 60.0


_ONE_OF_EACH = b"""
import os, socket, time
open("f", "w").close()
for call, *arguments in (
    (os.kill, 1, 0),
    (socket.socket().connect, ("127.0.0.1", 9)),
    (time.clock_settime, 0, 0),
    (os.chroot, "/"),
    (os.execv, "/bin/true", ["true"]),
):
    try:
        call(*arguments)
    except OSError:
        pass
"""


def _program(script: bytes) -> dict[str, Any]:
    """The request that runs a script of ours in a sandbox."""
    request = {"do": "exec", "lang": "python", "argv": [], "script": len(script), "cwd": None, "env": {}, "cpu_s": None}
    return {**request, "timeout": READY_S, "keep": 0, "most": 1 << 20}


class LauncherError(Exception):
    """The launcher could not do what was asked, or is gone."""

    def __init__(self, message: str, *, errno: int = 0, gone: bool = False) -> None:
        super().__init__(message)
        self.errno = errno
        self.gone = gone


class Launcher:
    """The helper process that makes sandboxes, as seen from the host. One request at a time; never used after a fork."""

    def __init__(self, packages: list[tuple[str, str]], preimport: Sequence[str]) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        base = getattr(sys, "_base_executable", sys.executable) or sys.executable
        script = str(Path(__file__).with_name("_launcher.py"))
        # nothing of the host's environment, where keys live; one thread, since it forks
        env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        command = [base, "-I", "-S", "-B", script, str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket.settimeout(_START_S)
        try:
            self.told = self.ask({"packages": packages, "preimport": list(preimport)})
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            LauncherError: it was refused, or the launcher is gone.
        """
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], list(fds))
                data = self._socket.recv(1 << 16)
            except OSError as e:
                self._socket.close()
                raise LauncherError(f"the sandbox launcher does not answer: {e}", gone=True) from None
            except BaseException:  # Ctrl-C between question and answer: the next question would get this answer
                self._socket.close()
                raise
        if not data:
            raise LauncherError("the sandbox launcher has died", gone=True)
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            where = f" ({answer['where']})" if "where" in answer else ""
            raise LauncherError(f"{answer['error']}{where}", errno=answer.get("errno", 0))
        return answer

    def usable(self) -> bool:
        """Whether it lives and questions and answers are in step."""
        return self._socket.fileno() >= 0 and self.process.poll() is None

    def close(self) -> None:
        """Ends it and every sandbox that it made."""
        self._socket.close()
        if self.owner != os.getpid():
            return
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Box:
    """One sandbox of a launcher."""

    def __init__(
        self, launcher: Launcher, spec: SandboxSpec, store: str | None, path: str, relays: Relays | None = None
    ) -> None:
        limits = spec.limits
        self.launcher = launcher
        ours, theirs = socket.socketpair()
        env = {"PATH": path, **environment(spec)}
        asked: dict[str, Any] = {
            "memory": limits.memory,
            "pids": limits.pids,
            "cpus": limits.cpus,
            "disk": limits.disk,
            "inodes": limits.inodes,
            "open_files": limits.open_files,
            "address_space": limits.address_space or 2 * limits.memory + (512 << 20),
            "env": env,
            "observed": spec.events,
            "protected": list(spec.protected),
            "on_disk": limits.disk > limits.memory,
            "network": None,
        }
        self.relay: Relay | None = None
        opening: Opening | None = None
        if spec.network != "none" and relays is not None:
            opening = relays.opening(spec.network)
            asked["network"] = opening.asked
            env.setdefault("SSL_CERT_FILE", opening.certificates)
        disk = -1
        self.feed: Feed | None = None
        told, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if spec.events else (None, None)
        with theirs, tells or contextlib.nullcontext(), opening or contextlib.nullcontext():
            try:
                given = [theirs.fileno()]
                if tells is not None:
                    given.append(tells.fileno())
                if asked["on_disk"]:
                    disk = _disk.make(limits.disk, limits.inodes)
                    given.append(disk)
                if opening is not None:
                    given.append(opening.theirs.fileno())
                made = launcher.ask({"do": "create", "spec": asked, "store": store}, given)
            except BaseException:
                ours.close()
                if told is not None:
                    told.close()
                if opening is not None:
                    opening.close()
                raise
            finally:
                if disk >= 0:
                    os.close(disk)
        if told is not None:
            self.feed = Feed(told)
        self.orphaned = False
        """Whether it died with its launcher: not the doing of the code in it."""
        self._number: int = made["number"]
        self._seen: int = made["oom"]
        self.pid: int = made["pid"]
        self.channel = Channel(SocketStream(ours))
        try:
            await_guest(self.channel, "the sandbox")
            if opening is not None:
                self.relay = opening.relay()
        except BaseException as e:
            if opening is not None:
                opening.close()
            self.channel.close()
            self.kill()
            if isinstance(e, SandboxError):
                raise LauncherError(str(e)) from None
            raise
        if self.feed is not None and store is not None:
            try:
                self.feed.manifest(quiet=True)
            except FeedLostError as e:
                self.channel.close()
                self.kill()
                raise LauncherError(str(e)) from None

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed something in it since the last question."""
        try:
            count: int = self.launcher.ask({"do": "oom", "number": self._number})["oom"]
        except LauncherError:
            return False
        more, self._seen = count > self._seen, count
        return more

    def kill(self) -> bool:
        """Ends it from outside."""
        if self.relay is not None:
            self.relay.close()
        if self.feed is not None:
            self.feed.close()
        if self.launcher.owner != os.getpid():
            return False
        try:
            count: int = self.launcher.ask({"do": "kill", "number": self._number})["oom"]
        except LauncherError as e:
            self.orphaned = e.gone  # the launcher is gone, and its sandboxes with it
            return False
        return count > self._seen


class _Spares:
    """Sandboxes made ahead by a thread, for whoever asks next for the same as the last one did."""

    def __init__(self, count: int, make: Callable[[SandboxSpec], _Box]) -> None:
        self._count = count
        self._make = make
        self._changed = threading.Condition()
        self._spec: SandboxSpec | None = None
        self._ready: list[_Box] = []
        self._closed = False
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()

    def take(self, spec: SandboxSpec, launcher: Launcher) -> _Box | None:
        """A fresh sandbox that is ready, or None."""
        if self._count <= 0 or self._owner != os.getpid():
            return None
        with self._changed:
            stale = [box for box in self._ready if self._spec != spec or box.launcher is not launcher]
            self._ready = [box for box in self._ready if box not in stale]
            self._spec = spec
            box = self._ready.pop(0) if self._ready else None
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._fill, name="agentgym-sandboxes", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        _discard(stale)
        return box

    def _fill(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._ready) < self._count)
                spec = self._spec
                if self._closed or spec is None:
                    return
            try:
                made = self._make(spec)
            except Exception:  # whoever asks next is told why, by trying it himself
                with self._changed:
                    if not self._closed:
                        self._changed.wait()
                continue
            with self._changed:
                wanted = not self._closed and self._spec == spec
                if wanted:
                    self._ready.append(made)
                    self._changed.notify_all()
            if not wanted:
                _discard([made])

    def wait(self, timeout_s: float = 30) -> bool:
        """Until all that are wanted are ready; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._count, timeout_s)

    def close(self) -> None:
        """Ends those that nobody took, and the thread."""
        if self._owner != os.getpid():
            return
        with self._changed:
            self._closed = True
            left, self._ready = self._ready, []
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(60)
        _discard(left)


def _discard(boxes: list[_Box]) -> None:
    for box in boxes:
        box.channel.close()
        box.kill()


class NamespaceBackend(GuestBackend):
    """Makes sandboxes out of Linux namespaces.

    Args:
        packages: distributions that sandboxed Python can import, with what they require; none of the host's others.
        preimport: modules imported beforehand; None: those of `packages`.
        spare: how many sandboxes to keep ready for the next who asks for the same spec. Making one takes as long, but nobody
            waits for it.
    """

    name = "namespace"

    def __init__(
        self, packages: Sequence[str] = ("numpy", "sympy"), preimport: Sequence[str] | None = None, *, spare: int = 0
    ) -> None:
        super().__init__()
        self._packages = tuple(packages)
        self._preimport = tuple(packages if preimport is None else preimport)
        self._launcher: Launcher | None = None
        self._can: Capabilities | None = None
        self._unobserved = ""
        """Why nothing can be observed here."""
        self._closed = False
        self._carriers: Relays | None = None
        self._spares = _Spares(spare, lambda spec: self._new_box(spec, None))

    # the helper

    def launcher(self) -> Launcher:
        """The helper process, started when it is first needed, anew where it has died.

        Raises:
            SandboxUnavailableError: this machine does not allow it.
        """
        with self._lock:
            if self._closed:
                raise UsageError("this sandbox backend is closed")
            known = self._launcher
            if known is not None and known.owner == os.getpid():
                if known.usable():
                    return known
                known.close()
            if sys.platform != "linux":
                raise SandboxUnavailableError(elsewhere("the built-in sandbox"))
            try:
                self._launcher = Launcher(shown_packages(self._packages), self._preimport)
            except LauncherError as e:
                raise SandboxUnavailableError(_instructions(str(e))) from None
            return self._launcher

    def capabilities(self) -> Capabilities:
        """What it enforces here, after one sandbox was really made.

        Raises:
            SandboxUnavailableError: this machine does not allow it; the text says what to do.
        """
        with self._lock:
            if self._can is None:
                try:
                    launcher = self.launcher()
                    path = self._path(launcher)
                    box = _Box(launcher, SandboxSpec(), None, path)
                except LauncherError as e:
                    raise SandboxUnavailableError(_instructions(str(e))) from None
                box.channel.close()
                box.kill()
                told = launcher.told
                self._can = Capabilities(
                    backend=self.name,
                    isolation="namespaces",
                    memory_total="cgroup" if "memory" in told["controllers"] else "watched",
                    cpu_share="cpu" in told["controllers"],
                    pids=True,
                    disk=True,
                    inodes=True,
                    no_network=True,
                    seccomp=True,
                    own_user=told["privileged"],
                    network_allow=self._allows(launcher, path),
                    disk_backed=told["privileged"] and self._disk_backed(launcher, path),
                    landlock=told["landlock"],
                    snapshot="overlay",
                    events=self._observes(launcher, path),
                    packages=self._packages,
                )
            return self._can

    def _relays(self, spec: SandboxSpec) -> Relays | None:
        """What carries the connections of sandboxes that have a network, loaded when the first one is asked for."""
        if spec.network == "none":
            return None
        with self._lock:
            if self._carriers is None:
                from agentgym.sandbox._relay import Relays

                self._carriers = Relays()
            return self._carriers

    @staticmethod
    def _allows(launcher: Launcher, path: str) -> bool:
        """Whether what is listed is reached here: by letting a sandbox reach this process."""
        from agentgym.sandbox._relay import Relays

        relays = Relays()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(READY_S)
            port: int = server.getsockname()[1]
            script = b"import socket\nsocket.create_connection(('127.0.0.1', %d)).sendall(b'reached')" % port
            try:
                box = _Box(launcher, SandboxSpec(network=(f"127.0.0.1:{port}",)), None, path, relays)
            except (LauncherError, SandboxError):
                return False
            try:
                next(box.channel.ask(_program(script), script, READY_S))
                with server.accept()[0] as reached:
                    return reached.recv(7) == b"reached"
            except (ClosedError, LateError, OSError):
                return False
            finally:
                box.channel.close()
                box.kill()
                relays.close()  # whoever asks for no network has no thread for it

    def _observes(self, launcher: Launcher, path: str) -> tuple[str, ...]:
        """Families of events that really arrive here: of a sandbox in which something of each is done."""
        try:
            box = _Box(launcher, SandboxSpec(events=True, protected=("f",)), None, path)
        except LauncherError as e:
            self._unobserved = str(e)
            return ()
        kinds = set()
        try:
            next(box.channel.ask(_program(_ONE_OF_EACH), _ONE_OF_EACH, READY_S))
            if box.feed is not None:
                box.feed.manifest()
                kinds = {event.kind.partition(".")[0] for event in box.feed.take()}
        except (ClosedError, LateError, FeedLostError) as e:
            self._unobserved = f"{type(e).__name__} {e}"
        finally:
            box.channel.close()
            box.kill()
            with contextlib.suppress(LauncherError):
                launcher.ask({"do": "rest"})  # whoever asks for no events has no observer
        return tuple(sorted(kinds - {"events"}))

    @staticmethod
    def _disk_backed(launcher: Launcher, path: str) -> bool:
        """Whether files can lie on disk, found out by letting them."""
        if _disk.why_not():
            return False
        limits = Limits(memory=16 << 20, disk=17 << 20, inodes=16, address_space=4 << 30)
        try:
            box = _Box(launcher, SandboxSpec(limits=limits), None, path)
        except (LauncherError, SandboxError):
            return False
        box.channel.close()
        box.kill()
        return True

    @staticmethod
    def _path(launcher: Launcher) -> str:
        folder = os.path.dirname(os.path.realpath(launcher.told["python"]))
        return ":".join(dict.fromkeys([folder, "/usr/local/bin", "/usr/bin", "/bin"]))

    # sandboxes

    def create(self, spec: SandboxSpec | None = None, snapshot: Snapshot | None = None) -> GuestSandbox:
        """A new sandbox.

        Raises:
            UsageError: the spec asks for what cannot be enforced.
            SandboxUnavailableError: this machine does not allow it.
        """
        try:
            return super().create(spec, snapshot)
        except UsageError as e:
            if spec is not None and spec.events and not self.capabilities().events:
                raise UsageError(f"{e} Cause: {self._unobserved}. Linux 5.9 or newer is needed.") from None
            raise

    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> _Box:
        """An instance: one that is ready, or a new one."""
        ready = self._spares.take(spec, self.launcher()) if snapshot is None else None
        return ready or self._new_box(spec, snapshot)

    def _new_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> _Box:
        launcher = self.launcher()
        on_disk = spec.limits.disk > spec.limits.memory
        try:
            # what is on disk is large: it is copied there, and not laid out in memory for all who may start from it
            store = None if on_disk else self._store(launcher, snapshot)
            box = _Box(launcher, spec, store, self._path(launcher), self._relays(spec))
        except LauncherError as e:
            raise SandboxError(f"no sandbox could be made: {e}") from None
        return filled(box, snapshot) if on_disk else box

    def _store(self, launcher: Launcher, snapshot: Snapshot | None) -> str | None:
        """Where the launcher has a snapshot laid out; done once for each."""
        files = kept(snapshot)
        if files is None:
            return None
        with self._lock:
            known = files.places.get(launcher)
            if known is None:
                name = self._lay_out(launcher, files)

                def free() -> None:
                    with contextlib.suppress(LauncherError):
                        launcher.ask({"do": "drop", "store": name})

                known = files.places[launcher] = (name, free)
        return str(known[0])

    @staticmethod
    def _lay_out(launcher: Launcher, snapshot: KeptSnapshot) -> str:
        fd = os.memfd_create("snapshot", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as f:
            for entries, data in snapshot.frames:
                head = json.dumps(entries).encode()
                f.write(_guest.HEADER.pack(len(head), len(data)))
                f.write(head)
                f.write(data)
            f.flush()
            return str(launcher.ask({"do": "store"}, [f.fileno()])["store"])

    def close(self) -> None:
        """Ends everything that it made."""
        self._spares.close()
        with self._lock:
            self._closed = True
            launcher, self._launcher = self._launcher, None
        super().close()
        if launcher is not None:
            launcher.close()
        if self._carriers is not None:
            self._carriers.close()


def shown_packages(names: Sequence[str]) -> list[tuple[str, str]]:
    """(path, name) of everything that distributions and what they require have in site-packages.

    Raises:
        UsageError: one is not installed.
    """
    shown: dict[str, str] = {}
    todo, seen = list(names), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise UsageError(f"package {name!r} for the sandbox is not installed: pip install {name}") from None
            continue
        for file in distribution.files or ():
            top = file.parts[0]
            if top in ("..", "/", "__pycache__") or top.endswith((".pth", ".egg-link")):
                continue
            path = str(distribution.locate_file(top))
            if os.path.exists(path):
                shown[top] = os.path.realpath(path)
        for requirement in distribution.requires or ():
            condition = requirement.partition(";")[2]
            match = re.match(r"[\w.-]+", requirement)
            if match and "extra" not in condition:
                todo.append(match[0])
    return [(path, name) for name, path in sorted(shown.items())]


def elsewhere(what: str) -> str:
    """Why a backend that needs Linux cannot work on this system, and what to do."""
    return (
        f"{what} needs Linux, and this is {sys.platform}: use a container engine (backend 'docker': "
        "pip install 'agentgym-harness[docker]' and start Docker). The unsafe backend does not hold anything in; "
        "it has to be asked for by name and flag."
    )


def _instructions(cause: str) -> str:
    """Why the backend cannot work here and what to do about it."""
    return f"the built-in sandbox cannot work here: {cause}. What to do: {steps_to_namespaces()}"


def _setting(name: str) -> str:
    """A value of the kernel's, by its place below /proc/sys; empty where there is none."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def steps_to_namespaces(
    setting: Callable[[str], str] = _setting, *, root: bool | None = None, contained: bool | None = None
) -> str:
    """What to change on this machine so that it lets programs make namespaces.

    Args:
        setting: tells a value of the kernel's.
        root: whether root asks; None: whether this process is root's.
        contained: whether this is a container; None: as far as its files tell.
    """
    advice = []
    root = os.getuid() == 0 if root is None else root
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" and not root:
        advice.append(
            "this system lets only programs that AppArmor knows use user namespaces: "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` (or an AppArmor profile with `userns,` for Python), "
            "or install bubblewrap with its profile bwrap-userns-restrict (`sudo apt install bubblewrap apparmor-profiles`), "
            "for the backend 'bwrap'"
        )
    if setting("kernel/unprivileged_userns_clone") == "0":
        advice.append("user namespaces are off for plain users: `sudo sysctl kernel.unprivileged_userns_clone=1`")
    if setting("user/max_user_namespaces") == "0":
        advice.append("no user namespaces are allowed: `sudo sysctl user.max_user_namespaces=15000`")
    if contained or (contained is None and (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists())):
        advice.append(
            "this is a container, which usually may not make namespaces: start it with "
            "`--security-opt seccomp=unconfined --security-opt systempaths=unconfined --cap-add SYS_ADMIN`"
        )
    if not advice:
        advice.append("the kernel must allow user, mount, pid and network namespaces (Linux 5.14 or newer), as root or not")
    steps = "; or ".join([*advice, "use a container engine: backend 'docker'"])
    return f"{steps}. Untrusted code is not run without a sandbox."
