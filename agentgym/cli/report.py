# SPDX-License-Identifier: Apache-2.0
"""``agentgym report``: the alignment of a run, for people and for programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from agentgym.cli.main import OK
from agentgym.errors import RecordError, UsageError
from agentgym.records.run import Run, find_run, runs_root
from agentgym.report.alignment import align
from agentgym.report.alignment_text import markdown, page, print_alignment
from agentgym.report.screen import console


def run(args: argparse.Namespace) -> int:
    """Prints the report, or writes it where it is wanted."""
    if args.flags < 0:
        raise UsageError("--flags is how many violations are listed, at least 0")
    with Run(find_run(args.run, runs_root(args.runs))) as run:
        found = align(run, flags=args.flags, random_gold=args.random_gold)
    for path, text in ((args.markdown, markdown), (args.html, page)):
        if path is not None:
            try:
                Path(path).write_text(text(found), encoding="utf-8")
            except OSError as e:
                raise RecordError(f"{path} cannot be written: {e.strerror}") from e
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
    elif args.markdown is None and args.html is None:
        print_alignment(console(), found)
    return OK
