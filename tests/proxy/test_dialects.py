# SPDX-License-Identifier: Apache-2.0
"""Each dialect, plain and streamed, says the same and continues the same conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.chat import Message, ToolCall, assistant, call
from agentgym.tokens.rows import linearize
from tests.proxy.toys import Client, Counter, Typist, solving

Row = dict[str, Any]


def chat_stream(events: list[Row]) -> tuple[Row, str, Row]:
    """Message, finish reason and usage that a client puts together."""
    message: Row = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    finish, usage = "", {}
    for event in events:
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            for piece in delta.get("tool_calls", ()):
                if "id" in piece:
                    message["tool_calls"].append({**piece, "function": dict(piece["function"])})
                else:
                    message["tool_calls"][piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            finish = choice["finish_reason"] or finish
    for c in message["tool_calls"]:
        c.pop("index")
    return message, finish, usage


def test_chat_streams_what_it_would_have_said_at_once(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        body = {"model": "m", "messages": [{"role": "user", "content": "go"}]}
        whole = client.post("/v1/chat/completions", body)
        events = list(client.streamed("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}))
    message, finish, usage = chat_stream(events)
    said = whole["choices"][0]["message"]
    assert message["content"] == said["content"] == "  step 0 \n"
    assert message["reasoning_content"] == said["reasoning_content"]
    assert message["tool_calls"][0]["function"] == said["tool_calls"][0]["function"]
    assert finish == whole["choices"][0]["finish_reason"] == "tool_calls"
    assert usage == whole["usage"]
    assert len(events) > 4


def play_chat(client: Client, stream: bool) -> None:
    task = client.get("/agentgym/task")
    messages = task["messages"]
    done = False
    while not done:
        body = {"model": "m", "messages": messages, "tools": task["tools"]}
        if stream:
            message, _, _ = chat_stream(list(client.streamed("/v1/chat/completions", body)))
        else:
            message = client.post("/v1/chat/completions", body)["choices"][0]["message"]
        messages.append(message)
        for c in message["tool_calls"]:
            function = c["function"]
            told = client.post(
                f"/agentgym/tools/{function['name']}", json.loads(function["arguments"]), {"X-Agentgym-Call": c["id"]}
            )
            messages.append({"role": "tool", "tool_call_id": c["id"], "content": told["content"]})
            done = told["done"]


def play_responses(client: Client, stream: bool, by_id: bool = False) -> None:
    task = client.get("/agentgym/task")
    tools = [{"type": "function", **t["function"]} for t in task["tools"]]
    items: list[Row] = [{"role": m["role"], "content": m["content"]} for m in task["messages"]]
    previous: str | None = None
    done = False
    while not done:
        body: Row = {"model": "m", "input": items, "tools": tools, "instructions": "Be brief."}
        if by_id and previous:
            body["previous_response_id"] = previous
        if stream:
            events = list(client.streamed("/v1/responses", body))
            assert [e["sequence_number"] for e in events] == list(range(len(events)))
            reply = events[-1]["response"]
            assert events[-1]["type"] == "response.completed"
            assert [e["item"] for e in events if e["type"] == "response.output_item.done"] == reply["output"]
            deltas = "".join(e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta")
            assert deltas == "".join(o["arguments"] for o in reply["output"] if o["type"] == "function_call")
        else:
            reply = client.post("/v1/responses", body)
        previous = reply["id"]
        items = [] if by_id else [*items, *reply["output"]]
        for item in reply["output"]:
            if item["type"] == "function_call":
                told = client.post(
                    f"/agentgym/tools/{item['name']}", json.loads(item["arguments"]), {"X-Agentgym-Call": item["call_id"]}
                )
                items.append({"type": "function_call_output", "call_id": item["call_id"], "output": told["content"]})
                done = told["done"]


def play_messages(client: Client, stream: bool) -> None:
    task = client.get("/agentgym/task")
    tools = [
        {"name": t["function"]["name"], "description": "", "input_schema": t["function"]["parameters"]} for t in task["tools"]
    ]
    messages = [{"role": m["role"], "content": m["content"]} for m in task["messages"]]
    done = False
    while not done:
        body = {"model": "m", "max_tokens": 100, "messages": messages, "tools": tools, "system": "Be brief."}
        if stream:
            content: list[Row] = []
            for event in client.streamed("/v1/messages", body):
                if event["type"] == "content_block_start":
                    content.append({**event["content_block"], "json": ""})
                elif event["type"] == "content_block_delta":
                    delta, block = event["delta"], content[event["index"]]
                    for name, field in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                        block[field] = block.get(field, "") + delta.get(name, "")
            for block in content:
                text = block.pop("json")
                if block["type"] == "tool_use":
                    block.pop("text"), block.pop("thinking")
                    block["input"] = json.loads(text)
        else:
            content = client.post("/v1/messages", body)["content"]
        results = []
        for block in content:
            if block["type"] == "tool_use":
                told = client.post(f"/agentgym/tools/{block['name']}", block["input"], {"X-Agentgym-Call": block["id"]})
                results.append({"type": "tool_result", "tool_use_id": block["id"], "content": told["content"]})
                done = told["done"]
        messages += [
            {"role": "assistant", "content": [b for b in content if b["type"] != "thinking"]},
            {"role": "user", "content": results},
        ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("play", [play_chat, play_responses, play_messages])
def test_in_every_dialect_an_episode_is_one_clean_row(play: Any, stream: bool, tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        play(Client(episode.variables), stream)
    result = episode.result
    assert result.gold == 1
    assert [c.turns for c in result.trajectory.calls] == [(0,), (1,), (2,)]
    rows = linearize(result.trajectory)
    assert (rows.drift.appended, rows.drift.forked) == (2, 0)
    prompt, output = model.sampled[-1]
    assert rows.rows[0].token_ids.tolist() == prompt + output


def test_answers_go_on_from_the_one_that_is_named(tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        play_responses(Client(episode.variables), False, by_id=True)
    assert linearize(episode.result.trajectory).drift.forked == 0
    assert episode.result.gold == 1
    assert [m.role for m in model.asked[-1][0]].count("system") == 1


def test_what_a_model_wrote_wrongly_goes_out_and_comes_back_as_it_is(tmp_path: Path) -> None:
    bad = ToolCall("add", '{"by": ', "x1")

    def script(conversation: Sequence[Message]) -> Message:
        return assistant("", bad) if len(conversation) == 1 else call("submit")

    with agentgym.proxy.record(Counter, model=Typist(script), runs=tmp_path) as episode:
        client = Client(episode.variables)
        body: Row = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]}
        content = client.post("/v1/messages", body)["content"]
        assert content[0]["input"] == {"malformed_arguments": bad.arguments}
        result = {"type": "tool_result", "tool_use_id": "x1", "content": "error"}
        body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        client.post("/v1/messages", body)
        output = client.post("/v1/responses", {"input": "go on"})["output"]
        assert output[0]["arguments"] == bad.arguments
        items = [{"role": "user", "content": "go on"}, *output]
        client.post("/v1/responses", {"input": [*items, {"type": "function_call_output", "call_id": "x1", "output": "error"}]})
    calls = episode.result.trajectory.calls
    assert [c.parent for c in calls] == [-1, 0, -1, 2]
    assert calls[0].message.tool_calls[0].arguments == bad.arguments
