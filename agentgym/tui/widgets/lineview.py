# SPDX-License-Identifier: Apache-2.0
"""The base of all long things here: lines drawn on request, with a cursor, keys and mouse. Never more than a screenful."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from agentgym.tui.widgets.paint import Line, Painter


class LineView(Painter, ScrollView, can_focus=True, inherit_bindings=False):
    """Lines 0 to `count` - 1 and a cursor on one of them; `line` draws one. `head` lines stay on top."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("pagedown,space,ctrl+f", "page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("ctrl+d", "half(1)", "Half a page down", show=False),
        Binding("ctrl+u", "half(-1)", "Half a page up", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("enter", "open", "Open", show=True),
    ]

    head = 0
    """Lines at the top that do not scroll."""
    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor stands elsewhere."""

        def __init__(self, view: LineView, index: int) -> None:
            super().__init__()
            self.view = view
            self.index = index

        @property
        def control(self) -> LineView:
            """Whose cursor it is."""
            return self.view

    class Opened(Message):
        """The line under the cursor was chosen, with Enter or the mouse."""

        def __init__(self, view: LineView, index: int) -> None:
            super().__init__()
            self.view = view
            self.index = index

        @property
        def control(self) -> LineView:
            """Whose line it is."""
            return self.view

    # -- for subclasses -----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def line(self, index: int, width: int) -> Line:
        """Line ``index``, for ``width`` cells."""
        raise NotImplementedError

    def head_line(self, index: int, width: int) -> Line:
        """One of the lines on top."""
        return []

    def head_clicked(self, x: int) -> None:
        """The lines on top were clicked in this column."""

    def under(self, index: int) -> str:
        """Name of the style that lies under a line: the cursor's, or none."""
        if index != self.cursor:
            return ""
        return "cursor" if self.has_focus else "here"

    def refit(self) -> None:
        """To be called when `count` or what is shown has changed: sizes follow, the cursor stays in range."""
        size = Size(self.scrollable_content_region.width, self.count + self.head)
        if self.styles.auto_dimensions:
            self.virtual_size = size
        else:
            # only the scrollbar depends on it: to lay the whole screen out again would paint it twice
            self.set_reactive(LineView.virtual_size, size)
            self._scroll_update(size)
        cursor = max(0, min(self.cursor, self.count - 1))
        if cursor != self.cursor:
            self.cursor = cursor
        self.refresh()

    # -- drawing ------------------------------------------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        """Lines that scroll and are in view."""
        return max(1, self.scrollable_content_region.height - self.head)

    @property
    def top(self) -> int:
        """The first line in view."""
        return int(self.scroll_offset.y)

    def render_line(self, y: int) -> Strip:
        """Line ``y`` of the screen."""
        width = self.scrollable_content_region.width
        if y < self.head:
            return self.paint(self.head_line(y, width), width, under="head")
        index = self.top + y - self.head
        if index >= self.count:
            return self.paint([], width)
        return self.paint(self.line(index, width), width, under=self.under(index))

    def on_focus(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_resize(self) -> None:
        """Another width means other lines."""
        self.refit()
        self.show_cursor()

    # -- moving -------------------------------------------------------------------------------------------------------

    def validate_cursor(self, cursor: int) -> int:
        """In range."""
        return max(0, min(cursor, self.count - 1))

    def watch_cursor(self, old: int, new: int) -> None:
        """Follows the cursor and says where it is."""
        top = self.top
        self.show_cursor()
        if self.top == top:
            self.refresh_lines(old + self.head)
            self.refresh_lines(new + self.head)
        self.post_message(self.Moved(self, new))

    def show_cursor(self) -> None:
        """Scrolls just as far as needed to have the cursor in view."""
        if self.cursor < self.top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= self.top + self.page_size:
            self.scroll_to(y=self.cursor - self.page_size + 1, animate=False, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The wheel and the scrollbar take the cursor with them."""
        super().watch_scroll_y(old_value, new_value)
        top = int(self.scroll_offset.y)
        if self.cursor < top:
            self.cursor = top
        elif self.cursor >= top + self.page_size:
            self.cursor = top + self.page_size - 1

    def action_move(self, lines: int) -> None:
        """Moves the cursor."""
        self.cursor += lines

    def action_page(self, pages: int) -> None:
        """Moves cursor and view by a screenful."""
        self._jump(pages * self.page_size)

    def action_half(self, pages: int) -> None:
        """Moves cursor and view by half a screenful."""
        self._jump(pages * max(1, self.page_size // 2))

    def _jump(self, lines: int) -> None:
        cursor = self.validate_cursor(self.cursor + lines)
        self.scroll_to(y=self.top + lines, animate=False, force=True)
        self.cursor = cursor

    def action_first(self) -> None:
        """To the first line."""
        self.cursor = 0

    def action_last(self) -> None:
        """To the last line."""
        self.cursor = self.count - 1

    def action_open(self) -> None:
        """Chooses the line under the cursor."""
        if self.count:
            self.post_message(self.Opened(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Puts the cursor where was clicked; a click on the line under the cursor chooses it."""
        offset = event.get_content_offset_capture(self)
        if offset.y < self.head:
            self.head_clicked(offset.x)
            return
        index = self.top + offset.y - self.head
        if index >= self.count:
            return
        if index == self.cursor:
            self.action_open()
        else:
            self.cursor = index
