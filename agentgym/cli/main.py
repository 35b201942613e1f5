# SPDX-License-Identifier: Apache-2.0
"""The ``agentgym`` command: its arguments, its exit codes, and how errors are told."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from agentgym import __version__
from agentgym.cli import gate_options, people_options, train_options

OK, USAGE, NOTHING, INFRASTRUCTURE, INTERNAL, INTERRUPTED, TERMINATED = 0, 2, 5, 12, 70, 130, 143
"""Exit codes: ran; wrong usage; nothing selected; infrastructure errors above the limit; our own bug; Ctrl-C; SIGTERM."""

_EXIT_CODES = """exit codes:
  0    it ran (whatever the scores are)
  2    wrong usage: unknown name, bad option, malformed file
  5    nothing selected
  12   infrastructure errors above the limit, or the record cannot be written
  70   internal error of agentgym
  130  stopped by Ctrl-C; 143 by SIGTERM
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors name what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line and ends with exit code 2."""
        from agentgym.errors import did_you_mean
        from agentgym.report.text import plain

        known = [name for action in self._actions for name in (*action.option_strings, *(action.choices or ()))]
        # argparse names the unknown as "... invalid choice: 'evl' (choose ...)" or "unrecognized arguments: --trails"
        wrong = message.partition("invalid choice: '")[2].partition("'")[0]
        wrong = wrong or message.partition("unrecognized arguments: ")[2].partition("=")[0].partition(" ")[0]
        hint = did_you_mean(wrong, known) if wrong else ""
        print(f"{self.prog}: {plain(message)}.{hint} `{self.prog} --help` shows what there is", file=sys.stderr)
        sys.exit(USAGE)


def _add_eval(commands: argparse._SubParsersAction[_Parser]) -> None:
    _eval_options(commands.add_parser(
        "eval",
        help="let a model play tasks, and keep what happened",
        usage="agentgym eval [options] TASK [TASK ...]",
        description="Lets a model play tasks, scores what it did and keeps every episode in a run\ndirectory.",
        epilog="""examples:
  agentgym eval quickstart
  agentgym eval math.add math.chain --model oracle:honest --trials 4
  agentgym eval math.add -T level=3 --limit 50
  agentgym eval gsm8k --data gsm8k_test.jsonl --limit 100
  agentgym eval ./my_tasks.py:Refunds --model ./my_policy.py:MyPolicy
  agentgym eval --resume

"""
        + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    ))  # fmt: skip


def _add_proxy(commands: argparse._SubParsersAction[_Parser]) -> None:
    p = commands.add_parser(
        "proxy",
        help="let any agent program play tasks, and record its model's exact tokens",
        usage="agentgym proxy [options] TASK [TASK ...] -- PROGRAM [argument ...]\n"
        "       agentgym proxy [options] TASK --serve",
        description="Starts the program once an episode. It finds an OpenAI- and Anthropic-compatible model behind\n"
        "OPENAI_BASE_URL and ANTHROPIC_BASE_URL, its task and tools behind AGENTGYM_URL and AGENTGYM_MCP_URL.\n"
        "Takes the options of eval; --model says who answers what the program asks its model.",
        epilog="""examples:
  agentgym proxy tools.retail --limit 4 --trials 4 --model local:smollm2 -- python my_agent.py
  agentgym proxy tools.retail/control/3 --model openai:Qwen3-8B@http://localhost:8000/v1 --serve

"""
        + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _eval_options(p)
    own = p.add_argument_group("the proxy")
    own.add_argument("--serve", action="store_true", help="play one episode by hand: print what a program must know, and wait")
    own.add_argument("--host", metavar="ADDRESS", help="with --serve: where to listen (default: this machine alone)")
    own.add_argument("--port", type=int, default=0, metavar="N", help="with --serve: the port (default: any)")


def _eval_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="suite (quickstart, mine.toml), family (math.add), prefix (math), task id (math.add/control/3),"
        " file.py[:Class], or the address of a recorded episode (RUN::FAMILY/VARIANT/ITEM/TRIAL)",
    )
    p.add_argument("-m", "--model", metavar="KIND:NAME", help="who plays (default local:smollm2); see `agentgym list models`")
    p.add_argument("--judge", metavar="KIND:NAME", help="the model that tasks are judged by which ask one")
    what = p.add_argument_group("which tasks")
    what.add_argument("-k", metavar="TEXT", dest="keyword", help="only task ids that contain TEXT (or match it, with * and ?)")
    what.add_argument("--limit", type=int, metavar="N", help="most tasks of each family and variant")
    what.add_argument("--trials", "--epochs", type=int, metavar="K", help="repetitions of each task")
    what.add_argument(
        "--variant", action="append", dest="variants", metavar="NAME", help="twin to play, e.g. tempt; may be repeated"
    )
    what.add_argument(
        "-T", action="append", default=[], dest="params", metavar="NAME=VALUE", help="environment parameter; may be repeated"
    )
    what.add_argument("--data", metavar="PATH", help="data file (JSONL, .gz) or hf:NAME, for environments over data sets")
    what.add_argument("--split", choices=("train", "eval"), help="only this half of the tasks")
    what.add_argument("--lf", action="store_true", help="only tasks that were not solved when a run last played them")
    how = p.add_argument_group("how")
    how.add_argument("-n", "--concurrency", "--max-connections", type=int, metavar="N", help="episodes at once (64)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the model's sampling, not the tasks (0)")
    how.add_argument("--retries", type=int, default=2, metavar="N", help="further attempts after infrastructure errors (2)")
    how.add_argument("-x", "--exitfirst", action="store_true", help="stop at the first episode that infrastructure spoils")
    how.add_argument(
        "--infra-limit",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="if more than this share of the episodes is spoiled so, the exit code is 12 (.05)",
    )
    how.add_argument(
        "--processes", type=int, default=1, metavar="N", help="processes that play, each with a model object of its own (1)"
    )
    how.add_argument(
        "--step-threads", type=int, default=16, metavar="N", help="threads for environments whose steps block (16)"
    )
    how.add_argument(
        "--sandbox",
        metavar="NAME",
        help="what holds in the code that a model writes: auto (the first that works here), namespace, docker, or a plugin's"
        " (default $AGENTGYM_SANDBOX, else auto); unsafe_local holds nothing in",
    )
    how.add_argument(
        "--stop-early", metavar="BASELINE", help="stop as soon as the gate with this baseline is decided; error rates hold"
    )
    how.add_argument("--rules", metavar="FILE", help="the gate's rules, for --stop-early")
    how.add_argument(
        "--replies", metavar="FILE", help="use the replies kept in this text file, ask for those it lacks, and keep them there"
    )
    how.add_argument(
        "--replay-only", action="store_true", help="ask no model: an episode whose replies are not all kept is skipped"
    )
    model = p.add_argument_group("the model's sampling (default: the suite's settings, else the model's own)")
    model.add_argument("--temperature", type=float, metavar="T", help="0 takes the likeliest token each time")
    model.add_argument("--top-p", type=float, metavar="P", help="sample from the likeliest tokens that make up P")
    model.add_argument("--max-tokens", type=int, metavar="N", help="most new tokens a turn")
    limits = p.add_argument_group("limits", "An episode that meets one of the first four is cut, and scored on what it did.")
    limits.add_argument("--max-turns", type=int, metavar="N", help="turns, where the environment allows more")
    limits.add_argument("--time-limit", type=float, metavar="SECONDS", help="seconds by the clock, waiting included")
    limits.add_argument("--token-limit", type=int, metavar="N", help="sampled tokens")
    limits.add_argument("--cost-limit", type=float, metavar="USD", help="dollars that its model calls cost")
    limits.add_argument("--max-cost", type=float, metavar="USD", help="dollars for the whole run: no new episode begins after")
    out = p.add_argument_group("where it goes")
    out.add_argument("--runs", metavar="DIR", help="folder of runs (default $AGENTGYM_RUNS, else runs/)")
    out.add_argument(
        "--resume", nargs="?", const="latest", metavar="RUN", help="play what this run (default: the newest) lacks"
    )
    out.add_argument("--json", action="store_true", help="print the summary as one line of JSON")
    out.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary; errors only")
    out.add_argument("-v", "--verbose", action="store_true", help="native logs of local models, tracebacks of errors")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = _Parser(
        prog="agentgym",
        description="Environments for LLM agents, verifiers that say what their answers are\nworth, and the record of both.",
        epilog="start here:  agentgym eval quickstart\n\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--version", action="version", version=f"agentgym {__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_eval(commands)
    _add_proxy(commands)

    c = commands.add_parser(
        "list", help="what there is: tasks, suites, models, runs, or the episodes of a run", allow_abbrev=False
    )
    c.add_argument("what", nargs="?", default="tasks", metavar="WHAT", help="tasks (default), suites, models, runs, or a RUN")
    c.add_argument("--json", action="store_true", help="one JSON value a line")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")
    c.add_argument("--failed", action="store_true", help="of a RUN: only episodes with gold below 1 or without a score")
    c.add_argument("--scores", metavar="NAME", help="of a RUN: read this set of later scores, made by `agentgym rescore`")
    c.add_argument(
        "--where",
        metavar="FILTER",
        help="of a RUN: only episodes that fit, e.g. 'gold<1 dim:policy variant:tempt' (docs/viewer.md)",
    )
    c.add_argument("-k", metavar="TEXT", dest="keyword", help="only names that contain TEXT")
    c.add_argument("--limit", type=int, metavar="N", help="at most so many rows")

    c = commands.add_parser(
        "show",
        help="print a run, an episode or one turn",
        description="Prints a run's summary, or one episode or turn by its address RUN::FAMILY/VARIANT/ITEM/TRIAL[@TURN].",
        allow_abbrev=False,
    )
    c.add_argument(
        "address", nargs="?", default="latest", metavar="ADDRESS", help="RUN or RUN::FAMILY/VARIANT/ITEM[/TRIAL][@TURN]"
    )
    c.add_argument("--json", action="store_true", help="as JSON, for other programs")
    c.add_argument("--html", metavar="FILE", help="of an episode: write it as one HTML file, to be sent to others")
    c.add_argument("--markdown", metavar="FILE", help="of an episode: write it as Markdown, for a pull request; - prints it")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")
    c.add_argument("--scores", metavar="NAME", help="read this set of later scores, made by `agentgym rescore`")

    c = commands.add_parser(
        "report",
        help="what a run says of alignment: who was exposed to what, and who gave in",
        description="Capability and alignment of a run: each dimension with its exposures and interval, the worst\nfirst;"
        " what each variant changes against its control; violations with their addresses.\nOf several runs: how useful and safe"
        " each is, and of two the difference in what both met.",
        epilog="""examples:
  agentgym report latest --html report.html
  agentgym report BEFORE AFTER
  agentgym report CHEATER HONEST --monitors
  agentgym report RUN --random play
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("run", nargs="*", default=["latest"], metavar="RUN", help="the newest by default; several are compared")
    c.add_argument("--json", action="store_true", help="as JSON, for other programs")
    c.add_argument("--markdown", metavar="FILE", help="write it as Markdown")
    c.add_argument("--html", metavar="FILE", help="write it as one HTML file, with a plot")
    c.add_argument("--flags", type=int, default=20, metavar="N", help="most violations that are listed (20)")
    c.add_argument(
        "--random", metavar="RUN", help="a run of the random oracle on these tasks, or play: below its gold, no headline"
    )
    c.add_argument(
        "--random-gold", type=float, metavar="X", help="gold of the random oracle on these tasks: below it, no headline"
    )
    c.add_argument("--scores", metavar="NAME", help="read this set of later scores, made by `agentgym rescore`")
    c.add_argument("--monitors", action="store_true", help="instead: what each monitor would have caught, of all runs together")
    c.add_argument(
        "--monitor", action="append", default=[], metavar="NAME", help="only this one: NAME or ./file.py:NAME; may be repeated"
    )
    c.add_argument("--judge", metavar="MODEL", help="whom monitors ask that ask a model")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")

    c = commands.add_parser(
        "view",
        help="look at runs, episodes and turns in the terminal",
        description="Opens the viewer: on the newest run, on a run, or on the turn of an episode. ? shows its keys.\n"
        "Two runs, or two episodes, are compared. It opens logs of other harnesses too; `agentgym import --help` names them.",
        epilog="""examples:
  agentgym view
  agentgym view RUN::tools.retail/tempt/7/0@3
  agentgym view BEFORE AFTER
  agentgym view RUN::tools.retail/tempt/7/0 RUN::tools.retail/tempt/7/1
  agentgym view RUN --baseline baselines/pr.jsonl
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("address", nargs="?", metavar="ADDRESS", help="RUN or RUN::FAMILY/VARIANT/ITEM[/TRIAL][@TURN]")
    c.add_argument("second", nargs="?", metavar="SECOND", help="another run, or another episode, to compare the first one with")
    c.add_argument("--baseline", metavar="FILE", help="show what `agentgym gate` says of the run, with the steps to look at")
    c.add_argument("--rules", metavar="FILE", help="rules of that gate (gate.toml)")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")

    c = commands.add_parser(
        "import",
        help="make a run of another harness's log",
        description="Makes a run of each log, to be viewed, searched, reported and exported like any other. Nothing is scored\n"
        "again: their first score within [0, 1] stands as gold, all others as metrics.",
        epilog="""logs:
  inspect_ai    .eval and .json, also of evals that did not end
  verifiers     the folder of results, results.jsonl (0.1) or traces.jsonl (0.4), with exact tokens where they are there
  SWE-agent     .traj
  tau-bench     results in .json or .jsonl; tau2's .json
  messages      JSONL (or .gz) of OpenAI-style conversations: {"messages": [...]}, with id, trial, reward where known

examples:
  agentgym import logs/2026-11-20_gsm8k.eval
  agentgym view logs/2026-11-20_gsm8k.eval
  agentgym show outputs/evals/wordle--gpt-5/a1b2c3d4
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("logs", nargs="+", metavar="LOG", help="files, or folders of verifiers' results")
    c.add_argument("--title", metavar="TEXT", help="title of the run (default: the log's)")
    c.add_argument("--json", action="store_true", help="one JSON value a line for each log")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")

    c = commands.add_parser(
        "rescore",
        help="score a recorded run again, with other verifiers or the tasks' own as they are now",
        description="Scores a run again from its record: no model is asked, and the run's own scores stay as they are.\n"
        "The new ones are a set beside them; show and list read it with --scores NAME.",
        epilog="""examples:
  agentgym rescore latest --with own
  agentgym rescore latest --with ./my_checks.py:careful --processes 2
  agentgym rescore RUN --with communicated --as metric --scores told --json
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("run", nargs="?", default="latest", metavar="RUN", help="the run (default: the newest)")
    c.add_argument(
        "--with", action="append", default=[], dest="evaluators", metavar="EVALUATOR",
        help="own (the tasks' own verifiers), NAME, pkg.mod:verifier, or ./file.py:verifier, each of the latter also with"
        " parameters as in 'numeric(absolute=.01)'; may be repeated",
    )  # fmt: skip
    c.add_argument("--as", choices=("gold", "metric"), default="gold", dest="role", help="what they say counts as (gold)")
    c.add_argument("--scores", metavar="NAME", help="name of the new set (default: the evaluators')")
    c.add_argument("--processes", type=int, default=1, metavar="N", help="processes that judge (1)")
    c.add_argument("--sandbox", metavar="NAME", help="where verifiers that run code run it")
    c.add_argument("--judge", metavar="MODEL", help="whom verifiers that need a judge ask")
    c.add_argument("--limit", type=int, default=20, metavar="N", help="changed episodes to print (20)")
    c.add_argument("--json", action="store_true", help="a line for each changed episode, and one with the counts last")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")

    c = commands.add_parser(
        "export",
        help="write a run as rows to train on: SFT, DPO, KTO, reward model, steps, Minari",
        description="Writes a run as a data set for training off policy. Rows hold what was said and done; what decides which\n"
        "rows there are is --by. Episodes that infrastructure spoiled, and those without that score, are left out and counted.",
        epilog="""formats:
  sft     whole conversations with a score of --at-least
  dpo     for each task, two answers where its best and its worst trial part
  rm      for each task, its best and its worst trial as a whole, with the difference as margin
  kto     each turn, good where its episode has a score of --at-least
  steps   each turn, with the share of trials that went the same way and came to --at-least
  minari  a Minari data set (-o NAME/PART-v0)

With --labels people decide instead of a score: dpo and rm take the pairs of `agentgym label`, each by its majority.

examples:
  agentgym export latest --format sft --by gold --at-least 1 -o good.jsonl
  agentgym export RUN --format dpo --all-pairs -o pairs.jsonl
  agentgym export RUN --format rm --labels -o preferences.jsonl
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("run", nargs="?", default="latest", metavar="RUN", help="the run (default: the newest)")
    formats = ("sft", "dpo", "rm", "kto", "steps", "minari")
    c.add_argument("--format", choices=formats, required=True, help="what the rows are for")
    c.add_argument("-o", "--output", metavar="FILE", help="where to (default: standard output)")
    c.add_argument("--by", metavar="SCORE", help="reward (default), gold, or the name of a score")
    c.add_argument("--at-least", type=float, metavar="X", help="sft: least score (none); kto, steps: what counts as good (1)")
    c.add_argument(
        "--margin", type=float, metavar="X", help="dpo, rm: least difference of two trials' scores, or majority (any)"
    )
    c.add_argument("--all-pairs", action="store_true", dest="every", help="dpo, rm: all pairs of trials of a task")
    c.add_argument("--labels", action="store_true", help="dpo, rm: people decide, see `agentgym label`")
    c.add_argument("--dimension", metavar="NAME", help="with --labels: their answers to this question (default: on the whole)")
    c.add_argument("--annotator", metavar="WHO", help="with --labels: only this person's answers")
    c.add_argument("--reasoning", action="store_true", help="keep reasoning (reasoning_content)")
    c.add_argument("--runs", metavar="DIR", help="folder of runs")

    people_options.add(commands)

    c = commands.add_parser("fetch", help="get the embedded default model's file", allow_abbrev=False)
    c.add_argument("name", nargs="?", default="smollm2", metavar="MODEL", help="smollm2 (default)")

    c = commands.add_parser("cache", help="what is kept between runs: model files, models' replies", allow_abbrev=False)
    c.add_argument(
        "action", choices=("list", "clear"), nargs="?", default="list", help="list (default), or clear: remove the files"
    )
    c.add_argument(
        "what", choices=("models", "replies"), nargs="?", help="what to clear: models (default), or replies of cached:MODEL"
    )
    c.add_argument("--json", action="store_true", help="one JSON value a line")

    c = commands.add_parser(
        "doctor",
        help="check this machine: versions, disk, model, engine, containers, keys",
        description="Checks this machine. Exit code 0 if nothing is a problem, else 12. It shows no value of any key.",
        allow_abbrev=False,
    )
    c.add_argument("--json", action="store_true", help="one JSON value a line")
    c.add_argument("--runs", metavar="DIR", help="folder of runs to check (default $AGENTGYM_RUNS, else runs/)")

    c = commands.add_parser(
        "validate",
        help="check that tasks are fit to judge and to train by",
        description="Lets the oracles of tasks play them: honest work must be paid in full and break no rule, giving in\n"
        "must be found out, doing nothing and acting at random must not pay; quotes, replays, rescores,\nleaks and malformed"
        " actions are tried. Variants must be twins that differ by one\nobservation, what is authorised must be doable, and"
        " the untempted must not be convicted.\nWith --mutants, detectors are broken in many small ways, which the oracles'"
        " episodes must bring\nto light. Exit code 1 if a check fails. docs/write-a-scenario.md says what each check asks for.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    c.add_argument("tasks", nargs="*", metavar="TASK", help="family, prefix, or file.py[:Class]")
    c.add_argument("--all", action="store_true", help="every family that there is")
    c.add_argument("--seeds", type=int, default=3, metavar="N", help="tasks of each environment and variant (3)")
    c.add_argument("--variant", action="append", dest="variants", metavar="NAME", help="only this one; may be repeated")
    c.add_argument(
        "-T", action="append", default=[], dest="params", metavar="NAME=VALUE", help="environment parameter; may be repeated"
    )
    c.add_argument("--data", metavar="PATH", help="data file, for environments over data sets")
    c.add_argument(
        "--mutants",
        action="store_true",
        help="also break detectors in many small ways: the oracles' episodes must tell (slower)",
    )
    c.add_argument("--json", action="store_true", help="one JSON value a line for each environment")
    c.add_argument("-v", "--verbose", action="store_true", help="every check, not the failed ones alone")

    c = commands.add_parser("new", help="start a file of your own", allow_abbrev=False)
    c.add_argument("kind", choices=("task",), help="task: an environment with its oracles, ready to run")
    c.add_argument("path", metavar="FILE.py", help="file to make; it must not exist")
    gate_options.add(commands)
    train_options.add(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return p


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace | None:
    """The command line, understood; None where there is no command on it."""
    p = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    program: list[str] = []
    if words[:1] == ["proxy"] and "--" in words:  # what follows is the program's, options and all
        words, program = words[: words.index("--")], words[words.index("--") + 1 :]
    args, rest = p.parse_known_args(words)
    args.program = program
    if args.command is None and not rest:
        p.print_help()
        return None
    if args.command in ("eval", "proxy", "train") and not any(text.startswith("-") for text in rest):
        # argparse takes the tasks from one place only; people name them before options, after and between
        (args.families if args.command == "train" else args.tasks).extend(rest)
    elif rest:
        getattr(args, "parser", p).error(f"unrecognized arguments: {' '.join(rest)}")
    return args


_ASCII = str.maketrans({"█": "#", "░": ".", "·": "-", "≤": "<=", "≥": ">=", "→": "->", "—": "--", "…": "...", "⏎": "|"})


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    """What a terminal or file that cannot show a character gets instead: something like it, or its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode(), error.end


def _printable(stream: Any) -> None:
    """Sees to it that nothing that is printed on the stream can fail for its encoding."""
    codecs.register_error("agentgym", _in_other_words)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="agentgym")


def _say(text: str) -> None:
    """Prints an error: whatever is in it, a server's words for one, can neither steer the terminal nor tell a secret."""
    from agentgym.errors import redact
    from agentgym.report.text import plain

    print(f"agentgym: {plain(redact(text))}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from agentgym import errors

    for stream in (sys.stdout, sys.stderr):
        _printable(stream)
    args = _arguments(argv)
    if args is None:
        return OK
    verbose = getattr(args, "verbose", False) or bool(os.environ.get("AGENTGYM_TRACEBACK"))
    try:
        module = importlib.import_module(f"agentgym.cli.{args.command}")
        code: int = module.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output (head, less) went away; a second error at exit is avoided by closing for good
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except errors.AgentGymError as e:
        if verbose:
            raise
        _say(str(e))
        return _code(e)
    except Exception as e:
        if verbose:
            raise
        import traceback

        frame = traceback.extract_tb(e.__traceback__)[-1]
        _say(
            f"internal error: {type(e).__name__}: {e} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})."
            " This is a bug of agentgym or of an extension; AGENTGYM_TRACEBACK=1 shows where it comes from"
        )
        return INTERNAL


def _code(error: Exception) -> int:
    """The exit code that an error means."""
    from agentgym import errors

    if isinstance(error, errors.NothingSelectedError):
        return NOTHING
    if isinstance(error, (errors.InfrastructureError, errors.RecordError, errors.ModelFileError)):
        return INFRASTRUCTURE
    return USAGE if isinstance(error, errors.AgentGymError) else INTERNAL


def entry() -> NoReturn:
    """The ``agentgym`` program: `main`, and the end of the process."""
    try:
        code = main()
    except Exception as e:  # somebody wants to see where it comes from; Python's own exit code, 1, is a verdict of ours
        import traceback

        traceback.print_exc()
        code = _code(e)
    if code in (INTERRUPTED, TERMINATED):
        # All that counts is on disk. A local model's turn cannot be stopped, and to wait for its thread would keep the
        # person who pressed Ctrl-C waiting for up to a minute.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
