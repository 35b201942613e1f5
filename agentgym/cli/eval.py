# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval``: plays tasks and shows how it goes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentgym.cli.main import INFRASTRUCTURE, INTERRUPTED, OK
from agentgym.episode import Limits
from agentgym.errors import NothingSelectedError, UsageError
from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Sampling
from agentgym.records.run import Run, find_run, find_runs, runs_root
from agentgym.report.console import bar, closing, console, heading, summary_table
from agentgym.report.summary import Summary, summarize
from agentgym.report.text import duration, one_line
from agentgym.rollout.evaluate import Outcome, prepare, read_plan, resume, start
from agentgym.rollout.scheduler import Options, Progress, Scheduler
from agentgym.rollout.selection import Choice, Plan


def _params(pairs: list[str]) -> dict[str, str]:
    result = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UsageError(f"-T {pair!r}: expected NAME=VALUE, e.g. -T level=3")
        result[name] = value
    return result


def _options(args: argparse.Namespace) -> Options:
    for name in (
        "concurrency",
        "max_turns",
        "time_limit",
        "token_limit",
        "cost_limit",
        "max_cost",
        "max_tokens",
        "step_threads",
    ):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, not {value}")
    for name in ("retries", "temperature"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name} must not be negative, not {value}")
    limits = (args.max_turns, args.time_limit, args.token_limit, args.cost_limit)
    return Options(
        args.concurrency,
        args.retries,
        args.seed,
        Sampling(temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens),
        Limits(*limits) if any(x is not None for x in limits) else None,
        args.max_cost,
        args.step_threads,
        args.exitfirst,
    )


def _last_failed(plan: Plan, root: Path) -> Plan:
    """The plan less what the newest run with the same title solved in every trial."""
    for path in reversed(find_runs(root)):
        with Run(path) as run:
            if run.meta.get("title") != plan.title:
                continue
            solved: dict[str, bool] = {}
            for e in run.episodes():
                solved[e.task_id] = solved.get(e.task_id, True) and e.gold == 1.0
        tasks = [t for t in plan.tasks if not solved.get(t.task_id, False)]
        if not tasks:
            raise NothingSelectedError(f"--lf: {path} solved every selected task")
        return msgspec.structs.replace(plan, tasks=tasks)
    return plan


class _Show:
    """Progress for a terminal (a live table) or for a log (a line now and then)."""

    def __init__(self, screen: Console, quiet: bool) -> None:
        self.screen = screen
        self.quiet = quiet
        self.live: Live | None = None
        self.path: Path | None = None
        self.model = ""
        self._last_line = time.monotonic()

    def start(self, scheduler: Scheduler, path: Path) -> None:
        self.path = path
        if self.quiet:
            return
        plan = scheduler.plan
        self.screen.print(heading(plan.title, self.model, len(plan.tasks), (t.trials for t in plan.tasks)))
        if scheduler.progress.resumed:
            self.screen.print(f" {scheduler.progress.resumed:,} episodes are on record already; playing the rest")
        if self.screen.is_terminal:
            self.live = Live(self._table(scheduler.progress), console=self.screen, transient=True, auto_refresh=False)
            self.live.start()

    def update(self, progress: Progress) -> None:
        if self.quiet:
            return
        if self.live is not None:
            self.live.update(self._table(progress), refresh=True)
        elif time.monotonic() - self._last_line >= 10.0:
            self._last_line = time.monotonic()
            self.screen.print(self._line(progress))

    def _line(self, p: Progress) -> Text:
        parts = [f" {p.total.done:,}/{p.total.planned:,} episodes", f"{p.episodes_per_s:.1f}/s"]
        if p.tokens and p.elapsed_s:
            parts.append(f"{p.tokens / p.elapsed_s:.0f} tokens/s")
        if p.eta_s is not None:
            parts.append(f"{duration(p.eta_s)} to go")
        if p.cost_usd:
            parts.append(f"${p.cost_usd:.4f}")
        text = Text(" · ".join(parts))
        if p.total.infrastructure:
            text.append(f" · {p.total.infrastructure} infrastructure: {one_line(p.last_error, 100)}", "yellow")
        return text

    def _table(self, progress: Progress) -> Group:
        table = Table.grid(padding=(0, 3, 0, 0))
        for label, t in list(progress.by_family.items())[:30]:
            gold = f"gold {t.gold_sum / t.gold_count:.2f}" if t.gold_count else ""
            table.add_row(Text(" " + one_line(label, 60)), bar(t.done, t.planned), gold)
        return Group(table, self._line(progress))

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def run(args: argparse.Namespace) -> int:
    """Plays what was asked for; returns the exit code."""
    screen = console(stderr=args.json)
    show = _Show(screen, args.quiet)
    root = runs_root(args.runs)
    try:
        outcome = _play(args, root, show)
    except (KeyboardInterrupt, asyncio.CancelledError):
        show.stop()
        if show.path is not None:
            with Run(show.path) as run:
                screen.print(
                    f"stopped: {run.count():,} of {run.planned:,} episodes are saved in {show.path};"
                    f" continue with --resume {show.path.name}",
                    style="yellow",
                )
        return INTERRUPTED
    finally:
        show.stop()
    with Run(outcome.path) as run:
        summary = summarize(run)
        example = next((e.address for e in run.episodes()), None)
    if args.json:
        print(json.dumps(msgspec.to_builtins(summary)))
    if not args.quiet:
        screen.print(summary_table(summary.rows))
        screen.print(closing(summary))
        if outcome.stopped:
            screen.print(f"stopped early: {outcome.stopped}", style="yellow")
        if example is not None:
            screen.print(f"see it:  agentgym show {example}", style="dim")
    return _exit_code(summary, args.infra_limit, bool(outcome.stopped), screen)


def _exit_code(summary: Summary, limit: float, stopped: bool, screen: Console) -> int:
    if summary.infrastructure and (summary.infrastructure > limit * summary.planned or stopped):
        share = summary.infrastructure / max(summary.done, 1)
        screen.print(
            f"infrastructure errors spoiled {summary.infrastructure:,} episodes ({share:.0%}), more than --infra-limit {limit:g}:"
            f" these scores are not the model's. `agentgym eval --resume {Path(summary.path).name}` plays them again",
            style="red",
        )
        return INFRASTRUCTURE
    return OK


def _play(args: argparse.Namespace, root: Path, show: _Show) -> Outcome:
    if args.resume is not None:
        if args.tasks:
            # `--resume quickstart` would read a suite's name as a run's; say so instead of guessing
            raise UsageError(
                "--resume plays the rest of a recorded run and takes no further tasks: agentgym eval --resume [RUN]"
            )
        path = find_run(args.resume, root)
        _, _, model = read_plan(path)
        show.model = model
        policy = _policy(args.model or model, args.verbose)
        return asyncio.run(resume(path, policy, concurrency=args.concurrency, on_start=show.start, on_progress=show.update))
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
    model = args.model or DEFAULT
    show.model = model
    policy = _policy(model, args.verbose)
    return asyncio.run(start(plan, policy, options, model=model, root=root, on_start=show.start, on_progress=show.update))


def _policy(spec: str, verbose: bool) -> Any:
    policy = load_policy(spec)
    if verbose and hasattr(policy, "verbose"):
        with contextlib.suppress(AttributeError):
            policy.verbose = True
    return policy
