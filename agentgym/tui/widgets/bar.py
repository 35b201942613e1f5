# SPDX-License-Identifier: Apache-2.0
"""One line of the screen with text at both ends; parts of it can be clicked."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from agentgym.tui.widgets.paint import Line, Painter, fit, width_of


class Bar(Painter, Widget):
    """A line with a left and a right end; where both do not fit, the left one is cut."""

    class Clicked(Message):
        """A piece was clicked that was given a target."""

        def __init__(self, bar: Bar, target: str) -> None:
            super().__init__()
            self.bar = bar
            self.target = target

        @property
        def control(self) -> Bar:
            """Whose piece it was."""
            return self.bar

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Line = []
        self._right: Line = []
        self._targets: list[str] = []

    def show(self, left: Line, right: Line | None = None, targets: list[str] | None = None) -> None:
        """Replaces what is shown.

        Args:
            left: pieces from the left.
            right: pieces that end at the right.
            targets: one a left piece; what `Clicked` says when it is clicked, empty for nothing.
        """
        if (left, right or []) == (self._left, self._right):
            return
        self._left, self._right, self._targets = left, right or [], targets or []
        self.refresh()

    @property
    def text(self) -> str:
        """What is shown, both ends, for tests and screen readers."""
        return "".join(t for t, _ in [*self._left, (" ", ""), *self._right])

    def render_line(self, y: int) -> Strip:
        """The line."""
        width = self.size.width
        if y:
            return self.paint([], width)
        room = width - width_of(self._right) - (1 if self._right else 0)
        line: Line = []
        for text, name in self._left:
            size = width_of([(text, name)])
            if size > room:
                line.append((fit(text, room), name))
                room = 0
                break
            line.append((text, name))
            room -= size
        if self._right:
            line += [(" " * (room + 1), ""), *self._right]
        return self.paint(line, width)

    def on_click(self, event: events.Click) -> None:
        """Says which piece was meant."""
        at = 0
        for (text, _), target in zip(self._left, self._targets, strict=False):
            at += width_of([(text, "")])
            if event.get_content_offset_capture(self).x < at:
                if target:
                    event.stop()
                    self.post_message(self.Clicked(self, target))
                return
