# SPDX-License-Identifier: Apache-2.0
"""An episode for somebody who is to judge it: what was said and done, and nothing of who did it or what it was worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agentgym.chat import ImagePart, Message, ReasoningPart
from agentgym.records.labels import Note
from agentgym.trajectory import Trajectory
from agentgym.tui.document import END, Block, Document, Rule
from agentgym.tui.marks import BAD, GOOD
from agentgym.tui.widgets.paint import Line, Piece

_FOLDS = {"system": 4, "user": 16, "assistant": 40, "tool": 10, "thinks": 8}
"""Lines shown of a block of each kind before it is folded."""

_SIGNS = {"add": "+", "remove": "-", "replace": "±"}


def blind(trajectory: Trajectory, notes: Iterable[Note] = (), parts: int | None = None) -> Document:
    """Opening, turns and end, without model, rewards, scores, findings, tokens or times.

    Args:
        trajectory: what happened.
        notes: what the reader wrote about it.
        parts: the first turn in which it differs from the other one, marked as such; None if none does.
    """
    by_turn: dict[int | None, list[Note]] = {}
    for note in notes:
        by_turn.setdefault(note.turn, []).append(note)
    blocks: list[Block] = []
    for m in trajectory.opening:
        blocks += message_blocks(m, -1)
    for turn in trajectory.turns:
        facts: Line = [("they part here", "accent")] if turn.index == parts else []
        blocks.append(Rule((f"turn {turn.index}", "strong"), facts, turn=turn.index))
        blocks += message_blocks(turn.message, turn.index)
        results = {r.call_id: r for r in turn.results}
        for m in turn.observation:
            result = results.get(m.tool_call_id or "") if m.role == "tool" else None
            if result is None:
                blocks += message_blocks(m, turn.index)
                continue
            ok = result.status == "ok"
            label: Piece = (f"{GOOD if ok else BAD} {result.name}", "tool" if ok else "bad")
            blocks.append(Block(label, m.text, turn=turn.index, fold=_FOLDS["tool"]))
        for c in turn.changes:
            was = "" if c.operation == "add" else f"{_json(c.before)} → "
            blocks.append(
                Block((f"{_SIGNS[c.operation]} state", "state"), f"{c.path}  {was}{_json(c.after)}", turn=turn.index, fold=4)
            )
        blocks += [_note(n, turn.index) for n in by_turn.get(turn.index, ())]
    n = len(trajectory.turns)
    cut = f"cut by limit: {trajectory.truncation} " if trajectory.outcome == "truncated" else ""
    blocks.append(Rule(("end", "strong"), [(f"{cut}after {n} turn{'s' * (n != 1)}", "muted")], turn=END))
    blocks += [_note(note, END) for note in by_turn.get(None, ())]
    return Document(blocks)


def _note(note: Note, turn: int) -> Block:
    return Block(("your note", "accent"), note.text, "accent", turn=turn, fold=6)


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        return repr(value)


def message_blocks(message: Message, turn: int) -> Iterable[Block]:
    """A message: reasoning, words, images, calls; the label stands at the first of them."""
    role = message.role
    label: Piece = (role, role)
    content: Sequence[object] = (message.content,) if isinstance(message.content, str) else message.content
    for part in content:
        if isinstance(part, ReasoningPart):
            yield Block(("thinks", "thinks"), part.text, "thinks", turn=turn, fold=_FOLDS["thinks"])
            continue
        if isinstance(part, ImagePart):
            text = f"[image {part.mime}, {len(part.data):,} bytes]"
        else:
            text = part if isinstance(part, str) else getattr(part, "text", "")
        if text:
            yield Block(label, text, turn=turn, fold=_FOLDS[role])
            label = ("", "")
    for c in message.tool_calls:
        yield Block(label, f"→ {c.name}({c.arguments})", "strong", turn=turn, fold=_FOLDS["tool"])
        label = ("", "")
    if label[0] and not any(isinstance(p, ReasoningPart) for p in content):
        yield Block(label, "(nothing)", "muted", turn=turn)


def parting(a: Trajectory, b: Trajectory) -> int | None:
    """The first turn in which two trials of a task say different things; None where they say the same to the end.

    Numbers of calls tell nothing and are not compared; what tools answered is: a trial that was told something else is
    another trial.
    """
    if [_plain(m) for m in a.opening] != [_plain(m) for m in b.opening]:
        return 0
    for s, t in zip(a.turns, b.turns, strict=False):
        if [_plain(m) for m in (s.message, *s.observation)] != [_plain(m) for m in (t.message, *t.observation)]:
            return s.index
    return None if len(a.turns) == len(b.turns) else min(len(a.turns), len(b.turns))


def _plain(message: Message) -> tuple[object, ...]:
    calls = tuple((c.name, c.arguments) for c in message.tool_calls)
    return message.role, message.content, calls
