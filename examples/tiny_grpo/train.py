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

import learning
import tiny_model as tiny

from agentgym import Sampling

FAMILY = "tools.lookup:level=1,most=4"


async def train(args: argparse.Namespace, runs: str) -> dict[str, Any]:
    """Imitation, then on-policy steps; solve rates on held-out tasks, greedy, before and after."""
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    model = tiny.TinyModel(args.seed, hidden=128, layers=3)
    greedy = {"sampling": Sampling(temperature=0.0), "concurrency": 256}
    held_out = learning.seeds("eval", 0, args.held_out)

    async def solved() -> float:
        return float(np.mean([p.reward or 0.0 for p in await learning.play(FAMILY, model, held_out, runs, **greedy)]))

    begun = time.process_time()
    shown = await learning.play(FAMILY, "oracle:honest", learning.seeds("train", 10_000, args.demonstrations), runs)
    loss = learning.imitate(
        model, [tiny.demonstrated(p.trajectory) for p in shown], args.imitation, rng, rate=1e-3, batch_size=64
    )
    before = await solved()
    print(
        json.dumps({"imitation": round(loss, 3), "solved": before, "cpu_s": round(time.process_time() - begun, 1)}), flush=True
    )
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=args.rate, weight_decay=0.0)
    error = 0.0
    for step in range(args.steps):
        numbers = learning.seeds("train", 20_000 + 100 * step, args.tasks)
        played = await learning.play(
            FAMILY, model, numbers, runs, trials=args.group, seed=args.seed * 1000 + step, concurrency=512
        )
        told = learning.improve(model, optimizer, played)
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
    parser.add_argument("--steps", type=int, default=50, help="steps of GRPO")
    parser.add_argument("--tasks", type=int, default=8, help="tasks of a step")
    parser.add_argument("--group", type=int, default=16, help="episodes of each task")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of GRPO")
    parser.add_argument("--held-out", type=int, default=200, help="tasks to judge by, none of which is trained on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", help="folder for the runs; none: they are thrown away")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        print(json.dumps(asyncio.run(train(args, args.runs or thrown_away))))


if __name__ == "__main__":
    main()
