# SPDX-License-Identifier: Apache-2.0
"""``agentgym label``: pairwise preferences of people, and what they come to."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec

from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import NothingSelectedError, UsageError
from agentgym.records.labels import Labels, Queue, check_annotator, default_annotator
from agentgym.records.run import Run, runs_root
from agentgym.report.screen import console, say


def run(args: argparse.Namespace) -> int:
    """Asks in the terminal, or prints the report."""
    if args.json and not args.report:
        raise UsageError("--json is for --report: preferences are asked for in the terminal")
    if args.rounds is not None and args.rounds < 1:
        raise UsageError("--rounds N shows each trial N times at most: N is 1 or more")
    path = find_run_or_guest(args.run, runs_root(args.runs))
    if args.report:
        return _report(path, args)
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("`agentgym label` asks in a terminal; `agentgym label RUN --report` prints what was answered")
    from agentgym.tui.app import Viewer
    from agentgym.tui.screens.label import LabelScreen

    who = check_annotator(args.annotator) if args.annotator is not None else default_annotator()
    opened = Run(path)
    queue = Queue(opened, seed=args.seed, keyword=args.keyword, rounds=args.rounds)
    if not queue.tasks:
        raise NothingSelectedError(
            f"{path} has no task with two trials that could be compared"
            + (f" and {args.keyword!r} in its id" if args.keyword else "")
            + ": play with --trials 2 or more"
        )
    app = Viewer(path.parent, opened, over=LabelScreen(opened, who, args.dimensions, queue))
    app.run()
    return app.return_code or OK


def _report(path: Path, args: argparse.Namespace) -> int:
    from agentgym.report.labelling import label_lines, label_rows, summarize_labels

    with Run(path), Labels(path) as held:
        labels, notes = held.labels(), held.notes()
    questions = summarize_labels(labels)
    if args.json:
        print(json.dumps({"questions": msgspec.to_builtins(questions), "notes": len(notes)}))
        for row in (*label_rows(labels), *map(msgspec.to_builtins, notes)):
            print(json.dumps(row))
        return OK
    out = console()
    if not questions:
        say(out, "no labels yet: `agentgym label` asks for them")
    for text, style in label_lines(questions):
        say(out, text, style)
    if notes:
        say(out, f"{len(notes)} notes on turns: --json prints them")
    return OK
