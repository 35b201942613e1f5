# SPDX-License-Identifier: Apache-2.0
"""The token view: marks and numbers, texts where a tokenizer is at hand, the border of prompt and output, training rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

import agentgym
from agentgym.chat import Message, call, submit
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import Completion, PolicyBase, Tokens
from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.tokens import TokensScreen
from agentgym.tui.tokenview import TokenFlow, TokenTable, heats, same_start
from tests.envs import Bank
from tests.tui.conftest import LARGE, Hands, drive


class Teller(PolicyBase):
    """Plays two turns and tells their tokens; the prompt of the second goes on with the first, or not."""

    name = "teller"

    def __init__(self, *, drifts: bool = False) -> None:
        self.drifts = drifts

    async def act(self, conversation: Sequence[Message], tools: Any, sampling: Any) -> Completion:
        second = any(m.role == "assistant" for m in conversation)
        prompt = [1, 2, 3, 4, 5, *([11, 12, 13, 14, 7, 8] if second else [])]
        if second and self.drifts:
            prompt[6] = 99
        tokens = Tokens(
            np.array([21, 22] if second else [11, 12, 13, 14], np.int32),
            np.array([-0.01, -0.5] if second else [-0.02, -6.0, np.nan, -1.0], np.float32),
            np.array(prompt, np.int32),
            np.array([3, 4] if second else [3] * 4, np.int32),
            None if second else np.array([1, 1, 1, 0], np.uint8),
            stop_token_in_output=second,
        )
        return Completion(submit() if second else call("balance", account="a"), tokens=tokens)


def record(root: Path, policy: PolicyBase) -> Iterator[Run]:
    with agentgym.evaluate(Bank, policy, limit=1, variants=["control"], runs=root) as run:
        yield run


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Run]:
    yield from record(tmp_path, Teller())


@pytest.fixture
def drifted(tmp_path: Path) -> Iterator[Run]:
    yield from record(tmp_path, Teller(drifts=True))


async def opened(h: Hands) -> TokensScreen:
    replay = h.app.screen
    assert isinstance(replay, ReplayScreen)
    await h.until(lambda: replay.reader.count, "the replay")
    await h.press("n", "t")
    screen = h.app.screen
    assert isinstance(screen, TokensScreen)
    await h.until(lambda: screen.reader.count and screen._why_ids, "the tokens")
    return screen


def test_t_shows_prompt_output_surprise_mask_and_versions(tmp_path: Path, told: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await opened(h)
        await h.sees("turn 0", "prompt 5", "output 4", "1│2│3│4│5│", "11│12│13│14│", "version 3", "1 unknown")
        await h.sees("output 2, goes on with turn 0", "versions 3 to 4", "the last one ended the turn")
        await h.sees("no tokenizer of this model at hand", "not trained on")
        row = h.lines[next(i for i, line in enumerate(h.lines) if "11│12│13│14│" in line) + 1]
        assert row.split() == ["██", "??", "--"], "expected, hardly expected, unknown, not trained on"
        await h.press("n")
        assert screen.place == 1
        await h.press("escape")
        assert isinstance(h.app.screen, ReplayScreen)

    drive(Viewer(tmp_path, told, next(told.episodes())), script)


def test_the_table_has_a_token_a_line_and_brackets_go_to_surprising_ones(tmp_path: Path, told: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await opened(h)
        await h.press("t")
        await h.sees("place", "log p", "-6.000", "0.2%", "unknown")
        await h.press("right_square_bracket")
        block, at = screen.reader.document.at(screen.reader.cursor)
        assert isinstance(block, TokenTable)
        assert at - 1 == 1
        await h.press("right_square_bracket")
        await h.sees("no such token below")
        await h.press("t", "right_square_bracket")
        assert isinstance(screen.reader.document.at(screen.reader.cursor)[0], TokenFlow)

    drive(Viewer(tmp_path, told, next(told.episodes())), script, LARGE)


def test_r_shows_the_rows_that_a_trainer_gets(tmp_path: Path, told: Run) -> None:
    async def script(h: Hands) -> None:
        await opened(h)
        await h.press("r")
        await h.sees("1 row of 2 turns; 4 of 6 sampled tokens are trained on", "turns 0, 1: 13 tokens, 4 trained")
        await h.sees("that began another: 0", "without a log-probability: 1; excluded: 1")
        await h.press("r")
        await h.sees("prompt 5")

    drive(Viewer(tmp_path, told, next(told.episodes())), script, LARGE)


def test_a_prompt_that_drifted_is_named_with_its_place_and_forks_a_row(tmp_path: Path, drifted: Run) -> None:
    async def script(h: Hands) -> None:
        await opened(h)
        await h.sees("other than turn 0 from token 6")
        await h.press("r")
        await h.sees("2 rows of 2 turns", "that began another: 1", "row 1")

    drive(Viewer(tmp_path, drifted, next(drifted.episodes())), script, LARGE)


def test_an_episode_without_tokens_says_which_policies_keep_them(tmp_path: Path) -> None:
    async def script(h: Hands) -> None:
        await opened(h)
        await h.sees("No exact tokens are on record")
        await h.press("t", "r", "i", "right_square_bracket", "n", "p", "escape")
        assert isinstance(h.app.screen, ReplayScreen)

    for run in record(tmp_path, ScriptedPolicy(lambda context: [submit()], "one")):
        drive(Viewer(tmp_path, run, next(run.episodes())), script)


def test_texts_are_shown_where_they_are_known_and_i_shows_numbers(tmp_path: Path, told: Run) -> None:
    async def script(h: Hands) -> None:
        screen = await opened(h)
        screen.spell = lambda ids: [f"w{i}\n\x1b[2J" for i in ids]
        screen._show()
        await h.sees("w11⏎\\x1b[2J│")
        await h.press("i")
        await h.sees("11│12│", absent=("w11",))

    drive(Viewer(tmp_path, told, next(told.episodes())), script, LARGE)


@given(
    st.lists(st.integers(0, 10**6), max_size=300),
    st.integers(30, 120),
    st.booleans(),
    st.sampled_from([None, lambda ids: ["世\n" * (i % 40) for i in ids], lambda ids: [" a" * (i % 3) for i in ids]]),
)
@example([0, 6, 0, 6, 0, 6, *[0] * 10], 30, False, lambda ids: ["世\n" * (i % 40) for i in ids])  # the line that tells of more
def test_every_token_stands_on_exactly_one_line_and_every_line_fits(
    ids: list[int], width: int, opened: bool, spell: Any
) -> None:
    block = TokenFlow(("output", ""), np.array(ids, np.int64), spell, heats(np.full(len(ids), -0.5)), turn=0, fold=5)
    block.opened = opened
    count = block.layout(width)
    places = [i for begin, end in block.rows for i in range(begin, end)]
    assert places == list(range(len(places)))
    assert block.more or len(places) == len(ids)
    assert not (opened and block.more)
    assert opened or len(block.rows) <= 7
    for i in range(count):
        assert sum(cell_len(text) for text, _ in block.line(i, width)) <= width + 1, "the last border may stand at the edge"


def test_a_folded_flow_of_a_million_tokens_spells_only_what_it_shows() -> None:
    asked = 0

    def spell(ids: Sequence[int]) -> list[str]:
        nonlocal asked
        asked += len(ids)
        return ["word"] * len(ids)

    block = TokenFlow(("prompt", ""), np.zeros(1_000_000, np.int32), spell, None, turn=0, fold=3)
    assert block.layout(80) == 4
    assert asked <= 256


def tokens(prompt: list[int], output: list[int]) -> Tokens:
    return Tokens(np.array(output, np.int32), np.zeros(len(output), np.float32), np.array(prompt, np.int32))


@given(
    st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=14)
)
def test_a_prompt_goes_on_with_a_turn_where_it_begins_with_all_of_it(p: list[int], o: list[int], new: list[int]) -> None:
    before = p + o
    same, whole = same_start(tokens(p, o), np.array(new, np.int32))
    assert new[:same] == before[:same]
    assert whole == (new[: len(before)] == before)
    assert whole or same == min(len(before), len(new)) or before[same] != new[same]
