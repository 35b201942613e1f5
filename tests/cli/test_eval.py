# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval``: what is selected, what is shown, what is kept, and the exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentgym.records.run import Run
from tests.cli.conftest import AgentGym

ORACLE = ("--model", "oracle:honest")
WRONG = ("--model", "tests.cli.players:Wrong")


def only_run(place: Path) -> Path:
    (run,) = (place / "runs").iterdir()
    return run


def played(path: Path) -> list[str]:
    with Run(path) as run:
        return [f"{e.task_id}/{e.trial}" for e in run.episodes()]


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_it_says_what_is_played_how_it_went_and_where_it_is(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("eval", "math.add", "math.chain", "--limit", "2", "--trials", "2", *ORACLE)
    assert ran.code == 0
    assert ran.err == ""
    path = only_run(place).relative_to(place)
    head, add, chain, end, see = ran.lines
    assert head == "math.add+math.chain · oracle:honest · 4 tasks x 2 trials"
    assert add == " math.add     ████████████████ 4/4   gold 4/4 (≥.40)   format 4/4"
    assert chain == " math.chain   ████████████████ 4/4   gold 4/4 (≥.40)   format 4/4   calculator used 4/4"
    assert re.fullmatch(rf"8 episodes · \d\.\d s · nothing went wrong      {path}", end)
    assert see == f"see it:  agentgym show {path}::math.add/control/0/0"
    assert agentgym(*see.removeprefix("see it:  agentgym ").split(" ")).code == 0


def test_a_pipe_gets_no_control_codes_no_blanks_at_line_ends_and_no_breaks(agentgym: AgentGym) -> None:
    ran = agentgym("eval", "math", "tools.retail", "--limit", "3", *ORACLE)
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert [line for line in ran.lines if line != line.rstrip()] == []
    # every family is on one line of its own, with all that is known of it
    (retail,) = [line for line in ran.lines if line.startswith(" tools.retail ")]
    assert "gold 3/3" in retail
    assert "policy: kept" in retail or "policy: not exposed" in retail


def test_colours_asked_for_in_a_pipe_bring_no_cursor_movements(program: AgentGym) -> None:
    ran = program("eval", "math.add", *ORACLE, FORCE_COLOR="1")
    assert "\x1b[1mmath.add\x1b[0m" in ran.out
    assert set(re.findall(r"\x1b\[[\d;?]*([A-Za-z])", ran.out)) == {"m"}
    assert [c for c in re.findall(r"\x1b\[([\d;]*)m", program("eval", "math.add", *ORACLE, FORCE_COLOR="1", NO_COLOR="1").out)
            if set(c.split(";")) & {str(n) for n in range(30, 50)}] == []  # fmt: skip


def test_a_weak_model_gets_weak_scores_with_the_interval_that_few_episodes_allow(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("eval", "math.add", "--limit", "8", *WRONG)
    assert ran.code == 0
    assert "gold 0/8 (≤.37)" in ran.out
    ran = agentgym("eval", "math.add", "--limit", "8", "--model", "tests.cli.players:HalfRight")
    assert "gold 4/8 (.16-.84)" in ran.out


def test_what_to_look_at_first_is_what_went_wrong(agentgym: AgentGym) -> None:
    ran = agentgym("eval", "math.add", "--limit", "4", "--model", "tests.cli.players:HalfRight")
    assert ran.lines[-1].endswith("::math.add/control/1/0")
    ran = agentgym("eval", "tools.retail", "--variant", "control", "--variant", "tempt", "--limit", "3", "-m", "oracle:cheater")
    with Run(Path("runs", ran.lines[-1].partition("runs/")[2].partition("::")[0])) as run:
        assert run.at(_address(ran.lines[-1])).violations > 0
    assert "violated" in ran.out


def _address(line: str) -> Any:
    from agentgym.records.run import Address

    return Address.parse(line.partition("agentgym show ")[2])


def test_json_is_one_line_on_stdout_and_the_rest_goes_to_stderr(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("eval", "math.add", "--limit", "3", "--json", *ORACLE)
    assert ran.code == 0
    (line,) = ran.lines
    summary = json.loads(line)
    assert summary["title"] == "math.add"
    assert summary["model"] == "oracle:honest"
    assert (summary["done"], summary["planned"], summary["infrastructure"], summary["stopped"]) == (3, 3, 0, None)
    (row,) = summary["rows"]
    assert (row["label"], row["gold"]["successes"], row["gold"]["n"]) == ("math.add", 3, 3)
    assert "3 episodes" in ran.err


def test_quiet_prints_nothing_unless_asked_for_json(agentgym: AgentGym) -> None:
    ran = agentgym("eval", "math.add", "-q", *ORACLE)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    ran = agentgym("eval", "math.add", "-q", "--json", *ORACLE)
    assert json.loads(ran.out)["done"] == 10
    assert ran.err == ""


# -- what is selected -------------------------------------------------------------------------------------------------


def test_tasks_may_stand_before_options_after_them_and_between(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", *ORACLE, "math.add", "--limit", "1", "math.chain", "-q", "math.arith").code == 0
    assert played(only_run(place)) == ["math.add/control/0/0", "math.chain/control/0/0", "math.arith/control/0/0"]


def test_environment_parameters(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", "tools.retail", "-T", "level=2", "-T", "orders=6", "--limit", "1", "-q", *ORACLE).code == 0
    with Run(only_run(place)) as run:
        (episode,) = run.episodes()
        assert episode.task.params == {"level": 2, "orders": 6}
    ran = agentgym("eval", "math.add", "-T", "level", *ORACLE)
    assert (ran.code, ran.err) == (2, "agentgym: -T 'level': expected NAME=VALUE, e.g. -T level=3\n")
    ran = agentgym("eval", "math.add", "-T", "levle=3", *ORACLE)
    assert ran.code == 2
    assert "level" in ran.err


def test_variants(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", "tools.retail", "--variant", "tempt", "--limit", "2", "-q", *ORACLE).code == 0
    assert played(only_run(place)) == ["tools.retail/tempt/0/0", "tools.retail/tempt/1/0"]
    ran = agentgym("eval", "tools.retail", "--variant", "temt", *ORACLE)
    assert ran.code == 2
    assert "tempt" in ran.err


@pytest.mark.parametrize("trials", ["--trials", "--epochs"])
@pytest.mark.parametrize("connections", ["-n", "--concurrency", "--max-connections"])
def test_the_words_of_other_harnesses_mean_what_they_mean_there(
    agentgym: AgentGym, place: Path, trials: str, connections: str
) -> None:
    assert agentgym("eval", "math.add", "--limit", "2", trials, "3", connections, "1", "-q", *ORACLE).code == 0
    with Run(only_run(place)) as run:
        assert run.count() == 6
        assert run.meta["options"]["concurrency"] == 1


def test_a_keyword_picks_by_name_or_pattern(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", "math", "-k", "chain/control/1", "-q", *ORACLE).code == 0
    assert played(only_run(place)) == ["math.chain/control/1/0"]
    ran = agentgym("eval", "math", "-k", "nothing-is-called-this", *ORACLE)
    assert ran.code == 5
    assert "'nothing-is-called-this'" in ran.err
    assert len(list((place / "runs").iterdir())) == 1


def test_the_address_of_an_episode_plays_its_task_again(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", "math.chain", "-T", "level=2", "--limit", "3", "-q", *WRONG).code == 0
    first = only_run(place)
    (address,) = [e.address for e in Run(first).episodes() if e.item == "2"]
    ran = agentgym("eval", address, *ORACLE)
    assert ran.code == 0
    again = max((place / "runs").iterdir(), key=lambda p: p != first)
    assert played(again) == ["math.chain:level=2/control/2/0"]
    assert next(Run(first).episodes(task_id="math.chain:level=2/control/2")).task_hash == next(Run(again).episodes()).task_hash


def test_last_failed_plays_what_was_not_solved_when_it_was_last_played(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("eval", "math.add", "--limit", "4", "-q", "--model", "tests.cli.players:HalfRight").code == 0
    assert agentgym("eval", "math.add", "--limit", "4", "--lf", "-q", *WRONG).code == 0
    assert agentgym("eval", "math.add", "--limit", "4", "--lf", "-q", *ORACLE).code == 0
    runs = sorted((place / "runs").iterdir(), key=lambda p: (p / "lock").stat().st_mtime_ns)
    odd = ["math.add/control/1/0", "math.add/control/3/0"]
    # the second run says nothing of the even ones, which the first one solved
    assert [played(p) for p in runs[1:]] == [odd, odd]
    ran = agentgym("eval", "math.add", "--limit", "4", "--lf", *ORACLE)
    assert (ran.code, ran.err) == (5, "agentgym: --lf: all 4 selected tasks were solved when they were last played\n")
    # one that was never played is not solved
    assert agentgym("eval", "math.add", "--limit", "5", "--lf", "-q", *ORACLE).code == 0


def test_a_file_of_tasks_and_a_class_in_it(agentgym: AgentGym, place: Path) -> None:
    assert agentgym("new", "task", "desk.py").code == 0
    for selector in ("desk.py", "./desk.py:Desk", str(place / "desk.py")):
        ran = agentgym("eval", selector, "--limit", "2", *ORACLE)
        assert ran.code == 0, ran.err
        assert "gold 2/2" in ran.out


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["mathh"], "no task or suite 'mathh'. Did you mean: math"),
        (["math.ad"], "Did you mean: math.add"),
        (["smok"], "Did you mean: smoke"),
        ([], "no task was named; try `agentgym eval quickstart`"),
        (["math.add", "-m", "oracel:honest"], "no model 'oracel:honest'. Did you mean: oracle?"),
        (
            ["math.add", "-m", "oracle:honst"],
            "no oracle 'honst'; there are: honest, cheater, lazy, random. Did you mean: honest",
        ),
        (["math.add", "-m", "./nothing.py:X"], "there is no file ./nothing.py"),
        (["math.add/control/x"], "math.add"),
        (["./nothing.py"], "there is no file ./nothing.py"),
        (["./nothing.toml"], "cannot read the suite nothing.toml"),
        (["latest::math.add/control/0"], "there are no runs in runs/ yet"),
        (["math.add", "--limit", "0"], "limit must be at least 1, not 0"),
        (["math.add", "--trials", "-1"], "trials must be at least 1, not -1"),
        (["math.add", "--concurrency", "0"], "--concurrency must be more than 0, not 0"),
        (["math.add", "--max-turns", "-3"], "--max-turns must be more than 0, not -3"),
        (["math.add", "--temperature", "nan"], "--temperature must be 0 or more, not nan"),
        (["math.add", "--temperature", "-0.1"], "--temperature must be 0 or more, not -0.1"),
        (["math.add", "--top-p", "1.5"], "--top-p must be more than 0 and at most 1, not 1.5"),
        (["math.add", "--infra-limit", "5"], "--infra-limit must be a share from 0 to 1, not 5.0"),
        (["math.add", "--max-cost", "inf"], "--max-cost must be more than 0, not inf"),
        (["math.add", "--retries", "-1"], "--retries must be 0 or more, not -1"),
        (["math.add", "--trails", "4"], "unrecognized arguments: --trails 4. Did you mean: --trials"),
        (["math.add", "--split", "test"], "invalid choice: 'test'"),
        (["math.add", "--limit", "many"], "argument --limit: invalid int value: 'many'"),
        (["gsm8k"], "--data"),
        (["math.add", "--resume"], "--resume"),
        (["--resume", "nix"], "there is no run 'nix'"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_sentence_and_no_run(agentgym: AgentGym, place: Path, argv: list[str], said: str) -> None:
    ran = agentgym("eval", *argv)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.startswith("agentgym")
    assert "Traceback" not in ran.err
    assert not (place / "runs").exists()


def test_a_model_that_cannot_be_had_is_told_before_a_run_is_made(
    agentgym: AgentGym, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    ran = agentgym("eval", "math.add")
    assert ran.code == 12
    assert "agentgym fetch smollm2" in ran.err
    assert "--model oracle:honest` works without it" in ran.err
    assert not (place / "runs").exists()


def test_a_bug_in_a_users_file_is_exit_70_and_says_where(agentgym: AgentGym, place: Path) -> None:
    Path("broken.py").write_text("raise KeyError('sk-abcdefghijklmnopqrstuvwxyz')\n")
    ran = agentgym("eval", "broken.py", *ORACLE)
    assert ran.code == 70
    assert "internal error: KeyError: '***' (broken.py:1)" in ran.err
    assert "AGENTGYM_TRACEBACK=1" in ran.err
    with pytest.raises(KeyError):
        agentgym("eval", "broken.py", "--verbose", *ORACLE)


# -- when infrastructure fails ----------------------------------------------------------------------------------------


def test_infrastructure_errors_above_the_limit_are_exit_12_and_counted_apart(agentgym: AgentGym, place: Path) -> None:
    ran = agentgym("eval", "math.add", "--limit", "4", "--model", "tests.cli.players:DownForOdd")
    assert ran.code == 12
    row, end, why, see = ran.lines[1:]
    assert row.endswith("gold 0/2 (≤.84)   format 0/2   infrastructure 2 (not scored)")
    assert "2 infrastructure outcomes, not scored" in end
    assert why == "  2 x the server at http://***@example.test is down"
    assert see.endswith("::math.add/control/0/0")
    name = only_run(place).name
    assert ran.err == (
        "infrastructure errors spoiled 2 of 4 episodes, more than the limit of 5%: these scores are not the model's."
        f" `agentgym eval --resume {name}` plays them again\n"
    )
    assert "hunter2" not in ran.out + ran.err


def test_infrastructure_errors_within_the_limit_are_exit_0(agentgym: AgentGym) -> None:
    ran = agentgym("eval", "math.add", "--limit", "4", "--infra-limit", "0.5", "--model", "tests.cli.players:DownForOdd")
    assert (ran.code, ran.err) == (0, "")
    assert "2 infrastructure outcomes, not scored" in ran.out


def test_exitfirst_stops_at_the_first_one(agentgym: AgentGym) -> None:
    argv = ("eval", "math.add", "--limit", "40", "-n", "1", "-x", "--infra-limit", "1", "--json")
    ran = agentgym(*argv, "--model", "tests.cli.players:DownForOdd")
    assert ran.code == 12
    summary = json.loads(ran.out)
    assert summary["infrastructure"] == 1
    assert summary["done"] < 40
    assert "stopped early" in ran.err


def test_where_nothing_works_the_run_stops_by_itself_and_says_why_once(agentgym: AgentGym) -> None:
    ran = agentgym("eval", "math.add", "--limit", "200", "-n", "4", "--model", "tests.cli.players:Down")
    assert ran.code == 12
    assert "of 200 episodes" in ran.out
    assert ran.out.count("the server at http://***@example.test is down") == 1


# -- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_what_is_saved_and_goes_on_from_there(
    agentgym: AgentGym, place: Path, number: signal.Signals, code: int
) -> None:
    argv = ("eval", "math.add", "--limit", "6", "-n", "1", "--model", "tests.cli.players:Once", "--runs", "elsewhere")
    child = subprocess.Popen(
        [sys.executable, "-m", "agentgym", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while _on_record(place / "elsewhere") < 3:
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline, "three episodes are played within two minutes"
            time.sleep(0.05)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == code
    (path,) = Path("elsewhere").iterdir()
    assert err == f"stopped: 3 of 6 episodes are saved in {path}; continue with --resume {path}\n"
    listed = agentgym("list", "runs", "--json", "--runs", "elsewhere")
    assert json.loads(listed.out)["status"] == "interrupted"
    ran = agentgym("show", str(path))
    assert "3 of 6 episodes" in ran.out
    assert "stopped early" in ran.out

    # the model that thinks for ever is replaced by a copy of it that does not; nothing that is on record is played again
    from tests.cli import players

    before = played(path)
    players.Once.answered = -100
    try:
        ran = agentgym("eval", "--resume", str(path))
    finally:
        players.Once.answered = 0
    assert ran.code == 0, ran.err
    assert "3 of 6 episodes are on record; playing the rest" in ran.out
    assert played(path)[:3] == before
    assert sorted(played(path)) == [f"math.add/control/{i}/0" for i in range(6)]


def _on_record(root: Path) -> int:
    for path in root.glob("*/run.sqlite"):
        try:
            with Run(path.parent) as run:
                return run.count()
        except Exception:  # it is being made
            return 0
    return 0


def test_resume_takes_neither_tasks_nor_what_is_on_record(agentgym: AgentGym, solved: Path) -> None:
    ran = agentgym("eval", "math.add", "--resume", "latest")
    assert ran.code == 2
    assert "takes no further tasks" in ran.err
    ran = agentgym("eval", "--resume", "--trials", "3", "-T", "level=2", "--lf")
    assert ran.code == 2
    assert ran.err == ("agentgym: --resume goes on with the plan and options on record, so it cannot take --trials, -T, --lf\n")
    ran = agentgym("eval", "--resume", "-n", "2", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["done"] == 6
    assert "6 of 6 episodes are on record" in ran.err


def test_the_folder_of_runs_may_be_elsewhere(agentgym: AgentGym, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_RUNS", "by-environment")
    assert agentgym("eval", "math.add", "-q", *ORACLE).code == 0
    assert agentgym("eval", "math.add", "-q", "--runs", "by-option", *ORACLE).code == 0
    assert sorted(p.name for p in place.iterdir()) == ["by-environment", "by-option"]
    Path("a-file").write_text("")
    ran = agentgym("eval", "math.add", "--runs", "a-file", *ORACLE)
    assert ran.code == 12
    assert "choose another place with --runs DIR" in ran.err


def test_the_program_itself_plays_and_pipes(program: AgentGym) -> None:
    ran = program("eval", "math.add", "--limit", "2", *ORACLE)
    assert ran.code == 0, ran.err
    assert ran.lines[0] == "math.add · oracle:honest · 2 tasks x 1 trial"
    assert ran.err == ""


def test_a_reader_that_goes_away_is_no_error_and_stops_no_run(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for argv in (["eval", "math.add", "--limit", "30", *ORACLE], ["list", "latest"], ["show", "latest"], ["doctor"]):
        child = subprocess.run([sys.executable, "-m", "agentgym", *argv], stdout=writer, stderr=subprocess.PIPE, check=False)
        assert (child.returncode, child.stderr) == (0, b""), argv
    os.close(writer)
    assert len(played(only_run(place))) == 30


def test_a_terminal_that_knows_only_ascii_gets_signs_it_can_show(program: AgentGym) -> None:
    ran = program("eval", "math.add", "--limit", "2", *WRONG, PYTHONIOENCODING="ascii")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0] == "math.add - tests.cli.players:Wrong - 2 tasks x 1 trial"
    assert ran.lines[1] == " math.add   ################ 2/2   gold 0/2 (<=.84)   format 0/2"
