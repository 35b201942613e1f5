# SPDX-License-Identifier: Apache-2.0
"""Pictures in characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentgym.report.charts import Spot, interval_bar, scatter

share = st.floats(0, 1)


@given(share, share, share, st.integers(3, 40))
def test_a_bar_holds_its_estimate_inside_of_its_interval(a: float, b: float, c: float, width: int) -> None:
    low, value, high = sorted((a, b, c))
    line = interval_bar(value, low, high, width)
    assert len(line) == width
    assert line.count("●") == 1
    assert line.strip("·").strip("├─┤●") == ""
    assert line.index("●") == round(value * (width - 1))
    assert interval_bar(None, None, None, width) == "·" * width


@given(st.lists(st.tuples(share, share), max_size=30), st.integers(20, 60), st.integers(8, 20))
def test_every_point_is_in_the_picture_under_its_letter_or_a_star(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    spots = [Spot(f"f{i}", x, y) for i, (x, y) in enumerate(points)]
    lines, letters = scatter(spots, width, height, "gold", "kept")
    assert len(lines) == height
    inside = "".join(line[5:] for line in lines[1:-2])
    assert set(letters) == {s.name for s in spots}
    seen = sum(inside.count(letter) for letter in letters.values())
    assert seen + 2 * inside.count("*") <= len(spots) or not spots
    assert bool(spots) == bool(inside.strip(" "))
