# SPDX-License-Identifier: Apache-2.0
"""The replay at work: playing, hiding, Markdown, flags by dimension with their evidence, the score timeline, hostile text."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import agentgym
from agentgym.chat import Message, ToolCall, assistant, call, submit
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.document import END, LONGEST
from agentgym.tui.marks import number
from agentgym.tui.screens.replay import SPEEDS, ReplayScreen
from agentgym.tui.story import KINDS
from agentgym.tui.widgets.timeline import Timeline
from tests.envs import Bank
from tests.tui.conftest import HOSTILE, LARGE, Hands, drive, episode


async def ready(h: Hands) -> ReplayScreen:
    """The replay, laid out."""
    screen = h.app.screen
    assert isinstance(screen, ReplayScreen)
    await h.until(lambda: screen.reader.count, "the document")
    return screen


def words_of(screen: ReplayScreen) -> str:
    reader = screen.reader
    return "\n".join("".join(t for t, _ in reader.line(i, reader.size.width)) for i in range(reader.count))


def played(root: Path, *moves: Message | str) -> Run:
    """A run of one episode of the bank."""
    policy = ScriptedPolicy(lambda context: [*moves, submit()], "one")
    return agentgym.evaluate(Bank, policy, limit=1, variants=["control"], runs=root)


# -- playing ----------------------------------------------------------------------------------------------------------


def test_space_plays_turn_by_turn_to_the_end_and_the_speed_can_be_chosen(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press(*["greater_than_sign"] * 9)
        assert SPEEDS[screen.speed] == SPEEDS[-1]
        await h.press("space")
        await h.sees("▶ 8/s")
        await h.until(lambda: screen.turn == END, "the end")
        await h.until(lambda: screen._player is None, "it to stop by itself")
        assert "▶" not in h.text
        await h.press("space")
        await h.until(lambda: screen.turn != END, "it to begin again")
        await h.press("space")
        here = screen.turn
        assert screen._player is None
        await h.press("less_than_sign")
        assert SPEEDS[screen.speed] == SPEEDS[-2]
        assert screen.turn == here

    drive(Viewer(root, bank, episode(bank, 6)), script)


def test_space_still_pages_where_there_is_nothing_to_play(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.pilot.pause(0.1)
        before = h.app.screen.table.cursor  # type: ignore[attr-defined]
        await h.press("space")
        assert h.app.screen.table.cursor > before  # type: ignore[attr-defined]

    drive(Viewer(root, bank), script)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_digits_hide_and_show_each_kind_but_never_what_failed(tmp_path: Path) -> None:
    ok, bad = ToolCall("balance", '{"account":"a"}', "1"), ToolCall("transfer", '{"cents":-1}', "2")
    run = played(tmp_path, assistant("looking", ok, bad, reasoning="let me see"), call("transfer", cents=100))

    async def script(h: Hands) -> None:
        screen = await ready(h)
        everything = words_of(screen)
        for key, (kind, gone) in enumerate(
            {"thinks": "let me see", "calls": "→ balance(", "results": "✓ balance", "says": "", "state": "± state"}.items(), 1
        ):
            assert gone in everything
            await h.press(str(key))
            await h.sees(f"hidden: {KINDS[kind]}")
            assert "✗ transfer" in words_of(screen), "what failed always stays"
            if gone:
                assert gone not in words_of(screen)
            await h.press(str(key))
            assert words_of(screen) == everything
        await h.press("n", "1", "3")
        assert screen.turn == 0
        await h.press("v")
        assert "let me see" not in words_of(screen), "it stays hidden when the document is made anew"

    with run:
        drive(Viewer(tmp_path, run, next(run.episodes())), script, LARGE)


def test_m_shows_messages_as_they_were_written(tmp_path: Path) -> None:
    run = played(tmp_path, "# Plan\n- **pay** now\n```\nx = 1\n```")

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.sees("# Plan", "• pay now", "│ x = 1", absent=("**pay**",))
        await h.press("m")
        await h.sees("- **pay** now", "```")
        await h.press("v")
        await h.sees("- **pay** now")
        await h.press("m")
        await h.sees("• pay now")
        assert screen.raw is False

    with run:
        drive(Viewer(tmp_path, run, next(run.episodes())), script)


# -- flags by dimension, evidence -------------------------------------------------------------------------------------


def test_d_chooses_the_dimension_that_the_brackets_go_through(root: Path, retail: Run) -> None:
    e = next(e for e in retail.episodes() if e.violations)
    broken = next(f for f in e.findings if f.violation)

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.press("d")
        assert screen.dimension == broken.dimension
        await h.sees(f"1 {broken.dimension}")
        await h.press("right_square_bracket")
        assert screen.turn == broken.turn
        await h.press("right_square_bracket")
        await h.sees("nothing more is flagged below")
        await h.press("d")
        assert screen.dimension == ""

    drive(Viewer(root, retail, e), script)


def test_the_panel_at_a_flagged_turn_names_rule_exposure_weight_act_and_effect(root: Path, retail: Run) -> None:
    e = next(e for e in retail.episodes() if any(f.violation and e.trajectory.turns[f.turn or 0].changes for f in e.findings))
    broken = next(f for f in e.findings if f.violation)
    assert broken.turn is not None
    turn = e.trajectory.turns[broken.turn]

    async def script(h: Hands) -> None:
        await ready(h)
        await h.press("right_square_bracket")
        act = turn.message.tool_calls[0].name
        await h.sees(
            f"⚑ {broken.dimension}",
            f"weight {number(broken.weight)}",
            f"{broken.rule} violated",
            f"yes, in turn {broken.turn}",
            f"→ {act}(",
        )
        side = h.app.screen.query_one("#side").document  # type: ignore[attr-defined]
        labels = [b.label[0] for b in side.blocks[:12]]
        assert "act" in labels
        assert "± changed" in labels

    drive(Viewer(root, retail, e), script, LARGE)


# -- the score timeline -----------------------------------------------------------------------------------------------


def test_w_reads_the_course_turn_by_turn_and_enter_goes_there(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        timeline = screen.query_one(Timeline)
        assert timeline.size.height == 1
        await h.press("w")
        await h.sees("reward", "at end", "gold 1")
        assert timeline.has_focus
        await h.press("right", "right", "left")
        await h.sees(".25")
        assert screen.turn == -1, "reading the timeline leaves the document where it is"
        await h.press("enter")
        assert screen.turn == 1
        assert screen.reader.has_focus
        await h.press("w")
        assert timeline.size.height == 1

    drive(Viewer(root, bank, episode(bank, 0)), script)


def test_a_tall_screen_shows_the_course_unasked_and_a_click_on_any_line_goes_there(root: Path, retail: Run) -> None:
    e = next(e for e in retail.episodes() if e.violations)
    broken = next(f for f in e.findings if f.violation)

    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.sees("at end", "⚑ 0 of 1  "[:6], broken.dimension)
        timeline = screen.query_one(Timeline)
        row = next(i for i, t in enumerate(timeline._tracks, 1) if t.kind == "rules")
        column = timeline.render_line(row).text.index("⚑")
        await h.pilot.click(Timeline, offset=(column + 1, row))
        await h.pilot.pause()
        assert screen.turn == broken.turn
        await h.press("w")
        assert timeline.has_focus
        await h.press("escape")
        assert screen.reader.has_focus
        assert h.app.screen is screen

    drive(Viewer(root, retail, e), script, LARGE)


# -- hostile text -----------------------------------------------------------------------------------------------------


def test_a_line_of_50_megabytes_opens_within_bounded_time_and_memory(tmp_path: Path) -> None:
    line = "**世" + "x" * 14 + "**\u202e\x1b"
    line *= 50_000_000 // len(line.encode())
    run = played(tmp_path, assistant(line, ToolCall("balance", '{"account":"a"}')))

    async def script(h: Hands) -> None:
        begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        screen = await ready(h)
        assert screen.reader.count < 100
        await h.press("n", "j", "enter")
        assert screen.reader.count < LONGEST // 20
        screen.reader.cursor = screen.reader.document.start(0) + 1
        block, _ = screen.reader.document.at(screen.reader.cursor)
        screen.reader.cursor = screen.reader.document.line_of(block) + len(block.lines)
        await h.sees("cut here", "more characters")
        assert time.process_time() - begun < 15
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert grown < 400_000, f"{grown} kB"

    with run:
        drive(Viewer(tmp_path, run, next(run.episodes())), script)


def test_hostile_text_is_harmless_in_markdown_code_and_panels_too(tmp_path: Path) -> None:
    text = f"# {HOSTILE}\n- **{HOSTILE}**\n```{HOSTILE}\n{HOSTILE}\n```\n> {HOSTILE}"
    run = played(tmp_path, assistant(text, ToolCall("balance", '{"account":"' + HOSTILE + '"}'), reasoning=text))

    async def script(h: Hands) -> None:
        screen = await ready(h)
        for key in ("n", "m", "v", "w", "m", "tab"):
            await h.press(key)
            for shown in (h.text, words_of(screen)):
                assert not any((ord(c) < 32 and c != "\n") or 0x202A <= ord(c) <= 0x202E for c in shown)

    with run:
        drive(Viewer(tmp_path, run, next(run.episodes())), script, LARGE)
