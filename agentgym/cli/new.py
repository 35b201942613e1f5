# SPDX-License-Identifier: Apache-2.0
"""``agentgym new``: starts a file of the user's own."""

from __future__ import annotations

import argparse
import re
from importlib import resources
from pathlib import Path

from agentgym.cli.main import OK
from agentgym.errors import UsageError


def run(args: argparse.Namespace) -> int:
    """Writes an environment that runs as it is; its name follows the file's."""
    path = Path(args.path)
    if path.suffix != ".py":
        raise UsageError(f"{path} must end in .py")
    if path.exists():
        raise UsageError(f"{path} exists already; nothing was written")
    stem = re.sub(r"\W+", "_", path.stem).strip("_").lower() or "mine"
    stem = stem if not stem[0].isdigit() else f"task_{stem}"
    name = "".join(part.capitalize() for part in stem.split("_"))
    template = resources.files("agentgym.cli").joinpath("task_template.py.txt").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.replace("CLASS_NAME", name).replace("FAMILY_NAME", stem), encoding="utf-8")
    except OSError as e:
        raise UsageError(f"cannot write {path}: {e.strerror}") from e
    ways = (f"eval {path} --model oracle:honest", f"validate {path}", f"eval {path}")
    print(f"wrote {path}. Try it:", *(f"  agentgym {way}" for way in ways), sep="\n")
    return OK
