# SPDX-License-Identifier: Apache-2.0
"""Filters by name: pick one, give the present one a name, forget one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from agentgym.errors import RecordError
from agentgym.report.text import one_line
from agentgym.tui.saved import filters, save

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer


class FiltersMenu(ModalScreen["str | None"]):
    """Asks for a saved filter.

    Args:
        present: the filter that is in use; empty: none.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", "Back"),
        Binding("a", "add", "Save"),
        Binding("x,delete", "forget", "Forget"),
    ]
    CSS = """
    FiltersMenu { align: center middle; background: $background 60%; }
    FiltersMenu Vertical { width: 96%; max-width: 90; height: auto; max-height: 90%; }
    FiltersMenu Vertical { background: $surface; border: round $primary; }
    FiltersMenu OptionList { height: auto; max-height: 16; border: none; background: $surface; }
    FiltersMenu Input { display: none; }
    FiltersMenu.-naming Input { display: block; }
    """

    def __init__(self, present: str) -> None:
        super().__init__()
        self._present = present
        self._names: list[str] = []

    def compose(self) -> ComposeResult:
        """The list, and a line for a name."""
        with Vertical() as box:
            box.border_title = "Saved filters"
            save_it = f"a saves “{one_line(self._present, 30)}” · " if self._present else ""
            box.border_subtitle = f"{save_it}Enter takes · x forgets · Esc back"
            yield OptionList()
            yield Input(placeholder="a name for it; Enter saves, Esc leaves it", max_length=40)

    def on_mount(self) -> None:
        """Lists them."""
        self._fill()

    @property
    def menu(self) -> OptionList:
        """The list."""
        return self.query_one(OptionList)

    def _fill(self) -> None:
        known = filters()
        self._names = list(known)
        self.menu.clear_options()
        for name, text in known.items():
            self.menu.add_option(
                Option(Text(f"{one_line(name, 40)}  {one_line(text, 200)}", no_wrap=True, overflow="ellipsis"))
            )
        if not known:
            none = "none yet: / filters the list, then a in here gives the filter a name"
            self.menu.add_option(Option(none, disabled=True))
        else:
            self.menu.highlighted = 0
        self.menu.focus()

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """One was chosen."""
        self.dismiss(filters().get(self._names[message.option_index]))

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """It has a name."""
        name = message.value.strip()
        if name:
            self._save(name, self._present)
        self._named()

    def _save(self, name: str, text: str | None) -> None:
        try:
            save(name, text)
        except RecordError as e:
            cast("Viewer", self.app).say(str(e))
        self._fill()

    def _named(self) -> None:
        self.remove_class("-naming")
        self.query_one(Input).value = ""
        self.menu.focus()

    def action_add(self) -> None:
        """Asks for a name for the present filter."""
        if not self._present:
            self.app.bell()
            return
        self.add_class("-naming")
        self.query_one(Input).focus()

    def action_forget(self) -> None:
        """Forgets the one under the cursor."""
        place = self.menu.highlighted
        if place is not None and place < len(self._names):
            self._save(self._names[place], None)

    def action_back(self) -> None:
        """Leaves the name, then the menu."""
        if self.has_class("-naming"):
            self._named()
        else:
            self.dismiss(None)
