# SPDX-License-Identifier: Apache-2.0
"""Makes the small run that is kept in ``tests/data/recorded`` for each version of the tables.

    python -m tests.records.recorded

Run it once when `agentgym.records.schema.SCHEMA` is raised and commit the new file; those of older versions stay as they
are, for every later version must go on reading them.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import agentgym
from agentgym.chat import Message, ReasoningPart, TextPart, assistant, call, submit
from agentgym.errors import InfrastructureError
from agentgym.protocols import Completion, EpisodeContext, Sampling, Tokens, Usage
from agentgym.records.schema import FILE, SCHEMA
from tests.envs import Bank
from tests.rollout.playing import Told

FOLDER = Path(__file__).parent.parent / "data" / "recorded"
NAME = "2026-01-02T03-04-recorded-v1v1"


def unpacked(version: int, folder: Path) -> Path:
    """The run of that version, as a directory of its own that may be changed."""
    path = folder / NAME
    path.mkdir()
    (path / FILE).write_bytes(gzip.decompress((FOLDER / f"schema-{version}.sqlite.gz").read_bytes()))
    return path


class _Recorded(Told):
    name = "recorded"

    def fingerprint(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "0" * 64}


def _policy() -> Told:
    failed: set[str] = set()

    def bank(context: EpisodeContext, turn: int) -> Any:
        cents = Bank().make_task(context.task_id.rpartition("/")[2]).gold["cents"]
        thought = Message(
            "assistant", (ReasoningPart("hm"), TextPart("Let me see. \ud800")), call("balance", account="a").tool_calls
        )
        tokens = Tokens(
            np.array([1, 2, 3], np.int32),
            np.array([-0.5, np.nan, -np.inf], np.float32),
            np.array([7, 8], np.int32),
            np.array([0, 0, 1], np.int32),
            np.array([1, 0, 1], np.uint8),
            "processed",
            True,
        )
        script: Sequence[Any] = (
            Completion(
                thought, Usage(20, 3, 5, 0.001), "tool_calls", tokens, Sampling(temperature=0.5, seed=context.seed), 0.25
            ),
            call("double", account="a", times=100),
            call("crash"),
            call("nope"),
            call("cook", row=1),
            call("transfer", cents=cents),
            submit(status="done"),
        )
        return script[turn]

    def answer(context: EpisodeContext, turn: int) -> Any:
        if context.task_id.startswith("test.bank"):
            return bank(context, turn)
        if context.task_id.endswith("/1") and context.task_id not in failed:
            failed.add(context.task_id)
            raise InfrastructureError("the server is busy")
        if context.task_id.endswith("/2"):
            raise ConnectionError("the server is gone")
        return Completion(assistant("12"), Usage(10, 2), "length")

    return _Recorded(answer)


def make(runs: Path) -> Path:
    """A run with every outcome, retries, tokens, findings, odd text, wide integers, and two sittings."""
    tasks: list[Any] = [Bank, "test.guess:level=2"]
    options: dict[str, Any] = {"limit": 3, "trials": 2, "concurrency": 1, "seed": 5, "runs": runs}
    policy = _policy()
    run = agentgym.evaluate(tasks, policy, variants=None, max_cost=0.0025, **options)
    assert run.stopped
    run = agentgym.evaluate(model=policy, resume_run=run.path, max_cost=1.0)
    run.close()
    return run.path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = (make(Path(folder)) / FILE).read_bytes()
    assert str(Path.cwd()).encode() not in data, "no path of this machine belongs into it"
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"schema-{SCHEMA}.sqlite.gz"
    file.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
