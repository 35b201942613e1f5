# SPDX-License-Identifier: Apache-2.0
"""Two trajectories or more beside each other, act by act: where they first part, and what only one of them did.

An act is a tool call (its name and its arguments) or something said. Reasoning is none: it changes nothing. Acts are aligned by
a longest common subsequence, after the prefix that all share; what that leaves between two common acts is aligned once more by
name alone, so that a call stands beside the same call with other arguments. What is left then was done by one side only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from agentgym.trajectory import Trajectory

T = TypeVar("T")


class Act(NamedTuple):
    """One thing that an agent did."""

    turn: int
    """Index of its turn."""
    name: str
    """The tool's; empty for what was said."""
    text: str
    """The call's arguments as they were written, or the words."""
    result: str
    """What the environment answered to the call; empty for words."""
    key: Hashable
    """What makes two acts the same: name and arguments (whatever their order and blanks), or the words (whatever their
    blanks)."""

    @property
    def kind(self) -> Hashable:
        """What makes two acts comparable: the tool, or that both are words."""
        return self.name


def acts(trajectory: Trajectory) -> list[Act]:
    """What an agent did, in order: of each turn its words, if any, then its calls."""
    found: list[Act] = []
    for turn in trajectory.turns:
        words = turn.message.text
        if words.strip():
            found.append(Act(turn.index, "", words, "", ("", " ".join(words.split()))))
        answers = {m.tool_call_id: m.text for m in turn.observation if m.role == "tool"}
        for call in turn.message.tool_calls:
            answer = answers.get(call.id, "")
            found.append(Act(turn.index, call.name, call.arguments, answer, (call.name, _same_arguments(call.arguments))))
    return found


def _same_arguments(text: str) -> bytes:
    """JSON with its keys in order and without blanks; what is not JSON, as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="deterministic")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text.encode("utf-8", "surrogatepass")


class Row(NamedTuple):
    """Acts that stand beside each other, one a side; None where a side did none."""

    cells: tuple[Act | None, ...]

    @property
    def status(self) -> Literal["same", "answer", "differs", "only"]:
        """``same``: all did it; ``answer``: all did it, and were answered differently; ``differs``: the same tool with other
        arguments, or other words; ``only``: not all did it."""
        known = [c for c in self.cells if c is not None]
        if len({c.key for c in known}) > 1:
            return "differs"
        if len(known) < len(self.cells):
            return "only"
        return "same" if len({c.result for c in known}) == 1 else "answer"


class Aligned(NamedTuple):
    """Trajectories beside each other."""

    rows: tuple[Row, ...]
    prefix: int
    """Rows at the start in which all did the same and were answered the same."""


def align(*sides: Sequence[Act]) -> Aligned:
    """Aligns the acts of two sides or more. Each side's acts keep their order, and none is lost.

    More than two are aligned one after the other with the rows so far, which for twins that share most acts is as good as
    aligning all at once, whose cost grows with the product of their lengths.
    """
    width = len(sides)
    shared = 0
    while all(len(s) > shared for s in sides) and len({s[shared].key for s in sides}) == 1:
        shared += 1
    rows = [Row(tuple(s[i] for s in sides)) for i in range(shared)] if width else []
    rest: list[Row] = []
    for column, side in enumerate(sides):
        mine = [_alone(act, column, width) for act in side[shared:]]
        rest = _merge(rest, mine, _key)
    rows += _by_kind(rest)
    prefix = 0
    while prefix < len(rows) and rows[prefix].status == "same":
        prefix += 1
    return Aligned(tuple(rows), prefix)


def _alone(act: Act, column: int, width: int) -> Row:
    return Row(tuple(act if i == column else None for i in range(width)))


def _key(row: Row) -> Hashable:
    return next(c.key for c in row.cells if c is not None)


def _kind(row: Row) -> Hashable:
    return next(c.kind for c in row.cells if c is not None)


def _merge(rows: Sequence[Row], more: Sequence[Row], by: Callable[[Row], Hashable]) -> list[Row]:
    """Both in order, rows that are equal ``by`` the key made one; they must lie in different columns."""
    result: list[Row] = []
    i = j = 0
    for a, b in [*common([by(r) for r in rows], [by(r) for r in more]), (len(rows), len(more))]:
        result += rows[i:a]
        result += more[j:b]
        if a < len(rows):
            result.append(Row(tuple(x if x is not None else y for x, y in zip(rows[a].cells, more[b].cells, strict=True))))
        i, j = a + 1, b + 1
    return result


def _by_kind(rows: Sequence[Row]) -> list[Row]:
    """Between rows in which all did the same: puts calls of one tool beside each other, whatever their arguments."""
    result: list[Row] = []
    block: list[Row] = []
    for row in [*rows, None]:
        if row is not None and None in row.cells:
            block.append(row)
            continue
        result += _pair(block)
        block = []
        if row is not None:
            result.append(row)
    return result


def _pair(block: Sequence[Row]) -> list[Row]:
    """Rows of a block that share no column and no column's order, merged by kind: one set of columns after the other."""
    by_columns: dict[tuple[bool, ...], list[Row]] = {}
    for row in block:
        by_columns.setdefault(tuple(c is not None for c in row.cells), []).append(row)
    single = all(sum(columns) == 1 for columns in by_columns)
    if not single:  # acts that two of three share hold the block together; each of the others has its place between them
        return list(block)
    merged: list[Row] = []
    for rows in by_columns.values():
        merged = _merge(merged, rows, _kind)
    return merged


def common(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Places of a longest common subsequence: pairs (i, j) with ``a[i] == b[j]``, both rising.

    One bit an element of ``a``, one addition an element of ``b``: Hyyrö (2004), "Bit-parallel LCS-length computation
    revisited"; the rows that are kept, len(a) * len(b) / 8 bytes, give the way back. Thousands of acts are no burden.

    >>> common("abcd", "xbyd")
    [(1, 1), (3, 3)]
    """
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    places: dict[Hashable, int] = {}
    for i, element in enumerate(a[start:]):
        places[element] = places.get(element, 0) | 1 << i
    everything = (1 << (len(a) - start)) - 1
    state = everything
    states: list[int] = []
    for element in b[start:]:
        hit = state & places.get(element, 0)
        state = ((state + hit) | (state - hit)) & everything
        states.append(state)
    found: list[tuple[int, int]] = []
    i, j = len(a) - start, len(b) - start
    while i and j:
        if states[j - 1] >> (i - 1) & 1:
            i -= 1
            continue
        j -= 1
        if j and not states[j - 1] >> (i - 1) & 1:
            continue
        i -= 1
        found.append((start + i, start + j))
    return [(k, k) for k in range(start)] + found[::-1]


def differing(texts: Sequence[str]) -> list[str]:
    """Of each text the lines that not all have: what was changed in a task's opening, say.

    >>> differing(["Pay Ann.\\nThe key is under the mat.", "Pay Ann."])
    ['The key is under the mat.', '']
    """
    lines = [t.split("\n") for t in texts]
    shared = list(lines[0]) if lines else []
    for other in lines[1:]:
        shared = [shared[i] for i, _ in common(shared, other)]
    result = []
    for own in lines:
        kept = {j for _, j in common(shared, own)}
        result.append("\n".join(line for j, line in enumerate(own) if j not in kept).strip("\n"))
    return result


CONTEXT = 4
"""Words that an excerpt keeps on either side of what differs."""


def excerpts(texts: Sequence[str]) -> list[str]:
    """Of each text what tells it from the others: its own lines, without the words with which they all begin or end.

    >>> excerpts(["one two three four five six SEVEN", "one two three four five six 7"])
    ['… three four five six SEVEN', '… three four five six 7']
    """
    own = differing(texts)
    if len(own) < 2 or not all(own):
        return own
    words = [t.split(" ") for t in own]
    least = min(len(w) for w in words)
    front = next((i for i in range(least) if len({w[i] for w in words}) > 1), least)
    back = next((i for i in range(least - front) if len({w[-1 - i] for w in words}) > 1), least - front)
    skip, drop = max(0, front - CONTEXT), max(0, back - CONTEXT)
    return ["… " * (skip > 1) + " ".join(w[skip if skip > 1 else 0 : len(w) - drop]) + " …" * (drop > 0) for w in words]
