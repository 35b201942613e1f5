# SPDX-License-Identifier: Apache-2.0
"""How a person reaches a run that another process plays: commands go into one file of its directory, what is being played
comes out of others.

Both are plain files, so that either side may die at any moment: commands are lines that are only ever appended, and what is
being played is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from agentgym.errors import RecordError, UsageError
from agentgym.records.place import is_held

COMMANDS = "control.jsonl"
"""Name of the file with the commands, one JSON object a line; it stays, as the record of who did what."""

Verb = Literal["pause", "resume", "cancel"]


class Command(msgspec.Struct, omit_defaults=True):
    """What somebody wants of a run."""

    do: Verb
    task: str = ""
    """The task it is about; empty: the whole run, which cannot be cancelled so."""
    trial: int | None = None
    """None: every trial of the task."""
    by: str = ""
    """The user's name."""
    at: float = 0.0
    """Unix time, UTC."""


class Playing(msgspec.Struct):
    """An episode that is being played."""

    task_id: str
    trial: int
    turns: int
    """Turns that have ended."""
    since: float
    """Unix time at which it began."""
    paused: bool = False


class Now(msgspec.Struct):
    """What a run plays at the moment."""

    paused: bool = False
    """Whether the whole run is."""
    episodes: list[Playing] = []


_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode
_decode_now = msgspec.json.Decoder(Now).decode


def user() -> str:
    """The name of the user of this process, as commands bear it."""
    try:
        return getpass.getuser()[:64]
    except (OSError, KeyError):  # a user id without a name, as in a container
        return "somebody"


def send(path: Path, do: Verb, task_id: str = "", trial: int | None = None) -> None:
    """Tells the process that plays the run at ``path`` what to do. It hears of it within a second.

    Raises:
        UsageError: nobody plays it.
        RecordError: this user may not write there.
    """
    if not is_held(path):
        raise UsageError(f"nobody plays {path} at the moment, so there is nothing to {do}")
    line = _encode(Command(do, task_id, trial, user(), time.time())) + b"\n"
    try:
        file = os.open(path / COMMANDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line)  # one write: lines of several people do not mix
        finally:
            os.close(file)
    except OSError as e:
        raise RecordError(
            f"cannot {do}: {path / COMMANDS} cannot be written ({e.strerror}). Only who may write in the run's directory can"
            " pause or cancel what it plays"
        ) from e


class Commands:
    """Reads the commands to a run as they come.

    Args:
        path: the run's directory. Of commands that were given to an earlier process, cancellations stand (the run may have
            died before it heeded them), and pauses do not: who resumes a run wants it to go on.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.fspath(path / COMMANDS)
        self._read = 0
        self._early = [c for c in self._new() if c.do == "cancel"]

    def news(self) -> list[Command]:
        """Commands since the last call. Costs one look at the file's size where there are none."""
        early, self._early = self._early, []
        return [*early, *self._new()]

    def _new(self) -> list[Command]:
        try:
            if os.stat(self._file).st_size <= self._read:
                return []
            with open(self._file, "rb") as f:
                f.seek(self._read)
                data = f.read()
        except OSError:
            return []
        whole = data.rfind(b"\n") + 1  # a line that is still being written waits
        self._read += whole
        result = []
        for line in data[:whole].splitlines():
            with contextlib.suppress(msgspec.MsgspecError):  # of a newer version, or typed by hand: not for this one
                result.append(_decode_command(line))
        return result


def wait_while_paused(path: Path, commands: Commands, stop: Callable[[], object] = lambda: False) -> None:
    """Heeds what has come since the last call, and returns once the run is not paused; for loops that step by step play and
    learn, where a single episode cannot be cancelled without the group that it is compared with.

    Args:
        path: the run's directory.
        commands: to it.
        stop: whether it is to end, paused or not.
    """
    paused = False
    while not stop():
        for command in commands.news():
            if not command.task and command.do in ("pause", "resume"):
                paused = command.do == "pause"
                publish(path, 0, Now(paused))
        if not paused:
            return
        time.sleep(0.25)


def publish(path: Path, index: int, now: Now) -> None:
    """Says what the process ``index`` of a run plays. Whoever reads it sees the old or the new, never a part."""
    file = path / f"playing-{index}.json"
    part = file.with_suffix(".part")
    try:
        part.write_bytes(_encode(now))
        os.replace(part, file)
    except OSError:  # a full disk: the record will say so, this is only news
        with contextlib.suppress(OSError):
            part.unlink()


def forget(path: Path, indices: Iterable[int] | None = None) -> None:
    """Takes back what was published, by these processes or by all; a run that has died leaves it behind."""
    files = path.glob("playing-*") if indices is None else (path / f"playing-{i}.json" for i in indices)
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()


def playing(path: Path) -> Now | None:
    """What the run at ``path`` plays at the moment, by all its processes; None where none has said (yet)."""
    found = []
    for file in sorted(path.glob("playing-*.json")):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            found.append(_decode_now(file.read_bytes()))
    if not found:
        return None
    episodes = sorted((e for now in found for e in now.episodes), key=lambda e: e.since)
    return Now(any(now.paused for now in found), episodes)
