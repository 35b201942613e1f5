# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval``: plays tasks and shows how it goes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from agentgym.cli.main import INFRASTRUCTURE, INTERRUPTED, OK, TERMINATED
from agentgym.cli.progress import Show
from agentgym.episode import Limits
from agentgym.errors import NotFoundError, NothingSelectedError, RecordError, UsageError, redact
from agentgym.policies.cache import CachedPolicy
from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Sampling
from agentgym.records.run import Run, find_run, find_runs, runs_root
from agentgym.report.console import print_summary
from agentgym.report.screen import console, interactive, say
from agentgym.report.summary import Summary, summarize
from agentgym.report.text import plain
from agentgym.rollout.evaluate import Judge, Outcome, check_judge, prepare, recorded_model, resume, start
from agentgym.rollout.scheduler import Options, Progress
from agentgym.rollout.selection import Choice, Plan

_BOUNDS = (
    (
        (
            "concurrency",
            "max_turns",
            "time_limit",
            "token_limit",
            "cost_limit",
            "max_cost",
            "max_tokens",
        ),
        "more than 0",
        (sys.float_info.min, sys.float_info.max),
    ),
    (("step_threads", "processes"), "1 or more", (1, sys.maxsize)),
    (("retries", "temperature"), "0 or more", (0, sys.float_info.max)),
    (("top_p",), "more than 0 and at most 1", (sys.float_info.min, 1)),
    (("infra_limit",), "a share from 0 to 1", (0, 1)),
)
"""Options, what their numbers must be, and the least and the most that is."""

_OF_A_RESUMED_RUN = {
    "resume",
    "model",
    "judge",
    "concurrency",
    "max_cost",
    "infra_limit",
    "sandbox",
    "runs",
    "json",
    "quiet",
    "verbose",
    "tasks",
}
"""Options that mean something for a run that has begun; the others are on record."""


def _params(pairs: list[str]) -> dict[str, str]:
    result = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UsageError(f"-T {pair!r}: expected NAME=VALUE, e.g. -T level=3")
        result[name] = value
    return result


def _check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense; NaN, which argparse takes for one, is within no bounds."""
    for names, words, bounds in _BOUNDS:
        for name in names:
            value = getattr(args, name)
            if value is not None and not bounds[0] <= value <= bounds[1]:
                raise UsageError(f"--{name.replace('_', '-')} must be {words}, not {value}")


def _options(args: argparse.Namespace) -> Options:
    limits = (args.max_turns, args.time_limit, args.token_limit, args.cost_limit)
    return Options(
        args.concurrency,
        args.retries,
        args.seed,
        Sampling(temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens),
        Limits(*limits) if any(x is not None for x in limits) else None,
        args.max_cost,
        args.step_threads,
        args.processes,
        args.exitfirst,
        args.sandbox,
    )


def _last_failed(plan: Plan, root: Path) -> Plan:
    """The plan less the tasks that were solved in every trial when a run last played them."""
    solved: dict[str, bool] = {}
    wanted = {t.task_id for t in plan.tasks}
    for path in reversed(find_runs(root)):
        if wanted <= solved.keys():
            break
        with contextlib.suppress(RecordError), Run(path) as run:
            sql = f"SELECT task_id, min(coalesce(gold, 0) = 1) FROM episodes WHERE {run._counting()} GROUP BY task_id"
            for task_id, good in run._rows(sql):
                solved.setdefault(task_id, bool(good))
    tasks = [t for t in plan.tasks if not solved.get(t.task_id, False)]
    if not tasks:
        raise NothingSelectedError(f"--lf: all {len(plan.tasks):,} selected tasks were solved when they were last played")
    return msgspec.structs.replace(plan, tasks=tasks)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[list[int]]:
    """A batch system's or container's SIGTERM ends a run as Ctrl-C does: in order, and saying how to go on.

    Yields:
        a list that holds the signal's number once it has come.
    """
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        seen.append(number)
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield seen  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace) -> int:
    """Plays what was asked for; returns the exit code."""
    _check(args)
    screen, errors = console(stderr=args.json), console(stderr=True)
    show = Show(screen, args.quiet)
    root = runs_root(args.runs)
    with _terminated_like_interrupted() as terminated:
        try:
            outcome = _play(args, root, show)
        except (KeyboardInterrupt, asyncio.CancelledError):
            show.stop()
            say(errors, plain(_stopped(show.path)), "yellow")
            return TERMINATED if terminated else INTERRUPTED
        finally:
            show.stop()
    with Run(outcome.path) as run:
        summary = summarize(run)
        example = _example(run)  # FAMILY/VARIANT/ITEM/TRIAL
    if args.json:
        print(json.dumps(msgspec.to_builtins(summary)))
    if not args.quiet:
        print_summary(screen, summary, head=False)
        if example is not None:
            screen.print(f"see it:  agentgym {_look(outcome.path, example, interactive(screen))}", style="dim")
    limit = 0.0 if args.exitfirst else args.infra_limit
    # of a run that was stopped, the plan says little about how much was spoiled
    return _exit_code(summary, limit, summary.done if outcome.stopped else summary.planned, errors)


def _stopped(path: Path | None) -> str:
    if path is None:
        return "stopped before anything was played"
    with Run(path) as run:
        return f"stopped: {run.count():,} of {run.planned:,} episodes are saved in {path}; continue with --resume {_name(path)}"


def _name(path: Path) -> str:
    """What to call a run by on the next command line: its name where that is found, else its path."""
    return path.name if path.parent == runs_root() else str(path)


def _example(run: Run) -> str | None:
    """The episode that a person will want to see first: one that broke a rule, else one that failed, else any."""
    for where in ("violations > 0", "outcome != 'infrastructure' AND coalesce(gold, 0) < 1", "1"):
        for episode in run.by_ids(run.ids(where, limit=1)):
            return f"{episode.task_id}/{episode.trial}"
    return None


def _look(path: Path, episode: str, now: bool) -> str:
    """The command that shows an episode: a short one for who types it now, else one that stays true in a log."""
    if not now:
        return plain(f"show {path}::{episode}")
    newest = find_runs(runs_root())[-1:] == [path]
    return plain(f"view {'latest' if newest else path}::{episode}")


def _exit_code(summary: Summary, limit: float, of: int, errors: Console) -> int:
    if summary.skipped:
        text = (
            f"{summary.skipped:,} of {of:,} episode{'s' * (of != 1)} were SKIPPED: no reply is kept that could be replayed, so"
            " nothing is known of them"
        )
        say(errors, text, "yellow")
    spoiled = summary.infrastructure
    if spoiled <= limit * of:
        return OK
    say(
        errors,
        f"infrastructure errors spoiled {spoiled:,} of {of:,} episode{'s' * (of != 1)}, more than the limit of {limit:.0%}:"
        f" these scores are not the model's. `agentgym eval --resume {plain(_name(Path(summary.path)))}` plays them again",
        "red",
    )
    return INFRASTRUCTURE


def _play(args: argparse.Namespace, root: Path, show: Show) -> Outcome:
    if args.resume is not None:
        return _resume(args, root, show)
    if not args.tasks:
        raise UsageError("no task was named; try `agentgym eval quickstart`, or see `agentgym list tasks`")
    choice = Choice(
        trials=args.trials,
        limit=args.limit,
        variants=args.variants,
        params=_params(args.params),
        data=args.data,
        split=args.split,
        keyword=args.keyword,
        runs=str(root),
    )
    plan, options = prepare(args.tasks, choice, _options(args))
    if args.lf:
        plan = _last_failed(plan, root)
    show.model = args.model or DEFAULT
    judge = _judge(args)
    check_judge(plan, judge)  # before a model is loaded
    on_start, on_progress = show.start, show.update
    if args.stop_early is not None:
        if args.processes > 1:
            raise UsageError("--stop-early is for one process: several have no order among them")
        from agentgym.cli.stop_early import EarlyStop

        early = EarlyStop(args.stop_early, args.rules, plan)
        plan = early.plan

        def on_start(scheduler: Any, path: Path) -> None:
            show.start(scheduler, path)
            early.start(scheduler, path)

        def on_progress(progress: Progress) -> None:
            show.update(progress)
            early.update(progress)

    elif args.rules is not None:
        raise UsageError(
            "--rules are those of --stop-early; a run is judged by `agentgym gate RUN --baseline FILE --rules FILE`"
        )
    policy = _replaying(args) if args.replies or args.replay_only else _policy(show.model, args.verbose)
    return asyncio.run(
        start(plan, policy, options, model=show.model, judge=judge, root=root, on_start=on_start, on_progress=on_progress)
    )


def _judge(args: argparse.Namespace) -> Judge | None:
    return None if args.judge is None else Judge(_policy(args.judge, args.verbose), args.judge)


def _resume(args: argparse.Namespace, root: Path, show: Show) -> Outcome:
    if args.tasks:
        # `--resume quickstart` would read a suite's name as a run's; say so instead of guessing
        raise UsageError("--resume plays the rest of a recorded run and takes no further tasks: agentgym eval --resume [RUN]")
    if given := _given(args):
        raise UsageError(f"--resume goes on with the plan and options on record, so it cannot take {', '.join(given)}")
    path = find_run(args.resume, root)
    show.model = args.model or recorded_model(path)
    policy = _policy(show.model, args.verbose)
    return asyncio.run(
        resume(
            path,
            policy,
            model=show.model,
            judge=_judge(args),
            concurrency=args.concurrency,
            max_cost=args.max_cost,
            sandbox=args.sandbox,
            on_start=show.start,
            on_progress=show.update,
        )
    )


def _given(args: argparse.Namespace) -> list[str]:
    """The options on the command line that a resumed run cannot take."""
    return [
        next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0])
        for action in args.parser._actions
        if action.option_strings and action.dest not in _OF_A_RESUMED_RUN
        if hasattr(args, action.dest) and getattr(args, action.dest) != action.default
    ]


def _replaying(args: argparse.Namespace) -> CachedPolicy:
    """The model behind its kept replies."""
    if args.processes > 1:
        raise UsageError("--replies and --replay-only are for one process: several would write over each other's file")
    spec = (args.model or DEFAULT).removeprefix("cached:")
    path = None if args.replies is None else Path(args.replies)
    if args.replay_only and path is not None and not path.is_file():
        raise NotFoundError(
            f"there are no replies in {path}: `agentgym eval ... --model {redact(spec)} --replies {path}` keeps them there"
        )
    return CachedPolicy(
        load_policy(spec) if args.replay_only else _policy(spec, args.verbose), replies=path, replay_only=args.replay_only
    )


def _policy(spec: str, verbose: bool) -> Any:
    """The policy, with its model at hand where it has one to load: what is wrong with it is known before a run is made."""
    policy = load_policy(spec)
    if verbose and hasattr(policy, "verbose"):
        with contextlib.suppress(AttributeError):
            policy.verbose = True
    prepare_policy = getattr(policy, "prepare", None)
    if callable(prepare_policy):
        prepare_policy()
    return policy
