# SPDX-License-Identifier: Apache-2.0
"""What a program asked its model besides what it then did: sub-agents, answers it threw away, requests sent again."""

from __future__ import annotations

from agentgym.report.text import one_line
from agentgym.trajectory import ModelCall, Trajectory


def plain_turn(call: ModelCall) -> bool:
    """Whether its answer simply became one turn, which already shows it."""
    return len(call.turns) == 1 and not call.agent and not call.void and not call.repeats and not call.ignored


def telling(trajectory: Trajectory) -> dict[int, list[ModelCall]]:
    """Calls that the turns do not show by themselves, by the turn before which they were asked (as many had been played)."""
    found: dict[int, list[ModelCall]] = {}
    for call in trajectory.calls:
        if not plain_turn(call):
            found.setdefault(min(call.played, len(trajectory.turns)), []).append(call)
    return found


def headline(call: ModelCall) -> str:
    """Who asked, what it goes on from, and what became of the answer. Safe to print."""
    parts = [f"call {call.index}", one_line(call.agent, 40) or "the program"]
    parts.append("begins a conversation" if call.parent < 0 else f"goes on from call {call.parent}")
    if call.void:
        parts.append(f"void: {one_line(call.void, 200)}")
    elif call.turns:
        parts.append(f"became turn{'s' * (len(call.turns) > 1)} {', '.join(map(str, call.turns))}")
    else:
        parts.append("became no turn")
    if call.repeats:
        parts.append(f"sent again {call.repeats} time{'s' * (call.repeats > 1)}")
    if call.ignored:
        parts.append(f"without effect: {one_line(', '.join(call.ignored), 100)}")
    if call.usage.completion_tokens:
        parts.append(f"{call.usage.prompt_tokens:,}+{call.usage.completion_tokens:,} tokens")
    return " · ".join(parts)


def summary(trajectory: Trajectory) -> str:
    """All calls in one sentence; empty where the episode loop asks the model itself."""
    calls = trajectory.calls
    if not calls:
        return ""
    agents = {c.agent for c in calls if c.agent}
    parts = [f"{len(calls)} call{'s' * (len(calls) != 1)} of the model by the program"]
    for n, words in (
        (sum(bool(c.agent) for c in calls), f"by {len(agents)} sub-agent{'s' * (len(agents) != 1)}"),
        (sum(not c.turns and not c.void for c in calls), "became no turn"),
        (sum(bool(c.void) for c in calls), "void"),
        (sum(c.repeats for c in calls), "sent again"),
    ):
        if n:
            parts.append(f"{n} {words}")
    return ", ".join(parts)
