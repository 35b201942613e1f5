# SPDX-License-Identifier: Apache-2.0
"""JSON as a tree whose objects and lists open and close; every word and number stays as it was written."""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym.tui.document import LABEL, WIDE, WIDE_LABEL, Block
from agentgym.tui.widgets.paint import Line, Piece
from agentgym.tui.wrap import wrap

LONGEST = 1 << 20
"""Characters of a JSON text that is made a tree; a longer one is shown as it was written."""


def indented(text: str) -> str | None:
    """JSON text over several lines; None where it is none, or too long to look into."""
    if len(text) > LONGEST or text[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


class Tree(Block):
    """Indented JSON; lines that open an object or a list close and open it. Deep ones are closed first where it is long.

    Args:
        label: see `Block`.
        before: what stands in front of the first line, e.g. the name of a tool.
        json: what `indented` made.
        after: what stands behind the last line.
        style: of all of it.
        options: of `Block`.
    """

    __slots__ = ("after", "closed", "ends", "places", "source")

    def __init__(self, label: Piece, before: str, json: str, after: str, style: str = "", **options: Any) -> None:
        super().__init__(label, f"{before}{json}{after}", style, **options)
        self.source = self.text.split("\n")
        self.ends = _ends(self.source, json.split("\n"))
        self.closed: set[int] = set()
        self.places: list[int] = []
        """Of each line shown the one of the source that it is of."""
        self._close_deep()

    def _close_deep(self) -> None:
        """Closes the deepest levels, as many as it takes to need no fold; never the outermost one."""
        self.closed = set()
        if self.fold is None or len(self.source) <= self.fold + 2:
            return
        depth_of: dict[int, int] = {}
        inside: list[int] = []
        for start, end in sorted(self.ends.items()):
            while inside and inside[-1] < start:
                inside.pop()
            depth_of[start] = len(inside)
            inside.append(end)
        for depth in range(max(depth_of.values(), default=0), 0, -1):
            self.closed = {start for start, d in depth_of.items() if d >= depth}
            if self._seen() <= self.fold + 2:
                return

    def _seen(self) -> int:
        """Lines of the source that are not inside of something closed."""
        count = at = 0
        while at < len(self.source):
            at = self.ends[at] + 1 if at in self.closed else at + 1
            count += 1
        return count

    def layout(self, width: int) -> int:
        """Cuts the open lines for this width, no more of them than are shown."""
        if width != self.width:
            room = width - (WIDE_LABEL if width >= WIDE else LABEL) - 5
            most = None if self.fold is None or self.opened else self.fold + 2
            lines: list[Line] = []
            places: list[int] = []
            at = 0
            while at < len(self.source) and (most is None or len(lines) <= most):
                text, sign, here = self.source[at], "  ", at
                if at in self.ends:
                    sign = "▸ " if at in self.closed else "▾ "
                if at in self.closed:
                    hidden = self.ends[at] - at - 1
                    text = f"{text} … {self.source[self.ends[at]].lstrip()}   ({hidden} line{'s' * (hidden != 1)})"
                    at = self.ends[at]
                for i, part in enumerate(wrap(text, room)[0]):
                    lines.append([(sign if i == 0 else "  ", "link"), (part, self.style)])
                    places.append(here)
                at += 1
            self.more = most is not None and len(lines) > most
            if self.more and self.fold is not None:
                del lines[self.fold :]
            self.lines, self.places, self.width = lines, places, width
        return len(self.lines) + (self.more or (self.opened and self.fold is not None))

    def toggle(self) -> bool:
        """Opens everything, or closes it as it was at first."""
        if not super().toggle():
            if not self.closed and not self.opened:
                return False
            self.opened, self.width = True, 0
        if self.opened:
            self.closed = set()
        else:
            self._close_deep()
        return True

    def toggle_at(self, line: int) -> bool:
        """Opens or closes what begins on a line of it; below its last line, and elsewhere, all of it."""
        if line < len(self.lines) and (place := self.places[line]) in self.ends:
            self.closed ^= {place}
            self.width = 0
            return True
        return line >= len(self.lines) and self.toggle()


def _ends(source: list[str], json: list[str]) -> dict[int, int]:
    """Of each line that opens something the one that closes it; of indented JSON no other line ends or begins like that."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    first = len(source) - len(json)
    for i, line in enumerate(json, first):
        if line.lstrip()[:1] in ("}", "]") and opened:
            ends[opened.pop()] = i
        if line[-1:] in ("{", "["):
            opened.append(i)
    return ends
