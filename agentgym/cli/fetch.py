# SPDX-License-Identifier: Apache-2.0
"""``agentgym fetch``: gets a model's file into the cache."""

from __future__ import annotations

import argparse
import sys

from agentgym.cli.main import OK
from agentgym.policies import modelfiles


def run(args: argparse.Namespace) -> int:
    """Fetches the file, or says where it is already."""
    known = modelfiles.find(args.name)
    if known is not None:
        print(f"{args.name} is here already: {known}")
        return OK
    path = modelfiles.fetch(args.name, lambda text: print(text, end="", file=sys.stderr, flush=True))
    print(path)
    return OK
