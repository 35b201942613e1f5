# SPDX-License-Identifier: Apache-2.0
"""Every key of the screen below and what the marks mean; made from the bindings themselves, so it cannot be out of date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from agentgym.tui.marks import LEGEND
from agentgym.tui.widgets.lineview import LineView

_NAMES = {
    "question_mark": "?", "slash": "/", "right_square_bracket": "]", "left_square_bracket": "[", "pagedown": "PgDn",
    "pageup": "PgUp", "escape": "Esc", "backspace": "⌫", "enter": "Enter", "down": "↓", "up": "↑", "left": "←",
    "right": "→", "less_than_sign": "<", "greater_than_sign": ">", "home": "Home", "end": "End", "space": "Space", "tab": "Tab",
}  # fmt: skip


NOT_OURS = {
    "app.focus_next", "app.focus_previous", "screen.copy_text", "app.help_quit", "help_quit", "command_palette",
    "app.command_palette",
}  # fmt: skip
"""Textual's own, which are either of no use here or named at the edge of the screen."""


def key_name(key: str) -> str:
    """A key as it is written on keyboards.

    >>> key_name("ctrl+d"), key_name("question_mark")
    ('^d', '?')
    """
    return _NAMES.get(key, key.replace("ctrl+", "^"))


class HelpScreen(ModalScreen[None]):
    """The keys, over the screen they belong to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,backspace", "close", "Close"),
        Binding("down,j,space,pagedown", "scroll(4)", "Down", show=False),
        Binding("up,k,pageup", "scroll(-4)", "Up", show=False),
    ]

    def __init__(self, bindings: Mapping[str, ActiveBinding], of: str) -> None:
        super().__init__()
        self._active = dict(bindings)
        self._of = of

    def compose(self) -> ComposeResult:
        """Two columns: moving and marks, then what this screen can do."""
        moving: dict[str, list[str]] = {}
        here: dict[str, list[str]] = {}
        for key, active in self._active.items():
            binding = active.binding
            if binding.system or not binding.description or binding.action in NOT_OURS or key == "ctrl+q":
                continue
            place = moving if isinstance(active.node, LineView) else here
            place.setdefault(binding.tooltip or binding.description, []).append(key_name(key))
        marks = {str(mark): [meaning] for mark, meaning in LEGEND}
        with VerticalScroll(id="help") as box:
            box.border_title = f"{self._of}: keys"
            box.border_subtitle = "Esc closes · ^p all commands by name"
            with Horizontal(id="help-columns"):
                left = Group(_table("Moving", ((" ".join(k), d) for d, k in moving.items()), 13), Text())
                yield Static(Group(left, _table("Marks", ((m, w[0]) for m, w in marks.items()), 13)), id="help-left")
                yield Static(_table("Here", ((" ".join(k), d) for d, k in here.items()), 7), id="help-right")

    def action_close(self) -> None:
        """Back to the screen below."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Scrolls, where the screen is low."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)


def _table(title: str, rows: Iterable[tuple[str, str]], width: int) -> Group:
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(style="bold", width=width)
    table.add_column(ratio=1)
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return Group(Text(title, "bold underline"), table)
