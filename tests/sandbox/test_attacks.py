# SPDX-License-Identifier: Apache-2.0
"""Every attack case is survived, by each backend, as whoever runs the tests and as a plain user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from agentgym.sandbox.protocol import Backend
from tests.sandbox.attacks.cases import CASES, Case
from tests.sandbox.attacks.runner import Host, Server, judge, proved
from tests.sandbox.conftest import NEEDS, ROOT, become_plain_user

DOCKER_EXCEPTIONS = {
    "root_of_the_host": "an engine without userns-remap maps all users; `Capabilities.own_user` says so",
}
"""Cases that a container does not survive, each with the reason. They must fail: what is survived is struck off."""

SOMEBODY = "as root" if os.getuid() == 0 else "as a plain user"
WAYS = [("namespace", SOMEBODY), ("bwrap", SOMEBODY), ("docker", SOMEBODY)]
if os.getuid() == 0:
    WAYS[2:2] = [("namespace", "as a plain user"), ("bwrap", "as a plain user")]


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture(scope="session", params=WAYS, ids=lambda way: " ".join(way).replace(" ", "-"))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A backend command that has proved its isolation: none is attacked without."""
    name, who = request.param
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    drop = become_plain_user if os.getuid() == 0 and who == "as a plain user" else None
    command = [sys.executable, str(ROOT / "tests/sandbox/attack_backend.py"), name]
    made = Server(command, preexec_fn=drop, cwd=str(ROOT))
    try:
        if not proved(made):
            pytest.fail(f"{name} {who} gives no proof of isolation: no case is run")
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_survived(case: Case, server: Server, host: Host, request: pytest.FixtureRequest) -> None:
    if case.category == "resource":
        request.getfixturevalue("alone")
    for _ in range(3):  # the machine's memory is everybody's: somebody else may have taken some
        wrong = judge(case, server, host)
        if not wrong or not all("peak of" in w for w in wrong):
            break
    if "docker" in request.node.name and case.name in DOCKER_EXCEPTIONS:
        assert wrong, f"{case.name} is survived now: take it off the list of exceptions"
        return
    assert wrong == []


def test_the_judge_sees_an_escape(namespace: Backend, host: Host) -> None:
    """The runner's own test: what must fail fails."""

    class Loose(Server):
        def __init__(self) -> None:
            self.process = type("Process", (), {"pid": os.getpid()})()

        def ask(self, request: dict[str, object], limit_s: float) -> dict[str, object]:
            import base64

            text = base64.b64encode(b"ESCAPED\n42\n").decode()
            return {"status": "ok", "exit_code": 0, "stdout": text, "stderr": "", "wall": 0.1}

    first = next(c for c in CASES if c.op == "run" and c.category == "kernel")
    assert any("ESCAPED" in w for w in judge(first, Loose(), host))
    assert not proved(Loose())
