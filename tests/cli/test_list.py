# SPDX-License-Identifier: Apache-2.0
"""``agentgym list``: tasks, suites, models, runs and a run's episodes, for people and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentgym import registry
from agentgym.records import schema
from tests.cli.conftest import AgentGym


def test_without_a_word_it_lists_every_task_with_what_it_is(agentgym: AgentGym) -> None:
    ran = agentgym("list")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].split() == ["name", "variants", "parameters", "about"]
    assert [line.split()[0] for line in ran.lines[1:]] == list(registry.families())
    (retail,) = [line for line in ran.lines if line.startswith("tools.retail")]
    assert "control tempt" in retail
    assert "level=1" in retail
    # a pipe gets the whole sentence
    assert "…" not in ran.out
    assert ran == agentgym("list", "tasks")


def test_a_task_that_cannot_be_loaded_is_listed_with_the_reason(
    agentgym: AgentGym, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.tasks._places, "test.gone-v1", "no_such_module:Gone")
    ran = agentgym("list", "-k", "test.gone")
    assert ran.code == 0
    assert "cannot be loaded: there is no module 'no_such_module'" in ran.out


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        ("tasks", {"name", "version", "variants", "parameters", "about"}),
        ("suites", {"name", "trials", "families", "about"}),
        ("models", {"name", "example", "about"}),
    ],
)
def test_json_is_one_value_a_line(agentgym: AgentGym, what: str, keys: set[str]) -> None:
    ran = agentgym("list", what, "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = [json.loads(line) for line in ran.lines]
    assert rows
    assert all(set(row) == keys for row in rows)
    assert len(agentgym("list", what).lines) == len(rows) + 1


def test_suites_and_models_name_what_eval_takes(agentgym: AgentGym) -> None:
    assert [line.split()[0] for line in agentgym("list", "suites").lines[1:]] == ["alignment", "code", "quickstart", "smoke"]
    models = agentgym("list", "models").out
    assert all(name in models for name in ("local:smollm2", "oracle:honest", "replay:RUN", "./my_policy.py:MyPolicy"))


def test_runs_are_listed_with_how_far_they_got_and_their_gold(agentgym: AgentGym, place: Path, solved: Path) -> None:
    agentgym("eval", "math.add", "--limit", "2", "-q", "-m", "tests.cli.players:Wrong")
    ran = agentgym("list", "runs")
    assert ran.code == 0
    head, first, second = ran.lines
    assert head.split() == ["name", "model", "status", "done", "gold", "created"]
    assert re.fullmatch(rf"{solved.name} +oracle:honest +finished +6/6 +1 +\d{{4}}-\d\d-\d\d \d\d:\d\d", first)
    assert re.search(r"tests.cli.players:Wrong +finished +2/2 +0 ", second)
    rows = [json.loads(line) for line in agentgym("list", "runs", "--json").lines]
    assert [(r["title"], r["done"], r["planned"], r["gold"]) for r in rows] == [
        ("math.add+math.chain+tools.retail", 6, 6, 1.0),
        ("math.add", 2, 2, 0.0),
    ]
    assert Path(rows[0]["path"]) == solved.relative_to(place)
    assert [line.split()[0] for line in agentgym("list", "runs", "-k", "retail").lines[1:]] == [solved.name]
    assert len(agentgym("list", "runs", "--limit", "1").lines) == 2


def test_a_damaged_run_does_not_hide_the_others(agentgym: AgentGym, solved: Path) -> None:
    broken = solved.with_name("2026-01-01T00-00-broken-aaaa")
    broken.mkdir()
    (broken / schema.FILE).write_bytes(b"not a database, that is sure" * 100)
    ran = agentgym("list", "runs")
    assert ran.code == 0
    assert any(line.startswith(broken.name) and "damaged" in line for line in ran.lines)
    assert any(line.startswith(solved.name) and "finished" in line for line in ran.lines)
    rows = {r["name"]: r for r in map(json.loads, agentgym("list", "runs", "--json").lines)}
    assert rows[broken.name]["status"] == "damaged"
    assert "cannot be read as a run" in rows[broken.name]["error"]


def test_a_runs_episodes_and_their_addresses(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("list", solved.name)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].split() == ["episode", "outcome", "reward", "gold", "turns"]
    assert "math.chain/control/1/0" in ran.out
    assert ran.out == agentgym("list", "latest").out == agentgym("list", str(solved)).out
    rows = [json.loads(line) for line in agentgym("list", "latest", "--json").lines]
    assert len(rows) == 6
    for row in rows:
        assert agentgym("show", row["address"]).code == 0
    assert len(agentgym("list", "latest", "-k", "math.add").lines) == 3


def test_failed_lists_what_was_not_solved_or_not_scored(agentgym: AgentGym) -> None:
    agentgym("eval", "math.add", "--limit", "4", "-q", "--infra-limit", "1", "-m", "tests.cli.players:DownForOdd")
    rows = [json.loads(line) for line in agentgym("list", "latest", "--failed", "--json").lines]
    assert [(r["task_id"], r["outcome"], r["gold"]) for r in rows] == [
        ("math.add/control/0", "terminated", 0.0),
        ("math.add/control/1", "infrastructure", None),
        ("math.add/control/2", "terminated", 0.0),
        ("math.add/control/3", "infrastructure", None),
    ]
    ran = agentgym("list", "latest", "--failed")
    assert ran.lines[0].split() == ["episode", "outcome", "reward", "gold", "turns", "error"]
    assert "the server at http://***@example.test is down" in ran.lines[2]
    agentgym("eval", "math.add", "--limit", "4", "-q", "-m", "tests.cli.players:HalfRight")
    assert [line.split()[0] for line in agentgym("list", "latest", "--failed").lines[1:]] == [
        "math.add/control/1/0",
        "math.add/control/3/0",
    ]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["runs"], 5, "there are no runs in runs/ yet: `agentgym eval quickstart` makes one"),
        (["latest"], 2, "there are no runs in runs/ yet"),
        (["task"], 2, "there is no run 'task'"),
        (["task"], 2, "What else can be listed: tasks, suites, models, runs. Did you mean: tasks?"),
        (["tasks", "--failed"], 2, "--failed is for the episodes of a run"),
        (["tasks", "--limit", "0"], 2, "--limit must be at least 1, not 0"),
        (["tasks", "-k", "xyzzy"], 5, "nothing listed under tasks has 'xyzzy' in its name"),
        (["tasks", "--json", "-k", "xyzzy"], 5, "nothing listed under tasks"),
    ],
)
def test_nothing_to_list_is_said_in_a_sentence(agentgym: AgentGym, argv: list[str], code: int, said: str) -> None:
    ran = agentgym("list", *argv)
    assert ran.code == code
    assert ran.out == ""
    assert said in ran.err


def test_where_nothing_failed_that_is_said(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("list", "latest", "--failed")
    assert (ran.code, ran.out, ran.err) == (5, "", "agentgym: no episode of latest failed\n")


def test_where_picks_episodes_by_a_filter_and_says_what_is_wrong_with_one(agentgym: AgentGym) -> None:
    assert agentgym("eval", "tools.retail", "--model", "oracle:cheater", "--limit", "2").code == 0
    rows = [json.loads(line) for line in agentgym("list", "latest", "--json").lines]
    some = [json.loads(line) for line in agentgym("list", "latest", "--json", "--where", "turns>0 -item:0").lines]
    assert some == [r for r in rows if r["turns"] and not r["task_id"].endswith("/0")]
    assert 0 < len(some) < len(rows)
    ran = agentgym("list", "latest", "--where", "gold<1 dmi:policy")
    assert ran.code == 2
    assert ran.err.splitlines()[1:3] == ["  gold<1 dmi:policy", "         ^^^"]
    assert "Did you mean: dim?" in ran.err
    ran = agentgym("list", "latest", "--where", "turns>1000")
    assert (ran.code, "fits 'turns>1000'" in ran.err) == (5, True)
    assert agentgym("list", "runs", "--where", "gold<1").code == 2
