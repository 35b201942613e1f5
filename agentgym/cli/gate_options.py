# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``agentgym gate``, ``baseline`` and ``plan``."""

from __future__ import annotations

import argparse
from typing import Any

GATE_EXIT_CODES = """exit codes:
  0    pass, or worse by less than the margin (tolerated)
  1    REGRESSION
  2    wrong usage: unknown name, malformed file or rule
  10   INCONCLUSIVE (0 where the rules say on_inconclusive = "warn")
  11   an invariant was violated
  12   infrastructure errors or missing trials: nothing can be said
  13   the baseline does not fit: too few of its tasks were played unchanged
  70   internal error of agentgym; never a verdict
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the three commands."""
    raw = argparse.RawDescriptionHelpFormatter
    g = commands.add_parser(
        "gate",
        help="compare a run with a reviewed baseline: regression, pass or inconclusive",
        usage="agentgym gate CANDIDATE --baseline FILE [options]",
        description="Compares a candidate with a baseline, trial by trial of the same tasks, and says\nwhether it is worse.",
        epilog="""examples:
  agentgym gate latest --baseline baselines/pr.jsonl
  agentgym gate new.csv --baseline old.csv
  agentgym gate logs/new.eval --baseline logs/old.eval --rules gate.toml
  agentgym gate latest --baseline baselines/pr.jsonl --report junit=gate.xml sarif=gate.sarif --step-summary

"""
        + GATE_EXIT_CODES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    g.add_argument(
        "candidate",
        metavar="CANDIDATE",
        help="a run; or a file of trials: .csv .tsv .jsonl, .eval or .json of inspect_ai, promptfoo's or deepeval's .json",
    )
    g.add_argument("--baseline", required=True, metavar="FILE", help="a baseline file, or anything that CANDIDATE may be")
    g.add_argument("--rules", metavar="FILE", help="rules (gate.toml); without: gold (or score) may drop by .05 at most")
    g.add_argument(
        "--report",
        nargs="+",
        action="extend",
        metavar="KIND=FILE",
        help="also write the verdict to files; kinds are md, junit, sarif, json",
    )
    g.add_argument("--step-summary", action="store_true", help="append Markdown to the file that GITHUB_STEP_SUMMARY names")
    g.add_argument(
        "--canary", metavar="RUN", help="a new run of the baseline's own code: tells a changed model from changed code"
    )
    g.add_argument("--sequential", action="store_true", help="of a run that goes on: may it be stopped, either way?")
    g.add_argument("--selftest", action="store_true", help="simulate this gate on these rows: its false alarms and its power")
    g.add_argument("--json", action="store_true", help="print the verdict as one line of JSON")
    g.add_argument("--runs", metavar="DIR", help="folder of runs")
    g.add_argument("-q", "--quiet", action="store_true", help="print nothing; the exit code tells")

    b = commands.add_parser(
        "baseline",
        help="make, show, compare and accept baselines: reviewed results in git",
        description="Baselines are text files for git: one line a task, with scores and hashes, and\nnothing that was said.",
        formatter_class=raw,
        allow_abbrev=False,
    )
    actions = b.add_subparsers(dest="action", metavar="ACTION", required=True, help="what to do; ACTION --help says more")
    c = actions.add_parser("create", help="make a baseline of a run", allow_abbrev=False)
    c.add_argument("run", metavar="RUN", help="a run, or a file of trials")
    c.add_argument("-o", "--output", required=True, metavar="FILE", help="where it goes, e.g. baselines/pr.jsonl")
    c.add_argument("--force", action="store_true", help="replace a file that is there; `accept` does so with a reason")
    _acceptance(c, needed=False)
    c = actions.add_parser("show", help="print what a baseline says", allow_abbrev=False)
    c.add_argument("file", metavar="FILE")
    c = actions.add_parser("diff", help="what differs between two baselines", allow_abbrev=False)
    c.add_argument("file", metavar="OLD")
    c.add_argument("other", metavar="NEW", help="a baseline, a run, or a file of trials")
    c = actions.add_parser(
        "accept", help="say that a baseline, or a new run in its place, is what is wanted now", allow_abbrev=False
    )
    c.add_argument("file", metavar="FILE")
    c.add_argument("run", nargs="?", metavar="RUN", help="the run whose results take the place of the old ones")
    _acceptance(c, needed=True)
    c = actions.add_parser(
        "check", help="is a baseline whole, in date, and of the code that is here? (0, 2 or 13)", allow_abbrev=False
    )
    c.add_argument("file", metavar="FILE")
    for action in actions.choices.values():
        action.add_argument("--runs", metavar="DIR", help="folder of runs")
        action.set_defaults(parser=action)

    p = commands.add_parser(
        "plan",
        help="how many clusters, tasks, trials and dollars a comparison takes",
        description="Says what a baseline's spread lets a gate see, and what it takes to see a given drop.",
        allow_abbrev=False,
    )
    p.add_argument("--baseline", required=True, metavar="FILE", help="a baseline, a run, or a file of trials")
    p.add_argument("--rules", metavar="FILE", help="rules (gate.toml)")
    p.add_argument("--delta", type=float, metavar="D", help="true drop to be found (default: the margin of each metric)")
    p.add_argument("--power", type=float, default=0.8, metavar="P", help="probability to find it (.8)")
    p.add_argument("--json", action="store_true", help="as one line of JSON")
    p.add_argument("--runs", metavar="DIR", help="folder of runs")


def _acceptance(parser: argparse.ArgumentParser, needed: bool) -> None:
    parser.add_argument("--by", metavar="WHO", default="", help="who accepts it")
    parser.add_argument("--reason", metavar="TEXT", required=needed, default="", help="why it is what is wanted")
    parser.add_argument(
        "--expires", metavar="DATE", required=needed, help="day from which somebody should look again (YYYY-MM-DD)"
    )
