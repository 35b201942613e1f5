# SPDX-License-Identifier: Apache-2.0
"""The gate in pytest: what the tests of a suite file played is compared with a baseline, once, whichever processes played it.

Under pytest-xdist the parts of a suite are played by several workers, each into runs of its own. They tell each other by
small files (`Board`) where a part lies; the worker that comes first to a test of the gate waits for the parts that others
still play, plays those that nobody was asked to, and makes the verdict, which the others read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from agentgym.errors import AgentGymError, InfrastructureError, UsageError
from agentgym.gate import sources
from agentgym.gate.compare import judge_played
from agentgym.gate.report_text import sentence, where
from agentgym.gate.rules import Rules, for_rows, read_rules
from agentgym.gate.verdict import MetricResult, Verdict, decode_verdict
from agentgym.report.text import one_line
from agentgym.rollout.selection import Part

PATIENCE_S = 3.0
"""Seconds after which a part is given up that nobody is at work on."""


class Place(msgspec.Struct, frozen=True):
    """Where a part was played."""

    run: str
    """The run's directory."""
    tasks: list[str]
    stopped: str | None = None
    """Why the playing ended before all of it was played."""

    def encode(self) -> bytes:
        """As it is told."""
        return msgspec.json.encode(self)


class Board:
    """Files by which the processes of one pytest session tell each other how far they are.

    Args:
        folder: shared by them.
        me: name of this process.
    """

    def __init__(self, folder: Path, me: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mine = folder / f"{me}.working"
        self._mine.write_text(str(os.getpid()))

    def _file(self, name: str, kind: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{kind}"

    def tell(self, name: str, data: bytes, kind: str = "part") -> None:
        """Says something, whole or not at all."""
        temporary = self._mine.with_suffix(".new")
        temporary.write_bytes(data)
        os.replace(temporary, self._file(name, kind))

    def told(self, name: str, kind: str = "part") -> bytes | None:
        """What somebody said; None: nobody did."""
        try:
            return self._file(name, kind).read_bytes()
        except FileNotFoundError:
            return None

    def first(self, name: str) -> bool:
        """Whether this process is the first to ask so."""
        try:
            os.close(os.open(self._file(name, "taken"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def wait(self, name: str, kind: str = "part") -> bytes | None:
        """What somebody is about to say; None once nobody is at work who could."""
        waiting = self._mine.with_suffix(".waiting")
        os.replace(self._mine, waiting)
        try:
            idle = time.monotonic()
            while True:
                found = self.told(name, kind)
                if found is not None or self.told(name, "error") is not None or time.monotonic() - idle > PATIENCE_S:
                    return found
                if any(map(_alive, self.folder.glob("*.working"))):
                    idle = time.monotonic()
                time.sleep(0.05)
        finally:
            os.replace(waiting, self._mine)

    def close(self) -> None:
        """Takes leave; the last one tidies up."""
        self._mine.unlink(missing_ok=True)
        if not [*self.folder.glob("*.working"), *self.folder.glob("*.waiting")]:
            shutil.rmtree(self.folder, ignore_errors=True)


def _alive(file: Path) -> bool:
    try:
        os.kill(int(file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def metrics_of(baseline: Path, rules: Path | None, parts: Sequence[Part]) -> list[str]:
    """What decides of a suite: the metrics that get a test of their own; empty where the baseline is of another suite.

    Raises:
        UsageError: a file cannot be used.
    """
    before = sources.load(str(baseline))
    played = {t.task_id for part in parts for t in part.plan.tasks}
    if not played & set(before.task.names):
        return []
    whole = for_rows(read_rules(rules) if rules else Rules(), before, before)
    return [name for name, rule in whole.metrics.items() if rule.kind != "report"]


def make_verdict(
    board: Board,
    suite: str,
    parts: Sequence[Part],
    *,
    name_of: Callable[[Part], str],
    whole: set[str],
    play: Callable[[Part], Place],
    baseline: Path,
    rules: Path | None,
    shown: Callable[[Path], str],
) -> Verdict:
    """The verdict on a suite; made once in a session.

    Args:
        board: see there.
        suite: the suite file, as a name.
        parts: all of the suite's.
        name_of: a part's node id.
        whole: node ids of the parts of which this session plays all.
        play: plays a part here.
        baseline: the baseline's file.
        rules: the rules' file.
        shown: how to name a run.

    Raises:
        UsageError: baseline or rules cannot be used.
        InfrastructureError: a part was never played: its test's process died, or pytest was stopped.
    """
    if board.first(suite):
        try:
            places = [_place(board, part, name_of(part), whole, play) for part in parts]
            asked = read_rules(rules) if rules else Rules()
            verdict = judge_played([(Path(p.run), p.tasks) for p in places], str(baseline), asked, shown)
        except Exception as e:  # a bug of ours, too: the others must not wait for it
            board.tell(suite, str(e).encode() if isinstance(e, AgentGymError) else repr(e).encode(), "error")
            raise
        board.tell(suite, verdict.encode(), "verdict")
        return verdict
    told = board.told(suite, "verdict")
    if told is None and board.told(suite, "error") is None:
        told = board.wait(suite, "verdict")
    if told is None:
        error = board.told(suite, "error")
        if error is not None:
            raise UsageError(error.decode())
        raise InfrastructureError("the process that made the verdict died", retryable=False)
    return decode_verdict(told)


def _place(board: Board, part: Part, name: str, whole: set[str], play: Callable[[Part], Place]) -> Place:
    if name not in whole:  # left out by -k or --lf, in part or wholly: a comparison needs the whole suite
        return play(part)
    return _told_place(board, name)


def _told_place(board: Board, name: str) -> Place:
    """Where another process, or this one before, has played a part.

    Raises:
        UsageError: it could not be played; the text says why.
        InfrastructureError: it was never played.
    """
    told = board.told(name)
    if told is None and board.told(name, "error") is None:
        told = board.wait(name)
    if told is not None:
        return msgspec.json.decode(told, type=Place)
    error = board.told(name, "error")
    if error is not None:
        raise UsageError(error.decode())
    raise InfrastructureError(f"{name} was not played: its process died, or pytest was stopped", retryable=False)


def played_once(board: Board, name: str, play: Callable[[], Place]) -> Place:
    """Plays a part, unless another process of this session has begun to, which is then waited for.

    Raises:
        AgentGymError: it cannot be played, here or there.
    """
    if not board.first(name):
        return _told_place(board, name)
    try:
        place = play()
    except Exception as e:  # the others must not wait for it
        board.tell(name, str(e).encode() if isinstance(e, AgentGymError) else repr(e).encode(), "error")
        raise
    board.tell(name, place.encode())
    return place


def failure(verdict: Verdict, metric: str) -> tuple[str, str]:
    """(``pass``, ``fail``, ``skip`` or ``error``, text) of one metric's test, or of the whole verdict's (``""``)."""
    if verdict.outcome in ("coverage", "incompatible"):
        # one test tells; that nothing was measured is no news about any metric
        return ("error", verdict.summary) if not metric else ("skip", f"nothing was measured: {verdict.summary}")
    if not metric:
        unplayed = verdict.outcome == "inconclusive" and verdict.candidate.skipped
        if verdict.exit_code and not unplayed:
            told = [c.text for c in verdict.checks if c.name == "floor" and c.outcome == "fail"]
            return "fail", "\n".join(
                [verdict.summary, *told, *(sentence(t) for t in verdict.twins if t.outcome == "regression")]
            )
        return ("skip" if verdict.outcome == "inconclusive" else "pass"), verdict.summary
    broken = [c.text for c in verdict.checks if c.metric == metric and c.name == "invariant" and c.outcome == "fail"]
    results = [m for m in (*verdict.metrics, *verdict.families) if m.metric == metric]
    worse = [f"{where(m)}: {sentence(m)}" for m in results if m.outcome == "regression"]
    if broken or worse:
        return "fail", "\n".join([*broken, *worse, *look(verdict, metric)])
    unsure = [m for m in results if m.outcome == "inconclusive" and not m.family]
    if unsure:
        # the verdict's own test fails where the rules ask for it
        return "skip", f"INCONCLUSIVE: {sentence(unsure[0])} {unsure[0].reason}".rstrip()
    return "pass", _first(results)


def _first(results: Sequence[MetricResult]) -> str:
    return sentence(results[0]) if results else ""


def look(verdict: Verdict, metric: str, most: int = 5) -> Iterator[str]:
    """The steps to look at."""
    rule = metric.removeprefix("violations:")
    mine = [f for f in verdict.flagged if f.rule == rule or f.rule.startswith(f"{rule}/")]
    for flag in mine[:most]:
        yield f"  agentgym view {flag.address}   {one_line(flag.text, 120)}"
