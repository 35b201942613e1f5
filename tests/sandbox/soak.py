# SPDX-License-Identifier: Apache-2.0
"""Thousands of executions, ended in every way there is, and what is left of them: nothing.

    python -m tests.sandbox.soak --executions 10000
    python -m tests.sandbox.soak --executions 10000 --as-plain-user
    python -m tests.sandbox.soak --executions 500 --backend bwrap

Prints one JSON line: counts of processes, mounts, control groups, files and so on before and after, the peak of resident
memory of the host process and the launcher, executions that did not go as they should. Exit code 1 where something is left
or went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend, Limits, Sandbox, SandboxSpec, Session
from tests.sandbox.conftest import ROOT, become_plain_user
from tests.sandbox.footprint import footprint, groups_of, users_of

LEAVE = "touch f; mkfifo p; (setsid sleep 300 &); sleep 300 & exit"
"""Processes and files that nobody cleans up."""


POOL = 4
"""Connections by which the library of the container engine may have filled its pool further (it holds 25 at most)."""


class Soak:
    """Executions in fresh sandboxes and in a lasting one."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.lasting: Sandbox = backend.create()
        self.session: Session = self.lasting.session("bash")
        self.failures: Counter[str] = Counter()

    def run(self, count: int) -> None:
        for n in range(count):
            kind = ("fresh", "warm", "fresh", "turn", "leaving", "warm", "fresh", "turn", "warm", "other")[n % 10]
            try:
                if not getattr(self, kind)(n):
                    self.failures[f"{kind}: a wrong result"] += 1
            except Exception as e:
                self.failures[f"{kind}: {type(e).__name__}: {e}"[:200]] += 1
        self.session.close()
        self.lasting.close()

    def fresh(self, n: int) -> bool:
        with self.backend.create() as box:
            return box.exec(f"print({n})").text == f"{n}\n"

    def warm(self, n: int) -> bool:
        code = "import os\nif os.fork() == 0: os.setsid(); os.fork(); os._exit(0)\nprint('x')"
        return self.lasting.exec(code).text == "x\n"

    def turn(self, n: int) -> bool:
        return self.session.run(f"echo {n} > /tmp/x; true & wait; cat /tmp/x").text == f"{n}\n"

    def leaving(self, n: int) -> bool:
        with self.backend.create() as box:
            return box.exec(LEAVE, "bash").ok

    def other(self, n: int) -> bool:
        """By turns: past its time, out of memory, a fork with a session, ended from another side, files on disk."""
        which = n // 10 % 25
        if which == 0:
            return self.lasting.exec("sleep 300 & setsid sleep 300 & sleep 300", "bash", timeout_s=0.1).status == "timeout"
        if which == 1:
            with self.backend.create(SandboxSpec(limits=Limits(memory=64 << 20, disk=1 << 20))) as box:
                result = box.exec("x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))", timeout_s=60)
                return result.status == "oom" or "MemoryError" in result.error_text
        if which == 2:
            with self.backend.create() as box:
                box.put("f", "x")
                with box.fork() as twin:
                    return twin.session("python").run("print(open('f').read())").text == "x\n"
        if which == 3:
            box = self.backend.create()
            session = box.session("python")
            session.run("import subprocess; subprocess.Popen(['sleep', '300'])")
            box.close()
            return not session.alive
        if which == 4 and self.backend.capabilities().disk_backed:
            with self.backend.create(SandboxSpec(limits=Limits(memory=64 << 20, disk=128 << 20))) as box:
                return box.exec("head -c 100000000 /dev/zero > f; ls -s f | cut -d' ' -f2", "bash").text == "f\n"
        code = "import mmap, os\nm = mmap.mmap(-1, 1 << 20)\nopen('/dev/shm/x', 'w').write('x')\nprint(os.listdir('/dev/shm'))"
        with self.backend.create() as box:
            return box.exec(code).text == "['x']\n"


def peak_of(pid: int) -> float:
    """MiB of resident memory at most."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def settled(before: dict[str, int], *seen: Any) -> dict[str, int]:
    """The footprint, once the kernel has taken namespaces apart, which it does in its own time."""
    for _ in range(100):
        after = footprint(*seen)
        if after == before:
            break
        time.sleep(0.1)
    return after


def soak(name: str, executions: int) -> dict[str, Any]:
    """Runs it; the line to print."""
    containers = name == "docker"
    bare = footprint((), range(0), containers)
    others = set(groups_of(os.getpid()))  # of backends that this process has open besides
    start, used = time.monotonic(), os.times()
    with open_backend(name) as backend:
        helpers = [backend.launcher().process.pid] if name == "namespace" else []  # type: ignore[attr-defined]
        with backend.create() as box:
            users = range(0) if containers else users_of(box._box.pid)  # type: ignore[attr-defined]
        Soak(backend).run(min(60, executions))  # groups, imports, caches: what is made once
        before = footprint(helpers, users, containers)
        for _ in range(20):
            time.sleep(0.1)
            before = min(before, footprint(helpers, users, containers), key=lambda counts: counts["processes"])
        work = Soak(backend)
        work.run(executions)
        after = settled(before, helpers, users, containers)
        if containers and 0 < after["descriptors"] - before["descriptors"] <= POOL:
            after["descriptors"] = before["descriptors"]
        launcher = {"launcher_peak_mib": round(peak_of(helpers[0]), 1)} if helpers else {}
    closed = settled(bare, (), users, containers)
    return {
        "soak": name,
        "user": "root" if os.getuid() == 0 else "plain",
        "executions": executions,
        "failures": dict(work.failures),
        "before": before,
        "after": after,
        "before_all": bare,
        "after_all": closed,
        "groups_left": sorted({g for pid in (*helpers, os.getpid()) for g in groups_of(pid)} - others),
        "nothing_left": after == before and closed == bare,
        "host_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **launcher,
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(sum(os.times()[:4]) - sum(used[:4]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--backend", default="namespace")
    parser.add_argument("--as-plain-user", action="store_true", help="as root: become one first")
    args = parser.parse_args()
    if args.as_plain_user and os.getuid() == 0:
        command = [sys.executable, "-m", "tests.sandbox.soak", "--executions", str(args.executions), "--backend", args.backend]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.exit(subprocess.run(command, preexec_fn=become_plain_user, env=env, cwd=ROOT, check=False).returncode)
    line = soak(args.backend, args.executions)
    print(json.dumps(line), flush=True)
    sys.exit(bool(line["failures"]) or not line["nothing_left"])


if __name__ == "__main__":
    main()
