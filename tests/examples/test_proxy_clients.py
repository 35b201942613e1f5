# SPDX-License-Identifier: Apache-2.0
"""The usual clients play through the proxy, unchanged: what they send back is one clean conversation, token by token."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

import agentgym
from agentgym.protocols import Sampling
from agentgym.proxy import Recording
from agentgym.tokens.rows import linearize
from tests.conftest import ROOT
from tests.proxy.toys import Client, Counter, Typist, solving


def openai_of(episode: Recording) -> OpenAI:
    return OpenAI(base_url=episode.variables["OPENAI_BASE_URL"], api_key=episode.variables["OPENAI_API_KEY"])


def chat(episode: Recording, stream: bool) -> None:
    client, gym = openai_of(episode), Client(episode.variables)
    task = gym.get("/agentgym/task")
    messages, done = task["messages"], False
    while not done:
        asked: dict[str, Any] = {"model": "any", "messages": messages, "tools": task["tools"]}
        if stream:
            with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                reply: Any = list(events) and events.get_final_completion()
            assert reply.usage.total_tokens > 0
        else:
            reply = client.chat.completions.create(**asked)
        message = reply.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
        for called in message["tool_calls"]:
            called["function"].pop("parsed_arguments", None)
        step = gym.post("/agentgym/step", message)
        messages += [message, *step["messages"]]
        done = step["done"]


def responses(episode: Recording, stream: bool) -> None:
    client, gym = openai_of(episode), Client(episode.variables)
    task = gym.get("/agentgym/task")
    items: list[Any] = task["messages"]
    tools: list[Any] = [{"type": "function", **t["function"]} for t in task["tools"]]
    done = False
    while not done:
        if stream:
            with client.responses.stream(model="any", input=items, tools=tools) as events:
                reply: Any = list(events) and events.get_final_response()
        else:
            reply = client.responses.create(model="any", input=items, tools=tools)
        items = [*items, *(o.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for o in reply.output)]
        for called in (o for o in reply.output if o.type == "function_call"):
            told = gym.post(f"/agentgym/tools/{called.name}", json.loads(called.arguments))
            items.append({"type": "function_call_output", "call_id": called.call_id, "output": told["content"]})
            done = told["done"]


def messages(episode: Recording, stream: bool) -> None:
    client = Anthropic(base_url=episode.variables["ANTHROPIC_BASE_URL"], api_key=episode.variables["ANTHROPIC_API_KEY"])
    gym = Client(episode.variables)
    task = gym.get("/agentgym/task")
    functions = [t["function"] for t in task["tools"]]
    tools: Any = [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in functions]
    said: list[Any] = task["messages"]
    done = False
    while not done:
        asked: dict[str, Any] = {"model": "any", "max_tokens": 100, "messages": said, "tools": tools}
        if stream:
            with client.messages.stream(**asked) as events:
                reply: Any = list(events) and events.get_final_message()
        else:
            reply = client.messages.create(**asked)
        results = []
        for block in (b for b in reply.content if b.type == "tool_use"):
            told = gym.post(f"/agentgym/tools/{block.name}", block.input)
            results.append({"type": "tool_result", "tool_use_id": block.id, "content": told["content"]})
            done = told["done"]
        content = [b.model_dump(exclude_none=True) for b in reply.content]
        said = [*said, {"role": "assistant", "content": content}, {"role": "user", "content": results}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("play", [chat, responses, messages])
def test_a_real_client_plays_one_clean_row(play: Callable[[Recording, bool], None], stream: bool, tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        play(episode, stream)
    result = episode.result
    assert result.gold == 1
    assert [c.turns for c in result.trajectory.calls] == [(0,), (1,), (2,)]
    rows = linearize(result.trajectory)
    assert (rows.drift.appended, rows.drift.forked, rows.drift.realigned) == (2, 0, 0)
    prompt, output = model.sampled[-1]
    assert rows.rows[0].token_ids.tolist() == prompt + output


def test_a_program_gets_the_very_tokens_that_our_own_loop_gets_of_a_real_model(tmp_path: Path) -> None:
    program = f"program:local:smollm2 -- {sys.executable} {ROOT / 'examples' / 'proxy' / 'agent.py'}"
    options: dict[str, Any] = {"sampling": Sampling(max_tokens=8), "runs": tmp_path}
    mine = next(iter(agentgym.evaluate("math.add/control/1", program, **options).episodes()))
    own = next(iter(agentgym.evaluate("math.add/control/1", "local:smollm2", **options).episodes()))
    (call,) = mine.trajectory.calls
    assert mine.outcome == own.outcome
    assert mine.trajectory.final_text == own.trajectory.final_text == call.message.text
    assert call.tokens.output_ids.tolist() == own.trajectory.tokens[0].output_ids.tolist()
    assert call.sampling == own.trajectory.turns[0].sampling


def test_the_client_is_told_not_to_ask_again_when_the_model_is_gone(tmp_path: Path) -> None:
    asked = []

    def dead(conversation: Any) -> Any:
        asked.append(conversation)
        raise agentgym.InfrastructureError("the server is gone")

    with agentgym.proxy.record(Counter, model=Typist(dead), runs=tmp_path) as episode:
        client = openai_of(episode)
        with pytest.raises(Exception, match="the server is gone"):
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "go"}])
    assert len(asked) == 1
    assert episode.result.trajectory.outcome == "infrastructure"
