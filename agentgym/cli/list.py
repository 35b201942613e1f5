# SPDX-License-Identifier: Apache-2.0
"""``agentgym list``: what there is."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from agentgym import registry
from agentgym.cli.main import OK
from agentgym.errors import AgentGymError, NothingSelectedError, RecordError
from agentgym.records.run import Run, find_run, find_runs, runs_root
from agentgym.report.console import console
from agentgym.report.text import fraction, one_line
from agentgym.rollout.selection import read_suite, suite_files


def _tasks() -> Iterable[dict[str, Any]]:
    for family, version in registry.families().items():
        row: dict[str, Any] = {"name": family, "version": version}
        try:
            cls = registry.env_class(family)
        except (AgentGymError, ImportError) as e:
            yield {**row, "about": f"cannot be loaded: {e}", "variants": [], "parameters": {}}
            continue
        about = (cls.__doc__ or "").strip().split("\n", 1)[0]
        yield {**row, "variants": list(cls.variants), "parameters": dict(cls.parameters), "about": about}


def _suites() -> Iterable[dict[str, Any]]:
    for name, path in suite_files().items():
        suite = read_suite(path)
        families = list(dict.fromkeys(entry.task for entry in suite.tasks))
        yield {"name": name, "trials": suite.trials, "families": families, "about": suite.description}


_MODELS = {
    "local": ("local:smollm2", "a real small language model in this process; also local:/path/to/model.gguf"),
    "oracle": ("oracle:honest", "a task's own scripted expert; also cheater, lazy, random"),
    "replay": ("replay:RUN", "what a recorded run answered, again"),
}


def _models() -> Iterable[dict[str, Any]]:
    for name in registry.policies.names():
        example, about = _MODELS.get(name, (f"{name}:...", ""))
        yield {"name": name, "example": example, "about": about}
    yield {"name": "(place)", "example": "./my_policy.py:MyPolicy", "about": "your own: a subclass of agentgym.PolicyBase"}


def _runs(root: str | None) -> Iterable[dict[str, Any]]:
    for path in find_runs(runs_root(root)):
        try:
            with Run(path) as run:
                meta = run.meta
                row = {"name": path.name, "title": meta.get("title"), "model": meta.get("model"), "status": run.status}
                yield {**row, "done": run.count(), "planned": run.planned, "created_at": meta.get("created_at")}
        except RecordError as e:
            yield {"name": path.name, "title": None, "model": None, "status": "damaged", "error": str(e)}


def _episodes(name: str, root: str | None, failed: bool) -> Iterable[dict[str, Any]]:
    with Run(find_run(name, runs_root(root))) as run:
        for e in run.episodes():
            if failed and e.gold == 1.0:
                continue
            yield {
                "task_id": e.task_id,
                "trial": e.trial,
                "outcome": e.outcome,
                "reward": e.reward,
                "gold": e.gold,
                "turns": e.turns,
                "violations": e.violations,
                "completion_tokens": e.completion_tokens,
                "error": e.error,
                "address": f"{run.path}::{e.task_id}/{e.trial}",
            }


def _cell(key: str, value: Any) -> Text:
    if value is None:
        return Text("-", "dim")
    if key in ("reward", "gold"):
        return Text(fraction(value) if 0 <= value <= 1 else f"{value:.2f}")
    if key == "created_at":
        return Text(time.strftime("%Y-%m-%d %H:%M", time.localtime(value)))
    if isinstance(value, dict):
        return Text(one_line(" ".join(f"{k}={v}" for k, v in value.items()), 60))
    if isinstance(value, (list, tuple)):
        return Text(one_line(" ".join(map(str, value)), 70))
    return Text(one_line(str(value), 90))


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for, as a table or as JSON lines."""
    kinds = {"tasks": _tasks, "suites": _suites, "models": _models, "runs": lambda: _runs(args.runs)}
    rows = kinds[args.what]() if args.what in kinds else _episodes(args.what, args.runs, args.failed)
    if args.keyword:
        rows = (r for r in rows if args.keyword in str(r.get("name") or r.get("task_id")))
    count = 0
    table: Table | None = None
    hidden = {"address"}
    for row in rows:
        if args.limit is not None and count >= args.limit:
            break
        count += 1
        if args.json:
            print(json.dumps(row))
            continue
        if table is None:
            table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold dim")
            for key in row:
                if key not in hidden:
                    table.add_column(key.replace("_", " "), no_wrap=True)
        table.add_row(*(_cell(k, v) for k, v in row.items() if k not in hidden))
    if table is not None:
        console().print(table)
    elif count == 0:
        raise NothingSelectedError(f"no {args.what} to list" + (f" with {args.keyword!r} in the name" if args.keyword else ""))
    return OK
