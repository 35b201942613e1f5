# SPDX-License-Identifier: Apache-2.0
"""The application: which screen leads to which. Screens say what was chosen; this is where it is acted upon."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run
from agentgym.tui.comparing import Compared, Comparing
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.help import HelpScreen
from agentgym.tui.screens.level import Level
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.runs import RunsScreen
from agentgym.tui.screens.search import SearchScreen
from agentgym.tui.widgets.paint import COMPONENTS

if TYPE_CHECKING:
    from agentgym.records.control import Verb
    from agentgym.tui.screens.play import PlayScreen
    from agentgym.tui.screens.underway import UnderWayScreen
    from agentgym.tui.screens.whatif import WhatIfScreen


def spare_collector() -> None:
    """Tells the garbage collector that what is imported stays, and to look for garbage less often; for the whole process.

    Each line drawn makes dozens of objects that are gone a moment later. By default the collector looks every 700 of them,
    and each hundredth time through all that was ever imported, which takes as long as to open three episodes.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Viewer(Comparing):
    """Runs, episodes, turns.

    Args:
        root: the folder of runs.
        run: the run to open; None for the list of runs.
        episode: the episode to open.
        turn: the turn to begin at.
        compared: what to hold the run or the episode against at once; None: nothing.
        over: a screen to begin with, over the list of the run's episodes or, without a run, that of runs.
    """

    TITLE = "agentgym"
    CSS_PATH = [
        "app.tcss",
        "widgets/paint.tcss",
        "widgets/lineview.tcss",
        "screens/runs.tcss",
        "screens/episodes.tcss",
        "screens/replay.tcss",
        "screens/group.tcss",
        "screens/dashboard.tcss",
        "screens/verdict.tcss",
        "screens/help.tcss",
    ]
    COMPONENT_CLASSES = set(COMPONENTS)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (150, "-full")]

    def __init__(
        self,
        root: Path,
        run: Run | None = None,
        episode: Episode | None = None,
        turn: int | None = None,
        compared: Compared | None = None,
        *,
        over: Level | None = None,
    ) -> None:
        super().__init__(compared)
        self.root = root
        self._start = (run, episode, turn)
        self._over = over
        self._only: ReplayScreen | None = None

    def on_mount(self) -> None:
        """Opens what was asked for."""
        run, episode, turn = self._start
        if run is None:
            self.push_screen(RunsScreen(self.root))
        else:
            self.push_screen(EpisodesScreen(run, select=episode))
        if episode is not None:
            self._replay_of(episode, turn)
        if self._over is not None:
            self.push_screen(self._over)
        if run is not None:
            self.begin_comparison(run, episode)

    # -- from screen to screen ----------------------------------------------------------------------------------------

    def on_runs_screen_chosen(self, message: RunsScreen.Chosen) -> None:
        """A run was chosen."""
        try:
            run = Run(message.path)
        except AgentGymError as e:
            self.say(str(e))
            return
        self.push_screen(EpisodesScreen(run))

    def on_episodes_screen_chosen(self, message: EpisodesScreen.Chosen) -> None:
        """An episode was chosen."""
        self._replay_of(message.episode)

    def on_episodes_screen_search(self, message: EpisodesScreen.Search) -> None:
        """What the listed episodes hold is to be searched."""
        self.push_screen(SearchScreen(message.run, message.query))

    def on_search_screen_chosen(self, message: SearchScreen.Chosen) -> None:
        """A hit was chosen."""
        self._replay_of(message.episode, message.turn)

    def _replay_of(self, episode: Episode, turn: int | None = None) -> None:
        """Opens an episode in the one replay there is: making a screen costs ten times as much as showing another episode."""
        if self._only is None:
            self._only = ReplayScreen(episode, turn)
            self.install_screen(self._only, "replay")
        elif self._only in self.screen_stack:  # a screen can be in the stack once
            self.push_screen(ReplayScreen(episode, turn))
            return
        else:
            self._only.open(episode, turn)
        self.push_screen("replay")

    def on_replay_screen_step(self, message: ReplayScreen.Step) -> None:
        """The next or previous episode was asked for: of the list it was chosen from."""
        below = self.screen_stack[-2] if len(self.screen_stack) > 1 else None
        if not isinstance(below, (EpisodesScreen, SearchScreen)) or not isinstance(self.screen, ReplayScreen):
            return
        episode = below.step(message.by)
        if episode is None:
            self.say("That was the last episode of the list." if message.by > 0 else "That was the first one.", calm=True)
        else:
            self.screen.open(episode)

    def on_replay_screen_tokens_wanted(self, message: ReplayScreen.TokensWanted) -> None:
        """The tokens of an episode were asked for."""
        from agentgym.tui.screens.tokens import TokensScreen  # numpy and the linearizer: only for those who look

        self.push_screen(TokensScreen(message.episode, message.turn))

    def on_episodes_screen_label(self, message: EpisodesScreen.Label) -> None:
        """Preferences are to be given."""
        from agentgym.records.labels import default_annotator
        from agentgym.tui.screens.label import LabelScreen

        self.push_screen(LabelScreen(message.run, default_annotator()))

    def on_episodes_screen_under_way(self, message: EpisodesScreen.UnderWay) -> None:
        """What is being played is to be seen."""
        from agentgym.tui.screens.underway import UnderWayScreen

        self.push_screen(UnderWayScreen(message.run))

    def on_under_way_screen_asked(self, message: UnderWayScreen.Asked) -> None:
        """One episode, or the run, is to be paused, to go on, or to be cancelled."""
        what = message.what
        if what is None:
            self.pause(message.run.path)
        else:
            do: Verb = "cancel" if message.cancel else "resume" if what.paused else "pause"
            self.steer(message.run.path, do, what.task_id, what.trial)

    def pause(self, path: Path) -> None:
        """Pauses a run that is being played, or lets it go on."""
        from agentgym.records.control import playing

        now = playing(path)
        self.steer(path, "resume" if now is not None and now.paused else "pause")

    def steer(self, path: Path, do: Verb, task_id: str = "", trial: int | None = None) -> None:
        """Sends a command to a run, and says so or why not."""
        from agentgym.records.control import send

        try:
            send(path, do, task_id, trial)
        except AgentGymError as e:
            self.say(str(e))
            return
        what = f"{task_id}/{trial}" if task_id else "the run"
        said = {
            "pause": f"{what} pauses after the turns under way",
            "resume": f"{what} goes on",
            "cancel": f"{what} is being cancelled",
        }
        self.say(said[do], calm=True)

    def on_replay_screen_share_wanted(self, message: ReplayScreen.ShareWanted) -> None:
        """An episode is to be exported."""
        from agentgym.tui.screens.share import ShareMenu, share

        self.push_screen(ShareMenu(), partial(share, self, message.episode))

    def on_episodes_screen_what_if(self, message: EpisodesScreen.WhatIf) -> None:
        """A run is to be scored again."""
        from agentgym.tui.screens.whatif import WhatIfScreen  # what scores: only for those who ask

        self.push_screen(WhatIfScreen(message.run))

    def on_what_if_screen_chosen(self, message: WhatIfScreen.Chosen) -> None:
        """A flip was chosen: its replay, with the new scores."""
        self.push_screen(ReplayScreen(message.episode))

    def on_play_screen_over(self, message: PlayScreen.Over) -> None:
        """What was played is on record: its replay, from where one goes up as ever."""
        self.pop_screen()
        run = Run(message.path)
        episode = next(run.episodes())
        self.push_screen(EpisodesScreen(run, select=episode))
        self.push_screen(ReplayScreen(episode))

    async def action_quit(self) -> None:
        """Ends; who plays leaves the seat first, so that what was played is kept."""
        leave = getattr(self.screen, "leave", None)
        if leave is None or not leave():
            await super().action_quit()

    def action_up(self) -> None:
        """One level up: from whatever stands above the episodes, to them, to the runs."""
        if not isinstance(self.screen, (EpisodesScreen, RunsScreen)) and len(self.screen_stack) > 2:
            self.pop_screen()
        elif isinstance(self.screen, EpisodesScreen):
            if len(self.screen_stack) > 2:
                self.pop_screen()
            else:
                self.switch_screen(RunsScreen(self.root, select=self.screen.run.path))
        else:
            self.bell()

    def action_help(self) -> None:
        """Every key of the present screen."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen.active_bindings, self.screen.title or ""))

    # -- for all screens ----------------------------------------------------------------------------------------------

    def say(self, text: str, *, calm: bool = False) -> None:
        """A remark at the corner of the screen; what comes from files and models is not taken for markup."""
        from agentgym.report.text import plain

        self.notify(plain(text), severity="information" if calm else "error", markup=False, timeout=4 if calm else 8)

    def copy_address(self, address: str) -> None:
        """Puts an address on the clipboard of the terminal, and shows it for those whose terminal has none."""
        self.copy_to_clipboard(address)
        self.say(f"copied: {address}", calm=True)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: what the present screen can do, by name, then Textual's own commands."""
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.system or not binding.description or binding.action.startswith(("move", "page", "half")):
                continue
            node = active.node

            def act(action: str = binding.action, node: object = node) -> None:
                self.call_next(self.run_action, action, node)

            keys = self.get_key_display(binding)
            yield SystemCommand(binding.tooltip or binding.description, f"key {keys}", act)
        yield from super().get_system_commands(screen)
