# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval --stop-early`` and ``agentgym gate --sequential``: a run that ends as soon as enough is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgym.records.live import live
from agentgym.records.run import open_run
from tests.cli.conftest import AgentGym

SUMS = """
import asyncio
import re
from agentgym import Completion, PolicyBase, assistant
from agentgym.tasks.math.arithmetic import Add


class Sums(Add):
    '''Sums, each a cluster of its own.'''

    family = "my.sums"

    def cluster_of(self, task):
        return task.item


class Right(PolicyBase):
    name = "right"
    off = 0

    async def act(self, conversation, tools, sampling):
        await asyncio.sleep(0.01)
        a, b = map(int, re.findall("[0-9]+", conversation[-1].text)[-2:])
        return Completion(assistant(f"Answer: {a + b + self.off}"))


class Wrong(Right):
    name = "wrong"
    off = 1
"""
PLAY = ("eval", "sums.py:Sums", "--limit", "150", "--trials", "4", "-n", "4", "-q", "--runs", "runs")


@pytest.mark.parametrize(("model", "code"), [("Right", 0), ("Wrong", 1)])
def test_a_run_is_stopped_either_way_and_the_gate_agrees(agentgym: AgentGym, place: Path, model: str, code: int) -> None:
    (place / "sums.py").write_text(SUMS)
    assert agentgym(*PLAY[:-1], "first", "-m", "oracle:honest").code == 0
    (first,) = (place / "first").iterdir()
    assert agentgym("baseline", "create", str(first), "-o", "base.jsonl").code == 0
    (place / "gate.toml").write_text("[metrics.gold]\nmargin = 0.2\n")
    ran = agentgym(*PLAY, "-m", f"sums.py:{model}", "--stop-early", "base.jsonl", "--rules", "gate.toml")
    assert ran.code == 0, ran.err
    with open_run("latest", "runs") as run:
        assert "stopped early" in str(run.stopped)
        assert 20 <= run.count() < 600
        told = live(run).evidence  # what the viewer's line says of it
        assert told is not None
        assert told.baseline == "base.jsonl"
        assert (told.worse >= told.worse_at, told.fine >= told.fine_at) == (bool(code), not code)
        assert told.clusters <= told.of == 150
    ran = agentgym("gate", "latest", "--runs", "runs", "--baseline", "base.jsonl", "--rules", "gate.toml", "--sequential")
    assert ran.code == code, ran.out
    # looked at as if it had been meant to end there, the same run lacks most of its trials
    assert agentgym("gate", "latest", "--runs", "runs", "--baseline", "base.jsonl", "--rules", "gate.toml").code == 12


def test_a_run_that_is_not_decided_yet_is_inconclusive_and_says_how_to_go_on(agentgym: AgentGym, place: Path) -> None:
    (place / "sums.py").write_text(SUMS)
    assert agentgym(*PLAY[:-1], "first", "-m", "oracle:honest").code == 0
    (first,) = (place / "first").iterdir()
    assert agentgym("baseline", "create", str(first), "-o", "base.jsonl").code == 0
    dear = SUMS.replace(
        "return Completion(assistant(", "from agentgym.protocols import Usage\n        return Completion(assistant("
    )
    (place / "dear.py").write_text(dear.replace('self.off}"))', 'self.off}"), Usage(cost_usd=0.1))'))
    assert agentgym(*PLAY, "-m", "dear.py:Right", "--max-cost", "1").code == 0
    ran = agentgym("gate", "latest", "--runs", "runs", "--baseline", "base.jsonl", "--sequential", "--json")
    assert ran.code == 10
    assert "of 600 trials do not decide it yet: `agentgym eval --resume" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("math.word", "--limit", "2", "--stop-early", "old.csv"), "none of the selected tasks is in the baseline"),
        (("math.word", "--limit", "2", "--rules", "gate.toml"), "--rules are those of --stop-early"),
        (("math.word", "--stop-early", "old.csv", "--processes", "2"), "one process"),
    ],
)
def test_what_cannot_be_stopped_is_said(agentgym: AgentGym, place: Path, arguments: tuple[str, ...], words: str) -> None:
    (place / "old.csv").write_text("task,score\na,1\nb,0\n")
    ran = agentgym("eval", *arguments, "-m", "oracle:honest", "-q")
    assert (ran.code, words in ran.err) == (2, True), ran.err
