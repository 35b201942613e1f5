# SPDX-License-Identifier: Apache-2.0
"""`agentgym.evaluate` as a researcher uses it: what it returns, how it is resumed, what it refuses, what it keeps."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import agentgym
from agentgym.chat import Message, ToolCall, assistant, call, submit
from agentgym.env import Task
from agentgym.errors import (
    DefinitionError,
    InfrastructureError,
    ModelFileError,
    NotFoundError,
    NothingSelectedError,
    RecordError,
    UsageError,
)
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import Completion, EpisodeContext, Tokens, Usage
from agentgym.records.run import Run, open_run
from agentgym.records.store import RunWriter
from agentgym.rollout import evaluate as evaluating
from agentgym.rollout.evaluate import read_plan, recorded_model
from agentgym.scoring import Score, verifier
from tests.conftest import ROOT
from tests.envs import Bank, Guess
from tests.rollout.playing import Told

PAYING = Completion(assistant("12"), Usage(1, 1, 0, 0.25))


def names(run: Run) -> list[str]:
    return sorted(f"{e.task_id}/{e.trial}" for e in run.episodes())


# -- what it returns --------------------------------------------------------------------------------------------------


def test_evaluate_returns_the_run_with_its_episodes(tmp_path: Path) -> None:
    run = agentgym.evaluate([Guess, "test.bank"], "oracle:honest", trials=2, limit=3, variants=None, runs=tmp_path)
    assert run.path.parent == tmp_path
    assert (run.status, run.planned, run.count()) == ("finished", 12, 12)
    with agentgym.open_run(run.path) as again:
        episodes = list(again.episodes())
        assert names(again) == names(run)
    assert {e.task_id for e in episodes} == {f"test.{f}/control/{i}" for f in ("guess", "bank") for i in range(3)}
    for e in run.episodes():
        assert (e.outcome, e.gold) == ("terminated", 1.0)
        assert e.reward == (1.25 if e.family == "test.bank" else 1.0)
        assert e.scores["guessed" if e.family == "test.guess" else "honest_books"].value == 1.0
        assert e.trajectory.task_id == e.task_id
        assert e.trajectory.trial == e.trial
        assert e.task.id == e.task_id


def test_evaluate_works_where_an_event_loop_runs_and_aevaluate_within_it(tmp_path: Path) -> None:
    async def notebook() -> tuple[Run, Run]:
        one = agentgym.evaluate(Guess, "oracle:honest", limit=2, runs=tmp_path)
        return one, await agentgym.aevaluate(Guess, "oracle:honest", limit=2, runs=tmp_path)

    one, two = asyncio.run(notebook())
    assert one.path != two.path
    assert names(one) == names(two) == ["test.guess/control/0/0", "test.guess/control/1/0"]


def test_what_goes_wrong_in_a_notebook_is_raised_there(tmp_path: Path) -> None:
    async def notebook() -> None:
        agentgym.evaluate("test.gues", runs=tmp_path)

    with pytest.raises(NotFoundError, match=r"test\.guess"):
        asyncio.run(notebook())


INTERRUPTED = """
import asyncio, os, signal, sys, threading
import agentgym
from tests.envs import Guess
from tests.rollout.playing import Told

async def answer(context, turn):
    print("playing", flush=True)
    await asyncio.Event().wait()

async def notebook():
    agentgym.evaluate(Guess, Told(answer), limit=1, runs=sys.argv[1])

try:
    {how}
except (KeyboardInterrupt, asyncio.CancelledError):
    print("stopped", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("how", ["asyncio.run(notebook())", "asyncio.new_event_loop().run_until_complete(notebook())"])
def test_ctrl_c_in_a_notebook_stops_what_it_had_started(tmp_path: Path, how: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(how=how), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "playing\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60)[0] == "stopped 1\n"
    finally:
        child.kill()
        child.wait()
    with open_run("latest", tmp_path) as run:
        assert (run.status, run.count()) == ("interrupted", 0)


def test_without_a_model_the_default_one_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "DEFAULT", "oracle:lazy")
    run = agentgym.evaluate(Bank, limit=1, runs=tmp_path)
    assert run.meta["model"] == "oracle:lazy"


def test_the_description_of_a_run_says_what_was_played_with_what(tmp_path: Path) -> None:
    run = agentgym.evaluate(Bank, "oracle:honest", limit=1, seed=5, runs=tmp_path)
    meta = run.meta
    assert (meta["title"], meta["model"], meta["fingerprint"]["name"]) == ("test.bank", "oracle:honest", "oracle:honest")
    assert meta["options"]["seed"] == 5
    assert set(meta["code"]["test.bank-v1"]["verifiers"]) == {"moved", "honest_books", "calls"}
    assert re.fullmatch("[0-9a-f]{12}", meta["code"]["test.bank-v1"]["source"])
    ((host,),) = run._rows("SELECT host FROM sittings")
    assert msgspec.json.decode(host)["agentgym"] == agentgym.__version__


def test_runs_go_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert agentgym.evaluate(Guess, "oracle:honest", limit=1).path.parent == Path("runs")
    monkeypatch.setenv("AGENTGYM_RUNS", "elsewhere")
    assert agentgym.evaluate(Guess, "oracle:honest", limit=1).path.parent == Path("elsewhere")
    assert agentgym.evaluate(Guess, "oracle:honest", limit=1, runs="here").path.parent == Path("here")
    assert agentgym.open_run().path.parent == Path("elsewhere")


def test_a_run_in_which_every_episode_failed_is_an_error_and_still_on_record(tmp_path: Path) -> None:
    def answer(context: EpisodeContext, turn: int) -> Any:
        raise ConnectionError("no route")

    with pytest.raises(InfrastructureError, match=r"policy: ConnectionError: no route.*record: ") as caught:
        agentgym.evaluate(Guess, Told(answer), limit=3, runs=tmp_path)
    assert not caught.value.retryable
    with open_run("latest", tmp_path) as run:
        assert [e.outcome for e in run.episodes()] == ["infrastructure"] * 3


# -- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "options", "error", "words"),
    [
        (Guess, {"model": "lokal:smollm2"}, NotFoundError, "Did you mean: local"),
        (Guess, {"model": "oracle:honset"}, NotFoundError, "Did you mean: honest"),
        (Guess, {"model": "replay:nowhere"}, NotFoundError, "no run 'nowhere'"),
        (Guess, {"model": "./no_policy.py:Mine"}, NotFoundError, "there is no file"),
        (Guess, {"model": "tests.envs:Guess"}, DefinitionError, "is not a policy"),
        (Guess, {"model": object()}, DefinitionError, "is not a policy"),
        ("test.gues", {}, NotFoundError, "Did you mean: test.guess"),
        ([], {}, UsageError, "no task was named"),
        (Guess, {"keyword": "zzz"}, NothingSelectedError, "zzz"),
        (Guess, {"retries": -1}, UsageError, "retries must not be negative"),
        (Guess, {"concurrency": 0}, UsageError, "concurrency must be more than 0"),
        (Guess, {"max_cost": -2.0}, UsageError, "max_cost must be more than 0"),
        (Guess, {"resume_run": "nowhere"}, NotFoundError, "no run 'nowhere'"),
        (Guess, {"resume_run": "latest"}, NotFoundError, "there are no runs"),
    ],
)
def test_what_cannot_be_is_refused_in_words_before_anything_is_made(
    tmp_path: Path, tasks: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        agentgym.evaluate(tasks, **{"model": "oracle:honest", "runs": tmp_path, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fingerprint", [{"weights": object()}, "smollm2"])
def test_a_fingerprint_that_cannot_be_kept_leaves_no_run_behind(tmp_path: Path, fingerprint: Any) -> None:
    policy = ScriptedPolicy(["1"])
    policy.fingerprint = lambda: fingerprint  # type: ignore[method-assign]
    with pytest.raises(DefinitionError, match="scripted: fingerprint must return"):
        agentgym.evaluate(Guess, policy, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot make a run directory"):
        agentgym.evaluate(Guess, "oracle:honest", runs=tmp_path / "file" / "runs")


# -- resuming ---------------------------------------------------------------------------------------------------------


def stopped_run(folder: Path, **options: Any) -> Run:
    """A run of eight episodes at 1.50 each that its cost limit of 4.00 stopped after the third."""
    policy = Told(lambda context, turn: PAYING)
    run = agentgym.evaluate(Guess, policy, limit=4, trials=2, concurrency=1, max_cost=4.0, runs=folder, **options)
    assert (run.count(), run.status) == (3, "interrupted")
    return run


def test_a_resumed_run_plays_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    first = stopped_run(tmp_path, seed=9)
    before = {f"{e.task_id}/{e.trial}": e.trajectory.canonical() for e in first.episodes()}
    policy = Told(lambda context, turn: PAYING)
    run = agentgym.evaluate(model=policy, resume_run=first.path, max_cost=100.0, runs=tmp_path)
    assert run.path == first.path
    assert (run.count(), run.planned, run.status, run.stopped) == (8, 8, "finished", None)
    assert len(policy.begun) == 5
    assert not {f"{t}/{k}" for t, k in policy.begun} & set(before)
    after = {f"{e.task_id}/{e.trial}": e for e in run.episodes()}
    assert {name: after[name].trajectory.canonical() for name in before} == before
    whole = agentgym.evaluate(Guess, Told(lambda c, t: PAYING), limit=4, trials=2, seed=9, runs=tmp_path)
    assert {f"{e.task_id}/{e.trial}": e.trajectory.canonical() for e in whole.episodes()} == {
        name: e.trajectory.canonical() for name, e in after.items()
    }


def test_what_a_run_has_cost_counts_when_it_is_resumed(tmp_path: Path) -> None:
    stopped_run(tmp_path)
    policy = Told(lambda context, turn: PAYING)
    run = agentgym.evaluate(model=policy, resume_run="latest", runs=tmp_path)
    assert policy.begun == []
    assert run.count() == 3
    assert "limit of $4.00" in (run.stopped or "")
    run = agentgym.evaluate(model=policy, resume_run="latest", max_cost=7.0, runs=tmp_path)
    assert len(policy.begun) == 2
    assert run.count() == 5


def test_a_finished_run_has_nothing_to_resume_and_stays_as_it_was(tmp_path: Path) -> None:
    run = agentgym.evaluate(Guess, "oracle:honest", limit=3, runs=tmp_path)
    before = [e.id for e in run.episodes(all_attempts=True)]
    again = agentgym.evaluate(resume_run=run.path.name, runs=tmp_path)
    assert [e.id for e in again.episodes(all_attempts=True)] == before
    assert again.status == "finished"


def test_what_infrastructure_spoiled_is_played_again_when_resumed(tmp_path: Path) -> None:
    broken = True

    def answer(context: EpisodeContext, turn: int) -> Any:
        if broken and context.task_id.endswith(("1", "3")):
            raise ConnectionError("down")
        return "12"

    policy = Told(answer)
    run = agentgym.evaluate(Guess, policy, limit=4, runs=tmp_path)
    assert {e.item for e in run.episodes(outcome="infrastructure")} == {"1", "3"}
    broken = False
    policy.begun.clear()
    run = agentgym.evaluate(model=policy, resume_run=run.path, runs=tmp_path)
    assert {t[-1] for t, _ in policy.begun} == {"1", "3"}
    assert {(e.item, e.attempt, e.outcome) for e in run.episodes()} == {
        ("0", 0, "truncated"),
        ("1", 1, "truncated"),
        ("2", 0, "truncated"),
        ("3", 1, "truncated"),
    }
    assert len(list(run.episodes(all_attempts=True))) == 6


def test_progress_of_a_resumed_run_counts_what_was_on_record(tmp_path: Path) -> None:
    run = stopped_run(tmp_path)
    reports: list[Any] = []
    agentgym.evaluate(
        model=Told(lambda c, t: PAYING), resume_run=run.path, max_cost=99.0, runs=tmp_path, on_progress=reports.append
    )
    assert (reports[-1].total.done, reports[-1].total.planned, reports[-1].resumed) == (8, 8, 3)


def test_code_that_changed_since_the_run_was_begun_is_told_and_written_down(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK.format(answer="a"))
    first = agentgym.evaluate(f"{tmp_path}/desk.py:Desk", Told(lambda c, t: PAYING), limit=9, max_cost=1.0, runs=tmp_path)
    (tmp_path / "desk.py").write_text(DESK.format(answer="b"))
    with pytest.warns(RuntimeWarning, match=r"mine\.desk-v1 changed since .* was begun"):
        run = agentgym.evaluate(model=Told(lambda c, t: PAYING), resume_run=first.path, max_cost=99.0)
    assert run.meta["code_at_resume"] != run.meta["code"] == first.meta["code"]


DESK = """
from agentgym import ChatEnv, Task

class Desk(ChatEnv):
    family = "mine.desk"

    def new_task(self, rng):
        return Task(opening="Say {answer}.")
"""


def test_a_run_that_another_process_works_on_is_refused(tmp_path: Path) -> None:
    run = stopped_run(tmp_path)
    writer = RunWriter(run.path, create=False)
    try:
        with pytest.raises(RecordError, match="another process is working on"):
            agentgym.evaluate(model=Told(lambda c, t: PAYING), resume_run=run.path)
    finally:
        writer.close()


def test_two_models_are_not_mixed_in_one_record(tmp_path: Path) -> None:
    run = stopped_run(tmp_path)
    with pytest.raises(UsageError, match=r"was played by told; to go on with oracle:honest would mix two models"):
        agentgym.evaluate(model="oracle:honest", resume_run=run.path, runs=tmp_path)
    assert run.count() == 3


def test_a_model_that_no_text_names_must_be_handed_over_again(tmp_path: Path) -> None:
    run = stopped_run(tmp_path)
    with pytest.raises(NotFoundError, match=r"cannot go on by itself: no model 'told'.*Hand over the policy"):
        agentgym.evaluate(resume_run=run.path, runs=tmp_path)


def test_a_model_with_credentials_must_be_named_again(tmp_path: Path) -> None:
    policy = Told(lambda context, turn: PAYING)
    policy.name = "server:m@https://me:hunter22@host/v1"
    run = agentgym.evaluate(Guess, policy, limit=4, concurrency=1, max_cost=1.0, runs=tmp_path)
    with pytest.raises(UsageError, match=r"server:m@https://\*\*\*@host/v1, whose credentials are not on record"):
        recorded_model(run.path)
    policy.name = "server:m@https://me:hunter23@other-host/v1"
    assert agentgym.evaluate(model=policy, resume_run=run.path, max_cost=99.0, runs=tmp_path).count() == 4


def test_a_run_that_was_stopped_before_its_plan_was_written_says_so(tmp_path: Path) -> None:
    RunWriter(tmp_path, create=True).close()
    with pytest.raises(RecordError, match="stopped before its plan was written"):
        read_plan(tmp_path)
    with pytest.raises(RecordError, match="stopped before its plan was written"):
        agentgym.evaluate(resume_run=tmp_path)


def test_a_replay_is_resumed_as_a_replay_of_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    original = agentgym.evaluate(Guess, Told(lambda c, t: PAYING), limit=3)
    replay = agentgym.evaluate(Guess, "replay:latest", limit=3)
    # as if it had been stopped before its last episode
    writer = RunWriter(replay.path, create=False)
    with writer._transaction() as db:
        for table, column in (("episodes", "id"), ("trajectories", "episode"), ("scores", "episode")):
            db.execute(f"DELETE FROM {table} WHERE {column} = 3")
    writer.close()
    resumed = agentgym.evaluate(resume_run="latest")
    assert resumed.path == replay.path
    assert [e.outcome for e in resumed.episodes()] == ["truncated"] * 3
    assert recorded_model(replay.path) == f"replay:{original.path.resolve()}"


# -- what it keeps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        Message("assistant", "", (ToolCall("transfer", '{"cents": "' + "9" * 10_000_000 + '"}'),)),
        Message("assistant", "\ud800 to \udfff", (ToolCall("transfer", '{"cents": 1, "to": "\ud800"}', "\udfff"),)),
        Message("assistant", "", (ToolCall("no\udc80pe", "{"),)),
        Message("assistant", "", tuple(ToolCall("transfer", '{"cents": 1') for _ in range(1000))),
    ],
    ids=["10 MB", "surrogates", "unknown and cut", "a thousand"],
)
def test_the_worst_call_is_kept_answered_with_an_error_and_scored(tmp_path: Path, action: Message) -> None:
    run = agentgym.evaluate(Bank, ScriptedPolicy([action, call("transfer", cents=99), submit()]), limit=2, runs=tmp_path)
    for e in run.episodes():
        assert (e.outcome, e.gold, e.reward, e.tool_exceptions) == ("terminated", 1.0, 1.25, 0)
        assert e.tool_errors == len(action.tool_calls)
        turn = e.trajectory.turns[0]
        assert all(m.text.startswith("error: ") for m in turn.observation)
        kept, given = turn.message.tool_calls[0].arguments, action.tool_calls[0].arguments
        assert kept == re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", given)
        assert len(e.trajectory.messages) == 1 + 3 + len(action.tool_calls) + 2


def test_tokens_survive_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    every_bit = rng.integers(0, 1 << 32, 64, dtype=np.uint32).view(np.float32)
    special = np.array([0x7FC00000, 0x7FC00123, 0xFFC00000, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32)
    given: dict[int, list[Tokens | None]] = {
        0: [
            Tokens(rng.integers(0, 1 << 31, 64).astype(np.int32), every_bit),
            None,
            Tokens(
                np.arange(7, dtype=np.int32),
                special,
                np.array([-(1 << 31), (1 << 31) - 1], np.int32),
                np.array([0, 0, 0, 3, 3, 3, 1 << 30], np.int32),
                np.array([0, 1, 255, 1, 1, 1, 0], np.uint8),
                "processed",
                True,
            ),
            Tokens(np.array([], np.int32), np.array([], np.float32)),
            None,
            None,
        ],
        1: [None] * 5 + [Tokens(np.arange(7, dtype=np.int32), special)],
        2: [None] * 6,
    }

    def answer(context: EpisodeContext, turn: int) -> Completion:
        return Completion(assistant("12"), tokens=given[int(context.task_id[-1])][turn])

    run = agentgym.evaluate(Guess, Told(answer), limit=3, runs=tmp_path)
    for e in run.episodes():
        kept, wanted = e.trajectory.tokens, given[int(e.item)]
        if e.item == "2":
            assert kept is None
            continue
        assert kept is not None
        assert len(kept) == len(wanted) == e.turns
        for one, other in zip(kept, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is None or other is None:
                continue
            assert (one.logprob_kind, one.stop_token_in_output) == (other.logprob_kind, other.stop_token_in_output)
            for name in ("output_ids", "logprobs", "prompt_ids", "versions", "mask"):
                a, b = getattr(one, name), getattr(other, name)
                assert (a is None) == (b is None)
                if a is not None:
                    assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


SECRETS = [
    "hunter22pw",
    "sk-proj-abcdefghij0123456789",
    "dXNlcjpwYXNzd29yZA==",
    "tok.en.of.an.odd.shape",
    "AIzaSyNotReally",
    "k3y-in-a-field",
]


def test_a_secret_in_a_model_a_url_or_an_error_never_enters_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password, key, basic, odd, query, field = SECRETS
    monkeypatch.setenv("ODD_API_KEY", odd)

    @verifier
    def asks(trajectory: Any, context: Any) -> Score:
        raise OSError(f"GET https://me:{password}@judge/v1?key={query} failed")

    class Leaky(Bank):
        family = "test.leaky"
        metrics = (asks,)

        def begin(self) -> None:
            if self.task.item == "1":
                raise OSError(f"Authorization: Basic {basic}")

        @agentgym.env.tool
        def leak(self) -> str:
            """Fails."""
            raise OSError(f"client = Client('https://me:{password}@host', api_key='{key}', odd='{odd}')")

        def new_task(self, rng: np.random.Generator) -> Task:
            if rng.integers(2):
                raise OSError(f"token={odd} was refused")
            return super().new_task(rng)

    def answer(context: EpisodeContext, turn: int) -> Any:
        if len(policy.begun) == 2:
            raise InfrastructureError(f"{{'Authorization': 'Bearer {key}'}}: 401 for {odd}", retryable=False)
        return call("leak") if turn == 0 else submit()

    policy = Told(answer)
    policy.name = f"server:m@https://me:{password}@host/v1?key={query}"
    policy.fingerprint = lambda: {  # type: ignore[method-assign]
        "base_url": f"https://me:{password}@host/v1",
        "api_key": field,
        "headers": [{"authorization": field}],
        "max_tokens": 3,
    }
    run = agentgym.evaluate(Leaky, policy, limit=8, concurrency=1, runs=tmp_path)
    kinds = {e.error_kind for e in run.episodes()}
    assert kinds == {None, "policy", "environment"}
    assert any(e.tool_exceptions for e in run.episodes())
    assert run.meta["fingerprint"]["max_tokens"] == 3
    run.close()
    found = b"".join(p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file())
    with Run(run.path) as again:  # the blobs are compressed
        found += b"".join(msgspec.json.encode(e.trajectory) + msgspec.json.encode(e.all_scores) for e in again.episodes())
    assert b"judge" in found
    for secret in SECRETS:
        assert secret.encode() not in found, secret


# -- by the way -------------------------------------------------------------------------------------------------------


def test_a_run_can_be_moved_and_copied_while_nobody_writes_it(tmp_path: Path) -> None:
    run = agentgym.evaluate(Guess, "oracle:honest", limit=3, runs=tmp_path / "here")
    run.close()
    shutil.move(run.path, tmp_path / "there")
    with open_run(tmp_path / "there") as moved:
        assert moved.count() == 3
        assert [e.trajectory.outcome for e in moved.episodes()] == ["terminated"] * 3


def test_nothing_is_written_outside_of_the_run(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    code = f"""
import os, agentgym
os.chdir({str(tmp_path)!r})
from tests.envs import Guess
print(agentgym.evaluate(Guess, "oracle:honest", limit=2).path)
"""
    path = fresh_python(code).strip()
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert sorted(p.name for p in (tmp_path / path).iterdir() if not p.name.startswith("run.sqlite-")) == ["lock", "run.sqlite"]


def test_a_policy_that_cannot_get_ready_leaves_no_run_behind(tmp_path: Path) -> None:
    class Unready(Told):
        def prepare(self) -> None:
            raise ModelFileError("there is no model file; get one")

    with pytest.raises(ModelFileError, match="get one"):
        agentgym.evaluate(Guess, Unready(lambda context, turn: "1"), runs=tmp_path)
    assert not list(tmp_path.iterdir())
