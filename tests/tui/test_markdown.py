# SPDX-License-Identifier: Apache-2.0
"""Markdown on a terminal: nothing is lost but signs, every line fits, and no text takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentgym.report.text import plain
from agentgym.tui.markdown import render
from agentgym.tui.picture import picture, pixels

SIGNS = "*_`#->•│┌└─▏.~+ \n\t12"


def text_of(text: str, width: int = 60) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in render(text, width)[0]]


def styles_of(text: str) -> list[tuple[str, str]]:
    return [piece for line in render(text, 60)[0] for piece in line if piece[1]]


def test_headings_lists_quotes_fences_and_emphasis() -> None:
    shown = text_of("# Plan\n- one\n* two\n  3. three\n> said\n---")
    assert shown == [
        "# Plan",
        "• one",
        "• two",
        "  3. three",
        "▏ said",
        "─" * 40,
    ]
    assert text_of("```python\nx = **1**\n```\nafter") == ["┌─ python", "│ x = **1**", "└─", "after"]
    assert styles_of("a **b** *c* _d_ `e*f*`") == [("b", "strong"), ("c", "em"), ("d", "em"), ("e*f*", "code")]


@pytest.mark.parametrize("text", ["2 * 3 * 4", "a*b*c", "snake_case_name", "__init__", "**", "* ", "#nospace", "`", "-x"])
def test_what_only_looks_like_markdown_stays_as_it_is(text: str) -> None:
    assert text_of(text) == [text.rstrip()]


def test_a_fence_that_is_never_closed_is_code_to_the_end() -> None:
    assert text_of("~~~\na\n```\nb") == ["┌─", "│ a", "│ ```", "│ b"]


@given(st.text(st.sampled_from("ab*_`#-> 1.~\n\t世\u202e\x1b"), max_size=200), st.integers(12, 60))
def test_every_line_fits_and_no_word_is_lost(text: str, width: int) -> None:
    lines, more = render(text, width)
    shown = ["".join(piece for piece, _ in line) for line in lines]
    assert not more
    assert all(cell_len(line) <= width for line in shown)
    assert not re.search("[\x00-\x1f\u202e]", "".join(shown))
    words = re.sub(f"[{re.escape(SIGNS)}]", "", plain(text))
    assert re.sub(f"[{re.escape(SIGNS)}]", "", "".join(shown)) == words


@given(st.text(st.sampled_from("ab*_`#-> 1.~\n"), max_size=300), st.integers(1, 5))
def test_a_limited_reading_gives_no_more_lines(text: str, most: int) -> None:
    lines, more = render(text, 20, most=most)
    whole = render(text, 20)[0]
    assert len(lines) <= most
    assert more or len(lines) == len(whole)


@pytest.mark.parametrize("bad", ["*", "**a", "`", "_a ", "- ", "# ", "~", "> ", "* ", " ", "a*", "`a", "***a "])
def test_no_line_takes_more_than_its_share(bad: str) -> None:
    def seconds(size: int) -> float:
        text = (bad * size)[:size] + "x"
        begun = time.process_time()
        for _ in range(3):
            render(text, 80)
        return time.process_time() - begun

    seconds(1000)
    assert seconds(16_000) < 60 * max(seconds(1_000), 0.002), "linear, give or take"


def test_the_size_of_a_picture_is_read_from_its_head() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (640).to_bytes(4) + (480).to_bytes(4)
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + (30).to_bytes(2) + (40).to_bytes(2) + bytes(10)
    assert (pixels(png), pixels(jpeg)) == ((640, 480), (40, 30))
    assert picture("image/png", png) == "image image/png, 640x480, 24 bytes"
    for broken in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00" * 3, b"GIF89a", b"RIFF1234WEBPVP8 "):
        assert pixels(broken) is None
