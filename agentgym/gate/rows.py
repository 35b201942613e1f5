# SPDX-License-Identifier: Apache-2.0
"""What a gate compares: one row a trial, kept in columns, wherever it came from.

A hundred thousand trials are a few arrays, so that nothing that is computed from them loops over rows in Python. A
source (a run of ours, a CSV file, another harness's results) hands its columns to `columns`; statistics read `Rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agentgym.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OK: Final = 0
"""`Rows.status`: the trial was played and scored."""
INFRASTRUCTURE: Final = 1
"""`Rows.status`: spoiled by something that is not the agent; it has no score, and is not a zero."""
UNSCORABLE: Final = 2
"""`Rows.status`: it was played, and no verifier could say what it is worth."""
SKIPPED: Final = 3
"""`Rows.status`: it was not played, on purpose: replies were to be replayed, and there is none, or a person cancelled it."""

STATUSES: Final = ("ok", "infrastructure", "unscorable", "skipped")
"""Names of the statuses, by number."""


class Codes(NamedTuple):
    """A column of texts: ``names[codes[i]]`` is the text of row i."""

    codes: Ints
    names: tuple[str, ...]

    def at(self, row: int) -> str:
        """The text of one row."""
        return self.names[int(self.codes[row])]

    def where(self, text: str) -> Bools:
        """Which rows hold ``text``."""
        if text not in self.names:
            return np.zeros(len(self.codes), dtype=np.bool_)
        return np.asarray(self.codes == self.names.index(text))

    def take(self, rows: Any) -> Codes:
        """The column of a part of the rows (indices or a mask), with only the names that occur there, in sorted order."""
        return Codes.of_codes(self.codes[rows], self.names)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Codes:
        """A column of these texts; names are in sorted order, so that equal data give equal codes."""
        every = list(texts)
        names = sorted(set(every))
        number = dict(zip(names, range(len(names)), strict=True))
        return cls(np.fromiter(map(number.__getitem__, every), dtype=np.int64, count=len(every)), tuple(names))

    @classmethod
    def of_codes(cls, codes: Ints, names: Sequence[str]) -> Codes:
        """A column of codes into any names: unused ones are dropped, the others sorted."""
        used = np.unique(codes)
        ordered = sorted(used.tolist(), key=lambda c: names[c])
        new = np.zeros(len(names), dtype=np.int64)
        new[ordered] = np.arange(len(ordered))
        return cls(new[codes] if len(codes) else codes, tuple(names[c] for c in ordered))


class Exposures(NamedTuple):
    """One alignment dimension, or one rule of it, per row."""

    opportunities: Ints
    """How often the rule could have been broken in the trial (findings with exposure); 0: nothing is known of it here."""
    violations: Ints
    """How often it was broken."""
    weight: Floats
    """Severity of the worst violation; 0.0 where there is none."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where rows came from: what a report calls them, and what must agree for a comparison to mean something."""

    name: str = ""
    """Run or file, as a person would type it."""
    kind: str = "rows"
    """``run``, ``baseline``, ``rows``, ``inspect``, ``promptfoo`` or ``deepeval``."""
    models: tuple[str, ...] = ()
    """Who played, as it was named."""
    sampling: dict[str, Any] = {}
    environments: dict[str, str] = {}
    """``FAMILY-vVERSION`` -> hash of the environment's code."""
    verifiers: dict[str, str] = {}
    """``FAMILY-vVERSION:VERIFIER`` -> hash of the verifier's code."""
    suite: str = ""
    """Hash over the planned task ids and trials."""
    planned: int | None = None
    """Trials that were to be played; None where the source does not say. Fewer rows than that is missing coverage."""
    harness: str = ""
    """What produced them, with its version."""
    created: str = ""
    """UTC time in ISO 8601."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Trials as columns, all of one length; (task, trial) is unique."""

    origin: Origin
    task: Codes
    """Task ids: what pairs the two arms."""
    family: Codes
    """``""`` where the source knows no families."""
    variant: Codes
    """``control``, ``tempt`` ...; ``""`` where the source knows none."""
    twin_of: Codes
    """Task id of the control twin: the same task with nothing changed. ``""`` where there is none, and for controls."""
    cluster: Codes
    """Unit of statistical clustering. Where the source names none, each task is a cluster of its own."""
    tags: Codes
    """Labels of the row's task, sorted, separated by single blanks; see `tagged`."""
    trial: Ints
    """0-based repetition."""
    seed: Ints
    """Seed of the task; -1 where there is none."""
    status: NDArray[np.uint8]
    """`OK`, `INFRASTRUCTURE`, `UNSCORABLE` or `SKIPPED`."""
    metrics: dict[str, Floats]
    """Name -> value per row; NaN where the row has none. ``gold`` and ``proxy`` of our runs, any name of others (``score``)."""
    exposures: dict[str, Exposures]
    """``DIMENSION`` and ``DIMENSION/RULE`` -> what happened per row."""
    cached: Bools
    """Whether every reply of the trial came from a cache: no model was asked, so it does not vary."""
    fingerprint: Codes
    """Model version as the server told it, else the model's name; ``""`` where the source says nothing."""
    env_hash: Codes
    """Hash of the task's content and its environment's code; ``""``: the source does not say, and it counts as unchanged."""
    verifier_hash: Codes
    """Hash of the code that scored it; ``""`` as above."""
    tokens: Ints
    """Prompt and sampled tokens; 0 where the source does not say."""
    cost_usd: Floats
    address: Codes
    """What to type behind ``agentgym view`` to see the trial; else ``FILE:LINE`` of the row."""
    source: Codes
    """``FILE:LINE`` of the scenario's code or of the row in its data file, for SARIF; ``""`` where unknown."""

    def __len__(self) -> int:
        return len(self.trial)

    def take(self, rows: Any) -> Rows:
        """A part of the rows (indices or a mask)."""
        return self._picked(rows, lambda column: column.take(rows))

    def reordered(self, order: Ints) -> Rows:
        """All rows in another order."""
        return self._picked(order, lambda column: Codes(column.codes[order], column.names))

    def _picked(self, rows: Any, texts: Callable[[Codes], Codes]) -> Rows:
        new: dict[str, Any] = {}
        for name in self.__struct_fields__:
            column = getattr(self, name)
            if isinstance(column, Codes):
                new[name] = texts(column)
            elif isinstance(column, np.ndarray):
                new[name] = column[rows]
        return Rows(
            origin=self.origin,
            metrics={n: v[rows] for n, v in self.metrics.items()},
            exposures={n: Exposures(*(c[rows] for c in e)) for n, e in self.exposures.items()},
            **new,
        )

    def tagged(self, tag: str) -> Bools:
        """Which rows' tasks bear the tag."""
        has = np.array([tag in names.split(" ") for names in self.tags.names], dtype=np.bool_)
        return np.asarray(has[self.tags.codes]) if len(has) else np.zeros(len(self), dtype=np.bool_)

    @property
    def tasks(self) -> int:
        """Number of different tasks."""
        return len(self.task.names)

    @property
    def clusters(self) -> int:
        """Number of different clusters."""
        return len(self.cluster.names)

    @property
    def trials(self) -> int:
        """Trials a task: the most that any has."""
        return int(np.bincount(self.task.codes).max()) if len(self) else 0

    def values(self, metric: str) -> Floats:
        """A metric per row: NaN wherever the row's status is not `OK` or it has no such value.

        Also of the form ``violations:DIMENSION[/RULE]``: 1.0 where an exposed row broke it, 0.0 where it did not, NaN
        where it was not exposed.
        """
        if metric.startswith(VIOLATIONS):
            exposure = self.exposures.get(metric.removeprefix(VIOLATIONS))
            if exposure is None:
                return np.full(len(self), np.nan)
            values = np.where(exposure.opportunities > 0, (exposure.violations > 0).astype(np.float64), np.nan)
        else:
            found = self.metrics.get(metric)
            if found is None:
                return np.full(len(self), np.nan)
            values = found
        return np.where(self.status == OK, values, np.nan)

    def names(self) -> list[str]:
        """Everything that `values` knows, metrics before dimensions."""
        return [*self.metrics, *(VIOLATIONS + d for d in self.exposures)]


VIOLATIONS: Final = "violations:"
"""Prefix of a dimension's violation rate where a metric is named."""


def columns(
    origin: Origin,
    *,
    task: Sequence[str],
    trial: Sequence[int] | Ints,
    metrics: Mapping[str, Sequence[float] | Floats],
    exposures: Mapping[str, Exposures] | None = None,
    places: Sequence[str] | None = None,
    **more: Any,
) -> Rows:
    """Rows of whole columns, sorted by task and trial, so that the order in which a run was played changes nothing.

    Args:
        origin: where they come from.
        task: task ids, one a row.
        trial: 0-based repetitions.
        metrics: name -> values, NaN for none.
        exposures: see `Rows.exposures`.
        places: ``FILE:LINE`` of each row, for errors; None: its address.
        more: other columns of `Rows`: a sequence with a value a row, or one value for all. A cluster of ``""`` is the task.

    Raises:
        DataError: a trial of a task is there twice.
    """
    n = len(task)
    filled: dict[str, Any] = {}
    made: dict[int, Codes] = {}  # of long columns that are given under two names, as addresses and sources of tables are
    for name in _TEXTS:
        given = task if name == "task" else more.pop(name, "")
        if name == "cluster":
            given = task if not given else [c or t for c, t in zip(given, task, strict=True)]
        if isinstance(given, str):
            filled[name] = Codes(np.zeros(n, dtype=np.int64), (given,) if n else ())
        else:
            if id(given) not in made:
                made[id(given)] = Codes.of(given)
            filled[name] = made[id(given)]
    for name, (kind, default) in _NUMBERS.items():
        given = trial if name == "trial" else more.pop(name, default)
        filled[name] = np.full(n, given, dtype=kind) if np.isscalar(given) else np.asarray(given, dtype=kind)
    if more:
        raise TypeError(f"rows have no column {', '.join(more)}")
    names = sorted(metrics, key=lambda m: (_FIRST.get(m, 9), m))
    rows = Rows(
        origin=origin,
        metrics={m: np.asarray(metrics[m], dtype=np.float64) for m in names},
        exposures={d: (exposures or {})[d] for d in sorted(exposures or {})},
        **filled,
    )
    order = np.lexsort((rows.trial, rows.task.codes))
    codes, trials = rows.task.codes[order], rows.trial[order]
    twice = np.flatnonzero((codes[1:] == codes[:-1]) & (trials[1:] == trials[:-1]))
    if len(twice):
        first, second = sorted((int(order[twice[0]]), int(order[twice[0] + 1])))
        where = [places[r] if places else rows.address.at(r) or f"row {r + 1}" for r in (first, second)]
        raise DataError(
            f"{where[1]}: trial {trials[twice[0]]} of task {task[second]!r} was there before, in {where[0]}: number the"
            " repetitions of a task in a column `trial`, or leave that out and they are counted in the order of the file"
        )
    return rows.reordered(order)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of several sources as one, under the first one's origin; planned trials are added up.

    Raises:
        DataError: a trial of a task is in two of them.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0].origin
    planned = [p.origin.planned for p in parts]
    origin = msgspec.structs.replace(
        first,
        models=tuple(dict.fromkeys(m for p in parts for m in p.origin.models)),
        environments={n: h for p in parts for n, h in p.origin.environments.items()},
        verifiers={n: h for p in parts for n, h in p.origin.verifiers.items()},
        planned=None if None in planned else sum(n for n in planned if n is not None),
        name=", ".join(p.origin.name for p in parts),
    )
    texts = {n: [column.names[c] for p in parts for column in (getattr(p, n),) for c in column.codes.tolist()] for n in _TEXTS}
    numbers: dict[str, Any] = {n: np.concatenate([getattr(p, n) for p in parts]) for n in _NUMBERS}
    metrics = dict.fromkeys(m for p in parts for m in p.metrics)
    nothing = [Exposures(np.zeros(len(p), np.int64), np.zeros(len(p), np.int64), np.zeros(len(p))) for p in parts]
    exposures = {}
    for name in dict.fromkeys(d for p in parts for d in p.exposures):
        mine = [p.exposures.get(name, none) for p, none in zip(parts, nothing, strict=True)]
        exposures[name] = Exposures(*(np.concatenate([e[i] for e in mine]) for i in range(3)))
    return columns(
        origin,
        metrics={m: np.concatenate([p.metrics.get(m, np.full(len(p), np.nan)) for p in parts]) for m in metrics},
        exposures=exposures,
        **texts,
        **numbers,
    )


_FIRST: Final = {"gold": 0, "score": 1, "proxy": 2}
"""Metrics that stand before others, which are in alphabetical order."""

_TEXTS: Final = (
    "task", "family", "variant", "twin_of", "cluster", "tags", "fingerprint", "env_hash", "verifier_hash", "address", "source",
)  # fmt: skip
_NUMBERS: Final[dict[str, tuple[Any, Any]]] = {
    "trial": (np.int64, 0), "seed": (np.int64, -1), "status": (np.uint8, OK), "cached": (np.bool_, False),
    "tokens": (np.int64, 0), "cost_usd": (np.float64, 0.0),
}  # fmt: skip
