# SPDX-License-Identifier: Apache-2.0
"""Control groups of the kernel around sandboxes: version 1, version 2 or none, whatever this process may make.

Standard library only and no import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import time
from typing import Any


class Groups:
    """Control groups for memory, processes and CPU time, where this process may make some."""

    def __init__(
        self, tag: str = "", *, process: str = "/proc/self", second: tuple[str, ...] = ("memory", "cpu", "pids")
    ) -> None:
        """Finds what this process may use and makes a folder of its own there.

        Args:
            tag: to be told apart from others of the same process.
            process: where ``mountinfo`` and ``cgroup`` tell what is mounted.
            second: what is used of a hierarchy of version 2; the first of them must be there.
        """
        self.tag = tag
        self.process = process
        self.second = second
        self.kind = "none"
        self.bases: dict[str, int] = {}
        """Controller -> fd of our folder in its hierarchy; in version 2 all are the same."""
        self.parents: list[tuple[str, int]] = []
        """(our folder, fd of the one above): after the change of root there are no paths any more."""
        self.count = 0
        self.limits: dict[str, tuple[int, float | None, int]] = {}
        self.why = ""
        """Why there are none."""
        self.free: list[str] = []
        """Groups whose sandbox is gone: the next one takes them, which is cheaper than new ones."""
        try:
            self._find()
        except OSError as e:
            self.why = f"{e.filename or ''}: {e.strerror}"
            self.close()

    def _find(self) -> None:
        mounts: dict[str, tuple[str, str]] = {}
        with open(self.process + "/mountinfo", encoding="utf-8") as f:
            for line in f:
                left, _, right = line.partition(" - ")
                fields, kind, options = left.split(), right.split()[0], right.split()[-1]
                if kind == "cgroup2":
                    mounts["2"] = (fields[4], fields[3])
                elif kind == "cgroup":
                    for option in options.split(","):
                        mounts[option] = (fields[4], fields[3])
        own: dict[str, str] = {}
        with open(self.process + "/cgroup", encoding="utf-8") as f:
            for line in f:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                own.update(dict.fromkeys(controllers.split(",") if controllers else ["2"], path))
        name = f"agentgym-{os.getpid()}{self.tag}"
        if self.second[0] in mounts:
            self.kind = "v1"
            # processes are counted by RLIMIT_NPROC, which counts by user namespace; each hierarchy costs time
            for controller in ("memory", "cpu"):
                if controller in mounts:
                    self._take_place_v1(controller, *mounts[controller], own.get(controller, "/"), name)
        elif "2" in mounts:
            self.kind = "v2"
            self._take_place_v2(mounts["2"][0], name)
        else:
            self.why = "no control groups are mounted"

    def _take_place_v1(self, controller: str, top: str, shown: str, own: str, name: str) -> None:
        inside = os.path.relpath(own, shown) if own.startswith(shown) else "."
        folder = os.path.normpath(os.path.join(top, inside))
        try:
            self._make_ours(controller, folder if os.path.isdir(folder) else top, name)
        except OSError:
            if controller == "memory":  # shares of processors are offered where they can be had
                raise

    def _take_place_v2(self, top: str, name: str) -> None:
        """At the top that is visible here: processes may not stand in a group above groups that have limits."""
        with open(top + "/cgroup.controllers", encoding="utf-8") as f:
            there = f.read().split()
        usable = [c for c in self.second if c in there]
        if self.second[0] not in usable:
            raise OSError(0, f"version 2 has no controller of {self.second[0]} here, only: {' '.join(there) or 'none'}", top)
        switch = " ".join("+" + c for c in usable)
        for folder in (top, f"{top}/{name}"):
            if folder != top:
                self._make_ours(self.second[0], top, name)
            with open(folder + "/cgroup.subtree_control", "w", encoding="utf-8") as f:
                f.write(switch)
        self.bases = dict.fromkeys(usable, self.bases[self.second[0]])

    def _make_ours(self, controller: str, folder: str, name: str) -> None:
        self._sweep(folder)
        path = f"{folder}/{name}"
        os.mkdir(path)
        self.parents.append((path, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
        self.bases[controller] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.bases[controller], fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while this process lives

    @staticmethod
    def _sweep(folder: str) -> None:
        """Removes what a launcher that was killed left behind: nobody holds the lock any more."""
        for path in glob.glob(folder + "/agentgym-*"):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for inner in [*glob.glob(path + "/*/"), path]:
                    os.rmdir(inner)
            except OSError:
                pass  # it lives, or its last processes are still going
            finally:
                os.close(fd)

    def _write(self, controller: str, path: str, value: object) -> None:
        fd = os.open(path, os.O_WRONLY, dir_fd=self.bases[controller])
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def take(self, spec: dict[str, Any], pid: int) -> str:
        """A group with the limits of ``spec`` around one process; its name."""
        second = self.kind == "v2"
        name = self.free.pop() if self.free else ""
        if not name:
            self.count += 1
            name = str(self.count)
            for base in set(self.bases.values()):
                os.mkdir(name, dir_fd=base)
        if self.limits.get(name) != (spec["memory"], spec["cpus"], spec["pids"]):
            for controller, file, value in self._settings(spec):
                self._write(controller, f"{name}/{file}", value)
            if second:
                with contextlib.suppress(OSError):  # kernels without swap
                    self._write(self.second[0], f"{name}/memory.swap.max", 0)
            self.limits[name] = (spec["memory"], spec["cpus"], spec["pids"])
        self._write(self.second[0], f"{name}/cgroup.procs", pid)
        if spec["cpus"] and not second:
            self._write("cpu", f"{name}/cgroup.procs", pid)
        return name

    def _settings(self, spec: dict[str, Any]) -> list[tuple[str, str, object]]:
        """Controller, file and value of each limit, as far as the controllers are there."""
        quota = int(spec["cpus"] * 100_000) if spec["cpus"] else 0
        if self.kind == "v2":
            wanted: list[tuple[str, str, object]] = [
                ("memory", "memory.max", spec["memory"]),
                ("cpu", "cpu.max", f"{quota or 'max'} 100000"),
                ("pids", "pids.max", spec["pids"] + 1),
            ]
        else:
            wanted = [("memory", "memory.limit_in_bytes", spec["memory"]), ("cpu", "cpu.cfs_quota_us", quota or -1)]
        return [setting for setting in wanted if setting[0] in self.bases]

    def killed(self, name: str) -> int:
        """How many processes of a group the kernel killed for want of memory."""
        file = f"{name}/memory.events" if self.kind == "v2" else f"{name}/memory.oom_control"
        try:
            fd = os.open(file, os.O_RDONLY, dir_fd=self.bases[self.second[0]])
        except OSError:
            return 0
        try:
            words = os.read(fd, 4096).split()
        finally:
            os.close(fd)
        return int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0

    def give_back(self, name: str) -> None:
        """After its last process is gone."""
        self.free.append(name)

    def close(self) -> None:
        """Removes our folders."""
        for base in set(self.bases.values()):
            for name in self.free:
                for _ in range(200):
                    try:
                        os.rmdir(name, dir_fd=base)
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.005)
        for path, parent in self.parents:
            try:
                os.rmdir(os.path.basename(path), dir_fd=parent)
            except OSError:
                continue
        for fd in {*self.bases.values(), *(parent for _, parent in self.parents)}:
            os.close(fd)
        self.kind, self.bases, self.parents = "none", {}, []
