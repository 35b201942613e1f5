# SPDX-License-Identifier: Apache-2.0
"""What the rules of `agentgym.evaluators.rules` mean, written down as plainly as can be, at any cost."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.evaluators.facts import Fact
from agentgym.evaluators.rules import Formula, Rule


def holds(p: Formula, trace: Sequence[Fact], i: int) -> bool:
    """Whether ``p`` is true at fact ``i``."""
    kind = p.settings[0] if p.parts else "false" if p.settings == ("false",) else "atom"
    if kind == "atom":
        return p.start()(trace[i])
    if kind == "false":
        return False
    if kind == "not":
        return not holds(p.parts[0], trace, i)
    if kind == "and":
        return holds(p.parts[0], trace, i) and holds(p.parts[1], trace, i)
    if kind == "or":
        return holds(p.parts[0], trace, i) or holds(p.parts[1], trace, i)
    if kind == "previously":
        return i > 0 and holds(p.parts[0], trace, i - 1)
    if kind == "historically":
        return all(holds(p.parts[0], trace, j) for j in range(i + 1))
    if kind in ("once", "earlier"):
        until = i + 1 if kind == "once" else i
        return any(holds(p.parts[0], trace, j) and alike(trace[j], trace[i], p.settings[1:]) for j in range(until))
    if kind == "since":
        return any(
            holds(p.parts[1], trace, j) and all(holds(p.parts[0], trace, k) for k in range(j + 1, i + 1)) for j in range(i + 1)
        )
    assert kind == "consumed"
    return not holds(p.parts[0], trace, i) or licence(p, trace, i) is not None


def alike(a: Fact, b: Fact, same: Sequence[str]) -> bool:
    return all(n in a.arguments and n in b.arguments and a.arguments[n] == b.arguments[n] for n in same)


def licence(p: Formula, trace: Sequence[Fact], i: int) -> int | None:
    """The fact whose licence the act at fact ``i`` takes."""
    act, by, lapses = p.parts
    same = [s for s in p.settings[1:] if isinstance(s, str)]
    fits = next((s for s in p.settings[1:] if callable(s)), None)
    taken = {licence(p, trace, j) for j in range(i) if holds(act, trace, j)}
    for j in range(i - 1, -1, -1):
        void = any(holds(lapses, trace, k) for k in range(j + 1, i))
        fitting = alike(trace[j], trace[i], same) if fits is None else fits(trace[j], trace[i])
        if holds(by, trace, j) and j not in taken and not void and fitting:
            return j
    return None


def counts(rule: Rule, trace: Sequence[Fact]) -> tuple[int, int, list[int], int]:
    """Exposures, activations, facts of violations, failures before any exposure."""
    active = [i for i in range(len(trace)) if holds(rule.trigger, trace, i)]
    exposing = active if rule.exposed is None else [i for i in range(len(trace)) if holds(rule.exposed, trace, i)]
    failed = [i for i in active if not holds(rule.condition, trace, i)]
    first = exposing[0] if exposing else len(trace)
    return len(exposing), len(active), [i for i in failed if i >= first], sum(i < first for i in failed)
