# SPDX-License-Identifier: Apache-2.0
"""``agentgym show``: a run, an episode, a turn, by address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentgym.records.run import Run
from tests.cli.conftest import AgentGym


def test_a_run_is_shown_as_eval_left_it(agentgym: AgentGym, place: Path) -> None:
    said = agentgym("eval", "math.add", "--limit", "3", "-m", "oracle:honest").lines
    (run,) = (place / "runs").iterdir()
    for argv in (["show"], ["show", "latest"], ["show", run.name], ["show", run.name[-4:]], ["show", str(run)]):
        assert agentgym(*argv).lines[:2] == said[:2]
    summary = json.loads(agentgym("show", "--json").out)
    assert (summary["title"], summary["done"], summary["status"]) == ("math.add", 3, "finished")


def test_an_episode_is_shown_from_its_opening_to_its_scores(agentgym: AgentGym, place: Path, solved: Path) -> None:
    ran = agentgym("show", "latest::math.chain/control/1/0")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.lines
    assert lines[0] == f"{solved.relative_to(place)}::math.chain/control/1/0"
    assert lines[1] == "user"
    assert "@0 assistant" in lines
    calls = [line for line in lines if line.startswith("  → calculator(")]
    assert calls
    assert lines[lines.index(calls[0]) + 1] == "tool calculator"
    assert any(line.startswith("— terminated after ") for line in lines)
    assert any(line.startswith("  gold   answer 1") for line in lines)
    assert "  metric calculator used 1" in lines
    # without a trial it is the first one; the item may be given alone
    assert agentgym("show", "latest::math.chain/control/1").out == ran.out


def test_state_changes_and_findings_are_shown(agentgym: AgentGym) -> None:
    assert agentgym("eval", "tests.envs:Bank", "--variant", "tempt", "--limit", "1", "-q", "-m", "oracle:cheater").code == 0
    out = agentgym("show", "latest::test.bank/tempt/0").out
    assert "  state add /extra/log/rows/2 → 3" in out
    assert "  policy/no_cooking: violated" in out
    assert agentgym("eval", "tests.envs:Bank", "--variant", "tempt", "--limit", "1", "-q", "-m", "oracle:honest").code == 0
    out = agentgym("show", "latest::test.bank/tempt/0").out
    assert "  policy/no_cooking: kept" in out


def test_a_turn_is_shown_alone(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("show", "latest::math.chain/control/1/0@0")
    assert ran.lines[0] == "@0 assistant"
    assert not any(line.startswith("@1") for line in ran.lines)
    assert "— terminated" not in ran.out


def test_json_holds_what_the_record_holds(agentgym: AgentGym, solved: Path) -> None:
    document = json.loads(agentgym("show", "latest::math.chain/control/1/0", "--json").out)
    with Run(solved) as run:
        episode = run.episode("math.chain/control/1", 0)
        assert document["reward"] == episode.reward
        assert document["gold"] == episode.gold
        assert [s["name"] for s in document["scores"]] == [s.name for s in episode.all_scores]
        assert len(document["trajectory"]["turns"]) == len(episode.trajectory.turns)
    turn = json.loads(agentgym("show", "latest::math.chain/control/1/0@1", "--json").out)
    assert turn == document["trajectory"]["turns"][1]


def test_a_failure_of_infrastructure_is_shown_as_one(agentgym: AgentGym) -> None:
    agentgym("eval", "math.add", "--limit", "1", "-q", "-m", "tests.cli.players:Down")
    lines = agentgym("show", "latest::math.add/control/0").lines
    assert any(line.startswith("— infrastructure after 0 turns") for line in lines)
    assert "  policy: the server at http://***@example.test is down" in lines
    assert not any("gold" in line for line in lines)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nix", "there is no run 'nix' here or in runs/"),
        ("latest::math.chain", "is not an address: expected RUN::FAMILY/VARIANT/ITEM/TRIAL[@TURN]"),
        ("latest::math.chain/control/99/0", "has no episode of 'math.chain/control/99'. Did you mean: math.chain/control/"),
        ("latest::math.chain/control/1/7", "has no trial 7 of math.chain/control/1; it has [0]"),
        ("latest::math.chain/control/1/0@99", "turns, counted from 0: no @99"),
        ("latest::math.chian/control/1/0", "Did you mean: math.chain/control/"),
    ],
)
def test_a_bad_address_says_what_there_is(agentgym: AgentGym, solved: Path, address: str, said: str) -> None:
    for more in ((), ("--json",)):
        ran = agentgym("show", address, *more)
        assert ran.code == 2
        assert ran.out == ""
        assert said in ran.err


def test_where_there_are_no_runs_it_says_how_to_make_one(agentgym: AgentGym) -> None:
    ran = agentgym("show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "agentgym: there are no runs in runs/ yet: `agentgym eval quickstart` makes one\n"
