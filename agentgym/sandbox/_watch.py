# SPDX-License-Identifier: Apache-2.0
"""The files of a sandbox's workspace, read and watched from outside by descriptors that lead nowhere else.

Two ways that complete each other. A manifest is the state at one moment: what differs from the last one is known, however
it was changed. inotify tells of protected paths what happened in between, so that a file which was changed, used and put
back is seen.

Standard library only and no import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import os
import re
import stat
import struct
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

_RACY_NS = 50_000_000
"""Time stamps of files may be that much coarser than the clock."""
_PIECE = 1 << 20
_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLYDIR, _ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
_MOST_WATCHES = 4096

if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)

Emit = Callable[[str, bytes, dict[str, Any], bool], None]
"""Kind, path, details, whether it is protected."""


def pattern(patterns: Sequence[str]) -> re.Pattern[bytes]:
    """Paths, relative and as bytes, that one of the patterns names; see `SandboxSpec.protected`."""
    parts = []
    for text in patterns:
        out = b""
        data = os.fsencode(text.strip("/"))
        at = 0
        while at < len(data):
            if data[at : at + 3] == b"**/":
                out, at = out + b"(?:[^/]+/)*", at + 3
            elif data[at : at + 2] == b"**":
                out, at = out + b".*", at + 2
            elif data[at : at + 1] == b"*":
                out, at = out + b"[^/]*", at + 1
            elif data[at : at + 1] == b"?":
                out, at = out + b"[^/]", at + 1
            else:
                out, at = out + re.escape(data[at : at + 1]), at + 1
        parts.append(out + b"(?:/.*)?")
    return re.compile(b"(?:" + b"|".join(parts) + b")" if parts else b"(?!)", re.DOTALL)


class Known(NamedTuple):
    """What a file was when it was last looked at."""

    key: tuple[int, int, int, int]
    """Inode, times of content and of inode in ns, size."""
    mode: int
    hash: str
    """sha256, empty where the file was over a limit."""
    trusted: bool
    """Whether the same key next time means the same content."""


class Watch:
    """One workspace.

    Args:
        workspace: descriptor of the folder.
        processes: descriptor of the sandbox's own /proc.
        device: as which mapped files of the workspace are shown.
        patterns: protected paths.
        emit: where events go.
    """

    def __init__(self, workspace: int, processes: int, device: int, patterns: Sequence[str], emit: Emit) -> None:
        self.workspace, self.processes = workspace, processes
        self.devices = {device, os.fstat(workspace).st_dev}
        self.protected = pattern(patterns)
        self.emit = emit
        self.known: dict[bytes, Known] = {}
        """The last state; that of a new workspace is empty."""
        self.notes = -1
        self._watched: dict[int, tuple[bytes, bool]] = {}
        """inotify's number -> path, and whether it is a folder."""
        self._numbers: dict[bytes, int] = {}
        self.lost = 0
        if patterns:
            self.notes = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self.notes < 0:
                number = ctypes.get_errno()
                raise OSError(number, "no file can be watched (raise fs.inotify.max_user_instances): " + os.strerror(number))
            for _ in self.arm():
                pass

    def close(self) -> None:
        """Frees everything."""
        for fd in (self.workspace, self.processes, self.notes):
            if fd >= 0:
                os.close(fd)
        self.notes = -1

    # walking

    def _open_folder(self, path: bytes) -> int:
        """A folder, one name at a time and never through a link: it may be moved meanwhile, but not out of the workspace."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        at = os.open(b".", flags, dir_fd=self.workspace)
        for name in path.split(b"/") if path else ():
            try:
                below = os.open(name, flags, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return at

    def walk(self, most: int) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
        """(path, descriptor of its folder, name, status) of everything, folders before what they hold; at most 64 deep."""
        todo, count = [b""], 0
        while todo:
            folder = todo.pop()
            try:
                at = self._open_folder(folder)
            except OSError:
                continue
            try:
                for name in sorted(map(os.fsencode, os.listdir(at))):
                    path = folder + b"/" + name if folder else name
                    count += 1
                    if count > most:
                        return
                    try:
                        status = os.stat(name, dir_fd=at, follow_symlinks=False)
                    except OSError:
                        continue
                    if stat.S_ISDIR(status.st_mode) and path.count(b"/") < 64:
                        todo.append(path)
                    yield path, at, name, status
            finally:
                os.close(at)

    # the state

    def manifest(self, most_files: int, most_bytes: int, quiet: bool = False) -> Iterator[dict[bytes, Known] | None]:
        """Reads what has changed, in steps; the last one is the state. Tells of what differs from the last state.

        A file is not read again where its inode, size and times are the same. The code in the sandbox can set the time of
        content, but the kernel alone sets that of the inode, from a clock that the code cannot set. Two things could
        deceive: a change within one tick of that clock, and a write through a mapping that was written before, of which the
        kernel takes no note. So nothing is believed of files that changed just before they were read, nor of any while
        somebody has a shared mapping here.
        """
        begin = time.time_ns()
        mapped = self._mapped()
        trusted = mapped is not None and not mapped
        new: dict[bytes, Known] = {}
        old = self.known
        total = 0
        for steps, (path, at, name, status) in enumerate(self.walk(most_files), 1):
            if steps % 64 == 0:
                yield None
            key = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            mode = stat.S_IMODE(status.st_mode)
            sound = trusted and status.st_ctime_ns < begin - _RACY_NS
            before = old.get(path)
            if stat.S_ISLNK(status.st_mode):
                with contextlib.suppress(OSError):
                    target = os.readlink(name, dir_fd=at)
                    new[path] = Known(key, mode, hashlib.sha256(target).hexdigest(), sound)
            elif stat.S_ISREG(status.st_mode):
                total += status.st_size
                if total > most_bytes:
                    new[path] = Known(key, mode, "", False)
                elif before is not None and before.trusted and before.hash and before.key == key:
                    # believed next time only if it would be now: a mapping may have come since
                    new[path] = Known(key, mode, before.hash, sound)
                else:
                    found = yield from self._hash(at, name)
                    new[path] = Known(key, mode, found, sound and found != "")
        if not quiet:
            self._compare(self.known, new)  # as it is now: the host may have written meanwhile
            if mapped:
                for path, known in new.items():
                    if mapped[known.key[0]] and self.protected.fullmatch(path):  # inotify tells of it when the mapping ends
                        self.emit("file.opened", path, {"mapped": True}, True)
        self.known = new
        yield new

    def wrote(self, path: bytes, found: str, mode: int) -> None:
        """The host has written a file: that is no event, and what it wrote is what is to be compared with."""
        self.known[path] = Known((0, 0, 0, 0), mode, found, False)
        parts = path.split(b"/")
        self.read(quiet={b"/".join(parts[:n]) for n in range(1, len(parts) + 1)})
        parent, _, name = path.rpartition(b"/")
        if self.notes >= 0 and self.protected.fullmatch(path):
            with contextlib.suppress(OSError):
                at = self._open_folder(parent)
                try:
                    self._add(path, at, name, False)
                finally:
                    os.close(at)

    @staticmethod
    def _hash(at: int, name: bytes) -> Generator[None, None, str]:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except OSError:
            return ""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return ""
            digest, left = hashlib.sha256(), status.st_size
            while left > 0:  # it may grow meanwhile
                piece = os.read(fd, min(_PIECE, left))
                if not piece:
                    break
                digest.update(piece)
                left -= len(piece)
                if left:
                    yield None
            return digest.hexdigest()
        except OSError:
            return ""
        finally:
            os.close(fd)

    def _compare(self, old: dict[bytes, Known], new: dict[bytes, Known]) -> None:
        for path in sorted(old.keys() | new.keys()):
            before, after = old.get(path), new.get(path)
            mine = bool(self.protected.fullmatch(path))
            if before is None and after is not None:
                self.emit("file.created", path, {"sha256": after.hash, "mode": after.mode, "size": after.key[3]}, mine)
            elif after is None and before is not None:
                self.emit("file.deleted", path, {"sha256": before.hash}, mine)
            elif before is not None and after is not None:
                if before.hash != after.hash or (not after.hash and before.key != after.key):
                    self.emit("file.changed", path, {"before": before.hash, "sha256": after.hash, "size": after.key[3]}, mine)
                if before.mode != after.mode:
                    self.emit("file.mode", path, {"before": before.mode, "mode": after.mode}, mine)

    def _mapped(self) -> dict[int, bool] | None:
        """Inodes that a program may write without the kernel's taking note of it, and whether it may do so right now.

        None where it cannot be told: of a process that closed itself to its user, or of processes that come and go.
        """
        devices = {f"{os.major(d):02x}:{os.minor(d):02x}".encode() for d in self.devices}
        seen: set[str] = set()
        found: dict[int, bool] = collections.defaultdict(bool)
        for _ in range(4):
            try:
                names = {n for n in os.listdir(self.processes) if n.isdigit()} - seen - {"1"}
            except OSError:
                return None
            if not names:
                return found
            for name in names:
                try:
                    fd = os.open(name + "/maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.processes)
                except FileNotFoundError:
                    continue
                except OSError:
                    return None
                try:
                    with open(fd, "rb") as f:
                        for line in f:
                            fields = line.split(None, 5)
                            if fields[1][3:4] == b"s" and fields[3] in devices:
                                found[int(fields[4])] |= fields[1][1:2] == b"w"
                except OSError:  # it has ended meanwhile
                    continue
            seen |= names
        return None

    # what happens in between

    def arm(self) -> Iterator[None]:
        """Watches every folder, and each protected file by itself: it may have other names, elsewhere."""
        if self.notes < 0:
            return
        self._add(b"", self.workspace, b".", True)
        for path, at, name, status in self.walk(1 << 20):
            if stat.S_ISDIR(status.st_mode):
                self._add(path, at, name, True)
                yield
            elif stat.S_ISREG(status.st_mode) and self.protected.fullmatch(path):
                self._add(path, at, name, False)

    def _add(self, path: bytes, at: int, name: bytes, folder: bool) -> None:
        if len(self._watched) >= _MOST_WATCHES:
            self.lost += 1
            return
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        except OSError:
            return
        try:
            folders, files = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _ONLYDIR, _MODIFY | _ATTRIB | _CLOSE_WRITE
            mask = folders if folder else files
            number = _libc.inotify_add_watch(self.notes, b"/proc/self/fd/%d" % fd, mask)
        finally:
            os.close(fd)
        if number < 0:
            self.lost += 1
            return
        self._watched[number] = (path, folder)
        self._numbers[path] = number

    def read(self, most: int = 1 << 20, quiet: frozenset[bytes] | set[bytes] = frozenset()) -> None:
        """Takes in what inotify has, up to so many bytes; nothing is told of the paths in ``quiet``."""
        told: dict[bytes, set[str]] = {}
        while self.notes >= 0 and most > 0:
            try:
                data = os.read(self.notes, min(most, 1 << 16))
            except OSError:  # nothing more
                break
            most -= len(data)
            at = 0
            while at < len(data):
                number, mask, _, size = struct.unpack_from("<iIII", data, at)
                name = data[at + 16 : at + 16 + size].split(b"\0", 1)[0]
                at += 16 + size
                self._take(number, mask, name, told)
        for path, kinds in told.items():
            if path in quiet:
                continue
            if {"file.deleted", "file.created"} & kinds:
                kinds.discard("file.attributes")
            for kind in sorted(kinds):
                self.emit(kind, path, {"seen": "watch"}, True)
        if self.lost:
            self.emit("events.dropped", b"", {"files_or_folders": self.lost}, True)
            self.lost = 0

    def _take(self, number: int, mask: int, name: bytes, told: dict[bytes, set[str]]) -> None:
        if mask & _OVERFLOW:
            self.lost += 1
            return
        if number not in self._watched:
            return
        path, folder = self._watched[number]
        if mask & _IGNORED:
            del self._watched[number]
            if self._numbers.get(path) == number:
                del self._numbers[path]
            return
        where = (path + b"/" + name if path else name) if folder and name else path
        kinds = told.setdefault(where, set())
        if not folder:
            for bit, kind in ((_MODIFY, "file.changed"), (_CLOSE_WRITE, "file.opened"), (_ATTRIB, "file.attributes")):
                if mask & bit:
                    kinds.add(kind)
        elif mask & _ISDIR or self.protected.fullmatch(where):
            gone, come = mask & (_DELETE | _MOVED_FROM), mask & (_CREATE | _MOVED_TO)
            mine = bool(self.protected.fullmatch(where)) or any(
                p.startswith(where + b"/") and not self._watched[n][1] for p, n in self._numbers.items()
            )
            if mine and gone:
                kinds.add("file.deleted")
            if mine and come:
                kinds.add("file.created")
            if come:
                self._follow(where, told)
        if not kinds:
            del told[where]

    def _follow(self, path: bytes, told: dict[bytes, set[str]]) -> None:
        """Something new: watched from now on. What is in a new folder by now came unseen."""
        parent, _, name = path.rpartition(b"/")
        try:
            at = self._open_folder(parent)
        except OSError:
            return
        try:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and self.protected.fullmatch(path):
                self._add(path, at, name, False)
            if not stat.S_ISDIR(status.st_mode):
                return
            self._add(path, at, name, True)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        except OSError:
            return
        finally:
            os.close(at)
        try:
            inside = sorted(map(os.fsencode, os.listdir(below)))
        except OSError:
            inside = []
        os.close(below)
        for entry in inside[:1000]:
            full = path + b"/" + entry
            if full not in self._numbers and path.count(b"/") < 64:
                if self.protected.fullmatch(full):
                    told.setdefault(full, set()).add("file.created")
                self._follow(full, told)
