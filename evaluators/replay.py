# SPDX-License-Identifier: Apache-2.0
"""The log of calls as the only way to a state: rebuilt from the log, it must be the state that was found.

An environment's live state could be reached another way: a tool that forgot to say that it writes, an object that leaked
into a Python tool, a database file within a sandbox's reach. A state that the log does not explain is never paid.

`play` is the same for a task's author: the gold actions are carried out when the task is loaded, must all succeed, and must
change what they are there to change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.errors import DefinitionError, ToolError
from agentgym.evaluators.made import made
from agentgym.evaluators.state import MOST_DIFFERENCES, canonical_state
from agentgym.scoring import Score, Verifier, VerifierContext
from agentgym.trajectory import StateChange, Trajectory, diff_state

Tools = Callable[[Any, str, dict[str, Any]], object]
"""``tools(state, name, arguments)``: carries out one call on a state of plain values, which it changes in place. It raises
`ToolError` to refuse, and must then have changed nothing."""


_copy = msgspec.to_builtins
"""Plain values that share no container with those given; many times as fast as `copy.deepcopy`."""


# -- gold -------------------------------------------------------------------------------------------------------------


def play(
    tools: Tools, state: Any, actions: Iterable[Mapping[str, Any]], *, writes: Collection[str] = (), where: str = "the gold"
) -> Any:
    """The state that a task's gold actions lead to; ``state`` itself stays as it was.

    Args:
        tools: what carries out a call.
        state: where they begin, as plain values.
        actions: mappings with ``name`` and ``arguments``.
        writes: tools that are there to change something: each of their calls must, and no other call may.
        where: what to call the task in an error.

    Raises:
        DefinitionError: an action is refused, fails, changes nothing where it should, or something where it should not.
    """
    state = _copy(state)
    for i, action in enumerate(actions):
        name, arguments = action["name"], dict(action["arguments"])
        before = canonical_state(state)
        told = f"{where}: its action {i}, {name}({', '.join(map(str, arguments))})"
        try:
            tools(state, name, _copy(arguments))
        except ToolError as e:
            raise DefinitionError(f"{told}, is refused: {e}") from e
        except Exception as e:
            raise DefinitionError(f"{told}, fails with {type(e).__name__}: {e}") from e
        changed = canonical_state(state) != before
        if changed != (name in writes):
            how = "changes the state, and its tool is not said to write" if changed else "changes nothing"
            raise DefinitionError(f"{told}, {how}")
    return state


# -- the record -------------------------------------------------------------------------------------------------------


def apply_changes(state: Any, changes: Iterable[StateChange]) -> Any:
    """``state`` with changes made to it, in order: the inverse of `diff_state`. ``state`` itself stays as it was.

    Raises:
        ValueError: a change does not fit: what it replaces or removes is not what is there.
    """
    return _apply(_copy(state), changes)


def _apply(state: Any, changes: Iterable[StateChange]) -> Any:
    """As `apply_changes`, in place where that can be."""
    root = {"": state}
    for change in changes:
        keys = ["", *(k.replace("~1", "/").replace("~0", "~") for k in change.path.split("/")[1:])]
        holder: Any = root
        for key in keys[:-1]:
            holder = _child(holder, key, change)
        _change(holder, keys[-1], change)
    return root[""]


def _child(holder: Any, key: str, change: StateChange) -> Any:
    try:
        return holder[int(key)] if isinstance(holder, list) else holder[key]
    except (LookupError, ValueError, TypeError):
        raise ValueError(f"there is nothing at {change.path}") from None


def _change(holder: Any, key: str, change: StateChange) -> None:
    after = _copy(change.after)
    if change.operation == "add":
        if isinstance(holder, list) and key == str(len(holder)):
            holder.append(after)
        elif isinstance(holder, dict) and key not in holder:
            holder[key] = after
        else:
            raise ValueError(f"nothing can be added at {change.path}")
        return
    if canonical_state(_child(holder, key, change)) != canonical_state(change.before):
        raise ValueError(f"what is at {change.path} is not what it was changed from")
    at: Any = int(key) if isinstance(holder, list) else key
    if change.operation == "replace":
        holder[at] = after
    elif isinstance(holder, list) and at != len(holder) - 1:
        raise ValueError(f"{change.path} is removed before what follows it")
    else:
        del holder[at]


def state_from_log(tools: Tools | None = None, *, environment: bool = True) -> Verifier:
    """1.0 where the end state is what the recorded calls lead to; else 0.0 with the difference.

    Put it among the gold verifiers of an environment whose state could be reached past its tools.

    - Without ``tools`` the recorded changes are made again, from the state at the beginning. Each has to belong to a call of
      its turn whose tool is said to write.
    - With ``tools`` the calls that went through are carried out again, from the text of their arguments, strictly read: a
      call that is refused now and went through then, or the other way round in its effect, shows as a difference.

    Flags: ``undeclared_write`` (a tool that is not said to write has written), ``stray_change`` (a change without a call),
    ``not_replayable`` (the log does not fit the state, or a call is refused), ``another_state``.

    Args:
        tools: what carries out a call; see `Tools`.
        environment: whether changes that the environment makes by itself, without a call, are part of the log: a
            simulated world that moves. False: every change needs a call.

    Raises:
        DefinitionError: in the verifier, so that the episode is unscorable: there is no state.
    """
    return made("state_from_log", _state_from_log, "agentgym.evaluators.state", tools=tools, environment=environment)


def _state_from_log(trajectory: Trajectory, context: VerifierContext, tools: Tools | None, environment: bool) -> Score:
    if trajectory.state_before is None or trajectory.state_after is None:
        raise DefinitionError(f"{context.task.id}: it needs a state")
    flags: list[str] = []
    for turn in trajectory.turns:
        if any(e.kind == "state.undeclared_write" for e in turn.events):
            flags.append("undeclared_write")
        writing = {r.call_id for r in turn.results if r.writes}
        if any(c.call_id not in writing if c.call_id else not environment for c in turn.changes):
            flags.append("stray_change")
    try:
        rebuilt = _rebuilt(trajectory, tools)
    except (ValueError, ToolError, ArgumentError) as e:
        reason = f"the log does not lead to the end state: {e}"
        return Score("state_from_log", value=0.0, reason=reason, flags=tuple(dict.fromkeys((*flags, "not_replayable"))))
    rows: list[dict[str, Any]] = []
    if canonical_state(rebuilt) != canonical_state(trajectory.state_after):
        flags.append("another_state")
        different: Sequence[StateChange] = diff_state(rebuilt, trajectory.state_after)
        rows = [{"path": c.path, "operation": c.operation, "log": c.before, "got": c.after} for c in different]
    flags = list(dict.fromkeys(flags))
    reason = _WHY.get(flags[-1], "") if flags else ""
    return Score("state_from_log", value=float(not flags), reason=reason, flags=tuple(flags), evidence=rows[:MOST_DIFFERENCES])


_WHY = {
    "undeclared_write": "a tool that is not said to write has written",
    "stray_change": "something changed without a call that may change it",
    "another_state": "the end state is not the one that the log leads to",
}


def _rebuilt(trajectory: Trajectory, tools: Tools | None) -> Any:
    if tools is None:
        return apply_changes(trajectory.state_before, (c for t in trajectory.turns for c in t.changes))
    state = _copy(trajectory.state_before)
    for turn in trajectory.turns:
        for call, result in zip(turn.message.tool_calls, turn.results, strict=False):
            if result.status == "ok":
                tools(state, result.name, parse_arguments(call.arguments))
        state = _apply(state, (c for c in turn.changes if not c.call_id))
    return state
