# SPDX-License-Identifier: Apache-2.0
"""Searching everything from the list of episodes: hits a trial, how far it is, the replay at the turn of a hit."""

from __future__ import annotations

from pathlib import Path

from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.search import SearchScreen
from tests.tui.conftest import BIG, Hands, drive, episode


def test_a_search_shows_hits_of_the_selection_and_opens_replays_where_they_stand(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        episodes = h.app.screen
        assert isinstance(episodes, EpisodesScreen)
        await h.until(lambda: episodes.table.count == 14)
        await h.press("slash", *"control", "enter", "F")
        screen = h.app.screen
        assert isinstance(screen, SearchScreen)
        await h.sees("searches “control”")
        await h.press("slash", "left_parenthesis", "slash", "enter")
        await h.sees("is no regular expression", "at character 1")
        screen.query_one("#pattern").value = "owned"  # type: ignore[attr-defined]
        await h.press("enter")
        await h.sees("7 of 7 searched", "1 episodes", "test.bank/control/4/0")
        assert "\x1b" not in h.text, "what models wrote cannot steer the terminal"
        row = screen.table.current
        assert row is not None
        assert row.episode.id == episode(bank, 4).id
        await h.press("enter")
        await h.until(lambda: isinstance(h.app.screen, ReplayScreen) and h.app.screen.turn == row.hit.turn)
        await h.press("escape")
        assert h.app.screen is screen
        # hits of other episodes, and from one to the next also from the replay
        await h.press("slash")
        screen.query_one("#pattern").value = "/balance|word word/"  # type: ignore[attr-defined]
        await h.press("enter")
        await h.until(lambda: not screen.searching and screen.progress and screen.progress.ended)
        await h.sees("hits in")
        first = screen.table.current
        await h.press("enter", "J")
        await h.until(lambda: isinstance(h.app.screen, ReplayScreen))
        replay = h.app.screen
        assert isinstance(replay, ReplayScreen)
        assert first is not None
        assert replay.episode.id != first.episode.id
        await h.press("escape")
        assert any(n.count == 10_000 for n, _ in screen.hits.places), f"of {BIG:,} characters"
        await h.press("slash")
        screen.query_one("#pattern").value = "nowhere at all"  # type: ignore[attr-defined]
        await h.press("enter")
        await h.sees("found nowhere", "0 hits")
        await h.press("escape")
        assert h.app.screen is episodes

    drive(Viewer(root, bank), script, (110, 30))


def test_a_search_that_takes_long_can_be_stopped_and_leaves_the_viewer_usable(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("F")
        screen = h.app.screen
        assert isinstance(screen, SearchScreen)
        screen.query_one("#pattern").value = "/(\\w+ ?)+\\x00{7}/"  # type: ignore[attr-defined]
        await h.press("enter")
        await h.until(lambda: screen.progress is not None)
        assert screen.searching
        await h.press("escape")
        await h.until(lambda: not screen.searching)
        await h.sees("stopped")
        assert h.app.screen is screen, "Esc stops the search first"
        await h.press("escape")
        assert isinstance(h.app.screen, EpisodesScreen)

    drive(Viewer(root, bank), script)
