# SPDX-License-Identifier: Apache-2.0
"""Episodes and runs that the tests of the record make: really played, written by the real writer, no scheduler between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentgym.chat import Action, submit
from agentgym.env import ChatEnv
from agentgym.episode import play
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.protocols import Policy
from agentgym.records.store import EpisodeRecord, RunWriter
from agentgym.task import content_hash
from tests.envs import Bank


def record(
    item: str = "0",
    *,
    env: ChatEnv | None = None,
    script: Sequence[Action] = (submit(),),
    policy: Policy | None = None,
    trial: int = 0,
    attempt: int = 0,
    **options: Any,
) -> EpisodeRecord:
    """One played episode, ready to be written."""
    env = env or Bank()
    task = env.make_task(item)
    frozen = env.freeze(task)
    data = frozen.encode()
    result = asyncio.run(
        play(env, task, policy or ScriptedPolicy(script), frozen=frozen, task_hash=content_hash(data), trial=trial, **options)
    )
    return EpisodeRecord(result.trajectory, frozen, data, attempt, result.reward, result.gold, result.scores, result.findings)


def written(path: Path, *records: EpisodeRecord, meta: dict[str, Any] | None = None) -> Path:
    """A run with these episodes, closed properly."""
    path.mkdir(parents=True, exist_ok=True)
    writer = RunWriter(path, create=True)
    writer.set_meta(meta or {"title": "made", "model": "scripted"})
    for r in records:
        writer.add(r)
    writer.flush()
    writer.close()
    return path
