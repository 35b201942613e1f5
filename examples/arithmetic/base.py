# SPDX-License-Identifier: Apache-2.0
"""What a model can do before `agentgym train` touches it, read as kindly as possible: the last number it says, and pass@k.

    python examples/arithmetic/base.py --runs runs

Plays the held-out tasks that ``agentgym train math.add -T level=3 -T round=true`` judges by, once greedily and ``--k`` times at
temperature 1, with room for a sentence. An answer counts as right if the last number in it is the sum, whatever stands around
it. What training gains beyond this it did not gain by teaching the form of the answer. Both plays are runs on record. Prints
one JSON line. Needs torch and transformers (extra ``trl``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections import defaultdict

import numpy as np

from agentgym import Sampling, aevaluate
from agentgym.records.run import Run
from agentgym.stats.intervals import bootstrap_mean
from agentgym.stats.passk import pass_at_k
from agentgym.training.run import Training, held_out
from agentgym.training.weights import weights


def last_number(text: str) -> str | None:
    """The last whole number anywhere in a text.

    >>> last_number("Sure! 700 + 1,099 is 1,799."), last_number("none")
    ('1799', None)
    """
    found = re.findall("[0-9]+", re.sub("(?<=[0-9]),(?=[0-9]{3})", "", text))
    return found[-1] if found else None


def rights(run: Run) -> tuple[dict[str, list[float]], float]:
    """Whether the last number is the sum, by task and trial; and the share that the family's own verifier calls right."""
    found: dict[str, list[float]] = defaultdict(list)
    gold = []
    for e in run.episodes():
        if e.gold is None:
            raise SystemExit(f"{e.address} could not be scored ({e.error}): nothing is said of the model")
        found[e.task_id].append(float(last_number(e.trajectory.final_text) == e.task.gold))
        gold.append(e.gold)
    return found, float(np.mean(gold))


async def measured(args: argparse.Namespace, runs: str) -> dict[str, object]:
    """Both plays."""
    model = f"hf:{weights(args.model)}"  # the very weights that `agentgym train` begins with
    ids = held_out(Training((args.family,), args.model, held_out=args.held_out))

    async def play(temperature: float, trials: int) -> tuple[dict[str, list[float]], float]:
        sampling = Sampling(temperature=temperature, max_tokens=args.max_tokens)
        with await aevaluate(ids, model, trials=trials, sampling=sampling, runs=runs) as run:
            return rights(run)

    greedy, strict = await play(0.0, 1)
    sampled, sampled_strict = await play(1.0, args.k)
    solved = [sum(s) for s in sampled.values()]
    low, high = bootstrap_mean(list(greedy.values())) or (None, None)
    return {
        "model": args.model, "family": args.family, "held_out": len(ids),
        "greedy_last_number": round(float(np.mean(list(greedy.values()))), 3), "low": low, "high": high,
        "greedy_verifier": round(strict, 3),
        "pass@1_last_number": round(float(np.mean(solved)) / args.k, 3), "pass@1_verifier": round(sampled_strict, 3),
        f"pass@{args.k}_last_number": round(float(pass_at_k([args.k] * len(solved), solved, args.k).mean()), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="local:smollm2", help="local:NAME, gguf:FILE or hf:FOLDER")
    parser.add_argument("--family", default="math.add:level=3,round=true")
    parser.add_argument("--held-out", type=int, default=200, help="tasks")
    parser.add_argument("--k", type=int, default=32, help="samples of each task")
    parser.add_argument("--max-tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--runs", help="folder for the runs; none: they are thrown away")
    args = parser.parse_args()
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as thrown_away:
        told = asyncio.run(measured(args, args.runs or thrown_away))
    print(json.dumps({**told, "cpu_s": round(time.process_time() - begun, 1)}))


if __name__ == "__main__":
    main()
