# SPDX-License-Identifier: Apache-2.0
"""A run that is being played, from the viewer: it is paused and goes on, and one episode of it is cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import agentgym
from agentgym.records.control import playing
from agentgym.records.run import Run
from agentgym.records.store import RunWriter
from agentgym.tui.app import Viewer
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.runs import RunsScreen
from tests.envs import Guess
from tests.rollout.test_control import Slow, path_of, until
from tests.tui.conftest import LARGE, SMALL, Hands, both_sizes, drive

STUCK = "test.guess/control/0"


@both_sizes
def test_an_episode_that_hangs_is_cancelled_after_a_question_and_the_run_ends(tmp_path: Path, size: tuple[int, int]) -> None:
    async def work() -> None:
        played = asyncio.create_task(agentgym.aevaluate([Guess], Slow(hang=(STUCK,)), limit=3, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: [e.task_id for e in (playing(path) or empty).episodes] == [STUCK])
        app = Viewer(tmp_path, Run(path))
        async with app.run_test(size=size, notifications=True) as pilot:
            h = Hands(app, pilot)
            await h.sees("running", "2 of 3 episodes", "1 under way")
            await h.press("u")
            await h.sees("1 under way", "… playing", STUCK, "x cancels it")
            await h.press("x")
            await h.sees(f"Cancel {STUCK}, trial 0?", "Its turns are kept")
            await h.press("n")
            await h.sees("… playing", absent=("are kept",))
            await h.press("x", "y")
            (await played).close()
            await h.sees("this run is finished")
            await h.press("escape")
            await h.sees("3 of 3 episodes", "⊘ cancelled", "finished")
            await h.press("p")
            await h.until(lambda: any("nothing to pause" in n.message for n in app._notifications), "nothing to pause")
            await h.press("end", "enter")
            await h.sees("⊘ cancelled", "by ", "after 0 turns", "Not scored: it was not played to its end")

    empty = agentgym.records.control.Now()
    asyncio.run(work())


def test_p_pauses_the_run_and_lets_it_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        hangs = Slow(gate=asyncio.Event())  # so that both episodes are under way, however long all this takes
        played = asyncio.create_task(agentgym.aevaluate([Guess], hangs, limit=4, concurrency=2, runs=tmp_path))
        path = await path_of(tmp_path)
        await until(lambda: playing(path))
        app = Viewer(tmp_path, Run(path))
        async with app.run_test(size=LARGE, notifications=True) as pilot:
            h = Hands(app, pilot)
            await h.sees("running")
            await h.press("p")
            await h.sees("pauses after the turns under way", "‖ paused")
            await h.press("u")
            await h.sees("the whole run is paused", "‖ paused")
            await h.press("P")
            await h.sees("goes on", "… playing", absent=("whole run is paused",))
            await h.press("p")
            await h.sees("‖ 1 paused", "lets it go on")
            await h.press("p")
            await h.sees("2 under way", absent=("‖",))
        played.cancel()
        with pytest.raises(asyncio.CancelledError):
            await played

    asyncio.run(work())


def test_a_run_that_may_stop_early_shows_its_e_values(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.sees("running", "e worse 3.4/50 · not worse 0.12/50")

    metrics = {"gold": {"worse": 3.4, "worse_at": 50.0, "fine": 0.123, "fine_at": 50.0}}
    told = {"baseline": "base.jsonl", "clusters": 12, "of": 150, "metrics": metrics}
    writer = RunWriter(bank.path, create=False)
    try:
        writer.set_meta({"stop_early": told})
        writer.begin_sitting()
        drive(Viewer(root, bank), script, LARGE)
    finally:
        writer.close()


def test_a_run_that_is_over_says_so_in_the_list_of_runs(root: Path) -> None:
    async def script(h: Hands) -> None:
        assert isinstance(h.app.screen, RunsScreen)
        await h.sees("✓ finished")
        await h.press("p")
        await h.sees("nobody plays")
        await h.press("enter")
        assert isinstance(h.app.screen, EpisodesScreen)
        await h.press("x")
        await h.sees("0 under way", "this run is finished: nothing of it is being played")
        await h.press("x")
        await h.press("question_mark")
        await h.sees("Cancel this episode", "Pause the whole run")

    drive(Viewer(root), script, SMALL)
