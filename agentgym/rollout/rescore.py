# SPDX-License-Identifier: Apache-2.0
"""Scores a run again from its record, offline: a new set of scores beside the old ones, and what changed.

Nothing is played and no policy is asked. Episodes are read, judged and written some at a time, so that a run of any
length takes the same memory; with several processes each of them judges some.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

import agentgym
from agentgym.errors import InfrastructureError, NothingSelectedError, RecordError, UsageError
from agentgym.records.run import Run
from agentgym.records.sets import SetWriter, check_name, set_names
from agentgym.rollout.judging import OWN, Job, Judge, Verdicts, read_frame, write_frame
from agentgym.rollout.processes import _error
from agentgym.scoring import Role

CHUNK = 32
"""Episodes that are read, judged and written at a time."""


class Rescored(msgspec.Struct, kw_only=True):
    """What scoring a run again came to. The scores and the changes are in the set."""

    run: str
    """Its directory."""
    scores: str
    """Name of the set, for ``--scores NAME`` and ``open_run(..., scores=NAME)``."""
    evaluators: list[str]
    episodes: int
    """Judged ones."""
    spoiled: int
    """Infrastructure outcomes: there is nothing to judge, then or now."""
    changed: int
    """Episodes of which something changed."""
    counts: dict[str, int]
    """What changed (``gold``, ``metric NAME`` ...) -> in how many episodes."""
    verifiers: list[tuple[str, str, str, int]]
    """Name of a score, hash of its verifier then (empty: there was none) and now, episodes."""
    unscorable: list[tuple[str, int]]
    """Why scores have no value, and how often."""
    not_applicable: int
    """Episodes about which the verifiers said nothing."""
    gold_before: float | None
    """Mean of the episodes that have a value before and after; None where there is none."""
    gold_after: float | None
    processes: int
    cpu_s: float
    """CPU seconds of judging, all processes together."""


def rescore(
    path: Path,
    evaluators: Sequence[str],
    *,
    name: str | None = None,
    role: Role = "gold",
    sandbox: str | None = None,
    judge: str | None = None,
    processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Scores a finished run again.

    Args:
        path: the run's directory.
        evaluators: names or places of verifiers, or ``["own"]``: the task's own, as their code is now.
        name: of the new set; None for the evaluators' names, with a number where that is taken.
        role: ``gold`` (what they say together is the episodes' gold) or ``metric``; without effect on ``own``.
        sandbox: for verifiers that need one.
        judge: the model for verifiers that need one.
        processes: how many judge; with more than one, verifiers must be known by name or place there, too.
        on_progress: called with the episodes judged so far and all of them.

    Raises:
        RecordError: the run is being played, is damaged, or cannot be written beside.
        UsageError: an evaluator needs something that was not named.
        NotFoundError: there is no such evaluator.
        NothingSelectedError: no episode of the run can be judged.
        InfrastructureError: a process died.
    """
    if not evaluators or (OWN in evaluators and len(evaluators) > 1):
        raise UsageError(f"name one or several evaluators, or {OWN!r} alone")
    if role not in ("gold", "metric"):
        raise UsageError(f"scores can be given as gold or metric, not as {role!r}: what was paid is history")
    if processes < 1:
        raise UsageError(f"at least 1 process must judge, not {processes}")
    if name is not None and check_name(name) in set_names(path):
        raise UsageError(
            f"{path} has a set of scores {name!r} already, and what was given once is not replaced: take another name"
        )
    job = Job(str(path.absolute()), list(evaluators), role, sandbox, judge, [str(Path(p).absolute()) for p in sys.path])
    with Run(path) as run:
        if run.status == "running":
            raise RecordError(f"{path} is still being played: wait until it has ended, or stop it, and then score it again")
        ids = run.ids("outcome NOT IN ('infrastructure', 'cancelled')")
        spoiled = run.count() - len(ids)
    if not ids:
        raise NothingSelectedError(f"{path} has no episode that could be judged")
    first = Judge(job)
    try:
        first.check()
        chunks = [ids[i : i + CHUNK].tolist() for i in range(0, len(ids), CHUNK)]
        processes = min(processes, len(chunks))
        writer = SetWriter(path, name, "+".join(e.rpartition(":")[2].rpartition("/")[2] for e in evaluators))
        try:
            return _write(path, job, writer, first, chunks, processes, spoiled, len(ids), on_progress)
        finally:
            writer.close()
    finally:
        first.run.close()


def _write(
    path: Path,
    job: Job,
    writer: SetWriter,
    first: Judge,
    chunks: list[list[int]],
    processes: int,
    spoiled: int,
    total: int,
    on_progress: Callable[[int, int], None] | None,
) -> Rescored:
    code: collections.Counter[tuple[str, str, str]] = collections.Counter()
    unscorable: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    done = changed = not_applicable = 0
    cpu_s = 0.0
    verdicts = map(first.judge, chunks) if processes == 1 else _in_processes(job, chunks, processes)
    with contextlib.closing(verdicts) if processes > 1 else contextlib.nullcontext():  # type: ignore[type-var]
        for v in verdicts:
            writer.add(v.judged)
            for *key, n in v.code:
                code[tuple(key)] += n  # type: ignore[index]
            for reason, n in v.unscorable:
                unscorable[reason] += n
            for j in v.judged:
                counts.update(dict.fromkeys((c.what for c in j.changes), 1))
                changed += bool(j.changes)
            done += len(v.judged)
            not_applicable += v.not_applicable
            cpu_s += v.cpu_s
            if on_progress is not None:
                on_progress(done, total)
    verifiers = sorted((*key, n) for key, n in code.items())
    set_name = writer.finish(
        {
            "evaluators": job.evaluators,
            "role": job.role,
            "created_at": time.time(),
            "agentgym": agentgym.__version__,
            "episodes": done,
            "verifiers": verifiers,
        }
    )
    with Run(path, scores=set_name) as run:
        sql = (
            "SELECT avg(e.gold), avg(j.gold) FROM main.episodes e JOIN later.judged j ON j.episode = e.id"
            " WHERE e.gold IS NOT NULL AND j.gold IS NOT NULL"
        )
        before, after = next(run._rows(sql))
    return Rescored(
        run=str(path), scores=set_name, evaluators=job.evaluators, episodes=done, spoiled=spoiled, changed=changed,
        counts=dict(counts.most_common()), verifiers=verifiers, unscorable=unscorable.most_common(),
        not_applicable=not_applicable, gold_before=before, gold_after=after, processes=processes, cpu_s=round(cpu_s, 3),
    )  # fmt: skip


def _in_processes(job: Job, chunks: list[list[int]], count: int) -> Iterator[Verdicts]:
    """The verdicts on all chunks, as they come, of so many processes. At most two chunks a process wait to be written."""
    waiting: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    answers: queue.Queue[Verdicts | BaseException] = queue.Queue(2 * count)
    running: list[subprocess.Popen[bytes]] = []
    ending = threading.Event()

    def put(answer: Verdicts | BaseException) -> None:
        while not ending.is_set():
            with contextlib.suppress(queue.Full):
                answers.put(answer, timeout=0.2)
                return

    def serve(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        chunk: list[int] = []
        try:
            write_frame(process.stdin, msgspec.msgpack.encode(job))
            while not ending.is_set():
                try:
                    chunk = waiting.get_nowait()
                except queue.Empty:
                    return
                write_frame(process.stdin, msgspec.msgpack.encode(chunk))
                data = read_frame(process.stdout)
                if data is None:
                    raise BrokenPipeError
                put(msgspec.msgpack.decode(data, type=Verdicts))
        except (OSError, ValueError):
            code = process.wait()
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            at = f" while it judged the episodes {chunk[0]} to {chunk[-1]}" if chunk else ""
            put(InfrastructureError(f"a process that judges {how}{at}; nothing was kept", retryable=False))
        except msgspec.MsgspecError as e:
            put(InfrastructureError(f"a process that judges answered what cannot be read ({e})", retryable=False))

    try:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "agentgym.rollout.judging"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            running.append(process)
            threading.Thread(target=serve, args=(process,), daemon=True).start()
        for _ in chunks:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer.error is not None:
                raise _error(*answer.error)
            yield answer
    finally:
        ending.set()
        for process in running:
            process.kill()  # what it was at is not wanted any more
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
