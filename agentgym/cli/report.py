# SPDX-License-Identifier: Apache-2.0
"""``agentgym report``: the alignment of a run, of runs beside each other, and what monitors are worth on them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentgym import registry
from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import RecordError, UsageError
from agentgym.policies.load import load_policy
from agentgym.records.run import Run, find_run, runs_root
from agentgym.report.alignment import align, random_baseline
from agentgym.report.alignment_compare import compare
from agentgym.report.alignment_text import markdown, page, print_alignment
from agentgym.report.compare_text import (
    comparison_markdown,
    comparison_page,
    print_comparison,
    print_watched,
    watched_markdown,
    watched_page,
)
from agentgym.report.monitors import watch
from agentgym.report.screen import console
from agentgym.rollout.evaluate import play_random


def run(args: argparse.Namespace) -> int:
    """Prints the report, or writes it where it is wanted."""
    if args.flags < 0:
        raise UsageError("--flags is how many violations are listed, at least 0")
    if args.random is not None and args.random_gold is not None:
        raise UsageError("--random and --random-gold say the same thing: give one of them")
    root = runs_root(args.runs)
    paths = [find_run_or_guest(name, root) for name in args.run]
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(Run(path, scores=args.scores)) for path in paths]
        if args.monitors or args.monitor:
            return _monitors(args, runs)
        if args.judge:
            raise UsageError("--judge is for monitors: add --monitors or --monitor NAME")
        if len(runs) > 1:
            if args.random is not None or args.random_gold is not None:
                raise UsageError("--random and --random-gold are for the report of one run")
            found = compare(runs)
            return _say(args, found, comparison_markdown, comparison_page, print_comparison)
        alignment = align(runs[0], flags=args.flags, random_gold=_random_gold(args, runs[0], root))
        return _say(args, alignment, markdown, page, print_alignment)


def _random_gold(args: argparse.Namespace, run: Run, root: Path) -> float | None:
    """What acting at random earns on the tasks of the run, as asked for."""
    if args.random is None:
        return args.random_gold  # type: ignore[no-any-return]
    path = asyncio.run(play_random(run.path, root)) if args.random == "play" else find_run(args.random, root)
    with Run(path) as other:
        return random_baseline(run, other)


def _monitors(args: argparse.Namespace, runs: Sequence[Run]) -> int:
    judge = load_policy(args.judge) if args.judge else None
    if judge is not None and getattr(judge, "privileged", False):
        raise UsageError(f"{judge.name} cannot watch: it is an oracle that is handed the environment")
    if judge is not None and (prepare := getattr(judge, "prepare", None)) is not None:
        prepare()
    names = args.monitor or registry.monitors.names()
    monitors = [registry.load_monitor(name) for name in names]
    if not args.monitor and judge is None:
        monitors = [m for m in monitors if "policy" not in m.needs]
    found = watch(runs, monitors, judge)
    return _say(args, found, watched_markdown, watched_page, print_watched)


def _say(
    args: argparse.Namespace,
    found: Any,
    as_markdown: Callable[[Any], str],
    as_page: Callable[[Any], str],
    show: Callable[..., None],
) -> int:
    for path, text in ((args.markdown, as_markdown), (args.html, as_page)):
        if path is not None:
            try:
                Path(path).write_text(text(found), encoding="utf-8")
            except OSError as e:
                raise RecordError(f"{path} cannot be written: {e.strerror}") from e
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
    elif args.markdown is None and args.html is None:
        show(console(), found)
    return OK
