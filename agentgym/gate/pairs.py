# SPDX-License-Identifier: Apache-2.0
"""The tasks that two runs both played, what became of each, and which trials to look at: what differs comes first."""

from __future__ import annotations

from typing import Literal, NamedTuple

from agentgym.gate.verdict import Verdict
from agentgym.records.run import Episode, Run

Change = Literal["worse", "broken", "better", "mended", "moved", "same"]
"""``worse`` and ``better``: solved by most trials of one run and by fewer than half of the other's (a flip). ``broken`` and
``mended``: no flip, but more (fewer) trials break rules. ``moved``: only the mean differs."""

ORDER: tuple[Change, ...] = ("worse", "broken", "better", "mended", "moved", "same")
"""What wants a look comes first."""


class TaskPair(NamedTuple):
    """One task in both runs."""

    task: str
    change: Change
    first: float | None
    """Mean over the trials, by the metric that decides."""
    second: float | None
    broken: tuple[int, int]
    """Trials in which a rule was broken, in the first and in the second run."""
    trials: tuple[int, int]

    @property
    def difference(self) -> float:
        """Second less first; 0.0 where one has no value."""
        return 0.0 if self.first is None or self.second is None else self.second - self.first


def task_pairs(verdict: Verdict, first: Run, second: Run) -> list[TaskPair]:
    """The tasks that both runs played, those that differ first, each kind by how much.

    Args:
        verdict: of these runs (`agentgym.gate.compare.compare_runs`): its values are taken, none is computed anew.
    """
    counts = [_broken(run) for run in (first, second)]
    harmful = {t.task for t in verdict.tasks if t.outcome == "worse"}
    lower = any(m.direction == "lower" for m in verdict.metrics[:1])
    found = []
    for t in verdict.tasks:
        if t.task not in counts[0] or t.task not in counts[1]:
            continue
        (n, broken), (m, broken_now) = counts[0][t.task], counts[1][t.task]
        change: Change = "same"
        if t.task in harmful:
            change = "worse"
        elif broken_now * n > broken * m:
            change = "broken"
        elif _solved(t.candidate, lower) and _failed(t.baseline, lower):
            change = "better"
        elif broken_now * n < broken * m:
            change = "mended"
        elif t.baseline != t.candidate:
            change = "moved"
        found.append(TaskPair(t.task, change, t.baseline, t.candidate, (broken, broken_now), (n, m)))
    return sorted(found, key=lambda p: (ORDER.index(p.change), -abs(p.difference), p.task))


def _solved(value: float | None, lower: bool) -> bool:
    return value is not None and 0 <= value <= 1 and (value < 0.5 if lower else value > 0.5)


def _failed(value: float | None, lower: bool) -> bool:
    return _solved(value, not lower)


def _broken(run: Run) -> dict[str, tuple[int, int]]:
    """Task -> trials played, trials in which a rule was broken."""
    return {
        task: (n, broken)
        for task, n, broken in run._rows(
            f"SELECT task_id, count(*), sum(violations > 0) FROM episodes WHERE {run._counting()} GROUP BY task_id"
        )
    }


def trials_apart(first: Run, second: Run, task: str) -> tuple[Episode, Episode]:
    """Of a task one trial of each run, as different as there are: in gold, else in violations, else the first of both.

    Raises:
        NotFoundError: a run did not play the task.
    """
    a = list(first.episodes(task_id=task)) or [first.episode(task)]
    b = list(second.episodes(task_id=task)) or [second.episode(task)]

    def apart(pair: tuple[Episode, Episode]) -> tuple[float, float, bool]:
        x, y = pair
        known = x.gold is not None and y.gold is not None
        gold = abs((x.gold or 0.0) - (y.gold or 0.0)) if known else 0.0
        return gold, abs(x.violations - y.violations), x.trial == y.trial

    return max(((x, y) for x in a for y in b), key=apart)
