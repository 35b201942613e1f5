# SPDX-License-Identifier: Apache-2.0
"""What a model says is data: whatever it is, it neither steers the terminal nor reorders what is read there."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from agentgym.records.run import Run
from tests.cli.conftest import AgentGym
from tests.cli.players import HOSTILE

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff\U000e0000-\U000e007f]"
)

PLAYERS = ("--model", "tests.cli.players:Hostile", "--infra-limit", "1")


@pytest.fixture
def hostile(agentgym: AgentGym, place: Path) -> list[str]:
    """The addresses of what a hostile policy said: to a sum, and with tools; and of where it failed so."""
    assert agentgym("eval", "math.add", "tests.envs:Bank", "--limit", "1", "--trials", "2", "-q", *PLAYERS).code == 0
    rows = [json.loads(line) for line in agentgym("list", "latest", "--json").lines]
    assert sorted(r["outcome"] for r in rows if "math.add" in r["task_id"]) == ["infrastructure", "terminated"]
    assert sorted(r["outcome"] for r in rows if "test.bank" in r["task_id"]) == ["infrastructure", "terminated"]
    return sorted(r["address"] for r in rows)


def test_the_record_keeps_what_was_said_as_it_was_said(hostile: list[str], place: Path) -> None:
    (path,) = (place / "runs").iterdir()
    with Run(path) as run:
        text = run.episode("math.add/control/0").trajectory.turns[0].message.text
    assert text == HOSTILE.replace("\ud800", "\ufffd")


def test_no_command_prints_what_steers_a_terminal(agentgym: AgentGym, hostile: list[str]) -> None:
    commands = [
        ["eval", "math.add", "tests.envs:Bank", "--limit", "1", "--trials", "2", *PLAYERS],
        ["eval", "math.add", "tests.envs:Bank", "--limit", "1", "--trials", "2", "--json", *PLAYERS],
        ["list", "runs"],
        ["list", "latest"],
        ["list", "latest", "--json"],
        ["list", "latest", "--failed"],
        ["show", "latest"],
        ["show", "latest", "--json"],
    ]
    for address in hostile:
        commands += [["show", address], ["show", address, "--json"]]
    commands += [["show", f"{hostile[0]}@0"], ["show", f"{hostile[2]}@0"], ["show", f"{hostile[2]}@0", "--json"]]
    for argv in commands:
        ran = agentgym(*argv)
        assert ran.code == 0, ran.err
        found = UNSAFE.search(ran.out + ran.err)
        assert found is None, f"{argv} prints {found!r}"


def test_what_was_said_can_still_be_read(agentgym: AgentGym, hostile: list[str]) -> None:
    sums, no_sums, desk, no_desk = hostile
    out = agentgym("show", sums).out
    # every character that is not printed is written out, and nothing is taken for markup
    assert (
        r"\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil.test\x1b\link\x9b31m red [red]red[/red] \u202egnp.exe\u2066\u200f" in out
    )
    assert r"\x0d over\x08\x7f" in out
    assert r"\U000e0041 \u2028end" in out
    assert "  (thinks) " in agentgym("show", desk).out
    (call,) = [line for line in agentgym("show", f"{desk}@0").lines if line.startswith("  → ")]
    assert r"\x1b[2J" in call
    for address in (no_sums, no_desk):
        assert any(line.startswith(r"  policy: \x1b[2J") for line in agentgym("show", address).lines)
    assert r"[red]red[/red]" in agentgym("list", "latest").out


def test_names_from_the_command_line_are_neutralized_in_errors(agentgym: AgentGym) -> None:
    for argv in (
        ["eval", HOSTILE],
        ["eval", "math.add", "--model", HOSTILE],
        ["eval", "math.add", "-T", HOSTILE],
        ["list", HOSTILE],
        ["list", "tasks", "-k", HOSTILE],
        ["show", HOSTILE],
        ["show", f"latest::{HOSTILE}"],
        ["fetch", HOSTILE],
        ["new", "task", HOSTILE.replace("/", "")],
        [HOSTILE],
    ):
        ran = agentgym(*argv)
        assert ran.code in (2, 5), (argv, ran)
        assert UNSAFE.search(ran.out + ran.err) is None, (argv, ran)


def test_in_a_terminal_too_only_our_own_codes_arrive(hostile: list[str], place: Path) -> None:
    for argv in (
        ["show", hostile[0]],
        ["show", hostile[2]],
        ["show", hostile[3]],
        ["list", "latest"],
        ["eval", "math.add", "tests.envs:Bank", "--limit", "1", "--trials", "2", *PLAYERS],
    ):
        text = in_terminal(argv, 80).decode()
        rest = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).replace("\r\n", "\n").replace("\r", "")
        assert UNSAFE.search(rest) is None, (argv, UNSAFE.search(rest))
        # colours, and what a live table needs: up, erase the line, hide and show the cursor; not the screen's erasure
        assert set(re.findall(r"\x1b\[[\d;?]*([A-Za-z])", text)) <= set("mAKlh")


def in_terminal(argv: list[str], width: int, height: int = 24, **environment: str) -> bytes:
    """What ``agentgym ARGUMENT ...`` writes into a terminal of that size."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "agentgym", *argv],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **environment}, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    out = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 120)
        try:
            piece = os.read(ours, 1 << 16) if ready else b""
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    child.wait(timeout=60)
    return out
