# SPDX-License-Identifier: Apache-2.0
"""``agentgym baseline``: made, shown, compared, accepted and checked through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentgym.gate.baseline import read
from tests.cli.conftest import AgentGym

Play = Callable[..., str]


def test_equal_runs_give_equal_bytes_but_for_the_runs_name_and_time(
    agentgym: AgentGym, play: Play, baseline: str, place: Path
) -> None:
    assert agentgym("baseline", "create", play("oracle:honest", "-n", "1"), "-o", "again.jsonl").code == 0
    assert (place / baseline).read_text().splitlines()[1:] == (place / "again.jsonl").read_text().splitlines()[1:]
    header, rows = read(place / baseline)
    assert sorted(n.rpartition("-v")[0] for n in header.environments) == [
        "math.add", "math.algebra", "math.arith", "math.chain", "math.word", "tools.retail",
    ]  # fmt: skip
    assert "tools.retail-v1:identified_first" in header.verifiers
    assert rows.tasks == 84


def test_a_baseline_is_not_replaced_by_accident_and_accept_says_who_and_why(
    agentgym: AgentGym, play: Play, baseline: str, place: Path
) -> None:
    lazy = play("oracle:lazy")
    refused = agentgym("baseline", "create", lazy, "-o", baseline)
    assert (refused.code, "agentgym baseline accept" in refused.err) == (2, True)
    accept = ("baseline", "accept", baseline, lazy, "--by", "ada", "--expires", "2999-01-01")
    assert agentgym(*accept).code == 2  # without a reason
    assert agentgym(*accept[:-1], "2020-01-01", "--reason", "it is").code == 2
    ran = agentgym(*accept, "--reason", "the tasks became harder")
    assert (ran.code, "differences to what was there" in ran.out) == (0, True)
    header, rows = read(place / baseline)
    assert (header.accepted_by, header.reason, str(header.expires)) == ("ada", "the tasks became harder", "2999-01-01")
    assert float(rows.values("gold").max()) == 0.0
    shown = agentgym("baseline", "show", baseline).out
    assert "the tasks became harder" in shown


def test_diff_names_what_came_went_and_moved(agentgym: AgentGym, play: Play, baseline: str) -> None:
    copy = play("players.py:Copy20", "-k", "math.add")
    out = agentgym("baseline", "diff", baseline, copy).out
    assert "- math.word/control/0" in out
    assert "~ math.add/control/5: gold 1 -> 0" in out
    assert "math.add/control/6: gold" not in out


def test_check_tells_age_edits_and_changed_code(agentgym: AgentGym, baseline: str, place: Path) -> None:
    path = place / baseline
    good = path.read_text()
    assert agentgym("baseline", "check", baseline).code == 0
    other_code = good.replace('"environments":{"math.add-v1":"', '"environments":{"math.add-v1":"0')
    for text, words in (
        (good.replace('{"task":', '{ "task":', 1), "it was edited by hand or merged"),
        (other_code, "the code of math.add-v1 changed since"),
        (good.replace('"sampling":', '"expires":"2020-01-01","sampling":', 1), "it expired on 2020-01-01"),
    ):
        path.write_text(text)
        ran = agentgym("baseline", "check", baseline)
        assert (ran.code, words in ran.out) == (13, True), ran.out


def test_check_knows_the_environments_of_this_repositorys_own_files(agentgym: AgentGym, place: Path) -> None:
    (place / "my").mkdir()
    file = place / "my/sums.py"
    file.write_text(
        'from agentgym.tasks.math.arithmetic import Add\n\nclass Sums(Add):\n    """Mine."""\n\n    family = "my.sums"\n'
    )
    assert agentgym("eval", "my/sums.py:Sums", "--limit", "6", "-m", "oracle:honest", "-q").code == 0
    assert agentgym("baseline", "create", "latest", "-o", "base.jsonl").code == 0
    ran = agentgym("baseline", "check", "base.jsonl")
    assert (ran.code, "cannot be checked" in ran.err) == (0, False), ran.err
    file.write_text(file.read_text() + "\n# changed\n")
    ran = agentgym("baseline", "check", "base.jsonl")
    assert (ran.code, "the code of my.sums-v1 changed since" in ran.out) == (13, True)
    file.unlink()
    ran = agentgym("baseline", "check", "base.jsonl")
    assert (ran.code, "my.sums-v1 cannot be checked" in ran.err) == (0, True)


def test_too_few_clusters_are_told_when_a_baseline_is_made(agentgym: AgentGym, place: Path, play: Play) -> None:
    (place / "few.csv").write_text("task,trial,score\n" + "".join(f"t{i},0,1\n" for i in range(4)))
    ran = agentgym("baseline", "create", "few.csv", "-o", "few.jsonl")
    assert (ran.code, "4 clusters, and fewer than 5 can never give REGRESSION, whatever happens" in ran.err) == (0, True)
    ran = agentgym("baseline", "create", play("oracle:honest", "-k", "math.add"), "-o", "one.jsonl")
    assert "only the families tested on their own can (math.add)" in ran.err
    assert "can never" in agentgym("plan", "--baseline", "few.jsonl").out


def test_a_spoiled_or_unfinished_run_makes_no_baseline(agentgym: AgentGym, play: Play) -> None:
    for run in (play("players.py:Flaky"), play("players.py:Flaky", "-x", code=12)):
        ran = agentgym("baseline", "create", run, "-o", "x.jsonl")
        assert (ran.code, "A baseline is a whole sample" in ran.err) == (2, True)


def test_plan_prints_sizes_and_money(agentgym: AgentGym, place: Path) -> None:
    rows = [f"t{i},{k},{(i * 7 + k * k) % 3 > 0:d},c{i % 12},0.01" for i in range(48) for k in range(4)]
    (place / "t.csv").write_text("task,trial,score,cluster,cost_usd\n" + "\n".join(rows) + "\n")
    ran = agentgym("plan", "--baseline", "t.csv", "--delta", "0.1")
    assert ran.code == 0
    assert any(line.split()[:4] == ["now", "12", "48", "4"] and "$1.92" in line for line in ran.lines)
