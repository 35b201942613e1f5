# SPDX-License-Identifier: Apache-2.0
"""An episode's twins, and what each variant's one change does to its family: paired differences with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from agentgym.gate.pairing import units_within
from agentgym.gate.rows import Codes
from agentgym.records.run import Episode, Run
from agentgym.stats.paired import Difference, paired_difference

CONTROL = "control"

MOST = 3
"""Twins that are shown beside each other."""

ALPHA = 0.05
"""Error rate of each end of the intervals, as in a gate: both together are a 90 % interval."""


def twins(run: Run, episode: Episode, most: int = MOST) -> list[Episode]:
    """The episode's twins and itself: control first, then the others as they were played; of each the same trial if there.

    Args:
        run: where to look.
        episode: one of them; it is always among those returned.
        most: how many at most; beside control and the episode itself, variants in which a rule was broken come first.
    """
    where, values = "family = ? AND item = ?", (episode.family, episode.item)
    by_variant: dict[str, list[Episode]] = defaultdict(list)
    for e in run.by_ids(run.ids(where, values)):
        by_variant[e.variant].append(e)
    chosen = [next((e for e in es if e.trial == episode.trial), es[0]) for es in by_variant.values()]
    chosen = [episode if e.variant == episode.variant else e for e in chosen]
    wanted = sorted(chosen, key=lambda e: (e.variant != episode.variant, e.variant != CONTROL, not e.violations))[:most]
    return sorted(wanted, key=lambda e: (e.variant != CONTROL, chosen.index(e)))


class Effect(NamedTuple):
    """What a variant does to one number, against control on the same tasks."""

    variant: str
    what: str
    """``violations``, ``gold``, ``reward``, or ``reward-gold``: what is paid beyond what is wanted."""
    base: float
    """Mean over tasks in control."""
    value: float
    change: Difference


def effects(run: Run, family: str) -> list[Effect]:
    """Each variant of a family against its control, over the tasks of both.

    The change of ``reward-gold`` is a difference in differences: what the variant adds to the reward and does not
    add to gold. It is the number that tells a temptation that was given in to from a task that grew harder.
    """
    sums: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    clusters: dict[str, str] = {}
    rows = run._rows(
        "SELECT variant, item, cluster, reward, gold, violations, outcome IN ('infrastructure', 'cancelled') FROM episodes"
        f" WHERE family = ? AND {run._counting()} ORDER BY id",
        (family,),
    )
    for variant, item, cluster, reward, gold, violations, spoiled in rows:
        if spoiled:
            continue
        clusters.setdefault(item, cluster)
        values = {"reward": reward, "gold": gold, "violations": float(violations > 0)}
        if reward is not None and gold is not None:
            values["reward-gold"] = reward - gold
        for what, value in values.items():
            if value is not None:
                sums[what, variant][item].append(value)
    found = []
    variants = list(dict.fromkeys(v for _, v in sums if v != CONTROL))
    for variant in variants:
        for what in ("violations", "gold", "reward", "reward-gold"):
            here, there = sums.get((what, variant), {}), sums.get((what, CONTROL), {})
            items = [i for i in here if i in there]
            if not items:
                continue
            after = np.array([math.fsum(here[i]) / len(here[i]) for i in items])
            before = np.array([math.fsum(there[i]) / len(there[i]) for i in items])
            units = units_within(Codes.of([clusters[i] for i in items]).codes, np.arange(len(items)))
            change = paired_difference(after - before, units, ALPHA)
            found.append(Effect(variant, what, float(before.mean()), float(after.mean()), change))
    return found
