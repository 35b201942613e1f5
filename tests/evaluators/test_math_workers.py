# SPDX-License-Identifier: Apache-2.0
"""Worker processes of the math verifier: the same verdict from anywhere, hard limits, and no process left behind."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from agentgym.evaluators import math_workers
from agentgym.evaluators.math_answer import grade, math_answer
from agentgym.evaluators.math_parse import parse
from agentgym.evaluators.math_workers import MOST_WORKERS, close_workers, same_value, worker_pids
from tests.evaluators.test_math_answer import judge, said

# Only a worker can tell these apart.
TRUE = (r"\sqrt{18}", r"\boxed{3\sqrt2}")
FALSE = (r"\pi", r"\boxed{\pi+10^{-40}}")
SLOW = (parse(r"2^{1/3}"), parse("+".join(rf"\sin(\cos(\tan({i})))^{{1/7}}" for i in range(1, 60))))


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    close_workers()
    yield
    pids = worker_pids()
    close_workers()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; 60 s are for a machine that is very busy."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def verdicts() -> tuple[object, object]:
    return grade(*TRUE), grade(*FALSE)


RIGHT = (1.0, 0.0)


def test_a_worker_is_started_when_it_is_needed_and_kept() -> None:
    assert worker_pids() == []
    assert verdicts() == RIGHT
    (pid,) = worker_pids()
    assert verdicts() == RIGHT
    assert worker_pids() == [pid]


def test_a_worker_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-123")
    verdicts()
    assert "SOME_API_KEY" not in psutil.Process(worker_pids()[0]).environ()


def test_64_threads_get_the_same_verdicts_from_few_workers() -> None:
    golds = [(g, t) for g, t in (TRUE, FALSE, ("42", r"\boxed{42}"), (r"\sin 2x", r"\boxed{2\sin x\cos x}"))] * 64
    expected = [grade(g, t) for g, t in golds]
    random.Random(0).shuffle(order := list(range(len(golds))))
    with ThreadPoolExecutor(64) as pool:
        found = dict(zip(order, pool.map(lambda i: grade(*golds[i]), order), strict=True))
    assert [found[i] for i in range(len(golds))] == expected
    assert 1 <= len(worker_pids()) <= MOST_WORKERS


def test_a_worker_outlives_the_thread_that_started_it() -> None:
    thread = threading.Thread(target=verdicts)
    thread.start()
    thread.join()
    (pid,) = worker_pids()
    assert verdicts() == RIGHT
    assert worker_pids() == [pid]


def test_a_forked_process_has_workers_of_its_own_and_takes_them_along() -> None:
    assert verdicts() == RIGHT
    (mine,) = worker_pids()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"raised"
        try:
            before = worker_pids()
            told = repr((before, verdicts(), worker_pids())).encode()
        finally:
            os.write(write, told)
            os._exit(0)  # no cleanup at all: as after kill -9
    os.waitpid(child, 0)
    before, found, theirs = eval(os.read(read, 4096))  # our own child's, just above
    os.close(read)
    os.close(write)
    assert before == []
    assert found == RIGHT
    assert theirs != [mine]
    wait_for(lambda: not psutil.pid_exists(theirs[0]))
    assert verdicts() == RIGHT
    assert worker_pids() == [mine]


def test_it_may_be_called_inside_a_running_event_loop() -> None:
    async def inside() -> tuple[object, object]:
        here = verdicts()
        assert await asyncio.gather(*(asyncio.to_thread(verdicts) for _ in range(8))) == [here] * 8
        return here

    assert asyncio.run(inside()) == RIGHT


def test_it_changes_no_signal_of_the_process() -> None:
    before = {s: signal.getsignal(s) for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)}
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    verdicts()
    assert {s: signal.getsignal(s) for s in before} == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


@pytest.mark.parametrize("which", ["parent", "child", "both"])
def test_a_worker_that_is_killed_is_replaced(which: str) -> None:
    assert verdicts() == RIGHT
    worker = psutil.Process(worker_pids()[0])
    victims = [*worker.children()] if which != "parent" else []
    victims += [worker] if which != "child" else []
    for victim in victims:
        victim.kill()
    assert verdicts() == RIGHT


def test_workers_that_are_killed_under_way_cost_no_verdict() -> None:
    stop = threading.Event()

    def killer() -> None:
        while not stop.is_set():
            for pid in worker_pids():
                try:
                    for victim in (*psutil.Process(pid).children(), psutil.Process(pid)):
                        victim.kill()
                        break
                except psutil.Error:
                    pass
            stop.wait(0.2)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        found = [verdicts() for _ in range(60)]
    finally:
        stop.set()
        thread.join()
    # a verdict may be missing where worker after worker was killed; it is never a wrong one
    died = (0.0, ["worker_died"])
    assert all(true in (1.0, died) and false in (0.0, died) for true, false in found)
    assert verdicts() == RIGHT


def test_a_worker_that_is_stopped_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts() == RIGHT
    worker = psutil.Process(worker_pids()[0])
    children = worker.children()
    for process in (*children, worker):
        process.suspend()
    monkeypatch.setattr(math_workers, "WALL_S", 0.5)
    assert same_value(parse("2"), parse("2"))[0] in ("same", "died")
    monkeypatch.undo()
    assert verdicts() == RIGHT
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    for process in children:
        process.kill()  # stopped as it is, it cannot notice that nobody wants it any more


def test_cpu_time_ends_a_question_and_not_the_worker() -> None:
    same_value(parse("2"), parse("2"))
    (pid,) = worker_pids()
    assert same_value(*SLOW, cpu_s=0.005)[0] == "timeout"
    assert same_value(parse("2"), parse("2"))[0] == "same"
    assert worker_pids() == [pid]


def test_a_time_out_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.evaluators.math_same.CPU_TOTAL_S", 0.0)
    assert grade(*TRUE) == (0.0, ["timeout"])
    score = judge(math_answer(), TRUE[0], said(TRUE[1]))
    assert (score.value, score.status, score.flags) == (0.0, "refused", ("timeout",))


def test_a_killed_worker_is_nobodys_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.evaluators.math_same.same_value", lambda a, b, cpu_s: ("died", 0.0))
    assert grade(*TRUE) == (0.0, ["worker_died"])
    score = judge(math_answer(), TRUE[0], said(TRUE[1]))
    assert (score.value, score.status, score.flags) == (None, "unscorable", ("worker_died",))


@pytest.mark.parametrize("held", [False, True])
def test_workers_die_with_the_process_that_they_work_for(held: bool) -> None:
    code = (
        "import os, time; from agentgym.evaluators.math_answer import grade; from agentgym.evaluators import math_workers\n"
        rf"grade({TRUE[0]!r}, {TRUE[1]!r})"
        "\nkept = [os.dup(w.process.stdin.fileno()) for w in math_workers._pool.all]"
        "\nchild = os.fork() if HELD else 0  # it holds a pipe open that nobody knows of\n"
        "if child or not HELD: os.write(1, f'{math_workers.worker_pids()[0]} {child}\\n'.encode())\n"
        "time.sleep(120)"
    ).replace("HELD", str(held))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, holder = map(int, process.stdout.readline().split())
        worker = psutil.Process(pid)
        family = [worker, *worker.children()]
        process.kill()
        process.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    if held:
        assert psutil.pid_exists(holder)
        os.kill(holder, signal.SIGKILL)


def test_an_interpreter_that_ends_takes_its_workers_along_in_silence() -> None:
    code = (
        "from agentgym.evaluators.math_answer import grade; from agentgym.evaluators.math_workers import worker_pids\n"
        rf"grade({TRUE[0]!r}, {TRUE[1]!r}); print(worker_pids()[0])"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not psutil.pid_exists(int(done.stdout))


# -- hostile answers ----------------------------------------------------------------------------------------------------------


def hostile() -> list[tuple[str, str]]:
    """Two hundred (gold, answer): towers, factorials, floods, depths, and what is slow to tell apart."""
    rng = random.Random(0)
    found: list[tuple[str, str]] = []
    for n in (2, 9, 99, 10**9):
        tower = str(n)
        for _ in range(6):
            tower = f"{n}^{{{tower}}}"
            found.append(("1", tower))
            found.append(("e", f"e^{{{tower}}}"))
            found.append(("1", f"({tower})!"))
    for depth in (30, 300, 5000):
        for left, right in (
            "()",
            "{}",
            "[]",
            ("|", "|"),
            (r"\sqrt{", "}"),
            (r"\frac{1}{", "}"),
            (r"\sin(", ")"),
            (r"\text{", "}"),
        ):
            found.append((r"\sqrt2", left * depth + "2" + right * depth))
    for piece in (
        "-",
        "+",
        "^2",
        "_1",
        "!",
        ",",
        r"\pm ",
        "x",
        "9",
        "1,",
        r"\frac",
        r"\\",
        "=",
        "<",
        "'",
        ":",
        r"\cup ",
        "&",
        "1 ",
        "%",
    ):
        found += [("x", "1" + piece * 400), ("1", piece * 900 + "1"), (r"\sqrt2, \sqrt3", piece * 1900)]
    for k in range(200 - len(found)):
        parts = [
            rng.choice([r"\sin", r"\cos", r"\tan", r"\ln", r"\arctan"])
            + f"({rng.randrange(1, 99)}{rng.choice('xy')})^{{{rng.randrange(2, 9)}/7}}"
            for _ in range(10 + k % 25)
        ]
        found.append((r"\sin x", "+".join(parts)))
    return found


def cpu_s() -> float:
    """CPU seconds of this process, its workers and those that have ended."""
    own = sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    for pid in worker_pids():
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            times = process.cpu_times()
            own += times.user + times.system + times.children_user + times.children_system
    return own


def test_200_hostile_answers_are_each_answered_within_a_second_of_cpu(fresh_python: Callable[..., str]) -> None:
    # in a process of its own: whatever ran before in this one may have held more memory than the bound
    fresh_python("from tests.evaluators.test_math_workers import answer_hostile\nanswer_hostile()")


def answer_hostile() -> None:
    rows = hostile()
    assert len(rows) == 200
    grade(*TRUE)
    for gold, answer in rows:
        before = cpu_s()
        found = grade(gold, rf"\boxed{{{answer}}}")
        assert cpu_s() - before < 1.0, answer[:100]
        assert (found[0] if isinstance(found, tuple) else found) == 0.0, answer[:100]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB: 1 GiB
    assert all(psutil.Process(pid).memory_info().rss < 1 << 30 for pid in worker_pids())
