# SPDX-License-Identifier: Apache-2.0
"""``agentgym validate``: whether tasks are fit to judge and to train by."""

from __future__ import annotations

import argparse
import json

import msgspec
from rich.console import Console
from rich.text import Text

from agentgym import registry
from agentgym.cli.main import OK
from agentgym.errors import UsageError
from agentgym.report.screen import console
from agentgym.report.text import plain
from agentgym.rollout.selection import Choice, resolve
from agentgym.validate import Family, MutantReport, Report

FAILED = 1
"""Exit code where a check does not hold."""


def run(args: argparse.Namespace) -> int:
    """Checks the tasks and prints a sentence for each check that fails, and one line for each environment."""
    if args.seeds < 1:
        raise UsageError("--seeds is how many tasks of each environment are checked, at least 1")
    if bool(args.tasks) == args.all:
        raise UsageError("name the tasks to validate (a family, a prefix, file.py[:Class]), or say --all")
    selectors = args.tasks or sorted(registry.families())
    params = dict(pair.partition("=")[::2] for pair in args.params)
    out = console()
    reports: list[Report] = []
    mutated: list[MutantReport] = []
    skipped = 0
    done: set[tuple[str, str]] = set()
    for selector in selectors:
        try:
            plan = resolve([selector], Choice(limit=1, params=params, data=args.data))
        except UsageError as e:
            if not args.all:
                raise
            skipped += 1  # a family over data that are not here; whoever names it is told so as an error
            _skip(out, selector, str(e), args.json)
            continue
        for ref in plan.environments:
            family = Family(ref.make, args.seeds)
            for variant in args.variants or registry.env_class(ref.place).variants:
                if variant not in registry.env_class(ref.place).variants or (repr(ref), variant) in done:
                    continue
                done.add((repr(ref), variant))
                report = family.check(variant)
                reports.append(report)
                if args.json:
                    print(json.dumps({**msgspec.to_builtins(report), "ok": report.ok}), flush=True)
                else:
                    _print(out, report, args.verbose)
            if args.mutants and (repr(ref), "") not in done:
                done.add((repr(ref), ""))
                known = registry.env_class(ref.place).variants
                broken = family.mutants([v for v in args.variants or known if v in known])
                mutated.append(broken)
                if args.json:
                    found = msgspec.to_builtins(broken)
                    print(json.dumps({"label": found.pop("label"), "mutants": found, "ok": broken.ok}), flush=True)
                else:
                    _print_mutants(out, broken, args.verbose)
    if not reports:
        raise UsageError(f"nothing was validated: no such variant{f', and {skipped} families lack data' if skipped else ''}")
    bad = sum(not r.ok for r in reports)
    alive = sum(not m.ok for m in mutated)
    if not args.json:
        what = f"{len(reports)} environment{'s' * (len(reports) != 1)} (each in one variant)"
        left = f"; {skipped} not tried for want of data" if skipped else ""
        left += f"; detectors of {alive} with changes that nobody notices" if alive else ""
        out.print(f"{what}: {'all hold' if not bad else f'{bad} failed'}{left}", style="red" if bad or alive else "green")
    return FAILED if bad or alive else OK


def _skip(screen: Console, family: str, why: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"label": family, "skipped": why}), flush=True)
    else:
        screen.print(Text.assemble(("skip", "yellow"), f" {plain(family)}: {plain(why)}"))


def _print(screen: Console, report: Report, verbose: bool) -> None:
    failed = [c for c in report.checks if not c.ok]
    mark = Text("FAIL", "bold red") if failed else Text("ok", "green")
    what = f" {plain(report.label)}/{report.variant}  {report.tasks} tasks, {len(report.checks)} checks"
    screen.print(Text.assemble(mark, what))
    for c in report.checks:
        if not c.ok or verbose:
            where = f"  ({plain(c.task)})" if c.task else ""
            screen.print(Text(f"     {c.name}: {plain(c.detail)}{where}", "red" if not c.ok else "dim"))


def _print_mutants(screen: Console, report: MutantReport, verbose: bool) -> None:
    alive = [s for s in report.survivors if not s.tolerated]
    mark = Text("FAIL", "bold red") if alive else Text("ok", "green")
    tolerated = len(report.survivors) - len(alive)
    what = f" {plain(report.label)}  mutants: {report.killed}/{report.tried} killed"
    what += f", {tolerated} tolerated" * bool(tolerated) + f", {report.left} not tried" * bool(report.left)
    screen.print(Text.assemble(mark, what))
    for s in report.survivors:
        if verbose or not s.tolerated:
            reason = f"  (tolerated: {plain(s.tolerated)})" if s.tolerated else ""
            screen.print(Text(f"     {plain(s.place)}  {plain(s.change)}{reason}", "dim" if s.tolerated else "red"))
    for note in report.notes:
        screen.print(Text(f"     {plain(note)}", "dim"))
