# SPDX-License-Identifier: Apache-2.0
"""Over-optimization of a proxy (Gao et al. 2023, arXiv 2210.10760): how far the best of n goes, and where proxies turn over.

1. KL of the best of n from the policy, on a policy that can be enumerated, beside log n - (n - 1) / n.
2. Proxies with errors of three kinds, gold + error: Gaussian errors never turn the gold curve over, heavy tails (Student t of
   2.2 degrees) and a rare exploit do.

    python bench/repro/overoptimization.py [--seeds 5]

A ladder of trained reward models is not part of this. Prints one JSON line for each part. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from agentgym.evaluators.credit import best_of_n, kl_best_of_n

SIZES = [2**i for i in range(11)]


def exact_kl(n: int, outcomes: int = 20_000) -> float:
    """In nats, on as many equally likely outcomes of different value."""
    q = np.diff((np.arange(outcomes + 1) / outcomes) ** n)
    q = q[q > 0]
    return float((q * np.log(q * outcomes)).sum())


def tails(seeds: int, samples: int = 60_000) -> dict[str, dict[str, float]]:
    """Gold of the best of n under three kinds of errors: at its peak, where that is, and at the greatest n."""
    kinds: dict[str, Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
        "gaussian": lambda rng, gold: (gold + rng.normal(size=len(gold)), gold),
        "student_t": lambda rng, gold: (gold + rng.standard_t(2.2, len(gold)), gold),
        "exploit": _exploited,
    }
    result = {}
    for name, kind in kinds.items():
        curves = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            proxy, gold = kind(rng, rng.normal(size=samples))
            curves.append(best_of_n(proxy, gold, SIZES))
        mean = np.mean(curves, 0)
        drop = np.array([c[mean.argmax()] - c[-1] for c in curves])
        result[name] = {
            "peak_n": SIZES[int(mean.argmax())], "peak": round(float(mean.max()), 3), "end": round(float(mean[-1]), 3),
            "turn_over": round(float(drop.mean()), 3), "standard_error": round(float(drop.std(ddof=1) / seeds**0.5), 3),
        }  # fmt: skip
    return result


def _exploited(rng: np.random.Generator, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One answer in a hundred has found something that pays and is bad."""
    found = rng.random(len(gold)) < 0.01
    gold = np.where(found, gold - 2.0, gold)
    return np.where(found, gold + 6.0, gold + 0.5 * rng.normal(size=len(gold))), gold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    begun = time.process_time()
    off = {n: exact_kl(n) - kl_best_of_n(n) for n in (1, 2, 4, 16, 64)}
    print(
        json.dumps(
            {
                "result": "KL of the best of n, nats: exact less log n - (n - 1) / n",
                "ours": {str(n): round(d, 6) for n, d in off.items()},
                "expected": "0 to 1e-3", "holds": max(map(abs, off.values())) < 1e-3,
            }
        )
    )  # fmt: skip
    kinds = tails(args.seeds)
    holds = kinds["gaussian"]["turn_over"] < 0.02 and all(kinds[k]["turn_over"] > 0.2 for k in ("student_t", "exploit"))
    print(
        json.dumps(
            {
                "result": "gold of the best of n by a proxy with errors of three kinds",
                "ours": kinds, "expected": "Gaussian errors never turn over, heavy tails and a rare exploit do", "holds": holds,
                "seeds": args.seeds, "cpu_s": round(time.process_time() - begun, 1),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
