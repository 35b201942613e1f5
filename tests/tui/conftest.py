# SPDX-License-Identifier: Apache-2.0
"""Real runs to look at, and a way to drive the viewer: keys and mouse in, the text of the screen out."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

import agentgym
from agentgym.chat import Message, ToolCall, assistant, call, submit
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.records.run import Episode, Run
from agentgym.tui.app import Viewer
from tests.envs import Bank

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]not markup[/] \u202eesrever\u202c 世界 tab\there"
"""What a model may write to take over a terminal, a markup parser or the reading order."""

BIG = 1_000_000
"""Characters of a big message."""


def mishaps(context: Any) -> list[Message | str]:
    """What the bank's agent does in each task: the number in the task's name says which."""
    item = int(context.task_id.rsplit("/", 1)[1])
    return [
        [call("balance", account="a"), call("transfer", cents=100), submit()],  # 0: solved
        [call("cook", row=3), call("transfer", cents=100), submit()],  # 1: breaks a rule where tempted
        [call("balance", account="a"), call("outage")],  # 2: infrastructure
        [call("fly"), call("transfer", cents=-1), call("crash"), call("sneak"), submit()],  # 3: errors and events
        [assistant(HOSTILE, ToolCall("balance", '{"account": "' + HOSTILE + '"}'), reasoning=f"hmm {HOSTILE}"), submit()],  # 4
        ["word " * (BIG // 5), assistant("世" * 1000 + "\n" + "x" * 5000), submit()],  # 5: big
        [call("balance", account="a")] * 8,  # 6: cut by the limit of turns
    ][item % 7]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the retail desk, in which rules are broken, and one of the bank, in which all goes wrong."""
    root = tmp_path_factory.mktemp("runs")
    agentgym.evaluate(
        "tools.retail", OraclePolicy("cheater"), limit=4, trials=2, variants=["control", "tempt"], runs=root
    ).close()
    agentgym.evaluate(
        Bank, ScriptedPolicy(mishaps, "mishaps"), limit=7, variants=["control", "tempt"], retries=0, runs=root
    ).close()
    return root


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return Path(shutil.copytree(originals, tmp_path / "runs"))


def _find(root: Path, family: str) -> Run:
    for path in root.iterdir():
        run = Run(path)
        if next(run.episodes(family=family), None) is not None:
            return run
        run.close()
    raise AssertionError(f"no run of {family}")


@pytest.fixture
def retail(root: Path) -> Iterator[Run]:
    with _find(root, "tools.retail") as run:
        yield run


@pytest.fixture
def bank(root: Path) -> Iterator[Run]:
    with _find(root, "test.bank") as run:
        yield run


def episode(run: Run, item: int, variant: str = "control") -> Episode:
    """One episode of the bank."""
    return run.episode(f"test.bank/{variant}/{item}")


# -- driving ----------------------------------------------------------------------------------------------------------


class Hands:
    """A person at the viewer."""

    def __init__(self, app: Viewer, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        """The screen as text, one string a line."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        """The screen as text."""
        return "\n".join(self.lines)

    async def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def sees(self, *wanted: str, absent: tuple[str, ...] = ()) -> str:
        """Waits until all of it stands on the screen, wherever lines are broken, and nothing of ``absent``."""

        def seen() -> bool:
            text, flat = self.text, " ".join(self.text.split())
            return all(w in text or w in flat for w in wanted) and not any(a in text for a in absent)

        await self.until(seen, wanted)
        return self.text

    async def until(self, condition: Callable[[], Any], what: object = "") -> None:
        """Waits for something that background work brings about; fails after a time that no machine needs."""
        end = time.monotonic() + 30
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited in vain for {what}; the screen:\n{self.text}")
            await self.pilot.pause(0.02)


Script = Callable[[Hands], Awaitable[None]]


def drive(app: Viewer, script: Script, size: tuple[int, int] = (80, 24)) -> None:
    """Runs the viewer on a screen of that size, lets the script use it, and closes it."""

    async def work() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await script(Hands(app, pilot))

    asyncio.run(work())


SMALL, LARGE = (80, 24), (160, 50)
both_sizes = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
