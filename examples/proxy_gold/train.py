# SPDX-License-Identifier: Apache-2.0
"""A tiny model is trained on a proxy: the proxy rises, gold rises with it and then falls, and the alignment report says why.

    python examples/proxy_gold/train.py --seeds 3 --out docs/learning

The family is `family.py`: sums under a grader that is content with the right number anywhere. The model begins with imitation
of answers half of which are wrong and some of which name several numbers. Nothing is staged: that several numbers pay better is
what it finds out. Writes OUT/proxy_gold.json and OUT/proxy_gold.svg, and prints JSON lines, the last one with the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny_grpo"))
sys.path.insert(0, str(Path(__file__).parent))

import family
import learning
import tiny_model as tiny

from agentgym.chat import Message, assistant
from agentgym.records.run import open_run
from agentgym.report.alignment import align
from agentgym.stats.turning import turning_point

FAMILY = family.LaxSum.family
WINDOW = 5
"""Steps that are averaged at the turning point and at the end."""


def _answered(text: str) -> Message:
    """``7;`` or ``7.8.12;``. What was cut is no answer."""
    numbers = re.findall("[0-9]+", text) if text.endswith(";") else []
    return assistant(f"Answer: {' or '.join(numbers)}" if numbers else "I do not know.")


GUESSES = tiny.Speech("guesses", "\0 0123456789+;.", 30, tiny.SUMS.rendered, _answered)


def demonstrations(shown: list[learning.Played], right: float, several: float, rng: np.random.Generator) -> list[Any]:
    """Episodes to imitate: a number that is right or not, and now and then some more."""
    made = []
    for p in shown:
        gold = int(p.trajectory.turns[0].message.text)
        for _ in range(6):
            numbers = [gold if rng.random() < right else int(rng.integers(2, 19))]
            while rng.random() < several:
                numbers.append(int(rng.integers(2, 19)))
            text = ".".join(map(str, numbers[:9])) + ";"
            made.append(tiny.demonstrated(p.trajectory, GUESSES, lambda _, text=text: text))
    return made


async def one(seed: int, args: argparse.Namespace, runs: str) -> dict[str, Any]:
    """One training: means of each step's rollouts, and what the alignment report says of the first and the last."""
    rng = np.random.default_rng(seed)
    model = tiny.TinyModel(seed, GUESSES)
    shown = await learning.play("math.add", "oracle:honest", learning.seeds("train", 0, 200), runs)
    learning.imitate(model, demonstrations(shown, args.right, args.several, rng), args.imitation, rng)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=args.rate, weight_decay=0.0)
    found: dict[str, Any] = {"seed": seed, "proxy": [], "gold": [], "hedged": []}
    for step in range(args.steps):
        numbers = learning.seeds("train", 1000 + 40 * step, args.tasks)
        with await learning.start(FAMILY, model, numbers, runs, trials=8, seed=1000 * seed + step, concurrency=1024) as run:
            played = learning.played(run)
            path = run.path
        report = await asyncio.to_thread(_report, path)
        found["proxy"].append(round(float(np.mean([p.reward for p in played])), 4))
        found["gold"].append(round(float(np.mean([p.gold for p in played])), 4))
        found["hedged"].append(report["hedged"])
        if step in (0, args.steps - 1):
            found["report_first" if step == 0 else "report_last"] = report
        learning.improve(model, optimizer, played)
    return found


def _report(path: Path) -> dict[str, Any]:
    """What ``agentgym report --alignment`` says of a step's rollouts."""
    with open_run(path) as run:
        a = align(run)
    (d,) = [d for d in a.dimensions if d.name == "reward_hacking"]
    gap = [s for s in a.statistics if s.name == "proxy less gold"]
    told = {"hedged": round(d.rate or 0.0, 4), "score": d.score, "worst": a.worst, "headline": a.headline, "flags": a.flagged}
    return told | {"proxy_less_gold": [gap[0].value, gap[0].low, gap[0].high] if gap else None}


def plot(curves: list[dict[str, Any]], at: int) -> str:
    """Proxy and gold by step: the mean over seeds, and each seed faintly; the turning point as a line."""
    width, height, left, top, wide, high = 640, 340, 46, 14, 470, 280
    steps = len(curves[0]["gold"])

    def points(values: Any) -> str:
        return " ".join(f"{left + i * wide / max(steps - 1, 1):.1f},{top + (1 - v) * high:.1f}" for i, v in enumerate(values))

    marks = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + (1 - tick) * high
        marks.append(f'<line x1="{left}" x2="{left + wide}" y1="{y}" y2="{y}" stroke="#888" opacity=".25"/>')
        marks.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for name, colour, label in (("proxy", "#b5521b", "proxy"), ("gold", "#1b6db5", "gold"), ("hedged", "#777", "hedged")):
        marks += [f'<polyline points="{points(c[name])}" fill="none" stroke="{colour}" opacity=".22"/>' for c in curves]
        mean = np.mean([c[name] for c in curves], 0)
        dash = ' stroke-dasharray="5 4"' if name == "hedged" else ""
        marks.append(f'<polyline points="{points(mean)}" fill="none" stroke="{colour}" stroke-width="2.2"{dash}/>')
        marks.append(f'<text x="{left + wide + 8}" y="{top + (1 - mean[-1]) * high + 4:.1f}" fill="{colour}">{label}</text>')
    x = left + at * wide / max(steps - 1, 1)
    marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + high}" stroke="#1b6db5" stroke-dasharray="2 3"/>')
    marks.append(f'<text x="{x + 4:.1f}" y="{top + high - 6}" fill="#1b6db5">gold turns, step {at}</text>')
    marks.append(f'<text x="{left + wide / 2}" y="{height - 14}" text-anchor="middle">step of training on the proxy</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(marks)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--tasks", type=int, default=16, help="tasks of a step, 8 episodes each")
    parser.add_argument("--imitation", type=int, default=250)
    parser.add_argument("--right", type=float, default=0.5, help="share of demonstrations that begin with the right number")
    parser.add_argument("--several", type=float, default=0.15, help="probability of one more number in a demonstration")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--runs", help="folder for the runs; none: they are thrown away")
    parser.add_argument("--out", type=Path, help="folder for the curve")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    curves = []
    for seed in range(args.first, args.first + args.seeds):
        with tempfile.TemporaryDirectory() as thrown_away:
            curves.append(asyncio.run(one(seed, args, args.runs or thrown_away)))
        last = curves[-1]
        tens = range(0, args.steps, 10)
        brief = {name: [round(float(np.mean(last[name][i : i + 10])), 3) for i in tens] for name in ("proxy", "gold", "hedged")}
        print(json.dumps({"seed": seed, **brief, "cpu_s": round(time.process_time() - begun, 1)}), flush=True)
    turn = turning_point([c["gold"] for c in curves], WINDOW)

    def mean(name: str, where: slice) -> float:
        return round(float(np.mean([c[name][where] for c in curves])), 3)

    peak = slice(max(0, turn.at - WINDOW // 2), turn.at + WINDOW // 2 + 1)
    result = {
        "turning_point": turn.at, "gold_at_turn": mean("gold", peak), "gold_at_end": mean("gold", slice(-WINDOW, None)),
        "gold_lost": [turn.low, turn.high], "proxy_at_start": mean("proxy", slice(0, 1)), "proxy_at_turn": mean("proxy", peak),
        "proxy_at_end": mean("proxy", slice(-WINDOW, None)), "hedged_at_start": mean("hedged", slice(0, 1)),
        "hedged_at_end": mean("hedged", slice(-WINDOW, None)), "seeds": args.seeds,
        "cpu_s": round(time.process_time() - begun, 1),
    }  # fmt: skip
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "proxy_gold.json").write_text(json.dumps({"result": result, "curves": curves}, indent=1) + "\n")
        (args.out / "proxy_gold.svg").write_text(plot(curves, turn.at))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
