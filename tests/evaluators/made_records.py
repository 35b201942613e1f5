# SPDX-License-Identifier: Apache-2.0
"""Records by hand, for the tests of verifiers: contexts, turns of one call or one message, and what verifiers say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentgym.chat import Message, ToolCall, assistant, system, user
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import Event, StateChange, ToolResult, Trajectory, Turn


def context(gold: Any = None, hidden: Any = None, state: Any = None) -> VerifierContext:
    return VerifierContext(
        FrozenTask(
            family="t", version=1, variant="control", item="0", seed=0, params={}, opening=(), tools=(), state=state,
            gold=gold, hidden=hidden, cluster="t", tags=(),
        )
    )  # fmt: skip


def tool(name: str, shown: str = "ok", status: str = "ok", /, **arguments: Any) -> tuple[str, str, str, dict[str, Any]]:
    """A call, what the agent was shown, and how it went."""
    return name, shown, status, arguments


def said(text: str, reply: str | None = None) -> tuple[str, str | None]:
    """A message of the agent and the user's reply."""
    return text, reply


def record(
    *steps: Any,
    state_before: Any = None,
    state_after: Any = None,
    truncation: str | None = None,
    writes: Sequence[str] = (),
    changes: dict[int, tuple[StateChange, ...]] | None = None,
    events: dict[int, tuple[Event, ...]] | None = None,
) -> Trajectory:
    """A trajectory of `tool` and `said` steps, one a turn; turns by number may have changes and events."""
    turns = []
    for i, step in enumerate(steps):
        if isinstance(step, Turn):
            turn = step
        elif len(step) == 2:
            text, reply = step
            turn = Turn(i, assistant(text), observation=() if reply is None else (user(reply),))
        else:
            name, shown, status, arguments = step
            c = ToolCall(name, json.dumps(arguments), f"c{i}")
            results = (ToolResult(c.id, name, status, name in writes),)  # type: ignore[arg-type]
            turn = Turn(i, assistant("", c), results=results, observation=(Message("tool", shown, (), c.id, name),))
        turn.changes = (changes or {}).get(i, ())
        turn.events = (events or {}).get(i, ())
        turns.append(turn)
    opening = (system("Today is 2026-03-14."), user("It is about O-1042."))
    return Trajectory(
        task_id="t/control/0", opening=opening, turns=turns, state_before=state_before, state_after=state_after,
        truncation=truncation,
    )  # fmt: skip


def score(v: Verifier, trajectory: Trajectory, ctx: VerifierContext) -> Score | None:
    scores, _ = verify([v], "gold", trajectory, ctx)
    return scores[0] if scores else None


def value(v: Verifier, trajectory: Trajectory, ctx: VerifierContext) -> float | None:
    found = score(v, trajectory, ctx)
    assert found is not None
    return found.value


def finding(v: Verifier, *steps: Any) -> Finding:
    _, findings = verify([v], "metric", record(*steps), context())
    (only,) = findings
    return only
