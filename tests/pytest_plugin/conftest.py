# SPDX-License-Identifier: Apache-2.0
"""A project of somebody's own, made anew for each test, on which a real pytest is run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.special
import scipy.stats  # noqa: F401

# what the inner pytest imports is forgotten when it ends; these must not be imported twice in one process
import agentgym.cli.baseline
import agentgym.cli.eval
import agentgym.cli.main
import agentgym.cli.show
import agentgym.gate.decide
import agentgym.pytest_gate
import agentgym.report.results
import agentgym.rollout.session
import agentgym.tasks.math.arithmetic
import agentgym.tasks.tools.retail  # noqa: F401

PLAYERS = '''
import _thread, asyncio
from agentgym import InfrastructureError, PolicyBase, Completion, assistant
from agentgym.policies.oracle import OraclePolicy

class Down(PolicyBase):
    """A model whose server is down for every second task."""
    name = "down"

    def __init__(self):
        self.calls = 0

    async def act(self, conversation, tools, sampling):
        self.calls += 1
        if self.calls % 2:
            raise InfrastructureError("the server is down", retryable=False)
        return Completion(assistant("42"))

class Dead(PolicyBase):
    name = "dead"

    async def act(self, conversation, tools, sampling):
        raise InfrastructureError("nobody listens", retryable=False)

class Half(PolicyBase):
    """Right in every second task."""
    name = "half"
    privileged = True

    def begin(self, context):
        odd = int(context.task_id.rpartition("/")[2]) % 2
        return OraclePolicy("honest" if odd else "lazy").begin(context)

class Interrupting(PolicyBase):
    """The person at the keyboard presses Ctrl-C at the third task."""
    name = "interrupting"

    def begin(self, context):
        self.last = context.task_id.endswith("/2")
        return self

    async def act(self, conversation, tools, sampling):
        if self.last:
            _thread.interrupt_main()
            await asyncio.Event().wait()
        return Completion(assistant("42"))

def play(messages, tools):
    return "#### 7"

def dear(messages, tools):
    message = {"role": "assistant", "content": "42"}
    return {"message": message, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost_usd": 0.6}}
'''


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project beside some players, and none of the caller's settings."""
    for name in list(os.environ):
        if name.startswith(("AGENTGYM_", "PYTEST_")):
            monkeypatch.delenv(name)
    pytester.makepyfile(players=PLAYERS)
    return pytester


@pytest.fixture
def in_project(project: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """``pytest ARGUMENT ...`` in the project, in this process; the first argument may be the text of a test file."""

    def run(*arguments: str, tests: str = "") -> pytest.RunResult:
        if tests:
            project.makepyfile(test_it=f"import pytest\nfrom agentgym import ToolEnv\n{tests}")
        # in this process agentgym has been imported before the inner pytest can rewrite its assertions
        quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider")
        return project.runpytest_inprocess(*quiet, *arguments)

    return run


@pytest.fixture
def the_runs(project: pytest.Pytester) -> Callable[[], list[Path]]:
    """The runs that were made in the project."""
    return lambda: sorted((project.path / "runs").glob("*"))
