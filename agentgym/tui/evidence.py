# SPDX-License-Identifier: Apache-2.0
"""What stands at the side of a turn: the rules it broke with the act and its effect, and the state as changed so far."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec

from agentgym.report.course import Changed, net_changes
from agentgym.report.text import one_line
from agentgym.scoring import Finding
from agentgym.trajectory import StateChange, Trajectory, Turn
from agentgym.tui.document import Block, Rule
from agentgym.tui.marks import VIOLATION, number

SIGNS = {"add": "+", "remove": "-", "replace": "±"}
STATE_FOLD = 6
"""Lines shown of one change before it is folded."""
SHORT = 60
"""Characters of a change that stands on one line, before and after."""
MOST = 2_000
"""Changed places that are drawn; who changes more than that is not read place by place."""


def compact(value: Any) -> str:
    """A value as JSON on one line, for people: text that is not Unicode is shown as far as it can be."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        return repr(value)


def change(c: StateChange | Changed) -> str:
    """``/orders/O-1/status  "pending" → "cancelled"``."""
    return f"{c.path}  {effect(c)}"


def effect(c: StateChange | Changed) -> str:
    """A change without its place: ``"pending" → "cancelled"``."""
    if c.operation == "add":
        return compact(c.after)
    if c.operation == "remove":
        return f"was {compact(c.before)}"
    return f"{compact(c.before)} → {compact(c.after)}"


def broken(findings: Iterable[Finding], turn: Turn | None) -> Iterable[Block]:
    """The rules that were broken in a turn: name, exposure, weight, the act, what it changed, the evidence."""
    shown = False
    for f in findings:
        shown = True
        yield Rule((f"{VIOLATION} {one_line(f.dimension, 24)}", "flag"), [(f"weight {number(f.weight)}", "muted")], turn=-1)
        yield Block(("rule", "muted"), f"{f.rule} violated", "flag", turn=-1, fold=6)
        where = "the episode as a whole" if turn is None else f"turn {turn.index}"
        yield Block(("exposed", "muted"), f"{'yes' if f.exposure else 'no'}, in {where}", turn=-1)
        if f.evidence is not None:
            yield Block(("evidence", "muted"), compact(f.evidence), turn=-1, fold=10)
    if not shown or turn is None:
        return
    label = "act"
    for c in turn.message.tool_calls:
        yield Block((label, "muted"), f"→ {c.name}({c.arguments})", "strong", turn=-1, fold=6)
        label = ""
    if not turn.message.tool_calls:
        yield Block((label, "muted"), turn.message.text or "(nothing)", turn=-1, fold=6)
    for change_ in turn.changes:
        if len(line := effect(change_)) <= SHORT:
            yield Block((f"{SIGNS[change_.operation]} changed", "state"), f"{change_.path}  {line}", turn=-1, fold=3)
            continue
        yield Block((f"{SIGNS[change_.operation]} changed", "state"), change_.path, "strong", turn=-1, fold=2)
        if lines := text_diff(change_.before, change_.after):
            yield Block(("diff", "muted"), lines, turn=-1, fold=16)
            continue
        if change_.operation != "add":
            yield Block(("before", "muted"), compact(change_.before), turn=-1, fold=4)
        if change_.operation != "remove":
            yield Block(("after", "muted"), compact(change_.after), turn=-1, fold=4)
    for e in turn.events:
        if e.source == "observer":
            text = f"{e.kind} {e.resource} {'' if e.data is None else compact(e.data)}"
            yield Block(("seen", "muted"), text.strip(), turn=-1, fold=4)


def text_diff(before: Any, after: Any) -> str:
    """The lines in which two texts differ, with ``-`` and ``+`` in front; empty where they are no texts of several lines."""
    if not (isinstance(before, str) and isinstance(after, str) and "\n" in before + after):
        return ""
    if len(before) + len(after) > 20_000:  # telling lines apart takes the square of their number
        return ""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
    return "\n".join(line for i, line in enumerate(lines) if i > 1 and not line.startswith("@@"))


def state(trajectory: Trajectory, turn: int | None) -> Iterable[Block]:
    """The state's changes up to and with a turn as a tree of places, each with its value before and after."""
    changes = net_changes(trajectory, turn)
    if not changes and trajectory.state_before is None and not any(t.changes for t in trajectory.turns):
        return
    until = "" if turn is None else "before turn 0" if turn < 0 else f"after turn {turn}"
    yield Rule(("state", "strong"), [(until, "muted")] if until else [], turn=-1)
    if not changes:
        yield Block(("", ""), "unchanged", "muted", turn=-1)
    above: list[str] = []
    for c in changes[:MOST]:
        parts = [p.replace("~1", "/").replace("~0", "~") for p in c.path.split("/")[1:]] or [""]
        same = 0
        while same < min(len(above), len(parts) - 1) and above[same] == parts[same]:
            same += 1
        for depth in range(same, len(parts) - 1):
            yield Block(("", ""), f"{_indent(depth)}{one_line(parts[depth], 60)}/", "muted", turn=-1, fold=1)
        above = parts[:-1]
        now = "state" if turn in c.turns else "muted"
        at = f"@{c.turns[-1]}" if len(c.turns) == 1 else f"@{c.turns[0]}..{c.turns[-1]}"
        text = f"{_indent(len(parts) - 1)}{one_line(parts[-1], 60)}  {effect(c)}"
        yield Block((f"{SIGNS[c.operation]} {at}", now), text, turn=-1, fold=STATE_FOLD)
    if len(changes) > MOST:
        yield Block(("", ""), f"and {len(changes) - MOST:,} places more", "warn", turn=-1)


def _indent(depth: int) -> str:
    """Two cells a level, as far as a narrow pane has them. No plain blanks: lines are broken at those."""
    return "\u00a0\u00a0" * min(depth, 6)
