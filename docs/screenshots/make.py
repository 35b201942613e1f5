# SPDX-License-Identifier: Apache-2.0
"""Draws the screenshots of the viewer: plays the retail desk with scripted policies, opens the viewer, saves SVG files.

    python docs/screenshots/make.py [FOLDER]

Where ``rsvg-convert`` is installed (apt-get install librsvg2-bin), PNG files are written beside them, to look at.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import agentgym
from agentgym.policies.oracle import OraclePolicy
from agentgym.records.run import Run, find_runs
from agentgym.tui.app import Viewer

SMALL, LARGE = (80, 24), (160, 50)


async def shoot(app: Viewer, size: tuple[int, int], target: Path, keys: Iterable[str] = (), theme: str = "") -> None:
    """One picture: opens the viewer, presses the keys, saves what is on the screen."""
    async with app.run_test(size=size) as pilot:
        if theme:
            app.theme = theme
        await pilot.pause(0.5)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.1)
        await pilot.pause(0.3)
        svg = app.export_screenshot(title="agentgym view")
    target.with_suffix(".svg").write_text(svg)
    if shutil.which("rsvg-convert"):
        # blanks at the ends of a text are dropped otherwise
        fixed = svg.replace("&#160;", " ").replace("<svg ", '<svg xml:space="preserve" ', 1)
        command = ["rsvg-convert", "-z", "1.3", "-o", str(target.with_suffix(".png"))]
        subprocess.run(command, input=fixed.encode(), check=True)


async def shoot_all(root: Path, folder: Path) -> None:
    """All pictures."""

    def run(name: str) -> Run:
        return next(r for r in map(Run, find_runs(root)) if r.meta["model"] == name)

    cheater = run("oracle:cheater")
    broken = next(e for e in cheater.episodes() if e.violations and e.gold == 0 and e.turns > 3)
    await shoot(Viewer(root), SMALL, folder / "runs-80x24")
    await shoot(Viewer(root, run("oracle:cheater")), SMALL, folder / "episodes-80x24", ["j", "j"])
    await shoot(Viewer(root, run("oracle:cheater")), LARGE, folder / "episodes-160x50", ["j", "s"])
    await shoot(Viewer(root, run("oracle:cheater")), LARGE, folder / "episodes-160x50-light", ["j"], "textual-light")
    await shoot(Viewer(root, cheater, broken), SMALL, folder / "replay-80x24", ["right_square_bracket"])
    await shoot(Viewer(root, cheater, broken), LARGE, folder / "replay-160x50", ["n", "n", "n", "n"])
    await shoot(Viewer(root, cheater, broken), SMALL, folder / "replay-80x24-light", ["n"], "textual-light")
    await shoot(Viewer(root, cheater, broken), SMALL, folder / "help-80x24", ["question_mark"])


def main() -> None:
    """Plays and draws."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder.resolve()
        os.chdir(scratch)  # so that the pictures show no path of this machine
        root = Path("runs")
        for which in ("honest", "cheater", "random"):
            agentgym.evaluate(
                "tools.retail" if which == "cheater" else ["tools.retail", "math.add"],
                OraclePolicy(which),
                limit=8,
                trials=2,
                variants=["control", "tempt"] if which == "cheater" else None,
                runs=root,
            ).close()
        asyncio.run(shoot_all(root, folder))


if __name__ == "__main__":
    main()
