# SPDX-License-Identifier: Apache-2.0
"""An episode as a document: blocks of lines with a label at their left, folded where they are long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any

from agentgym.tui.markdown import render
from agentgym.tui.widgets.paint import Line, Piece, fit, width_of
from agentgym.tui.wrap import wrap

LABEL = 10
"""Cells of the label column on narrow screens."""
WIDE_LABEL = 16
"""On wide ones, where whole tool names fit."""
WIDE = 90
"""Cells from which a document counts as wide."""
END = -2
"""`Block.turn` of what stands after the last turn."""
LONGEST = 1 << 22
"""Characters of one block that are shown when it is opened: some ten thousand screens; more would cost time and memory."""


class Block:
    """Some text with a label, in one style; part of the opening (turn -1), a turn, or the end.

    Args:
        label: what stands at its left, in front of its first line.
        text: anything; made safe where it is wrapped.
        style: of the text.
        turn: index of the turn it belongs to; -1 before the first, `END` after the last.
        fold: lines shown of a longer text until it is opened; None for all.
        alert: whether this is what `]` looks for.
        kind: what it is, for those who hide things of a kind; empty for what always stays.
    """

    __slots__ = ("alert", "fold", "kind", "label", "lines", "more", "opened", "style", "text", "turn", "width")

    def __init__(
        self,
        label: Piece,
        text: str,
        style: str = "",
        *,
        turn: int,
        fold: int | None = None,
        alert: bool = False,
        kind: str = "",
    ) -> None:
        self.label, self.text, self.style, self.turn, self.fold, self.alert = label, text, style, turn, fold, alert
        self.kind = kind
        self.opened = False
        self.width = 0
        self.lines: Sequence[str | Line] = ()
        self.more = False

    def layout(self, width: int) -> int:
        """Cuts the text for this width; returns how many lines that gives, the fold's own included."""
        if width != self.width:
            room = width - (WIDE_LABEL if width >= WIDE else LABEL) - 3
            if self.fold is None or self.opened:
                self.lines, _ = self.cut(self.text[:LONGEST], room, None)
                self.more = False
            else:
                # a fold that hides two lines would hide more than it saves
                self.lines, self.more = self.cut(self.text, room, self.fold + 2)
                if self.more:
                    self.lines = self.lines[: self.fold]
            self.width = width
        return len(self.lines) + (self.more or (self.opened and self.fold is not None))

    def cut(self, text: str, width: int, most: int | None) -> tuple[Sequence[str | Line], bool]:
        """Text as lines of at most ``width`` cells, at most so many of them, and whether there is more."""
        return wrap(text, width, most)

    def toggle(self) -> bool:
        """Opens or closes the fold; returns whether there is one."""
        if self.fold is None or not (self.more or self.opened):
            return False
        self.opened = not self.opened
        self.width = 0
        return True

    def line(self, index: int, width: int) -> Line:
        """One of its lines."""
        label = WIDE_LABEL if width >= WIDE else LABEL
        front: Line = [(" ", ""), (fit(self.label[0], label) + " ", self.label[1])] if index == 0 else [(" " * (label + 2), "")]
        if index < len(self.lines):
            line = self.lines[index]
            return [*front, (line, self.style)] if isinstance(line, str) else [*front, *line]
        if self.opened:
            cut = f"cut here: {len(self.text) - LONGEST:,} more characters" if len(self.text) > LONGEST else ""
            return [*front, ("▾ Enter folds this", "link"), *([(f"   {cut}", "warn")] if cut else [])]
        size = len(self.text)
        return [*front, (f"▸ Enter shows all of it ({size:,} characters)", "link")]


class Prose(Block):
    """Text that may be Markdown, and is shown as such unless it is ``raw``."""

    __slots__ = ("raw",)

    def __init__(self, label: Piece, text: str, style: str = "", **options: Any) -> None:
        super().__init__(label, text, style, **options)
        self.raw = False

    def cut(self, text: str, width: int, most: int | None) -> tuple[Sequence[str | Line], bool]:
        """See `Block.cut`."""
        return super().cut(text, width, most) if self.raw else render(text, width, self.style, most)

    def show_raw(self, raw: bool) -> None:
        """As it was written, or as Markdown."""
        if raw != self.raw:
            self.raw, self.width = raw, 0


class Rule(Block):
    """The line with which a turn begins: its name at the left, facts at the right."""

    __slots__ = ("facts", "name")

    def __init__(self, name: Piece, facts: Line, *, turn: int) -> None:
        super().__init__(("", ""), "", turn=turn)
        self.name, self.facts = name, facts

    def layout(self, width: int) -> int:
        """One line."""
        return 1

    def line(self, index: int, width: int) -> Line:
        """``── turn 3 ───────── reward +.25 ──``."""
        name: Piece = (f" {self.name[0]} ", self.name[1])
        facts: Line = [(" ", ""), *self.facts, (" ", "")] if self.facts else []
        rest = width - 3 - width_of([name]) - width_of(facts)
        if rest < 1:
            return [("─", "rule"), name, *facts]
        return [("─", "rule"), name, ("─" * rest, "rule"), *facts, ("──", "rule")] if facts else [
            ("─", "rule"), name, ("─" * (rest + 2), "rule")
        ]  # fmt: skip


class Document:
    """Blocks in order, laid out for a width."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.all = list(blocks)
        """Also those that are hidden."""
        self.blocks = self.all
        self._starts: list[int] = []
        self._count = 0

    def hide(self, kinds: Collection[str]) -> None:
        """Leaves out the blocks of some kinds, but never one that is an alert: whoever hides results still sees what failed.

        To be laid out again afterwards.
        """
        self.blocks = [b for b in self.all if b.alert or b.kind not in kinds] if kinds else self.all

    def layout(self, width: int) -> int:
        """Lays all blocks out; returns the number of lines."""
        self._starts = []
        at = 0
        for block in self.blocks:
            self._starts.append(at)
            at += block.layout(width)
        self._count = at
        return at

    def __len__(self) -> int:
        """Lines, as last laid out."""
        return self._count

    def at(self, line: int) -> tuple[Block, int]:
        """The block that a line belongs to, and the line's place in it."""
        i = max(0, bisect_right(self._starts, line) - 1)
        return self.blocks[i], line - self._starts[i]

    def line_of(self, block: Block) -> int:
        """The first line of a block."""
        return self._starts[self.blocks.index(block)]

    def start(self, turn: int) -> int:
        """The first line of a turn (-1: the opening, `END`: the end)."""
        for block, start in zip(self.blocks, self._starts, strict=True):
            if block.turn == turn:
                return start
        return 0

    def first_alert(self, turn: int) -> int:
        """The line in a turn that `]` goes to: its first block that is an alert, else its start."""
        for block, start in zip(self.blocks, self._starts, strict=True):
            if block.turn == turn and block.alert:
                return start
        return self.start(turn)
