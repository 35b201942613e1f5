# SPDX-License-Identifier: Apache-2.0
"""The line of keys at the bottom: what can be pressed now, and clicked.

Textual's own footer is a widget for each key, made again with every screen and every change of focus: that was a third of
what opening a screen cost. This one is a single line, drawn from the same bindings.
"""

from __future__ import annotations

from typing import NamedTuple

from textual import events
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from agentgym.tui.widgets.paint import Line, Painter, width_of


class _Key(NamedTuple):
    """One key."""

    key: str
    """What pressing it sends."""
    shown: str
    """How it is written."""
    label: str
    """What it does, in a word."""
    tooltip: str
    """And in a sentence."""
    enabled: bool

    @property
    def width(self) -> int:
        """Cells, the blanks around both texts included."""
        return width_of([(self.shown, ""), (self.label, "")]) + 3


class Keys(Painter, Widget):
    """The keys of the screen it is on, those that lead to the palette at the right end.

    Keys that find no room are left out whole; the wheel brings them.
    """

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[_Key] | None = None
        """As they were when last asked for; None: to be asked for."""
        self._palette: _Key | None = None
        self._first = 0
        """The first one shown."""
        self._hovered: _Key | None = None
        self._places: list[tuple[int, int, _Key]] = []
        """First column, column after the last, key."""

    def on_mount(self) -> None:
        """Follows the bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        """No longer."""
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _changed(self, screen: Screen[object]) -> None:
        if screen is self.screen:
            self._keys = None
            self.refresh()

    def _ask(self) -> list[_Key]:
        """The keys of the screen, one for each action."""
        active = self.screen.active_bindings
        found: dict[str, _Key] = {}
        palette = self.app.COMMAND_PALETTE_BINDING
        self._palette = None
        for name, (_, binding, enabled, tooltip) in active.items():
            key = _Key(binding.key, self.app.get_key_display(binding), binding.description, tooltip, enabled)
            if name == palette:
                self._palette = key
            elif binding.show:
                found.setdefault(binding.action, key)
        return list(found.values())

    def render_line(self, y: int) -> Strip:
        """The line."""
        width = self.size.width
        if y:
            return self.paint([], width)
        if self._keys is None:
            self._keys = self._ask()
            self._first = 0
        at, self._places, strips = 0, [], []
        end = width - (0 if self._palette is None else self._palette.width)
        for key in self._keys[self._first :]:
            if at + key.width > end:
                break
            strips.append(self._draw(key, at))
            at += key.width
        strips.append(self.paint([], max(0, end - at)))
        if self._palette is not None:
            strips.append(self._draw(self._palette, end))
        return Strip.join(strips).adjust_cell_length(width, self.look(""))

    def _draw(self, key: _Key, at: int) -> Strip:
        self._places.append((at, at + key.width, key))
        shown, label = ("key", "") if key.enabled else ("muted", "muted")
        front = ("▏", "rule") if key is self._palette else (" ", "")
        line: Line = [front, (key.shown, shown), (f" {key.label} ", label)]
        return self.paint(line, key.width, under="here" if key is self._hovered else "")

    def _under(self, x: int) -> _Key | None:
        return next((key for start, stop, key in self._places if start <= x < stop), None)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """The key under the mouse stands out and says more of itself."""
        self._hover(self._under(event.x))

    def on_leave(self) -> None:
        """None does."""
        self._hover(None)

    def _hover(self, key: _Key | None) -> None:
        if key is not self._hovered:
            self._hovered = key
            self.tooltip = key.tooltip or None if key is not None else None
            self.refresh()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """A click on a key presses it."""
        key = self._under(event.x)
        if key is None:
            return
        if key.enabled:
            self.app.simulate_key(key.key)
        else:
            self.app.bell()

    def on_mouse_scroll_down(self) -> None:
        """To the keys that found no room."""
        self._scroll(1)

    def on_mouse_scroll_up(self) -> None:
        """Back."""
        self._scroll(-1)

    def _scroll(self, by: int) -> None:
        shown = sum(1 for _, _, key in self._places if key is not self._palette)
        hidden = len(self._keys or ()) - self._first - shown
        self._first = max(0, self._first + min(by, hidden))
        self.refresh()
