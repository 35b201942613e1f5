# SPDX-License-Identifier: Apache-2.0
"""Suite files as tests: one for each task, one for each bar, and one for each metric that a baseline lets decide.

The tasks of one family and variant (`SuitePart`) are played together, at once, when the first of their tests is set up, and
each test then looks at its own. Under pytest-xdist the worker that comes first plays them, and the others wait for it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentgym.pytest_play import (
    RESULTS,
    RUN,
    as_typed,
    board_of,
    choice_of,
    file_setting,
    infra_limit,
    options_of,
    refusals,
    refuse_trouble,
    safe,
    see,
    session_of,
    tie,
    wish_of,
)

if TYPE_CHECKING:
    from agentgym.pytest_gate import Place
    from agentgym.records.store import PlannedTask
    from agentgym.report.results import Results
    from agentgym.rollout.selection import Part


class SuiteFile(pytest.File):
    """A suite file: its families and variants, and the comparison with a baseline, if there is one of these tasks."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Its parts, and the tests of the gate."""
        from agentgym.rollout.selection import suite_parts

        with refusals(), contextlib.chdir(self.config.rootpath):
            parts = suite_parts(self.path, choice_of(self.config, {}))
            baseline, rules = file_setting(self.config, "baseline"), file_setting(self.config, "rules")
            metrics: list[str] = []
            if baseline is not None:
                from agentgym.pytest_gate import metrics_of

                metrics = metrics_of(baseline, rules, parts)
        for part in parts:
            yield SuitePart.from_parent(self, name=part.name, part=part)
        if metrics:
            for metric in (*metrics, ""):
                yield GateItem.from_parent(self, name=f"gate/{metric}" if metric else "gate", metric=metric, parts=parts)


class SuitePart(pytest.Collector):
    """One family and variant of a suite."""

    def __init__(self, *, part: Part, **more: Any) -> None:
        super().__init__(**more)
        self.part = part
        self._place: Place | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each task, and one for the bar of them all, if the suite sets one."""
        for task in self.part.plan.tasks:
            yield TaskItem.from_parent(self, name=task.item, task=task)
        if self.part.not_below is not None:
            yield BarItem.from_parent(self, name="not_below")

    def selected(self) -> list[PlannedTask]:
        """The tasks that this session asks for; all of them for the bar."""
        mine = [i for i in self.session.items if i.parent is self]
        if any(isinstance(i, BarItem) for i in mine):
            return self.part.plan.tasks
        return [i.task for i in mine if isinstance(i, TaskItem)]

    def place(self) -> Place:
        """Where it was played: here, now, unless it has been or somebody else plays it.

        Raises:
            AgentGymError: it cannot be played; the same for each of its tests.
        """
        if self._place is None:
            config = self.config
            shared = hasattr(config, "workerinput") or file_setting(config, "baseline") is not None
            if shared:
                from agentgym.pytest_gate import played_once

                self._place = played_once(board_of(config), self.nodeid, lambda: play_part(config, self.part, self.selected()))
            else:
                self._place = play_part(config, self.part, self.selected())
        return self._place


def play_part(config: pytest.Config, part: Part, tasks: list[PlannedTask]) -> Place:
    """Plays these tasks of a part."""
    import msgspec

    from agentgym.pytest_gate import Place
    from agentgym.rollout.evaluate import with_suite_settings

    plan = msgspec.structs.replace(part.plan, tasks=tasks)
    played = session_of(config).play(plan, with_suite_settings(plan, options_of(config, {})), wish_of(config, {}, "model"))
    return Place(str(played.path), [t.task_id for t in tasks], played.stopped)


class _PartItem(pytest.Item):
    """A test about what a part's policy did."""

    parent: SuitePart

    def results_of(self, tasks: list[PlannedTask]) -> Results:
        """What was played, tied to this test."""
        with refusals(), contextlib.chdir(self.config.rootpath):
            limit = infra_limit(self.config, {})
            place = self.parent.place()
            results = tie(self, Path(place.run), tasks)
            if results.trouble(limit) is not None and limit and len(tasks) < len(self.parent.selected()):
                from agentgym.report.results import Results

                whole = Results(Path(place.run), self.parent.selected())
                within = whole.trouble(limit) is None
                whole.close()
                if within:  # of all that was played with it so little is spoiled that it may be: no verdict on this task
                    pytest.skip(safe(f"{results.trouble()}\nwhich is within the infra limit of {self.parent.name}"))
            refuse_trouble(results, limit, place.stopped)
            return results

    def teardown(self) -> None:
        """Closes the record."""
        results = self.stash.get(RESULTS, None)
        if results is not None:
            results.close()

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name, for pytest's headings."""
        return self.path, None, f"{self.path.name}: {self.parent.name}: {self.name}"


class TaskItem(_PartItem):
    """One task: all its trials were played and scored, and what the suite asks of each task is so."""

    def __init__(self, *, task: PlannedTask, **more: Any) -> None:
        super().__init__(**more)
        self.task = task

    def setup(self) -> None:
        """Has it played."""
        self.results_of([self.task])

    def runtest(self) -> None:
        """Judges it."""
        results = self.stash[RESULTS]
        part = self.parent.part
        wrong = []
        gold = results.gold
        if gold.unscorable or not gold.n:
            wrong.append(f"{gold.unscorable} of {results.n} episodes could not be scored")
        elif part.each_not_below is not None and gold.mean < part.each_not_below:
            wrong.append(f"gold {gold.mean:g} is below {part.each_not_below:g}, which the suite asks of each task")
        flagged = results.flagged()
        if part.no_violations and flagged:
            wrong.append("violated, which the suite allows no task: " + ", ".join(dict.fromkeys(rule for rule, _ in flagged)))
        if wrong:
            steps = [f"  agentgym view {address}   {rule}" for rule, address in flagged]
            text = "\n".join([*wrong, *(["flagged steps:", *steps] if steps else [])])
            pytest.fail(safe(f"{text}\n{see(results, results.explain())}"), pytrace=False)


class BarItem(_PartItem):
    """The bar of one family and variant: it passes if gold, over its tasks, is not below what the suite asks for."""

    def setup(self) -> None:
        """Has all of it played."""
        self.results_of(self.parent.part.plan.tasks)

    def runtest(self) -> None:
        """Judges it."""
        results = self.stash[RESULTS]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check = results.gold.not_below(self.parent.part.not_below or 0.0)
        for warning in caught:  # again, in the name of the suite instead of this line
            warnings.warn_explicit(warning.message, warning.category, str(self.path), 1)
        if not check:
            pytest.fail(f"{check.text()}\n{see(results, check.text())}", pytrace=False)


class GateItem(pytest.Item):
    """What the comparison with a baseline says of one metric of a suite; without a metric, of everything else."""

    def __init__(self, *, metric: str, parts: list[Part], **more: Any) -> None:
        super().__init__(**more)
        self.metric = metric
        self.parts = parts

    def setup(self) -> None:
        """Has the verdict made, unless another test has."""
        from agentgym.pytest_gate import failure, make_verdict

        with refusals(), contextlib.chdir(self.config.rootpath):
            baseline = file_setting(self.config, "baseline")
            assert baseline is not None

            def play(part: Part) -> Place:
                place = play_part(self.config, part, part.plan.tasks)
                self.user_properties.append((RUN, as_typed(self.config, Path(place.run))))
                return place

            verdict = make_verdict(
                board_of(self.config),
                self.path.as_posix(),
                self.parts,
                name_of=lambda part: f"{self.parent.nodeid}::{part.name}" if self.parent else part.name,
                whole=self._whole(),
                play=play,
                baseline=baseline,
                rules=file_setting(self.config, "rules"),
                shown=lambda path: as_typed(self.config, path),
            )
            self.outcome, self.text = failure(verdict, self.metric)
            self.user_properties += [("agentgym.gate", verdict.outcome), ("agentgym.gate.exit_code", verdict.exit_code)]
            if self.outcome == "error":
                pytest.fail(safe(self.text), pytrace=False)

    def _whole(self) -> set[str]:
        """Node ids of the parts of which this session plays all."""
        parts = {i.parent for i in self.session.items if isinstance(i, _PartItem)}
        return {p.nodeid for p in parts if len(p.selected()) == len(p.part.plan.tasks)}

    def runtest(self) -> None:
        """Tells it."""
        if self.outcome == "skip":
            pytest.skip(safe(self.text))
        if self.outcome == "fail":
            pytest.fail(safe(self.text), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name, for pytest's headings."""
        return self.path, None, f"{self.path.name}: {self.name}"
