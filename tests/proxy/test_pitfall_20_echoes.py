# SPDX-License-Identifier: Apache-2.0
"""Clients rewrite what they send back of an answer. That must not look like another conversation to who trains on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.tokens.rows import linearize
from tests.proxy.toys import Client, Counter, Typist, relay, solving

Row = dict[str, Any]


def without_reasoning(row: Row) -> Row:
    return {k: v for k, v in row.items() if k != "reasoning_content"}


def stripped(row: Row) -> Row:
    return {**without_reasoning(row), "content": " ".join((row["content"] or "").split())}


def without_text_beside_calls(row: Row) -> Row:
    return {**without_reasoning(row), "content": None}


def as_parts(row: Row) -> Row:
    return {**row, "content": [{"type": "text", "text": row["content"]}]}


def arguments_written_anew(row: Row) -> Row:
    calls = [
        {**c, "function": {**c["function"], "arguments": json.dumps(json.loads(c["function"]["arguments"]), indent=2)}}
        for c in row["tool_calls"]
    ]
    return {**row, "tool_calls": calls}


@pytest.mark.parametrize(
    "change", [dict, without_reasoning, stripped, without_text_beside_calls, as_parts, arguments_written_anew]
)
def test_an_answer_that_comes_back_in_other_clothes_is_the_answer_that_was_sampled(
    change: Callable[[Row], Row], tmp_path: Path
) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        relay(Client(episode.variables), change)
    rows = linearize(episode.result.trajectory)
    assert (rows.drift.appended, rows.drift.forked, rows.drift.realigned) == (2, 0, 0)
    (row,) = rows.rows
    prompt, output = model.sampled[-1]
    assert row.token_ids.tolist() == prompt + output
    assert row.trained == sum(len(o) for _, o in model.sampled)


def test_ids_of_the_programs_own_are_led_back_to_the_calls_that_they_stand_for(tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        task = client.get("/agentgym/task")
        messages = task["messages"]
        for turn in range(3):
            message = client.chat(messages, tools=task["tools"])["choices"][0]["message"]
            (answer,) = client.post("/agentgym/step", message)["messages"]
            (called,) = message["tool_calls"]
            messages += [
                {**message, "tool_calls": [{**called, "id": f"mine-{turn}"}]},
                {**answer, "tool_call_id": f"mine-{turn}"},
            ]
    rows = linearize(episode.result.trajectory)
    assert (rows.drift.appended, rows.drift.forked) == (2, 0)
    shown = [m for m in model.asked[-1][0] if m.role == "tool"]
    assert [m.tool_call_id for m in shown] == ["call_0_0", "call_1_0"]


@pytest.mark.parametrize("what", ["words", "arguments"])
def test_what_a_program_really_changed_is_another_conversation_and_the_model_sees_the_change(what: str, tmp_path: Path) -> None:
    model = Typist(solving)

    def changed(row: Row) -> Row:
        if what == "words":
            return {**row, "content": "I said something else."}
        called = row["tool_calls"][0]
        return {**row, "tool_calls": [{**called, "function": {**called["function"], "arguments": '{"by": 7}'}}]}

    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        relay(Client(episode.variables), changed)
    assert linearize(episode.result.trajectory).drift.forked == 2
    seen = model.asked[-1][0][1]
    assert (seen.text == "I said something else.") if what == "words" else seen.tool_calls[0].arguments == '{"by": 7}'


def test_of_two_answers_of_the_same_words_the_one_is_meant_whose_ids_come_back(tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        messages = client.get("/agentgym/task")["messages"]
        first, second = [c["message"] for c in client.chat(messages, n=2)["choices"]]
        assert first["content"] == second["content"]
        for chosen in (first, second):
            (answer,) = client.post("/agentgym/step", chosen)["messages"]
            client.chat([*messages, chosen, answer])
    calls = episode.result.trajectory.calls
    assert [c.parent for c in calls] == [-1, -1, 0, 1]
    assert calls[0].sampling.seed != calls[1].sampling.seed
