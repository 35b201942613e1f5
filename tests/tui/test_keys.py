# SPDX-License-Identifier: Apache-2.0
"""The line of keys at the bottom: which keys, where, and what the mouse does on them."""

from __future__ import annotations

from pathlib import Path

from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.widgets.keys import Keys
from tests.tui.conftest import SMALL, Hands, drive


def test_the_keys_are_the_bindings_and_the_mouse_presses_them(root: Path, bank: Run) -> None:
    async def script(hands: Hands) -> None:
        await hands.sees("1/14")
        shown = [b.binding for b in hands.app.screen.active_bindings.values() if b.binding.show]
        line = hands.lines[-1]
        for binding in shown:
            assert f" {hands.app.get_key_display(binding)} {binding.description} " in line
        assert line.endswith("▏^p palette ")
        await hands.pilot.hover(Keys, offset=(line.index("Failed"), 0))
        assert hands.app.screen.query_one(Keys).tooltip == "Only the unsolved, or all"
        await hands.pilot.click(Keys, offset=(line.index("Failed"), 0))
        await hands.sees("not solved")
        await hands.pilot.click(Keys, offset=(line.index("palette"), 0))
        await hands.until(lambda: type(hands.app.screen).__name__ == "CommandPalette")

    drive(Viewer(root, bank), script, SMALL)


def test_keys_without_room_are_left_out_whole_and_the_wheel_brings_them(root: Path, bank: Run) -> None:
    async def script(hands: Hands) -> None:
        await hands.sees("1/14")
        line = hands.lines[-1]
        assert "Open" in line
        assert "Quit" not in line
        assert line.endswith("▏^p palette ")
        keys = hands.app.screen.query_one(Keys)
        for _ in range(8):
            keys.on_mouse_scroll_down()
            await hands.pilot.pause()
        await hands.sees("q Quit")
        assert "Open" not in hands.lines[-1]
        for _ in range(8):
            keys.on_mouse_scroll_up()
            await hands.pilot.pause()
        await hands.until(lambda: hands.lines[-1] == line)

    drive(Viewer(root, bank), script, (60, 24))
