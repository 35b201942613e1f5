# SPDX-License-Identifier: Apache-2.0
"""Rows of simulated agents: tasks that succeed with given chances."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from agentgym.gate.decide import decide
from agentgym.gate.rows import Origin, Rows, columns
from agentgym.gate.rules import Rules, for_rows
from agentgym.gate.verdict import Verdict, decode_verdict

TODAY = datetime.date(2026, 1, 1)


def ids(families: int, tasks: int, variant: str = "control") -> tuple[list[str], list[str]]:
    """(task ids, family of each)."""
    names = [f"t.f{f:02}" for f in range(families) for _ in range(tasks)]
    return [f"{name}/{variant}/{i % tasks}" for i, name in enumerate(names)], names


def suite(
    families: int,
    tasks: int,
    trials: int,
    success: Any,
    rng: np.random.Generator | None = None,
    *,
    by_hand: bool = False,
    planned: int | None = None,
    **more: Any,
) -> Rows:
    """Trials of ``families`` x ``tasks`` tasks; ``success``: chance of each task, or with no ``rng`` the scores themselves."""
    task, family = ids(families, tasks)
    chance = np.repeat(np.broadcast_to(np.asarray(success, dtype=float), families * tasks), trials)
    scores = chance if rng is None else (rng.random(len(chance)) < chance).astype(float)
    each = [t for t in task for _ in range(trials)]
    column = [f for f in family for _ in range(trials)]
    return columns(
        Origin(name="simulated", planned=planned),
        task=each,
        trial=np.tile(np.arange(trials), families * tasks),
        metrics={"gold": scores, **more.pop("metrics", {})},
        family=column,
        cluster="" if by_hand else column,
        address=[f"run::{t}/{i % trials}" for i, t in enumerate(each)],
        **more,
    )


def gate(baseline: Rows, candidate: Rows, rules: Rules | None = None, *, canary: Rows | None = None) -> Verdict:
    """A verdict under the rules that hold where none are given."""
    verdict = decide(baseline, candidate, for_rows(rules or Rules(), baseline, candidate), today=TODAY, canary=canary)
    assert decode_verdict(verdict.encode()) == verdict  # plain numbers only: every verdict can be written down
    return verdict
