# SPDX-License-Identifier: Apache-2.0
"""``agentgym gate``: the verdict on a candidate, printed, written, and told by the exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

from agentgym.gate.compare import compare, parse_reports
from agentgym.gate.report_files import append_summary, write_reports
from agentgym.gate.report_text import print_verdict
from agentgym.report.screen import console, say


def run(args: argparse.Namespace) -> int:
    """Compares; the exit code is the verdict's, whatever becomes of what is printed."""
    reports = parse_reports(args.report)
    verdict = compare(args.candidate, args.baseline, rules=args.rules, runs=args.runs, canary=args.canary)
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


@contextlib.contextmanager
def _whoever_reads() -> Iterator[None]:
    """Lets nobody's closed pipe turn a verdict into success: ``agentgym gate ... | head`` exits as it would without."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
