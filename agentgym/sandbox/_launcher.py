# SPDX-License-Identifier: Apache-2.0
"""The process that makes sandboxes: freshly executed, with a clean environment and nothing secret in its memory.

It builds the file system that sandboxes see, forgets the host's, imports the packages that sandboxed Python shall find
warm, and then forks a sandbox for each request. Started by `agentgym.sandbox.namespace` as
``python -I -S _launcher.py FD``; ends, with all its sandboxes, when the host hangs up. Standard library only.

As root each sandbox gets a user id of its own that nothing else uses; as a plain user this process first enters a user
namespace of its own, and sandboxes run under the caller's id, without any privilege.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import glob
import json
import os
import resource
import select
import shutil
import signal
import site
import socket
import struct
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from agentgym.sandbox import _groups, _guest, _linux, _observer, _seccomp
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import _groups
    import _guest
    import _linux
    import _observer
    import _seccomp

    del sys.path[0]

AGENT = 65534
"""User and group id inside every sandbox."""
_TEMPORARY = _linux.MS_NOSUID | _linux.MS_NODEV
_WRITABLE = ("/workspace", "/tmp", "/dev/shm", "/run")
_DEVICES = ("/proc", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Whom TLS trusts inside, for sandboxes with a network: who the host trusts."""
_CERTIFICATES = (CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
_FIXED_IN_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")


# what sandboxes see


def build_root(root: str, packages: list[tuple[str, str]]) -> list[str]:
    """Builds the read-only tree at ``root``; where packages lie in it, for ``sys.path``.

    Args:
        packages: (source, name) of files and folders to show in the interpreter's site-packages.
    """
    _linux.mount("tmpfs", root, "tmpfs", _TEMPORARY, "size=2m,nr_inodes=2048,mode=755")
    for name in ("proc", "tmp", "workspace", "dev", "dev/shm", "etc", "run", "old", "home", "var", "nothing"):
        os.mkdir(f"{root}/{name}")
    os.symlink("/tmp", f"{root}/var/tmp")
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), f"{root}/{name}")
        elif os.path.isdir("/" + name):
            os.mkdir(f"{root}/{name}")
            _linux.bind_read_only("/" + name, f"{root}/{name}")
    os.mkdir(root + "/usr")
    _linux.bind_read_only("/usr", root + "/usr")
    prefix = os.path.realpath(sys.base_prefix)
    if not (prefix + "/").startswith("/usr/"):
        if prefix in ("/", os.path.expanduser("~"), "/root", "/home"):
            raise OSError(f"the interpreter's prefix is {prefix}: all of it would be shown to sandboxed code")
        os.makedirs(root + prefix)
        _linux.bind_read_only(prefix, root + prefix)

    # packages of the host are not shown: among them may be tests, answers and this project itself
    sites = [os.path.realpath(p) for p in site.getsitepackages([sys.base_prefix]) if os.path.isdir(p)]
    system = glob.glob("/usr/lib/python3*/dist-packages") + glob.glob("/usr/local/lib/python3*/*-packages")
    sources = [p for p in ("/usr/src", "/usr/local/src", prefix + "/envs", prefix + "/pkgs") if os.path.isdir(p)]
    own = sites[0] if sites else ""
    for place in dict.fromkeys([*sites, *map(os.path.realpath, system), *sources]):
        if not os.path.isdir(root + place):
            continue
        if place != own:
            _linux.bind_read_only(root + "/nothing", root + place)
            continue
        _linux.mount("tmpfs", root + place, "tmpfs", _TEMPORARY, "size=8m,mode=755")
        for source, name in packages:
            target = f"{root}{place}/{name}"
            if os.path.isfile(source):
                shutil.copyfile(source, target)
            elif name.endswith(".dist-info"):  # small, and each mount less is a mount less in every sandbox
                shutil.copytree(source, target)
            else:
                os.mkdir(target)
                _linux.bind_read_only(source, target)
        _linux.mount(None, root + place, None, _linux.MS_BIND | _linux.MS_REMOUNT | _linux.MS_RDONLY | _TEMPORARY)

    for name in ("null", "zero", "full", "random", "urandom"):
        with open(f"{root}/dev/{name}", "w"):
            pass
        _linux.mount(f"/dev/{name}", f"{root}/dev/{name}", None, _linux.MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    files = {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{AGENT}:{AGENT}::/workspace:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{AGENT}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "bash.bashrc": "",
        "profile": "",
    }
    for name, text in files.items():
        with open(f"{root}/etc/{name}", "w", encoding="utf-8") as f:
            f.write(text)
    for name in ("ld.so.cache", "ld.so.conf", "localtime", "mime.types"):
        if os.path.isfile("/etc/" + name):
            shutil.copyfile("/etc/" + name, f"{root}/etc/{name}")
    for name in _CERTIFICATES:
        if os.path.isfile(name):
            os.makedirs(os.path.dirname(root + CERTIFICATES))
            shutil.copyfile(name, root + CERTIFICATES)
            break
    if os.path.isdir("/etc/alternatives"):
        os.mkdir(root + "/etc/alternatives")
        _linux.bind_read_only("/etc/alternatives", root + "/etc/alternatives")
    _linux.mount(None, root, None, _linux.MS_BIND | _linux.MS_REMOUNT | _linux.MS_RDONLY | _TEMPORARY)
    return [own] if own else []


# one sandbox


class Plan:
    """What each sandbox does alike, worked out once: a child of a fork pays for every page that it touches."""

    def __init__(self, accounted: bool) -> None:
        root, data = "/box", "/box/run"
        bind, again = _linux.MS_BIND, _linux.MS_BIND | _linux.MS_REMOUNT | _linux.MS_RDONLY | _TEMPORARY | _linux.MS_NOEXEC
        self.accounted = accounted
        self.filter = _linux.prepare_filter(_seccomp.program(_linux.MACHINE, accounted=accounted))
        self.observed_filter = _linux.prepare_filter(_seccomp.program(_linux.MACHINE, accounted=accounted, observed=True))
        self.root = _linux.prepare_mounts([(root, root, None, bind | _linux.MS_REC, None)])
        self.folders = ((data + "/tmp", 0o1777), (data + "/shm", 0o1777), (data + "/workspace", 0o755))
        self.layers = (data + "/upper", data + "/work")
        self.binds = _linux.prepare_mounts(
            [(data + "/tmp", root + "/tmp", None, bind, None), (data + "/shm", root + "/dev/shm", None, bind, None)]
        )
        self.workspace = _linux.prepare_mounts([(data + "/workspace", root + "/workspace", None, bind, None)])
        self.rest = _linux.prepare_mounts(
            [
                ("tmpfs", data, "tmpfs", _TEMPORARY, "size=16m,nr_inodes=1024,mode=755"),
                ("proc", root + "/proc", "proc", _TEMPORARY | _linux.MS_NOEXEC, None),
            ]
        )
        fixed = [name for name in _FIXED_IN_PROC if os.path.exists("/proc/" + name)]
        hidden = [name for name in _linux.HIDDEN_IN_PROC if os.path.exists("/proc/" + name)]
        self.proc = _linux.prepare_mounts(
            [
                step
                for name in fixed
                for step in (
                    ("/proc/" + name, "/proc/" + name, None, bind | _linux.MS_REC, None),
                    (None, "/proc/" + name, None, again, None),
                )
            ]
            + [("/dev/null", "/proc/" + name, None, bind, None) for name in hidden]
        )


def become_sandbox(
    channel: int, spec: dict[str, Any], lower: str | None, plan: Plan, disk: str = "", observer: int = -1, network: int = -1
) -> NoReturn:
    """In the new process, process 1 of its namespaces: shuts itself in and serves the host. Never returns.

    Args:
        disk: where a file system of the host's disk is mounted for it, empty without.
        observer: a socket to the process that is to observe, -1 without.
        network: a socket to the host, which is to get those that listen for allowed connections, -1 without.
    """
    try:
        os.setresgid(AGENT, AGENT, AGENT)
        os.setresuid(AGENT, AGENT, AGENT)
        _linux.prctl(_linux.PR_SET_PDEATHSIG, 9, 0, 0, 0)
        _linux.loopback_up()
        _linux.set_host_name("sandbox")
        _linux.do_mounts(plan.root)
        if network >= 0:
            hand_over_listeners(network, spec["network"])
        data = "/box/run"
        inodes = spec["inodes"] + (4 if lower is None else 7)  # and the folders made here
        if disk:  # made by the launcher, whose mounts this process has copies of
            _linux.mount(disk, data, None, _linux.MS_BIND)
        else:
            _linux.mount("tmpfs", data, "tmpfs", _TEMPORARY, f"size={spec['disk']},nr_inodes={inodes},mode=755")
        for name, mode in plan.folders:
            os.mkdir(name)
            os.chmod(name, mode)
        _linux.do_mounts(plan.binds)
        if lower is None:
            _linux.do_mounts(plan.workspace)
        else:
            upper, work = plan.layers
            os.mkdir(upper)
            os.mkdir(work)
            options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
            _linux.mount("overlay", "/box/workspace", "overlay", _TEMPORARY, options)
        _linux.umount(data)
        _linux.do_mounts(plan.rest)
        _linux.pivot("/box", "old")
        _linux.do_mounts(plan.proc)
        for which, value in (
            (resource.RLIMIT_NPROC, spec["pids"] + 1),
            (resource.RLIMIT_AS, spec["address_space"]),
            (resource.RLIMIT_FSIZE, spec["disk"]),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_MEMLOCK, 65536),
            (resource.RLIMIT_SIGPENDING, 256),
            (resource.RLIMIT_STACK, 8 << 20),
            (resource.RLIMIT_NOFILE, 4096),
        ):
            resource.setrlimit(which, (value, value))
        os.chdir("/workspace")
        os.umask(0o022)
        os.environ.clear()
        os.environ.update(spec["env"])
        _linux.drop_capabilities()
        _linux.prctl(_linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if observer < 0:
            _linux.prctl(_linux.PR_SET_DUMPABLE, 0, 0, 0, 0)
        _linux.landlock(_WRITABLE, _DEVICES)
        if observer < 0:
            _linux.install_filter(plan.filter)
        else:
            _observer.hand_over(observer, _linux.install_observed_filter(plan.observed_filter))
        config = {
            "workspace": "/workspace",
            "run": "/run",
            "nofile": spec["open_files"],
            "memory": 0 if plan.accounted else spec["memory"],
            "counted": ["/tmp", "/run"],
            "first_victim": True,
            "child": _as_ordinary,
        }
        guest = _guest.Guest(channel, channel, config, _linux.clone)
        guest.answer(0, ready=True)
        guest.serve()
    except BaseException as e:
        text = f"{type(e).__name__}: {e} at line {traceback.extract_tb(e.__traceback__)[0].lineno}"
        head = json.dumps({"id": 0, "error": text}).encode()
        with contextlib.suppress(OSError):
            os.write(channel, _guest.HEADER.pack(len(head), 0) + head)
    os._exit(1)


def hand_over_listeners(hand: int, network: dict[str, Any]) -> None:
    """Listens, inside, where allowed hosts are to be found, and gives what listens to the host; none of it stays here."""
    _linux.mount("tmpfs", "/box/run", "tmpfs", _TEMPORARY, "size=64k,nr_inodes=4,mode=755")
    with open("/box/run/hosts", "wb") as f:
        f.write(network["hosts"].encode("ascii"))
    _linux.mount("/box/run/hosts", "/box/etc/hosts", None, _linux.MS_BIND)
    fixed = _linux.MS_BIND | _linux.MS_REMOUNT | _linux.MS_RDONLY | _TEMPORARY | _linux.MS_NOEXEC
    _linux.mount(None, "/box/etc/hosts", None, fixed)
    _linux.umount("/box/run")
    for address in dict.fromkeys(address for address, _ in network["listen"]):
        if not address.startswith("127.") and address != "::1":
            _linux.add_address(address)
    listeners = []
    for address, port in network["listen"]:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        listeners.append(listener)
        listener.bind((address, port))
        listener.listen(64)
    with socket.socket(fileno=hand) as host:
        socket.send_fds(host, [b"l"], [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()


def _as_ordinary() -> None:
    """Programs may be looked into by their equals, as everywhere; process 1 may not."""
    _linux.prctl(_linux.PR_SET_DUMPABLE, 1, 0, 0, 0)


class Launcher:
    """Answers the host's requests, one at a time, each one message of JSON with descriptors beside it."""

    def __init__(self, host: socket.socket) -> None:
        self.host = host
        self.made = 0
        self.boxes: dict[int, int] = {}
        """Number -> pid of sandboxes that have not been reaped."""
        self.names: dict[int, str] = {}
        """Number -> control group of a sandbox."""
        self.stores: dict[str, int] = {}
        """Snapshot -> user id that owns its files."""
        self.users: dict[str, set[int]] = {}
        """Snapshot -> sandboxes that stand on it: its files stay until the last of them has ended."""
        self.dropped: set[str] = set()
        self.observer: socket.socket | None = None
        """To the process that observes, once there is one."""
        self.observer_pid = 0
        self.observed: set[int] = set()
        """Sandboxes that may not live without it."""
        self.privileged = False
        # far from ids that people, systemd or containers use
        self.first_id = 2_000_000_000 + int.from_bytes(os.urandom(2), "little") % 2000 * 65536

    def prepare(self, setup: dict[str, Any]) -> dict[str, Any]:
        """Leaves the host's file system; what the host is told about it."""
        self.groups = _groups.Groups()
        if os.getuid() == 0:
            with contextlib.suppress(OSError):  # root of a container that is not privileged
                _linux.unshare(_linux.NEWNS)
                os.setgroups([])
                self.privileged = True
        self.uid, self.gid = os.getuid(), os.getgid()
        if not self.privileged:
            _linux.unshare(_linux.NEWUSER | _linux.NEWNS)
            _map_ids("/proc/self", f"{self.uid} {self.uid} 1", f"{self.gid} {self.gid} 1")
        _linux.mount(None, "/", None, _linux.MS_REC | _linux.MS_PRIVATE)
        stage = "/sys"  # there everywhere, and nothing that sandboxes are to see lies below; groups are held by descriptors
        _linux.mount("tmpfs", stage, "tmpfs", _TEMPORARY, "size=1m,mode=755")
        for name in ("box", "store", "disk", "proc", "old"):
            os.mkdir(f"{stage}/{name}")
        _linux.mount("tmpfs", stage + "/store", "tmpfs", _TEMPORARY, "mode=755")
        paths = build_root(stage + "/box", setup["packages"])
        _linux.mount("/proc", stage + "/proc", None, _linux.MS_BIND | _linux.MS_REC)
        _linux.pivot(stage, "old")
        sys.path[:] = [*(p for p in sys.path if os.path.isdir("/box" + p)), *paths]
        self._import(setup["preimport"])
        self.plan = Plan("memory" in self.groups.bases)
        if "atexit" in sys.modules:  # hooks of this process's own imports are not for programs to run
            sys.modules["atexit"]._clear()
        _guest.open_standard_streams()
        gc.collect()
        gc.freeze()
        return {
            "groups": self.groups.kind,
            "why_no_groups": self.groups.why,
            "controllers": sorted(self.groups.bases),
            "privileged": self.privileged,
            "landlock": _linux.landlock_abi(),
            "huge_pages": _linux.collapse_memory(),
            "python": sys.executable,
        }

    @staticmethod
    def _import(names: list[str]) -> None:
        """Imports packages as sandboxes will see them: from inside of the tree."""
        outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot("/box")
        os.chdir("/")
        try:
            for name in names:
                __import__(name)
        finally:
            os.fchdir(outside)
            os.chroot(".")
            os.close(outside)

    def serve(self) -> None:
        """Until the host hangs up."""
        parent = os.getppid()
        while True:
            # children that the host forked may hold its end open: that it has died is seen by this process's new parent
            ready = select.select([self.host] if self.observer is None else [self.host, self.observer], [], [], 2.0)[0]
            if self.observer in ready:  # it never says anything: it is gone
                self.do_rest({}, [])
            if self.host not in ready:
                if os.getppid() != parent:
                    return
                continue
            message, fds, _, _ = socket.recv_fds(self.host, 1 << 16, 4)
            if not message:
                return
            request = json.loads(message)
            try:
                answer = getattr(self, "do_" + request["do"])(request, fds)
            except OSError as e:
                answer = {"error": f"{e.strerror or e}", "errno": e.errno or 0}
            finally:
                for fd in fds:
                    os.close(fd)
            self.host.send(json.dumps(answer).encode())

    def do_create(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Forks a sandbox that serves the given socket."""
        self._reap()
        self.made += 1
        number, spec, store = self.made, request["spec"], request["store"]
        flags = _linux.NEWUSER | _linux.NEWNS | _linux.NEWPID | _linux.NEWNET | _linux.NEWIPC | _linux.NEWUTS | _linux.NEWCGROUP
        more = iter(fds[1:])  # in this order, each only where it is said
        events = next(more) if spec["observed"] else -1
        disk = self._mount_disk(spec, number, next(more)) if spec["on_disk"] else ""
        network = next(more) if spec["network"] else -1
        gate_read, gate_write = os.pipe()
        observer = self._observer() if spec["observed"] else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if observer else (None, None)
        lower = None if store is None else f"/store/{store}"
        owner = self.stores[store] if store is not None else self.first_id + 2 * number
        pid = _linux.clone(flags)
        if pid == 0:
            hand = theirs.fileno() if theirs else -1
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) if fd >= 0 else -1 for fd in (hand, network)]
            channel = os.dup2(fds[0], 3) if fds[0] != 3 else 3
            os.set_inheritable(channel, False)  # what is spawned would have the way to the host, and could answer for us
            gate = os.dup2(gate_read, 4)
            hand, network = (os.dup2(fd, 5 + n, inheritable=False) if fd >= 0 else -1 for n, fd in enumerate(high))
            for fd in {5, 6} - {hand, network}:
                os.closerange(fd, fd + 1)
            os.closerange(7, 1 << 20)
            go = os.read(gate, 1)
            os.close(gate)
            if not go:
                os._exit(1)
            become_sandbox(channel, spec, lower, self.plan, disk, hand, network)
        self.boxes[number] = pid
        if store is not None:
            self.users[store].add(number)
        try:
            if ours and theirs and observer:
                with ours, theirs:
                    message = {"pid": pid, "protected": spec["protected"]}
                    socket.send_fds(observer, [json.dumps(message).encode()], [events, ours.fileno()])
                self.observed.add(number)
            if self.privileged:
                _map_ids(f"/proc/{pid}", f"{AGENT} {owner} 1", f"{AGENT} {owner} 1")
            else:
                _map_ids(f"/proc/{pid}", f"{AGENT} {self.uid} 1", f"{AGENT} {self.gid} 1")
            os.write(gate_write, b"g")
            # The kernel takes its time (a grace period) to move a process, so the sandbox sets itself up meanwhile. Nobody runs
            # anything in it before the host has this answer.
            seen = 0
            if self.plan.accounted:
                self.names[number] = self.groups.take(spec, pid)
                seen = self.groups.killed(self.names[number])
        finally:
            os.close(gate_read)
            os.close(gate_write)
            if disk:  # the sandbox has a mount of its own by now: the file system is gone with that
                _linux.umount(disk)
        return {"number": number, "pid": pid, "oom": seen}

    def _mount_disk(self, spec: dict[str, Any], number: int, device: int) -> str:
        """Where a file system of the host's disk is mounted, with folders that belong to a sandbox's user."""
        place, owner = f"/disk/{number}", self.first_id + 2 * number
        os.mkdir(place)
        try:
            _linux.mount_disk(device, place, spec["disk"], spec["inodes"] + len(self.plan.folders))
            os.chown(place, owner, owner)
        except OSError:
            with contextlib.suppress(OSError):
                _linux.umount(place)
            os.rmdir(place)
            raise
        return place

    def do_kill(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Ends a sandbox and waits until nothing of it is left."""
        number = request["number"]
        pid = self.boxes.pop(number, 0)
        self.observed.discard(number)
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # not before: to remove a folder takes away what others have mounted there
            os.rmdir(f"/disk/{number}")
        answer = self.do_oom(request, fds)
        name = self.names.pop(number, None)
        if name is not None:
            self.groups.give_back(name)
        for store, users in list(self.users.items()):
            users.discard(number)
            self._remove_if_unused(store)
        return answer

    def _observer(self) -> socket.socket:
        """The process that observes, started when it is first needed."""
        if self.observer is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.observer_pid = _linux.clone()
            if self.observer_pid == 0:
                _observer.become(theirs)
            theirs.close()
            self.observer = ours
        return self.observer

    def do_rest(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Ends the process that observes, and what it observes: that may not go on unseen."""
        if self.observer is not None:
            self.observer.close()
            self.observer = None
            for number in self.observed:
                if self.boxes.get(number, 0) > 0:
                    os.kill(self.boxes[number], signal.SIGKILL)
            self.observed.clear()
            os.kill(self.observer_pid, signal.SIGKILL)
            os.waitpid(self.observer_pid, 0)
        return {}

    def do_oom(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """How many of its processes the kernel killed for want of memory."""
        name = self.names.get(request["number"])
        return {"oom": 0 if name is None else self.groups.killed(name)}

    def do_store(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Unpacks a snapshot, given as a file, where sandboxes can stand on it."""
        self.made += 1
        name, owner = str(self.made), self.first_id + 2 * self.made + 1
        os.mkdir(f"/store/{name}")
        if self.privileged:
            os.chown(f"/store/{name}", owner, owner)
        pid = _linux.clone()
        if pid == 0:
            try:
                os.chroot(f"/store/{name}")
                os.chdir("/")
                if self.privileged:
                    os.setresgid(owner, owner, owner)
                    os.setresuid(owner, owner, owner)
                _linux.drop_capabilities()
                os.umask(0)
                with os.fdopen(os.dup(fds[0]), "rb") as f:
                    f.seek(0)
                    while header := f.read(8):
                        head, body = struct.unpack("<II", header)
                        entries = json.loads(f.read(head))
                        _guest.unpack("/", entries, memoryview(f.read(body)))
                os._exit(0)
            except BaseException:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        if status:
            shutil.rmtree(f"/store/{name}", ignore_errors=True)
            raise OSError(0, "the snapshot could not be unpacked")
        self.stores[name] = owner
        self.users[name] = set()
        return {"store": name}

    def do_drop(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Forgets a snapshot, as soon as no sandbox stands on it any more."""
        if request["store"] in self.stores:
            self.dropped.add(request["store"])
            self._remove_if_unused(request["store"])
        return {}

    def _remove_if_unused(self, store: str) -> None:
        if store in self.dropped and not self.users[store]:
            self.dropped.discard(store)
            del self.stores[store], self.users[store]
            shutil.rmtree(f"/store/{store}", ignore_errors=True)

    def _reap(self) -> None:
        """Collects sandboxes that died by themselves; their groups stay until the host asks for the cause."""
        for number, pid in self.boxes.items():
            if pid > 0 and os.waitpid(pid, os.WNOHANG)[0] == pid:
                self.boxes[number] = 0

    def close(self) -> None:
        """Ends every sandbox."""
        for number in list(self.boxes):
            self.do_kill({"number": number}, [])
        self.do_rest({}, [])
        self.groups.close()


def _map_ids(process: str, users: str, groups: str) -> None:
    for name, text in (("/setgroups", b"deny"), ("/uid_map", users.encode()), ("/gid_map", groups.encode())):
        fd = os.open(process + name, os.O_WRONLY)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)


def main() -> None:
    host = socket.socket(fileno=int(sys.argv[1]))
    host.set_inheritable(False)
    _linux.prctl(_linux.PR_SET_PDEATHSIG, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the host's terminal is the host's to handle
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    setup = json.loads(host.recv(1 << 20))
    launcher = Launcher(host)
    try:
        told = launcher.prepare(setup)
    except BaseException as e:
        launcher.groups.close()
        place = traceback.extract_tb(e.__traceback__)[-1]
        text = e.strerror or str(e) if isinstance(e, OSError) else f"{type(e).__name__}: {e}"
        host.send(json.dumps({"error": text, "where": f"{os.path.basename(place.filename)}:{place.lineno}"}).encode())
        os._exit(1)
    host.send(json.dumps(told).encode())
    try:
        launcher.serve()
    finally:
        launcher.close()
        os._exit(0)


if __name__ == "__main__":
    main()
