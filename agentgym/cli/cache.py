# SPDX-License-Identifier: Apache-2.0
"""``agentgym cache``: what is kept between runs, and how to be rid of it."""

from __future__ import annotations

import argparse
import json

import msgspec

from agentgym.cli.main import OK
from agentgym.policies import modelfiles


def run(args: argparse.Namespace) -> int:
    """Lists or clears the cache."""
    if args.action == "clear":
        removed = modelfiles.clear_cache()
        print(f"removed {len(removed)} file{'s' * (len(removed) != 1)} from {modelfiles.cache_dir()}")
        return OK
    entries = modelfiles.list_cache()
    for entry in entries:
        wrong = "" if entry.complete else f"   incomplete: `agentgym fetch {entry.name}` gets it again"
        line = f"{entry.name:12} {entry.size / 1e6:8.1f} MB  {entry.path}{wrong}"
        print(json.dumps(msgspec.to_builtins(entry)) if args.json else line)
    if not entries and not args.json:
        print(f"{modelfiles.cache_dir()} is empty; `agentgym fetch smollm2` gets the default model (93 MB)")
    return OK
