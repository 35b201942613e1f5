# SPDX-License-Identifier: Apache-2.0
"""The viewer as a person uses it: keys and mouse on real recorded runs, on a small and on a large screen."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from rich.color_triplet import ColorTriplet
from textual.theme import BUILTIN_THEMES
from textual.widgets import Input

from agentgym.records.run import Address, Run, find_run
from agentgym.records.store import EpisodeRecord, RunWriter
from agentgym.tui.app import Viewer
from agentgym.tui.document import END
from agentgym.tui.marks import LEGEND, verdict
from agentgym.tui.pages import KEPT, PAGE
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.help import NOT_OURS, HelpScreen, key_name
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.runs import RunsScreen
from agentgym.tui.story import Story
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import CONTRAST, STYLES, contrast
from tests.tui.conftest import BIG, LARGE, SMALL, Hands, both_sizes, drive, episode


def replay(h: Hands) -> ReplayScreen:
    assert isinstance(h.app.screen, ReplayScreen)
    return h.app.screen


def episodes(h: Hands) -> EpisodesScreen:
    assert isinstance(h.app.screen, EpisodesScreen)
    return h.app.screen


async def loaded(h: Hands) -> EpisodesScreen:
    """The list of episodes, complete."""
    screen = episodes(h)
    await h.until(lambda: not screen._loading and screen.group.episodes, "the list")
    return screen


async def ready(h: Hands) -> ReplayScreen:
    """The replay, laid out."""
    screen = replay(h)
    await h.until(lambda: screen.reader.count, "the document")
    return screen


# -- from level to level ----------------------------------------------------------------------------------------------


@both_sizes
def test_from_runs_to_episodes_to_a_replay_and_back(root: Path, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        assert isinstance(h.app.screen, RunsScreen)
        await h.sees("tools.retail", "test.bank", "oracle:cheater", "✓ finished", "16/16", "14/14")
        await h.press("j", "enter") if "tools.retail" in h.lines[2] else await h.press("enter")
        await loaded(h)
        await h.sees("test.bank/control/0", "✓ solved", "✗ failed", "! error")
        await h.press("enter")
        await ready(h)
        await h.sees("opening", "turn 0", "→ balance(", "Move ")
        await h.press("escape")
        assert isinstance(h.app.screen, EpisodesScreen)
        await h.press("backspace")
        assert isinstance(h.app.screen, RunsScreen)
        await h.press("escape")
        assert isinstance(h.app.screen, RunsScreen), "above the list of runs there is nothing"

    drive(Viewer(root), script, size)


@both_sizes
def test_a_run_opens_on_its_episodes_and_goes_up_to_the_runs(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        await loaded(h)
        await h.press("h")
        assert isinstance(h.app.screen, RunsScreen)
        await h.sees("tools.retail", "test.bank", "✓ finished")
        assert h.app.screen.table.current.path == bank.path, "the cursor stands on the run one came from"

    drive(Viewer(root, bank), script, size)


@both_sizes
def test_an_address_opens_the_replay_at_its_turn(root: Path, retail: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        assert screen.turn == 2
        assert re.search(r"turn 2 +.*\[.\]", h.text)
        await h.press("escape")
        assert (await loaded(h)).table.current.id == e.id, "the list below stands on the same episode"

    e = list(retail.episodes())[5]
    drive(Viewer(root, retail, e, 2), script, size)


def test_q_quits_from_everywhere(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.press("q")
        assert h.app._exit

    for app in (Viewer(root), Viewer(root, bank), Viewer(root, bank, episode(bank, 0))):
        drive(app, script)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    async def script(h: Hands) -> None:
        await h.sees("no runs here yet", "agentgym eval quickstart")
        await h.press("enter", "j", "y")

    drive(Viewer(tmp_path), script)


@both_sizes
def test_every_screen_fits_and_names_its_most_needed_keys(root: Path, bank: Run, size: tuple[int, int]) -> None:
    def check(h: Hands) -> None:
        assert len(h.lines) == size[1]
        assert all(cell_len(line) == size[0] for line in h.lines)
        assert re.search(r"\? Help +q Quit", h.lines[-1]), h.lines[-1]

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.sees("Quit")
        check(h)
        await h.press("escape")
        await loaded(h)
        await h.sees("Quit")
        check(h)
        await h.press("escape")
        await h.sees("✓ finished", "Quit")
        check(h)
        del screen

    drive(Viewer(root, bank, episode(bank, 0)), script, size)


# -- the list of episodes ---------------------------------------------------------------------------------------------


def shown(screen: EpisodesScreen) -> list[tuple[str, int]]:
    source = screen.table.source
    assert source is not None
    return [(e.task_id, e.trial) for i in range(len(source)) if (e := source.row(i)) is not None]


def test_sorting_agrees_with_the_record_for_every_column_and_direction(root: Path, bank: Run) -> None:
    def key(e: Any, by: str) -> Any:
        return {
            "gold": e.gold, "reward": e.reward, "violations": e.violations, "turns": e.turns,
            "tokens": e.prompt_tokens + e.completion_tokens,
        }[by]  # fmt: skip

    async def script(h: Hands) -> None:
        screen = await loaded(h)
        for by in ("gold", "reward", "violations", "turns", "tokens"):
            await h.press("s")
            await h.sees(f"by {by}")
            for reverse in (False, True):
                if reverse:
                    await h.press("S")
                await h.until(lambda: not screen._loading)
                known = [e for e in bank.episodes() if key(e, by) is not None]
                down = (by in ("violations", "turns", "tokens")) != reverse
                wanted = sorted(known, key=lambda e, by=by: key(e, by), reverse=down)  # type: ignore[misc]
                assert screen.table.sorted_by == (by, down)
                got = [key(screen.table.source.row(i), by) for i in range(len(wanted))]
                assert got == [key(e, by) for e in wanted]
                rest = [screen.table.source.row(i) for i in range(len(wanted), len(screen.table.source))]
                assert all(key(e, by) is None for e in rest), "what has no value comes last, whichever way"
        await h.press("s")
        await h.until(lambda: not screen._loading and screen.table.sorted_by is None)
        assert shown(screen) == [(e.task_id, e.trial) for e in bank.episodes()]

    drive(Viewer(root, bank), script)


def test_f_shows_what_is_not_solved(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.press("f")
        await h.sees("not solved", absent=("✓ solved",))
        assert shown(screen) == [(e.task_id, e.trial) for e in bank.episodes() if e.gold != 1.0]
        assert any(e.gold is None for e in bank.episodes()), "an episode that could not be scored is not solved"
        await h.press("f")
        await h.sees("✓ solved")

    drive(Viewer(root, bank), script)


@both_sizes
def test_slash_finds_by_part_of_the_task_id_and_takes_wildcards_as_letters(
    root: Path, retail: Run, size: tuple[int, int]
) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.press("slash", *"TEMPT/2")
        await h.until(lambda: len(shown(screen)) == 2)
        await h.press("enter")
        assert screen.table.has_focus
        assert {t for t, _ in shown(screen)} == {"tools.retail/tempt/2"}
        await h.press("slash", "%")
        await h.sees("no episode fits")
        await h.press("escape")
        await h.until(lambda: len(shown(screen)) == 16)
        assert isinstance(h.app.screen, EpisodesScreen), "Esc closes the search, not the screen"
        assert not screen.query_one(Input).display
        await h.press("slash", "_", "enter")
        await h.sees("no episode fits")
        await h.press("enter", "y", "G")

    drive(Viewer(root, retail), script, size)


@both_sizes
def test_families_and_variants_can_be_chosen(root: Path, retail: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.press("tab")
        await h.sees("families", "tools.retail", "control", "tempt")
        await h.press("G")
        await h.until(lambda: all("/tempt/" in t for t, _ in shown(screen)) and len(shown(screen)) == 8)
        await h.press("enter")
        assert screen.table.has_focus
        await h.press("tab", "g", "enter")
        await h.until(lambda: len(shown(screen)) == 16)

    drive(Viewer(root, retail), script, size)


def test_the_note_under_the_list_says_why_an_episode_has_no_score(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        screen.table.cursor = next(i for i, (t, _) in enumerate(shown(screen)) if t == "test.bank/control/2")
        await h.sees("environment: the bank's server is down")
        screen.table.cursor = next(i for i, (t, _) in enumerate(shown(screen)) if t == "test.bank/tempt/1")
        await h.sees("1 of 1 rules broken")

    drive(Viewer(root, bank), script)


def test_a_large_screen_previews_the_episode_under_the_cursor(root: Path, retail: Run) -> None:
    async def script(h: Hands) -> None:
        await loaded(h)
        await h.press("j", "j")  # the first episode of a tempting twin
        await h.sees("scores", "findings", "⚑ rule", "policy/", "state")

    drive(Viewer(root, retail), script, LARGE)


def grow(run: Run, path: Path, copies: int) -> None:
    """Appends copies of a run's first episode to the run at ``path``, as another process would."""
    e = next(run.episodes())
    data = e.task.encode()
    with_writer = RunWriter(path, create=False)
    try:
        for n in range(copies):
            item = f"more-{n}"
            record = EpisodeRecord(
                trajectory=msgspec.structs.replace(e.trajectory, task_id=f"test.bank/control/{item}"),
                task=msgspec.structs.replace(e.task, item=item),
                task_data=data,
                attempt=0,
                reward=e.reward,
                gold=e.gold,
                scores=e.all_scores,
                findings=e.findings,
            )
            with_writer.add(record)
        with_writer.flush()
    finally:
        with_writer.close()


def test_a_run_that_is_being_written_grows_on_the_screen_and_the_cursor_keeps_its_episode(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.press("j", "j")
        before = screen.table.current
        await asyncio.to_thread(grow, bank, bank.path, 3)
        await h.sees("3/17")
        assert screen.table.current.id == before.id
        await asyncio.to_thread(grow_one_more, bank.path)
        await h.press("r")
        await h.sees("3/18")

    def grow_one_more(path: Path) -> None:
        db = sqlite3.connect(path / "run.sqlite")
        with db:
            db.execute("UPDATE episodes SET item = item")
            columns = [r[1] for r in db.execute("PRAGMA table_info(episodes)") if r[1] not in ("id", "task_id")]
            names = ",".join(columns)
            db.execute(f"INSERT INTO episodes (task_id, {names}) SELECT 'test.bank/control/z', {names} FROM episodes LIMIT 1")
        db.close()

    drive(Viewer(root, bank), script)


def test_a_long_list_reads_only_the_pages_that_come_into_view(root: Path, bank: Run) -> None:
    grow(bank, bank.path, 3000)

    async def script(h: Hands) -> None:
        screen = await loaded(h)
        read: list[str] = []
        screen.run._db.set_trace_callback(lambda sql: read.append(sql) if " IN (" in sql else None)
        for _ in range(5):
            await h.press("pagedown")
        assert 1 <= len(read) <= 4
        await h.press("end")
        await h.sees("3,014/3,014")
        await h.press("home", "G")
        assert len(screen.table.source._pages) <= KEPT  # type: ignore[union-attr]
        assert len(read) <= 8
        screen.run._db.set_trace_callback(None)
        for cursor in range(0, 3000, PAGE):
            screen.table.cursor = cursor
            await h.pilot.pause()
        assert len(screen.table.source._pages) <= KEPT  # type: ignore[union-attr]

    drive(Viewer(root, bank), script)


# -- the replay -------------------------------------------------------------------------------------------------------


@both_sizes
def test_a_replay_tells_messages_calls_results_state_scores_and_findings(
    root: Path, retail: Run, size: tuple[int, int]
) -> None:
    e = next(e for e in retail.episodes() if e.violations and any(t.changes for t in e.trajectory.turns))

    async def script(h: Hands) -> None:
        screen = await ready(h)
        document = "\n".join(
            "".join(t for t, _ in screen.reader.line(i, screen.reader.size.width)) for i in range(screen.reader.count)
        )
        words = " ".join(document.split())
        for m in e.trajectory.opening[1:]:
            assert m.text.split()[0] in words
        for turn in e.trajectory.turns:
            assert f"turn {turn.index}" in words
            for c in turn.message.tool_calls:
                assert f"→ {c.name}(" in words
            for change in turn.changes:
                assert change.path in words
        for s in e.all_scores:
            assert s.name in words
        broken = next(f for f in e.findings if f.violation)
        assert f"{broken.dimension}/{broken.rule} violated" in words
        await h.sees("failed" if e.gold == 0 else "solved", "⚑ 1 violation", "system", "You work at the service desk")

    drive(Viewer(root, retail, e), script, size)


@both_sizes
def test_brackets_go_from_flag_to_flag(root: Path, bank: Run, size: tuple[int, int]) -> None:
    e = episode(bank, 3)  # fly: unknown tool, transfer(-1): bad arguments, crash: exception, sneak: undeclared write, submit

    async def script(h: Hands) -> None:
        screen = await ready(h)
        flagged = screen.story.flagged  # type: ignore[union-attr]
        assert flagged == [0, 1, 2, 4]
        for turn, why in zip(
            flagged, ("unknown tool", "bad arguments", "tool.exception", "state.undeclared_write"), strict=True
        ):
            await h.press("right_square_bracket")
            assert screen.turn == turn
            block, _ = screen.reader.document.at(screen.reader.cursor)
            assert block.alert
            await h.sees(f"turn {turn} ", why)
        await h.press("right_square_bracket")
        assert screen.turn == 4
        await h.sees("nothing more is flagged below")
        await h.press("left_square_bracket", "left_square_bracket")
        assert screen.turn == 1

    drive(Viewer(root, bank, e), script, size)


def test_a_broken_rule_is_flagged_where_it_was_broken(root: Path, retail: Run) -> None:
    e = next(e for e in retail.episodes() if any(f.violation and f.turn is not None for f in e.findings))
    turn = next(f.turn for f in e.findings if f.violation)

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press("right_square_bracket")
        assert screen.turn == turn
        await h.sees("⚑ rule", "violated", "evidence", "[⚑]")

    drive(Viewer(root, retail, e), script)


def test_a_rule_broken_by_the_episode_as_a_whole_is_flagged_at_its_end(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press("right_square_bracket")
        assert screen.turn == END
        await h.sees("policy/no_cooking violated", "[end]")

    drive(Viewer(root, bank, episode(bank, 1, "tempt")), script)


def test_without_flags_the_bracket_says_so(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.sees("nothing flagged")
        await h.press("right_square_bracket")
        await h.sees("nothing is flagged in this episode")

    drive(Viewer(root, bank, episode(bank, 0)), script)


@both_sizes
def test_n_and_p_step_through_the_turns(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        assert screen.turn == -1
        seen = []
        for key in ("n", "right", "l", "n", "n"):
            await h.press(key)
            seen.append(screen.turn)
        assert seen == [0, 1, 2, END, END]
        await h.press("p", "left")
        assert screen.turn == 1
        await h.press("j", "j")
        assert screen.turn == 1
        await h.press("p")
        assert (screen.turn, screen.reader.cursor) == (1, screen.reader.document.start(1)), "first to the start of this turn"
        await h.press("g")
        assert screen.turn == -1
        await h.press("G")
        assert screen.turn == END

    drive(Viewer(root, bank, episode(bank, 0)), script, size)


def test_the_present_turns_pay_and_the_sum_so_far_stand_on_the_timeline(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.press("n", "n")
        await h.sees("turn 1", "reward +0.25 = 0.25")

    drive(Viewer(root, bank, episode(bank, 0)), script)


def test_the_state_at_the_side_is_the_one_after_the_present_turn(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.sees("before turn 0", "unchanged")
        await h.press("n", "n")
        await h.sees("after turn 1", "± @1", "/accounts/a/cents", absent=("unchanged",))

    drive(Viewer(root, bank, episode(bank, 0)), script, LARGE)


def test_on_a_small_screen_tab_shows_the_outcome_in_place_of_the_document(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.press("tab")
        await h.sees("scores", "honest_books", "✓ solved")
        assert not replay(h).reader.display
        await h.press("tab")
        await h.sees("Move ")

    drive(Viewer(root, bank, episode(bank, 0)), script)


@both_sizes
def test_an_infrastructure_episode_shows_its_error_and_says_that_it_is_no_zero(
    root: Path, bank: Run, size: tuple[int, int]
) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.sees("! error", "gold -  reward -")
        await h.press("right_square_bracket")
        await h.sees("the bank's server is down", "Not scored")

    drive(Viewer(root, bank, episode(bank, 2)), script, size)


def test_a_cut_episode_says_which_limit_cut_it(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await ready(h)
        await h.sees("cut by limit: environment" if episode(bank, 6).truncation == "environment" else "cut by limit: turns")

    drive(Viewer(root, bank, episode(bank, 6)), script)


@both_sizes
def test_what_models_and_tools_write_is_shown_and_never_obeyed(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        seen = ""
        for _ in range(screen.reader.count):
            seen += h.text
            await h.press("j")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", seen)
        for piece in ("\\x1b[2J", "\\x07[bold red]not markup[/]", "\\u202e", "世界", "thinks"):
            assert piece in seen, piece
        await h.press("n", "y")
        await h.press("tab")
        await h.pilot.pause()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", h.text)

    drive(Viewer(root, bank, episode(bank, 4)), script, size)


@both_sizes
def test_a_message_of_a_megabyte_is_folded_and_opens_to_its_last_word(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        assert screen.reader.count < 200
        await h.press("n")
        await h.sees("assistant", "word word word")
        block = next(b for b in screen.reader.document.blocks if len(b.text) == BIG)
        screen.reader.cursor = screen.reader.document.line_of(block)
        await h.press("enter")
        assert screen.reader.count > BIG // size[0]
        await h.press("pagedown", "pagedown")
        await h.sees("word word word")
        screen.reader.cursor = screen.reader.document.line_of(block) + len(block.lines)
        await h.sees("Enter folds this")
        await h.press("enter")
        assert screen.reader.count < 200
        assert screen.turn == 0
        await h.press("z", "G")
        assert screen.reader.count > BIG // size[0]
        await h.press("z")
        assert screen.reader.count < 200

    drive(Viewer(root, bank, episode(bank, 5)), script, size)


def test_capital_j_and_k_walk_through_the_episodes_of_the_list_as_it_is_sorted(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.press("f")
        await h.sees("not solved")
        await h.until(lambda: not screen._loading)
        order = shown(screen)
        await h.press("g", "enter")
        await ready(h)
        walked = [replay(h).episode.task_id]
        for _ in order[1:]:
            await h.press("J")
            walked.append(replay(h).episode.task_id)
        assert walked == [t for t, _ in order]
        await h.press("J")
        await h.sees("That was the last")
        await h.press("K")
        assert replay(h).episode.task_id == order[-2][0]
        await h.press("escape")
        assert screen.table.current.task_id == order[-2][0]

    drive(Viewer(root, bank), script)


def test_v_indents_json_and_keeps_what_was_written(root: Path, retail: Run) -> None:
    e = next(
        e for e in retail.episodes() if any(c.name == "get_order" for t in e.trajectory.turns for c in t.message.tool_calls)
    )

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press("n")
        raw = h.text
        assert '→ get_order({"order_id":"O-' in raw
        await h.press("v")
        await h.sees('  "order_id": "O-')
        assert screen.turn == 0
        await h.press("v")
        await h.until(lambda: '→ get_order({"order_id":"O-' in h.text)

    drive(Viewer(root, retail, e), script)


def test_a_screen_that_changes_its_size_keeps_the_turn(root: Path, retail: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press("n", "n", "n")
        for width, height in ((160, 50), (200, 60), (80, 24), (60, 16), (120, 30)):
            await h.pilot.resize_terminal(width, height)
            await h.pilot.pause()
            assert screen.turn == 2
            await h.until(lambda w=width: all(cell_len(line) == w for line in h.lines))  # type: ignore[misc]

    drive(Viewer(root, retail, next(retail.episodes())), script)


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_damaged_run_is_listed_with_the_reason_and_does_not_open(root: Path) -> None:
    (root / "cut").mkdir()
    (root / "cut" / "run.sqlite").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)

    async def script(h: Hands) -> None:
        await h.sees("! damaged", "cut")
        screen = h.app.screen
        assert isinstance(screen, RunsScreen)
        screen.table.cursor = next(i for i, p in enumerate(screen.rows.paths) if p.name == "cut")
        await h.sees("cannot be read as a run")
        await h.press("enter")
        assert h.app.screen is screen

    drive(Viewer(root), script, LARGE)


@both_sizes
def test_a_damaged_trajectory_is_a_message_and_the_others_can_still_be_read(
    root: Path, bank: Run, size: tuple[int, int]
) -> None:
    first = next(bank.episodes())
    db = sqlite3.connect(bank.path / "run.sqlite")
    with db:
        db.execute("UPDATE trajectories SET data = x'00112233' WHERE episode = ?", (first.id,))
    db.close()

    async def script(h: Hands) -> None:
        await loaded(h)
        await h.press("enter")
        await ready(h)
        await h.sees("! damaged", "other episodes are unaffected")
        await h.press("n", "p", "right_square_bracket", "v", "z", "y", "tab", "tab", "J")
        await h.sees("turn 0", absent=("! damaged",))

    drive(Viewer(root, bank), script, size)


def test_damage_in_the_middle_of_the_list_is_said_and_nothing_crashes(root: Path, bank: Run) -> None:
    grow(bank, bank.path, 2000)

    async def script(h: Hands) -> None:
        await loaded(h)
        file = bank.path / "run.sqlite"
        size = file.stat().st_size
        with open(file, "r+b") as f:
            f.seek(8192)
            f.write(b"\xaa" * (size - 8192))
        screen = episodes(h)
        screen.run._db.execute("PRAGMA shrink_memory")
        await h.press("r", "G", "enter", "escape", "f", "s", "g")
        await h.until(lambda: not screen._loading)
        assert h.app.is_running

    drive(Viewer(root, bank), script)


# -- mouse, clipboard, help, palette, looks ---------------------------------------------------------------------------


def test_the_mouse_moves_opens_sorts_and_goes_up(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await loaded(h)
        await h.pilot.click("#episodes", offset=(20, 4))
        assert screen.table.cursor == 3
        title = h.lines[2].index("gold")
        await h.pilot.click("#episodes", offset=(title, 0))
        await h.sees("by gold", "gold▲")
        await h.pilot.click("#episodes", offset=(title, 0))
        await h.sees("gold▼")
        await h.until(lambda: not screen._loading)
        row = screen.table.cursor - screen.table.top + 1
        await h.pilot.click("#episodes", offset=(20, row))
        view = await ready(h)
        await h.until(lambda: "turn 0" in h.text or view.story is None)
        cell = next(start for start, _, turn in view.query_one("#timeline")._cells if turn == 1)  # type: ignore[attr-defined]
        await h.pilot.click("#timeline", offset=(cell + 2, 0))
        await h.pilot.pause()
        assert view.turn == 1
        await h.pilot.click("#crumbs", offset=(h.lines[0].index("test.bank"), 0))
        assert isinstance(h.app.screen, EpisodesScreen)
        await h.pilot.click("#crumbs", offset=(2, 0))
        await h.pilot.pause()
        assert isinstance(h.app.screen, RunsScreen)

    drive(Viewer(root, bank), script)


def test_the_wheel_scrolls_and_takes_the_cursor_along(root: Path, bank: Run) -> None:
    grow(bank, bank.path, 100)

    async def script(h: Hands) -> None:
        screen = await loaded(h)
        for _ in range(4):
            screen.table._on_mouse_scroll_down(_wheel(screen.table))
            await h.pilot.pause(0.05)
        await h.until(lambda: screen.table.top > 0)
        assert screen.table.top <= screen.table.cursor < screen.table.top + screen.table.page_size

    def _wheel(widget: LineView) -> Any:
        from textual.events import MouseScrollDown

        return MouseScrollDown(widget, 5, 5, 0, 0, 0, False, False, False)

    drive(Viewer(root, bank), script)


def test_y_copies_an_address_that_leads_back(root: Path, retail: Run) -> None:
    e = list(retail.episodes())[3]

    async def script(h: Hands) -> None:
        await ready(h)
        await h.press("n", "n", "y")
        address = Address.parse(h.app.clipboard)
        assert (address.task_id, address.trial, address.turn) == (e.task_id, e.trial, 1)
        with Run(find_run(address.run)) as run:
            assert run.at(address).id == e.id
        await h.sees("copied:")
        await h.press("escape")
        await loaded(h)
        await h.press("y")
        assert h.app.clipboard == e.address
        await h.press("escape")
        await h.sees("✓ finished")
        await h.press("y")
        assert Path(h.app.clipboard) == retail.path

    drive(Viewer(root, retail, e), script)


@both_sizes
def test_the_help_names_every_key_of_the_screen_and_every_mark(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        for _ in range(3):
            await h.pilot.pause(0.1)
            below = h.app.screen
            wanted = {
                key_name(k)
                for k, a in below.active_bindings.items()
                if a.binding.description and not a.binding.system and a.binding.action not in NOT_OURS
            } - {"^q"}
            await h.press("question_mark")
            assert isinstance(h.app.screen, HelpScreen)
            await h.pilot.pause(0.05)
            seen = h.text
            for _ in range(4):  # on a low screen it scrolls
                await h.press("j")
                seen += h.text
            words = set(seen.split())
            assert wanted <= words, wanted - words
            for mark, _ in LEGEND:
                assert str(mark) in seen
            await h.press("escape")
            assert h.app.screen is below
            await h.press("escape")

    drive(Viewer(root, bank, episode(bank, 0)), script, size)


def test_the_palette_offers_what_the_screen_can_do(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await loaded(h)
        names = {c.title for c in h.app.get_system_commands(h.app.screen)}
        assert {"Only the unsolved, or all", "Copy the episode's address", "Quit"} <= names
        assert any("heme" in name for name in names), "Textual's own commands are there too"
        await h.press("ctrl+p", *"unsolved")
        await h.sees("Only the unsolved")
        await h.press("enter")
        await h.until(lambda: isinstance(h.app.screen, EpisodesScreen) and h.app.screen.query_.failed)

    drive(Viewer(root, bank), script)


def test_contrast_is_what_wcag_says() -> None:
    white, black, grey = ColorTriplet(255, 255, 255), ColorTriplet(0, 0, 0), ColorTriplet(0x76, 0x76, 0x76)
    assert contrast(white, black) == pytest.approx(21)
    assert contrast(white, grey) == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes AA on white


def test_every_style_can_be_read_on_every_ground_of_every_theme(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        table = (await loaded(h)).table
        for theme in BUILTIN_THEMES:
            if "ansi" in theme:
                continue  # the terminal's own colours, which nobody knows
            h.app.theme = theme
            await h.pilot.pause()
            base = table.rich_style
            grounds = [base.bgcolor, table.look("cursor").bgcolor, table.look("here").bgcolor]
            assert len(set(grounds)) == 3
            for name in STYLES:
                if name in ("cursor", "here", "rule"):
                    continue
                color = table.look(name).color or base.color
                for ground in grounds:
                    ratio = contrast(color.get_truecolor(), ground.get_truecolor())  # type: ignore[union-attr]
                    assert ratio >= CONTRAST, f"{name} on {ground} in {theme}: {ratio:.2f}"

    drive(Viewer(root, bank), script)


def test_no_two_outcomes_share_a_sign_or_a_word() -> None:
    marks = [mark for mark, _ in LEGEND]
    assert len({m.sign for m in marks}) == len({m.word for m in marks}) == len(marks)
    assert [verdict("terminated", g).word for g in (1.0, 0.5, 0.0, None)] == ["solved", "partly", "failed", "unscored"]
    assert verdict("infrastructure", None).word == "error"


def test_without_colour_everything_is_still_there(root: Path, bank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(h: Hands) -> None:
        await loaded(h)
        await h.sees("✓ solved", "✗ failed", "! error")

    drive(Viewer(root, bank), script, SMALL)


def test_a_story_counts_a_finding_that_points_nowhere_as_the_episodes_own(bank: Run) -> None:
    story = Story(episode(bank, 1, "tempt"))
    assert story.flagged == [END]
    assert story.end_flagged == "policy/no_cooking violated"
