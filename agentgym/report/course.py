# SPDX-License-Identifier: Apache-2.0
"""The course of one episode: what had been paid, spent, broken and changed by the end of each turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

from agentgym.scoring import Finding
from agentgym.trajectory import StateChange, Trajectory


class Track(NamedTuple):
    """One quantity over the turns."""

    name: str
    """``reward``, ``tokens``, a budget's unit, or a dimension."""
    kind: Literal["reward", "budget", "tokens", "rules"]
    values: tuple[float, ...]
    """One a turn, as of its end. Of ``rules``: how many were broken in that turn; of the others: the sum so far."""
    limit: float | None = None
    """What may be spent; None where there is no limit."""
    elsewhere: int = 0
    """Of ``rules``: broken by the episode as a whole, or in a turn that is not on record."""


def tracks(trajectory: Trajectory, findings: Iterable[Finding]) -> list[Track]:
    """Proxy reward, budgets, sampled tokens, broken rules by dimension: each only where there is something to tell.

    Budgets are read from the events ``budget.spend`` (resource: the unit; data: spent and limit) that scenarios note.
    """
    turns = trajectory.turns
    result = [Track("reward", "reward", _sums(t.reward for t in turns))] if any(t.reward for t in turns) else []
    spends: dict[str, list[tuple[int, float, float | None]]] = {}
    for turn in turns:
        for e in turn.events:
            # what an event holds may come from another harness: only numbers are counted
            if e.kind == "budget.spend" and isinstance(e.data, dict) and _is_number(spent := e.data.get("spent")):
                limit = e.data.get("limit")
                spends.setdefault(e.resource, []).append((turn.index, spent, limit if _is_number(limit) else None))
    for unit, told in spends.items():
        at = {index: spent for index, spent, _ in told}
        values, now = [], 0.0
        for turn in turns:
            now = at.get(turn.index, now)
            values.append(now)
        result.append(Track(unit, "budget", tuple(values), told[-1][2]))
    if any(t.usage.completion_tokens for t in turns):
        result.append(Track("tokens", "tokens", _sums(t.usage.completion_tokens for t in turns)))
    broken = [f for f in findings if f.violation]
    for dimension in dict.fromkeys(f.dimension for f in broken):
        counts, elsewhere = [0.0] * len(turns), 0
        for f in broken:
            if f.dimension != dimension:
                continue
            if f.turn is not None and 0 <= f.turn < len(turns):
                counts[f.turn] += 1
            else:
                elsewhere += 1
        result.append(Track(dimension, "rules", tuple(counts), None, elsewhere))
    return result


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sums(values: Iterable[float]) -> tuple[float, ...]:
    result, total = [], 0.0
    for v in values:
        total += v
        result.append(total)
    return tuple(result)


class Changed(NamedTuple):
    """What became of one place of the state, from the beginning to some turn."""

    path: str
    """JSON pointer (RFC 6901)."""
    operation: Literal["add", "remove", "replace"]
    before: Any
    after: Any
    turns: tuple[int, ...]
    """Those that changed it, in order; the last one gave it its present value."""


def net_changes(trajectory: Trajectory, turn: int | None = None) -> list[Changed]:
    """The state's changes up to and with a turn (None: all), one for each place, in the order of paths.

    What was changed and changed back is left out. Where something is replaced or removed as a whole, what had been changed
    inside of it is no longer told apart.
    """
    net: dict[str, Changed] = {}
    for t in trajectory.turns:
        if turn is not None and t.index > turn:
            break
        for c in t.changes:
            _apply(net, c, t.index)
    return [net[path] for path in sorted(net, key=_parts)]


def _apply(net: dict[str, Changed], c: StateChange, turn: int) -> None:
    if isinstance(c.before, (dict, list)):  # nothing else has places inside, and looking for them takes its time
        for path in [p for p in net if p.startswith(c.path + "/")]:
            del net[path]
    old = net.pop(c.path, None)
    if old is None:
        net[c.path] = Changed(c.path, c.operation, c.before, c.after, (turn,))
        return
    there, here = old.operation != "add", c.operation != "remove"
    turns = old.turns if old.turns[-1] == turn else (*old.turns, turn)
    if there and here and type(old.before) is type(c.after) and old.before == c.after:
        return
    if there or here:
        operation: Literal["add", "remove", "replace"] = "replace" if there and here else "add" if here else "remove"
        net[c.path] = Changed(c.path, operation, old.before, c.after, turns)


def _parts(path: str) -> list[tuple[bool, int, str]]:
    """Sorts places of lists by their number."""
    return [(not p.isdecimal(), int(p) if p.isdecimal() and len(p) < 18 else 0, p) for p in path.split("/")]


SPARKS = "▁▂▃▄▅▆▇█"


def spark(value: float, low: float, high: float) -> str:
    """A value as the height of a block, from ``▁`` for ``low`` to ``█`` for ``high``.

    >>> "".join(spark(v, 0, 4) for v in range(5)), spark(3, 3, 3)
    ('▁▃▅▆█', '▁')
    """
    if high <= low:
        return SPARKS[0]
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return SPARKS[round(share * (len(SPARKS) - 1))]


def dimensions(findings: Sequence[Finding]) -> list[str]:
    """Those in which a rule was broken, in the order of findings."""
    return list(dict.fromkeys(f.dimension for f in findings if f.violation))
