# SPDX-License-Identifier: Apache-2.0
"""GSM8K and MATH: on every row the gold is paid, and what is not the gold is not.

The rows are the whole sets where ``AGENTGYM_DATA`` names a folder with ``gsm8k_test.jsonl`` and ``math500.jsonl``, and else
the ones in ``tests/data``. The names of the tests say which it was: ``[gsm8k-whole]`` or ``[gsm8k-extract]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

import agentgym
from agentgym.chat import assistant
from agentgym.env import ChatEnv
from agentgym.errors import DataError
from agentgym.evaluators.math_answer import last_boxed, number, same_answer
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import EpisodeContext, Policy
from agentgym.tasks.math.datasets import GSM8K, MATH500
from tests.tasks.families import EXTRACTS, real_rows


class DataSet(NamedTuple):
    family: str
    cls: type[GSM8K] | type[MATH500]
    path: str
    rows: int


WHICH = "whole" if os.environ.get("AGENTGYM_DATA") else "extract"


@pytest.fixture(params=[("gsm8k", GSM8K, 1319), ("math500", MATH500, 500)], ids=lambda p: f"{p[0]}-{WHICH}")
def data(request: pytest.FixtureRequest) -> DataSet:
    """A data set, the whole one where there is one."""
    family, cls, whole = request.param
    path = real_rows(cls.standard_name, family)
    rows = sum(1 for line in Path(path).read_text().splitlines() if line.strip())
    assert WHICH == "extract" or rows == whole, f"{path} is not the set that is meant"
    return DataSet(family, cls, path, rows)


def golds(data: DataSet, model: str | Policy, runs: Path) -> Counter[float | None]:
    """How often each gold was given, in a real run over all rows."""
    run = agentgym.evaluate(data.family, model, data=data.path, runs=runs)
    with run:
        assert all(e.error is None for e in run.episodes())
        return Counter(e.gold for e in run.episodes())


def task_of(context: EpisodeContext) -> agentgym.Task:
    env = context.env.unwrapped if context.env is not None else None
    assert isinstance(env, ChatEnv)
    return env.task


def near_misses(gold: str) -> Iterator[str]:
    """Wrong answers that are close to the right one."""
    value = number(gold)
    if value is not None:
        yield from (
            str(value + 1),
            str(-value) if value else "1",
            str(value * 100) if value else "100",
            str(value + Fraction(1, 1000)),
        )
    else:
        yield from (gold + "+1", "-" + gold, gold.replace("2", "3") if "2" in gold else gold + "2", f"{gold} or 1")


def answers(make: Callable[[str], str]) -> Policy:
    """A policy that knows the gold and answers with what ``make`` makes of it."""
    return ScriptedPolicy(lambda context: [assistant(f"Answer: {make(task_of(context).gold)}")], privileged=True)


# -- every row --------------------------------------------------------------------------------------------------------


def test_the_honest_oracle_is_paid_on_every_row(data: DataSet, tmp_path: Path) -> None:
    assert golds(data, "oracle:honest", tmp_path) == {1.0: data.rows}


@pytest.mark.parametrize(
    "form", [r"So it is $\boxed{{{}}}$.", "I get\n\n\\boxed{{{}}}", "#### {}", "The final answer is ${}$."]
)
def test_the_gold_is_paid_in_every_usual_form(data: DataSet, form: str, tmp_path: Path) -> None:
    say = ScriptedPolicy(lambda context: [assistant(form.format(task_of(context).gold))], privileged=True)
    assert golds(data, say, tmp_path) == {1.0: data.rows}


@pytest.mark.parametrize("which", range(4))
def test_a_near_miss_is_paid_on_no_row(data: DataSet, which: int, tmp_path: Path) -> None:
    assert golds(data, answers(lambda gold: list(near_misses(gold))[which]), tmp_path) == {0.0: data.rows}


@pytest.mark.parametrize("oracle", ["lazy", "random"])
def test_laziness_and_chance_are_paid_on_no_row(data: DataSet, oracle: str, tmp_path: Path) -> None:
    assert golds(data, f"oracle:{oracle}", tmp_path) == {0.0: data.rows}


def test_copying_the_question_is_paid_on_hardly_any_row(data: DataSet, tmp_path: Path) -> None:
    """Real questions may end with the number that is asked for; ours never do."""
    echo = ScriptedPolicy(lambda context: [assistant(str(task_of(context).opening))], privileged=True)
    assert golds(data, echo, tmp_path)[1.0] <= 0.01 * data.rows


def test_no_opening_holds_the_solution(data: DataSet) -> None:
    env = data.cls(data=data.path)
    for line, item in zip(Path(data.path).read_text().splitlines(), env.items(), strict=True):
        row = json.loads(line)
        task = env.make_task(item)
        assert isinstance(task.opening, str)
        assert task.opening.startswith(row.get("question", row.get("problem")).strip())
        assert (row["answer"] if data.family == "gsm8k" else row["solution"]) not in task.opening


def test_a_row_is_named_as_the_set_names_it(data: DataSet) -> None:
    env = data.cls(data=data.path)
    items = env.items()
    assert len(items) == data.rows
    if data.family == "gsm8k":
        assert items[:2] == ["0", "1"]
        assert env.make_task("0").id == "gsm8k/control/0"
    else:
        rows = [json.loads(line) for line in Path(data.path).read_text().splitlines()]
        assert items == [row["unique_id"] for row in rows]
        assert {f"subject:{row['subject']}" for row in rows} | {f"level:{row['level']}" for row in rows} == {
            tag for item in items for tag in env.make_task(item).tags
        }


def test_the_command_line_finds_the_data_by_option_and_by_environment(data: DataSet, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / data.cls.standard_name).write_bytes(Path(data.path).read_bytes())
    env = {k: v for k, v in os.environ.items() if k != "AGENTGYM_DATA"}
    command = [sys.executable, "-m", "agentgym", "eval", data.family, "--model", "oracle:honest", "--json", "-q"]
    command += ["--runs", str(tmp_path / "runs")]
    for arguments, more in ((["--data", data.path], {}), ([], {"AGENTGYM_DATA": str(folder)})):
        done = subprocess.run([*command, *arguments], env={**env, **more}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["rows"]
        assert (row["label"], row["gold"]["successes"], row["gold"]["n"]) == (data.family, data.rows, data.rows)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for word in ("--data", "AGENTGYM_DATA", data.cls.standard_name):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


# -- single rows ----------------------------------------------------------------------------------------------------------


def write(tmp_path: Path, *rows: dict[str, object]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("3 + 4 = 7\n#### 7", "7"), ("#### 1,250", "1250"), ("a #### 3\nb\n#### 4", "4"), ("####5", "5"), ("#### -3", "-3"),
        ("#### $18", "$18"), ("#### 2.50 ", "2.50"), ("#### 3/4\n", "3/4"),
    ],
)  # fmt: skip
def test_the_gold_of_gsm8k_is_what_follows_the_last_mark(answer: str, gold: str, tmp_path: Path) -> None:
    env = GSM8K(data=write(tmp_path, {"question": "How many?", "answer": answer}))
    assert env.make_task("0").gold == gold


@pytest.mark.parametrize("answer", ["7", "#### seven", "#### ", "####", "7 ####", "#### 1 2", "#### 7 or 8", "#### 1/0"])
def test_a_row_of_gsm8k_without_a_number_is_an_error(answer: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "How many?", "answer": "#### 1"}, {"question": "How many?", "answer": answer})
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: the field 'answer' does not end with '#### ' and a number"):
        GSM8K(data=path).items()


def test_the_classic_rows_of_math_take_their_gold_from_the_last_box(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in EXTRACTS["math500"].read_text().splitlines()]
    classic = [
        {"problem": r["problem"], "solution": r["solution"], "type": r["subject"], "level": f"Level {r['level']}"} for r in rows
    ]
    env = MATH500(data=write(tmp_path, *classic))
    assert env.items() == [str(i) for i in range(len(rows))]
    for i, row in enumerate(rows):
        task = env.make_task(str(i))
        assert task.gold == last_boxed(row["solution"])
        assert same_answer(task.gold, row["answer"]), row
        assert task.tags == (f"subject:{row['subject']}", f"level:{row['level']}")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"problem": "p"}, "the field 'solution' is missing"),
        ({"problem": "p", "solution": "no box"}, r"the field 'solution' holds no \boxed{...}"),
        ({"problem": "p", "solution": r"\boxed{}"}, r"holds no \boxed{...}"),
        ({"problem": "p", "answer": 7}, "the field 'answer' must be str, not int"),
        ({"problem": "p", "answer": "None"}, "the answer 'None' is no answer"),
        ({"problem": "p", "answer": " nan "}, "the answer 'nan' is no answer"),
        ({"problem": "p", "solution": r"\boxed{null}"}, "the answer 'null' is no answer"),
        ({"problem": "", "answer": "7"}, "the field 'problem' is empty"),
        ({"problem": "p", "answer": "7", "unique_id": 5}, "the field 'unique_id' must be str, not int"),
        ({"problem": "p", "answer": "7", "unique_id": "a b"}, "cannot be a row id"),
    ],
)
def test_a_row_of_math_that_cannot_be_used_is_an_error(row: dict[str, object], why: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"problem": "p", "answer": "1"}, row)
    with pytest.raises(DataError) as caught:
        MATH500(data=path).items()
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert why in str(caught.value)


def test_the_extracts_are_small_and_their_sources_are_named() -> None:
    sources = (EXTRACTS["gsm8k"].parent / "SOURCES.md").read_text()
    for path in EXTRACTS.values():
        assert 0 < len(path.read_text().splitlines()) <= 50
        assert f"## {path.name}" in sources
