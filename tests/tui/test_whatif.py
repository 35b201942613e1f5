# SPDX-License-Identifier: Apache-2.0
"""Other rules for a run that has been played: what flips is listed, and opens with its new scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.errors import UsageError
from agentgym.records.run import Run
from agentgym.rollout.judging import load_evaluators
from agentgym.tui.app import Viewer
from agentgym.tui.screens.replay import ReplayScreen
from agentgym.tui.screens.whatif import WhatIfScreen
from tests.tui.conftest import Hands, drive

RULES = '''
import agentgym

def few(turns=3):
    """Few turns."""

    @agentgym.verifier
    def few(trajectory, context):
        return float(len(trajectory.turns) <= turns)

    return few
'''


def test_a_threshold_is_changed_and_flips_are_opened_with_their_new_scores(
    root: Path, bank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)

    async def script(h: Hands) -> None:
        await h.press("W")
        await h.until(lambda: isinstance(h.app.screen, WhatIfScreen), "the question")
        screen = h.app.screen
        assert isinstance(screen, WhatIfScreen)
        await h.sees("own", "the tasks' own verifiers", "numeric")
        field = screen.query_one("#with")
        field.value = "./nothing.py:few"  # type: ignore[attr-defined]
        await h.press("enter")
        await h.sees("! ", "nothing.py")
        sets = []
        for turns in (0, 2):
            field.value = f"./rules.py:few(turns={turns})"  # type: ignore[attr-defined]
            before = screen.result
            await h.press("enter")
            await h.until(lambda b=before: not screen.working and screen.result is not b, "the scores")
            sets.append(screen.result.scores)
            if turns == 0:
                await h.sees("✗ 1 → 0", "episodes change", "test.bank/control/0")
                await h.press("slash")
        assert bank.score_sets == sorted(sets)
        flip = screen.table.current
        await h.press("enter")
        await h.until(lambda: isinstance(h.app.screen, ReplayScreen), "the replay")
        assert h.app.screen.episode.gold == flip.after
        await h.sees("few")
        await h.press("escape")
        assert h.app.screen is screen

    drive(Viewer(root, bank), script)
    assert next(bank.episodes()).gold is not None, "the run's own scores are as they were"


def test_parameters_are_literals_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "rules.py"
    file.write_text(RULES)
    assert [v.name for v in load_evaluators([f"{file}:few", f"{file}:few(turns=7)"])] == ["few", "few"]
    for wrong in ("few(7)", "few(turns=__import__('os'))", "few(turns=1", "few(turns=1)(2)", "few(**{})"):
        with pytest.raises(UsageError, match="NAME\\(parameter=value"):
            load_evaluators([f"{file}:{wrong}"])
    with pytest.raises(UsageError, match="unexpected keyword"):
        load_evaluators([f"{file}:few(depth=1)"])
