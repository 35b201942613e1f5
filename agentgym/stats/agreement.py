# SPDX-License-Identifier: Apache-2.0
"""Whether several people who judge the same things agree: Krippendorff's alpha, with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.stats.alignment import _bootstrap

Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """How far judgements agree beyond chance."""

    alpha: float | None
    """1: always; 0: as judgements that were dealt out by lot; below: less than that. None where it is not defined: nothing
    was judged twice, or all judgements are the same, so that nobody can tell agreement from a habit."""
    low: float | None
    """Bounds of the interval; None for fewer than five clusters, or where resampling cannot tell."""
    high: float | None
    units: int
    """Things that two or more judged."""
    judgements: int
    """Judgements of those."""


def krippendorff(
    judgements: Iterable[tuple[Hashable, Hashable, Hashable]],
    clusters: Mapping[Hashable, Hashable] | None = None,
    confidence: float | None = 0.95,
) -> Agreement:
    """Krippendorff's alpha for names without an order: 1 - observed disagreement / disagreement by chance.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section D: any number of judges, of whom not all judge
    everything. Values within a unit are paired with one another; a pair of a unit with m values counts 1 / (m - 1). Its
    interval resamples whole clusters of units (percentiles, pushed out for few clusters), because two judgements about one
    task have more in common than two about different ones.

    Args:
        judgements: (unit, judge, value); a later one by the same judge about the same unit replaces the earlier.
        clusters: unit -> what is resampled as a whole; None, and units that are not in it: each is its own.
        confidence: of the interval; None for none, which is much quicker.

    >>> a, b = "aabbdcccedda", "babbbcccedda"
    >>> krippendorff([(i, "meg", v) for i, v in enumerate(a)] + [(i, "owen", v) for i, v in enumerate(b)]).units
    12
    """
    by_unit: dict[Hashable, dict[Hashable, Hashable]] = {}
    for unit, judge, value in judgements:
        by_unit.setdefault(unit, {})[judge] = value
    paired = {unit: list(values.values()) for unit, values in by_unit.items() if len(values) > 1}
    count = sum(len(values) for values in paired.values())
    codes: dict[Hashable, int] = {}
    for values in paired.values():
        for value in values:
            codes.setdefault(value, len(codes))
    if len(codes) < 2:
        return Agreement(None, None, None, len(paired), count)
    kinds = len(codes)
    places: dict[Hashable, int] = {}
    rows: list[Floats] = []
    for unit, values in paired.items():
        of = np.bincount([codes[v] for v in values], minlength=kinds).astype(float)
        # ordered pairs of the unit's values; a value is not paired with itself
        table = (np.outer(of, of) - np.diag(of)) / (len(values) - 1)
        place = places.setdefault((clusters or {}).get(unit, (None, unit)), len(rows))
        if place == len(rows):
            rows.append(np.zeros(kinds * kinds))
        rows[place] += table.ravel()
    table = np.array(rows)

    def alpha(sums: Floats) -> Floats:
        coincidences = np.asarray(sums).reshape(-1, kinds, kinds)
        of = coincidences.sum(axis=2)
        n = of.sum(axis=1)
        observed = n - np.trace(coincidences, axis1=1, axis2=2)
        expected = (n**2 - (of**2).sum(axis=1)) / (n - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected > 1e-12, 1 - observed / expected, np.nan)

    low, high = (None if confidence is None else _bootstrap(table, alpha, confidence)) or (None, None)
    return Agreement(float(alpha(table.sum(axis=0))[0]), low, high, len(paired), count)
