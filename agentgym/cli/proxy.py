# SPDX-License-Identifier: Apache-2.0
"""``agentgym proxy``: agent programs play tasks, started for each episode or by hand."""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from agentgym.cli import eval as evaluation
from agentgym.cli.main import INFRASTRUCTURE, OK
from agentgym.errors import UsageError
from agentgym.policies.load import DEFAULT
from agentgym.proxy import record
from agentgym.report.text import plain


def run(args: argparse.Namespace) -> int:
    """Plays what was asked for; returns the exit code."""
    if args.serve:
        if args.program:
            raise UsageError("--serve waits for a program that somebody else starts: leave out what follows --")
        return _serve(args)
    if args.host is not None or args.port:
        raise UsageError("--host and --port are for --serve: programs that the proxy starts are on this machine")
    if args.resume is not None:
        if args.program:
            raise UsageError("--resume goes on with the program on record: leave out what follows --")
        return evaluation.run(args)
    if not args.program:
        raise UsageError(
            "which program? `agentgym proxy TASK --model MODEL -- my-agent --its-options`, or --serve to start it by hand"
        )
    args.model = f"program:{args.model or DEFAULT} -- {shlex.join(args.program)}"
    return evaluation.run(args)


def _serve(args: argparse.Namespace) -> int:
    """One episode for a program that is started by hand; ends when the episode does, or with Ctrl-C."""
    if len(args.tasks) != 1:
        raise UsageError("--serve plays one task: name a family (tools.retail) or a task (tools.retail/control/3)")
    evaluation._check(args)
    options = evaluation._options(args)
    whole = args.tasks[0].count("/") >= 2
    variant = (args.variants or ["control"])[0]
    recording = record(
        args.tasks[0],
        variant="control" if whole else variant,
        model=args.model,
        params=evaluation._params(args.params),
        data=args.data,
        sampling=options.sampling,
        limits=options.limits,
        trial_seed=args.seed,
        sandbox=args.sandbox,
        runs=args.runs,
        host=args.host,
        port=args.port,
    )
    with evaluation._terminated_like_interrupted(), recording as episode:
        if args.host is not None:
            print(f"other machines may reach {plain(args.host)}: whoever has the key plays", file=sys.stderr)
        for name, value in episode.variables.items():
            print(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        print("start the program with these in its environment; Ctrl-C ends the episode", file=sys.stderr)
        try:
            while not episode.done:
                time.sleep(0.2)
        except KeyboardInterrupt:
            print("ended by hand", file=sys.stderr)
    result = episode.result
    trajectory = result.trajectory
    said = f"reward {result.reward} gold {result.gold}" if trajectory.error is None else trajectory.error.message
    asked, turns = len(trajectory.calls), len(trajectory.turns)
    print(plain(f"{trajectory.outcome}: {asked} model calls, {turns} turns, {said}"))
    print(plain(f"see it:  agentgym show {episode.run}"))
    return OK if trajectory.error is None else INFRASTRUCTURE
