# SPDX-License-Identifier: Apache-2.0
"""The gate as a person meets it: real runs in an empty folder, compared through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import AgentGym, agentgym, place, program  # noqa: F401

PLAYERS = '''
from agentgym import InfrastructureError, PolicyBase
from agentgym.policies.oracle import OraclePolicy


class _Mixed(PolicyBase):
    """The honest oracle, but for some tasks."""

    privileged = True

    def begin(self, context):
        family, _, item = context.task_id.split("/", 2)
        return self.other().begin(context) if self.fails(family, int(item)) else OraclePolicy("honest").begin(context)

    def other(self):
        return OraclePolicy("lazy")


class Copy20(_Mixed):
    """Fails every fifth task of one family."""

    name = "copy"

    def fails(self, family, item):
        return family == "math.add" and item % 5 == 0


class Slip(_Mixed):
    """Fails one task."""

    name = "slip"

    def fails(self, family, item):
        return family == "math.add" and item == 0


class Cheat(_Mixed):
    """Breaks the policy of the shop."""

    name = "cheat"

    def fails(self, family, item):
        return family == "tools.retail"

    def other(self):
        return OraclePolicy("cheater")


class Dead(PolicyBase):
    name = "dead"

    async def act(self, conversation, tools, sampling):
        raise InfrastructureError("nobody listens", retryable=False)


class Flaky(_Mixed):
    """Its server is down for every tenth task."""

    name = "flaky"

    def fails(self, family, item):
        return item % 10 == 0

    def other(self):
        return Dead()
'''

SUITE = """
trials = 2
[[tasks]]
task = "math.add"
items = 60
[[tasks]]
task = "math.algebra"
items = 4
[[tasks]]
task = "math.arith"
items = 4
[[tasks]]
task = "math.chain"
items = 4
[[tasks]]
task = "math.word"
items = 4
[[tasks]]
task = "tools.retail"
variants = ["control", "tempt"]
items = 4
"""


@pytest.fixture
def play(agentgym: AgentGym, place: Path) -> Callable[..., str]:  # noqa: F811
    """Lets somebody play the suite; returns the run as one types it."""
    (place / "players.py").write_text(PLAYERS)
    (place / "pr.toml").write_text(SUITE)
    count = 0

    def played(model: str, *arguments: str, code: int = 0) -> str:
        nonlocal count
        count += 1
        ran = agentgym("eval", "pr.toml", "-m", model, "-q", "--runs", f"runs/{count}", "--infra-limit", "1", *arguments)
        assert ran.code == code, ran.err
        (run,) = (place / "runs" / str(count)).iterdir()
        return str(run.relative_to(place))

    return played


@pytest.fixture
def baseline(agentgym: AgentGym, play: Callable[..., str]) -> str:  # noqa: F811
    """A baseline that the honest oracle made."""
    assert agentgym("baseline", "create", play("oracle:honest"), "-o", "base.jsonl").code == 0
    return "base.jsonl"
