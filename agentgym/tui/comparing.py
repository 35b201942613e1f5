# SPDX-License-Identifier: Apache-2.0
"""The part of the application that compares: its keys, from whichever screen, and the screens they lead to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

from textual.app import App
from textual.binding import Binding, BindingType

from agentgym.errors import AgentGymError
from agentgym.records.run import Address, Episode, Run, find_run
from agentgym.tui.pages import Query
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.level import short
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.runs import RunsScreen

if TYPE_CHECKING:
    from agentgym.tui.app import Viewer
    from agentgym.tui.screens.compare import CompareScreen
    from agentgym.tui.screens.dashboard import DashboardScreen
    from agentgym.tui.screens.group import GroupScreen
    from agentgym.tui.screens.verdict import VerdictScreen

# these screens and what they compute with are imported where one is opened: they would be a third of what the viewer imports
# before its first paint


class Compared(NamedTuple):
    """What the command line holds a run or an episode against."""

    run: Path | None = None
    """Another run: the second one."""
    episode: Episode | None = None
    """Another episode."""
    baseline: str | None = None
    """What ``agentgym gate --baseline`` takes."""
    rules: str | None = None
    """A rules file of the gate."""


class Comparing(App[None]):
    """Keys that compare what is under the cursor; each is there only on screens where it means something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("T", "group", "Trials", show=False, tooltip="The trials of this task as a group (GRPO)"),
        Binding("a", "alignment", "Alignment", show=False, tooltip="Alignment of this run"),
        Binding("c", "compare", "Compare", show=False, tooltip="Beside its twins; of runs, with a second one"),
    ]

    def __init__(self, compared: Compared | None = None) -> None:
        super().__init__()
        self._compared = compared or Compared()
        self._first: Path | None = None
        """The run that the next one chosen is compared with."""

    def begin_comparison(self, run: Run, episode: Episode | None) -> None:
        """Opens what the command line asked for."""
        wanted = self._compared
        if wanted == Compared():
            return
        from agentgym.tui.screens.verdict import VerdictScreen

        if wanted.baseline is not None:
            self.push_screen(VerdictScreen(run.path, wanted.baseline, gate=True, rules=wanted.rules))
        elif wanted.run is not None:
            self.push_screen(VerdictScreen(wanted.run, str(run.path)))
        elif wanted.episode is not None and episode is not None:
            self._beside(episode, wanted.episode)

    def _beside(self, first: Episode, second: Episode) -> None:
        from agentgym.tui.screens.compare import CompareScreen
        from agentgym.tui.sides import beside

        sides = [(first, f"first: {short(first.run_path)}"), (second, f"second: {short(second.run_path)}")]
        self.push_screen(CompareScreen(first, partial(beside, sides), "episodes"))

    @property
    def _viewer(self) -> Viewer:
        return cast("Viewer", self)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys are there on the present screen."""
        if action == "compare":
            return isinstance(self.screen, (RunsScreen, EpisodesScreen, ReplayScreen))
        if action == "group":
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
        """The episode beside its twins; of runs, with a second one."""
        if isinstance(self.screen, RunsScreen):
            self._choose_run()
        elif (episode := self._episode()) is not None:
            from agentgym.tui.screens.compare import CompareScreen
            from agentgym.tui.sides import beside_twins

            self.push_screen(CompareScreen(episode, partial(beside_twins, episode), "twins"))

    def _choose_run(self) -> None:
        """The first run of two, then the second."""
        path = self._run()
        if path is None:
            return
        if self._first is None or self._first == path:
            self._first = path
            self._viewer.say(f"{short(path)} is the first of two: choose the second and press c again.", calm=True)
        else:
            from agentgym.tui.screens.verdict import VerdictScreen

            first, self._first = self._first, None
            self.push_screen(VerdictScreen(path, str(first)))

    def on_verdict_screen_chosen(self, message: VerdictScreen.Chosen) -> None:
        """A step to look at was chosen."""
        try:
            address = Address.parse(message.address)
            run = Run(find_run(address.run, self._viewer.root))
            episode = run.at(address)
        except AgentGymError as e:
            self._viewer.say(str(e))
            return
        self.push_screen(ReplayScreen(episode, address.turn))

    def on_verdict_screen_pair(self, message: VerdictScreen.Pair) -> None:
        """A task is to be seen in both runs."""
        from agentgym.gate.pairs import trials_apart

        try:
            with Run(message.first) as a, Run(message.second) as b:
                self._beside(*trials_apart(a, b, message.task))
        except AgentGymError as e:
            self._viewer.say(str(e))

    def action_group(self) -> None:
        """The trials of the episode's task."""
        if (episode := self._episode()) is not None:
            from agentgym.tui.screens.group import GroupScreen

            self.push_screen(GroupScreen(episode))

    def on_group_screen_chosen(self, message: GroupScreen.Chosen) -> None:
        """A trial of a group was chosen."""
        self._replay(Run(self._group().episode.run_path), message.episode, message.turn)

    def on_group_screen_pair(self, message: GroupScreen.Pair) -> None:
        """The best and the worst of a group are to be seen beside each other."""
        from agentgym.tui.screens.compare import CompareScreen
        from agentgym.tui.sides import beside

        first = self._group().episode
        with Run(first.run_path) as run:
            best, worst = run.by_ids([message.best, message.worst])
        sides = [(best, f"best, trial {best.trial}"), (worst, f"worst, trial {worst.trial}")]
        self.push_screen(CompareScreen(first, partial(beside, sides), "trials"))

    def action_alignment(self) -> None:
        """The alignment of the run under the cursor, or of this one."""
        path = self._run()
        if path is not None:
            from agentgym.tui.screens.dashboard import DashboardScreen

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
        return cast("GroupScreen", self.screen)

    def _replay(self, run: Run, episode: int, turn: int | None) -> None:
        """Opens an episode with a connection that lives as long as its screen."""
        self.push_screen(ReplayScreen(run.by_ids([episode])[0], turn))

    def on_compare_screen_chosen(self, message: CompareScreen.Chosen) -> None:
        """A turn of one side was chosen: of its own run's connection, which outlives the thread that aligned."""
        self._replay(Run(message.episode.run_path), message.episode.id, message.turn)
