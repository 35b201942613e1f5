# SPDX-License-Identifier: Apache-2.0
"""``agentgym show``: prints a run, an episode, or one turn."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import NotFoundError, RecordError, UsageError
from agentgym.records.run import Address, Run, runs_root
from agentgym.report.console import print_summary, render_episode, render_turn, scores_line
from agentgym.report.screen import console, say
from agentgym.report.summary import summarize


def run(args: argparse.Namespace) -> int:
    """Prints what is at the address.

    JSON is written in ASCII: it is for programs, but it may land on a screen, and what a model says must not steer that.
    """
    address = Address.parse(args.address)
    out = console()
    with Run(find_run_or_guest(address.run, runs_root(args.runs)), scores=args.scores) as run:
        if args.scores and not args.json:
            say(out, scores_line(run))
        if args.html is not None or args.markdown is not None:
            return _share(run, address, args)
        if address.task_id is None:
            summary = summarize(run)
            if args.json:
                print(json.dumps(msgspec.to_builtins(summary)))
            else:
                print_summary(out, summary)
            return OK
        episode = run.at(address)
        trajectory = episode.trajectory
        if address.turn is not None:
            if address.turn >= len(trajectory.turns):
                raise NotFoundError(f"{episode.address} has {len(trajectory.turns)} turns, counted from 0: no @{address.turn}")
            turn = trajectory.turns[address.turn]
            if args.json:
                print(json.dumps(msgspec.to_builtins(turn)))
            else:
                out.print(render_turn(turn))
            return OK
        if args.json:
            document = {
                "address": episode.address,
                "trajectory": msgspec.to_builtins(msgspec.structs.replace(trajectory, tokens=None)),
                "reward": episode.reward,
                "gold": episode.gold,
                "scores": msgspec.to_builtins(episode.all_scores),
                "findings": msgspec.to_builtins(episode.findings),
            }
            print(json.dumps(document))
        else:
            out.print(render_episode(episode, trajectory))
    return OK


def _share(run: Run, address: Address, args: argparse.Namespace) -> int:
    """Writes an episode for others."""
    from agentgym.report import share

    if address.task_id is None or args.json:
        raise UsageError(
            "--html and --markdown write one episode, RUN::FAMILY/VARIANT/ITEM/TRIAL; of a run, see `agentgym report`"
        )
    episode = run.at(address)
    for name, make in ((args.html, share.page), (args.markdown, share.markdown)):
        if name == "-":
            print(make(episode), end="")
        elif name is not None:
            try:
                Path(name).write_text(make(episode), encoding="utf-8")
            except OSError as e:
                raise RecordError(f"{name} cannot be written: {e.strerror}") from e
    return OK
