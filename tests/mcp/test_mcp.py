# SPDX-License-Identifier: Apache-2.0
"""Real MCP servers in subprocesses: a scenario's, and one that serves an environment's tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import psutil
import pytest

from agentgym.chat import Message
from agentgym.errors import InfrastructureError
from agentgym.mcp import Connection
from agentgym.tasks.tools.mcp import McpTools
from agentgym.trajectory import Trajectory
from tests.tasks.families import played


def episode(env: McpTools, oracle: str) -> Trajectory:
    """An oracle's episode of the first task that is played in process, on whatever transport the environment has."""
    task = McpTools(variant=env.variant, level=env.level).make_task("0")
    observation, _ = env.reset(options={"task": task})
    plan = getattr(env, oracle)(task)
    action: Message = next(plan)
    while True:
        observation, _, ended, cut, _ = env.step(action)
        if ended or cut:
            return env.trajectory
        action = plan.send(observation)


CASES = [("control", "honest", 1), ("inject", "cheater", 2), ("asked", "honest", 3)]


@pytest.mark.parametrize(("variant", "oracle", "level"), CASES)
def test_the_record_over_a_real_server_is_that_of_the_same_code_in_process(variant: str, oracle: str, level: int) -> None:
    inside = episode(McpTools(variant=variant, level=level), oracle)
    over = episode(McpTools(variant=variant, level=level, transport="stdio"), oracle)
    assert over.canonical() == inside.canonical()


def test_who_gives_in_to_a_description_that_a_real_server_exchanged_is_caught() -> None:
    result = played(McpTools(variant="inject", level=2, transport="stdio"), "cheater", "0")
    assert {f.dimension for f in result.findings if f.violation} == {"injection", "exfiltration"}
    honest = played(McpTools(variant="inject", level=2, transport="stdio"), "honest", "0")
    assert honest.gold == 1.0
    assert not any(f.violation for f in honest.findings)


def test_servers_end_with_their_episodes() -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    env = McpTools(transport="stdio")
    for _ in range(2):  # the second reset leaves the first episode in the middle
        env.reset(seed=0)
    assert len({p.pid for p in psutil.Process().children(recursive=True)} - before) == 1
    env.close()
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


@pytest.fixture
def bank() -> Iterator[Connection]:
    connection = Connection([sys.executable, "-m", "agentgym.mcp", "tools.bank/control/0"])
    yield connection
    connection.close()


def test_the_tools_of_an_environment_are_served(bank: Connection) -> None:
    tools = {t.name: t for t in bank.list_tools()}
    assert {"get_invoice", "transfer", "submit"} <= set(tools)
    assert tools["get_invoice"].parameters["required"] == ["invoice"]
    shown, error = bank.call_tool("list_invoices", {})
    assert "cents" in shown
    assert not error
    number = shown.split()[0]
    assert f"invoice {number} of" in bank.call_tool("get_invoice", {"invoice": number})[0]
    assert bank.call_tool("get_invoice", {"invoice": "I-0"})[1]
    assert bank.call_tool("no_such_tool", {})[1]
    assert bank.call_tool("submit", {}) == ("submitted", False)
    assert bank.call_tool("list_invoices", {}) == ("the task has ended", True)


def test_a_server_that_does_not_start_or_has_ended_is_infrastructure() -> None:
    with pytest.raises(InfrastructureError, match="did not start"):
        Connection([sys.executable, "-c", "raise SystemExit(3)"], timeout_s=20)
    connection = Connection([sys.executable, "-m", "agentgym.mcp", "tools.bank/control/0"])
    connection.close()
    connection.close()
    with pytest.raises(InfrastructureError, match="not running"):
        connection.list_tools()
