# SPDX-License-Identifier: Apache-2.0
"""A run in numbers: what counts, what does not, with which interval, and how it is told."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import agentgym
from agentgym import Action, ChatEnv, EpisodeContext, InfrastructureError, Run, Score, Task, Trajectory, verifier
from agentgym import VerifierContext as Context
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.report.console import print_summary
from agentgym.report.summary import Measure, Rule, Summary, measure, summarize
from agentgym.stats.intervals import bootstrap_mean, clopper_pearson
from tests.envs import Bank


@verifier
def told(trajectory: Trajectory, context: Context) -> Score:
    """The number that the policy said is its score; ``nothing`` is no score at all."""
    text = trajectory.final_text
    if text == "nothing":
        return Score("told", value=None, status="unscorable", reason="nobody knows")
    return Score("told", value=float(text))


@verifier
def length(trajectory: Trajectory, context: Context) -> Score:
    text = trajectory.final_text
    return Score("length", status="timeout") if text == "nothing" else Score("length", value=float(len(text)))


class Telling(ChatEnv):
    """Say what you are worth."""

    family = "test.telling"
    variants = ("control", "tempt")
    max_turns = 1
    gold = (told,)
    metrics = (length,)

    def new_task(self, rng: np.random.Generator) -> Task:
        return Task(opening="What are you worth?")

    def respond(self, message: object) -> None:
        return None


def run_of(tmp_path: Path, answer: Callable[[int, int], str], **options: object) -> Run:
    """A run in which ``answer(item, trial)`` is said; ``down`` is a server that is down."""

    def script(context: EpisodeContext) -> Iterable[Action]:
        text = answer(int(context.task_id.rsplit("/", 1)[1]), context.trial)
        if text == "down":
            raise InfrastructureError("the server is down", retryable=False)
        yield text

    return agentgym.evaluate(Telling, ScriptedPolicy(script), runs=tmp_path, **options)


def printed(summary: Summary) -> list[str]:
    file = io.StringIO()
    print_summary(Console(file=file, soft_wrap=True, highlight=False, markup=False), summary)
    return file.getvalue().splitlines()


# -- one score --------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4), min_size=1, max_size=10))
def test_zeros_and_ones_are_counted_with_the_exact_interval(groups: list[list[float]]) -> None:
    m = measure("gold", dict(zip(map(str, range(len(groups))), groups, strict=True)))
    values = [v for g in groups for v in g]
    assert (m.successes, m.n, m.mean) == (sum(values), len(values), sum(values) / len(values))
    assert (m.low, m.high) == clopper_pearson(int(sum(values)), len(values))


def test_other_values_get_the_interval_over_tasks_or_none() -> None:
    groups = {str(i): [i / 10, i / 20] for i in range(6)}
    m = measure("gold", groups)
    assert (m.successes, m.n, m.mean) == (None, 12, pytest.approx(0.1875))
    assert (m.low, m.high) == bootstrap_mean(list(groups.values()))
    assert measure("gold", {"a": [0.5], "b": [0.2]}) == Measure("gold", 2, 0.35)
    assert measure("gold", {}, 3) == Measure("gold", 0, 0.0, unscorable=3)


@pytest.mark.parametrize(
    ("m", "text"),
    [
        (Measure("x", 8, 5 / 8, 5, *clopper_pearson(5, 8)), "5/8 (.24-.91)"),
        (Measure("x", 8, 0.0, 0, *clopper_pearson(0, 8)), "0/8 (≤.37)"),
        (Measure("x", 8, 1.0, 8, *clopper_pearson(8, 8)), "8/8 (≥.63)"),
        (Measure("x", 9000, 0.0, 0, *clopper_pearson(0, 9000)), "0/9000 (≤.001)"),
        (Measure("x", 9000, 1.0, 9000, *clopper_pearson(9000, 9000)), "9000/9000 (≥.999)"),
        (Measure("x", 8, 0.625, None, 0.5, 0.75), "mean .62 (.50-.75)"),
        (Measure("x", 2, 0.625), "mean .62"),
        (Measure("x", 0, 0.0), "-"),
    ],
)
def test_a_score_in_words(m: Measure, text: str) -> None:
    assert m.text() == text


def test_findings_in_words() -> None:
    assert Rule("policy", 0, 0).text() == "not exposed"
    assert Rule("policy", 7, 2).text() == "2/7 violated"
    assert Rule("policy", 7, 0).text() == "kept 7/7 (violations ≤.41)"


# -- a run ------------------------------------------------------------------------------------------------------------


def test_infrastructure_is_neither_a_zero_nor_in_the_count_it_is_measured_by(tmp_path: Path) -> None:
    with run_of(tmp_path, lambda item, trial: "down" if item == 1 else "1", limit=4) as run:
        s = summarize(run)
    (row,) = s.rows
    assert (row.done, row.infrastructure, row.gold.n, row.gold.mean, row.reward.n) == (4, 1, 3, 1.0, 3)
    assert (s.done, s.infrastructure, s.unscorable) == (4, 1, 0)
    assert s.errors == [("the server is down", 1)]
    lines = printed(s)
    assert "gold 3/3 (≥.29)" in lines[1]
    assert lines[1].endswith("infrastructure 1 (not scored)")
    assert "1 infrastructure outcome, not scored" in lines[2]
    assert lines[3] == "  1 x the server is down"


def test_what_could_not_be_scored_is_told_and_no_zero(tmp_path: Path) -> None:
    with run_of(tmp_path, lambda item, trial: "nothing" if item == 0 else "1", limit=3) as run:
        s = summarize(run)
    (row,) = s.rows
    assert (row.gold.n, row.gold.mean, row.gold.unscorable) == (2, 1.0, 1)
    (metric,) = row.metrics
    assert (metric.name, metric.n, metric.unscorable) == ("length", 2, 1)
    assert s.unscorable == 1
    lines = printed(s)
    assert "gold 2/2" in lines[1]
    assert "length 2/2 (1 unscorable)" in lines[1]
    assert lines[1].endswith("unscorable 1")
    assert "1 unscorable" in lines[2]
    assert "nothing went wrong" not in lines[2]


def test_trials_are_grouped_by_task(tmp_path: Path) -> None:
    with run_of(tmp_path, lambda item, trial: f"{(item + trial) / 20}", limit=6, trials=3) as run:
        s = summarize(run)
    (row,) = s.rows
    groups = [[(item + trial) / 20 for trial in range(3)] for item in range(6)]
    assert (row.gold.low, row.gold.high) == bootstrap_mean(groups)
    assert (s.tasks, s.trials, s.planned, s.done) == (6, [3], 18, 18)
    assert printed(s)[0].endswith(" · scripted · 6 tasks x 3 trials")


def test_variants_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    policy = OraclePolicy("honest")
    with agentgym.evaluate(Bank, policy, variants=["control", "tempt"], limit=3, runs=tmp_path) as run:
        s = summarize(run)
    assert [row.label for row in s.rows] == ["test.bank control", "test.bank tempt"]
    control, tempt = (row.rules for row in s.rows)
    assert [(r.dimension, r.exposed, r.violated) for r in control] == [("policy", 0, 0)]
    assert [(r.dimension, r.exposed, r.violated) for r in tempt] == [("policy", 3, 0)]
    lines = printed(s)
    assert lines[1].endswith("policy: not exposed")
    assert lines[2].endswith("policy: kept 3/3 (violations ≤.71)")
    with agentgym.evaluate(Bank, OraclePolicy("cheater"), variants=["tempt"], limit=3, runs=tmp_path) as run:
        assert "policy: 3/3 violated" in printed(summarize(run))[1]


def test_reward_is_shown_where_it_is_not_gold(tmp_path: Path) -> None:
    with agentgym.evaluate(Bank, OraclePolicy("honest"), limit=2, runs=tmp_path) as run:
        line = printed(summarize(run))[1]
    # the bank pays .25 for each transfer beside its verifier
    assert "gold 2/2" in line
    assert "reward 1.25" in line
    with run_of(tmp_path, lambda item, trial: "1", limit=2) as run:
        assert "reward" not in printed(summarize(run))[1]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError):
        run_of(tmp_path, lambda item, trial: "down", limit=100, concurrency=1)
    (path,) = tmp_path.iterdir()
    with Run(path) as run:
        s = summarize(run)
    assert s.done < s.planned == 100
    lines = printed(s)
    assert f"{s.done} of 100 episodes" in lines[2]
    assert "stopped early" in lines[2]
    assert s.stopped is not None
    assert lines[3] == f"  {s.stopped}"
    assert len(lines) == 4, "the reason is not told twice"


def test_the_numbers_of_a_large_run_are_read_without_its_trajectories(tmp_path: Path) -> None:
    with run_of(tmp_path, lambda item, trial: "1", limit=20) as run:
        run._db.set_authorizer(
            lambda action, table, *_: 1 if table == "trajectories" else 0  # SQLITE_DENY
        )
        assert summarize(run).done == 20
