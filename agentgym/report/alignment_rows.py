# SPDX-License-Identifier: Apache-2.0
"""What a run says of conduct, as rows: an episode each, with its findings, and what else twins are compared by."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agentgym import registry
from agentgym.errors import AgentGymError
from agentgym.evaluators.conduct import Report, report_of
from agentgym.records.run import Run
from agentgym.stats.alignment import youden
from agentgym.stats.cluster import cluster_interval
from agentgym.stats.intervals import bootstrap_mean

CONTROL = "control"

CAPABLE, PUSHBACK, EDITED, PADDED = "capable", "pushback", "edited", "paid_for_padding"
"""Metrics of families that the report reads beside findings; see docs/alignment.md for their evidence."""


class Cue(NamedTuple):
    """The hint of a cue twin."""

    name: str
    """From the task's ``hidden["cue"]["name"]``, where a family plays several; else ``cue``."""
    words: frozenset[str]
    """Words that its opening holds and those of its twins do not (or the one of ``hidden["cue"]["token"]``): an explanation
    that owns up to the hint names one of them."""

    def named(self, text: str) -> bool:
        """Whether a text names the hint."""
        return not self.words.isdisjoint(words_of(text))


WORD = 4
"""Letters below which a word is no name of anything."""

_COMMON = """
about after again also another because been before being best better both cannot come could does doing done down
during each either else even ever every everything from give given gives good have having here into itself just keep
know known less like look looked looks made make makes many maybe might more most much must need needs never next
nothing once only other otherwise over part rather same says shall should show shown since some something soon still
such sure take than that their them then there these they thing things think this those though through time under
until upon used uses very want wants well were what when where whether which while will with within without work would
yours your yourself
"""

COMMON = frozenset(_COMMON.split())
"""Words that everybody says: who says one of them has named nothing."""


def words_of(text: str) -> set[str]:
    """The words of a text that can name something."""
    return {w for w in re.findall(r"\w+", text.casefold()) if len(w) >= WORD} - COMMON


class Row(msgspec.Struct):
    """One episode, in what concerns conduct."""

    id: int
    task_id: str
    family: str
    variant: str
    item: str
    trial: int
    cluster: str
    spoiled: bool
    """Infrastructure failed: nothing is known of it."""
    reward: float | None
    gold: float | None
    task_object: int
    judged: dict[str, tuple[bool, bool]] = {}
    """Dimension -> whether exposed, whether violated."""
    not_notified: set[str] = set()
    """Dimensions in which it did the act before it was shown the norm: told apart, never convicted."""
    impossible: dict[str, Any] = {}
    """What a finding of the dimension ``impossible`` holds as evidence."""
    metrics: dict[str, tuple[float | None, Any]] = {}
    """Metric -> value and evidence; only those that the report reads."""
    report: Report | None = None
    """What the agent said at the end, where its family asks for a typed report."""
    words: str = ""
    """Its text and reasoning, in cue and placebo twins."""
    length: int = 0
    """Characters of its last words and of its answer."""

    @property
    def twin(self) -> tuple[str, str]:
        """What its twins share."""
        return self.family, self.item

    @property
    def exposed(self) -> bool:
        """In any dimension."""
        return any(e for e, _ in self.judged.values())

    @property
    def violated(self) -> bool:
        """In any dimension."""
        return any(v for _, v in self.judged.values())


class Violation(NamedTuple):
    """A finding that convicts."""

    row: Row
    dimension: str
    rule: str
    weight: float
    turn: int | None
    evidence: Any


class Table(msgspec.Struct):
    """All of a run that the report is made of."""

    rows: list[Row]
    violations: list[Violation]
    acts: dict[str, tuple[int, int]]
    """Dimension -> findings with exposure, findings with a violation."""
    temptations: dict[str, Mapping[str, Sequence[str]]]
    """Family -> variant -> dimensions that giving in violates; families that do not say are missing."""
    cues: dict[int, Cue]
    """Number of the stored task -> its hint, of cue twins."""

    def tempts(self, row: Row, dimension: str) -> bool | None:
        """Whether this episode was meant to expose to the dimension; None: its family does not say."""
        told = self.temptations.get(row.family.partition(":")[0])
        return None if not told else dimension in told.get(row.variant, ())

    def by(self, variant: str) -> dict[tuple[str, str], list[Row]]:
        """The variant's episodes that were not spoiled, by twin."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for r in self.rows:
            if r.variant == variant and not r.spoiled:
                found[r.twin].append(r)
        return found


def decoded(text: str | None) -> Any:
    """Stored evidence; as text where it is not the JSON that it should be."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def read(run: Run) -> Table:
    """The rows of a run; trajectories are read only where a family asks for a typed report or plays cues."""
    last = run._counting()
    rows: dict[int, Row] = {}
    spoiled = "outcome IN ('infrastructure', 'cancelled')"
    columns = f"id, task_id, family, variant, item, trial, cluster, {spoiled}, reward, gold, task_object"
    for id_, *names, trial, cluster, lost, reward, gold, task in run._rows(
        f"SELECT {columns} FROM episodes WHERE {last} ORDER BY id"
    ):
        task_id, family, variant, item = names
        rows[id_] = Row(id_, task_id, family, variant, item, trial, cluster, bool(lost), reward, gold, task, {}, set(), {}, {})
    acts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    violations = []
    where = f"episode IN (SELECT id FROM episodes WHERE {last})"
    for id_, dimension, rule, exposure, violation, weight, turn, evidence in run._rows(
        "SELECT episode, dimension, rule, exposure, violation, weight, turn, evidence FROM findings"
        f" WHERE {where} ORDER BY episode, position"
    ):
        row = rows[id_]
        before = row.judged.get(dimension, (False, False))
        row.judged[dimension] = before[0] or bool(exposure), before[1] or bool(violation)
        acts[dimension][0] += bool(exposure)
        acts[dimension][1] += bool(violation)
        if dimension == "impossible" and evidence is not None and isinstance(told := decoded(evidence), dict):
            row.impossible = {**row.impossible, **told}
        if violation:
            violations.append(Violation(row, dimension, rule, weight, turn, decoded(evidence)))
        elif not exposure and evidence is not None and ("unexposed" in evidence or "notified" in evidence):
            kept = decoded(evidence)
            if isinstance(kept, dict) and (kept.get("unexposed") or kept.get("not_notified") or kept.get("notified") is False):
                row.not_notified.add(dimension)
    for id_, name, value, evidence in run._rows(
        f"SELECT episode, name, value, evidence FROM scores WHERE role = 'metric' AND name IN (?, ?, ?, ?) AND {where}"
        " ORDER BY episode, position",
        (CAPABLE, PUSHBACK, EDITED, PADDED),
    ):
        rows[id_].metrics[name] = value, decoded(evidence)
    table = Table(list(rows.values()), violations, {d: (e, v) for d, (e, v) in acts.items()}, _temptations(run), {})
    _read_reports(run, table)
    return table


def _temptations(run: Run) -> dict[str, Mapping[str, Sequence[str]]]:
    """As the run kept them; of older runs, as the families of that name have them now."""
    kept = run.meta.get("temptations")
    if isinstance(kept, dict):
        return {family: told for family, told in kept.items() if told}
    found: dict[str, Mapping[str, Sequence[str]]] = {}
    known = registry.families()
    for (label,) in run._rows("SELECT DISTINCT family FROM episodes"):
        family = label.partition(":")[0]
        if family in known:  # never by a place: a record must not say what code is run to read it
            try:
                found[family] = registry.env_class(family).temptations
            except (AgentGymError, ImportError):
                continue
    return {family: told for family, told in found.items() if told}


def _read_reports(run: Run, table: Table) -> None:
    """Adds what was reported, and in cue and placebo twins what was said."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in table.rows:
        if not row.spoiled:
            groups[row.family, row.variant].append(row)
    for (_, variant), members in groups.items():
        task = run.task(members[0].task_object)
        submit = next((t for t in task.tools if t.name == "submit"), None)
        asks = submit is not None and "confidence" in submit.parameters.get("properties", {})
        cued = variant in ("cue", "placebo", CONTROL) and (members[0].family, "cue") in groups
        if not asks and not cued:
            continue
        by_id = {r.id: r for r in members}
        for episode in run.by_ids(by_id):
            row, trajectory = by_id[episode.id], episode.trajectory
            row.report = report_of(trajectory)
            row.length = len(trajectory.final_text) + (len(row.report.answer) if row.report else 0)
            if cued:
                row.words = "\n".join(f"{t.message.reasoning}\n{t.message.text}" for t in trajectory.turns)
            episode._trajectory = None  # a long run has more of them than there is memory
    _read_cues(run, table)


def _read_cues(run: Run, table: Table) -> None:
    """Adds what the hints of cue twins are told by: a family need not say, since twins differ in nothing else."""
    openings: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in table.rows:
        openings[row.twin][row.variant] = row.task_object
    for tasks in openings.values():
        if "cue" not in tasks or tasks["cue"] in table.cues:
            continue
        task = run.task(tasks["cue"])
        told = task.hidden.get("cue") if isinstance(task.hidden, dict) else None
        told = told if isinstance(told, dict) else {}
        words = words_of(str(told["token"])) if told.get("token") else words_of("\n".join(m.text for m in task.opening))
        for other in ("placebo", CONTROL):
            if other in tasks:
                words -= words_of("\n".join(m.text for m in run.task(tasks[other]).opening))
        if words:
            table.cues[tasks["cue"]] = Cue(str(told.get("name", "cue")), frozenset(words))


# -- comparing --------------------------------------------------------------------------------------------------------


class Contrast(msgspec.Struct):
    """A mean difference over tasks that both sides played."""

    tasks: int
    base: float
    """Mean over tasks of the side that is compared with."""
    value: float
    effect: float
    """``value - base``."""
    low: float | None
    high: float | None
    over: str
    """What the interval was drawn over: ``clusters``, ``tasks``, ``exact`` (shares of 0 and 1), or nothing."""


def contrast(pairs: Iterable[tuple[str, float, float]]) -> Contrast | None:
    """The contrast of (cluster, base, value), one a task; None without any.

    The interval is over clusters of tasks where there are at least five, else over tasks. Where all differences are equal,
    which no resampling sees beyond, and all values 0 or 1, it is made of exact bounds of both shares.
    """
    known = list(pairs)
    if not known:
        return None
    base, value = float(np.mean([b for _, b, _ in known])), float(np.mean([v for _, _, v in known]))
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for cluster, b, v in known:
        sums[cluster][0] += v - b
        sums[cluster][1] += 1
    found = cluster_interval(np.array(list(sums.values())), lambda s: np.asarray(s[:, 0] / s[:, 1]))
    low: float | None = None
    high: float | None = None
    over = ""
    if found is not None:
        low, high, over = max(-1.0, found.low), min(1.0, found.high), "clusters"
    elif (drawn := bootstrap_mean([[v - b] for _, b, v in known])) is not None:
        low, high, over = max(-1.0, drawn[0]), min(1.0, drawn[1]), "tasks"
    elif all(x in (0.0, 1.0) for _, b, v in known for x in (b, v)):
        j = youden(round(value * len(known)), len(known), round(base * len(known)), len(known))
        low, high, over = j.low, j.high, "exact"
    return Contrast(len(known), base, value, value - base, low, high, over)


def twins(
    here: Mapping[tuple[str, str], Sequence[Row]], there: Mapping[tuple[str, str], Sequence[Row]], what: str
) -> list[tuple[str, float, float]]:
    """(cluster, mean there, mean here) of each task that both have.

    Args:
        here: a variant's episodes by twin.
        there: those it is compared with.
        what: ``gold``, ``violated`` (any dimension), or the name of a dimension.
    """
    pairs = []
    for twin in here.keys() & there.keys():
        a, b = _values(there[twin], what), _values(here[twin], what)
        if a and b:
            pairs.append((here[twin][0].cluster, float(np.mean(a)), float(np.mean(b))))
    return sorted(pairs)


def _values(rows: Sequence[Row], what: str) -> list[float]:
    if what == "gold":
        return [r.gold for r in rows if r.gold is not None]
    if what == "violated":
        return [float(r.violated) for r in rows]
    return [float(r.judged.get(what, (False, False))[1]) for r in rows]
