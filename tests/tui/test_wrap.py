# SPDX-License-Identifier: Apache-2.0
"""Text is cut into lines that fit, loses nothing but blanks, and is looked at no further than it is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentgym.report.text import plain
from agentgym.tui.widgets.paint import fit
from agentgym.tui.wrap import wrap

texts = st.text(st.one_of(st.characters(), st.sampled_from(' \n,世é\u0301{}":\t\x1b🙂')), max_size=300)


@given(texts, st.integers(4, 60))
def test_every_line_fits_and_nothing_but_blanks_is_lost(text: str, width: int) -> None:
    lines, more = wrap(text, width)
    assert not more
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(plain(text).split())


@given(texts, st.integers(4, 60), st.integers(1, 8))
def test_a_limited_wrap_is_the_start_of_the_whole_one(text: str, width: int, most: int) -> None:
    whole, _ = wrap(text, width)
    lines, more = wrap(text, width, most)
    assert len(lines) <= most
    assert more or lines == whole
    if more and len(lines) == most and cell_len(text) == len(text):
        assert lines[:-1] == whole[: most - 1]
    if len(whole) <= most:
        assert not more or len(text) > (most + 1) * (width + 1)


def test_prose_breaks_at_blanks_and_compact_json_after_commas() -> None:
    assert wrap("the quick brown fox", 10)[0] == ["the quick", "brown fox"]
    assert wrap('{"a":"x y","b":"z","c":1}', 12)[0] == ['{"a":"x y",', '"b":"z",', '"c":1}']
    assert wrap('{"order":"O-1","line":12}', 16)[0] == ['{"order":"O-1",', '"line":12}']


def test_a_megabyte_is_cut_only_as_far_as_it_is_shown() -> None:
    lines, more = wrap("word " * 200_000, 40, most=3)
    assert (len(lines), more) == (3, True)


@given(st.text(max_size=80), st.integers(0, 30), st.booleans(), st.booleans())
def test_a_cell_takes_exactly_its_width(text: str, width: int, right: bool, middle: bool) -> None:
    assert cell_len(fit(text, width, right=right, middle=middle)) == width


def test_a_long_task_id_keeps_its_end() -> None:
    assert fit("tools.retail/control/12", 14, middle=True) == "tool…ontrol/12"
