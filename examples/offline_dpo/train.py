# SPDX-License-Identifier: Apache-2.0
"""A model gets better from a saved run alone: pairs of its own episodes, and direct preference optimization (DPO).

    python examples/offline_dpo/train.py --seeds 3

1. A tiny model imitates answers to `math.add` half of which are right; the others copy the first number of the question. It
   then plays each of some tasks several times, on record.
2. The run becomes pairs, as ``agentgym export --format dpo --all-pairs`` writes them: a right and a wrong answer to the same
   question, both of them the model's own.
3. DPO (Rafailov et al. 2023, arXiv 2305.18290) on the pairs, with some of the likelihood of what was chosen (Pang et al. 2024,
   arXiv 2404.19733). Nothing is played in between.
4. Held-out tasks are played before and after, with the same seeds of sampling: the gain, and its interval over tasks.

What to look at besides the gain is ``chosen``: DPO is content where the wrong answer loses more than the right one, and a right
one that becomes less likely as well is not what was wanted (likelihood displacement, Razin et al. 2024, arXiv 2410.08847).
Prints one JSON line for each seed. Needs torch and transformers (extra ``hf``).
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny_grpo"))

import learning
import tiny_model as tiny

from agentgym.chat import Message
from agentgym.stats.intervals import bootstrap_mean
from agentgym.training import export
from agentgym.trajectory import Trajectory

FAMILY = "math.add"


def demonstrations(shown: list[learning.Played], rng: np.random.Generator) -> list[Trajectory]:
    """Each oracle's episode several times, with the sum or with the first number."""
    made = []
    for p in shown:
        right = p.trajectory.turns[0].message.text
        first = re.findall("[0-9]+", p.trajectory.opening[0].text)[0]
        for _ in range(8):
            text = f"{right if rng.random() < 0.5 else first};"
            made.append(tiny.demonstrated(p.trajectory, tiny.SUMS, lambda _, text=text: text))
    return made


def encoded(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Exported pairs as the model's ids, and masks of what it answered: what was chosen first, then what was rejected."""
    ids, masks = [], []
    for side in ("chosen", "rejected"):
        for row in rows:
            asked = tiny.SUMS.encode(tiny.SUMS.rendered([Message(m["role"], m["content"]) for m in row["prompt"]]))
            said = tiny.SUMS.encode("".join(re.findall("[0-9]+", row[side][0]["content"])) + ";")
            ids.append(np.concatenate([asked, said]))
            masks.append(np.concatenate([np.zeros(len(asked), np.float32), np.ones(len(said), np.float32)]))
    return tiny.padded(ids)[0], tiny.padded(masks)[0]


def prefer(
    model: tiny.TinyModel, rows: list[dict[str, Any]], args: argparse.Namespace, rng: np.random.Generator
) -> dict[str, float]:
    """DPO against the weights that played the run.

    Returns: means over the last ten steps: share of pairs ``in_order``, and by how much the log-probability of ``chosen`` and
    ``rejected`` answers has changed.
    """
    reference = copy.deepcopy(model.network)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=args.rate, weight_decay=0.0)
    told = []
    for _ in range(args.steps):
        ids, mask = encoded([rows[i] for i in rng.integers(len(rows), size=64)])
        with torch.no_grad():
            before = (tiny.log_likelihood(reference, ids) * mask).sum(1)
        now = (tiny.log_likelihood(model.network, ids) * mask).sum(1)
        good, bad = (now - before).chunk(2)
        likelihood = now.chunk(2)[0] / mask.chunk(2)[0].sum(1)
        loss = -torch.nn.functional.logsigmoid(args.beta * (good - bad)).mean() - args.likelihood * likelihood.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()
        told.append([float(v) for v in ((good > bad).float().mean(), good.detach().mean(), bad.detach().mean())])
    return dict(zip(("in_order", "chosen", "rejected"), np.mean(told[-10:], 0).round(3).tolist(), strict=True))


async def one(seed: int, args: argparse.Namespace, runs: str) -> dict[str, Any]:
    """Imitation, a run, pairs, DPO; held-out rewards before and after."""
    rng = np.random.default_rng(seed)
    model = tiny.TinyModel(seed, tiny.SUMS)
    shown = await learning.play(FAMILY, "oracle:honest", learning.seeds("train", 0, 200), runs)
    learning.imitate(model, demonstrations(shown, rng), args.imitation, rng)
    held_out = learning.seeds("eval", 0, args.held_out)

    async def rewards() -> dict[str, list[float]]:
        found = defaultdict(list)
        for p in await learning.play(FAMILY, model, held_out, runs, trials=8, seed=seed, concurrency=1024):
            found[p.task_id].append(p.reward or 0.0)
        return found

    before = await rewards()
    tasks = learning.seeds("train", 20_000, args.tasks)
    with await learning.start(FAMILY, model, tasks, runs, trials=args.trials, seed=seed, concurrency=1024) as run:
        rows = list(export.dpo(export.choose(run), every=True))
    learned = prefer(model, rows, args, rng)
    after = await rewards()
    gains = [list(np.subtract(after[task], own)) for task, own in before.items()]
    low, high = bootstrap_mean(gains) or (float("nan"), float("nan"))
    return {
        "seed": seed, "pairs": len(rows), **learned,
        "reward_before": round(float(np.mean(list(before.values()))), 3),
        "reward_after": round(float(np.mean(list(after.values()))), 3),
        "gain": round(float(np.mean(gains)), 3), "low": round(low, 3), "high": round(high, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--imitation", type=int, default=250, help="steps of imitation")
    parser.add_argument("--tasks", type=int, default=80, help="tasks of the saved run")
    parser.add_argument("--trials", type=int, default=8, help="episodes of each")
    parser.add_argument("--held-out", type=int, default=80, help="tasks to judge by, 8 episodes each")
    parser.add_argument("--steps", type=int, default=60, help="steps of 64 pairs")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--likelihood", type=float, default=0.3, help="weight of the likelihood of what is chosen; 0: DPO")
    parser.add_argument("--rate", type=float, default=3e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(args.first, args.first + args.seeds):
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as runs:
            told = asyncio.run(one(seed, args, runs))
        print(json.dumps({**told, "cpu_s": round(time.process_time() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main()
