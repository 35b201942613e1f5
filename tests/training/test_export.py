# SPDX-License-Identifier: Apache-2.0
"""A run as rows to train on: made of a real run whose odd trials are honest and whose even ones act at random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import agentgym.errors
from agentgym.cli.main import main
from agentgym.records.labels import Labels, Queue
from agentgym.records.run import Run, open_run
from agentgym.training import export

PLAYERS = """
from agentgym import InfrastructureError, PolicyBase
from agentgym.policies.oracle import OraclePolicy

class Half(PolicyBase):
    name = "half"
    privileged = True

    def begin(self, context):
        return OraclePolicy("honest" if context.trial % 2 else "random").begin(context)

class Down(Half):
    def begin(self, context):
        if context.trial == 0:
            raise InfrastructureError("the server is down", retryable=False)
        return super().begin(context)
"""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `tools.lookup` and `math.add`, 3 tasks and 4 trials each."""
    folder = tmp_path_factory.mktemp("half")
    (folder / "players.py").write_text(PLAYERS)
    model, runs = f"{folder}/players.py:Half", str(folder / "runs")
    assert main(["eval", "tools.lookup", "math.add", "--limit", "3", "--trials", "4", "-m", model, "--runs", runs, "-q"]) == 0
    return next((folder / "runs").iterdir())


def rows(run: Path, form: str, **wishes: Any) -> list[dict[str, Any]]:
    with Run(run) as opened:
        return list(export.FORMATS[form](export.choose(opened), **wishes))


def test_sft_rows_are_whole_conversations_that_end_with_the_policy(half: Path) -> None:
    found = rows(half, "sft", at_least=1.0)
    assert len(found) == 12
    for row in found:
        assert row["messages"][0]["role"] == "user"
        assert row["messages"][-1]["role"] == "assistant"
        for message in row["messages"]:
            assert all(isinstance(c["function"]["arguments"], dict) for c in message.get("tool_calls", ()))
    assert {t["function"]["name"] for r in found if "tools" in r for t in json.loads(r["tools"])} == {"get", "submit"}
    assert len(rows(half, "sft")) == 24


def test_no_row_holds_gold_or_the_hidden_half(half: Path) -> None:
    with Run(half) as run:
        for e in run.episodes():
            t = e.trajectory
            said = " ".join(m.text for m in t.messages) + repr([t.message for t in t.turns])
            for row in export.sft(export.Chosen([(e, 1.0)])):
                assert "gold" not in row
                answer = str(e.task.gold)
                assert answer not in json.dumps(row["messages"]) or answer in said


def test_a_pair_for_dpo_parts_at_one_answer_to_the_same_prompt(half: Path) -> None:
    found = rows(half, "dpo")
    assert len(found) == 6  # one for each task
    for row in found:
        assert [m["role"] for m in (*row["chosen"], *row["rejected"])] == ["assistant", "assistant"]
        assert row["prompt"][-1]["role"] in ("user", "tool")
        assert row["chosen"] != row["rejected"]
    assert len(rows(half, "dpo", every=True)) == 6 * 4  # each good trial with each bad one
    assert not rows(half, "dpo", margin=1.5)


def test_trials_that_part_by_what_they_were_told_make_no_pair() -> None:
    """An answer can only be compared where the question was the same."""
    from agentgym.chat import Message, assistant
    from agentgym.trajectory import Trajectory, Turn

    class Held:
        task_id, trial = "a/control/0", 0

        def __init__(self, told: str, said: str) -> None:
            opening = (Message("user", "go"),)
            first = Turn(0, assistant("look"), observation=(Message("user", told),))
            self.trajectory = Trajectory(task_id=self.task_id, opening=opening, turns=[first, Turn(1, assistant(said))])
            self.task = type("T", (), {"tools": ()})

    same: Any = [(Held("x", "good"), 1.0), (Held("x", "bad"), 0.0)]
    other: Any = [(Held("x", "good"), 1.0), (Held("y", "bad"), 0.0)]
    assert len(list(export.dpo(export.Chosen(same)))) == 1
    assert not list(export.dpo(export.Chosen(other)))


def test_a_reward_models_pair_is_whole_and_has_its_margin(half: Path) -> None:
    for row in rows(half, "rm"):
        assert row["margin"] == 1.0
        assert row["chosen"][-1]["role"] == row["rejected"][-1]["role"] == "assistant"


def test_kto_labels_every_turn_by_its_episode(half: Path) -> None:
    found = [r for r in rows(half, "kto") if r["task_id"].startswith("tools.lookup")]
    good = [r for r in found if r["label"]]
    assert len(good) == 3 * 2 * 3  # tasks, honest trials, turns
    assert all([m["role"] for m in r["completion"]] == ["assistant"] for r in found)


def test_a_steps_value_is_the_share_of_trials_that_went_the_same_way_and_came_through(half: Path) -> None:
    for row in rows(half, "steps"):
        assert len(row["labels"]) == len(row["completions"]) == len(row["values"])
        assert row["labels"] == [v >= 0.5 for v in row["values"]]
        # the honest trials of a task all go one way, which no random one does
        assert set(row["values"]) == {float(row["trial"] % 2)}


def test_rows_are_written_whole_and_counted(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    assert main(["export", str(half), "--format", "dpo", "-o", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 6
    assert "6 rows" in capsys.readouterr().err
    assert main(["export", str(half), "--format", "dpo"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["export", str(half), "--format", "sft", "-o", str(tmp_path / "nowhere" / "x")]) != 0
    assert "cannot be written" in capsys.readouterr().err


def test_what_means_nothing_to_a_format_is_refused(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(half), "--format", "sft", "--all-pairs"]) == 2
    assert "--all-pairs means nothing to the format sft" in capsys.readouterr().err
    assert main(["export", str(half), "--format", "sft", "--by", "golld"]) == 2
    assert "no score 'golld'" in capsys.readouterr().err


def test_spoiled_episodes_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "players.py").write_text(PLAYERS)
    arguments = ["eval", "math.add", "--limit", "2", "--trials", "2", "-m", f"{tmp_path}/players.py:Down", "-q"]
    main([*arguments, "--runs", str(tmp_path / "runs")])
    (run,) = (tmp_path / "runs").iterdir()
    with open_run(run) as opened:
        assert opened.count() == 4
    capsys.readouterr()
    assert main(["export", str(run), "--format", "sft"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "2 spoiled by infrastructure" in told.err


# -- decided by people ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with labels: the odd (honest) trial is better, but bob differs once and about tone."""
    path = Path(shutil.copytree(half, tmp_path_factory.mktemp("labelled") / "run"))
    with Run(path) as run, Labels(path) as labels:
        trials = {e.id: e.trial for e in run.episodes()}
        tasks = {e.id: e.task_id for e in run.episodes()}
        mixed = [p for p in Queue(run) if trials[p.a] % 2 != trials[p.b] % 2]
        for i, p in enumerate(mixed):
            for who in ("ann", "bob", "cyd"):
                choice = "a" if trials[p.a] % 2 else "b"
                if who == "bob" and i == 0:
                    choice = "b" if choice == "a" else "a"
                labels.add(p, choice, annotator=who, task_id=tasks[p.a], first=p.a, reasons=["right"])  # type: ignore[arg-type]
        labels.add(mixed[0], "tie", annotator="bob", task_id=tasks[mixed[0].a], first=mixed[0].a, dimension="tone")
    return path


def test_people_decide_pairs_in_the_same_rows(labelled: Path) -> None:
    with Run(labelled) as run:
        chosen = export.labelled(run)
        assert len(chosen.preferred or ()) == 24, "four mixed pairs of four trials, of each of six tasks"
        assert all(p.better.trial % 2 == 1 for p in chosen.preferred or ())
        found = list(export.rm(chosen))
        assert {round(r["margin"], 3) for r in found} == {1.0, 0.333}
        by_score = {key for row in export.rm(export.choose(run)) for key in row}
        assert {key for row in found for key in row} == {*by_score, "dimension", "annotators", "reasons"}
        assert (found[0]["annotators"], found[0]["reasons"], found[0]["dimension"]) == (3, ["right"], "")
        assert len(list(export.rm(chosen, margin=0.5))) == len(found) - 1
        for row in export.dpo(chosen):
            assert len(row["chosen"]) == len(row["rejected"]) == 1
            assert row["chosen"] != row["rejected"]
        assert not list(export.rm(export.labelled(run, "tone"))), "a tie decides nothing"
        with pytest.raises(agentgym.errors.NotFoundError, match=r"asked: on the whole, tone; by: ann, bob, cyd"):
            export.labelled(run, annotator="dan")


def test_the_command_writes_what_people_prefer_and_reports_their_agreement(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["export", str(labelled), "--format", "rm", "--labels", "-o", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 24
    assert "24 rows" in capsys.readouterr().err
    assert main(["export", str(labelled), "--format", "rm", "--labels", "--dimension", "tone"]) == 0
    assert "no pair has a majority" in capsys.readouterr().err
    for wrong in (
        ["--format", "sft", "--labels"],
        ["--format", "rm", "--labels", "--by", "gold"],
        ["--format", "rm", "--annotator", "x"],
    ):
        assert main(["export", str(labelled), *wrong]) == 2
    capsys.readouterr()
    assert main(["label", str(labelled), "--report"]) == 0
    text = capsys.readouterr().out
    assert "on the whole: 72 answers about 24 pairs (ann 24, bob 24, cyd 24)" in text
    assert "Krippendorff's alpha .9" in text
    assert "24 pairs that two or more answered" in text
    assert main(["label", str(labelled), "--report", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["questions"][1]["dimension"] == "tone"
    assert len(lines) == 1 + 73
    assert main(["label", str(labelled)]) == 2
    assert "asks in a terminal" in capsys.readouterr().err
