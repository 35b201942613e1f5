# SPDX-License-Identifier: Apache-2.0
"""Every environment that comes with agentgym, at every level and variant; for tests of all of them and for the golden table."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgym import registry
from agentgym.dataenv import DataEnv
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, play
from agentgym.policies.oracle import OraclePolicy
from agentgym.protocols import Policy
from agentgym.task import FrozenTask

DATA = Path(__file__).parent.parent / "data"

EXTRACTS = {
    "gsm8k": DATA / "gsm8k_extract.jsonl",
    "math500": DATA / "math_format.jsonl",
    "humaneval": DATA / "humaneval_extract.jsonl",
    "mbpp": DATA / "mbpp_extract.jsonl",
}
"""Rows in the repository, for families over data; ``tests/data/SOURCES.md`` says whose."""

LEVELS = {"tools.retail": 3}
"""Levels of families that do not say themselves."""


def families() -> dict[str, type[ChatEnv]]:
    """The families of this distribution by name, newest version."""
    own = {name.rpartition("-v")[0] for name in registry.tasks.places("own")}
    return {name: registry.env_class(name) for name in sorted(own)}


def environments(family: str | None = None) -> Iterator[ChatEnv]:
    """Each family (or one) at each of its levels, in each of its variants.

    Of sandboxed scenarios with many variants, levels above the first in the first two only: each episode starts processes.
    """
    for name, cls in families().items():
        if family not in (None, name):
            continue
        levels = range(1, getattr(cls, "top_level", LEVELS.get(name, 1)) + 1)
        for level in levels if "level" in cls.parameters else [None]:
            costly = level not in (None, 1) and "sandbox" in cls.needs()
            for variant in cls.variants[:2] if costly else cls.variants:
                params: dict[str, Any] = {} if level is None else {"level": level}
                if issubclass(cls, DataEnv):
                    params["data"] = str(EXTRACTS[name])
                yield cls(variant=variant, **params)


def freeze(env: ChatEnv, item: str) -> FrozenTask:
    """A task as it is kept."""
    return env.freeze(env.make_task(item))


def played(env: ChatEnv, policy: Policy | str, item: str) -> EpisodeResult:
    """One episode of a policy, or of the oracle of that name, played and scored as a run does it."""
    if isinstance(policy, str):
        policy = OraclePolicy(policy)
    return asyncio.run(play(env, env.make_task(item), policy))


def real_rows(standard_name: str, family: str) -> str:
    """The rows to test a data family on: the whole set in ``$AGENTGYM_DATA`` where that is set, else the extract."""
    folder = os.environ.get("AGENTGYM_DATA")
    return str(Path(folder) / standard_name if folder else EXTRACTS[family])
