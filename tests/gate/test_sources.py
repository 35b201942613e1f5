# SPDX-License-Identifier: Apache-2.0
"""Trials from anywhere: tables, and files that other harnesses really wrote; what is wrong with a row is said with its line."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from agentgym.errors import DataError, NotFoundError
from agentgym.gate.baseline import encode, header_of, read, write
from agentgym.gate.rows import INFRASTRUCTURE, OK, UNSCORABLE
from agentgym.gate.sources import load
from tests.cli.conftest import AgentGym

HARNESS = Path(__file__).parent.parent / "data" / "harness"

TABLE = [
    {"task": "a", "trial": 0, "score": 1, "cluster": "x", "family": "f", "status": "ok", "cost_usd": 0.5},
    {"task": "a", "trial": 1, "score": 0, "cluster": "x", "family": "f", "status": "ok", "cost_usd": 0.5},
    {"task": "b", "trial": 0, "score": None, "cluster": "x", "family": "f", "status": "infrastructure", "cost_usd": 0},
    {"task": "c", "trial": 0, "score": 0.25, "cluster": "y", "family": "g", "status": "ok", "cost_usd": 0},
]


def csv_of(rows: list[dict[str, object]]) -> str:
    lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in r.values()) for r in rows)]
    return "\n".join(lines) + "\n"


def test_one_table_in_every_form_is_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(csv_of(TABLE))
    Path("t.tsv").write_text(csv_of(TABLE).replace(",", "\t"))
    Path("t.jsonl").write_text("\n".join(json.dumps(r) for r in TABLE))
    Path("t.json").write_text(json.dumps(TABLE))
    Path("t.csv.gz").write_bytes(gzip.compress(csv_of(TABLE).encode()))
    first = load("t.csv")
    assert (first.tasks, first.clusters, first.trials, len(first)) == (3, 2, 2, 4)
    assert first.status.tolist() == [OK, OK, INFRASTRUCTURE, OK]
    assert np.isnan(first.values("score")[2])
    assert float(first.cost_usd.sum()) == 1.0
    assert first.address.at(0) == "t.csv:2"
    for name in ("t.tsv", "t.jsonl", "t.json", "t.csv.gz"):
        other = load(name)
        assert other.values("score").tolist()[:2] == [1.0, 0.0]
        assert [other.cluster.at(i) for i in range(4)] == ["x", "x", "x", "y"]
        assert (other.status == first.status).all(), name


def test_repetitions_without_a_number_are_counted_and_a_task_is_its_own_cluster(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("task,passed\nb,true\na,false\nb,false\n")
    rows = load(str(tmp_path / "t.csv"))
    assert [(rows.task.at(i), int(rows.trial[i]), rows.cluster.at(i)) for i in range(3)] == [
        ("a", 0, "a"), ("b", 0, "b"), ("b", 1, "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task,trial,score\na,0,1\na,0,0\n", "t.csv:3: trial 0 of task 'a' was there before, in "),
        ("task,trial,score\na,0,1\nb,0,\n", "t.csv:3: score is empty. A trial that failed for reasons other than the agent's"),
        ("task,trial,score\na,0,yes\n", "t.csv:2: score must be a number, not 'yes'"),
        ("task,trial,score\na,0,inf\n", "t.csv:2: score must be finite"),
        ("task,trial,score\na,half,1\n", "t.csv:2: trial must be a number, not 'half'"),
        ("task,trial,score\na,-1,1\n", "t.csv:2: trial must be a whole number from 0 on, not '-1'"),
        ("task,trial,score\n,0,1\n", "t.csv:2: task is empty"),
        ("task,trial,score,status\na,0,1,infrastructur\n", "Did you mean: infrastructure?"),
        ("task,trial,score\na,0\n", "t.csv:2: 2 values under 3 column names"),
        ("task;trial;score\na;0;1\n", "t.csv:1: the columns are separated by semicolons"),
        ("task,score,score\na,0,1\n", "t.csv:1: the column 'score' is there twice"),
        ("tsk,score\na,1\n", "there is no column `task`, which pairs the two sides. Did you mean: tsk?"),
        ("task,trial\na,0\n", "there is no column `score`, nor any other of numbers"),
        ("task,score\n", "holds no rows"),
        ('task,score\n"a,1\n', "is not CSV"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "t.csv"))
    assert words in str(caught.value).replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.jsonl", b'{"task": "a", "score": 1}\n[1]\n', "t.jsonl:2: a row is an object like"),
        ("t.jsonl", b'{"task": "a", "score": 1}\n{"task"\n', "t.jsonl:2 is not JSON"),
        ("t.json", b'{"task": "a"}\n{"task": "b"}\n', "holds one JSON value a line: name it .jsonl"),
        ("t.json", b'{"task": "a"}', "neither of inspect_ai, promptfoo nor deepeval"),
        ("t.csv", b"task,score\n\xff,1\n", "is not UTF-8 text"),
        ("t.csv.gz", b"task,score\n", "cannot be read"),
        ("t.parquet", b"PAR1", "files named .parquet are none that can be read"),
        ("t.eval", b"no zip", "cannot be read as a log of inspect_ai"),
    ],
)
def test_a_file_that_is_something_else_is_told(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / name))
    assert words in str(caught.value)


def test_a_name_that_is_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=r"there is no file and no run old\.csv"):
        load("old.csv")
    (tmp_path / "logs").mkdir()
    with pytest.raises(NotFoundError, match="logs is a folder and holds no run"):
        load("logs")


# -- what other harnesses wrote -----------------------------------------------------------------------------------------


def test_a_log_of_inspect_ai_compressed_with_zstd_is_read_without_inspect_ai() -> None:
    rows = load(str(HARNESS / "inspect_plain.eval"))
    assert rows.values("includes").tolist() == [1.0, 1.0, 1.0, 0.0]
    assert (rows.origin.planned, rows.origin.models, rows.family.names) == (4, ("mockllm/model",), ("plain",))
    assert "inspect_ai" not in sys.modules


def test_a_folder_of_logs_is_read_as_one_and_a_log_that_is_there_twice_is_told(tmp_path: Path) -> None:
    shutil.copy(HARNESS / "inspect_plain.eval", tmp_path / "a.eval")
    assert len(load(str(tmp_path))) == 4
    shutil.copy(HARNESS / "inspect_plain.eval", tmp_path / "b.eval")
    with pytest.raises(DataError, match=r"b\.eval#0@1: trial 0 of task 'plain/0' was there before, in .*a\.eval#0@1"):
        load(str(tmp_path))


def test_in_a_log_of_inspect_ai_errors_are_infrastructure_and_epochs_are_trials() -> None:
    rows = load(str(HARNESS / "inspect_sums.json"))
    assert (rows.tasks, rows.trials, rows.clusters) == (6, 2, 3)
    assert int((rows.status == INFRASTRUCTURE).sum()) == 1  # inspect_ai itself calls this eval a success
    assert sorted(rows.metrics) == ["includes", "tone/clear", "tone/kind"]


def test_a_damaged_log_of_inspect_ai_is_told(tmp_path: Path) -> None:
    data = (HARNESS / "inspect_plain.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(tmp_path / "other.eval", "w") as archive:
        archive.writestr("readme", "hello")
    with zipfile.ZipFile(tmp_path / "begun.eval", "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    for name, words in (("cut", "cannot be read"), ("other", "no header.json"), ("begun", "inspect eval-retry")):
        with pytest.raises(DataError, match=words):
            load(str(tmp_path / f"{name}.eval"))


def test_results_of_promptfoo_repeats_are_trials_and_broken_assertions_are_no_zeros() -> None:
    rows = load(str(HARNESS / "promptfoo.json"))
    assert (rows.tasks, rows.trials) == (8, 2)  # 4 tests x 2 prompts, --repeat 2
    assert rows.task.names[0] == "first [prompt 1]"
    broken = [i for i in range(len(rows)) if "boom" in rows.task.at(i)]
    assert set(rows.status[broken].tolist()) == {UNSCORABLE}
    assert int((rows.status == UNSCORABLE).sum()) == len(broken)


def test_a_metric_of_deepeval_that_raised_has_no_value() -> None:
    rows = load(str(HARNESS / "deepeval.json"))
    assert rows.status.tolist() == [OK, OK, UNSCORABLE, OK]
    assert rows.values("Exact").tolist()[:2] == [1.0, 0.0]


@pytest.mark.parametrize("name", ["inspect_plain.eval", "promptfoo.json", "deepeval.json"])
def test_each_of_them_can_be_gated_against_a_baseline_made_of_itself(agentgym: AgentGym, place: Path, name: str) -> None:
    shutil.copy(HARNESS / name, place / name)
    (place / "gate.toml").write_text("[metrics.Exact]\n" if name == "deepeval.json" else "")
    ran = agentgym("baseline", "create", name, "-o", "base.jsonl")
    assert ran.code == 0, ran.err
    ran = agentgym("gate", name, "--baseline", "base.jsonl", "--rules", "gate.toml")
    assert ran.code == 0, ran.out + ran.err


def test_where_several_metrics_could_decide_the_rules_must_say_which(agentgym: AgentGym, place: Path) -> None:
    name = str(HARNESS / "deepeval.json")
    ran = agentgym("gate", name, "--baseline", name)
    assert (ran.code, "which metric decides? There are Exact, Other" in ran.err) == (2, True)


# -- baselines --------------------------------------------------------------------------------------------------------


def test_a_baseline_written_and_read_is_the_same_bytes_and_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(csv_of(TABLE))
    rows = load(str(tmp_path / "t.csv"))
    path = tmp_path / "base.jsonl"
    write(path, header_of(rows), rows)
    header, again = read(path)
    assert encode(header, again) == path.read_bytes()
    assert encode(header, rows) == encode(header, again)
    for name in ("task", "cluster", "family"):
        assert [getattr(rows, name).at(i) for i in range(4)] == [getattr(again, name).at(i) for i in range(4)]
    assert (rows.status == again.status).all()


def test_a_damaged_baseline_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(csv_of(TABLE))
    rows = load(str(tmp_path / "t.csv"))
    path = tmp_path / "base.jsonl"
    write(path, header_of(rows), rows)
    good = path.read_text()
    lines = good.splitlines()
    for text, words in (
        (good.replace("[1,0]", "[1,0,1]"), r"base.jsonl:2: the lists of 'a' differ in length|base.jsonl:2"),
        ("\n".join([lines[0], "<<<<<<< HEAD", *lines[1:]]), "base.jsonl:2: the file holds marks of a git merge"),
        (good.replace("agentgym.baseline/1", "agentgym.baseline/9"), "upgrade agentgym"),
        ("\n".join([*lines, lines[1]]), "was there before"),
        (lines[0], "holds no tasks"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            load(str(path))
