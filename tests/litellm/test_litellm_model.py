# SPDX-License-Identifier: Apache-2.0
"""Models through the real litellm, against a real server on this machine."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import site
from pathlib import Path
from typing import Any

import pytest

import agentgym
import tests.envs
from agentgym.chat import ToolCall, assistant, user
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.litellm_model import COMPROMISED, LiteLLMPolicy
from agentgym.policies.load import load_policy
from agentgym.policies.transport import Patience
from agentgym.protocols import Completion, Sampling
from agentgym.toolspec import ToolSpec
from tests.llama_server import llama_server
from tests.policies.fault_server import FaultServer, say

QUICK = Patience(timeout_s=60.0, deadline_s=120.0, base_s=0.01, cap_s=0.1)
KEY = "sk-planted-4f1d9a77b3-4f1d9a77b3"
PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(server: FaultServer, *arguments: Any, model: str = "openai/gpt-4o-mini") -> Completion:
    async def once() -> Completion:
        policy = LiteLLMPolicy(f"{model}@{server.url}", patience=QUICK)
        try:
            return await policy.act(*arguments)
        finally:
            await policy.aclose()

    return asyncio.run(once())


def test_a_tool_call_goes_there_and_back() -> None:
    call = {"id": "x1", "type": "function", "function": {"name": "lookup_price", "arguments": '{"item": "tea"}'}}
    conversation = [user("q"), assistant("", ToolCall("lookup_price", "{broken", "c1")), user("again")]
    with FaultServer(lambda request: {"role": "assistant", "content": None, "tool_calls": [call]}) as server:
        done = ask(server, conversation, [PRICE], Sampling(temperature=0.5, top_k=5, max_tokens=9, seed=3))
    (sent,) = server.requests
    assert done.message.tool_calls == (ToolCall("lookup_price", '{"item": "tea"}', "x1"),)
    assert done.finish_reason == "tool_calls"
    assert json.loads(sent["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"malformed_arguments": "{broken"}
    assert done.sampling is not None
    assert "top_k" not in sent
    assert done.sampling.top_k is None, "what a provider does not take is not recorded as used"
    assert (sent["temperature"], sent["seed"]) == (0.5, done.sampling.seed)


def test_a_real_server_is_asked_and_its_token_counts_are_the_ones_recorded(tmp_path: Path) -> None:
    """The same questions without litellm in between: the server's own counts and, as it samples greedily, its words."""
    with llama_server() as url:
        litellm, direct = (
            list(agentgym.evaluate("math.add", f"{model}@{url}", limit=2, concurrency=1, runs=tmp_path).episodes())
            for model in ("litellm:openai/smollm2", "openai:smollm2")
        )
    assert len(litellm) == 2
    for mine, other in zip(litellm, direct, strict=True):
        assert (mine.outcome, mine.error) == ("terminated", None)
        assert mine.completion_tokens > 0
        assert mine.prompt_tokens > 20
        assert (mine.prompt_tokens, mine.completion_tokens) == (other.prompt_tokens, other.completion_tokens)
        assert mine.trajectory.final_text == other.trajectory.final_text
    assert KEY.encode() not in b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


def test_cost_comes_from_the_price_list_in_the_package() -> None:
    with FaultServer(say("a")) as server:
        done = ask(server, [user("q")], (), Sampling())
        unknown = ask(server, [user("q")], (), Sampling(), model="openai/no-such-model")
    assert done.usage.cost_usd == pytest.approx(11 * 0.15e-6 + 2 * 0.6e-6, rel=0.5)
    assert unknown.usage.cost_usd == 0.0


def test_faults_are_retried_by_us_and_only_by_us(tmp_path: Path) -> None:
    with FaultServer(faults=["429", "500", "503", "cut", "closed", "html", "shape", "liar"], rate=0.2, seed=1) as server:
        policy = LiteLLMPolicy(f"openai/gpt-4o-mini@{server.url}", patience=QUICK)
        run = agentgym.evaluate(tests.envs.Guess, policy, limit=30, concurrency=8, runs=tmp_path)
    assert {(e.outcome, e.gold) for e in run.episodes()} <= {("terminated", 1.0), ("infrastructure", None)}
    assert sum(e.gold == 1.0 for e in run.episodes()) >= 28
    assert run.meta["served"]["calls"]["requests"] == len(server.requests)
    assert KEY.encode() not in b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


def test_a_refusal_is_final_and_holds_no_key() -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    with FaultServer(status=401, body=body) as server, pytest.raises(InfrastructureError) as refused:
        ask(server, [user("q")], (), Sampling())
    assert len(server.requests) == 1
    assert not refused.value.retryable
    assert "key" in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_conversation_too_long_is_the_agents_own_doing() -> None:
    body = {"error": {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}}
    with FaultServer(status=400, body=body) as server:
        done = ask(server, [user("q")], (), Sampling())
    assert (done.finish_reason, done.message.text) == ("length", "")


def test_the_pinned_release_is_installed_and_brings_no_start_up_hook() -> None:
    version = importlib.metadata.version("litellm")
    assert version not in COMPROMISED
    assert any(r.startswith(f"litellm=={version};") for r in importlib.metadata.requires("agentgym-harness") or ())
    assert not [p for folder in site.getsitepackages() for p in Path(folder).glob("litellm*.pth")]


def test_loading_the_policy_does_not_import_litellm(fresh_python: Any) -> None:
    load = "from agentgym.policies.load import load_policy; load_policy('litellm:a/b')"
    said = fresh_python(f"import sys; {load}; print('litellm' in sys.modules)")
    assert said.strip() == "False"


def test_a_compromised_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: COMPROMISED[0])
    with pytest.raises(UsageError, match="steals credentials"):
        load_policy("litellm:anthropic/claude")
    with pytest.raises(UsageError, match="which model"):
        load_policy("litellm:claude")
