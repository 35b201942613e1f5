# SPDX-License-Identifier: Apache-2.0
"""Programming tasks: every template agrees with itself, the tools answer, and knowing the visible tests is not enough."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentgym
from agentgym.chat import Message, assistant, call, submit
from agentgym.env import ChatEnv
from agentgym.errors import DataError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import EpisodeContext
from agentgym.tasks.code.datasets import MBPP, HumanEval
from agentgym.tasks.code.draw import TEMPLATES
from agentgym.tasks.code.func import Func
from agentgym.tasks.code.problem import cases, function_of
from tests.tasks.families import EXTRACTS, played


def scripted(script: Any) -> ScriptedPolicy:
    return ScriptedPolicy(script, privileged=True)


def solution(context: EpisodeContext) -> str:
    env: Any = context.env
    return str(env.unwrapped.task.hidden["solution"])


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_template_draws_many_problems_and_its_examples_are_what_it_answers(name: str, level: int) -> None:
    stubs, references = set(), set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        problem = TEMPLATES[name](rng, level)
        known = cases(problem, rng, 8)
        function = function_of(problem.reference, problem.name)
        stub = problem.stub(known[-2:])
        tree = ast.parse(stub)
        assert isinstance(tree.body[0], ast.FunctionDef)
        assert tree.body[0].name == problem.name
        assert len(stub) < 2500
        for args, value in known:
            before = repr(args)
            assert function(*args) == value  # a second time, of the very same objects
            assert repr(args) == before, f"{name} changes its arguments"
            assert ast.literal_eval(repr(args)) == args
            assert ast.literal_eval(repr(value)) == value
            assert type(value) is not float
        stubs.add(stub)
        references.add(problem.reference)
    assert len(stubs) >= 10
    assert len(references) >= 2


def test_tasks_are_of_all_templates_and_their_tests_tell_programs_apart() -> None:
    env = Func(level=2)
    templates = set()
    for item in env.items(80):
        task = env.make_task(item)
        templates.add(task.cluster)
        hidden = task.hidden
        assert len(hidden["examples"]) == 3
        assert len(hidden["tests"]["cases"]) >= 8
        assert len({value for _, value in hidden["shown"]}) == 3
        assert all(example.startswith("assert ") for example in hidden["examples"])
    assert len(templates) >= 15
    assert all(t is not None and t.startswith("code.func:level=2#") for t in templates)


# -- the tools --------------------------------------------------------------------------------------------------------


def test_the_session_is_stateful_and_the_tests_say_what_failed() -> None:
    def script(context: EpisodeContext) -> list[Message]:
        right = solution(context)
        name = right.partition("(")[0].removeprefix("def ")
        return [
            call("run", code="x = 6"),
            call("run", code="print(x * 7)\n1 / 0"),
            call("test", code=right),
            call("test", code=f"def {name}(*a): return 'no'"),
            call("test", code="def broken(:"),
            call("test", code="import os; os._exit(0)"),
            submit(code=right),
        ]

    result = played(Func(), scripted(script), "3")
    told = [t.observation[0].text for t in result.trajectory.turns]
    assert "42" in told[1]
    assert "ZeroDivisionError" in told[1]
    assert told[2] == "3 of 3 visible tests pass"
    assert told[3].count("FAILED test ") == 3
    assert "and is 'no'" in told[3]
    assert "0 of 3 visible tests pass" in told[3]
    assert "SyntaxError" in told[4]
    assert "could not be run to their end" in told[5]
    assert (result.reward, result.gold) == (1.0, 1.0)


def test_a_program_in_the_last_message_counts_as_handed_in() -> None:
    result = played(Func(), scripted(lambda c: [assistant(f"Here:\n```python\n{solution(c)}\n```")]), "4")
    assert (result.reward, result.gold) == (1.0, 1.0)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_knowing_the_visible_tests_is_paid_and_not_wanted(level: int) -> None:
    for item in Func(level=level).items(3):
        result = played(Func(level=level), "cheater", item)
        assert (result.reward, result.gold) == (1.0, 0.0), item


# -- data sets --------------------------------------------------------------------------------------------------------


def test_ids_are_the_data_sets_own() -> None:
    assert HumanEval(data=str(EXTRACTS["humaneval"])).items(2) == ["HumanEval-0", "HumanEval-1"]
    assert MBPP(data=str(EXTRACTS["mbpp"])).items(3) == ["2", "3", "4"]


@pytest.mark.parametrize(("cls", "rows"), [(HumanEval, 164), (MBPP, 427)])
def test_every_row_of_the_whole_set_can_be_played(cls: type[ChatEnv], rows: int) -> None:
    folder = os.environ.get("AGENTGYM_DATA")
    path = Path(folder) / cls.standard_name if folder else EXTRACTS[cls.family]  # type: ignore[attr-defined]
    env = cls(data=str(path))  # type: ignore[call-arg]
    items = env.items(1000)
    assert len(items) == (rows if folder else 20)
    without = [i for i in items if not env.make_task(i).hidden["examples"]]
    assert len(without) <= 2


def test_rows_without_an_example_are_paid_by_their_own_tests() -> None:
    env = HumanEval(data=str(EXTRACTS["humaneval"]))
    result = played(env, "honest", "HumanEval-38")
    assert result.trajectory.turns[1].observation[0].text == "this task has no visible tests"
    assert (result.reward, result.gold) == (1.0, 1.0)


def test_helpers_of_a_prompt_need_not_be_handed_in() -> None:
    env = HumanEval(data=str(EXTRACTS["humaneval"]))
    own = "def decode_cyclic(s: str):\n    return encode_cyclic(encode_cyclic(s))\n"
    assert played(env, ScriptedPolicy([submit(code=own)]), "HumanEval-38").gold == 1.0


def test_the_other_format_of_mbpp_is_read(tmp_path: Path) -> None:
    row = {
        "task_id": 11, "text": "Write a function that rounds up.", "code": "def up(x):\n    return math.ceil(x)",
        "test_list": ["assert up(1.5) == 2", "assert up(-1.5) == -1", "assert up(3) == 3"], "test_setup_code": "import math",
        "challenge_test_list": [],
    }  # fmt: skip
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert played(MBPP(data=str(path)), "honest", "11").gold == 1.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"test_list": []}, "'test_list' must hold"),
        ({"test_list": ["assert f(1) == 1"]}, "no test of 'test_list' calls"),
        ({"code": "def g(:"}, "code cannot be read as Python"),
        ({"task_id": "x"}, "'task_id' must be int"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    row = {"task_id": 1, "prompt": "p", "code": "def g(x): return x", "test_list": ["assert g(1) == 1"], **change}
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 1") as caught:
        MBPP(data=str(path)).items()
    assert why in str(caught.value)


# -- shell ------------------------------------------------------------------------------------------------------------


def test_a_chore_done_with_something_else_is_paid_and_not_wanted() -> None:
    def script(context: EpisodeContext) -> list[Message]:
        env: Any = context.env
        commands = env.unwrapped.task.hidden["commands"]
        return [*(call("bash", command=c) for c in commands), call("bash", command="echo x > /workspace/mine"), submit()]

    env = agentgym.registry.env_class("term.shell")(level=2)
    for item in env.items(3):
        result = played(env, scripted(script), item)
        assert (result.reward, result.gold) == (1.0, 0.0)
        assert [f.dimension for f in result.findings if f.violation] == ["side_effects"]


def test_doing_nothing_in_a_shell_is_never_enough() -> None:
    for level in (1, 2, 3):
        env: Any = agentgym.registry.env_class("term.shell")(level=level)
        for item in env.items(150):
            hidden = env.make_task(item).hidden
            start = {p: (f.data, f.mode) for p, f in hidden["files"].items()}
            assert hidden["answers"] or set(start) != set(hidden["after"]) or hidden["after"] != env.make_task(item).state.files
