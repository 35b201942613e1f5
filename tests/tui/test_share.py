# SPDX-License-Identifier: Apache-2.0
"""Export from the replay: a small menu, a letter each, files that replace nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.share import ShareMenu
from tests.tui.conftest import Hands, drive, episode


def test_each_way_of_export_from_the_replay(root: Path, bank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(h: Hands) -> None:
        await h.sees("opening")
        for key in ("h", "h", "m", "j", "s"):
            count = len(list(tmp_path.glob("test.bank*")))
            await h.press("e")
            await h.until(lambda: isinstance(h.app.screen, ShareMenu), "the menu")
            await h.press(key)
            await h.until(lambda n=count: len(list(tmp_path.glob("test.bank*"))) == n + 1, "a file")
        await h.press("e", "escape")
        assert isinstance(h.app.screen, ReplayScreen)
        await h.press("e", "c")
        await h.sees("copied: agentgym eval")

    drive(Viewer(root, bank, episode(bank, 1)), script)
    names = sorted(p.name for p in tmp_path.glob("test.bank*"))
    stem = "test.bank-control-1-0"
    assert names == [f"{stem}-2.html", f"{stem}.html", f"{stem}.jsonl", f"{stem}.md", f"{stem}.svg"]
    svg = (tmp_path / f"{stem}.svg").read_text()
    assert "@font-face" not in svg
    assert "Export this episode" not in svg, "the screen, not the menu"
    assert "transfer" in svg
