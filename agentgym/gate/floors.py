# SPDX-License-Identifier: Apache-2.0
"""Absolute floors of a gate: bounds that the candidate must keep for sure, whatever the baseline did."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentgym.errors import UsageError
from agentgym.gate.measure import in_family
from agentgym.gate.rows import SKIPPED, Bools, Floats, Ints, Rows
from agentgym.gate.rules import FloorRule, Rules
from agentgym.stats.bootstrap import bootstrap_t
from agentgym.stats.exact import effective, lower_bound, reachable, trials_for, upper_bound


def check_floors(rows: Rows, rules: Rules, times: int = 1) -> None:
    """Refuses floors that not even a flawless run of these rows would prove.

    Args:
        rows: what is or will be played.
        rules: with the floors.
        times: trials that each row stands for.

    Raises:
        UsageError: with the trials that each would take.
    """
    for i, floor in enumerate(rules.floors, 1):
        chosen = floor_rows(rows, floor) & (rows.status != SKIPPED)
        values = rows.values(floor.metric)[chosen]
        n = int(chosen.sum()) * times
        if not n or not np.all(np.isin(values[~np.isnan(values)], (0.0, 1.0))):
            continue
        at_least = floor.at_least is not None
        bound = floor.at_least if floor.at_least is not None else floor.at_most
        assert bound is not None
        alpha = rules.alpha_of(floor)
        if not reachable(n, bound, alpha, at_least=at_least):
            needed = trials_for(bound, alpha, at_least=at_least)
            best = lower_bound(n, n, alpha) if at_least else upper_bound(0, n, alpha)
            raise UsageError(
                f"{rules.source or 'rules'}, [[floors]] {i} ({floor_text(floor)}): {n} flawless trials prove no more than"
                f" {'at least' if at_least else 'at most'} {best:.3f}. "
                + (f"It takes {needed} trials; play more, or move the bound" if needed else "No number of trials proves it")
            )


def floor_rows(rows: Rows, floor: FloorRule) -> Bools:
    """Which rows a floor is about."""
    chosen = np.ones(len(rows), dtype=np.bool_)
    if floor.family is not None:
        chosen &= in_family(rows.family, floor.family)
    if floor.tag is not None:
        chosen &= rows.tagged(floor.tag)
    if floor.variant is not None:
        chosen &= rows.variant.where(floor.variant)
    return chosen


def floor_text(floor: FloorRule) -> str:
    """``gold >= 0.6 (family tools)``."""
    bound = f">= {floor.at_least:g}" if floor.at_least is not None else f"<= {floor.at_most:g}"
    where = [f"{k} {v}" for k, v in (("family", floor.family), ("tag", floor.tag), ("variant", floor.variant)) if v is not None]
    return f"{floor.metric} {bound}" + (f" ({', '.join(where)})" if where else "")


def judge_floor(
    values: Floats, tasks: Ints, floor: FloorRule, alpha: float
) -> tuple[Literal["pass", "inconclusive", "fail"], str]:
    """Whether a floor is kept for sure, broken for sure, or neither; trials of one task count for what they add."""
    n = len(values)
    if not n:
        return "inconclusive", "no trial of the candidate has a value there"
    if np.all(np.isin(values, (0.0, 1.0))):
        k, m = effective(values, tasks)
        low, high = lower_bound(k, m, alpha), upper_bound(k, m, alpha)
        text = f"{int(values.sum())} of {n}"
    else:
        codes = np.unique(tasks, return_inverse=True)[1].reshape(-1)
        low, high = bootstrap_t(np.bincount(codes, weights=values).astype(float), np.bincount(codes).astype(float), alpha)
        text = f"mean {float(values.mean()):.3f} of {n}"
    text += f", {1 - 2 * alpha:.0%} [{low:.3f}, {high:.3f}]"
    kept, broken = (
        (low >= floor.at_least, high < floor.at_least)
        if floor.at_least is not None
        else (high <= (floor.at_most or 0.0), low > (floor.at_most or 0.0))
    )
    if kept:
        return "pass", text
    return ("fail", f"{text}: broken for sure") if broken else ("inconclusive", f"{text}: neither kept nor broken for sure")
