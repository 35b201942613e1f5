# SPDX-License-Identifier: Apache-2.0
"""``agentgym export``: a run as rows to train on."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentgym.cli.main import OK
from agentgym.cli.runs import find_run_or_guest
from agentgym.errors import RecordError, UsageError
from agentgym.records.run import Run, runs_root
from agentgym.training import export

_TAKES = {
    "sft": ("at_least", "reasoning"),
    "kto": ("at_least", "reasoning"),
    "steps": ("at_least",),
    "dpo": ("margin", "every", "reasoning"),
    "rm": ("margin", "every", "reasoning"),
    "minari": (),
}


def run(args: argparse.Namespace) -> int:
    """Writes the rows, and says how many there are and what was left out."""
    wishes = {n: v for n in ("at_least", "margin", "every", "reasoning") if (v := getattr(args, n)) not in (None, False)}
    strange = next((n for n in wishes if n not in _TAKES[args.format]), None)
    if strange is not None:
        names = {"every": "--all-pairs"}
        raise UsageError(f"{names.get(strange, '--' + strange.replace('_', '-'))} means nothing to the format {args.format}")
    if not args.labels and (args.dimension is not None or args.annotator is not None):
        raise UsageError("--dimension and --annotator say which labels are taken: they need --labels")
    with Run(find_run_or_guest(args.run, runs_root(args.runs))) as run:
        chosen = _labelled(run, args) if args.labels else export.choose(run, args.by or "reward")
        if args.format == "minari":
            if args.output in (None, "-"):
                raise UsageError("name the data set: -o NAME/PART-v0")
            data = export.minari(chosen, args.output)
            _say(f"{data.total_episodes} episodes, {data.total_steps} steps: {data.id}", chosen)
            return OK
        rows = export.FORMATS[args.format](chosen, **wishes)
        if args.output in (None, "-"):
            count = sum(1 for _ in _printed(rows))
        else:
            count = _write(Path(args.output), rows)
    _say(f"{count} rows" + ("" if args.output in (None, "-") else f": {args.output}"), chosen)
    if not count and args.labels:
        print("no pair has a majority, or the two never part: `agentgym label --report` says what there is", file=sys.stderr)
    elif not count and args.format in ("dpo", "rm"):
        print("no two trials of a task differ in what decides: play more trials, or decide --by another score", file=sys.stderr)
    return OK


def _labelled(run: Run, args: argparse.Namespace) -> export.Chosen:
    if args.format not in ("dpo", "rm") or args.every:
        raise UsageError("--labels is for the formats dpo and rm, and takes exactly the pairs that people were asked about")
    if args.by is not None:
        raise UsageError("either a score decides (--by) or people do (--labels)")
    return export.labelled(run, args.dimension or "", args.annotator)


def _say(what: str, chosen: export.Chosen) -> None:
    left = [
        f"{n} {why}" for n, why in ((chosen.spoiled, "spoiled by infrastructure"), (chosen.unscored, "without that score")) if n
    ]
    print(what + (f" (left out: {', '.join(left)})" if left else ""), file=sys.stderr)


def _printed(rows: Iterable[dict[str, Any]]) -> Iterator[None]:
    for row in rows:
        print(json.dumps(row))
        yield


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """All of it or nothing: a file half written would be trained on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        try:
            with temporary.open("w", encoding="utf-8") as f:
                for row in rows:
                    f.write(json.dumps(row) + "\n")
                    count += 1
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise RecordError(f"{path} cannot be written: {e.strerror}") from e
    return count
