# SPDX-License-Identifier: Apache-2.0
"""The ways in which an episode can be given to others, and what each of them does."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer

WAYS = {
    "html": "h  HTML: one file with all of it, for anybody",
    "md": "m  Markdown: for a pull request or an issue",
    "jsonl": "j  JSON: a line for each turn, for programs",
    "svg": "s  SVG: the screen as it is",
    "command": "c  Copy the command that plays it again",
}
"""Ending of the file, or what is done -> how the menu calls it; the first letter chooses it."""


class ShareMenu(ModalScreen["str | None"]):
    """Asks for one of `WAYS`."""

    CSS_PATH = "share.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "choose('')", "Back"),
        Binding("j", "choose('jsonl')", "JSON", show=False),
        *(Binding(text[0], f"choose('{way}')", text[3:], show=False) for way, text in WAYS.items() if way != "jsonl"),
    ]

    def compose(self) -> ComposeResult:
        """The list."""
        menu = OptionList(*(Option(text, id=way) for way, text in WAYS.items()))
        menu.border_title = "Export this episode"
        menu.border_subtitle = "files go to the working directory · Esc back"
        yield menu

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """One was chosen."""
        self.dismiss(message.option_id)

    def action_choose(self, way: str) -> None:
        """One was chosen by its letter, or none."""
        self.dismiss(way or None)


def share(app: Viewer, episode: Episode, way: str | None) -> None:
    """Does it, and says where the file is."""
    if way == "svg":
        # after the menu has gone from the screen
        app.call_after_refresh(lambda: app.run_worker(_write(app, episode, way, _still(app.export_screenshot()))))
    elif way is not None:
        app.run_worker(_write(app, episode, way, None))


def _still(svg: str) -> str:
    """The picture without the fonts that it would load from elsewhere."""
    return re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)


async def _write(app: Viewer, episode: Episode, way: str, text: str | None) -> None:
    try:
        made = text if text is not None else await asyncio.to_thread(_text, episode.run_path, episode.id, way)
        if way == "command":
            app.copy_to_clipboard(made)
            app.say(f"copied: {made}", calm=True)
            return
        path = await asyncio.to_thread(_save, Path(), episode, way, made)
        app.say(f"written: {path}", calm=True)
    except AgentGymError as e:
        app.say(str(e))
    except OSError as e:
        app.say(f"the file cannot be written here: {e.strerror}")


def _text(path: Path, number: int, way: str) -> str:
    """Made with a connection of its own: a thread does it."""
    from agentgym.report import share

    with Run(path) as run:
        (episode,) = run.by_ids([number])
        if way == "html":
            return share.page(episode)
        if way == "md":
            return share.markdown(episode)
        if way == "jsonl":
            return "".join(json.dumps(row) + "\n" for row in share.rows(episode))
        return share.command(episode)


def _save(folder: Path, episode: Episode, ending: str, text: str) -> Path:
    """Writes it under a name that is free."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{episode.task_id}-{episode.trial}").strip("-.")[:100]
    for number in range(1, 1000):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}.{ending}"
        try:
            with path.open("x", encoding="utf-8") as f:
                f.write(text)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(17, "there are a thousand of them")
