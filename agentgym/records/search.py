# SPDX-License-Identifier: Apache-2.0
"""Finding words or a regular expression in everything that episodes hold: messages, calls, results, scores, findings.

``stream`` searches in a process of its own, so that nobody waits for it: it can be ended at any moment, and takes no
memory of the process that asks. A regular expression gets a limited time for each episode; one that needs longer (there are
some that need years) is left out there and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from agentgym.errors import AgentGymError, RecordError, UsageError
from agentgym.records.run import _UNREADABLE, Episode, Run, _decompress
from agentgym.trajectory import Trajectory, decode_trajectory

OPENING = -1
"""`Passage.turn` of what was said before the first turn."""
END = -2
"""Of scores, errors, and findings about the whole episode."""

CPU_S = 1.0
"""Seconds of CPU that a regular expression may take for one episode."""

MOST_SHOWN = 20
"""Hits of one episode of which the text is told; the others are counted."""

MOST_COUNTED = 10_000
"""Hits of one episode that are counted."""

MOST_HITS = 5_000
"""Hits whose text is told in all; then the search ends and says so."""

MOST_SLOW = 20
"""Episodes for which the expression may take too long; then the search ends and says so."""

_BEFORE, _AFTER = 60, 200
"""Characters told in front of a hit and from its start on."""

_EVERY_S = 0.1
"""Between two reports of progress."""


class Passage(NamedTuple):
    """A piece of an episode in which to look."""

    turn: int
    """The turn it belongs to; `OPENING` or `END`."""
    where: str
    """``user``, ``assistant``, ``reasoning``, ``call``, ``result``, ``event``, ``score``, ``finding``, ``error``, ..."""
    text: str


class Hit(msgspec.Struct, frozen=True, array_like=True):
    """One place where it was found."""

    turn: int
    where: str
    before: str
    match: str
    after: str


class Found(msgspec.Struct, frozen=True, tag=True):
    """What was found in one episode."""

    episode: int
    """Its number in the run."""
    count: int
    hits: list[Hit]
    """The first of them."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far the search is."""

    done: int
    of: int
    slow: int = 0
    """Episodes that were left because the expression took too long."""
    unreadable: int = 0
    """Episodes that are damaged."""
    full: bool = False
    """Whether it ended early because there were `MOST_HITS`."""
    hopeless: bool = False
    """Whether it ended early because the expression took too long for `MOST_SLOW`."""
    ended: bool = False


class _Failed(msgspec.Struct, frozen=True, tag=True):
    message: str


class Search(msgspec.Struct, frozen=True):
    """What to look for, and where."""

    path: str
    """The run."""
    pattern: str
    """As people type it: words, or ``/EXPRESSION/``; see `compiled`."""
    where: str = "1"
    """SQL condition over ``episodes``; as for `Run.ids`, with ``values`` and ``order``."""
    values: list[Any] = []
    order: str = "id"
    scores: str | None = None
    cpu_s: float = CPU_S


class _Finder(Protocol):
    def finditer(self, string: str, /) -> Iterator[re.Match[str]]: ...


def compiled(pattern: str) -> _Finder:
    """What finds it: the words themselves, or between slashes a regular expression of Python.

    Upper and lower case are the same unless a capital letter is looked for.

    Raises:
        UsageError: there is nothing to look for, or the expression is none; it says where.
    """
    expression = len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/")
    source = pattern[1:-1] if expression else re.escape(pattern)
    if not source:
        raise UsageError("type what to look for: words, or a regular expression between slashes, as in /O-\\d+/")
    letters = re.sub(r"\\.", "", source) if expression else pattern
    flags = 0 if any(c.isupper() for c in letters) else re.IGNORECASE
    try:
        return re.compile(source, flags | re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as e:
        at = getattr(e, "pos", None)
        place = "" if at is None else f", at character {at + 1} of it"
        what = getattr(e, "msg", None) or "it is too large"
        raise UsageError(
            f"{pattern} is no regular expression: {what}{place}; without the slashes it is taken as words"
        ) from None


# -- what there is to look in -------------------------------------------------------------------------------------------


def passages(run: Run, episode: Episode) -> Iterator[Passage]:
    """Everything that an episode holds, in the order of a replay.

    Raises:
        RecordError: it is damaged; what stands before the damage was given.
    """
    yield from _played(_trajectory(run, episode))
    for s in episode.all_scores:
        evidence = "" if s.evidence is None else _written(s.evidence)
        yield Passage(END, "score", " ".join(x for x in (s.name, s.reason, *s.flags, evidence) if x))
    for f in episode.findings:
        evidence = "" if f.evidence is None else _written(f.evidence)
        yield Passage(END if f.turn is None else f.turn, "finding", f"{f.dimension}/{f.rule} {evidence}".rstrip())
    if episode.error:
        yield Passage(END, "error", episode.error)


def _trajectory(run: Run, episode: Episode) -> Trajectory:
    """Without its tokens: they hold no words."""
    rows = list(run._rows("SELECT data FROM trajectories WHERE episode = ?", (episode.id,)))
    try:
        return decode_trajectory(_decompress(rows[0][0]))
    except _UNREADABLE as e:
        raise RecordError(f"{episode.address}: the stored trajectory is damaged ({e})") from e


def _played(trajectory: Trajectory) -> Iterator[Passage]:
    for m in trajectory.opening:
        yield Passage(OPENING, m.role, m.text)
    for turn in trajectory.turns:
        m = turn.message
        if m.reasoning:
            yield Passage(turn.index, "reasoning", m.reasoning)
        if m.text:
            yield Passage(turn.index, "assistant", m.text)
        for c in m.tool_calls:
            yield Passage(turn.index, "call", f"{c.name} {c.arguments}")
        for o in turn.observation:
            yield Passage(turn.index, "result" if o.role == "tool" else o.role, o.text)
        for change in turn.changes:
            yield Passage(turn.index, "state", f"{change.path} {_written(change.before)} {_written(change.after)}")
        for event in turn.events:
            data = "" if event.data is None else _written(event.data)
            yield Passage(turn.index, "event", f"{event.kind} {event.resource} {data}".rstrip())


def _written(value: Any) -> str:
    """A value as text: JSON without escapes, for that is what people look for."""
    return json.dumps(value, ensure_ascii=False, default=str)


def look(finder: _Finder, found: Iterator[Passage]) -> tuple[int, list[Hit]]:
    """How often it was found, and the first hits."""
    count = 0
    hits: list[Hit] = []
    for turn, where, text in found:
        for match in finder.finditer(text):
            if match.end() == match.start():
                continue
            count += 1
            if count <= MOST_SHOWN:
                start, end = match.span()
                before = text[max(0, start - _BEFORE) : start]
                hits.append(Hit(turn, where, before, text[start : min(end, start + _AFTER)], text[end : start + _AFTER]))
            if count == MOST_COUNTED:
                return count, hits
    return count, hits


# -- the process that searches ------------------------------------------------------------------------------------------


class _TooSlowError(Exception):
    pass


def search(wanted: Search) -> Iterator[Found | Progress]:
    """Searches in this process, whose main thread it must be: the limit of time is a signal, which ``re`` heeds.

    Raises:
        AgentGymError: the run cannot be read, or there is nothing to look for.
    """

    def stop(*_: object) -> None:
        raise _TooSlowError

    finder = compiled(wanted.pattern)
    slow = unreadable = told = 0
    reported = 0.0
    old = signal.signal(signal.SIGVTALRM, stop)
    try:
        with Run(wanted.path, scores=wanted.scores) as run:
            ids = run.ids(wanted.where, tuple(wanted.values), wanted.order)
            for done, number in enumerate(ids):
                if time.monotonic() - reported >= _EVERY_S:
                    reported = time.monotonic()
                    yield Progress(done, len(ids), slow, unreadable)
                try:
                    (episode,) = run.by_ids([number])
                    count, hits = _in_time(wanted.cpu_s, lambda e=episode: look(finder, passages(run, e)))  # type: ignore[misc]
                except _TooSlowError:
                    slow += 1
                    if slow >= MOST_SLOW:
                        yield Progress(done + 1, len(ids), slow, unreadable, hopeless=True, ended=True)
                        return
                    continue
                except (RecordError, ValueError):
                    unreadable += 1
                    continue
                if count:
                    yield Found(number, count, hits)
                    told += len(hits)
                if told >= MOST_HITS:
                    yield Progress(done + 1, len(ids), slow, unreadable, full=True, ended=True)
                    return
            yield Progress(len(ids), len(ids), slow, unreadable, ended=True)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)


def _in_time(cpu_s: float, work: Callable[[], tuple[int, list[Hit]]]) -> tuple[int, list[Hit]]:
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def main() -> None:
    """The process: reads a `Search` from its standard input, writes what it finds, a line each."""
    parent = os.getppid()
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)  # whoever asked may have been killed
    wanted = msgspec.json.decode(sys.stdin.buffer.readline(), type=Search)
    out = sys.stdout.buffer
    with contextlib.suppress(BrokenPipeError):
        try:
            for news in search(wanted):
                out.write(msgspec.json.encode(news) + b"\n")
                out.flush()
        except AgentGymError as e:
            out.write(msgspec.json.encode(_Failed(str(e))) + b"\n")
            out.flush()
    os._exit(0)  # nothing is left to do, and a reader that has gone away is no error


_START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline());from agentgym.records.search import main; main()"
)


async def stream(wanted: Search) -> AsyncGenerator[Found | Progress, None]:
    """Searches in a process of its own, which ends when this is closed.

    Raises:
        AgentGymError: the run cannot be read, there is nothing to look for, or the process died.
    """
    compiled(wanted.pattern)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _START,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, limit=1 << 24,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    ended = False
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(sys.path).encode() + b"\n" + msgspec.json.encode(wanted) + b"\n")
            await process.stdin.drain()
        decoder = msgspec.json.Decoder(Found | Progress | _Failed)
        async for line in process.stdout:
            news = decoder.decode(line)
            ended = isinstance(news, _Failed) or (isinstance(news, Progress) and news.ended)
            if isinstance(news, _Failed):
                raise UsageError(news.message)
            yield news
        if not ended:
            code = await process.wait()
            raise RecordError(f"the process that searches ended with exit code {code}: search again, in fewer episodes")
    finally:
        if not ended and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
