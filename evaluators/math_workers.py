# SPDX-License-Identifier: Apache-2.0
"""The worker processes that settle what the quick comparison cannot: started when first needed, killable, never leaked.

`same_value` may be called from any thread of any process, also a forked one and one that runs an event loop: it uses no
signals, no asyncio and no multiprocessing. A fork starts workers of its own and lets go of those it has inherited.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from agentgym.evaluators.math_parse import Node

Outcome = Literal["same", "different", "undecided", "timeout", "died"]

CPU_S = 0.35
"""CPU seconds of one question. CPU time, not wall time: on a loaded machine the verdict is the same, only later."""

MOST_BYTES = 900 << 20
"""Address space of a worker."""

WALL_S = 60.0
"""Wall seconds after which a worker that does not answer at all (stopped, say) is given up."""

MOST_WORKERS = min(4, os.cpu_count() or 1)
"""At the same time, for one process; further callers wait, which is not counted against their answer."""

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONHOME")

_numbers = itertools.count(1)


class _Worker:
    """One worker process and its pipes."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("math_worker.py")
        # mpmath and SymPy are found where this process would find them; keys and tokens are none of a worker's business
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", str(script), str(MOST_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=env,
            cwd="/",
        )
        self.pid = self.process.pid

    def ask(self, a: Node, b: Node, cpu_s: float) -> tuple[Outcome, float] | None:
        """What the worker answers, and the CPU seconds that it took; None where it is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        number = next(_numbers)
        line = json.dumps([number, cpu_s, a, b]).encode() + b"\n"
        until = time.monotonic() + WALL_S
        heard = b""
        try:
            self.process.stdin.write(line)
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                poll = select.poll()  # select() cannot watch descriptors above 1023
                poll.register(self.process.stdout, select.POLLIN)
                if not poll.poll(left * 1000):
                    return None
                part = os.read(self.process.stdout.fileno(), 65536)
                if not part:
                    return None
                heard += part
                while b"\n" in heard:
                    first, _, heard = heard.partition(b"\n")
                    told, outcome, used = json.loads(first)
                    if told in (number, 0):  # 0: the worker's child was killed before it had read the number
                        return outcome, cpu_s if outcome == "timeout" else used
        except (OSError, ValueError):
            return None

    def close(self, *, kill: bool = False) -> None:
        """Ends the process: it goes when its input closes."""
        if kill:
            self.process.kill()
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            self.process.wait(timeout=5)
            return
        self.process.kill()
        self.process.wait()

    def let_go(self) -> None:
        """Closes this process's ends of the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Pool:
    """Workers that are free, and how many may be at work."""

    def __init__(self) -> None:
        self.slots = threading.BoundedSemaphore(MOST_WORKERS)
        self.free: list[_Worker] = []
        self.all: set[_Worker] = set()

    def ask(self, a: Node, b: Node, cpu_s: float) -> tuple[Outcome, float]:
        """One question to a free worker, to a second one where the first is gone."""
        with self.slots:
            for _ in range(3):
                worker = self._take()
                told = None
                try:
                    told = worker.ask(a, b, cpu_s)
                finally:  # also where Ctrl-C came: its answer would be taken for that of the next question
                    if told is None:
                        self.all.discard(worker)
                        worker.close(kill=True)
                    else:
                        self.free.append(worker)
                if told is not None and told[0] != "died":
                    return told
        return "died", 0.0

    def _take(self) -> _Worker:
        try:
            return self.free.pop()
        except IndexError:
            worker = _Worker()
            self.all.add(worker)
            return worker

    def close(self) -> None:
        """Ends all workers."""
        workers = list(self.all)
        self.all.clear()
        self.free.clear()
        for worker in workers:
            worker.let_go()
        for worker in workers:
            worker.close()


_pool = _Pool()


def same_value(a: Node, b: Node, cpu_s: float = CPU_S) -> tuple[Outcome, float]:
    """Whether two trees have the same value, as a worker process finds out, and the CPU seconds that it took.

    The outcome is ``undecided`` where it cannot be found out, ``timeout`` after ``cpu_s`` of CPU, and ``died`` where worker
    after worker was killed from outside.
    """
    return _pool.ask(a, b, cpu_s)


def close_workers() -> None:
    """Ends the worker processes of this process now; the next question starts new ones."""
    _pool.close()


def worker_pids() -> list[int]:
    """The worker processes of this process, as far as they have not been seen to end."""
    return sorted(worker.pid for worker in _pool.all)


def _after_fork() -> None:
    global _pool
    inherited, _pool = _pool, _Pool()
    for worker in inherited.all:
        worker.let_go()  # else they would outlive the process that they work for
        worker.process.returncode = 0  # not a child of this process: nothing to wait for


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_workers)
