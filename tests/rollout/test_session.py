# SPDX-License-Identifier: Apache-2.0
"""Selections played one after another: what shares a run, what is played again, and what Ctrl-C leaves behind."""

from __future__ import annotations

import _thread
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.chat import submit
from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.oracle import OraclePolicy
from agentgym.protocols import Sampling
from agentgym.records.run import Run
from agentgym.rollout.evaluate import prepare, resume
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice
from agentgym.rollout.session import Played, Session
from tests.envs import Bank, Guess
from tests.rollout.playing import Told


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "runs", "mine") as s:
        yield s


def play(session: Session, tasks: Any, model: Any = "oracle:honest", options: Options | None = None, **choice: Any) -> Played:
    plan, options = prepare(tasks, Choice(**choice), options or Options())
    return session.play(plan, options, model)


def on_record(path: Path) -> list[str]:
    with Run(path) as run:
        return sorted(f"{e.task_id}/{e.trial}" for e in run.episodes())


def test_selections_of_one_model_share_a_run_and_no_task_is_played_twice(session: Session) -> None:
    policy = Told(lambda context, turn: submit())
    first = play(session, Bank, policy, limit=2)
    second = play(session, Guess, OraclePolicy("honest"), limit=2)
    third = play(session, Bank, policy, limit=3, trials=2)
    assert first.path == third.path != second.path
    assert session.runs == [first.path, second.path]
    # items 0 and 1 had their first trial before; `begun` is what was really played
    assert sorted(policy.begun) == [(f"test.bank/control/{i}", k) for i in range(3) for k in range(2)]
    assert [t.trials for t in first.tasks] == [1, 1]
    with Run(first.path) as run:
        assert (run.planned, run.count(), run.status) == (6, 6, "finished")
        assert run.meta["title"] == "mine"


def test_environments_of_several_selections_stay_apart_in_the_plan(session: Session) -> None:
    path = play(session, [Bank, Guess], limit=1).path
    assert play(session, "test.guess:level=2", limit=1).path == path
    assert play(session, Bank, limit=2, variants=["tempt"]).path == path
    assert on_record(path) == [
        "test.bank/control/0/0",
        "test.bank/tempt/0/0",
        "test.bank/tempt/1/0",
        "test.guess/control/0/0",
        "test.guess:level=2/control/0/0",
    ]


def test_other_options_and_task_ids_with_another_meaning_get_a_run_of_their_own(session: Session, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("from tests.envs import Bank\nclass Other(Bank):\n    max_turns = 9\n")
    path = play(session, Bank, limit=1).path
    assert play(session, Bank, limit=1, options=Options(sampling=Sampling(temperature=0.5))).path != path
    other = play(session, f"{tmp_path}/other.py:Other", limit=2).path
    assert other != path
    assert play(session, Bank, limit=2).path == path
    assert play(session, f"{tmp_path}/other.py:Other", limit=1).path == other


def test_a_policy_is_made_once_and_closed_once_in_the_end(tmp_path: Path) -> None:
    policy = Told(lambda context, turn: submit())
    with Session(tmp_path, "mine") as session:
        play(session, Bank, policy, limit=1)
        play(session, Bank, policy, limit=2)
        assert policy.closed == 0
    assert policy.closed == 1
    session.close()
    assert policy.closed == 1


def test_it_may_be_used_while_an_event_loop_runs(session: Session) -> None:
    async def notebook() -> Played:
        return play(session, Bank, limit=2)

    assert len(on_record(asyncio.run(notebook()).path)) == 2


def test_what_infrastructure_spoiled_is_played_again_when_it_is_asked_for_again_or_by_resume(session: Session) -> None:
    down = True

    def answer(context: Any, turn: int) -> Any:
        if down and context.task_id.endswith(("/0", "/1")):
            raise InfrastructureError("down", retryable=False)
        return submit()

    path = play(session, Bank, Told(answer), limit=4).path
    with Run(path) as run:
        assert sum(e.outcome == "infrastructure" for e in run.episodes()) == 2
    down = False
    asyncio.run(resume(path, Told(answer)))
    with Run(path) as run:
        assert [e.outcome for e in run.episodes()].count("infrastructure") == 0
        assert run.count() == 4
    again = Told(answer)
    again_path = play(session, Bank, again, limit=4).path
    assert again_path != path, "another policy object is another player"


def test_what_cannot_be_played_raises_and_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(NotFoundError, match="no model"):
        play(session, Bank, "oracel:honest", limit=1)
    plan, _ = prepare(Bank, Choice(limit=1), Options())
    with pytest.raises(UsageError, match="retries must not be negative"):
        session.play(plan, Options(retries=-1), "oracle:honest")
    assert session.runs == []
    assert len(on_record(play(session, Bank, limit=1).path)) == 1


def test_ctrl_c_stops_the_playing_keeps_what_was_played_and_leaves_the_session_usable(session: Session) -> None:
    async def answer_or_be_interrupted(context: Any) -> Any:
        if context.task_id.endswith("/2"):
            _thread.interrupt_main()
            await asyncio.Event().wait()
        return submit()

    policy = Told(lambda context, turn: answer_or_be_interrupted(context))
    with pytest.raises(KeyboardInterrupt):
        play(session, Bank, policy, options=Options(concurrency=1), limit=4)
    (path,) = session.runs
    assert on_record(path) == ["test.bank/control/0/0", "test.bank/control/1/0"]
    with Run(path) as run:
        assert run.status == "interrupted"
    assert play(session, Bank, policy, options=Options(concurrency=1), limit=2).path == path
