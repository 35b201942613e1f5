# SPDX-License-Identifier: Apache-2.0
"""Tokens a CPU second of a transformers model that plays many episodes of several turns at once: one JSON line each.

    python bench/hf.py path/to/model-folder --episodes 1 8 32

``alone`` is the way without an engine: one conversation at a time through ``model.generate``, each prompt computed whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import numpy as np
import torch
import transformers

from agentgym.chat import Message, user
from agentgym.policies.hf_model import HFPolicy
from agentgym.protocols import EpisodeContext, Sampling, Tokens

SAID = "That is not quite what I had in mind. Think about it once more and tell me what else there could be, in your own words."


async def episode(policy: HFPolicy, number: int, turns: int, tokens: int) -> list[Tokens]:
    player = policy.begin(EpisodeContext(f"bench/{number}", 0, number))
    conversation: list[Message] = [user(f"Tell me a story about {number} small birds that learn to fly in a big city.")]
    made = []
    for _ in range(turns):
        done = await player.act(conversation, (), Sampling(temperature=1.0, max_tokens=tokens, seed=number))
        assert done.tokens is not None
        made.append(done.tokens)
        conversation += [done.message, user(SAID)]
    await player.end()  # type: ignore[attr-defined]
    return made


def worst(model: Any, made: list[Tokens]) -> float:
    """Largest difference of an episode's log-probabilities to those of one pass over all of it."""
    assert made[-1].prompt_ids is not None
    ids = torch.from_numpy(np.concatenate([made[-1].prompt_ids, made[-1].output_ids]).astype(np.int64))
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids[None]).logits[0, :-1], -1).gather(1, ids[1:, None])[:, 0].numpy()
    apart = 0.0
    for t in made:
        assert t.prompt_ids is not None
        begun = len(t.prompt_ids) - 1
        apart = max(apart, float(np.abs(logprobs[begun : begun + len(t.output_ids)] - t.logprobs).max()))
    return apart


async def together(model: Any, tokenizer: Any, episodes: int, turns: int, tokens: int) -> tuple[int, dict[str, Any]]:
    policy = HFPolicy.of(model, tokenizer, max_batch=episodes)
    made = await asyncio.gather(*(episode(policy, i, turns, tokens) for i in range(episodes)))
    sampled = sum(len(t.output_ids) for one in made for t in one)
    engine = policy._engine
    assert engine is not None
    figures = {"passes": engine.passes, "computed_tokens": engine.computed_tokens, "first": made[0]}
    await policy.aclose()
    return sampled, figures


def alone(model: Any, tokenizer: Any, episodes: int, turns: int, tokens: int) -> tuple[int, dict[str, Any]]:
    sampled = computed = 0
    for number in range(episodes):
        rows = [{"role": "user", "content": f"Tell me a story about {number} small birds that learn to fly in a big city."}]
        for _ in range(turns):
            ids = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            torch.manual_seed(number)
            with torch.inference_mode():
                out = model.generate(
                    **ids, max_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    return_dict_in_generate=True, output_logits=True,
                )  # fmt: skip
                made = out.sequences[0, ids["input_ids"].shape[1] :]
                torch.log_softmax(torch.stack([step[0] for step in out.logits]).float(), -1).gather(1, made[:, None])
            sampled += len(made)
            computed += out.sequences.shape[1] - 1
            rows += [
                {"role": "assistant", "content": tokenizer.decode(made, skip_special_tokens=True)},
                {"role": "user", "content": SAID},
            ]
    return sampled, {"computed_tokens": computed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--episodes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="most sampled tokens of a turn")
    parser.add_argument("--alone", type=int, default=2, help="episodes for the way without an engine; 0: not measured")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder).eval()

    def measured(how: str, episodes: int, run: Any) -> None:
        begun = time.process_time()
        sampled, figures = run()
        cpu = time.process_time() - begun
        if (first := figures.pop("first", None)) is not None:
            figures["worst_logprob_difference"] = round(worst(model, first), 7)
        line = {"bench": "hf", "how": how, "episodes": episodes, "turns": args.turns, "sampled": sampled, **figures}
        print(json.dumps({**line, "cpu_s": round(cpu, 2), "tokens_per_cpu_s": round(sampled / cpu, 1)}), flush=True)

    asyncio.run(together(model, tokenizer, 1, 1, 4))  # what happens once happens before
    if args.alone:
        measured("alone", args.alone, lambda: alone(model, tokenizer, args.alone, args.turns, args.tokens))
    for episodes in args.episodes:
        measured(
            "together",
            episodes,
            lambda n=episodes: asyncio.run(together(model, tokenizer, n, args.turns, args.tokens)),
        )


if __name__ == "__main__":
    main()
