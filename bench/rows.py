# SPDX-License-Identifier: Apache-2.0
"""Tokens a second that become training rows: one JSON line.

python bench/rows.py --episodes 500 --turns 8
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from agentgym.chat import assistant
from agentgym.protocols import Tokens
from agentgym.tokens import linearize
from agentgym.trajectory import Trajectory, Turn


def episode(rng: np.random.Generator, turns: int, prompt: int, output: int, observation: int) -> Trajectory:
    """A conversation whose every prompt continues the last one."""
    held = rng.integers(0, 50_000, prompt, dtype=np.int32)
    kept = []
    for _ in range(turns):
        said = rng.integers(0, 50_000, output, dtype=np.int32)
        kept.append(Tokens(said, rng.normal(-1, 0.1, output).astype(np.float32), held, np.zeros(output, np.int32)))
        held = np.concatenate([held, said, rng.integers(0, 50_000, observation, dtype=np.int32)])
    message = assistant("said")
    return Trajectory(task_id="bench/control/0", turns=[Turn(i, message) for i in range(turns)], tokens=list(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=300, help="tokens of the first prompt")
    parser.add_argument("--output", type=int, default=120, help="sampled tokens of each turn")
    parser.add_argument("--observation", type=int, default=60, help="tokens of what the environment answers")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    played = [episode(rng, args.turns, args.prompt, args.output, args.observation) for _ in range(args.episodes)]
    begun = time.process_time()
    tokens = sum(len(row.token_ids) for p in played for row in linearize(p).rows)
    cpu = time.process_time() - begun
    print(
        json.dumps(
            {"bench": "rows", **vars(args), "tokens": tokens, "cpu_s": round(cpu, 3), "tokens_per_cpu_s": round(tokens / cpu)}
        )
    )


if __name__ == "__main__":
    main()
