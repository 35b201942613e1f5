# SPDX-License-Identifier: Apache-2.0
"""``agentgym rescore``: scores a run again from its record, and shows what changed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from agentgym.cli.main import OK
from agentgym.errors import UsageError
from agentgym.records.run import Run, find_run, runs_root
from agentgym.report.screen import console, interactive, say
from agentgym.report.text import fraction, one_line, plain
from agentgym.rollout.rescore import Rescored, rescore


def run(args: argparse.Namespace) -> int:
    """Scores again, then prints the changed episodes and the counts."""
    if not args.evaluators:
        raise UsageError("say with what: --with own, --with NAME, --with pkg.mod:verifier or --with ./file.py:verifier")
    path = find_run(args.run, runs_root(args.runs))
    screen = console(stderr=True)
    progress = interactive(screen) and not args.json

    def on_progress(done: int, total: int) -> None:
        screen.print(f"\r{done:,} of {total:,} judged", end="" if done < total else "\r\x1b[K")

    result = rescore(
        path,
        args.evaluators,
        name=args.scores,
        role=args.role,
        sandbox=args.sandbox,
        judge=args.judge,
        processes=args.processes,
        on_progress=on_progress if progress else None,
    )
    with Run(path, scores=result.scores) as scored:
        if args.json:
            for row in _changed(scored):
                print(json.dumps(row))
            print(json.dumps(msgspec.to_builtins(result)))
        else:
            _print(scored, result, args.limit)
    return OK


def _changed(run: Run) -> Iterator[dict[str, Any]]:
    """The episodes of which something changed, each with its address and all that changed."""
    sql = (
        "SELECT c.episode, e.task_id, e.trial, c.what, c.before, c.after, c.reason FROM later.changes c"
        " JOIN main.episodes e ON e.id = c.episode ORDER BY c.episode, c.position"
    )
    last: int | None = None
    row: dict[str, Any] = {}
    for number, task_id, trial, what, before, after, reason in run._rows(sql):
        if number != last:
            if row:
                yield row
            last, row = number, {"address": f"{run.path}::{task_id}/{trial}", "changes": []}
        change = {"what": what, "before": json.loads(before), "after": json.loads(after)}
        row["changes"].append({**change, "reason": reason} if reason else change)
    if row:
        yield row


def _value(value: float | str | None) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, (int, float)) else value


def _print(run: Run, result: Rescored, limit: int) -> None:
    out = console()
    shown = 0
    for row in _changed(run):
        if shown >= limit:
            break
        shown += 1
        seen: set[tuple[Any, Any]] = set()
        parts: list[str] = []
        reason = ""
        for c in row["changes"]:
            # proxy and gold by one verifier, and the whole that is its only part, say the same thing
            same = (c["before"], c["after"])
            if same in seen and not c["what"].startswith("finding"):
                continue
            seen.add(same)
            parts.append(f"{c['what']} {_value(c['before'])} -> {_value(c['after'])}")
            reason = reason or c.get("reason", "")
        out.print(plain(row["address"]))
        out.print(one_line(f"  {'; '.join(parts)}{'   ' + reason if reason else ''}", 400))
    if result.changed > shown:
        out.print(f"... and {result.changed - shown:,} more: --limit N shows them, --json all")
    for name, before, after, n in result.verifiers:
        how = (
            f"{after} (new)" if not before else f"{after} (unchanged)" if before == after else f"{before} -> {after} (changed)"
        )
        out.print(one_line(f"{name}: {how}, {n:,} episode{'s' * (n != 1)}", 200))
    for reason, n in result.unscorable[:5]:
        out.print(one_line(f"{n:,} x not scored: {reason}", 300), style="yellow")
    if result.not_applicable:
        out.print(f"{result.not_applicable:,} episodes: not applicable", style="yellow")
    if result.spoiled:
        out.print(f"{result.spoiled:,} infrastructure outcomes: nothing to judge", style="yellow")
    changed = ", ".join(f"{one_line(what, 60)} of {n:,}" for what, n in result.counts.items())
    total = [f"{result.episodes:,} episode{'s' * (result.episodes != 1)} scored again"]
    total.append(f"{result.changed:,} changed ({changed})" if changed else "nothing changed")
    if result.gold_before is not None and result.gold_after is not None:
        total.append(f"gold {_mean(result.gold_before)} -> {_mean(result.gold_after)}")
    say(out, " · ".join(total))
    say(out, f"kept beside the run's own scores: agentgym show {plain(result.run)} --scores {result.scores}")


def _mean(value: float) -> str:
    return fraction(value) if 0 <= value <= 1 else f"{value:.3g}"
