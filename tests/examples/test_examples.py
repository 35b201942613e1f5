# SPDX-License-Identifier: Apache-2.0
"""The agents in examples/agents play, unchanged and with the real libraries, against real servers on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.episode import Limits
from agentgym.errors import InfrastructureError
from agentgym.records.run import Episode
from agentgym.trajectory import Trajectory
from tests.conftest import ROOT
from tests.examples.conftest import GUARD
from tests.llama_server import llama_server
from tests.policies.fault_server import FaultServer

EXAMPLES = ROOT / "examples" / "agents"
AGENTS = {
    "openai": f"agent:{EXAMPLES}/openai_client.py:answer",
    "smolagents": f"agent:{EXAMPLES}/smolagents_agent.py:run",
    "langgraph": f"agent:{EXAMPLES}/langgraph_agent.py:run",
}
KEY = "sk-planted-81c0de55aa-81c0de55aa"
TRACING = re.compile(r"LANGSMITH|LANGCHAIN|LANGGRAPH|HF_|OTEL_|TELEMETRY|OPENAI_|_proxy$", re.IGNORECASE)

Row = dict[str, Any]

every_agent = pytest.mark.parametrize("name", list(AGENTS))


# -- servers ------------------------------------------------------------------------------------------------------------


def text_of(row: Row) -> str:
    content = row.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])


def told(request: Row) -> str:
    """The whole conversation, as the model is told it."""
    return "\n".join(map(text_of, request["messages"]))


def called(name: str, arguments: str, id_: str) -> Row:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def wants_final_answers(request: Row) -> bool:
    """Whether smolagents asks, whose model says its last word by a call of final_answer."""
    return any(tool["function"]["name"] == "final_answer" for tool in request.get("tools", []))


def turn_of(request: Row) -> int:
    """How many turns the conversation has had; smolagents tells the model of its calls in words."""
    if wants_final_answers(request):
        return told(request).count("Calling tools:\n[")
    return sum(row["role"] == "assistant" for row in request["messages"])


def saying(rows: list[Row]) -> Callable[[Row], Row]:
    """A model that says this in one episode, and its last again and again."""
    return lambda request: {"role": "assistant", **rows[min(turn_of(request), len(rows) - 1)]}


def like_the_oracle(episodes: list[Episode]) -> Callable[[Row], Row]:
    """A model that says in each task what the oracle said in it."""
    plans = {e.trajectory.opening[-1].text: [t.message for t in e.trajectory.turns] for e in episodes}

    def bot(request: Row) -> Row:
        (plan,) = (plan for opening, plan in plans.items() if opening in told(request))
        turn = turn_of(request)
        message = plan[turn]
        calls = [called(c.name, c.arguments, f"c{turn}{i}") for i, c in enumerate(message.tool_calls)]
        if wants_final_answers(request) and not calls:
            calls = [called("final_answer", json.dumps({"answer": message.text}), f"c{turn}")]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        return {"role": "assistant", "content": message.text or None, **({"tool_calls": calls} if calls else {})}

    return bot


@pytest.fixture(autouse=True)
def _as_a_newcomers_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that switches tracing or telemetry on, nor off."""
    for variable in os.environ:
        if TRACING.search(variable):
            monkeypatch.delenv(variable)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Points the examples at a server, which they read from the environment as they are imported."""

    def use(url: str) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("MODEL", "m")
        forget()

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(EXAMPLES)):
                del sys.modules[name]

    yield use
    forget()


def play(name: str, runs: Path, tasks: str = "math.chain", **options: Any) -> list[Episode]:
    options = {"limit": 1, "retries": 0, **options}
    try:
        run = agentgym.evaluate(tasks, AGENTS.get(name, name), runs=runs, **options)
    except InfrastructureError:  # nothing worked; it is on record all the same
        run = agentgym.open_run(str(max(runs.iterdir(), key=lambda p: p.stat().st_mtime_ns)))
    return sorted(run.episodes(), key=lambda e: e.task_id)


def what_was_done(trajectory: Trajectory) -> list[Any]:
    """Words, calls and what the environment said, of each turn; without ids, which are anybody's own."""
    return [
        (
            turn.message.text,
            [(call.name, json.loads(call.arguments)) for call in turn.message.tool_calls],
            [(m.role, m.text) for m in turn.observation],
            [(r.name, r.status) for r in turn.results],
        )
        for turn in trajectory.turns
    ]


# -- what they play -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["math.chain", "tools.retail"])
def test_every_framework_plays_the_episode_that_the_oracle_plays(family: str, at: Any, tmp_path: Path) -> None:
    oracle = play("oracle:honest", tmp_path / "oracle", family, limit=4)
    expected = [what_was_done(e.trajectory) for e in oracle]
    with FaultServer(like_the_oracle(oracle)) as server:
        at(server.url)
        # twice, for a client must not be bound to the event loop of the first run
        for name in list(AGENTS) * 2:
            server.requests.clear()
            episodes = play(name, tmp_path / name, family, limit=4, concurrency=4)
            assert [(e.outcome, e.gold, e.error) for e in episodes] == [("terminated", 1.0, None)] * 4, name
            assert [what_was_done(e.trajectory) for e in episodes] == expected, name
            assert len(server.requests) == sum(e.turns for e in episodes), "each turn asked the model once"
            assert sum(e.tool_calls for e in episodes) >= 8
            for episode in episodes:
                used = [(t.usage.prompt_tokens, t.usage.completion_tokens) for t in episode.trajectory.turns]
                assert used == [(11, 2)] * episode.turns, name
                opening = episode.trajectory.opening[-1].text
                last = max((told(r) for r in server.requests if opening in told(r)), key=len)
                for turn in episode.trajectory.turns[:-1]:
                    assert all(m.text in last for m in turn.observation), "the model is told what the environment said"


@every_agent
def test_a_call_gone_wrong_reaches_the_environment_which_answers_it(name: str, at: Any, tmp_path: Path) -> None:
    broken = {"content": "Let me see.", "tool_calls": [called("calculator", '{"expression": ', "a")]}
    submit = {"content": None, "tool_calls": [called("submit", '{"answer": "1"}', "b")]}
    with FaultServer(saying([broken, submit])) as server:
        at(server.url)
        (episode,) = play(name, tmp_path)
    first, last = episode.trajectory.turns
    assert (episode.outcome, episode.gold) == ("terminated", 0.0)
    assert (first.message.text, first.message.tool_calls[0].arguments) == ("Let me see.", '{"expression": ')
    assert first.results[0].status == "bad_arguments"
    assert "not valid JSON" in told(server.requests[1])
    assert last.message.tool_calls[0].name == "submit"


@every_agent
def test_calls_made_at_once_are_played_in_their_order(name: str, at: Any, tmp_path: Path) -> None:
    both = [called("calculator", '{"expression": "1+1"}', "a"), called("calculator", '{"expression": "2+2"}', "b")]
    submit = called("submit", '{"answer": "1"}', "c")
    late = called("calculator", '{"expression": "3+3"}', "d")
    with FaultServer(
        saying([{"content": None, "tool_calls": both}, {"content": None, "tool_calls": [submit, late]}])
    ) as server:
        at(server.url)
        (episode,) = play(name, tmp_path)
    assert (episode.outcome, episode.gold, episode.error) == ("terminated", 0.0, None)
    turns = episode.trajectory.turns
    calls = [c.arguments for t in turns for c in t.message.tool_calls if c.name == "calculator"]
    assert calls[:2] == [c["function"]["arguments"] for c in both]
    assert [m.text for t in turns for m in t.observation][:2] == ["2", "4"]
    assert len(server.requests) == 2, "an agent that has submitted asks its model no more"
    assert episode.completion_tokens == 4


# -- what goes wrong ----------------------------------------------------------------------------------------------------


@every_agent
def test_what_the_agent_raises_is_on_record_and_no_score(name: str, at: Any, tmp_path: Path) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    with FaultServer(status=401, body=body) as server:
        at(server.url)
        (episode,) = play(name, tmp_path, retries=2)
    assert (episode.outcome, episode.reward, episode.gold) == ("infrastructure", None, None)
    assert "AuthenticationError: Error code: 401" in str(episode.error)
    assert "Incorrect API key provided" in str(episode.error)
    assert len(server.requests) == 1, "this is not for trying again"
    assert KEY.encode() not in b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


@every_agent
def test_a_busy_server_is_waited_for_and_then_the_episode_is_played_again(name: str, at: Any, tmp_path: Path) -> None:
    submit = {"content": None, "tool_calls": [called("submit", '{"answer": "1"}', "a")]}
    with FaultServer(saying([submit]), script=["429"] * 6, headers={"retry-after-ms": "1"}) as server:
        at(server.url)
        (episode,) = play(name, tmp_path, retries=1)
    assert (episode.outcome, episode.gold, episode.attempt) == ("terminated", 0.0, 1)
    assert len(server.requests) == 7, "the client's six, and one of the second attempt"


@every_agent
def test_a_reply_that_is_none_is_no_score(name: str, at: Any, tmp_path: Path) -> None:
    with FaultServer(saying([{"content": "x"}]), reply=lambda request, made: {**made, "choices": []}) as server:
        at(server.url)
        (episode,) = play(name, tmp_path)
    assert (episode.outcome, episode.gold) == ("infrastructure", None)
    assert "raised IndexError" in str(episode.error) or "raised TypeError" in str(episode.error)


def test_a_server_that_fails_as_smolagents_runs_out_of_steps_is_no_answer(at: Any, tmp_path: Path) -> None:
    # smolagents makes a text of the error and hands that over as the agent's last word
    script = ["ok"] * 20 + ["500"] * 6
    with FaultServer(saying([{"content": "I wonder."}]), script=script, headers={"retry-after-ms": "1"}) as server:
        at(server.url)
        (episode,) = play("smolagents", tmp_path)
    assert (episode.outcome, episode.gold, episode.turns) == ("infrastructure", None, 0)
    assert "InternalServerError: Error code: 500" in str(episode.error)
    assert len(server.requests) == 26


# -- as typed, and nobody else contacted --------------------------------------------------------------------------------


def command_of(example: Path) -> str:
    (line,) = re.findall(r"^agentgym eval .*$", example.read_text(encoding="utf-8"), re.MULTILINE)
    return str(line)


def typed(command: str, log: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(GUARD), "CONTACTS_LOG": str(log), "NO_COLOR": "1", **variables}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_the_command_in_an_example_plays_and_contacts_nobody_else(example: Path, tmp_path: Path) -> None:
    oracle = play("oracle:honest", tmp_path / "oracle", limit=3)
    log = tmp_path / "contacts"
    with FaultServer(like_the_oracle(oracle)) as server:
        done = typed(
            f"{command_of(example)} --limit 3 --runs {tmp_path}/runs",
            log,
            OPENAI_BASE_URL=server.url,
            OPENAI_API_KEY=KEY,
            MODEL="m",
        )
    assert done.returncode == 0, done.stderr
    assert "gold 3/3" in done.stdout, done.stdout
    assert "Traceback" not in done.stderr
    assert "nterrupted" not in done.stdout, "what a library prints does not stand between the lines"
    assert not log.exists(), log.read_text()
    (run,) = (tmp_path / "runs").iterdir()
    episodes = sorted(agentgym.open_run(str(run)).episodes(), key=lambda e: e.task_id)
    expected = [what_was_done(e.trajectory) for e in oracle]
    if example.stem == "program":  # it asks no model, and does not look at the notes that the oracle reads first
        expected = [turns[1:] for turns in expected]
    assert [what_was_done(e.trajectory) for e in episodes] == expected


def test_tracing_that_is_switched_on_would_be_seen(tmp_path: Path) -> None:
    """The guard works; and what the documentation says of tracing is so."""
    log = tmp_path / "contacts"
    with FaultServer(saying([{"content": "Answer: 1"}])) as server:
        done = typed(
            f"{command_of(EXAMPLES / 'langgraph_agent.py')} --limit 1 --runs {tmp_path}/runs",
            log,
            OPENAI_BASE_URL=server.url,
            OPENAI_API_KEY=KEY,
            MODEL="m",
            LANGSMITH_TRACING="true",
            LANGSMITH_API_KEY="planted",
            CONTACTS_END="1",
        )
    assert done.returncode == 0, done.stderr
    assert "api.smith.langchain.com" in log.read_text()


def test_the_guard_sees_this_process_too(contacts: list[str]) -> None:
    import socket

    with pytest.raises(PermissionError):
        socket.getaddrinfo("agentgym.invalid", 443)
    with socket.socket() as s, pytest.raises(PermissionError):
        s.connect(("192.0.2.1", 443))
    assert contacts == ["socket.getaddrinfo agentgym.invalid", "socket.connect 192.0.2.1"]
    contacts.clear()


# -- a real model -------------------------------------------------------------------------------------------------------


GRAMMAR = r"""root ::= calculator | submit
calculator ::= "{\"name\": \"calculator\", \"arguments\": {\"expression\": \"" [0-9]{1,6} " " [-+*] " " [0-9]{1,6} "\"}}"
submit ::= "{\"name\": \"submit\", \"arguments\": {\"answer\": \"" [0-9]{1,6} "\"}}"
"""
"""Calls as smolagents reads them in a text; left to itself, so small a model writes none."""


@pytest.fixture(scope="module")
def real_server() -> Iterator[str]:
    """SmolLM2 behind llama.cpp's own server."""
    with llama_server(GRAMMAR) as url:
        yield url


@pytest.mark.slow
@every_agent
def test_a_real_model_behind_a_real_server_is_scored(name: str, real_server: str, at: Any, tmp_path: Path) -> None:
    at(real_server)
    (episode,) = play(name, tmp_path, limits=Limits(turns=2))
    assert (episode.error, episode.gold) == (None, 0.0)
    assert episode.prompt_tokens > 100
    assert episode.completion_tokens > 10
    first = episode.trajectory.turns[0]
    if name == "smolagents":  # the others take calls only where the server says that they are some
        (call,) = first.message.tool_calls
        assert call.name in ("calculator", "submit")
        assert first.results[0].status == "ok"
    else:
        assert json.loads(first.message.text)["name"] in ("calculator", "submit")
