# SPDX-License-Identifier: Apache-2.0
"""The engine of transformers policies: many answers at once, a kept cache, log-probabilities that a trainer can trust."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from agentgym.policies.hf_engine import HFEngine
from agentgym.policies.token_player import Generated
from agentgym.protocols import Sampling

VOCABULARY = 64
NO_STOPS: frozenset[int] = frozenset()


class Letters:
    """As much of a tokenizer as the engine needs."""

    eos_token_id = None

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(48 + int(i)) for i in ids)


def tiny(kind: str = "llama", **more: Any) -> Any:
    """A model of two layers with random weights, far enough from uniform that a wrong position or mask shows."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.4, "eos_token_id": None,
        "bos_token_id": None, "pad_token_id": None, **more,
    }  # fmt: skip
    if kind == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    if kind == "qwen3":
        return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=16, **shape))
    assert kind == "mistral"
    return transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=8, **shape))


@contextlib.contextmanager
def running(model: Any, **options: Any) -> Iterator[HFEngine]:
    engine = HFEngine(model, Letters(), **options)
    try:
        yield engine
    finally:
        engine.close()


def prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, n).tolist() for n in lengths]


async def all_of(
    engine: HFEngine, given: Sequence[Sequence[int]], keys: Sequence[object] = (), **sampling: Any
) -> list[Generated]:
    keys = keys or [object() for _ in given]
    seeds = sampling.pop("seeds", range(len(given)))
    asked = [
        engine.generate(k, p, NO_STOPS, Sampling(**{"temperature": 1.0, "max_tokens": 12, "seed": s, **sampling}))
        for k, p, s in zip(keys, given, seeds, strict=True)
    ]
    return await asyncio.gather(*asked)


def full_pass(model: Any, prompt: Sequence[int], made: Generated, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities of the output by one pass over the whole, as a trainer computes them."""
    whole = torch.tensor([[*prompt, *made.output_ids]])
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(whole).logits[0, len(prompt) - 1 : -1].float()
    model.train(training)
    return torch.log_softmax(logits / temperature, -1).gather(1, whole[0, len(prompt) :, None])[:, 0].numpy()


def assert_parity(model: Any, given: Sequence[Sequence[int]], made: Sequence[Generated], temperature: float = 1.0) -> None:
    for prompt, one in zip(given, made, strict=True):
        assert one.output_ids
        np.testing.assert_allclose(one.logprobs, full_pass(model, prompt, one, temperature), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("llama", {}), ("llama", {"attn_implementation": "eager"}), ("qwen3", {}), ("mistral", {})],
    ids=["llama", "eager", "qwen3", "sliding window"],
)
def test_answers_made_together_have_the_log_probabilities_of_a_full_pass(kind: str, more: dict[str, Any]) -> None:
    model = tiny(kind, **more)
    given = prompts([3, 40, 1, 17, 17, 90])
    with running(model, max_batch=4) as engine:  # fewer rows than requests, so some join while others are in the middle
        assert engine.batched is (kind != "mistral")
        made = asyncio.run(all_of(engine, given, max_tokens=12))
    assert_parity(model, given, made)


def test_a_seed_says_the_same_alone_as_beside_others() -> None:
    model = tiny()
    given = prompts([5, 30, 8, 60, 2])
    with running(model) as engine:
        together = asyncio.run(all_of(engine, given, max_tokens=20))
    for i, prompt in enumerate(given):
        with running(model) as engine:
            (alone,) = asyncio.run(all_of(engine, [prompt], seeds=[i], max_tokens=20))
        assert alone.output_ids == together[i].output_ids
        np.testing.assert_allclose(alone.logprobs, together[i].logprobs, atol=1e-5)
    assert len({tuple(m.output_ids) for m in together}) == len(together)


def test_the_next_turn_computes_only_what_is_new() -> None:
    model = tiny()
    (prompt,) = prompts([80])
    key = object()
    with running(model) as engine:
        (first,) = asyncio.run(all_of(engine, [prompt], [key]))
        longer = [*prompt, *first.output_ids, *prompts([10], seed=1)[0]]
        before = engine.computed_tokens
        (second,) = asyncio.run(all_of(engine, [longer], [key]))
        # all but the last sampled token, which nothing came after, is there
        assert second.cached_tokens == len(prompt) + len(first.output_ids) - 1
        assert engine.computed_tokens - before == len(longer) - second.cached_tokens + len(second.output_ids) - 1
    assert_parity(model, [longer], [second])


def test_a_group_with_one_prompt_computes_it_once() -> None:
    model = tiny()
    (prompt,) = prompts([100])
    with running(model) as engine:
        made = asyncio.run(all_of(engine, [prompt] * 8))
        assert engine.computed_tokens < 100 + 8 * 14
    assert sum(m.cached_tokens == 99 for m in made) == 7
    assert_parity(model, [prompt] * 8, made)


def test_the_cache_is_bounded_and_the_least_recently_used_goes_first() -> None:
    model = tiny()
    given = prompts([64] * 6)
    a_row = 2 * 2 * 2 * 8 * 4 * (64 + 11)  # layers, keys and values, heads, dimension, bytes, tokens
    with running(model, cache_bytes=3 * a_row) as engine:
        for i, prompt in enumerate(given):
            asyncio.run(all_of(engine, [prompt], [i]))
            assert engine._kept_bytes == min(i + 1, 3) * a_row == sum(k.bytes for k in engine._kept.values())
        again = [asyncio.run(all_of(engine, [given[i]], [i]))[0].cached_tokens for i in (5, 0)]
    assert again == [63, 0]


def test_pitfall_05_a_model_that_trains_with_gradient_checkpointing_samples_as_it_evaluates() -> None:
    model = tiny(attention_dropout=0.3)
    model.gradient_checkpointing_enable()
    model.train()
    given = prompts([20, 33])
    with running(model) as engine:
        made = asyncio.run(all_of(engine, given, max_tokens=16))
    assert model.training
    assert all(module.training for module in model.modules())
    assert_parity(model, given, made)


def test_pitfall_05_what_samples_leaves_the_model_fit_for_training() -> None:
    model = tiny(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with running(model) as engine:
        asyncio.run(all_of(engine, prompts([20])))
    model.train()
    model(torch.tensor(prompts([20])), labels=torch.tensor(prompts([20]))).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", ["raw", "temperature_scaled", "processed"])
def test_pitfall_06_each_kind_of_log_probability_is_of_its_own_distribution(kind: Any) -> None:
    model = tiny()
    given = prompts([20, 31, 7])
    with running(model, logprob_kind=kind) as engine:
        made = asyncio.run(all_of(engine, given, temperature=0.7, top_p=0.8, top_k=20, max_tokens=40))
    if kind != "processed":
        assert_parity(model, given, made, 1.0 if kind == "raw" else 0.7)
        return
    for prompt, one in zip(given, made, strict=True):
        scaled = full_pass(model, prompt, one, 0.7)
        assert (np.array(one.logprobs) >= scaled - 1e-4).all()  # what is cut away makes the rest likelier
        assert np.mean(np.array(one.logprobs) - scaled) > 0.05
        assert np.isfinite(one.logprobs).all()


def test_pitfall_06_processed_is_what_the_tokens_are_drawn_from() -> None:
    model = tiny()
    (prompt,) = prompts([10])
    with running(model, logprob_kind="processed", max_batch=64) as engine:
        how: dict[str, Any] = {"temperature": 0.7, "top_p": 0.7, "top_k": 8, "max_tokens": 1}
        made = asyncio.run(all_of(engine, [prompt] * 800, seeds=range(800), **how))
    told = {m.output_ids[0]: float(np.exp(m.logprobs[0])) for m in made}
    assert len(told) > 1
    for token, probability in told.items():
        share = np.mean([m.output_ids[0] == token for m in made])
        assert abs(share - probability) < 5 * (probability * (1 - probability) / 800) ** 0.5 + 1e-3
    assert sum(told.values()) > 0.97


def test_greedy_is_greedy_and_its_processed_log_probability_is_0() -> None:
    model = tiny()
    given = prompts([10, 20])
    with running(model, logprob_kind="processed") as engine:
        made = asyncio.run(all_of(engine, given, temperature=0.0))
    for prompt, one in zip(given, made, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0)
        expected = whole[0, len(prompt) :]
        assert one.output_ids == expected.tolist()
        assert one.logprobs == [0.0] * 12


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_pitfall_17_an_answer_that_outlives_its_weights_tells_both_versions(kind: str) -> None:
    model = tiny(kind)
    old = tiny(kind)
    given = prompts([20, 50] if kind == "llama" else [20])

    async def go(engine: HFEngine) -> list[Generated]:
        asked = asyncio.ensure_future(all_of(engine, given, max_tokens=150))
        while engine.passes < 40:
            await asyncio.sleep(0.001)
        with engine.updating(7), torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
        return await asked

    with running(model) as engine:
        made = asyncio.run(go(engine))
        assert engine.version == 7
    for prompt, one in zip(given, made, strict=True):
        versions = np.array(one.versions)
        assert sorted(set(versions.tolist())) == [0, 7]
        assert (np.diff(versions) >= 0).all()
        before = versions == 0
        # each token has the log-probability that the weights of its version gave it, the earlier tokens being what they are
        np.testing.assert_allclose(np.array(one.logprobs)[before], full_pass(old, prompt, one)[before], atol=1e-4)
        np.testing.assert_allclose(np.array(one.logprobs)[~before], full_pass(model, prompt, one)[~before], atol=1e-4)


def test_pitfall_17_weights_that_change_between_turns_leave_nothing_of_the_old_ones_in_the_cache() -> None:
    model = tiny()
    (prompt,) = prompts([60])
    with running(model) as engine:
        asyncio.run(all_of(engine, [prompt], ["a"]))
        with torch.no_grad():  # an optimizer's step that nobody tells the engine of
            for p in model.parameters():
                p.add_(0.05)
        (made,) = asyncio.run(all_of(engine, [prompt], ["a"]))
    assert made.cached_tokens == 0
    assert set(made.versions or ()) == {1}
    assert_parity(model, [prompt], [made])


def test_texts_and_tokens_end_an_answer() -> None:
    model = tiny()
    (prompt,) = prompts([20])
    with running(model) as engine:
        (whole,) = asyncio.run(all_of(engine, [prompt], seeds=[3], max_tokens=30))
        assert whole.finish_reason == "length"
        text = Letters().decode(whole.output_ids)
        (cut,) = asyncio.run(all_of(engine, [prompt], seeds=[3], max_tokens=30, stop=(text[8:11],)))
        assert (cut.finish_reason, cut.output_ids) == ("stop", whole.output_ids[: text.index(text[8:11]) + 3])
        stop = whole.output_ids[5]
        at = whole.output_ids.index(stop)
        ended = asyncio.run(engine.generate("k", prompt, frozenset({stop}), Sampling(temperature=1.0, max_tokens=30, seed=3)))
        assert (ended.finish_reason, ended.output_ids) == ("stop", whole.output_ids[: at + 1])
        (last,) = asyncio.run(all_of(engine, prompts([250]), max_tokens=30))
        assert (last.finish_reason, len(last.output_ids)) == ("length", 6)
        (none,) = asyncio.run(all_of(engine, prompts([256])))
        assert none.prompt_too_long


def test_who_gives_up_waiting_frees_the_row() -> None:
    model = tiny()

    async def go(engine: HFEngine) -> Generated:
        async with asyncio.timeout(10):
            hopeless = [
                asyncio.create_task(engine.generate(i, p, NO_STOPS, Sampling(temperature=1.0, max_tokens=230)))
                for i, p in enumerate(prompts([20] * 4))
            ]
            while engine.passes < 3:
                await asyncio.sleep(0.001)
            for task in hopeless:
                task.cancel()
            return (await all_of(engine, prompts([5])))[0]

    with running(model, max_batch=2) as engine:
        made = asyncio.run(go(engine))
        assert len(made.output_ids) == 12
        assert engine.passes < 230


def test_a_model_that_fails_is_infrastructure_and_the_next_request_is_served() -> None:
    from agentgym.errors import InfrastructureError

    model = tiny()
    with running(model) as engine:
        with pytest.raises(InfrastructureError, match="the model failed"):
            asyncio.run(all_of(engine, [[1, 2, VOCABULARY + 5]]))
        (made,) = asyncio.run(all_of(engine, [[1, 2, 3]]))
        assert len(made.output_ids) == 12
