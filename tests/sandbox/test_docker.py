# SPDX-License-Identifier: Apache-2.0
"""The container backend beyond what all backends promise: what it says where it cannot work, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import UsageError
from agentgym.sandbox import open_backend
from agentgym.sandbox.engine import DockerBackend
from agentgym.sandbox.protocol import SandboxSpec, SandboxUnavailableError
from tests.sandbox.footprint import LABEL

ROOT = Path(__file__).resolve().parents[2]


def containers() -> list[Any]:
    import docker

    return docker.from_env().containers.list(all=True, filters=LABEL, ignore_removed=True)


def test_without_an_engine_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailableError, match=r"no container engine answers.*DOCKER_HOST"):
        DockerBackend(base_url=f"unix://{tmp_path}/nothing.sock").capabilities()


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(SandboxUnavailableError, match=r"pip install 'agentgym-harness\[docker\]'"):
        DockerBackend().capabilities()


def test_without_the_image_it_says_how_to_get_it(engine: str) -> None:
    with pytest.raises(SandboxUnavailableError, match="docker pull no-such-image:1"):
        DockerBackend(image="no-such-image:1").capabilities()


def test_it_does_not_claim_a_user_of_its_own(engine: str) -> None:
    with open_backend("docker") as backend:
        assert not backend.capabilities().own_user
        with pytest.raises(UsageError, match="own_user"):
            backend.create(SandboxSpec(require=("own_user",)))


def test_no_container_is_left(engine: str) -> None:
    with open_backend("docker") as backend:
        for _ in range(3):
            with backend.create() as box:
                box.exec("sleep 300 & setsid sleep 300 & exit", "bash")
                box.fork()  # closed with its backend
    assert containers() == []


def test_a_host_that_is_killed_takes_its_containers_with_it(engine: str) -> None:
    code = (
        "import time\nfrom agentgym.sandbox import open_backend\nbox = open_backend('docker').create()\n"
        "box.session('bash').run('sleep 300 &')\nprint('up', flush=True)\ntime.sleep(300)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        assert len(containers()) == 1
        host.kill()
    for _ in range(150):
        if not containers():
            return
        time.sleep(0.1)
    raise AssertionError("a container outlives its host")
