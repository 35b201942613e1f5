# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process (fast) or in one of its own (true), always in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agentgym.cli.main import main

ROOT = Path(__file__).parent.parent.parent


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


AgentGym = Callable[..., Ran]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and none of the caller's settings."""
    for name in (*(n for n in os.environ if n.startswith("AGENTGYM_")), "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TERM", "xterm-256color")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def agentgym(place: Path, capsys: pytest.CaptureFixture[str]) -> AgentGym:
    """``agentgym ARGUMENT ...`` in this process."""

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as e:
            code = int(e.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def program(place: Path) -> AgentGym:
    """``agentgym ARGUMENT ...`` as a program of its own, its output going into pipes."""

    def run(*argv: str, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "agentgym", *argv],
            capture_output=True, cwd=place, env={**os.environ, **environment}, timeout=300, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def solved(agentgym: AgentGym, place: Path) -> Path:
    """A run in which an oracle solved two sums, two chains and two customers' wishes."""
    assert agentgym("eval", "math.add", "math.chain", "tools.retail", "--limit", "2", "-m", "oracle:honest", "-q").code == 0
    (run,) = (place / "runs").iterdir()
    return run
