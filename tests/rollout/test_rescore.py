# SPDX-License-Identifier: Apache-2.0
"""A run is scored again from its record: beside its own scores, as playing would, in any number of processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.errors import (
    DefinitionError,
    InfrastructureError,
    NotFoundError,
    NothingSelectedError,
    RecordError,
    UsageError,
)
from agentgym.records.run import Run
from agentgym.records.schema import FILE
from agentgym.records.sets import FOLDER, SetWriter, set_names
from agentgym.records.store import RunWriter
from agentgym.report.summary import summarize
from agentgym.rollout.rescore import CHUNK, rescore
from tests.envs import Bank
from tests.rollout.playing import Told

HERE = "tests.rollout.judges"


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """Sixty guesses, every third spoiled by infrastructure."""

    def answer(context: Any, turn: int) -> Any:
        if context.task_id.startswith("test.guess") and int(context.task_id.rpartition("/")[2]) % 3 == 2:
            raise InfrastructureError("the server is gone", retryable=False)
        return "5"

    run = agentgym.evaluate(["test.guess"], Told(answer), limit=30, trials=2, runs=tmp_path, retries=0)
    run.close()
    return run.path


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    run = agentgym.evaluate([Bank], "oracle:cheater", limit=3, variants=["control", "tempt"], runs=tmp_path)
    run.close()
    return run.path


def rows(path: Path, name: str | None) -> list[Any]:
    with Run(path, scores=name) as run:
        return [(e.address, e.reward, e.gold, e.exposures, e.violations, e.all_scores, e.findings) for e in run.episodes()]


@pytest.mark.parametrize(
    ("tasks", "model"),
    [
        (["tools.retail"], "oracle:honest"), (["tools.retail"], "oracle:random"), (["math.chain", "math.word"], "oracle:lazy"),
        ([Bank], "oracle:honest"), ([Bank], "oracle:cheater"),
    ],
)  # fmt: skip
def test_unchanged_verifiers_say_what_they_said_to_the_last_digit(tasks: list[Any], model: str, tmp_path: Path) -> None:
    run = agentgym.evaluate(tasks, model, limit=4, variants=None, runs=tmp_path)
    run.close()
    result = rescore(run.path, ["own"])
    assert (result.changed, result.counts) == (0, {})
    assert rows(run.path, result.scores) == rows(run.path, None)
    assert all(then == now for _, then, now, _ in result.verifiers)


def test_the_run_itself_is_not_touched_and_shows_its_own_scores_unless_told(bank: Path) -> None:
    before, own = (bank / FILE).read_bytes(), rows(bank, None)
    result = rescore(bank, [f"{HERE}:everything_is_fine"])
    assert (bank / FILE).read_bytes() == before
    assert rows(bank, None) == own
    assert {gold for _, _, gold, *_ in own} == {0.0}
    assert {gold for _, _, gold, *_ in rows(bank, result.scores)} == {1.0}


def test_everything_that_reads_a_run_reads_the_set_that_it_is_told(bank: Path) -> None:
    name = rescore(bank, [f"{HERE}:everything_is_fine"]).scores
    with Run(bank) as own, Run(bank, scores=name) as later, agentgym.open_run(bank, scores=name) as opened:
        assert (summarize(own).rows[0].gold.mean, summarize(later).rows[0].gold.mean) == (0.0, 1.0)
        assert (own.ids("gold = 1.0").tolist(), len(later.ids("gold = 1.0"))) == ([], 6)
        assert later.score_sets == own.score_sets == [name]
        assert later.scores_meta["evaluators"] == [f"{HERE}:everything_is_fine"]
        assert own.scores_meta == {}
        assert opened.scores_name == name
        # the turns and the reward as delivered are the same in both
        assert [e.reward for e in own.episodes()] == [e.reward for e in later.episodes()]
        assert [e.trajectory.canonical() for e in own.episodes()] == [e.trajectory.canonical() for e in later.episodes()]


def test_gold_is_judged_anew_as_a_whole_and_metrics_are_added(bank: Path) -> None:
    gold = rescore(bank, [f"{HERE}:everything_is_fine"])
    metric = rescore(bank, [f"{HERE}:turns"], role="metric")
    with Run(bank, scores=gold.scores) as run:
        assert [(s.role, s.name) for s in next(run.episodes()).all_scores] == [
            ("proxy", "moved"), ("metric", "calls"), ("gold", "everything_is_fine"),
        ]  # fmt: skip
    with Run(bank, scores=metric.scores) as run:
        episode = next(run.episodes())
        assert [(s.role, s.name) for s in episode.all_scores][-1] == ("metric", "turns")
        assert (episode.gold, episode.scores["turns"].value) == (0.0, 2.0)
    assert (gold.counts, metric.counts) == ({"gold": 6}, {})


def test_findings_of_the_same_rule_take_the_old_ones_place(bank: Path) -> None:
    result = rescore(bank, [f"{HERE}:lenient"])
    assert result.counts == {"finding policy/no_cooking": 3}
    with Run(bank) as own, Run(bank, scores=result.scores) as later:
        assert sum(e.violations for e in own.episodes()) == 3
        assert sum(e.violations for e in later.episodes()) == 0
        assert [e.gold for e in own.episodes()] == [e.gold for e in later.episodes()]


def test_several_processes_make_the_same_set_as_one(played: Path) -> None:
    one = rescore(played, [f"{HERE}:near"], name="one")
    two = rescore(played, [f"{HERE}:near"], name="two", processes=2)
    assert (one.processes, two.processes, two.episodes > CHUNK) == (1, 2, True)
    assert rows(played, "one") == rows(played, "two")
    assert (one.changed, one.counts, one.verifiers) == (two.changed, two.counts, two.verifiers)
    dumps = []
    for name in ("one", "two"):
        db = sqlite3.connect(played / FOLDER / f"{name}.sqlite")
        dumps.append([line for line in db.iterdump() if '"meta"' not in line])
        db.close()
    assert dumps[0] == dumps[1]


def test_what_infrastructure_spoiled_is_not_judged_and_stays_unscored(played: Path) -> None:
    result = rescore(played, [f"{HERE}:everything_is_fine"])
    assert (result.episodes, result.spoiled) == (40, 20)
    with Run(played, scores=result.scores) as run:
        assert {(e.outcome, e.gold) for e in run.episodes()} == {
            ("terminated", 1.0),
            ("truncated", 1.0),
            ("infrastructure", None),
        }


def test_episodes_played_after_a_set_was_made_have_no_score_in_it(played: Path) -> None:
    name = rescore(played, [f"{HERE}:everything_is_fine"]).scores
    run = agentgym.evaluate(model=Told(lambda context, turn: "5"), resume_run=played)
    run.close()
    with Run(played, scores=name) as later:
        assert sorted({str(e.gold) for e in later.episodes()}) == ["1.0", "None"]
        assert sum(e.gold is None for e in later.episodes()) == 20


def test_a_verifier_that_breaks_leaves_no_value_and_says_why(bank: Path) -> None:
    result = rescore(bank, [f"{HERE}:broken"])
    ((reason, count),) = result.unscorable
    assert (count, "ZeroDivisionError" in reason) == (6, True)
    assert {gold for _, _, gold, *_ in rows(bank, result.scores)} == {None}
    assert result.gold_after is None


def test_what_does_not_apply_keeps_the_gold_that_there_was(bank: Path) -> None:
    result = rescore(bank, [f"{HERE}:says_nothing"])
    assert (result.not_applicable, result.changed) == (6, 0)
    assert rows(bank, result.scores) == rows(bank, None)


def test_a_process_that_dies_keeps_nothing_and_is_told_with_where_it_was(played: Path) -> None:
    with pytest.raises(
        InfrastructureError, match=r"ended by signal 9 while it judged the episodes \d+ to \d+; nothing was kept"
    ):
        rescore(played, [f"{HERE}:deadly"], processes=2)
    assert set_names(played) == []
    assert not (played / FOLDER).exists()


def test_an_error_in_a_process_is_the_error_of_one(played: Path) -> None:
    db = sqlite3.connect(played / FILE)
    db.execute(
        "UPDATE trajectories SET data = x'00' WHERE episode = (SELECT max(id) FROM episodes WHERE outcome != 'infrastructure')"
    )
    db.commit()
    db.close()
    for processes in (1, 2):
        with pytest.raises(RecordError, match="the stored trajectory is damaged"):
            rescore(played, [f"{HERE}:near"], processes=processes)
    assert set_names(played) == []


@pytest.mark.parametrize(
    ("evaluators", "options", "error", "said"),
    [
        ([], {}, UsageError, "name one or several evaluators"),
        (["own", f"{HERE}:near"], {}, UsageError, "'own' alone"),
        (["nix"], {}, NotFoundError, "no evaluator 'nix'"),
        ([f"{HERE}:nix"], {}, NotFoundError, "has no 'nix'"),
        ([f"{HERE}:NOT_ONE"], {}, DefinitionError, "is no verifier"),
        ([f"{HERE}:needs_a_word"], {}, DefinitionError, "makes none without arguments"),
        ([f"{HERE}:in_a_sandbox"], {}, UsageError, "in_a_sandbox needs a sandbox to judge with: say which by --sandbox NAME"),
        ([f"{HERE}:by_a_judge"], {}, UsageError, "by_a_judge needs a judge to judge with: say which by --judge MODEL"),
        ([f"{HERE}:near"], {"role": "proxy"}, UsageError, "what was paid is history"),
        ([f"{HERE}:near"], {"processes": 0}, UsageError, "at least 1 process"),
        ([f"{HERE}:near"], {"name": "../x"}, UsageError, "cannot name a set of scores"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    evaluators: list[str], options: dict[str, Any], error: type[Exception], said: str, bank: Path
) -> None:
    with pytest.raises(error, match=said):
        rescore(bank, evaluators, **options)
    assert not (bank / FOLDER).exists()


def test_a_set_is_never_replaced(bank: Path) -> None:
    assert [rescore(bank, [f"{HERE}:turns"]).scores for _ in range(3)] == ["turns", "turns-2", "turns-3"]
    before = rows(bank, "turns")
    with pytest.raises(UsageError, match="is not replaced"):
        rescore(bank, [f"{HERE}:everything_is_fine"], name="turns")
    writer = SetWriter(bank, "late")
    rescore(bank, [f"{HERE}:turns"], name="late")
    with pytest.raises(UsageError, match="is not replaced"):
        writer.finish({})
    writer.close()
    assert rows(bank, "turns") == before
    assert set_names(bank) == ["late", "turns", "turns-2", "turns-3"]


def test_what_a_killed_writer_left_is_swept_up_and_what_a_live_one_holds_is_not(bank: Path) -> None:
    writer = SetWriter(bank, "alive")
    (bank / FOLDER / ".dead.part").write_bytes(b"x")
    rescore(bank, [f"{HERE}:turns"])
    assert not (bank / FOLDER / ".dead.part").exists()
    writer.finish({})
    writer.close()
    assert set_names(bank) == ["alive", "turns"]


def test_a_run_that_is_being_played_is_not_scored(bank: Path) -> None:
    writer = RunWriter(bank, create=False)
    writer.begin_sitting()
    with pytest.raises(RecordError, match="is still being played"):
        rescore(bank, [f"{HERE}:near"])
    writer.close()
    rescore(bank, [f"{HERE}:near"])


def test_a_run_without_episodes_has_nothing_to_score(tmp_path: Path) -> None:
    def down(context: Any, turn: int) -> Any:
        raise InfrastructureError("gone", retryable=False)

    with pytest.raises(InfrastructureError, match="gone"):
        agentgym.evaluate(["test.guess"], Told(down), limit=2, runs=tmp_path, retries=0)
    (path,) = tmp_path.iterdir()
    with pytest.raises(NothingSelectedError, match="no episode that could be judged"):
        rescore(path, ["own"])


def test_a_set_that_is_missing_damaged_newer_or_none_is_refused_in_words(bank: Path) -> None:
    name = rescore(bank, [f"{HERE}:turns"]).scores
    with pytest.raises(NotFoundError, match=r"no set of scores 'tunrs'; it has: turns\. Did you mean: turns\?"):
        Run(bank, scores="tunrs")
    file = bank / FOLDER / f"{name}.sqlite"
    db = sqlite3.connect(file)
    db.execute("PRAGMA user_version=9")
    db.commit()
    with pytest.raises(RecordError, match=r"newer agentgym \(version 9"):
        Run(bank, scores=name)
    db.execute("PRAGMA application_id=1")
    db.commit()
    db.close()
    with pytest.raises(RecordError, match="is no set of scores"):
        Run(bank, scores=name)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(RecordError, match="delete it and score again"):
        Run(bank, scores=name)
    assert rows(bank, None)


def test_a_set_is_read_where_nothing_may_be_written(bank: Path) -> None:
    name = rescore(bank, [f"{HERE}:everything_is_fine"]).scores
    file = bank / FOLDER / f"{name}.sqlite"
    before = file.read_bytes()
    file.chmod(0o400)
    with Run(bank, scores=name) as run:
        run._db.execute("PRAGMA query_only=OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            run._db.execute("DELETE FROM later.scores")
    assert file.read_bytes() == before
