# SPDX-License-Identifier: Apache-2.0
"""``agentgym view`` as a command: in a real terminal, and what it says where there is none."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.records.run import Run
from tests.conftest import ROOT


def view(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command with its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "agentgym", "view", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,  # a viewer that opens after all would wait for keys for ever
    )


def test_without_a_terminal_it_says_what_to_use_instead(root: Path) -> None:
    done = view("--runs", str(root))
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "agentgym show" in done.stderr
    assert done.stdout == ""


def test_commands_that_do_not_need_the_viewer_do_not_load_it(fresh_python: Any) -> None:
    code = (
        "import sys, agentgym.cli.main, agentgym.cli.eval, agentgym.cli.show, agentgym.cli.view\n"
        "agentgym.cli.main.parser()\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'textual'])"
    )
    assert fresh_python(code).strip() == "[]"


class Tmux:
    """A terminal of its own server, so that nobody's sessions are touched."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def run(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), "-f", "/dev/null", *args], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, command: list[str], columns: int, lines: int, log: Path) -> None:
        shell = f"{shlex.join(command)}; echo exit $? > {shlex.quote(str(log))}; sleep 60"
        self.run("new-session", "-d", "-x", str(columns), "-y", str(lines), "-e", f"PYTHONPATH={ROOT}", shell)

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    @property
    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def until(self, condition: Callable[[str], bool]) -> str:
        end = time.monotonic() + 120
        while not condition(screen := self.screen):
            assert time.monotonic() < end, f"waited in vain; the screen:\n{screen}"
            time.sleep(0.05)
        return screen


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("this test drives a real terminal: install tmux (apt-get install tmux)")
    terminal = Tmux(tmp_path / "tmux")
    yield terminal
    subprocess.run(["tmux", "-S", str(terminal.socket), "kill-server"], capture_output=True, check=False)


def test_in_a_real_terminal_of_80_by_24(tmux: Tmux, root: Path, retail: Run, tmp_path: Path) -> None:
    log = tmp_path / "exit"
    tmux.start([sys.executable, "-m", "agentgym", "view", str(retail.path)], 80, 24, log)
    screen = tmux.until(lambda s: "1/16" in s and "tools.retail/control/0" in s and "Quit" in s)
    lines = screen.splitlines()
    assert len(lines) == 24
    assert "outcome" in lines[2]
    assert "q Quit" in lines[23]
    tmux.press("Down", "Down", "Enter")  # the first episode of a tempting twin
    tmux.until(lambda s: "opening" in s and "turn 0" in s)
    tmux.press("]")
    tmux.until(lambda s: "[⚑]" in s and "violated" in s)
    tmux.press("?")
    tmux.until(lambda s: "Next flagged turn" in s)
    tmux.press("Escape")
    tmux.until(lambda s: "Next flagged turn" not in s)
    tmux.press("Escape")
    tmux.until(lambda s: "3/16" in s)
    tmux.press("/")
    tmux.until(lambda s: "part of a task id" in s)
    tmux.press("tempt/3", "Enter")
    tmux.until(lambda s: "1/2" in s)
    tmux.press("q")
    end = time.monotonic() + 60
    while not log.exists() or not log.read_text():
        assert time.monotonic() < end, tmux.screen
        time.sleep(0.05)
    assert log.read_text() == "exit 0\n"


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (["no-such-run"], "there is no run 'no-such-run'", 2),
        (["RUN::tools.retail/control/99/0"], "has no episode of", 2),
        (["RUN::tools.retail/control/0/0@99"], "counted from 0: no @99", 2),
        (["RUN::nonsense"], "is not an address", 2),
        (["--runs", "EMPTY"], "there are no runs in", 2),
        (["DAMAGED"], "cannot be read as a run", 12),
    ],
    ids=["no run", "no episode", "no turn", "no address", "no runs", "damaged"],
)
def test_what_cannot_be_opened_is_a_sentence_and_an_exit_code(
    tmux: Tmux, root: Path, retail: Run, tmp_path: Path, args: list[str], says: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.sqlite").write_bytes(b"nonsense")
    places = {"RUN": str(retail.path), "EMPTY": str(tmp_path / "empty"), "DAMAGED": str(tmp_path / "damaged")}
    args = [places[a] if a in places else a.replace("RUN::", f"{retail.path}::") for a in args]
    log = tmp_path / "exit"
    tmux.start([sys.executable, "-m", "agentgym", "view", *args], 200, 24, log)
    end = time.monotonic() + 120
    while not log.exists() or not log.read_text():
        assert time.monotonic() < end, tmux.screen
        time.sleep(0.05)
    assert log.read_text() == f"exit {code}\n"
    assert says in " ".join(tmux.screen.split())
