# SPDX-License-Identifier: Apache-2.0
"""Policies with tokens: what each owes to whoever trains on its episodes, and the wire formats of the servers behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.chat import Message, ToolCall, assistant, user
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.gguf_tokenizer import GGUFTokenizer
from agentgym.policies.load import load_policy
from agentgym.policies.local import LocalPolicy
from agentgym.policies.token_server import SGLangPolicy, TokenServerPolicy, VLLMPolicy
from agentgym.policies.transport import Patience
from agentgym.protocols import Completion, EpisodeContext, Sampling
from agentgym.tokens.chatml import ChatML
from agentgym.toolspec import ToolSpec
from tests.policies.fault_server import FaultServer, say
from tests.policies.token_bots import END, Bytes, ScriptedPolicy, assert_tokens_hold, halving, logprob

QUICK = Patience(timeout_s=5.0, deadline_s=20.0, base_s=0.01, cap_s=0.05)
PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})
EPISODE = EpisodeContext("t", 0, 0)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def talk(policy: Any, *turns: tuple[list[Message], Sampling]) -> list[Completion]:
    """An episode in which somebody says what is given, whatever the policy answers."""

    async def go() -> list[Completion]:
        player = policy.begin(EPISODE)
        said: list[Message] = []
        made = []
        for new, sampling in turns:
            said += new
            made.append(await player.act(said, (), sampling))
            said.append(made[-1].message)
        await policy.aclose()
        return made

    return asyncio.run(go())


# -- what all owe -----------------------------------------------------------------------------------------------------


def test_a_scripted_policy_holds_its_tokens(tmp_path: Path) -> None:
    (episode, _) = assert_tokens_hold(ScriptedPolicy(), tmp_path)
    assert episode.turns[-1].reward == 1.0


def test_a_server_of_either_kind_holds_its_tokens(tmp_path: Path) -> None:
    for kind, server in (("vllm", vllm_server()), ("sglang", sglang_server())):
        with server:
            assert_tokens_hold(policy_of(kind, server), tmp_path / kind)


def test_the_local_model_holds_its_tokens(model_cache: Path, tmp_path: Path) -> None:
    assert_tokens_hold(load_policy("local:smollm2"), tmp_path, limit=1, sampling=Sampling(max_tokens=4))


def test_the_tokenizer_of_a_gguf_file_is_the_engines_own(model_cache: Path) -> None:
    policy = LocalPolicy(threads=1)
    policy.prepare()
    tokenizer = GGUFTokenizer(policy._file())
    texts = [
        "I'm 23½ years  old\n\n\tÄ ١٢ 中文 😀 don't \x1c x", "a  b   \n", " 5", "x_1__y", "²³", "  \u00a0\u3000 z", ".\n\n1",
        "def f(x):\n        return x**2  # twice\n",
    ]  # fmt: skip
    assert policy._engine is not None
    for text in texts:
        ids = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(ids) == text
        # the engine tells how many tokens it makes of a text, and what it says next after a text or after the same as ids
        replies = [
            policy._engine.ask({"prompt": p, "max_tokens": 2, "temperature": 0.0, "verbose": True, "return_tokens": True})
            for p in (text, ids)
        ]
        assert [r["usage"]["prompt_tokens"] for r in replies] == [len(ids)] * 2
        assert replies[0]["__verbose"]["tokens"] == replies[1]["__verbose"]["tokens"]
    assert tokenizer.special("<|im_end|>") == 2
    assert tokenizer.special("the") is None
    assert 2 not in tokenizer.encode_ordinary("<|im_end|>")


def test_a_gguf_file_with_another_tokenizer_is_rendered_by_the_engine(tmp_path: Path) -> None:
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    key, value = b"tokenizer.ggml.model", b"llama"
    entry = len(key).to_bytes(8, "little") + key + (8).to_bytes(4, "little") + len(value).to_bytes(8, "little") + value
    (tmp_path / "other.gguf").write_bytes(head + entry)
    with pytest.raises(UsageError, match="llama/"):
        GGUFTokenizer(tmp_path / "other.gguf")
    (tmp_path / "cut.gguf").write_bytes(head)
    with pytest.raises(UsageError, match="cannot be read"):
        GGUFTokenizer(tmp_path / "cut.gguf")


# -- the player -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", [[3], [0, 0, 2, 4], [1] * 20])
def test_pitfall_17_an_answer_that_is_broken_off_goes_on_and_each_token_tells_its_version(breaks: list[int]) -> None:
    words = [*b"a long answer", END]

    def model(prompt: list[int], sampling: Any) -> list[int]:
        begun = prompt.index(10, len(prompt) - prompt[::-1].index(256)) + 1  # behind the last "<|im_start|>assistant\n"
        return words[len(prompt) - begun :]

    policy = ScriptedPolicy(model, breaks)
    (done,) = talk(policy, ([user("hi")], Sampling(seed=5)))
    tokens = done.tokens
    assert tokens is not None
    assert tokens.prompt_ids is not None
    assert tokens.versions is not None
    assert tokens.output_ids.tolist() == words
    assert done.message.text == "a long answer"
    assert tokens.stop_token_in_output
    assert (np.diff(tokens.versions) >= 0).all()
    assert tokens.versions[0] < tokens.versions[-1] or breaks[0] == 0
    whole = [*tokens.prompt_ids.tolist(), *words]
    told = [logprob(whole, i) for i in range(len(tokens.prompt_ids), len(whole))]
    np.testing.assert_allclose(tokens.logprobs, told, atol=1e-6)
    # what is asked for again begins with what there is, wants no more than what is left, and draws other random numbers
    for (before, _), (after, wanted) in zip(policy.asked, policy.asked[1:], strict=False):
        assert after[: len(before)] == before
        assert wanted.max_tokens == 192 - (len(after) - len(policy.asked[0][0]))
    seeds = {(len(p), s.seed) for p, s in policy.asked}
    assert len({seed for _, seed in seeds}) == len(seeds)


def test_pitfall_17_an_answer_that_is_broken_off_for_ever_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.policies.token_player._BREAK_S", 0.0)
    with pytest.raises(InfrastructureError, match="broke one answer off"):
        talk(ScriptedPolicy(breaks=[0] * 1000), ([user("hi")], Sampling()))


@pytest.mark.parametrize("own", [assistant("5"), Message("assistant", "4", (ToolCall("look"),)), user("4")])
def test_what_the_model_did_not_say_is_rendered_anew(own: Message) -> None:
    async def go() -> None:
        policy = ScriptedPolicy(lambda p, s: [*b"4", END])
        player = policy.begin(EPISODE)
        first = await player.act([opening := user("a number")], (), Sampling())
        assert first.message.text == "4"
        conversation = [opening, own, user("higher")]
        await player.act(conversation, (), Sampling())
        assert policy.asked[-1][0] == policy.renderer.initial(conversation, ())

    asyncio.run(go())


def test_an_answer_is_cut_at_its_stop_text_and_its_tokens_are_not() -> None:
    (done,) = talk(ScriptedPolicy(lambda p, s: [*b"yes. no.", END]), ([user("hi")], Sampling(stop=(".",))))
    assert (done.message.text, done.finish_reason) == ("yes", "stop")
    assert done.tokens is not None
    assert len(done.tokens.output_ids) == 9


def test_a_call_is_read_from_tokens_and_its_answer_continues_them() -> None:
    says = iter(['<tool_call>\n{"name": "lookup_price", "arguments": {"item": "tea"}}\n</tool_call>', "3 euros"])
    policy = ScriptedPolicy(lambda p, s: [*next(says).encode(), END])

    async def go() -> None:
        player = policy.begin(EPISODE)
        conversation = [user("what is tea?")]
        first = await player.act(conversation, [PRICE], Sampling())
        assert (first.finish_reason, first.message.tool_calls[0].arguments) == ("tool_calls", '{"item": "tea"}')
        # the environment gives calls their ids
        call = Message("assistant", "", (ToolCall("lookup_price", '{"item": "tea"}', "c1", "hermes"),))
        conversation += [call, Message("tool", "3 <|im_end|>", (), "c1")]
        second = await player.act(conversation, [PRICE], Sampling())
        assert second.message.text == "3 euros"
        assert first.tokens is not None
        assert second.tokens is not None
        assert first.tokens.prompt_ids is not None
        assert second.tokens.prompt_ids is not None
        held = [*first.tokens.prompt_ids.tolist(), *first.tokens.output_ids.tolist()]
        assert second.tokens.prompt_ids.tolist()[: len(held)] == held
        # what a tool says ends no turn
        assert second.tokens.prompt_ids.tolist().count(END) == held.count(END) + 1

    asyncio.run(go())


@pytest.mark.parametrize("sampling", [Sampling(temperature=-1.0), Sampling(top_p=float("nan")), Sampling(max_tokens=0)])
def test_parameters_that_make_no_sense_are_refused(sampling: Sampling) -> None:
    with pytest.raises(UsageError, match="must be"):
        talk(ScriptedPolicy(), ([user("hi")], sampling))


# -- vLLM -------------------------------------------------------------------------------------------------------------

VLLM_FIELDS = {
    "model", "prompt", "add_special_tokens", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stop_token_ids",
    "logprobs", "return_token_ids", "skip_special_tokens",
}  # fmt: skip


def sampled(request_prompt: list[int], limit: int) -> tuple[list[int], list[float], str]:
    ids = halving(request_prompt, Sampling())
    reason = "stop" if len(ids) <= limit else "length"
    ids = ids[:limit]
    whole = request_prompt + ids
    return ids, [logprob(whole, i) for i in range(len(request_prompt), len(whole))], reason


def vllm_server(change: Any = None, **options: Any) -> FaultServer:
    """Speaks /v1/completions as vLLM 0.32 was seen to, and refuses what it would not know."""

    def answer(request: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        assert set(request) <= VLLM_FIELDS, set(request) - VLLM_FIELDS
        assert request["return_token_ids"] is True
        assert request["stop_token_ids"] == [END, 258]
        prompt = request["prompt"]
        ids, logprobs, reason = sampled(prompt, request["max_tokens"])
        choice: dict[str, Any] = {
            "index": 0, "text": Bytes().decode(ids), "finish_reason": reason, "stop_reason": None,
            "logprobs": {"token_logprobs": logprobs, "tokens": [str(i) for i in ids], "text_offset": [], "top_logprobs": []},
            "token_ids": ids, "prompt_token_ids": prompt, "prompt_logprobs": None,
        }  # fmt: skip
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids), "prompt_tokens_details": None}
        reply = {"object": "text_completion", "model": request["model"], "choices": [choice], "usage": usage}
        return change(request, reply) if change else reply

    return FaultServer(say(""), reply=answer, **options)


SGLANG_SAMPLING = {
    "max_new_tokens", "temperature", "top_p", "top_k", "sampling_seed", "stop", "stop_token_ids", "skip_special_tokens",
    "no_stop_trim",
}  # fmt: skip


def sglang_server(change: Any = None, version: Any = "default", **options: Any) -> FaultServer:
    """Speaks /generate as SGLang documents it and its sources have it; no real one was at hand."""

    def answer(request: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        assert set(request) == {"input_ids", "sampling_params", "return_logprob", "stream"}
        assert request["return_logprob"] is True
        assert request["stream"] is False
        how = request["sampling_params"]
        assert set(how) <= SGLANG_SAMPLING, set(how) - SGLANG_SAMPLING
        assert 0.0 < how["top_p"] <= 1.0
        assert how["top_k"] == -1 or how["top_k"] >= 1
        prompt = request["input_ids"]
        ids, logprobs, reason = sampled(prompt, how["max_new_tokens"])
        finish = {"type": "stop", "matched": END} if reason == "stop" else {"type": "length", "length": how["max_new_tokens"]}
        reply = {
            "text": Bytes().decode(ids),
            "output_ids": ids,
            "meta_info": {
                "id": "9f", "finish_reason": finish, "prompt_tokens": len(prompt), "weight_version": version,
                "num_retractions": 0, "input_token_logprobs": [], "completion_tokens": len(ids), "cached_tokens": 7,
                "output_token_logprobs": [[v, i, None] for v, i in zip(logprobs, ids, strict=True)], "e2e_latency": 0.1,
            },
        }  # fmt: skip
        return change(request, reply) if change else reply

    return FaultServer(say(""), reply=answer, **options)


def policy_of(kind: str, server: FaultServer, **options: Any) -> TokenServerPolicy:
    made = VLLMPolicy if kind == "vllm" else SGLangPolicy
    return made(f"m@{server.url}", renderer=ChatML(Bytes()), patience=QUICK, **options)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_what_is_asked_of_a_server_is_the_ids_and_the_sampling(kind: str) -> None:
    with vllm_server() if kind == "vllm" else sglang_server() as server:
        wanted = Sampling(temperature=0.5, top_p=0.9, top_k=3, max_tokens=8, seed=1, stop=("END",))
        policy = policy_of(kind, server)
        assert policy.name == f"{kind}:m@{server.url}"
        (done,) = talk(policy, ([user("a number")], wanted))
    (request,) = server.requests
    assert done.tokens is not None
    assert done.tokens.prompt_ids is not None
    assert done.tokens.logprob_kind == ("raw" if kind == "vllm" else "temperature_scaled")
    assert done.sampling is not None
    prompt = done.tokens.prompt_ids.tolist()
    if kind == "vllm":
        assert request == {
            "model": "m", "prompt": prompt, "add_special_tokens": False, "max_tokens": 8, "temperature": 0.5, "top_p": 0.9,
            "top_k": 3, "seed": done.sampling.seed, "stop": ["END"], "stop_token_ids": [END, 258], "logprobs": 0,
            "return_token_ids": True, "skip_special_tokens": False,
        }  # fmt: skip
    else:
        assert request == {
            "input_ids": prompt, "return_logprob": True, "stream": False,
            "sampling_params": {
                "max_new_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "sampling_seed": done.sampling.seed,
                "stop": ["END"], "stop_token_ids": [END, 258], "skip_special_tokens": False, "no_stop_trim": True,
            },
        }  # fmt: skip
        assert done.usage.cached_tokens == 7


@pytest.mark.parametrize(("version", "known"), [("default", None), ("12", 12), (3, 3), ("step-4", None)])
def test_the_weight_version_that_sglang_tells_is_that_of_the_tokens(version: Any, known: int | None) -> None:
    with sglang_server(version=version) as server:
        (done,) = talk(policy_of("sglang", server), ([user("a number")], Sampling()))
    assert done.tokens is not None
    assert done.tokens.logprob_kind == "raw"  # at temperature 1 both are the same
    if known is None:
        assert done.tokens.versions is None
    else:
        assert done.tokens.versions is not None
        assert set(done.tokens.versions.tolist()) == {known}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_pitfall_17_a_server_that_aborts_for_new_weights_is_asked_to_go_on(kind: str) -> None:
    def abort(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        if len(server.requests) > 1:
            if kind == "sglang":
                reply["meta_info"]["weight_version"] = "8"
            return reply
        if kind == "vllm":
            choice = reply["choices"][0]
            choice |= {"finish_reason": "abort", "token_ids": choice["token_ids"][:1]}
            choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:1]
            policy.set_version(8)
        else:
            meta = reply["meta_info"]
            meta |= {"finish_reason": {"type": "abort", "message": "weights"}, "weight_version": "7"}
            meta["output_token_logprobs"] = meta["output_token_logprobs"][:1]
            reply["output_ids"] = reply["output_ids"][:1]
        return reply

    with vllm_server(abort) if kind == "vllm" else sglang_server(abort) as server:
        policy = policy_of(kind, server)
        policy.set_version(7)
        (done,) = talk(policy, ([user("a number")], Sampling(max_tokens=2)))
    first, second = server.requests
    name = "prompt" if kind == "vllm" else "input_ids"
    assert second[name] == [*first[name], ord("4")]
    assert (second if kind == "vllm" else second["sampling_params"])["max_tokens" if kind == "vllm" else "max_new_tokens"] == 1
    assert done.tokens is not None
    assert done.tokens.versions is not None
    assert done.tokens.versions.tolist() == [7, 8]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.update(token_ids=None),
        lambda c: c.update(token_ids=["token_id:3"]),
        lambda c: c["logprobs"].update(token_logprobs=[-1.0]),
        lambda c: c.update(logprobs=None),
        lambda c: c.update(prompt_token_ids=[1, 2]),
    ],
)
def test_a_vllm_reply_without_exact_tokens_is_no_reply(damage: Any) -> None:
    def change(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        damage(reply["choices"][0])
        return reply

    with vllm_server(change) as server, pytest.raises(InfrastructureError, match="not vllm's"):
        talk(policy_of("vllm", server), ([user("a number")], Sampling()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.update(output_ids=[1, 2, 3]),
        lambda r: r["meta_info"].update(output_token_logprobs=[[-0.1]]),
        lambda r: r["meta_info"].update(finish_reason=None),
        lambda r: r.pop("meta_info"),
    ],
)
def test_an_sglang_reply_without_exact_tokens_is_no_reply(damage: Any) -> None:
    def change(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        damage(reply)
        return reply

    with sglang_server(change) as server, pytest.raises(InfrastructureError, match="not sglang's"):
        talk(policy_of("sglang", server), ([user("a number")], Sampling()))


def test_logprobs_that_a_server_does_not_know_are_nan() -> None:
    def change(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0]["logprobs"]["token_logprobs"][0] = None
        return reply

    with vllm_server(change) as server:
        (done,) = talk(policy_of("vllm", server), ([user("a number")], Sampling()))
    assert done.tokens is not None
    assert np.isnan(done.tokens.logprobs).tolist() == [True, False]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_prompt_that_does_not_fit_is_the_agents_own_doing(kind: str) -> None:
    said = {"message": "This model's maximum context length is 4096 tokens, however you requested more", "code": 400}
    with FaultServer(say(""), status=400, body={"error": said}) as server:
        (done,) = talk(policy_of(kind, server), ([user("x" * 5000)], Sampling()))
    assert (done.finish_reason, done.message.text) == ("length", "")
    assert len(server.requests) == 1


def test_a_limit_that_does_not_fit_is_made_to_fit() -> None:
    with vllm_server(script=["400", "ok"]) as server:
        server_send = server._send

        async def send(writer: Any, status: int, body: Any, headers: Any = None) -> None:
            if status == 400:
                body = {"error": {"message": "This model's maximum context length is 4096 tokens"}}
            await server_send(writer, status, body, headers)

        server._send = send  # type: ignore[method-assign]
        (done,) = talk(policy_of("vllm", server), ([user("x" * 4000)], Sampling(max_tokens=500)))
    first, second = server.requests
    assert (first["max_tokens"], second["max_tokens"]) == (500, 4096 - len(first["prompt"]))
    assert done.finish_reason == "stop"


def test_a_server_needs_a_tokenizer_to_render_with(tmp_path: Path) -> None:
    for kind in ("vllm", "sglang"):
        with pytest.raises(UsageError, match="#tokenizer=FOLDER"):
            load_policy(f"{kind}:m@http://localhost:1/v1#tokenizer={tmp_path}")
    with pytest.raises(UsageError, match="no option 'tokeniser'"):
        load_policy("vllm:m@http://localhost:1/v1#tokeniser=x")
