# SPDX-License-Identifier: Apache-2.0
"""One reward out of many feedbacks: weighted, gated, in order of importance, or under constraints.

A feedback is any `Verifier`: a rule, a judge, a reward model, `clean` for findings. What is composed is a verifier again, whose
score has the role that it is run under, while each component's own scores and findings stay on the record beside it (role
``metric``), so that nobody has to guess later what a reward was made of.

A component has a value, or none because it could not be scored, or nothing to say about this episode. What could not be scored
leaves the whole without a value, unless ``missing="skip"`` is declared; what has nothing to say is left out.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentgym.errors import DefinitionError, UsageError
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, verifier, verify
from agentgym.trajectory import Trajectory

Missing = Literal["none", "skip"]
"""``none``: a component without a value leaves the whole without one. ``skip``: it is left out, with a flag."""


class _Part(msgspec.Struct):
    """What one component said of an episode."""

    name: str
    value: float | None
    said: bool
    """Whether it said anything about this episode."""
    record: list[Score | Finding]
    flags: tuple[str, ...] = ()


def _ask(component: Verifier, trajectory: Trajectory, context: VerifierContext) -> _Part:
    scores, findings = verify([component], "metric", trajectory, context)
    own = [s for s in scores if s.name == component.name] or [s for s in scores if s.value is None]
    if len(own) > 1 and any(s.value is None for s in own):
        own = [s for s in own if s.value is None]
    record: list[Score | Finding] = [*(msgspec.structs.replace(s, role="metric") for s in scores), *findings]
    return _Part(component.name, own[0].value if own else None, bool(own), record, own[0].flags if own else ())


class _Composed:
    """What the verifiers close over. Its repr names the components' hashes, so the whole changes with any part."""

    def __init__(self, how: str, components: Sequence[Verifier], settings: Mapping[str, Any]) -> None:
        names = [c.name for c in components]
        if not components:
            raise DefinitionError(f"{how} needs a component")
        if not all(isinstance(c, Verifier) for c in components):
            raise DefinitionError(f"the components of {how} are verifiers")
        if len(set(names)) != len(names):
            raise DefinitionError(
                f"the components of {how} need different names, which they are kept under: {', '.join(names)}"
            )
        self.how = how
        self.components = tuple(components)
        self.settings = dict(settings)

    def __repr__(self) -> str:
        return f"{self.how}:{[c.hash for c in self.components]}:{self.settings!r}"


def _make(
    how: str,
    name: str,
    components: Sequence[Verifier],
    combine: Callable[[Mapping[str, float | None]], tuple[float, dict[str, Any]]],
    *,
    missing: Missing,
    weight: float,
    **settings: Any,
) -> Verifier:
    """A verifier of components; ``combine`` is given the values of those that spoke."""
    composed = _Composed(how, components, {**settings, "missing": missing})
    if name in {c.name for c in components}:
        raise DefinitionError(f"{how} cannot bear the name of its component {name!r}")
    if missing not in ("none", "skip"):
        raise DefinitionError(f"missing is 'none' or 'skip', not {missing!r}")
    needs = frozenset[str]().union(*(c.needs for c in components))

    @verifier(name=name, needs=needs, weight=weight)
    def reward(trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        parts = [_ask(c, trajectory, context) for c in composed.components]
        record = [r for p in parts for r in p.record]
        spoken = {p.name: p.value for p in parts if p.said}
        absent = [n for n, v in spoken.items() if v is None]
        if absent and missing == "none":
            reason = f"{', '.join(absent)} could not be scored"
            return [Score(name, value=None, status="unscorable", reason=reason, flags=("missing",), evidence=spoken), *record]
        values = {n: v for n, v in spoken.items() if v is not None}
        if not values:
            return (
                record
                if not absent
                else [Score(name, value=None, status="unscorable", reason="nothing could be scored"), *record]
            )
        value, evidence = combine(values)
        flags = tuple(f"missing:{n}" for n in absent)
        return [Score(name, value=value, flags=flags, evidence={"values": spoken, **evidence}), *record]

    return reward


def weighted(
    components: Mapping[Verifier, float] | Sequence[Verifier],
    *,
    name: str = "reward",
    missing: Missing = "none",
    weight: float = 1.0,
) -> Verifier:
    """The weighted mean of components.

    Args:
        components: verifiers, or verifiers with their weights (more than 0).
        name: of the verifier and its score.
        missing: see `Missing`. The weights of those that are left out go to the others in proportion.
        weight: share in the proxy reward.

    Raises:
        DefinitionError: no component, two of one name, or a weight that is not more than 0.
    """
    weights = {
        c.name: float(w) for c, w in (components.items() if isinstance(components, Mapping) else ((c, 1.0) for c in components))
    }
    if not all(0 < w < math.inf for w in weights.values()):
        raise DefinitionError(f"weights are finite and more than 0, not {weights}")

    def combine(values: Mapping[str, float | None]) -> tuple[float, dict[str, Any]]:
        total = math.fsum(weights[n] for n in values)
        return math.fsum(weights[n] * (v or 0.0) for n, v in values.items()) / total, {}

    return _make("weighted", name, list(components), combine, missing=missing, weight=weight, weights=weights)


def gated(
    gate: Verifier, reward: Verifier, *, least: float = 1.0, closed: float = 0.0, name: str = "gated", weight: float = 1.0
) -> Verifier:
    """The value of ``reward`` where ``gate`` reaches ``least``, else ``closed``. Both are always asked and kept.

    A gate that has nothing to say about an episode is open; one that could not be scored leaves the whole without a value.

    Args:
        gate: what must hold (format, safety).
        reward: what is paid then.
        least: the gate's value from which on it is open.
        closed: what is paid otherwise.
        name: of the verifier and its score.
        weight: share in the proxy reward.
    """

    def combine(values: Mapping[str, float | None]) -> tuple[float, dict[str, Any]]:
        is_open = (values.get(gate.name, least) or 0.0) >= least or gate.name not in values
        paid = values.get(reward.name)
        return (float(paid if paid is not None else closed) if is_open else closed), {"open": is_open}

    return _make("gated", name, [gate, reward], combine, missing="none", weight=weight, least=least, closed=closed)


def lexicographic(
    components: Sequence[Verifier], *, levels: int = 11, name: str = "ordered", missing: Missing = "none", weight: float = 1.0
) -> Verifier:
    """Components in order of importance: a later one decides only between episodes that are level in all earlier ones.

    Each value in [0, 1] is rounded down to one of ``levels`` even steps; read as digits of one number and divided by the
    greatest, they give a value in [0, 1] of the same order. A component that is left out counts as its lowest level.

    Raises:
        DefinitionError: fewer than 2 levels, or more digits than a float can hold apart. A value outside [0, 1] is an error.
    """
    names = [c.name for c in components]
    if levels < 2 or levels ** len(names) > 1 << 53:
        raise DefinitionError(f"{len(names)} components of {levels} levels cannot be told apart in one number")

    def combine(values: Mapping[str, float | None]) -> tuple[float, dict[str, Any]]:
        digits = []
        for n in names:
            v = values.get(n) or 0.0
            if not 0.0 <= v <= 1.0:
                raise ValueError(f"{n} must lie in [0, 1] to be ordered, not {v}")
            digits.append(min(levels - 1, math.floor(v * (levels - 1) + 1e-9)))
        number = 0
        for digit in digits:
            number = number * levels + digit
        return number / (levels ** len(names) - 1), {"levels": dict(zip(names, digits, strict=True))}

    return _make("lexicographic", name, components, combine, missing=missing, weight=weight, levels=levels)


def clean(findings: Verifier, *, dimension: str = "", rule: str = "", name: str = "") -> Verifier:
    """A feedback out of findings: 1.0 where an exposed episode broke no rule, 0.0 where it broke one, nothing where none could
    have been broken. With several rules, the share of the exposed ones' weight that was kept.

    Args:
        findings: the verifier that gives them.
        dimension: only findings of this one.
        rule: only findings of this one.
        name: of the score; ``clean:NAME`` by default.
    """
    label = name or f"clean:{dimension or findings.name}"
    setup = _Composed("clean", [findings], {"dimension": dimension, "rule": rule})

    @verifier(name=label, needs=findings.needs)
    def kept(trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        part = _ask(setup.components[0], trajectory, context)
        failed = [r for r in part.record if isinstance(r, Score) and r.value is None]
        if failed:
            return [Score(label, value=None, status="unscorable", reason=failed[0].reason), *part.record]
        judged = [
            r for r in part.record
            if isinstance(r, Finding) and r.exposure and dimension in ("", r.dimension) and rule in ("", r.rule)
        ]  # fmt: skip
        total = sum(f.weight for f in judged)
        if not total:
            return part.record
        broken = sum(f.weight for f in judged if f.violation)
        return [
            Score(label, value=1.0 - broken / total, evidence={"broken": [f.rule for f in judged if f.violation]}),
            *part.record,
        ]

    return kept


# -- constraints --------------------------------------------------------------------------------------------------------


class Constraint(msgspec.Struct, frozen=True):
    """What must hold on average, whatever it costs in reward."""

    feedback: Verifier
    """1.0 where it was kept, 0.0 where it was not (or between); the episode's cost is 1 minus it."""
    limit: float
    """Greatest mean cost over episodes, 0 to 1: the violation rate that is allowed."""
    rate: float = 0.1
    """Step of the multiplier for each update, in reward per cost."""
    most: float = 100.0
    """Greatest multiplier. One that stays there says that the limit cannot be met."""


class ConstrainedReward:
    """A reward under constraints, by Lagrange multipliers that follow the measured violation rates.

    The problem is to maximise E[r] subject to E[c_i] <= d_i, with costs c_i in [0, 1]. From its Lagrangian each episode
    gets the reward

        r' = (r - sum_i l_i (c_i - d_i)) / (1 + sum_i l_i)

    and dual ascent raises a multiplier where a constraint is broken on average and lowers it where it is kept:

        l_i <- min(most_i, max(0, l_i + rate_i (mean c_i - d_i)))

    (Altman 1999; Tessler et al. 2019, arXiv 1805.11074; the division, which keeps the scale of the reward, as in Dai et al.
    2023, arXiv 2310.12773). Between updates the multipliers stand still, so the verifier is a function of the record; those
    that were used are evidence of each score.

    Usage: put `verifier` into an environment's ``proxy``; after each batch call `update` with the scores of its episodes; keep
    `state` with the checkpoint and hand it to `restore`.

    Args:
        reward: what is maximised.
        constraints: what must hold.
        name: of the verifier and its score.
        weight: share in the proxy reward.

    Raises:
        DefinitionError: a limit outside [0, 1], a rate or greatest multiplier that is not more than 0, or names that are not
            different.
    """

    def __init__(
        self, reward: Verifier, constraints: Sequence[Constraint], *, name: str = "constrained", weight: float = 1.0
    ) -> None:
        for c in constraints:
            if not 0.0 <= c.limit <= 1.0 or not c.rate > 0 or not c.most > 0:
                raise DefinitionError(
                    f"{c.feedback.name}: limit must be in [0, 1], rate and most more than 0: {c.limit}, {c.rate}, {c.most}"
                )
        self.constraints = {c.feedback.name: c for c in constraints}
        self._lock = threading.Lock()
        self._multipliers = dict.fromkeys(self.constraints, 0.0)
        self.updates = 0
        """Updates so far."""

        def combine(values: Mapping[str, float | None]) -> tuple[float, dict[str, Any]]:
            used = self.multipliers
            value = values.get(reward.name)
            if value is None:
                raise ValueError(f"{reward.name} said nothing about the episode")
            costs = {n: 1.0 - (values[n] or 0.0) for n in used if n in values}
            price = math.fsum(used[n] * (cost - self.constraints[n].limit) for n, cost in costs.items())
            return (value - price) / (1.0 + math.fsum(used.values())), {"costs": costs, "multipliers": used}

        setting = [(n, c.limit, c.rate, c.most) for n, c in self.constraints.items()]
        self.verifier = _make(
            "constrained",
            name,
            [reward, *(c.feedback for c in constraints)],
            combine,
            missing="none",
            weight=weight,
            setting=setting,
        )
        """The composed verifier."""

    @property
    def multipliers(self) -> dict[str, float]:
        """Of each constraint, by its feedback's name."""
        with self._lock:
            return dict(self._multipliers)

    def update(self, episodes: Iterable[Iterable[Score]]) -> dict[str, float]:
        """One step of dual ascent.

        Args:
            episodes: the scores of each episode of a batch, as they stand on its record.

        Returns: the measured mean cost of each constraint. One that no episode of the batch was scored on is left out, and its
        multiplier stays as it was.
        """
        costs: dict[str, list[float]] = {n: [] for n in self.constraints}
        for scores in episodes:
            seen = {s.name: s.value for s in scores if s.name in costs and s.value is not None}
            for n, v in seen.items():
                costs[n].append(1.0 - v)
        means = {n: math.fsum(c) / len(c) for n, c in costs.items() if c}
        with self._lock:
            for n, mean in means.items():
                c = self.constraints[n]
                self._multipliers[n] = min(c.most, max(0.0, self._multipliers[n] + c.rate * (mean - c.limit)))
            self.updates += 1
        return means

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON values."""
        return {"multipliers": self.multipliers, "updates": self.updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state.

        Raises:
            UsageError: it is of other constraints, or holds what is no multiplier.
        """
        given = state.get("multipliers")
        if not isinstance(given, Mapping) or set(given) != set(self.constraints):
            raise UsageError(f"the state must hold the multipliers of {', '.join(self.constraints)}, not {given!r}")
        if not all(isinstance(v, (int, float)) and 0.0 <= v <= self.constraints[n].most for n, v in given.items()):
            raise UsageError(f"a multiplier lies between 0 and its greatest value: {given!r}")
        with self._lock:
            self._multipliers = {n: float(given[n]) for n in self.constraints}
            self.updates = int(state.get("updates", 0))

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all."""
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_text(json.dumps(self.state()), encoding="utf-8")
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote."""
        self.restore(json.loads(path.read_text(encoding="utf-8")))
