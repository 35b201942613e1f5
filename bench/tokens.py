# SPDX-License-Identifier: Apache-2.0
"""What the harness costs when every turn carries its exact tokens: scripted turns through the real loop, kept and committed.

The prompt begins with about 100 tokens and grows by what is said and answered, as it does with a model; 20 tokens are sampled
in a turn. Prints one JSON line.

    python bench/tokens.py --episodes 5000 --turns 5
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bank import Bank

import agentgym
from agentgym import call, submit
from agentgym.protocols import Completion, PolicyBase, Tokens, Usage


class Scripted(PolicyBase):
    """Says its script, with tokens. They are drawn once: what a sampler costs is not the harness's."""

    name = "bench:tokens"

    def __init__(self, script: Sequence[Any], *, prompt: int, output: int, observation: int) -> None:
        rng = np.random.default_rng(0)
        self.turns: list[tuple[Any, Usage, np.ndarray, np.ndarray, np.ndarray]] = []
        held = rng.integers(0, 150_000, prompt, dtype=np.int32)
        for message in script:
            said = rng.integers(0, 150_000, output, dtype=np.int32)
            told = rng.normal(-1, 0.5, output).astype(np.float32)
            self.turns.append((message, Usage(len(held), output), said, told, held))
            held = np.concatenate([held, said, rng.integers(0, 150_000, observation, dtype=np.int32)])
        self.versions = np.zeros(output, np.int32)

    async def act(self, conversation: Any, tools: Any, sampling: Any) -> Completion:
        """The turn whose number is that of the answers so far."""
        said = 0
        for message in conversation:
            said += message.role == "assistant"
        message, usage, output, logprobs, prompt = self.turns[said]
        tokens = Tokens(output, logprobs, prompt, self.versions, stop_token_in_output=True)
        return Completion(message, usage, "tool_calls", tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=5000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--prompt", type=int, default=100, help="tokens of the first prompt")
    parser.add_argument("--output", type=int, default=20, help="sampled tokens of each turn")
    parser.add_argument("--observation", type=int, default=20, help="tokens of what the environment answers")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    script = [call("deposit", account="a1", cents=1)] * (args.turns - 1) + [submit(status="done")]
    policy = Scripted(script, prompt=args.prompt, output=args.output, observation=args.observation)
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    profiler = None
    try:
        # imports and compiled schemas are paid before: they belong to `startup.py`
        agentgym.evaluate(Bank, policy, params={"turns": args.turns}, limit=2, runs=folder).close()
        if args.profile:
            import cProfile

            profiler = cProfile.Profile()
            profiler.enable()
        before = time.process_time()
        run = agentgym.evaluate(
            Bank, policy, params={"turns": args.turns}, limit=args.episodes, concurrency=args.concurrency, runs=folder
        )
        cpu = time.process_time() - before
        if profiler is not None:
            profiler.disable()
            import pstats

            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
        trajectory = next(iter(run.episodes())).trajectory
        kept = trajectory.tokens
        assert kept is not None
        assert all(k is not None and np.array_equal(k.output_ids, t[2]) and np.array_equal(k.prompt_ids, t[4])
                   for k, t in zip(kept, policy.turns, strict=True))  # fmt: skip
        turns = args.episodes * args.turns
        size = sum(f.stat().st_size for f in run.path.iterdir())
        del args.profile
        print(
            json.dumps(
                {
                    "bench": "tokens",
                    **vars(args),
                    "turns_per_cpu_s": round(turns / cpu),
                    "cpu_s": round(cpu, 3),
                    "bytes_per_turn": round(size / turns),
                }
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
