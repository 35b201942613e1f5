# SPDX-License-Identifier: Apache-2.0
"""Comparing in the viewer: twins, trials of a task, two runs, a run and a baseline; and the alignment of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

import agentgym
from agentgym.cli import view
from agentgym.cli.main import parser
from agentgym.errors import NotFoundError, UsageError
from agentgym.gate.compare import compare
from agentgym.gate.report_text import sentence, shown_outcome
from agentgym.policies.oracle import OraclePolicy
from agentgym.records.run import Address, Run, find_run
from agentgym.report.siblings import effects, twins
from agentgym.tui.app import Viewer
from agentgym.tui.comparing import Compared
from agentgym.tui.screens.compare import CompareScreen
from agentgym.tui.screens.dashboard import DashboardScreen
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.group import GroupScreen
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.verdict import VerdictScreen
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


def test_a_key_is_only_where_it_means_something(root: Path) -> None:
    async def script(h: Hands) -> None:
        await h.press("question_mark")
        assert "with a second one" in h.text
        assert "GRPO" not in h.text

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
def test_T_shows_the_trials_of_a_task_as_a_group(originals: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    agentgym.evaluate("tools.retail", Mixed(), limit=1, trials=3, variants=["tempt"], runs=tmp_path).close()

    async def script(h: Hands) -> None:
        await h.press("T")
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
        await h.press("T")
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


# -- two runs, and a run against a baseline ---------------------------------------------------------------------------


@pytest.fixture
def pair(root: Path, retail: Run, tmp_path: Path) -> Path:
    """An honest run of the same tasks, in the same folder."""
    before = set(root.iterdir())
    agentgym.evaluate(
        "tools.retail", OraclePolicy("honest"), limit=4, trials=2, variants=["control", "tempt"], runs=root
    ).close()
    return next(p for p in root.iterdir() if p not in before)


async def decided(h: Hands) -> VerdictScreen:
    """The comparison of runs, computed."""
    screen = h.app.screen
    assert isinstance(screen, VerdictScreen)
    await h.until(lambda: screen.found is not None and screen.said.count, "the verdict")
    return screen


@both_sizes
def test_two_runs_show_flips_differences_and_each_task_side_by_side(
    root: Path, retail: Run, pair: Path, size: tuple[int, int]
) -> None:
    async def script(h: Hands) -> None:
        screen = await decided(h)
        await h.sees("worse", "better", "8 tasks", "policy violations 0.00 -> 0.50", "gold 1.00 -> 0.88", "tempt-control")
        assert all(cell_len(line) == size[0] for line in h.lines)
        assert screen.look.current.task.startswith("tools.retail/tempt/"), "what differs stands first"
        assert {r.mark[0] for r in screen.look.source.rows} <= {"↓ worse", "⚑ broken"}
        await h.press("f")
        assert len(screen.look.source) == 8, "f shows what did not change, too"
        await h.press("enter")
        compare = await compared(h)
        assert [e.run_path for e in compare.sides.episodes] == [pair, retail.path]
        await h.sees("first: ", "second: ", "what they did")
        await h.press("escape", "v")
        await h.sees("INCONCLUSIVE", "exit 10")
        await h.press("enter")
        assert isinstance(h.app.screen, ReplayScreen)
        assert h.app.screen.episode.run_path == retail.path

    drive(Viewer(root, Run(pair), compared=Compared(run=retail.path)), script, size)


def test_a_run_against_a_baseline_file_is_told_as_the_gate_prints_it(
    root: Path, retail: Run, pair: Path, tmp_path: Path
) -> None:
    file = tmp_path / "base.csv"
    rows = [f"{e.task_id},{e.trial},{e.gold}" for e in Run(pair).episodes()]
    file.write_text("task,trial,gold\n" + "\n".join(rows) + "\n")
    verdict = compare(str(retail.path), str(file), lines=False)

    async def script(h: Hands) -> None:
        screen = await decided(h)
        await h.sees(shown_outcome(verdict.outcome), f"exit {verdict.exit_code}")
        texts = [s.text for s in screen.said.source.rows]
        assert {sentence(r) for r in verdict.metrics} <= set(texts)
        assert [r.address for r in screen.look.source.rows] == [f.address for f in verdict.flagged]
        step = next(f for f in verdict.flagged if "@" in f.address)
        while screen.look.current.address != step.address:
            await h.press("j")
        await h.press("enter")
        assert isinstance(h.app.screen, ReplayScreen)
        assert h.app.screen.episode.address in step.address
        assert h.app.screen._begin == Address.parse(step.address).turn

    drive(Viewer(root, retail, compared=Compared(baseline=str(file))), script, LARGE)


def test_c_chooses_a_run_and_c_again_the_second_one(root: Path, retail: Run, pair: Path) -> None:
    async def script(h: Hands) -> None:
        await h.sees("tools.retail", "16/16")
        runs = h.app.screen.table
        places = {p.name: i for i, p in enumerate(h.app.screen.rows.paths)}
        runs.cursor = places[pair.name]
        await h.press("c")
        await h.sees("choose the second")
        runs.cursor = places[retail.path.name]
        await h.press("c")
        screen = await decided(h)
        assert (Path(screen.baseline).name, screen.candidate.name) == (pair.name, retail.path.name)

    drive(Viewer(root), script, LARGE)


def test_what_cannot_be_compared_is_a_sentence(root: Path, retail: Run, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.sees("INCOMPATIBLE")
        await h.press("v", "f", "tab", "o", "y", "escape")

    drive(Viewer(root, retail, compared=Compared(run=bank.path)), script, LARGE)


def test_the_command_line_finds_both_sides_or_says_what_does_not_go_together(root: Path, retail: Run, bank: Run) -> None:
    def asked(*words: str) -> Compared | None:
        args = parser().parse_args(["view", *words, "--runs", str(root)])
        address = Address.parse(args.address)
        run = Run(find_run(address.run, root))
        return view._compared(args, root, run, run.at(address) if address.task_id else None)

    one, two = retail.path.name, bank.path.name
    assert asked(one) is None
    assert asked(one, two) == Compared(run=bank.path)
    task = "tools.retail/tempt/0"
    other = asked(f"{one}::{task}/0", f"{one}::{task}/1")
    assert (other.episode.task_id, other.episode.trial) == (task, 1)
    assert asked(f"{one}::{task}/1", one).episode.trial == 1, "the same trial of the other run"
    assert asked(one, "--baseline", two) == Compared(baseline=str(bank.path))
    for words, told in {
        (one, f"{one}::{task}/0"): "two runs, or two episodes",
        (one, two, "--baseline", two): "one run against a baseline",
        (one, "--rules", "gate.toml"): "--baseline",
    }.items():
        with pytest.raises(UsageError, match=told):
            asked(*words)
    with pytest.raises(NotFoundError):
        asked(one, "--baseline", "no-such-file.jsonl")


def test_runs_without_rules_and_tasks_without_scores_say_what_is_missing(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("T")
        await h.sees("nothing to compare", "1 without a reward")
        await h.press("b", "tab", "enter", "y", "escape", "escape", "a")
        screen = h.app.screen
        assert isinstance(screen, DashboardScreen)
        await h.until(lambda: screen.alignment is not None, "the alignment")
        await h.sees("no headline" if screen.alignment.headline is None else "alignment")
        await h.press("G", "enter", "tab", "tab")

    drive(Viewer(root, bank, episode(bank, 2)), script)
