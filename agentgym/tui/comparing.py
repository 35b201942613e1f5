# SPDX-License-Identifier: Apache-2.0
"""The part of the application that compares: its keys, from whichever screen, and the screens they lead to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import App
from textual.binding import Binding, BindingType

from agentgym.records.run import Episode, Run
from agentgym.tui.screens.compare import CompareScreen
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.sides import beside_twins

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer


class Comparing(App[None]):
    """Keys that compare what is under the cursor; each is there only on screens where it means something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "compare", "Compare", show=False, tooltip="Beside its twins; of runs, with a second one"),
    ]

    @property
    def _viewer(self) -> Viewer:
        return cast("Viewer", self)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys are there on the present screen."""
        if action == "compare":
            return isinstance(self.screen, (EpisodesScreen, ReplayScreen))
        return super().check_action(action, parameters)

    def _episode(self) -> Episode | None:
        screen = self.screen
        if isinstance(screen, EpisodesScreen):
            return screen.table.current
        return screen.episode if isinstance(screen, ReplayScreen) else None

    def action_compare(self) -> None:
        """The episode beside its twins."""
        if (episode := self._episode()) is not None:
            self.push_screen(CompareScreen(episode, partial(beside_twins, episode), "twins"))

    def on_compare_screen_chosen(self, message: CompareScreen.Chosen) -> None:
        """A turn of one side was chosen: of its own run's connection, which outlives the thread that aligned."""
        run = Run(message.episode.run_path)
        self.push_screen(ReplayScreen(run.by_ids([message.episode.id])[0], message.turn))
