# SPDX-License-Identifier: Apache-2.0
"""What an answer was really sampled with is on record and told, and nothing that was asked for is silently left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.protocols import Sampling
from tests.proxy.toys import Client, Counter, Typist, solving

QUESTION: list[Any] = [{"role": "user", "content": "go"}]


def test_the_sampling_that_was_really_used_is_on_record_and_in_the_reply(tmp_path: Path) -> None:
    model = Typist(solving)
    run_wide = Sampling(temperature=0.3, max_tokens=50)
    with agentgym.proxy.record(Counter, model=model, sampling=run_wide, runs=tmp_path) as episode:
        client = Client(episode.variables)
        mine = client.chat(QUESTION, temperature=0.9, stop=["\n\n", "END"], top_p=0.5, user="me")
        bare = client.chat([{"role": "user", "content": "other"}])
    asked, plain = (s for _, s in model.asked)
    assert (asked.temperature, asked.stop, asked.top_p, asked.max_tokens) == (0.9, ("\n\n", "END"), 0.5, 50)
    assert plain.temperature == 0.3
    assert plain.stop == ()
    first, second = episode.result.trajectory.calls
    assert first.sampling.max_tokens == 100  # what this model makes of any wish: the truth, not the wish
    assert first.sampling.stop == ("\n\n", "END")
    assert mine["agentgym"]["sampling"]["max_tokens"] == 100
    assert mine["agentgym"]["sampling"]["stop"] == ["\n\n", "END"]
    assert (first.ignored, mine["agentgym"]["ignored"]) == (("user",), ["user"])
    assert bare["agentgym"]["sampling"]["temperature"] == second.sampling.temperature == 0.3


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("chat/completions", {"messages": QUESTION, "frequency_penalty": 0.5}, "frequency_penalty"),
        ("chat/completions", {"messages": QUESTION, "logit_bias": {"5": -100}}, "logit_bias"),
        ("chat/completions", {"messages": QUESTION, "response_format": {"type": "json_object"}}, "response_format"),
        ("chat/completions", {"messages": QUESTION, "tool_choice": "required"}, "tool_choice"),
        ("chat/completions", {"messages": QUESTION, "temperature": "hot"}, "temperature"),
        ("chat/completions", {"messages": QUESTION, "max_tokens": -1}, "max_tokens"),
        ("responses", {"input": "go", "text": {"format": {"type": "json_object"}}}, "text"),
        ("responses", {"input": "go", "background": True}, "background"),
        ("responses", {"input": "go", "tools": [{"type": "web_search"}]}, "tools"),
        ("messages", {"messages": QUESTION, "max_tokens": 5, "tool_choice": {"type": "any"}}, "tool_choice"),
        ("messages", {"messages": QUESTION}, "max_tokens"),
    ],
)
def test_what_would_not_be_done_as_asked_is_refused_with_a_sentence(
    path: str, body: dict[str, Any], field: str, tmp_path: Path
) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        status, data = client.raw("POST", f"/v1/{path}", body)
        client.chat(QUESTION)
    assert status == 400
    assert field in json.loads(data)["error"]["message"]
    assert len(model.asked) == 1
    assert episode.result.trajectory.error is None
