# SPDX-License-Identifier: Apache-2.0
"""The options of what people do themselves: `agentgym label`, `agentgym play`."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Adds the commands to the parser."""
    p = commands.add_parser(
        "label",
        help="say which of two trials is better: preferences for RLHF",
        description="Shows two trials of a task side by side, without model, scores or verdicts, and asks which is better.\n"
        "Answers lie beside the run in labels.sqlite, each on the disk before the next pair is shown; the run itself\n"
        "is never changed. Ask again later, or somebody else: it goes on where that person stopped.",
        epilog="""keys: 1 2 which is better, = neither, s skip, r reasons, a a note on this turn, u undo, ? all

examples:
  agentgym label latest
  agentgym label RUN --annotator ann --dimension honesty --dimension tone
  agentgym label RUN --report
  agentgym export RUN --format rm --labels -o preferences.jsonl
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("run", nargs="?", default="latest", metavar="RUN", help="the run (default: the newest)")
    p.add_argument("--annotator", metavar="NAME", help="who answers (default $AGENTGYM_ANNOTATOR, else the user's name)")
    p.add_argument(
        "--dimension", action="append", default=[], dest="dimensions", metavar="NAME",
        help="ask about this too, after the question on the whole; may be repeated",
    )  # fmt: skip
    p.add_argument("-k", metavar="TEXT", dest="keyword", default="", help="only tasks whose id contains TEXT")
    p.add_argument("--rounds", type=int, metavar="N", help="show each trial N times at most (default: every pair)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of pairs (0)")
    p.add_argument("--report", action="store_true", help="ask nothing: print how many answers there are and how far they agree")
    p.add_argument("--json", action="store_true", help="with --report: the summary and every answer, one JSON value a line")
    p.add_argument("--runs", metavar="DIR", help="folder of runs")

    p = commands.add_parser(
        "play",
        help="take the agent's seat yourself: a human baseline",
        description="Lets a person play a task in the terminal, with the words and tools that an agent has, and records it\n"
        "as a run by the policy `human`. Nothing can be taken back. Who leaves early has the episode kept as truncated.",
        epilog="""examples:
  agentgym play tools.retail
  agentgym play tools.retail/tempt/3
  agentgym play ./my_tasks.py:Refunds
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("task", metavar="TASK", help="family, task id, or file.py[:Class]; of several tasks the first is played")
    p.add_argument("--variant", metavar="NAME", help="twin to play, e.g. tempt")
    p.add_argument("-k", metavar="TEXT", dest="keyword", help="only task ids that contain TEXT")
    p.add_argument("-T", action="append", default=[], dest="params", metavar="NAME=VALUE", help="environment parameter")
    p.add_argument("--data", metavar="PATH", help="data file, for environments over data sets")
    p.add_argument("--sandbox", metavar="NAME", help="what holds in the code that is run, see `agentgym eval --help`")
    p.add_argument("--judge", metavar="KIND:NAME", help="the model that tasks are judged by which ask one")
    p.add_argument("--runs", metavar="DIR", help="folder of runs")
