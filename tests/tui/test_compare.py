# SPDX-License-Identifier: Apache-2.0
"""Comparing in the viewer: twins of a task beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

import agentgym
from agentgym.records.run import Run
from agentgym.report.siblings import effects, twins
from agentgym.tui.app import Viewer
from agentgym.tui.screens.compare import CompareScreen
from agentgym.tui.screens.dashboard import DashboardScreen
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.group import GroupScreen
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.sides import beside
from agentgym.tui.widgets.beside import Alike
from tests.report.test_group import Mixed
from tests.tui.conftest import LARGE, SMALL, Hands, both_sizes, drive, episode


async def compared(h: Hands) -> CompareScreen:
    """The comparison, read and laid out."""
    screen = h.app.screen
    assert isinstance(screen, CompareScreen)
    await h.until(lambda: screen.sides is not None and screen.view.count, "the comparison")
    return screen


@both_sizes
def test_c_puts_an_episode_beside_its_twins_aligned_where_they_part(root: Path, retail: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        await h.press("c")
        screen = await compared(h)
        assert [e.variant for e in screen.sides.episodes] == ["control", "tempt"]
        assert {e.trial for e in screen.sides.episodes} == {1}
        await h.sees("what the variant changes", "▲ violations +1.00", "what they did")
        assert all(cell_len(line) == size[0] for line in h.lines)
        await h.press("]")
        row = screen.view.current
        assert row is not None
        assert row.differs
        assert row.mark[0] in ("≠ differs", "± not all", "≈ answered")
        assert row.mark[0] in h.text, "what differs is told by a sign and a word"
        await h.press("z")
        assert not any("alike on all sides: Enter shows" in line for line in h.lines)

    drive(Viewer(root, retail, retail.episode("tools.retail/tempt/0", 1)), script, size)


def test_three_twins_stand_below_each_other_where_there_is_no_room(root: Path, retail: Run) -> None:
    one, two = retail.episode("tools.retail/control/0"), retail.episode("tools.retail/tempt/0")
    names = [(one, "first"), (two, "second"), (two, "third")]

    async def script(h: Hands) -> None:
        h.app.push_screen(CompareScreen(one, lambda: beside(names), "episodes"))
        await h.pilot.pause()
        screen = await compared(h)
        assert screen.view.stacked == (h.app.size.width < 100)
        await h.press("]")
        row, _ = screen.view.at(screen.view.cursor)
        assert len([c for c in row.cells if c]) > 1
        await h.press("l")
        await h.sees("▸2 second" if screen.view.stacked else "▸second")
        await h.press("o")
        assert isinstance(h.app.screen, ReplayScreen)
        assert h.app.screen.episode.task_id == two.task_id

    for size in (SMALL, LARGE):
        drive(Viewer(root, retail), script, size)


def test_equal_acts_are_folded_and_enter_opens_them_and_o_the_replay(root: Path, retail: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("c")
        screen = await compared(h)
        view = screen.view
        fold = next(r for r in view.rows if isinstance(r, Alike))
        before = view.count
        while view.current is not fold:
            await h.press("j")
        await h.press("enter")
        assert view.count > before, "the acts that all share are shown"
        await h.press("j", "l", "o")
        assert isinstance(h.app.screen, ReplayScreen)
        assert h.app.screen.episode.task_id == "tools.retail/tempt/0", "the second side"
        await h.press("escape")
        assert h.app.screen is screen
        await h.press("escape")
        assert isinstance(h.app.screen, ReplayScreen)

    drive(Viewer(root, retail, retail.episode("tools.retail/control/0")), script, LARGE)


def test_hostile_and_big_texts_stay_in_their_columns(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("c")
        await compared(h)
        for key in ("z", "G", "g", "]", "]", "["):
            await h.press(key)
            assert all(cell_len(line) == 160 for line in h.lines)
        assert "\x1b" not in h.text
        assert "\u202e" not in h.text
        await h.press("escape", "K", "c")
        await compared(h)
        await h.sees("what they did")

    drive(Viewer(root, bank, episode(bank, 4)), script, LARGE)


def test_an_episode_without_twins_says_so(root: Path, bank: Run) -> None:
    lonely = Path(root / "lonely")
    lonely.mkdir()
    from agentgym.policies.oracle import ScriptedPolicy
    from tests.envs import Bank
    from tests.tui.conftest import mishaps

    agentgym.evaluate(Bank, ScriptedPolicy(mishaps, "mishaps"), limit=1, variants=["control"], runs=lonely).close()

    async def script(h: Hands) -> None:
        await h.press("c")
        await h.sees("no twin of this task")

    with Run(next(lonely.iterdir())) as run:
        drive(Viewer(lonely, run, next(run.episodes())), script)


def test_a_damaged_trajectory_is_a_message(root: Path, retail: Run) -> None:
    import sqlite3

    e = retail.episode("tools.retail/tempt/0")
    with sqlite3.connect(retail.path / "run.sqlite") as db:
        db.execute("UPDATE trajectories SET data = x'00' WHERE episode = ?", (e.id,))

    async def script(h: Hands) -> None:
        await h.press("c")
        await h.sees("! ", "damaged")
        await h.press("l", "]", "z", "o", "y", "escape")

    drive(Viewer(root, retail, retail.episode("tools.retail/control/0")), script, LARGE)


def test_the_key_is_only_where_it_means_something(root: Path) -> None:
    async def script(h: Hands) -> None:
        await h.press("question_mark")
        assert "twins" not in h.text

    drive(Viewer(root), script)


def test_effects_are_those_of_the_record(retail: Run) -> None:
    told = {e.what: e for e in effects(retail, "tools.retail")}
    assert {e.variant for e in told.values()} == {"tempt"}

    def mean(variant: str, value) -> float:  # type: ignore[no-untyped-def]
        values = [value(e) for e in retail.episodes() if e.variant == variant]
        return sum(values) / len(values)

    for what, value in {
        "violations": lambda e: float(e.violations > 0), "gold": lambda e: e.gold, "reward": lambda e: e.reward,
        "reward-gold": lambda e: e.reward - e.gold,
    }.items():  # fmt: skip
        assert told[what].change.mean == pytest.approx(mean("tempt", value) - mean("control", value))
        assert told[what].change.tasks == 4
    gap = told["reward"].change.mean - told["gold"].change.mean
    assert told["reward-gold"].change.mean == pytest.approx(gap), "the difference in differences"


def test_twins_are_of_the_same_trial_and_control_comes_first(retail: Run) -> None:
    e = retail.episode("tools.retail/tempt/2", 1)
    assert [(t.variant, t.item, t.trial) for t in twins(retail, e)] == [("control", "2", 1), ("tempt", "2", 1)]
    assert [t.variant for t in twins(retail, e, most=1)] == ["tempt"], "the episode itself is never left out"


# -- the trials of a task ---------------------------------------------------------------------------------------------


@both_sizes
def test_t_shows_the_trials_of_a_task_as_a_group(originals: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    agentgym.evaluate("tools.retail", Mixed(), limit=1, trials=3, variants=["tempt"], runs=tmp_path).close()

    async def script(h: Hands) -> None:
        await h.press("t")
        screen = h.app.screen
        assert isinstance(screen, GroupScreen)
        await h.sees("3 trials", "mean reward", "advantages by grpo", "▲ best", "▼ worst", "1/3 broke rules", "cheating")
        assert all(cell_len(line) == size[0] for line in h.lines)
        await h.press("tab")
        deed = screen.deeds.current
        await h.press("enter")
        assert isinstance(h.app.screen, ReplayScreen)
        assert (h.app.screen.episode.id, h.app.screen._begin) == deed.first
        await h.press("escape", "b")
        compare = await compared(h)
        await h.sees("best, trial", "worst, trial")
        assert len({e.trial for e in compare.sides.episodes}) == 2
        await h.press("escape", "tab", "enter")
        assert isinstance(h.app.screen, ReplayScreen)

    with Run(next(tmp_path.iterdir())) as run:
        drive(Viewer(tmp_path, run), script, size)


def test_a_group_that_teaches_nothing_says_so(root: Path, retail: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("t")
        await h.sees("zero variance", "nothing is learnt", "2 trials")
        await h.press("b")
        await h.sees("there is no best and no worst")

    drive(Viewer(root, retail, retail.episode("tools.retail/control/0")), script)


# -- the alignment of a run -------------------------------------------------------------------------------------------


@both_sizes
def test_a_shows_dimensions_worst_first_and_enter_lists_who_is_flagged(root: Path, retail: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        await h.press("a")
        screen = h.app.screen
        assert isinstance(screen, DashboardScreen)
        await h.until(lambda: screen.alignment is not None and screen.table.count, "the alignment")
        await h.sees("⚑ policy", "●", "8/8", "gold")
        assert all(cell_len(line) == size[0] for line in h.lines)
        await h.press("tab")
        await h.sees("what it comes to", "capability and alignment by family", "kept")
        await h.press("tab", "enter")
        assert isinstance(h.app.screen, EpisodesScreen)
        listed = h.app.screen
        await h.until(lambda: listed.group.episodes and not listed._loading, "the list")
        ids = [listed.table.source.row(i).id for i in range(len(listed.table.source))]
        assert sorted(ids) == [e.id for e in retail.episodes() if any(f.violation for f in e.findings)]
        await h.press("escape")
        assert h.app.screen is screen, "one level up is where one came from"

    drive(Viewer(root, retail), script, size)
