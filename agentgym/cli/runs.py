# SPDX-License-Identifier: Apache-2.0
"""Where a command takes a run, it takes a log of another harness too: the run that is made of it."""

from __future__ import annotations

import sys
from pathlib import Path

from agentgym.guests.convert import cached_guest, is_guest
from agentgym.policies.modelfiles import cache_dir
from agentgym.records.run import find_run


def find_run_or_guest(name: str, root: Path) -> Path:
    """The directory of a run: as `find_run` finds it, or made of the log that is named.

    What could not be read is told on stderr.

    Raises:
        As `find_run` and `open_guest`.
    """
    path = Path(name)
    if not name or not is_guest(path):
        return find_run(name, root)
    made = cached_guest(path, cache_dir() / "guests")
    from agentgym.report.text import plain

    for remark in made.remarks:
        print(plain(f"{path}: {remark}"), file=sys.stderr)
    return made.path
