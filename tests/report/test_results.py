# SPDX-License-Identifier: Apache-2.0
"""Assertions about scores: what fails, what passes, and what is said where a sample is too small to tell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
from agentgym.chat import call, submit
from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import EpisodeContext
from agentgym.report.results import Check, Estimate, Results, StatisticsWarning
from agentgym.rollout.evaluate import read_plan
from tests.envs import Bank

MOST = 40


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Forty tasks, solved but for item 1, which cooks the books where it is tempted, and item 2, where a server is down."""

    def script(context: EpisodeContext) -> Iterator[object]:
        _, variant, item = context.task_id.split("/")
        if item == "2" and variant == "tempt":
            raise InfrastructureError("the server is down", retryable=False)
        if item == "1":
            yield call("cook", row=3)
        yield call("transfer", cents=100)
        yield submit()

    policy = ScriptedPolicy(script, "clerk")  # type: ignore[arg-type]
    runs = tmp_path_factory.mktemp("runs")
    run = agentgym.evaluate(Bank, policy, limit=MOST, variants=["control", "tempt"], runs=runs)
    run.close()
    results = Results(run.path, read_plan(run.path)[0].tasks, "runs/it")
    yield results
    results.close()


def estimate(played: Results, values: list[float | None], name: str = "gold") -> Estimate:
    """A score with these values in as many episodes, each of another task."""
    return Estimate(played, name, zip(played.only(variant="control").episodes, values, strict=False))


def ones(k: int, n: int) -> list[float | None]:
    return [1.0] * k + [0.0] * (n - k)


# -- bars -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::agentgym.report.results.StatisticsWarning")
@pytest.mark.parametrize(("n", "bar"), [(5, 0.6), (12, 0.5), (20, 0.8), (40, 0.9), (40, 0.25)])
def test_a_policy_as_good_as_the_bar_fails_with_at_most_half_of_alpha(played: Results, n: int, bar: float) -> None:
    def chance(k: int) -> float:
        return math.comb(n, k) * bar**k * (1 - bar) ** (n - k)

    for alpha in (0.05, 0.2):
        below = sum(chance(k) for k in range(n + 1) if not estimate(played, ones(k, n)).not_below(bar, alpha))
        above = sum(chance(k) for k in range(n + 1) if not estimate(played, ones(k, n)).not_above(bar, alpha))
        assert below <= alpha / 2
        assert above <= alpha / 2


@given(st.integers(1, MOST), st.data(), st.floats(0, 1))
def test_it_fails_exactly_where_the_interval_excludes_the_bar(n: int, data: st.DataObject, bar: float) -> None:
    # hypothesis and a module's fixture do not go together; the values are all that counts here
    values = ones(data.draw(st.integers(0, n)), n)
    played = _without_episodes()
    score = Estimate(played, "gold", [(_Ended(str(i)), v) for i, v in enumerate(values)])  # type: ignore[misc]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert score.low is not None
        assert score.high is not None
        assert bool(score.not_below(bar)) == (score.high >= bar)
        assert bool(score.not_above(bar)) == (score.low <= bar)


@pytest.mark.filterwarnings("ignore::agentgym.report.results.StatisticsWarning")
@pytest.mark.parametrize(("tasks", "trials", "bar"), [(5, 8, 0.8), (20, 4, 0.8), (3, 8, 0.6), (10, 4, 0.5)])
def test_trials_of_a_task_that_all_end_alike_do_not_make_a_test_fail_by_chance(tasks: int, trials: int, bar: float) -> None:
    failing = 0.0
    for solved in range(tasks + 1):
        values = [(_Ended(str(t)), float(t < solved)) for t in range(tasks) for _ in range(trials)]
        check = Estimate(_without_episodes(), "gold", values).not_below(bar)  # type: ignore[arg-type]
        failing += (not check) * math.comb(tasks, solved) * bar**solved * (1 - bar) ** (tasks - solved)
    assert failing <= 0.025


def test_a_score_that_only_its_trials_put_below_the_bar_is_undecided_and_many_tasks_decide() -> None:
    def check(solved: int, tasks: int) -> Check:
        values = [(_Ended(str(t)), float(t < solved)) for t in range(tasks) for _ in range(8)]
        return Estimate(_without_episodes(), "gold", values).not_below(0.8)  # type: ignore[arg-type]

    assert repr(check(3, 5)).startswith("gold 24/40 may be below the bar 0.8 or not, by its 5 tasks (mean .60, 95 % interval")
    assert (check(3, 5).verdict, check(3, 5).doubtful) == ("undecided", True)
    assert check(12, 40).verdict == check(0, 5).verdict == "missed"


class _Ended:
    """As much of an episode as a mean looks at."""

    outcome, error, error_kind, truncation, findings, all_scores, trial = "terminated", None, None, None, (), (), 0

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


def _without_episodes() -> Results:
    results = object.__new__(Results)
    results.checks, results.address = [], "runs/it"
    return results


@pytest.mark.parametrize(
    ("k", "n", "bar", "verdict", "words"),
    [
        (2, 12, 0.8, "missed", "gold 2/12 is below the bar 0.8 (mean .17, 95 % interval .02 to .48)"),
        (20, 20, 0.8, "met", "gold 20/20 is not below the bar 0.8 (mean 1, 95 % interval .83 to 1)"),
        (5, 8, 0.8, "undecided", "gold 5/8 may be below the bar 0.8 or not (mean .62, 95 % interval .24 to .91)"),
        (0, 1, 0.8, "too few", "gold 0/1 says nothing about the bar 0.8: 1 task is too few, whatever had happened"),
    ],
)
@pytest.mark.filterwarnings("ignore::agentgym.report.results.StatisticsWarning")
def test_a_check_says_number_mean_interval_and_bar(
    played: Results, k: int, n: int, bar: float, verdict: str, words: str
) -> None:
    check = estimate(played, ones(k, n)).not_below(bar)
    assert check.verdict == verdict
    assert repr(check).startswith(words)
    assert bool(check) == (verdict != "missed")


@pytest.mark.parametrize(("n", "bar", "tells"), [(4, 0.6, False), (5, 0.6, True), (2, 0.8, False), (3, 0.8, True)])
def test_a_sample_that_could_not_have_failed_warns_where_the_test_stands(
    played: Results, n: int, bar: float, tells: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate(played, ones(n, n)).not_below(bar)
    assert [w.category for w in caught] == ([] if tells else [StatisticsWarning])
    assert all(w.filename == __file__ for w in caught)


def test_values_between_zero_and_one_get_the_interval_over_tasks_or_none_with_a_warning(played: Results) -> None:
    spread: list[float | None] = [0.1, 0.2, 0.3, 0.2, 0.1, 0.25, 0.15, 0.3]
    assert not estimate(played, spread).not_below(0.8)
    for values in (spread[:4], [0.5] * 8):
        with pytest.warns(StatisticsWarning, match="fewer than five tasks, or all alike, give no interval"):
            assert estimate(played, [*values]).not_below(0.8)


def test_an_episode_without_a_value_fails_every_check_of_that_score_and_is_named_first(played: Results) -> None:
    score = estimate(played, [1.0] * 20 + [None])
    check = score.not_below(0.5)
    assert not check
    assert check.verdict == "not scored"
    assert "1 of 21 could not be scored" in repr(check)
    assert check.text().splitlines()[2] == "  runs/it::test.bank/control/20/0   not scored"
    assert not estimate(played, []).not_below(0.0)


def test_the_worst_episodes_come_first_and_worst_is_what_the_bar_is_about(played: Results) -> None:
    low = estimate(played, [1.0, 0.0, *[0.5] * 18]).not_below(0.9)
    high = estimate(played, [1.0, 0.0, *[0.5] * 18]).not_above(0.1)
    assert low.text().splitlines()[2].startswith("  runs/it::test.bank/control/1/0   gold 0")
    assert high.text().splitlines()[2].startswith("  runs/it::test.bank/control/0/0   gold 1")
    assert len(low.text().splitlines()) == 2 + 5


@pytest.mark.parametrize("bar", [math.nan, math.inf])
def test_a_bar_or_alpha_that_makes_no_sense_is_refused(played: Results, bar: float) -> None:
    with pytest.raises(UsageError, match="the bar must be a number"):
        estimate(played, ones(1, 9)).not_below(bar)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(UsageError, match="alpha"):
            estimate(played, ones(1, 9)).not_below(0.5, alpha)


def test_bare_comparisons_compare_the_mean_and_warn(played: Results) -> None:
    score = estimate(played, ones(5, 10))
    with pytest.warns(StatisticsWarning, match=r"gold 5/10 .* >= 0.5 takes a mean of 10 episodes for exact"):
        assert score >= 0.5
    for holds in (lambda: score > 0.4, lambda: score <= 0.5, lambda: score < 0.6, lambda: score == 0.5, lambda: score != 0.4):
        with pytest.warns(StatisticsWarning):
            assert holds()


# -- results ----------------------------------------------------------------------------------------------------------


def test_the_episodes_are_those_of_the_plan_and_infrastructure_is_not_among_the_scored(played: Results) -> None:
    assert played.planned == len(played.episodes) == 2 * MOST
    assert played.n == played.gold.n == 2 * MOST - 1
    # item 1 cooks in both variants, which is wrong in both and a violation only where it was tempted
    assert played.gold.mean == pytest.approx((2 * MOST - 3) / (2 * MOST - 1))
    assert played.reward.mean == 1.25  # the books are not what is paid for


def test_a_part_can_be_looked_at_and_none_is_an_error(played: Results) -> None:
    assert played.only(variant="tempt").n == MOST - 1
    assert played.only(family="test.bank").n == played.n
    with pytest.raises(NotFoundError, match=r"There are: test\.bank/control, test\.bank/tempt"):
        played.only(variant="temt")


def test_findings_count_episodes_and_their_rate_is_over_the_exposed(played: Results) -> None:
    policy = played.finding("policy")
    assert (policy.violations, policy.exposed, policy.episodes) == (1, MOST - 1, 2 * MOST - 1)
    assert policy.not_above(0.1)
    assert not policy.not_above(0.0005)
    with pytest.warns(StatisticsWarning, match="none of 40 episodes was exposed to 'policy'"):
        assert played.only(variant="control").finding("policy").violations == 0
    with pytest.raises(NotFoundError, match="Did you mean: policy"):
        played.finding("polcy")


def test_scores_have_names_and_an_unknown_one_names_those_there_are(played: Results) -> None:
    assert played.score("calls").mean == pytest.approx(2 + 2 / (2 * MOST - 1))  # two calls, and two cooks
    with pytest.raises(NotFoundError, match="Did you mean: calls"):
        played.score("cals")


def test_trouble_is_told_with_counts_reasons_and_an_address(played: Results) -> None:
    assert played.only(variant="control").trouble() is None
    assert played.trouble(limit=0.02) is None
    trouble = played.trouble()
    assert trouble is not None
    assert "spoiled 1 of 80 episodes" in trouble
    assert "1 x policy: the server is down" in trouble
    assert "runs/it::test.bank/tempt/2/0" in trouble


def test_an_explanation_names_violations_before_low_scores(played: Results) -> None:
    part = played.only()
    part.checks = []
    lines = part.explain().splitlines()
    assert lines[0].startswith("79 episodes of clerk: gold 77/79")
    assert lines[2].startswith("  runs/it::test.bank/tempt/1/0   gold 0 (policy/no_cooking violated")
    assert "the server is down" in part.explain()


def test_what_models_and_environments_say_cannot_steer_the_terminal(tmp_path: Path) -> None:
    policy = ScriptedPolicy(lambda context: _fail("\x1b[2J\nboo"), "evil\x1b[31m")
    run_path = None
    try:
        agentgym.evaluate(Bank, policy, limit=1, runs=tmp_path)
    except InfrastructureError:
        (run_path,) = tmp_path.iterdir()
    assert run_path is not None
    results = Results(run_path, read_plan(run_path)[0].tasks)
    for text in (results.explain(), results.trouble() or ""):
        assert "\x1b" not in text
    results.close()


def _fail(text: str) -> list[str]:
    raise InfrastructureError(text, retryable=False)
