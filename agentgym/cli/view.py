# SPDX-License-Identifier: Apache-2.0
"""``agentgym view``: opens the viewer in a terminal."""

from __future__ import annotations

import argparse
import os
import sys

from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import NotFoundError, RecordError, UsageError
from agentgym.records.run import Address, Episode, Run, find_run, runs_root


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
    from agentgym.tui.app import Viewer

    app = Viewer(root, opened, episode, turn)
    app.run()
    return app.return_code or OK
