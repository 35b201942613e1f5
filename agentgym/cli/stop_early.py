# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval --stop-early BASELINE``: plays in an order in which one may stop, and stops when the gate is decided."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from agentgym.errors import UsageError
from agentgym.gate import sources
from agentgym.gate.rules import Rules, for_rows, read_rules
from agentgym.gate.sequential import Sequential
from agentgym.gate.sources_run import run_rows
from agentgym.records.run import Run
from agentgym.rollout.scheduler import Progress
from agentgym.rollout.selection import Plan

EVERY_S = 0.5
"""Seconds between two looks, which read the scores of all episodes so far."""


class EarlyStop:
    """Watches a run while it is played.

    Args:
        baseline: what it is compared with.
        rules: the rules' file; None: the built-in ones.
        plan: what is to be played.

    Raises:
        UsageError: the plan holds none of the baseline's tasks, or tasks are played differently often.
    """

    def __init__(self, baseline: str, rules: str | None, plan: Plan) -> None:
        rows = sources.load(baseline)
        trials = {t.trials for t in plan.tasks}
        if len(trials) != 1:
            raise UsageError(f"--stop-early needs the same number of trials for every task, not {sorted(trials)}: see --trials")
        self.watch = Sequential(rows, for_rows(read_rules(Path(rules)) if rules else Rules(), rows, rows), trials=trials.pop())
        place = {task: i for i, task in enumerate(self.watch.order())}
        if not any(t.task_id in place for t in plan.tasks):
            raise UsageError(f"none of the selected tasks is in the baseline {baseline}: nothing could be decided")
        # tasks that the baseline does not know decide nothing, so they come last
        ordered = sorted(plan.tasks, key=lambda t: place.get(t.task_id, len(place)))
        self.plan = msgspec.structs.replace(plan, tasks=ordered)
        self._scheduler: Any = None
        self._path: Path | None = None
        self._looked = 0.0
        self._said = -1
        self._about = {"baseline": Path(baseline).name, "rules": Path(rules).name if rules else None}

    def start(self, scheduler: Any, path: Path) -> None:
        """The run begins."""
        self._scheduler, self._path = scheduler, path
        scheduler.writer.set_meta({"stop_early": {**self._about, **self.watch.evidence()}})

    def update(self, progress: Progress) -> None:
        """Looks, now and then, and lets no further episode begin once enough is known."""
        now = time.monotonic()
        if self._path is None or self._scheduler.stopped or not progress.total.done or now - self._looked < EVERY_S:
            return
        with Run(self._path) as run:
            state = self.watch.feed(run_rows(run, str(self._path)))
        self._looked = time.monotonic()
        if self.watch.clusters != self._said:  # for whoever watches the run from elsewhere
            self._said = self.watch.clusters
            self._scheduler.writer.set_meta({"stop_early": {**self._about, **self.watch.evidence()}})
        if state != "running":
            word = "worse" if state == "regression" else "not worse by its margin"
            self._scheduler.stopped = (
                f"stopped early: {self.watch.clusters} clusters show that this is {word};"
                " `agentgym gate RUN --sequential` tells the verdict"
            )
