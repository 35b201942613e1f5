# SPDX-License-Identifier: Apache-2.0
"""Every screen at three sizes, letter by letter, against the files in ``snapshots/``.

A screen that is meant to look different: ``AGENTGYM_SNAPSHOTS=write pytest tests/tui/test_snapshots.py``, then read the
difference as any other. A screen that does not look as it did leaves an SVG of what was seen, to look at. The runs are played
for real; only what a clock said is written over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agentgym
from agentgym.chat import call, submit
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.control import Now, Playing, publish
from agentgym.records.labels import Queue
from agentgym.records.run import Episode, Run
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter
from agentgym.tui.app import Viewer
from agentgym.tui.comparing import Compared
from agentgym.tui.saved import save
from agentgym.tui.screens.label import LabelScreen
from tests.envs import Bank
from tests.tui.conftest import Hands, _find, drive
from tests.tui.test_play import playing
from tests.tui.test_tokens import Teller
from tests.tui.test_whatif import RULES

SIZES = [(80, 24), (120, 40), (200, 60)]
FOLDER = Path(__file__).parent / "snapshots"


def timeless(run: Run, path: Path, *, worse: bool = False) -> Path:
    """A copy of a run in which nothing took any time; ``worse``: and in which what was solved was not."""
    path.mkdir(parents=True)
    writer = RunWriter(path, create=True)
    episodes = list(run.episodes())
    writer.set_meta({**run.meta, "created_at": 0.0})
    plan = {(e.variant, e.item): e.task_id for e in episodes}
    trials = max(e.trial for e in episodes) + 1
    writer.set_plan([{}], [PlannedTask(0, v, i, task_id, trials) for (v, i), task_id in plan.items()])
    writer.begin_sitting()
    for e in episodes:
        t = e.trajectory
        turns = [msgspec.structs.replace(turn, latency_s=0.0) for turn in t.turns]
        writer.add(
            EpisodeRecord(
                trajectory=msgspec.structs.replace(t, duration_s=0.0, turns=tuple(turns)),
                task=e.task,
                task_data=e.task.encode(),
                attempt=0,
                reward=e.reward,
                gold=0.0 if worse and e.gold else e.gold,
                scores=e.all_scores,
                findings=e.findings,
            )
        )
    writer.flush()
    writer.close()
    return path


class Place:
    """A folder ``runs`` of the working directory, so that no screen shows a path of this machine."""

    def __init__(self) -> None:
        self.root = Path("runs")
        self.retail = Run(self.root / "2026-01-01T10-00-retail-aaaa")
        self.worse = self.root / "2026-01-01T11-00-retail-bbbb"
        self.bank = Run(self.root / "2026-01-01T12-00-bank-cccc")

    @property
    def broken(self) -> Episode:
        """An episode in which a rule was broken."""
        return self.retail.episode("tools.retail/tempt/0")


@pytest.fixture(scope="module")
def folder(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timeless")
    with _find(originals, "tools.retail") as run:
        timeless(run, folder / "runs" / "2026-01-01T10-00-retail-aaaa")
        timeless(run, folder / "runs" / "2026-01-01T11-00-retail-bbbb", worse=True)
    with _find(originals, "test.bank") as run:
        timeless(run, folder / "runs" / "2026-01-01T12-00-bank-cccc")
    return folder


def told(place: Place, scratch: Path) -> Viewer:
    """Tokens that a policy told."""
    with agentgym.evaluate(Bank, Teller(), limit=1, variants=["control"], runs=scratch) as played:
        run = Run(timeless(played, scratch / "fixed" / "2026-01-01T13-00-bank-dddd"))
    return Viewer(run.path.parent, run, next(run.episodes()))


def labelled(place: Place, scratch: Path) -> Viewer:
    """Two trials of a task that are not the same."""

    def plan(context: Any) -> list[Any]:
        return [call("balance", account="a"), *(["I am not sure."] * context.trial), call("transfer", cents=100), submit()]

    with agentgym.evaluate(Bank, ScriptedPolicy(plan), limit=1, trials=2, variants=["control"], runs=scratch) as played:
        run = Run(timeless(played, scratch / "fixed" / "2026-01-01T14-00-bank-eeee"))
    return Viewer(run.path.parent, run, over=LabelScreen(run, "ann", queue=Queue(run)))


def judged(place: Place, scratch: Path) -> Viewer:
    """A run that other rules may judge."""
    Path("few.py").write_text(RULES)
    return Viewer(scratch, Run(timeless(place.bank, scratch / "2026-01-01T12-00-bank-cccc")))


def filtered(place: Place, scratch: Path) -> Viewer:
    """A filter with a name."""
    save("worthless", "gold<1 is:violated")
    return Viewer(place.root, place.retail)


HELD: list[RunWriter] = []
"""Of runs that are being played: one that is closed is over."""


def underway(place: Place, scratch: Path) -> Viewer:
    """A run that plays two episodes, one of them paused."""
    path = timeless(place.bank, scratch / "fixed" / "2026-01-01T15-00-bank-ffff")
    HELD.append(RunWriter(path, create=False))
    HELD[-1].begin_sitting()
    later = time.time() + 3600  # no time has gone by since
    episodes = [Playing("test.bank/tempt/3", 0, 2, later), Playing("test.bank/control/5", 1, 4, later, paused=True)]
    publish(path, 0, Now(False, episodes))
    return Viewer(path.parent, Run(path))


Opening = tuple[Callable[[Place, Path], Viewer], list[str], tuple[str, ...]]
"""The viewer, the keys that lead to the screen, and what is seen when it is complete."""

SCREENS: dict[str, Opening] = {
    "runs": (lambda p, _: Viewer(p.root), [], ("retail", "bank")),
    "episodes": (lambda p, _: Viewer(p.root, p.retail), ["j", "j"], ("3/16",)),
    "replay": (lambda p, _: Viewer(p.root, p.retail, p.broken), ["right_square_bracket"], ("[⚑]",)),
    "help": (lambda p, _: Viewer(p.root, p.retail), ["question_mark"], ("Episodes: keys",)),
    "share": (lambda p, _: Viewer(p.root, p.retail, p.broken), ["e"], ("Markdown",)),
    "compare": (lambda p, _: Viewer(p.root, p.retail, p.broken), ["c"], ("what they did",)),
    "group": (lambda p, _: Viewer(p.root, p.retail), ["j", "j", "T"], ("Best beside worst",)),
    "dashboard": (lambda p, _: Viewer(p.root, p.retail), ["a"], ("├",)),
    "verdict": (
        lambda p, _: Viewer(p.root, p.retail, compared=Compared(run=p.worse)),
        [],
        ("8 tasks of both",),
    ),
    "search": (lambda p, _: Viewer(p.root, p.bank), ["F", *"outage", "enter"], ("14 of 14 searched",)),
    "whatif": (judged, ["W", *"./few.py:few", "enter"], ("episodes change",)),
    "label": (labelled, [], ("better",)),
    "play": (lambda p, scratch: playing(scratch), [], ("there is no undo",)),
    "filters": (filtered, ["o"], ("gold<1",)),
    "underway": (underway, ["u"], ("2 under way", "x cancels it")),
    "tokens": (told, ["n", "t"], ("prompt",)),
}


@pytest.mark.parametrize("name", SCREENS)
def test_it_looks_as_it_did(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    time.tzset()
    make, keys, complete = SCREENS[name]
    seen: list[str] = []
    pictures: list[str] = []

    async def script(hands: Hands) -> None:
        await hands.pilot.pause(0.1)
        await hands.press(*keys)
        for columns, lines in SIZES:
            await hands.pilot.resize_terminal(columns, lines)
            await hands.sees(*complete)
            await settled(hands)
            seen.append("\n".join([f"== {columns}x{lines}", *(line.rstrip() for line in hands.lines), ""]))
            pictures.append(hands.app.export_screenshot())

    drive(make(Place(), tmp_path), script, SIZES[0])
    file = FOLDER / f"{name}.txt"
    if os.environ.get("AGENTGYM_SNAPSHOTS") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(seen))
    wanted = file.read_text()
    for (columns, lines), picture, one in zip(SIZES, pictures, seen, strict=True):
        if one not in wanted:
            (tmp_path / f"{name}-{columns}x{lines}.svg").write_text(picture)
    assert "".join(seen) == wanted, f"pictures of what was seen: {tmp_path}"


async def settled(hands: Hands) -> None:
    """Waits until the screen has stayed the same for a while: what is read in the background comes in pieces."""
    last, since = hands.text, time.monotonic()
    while time.monotonic() - since < 0.3:
        await hands.pilot.pause(0.05)
        if hands.text != last:
            last, since = hands.text, time.monotonic()


def test_every_screen_has_a_snapshot() -> None:
    modules = {p.stem for p in (Path(agentgym.__file__).parent / "tui" / "screens").glob("*.py")} - {"__init__", "level"}
    assert modules == set(SCREENS)
