# SPDX-License-Identifier: Apache-2.0
"""Filters that have names, and columns for those who act in an episode."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agentgym.records.acting import several, shares
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRecord, RunWriter
from agentgym.tui.app import Viewer
from agentgym.tui.saved import file, filters, save
from tests.tui.conftest import LARGE, Hands, both_sizes, drive, episode


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))


@both_sizes
def test_a_filter_is_given_a_name_taken_again_and_forgotten(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        await h.sees("1/14")
        await h.press("o")
        await h.sees("none yet")
        await h.press("escape", "slash", *"is:error", "enter")
        await h.sees("/2 ", "“is:error”")
        await h.press("o", "a", *"broken", "enter")
        await h.sees("broken  is:error")
        await h.press("escape", "slash", "escape")
        await h.sees("/14 ", absent=("is:error",))
        await h.press("o", "enter")
        await h.sees("/2 ", "“is:error”")
        await h.press("o", "x")
        await h.sees("none yet")

    drive(Viewer(root, bank), script, size)
    assert filters() == {}


def test_a_saved_filter_that_cannot_be_read_is_shown_with_what_is_wrong(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("o", "enter")
        await h.sees("gold<", "^")

    save("old", "gold<")
    drive(Viewer(root, bank), script, LARGE)
    assert json.loads(file().read_text()) == {"old": "gold<"}


def test_what_is_no_map_of_filters_is_none(tmp_path: Path) -> None:
    file().parent.mkdir(parents=True)
    for text in ("[1]", "{", '{"a": 1}', "\udcff"):
        file().write_bytes(text.encode("utf-8", "surrogateescape"))
        assert filters() == {}
    save("good", "gold<1")
    assert filters() == {"good": "gold<1"}


def test_a_run_of_several_agents_says_who_acted_and_what_each_was_paid(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.sees("agents", "buyer 2:.50 seller 1:-1")

    e = episode(bank, 0)
    turns = [
        msgspec.structs.replace(t, agent=who, reward=paid)
        for t, who, paid in zip(e.trajectory.turns, ("buyer", "seller", "buyer"), (0.25, -1.0, 0.25), strict=True)
    ]
    assert not several(bank)
    writer = RunWriter(bank.path, create=False)
    played = msgspec.structs.replace(e.trajectory, turns=turns, task_id="test.bank/control/99")
    task = msgspec.structs.replace(e.task, item="99")
    writer.add(EpisodeRecord(played, task, e.task.encode(), 0, e.reward, e.gold, e.all_scores, e.findings))
    writer.flush()
    writer.close()
    last = next(bank.episodes(task_id="test.bank/control/99"))
    assert [tuple(s) for s in shares(bank, last.id)] == [("buyer", 2, 0.5), ("seller", 1, -1.0)]
    drive(Viewer(root, bank), script, LARGE)
