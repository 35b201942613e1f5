# SPDX-License-Identifier: Apache-2.0
"""JSON as a tree: opened it is the text as written, closed it hides what is inside and nothing else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentgym.tui.tree import LONGEST, Tree, indented

values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from(["", "x {", "[", "}", "a\nb", "世\u202e\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b{", "]", "c"]), inner, max_size=4),
    max_leaves=20,
)


def tree(value: object, fold: int | None = None) -> Tree:
    lines = indented(json.dumps(value, ensure_ascii=False))
    assert lines is not None
    return Tree(("", ""), "→ f(", lines, ")", turn=0, fold=fold)


def drawn(t: Tree, width: int = 300) -> list[str]:
    t.width = 0
    return ["".join(text for text, _ in t.line(i, width)) for i in range(t.layout(width))]


def test_enter_closes_and_opens_the_object_or_list_on_the_line() -> None:
    t = tree({"order": {"id": 1, "lines": [1, 2]}, "ok": True})
    assert [line.split()[0] for line in drawn(t)] == ["▾", "▾", '"id":', "▾", "1,", "2", "]", "},", '"ok":', "})"]
    assert t.toggle_at(1)
    assert [line.strip() for line in drawn(t)] == ["▾ → f({", '▸   "order": { … },   (5 lines)', '"ok": true', "})"]
    assert t.toggle_at(1)
    assert len(drawn(t)) == 10
    assert not t.toggle_at(2), "there is nothing to close on the line of a number"


def test_a_long_one_is_closed_at_its_deep_places_and_not_cut() -> None:
    t = tree({"rows": [{"id": i, "tags": ["a", "b"]} for i in range(20)], "total": 20}, fold=8)
    assert [line.strip() for line in drawn(t)] == ["▾ → f({", '▸   "rows": [ … ],   (140 lines)', '"total": 20', "})"]
    assert t.toggle_at(1)
    lines = drawn(t)
    assert len(lines) == 9
    assert "Enter shows all of it" in lines[-1]
    assert t.toggle_at(8)
    assert "Enter folds this" in drawn(t)[-1]
    assert len(drawn(t)) == 146
    assert t.toggle_at(145)
    assert len(drawn(t)) == 4, "as it was at first"


def test_words_and_numbers_stay_as_they_were_written() -> None:
    assert (
        indented('{"a":1.500,"b":1e3,"c":"\\u0041","a":2}') == '{\n  "a": 1.500,\n  "b": 1e3,\n  "c": "\\u0041",\n  "a": 2\n}'
    )


def test_what_is_no_json_or_too_long_is_no_tree() -> None:
    for text in ("", "hello", "[1,", "{'a': 1}", "12", "[" * 100_000, "[" + "1," * LONGEST + "1]", '{"a": "\ud800"}'):
        assert indented(text) is None, text[:20]


@given(values.filter(lambda v: isinstance(v, (list, dict)) and v), st.data())
def test_whatever_is_closed_and_opened_again_the_text_is_the_same(value: object, data: st.DataObject) -> None:
    t = tree(value)
    whole = drawn(t)
    assert len(whole) == len(t.source)
    starts = data.draw(st.lists(st.sampled_from(sorted(t.ends)), max_size=6))
    for start in starts:
        t.closed ^= {start}
        hidden = {i for s in t.closed for i in range(s + 1, t.ends[s] + 1)}
        assert len(drawn(t)) == len(t.source) - len(hidden)
    t.closed = set()
    assert drawn(t) == whole
    assert all(cell_len(line) <= 40 for line in drawn(t, 40))
    assert not any(c in "\x1b\u202e\n" for line in whole for c in line)
