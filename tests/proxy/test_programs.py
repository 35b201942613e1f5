# SPDX-License-Identifier: Apache-2.0
"""Programs play episodes: what they did, and how they ended, is what the record says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.chat import Message, assistant
from agentgym.episode import Limits
from agentgym.errors import InfrastructureError, UsageError
from agentgym.proxy.program import ProgramPolicy, ProxiedPolicy
from agentgym.proxy.session import NOT_RECEIVED
from agentgym.records.run import Episode
from tests.proxy.toys import Client, Counter, Typist, relay, solving

PROGRAM = """
import json, os, sys, urllib.request

def ask(url, body=None):
    head = {"Authorization": "Bearer " + os.environ["AGENTGYM_KEY"]}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), head)
    return json.load(urllib.request.urlopen(request))

gym, model = os.environ["AGENTGYM_URL"], os.environ["OPENAI_BASE_URL"]
"""
RELAY = (
    PROGRAM
    + """
task = ask(gym + "/task")
messages, done = task["messages"], False
while not done:
    reply = ask(model + "/chat/completions", {"model": "x", "messages": messages, "tools": task["tools"]})
    message = reply["choices"][0]["message"]
    step = ask(gym + "/step", message)
    messages += [message, *step["messages"]]
    done = step["done"]
print(ask(model + "/chat/completions", {"model": "x", "messages": messages})["choices"][0]["message"]["content"])
"""
)


def played(
    code: str, tmp_path: Path, task: str = "math.add/control/1", model: str = "oracle:honest", **options: Any
) -> Episode:
    """The episode of a program, as it is on record."""
    file = tmp_path / "program.py"
    file.write_text(code)
    spec = f"program:{model} -- {sys.executable} {file}"
    try:
        run = agentgym.evaluate(task, spec, runs=tmp_path / "runs", **options)
    except InfrastructureError:
        run = agentgym.open_run(next((tmp_path / "runs").iterdir()))
    return next(iter(run.episodes()))


def test_a_program_moves_the_state_exactly_as_our_own_loop_does(tmp_path: Path) -> None:
    mine = played(RELAY, tmp_path, "tools.retail/control/3")
    run = agentgym.evaluate("tools.retail/control/3", "oracle:honest", runs=tmp_path / "own")
    own = next(iter(run.episodes()))
    assert (mine.reward, mine.gold, mine.turns, mine.outcome) == (own.reward, own.gold, own.turns, own.outcome)
    a, b = mine.trajectory, own.trajectory
    assert a.state_after == b.state_after

    def done(t: Any) -> list[Any]:
        return [(m.role, m.text, [(c.name, c.arguments) for c in m.tool_calls]) for m in t.messages]

    assert done(a) == done(b)
    assert [[(c.path, c.operation, c.after) for c in t.changes] for t in a.turns] == [
        [(c.path, c.operation, c.after) for c in t.changes] for t in b.turns
    ]
    assert [c.turns for c in a.calls] == [(i,) for i in range(a.turns[-1].index + 1)]


def test_a_program_that_only_prints_its_models_answer_has_answered(tmp_path: Path) -> None:
    code = PROGRAM + 'ask(model + "/chat/completions", {"model": "x", "messages": ask(gym + "/task")["messages"]})'
    episode = played(code, tmp_path)
    assert episode.gold == 1
    assert episode.trajectory.calls[0].turns == (0,)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit('no such thing')", "exit status 1"),
        (PROGRAM + "ask(gym + '/say', {'text': '1'}) if 0 else os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("print('I did nothing')", "without having asked its model or acted even once"),
    ],
)
def test_a_program_that_fails_spoils_its_episode_and_scores_nothing(code: str, why: str, tmp_path: Path) -> None:
    episode = played(code, tmp_path)
    assert episode.outcome == "infrastructure"
    assert (episode.reward, episode.gold) == (None, None)
    assert why in (episode.error or "")


def test_a_program_that_hangs_is_cut_by_the_time_limit_and_ended(tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    episode = played(code, tmp_path, limits=Limits(seconds=2.0))
    assert (episode.outcome, episode.truncation) == ("truncated", "time")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_program_that_makes_no_request_for_too_long_is_taken_to_hang(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("import time; time.sleep(60)")
    policy = ProgramPolicy(f"oracle:honest -- {sys.executable} {file}")
    policy._silence_s = 0.5
    with pytest.raises(InfrastructureError, match="no request"):
        agentgym.evaluate("math.add/control/1", policy, runs=tmp_path / "runs")


def test_a_model_that_cannot_be_had_is_a_502_and_an_infrastructure_outcome(tmp_path: Path) -> None:
    def dead(conversation: Sequence[Message]) -> Message:
        raise InfrastructureError("the server at http://user:hunter22@host is gone")

    with agentgym.proxy.record(Counter, model=Typist(dead), runs=tmp_path) as episode:
        client = Client(episode.variables)
        status, body = client.raw("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "go"}]})
        assert status == 502
        assert "is gone" in json.loads(body)["error"]["message"]
        assert b"hunter22" not in body
        status, _ = client.raw("POST", "/agentgym/step", {"role": "assistant", "content": "hm"})
        assert status in (403, 502)
    result = episode.result
    assert result.trajectory.outcome == "infrastructure"
    assert result.reward is None
    assert "is gone" in result.trajectory.error.message


def test_keys_open_one_episode_only_and_only_while_it_runs(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as first:
        with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as second:
            assert first.variables["OPENAI_API_KEY"] != second.variables["OPENAI_API_KEY"]
            mixed = Client({**first.variables, "AGENTGYM_KEY": second.variables["AGENTGYM_KEY"]})
            for path in ("/v1/chat/completions", "/v1/messages", "/agentgym/step", "/agentgym/task", "/v1/models"):
                status, body = mixed.raw("POST", path, {})
                assert status == 401
                assert "key" in json.loads(body)["error"]["message"]
        client = Client(first.variables)
        assert client.raw("POST", "/v1/chat/completions", {}, {"Authorization": ""})[0] == 401
        assert client.get("/v1/models")["data"]
        client.chat([{"role": "user", "content": "go"}])
        key = first.variables["AGENTGYM_KEY"]
    for file in Path(first.run).rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes()
    with pytest.raises(OSError, match="refused"):
        client.get("/agentgym/task")


def test_when_the_turns_are_used_up_a_sentence_says_so(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        for turn in range(Counter.max_turns):
            assert client.post("/agentgym/tools/add", {"by": 0})["done"] == (turn == Counter.max_turns - 1)
        for path, body in (("tools/add", {"by": 1}), ("step", {"role": "assistant", "content": "x"}), ("say", {"text": "x"})):
            status, reply = client.raw("POST", f"/agentgym/{path}", body)
            assert status == 403
            assert "used up its turns" in json.loads(reply)["error"]["message"]
        status, reply = client.raw("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "go"}]})
        assert (status, json.loads(reply)["error"]["code"]) == (403, "episode_over")
    assert episode.result.trajectory.truncation == "turns"


def test_who_asks_the_model_once_more_after_the_end_is_told_so_and_no_model_is_asked(tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        messages = relay(client)
        assert client.chat(messages)["choices"][0]["message"]["content"] == "The task has ended."
    assert len(model.asked) == len(episode.result.trajectory.calls) == 3
    assert episode.result.gold == 1


def test_several_calls_of_one_answer_are_one_turn_by_step_and_turns_of_their_own_by_tools(tmp_path: Path) -> None:
    def script(conversation: Sequence[Message]) -> Message:
        both = [c for m in (agentgym.call("add", by=1), agentgym.call("add", by=2)) for c in m.tool_calls]
        return assistant("both", *both, reasoning="why not")

    for by_step in (True, False):
        with agentgym.proxy.record(Counter, model=Typist(script), runs=tmp_path) as episode:
            client = Client(episode.variables)
            message = client.chat(client.get("/agentgym/task")["messages"])["choices"][0]["message"]
            if by_step:
                told = client.post("/agentgym/step", message)
                assert [m["content"] for m in told["messages"]] == ["it is 1 now", "it is 3 now"]
            else:
                for c in message["tool_calls"]:
                    client.post(f"/agentgym/tools/{c['function']['name']}", json.loads(c["function"]["arguments"]))
        (call,) = episode.result.trajectory.calls
        turns = episode.result.trajectory.turns
        assert call.turns == ((0,) if by_step else (0, 1))
        assert turns[0].message.reasoning == "why not"
        assert sum(t.usage.completion_tokens for t in turns) == call.usage.completion_tokens
        assert episode.result.trajectory.state_after == {"value": 3}


def test_what_a_tool_is_given_wrongly_is_part_of_the_game(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        for body, status in ((b"{", "bad_arguments"), (b'{"by": "x"}', "bad_arguments"), (b"[]", "bad_arguments")):
            told = json.loads(client.raw("POST", "/agentgym/tools/add", body)[1])
            assert (told["status"], told["is_error"]) == (status, True)
        assert client.post("/agentgym/tools/ad%64x", {})["status"] == "unknown_tool"
    assert episode.result.trajectory.outcome != "infrastructure"


def test_tools_are_a_server_of_the_model_context_protocol(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        path = "/" + episode.variables["AGENTGYM_MCP_URL"].split("/", 3)[3]

        def rpc(method: str, **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            status, data = client.raw("POST", path, body, {"Authorization": ""})
            assert status == 200
            return json.loads(data)

        assert "counter" in rpc("initialize", protocolVersion="2025-03-26")["result"]["instructions"]
        assert client.raw("POST", path, {"jsonrpc": "2.0", "method": "notifications/initialized"})[0] == 202
        assert client.raw("GET", path)[0] == 405
        assert {t["name"] for t in rpc("tools/list")["result"]["tools"]} == {"add", "submit"}
        assert rpc("tools/call", name="add", arguments={"by": 3})["result"]["content"][0]["text"] == "it is 3 now"
        assert rpc("tools/call", name="nothing", arguments={})["result"]["isError"]
        assert rpc("no/such")["error"]["code"] == -32601
        assert not rpc("tools/call", name="submit")["result"]["isError"]
        assert rpc("tools/call", name="add", arguments={"by": 1})["result"]["isError"]
    assert episode.result.gold == 1


def test_a_block_that_raises_leaves_an_infrastructure_outcome_on_record(tmp_path: Path) -> None:
    with (
        pytest.raises(subprocess.CalledProcessError),
        agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode,
    ):
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], env=episode.environ, check=True)
    assert episode.result.trajectory.outcome == "infrastructure"
    assert "CalledProcessError" in episode.result.trajectory.error.message


def test_only_this_machine_is_listened_to_unless_somebody_asks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--host"):
        ProxiedPolicy(Typist(solving), "x", host="0.0.0.0")
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        assert episode.variables["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
        Client(episode.variables).chat([{"role": "user", "content": "go"}])


def test_sub_agents_and_tokens_come_back_from_the_record(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        relay(Client(episode.variables))
    with agentgym.open_run(episode.run) as run:
        read = next(iter(run.episodes())).trajectory
    for a, b in zip(read.calls, episode.result.trajectory.calls, strict=True):
        assert a.tokens.prompt_ids.tolist() == b.tokens.prompt_ids.tolist()
        assert (a.message, a.new, a.turns, a.sampling) == (b.message, b.new, b.turns, b.sampling)
    assert [t.output_ids.tolist() for t in read.tokens] == [c.tokens.output_ids.tolist() for c in read.calls]
    assert not any(c.void == NOT_RECEIVED for c in read.calls)
    assert read.calls[1].new[0].text == "it is 1 now"


def test_the_command_plays_like_eval(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(RELAY)
    options = ["--model", "oracle:honest", "--runs", str(tmp_path / "runs"), "--json", "--trials", "2"]
    program = ["--", sys.executable, str(file), "--limit", "x"]
    command = [sys.executable, "-m", "agentgym", "proxy", "math.add/control/1", "math.add/control/2", *options, *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["done"] == 4
    for wrong, why in (([], "which program"), (["--", "/no/such/program"], "no program")):
        again = [*command[: command.index("--")], *wrong]
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert why in done.stderr
