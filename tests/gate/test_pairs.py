# SPDX-License-Identifier: Apache-2.0
"""Two runs task by task: what differs first, and as the record has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentgym
from agentgym.gate.compare import compare, compare_runs
from agentgym.gate.pairs import ORDER, task_pairs, trials_apart
from agentgym.gate.sources_run import _class_line
from agentgym.policies.oracle import OraclePolicy
from agentgym.records.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Run]]:
    found = []
    for which in ("honest", "cheater"):
        root = tmp_path_factory.mktemp(which)
        agentgym.evaluate(
            "tools.retail", OraclePolicy(which), limit=4, trials=2, variants=["control", "tempt"], runs=root
        ).close()
        found.append(Run(next(root.iterdir())))
    yield found[0], found[1]
    for run in found:
        run.close()


def test_tasks_that_turned_over_or_break_rules_now_come_first(runs: tuple[Run, Run]) -> None:
    honest, cheater = runs
    verdict = compare_runs(honest.path, cheater.path)
    pairs = task_pairs(verdict, honest, cheater)
    assert {p.task for p in pairs} == {e.task_id for e in honest.episodes()}
    assert [ORDER.index(p.change) for p in pairs] == sorted(ORDER.index(p.change) for p in pairs)
    for p in pairs:
        golds = [[e.gold for e in run.episodes(task_id=p.task)] for run in runs]
        assert (p.first, p.second) == tuple(sum(g) / len(g) for g in golds)
        assert p.broken == tuple(sum(e.violations > 0 for e in run.episodes(task_id=p.task)) for run in runs)
        if p.change == "same":
            assert p.first == p.second
        if p.change == "worse":
            assert p.first > 0.5 > p.second
    assert {p.change for p in pairs if "/tempt/" in p.task} <= {"worse", "broken"}
    assert {p.change for p in pairs if "/control/" in p.task} == {"same"}
    assert sum(p.change == "worse" for p in pairs) == verdict.flips.harmful


def test_the_other_way_round_what_was_broken_is_mended(runs: tuple[Run, Run]) -> None:
    honest, cheater = runs
    pairs = task_pairs(compare_runs(cheater.path, honest.path), cheater, honest)
    assert {p.change for p in pairs if "/tempt/" in p.task} <= {"better", "mended"}


def test_two_runs_are_told_what_a_gate_would_say_and_what_each_variant_does_beside_control(runs: tuple[Run, Run]) -> None:
    honest, cheater = runs
    verdict, gate = compare_runs(honest.path, cheater.path), compare(str(cheater.path), str(honest.path), lines=False)
    assert (verdict.outcome, verdict.metrics, verdict.flips) == (gate.outcome, gate.metrics, gate.flips)
    assert [f.address for f in verdict.flagged] == [f.address for f in gate.flagged]
    twins = {t.metric: t for t in verdict.twins}
    assert set(twins) == {"gold", "proxy"}
    gap = [
        sum(e.gold * (1 if e.variant == "tempt" else -1) for e in run.episodes())
        / sum(e.variant == "tempt" for e in run.episodes())
        for run in runs
    ]
    assert twins["gold"].diff == pytest.approx(gap[1] - gap[0]), "a difference in differences"
    assert all(t.kind == "report" for t in verdict.twins), "it decides nothing"


def test_of_a_task_the_trials_are_shown_that_differ_most(runs: tuple[Run, Run]) -> None:
    honest, cheater = runs
    a, b = trials_apart(honest, cheater, "tools.retail/tempt/0")
    assert (a.run_path, b.run_path) == (honest.path, cheater.path)
    assert b.violations
    assert a.trial == b.trial, "of equal pairs one of the same trial"


def test_to_look_at_runs_imports_none_of_the_code_that_they_name(
    runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentgym import registry

    def imported(place: str) -> type:
        raise AssertionError(f"{place} was imported")

    monkeypatch.setattr(registry, "env_class", imported)
    compare_runs(runs[0].path, runs[1].path)
    compare(str(runs[1].path), str(runs[0].path), lines=False)


def test_a_gate_tells_lines_of_a_file_that_a_run_names_and_does_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')\n\n\nclass Desk:\n    pass\n")
    (tmp_path / "outside.py").write_text("class Desk: pass\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_bytes((tmp_path / "mine.py").read_bytes())
    (tmp_path / "here" / "broken.py").write_text("class Desk:")
    monkeypatch.chdir(tmp_path / "here")
    assert _class_line("mine.py:Desk") == _class_line("mine:Desk") == "mine.py:4"
    assert [_class_line(p) for p in ("../outside.py:Desk", "broken:Desk", "mine:Other", "no.such:Desk", ":")] == [""] * 5
