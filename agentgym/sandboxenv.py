# SPDX-License-Identifier: Apache-2.0
"""Environments whose agent works in a sandbox: one of its own for each episode, with the workspace as recorded state.

To write one, subclass `SandboxEnv`, put the files that the workspace begins with into the task (`Start`), and write tools
with `turn`. See docs/code.md for one in full.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import msgspec

from agentgym.env import ToolEnv
from agentgym.errors import DefinitionError, ToolError
from agentgym.sandbox.protocol import (
    ExecResult,
    Language,
    Sandbox,
    SandboxDeadError,
    SandboxError,
    SandboxExhaustedError,
    SandboxFileError,
    SandboxSpec,
    Session,
    Tree,
)
from agentgym.sandbox.shared import leave, testifies, witness
from agentgym.task import Task
from agentgym.trajectory import Event

SHOWN = 6000
"""Characters of a run's output that an agent is shown; of a longer one the beginning and the end."""

MOST_EVENTS = 500
"""Events of watched files that are recorded in one turn."""

KEPT_BYTES, MOST_KEPT = 64 << 10, 50
"""Size up to which the content of a file in `SandboxEnv.kept_files` is recorded, and of how many that are not named there."""
CACHES = frozenset(("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"))
"""Folders that tools make by themselves: what becomes of them is nobody's act, and their content is never recorded."""


class File(msgspec.Struct, frozen=True):
    """A file that a workspace begins with."""

    content: str
    mode: int = 0o644
    """Permission bits."""

    @property
    def data(self) -> bytes:
        """Its bytes: text is UTF-8, and each lone surrogate stands for one byte (`os.fsdecode`)."""
        return self.content.encode(errors="surrogateescape")


class Workspace(msgspec.Struct):
    """What lies in a workspace, as it is recorded and compared: the state of a sandboxed task."""

    files: dict[str, tuple[str, int]] = {}
    """Path -> (sha256 of the content, or of where a link points; permission bits). Empty folders are not in it."""
    texts: dict[str, str] = {}
    """Path -> content of those files whose content is recorded (`SandboxEnv.kept_files`), invalid bytes replaced."""
    left_out: int = 0
    """How many things were no plain files or over a limit, and are not in `files`."""


def workspace_of(files: Mapping[str, File], keep: tuple[str, ...] = ()) -> Workspace:
    """The state of a workspace that holds these files and nothing else; ``keep`` as `SandboxEnv.kept_files`."""
    held = {path: (hashlib.sha256(f.data).hexdigest(), f.mode) for path, f in sorted(files.items())}
    return Workspace(held, _kept_texts({path: f.data for path, f in files.items()}, keep))


def cached(path: str) -> bool:
    """Whether a path lies in a folder of `CACHES`."""
    return not CACHES.isdisjoint(path.split("/"))


def _kept_texts(files: Mapping[str, bytes], keep: tuple[str, ...]) -> dict[str, str]:
    starts = tuple(k[:-1] for k in keep if k.endswith("*"))
    small = [p for p in sorted(files) if len(files[p]) <= KEPT_BYTES]
    named = [p for p in small if p in keep]
    others = [p for p in small if p not in keep and starts and p.startswith(starts) and not cached(p)]
    return {p: files[p].decode(errors="replace") for p in sorted([*named, *others[:MOST_KEPT]])}


class SandboxEnv(ToolEnv):
    """A `ToolEnv` with a sandbox for each episode.

    The sandbox is made when the first tool asks for it, with the task's files in it, and is closed with the episode,
    however that ends. The state is a `Workspace`; `turn` brings it up to date, so that what each call changed is on
    record.

    What code does to its own sandbox is the agent's doing: the agent is told, and gets a new one with the task's files as
    they were. A sandbox that fails by itself ends the episode as an infrastructure outcome of the layer ``sandbox``.
    """

    blocking: ClassVar[bool] = True
    sandbox_spec: ClassVar[SandboxSpec] = SandboxSpec()
    """What is asked of the backend. One that cannot enforce it is refused before the first episode."""
    most_files: ClassVar[int] = 2000
    """Files of a workspace that are recorded."""

    state: Workspace

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._box: Sandbox | None = None
        self._witness: Sandbox | None = None
        self._sessions: dict[Language, Session] = {}
        self._used = False
        self._observing = False
        self._seq = 0
        self._closer: weakref.finalize[..., Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls._tools:
            if hasattr(SandboxEnv, name) and name not in SandboxEnv._tools:
                raise DefinitionError(f"{cls.__name__}: a tool cannot be called {name!r}: environments with a sandbox have one")

    @classmethod
    def needs(cls) -> frozenset[str]:
        """A sandbox, and what its verifiers need."""
        return super().needs() | {"sandbox"}

    # -- what authors write -------------------------------------------------------------------------------------------

    def start_files(self, task: Task) -> Mapping[str, File]:
        """The files that the workspace begins with; none by default."""
        return {}

    def kept_files(self, task: Task) -> tuple[str, ...]:
        """Paths of files whose content is recorded, where there are such files, or a beginning and ``*``; none by default."""
        return ()

    def watched_files(self, task: Task) -> tuple[str, ...]:
        """Patterns of paths that the agent has no business to change (`SandboxSpec.protected`); none by default.

        Where the backend can observe (`Capabilities.events`), what is done to them within a turn is recorded as events of the
        source ``observer``, each kind once for a path and turn; everywhere, the state after each call.
        """
        return ()

    def _finish_task(self, task: Task, item: str, seed: int) -> Task:
        task = super()._finish_task(task, item, seed)
        if task.state is None:
            task.state = workspace_of(self.start_files(task), self.kept_files(task))
        return task

    # -- for use inside of tools ----------------------------------------------------------------------------------------

    @property
    def box(self) -> Sandbox:
        """The episode's sandbox.

        Raises:
            SandboxError: none can be made.
        """
        if self._box is None:
            backend = self.sandboxes()
            self._witness = witness(backend)
            spec = self.sandbox_spec
            watched = self.watched_files(self.task)
            if watched:
                self._observing = "file" in backend.capabilities().events
                self._seq = 0
                self.note("sandbox.observed", data=self._observing)
                if self._observing:
                    spec = msgspec.structs.replace(spec, events=True, protected=watched)
            box = self._box = backend.create(spec)
            # an environment that is dropped in the middle of an episode must not leave it behind
            self._closer = weakref.finalize(self, leave, box)
            self._used = False
            for path, file in self.start_files(self.task).items():
                box.put(path, file.data, mode=file.mode)
        return self._box

    def turn(self, lang: Language, code: str, *, timeout_s: float | None = None) -> str:
        """Runs code in the episode's session of that language, and says what came of it, for the agent.

        Variables, working directory and background jobs live on until the next turn. The state is brought up to date.

        Args:
            lang: ``python`` or ``bash``.
            code: what to run; it is the agent's.
            timeout_s: wall limit in seconds; None: the spec's.

        Raises:
            ToolError: the code has made an end of its sandbox, in words for the agent.
            SandboxError: the sandbox failed by itself.
        """
        result = self.turn_result(lang, code, timeout_s=timeout_s)
        self.record_files()
        return self.as_text(result)

    def turn_result(self, lang: Language, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """As `turn`, for those who want to read the result themselves; call `record_files` after it where files may change."""
        box = self.box
        try:
            session = self._sessions.get(lang)
            if session is None or not session.alive:
                session = self._sessions[lang] = box.session(lang)
            self._used = True
            result = session.run(code, timeout_s=timeout_s)
        except SandboxExhaustedError as e:
            self._lose(str(e))
        except SandboxDeadError as e:
            self._lose(str(e), e)
        if not box.alive:
            self._lose(f"the sandbox ended with this run ({_ENDED.get(result.status, result.status)})")
        return result

    def put_file(self, path: str, data: bytes | str) -> None:
        """Writes a file into the workspace.

        Raises:
            ToolError: the agent's own files leave no room for it.
        """
        try:
            self.box.put(path, data)
        except SandboxFileError as e:
            raise ToolError(str(e)) from None
        except SandboxDeadError as e:
            self._lose(str(e), e)

    def record_files(self) -> None:
        """Brings the state up to date with the workspace."""
        box = self._box
        if box is None:
            return
        try:
            tree = box.tree(most_files=self.most_files)
        except SandboxDeadError as e:
            self._lose(str(e), e)
        self.looked(tree)
        texts = _kept_texts(tree.files, self.kept_files(self.task))
        if self._observing:
            self._record_events(box)
        self.state = Workspace(dict(sorted(tree.manifest().items())), texts, len(tree.refused))

    def _record_events(self, box: Sandbox) -> None:
        """Records what was seen of watched files since the last time, in a form that is equal in every replay.

        Each path and kind once, sorted: how often and in which order the kernel told of it is chance. A file that was mapped to
        be written to counts as changed; what tools leave behind in `CACHES` does not count. Where more happened than is kept,
        ``events.dropped`` stands beside them, and what the task began with goes first: new files crowd out none of it.
        """
        try:
            events = box.events(since=self._seq)
        except SandboxDeadError as e:
            self._lose(str(e), e)
        seen = set()
        for event in events:
            self._seq = event.seq
            mapped = event.kind == "file.opened" and event.data.get("mapped")
            kind = "file.changed" if mapped or event.kind == "file.created" else event.kind
            theirs = kind in ("file.changed", "file.deleted") and event.protected and not cached(event.resource)
            if theirs or kind == "events.dropped":
                seen.add((event.resource, kind))
        begun = self.start_files(self.task)
        first = {*begun, *(path[:n] for path in begun for n, c in enumerate(path) if c == "/")}
        told = sorted(seen, key=lambda s: (s[1] != "events.dropped" and s[0] not in first, s))
        if len(told) > MOST_EVENTS:
            told = [*told[:MOST_EVENTS], ("", "events.dropped")]
        turn = len(self.trajectory.turns)
        self._events += [Event(turn, kind, "observer", resource) for resource, kind in told]

    def looked(self, tree: Tree) -> None:
        """Called with the workspace's files each time that they are recorded, for what an environment measures of them."""

    def as_text(self, result: ExecResult) -> str:
        """A result as an agent reads it: what was written, and how it ended where that was not well."""
        parts = [_cut(result.text.rstrip("\n"))]
        if result.stderr:
            parts.append(f"[stderr]\n{_cut(result.error_text.rstrip(chr(10)))}")
        if result.status != "ok":
            parts.append(f"[{_ENDED.get(result.status, result.status)}]")
        elif result.exit_code:
            parts.append(f"[exit code {result.exit_code}]")
        if result.session_over:
            parts.append("[the session has ended; the next call starts a new one]")
        return "\n".join(p for p in parts if p) or "(no output)"

    # -- life and death -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Every episode has a sandbox of its own: what an earlier one left is gone."""
        self.release()

    def _finish(self, truncation: str | None) -> float:
        if self._box is not None:
            # in order, so that nothing still writes while the end state is read
            try:
                for session in self._sessions.values():
                    session.close()
                self.record_files()
            except ToolError:  # its own code has destroyed it, and the files with it
                self.state = Workspace()
            if self._events and self.trajectory.turns:
                last = self.trajectory.turns[-1]
                last.events += tuple(msgspec.structs.replace(e, turn=last.index) for e in self._events)
                self._events = []
        return super()._finish(truncation)

    def release(self) -> None:
        """Closes the episode's sandbox."""
        box, self._box = self._box, None
        self._sessions = {}
        if self._closer is not None:
            self._closer.detach()
            self._closer = None
        if box is not None:
            box.close()

    def _lose(self, why: str, error: SandboxError | None = None) -> NoReturn:
        """The sandbox is gone or of no more use.

        Raises:
            ToolError: by what the agent ran in it.
            SandboxError: otherwise.
        """
        watching = self._witness
        used = self._used
        self.release()
        if watching is None or not testifies(watching):
            # also where the sandbox was found dead on second sight: another backend may well work
            raise SandboxError(f"{why}, and so did others of its backend") from error
        if not used:
            raise error or SandboxError(f"{why}, before anything ran in it")
        self.note("sandbox.lost", data=why)
        self.state = workspace_of(self.start_files(self.task), self.kept_files(self.task))
        raise ToolError(f"{why}. The next call gets a new one: variables and files are as they were at the beginning")


_ENDED = {
    "timeout": "stopped: it ran longer than allowed",
    "interrupted": "interrupted",
    "output": "stopped: it wrote more than allowed",
    "oom": "stopped: out of memory",
    "killed": "killed",
    "error": "it could not be started: processes, memory or files are used up",
}


def _cut(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
