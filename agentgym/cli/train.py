# SPDX-License-Identifier: Apache-2.0
"""``agentgym train``: trains a model on tasks by GRPO, and says what held-out tasks are worth before and after."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentgym.cli.eval import _params, _terminated_like_interrupted
from agentgym.cli.main import INTERRUPTED, OK, TERMINATED
from agentgym.errors import NotFoundError, UsageError
from agentgym.records.run import find_run, find_runs, runs_root
from agentgym.report.screen import console, say
from agentgym.report.text import fraction, plain

_BOUNDS = {"steps": 1, "tasks_per_step": 1, "group": 2, "max_tokens": 1, "warm_steps": 1, "save_every": 1, "held_out": 0}
_FOR_A_NEW_ONE = (
    "model",
    "variant",
    "params",
    "control",
    "warm_start",
    "seed",
    "group",
    "tasks_per_step",
    "rate",
    "max_tokens",
)


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code."""
    for name, least in _BOUNDS.items():
        if getattr(args, name) < least:
            option = "tasks" if name == "tasks_per_step" else name.replace("_", "-")
            raise UsageError(f"--{option} must be {least} or more, not {getattr(args, name)}")
    for name in ("rate", "warm_rate"):
        if not 0 < getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be between 0 and 1, not {getattr(args, name)}")
    from agentgym.training.weights import need

    need("torch", "transformers", "trl", "datasets")
    if args.accelerate_config is not None:
        command = under_accelerate(sys.argv[1:], args.accelerate_config)
        return subprocess.run(command, check=False).returncode
    root = runs_root(args.runs)
    options, resumed = _what(args, root)
    seen = _Seen(args)
    with _terminated_like_interrupted() as terminated:
        try:
            from agentgym.training.run import train

            found = train(options, root, resume=resumed, show=seen.line, opened=seen.opened, measured=seen.measured)
        except KeyboardInterrupt:
            say(console(stderr=True), plain(_stopped(seen.path)), "yellow")
            return TERMINATED if terminated else INTERRUPTED
    if args.json:
        print(json.dumps({"path": str(seen.path), **found}))
    else:
        for text in summary(found, seen.last):
            seen.screen.print(plain(text))
        seen.screen.print(plain(f"see it:  agentgym view {seen.path}"), style="dim")
    return OK


def _what(args: argparse.Namespace, root: Path) -> tuple[Any, Path | None]:
    from agentgym.training.run import OPTIONS, Training

    if args.resume is not None:
        if args.families:
            raise UsageError("--resume goes on with what is on record and takes no families: agentgym train --resume [RUN]")
        given = [n for n in _FOR_A_NEW_ONE if getattr(args, n) != args.parser.get_default(n)]
        if given:
            raise UsageError(f"--resume goes on with the options on record, so it cannot take {', '.join(given)}")
        path = _newest(root) if args.resume == "latest" else find_run(args.resume, root)
        if not (path / OPTIONS).is_file():
            raise NotFoundError(f"{path} is no training: it holds no {OPTIONS}")
        kept = json.loads((path / OPTIONS).read_text())["options"]
        options = msgspec.convert(kept, Training)
        if args.steps != args.parser.get_default("steps"):
            options = msgspec.structs.replace(options, steps=args.steps)
        return options, path
    if not args.families:
        raise UsageError("name what to train on, e.g. `agentgym train math.add`; `agentgym list tasks` shows what there is")
    params = ",".join(f"{k}={v}" for k, v in _params(args.params).items())
    families = tuple(f"{name}{',' if ':' in name else ':'}{params}" if params else name for name in args.families)
    options = Training(
        families, args.model or "local:smollm2", args.variant, args.steps, args.tasks_per_step, args.group, args.rate,
        args.max_tokens, control=args.control, warm_start=args.warm_start, warm_steps=args.warm_steps, warm_rate=args.warm_rate,
        held_out=args.held_out, seed=args.seed, save_every=args.save_every, threads=args.threads,
    )  # fmt: skip
    return options, None


def _newest(root: Path) -> Path:
    from agentgym.training.run import OPTIONS

    found = [path for path in find_runs(root) if (path / OPTIONS).is_file()]
    if not found:
        raise NotFoundError(f"there is no training in {root}")
    return found[-1]


def under_accelerate(words: Sequence[str], config: str) -> list[str]:
    """The same command under `accelerate launch`.

    Args:
        words: of the command line, ``--accelerate-config`` among them.
        config: accelerate's file.
    """
    words = list(words)
    for i, word in enumerate(words):
        if word == "--accelerate-config":
            del words[i : i + 2]
            break
        if word.startswith("--accelerate-config="):
            del words[i]
            break
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "-m", "agentgym", *words]


def _stopped(path: Path | None) -> str:
    if path is None:
        return "stopped before anything was trained"
    return f"stopped: rollouts and the last checkpoint are saved in {path}; continue with `agentgym train --resume {path}`"


class _Seen:
    """What is shown while it trains."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.screen = console(stderr=args.json)
        self.path: Path | None = None
        self.last: dict[str, Any] = {}

    def opened(self, path: Path) -> None:
        self.path = path
        if not self.args.quiet:
            self.screen.print(plain(f"training in {path}"), style="dim")

    def measured(self, when: str, found: Any) -> None:
        if self.args.json:
            print(json.dumps({"held_out": when, **msgspec.to_builtins(found)}), flush=True)
        elif not self.args.quiet:
            self.screen.print(plain(f"held-out ({found.items} items)  {when}: {_figures(msgspec.to_builtins(found))}"))

    def line(self, line: dict[str, Any]) -> None:
        if "step" in line:
            self.last = line
        if self.args.json:
            print(json.dumps(line), flush=True)
        elif not self.args.quiet:
            if "imitation" in line:
                self.screen.print(f" imitation {line['imitation']:>3}  loss {line['loss']:.3f}")
                return
            parts = [f"{n} {fraction(line[n])}" for n in ("paid", "exact", "format", "gold", "proxy") if line[n] is not None]
            parts += [f"tokens {line['tokens']:.1f}", f"violations {line['violations']}/{line['exposures']}"]
            self.screen.print(f" step {line['step']:>3}/{self.args.steps}  {' · '.join(parts)}  {line['cpu_s']:.0f} CPU s")


def _figures(found: dict[str, Any]) -> str:
    kept = "" if found["format"] is None else f" · format {fraction(found['format'])}"
    unscored = f" · {found['unscored']} unscored and left out" if found.get("unscored") else ""
    return f"exact {fraction(found['exact'])}{kept} · tokens {found['tokens']:.1f}{unscored}"


def summary(found: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """What came of a training, in lines for a person."""
    lines = []
    parts = [f"{when}: {_figures(found[when])}" for when in ("before", "warm", "after") if when in found]
    if parts:
        lines.append(f"held-out ({found['after']['items'] if 'after' in found else '?'} items)  {'   '.join(parts)}")
    if "after" in found:
        after = found["after"]
        lines.append(f"policy  violations {after['violations']}/{after['exposures']}")
    if last and last.get("proxy") is not None and last.get("gold") is not None:
        lines.append(f"last step  proxy-gold gap {fraction(last['proxy'] - last['gold'])}")
    return lines
