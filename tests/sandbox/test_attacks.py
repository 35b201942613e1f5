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
    "root_of_the_host": "an engine without userns-remap maps all users, and a container cannot be given a map of its own; "
    "were the guest to make a user namespace inside, the code could too. `Capabilities.own_user` says so",
}
"""Cases that a container does not survive, each with the reason. They must fail: what is survived is struck off."""

OBSERVED = (
    "right_answer",
    "io_uring",
    "calls_of_32_bit",
    "new_namespaces",
    "own_listener",
    "clock",
    "into_process_1",
    "double_fork",
)
OBSERVED_ALONE = (
    *OBSERVED,
    "kernel_settings",
    "odd_sockets",
    "fork_bomb",
    "hard_links_out",
    "udp_and_names",
    "exit_with_success",
)
"""Cases that are run once more with events on: those that meet the other filter or the observer, fewer for a second user.
All of them:
``python -m tests.sandbox.attacks.runner -- python tests/sandbox/attack_backend.py namespace --events``."""

SOMEBODY = "as root" if os.getuid() == 0 else "as a plain user"
WAYS = [("namespace", SOMEBODY), ("bwrap", SOMEBODY), ("docker", SOMEBODY)]
if os.getuid() == 0:
    WAYS[2:2] = [("namespace", "as a plain user"), ("bwrap", "as a plain user")]
WAYS += [(f"namespace {how}", who) for how in ("observed", "allowing") for name, who in WAYS if name == "namespace"]
OPTIONS = {"": [], "observed": ["--events"], "allowing": ["--allow", "127.0.0.1:9", "--allow", "a.example:443"]}


def worth(way: tuple[str, str], case: Case) -> bool:
    """Whether a case is run this way by default; the runner by itself runs all of them."""
    name, who = way
    if "allowing" in name:  # a network of which nothing may lead anywhere else
        return case.category == "network"
    if "observed" in name:
        return case.name in (OBSERVED_ALONE if who == SOMEBODY else OBSERVED)
    # what differs for a second user of bubblewrap: who counts memory and processes, and which user id is mapped
    return name != "bwrap" or who == SOMEBODY or case.category in ("kernel", "process", "resource")


PAIRS = [(way, case) for way in WAYS for case in CASES if worth(way, case)]


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A backend command that has proved its isolation: none is attacked without."""
    name, who = request.param
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    drop = become_plain_user if os.getuid() == 0 and who == "as a plain user" else None
    kind, _, how = name.partition(" ")
    command = [sys.executable, str(ROOT / "tests/sandbox/attack_backend.py"), kind, *OPTIONS[how]]
    made = Server(command, preexec_fn=drop, cwd=str(ROOT))
    try:
        if not proved(made):
            pytest.fail(f"{name} {who} gives no proof of isolation: no case is run")
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "case"),
    PAIRS,
    indirect=["server"],
    scope="session",
    ids=[" ".join((*w, c.name)).replace(" ", "-") for w, c in PAIRS],
)
def test_is_survived(server: Server, case: Case, host: Host, request: pytest.FixtureRequest) -> None:
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
