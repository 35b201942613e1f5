# SPDX-License-Identifier: Apache-2.0
"""The golden table: content hashes of the first tasks of every family, and of the canonical episodes of its honest oracle.

    python -m tests.tasks.golden

writes it anew, from the top folder. Do so only where a change of the tasks is meant, and then raise ``version`` of every
class whose task hashes change and the ``-vN`` of its entry point: results on the old tasks and on the new are not the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentgym.env import ChatEnv
from agentgym.task import content_hash
from tests.tasks.families import environments, freeze, played

PATH = Path(__file__).parent / "golden_hashes.json"
ITEMS = 3
"""Tasks of each environment that are kept in the table."""

Entry = dict[str, dict[str, list[str]]]


def entry(env: ChatEnv) -> dict[str, list[str]]:
    """Hashes of an environment's first tasks, and of the first two episodes of its honest oracle."""
    items = env.items(ITEMS)
    episodes = [played(env, "honest", item).trajectory.canonical() for item in items[:2]]
    return {
        "tasks": [content_hash(freeze(env, item).encode()) for item in items],
        "honest": [content_hash(episode) for episode in episodes],
    }


def table() -> dict[str, dict[str, Entry]]:
    """Family and version -> label -> variant -> hashes."""
    result: dict[str, dict[str, Entry]] = {}
    for env in environments():
        family = result.setdefault(f"{env.family}-v{env.version}", {})
        family.setdefault(env.label, {})[env.variant] = entry(env)
    return result


def read() -> dict[str, dict[str, Entry]]:
    """The table as it is in the repository."""
    known: dict[str, dict[str, Entry]] = json.loads(PATH.read_text())
    return known


if __name__ == "__main__":
    PATH.write_text(json.dumps(table(), indent=1, sort_keys=True) + "\n")
    print(f"wrote {PATH}")
