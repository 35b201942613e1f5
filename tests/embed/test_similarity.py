# SPDX-License-Identifier: Apache-2.0
"""Similarity by the real MiniLM: the figures its makers publish, offline, and what may not be concluded from it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from agentgym.errors import DefinitionError
from agentgym.evaluators.embedding import cosine, embed
from agentgym.evaluators.text import similarity
from agentgym.scoring import Score, verify
from tests.evaluators.made_records import context, record, said

LOVELY, SUNNY, DROVE = "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."


def score(text: str, gold: Any, **options: Any) -> Score:
    (found,), _ = verify([similarity(**options)], "metric", record(said(text)), context(gold))
    return found


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("similarity asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(("a", "b", "published"), [(LOVELY, SUNNY, 0.6660), (LOVELY, DROVE, 0.1046), (SUNNY, DROVE, 0.1411)])
def test_the_published_cosines_are_found(a: str, b: str, published: float) -> None:
    assert cosine(a, b)[0] == pytest.approx(published, abs=5e-4)


def test_a_text_is_as_near_to_itself_as_can_be_and_its_embedding_has_length_one() -> None:
    assert cosine(LOVELY, LOVELY)[0] == pytest.approx(1.0)
    assert sum(x * x for x in embed(DROVE)[0]) == pytest.approx(1.0)
    assert len(embed(DROVE)[0]) == 384


def test_the_nearest_of_several_counts_and_a_bar_makes_it_yes_or_no() -> None:
    assert score(LOVELY, [DROVE, SUNNY]).value == pytest.approx(0.6660, abs=5e-4)
    assert [score(LOVELY, SUNNY, at_least=bar).value for bar in (0.6, 0.7)] == [1.0, 0.0]


def test_what_was_not_read_to_its_end_is_flagged() -> None:
    assert score("word " * 1000, LOVELY).flags == ("cut",)
    assert score(LOVELY, SUNNY).flags == ()


def test_no_answer_is_not_near_anything() -> None:
    assert (score("", LOVELY).value, score("", LOVELY).status) == (0.0, "refused")
    assert score(LOVELY, None).status == "unscorable"


def test_the_opposite_is_near_so_that_it_is_a_measure_and_no_proof() -> None:
    assert score("The weather is not lovely today.", LOVELY).value > 0.6  # type: ignore[operator]


@pytest.mark.parametrize("bar", [0.0, -1.0, 1.1])
def test_a_bar_is_a_cosine_above_zero(bar: float) -> None:
    with pytest.raises(DefinitionError, match="at_least"):
        similarity(at_least=bar)
