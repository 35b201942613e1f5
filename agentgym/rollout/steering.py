# SPDX-License-Identifier: Apache-2.0
"""What a person asks of a run while it is played: to pause, to go on, to leave one task."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

from agentgym.episode import Reins
from agentgym.records.control import Command, Commands, Now, Playing, forget, publish

EVERY_S = 0.25
"""Seconds between two looks at the commands."""
PUBLISH_S = 1.0
"""Seconds between two times that it is said what is being played; a run that is over sooner says nothing."""


class _Seat(NamedTuple):
    task_id: str
    trial: int
    since: float


class Steering:
    """Heeds the commands to a run, and says what it plays.

    Args:
        path: the run's directory.
        index: of this process among those that play the run; None for one that lets others play, and says nothing.
    """

    def __init__(self, path: Path, index: int | None = 0) -> None:
        self._path = path
        self._index = index
        self._commands = Commands(self._path)
        self._seats: dict[Reins, _Seat] = {}
        self._cancelled: dict[tuple[str, int | None], str] = {}
        self._paused: set[tuple[str, int | None]] = set()
        self._hold: asyncio.Event | None = None
        """Set where the whole run is paused, until it goes on."""
        self._looked = self._said = time.monotonic()
        self._public = False
        self._heed()

    @property
    def paused(self) -> bool:
        """Whether the whole run is."""
        return self._hold is not None

    def begin(self, task_id: str, trial: int) -> Reins:
        """An episode is about to be played, held by what is returned; see `end`."""
        reins = Reins()
        self._seats[reins] = _Seat(task_id, trial, time.time())
        if self._cancelled or self._paused:
            for key in ((task_id, trial), (task_id, None)):
                if key in self._cancelled:
                    reins.cancel(self._cancelled[key])
                elif key in self._paused:
                    reins.pause()
        return reins

    def end(self, reins: Reins) -> None:
        """It has ended."""
        reins.taken()  # a policy that does not heed it must not leave the worker half cancelled
        self._seats.pop(reins, None)

    async def may_begin(self) -> None:
        """Waits while the whole run is paused."""
        while self._hold is not None:
            await self._hold.wait()

    def look(self) -> None:
        """Heeds new commands and says what is being played, each at its own pace; cheap to call often."""
        now = time.monotonic()
        if now - self._looked < EVERY_S:
            return
        self._looked = now
        heard = self._heed()
        if heard or now - self._said >= PUBLISH_S:
            self._said = now
            self._publish()

    def close(self) -> None:
        """Takes back what was published, and lets go what is held."""
        self._release()
        if self._public and self._index is not None:
            forget(self._path, [self._index])

    def _heed(self) -> bool:
        news = self._commands.news()
        for command in news:
            if command.task:
                self._one(command)
            elif command.do == "pause" and self._hold is None:
                self._hold = asyncio.Event()
                for reins in self._seats:
                    reins.pause()
            elif command.do == "resume":
                self._release()
        return bool(news)

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.set()
            self._hold = None
        self._paused.clear()
        for reins in self._seats:
            reins.resume()

    def _one(self, command: Command) -> None:
        key = (command.task, command.trial)
        mine = [r for r, s in self._seats.items() if s.task_id == command.task and command.trial in (None, s.trial)]
        if command.do == "cancel":
            self._cancelled[key] = command.by
            for reins in mine:
                reins.cancel(command.by)
        elif command.do == "pause":
            self._paused.add(key)
            for reins in mine:
                reins.pause()
        else:
            self._paused -= {key, (command.task, None)}
            for reins in mine:
                reins.resume()

    def _publish(self) -> None:
        if self._index is None:
            return
        self._public = True
        episodes = [Playing(s.task_id, s.trial, reins.turns, s.since, reins.paused) for reins, s in self._seats.items()]
        publish(self._path, self._index, Now(self.paused, episodes))
