# SPDX-License-Identifier: Apache-2.0
"""What the three levels (runs, episodes, replay) have in common: the line at the top, and the way up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen

from agentgym.report.text import one_line
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.paint import Line

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer


class Level(Screen[None]):
    """A screen with a `Bar` of id ``crumbs`` that names the levels above."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "leave", "Up a level", show=False),
    ]

    @property
    def viewer(self) -> Viewer:
        """The application."""
        return cast("Viewer", self.app)

    depth: ClassVar[int] = 0
    """How many levels are above."""

    def _on_timer_update(self) -> None:
        """Paints once where Textual would paint twice: where a layout and a repaint of all are due together."""
        if getattr(self, "_layout_required", False) and getattr(self, "_repaint_required", False):
            self._repaint_required = False
            self._dirty_widgets.add(self)  # what the layout paints is then everything
        super()._on_timer_update()

    def show_crumbs(self, crumbs: list[str], right: Line | None = None) -> None:
        """Shows where one is: ``agentgym > RUN > EPISODE``. Levels above can be clicked."""
        line: Line = []
        targets: list[str] = []
        names = ["agentgym", *crumbs]
        for i, name in enumerate(names):
            last = i == len(names) - 1
            if i:
                line.append((" > ", "muted"))
                targets.append("")
            line.append((one_line(name, 200), "strong" if last else "accent"))
            targets.append("" if last else str(i))
        self.query_one("#crumbs", Bar).show(line, right, targets)

    def on_bar_clicked(self, message: Bar.Clicked) -> None:
        """A level above was clicked."""
        if message.bar.id == "crumbs":
            message.stop()
            for _ in range(self.depth - int(message.target)):
                self.viewer.action_up()

    def action_leave(self) -> None:
        """One level up."""
        self.viewer.action_up()


def short(path: Path) -> str:
    """A run's name for a narrow screen: without the date and time, which its random end makes up for.

    >>> short(Path("runs/2026-11-22T14-03-quickstart-k3fa"))
    'quickstart-k3fa'
    """
    import re

    return re.sub(r"^\d{4}-\d\d-\d\dT\d\d-\d\d-", "", path.name) or path.name
