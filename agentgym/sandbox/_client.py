# SPDX-License-Identifier: Apache-2.0
"""The host's side of a sandbox: speaks with the guest process inside (`_guest`) over one stream, whatever the backend."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from agentgym.errors import UsageError
from agentgym.sandbox import _guest
from agentgym.sandbox._channel import Channel, ClosedError, Frame, LateError, Listed, Reply
from agentgym.sandbox._events import Feed, FeedLostError, History
from agentgym.sandbox.protocol import (
    Capabilities,
    Entry,
    ExecResult,
    Language,
    SandboxDeadError,
    SandboxError,
    SandboxEvent,
    SandboxExhaustedError,
    SandboxFileError,
    SandboxSpec,
    Session,
    Snapshot,
    Tree,
)

_LATE_S = 5.0
"""How long after its time limit a run may take to be reported before the whole sandbox is killed from outside."""
_ANSWER_S = 30.0
"""How long anything else may take."""
_MOST_INPUT = 8 << 20
_IN_MEMORY = 64 << 20
ON_DISK = "/var/tmp"
"""Where large things go: /tmp is often a file system in memory."""
_KINDS = {"f": "file", "d": "folder", "l": "link"}


class Box(Protocol):
    """One live instance of a sandbox: what `restore` replaces."""

    channel: Channel

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it for want of memory since the last question."""
        ...

    def kill(self) -> bool:
        """Ends it and everything in it, from outside; whether it had run out of memory. Called once."""
        ...


class Maker(Protocol):
    """The part of a backend that a sandbox needs to renew itself."""

    name: str

    def capabilities(self) -> Capabilities:
        """What is enforced."""
        ...

    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Box:
        """Starts an instance."""
        ...

    def forget(self, sandbox: GuestSandbox) -> None:
        """It is closed."""
        ...

    def adopt(self, sandbox: GuestSandbox) -> None:
        """To be closed with the backend."""
        ...


class KeptSnapshot:
    """A workspace kept by this process, and wherever a backend has laid it out for sandboxes to start from.

    Its first `_IN_MEMORY` bytes are held in memory; what is more, in a file without a name that ends with this process.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames: list[tuple[list[Listed], bytes | tuple[int, int]]] = []
        """Entries, and their contents or (offset, size) in the file."""
        self._file: IO[bytes] | None = None
        self.places: dict[Any, Any] = {}
        """Backend's key -> a function that frees what it keeps for this snapshot, and a name for it."""
        held = 0
        try:
            for entries, data in frames:
                if held + len(data) <= _IN_MEMORY:
                    self._frames.append((entries, data))
                    held += len(data)
                    continue
                if self._file is None:
                    self._file = tempfile.TemporaryFile(dir=ON_DISK if os.path.isdir(ON_DISK) else None)  # noqa: SIM115
                self._frames.append((entries, (self._file.tell(), len(data))))
                self._file.write(data)
            if self._file is not None:
                self._file.flush()
        except OSError as e:
            self.close()
            raise SandboxError(f"no snapshot: {e.strerror} in {ON_DISK}") from None
        except BaseException:
            self.close()
            raise

    @property
    def frames(self) -> Iterator[Frame]:
        """What it holds, piece by piece."""
        for entries, data in self._frames:
            if isinstance(data, bytes):
                yield entries, data
            elif self._file is not None:
                yield entries, os.pread(self._file.fileno(), data[1], data[0])  # several threads may read at once

    @property
    def tree(self) -> Tree:
        """What it holds, all of it in memory."""
        return tree_of(self.frames)

    def close(self) -> None:
        """Frees it."""
        places, self.places = self.places, {}
        for _, free in places.values():
            free()
        self._frames = []
        if self._file is not None:
            self._file.close()


def tree_of(frames: Iterable[Frame]) -> Tree:
    """Frames of files as a `Tree`."""
    found: list[tuple[str, str, int, list[bytes]]] = []
    refused = []
    for listed, data in frames:
        at = 0
        for path, kind, mode, size in listed:
            name = path.encode("latin-1", errors="replace").decode(errors="surrogateescape")
            content = data[at : at + size]
            at += size
            if kind in _KINDS:
                found.append((name, kind, mode, [content]))
            elif kind == "+" and found and found[-1][:2] == (name, "f"):  # the file before goes on
                found[-1][3].append(content)
            else:
                refused.append((name, content.decode(errors="replace")))
    entries = [Entry(name, _KINDS[kind], mode, b"".join(parts)) for name, kind, mode, parts in found]  # type: ignore[arg-type]
    return Tree(tuple(entries), tuple(refused))


class GuestSandbox:
    """`Sandbox` over a guest process."""

    def __init__(self, maker: Maker, spec: SandboxSpec, snapshot: Snapshot | None = None) -> None:
        self.spec = spec
        self._maker = maker
        self._lock = threading.Lock()
        self._dead = ""
        self._history = History()
        self._box: Box | None = maker.make_box(spec, snapshot)
        self._history.follow(self._feed(self._box))
        maker.adopt(self)

    # life

    @property
    def alive(self) -> bool:
        """Whether it still answers, as far as is known without asking."""
        return self._box is not None

    def capabilities(self) -> Capabilities:
        """What is enforced."""
        return self._maker.capabilities()

    def _live(self) -> Box:
        box = self._box
        if box is None:
            raise SandboxDeadError(f"the sandbox is gone: {self._dead}", retryable=False)
        return box

    def _bury(self, box: Box, why: str) -> bool:
        """Kills an instance, once; whether it had run out of memory."""
        with self._lock:
            if self._box is not box:
                return False
            self._box, self._dead = None, why
        box.channel.close()
        return box.kill()

    def close(self) -> None:
        """Ends every process and frees everything."""
        box = self._box
        if box is not None:
            self._bury(box, "it was closed")
        self._maker.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def check(self) -> None:
        """Asks whether it lives."""
        self._ask({"do": "ping"})

    def processes(self) -> int:
        """How many processes live in it besides its own."""
        return self._ask({"do": "ping"})[0].processes

    # what is seen from outside

    @staticmethod
    def _feed(box: Box) -> Feed | None:
        """Of a backend that can observe, where the spec asked for it."""
        return getattr(box, "feed", None)

    def _unseen(self, box: Box) -> SandboxDeadError | None:
        """Why a run counts for nothing: nobody saw it. None where it was seen, or nobody wanted to."""
        feed = self._feed(box)
        if feed is None or not feed.lost():
            return None
        self._bury(box, "its observer died")
        return SandboxDeadError("the observer of the sandbox died: what ran in it was not seen, so it was ended")

    def events(self, since: int = 0) -> list[SandboxEvent]:
        """What was noticed, in order."""
        if not self.spec.events:
            raise UsageError("this sandbox is not observed: make it with SandboxSpec(events=True)")
        try:
            return self._history.since(since)
        except FeedLostError as e:
            box = self._box
            if box is not None:
                self._bury(box, "its observer died")
            raise SandboxDeadError(str(e)) from None

    def manifest(self) -> dict[str, tuple[str, int]]:
        """Path -> (sha256, mode) of every file and link in the workspace."""
        box = self._live()
        feed = self._feed(box)
        if feed is None:
            tree = self.tree(most_files=self.spec.limits.inodes + 16, most_bytes=self.spec.limits.disk)
            return tree.manifest() | {path: ("", 0) for path, _ in tree.refused}
        try:
            return feed.manifest(self.spec.limits.inodes + 16, self.spec.limits.disk)
        except FeedLostError as e:
            self._bury(box, "its observer died")
            raise SandboxDeadError(str(e)) from None

    # asking

    def _frames(
        self, request: dict[str, Any], data: bytes = b"", timeout_s: float = _ANSWER_S
    ) -> Iterator[tuple[Reply, bytes]]:
        box = self._live()
        try:
            yield from box.channel.ask(request, data, timeout_s)
        except ClosedError:
            memory = self._bury(box, "it died")
            raise SandboxDeadError(
                "the sandbox died" + (" for want of memory" if memory else ""), retryable=not memory
            ) from None
        except LateError:
            self._bury(box, "it did not answer")
            raise SandboxDeadError(f"the sandbox did not answer within {timeout_s:.0f} s and was ended") from None

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> tuple[Reply, bytes]:
        reply, body = next(self._frames(request, data))
        if reply.error is not None:
            raise SandboxError(f"the sandbox answers: {reply.error}", retryable=reply.busy)
        return reply, body

    def _ask_about_file(self, request: dict[str, Any], data: bytes = b"") -> tuple[Reply, bytes]:
        name = request["path"]
        request["path"] = os.fsencode(name).decode("latin-1")
        reply, body = next(self._frames(request, data))
        if reply.error is not None:
            raise SandboxFileError(f"{name} in the sandbox: {reply.error}")
        return reply, body

    def run(self, request: dict[str, Any], data: bytes, timeout_s: float) -> ExecResult:
        """Asks for a program or a turn, and tells how it ended whatever happened to the sandbox."""
        limits = self.spec.limits
        request |= {"timeout": timeout_s, "keep": limits.output, "most": limits.output_stop}
        box = self._live()
        start = time.monotonic()
        try:
            with self._history.run():
                reply, body = next(box.channel.ask(request, data, timeout_s + _LATE_S))
        except ClosedError:
            closed = self._box is not box
            unseen = self._unseen(box)
            if unseen is not None:
                raise unseen from None
            memory = self._bury(box, "it was killed with a run")
            if closed:
                raise SandboxDeadError("the sandbox was closed while code ran in it", retryable=False) from None
            if getattr(box, "orphaned", False):  # code cannot reach what holds it: to call this its doing would score it
                raise SandboxDeadError("the process that holds the sandboxes of this backend has died") from None
            return ExecResult(
                status="oom" if memory else "killed", exit_code=None, wall_s=time.monotonic() - start, session_over=True
            )
        except LateError:
            unseen = self._unseen(box)
            if unseen is not None:
                raise unseen from None
            self._bury(box, "a run in it could not be ended otherwise")
            return ExecResult(status="timeout", exit_code=None, wall_s=time.monotonic() - start, session_over=True)
        unseen = self._unseen(box)
        if unseen is not None:
            raise unseen
        if reply.error is not None:
            raise SandboxError(f"the sandbox answers: {reply.error}", retryable=reply.busy)
        status = reply.status
        if status == "killed" and box.ran_out_of_memory():
            status = "oom"
        return ExecResult(
            status=status,
            exit_code=reply.code,
            stdout=body[: reply.out],
            stderr=body[reply.out :],
            stdout_bytes=reply.total_out,
            stderr_bytes=reply.total_err,
            wall_s=reply.wall,
            cpu_s=reply.cpu,
            session_over=reply.over,
        )

    # running

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
        """Runs code in a fresh process, or a program by its arguments."""
        if (code is None) == (argv is None):
            raise UsageError("say what to run: either code or argv")
        _check_language(lang)
        script = _bounded("code", (code or "").encode(errors="surrogateescape"))
        _bounded("stdin", stdin)
        request = {
            "do": "exec",
            "lang": lang,
            "argv": list(argv or ()),
            "script": len(script),
            "cwd": cwd,
            "env": dict(env or {}),
            "cpu_s": self.spec.limits.cpu_s,
        }
        return self.run(request, script + stdin, self._timeout(timeout_s))

    def _timeout(self, timeout_s: float | None) -> float:
        chosen = self.spec.limits.wall_s if timeout_s is None else timeout_s
        if not 0 < chosen < 1e6:
            raise UsageError(f"a time limit of {chosen} s cannot be kept: it must be above 0")
        return chosen

    def session(self, lang: Language = "bash", *, env: Mapping[str, str] | None = None) -> Session:
        """Starts a stateful shell or interpreter."""
        _check_language(lang)
        reply, _ = next(self._frames({"do": "open", "lang": lang, "env": dict(env or {})}))
        if reply.error is not None:
            raise SandboxExhaustedError(f"no session could be started in the sandbox: {reply.error}")
        return GuestSession(self, self._live(), reply.session, lang)

    # files

    def put(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """Writes a file, folders above it included."""
        content = data.encode() if isinstance(data, str) else data
        feed = self._feed(self._live())
        inside = os.path.normpath(os.path.join("/workspace", path)).removeprefix("/workspace/")
        with contextlib.nullcontext() if feed is None else feed.writing(inside, content, mode):
            for at in range(0, max(1, len(content)), _guest.PIECE):
                request = {"do": "put", "path": path, "mode": mode, "more": at > 0}
                self._ask_about_file(request, content[at : at + _guest.PIECE])

    def get(self, path: str, *, most: int = 16 << 20) -> bytes:
        """Reads a plain file."""
        pieces: list[bytes] = []
        have = 0
        while True:
            reply, body = self._ask_about_file({"do": "get", "path": path, "offset": have, "most": _guest.PIECE})
            if reply.size > most:
                raise SandboxFileError(f"{path} in the sandbox has {reply.size} bytes, more than the {most} asked for")
            pieces.append(body)
            have += len(body)
            if not body or have >= reply.size:
                return b"".join(pieces)[:most]

    def _tree_frames(self, files: int, size: int, depth: int, freeze: bool) -> Iterator[Frame]:
        have = 0
        for reply, body in self._frames({"do": "tree", "files": files, "bytes": size, "depth": depth, "freeze": freeze}):
            if reply.error is not None:
                raise SandboxError(f"the sandbox answers: {reply.error}")
            have += len(body)
            if have > size + (1 << 20) * 16:
                raise SandboxError("the sandbox sends more files than were asked for")
            yield reply.entries, body

    def tree(self, *, most_files: int = 2000, most_bytes: int = 64 << 20, most_depth: int = 64) -> Tree:
        """All files of the workspace."""
        return tree_of(self._tree_frames(most_files, most_bytes, most_depth, freeze=False))

    def copy_out(self, to: str | Path, *, most_files: int = 2000, most_bytes: int = 64 << 20) -> Tree:
        """Ends all processes, then writes the workspace's plain files into a new folder of the host."""
        self._ask({"do": "kill"})
        tree = self.tree(most_files=most_files, most_bytes=most_bytes)
        return write_tree(tree, Path(to))

    # snapshots

    def snapshot(self) -> Snapshot:
        """Keeps the workspace aside."""
        limits = self.spec.limits
        return KeptSnapshot(_kept(self._tree_frames(limits.inodes + 16, limits.disk + (1 << 20), 2000, freeze=True)))

    def fork(self, snapshot: Snapshot | None = None) -> GuestSandbox:
        """A new sandbox that starts from a snapshot, or from this workspace as it is now."""
        if snapshot is not None:
            return GuestSandbox(self._maker, self.spec, snapshot)
        now = self.snapshot()
        try:
            return GuestSandbox(self._maker, self.spec, now)
        finally:
            now.close()

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot."""
        box = self._live()
        fresh = self._maker.make_box(self.spec, snapshot)
        with self._lock:
            lost = self._box is not box
            if not lost:
                self._box = fresh
        if lost:
            fresh.kill()
            raise SandboxDeadError("the sandbox was closed while it was being restored", retryable=False)
        box.channel.close()
        box.kill()
        self._history.follow(self._feed(fresh))


def _kept(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames without what belongs to processes, which are not kept.

    Raises:
        SandboxError: something else could not be read.
    """
    for listed, data in frames:
        at, entries, pieces = 0, [], []
        for path, kind, mode, size in listed:
            content = data[at : at + size]
            at += size
            if kind == "-":
                if content != b"it is no plain file":  # a pipe or a socket
                    raise SandboxError(
                        f"no snapshot: {path!r} cannot be kept: {content.decode(errors='replace')}", retryable=False
                    )
                continue
            entries.append((path, kind, mode, size))
            pieces.append(content)
        yield entries, b"".join(pieces)


def _check_language(lang: str) -> None:
    if lang not in ("python", "bash"):
        raise UsageError(f"a sandbox runs python or bash, not {lang!r}")


def _bounded(what: str, data: bytes) -> bytes:
    if len(data) > _MOST_INPUT:
        raise UsageError(f"{what} has {len(data)} bytes, and a sandbox takes {_MOST_INPUT}: put() it as a file instead")
    return data


class GuestSession:
    """`Session` over a guest process."""

    def __init__(self, sandbox: GuestSandbox, box: Box, number: int, lang: Language) -> None:
        self.lang = lang
        self._sandbox, self._box, self._number = sandbox, box, number
        self._over = False

    @property
    def alive(self) -> bool:
        """Whether it can take another turn, as far as the last answer told."""
        return not self._over and self._sandbox._box is self._box

    def run(self, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """Runs code and waits for it."""
        if not self.alive:
            raise SandboxError("the session has ended; start a new one", retryable=False)
        request = {"do": "turn", "session": self._number}
        data = _bounded("code", code.encode(errors="surrogateescape"))
        result = self._sandbox.run(request, data, self._sandbox._timeout(timeout_s))
        if result.session_over:
            self._over = True
        return result

    def interrupt(self) -> bool:
        """As Ctrl-C in a terminal."""
        if not self.alive:
            return False
        return self._sandbox._ask({"do": "interrupt", "session": self._number})[0].busy

    def close(self) -> None:
        """Ends it and the processes that descend from it."""
        if self.alive:
            self._over = True
            with contextlib.suppress(SandboxDeadError):
                self._sandbox._ask({"do": "end", "session": self._number})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_tree(tree: Tree, to: Path) -> Tree:
    """Writes plain files into a new folder of the host; a `Tree` of what was written, the rest in ``refused``.

    Every folder and file is made anew below a descriptor of the one above, so nothing is followed or overwritten.

    Raises:
        SandboxFileError: ``to`` is there already.
    """
    try:
        os.mkdir(to, 0o700)
    except FileExistsError:
        raise SandboxFileError(f"{to} is there already: files of a sandbox go into a new folder") from None
    written, refused = [], list(tree.refused)
    folders = {"": os.open(to, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)}
    try:
        for entry in tree.entries:
            above, _, name = entry.path.rpartition("/")
            if above not in folders or name in ("", ".", "..") or "\0" in name or any(ord(c) < 32 for c in name):
                refused.append((entry.path, "a name that a host could misread"))
                continue
            try:
                if entry.kind == "folder":
                    os.mkdir(name, 0o700, dir_fd=folders[above])
                    folders[entry.path] = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folders[above])
                elif entry.kind == "file":
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                    fd = os.open(name, flags, 0o600 | entry.mode & 0o100, dir_fd=folders[above])
                    with os.fdopen(fd, "wb") as f:
                        f.write(entry.content)
                else:
                    refused.append((entry.path, "links are not copied"))
                    continue
            except OSError as e:
                refused.append((entry.path, e.strerror or "it cannot be written"))
                continue
            written.append(entry)
    finally:
        for fd in folders.values():
            os.close(fd)
    return Tree(tuple(written), tuple(refused))
