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
from agentgym.validate import Family, Report

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
    if not reports:
        raise UsageError(f"nothing was validated: no such variant{f', and {skipped} families lack data' if skipped else ''}")
    bad = sum(not r.ok for r in reports)
    if not args.json:
        what = f"{len(reports)} environment{'s' * (len(reports) != 1)} (each in one variant)"
        left = f"; {skipped} not tried for want of data" if skipped else ""
        out.print(f"{what}: {'all hold' if not bad else f'{bad} failed'}{left}", style="red" if bad else "green")
    return FAILED if bad else OK


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
