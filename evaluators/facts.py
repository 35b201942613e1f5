# SPDX-License-Identifier: Apache-2.0
"""An episode as a sequence of facts, one after the other, each of them what one party did or what was noticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.evaluators.state import canonical_state
from agentgym.trajectory import StateChange, Trajectory

Kind = Literal["said", "call", "change", "event", "heard", "end"]


class Fact(msgspec.Struct, eq=False):
    """One thing that happened. Fields that its kind does not have are empty."""

    kind: Kind
    """``said``: words of the agent; ``call``: a tool call and how it went; ``change``: of the state; ``event``: see
    `agentgym.trajectory.Event`; ``heard``: a message to the agent; ``end``: of the episode, once."""
    turn: int
    """In which it happened; -1: in the opening."""
    name: str = ""
    """Of a tool (of calls, their changes, and what they showed); of an event: its kind; of the end: the outcome."""
    text: str = ""
    """Words; of a call: the argument text; of a change: its path; of an event: its resource."""
    role: str = ""
    """Of what was heard: ``system``, ``user`` or ``tool``."""
    status: str = ""
    """Of a call: ``ok``, or how it was refused."""
    asked: str = ""
    """Of the user's first message of a turn: the agent's words that it answers."""
    data: Any = None
    """Of a change the `StateChange`, of an event its data."""
    version: int = 0
    """Changes of the state before this fact: two facts of one version saw the same state."""
    _arguments: dict[str, Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """A call's arguments, strictly read; empty where they cannot be, and for other facts."""
        if self._arguments is None:
            try:
                self._arguments = parse_arguments(self.text) if self.kind == "call" else {}
            except ArgumentError:
                self._arguments = {}
        return self._arguments

    def values(self, names: tuple[str, ...]) -> bytes | None:
        """The values of these arguments as one key; None where the call has not all of them."""
        arguments = self.arguments
        if not all(n in arguments for n in names):
            return None
        return canonical_state([arguments[n] for n in names])


def facts(trajectory: Trajectory) -> Iterator[Fact]:
    """The facts of an episode, in the order in which they came about.

    The opening; then of each turn: what the agent said, its calls in order, each with the changes it made, changes
    that the environment made by itself, events, and what the agent was told. Last of all the end.
    """
    version = 0
    for m in trajectory.opening:
        yield Fact("heard", -1, m.name or "", m.text, m.role)
    for turn in trajectory.turns:
        index = turn.index
        words = turn.message.text
        if words:
            yield Fact("said", index, "", words, version=version)
        changes = turn.changes
        results = turn.results
        for call, result in zip(turn.message.tool_calls, results, strict=False):
            yield Fact("call", index, result.name, call.arguments, "", result.status, version=version)
            for c in changes:
                if c.call_id == result.call_id and c.call_id:
                    yield _changed(c, index, result.name, version)
                    version += 1
        if changes:
            ids = {r.call_id for r in results}
            for c in changes:
                if not c.call_id or c.call_id not in ids:
                    yield _changed(c, index, "", version)
                    version += 1
        for e in turn.events:
            yield Fact("event", index, e.kind, e.resource, data=e.data, version=version)
        asked = words
        for m in turn.observation:
            answers = m.role == "user"
            yield Fact("heard", index, m.name or "", m.text, m.role, "", asked if answers else "", version=version)
            if answers:
                asked = ""  # one answer to one question
    yield Fact("end", len(trajectory.turns) - 1, trajectory.outcome, version=version)


def _changed(change: StateChange, turn: int, name: str, version: int) -> Fact:
    return Fact("change", turn, name, change.path, data=change, version=version)
