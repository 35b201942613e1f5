# SPDX-License-Identifier: Apache-2.0
"""The part of the application that compares: its keys, from whichever screen, and the screens they lead to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import App
from textual.binding import Binding, BindingType

from agentgym.records.run import Episode, Run
from agentgym.tui.pages import Query
from agentgym.tui.screens.compare import CompareScreen
from agentgym.tui.screens.dashboard import DashboardScreen
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.group import GroupScreen
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.runs import RunsScreen
from agentgym.tui.sides import beside, beside_twins

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer


class Comparing(App[None]):
    """Keys that compare what is under the cursor; each is there only on screens where it means something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "group", "Trials", show=False, tooltip="The trials of this task as a group (GRPO)"),
        Binding("a", "alignment", "Alignment", show=False, tooltip="Alignment of this run"),
        Binding("c", "compare", "Compare", show=False, tooltip="Beside its twins; of runs, with a second one"),
    ]

    @property
    def _viewer(self) -> Viewer:
        return cast("Viewer", self)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys are there on the present screen."""
        if action in ("compare", "group"):
            return isinstance(self.screen, (EpisodesScreen, ReplayScreen))
        if action == "alignment":
            return isinstance(self.screen, (RunsScreen, EpisodesScreen))
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

    def action_group(self) -> None:
        """The trials of the episode's task."""
        if (episode := self._episode()) is not None:
            self.push_screen(GroupScreen(episode))

    def on_group_screen_chosen(self, message: GroupScreen.Chosen) -> None:
        """A trial of a group was chosen."""
        self._replay(Run(self._group().episode.run_path), message.episode, message.turn)

    def on_group_screen_pair(self, message: GroupScreen.Pair) -> None:
        """The best and the worst of a group are to be seen beside each other."""
        first = self._group().episode
        with Run(first.run_path) as run:
            best, worst = run.by_ids([message.best, message.worst])
        sides = [(best, f"best, trial {best.trial}"), (worst, f"worst, trial {worst.trial}")]
        self.push_screen(CompareScreen(first, partial(beside, sides), "trials"))

    def action_alignment(self) -> None:
        """The alignment of the run under the cursor, or of this one."""
        path = self._run()
        if path is not None:
            self.push_screen(DashboardScreen(path))

    def on_dashboard_screen_chosen(self, message: DashboardScreen.Chosen) -> None:
        """The episodes that broke a dimension are wanted."""
        screen = EpisodesScreen(Run(message.path))
        screen.query_ = Query(text=f'dim:"{message.dimension}"', sort="violations")
        self.push_screen(screen)

    def _run(self) -> Path | None:
        """The run that is meant, if it can be read."""
        screen = self.screen
        if isinstance(screen, EpisodesScreen):
            return screen.run.path
        info = screen.table.current if isinstance(screen, RunsScreen) else None
        if info is None:
            return None
        if info.problem:
            self._viewer.say(info.problem)
            return None
        return info.path

    def _group(self) -> GroupScreen:
        assert isinstance(self.screen, GroupScreen)
        return self.screen

    def _replay(self, run: Run, episode: int, turn: int | None) -> None:
        """Opens an episode with a connection that lives as long as its screen."""
        self.push_screen(ReplayScreen(run.by_ids([episode])[0], turn))

    def on_compare_screen_chosen(self, message: CompareScreen.Chosen) -> None:
        """A turn of one side was chosen: of its own run's connection, which outlives the thread that aligned."""
        self._replay(Run(message.episode.run_path), message.episode.id, message.turn)
