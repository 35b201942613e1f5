# SPDX-License-Identifier: Apache-2.0
"""Two arms, task by task: which tasks can be compared, which trials count, and the means and differences of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentgym.errors import DataError
from agentgym.gate.rows import Bools, Codes, Floats, Ints, Rows
from agentgym.stats.paired import FEW


class Arms(NamedTuple):
    """Baseline and candidate over one numbering of tasks: the baseline's, then what only the candidate has."""

    baseline: Rows
    candidate: Rows
    names: tuple[str, ...]
    """Task ids."""
    b_task: Ints
    """Task of each row of the baseline."""
    c_task: Ints
    b_first: Ints
    """First row of each task in the baseline; -1: it has none."""
    c_first: Ints
    changed: Bools
    """By task: played in both arms, and its content, environment or verifier differs."""

    @property
    def missing(self) -> Bools:
        """Tasks of the baseline that the candidate did not play."""
        return np.asarray((self.b_first >= 0) & (self.c_first < 0))

    @property
    def comparable(self) -> Bools:
        """Tasks that both arms played, unchanged."""
        return np.asarray((self.b_first >= 0) & (self.c_first >= 0) & ~self.changed)

    def of_task(self, column: str) -> Codes:
        """A column of texts by task, as the baseline has it; the candidate, for tasks that only it has."""
        b: Codes = getattr(self.baseline, column)
        c: Codes = getattr(self.candidate, column)
        return by_task(b, c, self.b_first, self.c_first)


def by_task(b: Codes, c: Codes, b_first: Ints, c_first: Ints) -> Codes:
    """One text a task from the first row of it in ``b``, else in ``c``."""
    names = tuple(dict.fromkeys((*b.names, *c.names)))
    number = {name: i for i, name in enumerate(names)}
    translate = np.array([number[n] for n in c.names] or [0], dtype=np.int64)
    codes = np.zeros(len(b_first), dtype=np.int64)
    in_b = b_first >= 0
    codes[in_b] = b.codes[b_first[in_b]]
    codes[~in_b] = translate[c.codes[c_first[~in_b]]]
    return Codes(codes, names)


def arms(baseline: Rows, candidate: Rows) -> Arms:
    """Numbers the tasks of both arms, and finds those that changed."""
    number = {name: i for i, name in enumerate(baseline.task.names)}
    for name in candidate.task.names:
        number.setdefault(name, len(number))
    translate = np.array([number[n] for n in candidate.task.names] or [0], dtype=np.int64)
    b_task, c_task = baseline.task.codes, translate[candidate.task.codes]
    b_first, c_first = _first(b_task, len(number)), _first(c_task, len(number))
    changed = np.zeros(len(number), dtype=np.bool_)
    for column in ("env_hash", "verifier_hash"):
        b: Codes = getattr(baseline, column)
        c: Codes = getattr(candidate, column)
        low_b, high_b = _range(b, b.names, b_task, len(number))
        low_c, high_c = _range(c, b.names, c_task, len(number))
        known = (high_b >= 0) & (high_c >= 0)  # a source that does not say counts as unchanged
        changed |= known & ((low_b != low_c) | (high_b != high_c))
    return Arms(baseline, candidate, tuple(number), b_task, c_task, b_first, c_first, changed)


def _first(tasks: Ints, n: int) -> Ints:
    first = np.full(n, -1, dtype=np.int64)
    first[tasks[::-1]] = np.arange(len(tasks))[::-1]
    return first


def _range(column: Codes, reference: tuple[str, ...], tasks: Ints, n: int) -> tuple[Ints, Ints]:
    """Least and greatest hash of each task, numbered as in ``reference`` (others behind); (big, -1) where none is said."""
    number = {name: i for i, name in enumerate(reference)}
    for name in column.names:
        number.setdefault(name, len(number))
    translate = np.array([number[name] for name in column.names] or [0], dtype=np.int64)
    said = np.array([bool(name) for name in column.names] or [False], dtype=np.bool_)[column.codes]
    low = np.full(n, np.iinfo(np.int64).max, dtype=np.int64)
    high = np.full(n, -1, dtype=np.int64)
    codes = translate[column.codes]
    np.minimum.at(low, tasks[said], codes[said])
    np.maximum.at(high, tasks[said], codes[said])
    return low, high


def fresh(a: Arms) -> tuple[Bools, Bools]:
    """Rows of (baseline, candidate) that may be compared: without trials that the candidate replayed from the baseline's.

    A trial whose replies came from a cache is the same in both arms by construction. It says nothing about the change, and
    left in it shrinks the difference and its spread. So where the candidate's trial was cached and the baseline has that
    trial too, both are left out. A cached baseline beside fresh candidate trials is as good as any.
    """
    width = int(max(a.baseline.trial.max(initial=0), a.candidate.trial.max(initial=0))) + 1
    b_key, c_key = a.b_task * width + a.baseline.trial, a.c_task * width + a.candidate.trial
    shared = c_key[a.candidate.cached]
    if not len(shared):
        return np.ones(len(b_key), dtype=np.bool_), np.ones(len(c_key), dtype=np.bool_)
    shared = shared[np.isin(shared, b_key)]
    return ~np.isin(b_key, shared), ~np.isin(c_key, shared)


def means(values: Floats, tasks: Ints, n: int) -> tuple[Floats, Ints]:
    """Mean over the trials that have a value, by task, and how many have; NaN where none has. Nothing is filled in."""
    has = ~np.isnan(values)
    count = np.bincount(tasks[has], minlength=n)
    total = np.bincount(tasks[has], weights=values[has], minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan), count


class Values(NamedTuple):
    """One metric by task, in both arms; NaN where an arm has no value."""

    baseline: Floats
    candidate: Floats
    b_count: Ints
    """Trials with a value."""
    c_count: Ints

    def both(self) -> Bools:
        """Tasks that have a value in both arms."""
        return np.asarray((self.b_count > 0) & (self.c_count > 0))


def metric_values(a: Arms, metric: str, keep: Bools, rows: tuple[Bools, Bools]) -> Values:
    """A metric's means by task over the kept tasks and rows.

    Raises:
        DataError: a value is infinite.
    """
    n = len(a.names)
    b_all, c_all = a.baseline.values(metric), a.candidate.values(metric)
    for name, values, arm in (("baseline", b_all, a.baseline), ("candidate", c_all, a.candidate)):
        wrong = np.flatnonzero(np.isinf(values))
        if len(wrong):
            place = arm.address.at(int(wrong[0])) or arm.task.at(int(wrong[0]))
            raise DataError(f"{metric} of the {name} is infinite in {place}: leave the value out, and it counts as missing")
    b = np.where(rows[0] & keep[a.b_task], b_all, np.nan)
    c = np.where(rows[1] & keep[a.c_task], c_all, np.nan)
    b_mean, b_count = means(b, a.b_task, n)
    c_mean, c_count = means(c, a.c_task, n)
    return Values(b_mean, c_mean, b_count, c_count)


def twin_keys(a: Arms) -> Ints:
    """By task: a number that a task shares with its twins."""
    twin = a.of_task("twin_of")
    number = {name: i for i, name in enumerate(a.names)}
    own = np.arange(len(a.names))
    keys = np.array([number.setdefault(name, len(number)) if name else -1 for name in twin.names] or [-1], dtype=np.int64)
    found = keys[twin.codes]
    return np.where(found >= 0, found, own)


def units_within(clusters: Ints, keys: Ints) -> Ints:
    """Units of a test inside one family: its clusters where it has enough, else its tasks, twins counted as one."""
    return clusters if len(np.unique(clusters)) >= FEW else keys
