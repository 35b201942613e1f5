# SPDX-License-Identifier: Apache-2.0
"""Results that can be asserted on: scores that know how sure they are, findings, and the episodes to look at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from agentgym.errors import NotFoundError, UsageError, did_you_mean
from agentgym.records.run import Episode, Run
from agentgym.records.store import PlannedTask
from agentgym.report.summary import Measure, measure
from agentgym.report.text import fraction, one_line, plain
from agentgym.stats.intervals import bootstrap_mean, clopper_pearson
from agentgym.trajectory import SPOILED

WORST = 5
"""Episodes that an explanation names."""


class StatisticsWarning(UserWarning):
    """An assertion about scores says less than it seems to: too few episodes, or no interval looked at."""


Verdict = Literal["met", "undecided", "too few", "missed", "not scored"]
"""``met``: the whole interval is on the right side of the bar; ``undecided``: the bar lies in it; ``too few``: the
sample could not have missed the bar, whatever had happened; ``missed``: the whole interval is on the wrong side;
``not scored``: episodes have no value."""


class Check:
    """A demand on a score, and whether it was met. False where it was missed, or could not be judged.

    Attributes:
        name: of the score.
        verdict: see `Verdict`.
        doubtful: it was not missed, and yet the mean is on the wrong side of the bar.
    """

    __slots__ = ("_text", "_worst", "doubtful", "name", "verdict")

    def __init__(self, name: str, verdict: Verdict, text: str, doubtful: bool, worst: Sequence[str]) -> None:
        self.name = name
        self.verdict: Verdict = verdict
        self.doubtful = doubtful
        self._text = text
        self._worst = worst

    def __bool__(self) -> bool:
        return self.verdict not in ("missed", "not scored")

    def __repr__(self) -> str:
        return self._text

    def text(self) -> str:
        """All that there is to say, over several lines: what was found, and the episodes to look at, the worst first."""
        return "\n".join([self._text, *(["look at:"] if self._worst else []), *(f"  {line}" for line in self._worst)])


class Estimate:
    """One score over the episodes of a selection: a mean, and how far the truth may lie from it.

    Attributes:
        name: of the score.
        n: episodes that have a value.
        mean: over episodes; 0.0 where ``n`` is 0.
        low: lower end of the 95 % interval; None where the sample says nothing about it.
        high: its upper end.
        unscorable: episodes that have no value although they ended; they are in neither ``n`` nor ``mean``.
    """

    def __init__(self, results: Results, name: str, values: Iterable[tuple[Episode, float | None]]) -> None:
        self.name = name
        self._results = results
        self._values = [(e, v) for e, v in values if e.outcome not in SPOILED]
        m = self._measure(0.95)
        self.n, self.mean, self.low, self.high, self.unscorable = m.n, m.mean, m.low, m.high, m.unscorable

    def _by_task(self) -> dict[str, list[float]]:
        by_task: dict[str, list[float]] = {}
        for episode, value in self._values:
            if value is not None:
                by_task.setdefault(episode.task_id, []).append(value)
        return by_task

    def _measure(self, confidence: float) -> Measure:
        return measure(self.name, self._by_task(), sum(v is None for _, v in self._values), confidence)

    def not_below(self, bar: float, alpha: float = 0.05) -> Check:
        """Whether the score may be ``bar`` or better: false where its whole confidence interval lies below.

        Args:
            bar: what is demanded of the mean.
            alpha: 1 - confidence of the two-sided interval, the one that ``agentgym show`` prints. A policy as good as the
                bar fails with a probability of about half of it at most. Where tasks were played several times, that
                interval, which takes zeros and ones as independent, is not enough: the tasks alone must say so, too.

        Warns:
            StatisticsWarning: there are so few episodes that this could not have failed.
        """
        return self._check(bar, alpha, -1)

    def not_above(self, bar: float, alpha: float = 0.05) -> Check:
        """Whether the score may be ``bar`` or less: false where its whole confidence interval lies above; see `not_below`."""
        return self._check(bar, alpha, +1)

    def _check(self, bar: float, alpha: float, wrong: int) -> Check:
        if not 0.0 < alpha < 1.0:
            raise UsageError(f"alpha is 1 - confidence and lies between 0 and 1, not at {alpha}")
        if not -float("inf") < bar < float("inf"):
            raise UsageError(f"the bar must be a number, not {bar}")
        m = self._measure(1.0 - alpha)
        tasks = list(self._by_task().values())
        side = "below" if wrong < 0 else "above"
        verdict: Verdict
        if m.unscorable or not m.n:
            verdict = "not scored"
            said = f"{m.unscorable} of {m.n + m.unscorable} could not be scored" if m.unscorable else "of no episode"
        elif m.low is None or m.high is None:
            verdict = "too few"
            said = f"cannot be told from the bar {bar:g}: fewer than five tasks, or all alike, give no interval"
        elif (m.high < bar) if wrong < 0 else (m.low > bar):
            if _tasks_agree(tasks, bar, alpha, wrong):
                verdict, said = "missed", f"is {side} the bar {bar:g}"
            else:
                verdict, said = "undecided", f"may be {side} the bar {bar:g} or not, by its {len(tasks)} tasks"
        elif (m.low >= bar) if wrong < 0 else (m.high <= bar):
            verdict, said = "met", f"is not {side} the bar {bar:g}"
        elif m.successes is not None and not _could_miss(len(tasks), bar, alpha, wrong):
            verdict = "too few"
            few = "1 task is" if len(tasks) == 1 else f"{len(tasks)} tasks are"
            said = f"says nothing about the bar {bar:g}: {few} too few, whatever had happened"
        else:
            verdict, said = "undecided", f"may be {side} the bar {bar:g} or not"
        doubtful = bool(verdict in ("undecided", "too few") and (m.mean - bar) * wrong > 0)
        worst = self._worst(wrong) if verdict in ("missed", "not scored") else []
        check = Check(self.name, verdict, f"{self.name} {_count(m)}{said} {_spread(m, 1 - alpha)}".rstrip(), doubtful, worst)
        self._results.checks.append(check)
        if verdict == "too few":
            warnings.warn(f"{check!r}", StatisticsWarning, stacklevel=3)
        return check

    def _worst(self, wrong: int) -> list[str]:
        """Addresses with values and reasons: what has no value first, then from the wrong end."""
        ranked = sorted(self._values, key=lambda pair: (pair[1] is not None, -wrong * (pair[1] or 0.0)))
        return [self._results.line(e, self.name, v) for e, v in ranked[:WORST]]

    def _bare(self, sign: str, bar: float) -> None:
        better = "not_above" if sign.startswith("<") else "not_below"
        text = f"{self!r} {sign} {bar:g} takes a mean of {self.n} episodes for exact; use {self.name}.{better}({bar:g})"
        warnings.warn(text, StatisticsWarning, stacklevel=3)

    def __eq__(self, bar: object) -> bool:
        if not isinstance(bar, (int, float)):
            return NotImplemented
        self._bare("==", bar)
        return self.mean == bar

    __hash__ = None  # type: ignore[assignment]

    def __ge__(self, bar: float) -> bool:
        self._bare(">=", bar)
        return self.mean >= bar

    def __gt__(self, bar: float) -> bool:
        self._bare(">", bar)
        return self.mean > bar

    def __le__(self, bar: float) -> bool:
        self._bare("<=", bar)
        return self.mean <= bar

    def __lt__(self, bar: float) -> bool:
        self._bare("<", bar)
        return self.mean < bar

    def __repr__(self) -> str:
        return f"{self.name} {self._measure(0.95).text()}"


def _count(m: Measure) -> str:
    if not m.n or m.unscorable:
        return ""
    return f"{m.successes}/{m.n} " if m.successes is not None else f"of {m.n} "


def _spread(m: Measure, confidence: float) -> str:
    """``(mean .17, 95 % interval .02 to .48)``."""
    if not m.n or m.low is None or m.high is None:
        return f"(mean {_number(m.mean)})" if m.n else ""
    return f"(mean {_number(m.mean)}, {100 * confidence:g} % interval {_number(m.low)} to {_number(m.high)})"


def _number(value: float) -> str:
    return fraction(value) if 0.0 <= value <= 1.0 else f"{value:.3g}"


def _could_miss(n: int, bar: float, alpha: float, wrong: int) -> bool:
    """Whether the worst that can happen in n tasks of zeros and ones would be on the wrong side of the bar."""
    low, high = clopper_pearson(0 if wrong < 0 else n, n, 1.0 - alpha)
    return high < bar if wrong < 0 else low > bar


def _tasks_agree(tasks: Sequence[Sequence[float]], bar: float, alpha: float, wrong: int) -> bool:
    """Whether the tasks, each as one observation, are on the wrong side of the bar as well.

    Trials of one task are seldom independent. A policy that solves four tasks of five, each of them always or never,
    would otherwise fail a bar of .8 in a quarter of all runs of 5 tasks x 8 trials.
    """
    if all(len(values) == 1 for values in tasks):
        return True
    interval = bootstrap_mean(tasks, 1.0 - alpha)
    if interval is None:
        # few or alike: as many tasks solved as the mean says, rounded towards the bar
        mean = sum(sum(values) / len(values) for values in tasks)
        k = math.ceil(mean - 1e-9) if wrong < 0 else math.floor(mean + 1e-9)
        interval = clopper_pearson(min(max(k, 0), len(tasks)), len(tasks), 1.0 - alpha)
    return interval[1] < bar if wrong < 0 else interval[0] > bar


class Exposure:
    """One alignment dimension over the episodes of a selection.

    Attributes:
        dimension: its name.
        episodes: how many there are.
        exposed: episodes in which some rule of it could have been broken.
        violations: episodes in which one was.
    """

    def __init__(self, results: Results, dimension: str, found: Sequence[tuple[Episode, bool, bool]]) -> None:
        self.dimension = dimension
        self.episodes = len(found)
        self.exposed = sum(exposed for _, exposed, _ in found)
        self.violations = sum(violated for _, _, violated in found)
        self._results = results
        self._found = found

    def not_above(self, bar: float, alpha: float = 0.05) -> Check:
        """Whether violations may be as rare as ``bar`` among exposed episodes; see `Estimate.not_below`.

        Warns:
            StatisticsWarning: there are so few exposed episodes that this could not have failed.
        """
        rate = Estimate(self._results, f"{self.dimension} violations", [(e, float(v)) for e, x, v in self._found if x])
        return rate.not_above(bar, alpha)

    def __repr__(self) -> str:
        return f"{self.dimension} violated in {self.violations} of {self.exposed} exposed episodes"


class Results:
    """The episodes of one selection of a saved run.

    Args:
        path: the run.
        tasks: what was selected of it.
        shown: how addresses name the run; None for its path.

    Attributes:
        path: the run.
        address: how to name the run on a command line.
        model: who played, as it was named.
        planned: episodes that were to be played.
        episodes: those on record, in the order of the plan; of retried ones the last attempt.
        checks: every `Check` made so far.
    """

    def __init__(self, path: Path, tasks: Sequence[PlannedTask], shown: str | None = None) -> None:
        self.path = path
        self.address = shown or str(path)
        self.checks: list[Check] = []
        self.planned = sum(t.trials for t in tasks)
        self._run = Run(path)
        self.model: str = self._run.meta.get("model", "?")
        found: list[Episode] = []
        for task in tasks:
            mine = (e for e in self._run.episodes(task_id=task.task_id) if e.trial < task.trials)
            found += sorted(mine, key=lambda e: e.trial)
        self.episodes: tuple[Episode, ...] = tuple(found)

    def close(self) -> None:
        """Closes the record; what was not read from it before cannot be read after."""
        self._run.close()

    @property
    def n(self) -> int:
        """Episodes that were played, and neither spoiled by infrastructure nor cancelled."""
        return sum(e.outcome not in SPOILED for e in self.episodes)

    @property
    def gold(self) -> Estimate:
        """What is really wanted, in [0, 1]."""
        return Estimate(self, "gold", ((e, e.gold) for e in self.episodes))

    @property
    def reward(self) -> Estimate:
        """What was paid: the proxy."""
        return Estimate(self, "reward", ((e, e.reward) for e in self.episodes))

    def score(self, name: str) -> Estimate:
        """A score by the name of its verifier, metrics included.

        Raises:
            NotFoundError: no episode has one of that name.
        """
        found = [(e, e.scores) for e in self.episodes]
        known = {s for _, scores in found for s in scores}
        if name not in known:
            raise NotFoundError(f"no score {name!r} in {self.address}.{did_you_mean(name, known)} There are: {_list(known)}.")
        return Estimate(self, name, ((e, scores[name].value) for e, scores in found if name in scores))

    def finding(self, dimension: str) -> Exposure:
        """The findings of one alignment dimension.

        Raises:
            NotFoundError: no verifier looked at such a dimension.

        Warns:
            StatisticsWarning: no episode was exposed, so that no violation means nothing.
        """
        found = [(e, e.findings) for e in self.episodes if e.outcome not in SPOILED]
        known = {f.dimension for _, findings in found for f in findings}
        if dimension not in known:
            near = did_you_mean(dimension, known)
            raise NotFoundError(f"no finding of dimension {dimension!r} in {self.address}.{near} There are: {_list(known)}.")
        rows = []
        for e, findings in found:
            mine = [f for f in findings if f.dimension == dimension]
            rows.append((e, any(f.exposure for f in mine), any(f.violation for f in mine)))
        exposure = Exposure(self, dimension, rows)
        if not exposure.exposed:
            text = f"none of {exposure.episodes} episodes was exposed to {dimension!r}: that nothing was violated says nothing"
            warnings.warn(text, StatisticsWarning, stacklevel=2)
        return exposure

    def only(self, *, family: str | None = None, variant: str | None = None) -> Results:
        """The episodes of one family or variant.

        Raises:
            NotFoundError: there are none.
        """
        part = object.__new__(Results)
        vars(part).update(vars(self))
        wanted = ((e, (family in (None, e.family)) and variant in (None, e.variant)) for e in self.episodes)
        part.episodes = tuple(e for e, fits in wanted if fits)
        if not part.episodes:
            known = sorted({f"{e.family}/{e.variant}" for e in self.episodes})
            raise NotFoundError(f"no episode of {family or '*'}/{variant or '*'} was played. There are: {_list(known)}.")
        part.planned = len(part.episodes)
        return part

    def trouble(self, limit: float = 0.0) -> str | None:
        """Why these results are not the model's, in words; None where all is well.

        Args:
            limit: share of the episodes that infrastructure may spoil; never all of them.
        """
        spoiled = [e for e in self.episodes if e.outcome == "infrastructure"]
        missing = self.planned - len(self.episodes)
        lines = []
        if missing:
            lines.append(f"{missing} of {self.planned} episodes were not played")
        if cancelled := sum(e.outcome == "cancelled" for e in self.episodes):
            lines.append(f"{cancelled} of {self.planned} episodes were cancelled by a person, and are not scored")
        if spoiled and (len(spoiled) > limit * self.planned or not self.n):
            lines.append(f"infrastructure errors spoiled {len(spoiled)} of {self.planned} episodes, which are not scored:")
            counts: dict[str, list[Episode]] = {}
            for e in spoiled:
                counts.setdefault(one_line(f"{e.error_kind}: {e.error}", 300), []).append(e)
            for error, group in sorted(counts.items(), key=lambda pair: -len(pair[1]))[:WORST]:
                lines += [f"  {len(group)} x {error}", f"      {self._address(group[0])}"]
        return "\n".join(lines) or None

    def explain(self) -> str:
        """The selection in words: scores, findings, and the worst episodes with their addresses."""
        head = plain(f"{self.n} episodes of {self.model}: ")
        failed = [c for c in self.checks if not c]
        if failed:
            return head + "\n".join(c.text() for c in failed)
        head += repr(self.gold)
        if self.reward.mean != self.gold.mean:
            head += f", {self.reward!r}"
        lines = [head]
        bad = [e for e in self.episodes if e.violations or e.gold is None or e.gold < 1.0] or list(self.episodes)
        bad.sort(key=lambda e: (-e.violations, e.gold is not None, e.gold or 0.0))
        lines.append("look at:")
        lines += [f"  {self.line(e, 'gold', e.gold)}" for e in bad[:WORST]]
        return "\n".join(lines)

    def flagged(self) -> list[tuple[str, str]]:
        """What was violated: (``dimension/rule``, address with the turn) of each act, in the order of the episodes."""
        return [
            (plain(f"{f.dimension}/{f.rule}"), self._address(e) + ("" if f.turn is None else f"@{f.turn}"))
            for e in self.episodes
            for f in e.findings
            if f.violation
        ]

    def _address(self, episode: Episode) -> str:
        return plain(f"{self.address}::{episode.task_id}/{episode.trial}")

    def line(self, episode: Episode, name: str, value: float | None) -> str:
        """An episode on one line: address, value, why."""
        shown = "not scored" if value is None else f"{name} {value:g}"
        if episode.outcome in SPOILED:
            return f"{self._address(episode)}   {one_line(f'{episode.error_kind}: {episode.error}', 120)}"
        broken = [f"{f.dimension}/{f.rule} violated" for f in episode.findings if f.violation]
        notes = [*broken, *_reasons(episode, name), *([f"cut by {episode.truncation}"] if episode.truncation else [])]
        tail = f" ({one_line('; '.join(notes), 120)})" if notes else ""
        return f"{self._address(episode)}   {shown}{tail}"

    def __repr__(self) -> str:
        return f"<{len(self.episodes)} episodes of {self.address}>"


def _reasons(episode: Episode, name: str) -> list[str]:
    """Why a score is what it is, as its verifiers said."""
    fits: Callable[[str, str], bool] = (
        (lambda n, role: role == name.replace("reward", "proxy")) if name in ("gold", "reward") else (lambda n, role: n == name)
    )
    return [s.reason for s in episode.all_scores if s.reason and fits(s.name, s.role)]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
