# SPDX-License-Identifier: Apache-2.0
"""Text made safe to print, and numbers as people read them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.report.text import duration, fraction, one_line, plain

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=60)
"""Lone surrogates, controls and formats included."""

STEERS = {"Cc", "Cs", "Zl", "Zp"}
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(ANY_TEXT)
def test_nothing_that_is_printed_steers_a_terminal_or_reorders_a_line(text: str) -> None:
    for c in plain(text):
        assert c in "\t\n" or unicodedata.category(c) not in STEERS, f"U+{ord(c):04X}"
        assert unicodedata.bidirectional(c) not in BIDI
        assert c not in "\u200e\u200f\u061c\ufeff"
    plain(text).encode()


@given(ANY_TEXT)
def test_what_is_safe_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    kept = "".join(c for c in text if plain(c) == c)
    assert plain(kept) == kept


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("déjà vu 中文 🙂 a\tb\nc", "déjà vu 中文 🙂 a\tb\nc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\x0db"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("\U000e0100", r"\U000e0100"),
        ("[red]", "[red]"),
    ],
)
def test_examples(text: str, printed: str) -> None:
    assert plain(text) == printed


@given(ANY_TEXT, st.integers(1, 40))
def test_one_line_is_one_line_and_short_enough(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert "\n" not in line
    assert "\t" not in line
    assert plain(line) == line


def test_what_was_cut_is_marked() -> None:
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
    assert one_line("a\nb", 10) == "a ⏎ b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (58.2, "58 s"), (119.4, "119 s"), (119.6, "2 min"), (3570, "1 h 00 min"),
        (3725, "1 h 02 min"), (90_000, "25 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1))
def test_fractions_have_two_digits_and_no_zero_in_front(value: float) -> None:
    text = fraction(value)
    assert float(text) == pytest.approx(value, abs=0.00501)
    assert text in ("0", "1") or (text.startswith(".") and len(text) in (3, 4))
    # what is not quite all or nothing is never printed as if it were
    assert (text == "1") == (value == 1.0)
    assert (text == "0") == (value == 0.0)
