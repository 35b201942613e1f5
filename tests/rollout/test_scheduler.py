# SPDX-License-Identifier: Apache-2.0
"""Many episodes in one process: how many at once, what is retried, what stops a run, and that nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from agentgym.chat import Message, assistant, call, submit
from agentgym.env import Task
from agentgym.episode import Limits
from agentgym.errors import DefinitionError, InfrastructureError, UsageError
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.protocols import Completion, EpisodeContext, Usage
from agentgym.records.run import Run
from agentgym.report.console import print_summary
from agentgym.report.summary import summarize
from agentgym.rollout import scheduler
from agentgym.rollout.scheduler import HOPELESS, Options, Progress, episode_seed
from agentgym.rollout.selection import Choice
from tests.envs import Bank, Guess
from tests.rollout.playing import Told, play


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait a random while; here none."""
    monkeypatch.setattr(scheduler.random, "uniform", lambda low, high: 0.0)


def solution(context: EpisodeContext) -> str:
    return str(Guess().make_task(context.task_id.rpartition("/")[2]).gold["number"])


def item(context: EpisodeContext) -> int:
    return int(context.task_id.rpartition("/")[2])


# -- how many at once -------------------------------------------------------------------------------------------------


def test_thousands_of_episodes_run_at_once_in_one_process(tmp_path: Path) -> None:
    together = 3000
    everyone = asyncio.Event()

    async def answer(context: EpisodeContext, turn: int) -> Any:
        if policy.active == together:
            everyone.set()
        await everyone.wait()  # hangs unless all of them are under way at the same time
        return "x" if turn == 0 else solution(context)

    policy = Told(answer)
    threads = threading.active_count()
    outcome = play(Guess, policy, tmp_path, Choice(limit=together), Options(concurrency=together))
    assert policy.most_active == together
    assert threading.active_count() == threads
    with Run(outcome.path) as run:
        assert run.count() == together
        assert {(e.outcome, e.gold, e.turns) for e in run.episodes()} == {("terminated", 1.0, 2)}


@pytest.mark.parametrize(("slots", "concurrency", "most"), [(3, 100, 3), (None, 7, 7), (50, 7, 7), (None, None, 64)])
def test_the_slots_of_a_policy_and_the_concurrency_bound_what_runs_at_once(
    tmp_path: Path, slots: int | None, concurrency: int | None, most: int
) -> None:
    async def answer(context: EpisodeContext, turn: int) -> Any:
        for _ in range(100):
            await asyncio.sleep(0)
        return "12"

    policy = Told(answer, slots=slots)
    play(Guess, policy, tmp_path, Choice(limit=80), Options(concurrency=concurrency))
    assert policy.most_active == most


@pytest.mark.parametrize("waits", [False, True])
def test_the_first_result_does_not_wait_for_everyone_to_start(tmp_path: Path, waits: bool) -> None:
    finished: list[int] = []

    async def answer(context: EpisodeContext, turn: int) -> Any:
        if waits:
            await asyncio.sleep(0)
        if turn == 5:
            finished.append(len(policy.begun))
        return "12"

    policy = Told(answer)
    play(Guess, policy, tmp_path, Choice(limit=2000), Options(concurrency=2000))
    assert finished[0] < 50
    assert len(finished) == 2000


def test_environments_that_block_run_side_by_side_on_their_own_threads(tmp_path: Path) -> None:
    meeting = threading.Barrier(8)

    class Waits(Guess):
        family = "test.waits"
        blocking = True

        def respond(self, message: Message) -> str | None:
            assert threading.current_thread().name.startswith("agentgym-step")
            meeting.wait(30)  # breaks unless eight step at once
            return None

    outcome = play(Waits, ScriptedPolicy(["1"]), tmp_path, Choice(limit=16), Options(step_threads=8))
    with Run(outcome.path) as run:
        assert [e.error for e in run.episodes()] == [None] * 16


# -- trials and seeds -------------------------------------------------------------------------------------------------


def test_every_trial_of_every_task_is_played_once_with_a_seed_of_its_own(tmp_path: Path) -> None:
    def seeds(concurrency: int) -> dict[tuple[str, int], int]:
        outcome = play(
            [Guess, Bank],
            ScriptedPolicy([submit()] * 9),
            tmp_path,
            Choice(limit=5, trials=4),
            Options(concurrency=concurrency, seed=3),
        )
        with Run(outcome.path) as run:
            found = [((e.task_id, e.trial), e.trajectory.seed) for e in run.episodes()]
        assert len(found) == len(dict(found)) == 40
        return dict(found)

    alone, together = seeds(1), seeds(40)
    assert alone == together
    assert len(set(alone.values())) == 40
    assert (
        alone["test.guess/control/2", 3]
        == episode_seed(3, "test.guess/control/2", 3)
        != episode_seed(4, "test.guess/control/2", 3)
    )


def test_the_trials_of_a_task_share_one_task_on_record(tmp_path: Path) -> None:
    outcome = play(Bank, ScriptedPolicy([submit()]), tmp_path, Choice(limit=3, trials=5))
    with Run(outcome.path) as run:
        assert len({e.task_hash for e in run.episodes()}) == 3
        assert next(run._rows("SELECT count(*) FROM objects"))[0] == 3
        for e in run.episodes():
            assert e.task == Bank().freeze(Bank().make_task(e.item))


def test_limits_truncate_and_are_counted(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Completion:
        return Completion(call("transfer", cents=99), Usage(5, 10, 0, 0.01))

    outcome = play(Bank, Told(answer), tmp_path, Choice(limit=4), Options(limits=Limits(tokens=20)))
    with Run(outcome.path) as run:
        for e in run.episodes():
            assert (e.outcome, e.truncation, e.turns, e.gold, e.reward) == ("truncated", "tokens", 2, 1.0, 1.5)
            assert (e.prompt_tokens, e.completion_tokens, e.cost_usd) == (10, 20, 0.02)
        assert summarize(run).rows[0].truncated == 4


# -- what is not the agent's doing ------------------------------------------------------------------------------------


def test_a_failure_of_infrastructure_is_neither_a_zero_nor_dropped_but_counted_and_shown(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        if item(context) % 3 == 0:
            raise ConnectionError("the cable is out")
        return solution(context) if item(context) % 3 == 1 else "12"

    reports: list[Progress] = []
    outcome = play(Guess, Told(answer), tmp_path, Choice(limit=9), on_progress=reports.append)
    assert outcome.stopped is None
    total = reports[-1].total
    assert (total.planned, total.done, total.infrastructure, total.gold_sum, total.gold_count) == (9, 9, 3, 3.0, 6)
    assert "the cable is out" in reports[-1].last_error
    with Run(outcome.path) as run:
        assert run.count() == run.planned == 9
        spoiled = list(run.episodes(outcome="infrastructure"))
        assert [(e.reward, e.gold, e.all_scores) for e in spoiled] == [(None, None, [])] * 3
        assert {(e.error_kind, e.error) for e in spoiled} == {("policy", "ConnectionError: the cable is out")}
        summary = summarize(run)
        assert (summary.infrastructure, summary.rows[0].gold.n, summary.rows[0].gold.mean) == (3, 6, 0.5)
        assert summary.errors == [("ConnectionError: the cable is out", 3)]
        screen = Console(file=io.StringIO(), width=200)
        print_summary(screen, summary)
        assert "3 infrastructure outcomes" in screen.file.getvalue()  # type: ignore[attr-defined]
        assert "ConnectionError: the cable is out" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_only_what_may_pass_is_tried_again_and_the_last_attempt_counts(tmp_path: Path) -> None:
    attempts: dict[int, int] = {}

    def answer(context: EpisodeContext, turn: int) -> Any:
        if turn == 0:
            attempts[item(context)] = attempts.get(item(context), 0) + 1
        which, attempt = item(context), attempts[item(context)]
        if which == 1 and attempt < 3:
            raise InfrastructureError(f"busy {attempt}")
        if which == 2:
            raise InfrastructureError("no such model", retryable=False)
        if which == 3:
            raise InfrastructureError("always busy")
        if which == 4:
            raise ValueError("a bug")
        return "12" if which == 5 else solution(context)

    reports: list[Progress] = []
    outcome = play(Guess, Told(answer), tmp_path, Choice(limit=6), Options(retries=2), on_progress=reports.append)
    assert attempts == {0: 1, 1: 3, 2: 1, 3: 3, 4: 1, 5: 6 - 5}
    with Run(outcome.path) as run:
        assert {e.item: (e.outcome, e.attempt, e.gold) for e in run.episodes()} == {
            "0": ("terminated", 0, 1.0),
            "1": ("terminated", 2, 1.0),
            "2": ("infrastructure", 0, None),
            "3": ("infrastructure", 2, None),
            "4": ("infrastructure", 0, None),
            "5": ("truncated", 0, 0.0),
        }
        tried = [e.error for e in run.episodes(task_id="test.guess/control/1", all_attempts=True)]
        assert tried == ["busy 1", "busy 2", None]
        assert run.count() == 6
        assert summarize(run).retried == 4
    last = reports[-1]
    assert (last.total.done, last.total.infrastructure, last.retried, last.total.gold_count) == (6, 3, 4, 3)


def test_what_is_about_to_be_tried_again_is_not_counted_as_done(tmp_path: Path) -> None:
    schedulers: list[Any] = []
    seen: list[tuple[int, int]] = []

    async def answer(context: EpisodeContext, turn: int) -> Any:
        if len(policy.begun) == 1:
            raise InfrastructureError("busy")
        while not schedulers[0].progress.last_error:  # until the failed attempt is on record
            await asyncio.sleep(0.005)
        seen.append((schedulers[0].progress.total.done, schedulers[0].progress.total.infrastructure))
        return solution(context)

    policy = Told(answer)
    outcome = play(Guess, policy, tmp_path, Choice(limit=1), on_start=lambda scheduler, path: schedulers.append(scheduler))
    assert seen == [(0, 0)]
    total = schedulers[0].progress.total
    assert (total.done, total.infrastructure, total.gold_sum, total.gold_count) == (1, 0, 1.0, 1)
    with Run(outcome.path) as run:
        assert [(e.attempt, e.outcome) for e in run.episodes()] == [(1, "terminated")]


def test_no_retries_means_one_attempt(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        raise InfrastructureError("busy")

    policy = Told(answer)
    play(Guess, policy, tmp_path, Choice(limit=3), Options(retries=0))
    assert len(policy.begun) == 3


def test_an_environment_that_failed_is_not_used_again(tmp_path: Path) -> None:
    class Spoilt(Guess):
        family = "test.spoilt"
        made = 0
        closed = 0

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            type(self).made += 1
            self.spoilt = False

        def respond(self, message: Message) -> str | None:
            assert not self.spoilt, "used again"
            if self.task.item == "1":
                self.spoilt = True
                raise InfrastructureError("its sandbox died", retryable=False)
            return None

        def close(self) -> None:
            type(self).closed += 1

    outcome = play(Spoilt, ScriptedPolicy(["1"]), tmp_path, Choice(limit=6), Options(concurrency=1))
    with Run(outcome.path) as run:
        assert [e.error for e in run.episodes()] == [None, "its sandbox died", None, None, None, None]
    assert Spoilt.made == Spoilt.closed == 3, "one to select, one that failed, one for the rest"


class Fragile(Guess):
    """Breaks where it is made, or where its tasks are."""

    family = "test.fragile"
    parameters = {**Guess.parameters, "where": "init"}
    error: BaseException
    made = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Fragile.made += 1
        if self.where == "init" and Fragile.made % 2 == 0:
            raise self.error

    def new_task(self, rng: np.random.Generator) -> Task:
        if self.where == "task" and rng.integers(2):
            raise self.error
        return super().new_task(rng)


@pytest.mark.parametrize("where", ["init", "task"])
@pytest.mark.parametrize("error", [InfrastructureError("the registry is down", retryable=False), OSError("no disk")])
def test_an_environment_or_task_that_cannot_be_made_spoils_only_its_episode(
    tmp_path: Path, where: str, error: Exception
) -> None:
    Fragile.error, Fragile.made = error, 0
    policy = ScriptedPolicy(["12"] * 6)
    outcome = play(Fragile, policy, tmp_path, Choice(limit=12, params={"where": where}), Options(concurrency=4, retries=0))
    with Run(outcome.path) as run:
        outcomes = [e.outcome for e in run.episodes()]
        assert len(outcomes) == 12
        assert set(outcomes) == {"truncated", "infrastructure"}
        for e in run.episodes(outcome="infrastructure"):
            assert str(error) in (e.error or "")
            assert e.error_kind == "environment"
            assert e.family == e.task.family == ("test.fragile:where=task" if where == "task" else "test.fragile")
            assert e.trajectory.error is not None


def test_an_environment_that_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    Fragile.error, Fragile.made = InfrastructureError("the registry is down"), 0
    outcome = play(Fragile, ScriptedPolicy(["12"] * 6), tmp_path, Choice(limit=8), Options(concurrency=4))
    with Run(outcome.path) as run:
        assert {e.outcome for e in run.episodes()} == {"truncated"}
        assert summarize(run).retried > 0


def test_what_a_policy_gets_wrong_spoils_no_other_episode(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        match item(context) if turn == 0 else 0:
            case 1:
                raise ValueError("\ud800")
            case 2:
                return Completion(assistant("1"), finish_reason=None)  # type: ignore[arg-type]
            case 3:
                return Completion(assistant("1"), Usage(cost_usd=float("nan")))
            case 4:
                raise SystemExit(1)
            case 5:
                raise asyncio.CancelledError
            case 6:
                return Completion(assistant("\udfff"))
            case 7:
                return Completion(assistant("1"), tokens="abc")  # type: ignore[arg-type]
        return solution(context)

    outcome = play(Guess, Told(answer), tmp_path, Choice(limit=12))
    assert outcome.stopped is None
    with Run(outcome.path) as run:
        assert {e.item for e in run.episodes(outcome="infrastructure")} == {"1", "2", "3", "4", "5", "7"}
        for e in run.episodes():
            assert e.trajectory.task_id == e.task_id
            assert (e.gold == 1.0) == (e.outcome == "terminated")


def test_a_definition_error_ends_the_run_for_its_author_to_mend(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="no cheater oracle"):
        play(Guess, OraclePolicy("cheater"), tmp_path)
    (path,) = tmp_path.iterdir()
    with Run(path) as run:
        assert run.status == "failed"


def test_several_failures_at_once_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    everyone = asyncio.Event()

    async def answer(context: EpisodeContext, turn: int) -> Any:
        if policy.active == 8:
            everyone.set()
        await everyone.wait()
        raise DefinitionError("badly written")

    policy = Told(answer)
    with pytest.raises(DefinitionError, match="badly written"):
        play(Guess, policy, tmp_path, Choice(limit=8), Options(concurrency=8))
    gc.collect()
    assert "never retrieved" not in caplog.text


# -- what stops a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
def test_a_run_in_which_nothing_works_stops(tmp_path: Path, retries: int) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        raise InfrastructureError("no server at this address")

    policy = Told(answer)
    outcome = play(Guess, policy, tmp_path, Choice(limit=1000), Options(concurrency=4, retries=retries))
    assert outcome.stopped is not None
    assert "no server at this address" in outcome.stopped
    with Run(outcome.path) as run:
        assert HOPELESS <= run.count() < 1000
        assert (run.status, run.stopped) == ("interrupted", outcome.stopped)
        assert {e.outcome for e in run.episodes()} == {"infrastructure"}


def test_a_run_in_which_something_works_goes_on(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        if item(context) != 3:
            raise ConnectionError("no server at this address")
        return solution(context)

    outcome = play(Guess, Told(answer), tmp_path, Choice(limit=200), Options(concurrency=4))
    assert outcome.stopped is None
    with Run(outcome.path) as run:
        assert (run.count(), run.status, run.stopped) == (200, "finished", None)


def test_a_rough_start_that_retries_overcome_is_not_hopeless(tmp_path: Path) -> None:
    met: set[str] = set()

    def answer(context: EpisodeContext, turn: int) -> Any:
        if context.task_id not in met:
            met.add(context.task_id)
            raise InfrastructureError("still loading the model")
        return solution(context)

    outcome = play(Guess, Told(answer), tmp_path, Choice(limit=100), Options(concurrency=100, exitfirst=True))
    assert outcome.stopped is None
    with Run(outcome.path) as run:
        assert {e.gold for e in run.episodes()} == {1.0}


def test_exitfirst_stops_at_the_first_episode_that_infrastructure_spoils(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        if item(context) == 5:
            raise ConnectionError("gone")
        return solution(context)

    policy = Told(answer)
    outcome = play(Guess, policy, tmp_path, Choice(limit=5000), Options(concurrency=2, exitfirst=True))
    assert outcome.stopped is not None
    assert "gone" in outcome.stopped
    with Run(outcome.path) as run:
        assert 6 <= run.count() < 5000
        assert [e.item for e in run.episodes(outcome="infrastructure")] == ["5"]


def test_a_cost_limit_lets_what_is_under_way_finish_and_starts_nothing_new(tmp_path: Path) -> None:
    async def answer(context: EpisodeContext, turn: int) -> Any:
        await asyncio.sleep(0)
        return Completion(assistant("12"), Usage(1, 1, 0, 0.01))

    policy = Told(answer)
    outcome = play(Guess, policy, tmp_path, Choice(limit=500), Options(concurrency=8, max_cost_usd=1.0))
    assert outcome.stopped is not None
    assert "$1.0" in outcome.stopped
    with Run(outcome.path) as run:
        episodes = list(run.episodes())
        # 0.06 each: the 17th reaches the limit, and at most seven others are then under way
        assert 17 <= len(episodes) <= 17 + 7
        assert len(policy.begun) == len(episodes), "what was begun, and paid, is on record"
        assert {(e.outcome, e.turns) for e in episodes} == {("truncated", 6)}
        assert run.status == "interrupted"


def test_a_cost_limit_that_is_met_by_the_last_episode_stops_nothing(tmp_path: Path) -> None:
    policy = Told(lambda context, turn: Completion(assistant(solution(context)), Usage(1, 1, 0, 0.5)))
    outcome = play(Guess, policy, tmp_path, Choice(limit=4), Options(concurrency=1, max_cost_usd=2.0))
    assert outcome.stopped is None
    with Run(outcome.path) as run:
        assert (run.status, run.count()) == ("finished", 4)


def test_a_cost_limit_starts_no_further_attempts_either(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        if turn == 1:
            raise InfrastructureError("busy")
        return Completion(assistant("12"), Usage(1, 1, 0, 1.0))

    policy = Told(answer)
    outcome = play(Guess, policy, tmp_path, Choice(limit=50), Options(concurrency=1, retries=9, max_cost_usd=3.0))
    assert outcome.stopped is not None
    assert len(policy.begun) == 3


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_counts_what_is_on_record_and_ends_with_everything(tmp_path: Path) -> None:
    reports: list[Progress] = []
    paths: list[Path] = []

    def see(progress: Progress) -> None:
        with Run(paths[0]) as run:  # a reader beside the writer
            on_record = run.count()
        assert progress.total.done == sum(t.done for t in progress.by_family.values()) == on_record
        reports.append(msgspec.convert(msgspec.to_builtins(progress), Progress))

    async def answer(context: EpisodeContext, turn: int) -> Any:
        await asyncio.sleep(0.002)
        return Completion(submit(), Usage(3, 2, 0, 0.5))

    play(
        [Guess, Bank],
        Told(answer),
        tmp_path,
        Choice(limit=60),
        Options(concurrency=2),
        on_start=lambda scheduler, path: paths.append(path),
        on_progress=see,
    )
    assert len(reports) > 1
    assert [r.total.done for r in reports] == sorted(r.total.done for r in reports)
    last = reports[-1]
    assert (last.total.planned, last.total.done, last.resumed, last.retried) == (120, 120, 0, 0)
    assert {k: (t.planned, t.done, t.gold_count) for k, t in last.by_family.items()} == {
        "test.guess": (60, 60, 60),
        "test.bank": (60, 60, 60),
    }
    assert (last.turns, last.tokens, last.cost_usd) == (60 * 6 + 60, 2 * 420, 0.5 * 420)
    assert last.eta_s == 0.0


def test_the_policy_is_closed_once_whatever_happens(tmp_path: Path) -> None:
    policy = Told(lambda context, turn: "12")
    play(Guess, policy, tmp_path)
    assert policy.closed == 1
    failing = Told(lambda context, turn: (_ for _ in ()).throw(DefinitionError("badly written")))
    with pytest.raises(DefinitionError):
        play(Guess, failing, tmp_path)
    assert failing.closed == 1


def test_a_policy_that_fails_to_close_is_a_warning_and_the_run_stands(tmp_path: Path) -> None:
    class Sticky(Told):
        async def aclose(self) -> None:
            raise OSError("https://user:hunter22@host does not let go")

    with pytest.warns(RuntimeWarning, match="does not let go") as warnings:
        outcome = play(Guess, Sticky(lambda context, turn: "12"), tmp_path)
    assert "hunter22" not in str(warnings[0].message)
    with Run(outcome.path) as run:
        assert run.status == "finished"


@pytest.mark.parametrize(
    "options",
    [
        Options(retries=-1),
        Options(concurrency=0),
        Options(step_threads=0),
        Options(max_cost_usd=0.0),
        Options(max_cost_usd=float("nan")),
        Options(limits=Limits(turns=0)),
        Options(limits=Limits(seconds=-1.0)),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_made(tmp_path: Path, options: Options) -> None:
    with pytest.raises(UsageError, match="must"):
        play(Guess, ScriptedPolicy(["1"]), tmp_path, None, options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mine", [(700, 10, 10), (0, 10, 10), (1_000_000, 5, 5)])
def test_the_garbage_collector_is_left_as_it_was_found(tmp_path: Path, mine: tuple[int, int, int]) -> None:
    during = set()

    def answer(context: EpisodeContext, turn: int) -> str:
        during.add(gc.get_threshold())
        return "1"

    before = gc.get_threshold()
    gc.set_threshold(*mine)
    try:
        play(Guess, Told(answer), tmp_path, Choice(limit=2))
        assert gc.get_threshold() == mine
    finally:
        gc.set_threshold(*before)
    ((first, _, _),) = during
    assert first == (50_000 if mine[0] == 700 else mine[0])
