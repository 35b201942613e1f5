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
        row = msgspec.to_builtins(entry)
        print(json.dumps(row) if args.json else f"{row['name']:12} {row['size'] / 1e6:8.1f} MB  {row['path']}")
    if not entries and not args.json:
        print(f"{modelfiles.cache_dir()} is empty; `agentgym fetch smollm2` gets the default model (93 MB)")
    return OK
