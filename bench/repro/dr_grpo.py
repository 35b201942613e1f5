# SPDX-License-Identifier: Apache-2.0
"""Dr. GRPO (Liu et al. 2025, arXiv 2503.20783): dividing each answer's loss by its own length makes wrong answers grow.

A model of a hundred thousand weights answers `math.add` with a number and then says as many empty words as it likes. It has
imitated demonstrations half of which are right; the others copy the first number of the question, so that it can tell. The
number of empty words was drawn apart from all that and is worth nothing. From the same weights, on the same tasks and with the
same seeds it is then trained twice: by GRPO as published (each answer's loss divided by its own length, advantages by their
standard deviation), and by Dr. GRPO (neither). A long wrong answer is punished less for each of its tokens under the first.

    python bench/repro/dr_grpo.py [--seeds 3] [--steps 30]

Prints one JSON line for each seed and one with the result: how much longer answers that are wrong became, in tokens, on the
tasks that were trained on, with the 95 % interval of Student's t over seeds. Needs torch and transformers (extra ``hf``).
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "tiny_grpo"))

import learning
import tiny_model as tiny

from agentgym.chat import Message, assistant
from agentgym.stats.intervals import student_t
from agentgym.tokens import linearize
from agentgym.trajectory import Trajectory

FAMILY = "math.add"
RIGHT, GO_ON = 0.5, 0.85
"""Of the demonstrations: share that is right, and probability of one more empty word."""
ARMS = (("grpo", "grpo", "response"), ("dr_grpo", "dr_grpo", "constant"))
"""Name, baseline and weights of the loss, see `learning.improve`."""


def _answered(text: str) -> Message:
    """``7;`` or with a dot for each empty word, ``7...;``. A text that is cut keeps its answer: length is worth nothing."""
    number, rest = re.fullmatch("([0-9]*)(.*)", text, re.DOTALL).groups()
    return assistant((f"Answer: {number}" if number else "I do not know.") + "\n" + " ".join(["so"] * rest.count(".")))


SPEECH = tiny.Speech("wordy", "\0 0123456789+;.", 64, tiny.SUMS.rendered, _answered)


def demonstrations(shown: list[learning.Played], rng: np.random.Generator) -> list[Trajectory]:
    """Each oracle's episode several times, with the sum or the first number, and a length drawn apart from it."""
    made = []
    for p in shown:
        right = p.trajectory.turns[0].message.text
        first = re.findall("[0-9]+", p.trajectory.opening[0].text)[0]
        for _ in range(8):
            words = min(int(rng.geometric(1 - GO_ON)) - 1, SPEECH.most - 4)
            text = f"{right if rng.random() < RIGHT else first}{'.' * words};"
            made.append(tiny.demonstrated(p.trajectory, SPEECH, lambda _, text=text: text))
    return made


async def lengths(model: tiny.TinyModel, runs: str, seed: int) -> dict[str, float]:
    """Sampled tokens of wrong and of right answers, the share of right ones, and of those that are cut."""
    numbers = learning.seeds("train", 0, 80)
    played = await learning.play(FAMILY, model, numbers, runs, trials=8, seed=10**6 + seed, concurrency=1024)
    tokens = np.array([linearize(p.trajectory).sampled_tokens for p in played])
    right = np.array([p.gold == 1.0 for p in played])
    return {
        "wrong": float(tokens[~right].mean()), "right": float(tokens[right].mean()), "solved": float(right.mean()),
        "wrong_answers": float((~right).sum()), "cut": float((tokens == SPEECH.most).mean()),
    }  # fmt: skip


async def one(seed: int, args: argparse.Namespace, runs: str) -> dict[str, dict[str, float]]:
    """Both trainings of a seed."""
    rng = np.random.default_rng(seed)
    start = tiny.TinyModel(seed, SPEECH)
    shown = await learning.play(FAMILY, "oracle:honest", learning.seeds("train", 0, 200), runs)
    learning.imitate(start, demonstrations(shown, rng), args.imitation, rng)
    result = {"start": await lengths(start, runs, seed)}
    for name, baseline, weigh in ARMS:
        model = tiny.TinyModel(seed, SPEECH)
        model.network = copy.deepcopy(start.network)
        optimizer = torch.optim.AdamW(model.network.parameters(), lr=args.rate, weight_decay=0.0)
        for step in range(args.steps):
            numbers = learning.seeds("train", 1000 + 40 * step, args.tasks)
            played = await learning.play(FAMILY, model, numbers, runs, trials=8, seed=1000 * seed + step, concurrency=1024)
            learning.improve(model, optimizer, played, baseline=baseline, weigh=weigh)
        result[name] = await lengths(model, runs, seed)
    return result


def interval(values: list[float]) -> dict[str, float]:
    """Mean over seeds and its 95 % interval."""
    half = student_t(0.95, len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    mean = float(np.mean(values))
    return {"tokens": round(mean, 2), "low": round(mean - half, 2), "high": round(mean + half, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--imitation", type=int, default=500, help="steps of imitation")
    parser.add_argument("--steps", type=int, default=30, help="of training, in each arm")
    parser.add_argument("--tasks", type=int, default=24, help="tasks of a step, 8 episodes each")
    parser.add_argument("--rate", type=float, default=3e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    grown: dict[str, list[float]] = {"grpo": [], "dr_grpo": [], "difference": []}
    for seed in range(args.first, args.first + args.seeds):
        with tempfile.TemporaryDirectory() as runs:
            found = asyncio.run(one(seed, args, runs))
        told = {arm: {name: round(value, 2) for name, value in row.items()} for arm, row in found.items()}
        print(json.dumps({"seed": seed, **told, "cpu_s": round(time.process_time() - begun, 1)}), flush=True)
        for arm in ("grpo", "dr_grpo"):
            grown[arm].append(found[arm]["wrong"] - found["start"]["wrong"])
        grown["difference"].append(found["grpo"]["wrong"] - found["dr_grpo"]["wrong"])
    if args.seeds < 2:
        return
    ours: dict[str, Any] = {arm: interval(values) for arm, values in grown.items()}
    holds = ours["grpo"]["low"] > 0 and ours["difference"]["low"] > 0 and ours["dr_grpo"]["low"] <= 0
    print(
        json.dumps(
            {
                "result": "growth of wrong answers in training, tokens",
                "ours": ours, "expected": "above 0 under GRPO, not under Dr. GRPO", "holds": holds,
                "seeds": args.seeds, "cpu_s": round(time.process_time() - begun, 1),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
