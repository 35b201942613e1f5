# SPDX-License-Identifier: Apache-2.0
"""Tables and texts fitted to a screen, and whole in a pipe."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from agentgym.report.screen import Column, Lines, Table, console, interactive


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def rendered(what: object, width: int | None) -> list[str]:
    """Its lines on a screen of that width; None: in a pipe."""
    file = io.StringIO() if width is None else Screen()
    c = Console(file=file, width=width, soft_wrap=True, highlight=False, markup=False, emoji=False, color_system=None)
    c.print(what)
    return file.getvalue().removesuffix("\n").split("\n")


def table(*rows: tuple[str, ...]) -> Table:
    t = Table([Column("name"), Column("count", "right", drop=2), Column("state", drop=1), Column("about", least=10)])
    for row in rows:
        t.add(*row)
    return t


ROWS = (("first", "1", "done", "something that is rather long to say"), ("the second", "1,200", "", "short"))


def test_a_pipe_gets_everything_aligned_and_nothing_behind() -> None:
    assert rendered(table(*ROWS), None) == [
        "name         count   state   about",
        "first            1   done    something that is rather long to say",
        "the second   1,200           short",
    ]


def test_a_screen_cuts_what_may_be_cut_then_drops_what_is_least_needed() -> None:
    assert rendered(table(*ROWS), 50)[1] == "first            1   done    something that is ra…"
    assert rendered(table(*ROWS), 37)[1] == "first        done    something that …"
    assert rendered(table(*ROWS), 27) == ["name         about", "first        something tha…", "the second   short"]
    # what cannot be cut is printed, whatever the screen
    assert rendered(table(*ROWS), 10)[1] == "first        something…"


CELLS = st.text(st.characters(categories=["L", "N", "P", "So"]), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=5), st.integers(5, 100))
def test_no_line_is_wider_than_the_screen_unless_names_are(rows: list[tuple[str, ...]], width: int) -> None:
    lines = rendered(table(*rows), width)
    least = max([cell_len(row[0]) for row in rows] + [4]) + 3 + 10
    assert all(cell_len(line) <= max(width, least) for line in lines)
    assert all(line == line.rstrip(" ") for line in lines)
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.startswith(row[0])


def test_wide_characters_count_as_two() -> None:
    t = Table([Column("name"), Column("about")], head=False)
    t.add("中文", "x")
    t.add("abcd", "y")
    assert rendered(t, 80) == ["中文   x", "abcd   y"]


def lines(*texts: str, prefix: str = "", whole: bool = False) -> Lines:
    result = Lines()
    for text in texts:
        result.add(text, prefix=prefix, whole=whole)
    return result


def test_texts_wrap_at_words_below_their_beginning_on_a_screen_only() -> None:
    text = "one two three four five six seven eight"
    assert rendered(lines(text, prefix="ok  "), 24) == ["ok  one two three four", "    five six seven eight"]
    assert rendered(lines(text, prefix="ok  "), None) == [f"ok  {text}"]
    assert rendered(lines(text, whole=True), 24) == [text]


def test_line_breaks_stay_and_longer_words_are_folded() -> None:
    assert rendered(lines("a\n\nb", prefix="> "), 40) == ["> a", "", "  b"]
    assert rendered(lines("x" * 45), 20) == ["x" * 20, "x" * 20, "x" * 5]


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], include_characters="\n"), max_size=200), st.integers(22, 90))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    out = rendered(lines(text, prefix="  "), width)
    assert all(cell_len(line) <= width for line in out)
    assert "".join("".join(out).split()) == "".join(text.split())


def test_markup_in_what_is_printed_is_text() -> None:
    assert rendered(lines("[red]x[/red] :smile:"), None) == ["[red]x[/red] :smile:"]
    assert rendered(Text("[bold]"), 80) == ["[bold]"]


def test_a_console_for_a_pipe_is_not_interactive(capsys: object) -> None:
    assert not interactive(console())
