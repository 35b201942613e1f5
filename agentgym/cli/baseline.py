# SPDX-License-Identifier: Apache-2.0
"""``agentgym baseline``: makes, shows, compares, accepts and checks the files that a gate compares with."""

from __future__ import annotations

import argparse
import contextlib
import datetime
from pathlib import Path

import msgspec

from agentgym import registry
from agentgym.cli.main import OK
from agentgym.errors import AgentGymError, UsageError
from agentgym.gate import baseline as baselines
from agentgym.gate import sources
from agentgym.gate.baseline import Header, few_clusters
from agentgym.gate.rows import INFRASTRUCTURE, SKIPPED, Rows
from agentgym.report.screen import console, say
from agentgym.report.text import plain
from agentgym.rollout.evaluate import code_hashes

INCOMPATIBLE = 13
"""Exit code of ``check`` for a baseline that does not fit what is here."""


def run(args: argparse.Namespace) -> int:
    """Does what was asked for; returns the exit code."""
    return _ACTIONS[args.action](args)


def _date(text: str | None) -> datetime.date | None:
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--expires {text!r}: expected a day as YYYY-MM-DD, e.g. 2027-03-31") from None


def _create(args: argparse.Namespace) -> int:
    path = Path(args.output)
    if path.exists() and not args.force:
        raise UsageError(
            f"{path} exists. `agentgym baseline accept {path} {args.run} --reason ... --expires ...` puts a new run in its"
            " place and says why; --force replaces it without"
        )
    rows = _usable(args.run, args.runs)
    header = baselines.header_of(rows, accepted_by=args.by, reason=args.reason, expires=_date(args.expires))
    baselines.write(path, header, rows)
    _told(path, header, rows)
    return OK


def _usable(name: str, runs: str | None) -> Rows:
    """Rows of which a baseline may be made: whole, and not spoiled."""
    rows = sources.load(name, runs)
    spoiled = int(((rows.status == INFRASTRUCTURE) | (rows.status == SKIPPED)).sum())
    planned = rows.origin.planned or len(rows)
    if spoiled or planned > len(rows):
        missing = f"{planned - len(rows)} of {planned} trials were not played" if planned > len(rows) else ""
        lost = f"{spoiled} of {len(rows)} trials were spoiled by infrastructure or skipped" if spoiled else ""
        again = f"`agentgym eval --resume {name}` plays them again" if rows.origin.kind == "run" else "play them again"
        raise UsageError(f"{name}: {' and '.join(filter(None, [missing, lost]))}. A baseline is a whole sample: {again}")
    return rows


def _told(path: Path, header: Header, rows: Rows) -> None:
    out = console()
    k = rows.trials
    out.print(
        f"{plain(str(path))}: {rows.tasks:,} tasks in {rows.clusters:,} clusters, {k} trial{'s' * (k != 1)} each"
        f" of {plain(', '.join(header.models) or '?')}"
    )
    errors = console(stderr=True)
    if (few := few_clusters(rows)) is not None:
        say(errors, plain(f"note: {few}"), "yellow")
    if k < 4:
        say(errors, f"note: {k} trial{'s' * (k != 1)} a task leave much to luck; 4 or more tell smaller drops", "yellow")


def _show(args: argparse.Namespace) -> int:
    header, rows = baselines.read(Path(args.file))
    out = console()
    for name, value in msgspec.to_builtins(header).items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in sorted(value.items())) or "-"
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        out.print(plain(f"{name:<13} {value}"))
    for metric in rows.names():
        means = {f: rows.take(rows.family.where(f)).values(metric) for f in rows.family.names}
        shown = [f"{f or 'all'} {v[v == v].mean():.3f} ({(v == v).sum()})" for f, v in means.items() if (v == v).any()]
        out.print(plain(f"{metric:<13} {', '.join(shown) or '-'}"))
    if (few := few_clusters(rows)) is not None:
        out.print(plain(f"note: {few}"))
    return OK


def _diff(args: argparse.Namespace) -> int:
    old, new = sources.load(args.file, args.runs), sources.load(args.other, args.runs)
    lines = list(baselines.differences(old, new))
    out = console()
    for line in lines:
        out.print(plain(line))
    out.print(f"{len(lines):,} difference{'s' * (len(lines) != 1)}", style="dim")
    return OK


def _accept(args: argparse.Namespace) -> int:
    path, expires = Path(args.file), _date(args.expires)
    header, rows = baselines.read(path)
    if not args.reason.strip():
        raise UsageError("--reason is empty: say why this is what is wanted now, for whoever reads it in a year")
    if expires is not None and expires <= _today():
        raise UsageError(f"--expires {expires} is not in the future")
    if args.run:
        old, rows = rows, _usable(args.run, args.runs)
        changes = len(list(baselines.differences(old, rows)))
        console().print(f"{changes:,} differences to what was there; `git diff {plain(str(path))}` shows them")
        header = baselines.header_of(rows)
    header = msgspec.structs.replace(header, accepted_by=args.by or header.accepted_by, reason=args.reason, expires=expires)
    baselines.write(path, header, rows)
    _told(path, header, rows)
    return OK


def _check(args: argparse.Namespace) -> int:
    path = Path(args.file)
    header, rows = baselines.read(path)
    problems = []
    if baselines.encode(header, rows) != path.read_bytes():
        problems.append("it was edited by hand or merged: its text is not what `baseline create` writes for this content")
    if header.expires is not None and header.expires <= _today():
        problems.append(f"it expired on {header.expires}: accept it again, or a new run in its place")
    notes = []
    places = _places(rows)
    for name, before in header.environments.items():
        try:
            now = code_hashes(places.get(name, name))
        except AgentGymError as e:
            notes.append(f"{name} cannot be checked: {e}")
            continue
        if now["source"] != before:
            problems.append(f"the code of {name} changed since ({before} -> {now['source']}): its tasks will not be compared")
        for verifier, hash_ in now["verifiers"].items():
            was = header.verifiers.get(f"{name}:{verifier}")
            if was is not None and was != hash_:
                problems.append(f"the verifier {verifier} of {name} changed since: its tasks will not be compared")
    out = console()
    for problem in problems:
        out.print(plain(f"{path}: {problem}"), style="red")
    for note in notes:
        say(console(stderr=True), plain(f"note: {note}"), "yellow")
    if not problems:
        _told(path, header, rows)
    return INCOMPATIBLE if problems else OK


def _places(rows: Rows) -> dict[str, str]:
    """``FAMILY-vVERSION`` -> place of the environments in this repository's own files, which no registry knows."""
    found = {}
    for file in sorted({source.rpartition(":")[0] for source in rows.source.names}):
        if file.endswith(".py") and Path(file).is_file():
            with contextlib.suppress(AgentGymError, ImportError, SyntaxError):
                for place, cls in registry.envs_in(file).items():
                    found[f"{cls.family}-v{cls.version}"] = place
    return found


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


_ACTIONS = {"create": _create, "show": _show, "diff": _diff, "accept": _accept, "check": _check}
