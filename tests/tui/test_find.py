# SPDX-License-Identifier: Apache-2.0
"""The line for a filter: it counts while one types, completes with Tab, and points at what cannot be read."""

from __future__ import annotations

from pathlib import Path

from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.screens.episodes import EpisodesScreen
from tests.tui.conftest import Hands, drive

KEYS = {" ": "space", "<": "less_than_sign", ">": "greater_than_sign", ":": "colon", "-": "minus", "/": "slash"}


def typed(text: str) -> list[str]:
    """Keys that type it."""
    return [KEYS.get(c, c) for c in text]


def test_the_line_for_a_filter_counts_completes_points_at_errors_and_says_why_nothing_fits(root: Path, retail: Run) -> None:
    async def script(h: Hands) -> None:
        screen = h.app.screen
        assert isinstance(screen, EpisodesScreen)
        await h.until(lambda: screen.table.count == 16)
        await h.press("slash")
        await h.until(lambda: screen.find.known)
        await h.press(*typed("-gold<1 va"), "tab", "t", "tab")
        assert screen.find.value == "-gold<1 variant:tempt"
        wanted = [e.id for e in retail.episodes() if e.variant == "tempt" and e.gold == 1]
        await h.until(lambda: screen.table.count == len(wanted))
        await h.sees(f"{len(wanted)} of 16 fit")
        # an error points at its place, and leaves the list and the line as they are
        await h.press(*typed(" gld<2"))
        await h.sees("there is no field 'gld'. Did you mean: gold?")
        line = max(i for i, text in enumerate(h.lines) if "variant:tempt gld" in text)
        assert h.lines[line + 1].index("^") == h.lines[line].index("gld"), h.text
        await h.press("enter")
        assert screen.find.has_focus
        await h.press("escape")
        await h.until(lambda: screen.table.count == 16)
        await h.press("slash", *typed("dim:polcy"))
        await h.sees("no episode fits dim:polcy by itself. Did you mean: policy?")
        await h.press("escape", "slash", *typed("v"), "tab", "tab")
        assert screen.find.value == "variant:", "a second Tab takes the next way to go on"
        await h.press("enter")
        await h.sees("a name is missing here")

    drive(Viewer(root, retail), script, (100, 24))
