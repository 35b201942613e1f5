# SPDX-License-Identifier: Apache-2.0
"""A model gets better from a saved run, without playing: pairs of its own episodes, and direct preference optimization (DPO).

    python examples/offline_dpo.py --seeds 3

1. A tiny model imitates the oracle of `tools.lookup` a little, and plays each of some tasks several times, on record.
2. The run becomes pairs, as ``agentgym export --format dpo --all-pairs`` writes them: two trials of a task, followed to where
   they part, and what each answered there; the better trial's answer is the chosen one.
3. DPO (Rafailov et al. 2023, arXiv 2305.18290) on the pairs. Nothing is played in between.
4. Held-out tasks are played before and after, with the same seeds of sampling: the gain, and its interval over tasks.

Prints one JSON line for each seed. Needs torch and transformers (extra ``hf``).
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "tiny_grpo"))

import learning
import tiny_model as tiny

from agentgym.chat import Message, call
from agentgym.stats.intervals import bootstrap_mean
from agentgym.training import export

FAMILY = "tools.lookup:level=1,most=4"


def text_of(rows: list[dict[str, Any]]) -> str:
    """Messages of an exported row as the model reads and writes them."""
    text = ""
    for row in rows:
        if row["role"] != "assistant":
            text += tiny.LOOKUP.rendered([Message(row["role"], row["content"])])
        elif calls := row.get("tool_calls"):
            text += tiny.said(call(calls[0]["function"]["name"], **calls[0]["function"]["arguments"]))
        else:
            text += row["content"]
    return text


def encoded(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs as ids and masks of what was answered: those of the chosen answers first, then the rejected ones'."""
    ids, masks = [], []
    for side in ("chosen", "rejected"):
        for row in rows:
            prompt, answer = tiny.LOOKUP.encode(text_of(row["prompt"])), tiny.LOOKUP.encode(text_of(row[side]))
            ids.append(np.concatenate([prompt, answer]))
            masks.append(np.concatenate([np.zeros(len(prompt), np.float32), np.ones(len(answer), np.float32)]))
    return tiny.padded(ids)[0], tiny.padded(masks)[0]


def prefer(model: tiny.TinyModel, rows: list[dict[str, Any]], steps: int, beta: float, rng: np.random.Generator) -> float:
    """DPO against the weights that the run was played with. Returns the last share of pairs that are in order."""
    reference = copy.deepcopy(model.network)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=3e-4, weight_decay=0.0)
    right = 0.0
    for _ in range(steps):
        ids, mask = encoded([rows[i] for i in rng.integers(len(rows), size=32)])
        with torch.no_grad():
            before = (tiny.log_likelihood(reference, ids) * mask).sum(1)
        good, bad = ((tiny.log_likelihood(model.network, ids) * mask).sum(1) - before).chunk(2)
        loss = -torch.nn.functional.logsigmoid(beta * (good - bad)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()
        right = float((good > bad).float().mean())
    return right


async def one(seed: int, args: argparse.Namespace, runs: str) -> dict[str, Any]:
    """Imitation, a run, pairs, DPO; held-out rewards before and after."""
    rng = np.random.default_rng(seed)
    model = tiny.TinyModel(seed)
    shown = await learning.play(FAMILY, "oracle:honest", learning.seeds("train", 10_000, 256), runs)
    learning.imitate(model, [tiny.demonstrated(p.trajectory) for p in shown], 600, rng, until=args.until)
    held_out = learning.seeds("eval", 0, args.held_out)

    async def rewards() -> dict[str, list[float]]:
        found = defaultdict(list)
        for p in await learning.play(FAMILY, model, held_out, runs, trials=4, seed=seed, concurrency=1024):
            found[p.task_id].append(p.reward or 0.0)
        return found

    before = await rewards()
    tasks = learning.seeds("train", 20_000, args.tasks)
    with await learning.start(FAMILY, model, tasks, runs, trials=args.trials, seed=seed, concurrency=1024) as run:
        rows = list(export.dpo(export.choose(run), every=True))
    order = prefer(model, rows, args.steps, args.beta, rng)
    after = await rewards()
    gains = [list(np.subtract(after[task], own)) for task, own in before.items()]
    interval = bootstrap_mean(gains) or (float("nan"), float("nan"))
    return {
        "seed": seed, "pairs": len(rows), "in_order": round(order, 3),
        "reward_before": round(float(np.mean(list(before.values()))), 3),
        "reward_after": round(float(np.mean(list(after.values()))), 3),
        "gain": round(float(np.mean(gains)), 3),
        "low": round(interval[0], 3), "high": round(interval[1], 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--until", type=float, default=0.06, help="loss of a token at which imitation stops")
    parser.add_argument("--tasks", type=int, default=80, help="tasks of the saved run")
    parser.add_argument("--trials", type=int, default=8, help="episodes of each")
    parser.add_argument("--held-out", type=int, default=100, help="tasks to judge by, 4 episodes each")
    parser.add_argument("--steps", type=int, default=60, help="steps of 32 pairs")
    parser.add_argument("--beta", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(args.first, args.first + args.seeds):
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as runs:
            told = asyncio.run(one(seed, args, runs))
        print(json.dumps({**told, "cpu_s": round(time.process_time() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()
