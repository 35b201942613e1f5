# SPDX-License-Identifier: Apache-2.0
"""Every family, level and variant: honest work is paid in full, laziness and chance are not, and nothing is given away."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import msgspec
import pytest
from gymnasium.utils.env_checker import check_env

from agentgym.chat import Message, Observation, assistant, call, submit
from agentgym.dataenv import DataEnv
from agentgym.env import ChatEnv
from agentgym.errors import DefinitionError, UsageError
from agentgym.evaluators.math_answer import number
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import EpisodeContext
from agentgym.scoring import Finding
from agentgym.task import Task
from tests.tasks.families import EXTRACTS, environments, families, played

TASKS, SANDBOXED = (24, 6), (2, 1)
"""How many tasks of an environment are played, and of one that runs them in a sandbox: in its first variant, in another one.
`agentgym validate --all` plays more of them."""

every_environment = pytest.mark.parametrize("env", list(environments()), ids=lambda env: f"{env.label}/{env.variant}")
every_family = pytest.mark.parametrize("family", list(families()))


def some(env: ChatEnv) -> list[str]:
    first, other = SANDBOXED if env.needs() else TASKS
    return env.items(first if env.variant == env.variants[0] else other)


def violated(findings: list[Finding]) -> set[str]:
    return {f.dimension for f in findings if f.violation}


# -- who is paid ------------------------------------------------------------------------------------------------------


@every_environment
def test_honest_work_is_paid_in_full_with_actions_that_anybody_may_take(env: ChatEnv) -> None:
    for item in some(env):
        result = played(env, "honest", item)
        trajectory = result.trajectory
        assert (trajectory.outcome, trajectory.error) == ("terminated", None), item
        assert result.gold == 1.0, item
        # where cheating tempts it may pay better than work
        assert result.reward == 1.0 or (env.temptations and (result.reward or 0.0) > 0), item
        assert violated(result.findings) == set()
        for turn in trajectory.turns:
            assert env.action_space.contains(turn.message), turn.message
            assert all(r.status == "ok" for r in turn.results)
            assert not {"state.undeclared_write", "tool.exception"} & {e.kind for e in turn.events}


@every_environment
def test_laziness_is_never_paid(env: ChatEnv) -> None:
    for item in some(env):
        result = played(env, "lazy", item)
        assert (result.trajectory.outcome, result.reward, result.gold) == ("terminated", 0.0, 0.0), item
        assert violated(result.findings) == set()


@every_environment
def test_chance_is_paid_next_to_nothing(env: ChatEnv) -> None:
    items = some(env)
    results = [played(env, "random", item) for item in items]
    assert all(r.gold is not None and r.trajectory.error is None for r in results)
    assert sum(r.gold or 0.0 for r in results) <= 0.05 * len(items)


@every_environment
def test_cheating_is_what_the_variant_tempts_to_and_is_noticed(env: ChatEnv) -> None:
    if type(env).cheater is ChatEnv.cheater:
        assert env.variants == ("control",), f"{env.label} has a variant and no oracle that gives in to it"
        with pytest.raises(DefinitionError, match="has no cheater oracle"):
            next(env.cheater(env.make_task(env.items(1)[0])))
        return
    if env.variant in env.temptations:
        for item in some(env):
            assert violated(played(env, "cheater", item).findings) == set(env.temptations[env.variant]), item


# -- nothing is given away -------------------------------------------------------------------------------------------------


@every_environment
def test_nothing_that_is_told_holds_the_hidden_half(env: ChatEnv) -> None:
    for item in env.items(8):
        opening, info = env.reset(options={"item": item})
        assert set(info) == {"task_id", "turn"}
        assert isinstance(opening, Observation)
        told = " ".join(m.text for m in opening)
        assert "gold" not in told
        assert "hidden" not in told
        for action in ("Hello?", assistant("", *call("submit").tool_calls)):
            if not env._running:
                break
            _, _, _, _, info = env.step(action)
            assert set(info) <= {"task_id", "turn", "proxy"}
        if isinstance(env.task.gold, str) and len(env.task.gold) > 2:
            assert env.task.gold not in repr(info)


def question(task: Task) -> str:
    return task.opening if isinstance(task.opening, str) else " ".join(m.text for m in task.opening)  # type: ignore[union-attr]


NUMERIC = [e for e in environments() if e.family.startswith("math.") and e.family != "math.symbolic"]
"""Those whose gold is a number."""


@pytest.mark.parametrize("env", NUMERIC, ids=lambda env: f"{env.label}/{env.variant}")
def test_the_answer_is_none_of_the_numbers_of_the_question(env: ChatEnv) -> None:
    counts: dict[str, int] = {}
    for item in env.items(400):
        task = env.make_task(item)
        assert number(task.gold) is not None
        assert str(abs(int(task.gold))) not in re.findall("[0-9]+", question(task)), item
        counts[task.gold] = counts.get(task.gold, 0) + 1
    # whoever answers every task with the same number is seldom right; sums of two digits have but 17 values
    assert max(counts.values()) <= (0.15 if env.label == "math.add" else 0.10) * 400


def echo(context: EpisodeContext) -> list[Message]:
    """Answers with the question, then with its end, as a policy may that has learned nothing else."""
    core: Any = context.env
    return [assistant(question(core.unwrapped.task))]


def last_number(context: EpisodeContext) -> list[Message]:
    core: Any = context.env
    return [assistant("Answer: " + re.findall("[0-9]+", question(core.unwrapped.task))[-1])]


def squeezed(context: EpisodeContext) -> list[Message]:
    """The expression of the question without its spaces: ``14 / 2`` as ``14/2``."""
    core: Any = context.env
    found = re.search(r"Calculate (.*)\.", question(core.unwrapped.task))
    return [assistant("Answer: " + (found[1] if found else "").replace(" ", ""))]


@pytest.mark.parametrize("env", NUMERIC, ids=lambda env: env.label)
@pytest.mark.parametrize("script", [echo, last_number, squeezed])
def test_copying_from_the_question_is_never_paid(env: ChatEnv, script: Any) -> None:
    for item in env.items(60):
        assert played(env, ScriptedPolicy(script, privileged=True), item).gold == 0.0, item


def off_by_one(context: EpisodeContext) -> list[Message]:
    core: Any = context.env
    env = core.unwrapped
    wrong = str(int(env.task.gold) + 1)
    return [submit(answer=wrong)] * env.max_turns if "submit" in env.tools else [assistant(f"Answer: {wrong}")]


@pytest.mark.parametrize("env", [e for e in NUMERIC if e.variant == "control"], ids=lambda env: env.label)
def test_an_answer_that_is_off_by_one_is_never_paid(env: ChatEnv) -> None:
    for item in some(env):
        result = played(env, ScriptedPolicy(off_by_one, privileged=True), item)
        assert (result.reward, result.gold) == (0.0, 0.0)


# -- environments as such -----------------------------------------------------------------------------------------------------


@every_family
def test_gymnasiums_own_checker_is_content(family: str) -> None:
    cls = families()[family]
    data = {"data": str(EXTRACTS[family])} if issubclass(cls, DataEnv) else {}
    check_env(gymnasium.make(f"agentgym/{family}-v{cls.version}", **data).unwrapped, skip_render_check=True)


@every_family
def test_a_level_that_does_not_exist_is_refused_in_words(family: str) -> None:
    cls = families()[family]
    if "level" not in cls.parameters:
        assert issubclass(cls, DataEnv)
        return
    for level in (0, -1, 99, "two", 1.5):
        with pytest.raises(UsageError, match=rf"^{re.escape(family)}: .*level"):
            cls(level=level)


@every_environment
def test_playing_a_task_does_not_change_it(env: ChatEnv) -> None:
    item = env.items(1)[0]
    task = env.make_task(item)
    before = repr(msgspec.to_builtins(task))  # files may hold bytes as lone surrogates, which nothing encodes
    for oracle in ("honest", "random", "lazy"):
        env.reset(options={"task": task})
        plan = getattr(env, oracle)(task)
        action = next(plan)
        while True:
            obs, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
            action = plan.send(obs)
    assert repr(msgspec.to_builtins(task)) == before


@every_environment
def test_items_of_a_split_are_disjoint(env: ChatEnv) -> None:
    cls = type(env)
    extra: dict[str, Any] = {"data": str(EXTRACTS[env.family])} if isinstance(env, DataEnv) else {}
    train, held = (set(cls(split=s, variant=env.variant, **env.params, **extra).items(20)) for s in ("train", "eval"))
    assert train
    assert held
    assert not train & held
