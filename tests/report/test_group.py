# SPDX-License-Identifier: Apache-2.0
"""The trials of one task as a learner sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
from agentgym.policies.oracle import OraclePolicy
from agentgym.protocols import Policy
from agentgym.records.run import Run
from agentgym.report.group import group, shape
from agentgym.training.groups import advantages


class Mixed(OraclePolicy):
    """Honest in one trial, cheating in the next."""

    def begin(self, context: Any) -> Policy:
        return OraclePolicy(("honest", "cheater", "lazy")[context.trial % 3]).begin(context)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    runs = tmp_path_factory.mktemp("group")
    agentgym.evaluate("tools.retail", Mixed(), limit=2, trials=6, variants=["control", "tempt"], runs=runs).close()
    with Run(next(runs.iterdir())) as run:
        yield run


def test_advantages_are_the_learners_and_the_best_and_the_worst_are_named(run: Run) -> None:
    found = group(run, "tools.retail/tempt/0")
    rewards = [m.reward for m in found.members]
    assert [m.trial for m in found.members] == list(range(6))
    assert [m.advantage for m in found.members] == advantages(rewards, ["g"] * 6).values.tolist()
    assert {m.reward for m in found.members if m.place == "best"} == {max(rewards)}
    assert {m.reward for m in found.members if m.place == "worst"} == {min(rewards)}
    assert not found.flat


def test_what_only_the_cheating_did_comes_first(run: Run) -> None:
    found = group(run, "tools.retail/tempt/0")
    cheating = {m.trial for m in found.members if m.violations}
    assert cheating == {1, 4}
    first = next(d for d in found.deeds if d.of == "cheating")
    assert (first.there, first.those, first.elsewhere, first.others) == (2, 2, 0, 4)
    assert first.contrast == 1.0
    episode, turn = first.first
    assert run.by_ids([episode])[0].trial in cheating
    assert 0 <= turn < run.by_ids([episode])[0].turns
    assert [abs(d.contrast) for d in found.deeds] == sorted((abs(d.contrast) for d in found.deeds), reverse=True)


def test_trials_that_were_all_worth_the_same_are_marked(run: Run, tmp_path: Path) -> None:
    agentgym.evaluate("tools.retail", OraclePolicy("honest"), limit=1, trials=3, runs=tmp_path).close()
    with Run(next(tmp_path.iterdir())) as other:
        found = group(other, "tools.retail/control/0")
    assert found.flat
    assert not found.deeds
    assert [m.place for m in found.members] == ["", "", ""]
    assert [m.advantage for m in found.members] == [0.0, 0.0, 0.0]


def test_a_shape_keeps_names_and_drops_numbers_and_contents() -> None:
    assert shape("cancel", '{"order_id": "O-3307"}') == shape("cancel", '{"order_id": "O-12"}') == "cancel(order_id=O-#)"
    assert shape("write", '{"path": "a/test_1.py", "text": "x = 1\\ny = 2"}') == "write(path=a/test_1.py, text=…)"
    assert shape("f", '{"rows": [1, 2, 3.5], "ok": true, "x": null}') == "f(ok=true, rows=[#], x=null)"
    assert shape("f", "{") == shape("f", "[" * 100_000) == "f(malformed)"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json)
def test_every_call_has_a_shape_of_bounded_size_whatever_its_numbers(value: Any) -> None:
    import msgspec

    try:
        text = msgspec.json.encode(value).decode()
    except (OverflowError, msgspec.MsgspecError):
        return
    assert shape("f", text).startswith("f(")
