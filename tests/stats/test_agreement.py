# SPDX-License-Identifier: Apache-2.0
"""Krippendorff's alpha on the worked examples of its author, and what it must be by its definition."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.stats.agreement import krippendorff


def table(*rows: str) -> list[tuple[int, int, str]]:
    """One row a judge, one character a unit, ``.`` for none."""
    return [(unit, judge, value) for judge, row in enumerate(rows) for unit, value in enumerate(row.split()) if value != "."]


def test_the_worked_examples_of_krippendorff_2011() -> None:
    # "Computing Krippendorff's Alpha-Reliability" (2011): sections A (binary), B (nominal), C (four judges, gaps)
    binary = table("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")
    assert krippendorff(binary).alpha == pytest.approx(0.095, abs=5e-4)
    nominal = table("a a b b d c c c e d d a", "b a b b b c c c e d d d")
    assert krippendorff(nominal).alpha == pytest.approx(0.692, abs=5e-4)
    four = krippendorff(
        table(
            "1 2 3 3 2 1 4 1 2 . . .",
            "1 2 3 3 2 2 4 1 2 5 . 3",
            ". 3 3 3 2 3 4 2 2 5 1 .",
            "1 2 3 3 2 4 4 1 2 5 1 .",
        )
    )
    assert four.alpha == pytest.approx(0.743, abs=5e-4)
    assert (four.units, four.judgements) == (11, 40), "what one judged alone says nothing"


@given(st.lists(st.lists(st.sampled_from("ab="), min_size=2, max_size=4), min_size=2, max_size=12))
def test_it_is_one_minus_observed_over_chance_disagreement(units: list[list[str]]) -> None:
    values = [v for unit in units for v in unit]
    found = krippendorff((u, j, v) for u, unit in enumerate(units) for j, v in enumerate(unit))
    if len(set(values)) < 2:
        assert found.alpha is None
        return
    # by the definition, pair by pair
    n = len(values)
    observed = sum(sum(x != y for x, y in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / n
    chance = sum(x != y for x, y in itertools.permutations(values, 2)) / (n * (n - 1))
    assert found.alpha == pytest.approx(1 - observed / chance)


def test_the_interval_resamples_clusters_and_is_not_claimed_for_few() -> None:
    rng = random.Random(0)
    rows = []
    for unit in range(60):
        truth = rng.choice("ab")
        rows += [(unit, judge, truth if rng.random() < 0.8 else rng.choice("ab=")) for judge in range(3)]
    alone = krippendorff(rows)
    assert alone.alpha is not None
    assert alone.low is not None
    assert alone.high is not None
    assert 0 < alone.low < alone.alpha < alone.high < 1
    together = krippendorff(rows, {unit: unit // 10 for unit in range(60)})
    assert together.alpha == alone.alpha
    assert together.low is not None
    few = krippendorff(rows, {unit: unit // 20 for unit in range(60)})
    assert few.alpha == alone.alpha
    assert few.low is None, "three clusters carry no interval"
    assert krippendorff([(0, "ann", "a"), (1, "ann", "b")]).alpha is None, "nobody judged a second time"
