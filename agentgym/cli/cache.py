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
    return _clear(args.what) if args.action == "clear" else _list(args.json)


def _clear(what: str | None) -> int:
    removed = modelfiles.clear_cache() if what in (None, "models") else []
    replies = modelfiles.list_replies()
    if replies is not None and what == "replies":
        removed += modelfiles.clear_replies()
        replies = None
    print(f"removed {len(removed)} file{'s' * (len(removed) != 1)} from {modelfiles.cache_dir()}")
    if replies is not None and what is None:
        # they may have cost money, and models are fetched again for nothing
        print(f"models' replies are still there ({replies.size / 1e6:.1f} MB): `agentgym cache clear replies` removes them")
    return OK


def _list(as_json: bool) -> int:
    entries = modelfiles.list_cache()
    if (replies := modelfiles.list_replies()) is not None:
        entries.append(replies)
    for entry in entries:
        wrong = "" if entry.complete else f"   incomplete: `agentgym fetch {entry.name}` gets it again"
        line = f"{entry.name:12} {entry.size / 1e6:8.1f} MB  {entry.path}{wrong}"
        print(json.dumps(msgspec.to_builtins(entry)) if as_json else line)
    if not entries and not as_json:
        print(f"{modelfiles.cache_dir()} is empty; `agentgym fetch smollm2` gets the default model (93 MB)")
    return OK
