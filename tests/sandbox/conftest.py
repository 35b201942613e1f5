# SPDX-License-Identifier: Apache-2.0
"""Backends for the sandbox tests, and ways to become a plain user."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentgym.sandbox import _linux, open_backend
from agentgym.sandbox.protocol import Backend, Sandbox
from tests.sandbox.engine import running

ROOT = Path(__file__).resolve().parents[2]
USER = 54321
"""A user that exists nowhere, whom tests become that need a plain one."""


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A container engine; what needs one skips where there is none, and fails in CI."""
    with running() as why:
        if why:
            say = pytest.fail if os.environ.get("CI") else pytest.skip
            say(f"no container engine: {why}")
        yield os.environ["AGENTGYM_DOCKER_IMAGE"]


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """bubblewrap; what needs it skips where it is not installed, and fails in CI."""
    found = shutil.which("bwrap")
    if found is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("bubblewrap is not installed (package bubblewrap)")
    return found


NEEDS = {"docker": "engine", "bwrap": "bubblewrap"}
"""Backend -> the fixture that is there where it can work."""


@pytest.fixture(scope="session", params=["namespace", "bwrap", "docker"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend that holds code in; what passes for one must pass for all."""
    if request.param in NEEDS:
        request.getfixturevalue(NEEDS[request.param])
    with open_backend(request.param) as opened:
        yield opened


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests that take much memory and look at the machine's: one at a time among the workers of this run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "agentgym-alone", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@pytest.fixture
def box(backend: Backend) -> Iterator[Sandbox]:
    with backend.create() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def namespace() -> Iterator[Backend]:
    with open_backend("namespace") as opened:
        yield opened


def _reachable(path: str) -> bool:
    return all(os.stat(p).st_mode & 0o001 for p in (path, *map(str, Path(path).parents)) if os.path.isdir(p))


def become_plain_user() -> None:
    """In a child of root, before it executes: a plain user who can reach this interpreter and this checkout.

    Interpreters often lie in root's home, which others cannot enter: they are shown at the same place in a mount
    namespace of the child's own.
    """
    needed = {sys.base_prefix, sys.prefix, str(ROOT), sysconfig.get_path("purelib")}
    hidden = [p for p in sorted(needed) if not _reachable(p)]
    if hidden:
        _linux.unshare(_linux.NEWNS)
        _linux.mount(None, "/", None, _linux.MS_REC | _linux.MS_PRIVATE)
        held = [os.open(p, os.O_PATH) for p in hidden]
        for top in {"/" + p.split("/")[1] for p in hidden}:
            _linux.mount("tmpfs", top, "tmpfs", 0, "mode=755")
        for path, fd in zip(hidden, held, strict=True):
            os.makedirs(path, exist_ok=True)
            _linux.mount(f"/proc/self/fd/{fd}", path, None, _linux.MS_BIND | _linux.MS_REC)
            os.close(fd)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


@pytest.fixture
def as_plain_user(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs this interpreter as a plain user, whoever runs the tests."""

    def run(*arguments: str, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AGENTGYM_TEST_AS_PLAIN_USER": "1",
        }
        return subprocess.run(
            [sys.executable, *arguments],
            preexec_fn=become_plain_user if os.getuid() == 0 else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=env,
            cwd=str(ROOT),
            timeout=timeout_s,
            check=False,
        )

    return run
