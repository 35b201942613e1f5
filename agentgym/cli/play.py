# SPDX-License-Identifier: Apache-2.0
"""``agentgym play``: a person plays a task in the terminal."""

from __future__ import annotations

import argparse
import sys

import msgspec

from agentgym.cli.eval import _params
from agentgym.cli.main import OK
from agentgym.errors import UsageError
from agentgym.records.run import Run, runs_root
from agentgym.report.screen import console, say
from agentgym.report.text import fraction, plain


def run(args: argparse.Namespace) -> int:
    """Plays one task, and says where it is kept."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("`agentgym play` needs a terminal to play in; `agentgym eval TASK --model NAME` lets a model play")
    from agentgym.policies.load import load_policy
    from agentgym.rollout.evaluate import Judge, check_judge, prepare
    from agentgym.rollout.scheduler import Options
    from agentgym.rollout.selection import Choice

    root = runs_root(args.runs)
    choice = Choice(
        trials=1, limit=1, variants=[args.variant] if args.variant else None, params=_params(args.params), data=args.data,
        keyword=args.keyword, runs=str(root),
    )  # fmt: skip
    plan, options = prepare(args.task, choice, Options(sandbox=args.sandbox, retries=0))
    task = msgspec.structs.replace(plan.tasks[0], trials=1)
    plan = msgspec.structs.replace(plan, title=f"play {task.task_id.rsplit('/', 2)[0]}", tasks=[task])
    judge = None if args.judge is None else Judge(load_policy(args.judge), args.judge)
    check_judge(plan, judge)
    from agentgym.tui.app import Viewer
    from agentgym.tui.screens.play import PlayScreen

    screen = PlayScreen(plan, options, root, judge)
    app = Viewer(root, over=screen)
    app.run()
    if screen.path is None:
        if screen.failure is not None:
            raise screen.failure
        return app.return_code or OK
    with Run(screen.path) as played:
        episode = next(played.episodes())
        how = f"{episode.outcome}{f' ({episode.truncation})' if episode.truncation else ''}"
        gold = "not scored" if episode.gold is None else f"gold {fraction(episode.gold)}"
        say(console(), plain(f"{how} after {episode.turns} turns, {gold}: agentgym view {episode.address}"))
    return app.return_code or OK
