# SPDX-License-Identifier: Apache-2.0
"""A tiny model learns a task of several turns on a CPU: a little imitation of the honest oracle, then GRPO on its own episodes.

    python examples/tiny_grpo/train.py --seed 0

Everything between the model and its update is agentgym's: episodes with exact tokens, rows with loss masks, advantages by
group, and a run on record for every step, which `agentgym view` replays. Prints JSON lines, the last one with the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_model as tiny

from agentgym import Sampling, Trajectory, aevaluate
from agentgym.env import in_split
from agentgym.tokens import linearize
from agentgym.training import advantages

FAMILY = "tools.lookup:level=1,most=4"


def seeds(split: str, start: int, count: int) -> list[int]:
    """So many task numbers of a split, from ``start`` on."""
    found: list[int] = []
    while len(found) < count:
        if in_split(start, split):
            found.append(start)
        start += 1
    return found


async def play(model: Any, numbers: list[int], runs: str, **options: Any) -> list[tuple[Trajectory, float | None, str]]:
    """Episodes with their tokens and rewards, kept in a run."""
    with await aevaluate([f"{FAMILY}/control/{n}" for n in numbers], model, runs=runs, **options) as run:
        return [(e.trajectory, e.reward, e.task_id) for e in run.episodes()]


def imitate(model: tiny.TinyModel, demonstrations: list[Trajectory], steps: int, rng: np.random.Generator) -> float:
    """Behaviour cloning: likelihood of what the oracle did, on its own tokens alone. Returns the last loss."""
    rows = [row for d in demonstrations for row in linearize(tiny.demonstrated(d)).rows]
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-3)
    loss = torch.zeros(())
    for _ in range(steps):
        batch = [rows[i] for i in rng.integers(len(rows), size=64)]
        ids, _ = tiny.padded([r.token_ids for r in batch])
        mask, _ = tiny.padded([r.loss_mask.astype(np.float32) for r in batch])
        loss = -(tiny.log_likelihood(model.network, ids) * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def improve(
    model: tiny.TinyModel, optimizer: torch.optim.Optimizer, played: list[tuple[Trajectory, float | None, str]]
) -> dict[str, float]:
    """One GRPO step (clipped ratio, no KL term) on the episodes of the present weights."""
    found = advantages([reward for _, reward, _ in played], [task for _, _, task in played])
    batch = [
        (row, advantage)
        for (trajectory, _, _), advantage, used in zip(played, found.values, found.used, strict=True)
        if used
        for row in linearize(trajectory).rows
    ]
    ids, _ = tiny.padded([row.token_ids for row, _ in batch])
    mask, _ = tiny.padded([row.loss_mask.astype(np.float32) for row, _ in batch])
    old, _ = tiny.padded([row.logprobs for row, _ in batch])
    advantage = torch.tensor([a for _, a in batch], dtype=torch.float32)[:, None]
    new = tiny.log_likelihood(model.network, ids)
    ratio = torch.exp((new - old) * mask)
    loss = -(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * mask).sum() / mask.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
    optimizer.step()
    model.version += 1
    rewards = [reward for _, reward, _ in played if reward is not None]
    return {
        "reward": round(float(np.mean(rewards)), 3),
        "flat_groups": round(found.flat_share, 2),
        "logprob_error": float(((new.detach() - old).abs() * mask).max()),
    }


async def train(args: argparse.Namespace, runs: str) -> dict[str, Any]:
    """Imitation, then on-policy steps; solve rates on held-out tasks, greedy, before and after."""
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    model = tiny.TinyModel(args.seed)
    greedy = {"sampling": Sampling(temperature=0.0), "concurrency": 256}
    held_out = seeds("eval", 0, args.held_out)

    async def solved() -> float:
        return float(np.mean([reward or 0.0 for _, reward, _ in await play(model, held_out, runs, **greedy)]))

    begun = time.process_time()
    shown = await play("oracle:honest", seeds("train", 10_000, args.demonstrations), runs)
    loss = imitate(model, [t for t, _, _ in shown], args.imitation, rng)
    before = await solved()
    print(
        json.dumps({"imitation": round(loss, 3), "solved": before, "cpu_s": round(time.process_time() - begun, 1)}), flush=True
    )
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=args.rate, weight_decay=0.0)
    error = 0.0
    for step in range(args.steps):
        numbers = seeds("train", 20_000 + 100 * step, args.tasks)
        played = await play(model, numbers, runs, trials=args.group, seed=args.seed * 1000 + step, concurrency=512)
        told = improve(model, optimizer, played)
        error = max(error, told["logprob_error"])
        if step % 10 == 0 or step == args.steps - 1:
            print(json.dumps({"step": step, **told, "cpu_s": round(time.process_time() - begun, 1)}), flush=True)
    after = await solved()
    return {
        "seed": args.seed,
        "held_out": len(held_out),
        "solved_after_imitation": before,
        "solved_after_grpo": after,
        "largest_logprob_error": error,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "cpu_s": round(time.process_time() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demonstrations", type=int, default=64, help="episodes of the honest oracle to imitate")
    parser.add_argument("--imitation", type=int, default=100, help="steps of imitation")
    parser.add_argument("--steps", type=int, default=80, help="steps of GRPO")
    parser.add_argument("--tasks", type=int, default=8, help="tasks of a step")
    parser.add_argument("--group", type=int, default=16, help="episodes of each task")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of GRPO")
    parser.add_argument("--held-out", type=int, default=200, help="tasks to judge by, none of which is trained on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", help="folder for the runs; none: they are thrown away")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        print(json.dumps(asyncio.run(train(args, args.runs or thrown_away))))


if __name__ == "__main__":
    main()
