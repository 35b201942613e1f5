# SPDX-License-Identifier: Apache-2.0
"""``agentgym view``: opens the viewer in a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import NotFoundError, RecordError, UsageError
from agentgym.records.run import Address, Episode, Run, find_run, runs_root

if TYPE_CHECKING:
    from agentgym.tui.comparing import Compared


def run(args: argparse.Namespace) -> int:
    """Finds what was asked for, so that what is wrong with it is said in plain text, and opens it."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError(
            "`agentgym view` needs a terminal; for a pipe or a file use `agentgym show ADDRESS` or `agentgym list RUN --json`"
        )
    if os.environ.get("TERM", "") in ("dumb", ""):
        raise UsageError("`agentgym view` needs a terminal that can place text (TERM is not set, or dumb); use `agentgym show`")
    root = runs_root(args.runs)
    opened: Run | None = None
    episode: Episode | None = None
    turn: int | None = None
    if args.address is None:
        path = find_run("latest", root)
        try:
            opened = Run(path)
        except RecordError:
            opened = None  # the list of runs says what is wrong with it
    else:
        address = Address.parse(args.address)
        opened = Run(find_run_or_guest(address.run, root))
        root = opened.path.parent
        if address.task_id is not None:
            episode = opened.at(address)
            turn = address.turn
            if turn is not None and turn >= episode.turns:
                raise NotFoundError(f"{episode.address} has {episode.turns} turns, counted from 0: no @{turn}")
    compared = _compared(args, root, opened, episode)
    from agentgym.tui.app import Viewer, spare_collector

    app = Viewer(root, opened, episode, turn, compared)
    spare_collector()
    app.run()
    return app.return_code or OK


def _compared(args: argparse.Namespace, root: Path, opened: Run | None, episode: Episode | None) -> Compared | None:
    """What the run or the episode is to be held against, found before the screen opens, so that it is told in plain text.

    Raises:
        UsageError: the two do not go together.
        NotFoundError: there is no such run, episode or file.
    """
    if args.baseline is None and args.rules is not None:
        raise UsageError("--rules is what a gate asks: name the --baseline that the run is held against, too")
    if args.second is None and args.baseline is None:
        return None
    from agentgym.tui.comparing import Compared

    if opened is None:
        opened = Run(find_run("latest", root))  # says what is wrong with it
    if args.baseline is not None:
        if args.second is not None or episode is not None:
            raise UsageError("--baseline holds one run against a baseline: `agentgym view RUN --baseline FILE`")
        name = args.baseline if Path(args.baseline).is_file() else str(find_run(args.baseline, root))
        return Compared(baseline=name, rules=args.rules)
    address = Address.parse(args.second)
    second = Run(find_run_or_guest(address.run, root))
    if episode is None:
        if address.task_id is not None:
            raise UsageError(f"{args.second} is an episode and {args.address} a run: name two runs, or two episodes")
        return Compared(run=second.path)
    return Compared(
        episode=second.at(address) if address.task_id is not None else second.episode(episode.task_id, episode.trial)
    )
