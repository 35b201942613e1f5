# SPDX-License-Identifier: Apache-2.0
"""A document to read: its lines drawn on request, folds that open, a cursor that says where one is."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from agentgym.tui.document import Document
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line


class Reader(LineView):
    """Shows a `Document`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "open", "Open or close a fold", show=False)]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.document = Document([])

    def show(self, document: Document, line: int = 0) -> None:
        """Shows another document, from its top or from a line."""
        self.document = document
        self.refit()
        self.scroll_to(y=line, animate=False, force=True)
        self.cursor = line
        self.post_message(self.Moved(self, self.cursor))

    @property
    def count(self) -> int:
        """Lines."""
        return len(self.document)

    def refit(self) -> None:
        """Lays the document out for the present width; the cursor stays in its block."""
        block, offset = self.document.at(self.cursor) if self.count else (None, 0)
        self.document.layout(self.scrollable_content_region.width)
        super().refit()
        if block is not None and block in self.document.blocks:
            start = self.document.line_of(block)
            self.cursor = start + min(offset, max(0, block.layout(self.scrollable_content_region.width) - 1))

    def line(self, index: int, width: int) -> Line:
        """One line of the document."""
        block, offset = self.document.at(index)
        return block.line(offset, width)

    def under(self, index: int) -> str:
        """The cursor is of use only where one is reading."""
        return super().under(index) if self.has_focus else ""

    def go(self, line: int) -> None:
        """Puts the cursor on a line, and that line at the top as far as the end allows."""
        self.scroll_to(y=line, animate=False, force=True)
        self.cursor = line

    def action_open(self) -> None:
        """Opens or closes the fold under the cursor."""
        if not self.count:
            return
        block, offset = self.document.at(self.cursor)
        opened = block.opened
        if block.toggle_at(offset):
            if opened and not block.opened:
                self.cursor = self.document.line_of(block)
            self.refit()
