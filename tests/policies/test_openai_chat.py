# SPDX-License-Identifier: Apache-2.0
"""Models behind a server: what is sent, what is read, what is kept, and what must never be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
import tests.envs
from agentgym.chat import ImagePart, Message, ReasoningPart, TextPart, ToolCall, assistant, system, user
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.load import load_policy
from agentgym.policies.openai_chat import OpenAIPolicy
from agentgym.policies.transport import Patience
from agentgym.policies.wire import Encoder, ShapeError, from_openai, loads
from agentgym.protocols import Completion, Sampling, Usage
from agentgym.toolspec import ToolSpec
from tests.conftest import ROOT
from tests.policies.fault_server import FaultServer, say

QUICK = Patience(timeout_s=5.0, deadline_s=20.0, base_s=0.01, cap_s=0.05)
PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})
HI = [user("hi")]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def ask(
    policy: OpenAIPolicy,
    conversation: Sequence[Message] = HI,
    tools: Sequence[ToolSpec] = (),
    sampling: Sampling = Sampling(),  # noqa: B008
) -> Completion:
    async def once() -> Completion:
        try:
            return await policy.act(conversation, tools, sampling)
        finally:
            await policy.aclose()

    return asyncio.run(once())


def reply(**changes: Any) -> Any:
    """A change of the server's first choice, or of the whole reply where the key says ``_``."""

    def change(request: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        for key, value in changes.items():
            (made if key.startswith("_") else made["choices"][0])[key.removeprefix("_")] = value
        return made

    return change


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_a_conversation_goes_out_as_the_api_wants_it() -> None:
    conversation = [
        system("be brief"),
        Message("user", (TextPart("what is it? "), ImagePart(b"\x89PNG", "image/png"))),
        assistant("look", ToolCall("lookup_price", '{"item":"tea"}', "c1"), reasoning="hm"),
        Message("tool", "3 euros", tool_call_id="c1", name="lookup_price"),
        assistant("", ToolCall("lookup_price", '{"item":', "c2")),
        Message("tool", "not JSON \ud800", tool_call_id="c2"),
    ]
    wanted = Sampling(temperature=0.5, top_p=0.9, top_k=20, max_tokens=64, stop=("END",), seed=7)
    with FaultServer(say("ok")) as server:
        done = ask(OpenAIPolicy(f"some/model@1@{server.url}"), conversation, [PRICE], wanted)
    (sent,) = server.requests
    assert sent["model"] == "some/model@1"
    assert sent["messages"] == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it? "},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
            ],
        },
        {
            "role": "assistant",
            "content": "look",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "lookup_price", "arguments": '{"item":"tea"}'}}
            ],
        },
        {"role": "tool", "content": "3 euros", "tool_call_id": "c1"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c2",
                    "type": "function",
                    # a server that parses arguments for its template would refuse the text that the model wrote
                    "function": {"name": "lookup_price", "arguments": '{"malformed_arguments": "{\\"item\\":"}'},
                }
            ],
        },
        {"role": "tool", "content": "not JSON \ufffd", "tool_call_id": "c2"},
    ]
    assert sent["tools"] == [PRICE.to_openai()]
    chosen = {k: sent[k] for k in ("temperature", "top_p", "top_k", "max_tokens", "stop")}
    assert chosen == {"temperature": 0.5, "top_p": 0.9, "top_k": 20, "max_tokens": 64, "stop": ["END"]}
    assert done.sampling is not None
    assert sent["seed"] == done.sampling.seed != 7, "each turn has a seed of its own, and it is recorded"


def test_what_nobody_asked_for_is_not_sent() -> None:
    with FaultServer(say("ok")) as server:
        ask(OpenAIPolicy(f"m@{server.url}"))
    assert server.requests == [{"model": "m", "messages": [{"role": "user", "content": "hi"}]}]


def test_each_message_is_sent_the_same_in_every_turn_and_in_every_episode() -> None:
    encoder = Encoder()
    first = [user("a"), assistant("b"), user("c")]
    whole = [json.loads(bytes(r)) for r in encoder.messages(first)]
    longer = [*first, assistant("d")]
    assert [json.loads(bytes(r)) for r in encoder.messages(longer)] == [*whole, {"role": "assistant", "content": "d"}]
    other = [user("x"), assistant("b"), user("c"), assistant("d")]
    assert json.loads(bytes(encoder.messages(other)[0])) == {"role": "user", "content": "x"}


def test_reasoning_is_sent_back_only_where_asked() -> None:
    conversation = [user("q"), assistant("a", reasoning="because"), user("why?")]
    with FaultServer(say("ok")) as server:
        ask(OpenAIPolicy(f"m@{server.url}"), conversation)
        ask(OpenAIPolicy(f"m@{server.url}#reasoning=send"), conversation)
    assert "because" not in json.dumps(server.requests[0])
    assert server.requests[1]["messages"][1] == {"role": "assistant", "content": "a", "reasoning_content": "because"}


def test_options_change_the_request() -> None:
    with FaultServer(say("ok")) as server:
        policy = OpenAIPolicy(f"m@{server.url}#omit=seed+top_k,tokens=yes", extra={"min_p": 0.1})
        ask(policy, sampling=Sampling(seed=1, top_k=5, top_p=0.5))
    (sent,) = server.requests
    assert not {"seed", "top_k"} & set(sent)
    assert (sent["min_p"], sent["top_p"], sent["logprobs"], sent["return_token_ids"]) == (0.1, 0.5, True, True)
    assert policy.fingerprint()["omit"] == ["seed", "top_k"]


@pytest.mark.parametrize("text", ['<tool_call>\n{"name": "lookup_price", "arguments": {"item": "tea"}}\n</tool_call>'])
def test_a_server_that_parses_no_tools_is_told_them_in_words(text: str) -> None:
    with FaultServer(say(f"<think>I need the price</think>\n{text}")) as server:
        done = ask(OpenAIPolicy(f"m@{server.url}#tool_format=hermes"), HI, [PRICE])
    (sent,) = server.requests
    assert "tools" not in sent
    assert "lookup_price" in sent["messages"][0]["content"]
    assert done.message.tool_calls == (ToolCall("lookup_price", '{"item": "tea"}', origin="hermes"),)
    assert done.message.reasoning == "I need the price"
    assert done.finish_reason == "tool_calls"


# -- what is read -----------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_whole() -> None:
    def bot(request: dict[str, Any]) -> dict[str, Any]:
        call = {"id": "x1", "type": "function", "function": {"name": "lookup_price", "arguments": {"item": "tea"}}}
        return {"role": "assistant", "content": "wait", "reasoning_content": "hm", "tool_calls": [call]}

    with FaultServer(bot) as server:
        policy = OpenAIPolicy(f"m@{server.url}")
        done = ask(policy, HI, [PRICE])
    assert done.message.content == (ReasoningPart("hm"), TextPart("wait"))
    assert done.message.tool_calls == (ToolCall("lookup_price", '{"item": "tea"}', "x1"),)
    assert done.usage == Usage(11, 2, 3)
    assert done.finish_reason == "tool_calls"
    assert done.latency_s > 0
    served = policy.fingerprint()["served"]
    assert served["models"] == ["m-2026"]
    assert served["system_fingerprints"] == ["fp_1"]
    assert served["calls"] == {"requests": 1}


@pytest.mark.parametrize(
    ("said", "kept"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "abort"), ("eos", "stop"), (None, "stop")],
)
def test_reasons_to_finish_are_the_fields_own(said: str | None, kept: str) -> None:
    with FaultServer(say("text"), reply=reply(finish_reason=said)) as server:
        assert ask(OpenAIPolicy(f"m@{server.url}")).finish_reason == kept


def test_an_answer_that_the_server_broke_off_is_no_answer() -> None:
    with FaultServer(say("te"), reply=reply(finish_reason="abort")) as server, pytest.raises(InfrastructureError) as failed:
        ask(OpenAIPolicy(f"m@{server.url}", patience=QUICK))
    assert failed.value.retryable
    assert 1 < len(server.requests) <= QUICK.attempts


def test_exact_tokens_are_kept_where_the_server_gives_them() -> None:
    entries = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]
    change = reply(token_ids=[5, 2], logprobs={"content": entries}, stop_reason=None, _prompt_token_ids=[1, 2, 3])
    with FaultServer(say("a"), reply=change) as server:
        tokens = ask(OpenAIPolicy(f"m@{server.url}#tokens=yes")).tokens
        assert ask(OpenAIPolicy(f"m@{server.url}")).tokens is None
    assert tokens is not None
    assert tokens.prompt_ids is not None
    assert (tokens.output_ids.tolist(), tokens.prompt_ids.tolist()) == ([5, 2], [1, 2, 3])
    assert tokens.logprobs.tolist() == [-0.5, -0.25]
    assert tokens.output_ids.dtype == np.int32
    assert tokens.stop_token_in_output


@pytest.mark.parametrize(
    "odd", [{"token_ids": "none"}, {"token_ids": [1], "logprobs": None}, {"token_ids": [2**40], "logprobs": {"content": []}}]
)
def test_tokens_that_make_no_sense_are_none(odd: dict[str, Any]) -> None:
    with FaultServer(say("a"), reply=reply(**odd)) as server:
        done = ask(OpenAIPolicy(f"m@{server.url}#tokens=yes"))
    assert done.tokens is None
    assert done.message.text == "a"


def test_what_a_call_costs_is_what_the_server_or_the_price_says() -> None:
    with FaultServer(say("a"), reply=reply(_usage={"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.25})) as server:
        assert ask(OpenAIPolicy(f"m@{server.url}")).usage.cost_usd == 0.25
        assert ask(OpenAIPolicy(f"m@{server.url}#price=2/10")).usage.cost_usd == pytest.approx(0.003)


def test_a_run_stops_at_its_budget(tmp_path: Path) -> None:
    with FaultServer(reply=reply(_usage={"prompt_tokens": 10, "completion_tokens": 1, "cost": 0.1})) as server:
        run = agentgym.evaluate(
            tests.envs.Guess, f"openai:m@{server.url}", limit=200, concurrency=4, max_cost=1.0, runs=tmp_path
        )
    assert 10 <= len(server.requests) < 60
    assert sum(e.cost_usd for e in run.episodes()) == pytest.approx(0.1 * len(server.requests), rel=0.3)


OVERFLOWS = [
    {"error": {"message": "This model's maximum context length is 1024 tokens. However, you requested 2000 tokens."}},
    {"error": {"message": "no", "code": "context_length_exceeded"}},
    {"object": "error", "message": "The decoder prompt (length 2000) is longer than the maximum model length of 1024."},
    {"error": {"code": 400, "message": "exceeds", "type": "exceed_context_size_error", "n_prompt_tokens": 2000}},
    {"detail": "The input (5000 tokens) is longer than the model's context length (4096 tokens)."},
]


@pytest.mark.parametrize("body", OVERFLOWS)
def test_a_conversation_too_long_for_the_model_is_the_agents_own_doing(body: Any) -> None:
    with FaultServer(status=400, body=body) as server:
        done = ask(OpenAIPolicy(f"m@{server.url}"))
    assert (done.finish_reason, done.message.text) == ("length", "")
    assert len(server.requests) == 1


def test_a_limit_that_no_longer_fits_is_left_out_instead_of_losing_the_turn() -> None:
    with FaultServer(say("fits")) as server:
        original = server._act

        async def act(fate: str, request: dict[str, Any], writer: Any) -> bool:
            if "max_tokens" in request:
                text = "'max_tokens' is too large: 500. This model's maximum context length is 512 tokens"
                await server._send(writer, 400, {"error": {"message": text}})
                return True
            return await original("ok", request, writer)

        server._act = act  # type: ignore[method-assign]
        done = ask(OpenAIPolicy(f"m@{server.url}"), sampling=Sampling(max_tokens=500))
    assert done.message.text == "fits"
    assert ["max_tokens" in r for r in server.requests] == [True, False]


# -- shapes -----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant") | JSON,
        "content": JSON,
        "reasoning_content": JSON,
        "refusal": JSON,
        "tool_calls": JSON | st.lists(st.fixed_dictionaries({"function": JSON | st.fixed_dictionaries({"name": JSON})})),
    },
)


@given(JSON | ODD)
def test_any_json_is_a_message_or_a_shape_error(value: Any) -> None:
    try:
        message = from_openai(value)
    except ShapeError:
        return
    assert message.role == "assistant"
    assert isinstance(message.text, str)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_are_json_or_a_shape_error(data: bytes | str) -> None:
    with contextlib.suppress(ShapeError):
        loads(data)


def test_what_strict_parsers_refuse_in_a_models_words_does_not_fail_the_call() -> None:
    value = loads(b'{"content": "half \\ud83d of an emoji"}')
    assert from_openai(value).text == "half \ufffd of an emoji"
    with pytest.raises(ShapeError):
        loads(b"[" * 200_000)


# -- what the user wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("", "which model"),
        ("@http://localhost:1/v1", "which model"),
        ("http://localhost:1/v1", "which model"),
        ("m@localhost:8000", "begins with http"),
        ("m@10.0.0.1", "begins with http"),
        ("m@http://h:1/v1?key=abc", "must not have a query"),
        ("m@http://h:port/v1", "cannot be read"),
        ("m@http://h:1#tool_format=xml", "no tool format 'xml'"),
        ("m@http://h:1#tokns=yes", "Did you mean: tokens"),
        ("m@http://h:1#timeout=soon", "expected seconds"),
        ("m@http://h:1#price=1", "expected US dollars"),
        ("gpt-x", "set OPENAI_API_KEY"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused_at_once(argument: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        load_policy(f"openai:{argument}")
    assert "abc" not in str(refused.value)


def test_the_server_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(say("yes")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url.removesuffix("/v1"))
        policy = load_policy("openai:m")
        assert policy.name == "openai:m"
        assert ask(policy).message.text == "yes"  # type: ignore[arg-type]
    assert policy.fingerprint()["server"] == server.url  # type: ignore[attr-defined]


# -- secrets ----------------------------------------------------------------------------------------------------------

KEY = "zq-planted-4f1d9a77b3"  # of no known form, so that no pattern helps
PASSWORD = "p@ss:planted-77c1"


def _bytes_under(folder: Path) -> bytes:
    return b"".join(f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file())


@pytest.mark.parametrize("where", ["environment", "url"])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_planted_key_is_sent_and_is_nowhere_afterwards(
    where: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [KEY] if where == "environment" else [PASSWORD, "p%40ss%3Aplanted-77c1"]
    body = {"error": {"message": f"Incorrect credentials provided: {secrets[0]} (Bearer {secrets[0]})"}}
    with FaultServer(status=status, body=body) as server:
        url = server.url
        if where == "environment":
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
        else:
            url = url.replace("//", "//us3r:p%40ss%3Aplanted-77c1@")
        policy = OpenAIPolicy(f"m@{url}", patience=QUICK)
        failure = ""
        try:
            agentgym.evaluate(tests.envs.Guess, policy, limit=3, retries=0, runs=tmp_path)
        except InfrastructureError as e:
            failure = str(e)
    assert bool(failure) is (status != 200)
    authorization = {h["authorization"] for h in server.sent_headers}
    wanted = f"Bearer {KEY}" if where == "environment" else "Basic dXMzcjpwQHNzOnBsYW50ZWQtNzdjMQ=="
    assert authorization == {wanted}
    told = f"{policy.name}{policy.fingerprint()}{failure}{caplog.text}"
    kept = _bytes_under(tmp_path)
    run = agentgym.open_run(str(next(tmp_path.iterdir())))
    inside = repr([(e.error, e.trajectory) for e in run.episodes()]) + repr(run.meta)
    assert len(kept) > 10_000
    assert "policy" in inside
    for secret in (*secrets, "dXMzcjpwQHNzOnBsYW50ZWQtNzdjMQ=="):
        assert secret not in told
        assert secret.encode() not in kept
        assert secret not in inside, "compressed parts, too"


def test_the_command_line_shows_no_credentials(tmp_path: Path) -> None:
    with FaultServer() as server:
        model = f"openai:m@{server.url.replace('//', '//us3r:p@ss-planted@')}"
        command = [sys.executable, "-m", "agentgym", "eval", "tests/envs.py:Guess", "--model", model]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = ["--limit", "2", "--runs", str(tmp_path)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "openai:m@http://***@127.0.0.1" in done.stdout
    for secret in ("p@ss-planted", "ss-planted"):
        assert secret not in done.stdout + done.stderr
        assert secret.encode() not in _bytes_under(tmp_path)


def test_a_key_that_would_break_the_headers_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted\r\nX-Evil: 1")
    with pytest.raises(UsageError) as refused:
        OpenAIPolicy("m@http://localhost:1/v1")
    assert "planted" not in str(refused.value)
    assert "Authorization" in str(refused.value)


def test_a_key_for_one_server_is_not_sent_along_with_the_credentials_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(say("ok")) as server:
        ask(OpenAIPolicy(f"m@{server.url.replace('//', '//u:pw@')}"))
    assert server.sent_headers[0]["authorization"] == "Basic dTpwdw=="
    assert KEY not in str(server.sent_headers)


def test_a_redirect_does_not_take_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        FaultServer(say("stolen")) as thief,
        FaultServer(status=307, body={}, headers={"Location": f"{thief.url}/chat/completions"}) as server,
        pytest.raises(InfrastructureError, match="redirects") as refused,
    ):
        ask(OpenAIPolicy(f"m@{server.url}"))
    assert not refused.value.retryable
    assert thief.requests == []


# -- the record -------------------------------------------------------------------------------------------------------


def test_a_run_says_what_was_served(tmp_path: Path) -> None:
    with FaultServer() as server:
        run = agentgym.evaluate(tests.envs.Guess, f"openai:m@{server.url}", limit=2, runs=tmp_path)
    assert run.meta["fingerprint"]["described"] == {"id": "m", "owned_by": "tests", "max_model_len": 4096}
    assert run.meta["served"]["models"] == ["m-2026"]
    assert run.meta["served"]["calls"]["requests"] == len(server.requests)
    assert [e.gold for e in run.episodes()] == [1.0, 1.0]


def test_a_policy_may_be_used_in_one_event_loop_after_the_other() -> None:
    with FaultServer(say("ok")) as server:
        policy = OpenAIPolicy(f"m@{server.url}")

        async def once() -> str:
            return (await policy.act(HI, (), Sampling())).message.text

        assert [asyncio.run(once()) for _ in range(3)] == ["ok"] * 3  # not closed in between
