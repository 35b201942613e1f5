# SPDX-License-Identifier: Apache-2.0
"""Pictures in the replay: in blocks of colour once they are asked for, never larger than the screen, and never a surprise."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from agentgym.chat import ImagePart, Message, TextPart
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter
from agentgym.tui.app import Viewer
from agentgym.tui.picture import MOST_LINES, PictureBlock, blocks
from agentgym.tui.widgets.paint import width_of
from tests.tui.conftest import Hands, drive, episode


def png(width: int, height: int, color: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (width, height), color).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_shown_in_half_blocks_once_it_is_asked_for() -> None:
    image = Image.new("RGB", (4, 3), (255, 0, 0))
    image.putpixel((3, 1), (0, 0, 255))
    file = io.BytesIO()
    image.save(file, "PNG")
    block = PictureBlock(("user", "user"), "image/png", file.getvalue(), turn=0, kind="")
    assert block.layout(80) == 1
    assert "Enter shows it" in "".join(text for text, _ in block.line(0, 80))
    assert block.toggle()
    assert block.layout(80) == 3
    assert block.line(1, 80)[1:] == [("▀▀▀", "#ff0000 on #ff0000"), ("▀", "#ff0000 on #0000ff")]
    assert block.line(2, 80)[1:] == [("▀▀▀▀", "#ff0000 on #808080")], "a row without another below it stands on the ground"
    assert block.toggle()
    assert block.layout(80) == 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 20), (20, 3000), (500, 500)])
def test_a_picture_fits_whatever_its_shape_and_what_shows_through_is_grey(width: int, height: int) -> None:
    lines = blocks(png(width, height, (0, 0, 0, 0)), 40)
    assert 1 <= len(lines) <= MOST_LINES
    assert all(width_of(line) <= 40 for line in lines)
    assert lines[0][0][1].startswith("#808080 on ")


def test_what_cannot_be_shown_is_a_sentence() -> None:
    whole = png(50, 50, "red")
    huge = whole[:16] + (100_000).to_bytes(4) * 2 + whole[24:]
    for data, why in (
        (huge, "16,000,000 pixels"),
        (whole[:60], "cannot be decoded"),
        (b"<svg/>", "cannot be decoded"),
        (b"", ""),
    ):
        block = PictureBlock(("", ""), "image/\x1b[2Jpng", data, turn=0, kind="")
        block.toggle()
        assert block.layout(80) == 2
        text = "".join(t for i in range(2) for t, _ in block.line(i, 80))
        assert why in text
        assert "\x1b" not in text


def test_enter_shows_it_in_its_own_colours(bank: Run, tmp_path: Path) -> None:
    e = episode(bank, 0)
    say = Message("user", (TextPart("Look:"), ImagePart(png(6, 4, (10, 200, 30, 255)))))
    path = tmp_path / "pictures"
    path.mkdir()
    writer = RunWriter(path, create=True)
    writer.set_plan([{}], [PlannedTask(0, e.variant, e.item, e.task_id, 1)])
    writer.begin_sitting()
    shown = msgspec.structs.replace(e.trajectory, opening=[say])
    writer.add(EpisodeRecord(shown, e.task, e.task.encode(), 0, e.reward, e.gold, e.all_scores, e.findings))
    writer.flush()
    writer.close()

    async def script(h: Hands) -> None:
        await h.sees("Look:", "[image image/png, 6x4", "Enter shows it")
        await h.press("home", "down", "enter")
        await h.sees("▀▀▀▀▀▀", absent=("Enter shows it",))
        styles = [s.style for strip in h.app.screen._compositor.render_strips() for s in strip if "▀" in s.text]
        assert {str(s.color.triplet.hex) for s in styles if s and s.color and s.color.triplet} == {"#0ac81e"}

    run = Run(path)
    drive(Viewer(tmp_path, run, next(run.episodes())), script)
