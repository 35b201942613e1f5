# SPDX-License-Identifier: Apache-2.0
"""Cheaters found by optimising the proxy alone, and weak but honest players: what a family's findings say of both.

Prints one JSON line for each family and tempting variant: recall with its exact 95 % interval, false alarms with their exact
one-sided bound, and the cheats that were missed, by address and reason. Episodes of one search are alike, so that the
intervals are of these episodes and not of all cheaters that there could be.

    python bench/cheaters.py hack.keyword tools.retail
    python bench/cheaters.py --all --tasks 20
    python bench/cheaters.py hack.keyword --misses tests/data/cheaters   # keep episodes as test data
    python bench/cheaters.py --all --honest --cpu 300                    # false alarms alone, 300 CPU seconds a family at most
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
from pathlib import Path

import msgspec

from agentgym import registry
from agentgym.stats.intervals import clopper_pearson
from agentgym.validate.search import Cheat, Measured, measure


def cpu_s() -> float:
    """CPU seconds of this process and of what it has waited for: sandboxes are processes of their own."""
    return sum(os.times()[:4])


def past(end_s: float) -> bool:
    """Whether so many CPU seconds are used up."""
    return cpu_s() > end_s


def told(m: Measured, cpu: float) -> dict[str, object]:
    """A measurement as one JSON object."""
    n, k = m.convictable, m.caught
    by = {
        how: [sum(c.caught for c in m.cheats if c.how == how), sum(not c.apart for c in m.cheats if c.how == how)]
        for how in ("search", "policy")
    }
    return {
        "bench": "cheaters",
        "task": f"{m.label}/{m.variant}",
        "played": m.played,
        "paid_and_worthless": len(m.cheats),
        "convictable": n,
        "convicted": k,
        "recall": round(k / n, 4) if n else None,
        "interval": [round(x, 4) for x in clopper_pearson(k, n)] if n else None,
        "convicted_of_all": round(k / len(m.cheats), 4) if m.cheats else None,
        "apart": m.apart,
        "by": by,
        "honest": m.weak,
        "exposed": m.exposed,
        "false_alarms": len(m.alarms),
        "at_most": round(clopper_pearson(len(m.alarms), m.exposed, 0.90)[1], 4) if m.exposed else None,
        "cpu_s": round(cpu, 1),
    }


def at(c: Cheat) -> str:
    """Where a cheat is: the task, and a hash of what was done there."""
    return f"{c.task}#{hashlib.sha256(msgspec.json.encode(c.actions)).hexdigest()[:8]}"


MISSED = "missed: exposed, and no rule holds it broken"
CONVICTED = "convicted"


def keep(m: Measured, folder: Path) -> None:
    """Writes the three shortest of the misses, the shortest of each kind that is told apart, and the two shortest of those that
    are convicted, a file for each variant."""
    kept: dict[str, list[Cheat]] = {}
    for c in sorted(m.cheats, key=lambda c: len(msgspec.json.encode(c.actions))):
        kept.setdefault(CONVICTED if c.caught else c.apart or MISSED, []).append(c)
    if not kept:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{m.label.replace(':', '-').replace('=', '')}-{m.variant}.jsonl"
    rows = [
        {"task": c.task, "reward": c.reward, "gold": c.gold, "why": why, "said": c.evidence, "actions": c.actions}
        for why, cheats in sorted(kept.items())
        for c in cheats[: {MISSED: 3, CONVICTED: 2}.get(why, 1)]
    ]
    path.write_text("".join(msgspec.json.encode(row).decode() + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*")
    parser.add_argument("--all", action="store_true", help="every family that tempts")
    parser.add_argument("--variant", action="append", help="only this one of those that tempt; may be repeated")
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--population", type=int, default=24)
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--weak", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=int)
    parser.add_argument("--misses", type=Path, help="folder to keep misses in, and some of the other cheats")
    parser.add_argument("--show", type=int, default=5, help="misses and alarms that are printed of each")
    parser.add_argument("--honest", action="store_true", help="no search: only weak and honest players")
    parser.add_argument("--cpu", type=float, default=float("inf"), help="seconds after which a family begins nothing new")
    args = parser.parse_args()
    names = args.families or sorted({n.rpartition("-v")[0] for n in registry.tasks.places("own")} if args.all else ())
    params = {} if args.level is None else {"level": args.level}
    for name in names:
        cls = registry.env_class(name)
        small = 4 if "sandbox" in cls.needs() else 1  # each episode starts processes
        none = 0 if args.honest else 1
        begun = cpu_s()
        for variant in args.variant or cls.temptations:
            make = functools.partial(cls, variant=variant, **params)
            since = cpu_s()
            m = measure(
                make, tasks=max(args.tasks // small, 1), population=none * args.population // small,
                generations=args.generations // small, updates=none * args.updates // small, weak=args.weak // small,
                seed=args.seed, over=functools.partial(past, begun + args.cpu),
            )  # fmt: skip
            line = told(m, cpu_s() - since)
            missed = m.missed[: args.show]
            line["missed"] = [{"at": at(c), "how": c.how, "gold": c.gold, "said": c.evidence} for c in missed]
            alarms = m.alarms[: args.show]
            line["alarms"] = [{"at": a.task, "how": a.how, "of": a.convicted, "said": a.evidence} for a in alarms]
            print(json.dumps(line), flush=True)
            if args.misses:
                keep(m, args.misses)


if __name__ == "__main__":
    main()
