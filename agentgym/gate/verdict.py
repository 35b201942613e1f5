# SPDX-License-Identifier: Apache-2.0
"""The verdict: one object, from which the exit code, the terminal, Markdown, JUnit, SARIF and JSON are all made."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Outcome = Literal["pass", "tolerated", "inconclusive", "regression", "invariant", "coverage", "incompatible"]
"""``tolerated``: worse for sure, by less than the margin for sure. The last two end a gate before it measures."""

EXIT_CODES: Final[dict[str, int]] = {
    "pass": 0, "tolerated": 0, "regression": 1, "inconclusive": 10, "invariant": 11, "coverage": 12, "incompatible": 13,
}  # fmt: skip
"""Outcome -> exit code; ``inconclusive`` under the rule ``warn`` is 0. Besides: 2 wrong usage, 70 a bug of ours."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of the decision, in the order in which they were made."""

    name: str
    """``compatibility``, ``coverage``, ``invariant``, ``measured``, ``family``, ``twin``, ``floor``, ``canary``,
    ``sequential``."""
    outcome: Literal["pass", "tolerated", "inconclusive", "fail", "warn", "skipped"]
    text: str
    """A sentence for a person: what was found, and what to do about it."""
    metric: str = ""
    family: str = ""


class MetricResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One comparison: a metric over the suite, over one family, or a twin contrast."""

    metric: str
    outcome: Literal["pass", "tolerated", "inconclusive", "regression", "report"]
    kind: str = "measured"
    """``invariant``, ``measured`` or ``report``."""
    family: str = ""
    """``""``: the whole suite."""
    contrast: str = ""
    """``tempt-control`` for a twin contrast; ``""``: the metric itself."""
    direction: str = "higher"
    baseline: float | None = None
    candidate: float | None = None
    diff: float | None = None
    """Candidate less baseline, in the metric's units (not turned by ``direction``); None: nothing could be compared."""
    low: float | None = None
    high: float | None = None
    """Two-sided interval of ``diff`` at 1 - 2 alpha, whose ends are the one-sided bounds that decide; None: there is none."""
    confidence: float = 0.9
    margin: float = 0.0
    p_value: float | None = None
    """Of "it is not worse", after Holm."""
    mde: float | None = None
    """Smallest true drop that this comparison would call a REGRESSION with 80 % power."""
    method: str = ""
    """``cluster t``, ``sign-flip``, ``McNemar``, ``constant``, ``fisher``."""
    clusters: int = 0
    tasks: int = 0
    trials: int = 0
    """Trials a task, of the candidate: the most that any task has."""
    exposures: int = 0
    """Candidate's trials with a value (exposed trials, for violations)."""
    needed: int | None = None
    """Clusters that would decide it at the same spread, where it is inconclusive."""
    reason: str = ""
    """Why this outcome, in a few words."""


class Flip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task whose result turned over: solved by most trials of one arm and by fewer than half of the other's."""

    task: str
    metric: str
    baseline: float
    candidate: float
    harmful: bool
    family: str = ""
    address: str = ""
    source: str = ""


class Flips(msgspec.Struct, frozen=True, kw_only=True):
    """How the result moved, task by task."""

    harmful: int = 0
    beneficial: int = 0
    churn: float = 0.0
    """(harmful + beneficial) / tasks compared: what changes even where the mean stands still."""
    tasks: int = 0
    worst: tuple[Flip, ...] = ()
    """The worst harmful ones, at most 20."""


class Flagged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step to look at."""

    address: str
    """``RUN::FAMILY/VARIANT/ITEM/TRIAL[@TURN]``."""
    rule: str
    """``DIMENSION/RULE``, or the metric."""
    text: str
    task: str = ""
    source: str = ""
    known: bool = False
    """The baseline has it, too."""
    level: Literal["error", "warning", "note"] = "warning"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate cost."""

    tokens: int = 0
    cost_usd: float = 0.0
    baseline_tokens: int = 0
    baseline_cost_usd: float = 0.0


class Arm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side of the comparison, as it was read."""

    name: str
    models: tuple[str, ...] = ()
    tasks: int = 0
    clusters: int = 0
    trials: int = 0
    rows: int = 0
    infrastructure: int = 0
    unscorable: int = 0
    skipped: int = 0
    missing: int = 0
    cached: float = 0.0
    """Share of rows replayed from a cache."""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of the candidate beside the baseline's: a test case of JUnit."""

    task: str
    family: str = ""
    outcome: Literal["ok", "worse", "infrastructure", "unscorable", "skipped", "missing", "quarantined", "new"] = "ok"
    baseline: float | None = None
    candidate: float | None = None
    text: str = ""
    address: str = ""
    source: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate says."""

    outcome: Outcome
    exit_code: int
    summary: str
    """One line for a person."""
    baseline: Arm
    candidate: Arm
    checks: tuple[Check, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    families: tuple[MetricResult, ...] = ()
    twins: tuple[MetricResult, ...] = ()
    flips: Flips = Flips()
    flagged: tuple[Flagged, ...] = ()
    tasks: tuple[TaskResult, ...] = ()
    warnings: tuple[str, ...] = ()
    cost: Cost = Cost()
    rules: str = ""
    """The rules' file; ``""``: built in."""
    schema: str = "agentgym.verdict/1"

    def encode(self) -> bytes:
        """The verdict as JSON, one line, equal for equal verdicts."""
        return msgspec.json.encode(self, order="deterministic")


def decode_verdict(data: bytes) -> Verdict:
    """The inverse of `Verdict.encode`."""
    return msgspec.json.decode(data, type=Verdict)
