# SPDX-License-Identifier: Apache-2.0
"""What every sandbox backend promises, told once and held against each."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from agentgym.errors import UsageError
from agentgym.sandbox.protocol import (
    Backend,
    Limits,
    Sandbox,
    SandboxDeadError,
    SandboxError,
    SandboxExhaustedError,
    SandboxFileError,
    SandboxSpec,
)

LANGUAGES = ("python", "bash")


def later(seconds: float, action: object) -> threading.Timer:
    timer = threading.Timer(seconds, action)  # type: ignore[arg-type]
    timer.start()
    return timer


# running


def test_a_program_gives_its_output_its_errors_and_its_exit_code(box: Sandbox) -> None:
    result = box.exec("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)")
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("ok", 3, b"out\n", b"err\n")
    result = box.exec("echo out; echo err >&2; exit 3", "bash")
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("ok", 3, b"out\n", b"err\n")
    assert not result.ok
    assert 0 < result.wall_s < 60


def test_a_traceback_shows_the_programs_lines_and_nothing_of_ours(box: Sandbox) -> None:
    result = box.exec("def f():\n    1 / 0\nf()")
    assert result.exit_code == 1
    assert "1 / 0" in result.error_text
    assert "ZeroDivisionError" in result.error_text
    assert "agentgym" not in result.error_text
    assert "_guest" not in result.error_text


def test_a_program_is_run_by_its_arguments_with_input_folder_and_environment(box: Sandbox) -> None:
    result = box.exec(
        argv=["bash", "-c", 'cat; pwd; echo "$WORD" "$1"', "name", "two words"], stdin=b"in\n", cwd="/tmp", env={"WORD": "x"}
    )
    assert result.text == "in\n/tmp\nx two words\n"
    assert box.exec("print(open(0).read())", stdin=b"a" * 300_000).text == "a" * 300_000 + "\n"


def test_a_program_has_no_descriptor_but_its_own(box: Sandbox) -> None:
    """Least of all that of the way to the host, through which it could report its own end."""
    look = (
        "import os\nfor fd in range(3, 4096):\n    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n    except OSError: pass"
    )
    assert box.exec(look).text == ""
    assert box.exec(argv=["python3", "-c", look]).text == ""
    assert box.exec(f'python3 -c "{look}"', "bash").text == ""
    assert (
        box.session("python").run(f"import subprocess\nsubprocess.run(['python3', '-c', {look!r}], close_fds=False)").text == ""
    )
    shell = box.session("bash").run("ls -l /proc/$$/fd").text
    assert "socket:" not in shell, shell


def test_large_programs_run(box: Sandbox) -> None:
    assert box.exec("x = '" + "a" * 400_000 + "'\nprint(len(x))").text == "400000\n"
    assert box.exec(": " + "a" * 400_000 + "\necho done", "bash").text == "done\n"


def test_a_program_that_is_not_there_is_its_own_failure(box: Sandbox) -> None:
    result = box.exec(argv=["no-such-program"])
    assert result.exit_code == 127
    assert "no-such-program" in result.error_text


def test_nothing_of_the_hosts_environment_is_handed_on(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGX_TEST_SECRET", "canary-4711")
    assert "canary-4711" not in box.exec("env; cat /proc/*/environ", "bash").text


def test_output_reopened_by_name_arrives(box: Sandbox) -> None:
    result = box.exec("echo one; echo two >/dev/stdout; echo three >/dev/stderr; echo four | tee /dev/stderr", "bash")
    assert result.stdout == b"one\ntwo\nfour\n"
    assert result.stderr == b"three\nfour\n"


def test_much_output_is_counted_and_cut(backend: Backend) -> None:
    with backend.create(SandboxSpec(limits=Limits(output=1000, output_stop=1 << 20))) as box:
        result = box.exec("print('x' * 99_999)")
        assert (result.status, len(result.stdout), result.stdout_bytes, result.truncated) == ("ok", 1000, 100_000, True)
        result = box.exec("yes", "bash")
        assert result.status == "output"
        assert len(result.stdout) == 1000
        assert box.exec("print(6 * 7)").text == "42\n"


def test_two_threads_run_programs_at_the_same_time(box: Sandbox) -> None:
    results: dict[int, str] = {}

    def run(number: int) -> None:
        for _ in range(3):
            results[number] = box.exec(f"import time; time.sleep(0.1); print({number})").text

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: f"{n}\n" for n in range(6)}


# time


def test_at_its_time_limit_a_program_ends_with_its_descendants_and_files_stay(box: Sandbox) -> None:
    box.put("kept.txt", "kept")
    result = box.exec("(setsid sleep 300 &) ; sleep 300 & echo started; sleep 300", "bash", timeout_s=0.5)
    assert result.status == "timeout"
    assert result.stdout == b"started\n"
    assert box.get("kept.txt") == b"kept"
    assert "sleep" not in box.exec("cat /proc/[0-9]*/comm", "bash").text


def test_a_time_limit_spares_sessions_and_other_programs(box: Sandbox) -> None:
    session = box.session("bash")
    session.run("sleep 300 & x=1")
    other: list[str] = []
    thread = threading.Thread(target=lambda: other.append(box.exec("import time; time.sleep(1.5); print('done')").text))
    thread.start()
    assert box.exec("while True: pass", timeout_s=0.4).status == "timeout"
    thread.join()
    assert other == ["done\n"]
    assert session.run("echo $x; jobs -r | grep -c sleep").text == "1\n1\n"


def test_a_processor_limit_ends_what_a_wall_limit_would_allow(backend: Backend) -> None:
    with backend.create(SandboxSpec(limits=Limits(cpu_s=1, wall_s=60))) as box:
        result = box.exec("while True: pass")
        assert result.status in ("ok", "killed")
        assert result.exit_code is not None
        assert result.exit_code < 0
        assert result.wall_s < 50


# sessions


def test_a_python_session_keeps_variables_imports_and_folder(box: Sandbox) -> None:
    session = box.session("python")
    assert session.run("import os\nx = 41\nos.chdir('/tmp')").ok
    assert session.run("print(x + 1, os.getcwd())").text == "42 /tmp\n"
    failed = session.run("y = 1\n1 / 0")
    assert (failed.status, failed.exit_code) == ("ok", 1)
    assert "<turn 3>" in failed.error_text
    assert session.run("print(y)").text == "1\n"
    assert session.run("raise SystemExit(5)").exit_code == 5
    assert session.alive
    assert box.exec("x").exit_code == 1, "programs do not see sessions' variables"


def test_a_bash_session_keeps_variables_functions_and_folder(box: Sandbox) -> None:
    session = box.session("bash")
    assert session.run("cd /tmp; X=5; f() { echo f $1; }; export Y=6").ok
    assert session.run('pwd; echo $X; f 7; bash -c "echo $Y"').text == "/tmp\n5\nf 7\n6\n"
    assert session.run("false").exit_code == 1
    assert session.run("cat; echo no input").text == "no input\n"
    assert b"no-such-command" in session.run("no-such-command").stderr
    assert session.run("if then").exit_code != 0, "what cannot be parsed does not end it"
    assert session.run("for i in 1 2\ndo\n  echo $i\ndone <<X\nunused\nX\n").text == "1\n2\n"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_session_that_its_code_ends_says_so(box: Sandbox, lang: str) -> None:
    session = box.session(lang)  # type: ignore[arg-type]
    result = session.run("import os; os._exit(7)" if lang == "python" else "exit 7")
    assert (result.exit_code, result.session_over) == (7, True)
    assert not session.alive
    with pytest.raises(SandboxError, match="start a new one"):
        session.run("1")
    assert box.exec("print(1)").ok


def test_a_turns_output_is_exactly_its_own(box: Sandbox) -> None:
    session = box.session("bash")
    job = "(for i in 1 2 3 4 5 6 7 8; do sleep 0.05; echo LATE; echo LATE >&2; done) & echo first"
    assert session.run(job).text == "first\n"
    outputs = []
    for turn in range(10):
        result = session.run(f"echo turn {turn}; echo error {turn} >&2; sleep 0.05")
        outputs.append((result.text, result.error_text))
    assert outputs == [(f"turn {t}\n", f"error {t}\n") for t in range(10)]


def test_jobs_survive_turns_even_when_they_write_much(box: Sandbox) -> None:
    session = box.session("bash")
    session.run("(head -c 2000000 /dev/zero; touch /tmp/finished) & disown")
    for _ in range(200):
        if session.run("ls /tmp/finished 2>/dev/null").text:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("a job that nobody reads from was left hanging")


def test_python_sessions_do_not_mix_what_their_children_write(box: Sandbox) -> None:
    session = box.session("python")
    session.run("import subprocess\np = subprocess.Popen('sleep 0.2; echo LATE', shell=True)\nprint('one')")
    assert session.run("p.wait(); print('two')").text == "two\n"


@pytest.mark.parametrize(
    ("lang", "code"), [("python", "import time\nwhile True: time.sleep(1)"), ("bash", "x=1; sleep 300; x=2")]
)
def test_an_interrupt_ends_the_turn_and_not_the_session(box: Sandbox, lang: str, code: str) -> None:
    session = box.session(lang)  # type: ignore[arg-type]
    session.run("x = 0" if lang == "python" else "x=0; sleep 300 &")
    assert not session.interrupt(), "nothing was under way"
    timer = later(0.3, session.interrupt)
    result = session.run(code, timeout_s=30)
    timer.join()
    assert (result.status, result.exit_code) == ("interrupted", 130)
    if lang == "bash":
        assert session.run("echo $x; jobs -r | grep -c sleep").text == "1\n1\n", "jobs in the background stay"
    else:
        assert session.run("print(x)").text == "0\n"


def test_an_interrupt_drops_all_that_the_turn_had_left_to_do(box: Sandbox) -> None:
    session = box.session("bash")
    timer = later(0.3, session.interrupt)
    result = session.run("f() { while true; do sleep 300; done; echo after; }; f; echo more", timeout_s=30)
    timer.join()
    assert result.status == "interrupted"
    assert result.stdout == b""


@pytest.mark.parametrize(("lang", "code"), [("python", "while True: pass"), ("bash", "sleep 300")])
def test_a_turn_over_its_time_is_interrupted_and_the_session_lives(box: Sandbox, lang: str, code: str) -> None:
    session = box.session(lang)  # type: ignore[arg-type]
    session.run("x=1")
    assert session.run(code, timeout_s=0.3).status == "timeout"
    assert session.run("print(x)" if lang == "python" else "echo $x").text == "1\n"


def test_a_turn_that_cannot_be_interrupted_costs_its_session_and_nothing_else(box: Sandbox) -> None:
    session, other = box.session("python"), box.session("python")
    other.run("x = 1")
    result = session.run("import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass", timeout_s=0.3)
    assert (result.status, result.session_over) == ("timeout", True)
    assert not session.alive
    assert other.run("print(x)").text == "1\n"


def test_a_child_that_comes_back_from_a_fork_does_not_answer_for_its_parent(box: Sandbox) -> None:
    session = box.session("python")
    assert session.run("import os\nif os.fork():\n    os.wait(); print('parent')").text == "parent\n"
    assert session.run("print('next')").text == "next\n"


def test_a_session_that_is_closed_leaves_no_process(box: Sandbox) -> None:
    session = box.session("bash")
    session.run("sleep 300 & sleep 300 &")
    session.close()
    for _ in range(100):
        if "sleep" not in box.exec("cat /proc/[0-9]*/comm", "bash").text:
            return
        time.sleep(0.02)
    raise AssertionError("a closed session's jobs live on")


def test_code_that_forges_the_end_of_its_turn_harms_only_itself(box: Sandbox) -> None:
    session = box.session("python")
    forge = "for fd in range(3, 64):\n    try: os.write(fd, struct.pack('<Ii', 1, 0) * 9)\n    except OSError: pass"
    session.run("import os, struct\n" + forge)
    session.run("print('maybe')", timeout_s=2)
    assert box.exec("print(6 * 7)").text == "42\n"


def test_code_that_breaks_what_its_session_needs_ends_the_session_by_its_own_doing(box: Sandbox) -> None:
    session = box.session("bash")
    session.run("sleep 300 & cd /run; for d in */; do rm -f $d/code; mkfifo $d/code; done")  # nobody reads from it
    result = session.run("echo next", timeout_s=2)
    assert (result.status, result.exit_code, result.session_over) == ("error", None, True)
    assert not session.alive
    assert box.exec("print(6 * 7)").text == "42\n"
    assert box.session("bash").run("echo fine").text == "fine\n"


def test_code_that_is_too_long_is_refused_before_it_is_sent(box: Sandbox) -> None:
    for action in (lambda: box.exec("#" * (9 << 20)), lambda: box.exec("1", stdin=b"x" * (9 << 20))):
        with pytest.raises(UsageError, match="put\\(\\) it as a file"):
            action()


def test_code_that_uses_up_all_processes_gets_results_and_no_exceptions(backend: Backend) -> None:
    with backend.create(SandboxSpec(limits=Limits(pids=8))) as box:
        session = box.session("python")
        session.run("import os, time\nfor _ in range(9):\n    if os.fork() == 0: time.sleep(300)")
        for lang in LANGUAGES:
            result = box.exec("1", lang)  # type: ignore[arg-type]
            assert result.status == "error"
            assert result.exit_code is None
            assert "nothing could be started" in result.error_text
            with pytest.raises(SandboxExhaustedError):
                box.session(lang)  # type: ignore[arg-type]
        session.close()
        for _ in range(100):
            if box.exec("print(1)").ok:
                return
            time.sleep(0.02)
        raise AssertionError("processes of a closed session live on")


# files


def test_files_go_in_and_come_out_as_bytes(box: Sandbox) -> None:
    data = bytes(range(256)) * 40_000
    box.put("a/b/data.bin", data, mode=0o600)
    assert box.get("a/b/data.bin") == data
    assert box.exec("stat -c '%a %s' a/b/data.bin", "bash").text == f"600 {len(data)}\n"
    box.put("/tmp/text", "text")
    assert box.get("/tmp/text") == b"text"
    box.put("empty", b"")
    assert box.get("empty") == b""


def test_files_that_cannot_be_had_are_errors_that_say_why(box: Sandbox) -> None:
    box.exec("ln -s /etc/passwd link; mkfifo pipe; mkdir folder; echo long > long", "bash")
    for name in ("missing", "link", "pipe", "folder"):
        with pytest.raises(SandboxFileError, match=name):
            box.get(name)
    with pytest.raises(SandboxFileError, match="more than"):
        box.get("long", most=2)
    with pytest.raises(SandboxFileError, match="usr"):
        box.put("/usr/x", "x")
    with pytest.raises(SandboxFileError, match="full"):
        box.put("full", b"x" * (80 << 20))


def test_the_tree_tells_kinds_modes_and_what_it_leaves_out(box: Sandbox) -> None:
    box.exec("mkdir d; echo x > d/run; chmod 755 d/run; ln -s d/run link; mkfifo pipe", "bash")
    tree = box.tree()
    assert {e.path: e.kind for e in tree.entries} == {"d": "folder", "d/run": "file", "link": "link"}
    assert tree.files == {"d/run": b"x\n"}
    assert [path for path, _ in tree.refused] == ["pipe"]
    assert tree.manifest()["d/run"][1] == 0o755
    cut = box.tree(most_files=2)
    assert any("more than 2 entries" in why for _, why in cut.refused)


def test_copying_out_writes_plain_files_and_nothing_through_a_link(box: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    box.put("good/file.txt", "good")
    box.exec(f"ln -s {outside} good/out; ln -s /etc/passwd p; printf x > $'esc\\x1b'; sleep 300 & exit", "bash")
    tree = box.copy_out(tmp_path / "to")
    assert (tmp_path / "to/good/file.txt").read_bytes() == b"good"
    found = sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*"))
    assert found == ["good", "good/file.txt"]
    assert sorted(path for path, _ in tree.refused) == ["esc\x1b", "good/out", "p"]
    assert list(outside.iterdir()) == []
    with pytest.raises(SandboxFileError, match="is there already"):
        box.copy_out(tmp_path / "to")


# snapshots


def test_forks_start_from_one_state_and_do_not_see_each_other(box: Sandbox) -> None:
    box.exec("mkdir d; echo base > d/f; ln -s d/f link; chmod 700 d; touch -- $'odd\\xff'", "bash")
    snapshot = box.snapshot()
    with box.fork(snapshot) as one, box.fork(snapshot) as two:
        before = two.tree().manifest()
        assert before == box.tree().manifest()
        assert one.exec("echo one >> d/f; rm link; echo new > new; rm -r d; mkdir d; ls d", "bash").ok
        assert two.tree().manifest() == before
        assert two.exec("echo two >> link; cat d/f", "bash").text == "base\ntwo\n"
        with one.fork() as third:
            assert third.tree().manifest() == one.tree().manifest()
            third.exec("echo third > new", "bash")
            assert one.get("new") == b"new\n"
    assert box.get("d/f") == b"base\n"
    snapshot.close()


def test_restoring_brings_files_back_and_ends_the_rest(box: Sandbox) -> None:
    box.put("f", "first")
    snapshot = box.snapshot()
    session = box.session("bash")
    session.run("echo changed > f; echo x > g; echo y > /tmp/z; sleep 300 &")
    box.restore(snapshot)
    assert box.tree().files == {"f": b"first"}
    assert not session.alive
    assert box.exec("ls /tmp; grep -c sleep /proc/[0-9]*/comm", "bash").text.strip("0\n").count("sleep") == 0
    box.put("f", "second")
    box.restore(snapshot)
    assert box.get("f") == b"first"


def test_a_snapshot_outlives_its_sandbox(backend: Backend) -> None:
    with backend.create() as box:
        box.put("f", "kept")
        snapshot = box.snapshot()
    with backend.create(snapshot=snapshot) as other:
        assert other.get("f") == b"kept"
        snapshot.close()
        assert other.exec("cat f; echo more >> f", "bash").text == "kept"


# limits


def test_memory_is_bounded_in_total(backend: Backend, alone: None) -> None:
    with backend.create(SandboxSpec(limits=Limits(memory=256 << 20, wall_s=30))) as box:
        code = (
            "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n"
            "        x = bytearray(b'x') * (100 << 20); time.sleep(5); os._exit(0)\n"
            "ends = [os.wait()[1] for _ in range(6)]\nprint(sum(e != 0 for e in ends))"
        )
        result = box.exec(code)
        assert result.status == "oom" or int(result.text) >= 3


def test_memory_of_one_program_ends_it_as_out_of_memory(box: Sandbox, alone: None) -> None:
    result = box.exec("x = []\nwhile True: x.append(bytearray(b'x') * (8 << 20))", timeout_s=30)
    assert result.status == "oom" or "MemoryError" in result.error_text


def test_processes_are_counted(backend: Backend) -> None:
    with backend.create(SandboxSpec(limits=Limits(pids=20))) as box:
        code = "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        result = box.exec(code + "        n += 1\nexcept OSError: pass\nprint(n)", timeout_s=10)
        assert 5 < int(result.text) <= 20


def test_files_are_bounded_in_bytes_and_in_number(backend: Backend) -> None:
    with backend.create(SandboxSpec(limits=Limits(disk=8 << 20, inodes=100))) as box:
        places = "/tmp/f /workspace/f /dev/shm/f"
        code = f"for f in {places}; do dd if=/dev/zero of=$f bs=1M count=50 2>/dev/null; done; cat {places} | wc -c"
        assert 4 << 20 < int(box.exec(code, "bash").text) <= 8 << 20
        box.exec("rm -f /tmp/f f /dev/shm/f", "bash")
        code = "for i in $(seq 300); do : > f$i || break; done 2>/dev/null; ls | wc -l"
        assert 50 < int(box.exec(code, "bash").text) <= 100


def test_a_spec_that_asks_for_too_much_is_refused(backend: Backend) -> None:
    if not backend.capabilities().events:
        for spec in (SandboxSpec(require=("events",)), SandboxSpec(events=True)):
            with pytest.raises(UsageError, match="events"):
                backend.create(spec)
    with pytest.raises(UsageError, match="no sandbox capability 'nonsense'"):
        backend.create(SandboxSpec(require=("nonsense",)))
    with pytest.raises(UsageError, match="above 0"):
        Limits(memory=0)
    with backend.create(SandboxSpec(require=("memory_total", "pids", "disk", "inodes", "no_network", "seccomp"))) as box:
        assert box.capabilities().isolation != "none"


# life and death


def test_there_is_a_network_inside_and_none_outside(box: Sandbox) -> None:
    code = (
        "import socket, threading\ns = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=lambda: s.accept()[0].sendall(b'hello')).start()\n"
        "print(socket.create_connection(s.getsockname()).recv(5))\n"
        "try:\n    socket.create_connection(('1.1.1.1', 80), 2)\nexcept OSError as e: print('closed')"
    )
    assert box.exec(code).text == "b'hello'\nclosed\n"


def test_a_closed_sandbox_says_so(backend: Backend) -> None:
    box = backend.create()
    session = box.session("python")
    box.check()
    box.close()
    box.close()
    assert not box.alive
    assert not session.alive
    for action in (lambda: box.exec("1"), box.check, lambda: box.get("x"), lambda: box.session("bash")):
        with pytest.raises(SandboxDeadError, match="it was closed"):
            action()


def test_closing_ends_a_run_that_another_thread_waits_for(backend: Backend) -> None:
    box = backend.create()
    timer = later(0.3, box.close)
    with pytest.raises(SandboxDeadError):
        box.exec("while True: pass", timeout_s=60)
    timer.join()


def test_code_that_kills_everything_it_can_leaves_a_usable_sandbox(box: Sandbox) -> None:
    result = box.exec("kill -9 -1; kill -9 1; echo still here", "bash")
    assert result.status in ("ok", "killed")
    assert box.exec("print(6 * 7)").text == "42\n"


def test_code_runs_as_nobody_in_particular(box: Sandbox) -> None:
    assert box.exec("id -u", "bash").text == "65534\n"
    assert os.getuid() != 65534
