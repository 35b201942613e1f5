# SPDX-License-Identifier: Apache-2.0
"""What a person sees in a real terminal of 80 or 160 columns: nothing cut that matters, nothing broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.conftest import AgentGym
from tests.cli.test_safety import in_terminal

ORACLE = ("--model", "oracle:honest")
FAMILIES = ("math.add", "math.arith", "math.algebra", "math.chain", "math.word:level=2", "tools.retail:level=2")


def seen(argv: list[str], width: int, height: int = 24, **environment: str) -> list[str]:
    """The lines as they scroll by, without colours; frames of a live table included."""
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", in_terminal(argv, width, height, **environment).decode())
    return [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_of_a_run_fits_and_leaves_nothing_out(place: Path, width: int) -> None:
    lines = seen(["eval", *FAMILIES, "--limit", "3", *ORACLE], width)
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("see it:"))]
    # a path is never broken, so it may be longer than a narrow screen
    assert [line for line in table if cell_len(line) > width and "runs/" not in line] == []
    text = " ".join(" ".join(table).split())
    for label in FAMILIES:
        assert f"{label} ████████" in text
    assert "calculator used 3/3" in text
    assert text.count("gold 3/3") >= len(FAMILIES)
    assert "…" not in text
    (see,) = [line for line in lines if line.startswith("see it:")]
    assert re.fullmatch(r"see it:  agentgym view latest::[\w.]+/control/\d/0", see)


def test_a_wide_terminal_shows_one_line_a_family(place: Path) -> None:
    lines = seen(["eval", "math.chain", *ORACLE], 160)
    assert lines[-3] == " math.chain   ████████████████ 10/10   gold 10/10 (≥.69)   format 10/10   calculator used 10/10"


def test_what_does_not_fit_goes_below_its_family(place: Path) -> None:
    lines = seen(["eval", "math.chain", *ORACLE], 60)
    (at,) = [i for i, line in enumerate(lines) if "gold 10/10" in line]
    assert lines[at] == " math.chain   ████████ 10/10   gold 10/10 (≥.69)"
    assert lines[at + 1] == "              format 10/10   calculator used 10/10"


@pytest.mark.parametrize("what", ["tasks", "suites", "models", "runs", "latest"])
def test_lists_keep_the_names_whole_in_a_narrow_terminal(agentgym: AgentGym, solved: Path, what: str) -> None:
    # without the families and policies that other tests register in this process
    whole = [line.split()[0] for line in agentgym("list", what).lines if not line.startswith("test")]
    lines = seen(["list", what], 80)
    assert all(cell_len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines] == whole


def test_long_texts_break_at_words_and_stay_indented(solved: Path) -> None:
    lines = seen(["show", "latest::tools.retail/control/0/0"], 80)
    opening = lines[1 : lines.index("@0 assistant")]
    assert all(cell_len(line) <= 80 for line in opening)
    assert len(opening) > 20
    assert all(line.startswith("  ") for line in opening if line not in ("system", "user"))
    wide = seen(["show", "latest::tools.retail/control/0/0"], 200)
    words = " ".join(" ".join(opening).split())
    assert words in " ".join(" ".join(wide).split()), "no word is broken that fits a line"


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(place: Path) -> None:
    raw = in_terminal(["eval", "math.add", *ORACLE], 80, TERM="dumb")
    assert b"\x1b" not in raw
    assert b"see it:  agentgym show runs/" in raw


def test_no_color_means_no_colour(place: Path) -> None:
    codes = re.findall(rb"\x1b\[([\d;]*)m", in_terminal(["eval", "math.add", *ORACLE], 80, NO_COLOR="1"))
    numbers = {int(n) for code in codes for n in code.split(b";") if n}
    assert numbers <= {0, 1, 2, 3, 4}
    codes = re.findall(rb"\x1b\[([\d;]*)m", in_terminal(["eval", "math.add", *ORACLE], 80))
    assert any(30 <= int(n) < 50 for code in codes for n in code.split(b";") if n)


def test_the_live_table_leaves_no_trace(place: Path) -> None:
    raw = in_terminal(["eval", "math.add", "--limit", "3", *ORACLE], 100).decode()
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h"), "the cursor is shown again"
    # what stands after the last erasure is the summary and nothing else
    end = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", raw.rpartition("\x1b[2K")[2]).replace("\r", "")
    assert [line.split()[0] for line in end.split("\n") if line] == ["math.add", "3", "see"]


def test_a_run_of_more_families_than_lines_shows_what_is_being_played(place: Path) -> None:
    lines = seen(["eval", *FAMILIES, "--limit", "3", *ORACLE], 100, height=9)
    # nine lines less the command, the heading, the status and the prompt leave room for five
    assert " and 2 more" in lines
    assert any(line.startswith("18 episodes") for line in lines)


def test_help_fits_a_narrow_terminal(place: Path) -> None:
    for command in ([], ["eval"], ["list"], ["doctor"]):
        assert [line for line in seen([*command, "--help"], 80, COLUMNS="80") if cell_len(line) > 80] == []
