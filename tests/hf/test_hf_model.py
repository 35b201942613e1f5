# SPDX-License-Identifier: Apache-2.0
"""A transformers model in this process: a tiny one with random weights, made here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import agentgym
import tests.envs
from agentgym.chat import ImagePart, Message, system, user
from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.hf_model import HFPolicy
from agentgym.policies.load import load_policy
from agentgym.protocols import Completion, Sampling
from agentgym.toolspec import ToolSpec

PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})


def ask(folder: Path, *conversation: Message, tools: Any = (), **sampling: Any) -> Completion:
    async def once() -> Completion:
        policy = HFPolicy(str(folder))
        try:
            return await policy.act(conversation, tools, Sampling(**sampling))
        finally:
            await policy.aclose()

    return asyncio.run(once())


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {}])
def test_the_recorded_tokens_are_what_the_model_was_given_and_said(folder: Path, sampling: dict[str, Any]) -> None:
    done = ask(folder, system("be brief"), user("hi"), max_tokens=24, seed=3, **sampling)
    tokens = done.tokens
    assert tokens is not None
    assert tokens.prompt_ids is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokens.prompt_ids.tolist() == tokenizer(prompt)["input_ids"]
    assert done.message.text == tokenizer.decode(tokens.output_ids, skip_special_tokens=True)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (len(tokens.prompt_ids), len(tokens.output_ids))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    whole = torch.tensor(np.concatenate([tokens.prompt_ids, tokens.output_ids])[None].astype(np.int64))
    with torch.no_grad():
        logits = model(whole).logits[0, len(tokens.prompt_ids) - 1 : -1].float()
    again = torch.log_softmax(logits, -1).gather(1, whole[0, len(tokens.prompt_ids) :, None])[:, 0].numpy()
    np.testing.assert_allclose(tokens.logprobs, again, atol=1e-4)
    assert tokens.stop_token_in_output is (done.finish_reason == "stop")


def test_the_same_seed_says_the_same_and_another_one_does_not(folder: Path) -> None:
    said = [ask(folder, user("hi"), max_tokens=16, seed=s).message.text for s in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_an_answer_ends_where_it_should(folder: Path) -> None:
    whole = ask(folder, user("hi"), max_tokens=16, seed=1)
    assert whole.finish_reason == "length"
    stop = next(c for c in whole.message.text[3:] if c.isascii() and c.isprintable())
    cut = ask(folder, user("hi"), max_tokens=16, seed=1, stop=(stop,))
    assert cut.finish_reason == "stop"
    assert cut.message.text == whole.message.text[: whole.message.text.index(stop)]
    too_long = ask(folder, user("x" * 2000))
    assert (too_long.finish_reason, too_long.message.text) == ("length", "")


def test_tools_are_told_in_the_prompt(folder: Path) -> None:
    tokens = ask(folder, user("price?"), tools=[PRICE], max_tokens=2).tokens
    assert tokens is not None
    assert tokens.prompt_ids is not None
    assert "lookup_price" in transformers.AutoTokenizer.from_pretrained(folder).decode(tokens.prompt_ids)


def test_it_plays_episodes_and_they_are_kept(folder: Path, tmp_path: Path) -> None:
    run = agentgym.evaluate(tests.envs.Guess, f"hf:{folder}", limit=2, sampling=Sampling(max_tokens=4), runs=tmp_path)
    for episode in run.episodes():
        assert episode.error is None
        assert len(episode.trajectory.tokens or ()) == episode.turns == 6
    assert "model.safetensors" in run.meta["fingerprint"]["files"]


def test_what_cannot_be_played_is_said(folder: Path, tmp_path: Path) -> None:
    for nothing in ("hf:", "hf:meta-llama/Llama-3", f"hf:{tmp_path}"):
        with pytest.raises(NotFoundError, match="expected a folder"):
            load_policy(nothing)
    with pytest.raises(InfrastructureError, match="image"):
        ask(folder, Message("user", (ImagePart(b"x"),)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InfrastructureError, match="cannot be loaded"):
        ask(tmp_path, user("hi"))


def test_gguf_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(b"GGUF....")
    assert load_policy("gguf:model").name == "local:./model"
    with pytest.raises(UsageError, match="which file"):
        load_policy("gguf:")
    with pytest.raises(NotFoundError):
        load_policy("gguf:none.gguf")
