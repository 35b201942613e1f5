# SPDX-License-Identifier: Apache-2.0
"""``agentgym list``: what there is."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from agentgym import registry
from agentgym.cli.main import OK
from agentgym.errors import AgentGymError, NotFoundError, NothingSelectedError, RecordError, UsageError, did_you_mean
from agentgym.records.filter import parse
from agentgym.records.run import Run, find_run, find_runs, runs_root
from agentgym.report.screen import Column, Table, console
from agentgym.report.text import fraction, one_line

Row = dict[str, Any]


class _Kind(NamedTuple):
    """One kind of thing that can be listed."""

    rows: Callable[[argparse.Namespace], Iterable[Row]]
    columns: dict[Column, Callable[[Row], str]]
    """What a person is shown of a row."""
    none: str
    """What to say where there is none."""


# -- what there is, one dictionary a thing ----------------------------------------------------------------------------


def _tasks(_: argparse.Namespace) -> Iterable[Row]:
    for family, version in registry.families().items():
        row: Row = {"name": family, "version": version}
        try:
            cls = registry.env_class(family)
        except (AgentGymError, ImportError) as e:
            yield {**row, "about": f"cannot be loaded: {e}", "variants": [], "parameters": {}}
            continue
        about = (cls.__doc__ or "").strip().split("\n", 1)[0].replace("``", "")
        yield {**row, "variants": list(cls.variants), "parameters": dict(cls.parameters), "about": about}


def _suites(_: argparse.Namespace) -> Iterable[Row]:
    from agentgym.rollout.selection import read_suite, suite_files  # it brings the whole machinery of playing with it

    for name, path in suite_files().items():
        suite = read_suite(path)
        families = list(dict.fromkeys(entry.task for entry in suite.tasks))
        yield {"name": name, "trials": suite.trials, "families": families, "about": suite.description}


_MODELS = {
    "local": ("local:smollm2", "a real small language model in this process; also local:/path/to/model.gguf"),
    "oracle": ("oracle:honest", "a task's own scripted expert; also cheater, lazy, random"),
    "openai": ("openai:NAME@http://HOST:8000/v1", "a server that speaks OpenAI's chat protocol; without @URL: OpenAI itself"),
    "litellm": ("litellm:anthropic/NAME", "a model of any provider that litellm knows"),
    "hf": ("hf:/path/to/model", "a transformers model in this process"),
    "gguf": ("gguf:/path/to/model.gguf", "a model file in this process"),
    "agent": ("agent:my_pkg.bot:run", "your own agent: a Python function"),
    "cmd": ("cmd:python bot.py", "your own agent: a program that reads and writes lines of JSON"),
    "http": ("http://HOST:9000/act", "your own agent: a service"),
    "https": ("https://HOST/act", "the same, encrypted"),
    "replay": ("replay:RUN", "what a recorded run answered, again"),
    "cached": ("cached:MODEL", "any of these, its replies kept and used again for equal requests"),
}
"""Kind -> what to type, and what it is; the order in which people want to know."""


def _models(_: argparse.Namespace) -> Iterable[Row]:
    names = registry.policies.names()
    for name in sorted(names, key=lambda n: (list(_MODELS).index(n) if n in _MODELS else len(_MODELS), n)):
        example, about = _MODELS.get(name, (f"{name}:...", "from an installed extension"))
        yield {"name": name, "example": example, "about": about}
    about = "your own policy: a subclass of agentgym.PolicyBase"
    yield {"name": "FILE.py:CLASS", "example": "./my_policy.py:MyPolicy", "about": about}


def _runs(args: argparse.Namespace) -> Iterable[Row]:
    for path in find_runs(runs_root(args.runs)):
        row: Row = {"name": path.name, "path": str(path)}
        try:
            with Run(path) as run:
                meta = run.meta
                row |= {"title": meta.get("title"), "model": meta.get("model"), "status": run.status}
                row |= {"done": run.count(), "planned": run.planned, "gold": _mean_gold(run)}
                yield {**row, "created_at": meta.get("created_at")}
        except RecordError as e:
            yield {**row, "title": None, "model": None, "status": "damaged", "error": str(e)}


def _mean_gold(run: Run) -> float | None:
    value: float | None = next(run._rows(f"SELECT avg(gold) FROM episodes WHERE {run._counting()}"))[0]
    return value


def _episodes(args: argparse.Namespace) -> Iterable[Row]:
    with Run(find_run(args.what, runs_root(args.runs)), scores=args.scores) as run:
        for e in run.episodes(where=args.where or ""):
            if args.failed and e.gold == 1.0:
                continue
            yield {
                "task_id": e.task_id,
                "trial": e.trial,
                "outcome": e.outcome,
                "reward": e.reward,
                "gold": e.gold,
                "turns": e.turns,
                "cached_turns": e.cached_turns,
                "violations": e.violations,
                "completion_tokens": e.completion_tokens,
                "error": e.error,
                "address": e.address,
            }


# -- what a person is shown of it -------------------------------------------------------------------------------------


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(key) is None else str(row[key])


def _number(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None else fraction(value) if 0 <= value <= 1 else f"{value:.2f}"

    return cell


def _count(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:,}" if row.get(key) else ""


def _done(row: Row) -> str:
    return f"{row['done']:,}/{row['planned']:,}" if "done" in row else ""


def _created(row: Row) -> str:
    created = row.get("created_at")
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(created)) if isinstance(created, (int, float)) else ""


_KINDS = {
    "tasks": _Kind(
        _tasks,
        {
            Column("name"): _text("name"),
            Column("variants", drop=1): lambda row: " ".join(row["variants"]),
            Column("parameters", drop=2): lambda row: " ".join(f"{k}={v}" for k, v in row["parameters"].items()),
            Column("about", least=20): _text("about"),
        },
        "there are no tasks; is agentgym installed? `agentgym doctor` tells",
    ),
    "suites": _Kind(
        _suites,
        {
            Column("name"): _text("name"),
            Column("trials", "right", drop=2): _text("trials"),
            Column("families", least=12, drop=1): lambda row: " ".join(row["families"]),
            Column("about", least=30): _text("about"),
        },
        "there are no suites",
    ),
    "models": _Kind(
        _models,
        {
            Column("model"): _text("example"),
            Column("about", least=30): _text("about"),
        },
        "there are no models",
    ),
    "runs": _Kind(
        _runs,
        {
            Column("name"): _text("name"),
            Column("model", least=12): _text("model"),
            Column("status", drop=2): _text("status"),
            Column("done", "right", drop=3): _done,
            Column("gold", "right", drop=1): _number("gold"),
            Column("created", drop=4): _created,
            Column("error", least=10): _text("error"),
        },
        "there are no runs in {root}/ yet: `agentgym eval quickstart` makes one",
    ),
}

_OF_A_RUN = _Kind(
    _episodes,
    {
        Column("episode"): lambda row: f"{row['task_id']}/{row['trial']}",
        Column("outcome", drop=3): _text("outcome"),
        Column("reward", "right", drop=1): _number("reward"),
        Column("gold", "right"): _number("gold"),
        Column("turns", "right", drop=2): _count("turns"),
        Column("cached", "right", drop=2): _count("cached_turns"),
        Column("tokens", "right", drop=4): _count("completion_tokens"),
        Column("violations", "right"): _count("violations"),
        Column("error", least=10): _text("error"),
    },
    "{what} has no episodes on record",
)


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for, as a table or as JSON lines."""
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit must be at least 1, not {args.limit}")
    kind = _KINDS.get(args.what, _OF_A_RUN)
    if args.failed and kind is not _OF_A_RUN:
        raise UsageError(f"--failed is for the episodes of a run, as in `agentgym list latest --failed`, not for {args.what}")
    if args.scores and kind is not _OF_A_RUN:
        raise UsageError(
            f"--scores is for the episodes of a run, as in `agentgym list latest --scores own`, not for {args.what}"
        )
    if args.where is not None:
        if kind is not _OF_A_RUN:
            raise UsageError(
                f"--where is for the episodes of a run, as in `agentgym list latest --where 'gold<1'`, not for {args.what}"
            )
        parse(args.where)
    rows: list[Row] = []
    count = 0
    try:
        for row in kind.rows(args):
            if args.keyword and args.keyword not in str(row.get("name") or row.get("task_id")):
                continue
            if args.limit is not None and count >= args.limit:
                break
            count += 1
            if args.json:
                print(json.dumps(row))
            else:
                rows.append(row)
    except NotFoundError as e:
        near = did_you_mean(args.what, _KINDS)
        raise NotFoundError(f"{e} What else can be listed: {', '.join(_KINDS)}.{near}") from None
    if not count:
        if args.keyword:
            raise NothingSelectedError(f"nothing listed under {args.what} has {args.keyword!r} in its name")
        if args.where:
            raise NothingSelectedError(f"no episode of {args.what} fits {args.where!r}")
        if args.failed:
            raise NothingSelectedError(f"no episode of {args.what} failed")
        raise NothingSelectedError(kind.none.format(what=args.what, root=runs_root(args.runs)))
    if not args.json:
        _print(kind, rows)
    return OK


def _print(kind: _Kind, rows: list[Row]) -> None:
    cells = [[one_line(cell(row), 1000) for cell in kind.columns.values()] for row in rows]
    # a column that says nothing about any row is not worth its room
    shown = [i for i in range(len(kind.columns)) if any(row[i] for row in cells)]
    table = Table(column for i, column in enumerate(kind.columns) if i in shown)
    for row, values in zip(rows, cells, strict=True):
        style = "red" if row.get("violations") else "yellow" if row.get("error") else ""
        table.add(*(values[i] for i in shown), style=style)
    console().print(table)
