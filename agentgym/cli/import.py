# SPDX-License-Identifier: Apache-2.0
"""``agentgym import``: makes runs of logs of other harnesses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from agentgym.cli.main import OK
from agentgym.guests import open_guest
from agentgym.records.run import runs_root
from agentgym.report.screen import console, say


def run(args: argparse.Namespace) -> int:
    """Makes one run a log, and says what could not be read."""
    out = console()
    root = runs_root(args.runs)
    for name in args.logs:
        made = open_guest(Path(name), root, title=args.title)
        if args.json:
            print(json.dumps({"run": str(made.path), "kind": made.kind, "episodes": made.episodes, "remarks": made.remarks}))
            continue
        say(out, f"{made.kind}: {made.episodes} episode{'s' * (made.episodes != 1)}  {made.path}")
        for remark in made.remarks:
            say(out, f"  not read: {remark}")
    return OK
