# SPDX-License-Identifier: Apache-2.0
"""The backend without isolation: never by accident, and honest about itself. Only harmless code runs here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agentgym.errors import UsageError
from agentgym.sandbox import _ORDER, open_backend
from agentgym.sandbox.protocol import SandboxSpec


def test_it_has_to_be_asked_for_by_flag() -> None:
    with pytest.raises(UsageError, match="say so with unsafe=True"):
        open_backend("unsafe_local")
    with pytest.raises(UsageError, match="unsafe=True"):
        open_backend("unsafe_local", unsafe="yes")
    assert "unsafe_local" not in _ORDER


def test_it_claims_nothing_and_refuses_tasks_that_need_something() -> None:
    with open_backend("unsafe_local", unsafe=True) as backend:
        can = backend.capabilities()
        assert can.isolation == "none"
        assert not any((can.memory_total, can.pids, can.disk, can.no_network, can.seccomp, can.own_user))
        with pytest.raises(UsageError, match="seccomp"):
            backend.create(SandboxSpec(require=("seccomp",)))


def test_it_speaks_the_protocol_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_backend("unsafe_local", unsafe=True) as backend, backend.create() as box:
        assert box.exec("print(6 * 7)").text == "42\n"
        assert box.exec("exit 3", "bash").exit_code == 3
        assert box.exec("pwd", "bash").text == box.exec("import os; print(os.getcwd())").text
        session = box.session("bash")
        assert session.run("x=1; sleep 987 & echo $!").text.strip().isdigit()
        pid = int(session.run("echo $!").text)
        assert os.path.exists(f"/proc/{pid}")
        box.put("f", "text")
        with box.fork() as twin:
            assert twin.get("f") == b"text"
        assert box.copy_out(tmp_path / "out").files == {"f": b"text"}
        folder = box.exec("import os; print(os.getcwd())").text.strip()
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") and not os.path.exists(folder):
            return
        time.sleep(0.02)
    raise AssertionError("a process or a folder is left")
