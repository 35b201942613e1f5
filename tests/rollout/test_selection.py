# SPDX-License-Identifier: Apache-2.0
"""From what a person types to a plan; and, where it cannot be, a sentence that says what to type instead."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgym import registry
from agentgym.errors import AgentGymError, DataError, NotFoundError, NothingSelectedError, UsageError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.run import Run
from agentgym.rollout.evaluate import prepare
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice, EnvRef, Plan, absolute, place_of, read_suite, resolve, suite_files
from tests.envs import Bank, Guess
from tests.rollout.playing import play

DESKS = '''
"""Environments of a user."""
from agentgym import Task, ToolEnv

class Desk(ToolEnv):
    family = "mine.desk"
    variants = ("control", "tempt")

    def new_task(self, rng):
        return Task(opening=f"Tidy up {rng.integers(100)} things.")

    def apply_variant(self, task, variant, rng):
        return task

class Shelf(Desk):
    family = "mine.shelf"
'''


def ids(plan: Plan) -> list[str]:
    return [t.task_id for t in plan.tasks]


def select(*selectors: Any, **choice: Any) -> list[str]:
    return ids(resolve(selectors, Choice(**choice)))


@pytest.fixture
def desks(tmp_path: Path) -> Path:
    (tmp_path / "desks.py").write_text(DESKS)
    return tmp_path / "desks.py"


def suite(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


# -- what can be named ------------------------------------------------------------------------------------------------


def test_a_family_gives_its_first_tasks() -> None:
    assert select("test.guess") == [f"test.guess/control/{i}" for i in range(10)]
    assert select("test.guess-v1", limit=2) == select("test.guess", limit=2) == ["test.guess/control/0", "test.guess/control/1"]


def test_a_prefix_gives_every_family_under_it_and_no_other() -> None:
    families = {i.split("/")[0] for i in select("math", limit=1)}
    assert {"math.add", "math.arith", "math.chain", "math.algebra", "math.word"} <= families
    assert all(f.startswith("math.") for f in families)


def test_a_task_id_gives_that_task() -> None:
    assert select("test.bank/tempt/41") == ["test.bank/tempt/41"]


def test_the_id_of_a_task_with_parameters_gives_that_task() -> None:
    (id_,) = select("test.guess", limit=1, params={"level": "3", "loud": "true"})
    assert id_ == "test.guess:level=3,loud=true/control/0"
    plan = resolve([id_], Choice())
    assert ids(plan) == [id_]
    assert plan.environments[0].make().make_task("0") == Guess(level=3, loud=True).make_task("0")
    assert select("test.guess:level=3", limit=1) == ["test.guess:level=3/control/0"]


def test_a_class_gives_its_tasks() -> None:
    assert select(Guess, limit=1) == ["test.guess/control/0"]


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_gives_all_its_environments_and_a_place_one(
    desks: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desks.parent)
    name = "desks.py" if relative else str(desks)
    assert select(name, limit=1) == ["mine.desk/control/0", "mine.shelf/control/0"]
    assert select(f"{name}:Shelf", limit=1) == ["mine.shelf/control/0"]
    assert select(f"./{name}:Shelf" if relative else f"{name}:Shelf", limit=1) == ["mine.shelf/control/0"]


def test_a_place_in_a_module_gives_its_environment() -> None:
    assert select("tests.envs:Bank", limit=1) == ["test.bank/control/0"]


@pytest.mark.parametrize("name", suite_files())
def test_every_suite_that_comes_along_can_be_played(name: str) -> None:
    plan = resolve([name], Choice())
    assert plan.title == name
    assert plan.episodes >= len(plan.tasks) > 0


def test_quickstart_is_six_tasks_of_small_answers() -> None:
    plan, options = prepare("quickstart", Choice(), Options())
    assert (len(plan.tasks), plan.episodes) == (6, 22)
    assert options.sampling.max_tokens is not None
    assert options.sampling.max_tokens < 100


def test_selectors_add_up_and_no_task_is_played_twice() -> None:
    assert select("test.guess/control/1", "test.guess", limit=2) == ["test.guess/control/1", "test.guess/control/0"]
    assert select("test.guess/control/1", "test.guess/control/1") == ["test.guess/control/1"]


def test_the_families_take_turns_so_that_a_run_cut_short_has_something_of_each() -> None:
    assert select("test.guess", "test.bank/control/7", "test.bank/tempt/7", limit=2) == [
        "test.guess/control/0",
        "test.bank/control/7",
        "test.bank/tempt/7",
        "test.guess/control/1",
    ]


def test_the_address_of_a_recorded_episode_gives_its_task_with_the_environment_of_its_run(desks: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    outcome = play([f"{desks}:Desk", "test.guess:level=3"], ScriptedPolicy(["1"] * 6), runs, Choice(limit=3, trials=2))
    for text in (str(outcome.path), outcome.path.name, outcome.path.name[-4:], "latest"):
        plan = resolve([f"{text}::mine.desk/control/2/1"], Choice(runs=str(runs)))
        assert ids(plan) == ["mine.desk/control/2"]
        assert plan.environments[0].place == f"{desks}:Desk"
    assert select("latest::test.guess:level=3/control/1", runs=str(runs)) == ["test.guess:level=3/control/1"]
    with pytest.raises(NotFoundError, match="no trial 7"):
        select("latest::mine.desk/control/2/7", runs=str(runs))
    with pytest.raises(UsageError, match="not an address"):
        select("latest::", runs=str(runs))


# -- how it is narrowed and multiplied --------------------------------------------------------------------------------


def test_variants_are_played_beside_each_other() -> None:
    assert select("test.bank", limit=2, variants=["control", "tempt"]) == [
        "test.bank/control/0",
        "test.bank/tempt/0",
        "test.bank/control/1",
        "test.bank/tempt/1",
    ]


def test_trials_are_the_callers_then_the_entrys_then_the_suites(tmp_path: Path) -> None:
    path = suite(
        tmp_path, 'trials = 3\n[[tasks]]\ntask = "test.guess"\nitems = 1\n[[tasks]]\ntask = "test.bank"\nitems = 1\ntrials = 2'
    )
    assert [t.trials for t in resolve([path], Choice()).tasks] == [3, 2]
    assert [t.trials for t in resolve([path], Choice(trials=5)).tasks] == [5, 5]
    assert [t.trials for t in resolve(["test.guess"], Choice(limit=1)).tasks] == [1]


def test_a_keyword_keeps_what_contains_or_matches_it() -> None:
    assert select("test.guess", "test.bank", keyword="bank", limit=1) == ["test.bank/control/0"]
    assert select("test.guess", keyword="*/[37]") == ["test.guess/control/3", "test.guess/control/7"]


def test_a_limit_counts_what_the_keyword_left() -> None:
    assert select("test.guess", keyword="*/[37]", limit=1) == ["test.guess/control/3"]
    assert select("test.guess", keyword="/3", limit=40)[1:] == [f"test.guess/control/{i}" for i in range(30, 40)]


def test_splits_are_disjoint_and_complete() -> None:
    train = set(select("test.guess", limit=40, split="train"))
    held = set(select("test.guess", limit=10, split="eval"))
    assert len(train) == 40
    assert len(held) == 10
    assert not train & held


def test_parameters_reach_the_environment_and_the_ids() -> None:
    plan = resolve(["test.guess"], Choice(limit=1, params={"level": 3}))
    assert ids(plan) == ["test.guess:level=3/control/0"]
    assert plan.environments[0].make().level == 3  # type: ignore[attr-defined]


def test_a_suites_entries_say_what_to_play(tmp_path: Path) -> None:
    path = suite(
        tmp_path,
        """
        max_tokens = 64
        temperature = 0
        [[tasks]]
        task = "test.bank"
        items = ["5", "3", "5"]
        variants = ["tempt"]
        [[tasks]]
        task = "test.guess"
        items = 2
        params = { level = 2 }
        """,
    )
    plan, options = prepare(path, Choice(), Options())
    assert ids(plan) == [
        "test.bank/tempt/5",
        "test.guess:level=2/control/0",
        "test.bank/tempt/3",
        "test.guess:level=2/control/1",
    ]
    assert (plan.title, options.sampling.max_tokens, options.sampling.temperature) == ("mine", 64, 0.0)


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "error", "words"),
    [
        ("mathh", NotFoundError, ["no task or suite 'mathh'", "Did you mean: math", "agentgym list tasks"]),
        ("test.gues", NotFoundError, ["Did you mean: test.guess"]),
        ("quikstart", NotFoundError, ["quickstart"]),
        ("", NotFoundError, ["no task or suite ''"]),
        ("test.gues/control/0", NotFoundError, ["no task 'test.gues'", "test.guess"]),
        ("test.bank/temptt/0", UsageError, ["no variant 'temptt'", "control, tempt"]),
        ("test.guess/control/x", NotFoundError, ["no task 'x'", "numbered by seed"]),
        ("test.guess/control/-1", NotFoundError, ["no task '-1'"]),
        ("test.guess//", UsageError, ["FAMILY/VARIANT/ITEM"]),
        ("test.guess:levl=3", UsageError, ["no parameter 'levl'", "Did you mean: level"]),
        ("test.guess:level=high/control/0", UsageError, ["must be int"]),
        ("nowhere.py", NotFoundError, ["there is no file nowhere.py"]),
        ("nowhere.py:Desk", NotFoundError, ["there is no file nowhere.py"]),
        ("nowhere.toml", NotFoundError, ["cannot read the suite nowhere.toml"]),
        ("no.such.module:Desk", NotFoundError, ["no module 'no.such.module'"]),
        ("tests.envs:Bnak", NotFoundError, ["no 'Bnak'", "Bank"]),
        ("tests.envs:CANARY", AgentGymError, ["not an environment"]),
        ("norun::test.guess/control/0", NotFoundError, ["no run 'norun'"]),
        ("norun::test.guess", UsageError, ["not an address", "RUN::FAMILY/VARIANT/ITEM"]),
        ("x" * 5000, NotFoundError, ["no task or suite"]),
        ("x/" * 2500, AgentGymError, []),
        ("x" * 5000 + "::a/b/c", NotFoundError, ["no run"]),
    ],
    ids=lambda v: v[:30] if isinstance(v, str) else "",
)
def test_what_does_not_exist_is_named_with_what_is_near(
    selector: str, error: type[Exception], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        select(selector)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": -3}, "limit must be at least 1"),
        ({"variants": ["hard"]}, "no variant 'hard'"),
        ({"split": "test"}, "must be 'train' or 'eval'"),
        ({"params": {"level": "many"}}, "must be int"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choice: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        select("test.guess", **choice)


def test_an_empty_selection_is_an_error_of_its_own() -> None:
    with pytest.raises(NothingSelectedError, match="holds no tasks with 'zzz' in their id"):
        select("test.guess", keyword="zzz")
    with pytest.raises(UsageError, match="no task was named"):
        prepare([], Choice(), Options())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks = [", "is not TOML"),
        ('[[tasks]]\ntask = "test.guess"\nitem = 3', "unknown field `item`"),
        ("[[tasks]]\nitems = 3", "missing required field `task`"),
        ("trials = 2", "missing required field `tasks`"),
        ('[[tasks]]\ntask = "test.guess"\ntrials = 0', ">= 1"),
        ('trials = 0\n[[tasks]]\ntask = "test.guess"', ">= 1"),
        ('[[tasks]]\ntask = "test.guess"\nitems = -1', ">= 1"),
        ('temperature = -1\n[[tasks]]\ntask = "test.guess"', ">= 0"),
        ('trials = "many"\n[[tasks]]\ntask = "test.guess"', "Expected `int`"),
        ('[[tasks]]\ntask = "test.gues"', "test.guess"),
        ('[[tasks]]\ntask = "test.guess"\nitems = ["x"]', "no task 'x'"),
        ('[[tasks]]\ntask = "test.guess"\nvariants = ["hard"]', "no variant 'hard'"),
        ('[[tasks]]\ntask = "test.guess"\nparams = { levl = 1 }', "no parameter 'levl'"),
        ("\x00", "is not TOML"),
    ],
)
def test_a_malformed_suite_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = suite(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        select(path)
    assert path in str(caught.value)
    assert words in str(caught.value)


def test_a_suite_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"description = '\xff\xfe'")
    with pytest.raises(DataError, match=r"mine\.toml is not TOML"):
        read_suite(tmp_path / "mine.toml")


def test_two_data_files_with_rows_of_the_same_name_are_not_mixed_up(tmp_path: Path) -> None:
    for name, answer in (("a", "1"), ("b", "2")):
        rows = [{"question": "How many?", "answer": f"So it is.\n#### {answer}"}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entry = '[[tasks]]\ntask = "gsm8k"\ndata = "{}"\n'
    text = entry.format(tmp_path / "a.jsonl") + entry.format(tmp_path / "b.jsonl")
    with pytest.raises(UsageError, match=r"selected twice, from .*a\.jsonl and from .*b\.jsonl"):
        select(suite(tmp_path, text))


# -- what is written down ---------------------------------------------------------------------------------------------


def test_a_place_is_written_down_so_that_it_is_found_from_elsewhere(
    desks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(desks.parent)
    assert absolute(EnvRef("desks.py:Desk", {}, "rows.jsonl")) == EnvRef(f"{desks}:Desk", {}, str(tmp_path / "rows.jsonl"))
    assert absolute(EnvRef("math.add-v1", {}, "hf:gsm8k")) == EnvRef("math.add-v1", {}, "hf:gsm8k")


def test_a_class_is_written_down_by_the_place_where_another_process_finds_it(desks: Path) -> None:
    assert place_of(Bank) == "tests.envs:Bank"
    desk = registry.load_place(f"{desks}:Desk")
    assert place_of(desk) == f"{desks}:Desk"
    assert registry.env_class(place_of(desk)) is desk
    assert place_of(registry.env_class("math.add")) == "math.add-v1"

    class Local(Guess):
        family = "test.local"

    assert place_of(Local) == "test.local-v1"


class Add(registry.env_class("math.add")):  # type: ignore[misc]
    """Bears the name of an environment that comes along, and is another."""


def test_a_class_that_bears_the_name_of_another_is_not_mistaken_for_it() -> None:
    assert Add.family == "math.add"
    assert place_of(Add) == f"{Add.__module__}:Add"


def test_a_run_of_a_class_is_planned_with_that_place(tmp_path: Path) -> None:
    outcome = play(Bank, ScriptedPolicy(["done"]), tmp_path, Choice(limit=1))
    with Run(outcome.path) as run:
        assert [json.loads(row[0]) for row in run._rows("SELECT ref FROM environments")] == [{"place": "tests.envs:Bank"}]


def test_selecting_closes_every_environment_that_it_looked_at() -> None:
    class Counted(Guess):
        family = "test.counted"
        open = 0

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            Counted.open += 1

        def close(self) -> None:
            Counted.open -= 1

    select(Counted)
    with pytest.raises(NotFoundError):
        select("test.counted/control/x")
    assert Counted.open == 0


def test_the_working_directory_is_no_place_for_tasks_of_other_peoples_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test.guess" / "control").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in sys.path
    assert select("test.guess/control/1") == ["test.guess/control/1"]
    assert os.listdir(tmp_path) == ["test.guess"]
