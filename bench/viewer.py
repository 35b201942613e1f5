# SPDX-License-Identifier: Apache-2.0
"""What the viewer costs: ``agentgym view`` on a large run, in a real pseudo-terminal, measured from outside.

Makes a run (or takes one), starts the command as a person would, and reads the process's CPU time from the kernel when
the first rows, the total, and the row after each Page Down have arrived in the terminal. Prints one JSON line.

    python bench/viewer.py --rows 100000
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

import msgspec

from agentgym import Task, ToolEnv, call, evaluate, submit, tool, verifier
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter, new_run_directory

GIVE_UP = 120.0
"""Seconds after which something that should have been drawn is missed."""


class Account(msgspec.Struct):
    """An account."""

    balance: int = 0


@verifier
def paid(trajectory: object, context: object) -> bool:
    """Whether anything was paid in."""
    return trajectory.state_after["balance"] > 0  # type: ignore[attr-defined,no-any-return]


class Bank(ToolEnv):
    """A bank account to which money is to be added."""

    family = "bench.bank"
    gold = [paid]

    def new_task(self, rng: object) -> Task:
        """An empty account."""
        return Task(opening="Pay in 1 cent, then submit.", state=Account())

    @tool(writes=True)
    def deposit(self, cents: int) -> str:
        """Adds money to the account.

        Args:
            cents: how much
        """
        self.state.balance += cents
        return f"balance {self.state.balance}"


def make_run(folder: Path, rows: int) -> Path:
    """A run of that many episodes: four that were really played, written down under other names."""
    scripts = [[call("deposit", cents=1), submit(status="done")], [call("deposit", cents=-1), submit(status="done")]]
    played = [
        e
        for i, script in enumerate(scripts)
        for e in evaluate(Bank, ScriptedPolicy(script), limit=2, runs=folder / f"seed{i}").episodes()
    ]
    trials = 4
    tasks = [PlannedTask(0, "control", str(i), f"bench.bank/control/{i}", trials) for i in range(-(-rows // trials))]
    writer = RunWriter(new_run_directory(folder / "runs", "viewer"), create=True)
    writer.set_meta({"title": "viewer", "model": "scripted", "created_at": time.time()})
    writer.set_plan([{}], tasks)
    writer.begin_sitting()
    originals = [(e.trajectory, e.task, e.all_scores, e.reward, e.gold) for e in played]
    frozen = [t.encode() for _, t, _, _, _ in originals]
    for n in range(rows):
        which = (n * 7 + n // 11) % len(originals)
        trajectory, task, scores, reward, gold = originals[which]
        planned = tasks[n // trials]
        writer.add(
            EpisodeRecord(
                trajectory=msgspec.structs.replace(trajectory, task_id=planned.task_id, trial=n % trials),
                task=msgspec.structs.replace(task, item=planned.item),
                task_data=frozen[which],
                attempt=0,
                reward=reward,
                gold=gold,
                scores=scores,
                findings=[],
            )
        )
        if writer.pending >= 2000:
            writer.flush()
    writer.flush()
    writer.close()
    return writer.path


class Terminal:
    """``agentgym view`` in a pseudo-terminal."""

    def __init__(self, run: Path, columns: int, lines: int) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS=str(columns), LINES=str(lines))
            os.execv(sys.executable, [sys.executable, "-m", "agentgym", "view", str(run)])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.seen = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Reads what is drawn until it fits; what was read before no longer counts."""
        end = time.monotonic() + GIVE_UP
        while time.monotonic() < end:
            if found := re.search(pattern, self.seen):
                self.seen = self.seen[found.end() :]
                return found
            if select.select([self.fd], [], [], 0.02)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16).decode("utf-8", "replace")
                except OSError:
                    break
        raise SystemExit(f"the viewer did not draw {pattern!r}; it drew {self.seen[-500:]!r}")

    def press(self, keys: bytes) -> None:
        """Types."""
        os.write(self.fd, keys)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the process so far, its threads included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def peak_mb(self) -> float:
        """Largest resident size of the process."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def close(self) -> None:
        """Quits."""
        try:
            self.press(b"q")
            end = time.monotonic() + 10
            while time.monotonic() < end:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                if select.select([self.fd], [], [], 0.02)[0]:
                    os.read(self.fd, 1 << 16)
        except OSError:
            pass
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=100, help="how often Page Down is pressed")
    parser.add_argument("--run", type=Path, help="an existing run instead of a new one")
    parser.add_argument("--size", default="80x24", help="columns x lines")
    args = parser.parse_args()
    columns, lines = map(int, args.size.split("x"))
    folder = Path(tempfile.mkdtemp(prefix="agentgym-bench-"))
    try:
        path = args.run or make_run(folder, args.rows)
        with Run(path) as run:
            rows = run.count()
        total = f"{rows:,}"
        terminal = Terminal(path, columns, lines)
        try:
            terminal.until("solved|failed|partly|unscored|error")
            first = terminal.cpu_s
            terminal.until(f"1/{total}(?!…)")
            everything = terminal.cpu_s
            for _ in range(args.pages):
                terminal.press(b"\x1b[6~")
                place = terminal.until(f"([\\d,]+)/{total}")
            paged = terminal.cpu_s
            terminal.press(b"G")
            terminal.until(f"{total}/{total}")
            end = terminal.cpu_s
            terminal.press(b"s")
            terminal.until("by gold")
            terminal.until(f"[\\d,]+/{total}(?!…)")
            print(
                json.dumps(
                    {
                        "bench": "viewer",
                        "rows": rows,
                        "size": args.size,
                        "cpu_s_first_paint": round(first, 3),
                        "cpu_s_all_numbers": round(everything - first, 3),
                        "cpu_s_page_down": round((paged - everything) / args.pages, 4),
                        "cpu_s_to_end": round(end - paged, 3),
                        "cpu_s_sort": round(terminal.cpu_s - end, 3),
                        "reached": place[1],
                        "peak_mb": round(terminal.peak_mb, 1),
                    }
                )
            )
        finally:
            terminal.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
