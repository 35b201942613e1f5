# SPDX-License-Identifier: Apache-2.0
"""Agents that are not ours: the same agent plays the same episode whatever it is packed in, and none can do harm."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import agentgym
import tests.envs
from agentgym.chat import user
from agentgym.episode import Limits
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, UsageError
from agentgym.policies.agents import AgentPolicy, CommandPolicy, EpisodeOver, HttpAgentPolicy
from agentgym.policies.load import load_policy
from agentgym.policies.transport import Patience
from agentgym.protocols import EpisodeContext, Sampling
from agentgym.records.run import Episode, Run
from tests.conftest import ROOT
from tests.policies import bots
from tests.policies.fault_server import FaultServer

BOTS = f"{ROOT}/tests/policies/bots.py"


@contextlib.contextmanager
def service() -> Iterator[tuple[str, list[Any]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bots.Service)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/act", server.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def play(model: Any, runs: Path, tasks: Any = tests.envs.Bank, **options: Any) -> list[Episode]:
    run: Run = agentgym.evaluate(tasks, model, runs=runs, **options)
    return list(run.episodes())


def fail(model: Any, runs: Path, **options: Any) -> str:
    """The error of a run in which nothing worked."""
    with pytest.raises(InfrastructureError):
        play(model, runs, limit=1, retries=0, **options)
    (episode,) = agentgym.open_run(str(max(runs.iterdir()))).episodes()
    assert (episode.outcome, episode.gold, episode.reward) == ("infrastructure", None, None)
    return str(episode.error)


def agent(tmp_path: Path, code: str, name: str = "run") -> str:
    file = tmp_path / f"agent_{abs(hash(code))}.py"
    file.write_text(textwrap.dedent(code))
    return f"agent:{file}:{name}"


def program(tmp_path: Path, code: str) -> str:
    file = tmp_path / "program.py"
    file.write_text("import json, os, sys, time\n" + textwrap.dedent(code))
    return f"cmd:{sys.executable} {file}"


def _processes(mark: str) -> list[psutil.Process]:
    found = []
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in " ".join(p.cmdline()) and p.status() != psutil.STATUS_ZOMBIE:
                found.append(p)
    return found


# -- one agent, many shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tools.retail", "math.chain"])
def test_one_agent_plays_the_same_episode_in_every_shape(family: str, tmp_path: Path) -> None:
    played = {}
    with service() as (url, _):
        shapes = [
            f"agent:{BOTS}:answer",
            f"agent:{BOTS}:answer_async",
            f"agent:{BOTS}:Answerer",
            f"agent:{BOTS}:drive",
            f"agent:{BOTS}:drive_blocking",
            f"cmd:{sys.executable} {BOTS}",
            url,
        ]
        for shape in shapes:
            episodes = play(shape, tmp_path, family, limit=2, trials=2, concurrency=4)
            assert all(e.error is None for e in episodes), [e.error for e in episodes]
            plain = [msgspec.structs.replace(e.trajectory, policy="").canonical() for e in episodes]
            played[shape] = sorted(plain)
    first = played[shapes[0]]
    assert len(set(first)) == 4
    assert b"bad_arguments" in first[0], "the mistake was made, and told"
    assert b"What do they want?" in first[0]
    for shape in shapes:
        assert played[shape] == first, shape


def test_an_agent_is_not_told_its_task_and_the_service_is_told_the_rest(tmp_path: Path) -> None:
    # one of the tools of test.bank is out of order, so that nothing is scored
    with service() as (url, seen), pytest.raises(InfrastructureError):
        play(url.replace("//", "//us3r:planted-77c1@"), tmp_path, variants=["tempt"], limit=2, retries=1, seed=3)
    told = json.dumps([request for _, _, request in seen])
    assert "tempt" not in told
    assert "test.bank" not in told
    assert len({request["episode"] for _, _, request in seen}) == 4, "an episode that is played again is another one"
    turns = [request["turn"] for _, _, request in seen if request["episode"] == seen[0][2]["episode"]]
    assert turns == list(range(len(turns)))
    assert len(turns) > 2
    assert isinstance(seen[0][2]["sampling"]["seed"], int)
    assert {path for path, _, _ in seen} == {"/act"}
    assert seen[0][1]["Authorization"].startswith("Basic ")
    assert b"planted-77c1" not in b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


def test_an_agent_says_what_it_used(tmp_path: Path) -> None:
    place = agent(
        tmp_path,
        """
        async def run(session):
            usage = {"prompt_tokens": 10, "completion_tokens": 2, "cost_usd": 0.5}
            while not session.done:
                await session.send("4", usage=usage)
        """,
    )
    (episode,) = play(place, tmp_path / "runs", tests.envs.Guess, limit=1)
    assert episode.cost_usd == 0.5 * episode.turns
    assert episode.prompt_tokens == 10 * episode.turns


# -- agents that drive themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_an_agent_that_stops_early_is_scored_on_what_it_did(kind: str, tmp_path: Path) -> None:
    place = agent(
        tmp_path,
        f"""
        {kind} run(session):
            return "not a number"
        """,
    )
    (episode,) = play(place, tmp_path / "runs", tests.envs.Guess, limit=1)
    assert (episode.outcome, episode.gold) == ("truncated", 0.0)
    assert [t.message.text for t in episode.trajectory.turns] == ["not a number"] + [""] * 5


def test_an_agent_is_told_when_its_episode_is_over_and_cannot_go_on(tmp_path: Path) -> None:
    ends: list[Any] = []

    async def run(session: Any) -> None:
        for number in range(10):
            new = await session.send(str(number))
            if session.done:
                ends.append(new)
                break
        with pytest.raises(EpisodeOver):
            await session.send("more")
        ends.append("stopped")

    (episode,) = play(AgentPolicy(run), tmp_path, tests.envs.Guess, limit=1, seed=1)
    assert episode.error is None
    assert ends == [[], "stopped"]


def test_turns_come_one_after_the_other(tmp_path: Path) -> None:
    together: list[Any] = []

    async def run(session: Any) -> None:
        together.extend(await asyncio.gather(*(session.send(text) for text in "44"), return_exceptions=True))

    (episode,) = play(AgentPolicy(run), tmp_path, tests.envs.Guess, limit=1)
    assert episode.error is None
    assert episode.trajectory.turns[0].message.text == "4"
    assert [isinstance(x, list) for x in together] == [True, False]
    assert "a turn is being played" in str(together[1])


@pytest.mark.parametrize("signature", ["messages, tools", "session"])
def test_an_agent_that_hangs_does_not_keep_the_process_from_ending(signature: str, tmp_path: Path, fresh_python: Any) -> None:
    place = agent(tmp_path, f"import threading\n\ndef run({signature}):\n    threading.Event().wait()\n")
    said = fresh_python(
        f"""
import agentgym, tests.envs
from agentgym.episode import Limits
run = agentgym.evaluate(tests.envs.Guess, {place!r}, limit=1, limits=Limits(seconds=0.3), runs={str(tmp_path / "runs")!r})
print([e.truncation for e in run.episodes()])
"""
    )
    assert said == "['time']\n"


def test_an_agent_that_does_not_stop_is_cancelled_with_its_episode(tmp_path: Path) -> None:
    ends: list[str] = []

    async def run(session: Any) -> None:
        try:
            await session.send("0")
            await asyncio.sleep(3600)
        finally:
            ends.append("cancelled")

    (episode,) = play(AgentPolicy(run), tmp_path, tests.envs.Guess, limit=1, limits=Limits(seconds=0.3))
    assert episode.truncation in ("time", None)
    assert ends == ["cancelled"]


# -- agents that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signature", ["async def run(messages, tools)", "def run(messages, tools)", "async def run(session)", "def run(session)"]
)
def test_what_an_agent_raises_is_no_answer(signature: str, tmp_path: Path) -> None:
    error = fail(agent(tmp_path, f"{signature}:\n    raise LookupError('no such row')\n"), tmp_path / "runs")
    assert "raised LookupError: no such row" in error
    assert "agent_" in error, "the place is named"


@pytest.mark.parametrize(
    "signature", ["async def run(messages, tools)", "def run(messages, tools)", "async def run(session)", "def run(session)"]
)
def test_an_agent_that_runs_out_of_something_does_not_hang(signature: str, tmp_path: Path) -> None:
    # a future takes no StopIteration, so that a blocking agent's next() would be waited for for ever
    error = fail(agent(tmp_path, f"{signature}:\n    return next(iter(()))\n"), tmp_path / "runs")
    assert "StopIteration" in error


def test_an_agent_with_a_client_of_an_earlier_run_is_told_what_to_do(tmp_path: Path) -> None:
    code = """
    import asyncio

    loop = asyncio.new_event_loop()
    loop.close()

    async def run(messages, tools):
        loop.call_soon(print)
    """
    error = fail(agent(tmp_path, code), tmp_path / "runs")
    assert "Event loop is closed" in error
    assert "make async clients inside of the agent" in error


@pytest.mark.parametrize(
    ("base", "failing"),
    [
        ("class RateLimitError(Exception): status_code = 429", "raise ValueError('no luck') from RateLimitError()"),
        ("class APIConnectionError(Exception): pass", "raise type('TheirError', (APIConnectionError,), {})('no luck')"),
    ],
)
def test_a_busy_or_absent_model_server_is_recognised_behind_a_frameworks_own_error(
    base: str, failing: str, tmp_path: Path
) -> None:
    code = f"""
    {base}

    calls = []

    def run(messages, tools):
        calls.append(messages)
        if len(calls) > 1:
            return "4"
        {failing}
    """
    (episode,) = play(agent(tmp_path, code), tmp_path / "runs", tests.envs.Guess, limit=1, retries=1)
    assert (episode.attempt, episode.error) == (1, None)


@pytest.mark.parametrize(
    "value", ["None", "7", "[]", "{'role': 'user', 'content': 'x'}", "{'content': 7}", "{'message': None}"]
)
def test_what_is_no_message_is_no_answer(value: str, tmp_path: Path) -> None:
    error = fail(agent(tmp_path, f"def run(messages, tools):\n    return {value}\n"), tmp_path / "runs")
    assert "must return an assistant message" in error


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def run(): ...", "it takes 0 parameters"),
        ("def run(a, b, c): ...", "it takes 3 parameters"),
        ("run = 7", "cannot be called"),
        ("class run: ...", "cannot be called"),
    ],
)
def test_what_cannot_be_an_agent_is_refused_before_anything_is_played(code: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        load_policy(agent(tmp_path, code))


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import no_such_framework", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_framework' \(agent_"),
        ("raise KeyError('MY_KEY')", r"cannot be imported: KeyError: 'MY_KEY' \(agent_"),
        ("def run(:", "cannot be imported: SyntaxError"),
    ],
)
def test_an_agent_that_cannot_be_imported_is_told_why(code: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        load_policy(agent(tmp_path, code))


def test_an_agent_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for place in ("agent:no_such_module:run", f"agent:{tmp_path}/none.py:run", f"agent:{BOTS}:anser"):
        with pytest.raises(NotFoundError):
            load_policy(place)
    with pytest.raises(NotFoundError, match="no program 'no-such-program'"):
        load_policy("cmd:no-such-program --x")
    for nothing in ("agent:", "cmd:", "cmd:'unclosed", "http:nothing"):
        with pytest.raises(UsageError):
            load_policy(nothing)


# -- programs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("sys.exit('could not find my notes')", "ended before it answered"),
        ("input(); print('thinking ...', flush=True); time.sleep(60)", "wrote to stdout what is no answer"),
        ("input(); print('{}', flush=True); time.sleep(60)", 'an object with a "message"'),
        ("input(); print(json.dumps({'error': 'out of paper'}), flush=True); time.sleep(60)", "out of paper"),
        ("input(); sys.stdout.write('x' * (17 << 20)); sys.stdout.flush(); time.sleep(60)", "a line longer than 16 MiB"),
        ("input(); sys.stdout.write('{\"mess'); sys.stdout.flush()", "ended before it answered"),
    ],
)
def test_a_program_that_breaks_the_protocol_is_told_apart_from_a_wrong_answer(
    code: str, complaint: str, tmp_path: Path
) -> None:
    error = fail(program(tmp_path, f"sys.stderr.write('a last word'); sys.stderr.flush()\n{code}"), tmp_path / "runs")
    assert complaint in error
    assert "a last word" in error
    assert _processes(str(tmp_path / "program.py")) == []


def test_a_program_that_hangs_is_given_up(tmp_path: Path) -> None:
    spec = program(tmp_path, "time.sleep(3600)")
    error = fail(CommandPolicy(spec.removeprefix("cmd:"), turn_s=0.5), tmp_path / "runs")
    assert "gave no answer within" in error
    assert _processes(str(tmp_path / "program.py")) == []


def test_a_program_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    code = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "%s-child"])
    for line in sys.stdin:
        print(json.dumps({"message": "4"}), flush=True)
    """ % (tmp_path / "program.py")
    episodes = play(program(tmp_path, code), tmp_path / "runs", tests.envs.Guess, limit=3)
    assert all(e.error is None for e in episodes)
    assert _processes(str(tmp_path / "program.py")) == []


def test_a_program_may_clean_up_at_the_end(tmp_path: Path) -> None:
    code = """
    for line in sys.stdin:
        print(json.dumps({"message": "4"}), flush=True)
    open(os.path.join(os.path.dirname(__file__), f"done-{os.getpid()}"), "w").close()
    """
    play(program(tmp_path, code), tmp_path / "runs", tests.envs.Guess, limit=3)
    assert len(list(tmp_path.glob("done-*"))) == 3, "one process an episode, and each saw its end"


def test_a_program_that_floods_stderr_does_not_get_stuck(tmp_path: Path) -> None:
    code = """
    for line in sys.stdin:
        sys.stderr.write("x" * 1_000_000)
        print(json.dumps({"message": {"content": "4"}, "usage": {"completion_tokens": 3}}), flush=True)
    """
    (episode,) = play(program(tmp_path, code), tmp_path / "runs", tests.envs.Guess, limit=1)
    assert episode.error is None
    assert episode.completion_tokens == 3 * episode.turns


# -- services -----------------------------------------------------------------------------------------------------------


def test_a_service_that_fails_is_asked_again_and_then_named(tmp_path: Path) -> None:
    quick = Patience(timeout_s=30.0, deadline_s=60.0, base_s=0.01, cap_s=0.05)

    def bot(_: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        return {"message": made["choices"][0]["message"]}

    with FaultServer(script=["500", "cut", "html"], reply=bot) as server:
        policy = HttpAgentPolicy(f"{server.url}/act", patience=quick)
        (episode,) = play(policy, tmp_path / "a", tests.envs.Guess, limit=1)
    assert episode.gold == 1.0
    assert len(server.requests) == 3 + episode.turns
    with FaultServer(status=422, body={"detail": "no field 'state'"}) as server:
        error = fail(HttpAgentPolicy(f"{server.url}/act", patience=quick), tmp_path / "b")
    assert "status 422: no field 'state'" in error
    assert len(server.requests) == 1


def test_blocking_agents_run_beside_each_other(tmp_path: Path) -> None:
    """Eight calls that wait for each other can only end if they run at once."""
    barrier = threading.Barrier(8)

    def run(messages: Any, tools: Any) -> str:
        if len(messages) == 1:
            barrier.wait(30)
        return "4"

    episodes = play(AgentPolicy(run), tmp_path, tests.envs.Guess, limit=8, concurrency=8)
    assert all(e.error is None for e in episodes)


def test_objects_of_the_openai_package_are_answers() -> None:
    class Reply:
        def model_dump(self, exclude_none: bool) -> dict[str, Any]:
            return {"role": "assistant", "content": "from an object"}

    async def once() -> str:
        player = AgentPolicy(lambda messages, tools: Reply()).begin(EpisodeContext("a/b/c", 0, 0))
        return (await player.act([user("hi")], (), Sampling())).message.text

    assert asyncio.run(once()) == "from an object"
