# SPDX-License-Identifier: Apache-2.0
"""A run as a Minari data set: written, read back by the library itself, and the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentgym import evaluate
from agentgym.training import export


@pytest.mark.filterwarnings("ignore:env_spec is None")
def test_a_run_is_read_back_as_it_was_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    folder = tmp_path / "data"
    with evaluate("tools.lookup", "oracle:honest", limit=3, trials=2, runs=tmp_path) as run:
        chosen = export.choose(run)
        export.minari(chosen, "lookup/honest-v0", folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    loaded = minari.load_dataset("lookup/honest-v0")
    assert (loaded.total_episodes, loaded.total_steps) == (6, 18)
    for (e, _), got in zip(chosen.episodes, loaded.iterate_episodes(), strict=True):
        turns = e.trajectory.turns
        assert [float(r) for r in got.rewards] == [t.reward for t in turns]
        assert got.terminations.tolist() == [False, False, True]
        assert not got.truncations.any()
        actions, observations = [json.loads(a) for a in got.actions], [json.loads(o) for o in got.observations]
        assert observations[0][0]["content"] == e.trajectory.opening[0].text
        names = [[c.name for c in t.message.tool_calls] for t in turns]
        assert [[c["function"]["name"] for c in a[0]["tool_calls"]] for a in actions] == names
        assert len(observations) == len(actions) + 1
