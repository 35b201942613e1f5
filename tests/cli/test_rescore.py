# SPDX-License-Identifier: Apache-2.0
"""``agentgym rescore``: what changed, with addresses, and whose scores `show` and `list` then read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import AgentGym

DESK = '''
from agentgym import ChatEnv, Task, verifier

@verifier
def polite(trajectory, context):
    return "please" in trajectory.final_text

class Desk(ChatEnv):
    """A desk."""
    family = "test.desk"
    gold = (polite,)
    max_turns = 1

    def new_task(self, rng):
        return Task(opening=f"Ask for {rng.integers(9)}.")

    def lazy(self, task):
        yield "please \\x1b[2Jnow" if task.seed % 2 else "give it"
'''


@pytest.fixture
def desk(program: AgentGym, place: Path) -> Path:
    file = place / "desk.py"
    file.write_text(DESK)
    assert program("eval", "./desk.py:Desk", "--limit", "4", "-m", "oracle:lazy", "-q").code == 0
    return file


def test_a_verifier_whose_code_has_changed_is_named_with_what_it_turns(program: AgentGym, desk: Path) -> None:
    ran = program("rescore", "--with", "own")
    assert (ran.code, ran.err) == (0, "")
    assert "4 episodes scored again · nothing changed · gold .50 -> .50" in ran.out
    desk.write_text(desk.read_text().replace('"please" in', '"give" in'))
    ran = program("rescore", "latest", "--with", "own", "--limit", "3")
    assert ran.code == 0
    assert "::test.desk/control/0/0" in ran.lines[0]
    assert ran.lines[1] == "  gold 0 -> 1"
    assert sum("::" in line for line in ran.lines) == 3
    assert "... and 1 more: --limit N shows them, --json all" in ran.lines
    assert any(line.startswith("polite: ") and "(changed), 4 episodes" in line and " -> " in line for line in ran.lines)
    assert "4 changed (gold of 4, reward of 4, proxy polite of 4, gold polite of 4) · gold .50 -> .50" in ran.out
    assert ran.lines[-1].startswith("kept beside the run's own scores: agentgym show runs/")
    assert ran.lines[-1].endswith(" --scores own-2")


def test_json_is_a_line_for_each_changed_episode_and_the_counts_last(agentgym: AgentGym, desk: Path) -> None:
    (desk.parent / "mine.py").write_text(
        "from agentgym import Score, verifier\n@verifier\ndef mine(t, c):\n"
        "    return Score('mine', value=0.0, reason='said ' + t.final_text)\n"
    )
    ran = agentgym("rescore", "--with", "./mine.py:mine", "--json")
    *changed, total = [json.loads(line) for line in ran.lines]
    assert "\x1b" not in ran.out
    assert [c["address"].partition("::")[2] for c in changed] == ["test.desk/control/1/0", "test.desk/control/3/0"]
    assert changed[0]["changes"] == [{"what": "gold", "before": 1.0, "after": 0.0, "reason": "said please \x1b[2Jnow"}]
    assert (total["scores"], total["changed"], total["gold_before"], total["gold_after"]) == ("mine", 2, 0.5, 0.0)
    shown = agentgym("rescore", "--with", "./mine.py:mine")
    assert "\x1b" not in shown.out
    assert "\\x1b[2Jnow" in shown.out


def test_show_and_list_read_the_set_that_they_are_told(agentgym: AgentGym, desk: Path) -> None:
    (desk.parent / "mine.py").write_text("from agentgym import verifier\n@verifier\ndef mine(t, c):\n    return True\n")
    assert agentgym("rescore", "--with", "./mine.py:mine", "--scores", "lenient").code == 0
    own, later = agentgym("show", "latest"), agentgym("show", "latest", "--scores", "lenient")
    assert "gold 2/4" in own.out
    assert later.lines[0] == "scores 'lenient', given later by ./mine.py:mine"
    assert "gold 4/4" in later.out
    assert [json.loads(line)["gold"] for line in agentgym("list", "latest", "--json").lines] == [0.0, 1.0, 0.0, 1.0]
    listed = agentgym("list", "latest", "--scores", "lenient", "--json")
    assert [json.loads(line)["gold"] for line in listed.lines] == [1.0] * 4
    episode = json.loads(agentgym("show", "latest::test.desk/control/0/0", "--scores", "lenient", "--json").out)
    assert [(s["name"], s["role"]) for s in episode["scores"]] == [("polite", "proxy"), ("mine", "gold")]


def test_a_registered_evaluator_is_known_by_its_name(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("rescore", "--with", "submitted_status", "--with", "math_answer", "--as", "metric", "--json")
    total = json.loads(ran.lines[-1])
    assert (ran.code, total["scores"]) == (0, "submitted_status+math_answer")
    assert {name for name, *_ in total["verifiers"]} >= {"submitted_status"}


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ((), 2, "say with what: --with own"),
        (("nix", "--with", "own"), 2, "there is no run 'nix'"),
        (("--with", "nix"), 2, "no evaluator 'nix'"),
        (("--with", "tests.rollout.judges:in_a_sandbox"), 2, "needs a sandbox to judge with: say which by --sandbox NAME"),
        (("--with", "tests.rollout.judges:in_a_sandbox", "--sandbox", "moon"), 2, "there is no sandbox backend 'moon'"),
        (("--with", "tests.rollout.judges:by_a_judge", "--judge", "moon:x"), 2, "moon"),
    ],
)
def test_what_cannot_be_done_is_said(agentgym: AgentGym, solved: Path, argv: tuple[str, ...], code: int, said: str) -> None:
    ran = agentgym("rescore", *argv)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_a_set_of_scores_belongs_to_a_run(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("list", "tasks", "--scores", "own")
    assert (ran.code, "--scores is for the episodes of a run" in ran.err) == (2, True)
    ran = agentgym("show", "latest", "--scores", "own")
    assert (ran.code, "has no set of scores 'own'; it has only its own" in ran.err) == (2, True)


def test_programs_are_judged_again_in_a_sandbox(program: AgentGym, place: Path) -> None:
    assert program("eval", "code.func", "--limit", "2", "-m", "oracle:honest", "-q").code == 0
    ran = program("rescore", "--with", "own", "--sandbox", "auto")
    assert (ran.code, ran.err) == (0, "")
    assert "2 episodes scored again · nothing changed · gold 1 -> 1" in ran.out


def test_a_judge_is_asked_when_it_is_named(agentgym: AgentGym, solved: Path, place: Path) -> None:
    (place / "asks.py").write_text(ASKS)
    ran = agentgym("rescore", "--with", "./asks.py:asks", "--judge", "./asks.py:Nodder", "--as", "metric", "--json")
    assert ran.code == 0, ran.err
    total = json.loads(ran.lines[-1])
    assert (total["episodes"], total["unscorable"]) == (6, [])


ASKS = """
from agentgym import Completion, PolicyBase, assistant, user, verifier, Sampling
from agentgym.background import run_blocking

class Nodder(PolicyBase):
    name = "nodder"
    async def act(self, conversation, tools, sampling):
        return Completion(assistant("yes"))

@verifier(needs={"policy"})
def asks(trajectory, context):
    reply = run_blocking(context.judge.act([user("Is it good?")], (), Sampling()))
    return reply.message.text == "yes"
"""
