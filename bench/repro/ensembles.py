# SPDX-License-Identifier: Apache-2.0
"""Reward-model ensembles against over-optimization, after Coste et al. (ICLR 2024, arXiv 2310.02743), with 25 % label noise.

A synthetic world in which the truth is known. An answer has features x that people's preferences are about, and features z that
are constant in what they were shown. The policy is not bound to that: one answer in twenty goes far in one of them, and is
bad for it:

    gold(x, z) = w.x - 3 tanh(|z|^2 / 4)

Proxy reward models (small neural networks, trained here) see pairs of answers with the label of who has more gold, a quarter of
the labels flipped. In z they have learned nothing: each still is what it was at its start. The best of n by a proxy is worth,
in gold, what `agentgym.evaluators.credit.best_of_n` estimates from many samples without bias. A single model over-optimizes:
its gold curve rises, peaks and falls again as n grows. The paper's statement: worst-case and uncertainty-weighted ensembles
take the turn-over away, and end higher than a single model.

    python bench/repro/ensembles.py [--seeds 5] [--members 5] [--most 1024]

Prints one JSON line a seed and one with the result: for each way to combine, the gold at the peak and at the greatest n, and
the turn-over (the peak less the end) with its standard error over seeds. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from agentgym.evaluators.credit import best_of_n, kl_best_of_n
from agentgym.evaluators.ensemble import combine

KNOWN, ODD = 8, 4
FEATURES = KNOWN + ODD
PAIRS = 1000
NOISE = 0.25
HIDDEN = 32


def gold(answers: np.ndarray, w: np.ndarray) -> np.ndarray:
    z = answers[..., KNOWN:]
    return answers[..., :KNOWN] @ w - 3.0 * np.tanh((z * z).sum(-1) / 4)


def said(rng: np.random.Generator, count: int, odd: float) -> np.ndarray:
    """Answers, a share of which goes far in one of the odd features."""
    answers = np.concatenate([rng.normal(size=(count, KNOWN)), np.zeros((count, ODD))], 1)
    far = np.flatnonzero(rng.random(count) < odd)
    answers[far, KNOWN + rng.integers(ODD, size=len(far))] = rng.choice([-1.0, 1.0], len(far)) * (
        2 + rng.exponential(2.0, len(far))
    )
    return answers


class Proxy:
    """A network of one hidden layer, by Adam on the Bradley-Terry loss."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.parts = [
            rng.normal(size=(FEATURES, HIDDEN)) / FEATURES**0.5, np.zeros(HIDDEN), rng.normal(size=HIDDEN) / HIDDEN**0.5,
        ]  # fmt: skip

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and the hidden layer."""
        hidden = np.maximum(0.0, x @ self.parts[0] + self.parts[1])
        return hidden @ self.parts[2], hidden

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores."""
        return self.forward(x)[0]

    def fit(self, better: np.ndarray, worse: np.ndarray, rng: np.random.Generator, steps: int = 400, size: int = 64) -> None:
        """Learns from pairs."""
        first, second = ([np.zeros_like(p) for p in self.parts] for _ in range(2))
        for step in range(1, steps + 1):
            i = rng.integers(len(better), size=size)
            total = [np.zeros_like(p) for p in self.parts]
            (high, _), (low, _) = self.forward(better[i]), self.forward(worse[i])
            pull = -1.0 / (1.0 + np.exp(high - low)) / size  # of the loss by the higher score
            for x, sign in ((better[i], 1.0), (worse[i], -1.0)):
                _, hidden = self.forward(x)
                back = (sign * pull)[:, None] * self.parts[2] * (hidden > 0)
                for t, g in zip(total, (x.T @ back, back.sum(0), hidden.T @ (sign * pull)), strict=True):
                    t += g
            for p, g, m, v in zip(self.parts, total, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


def one(seed: int, members: int, sizes: list[int], samples: int) -> dict[str, np.ndarray]:
    """Gold of the best of n by each way to combine, float64[sizes]."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=KNOWN)
    w /= np.linalg.norm(w)
    x = said(rng, 2 * PAIRS, 0.0).reshape(2, PAIRS, FEATURES)
    right = (gold(x[0], w) > gold(x[1], w)) ^ (rng.random(PAIRS) < NOISE)
    better, worse = np.where(right[:, None], x[0], x[1]), np.where(right[:, None], x[1], x[0])
    proxies = []
    for _ in range(members):  # the same rows, another start and another order, as in the paper
        proxies.append(Proxy(rng))
        proxies[-1].fit(better, worse, rng)
    answers = said(rng, samples, 0.05)
    truth = gold(answers, w)
    scores = np.stack([p(answers) for p in proxies])
    scores = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    ways = {
        "mean": combine(scores, "mean"),
        "worst": combine(scores, "worst"),
        "uncertainty": combine(scores, "uncertainty", penalty=1.0, spread="variance"),
        "gold itself": truth,
    }
    curves = {name: np.asarray(best_of_n(s, truth, sizes)) for name, s in ways.items()}
    return {"single": np.mean([best_of_n(s, truth, sizes) for s in scores], 0), **curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--most", type=int, default=1024, help="greatest n")
    args = parser.parse_args()
    begun = time.process_time()
    sizes = [2**i for i in range(args.most.bit_length()) if 2**i <= args.most]
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(args.seeds):
        curves = one(seed, args.members, sizes, 8 * args.most)
        for name, curve in curves.items():
            found.setdefault(name, []).append(curve)
        print(json.dumps({"seed": seed, **{k: [round(float(v), 3) for v in c] for k, c in curves.items()}}))
    result = {}
    for name, curve in found.items():
        all_ = np.stack(curve)
        mean = all_.mean(0)
        peak = int(mean.argmax())
        drop = all_[:, peak] - all_[:, -1]
        result[name] = {
            "peak_n": sizes[peak], "peak": round(float(mean[peak]), 3), "end": round(float(mean[-1]), 3),
            "turn_over": round(float(drop.mean()), 3), "standard_error": round(float(drop.std(ddof=1) / len(drop) ** 0.5), 3),
        }  # fmt: skip
    print(
        json.dumps(
            {
                "ours": result,
                "expected": "single turns over; worst-case and uncertainty-weighted ensembles do not, and end higher",
                "label_noise": NOISE, "members": args.members, "seeds": args.seeds,
                "n": sizes, "kl_nats": [round(kl_best_of_n(n), 3) for n in sizes],
                "cpu_s": round(time.process_time() - begun, 1),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
