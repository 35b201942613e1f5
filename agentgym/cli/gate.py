# SPDX-License-Identifier: Apache-2.0
"""``agentgym gate``: the verdict on a candidate, printed, written, and told by the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agentgym.cli.main import INTERNAL, OK
from agentgym.gate import sources
from agentgym.gate.compare import compare, parse_reports
from agentgym.gate.report_files import append_summary, write_reports
from agentgym.gate.report_text import print_verdict
from agentgym.gate.rules import Rules, for_rows, read_rules
from agentgym.report.screen import Column, Table, console, say
from agentgym.report.text import plain


def run(args: argparse.Namespace) -> int:
    """Compares; the exit code is the verdict's, whatever becomes of what is printed."""
    reports = parse_reports(args.report)
    if args.selftest:
        return _selftest(args)
    verdict = compare(
        args.candidate, args.baseline, rules=args.rules, runs=args.runs, canary=args.canary, sequential=args.sequential
    )
    write_reports(verdict, reports)
    if args.step_summary and append_summary(verdict) is None:
        say(console(stderr=True), "--step-summary: GITHUB_STEP_SUMMARY is not set, so nothing was appended", "yellow")
    with _whoever_reads():
        if args.json:
            print(verdict.encode().decode())
        elif not args.quiet:
            print_verdict(console(), verdict)
        sys.stdout.flush()
    return verdict.exit_code


def _selftest(args: argparse.Namespace) -> int:
    """What this gate says of simulated candidates; the exit code is 70 if it fails unchanged ones too often: a bug of ours."""
    from agentgym.gate.selftest import selftest

    before, new = sources.load(args.baseline, args.runs), sources.load(args.candidate, args.runs)
    rules = for_rows(read_rules(Path(args.rules)) if args.rules else Rules(), before, new)
    found = selftest(before, rules, trials=new.trials)
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
        return OK if found.ok else INTERNAL
    out = console()
    say(
        out, f"{found.runs} simulated candidates of each kind, {found.trials} trials a task, drawn from the baseline's own rows"
    )
    names = sorted({o for cell in found.cells for o in cell.outcomes})
    table = Table([Column("candidate"), *(Column(n, "right") for n in names)])
    for cell in found.cells:
        table.add(plain(cell.name), *(f"{cell.outcomes.get(n, 0.0):.1%}" for n in names))
    out.print(table)
    word = "holds" if found.ok else "DOES NOT HOLD"
    say(out, f"false alarms {found.false_fail:.1%}, at most {found.limit:.1%} (alpha + 3 standard errors): {word}")
    for note in found.notes:
        say(out, plain(f"note: {note}"), "yellow")
    return OK if found.ok else INTERNAL


@contextlib.contextmanager
def _whoever_reads() -> Iterator[None]:
    """Lets nobody's closed pipe turn a verdict into success: ``agentgym gate ... | head`` exits as it would without."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
