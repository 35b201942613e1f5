# SPDX-License-Identifier: Apache-2.0
"""Labels lie beside the run, are on the disk when they are acknowledged, and are asked for in a fair order."""

from __future__ import annotations

import collections
import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentgym
from agentgym.errors import RecordError, UsageError
from agentgym.policies.oracle import OraclePolicy
from agentgym.records.labels import FILE, Labels, Pair, Queue, _meeting, verdicts
from agentgym.records.run import Run


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks, five trials each."""
    root = tmp_path_factory.mktemp("runs")
    with agentgym.evaluate("math.add", OraclePolicy("random"), limit=3, trials=5, runs=root) as run:
        return run.path


def add(labels: Labels, a: int, b: int, choice: str, who: str = "ann", **more: object) -> object:
    return labels.add(Pair(a, b), choice, annotator=who, task_id="t/control/0", first=a, **more)  # type: ignore[arg-type]


def test_labels_never_touch_the_run_and_reading_makes_no_file(played: Path) -> None:
    before = hashlib.sha256((played / "run.sqlite").read_bytes()).digest()
    with Labels(played) as labels:
        assert labels.labels() == []
        assert labels.notes() == []
        assert labels.undo("ann") is None
        assert not (played / FILE).exists()
        add(labels, 1, 2, "a", reasons=["honest", "brief"])
        labels.note("lies here", annotator="ann", task_id="t/control/0", episode=1, turn=0)
    with Labels(played) as labels:
        (label,) = labels.labels()
        assert (label.better, label.reasons, label.first) == (1, ("honest", "brief"), 1)
        assert [(n.text, n.turn) for n in labels.notes(episode=1)] == [("lies here", 0)]
    (played / FILE).unlink()
    assert hashlib.sha256((played / "run.sqlite").read_bytes()).digest() == before
    assert sorted(p.name for p in played.iterdir() if p.name.startswith("labels")) == []


def test_undo_takes_back_answers_one_by_one_and_only_ones_own(tmp_path: Path) -> None:
    with Labels(tmp_path) as labels:
        add(labels, 1, 2, "a")
        add(labels, 1, 3, "b")
        add(labels, 1, 2, "tie", "bob")
        assert labels.undo("ann") is not None
        assert [(x.annotator, x.b) for x in labels.labels()] == [("ann", 2), ("bob", 2)]
        assert labels.undo("ann") is not None
        assert labels.undo("ann") is None
        assert [x.annotator for x in labels.labels()] == ["bob"]


def test_another_answer_to_the_same_question_replaces_the_first(tmp_path: Path) -> None:
    with Labels(tmp_path) as labels:
        add(labels, 1, 2, "a")
        add(labels, 1, 2, "a", dimension="honesty")
        add(labels, 1, 2, "b")
        assert [(x.dimension, x.choice) for x in labels.labels()] == [("honesty", "a"), ("", "b")]


KILLED = """
import sys
from pathlib import Path
from agentgym.records.labels import Labels, Pair
labels = Labels(Path(sys.argv[1]))
for i in range(2, 10**6):
    labels.add(Pair(1, i), "a", annotator="ann", task_id="t", first=1)
    print(i, flush=True)
"""


def test_a_killed_process_loses_no_acknowledged_label(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "20\n":
            process.send_signal(signal.SIGKILL)
    acknowledged = int(line) if line.endswith("\n") else int(line or 20)
    process.wait()
    with Labels(tmp_path) as labels:
        assert {x.b for x in labels.labels()} >= set(range(2, min(acknowledged, 20) + 1))
        add(labels, 1, 10**7, "b")  # and it goes on without a repair


def test_several_people_label_at_once(tmp_path: Path) -> None:
    def work(who: str) -> None:
        with Labels(tmp_path) as labels:
            for i in range(2, 22):
                add(labels, 1, i, "a", who)

    threads = [threading.Thread(target=work, args=(f"person {i}",)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with Labels(tmp_path) as labels:
        assert collections.Counter(x.annotator for x in labels.labels()) == {f"person {i}": 20 for i in range(4)}


def test_other_files_and_names_are_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"")
    with Labels(tmp_path) as labels:  # a process that was killed at the first moment leaves this
        add(labels, 1, 2, "a")
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(RecordError, match="newer agentgym"):
        Labels(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database" * 500)
    with pytest.raises(RecordError, match="run itself is untouched"):
        Labels(tmp_path)
    (tmp_path / FILE).unlink()
    sqlite3.connect(tmp_path / FILE).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(RecordError, match="does not hold labels"):
        Labels(tmp_path)
    for name in ("", " ann", "x" * 41, "a\x1b[2J"):
        with pytest.raises(UsageError, match="annotator"):
            Labels(tmp_path / "none").note("x", annotator=name, task_id="t", episode=1)


@given(st.integers(2, 15))
def test_a_tournament_lets_everybody_meet_everybody_once_and_nobody_twice_a_round(n: int) -> None:
    rounds = n - 1 + n % 2
    met = []
    for number in range(rounds):
        of_round = [_meeting(n, number, table) for table in range(n // 2)]
        assert len({p for pair in of_round for p in pair}) == 2 * (n // 2)
        met += of_round
    assert {frozenset(pair) for pair in met} == {frozenset((i, j)) for i in range(n) for j in range(i)}
    assert len(met) == n * (n - 1) // 2


def test_the_queue_asks_every_pair_once_balanced_and_the_same_of_everybody(played: Path) -> None:
    with Run(played) as run:
        tasks = {e.id: e.task_id for e in run.episodes()}
        queue = Queue(run)
        pairs = list(queue)
        assert len(queue) == len(pairs) == len(set(pairs)) == 3 * 10
        assert all(tasks[p.a] == tasks[p.b] and p.a < p.b for p in pairs)
        assert pairs == list(Queue(run)) != list(Queue(run, seed=1))
        assert len({tasks[p.a] for p in pairs[:3]}) == 3, "one pair of each task before a second of any"
        for stop in range(len(pairs)):
            seen = collections.Counter(e for p in pairs[:stop] for e in p)
            assert max(seen.values(), default=0) <= min((seen[e] for e in tasks), default=0) + 2
        once = list(Queue(run, rounds=1))
        assert len(once) == len(Queue(run, rounds=1)) == 6
        assert len({e for p in once for e in p}) == 12
        first_task = tasks[1]
        assert {tasks[p.a] for p in Queue(run, keyword=first_task.upper())} == {first_task}
        assert len(Queue(run, keyword="nothing")) == 0
        assert not list(Queue(run, keyword="nothing"))
        shown = [queue.first(p, "ann") == p.a for p in pairs]
        assert 5 < sum(shown) < 25
        assert shown != [queue.first(p, "bob") == p.a for p in pairs]


def test_the_majority_decides_and_ties_count_against_the_margin(tmp_path: Path) -> None:
    with Labels(tmp_path) as labels:
        for who, choice, why in (("ann", "a", ["kind"]), ("bob", "a", ["brief"]), ("cyd", "tie", []), ("dan", "skip", [])):
            add(labels, 1, 2, choice, who, reasons=why)
        add(labels, 1, 3, "b", "ann")
        add(labels, 1, 3, "a", "bob")
        add(labels, 1, 4, "b", "ann")
        decided = verdicts(labels.labels())
    assert [(v.better, v.worse, v.annotators) for v in decided] == [(1, 2, 3), (4, 1, 1)]
    assert decided[0].margin == pytest.approx(2 / 3)
    assert decided[1].margin == 1
    assert decided[0].reasons == ["brief", "kind"]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "tie", "skip"])), max_size=8))
def test_margins_are_shares_whoever_answers_what(answers: list[tuple[int, str]]) -> None:
    from agentgym.records.labels import Label

    given_ = dict(answers)
    labels = [Label(i, str(who), "t", 1, 2, "", choice, (), 1, 0.0) for i, (who, choice) in enumerate(given_.items())]  # type: ignore[arg-type]
    for v in verdicts(labels):
        assert 0 < v.margin <= 1
        assert v.annotators == sum(c != "skip" for c in given_.values())
