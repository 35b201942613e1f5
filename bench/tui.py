# SPDX-License-Identifier: Apache-2.0
"""What the viewer costs in CPU and memory on a large run, beside Textual's own table and, where it is there, Inspect's log.

Makes a run of so many episodes (or takes one), opens it in processes of their own on a screen without a terminal, and
prints one JSON line. Whatever would be sent to a terminal is made and counted, and a thing is there when it has been sent.
A start is a second start: Python has compiled the files. Exit code 1 if a bar is missed: first paint within 0.3 s of CPU
after the imports and within 1 s of the process's start, less than 150 MB, any row and any episode within 50 ms of CPU
(of all that were gone to, 95 %). ``bare_app`` is a Textual application that shows one word: what no viewer can go below.

    python bench/tui.py --episodes 100000
    python bench/tui.py --episodes 100000 --inspect /path/to/python-with-inspect_ai
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE = (120, 40)
"""Of the screen."""
BARS = {"first_paint_cpu_s": 0.3, "start_to_paint_cpu_s": 1.0, "peak_mb": 150.0, "row_cpu_ms": 50.0, "episode_cpu_ms": 50.0}


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_s() -> float:
    """CPU seconds of this process so far, its start and imports included."""
    return time.process_time()


def watched(app: Any) -> Any:
    """The application, which now keeps in ``sent`` what it sends to a terminal."""
    from textual._compositor import CompositorUpdate

    display = app._display
    app.sent = ""

    def kept(screen: Any, renderable: Any) -> None:
        display(screen, renderable)
        if isinstance(renderable, CompositorUpdate):
            app.sent += renderable.render_segments(app.console)

    app._display = kept
    return app


async def shows(app: Any, *wanted: str) -> None:
    """Waits until all of it has been sent; without a look at the application itself, which would cost more than some of it."""
    while not all(w in app.sent for w in wanted):
        await asyncio.sleep(0.002)


async def viewer(path: Path, times: int) -> dict[str, Any]:
    """Our viewer: first paint, then any row, then any episode."""
    from agentgym.records.run import Run
    from agentgym.tui.app import Viewer, spare_collector

    imported = cpu_s()
    spare_collector()  # as the command does
    app = watched(Viewer(path.parent, Run(path)))
    result: dict[str, Any] = {}
    async with app.run_test(size=SIZE) as pilot:
        await shows(app, "solved")
        result |= {"first_paint_cpu_s": cpu_s() - imported, "start_to_paint_cpu_s": cpu_s(), "imports_cpu_s": imported}
        table: Any = app.screen.table
        with sqlite3.connect(path / "run.sqlite") as db:
            rows = db.execute("SELECT count(*) FROM episodes").fetchone()[0]
        await shows(app, f"/{rows:,}")
        await pilot.pause(0.1)
        result |= {"rows": table.count, "all_numbers_cpu_s": cpu_s()}
        draw = random.Random(0)
        spent: list[float] = []
        for _ in range(times):
            index = draw.randrange(rows)
            app.sent, before = "", cpu_s()
            table.cursor = index
            await shows(app, f"{index + 1:,}/{rows:,}", table.current.task_id)
            spent.append(cpu_s() - before)
        result |= _spread("row", spent)
        spent = []
        for _ in range(times + 1):
            table.cursor = draw.randrange(rows)
            await pilot.pause(0.1)  # the note and the look at the side belong to the row
            e = table.current
            app.sent, before = "", cpu_s()
            app.screen.action_open()
            await shows(app, f"{e.task_id}/{e.trial}", "turn 0", "terminated after")
            spent.append(cpu_s() - before)
            app.action_up()
            await pilot.pause()
        # the first one makes the screen that all others use
        result |= {"first_episode_cpu_ms": 1000 * spent[0], **_spread("episode", spent[1:])}
    return result | {"peak_mb": peak_mb()}


async def bare_app() -> dict[str, Any]:
    """The least that Textual costs: an application with one word."""
    from textual.app import App, ComposeResult
    from textual.widgets import Static

    imported = cpu_s()

    class Bare(App[None]):
        def compose(self) -> ComposeResult:
            yield Static("solved")

    app = watched(Bare())
    async with app.run_test(size=SIZE):
        await shows(app, "solved")
        return {"first_paint_cpu_s": cpu_s() - imported, "start_to_paint_cpu_s": cpu_s(), "peak_mb": peak_mb()}


def _spread(what: str, spent: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * s for s in spent)
    return {f"{what}_cpu_ms": ordered[int(0.95 * (len(ordered) - 1))], f"{what}_cpu_ms_median": ordered[len(ordered) // 2]}


async def data_table(path: Path) -> dict[str, Any]:
    """The same rows in Textual's own table, as its documentation has it: all of them added."""
    from textual.app import App, ComposeResult
    from textual.widgets import DataTable

    columns = ("outcome", "task_id", "trial", "gold", "reward", "violations", "turns", "prompt_tokens", "duration_s")
    imported = cpu_s()

    class Table(App[None]):
        def compose(self) -> ComposeResult:
            yield DataTable()

        def on_mount(self) -> None:
            table = self.query_one(DataTable)
            table.add_columns(*columns)
            with sqlite3.connect(path / "run.sqlite") as db:
                table.add_rows(db.execute(f"SELECT {', '.join(columns)} FROM episodes ORDER BY id"))

    app = watched(Table())
    async with app.run_test(size=SIZE):
        await shows(app, "terminated")
        return {"first_paint_cpu_s": cpu_s() - imported, "start_to_paint_cpu_s": cpu_s(), "peak_mb": peak_mb()}


def inspect_log(file: Path, episodes: int) -> dict[str, Any]:
    """Inspect's own log of as many samples: what it takes to read their summaries, and then one of them."""
    from inspect_ai.log import read_eval_log_sample, read_eval_log_sample_summaries

    imported = cpu_s()
    summaries = read_eval_log_sample_summaries(str(file))
    listed = cpu_s()
    read_eval_log_sample(str(file), id=summaries[episodes // 2].id, epoch=1)
    one = 1000 * (cpu_s() - listed)
    return {"imports_cpu_s": imported, "list_cpu_s": listed - imported, "sample_cpu_ms": one, "peak_mb": peak_mb()}


def write_inspect_log(file: Path, episodes: int) -> None:
    """A log of that many short samples."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser
    from inspect_ai.scorer import Score

    samples = [
        EvalSample(
            id=i, epoch=1, input="Pay in 1 cent, then submit.", target="1",
            messages=[ChatMessageUser(content="Pay in 1 cent, then submit."), ChatMessageAssistant(content="balance 1")],
            scores={"paid": Score(value=i % 2)},
        )
        for i in range(episodes)
    ]  # fmt: skip
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00", task="bench", dataset=EvalDataset(), model="scripted", config=EvalConfig()
    )
    write_eval_log(EvalLog(eval=spec, samples=samples, status="success"), str(file))


def ask(python: str, *arguments: object) -> dict[str, Any] | None:
    """What another process of this file measured; None where it could not."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [python, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--run", type=Path, help="an existing run of that many episodes instead of a new one")
    parser.add_argument("--times", type=int, default=100, help="rows and episodes gone to")
    parser.add_argument("--inspect", metavar="PYTHON", help="an interpreter that has inspect_ai")
    parser.add_argument("--part", choices=("viewer", "bare", "table", "inspect", "inspect-write"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "viewer":
        print(json.dumps(asyncio.run(viewer(args.run, args.times))))
        return 0
    if args.part == "bare":
        print(json.dumps(asyncio.run(bare_app())))
        return 0
    if args.part == "table":
        print(json.dumps(asyncio.run(data_table(args.run))))
        return 0
    if args.part == "inspect":
        print(json.dumps(inspect_log(args.run, args.episodes)))
        return 0
    if args.part == "inspect-write":
        write_inspect_log(args.run, args.episodes)
        return 0
    from viewer import make_run  # the bench beside this one

    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    try:
        path = args.run or make_run(folder, args.episodes)
        ask(sys.executable, "--part", "viewer", "--run", path, "--times", 1)  # compiles
        ours = ask(sys.executable, "--part", "viewer", "--run", path, "--times", args.times)
        if ours is None:
            return 1
        result: dict[str, Any] = {"bench": "tui", "episodes": args.episodes, **ours}
        result["bare_app"] = ask(sys.executable, "--part", "bare")
        result["data_table"] = ask(sys.executable, "--part", "table", "--run", path)
        if args.inspect:
            log = folder / "log.eval"
            if ask(args.inspect, "--part", "inspect-write", "--run", log, "--episodes", args.episodes) is not None:
                result["inspect_log"] = ask(args.inspect, "--part", "inspect", "--run", log, "--episodes", args.episodes)
        missed = {name: bar for name, bar in BARS.items() if result[name] > bar}
        result["missed"] = missed
        print(json.dumps(_rounded(result)))
        return 1 if missed else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
