# SPDX-License-Identifier: Apache-2.0
"""Runs whose tasks need a sandbox: refused in words where there is none, recorded with what held the code in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentgym
from agentgym.errors import DataError, NotFoundError, UsageError
from agentgym.records.run import Run
from agentgym.rollout.sandboxes import require_sandbox
from agentgym.rollout.selection import Choice, resolve
from agentgym.sandbox import shared
from agentgym.sandbox.protocol import Backend, SandboxSpec, SandboxUnavailableError
from agentgym.sandbox.shared import shared_backend
from tests.core.test_sandboxenv import Desk

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str, runs: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentgym", "eval", *arguments, "--runs", str(runs)],
        env={**os.environ, "NO_COLOR": "1", "AGENTGYM_SANDBOX": "", **env},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_the_record_says_what_held_the_code_in(tmp_path: Path) -> None:
    with agentgym.evaluate(Desk, "oracle:honest", limit=2, runs=tmp_path) as run:
        assert all(e.gold == 1.0 for e in run.episodes())
        kept = run.meta["sandbox"]
        assert kept["backend"] == kept["capabilities"]["backend"] == shared_backend().capabilities().backend
        assert kept["capabilities"]["no_network"] is True
    with agentgym.evaluate("math.add", "oracle:honest", limit=2, runs=tmp_path) as run:
        assert run.meta["sandbox"] is None


def test_a_backend_that_is_missing_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str | None = None) -> Backend:
        raise SandboxUnavailableError("namespaces are forbidden here.")

    monkeypatch.setattr("agentgym.rollout.sandboxes.shared_backend", none)
    with pytest.raises(SandboxUnavailableError) as caught:
        agentgym.evaluate("code.func", "oracle:honest", runs=tmp_path)
    assert str(caught.value).startswith("code.func runs code that a model has written")
    assert "namespaces are forbidden here." in str(caught.value)
    assert "`--sandbox docker` uses a container engine: it needs" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with agentgym.evaluate("math.add", "oracle:honest", limit=1, runs=tmp_path) as run:  # which needs none
        assert run.meta["sandbox"] is None


def test_the_command_refuses_with_exit_code_2(tmp_path: Path) -> None:
    ran = command("code.func", "--model", "oracle:honest", "--sandbox", "docker", runs=tmp_path, DOCKER_HOST="unix:///nowhere")
    _, err = ran.communicate(timeout=120)
    assert ran.returncode == 2
    assert "no container engine answers" in err
    assert "AGENTGYM_DOCKER_IMAGE" in err
    ran = command("code.func", "--model", "oracle:honest", "--sandbox", "namespaces", runs=tmp_path)
    _, err = ran.communicate(timeout=120)
    assert ran.returncode == 2
    assert "there is no sandbox backend 'namespaces'. Did you mean: namespace?" in err
    assert list(tmp_path.iterdir()) == []


def test_what_a_task_asks_for_and_the_backend_lacks_is_refused(tmp_path: Path) -> None:
    class Demanding(Desk):
        family = "test.demanding"
        sandbox_spec = SandboxSpec(require=("seccomp",))

    with pytest.raises(UsageError, match=r"test\.demanding: the sandbox backend 'unsafe_local' does not have 'seccomp'"):
        agentgym.evaluate(Demanding, "oracle:honest", limit=1, sandbox="unsafe_local", runs=tmp_path)
    assert list(tmp_path.iterdir()) == []
    shared.close_shared()


def test_only_a_caller_can_ask_for_the_backend_that_holds_nothing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_SANDBOX", "unsafe_local")
    with pytest.raises(UsageError, match="say so each time: --sandbox unsafe_local"):
        agentgym.evaluate(Desk, "oracle:honest", limit=1, runs=tmp_path)
    suite = tmp_path / "s.toml"
    suite.write_text('sandbox = "unsafe_local"\n[[tasks]]\ntask = "code.func"\n')
    with pytest.raises(DataError, match="only a command line can"):
        agentgym.evaluate(str(suite), "oracle:honest", runs=tmp_path)
    with agentgym.evaluate(Desk, "oracle:honest", limit=1, sandbox="unsafe_local", runs=tmp_path / "runs") as run:
        assert run.meta["sandbox"]["capabilities"]["isolation"] == "none"
        assert run.meta["options"]["sandbox"] == "unsafe_local"
    shared.close_shared()


def test_the_variable_and_the_suite_choose_and_the_caller_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_SANDBOX", "nosuch")
    plan = resolve(["code.func"], Choice(limit=1))
    with pytest.raises(NotFoundError, match="no sandbox backend 'nosuch'"):
        require_sandbox(plan, None)
    assert (require_sandbox(plan, "namespace") or {})["backend"] == "namespace"
    suite = tmp_path / "s.toml"
    suite.write_text('sandbox = "namespace"\n[[tasks]]\ntask = "code.func"\nitems = 1\n')
    with agentgym.evaluate(str(suite), "oracle:lazy", runs=tmp_path) as run:
        assert run.meta["options"]["sandbox"] == "namespace"


def test_a_registered_backend_is_found_by_name() -> None:
    made: list[Any] = []

    def factory() -> Backend:
        from agentgym.sandbox.namespace import NamespaceBackend

        made.append(NamespaceBackend(packages=()))
        return made[-1]

    agentgym.registry.register_sandbox("mine", factory)
    try:
        assert shared_backend("mine") is made[0]
    finally:
        del shared.factories["mine"]
        agentgym.registry.sandboxes._objects.pop("mine")
        shared.close_shared()


def test_several_processes_have_a_backend_each(tmp_path: Path) -> None:
    ran = command("code.func", "term.shell", "--model", "oracle:honest", "--limit", "4", "--processes", "2", runs=tmp_path)
    _, err = ran.communicate(timeout=250)
    assert (ran.returncode, err) == (0, "")
    with Run(next(tmp_path.iterdir())) as run:
        assert [e.gold for e in run.episodes()] == [1.0] * 8
        assert run.meta["sandbox"]["backend"]


SLOW = """
from agentgym.chat import call
from agentgym.policies.oracle import ScriptedPolicy

def policy(_=""):
    return ScriptedPolicy([call("run", code="import time; time.sleep(100)")] * 3)
"""


def is_launcher(process: psutil.Process) -> bool:
    try:
        return "_launcher.py" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended since it was listed
        return False


def test_ctrl_c_leaves_no_sandbox_behind(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    runs = tmp_path / "runs"
    ran = command("code.func", "--model", f"{tmp_path}/slow.py:policy", "--limit", "4", runs=runs)
    me = psutil.Process(ran.pid)
    deadline = time.monotonic() + 120
    while sum(is_launcher(p) for p in me.children(recursive=True)) < 4:
        assert ran.poll() is None, ran.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = me.children(recursive=True)
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 130
    assert "0 of 4 episodes are saved" in err
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
