# SPDX-License-Identifier: Apache-2.0
"""``agentgym plan``: what a suite can tell, and how many clusters, tasks, trials and dollars it takes to tell more."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from agentgym.cli.main import OK
from agentgym.gate import sources
from agentgym.gate.plan import Design, Plan, plan
from agentgym.gate.rules import Rules, for_rows, read_rules
from agentgym.report.screen import Column, Table, console, say
from agentgym.report.text import plain

_SHOWN_CLUSTERS = (5, 10, 20, 50, 100)
_SHOWN_TRIALS = (1, 4, 8)


def run(args: argparse.Namespace) -> int:
    """Prints the plan."""
    rows = sources.load(args.baseline, args.runs)
    rules = for_rows(read_rules(Path(args.rules)) if args.rules else Rules(), rows, rows)
    found = plan(rows, rules, power=args.power, delta=args.delta)
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        _print(found)
    return OK


def _print(p: Plan) -> None:
    out = console()
    say(
        out,
        plain(
            f"{p.metric}: to call a drop of {p.delta:g} a REGRESSION, and to pass what did not change, each in {p.power:.0%}"
        ),
    )
    table = Table(
        [Column(""), *(Column(n, "right") for n in ("clusters", "tasks", "trials", "episodes", "tokens", "cost")),
         Column("found", "right"), Column("passed", "right"), Column("smallest drop found", "right", drop=1)]
    )  # fmt: skip
    rows = [("now", p.current), *((f"option {i}", d) for i, d in enumerate(p.designs, 1))]
    for name, design in rows:
        table.add(name, *_cells(design))
    out.print(table)
    smallest = {(clusters, trials): drop for clusters, trials, drop in p.mde_table}
    if smallest:
        say(out, f"smallest drop found in {p.power:.0%}, with as many tasks a cluster as now:", "dim")
        table = Table([Column("clusters", "right"), *(Column(f"{k} trial{'s' * (k > 1)}", "right") for k in _SHOWN_TRIALS)])
        for clusters in _SHOWN_CLUSTERS:
            drops = [smallest.get((clusters, k)) for k in _SHOWN_TRIALS]
            table.add(f"{clusters}", *("-" if d is None else f"{d:.3f}" for d in drops))
        out.print(table)
    for family in p.families:
        if family.tested and family.mde is not None:
            say(out, plain(f"{family.family}: {family.tasks} tasks, tested on its own, finds a drop of {family.mde:.3f}"))
    for note in p.notes:
        say(out, plain(f"note: {note}"), "yellow")


def _cells(d: Design) -> list[str]:
    cost = f"${d.cost_usd:.2f}" if d.cost_usd else "-"
    drop = "-" if d.mde is None else f"{d.mde:.3f}"
    counts = [f"{n:,}" for n in (d.clusters, d.tasks, d.trials, d.episodes)]
    return [*counts, f"{d.tokens:,}" if d.tokens else "-", cost, f"{d.found:.0%}", f"{d.passed:.0%}", drop]
