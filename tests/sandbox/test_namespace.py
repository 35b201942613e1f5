# SPDX-License-Identifier: Apache-2.0
"""The built-in backend: what it leaves behind (nothing), whom it works for (anybody), and what its filter lets through."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym import sandbox
from agentgym.errors import NotFoundError, UsageError
from agentgym.sandbox import _seccomp, namespace, open_backend
from agentgym.sandbox.namespace import NamespaceBackend
from agentgym.sandbox.protocol import Backend, Limits, SandboxDeadError, SandboxSpec, SandboxUnavailableError
from tests.sandbox.footprint import groups_of

ROOT = Path(__file__).resolve().parents[2]


# nothing is left behind


def test_a_host_that_is_killed_takes_its_sandboxes_with_it() -> None:
    code = (
        "import sys, time\nfrom agentgym.sandbox.namespace import NamespaceBackend\n"
        "b = NamespaceBackend(packages=())\nbox = b.create()\nbox.session('bash').run('sleep 300 &')\n"
        "print(b.launcher().process.pid, box._box.pid, flush=True)\ntime.sleep(300)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as host:
        assert host.stdout is not None
        pids = [int(x) for x in host.stdout.readline().split()]
        assert all(os.path.exists(f"/proc/{p}") for p in pids)
        host.kill()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{p}") for p in pids) and not groups_of(pids[0]):
            return
        time.sleep(0.05)
    raise AssertionError("processes or control groups outlive their host")


def test_a_launcher_that_dies_is_an_infrastructure_error_and_the_next_sandbox_gets_a_new_one() -> None:
    with NamespaceBackend(packages=()) as backend:
        box = backend.create()
        dead = backend.launcher().process.pid
        os.kill(dead, signal.SIGKILL)
        for _ in range(100):
            if not os.path.exists(f"/proc/{box._box.pid}"):  # type: ignore[union-attr]
                break
            time.sleep(0.05)
        with pytest.raises(SandboxDeadError):
            box.check()
        with backend.create() as other:
            assert other.exec("print(1)").text == "1\n"
        box.close()
        assert backend.launcher().process.pid != dead
        assert groups_of(dead) == [], "the next launcher sweeps up after a killed one"


def test_a_ctrl_c_between_question_and_answer_does_not_mix_up_later_answers() -> None:
    with NamespaceBackend(packages=()) as backend:
        backend.create().close()
        launcher = backend.launcher()
        os.kill(launcher.process.pid, signal.SIGSTOP)  # it takes its time

        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, interrupt)
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                backend.create()
        finally:
            signal.signal(signal.SIGUSR1, before)
            os.kill(launcher.process.pid, signal.SIGCONT)
        timer.join()
        with backend.create() as box:
            assert box.exec("print(1)").text == "1\n"
        assert backend.launcher() is not launcher


def test_a_fork_of_the_host_cannot_end_its_parents_sandboxes(namespace: Backend) -> None:
    with namespace.create() as box:
        pid = os.fork()
        if pid == 0:
            try:
                box.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert box.exec("print(1)").text == "1\n"


# anybody may use it


@pytest.mark.slow
def test_a_plain_user_gets_the_same_promises(as_plain_user: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    if os.environ.get("AGENTGYM_TEST_AS_PLAIN_USER"):
        return  # this is that run
    files = ["tests/sandbox/test_conformance.py", "tests/sandbox/test_namespace.py"]
    run = as_plain_user("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "not docker", *files)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


def test_a_launcher_is_given_nothing_of_the_hosts_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-4711")
    with NamespaceBackend(packages=()) as backend:
        pid = backend.launcher().process.pid
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "OPENAI" not in backend.create().exec("env", "bash").text


def test_sandboxed_python_finds_the_packages_that_were_asked_for_and_no_others(namespace: Backend) -> None:
    with namespace.create() as box:
        code = "import numpy, sympy, mpmath\nprint(sympy.factor(sympy.Symbol('x')**2 - 1))"
        assert box.exec(code).text == "(x - 1)*(x + 1)\n"
        assert box.exec(f"{code!r}", "bash").status == "ok"
        assert box.exec(argv=["python3", "-c", code]).text == "(x - 1)*(x + 1)\n"
        for name in ("agentgym", "msgspec", "pytest"):
            assert "ModuleNotFoundError" in box.exec(f"import {name}").error_text
            assert box.exec(argv=["python3", "-c", f"import {name}"]).exit_code == 1


def test_runs_do_not_draw_the_same_random_numbers(namespace: Backend) -> None:
    code = "import random; print(random.random())"
    with namespace.create() as one, namespace.create() as two:
        assert len({box.exec(code).text for box in (one, one, two, two)}) == 4


def test_hundreds_of_sandboxes_live_at_once(namespace: Backend) -> None:
    boxes = [namespace.create() for _ in range(100)]
    try:
        assert [box.exec(f"print({n})").text for n, box in enumerate(boxes[::10])] == [f"{n}\n" for n in range(10)]
        if os.getuid() == 0:  # the memory of process 1 is closed even to the user who started it
            with open(f"/proc/{boxes[0]._box.pid}/smaps_rollup") as f:  # type: ignore[attr-defined]
                private = sum(int(line.split()[1]) for line in f if line.startswith("Private_"))
            assert private < 4096, "KiB of its own in an idle sandbox"
    finally:
        for box in boxes:
            box.close()


def test_what_the_documentation_shows_runs() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for example in page.split("```python\n")[1:]:
        exec(compile(example.split("```")[0], "docs/security.md", "exec"), scope)
    assert scope["answer"] == "42\n"
    assert scope["state"] == {"data.csv": b"1,2\n"}
    assert scope["touched"]


def test_declared_backends_are_those_that_can_be_opened() -> None:
    points = importlib.metadata.entry_points(group="agentgym.sandboxes")
    declared = {p.name: p.value for p in points if p.value.startswith("agentgym.")}
    assert declared == sandbox._PLACES
    assert all(p.load().name == p.name for p in points if p.name in declared)


def test_threads_make_use_and_end_sandboxes_at_the_same_time(namespace: Backend) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for n in range(6):
            with namespace.create() as box:
                box.put("n", f"{number}.{n}")
                session = box.session("bash")
                texts = [box.exec("print(open('n').read())").text, session.run("cat n; echo").text]
                with box.fork() as twin:
                    texts.append(twin.exec("cat n; echo", "bash").text)
                wrong.extend(t for t in texts if t != f"{number}.{n}\n")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_spare_sandboxes_are_ready_before_they_are_asked_for_and_leave_nothing_behind() -> None:
    with NamespaceBackend(packages=(), spare=2) as backend:
        with backend.create() as first:
            assert first.exec("print(1)").text == "1\n"
        for _ in range(3):
            assert backend._spares.wait()
            ready = [box.pid for box in backend._spares._ready]
            with backend.create() as box:
                assert box._box is not None
                assert box._box.pid == ready[0]  # type: ignore[attr-defined]
                assert box.exec("import os; print(os.listdir())").text == "[]\n"
        other = SandboxSpec(limits=Limits(pids=20))
        with backend.create(other) as box:
            assert box.spec == other
            assert not any(os.path.exists(f"/proc/{pid}") for pid in ready), "those of another spec are ended"
        assert backend._spares.wait()
        launcher = backend.launcher().process.pid
        waiting = [box.pid for box in backend._spares._ready]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in [launcher, *waiting])
    assert not [t for t in threading.enumerate() if t.name == "agentgym-sandboxes"]


# what cannot be had is refused


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UsageError, match="pip install no-such-package"):
        NamespaceBackend(packages=("no-such-package",)).create()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(NotFoundError, match="Did you mean: namespace"):
        open_backend("namespac")


def test_another_system_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailableError, match="docker"):
        NamespaceBackend().capabilities()


def test_a_machine_that_forbids_namespaces_is_told_why(
    as_plain_user: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Really forbidden: the process may make no user namespace any more."""
    code = (
        "import ctypes, struct\n"
        "from agentgym.sandbox import _linux, _seccomp, open_backend\n"
        "unshare, clone = (272, 56) if _linux.MACHINE == 'x86_64' else (97, 220)\n"
        "rules = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]\n"
        "_linux.prctl(38, 1, 0, 0, 0)\n"
        "_linux.install_filter(_linux.prepare_filter(b''.join(struct.pack('=HBBI', *r) for r in rules)))\n"
        "try:\n    open_backend('namespace')\nexcept Exception as e:\n    print(type(e).__name__, e)"
    )
    run = as_plain_user("-c", code)
    assert "SandboxUnavailableError the built-in sandbox cannot work here: unshare: Operation not permitted" in run.stdout, (
        run.stderr
    )
    assert "What to do:" in run.stdout
    assert "Untrusted code is not run without a sandbox." in run.stdout


def test_a_share_of_processors_is_kept_where_it_can_be(namespace: Backend) -> None:
    spec = SandboxSpec(limits=Limits(cpus=0.2))
    if not namespace.capabilities().cpu_share:
        with pytest.raises(UsageError, match="cpus"):
            namespace.create(spec)
        return
    with namespace.create(spec) as box:
        result = box.exec("while True: pass", timeout_s=2)
        assert result.cpu_s is not None
        assert result.cpu_s < 1.0


# the filter, by interpreting it


def verdict(program: bytes, number: int, arguments: tuple[int, ...] = (), audit: int = 0xC000003E) -> int:
    """What a BPF program answers to a system call: an interpreter of the few instructions that it uses."""
    data = struct.pack(
        "<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), audit, 0, *arguments, *[0] * (6 - len(arguments))
    )
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    for _ in range(len(code)):
        operation, yes, no, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            at += k
        elif operation == 0x06:
            return int(k)
        else:
            truth = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            at += yes if truth else no
    raise AssertionError("the program does not end")


ALLOW = 0x7FFF0000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_exactly_its_list(machine: str) -> None:
    numbers = _seccomp.NUMBERS[machine]
    allowed = {n for name, n in numbers.items() if name not in _seccomp.CONDITIONAL}
    for accounted in (True, False):
        program = _seccomp.program(machine, accounted=accounted)
        refused = set() if accounted else {numbers[name] for name in _seccomp.UNACCOUNTED}
        conditional = {numbers[name] for name in _seccomp.CONDITIONAL if name in numbers}
        for number in set(range(520)) - conditional:
            expected = number in allowed - refused
            assert (verdict(program, number, audit=MACHINES[machine]) == ALLOW) == expected, number


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_looks_at_arguments(machine: str) -> None:
    program, numbers, audit = _seccomp.program(machine, accounted=True), _seccomp.NUMBERS[machine], MACHINES[machine]

    def answer(name: str, *arguments: int) -> int:
        return verdict(program, numbers[name], arguments, audit)

    refuse, unknown = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    assert answer("clone", 17) == ALLOW
    assert answer("clone", 0x10000000 | 17) == refuse
    assert answer("clone3", 0) == unknown
    assert [answer("socket", f) == ALLOW for f in (1, 2, 10, 16, 17, 38, 40)] == [True] * 3 + [False] * 4
    assert answer("ioctl", 0, 0x5401) == ALLOW
    assert answer("ioctl", 0, 0x5412) == answer("ioctl", 0, 0x541C) == refuse
    assert answer("mknodat", 0, 0, 0o010644) == ALLOW
    assert answer("mknodat", 0, 0, 0o020644) == answer("mknodat", 0, 0, 0o060644) == refuse
    assert answer("personality", 0xFFFFFFFF) == ALLOW
    assert answer("personality", 0x40000) == refuse
    assert verdict(program, 1 << 30, (), audit) == unknown, "x32"
    assert verdict(program, 20, (), 0x40000003) == 0x80000000, "32-bit calls kill"


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(MACHINES)), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_the_filter_always_ends_and_never_allows_unknown_calls(number: int, machine: str, arguments: list[int]) -> None:
    answer = verdict(_seccomp.program(machine, accounted=True), number, tuple(arguments), MACHINES[machine])
    assert answer in (ALLOW, 0x80000000) or answer & 0x50000
    if number not in _seccomp.NUMBERS[machine].values():
        assert answer != ALLOW


def test_the_table_has_this_machines_numbers() -> None:
    """Against the kernel's own header, where it is installed."""
    header = Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        header = Path("/usr/include/asm/unistd_64.h")
    if not header.exists():
        return  # nothing to compare with; the cases above hold anyway
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    known = {w[1][5:]: int(w[2]) for w in words}
    table = _seccomp.NUMBERS[platform.machine()]
    assert {name: n for name, n in table.items() if name in known and known[name] != n} == {}


def test_dangerous_calls_are_not_on_the_list() -> None:
    names = {name for numbers in _seccomp.NUMBERS.values() for name in numbers}
    dangerous = (
        "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp keyctl add_key request_key bpf perf_event_open "
        "userfaultfd io_uring_setup io_uring_enter io_uring_register mount umount2 pivot_root chroot unshare setns move_mount "
        "open_tree fsopen open_by_handle_at name_to_handle_at fanotify_init kexec_load init_module finit_module delete_module "
        "settimeofday clock_settime adjtimex clock_adjtime reboot swapon swapoff sethostname quotactl syslog acct iopl ioperm "
        "modify_ldt vmsplice memfd_secret"
    )
    assert names & set(dangerous.split()) == set()


def test_the_profile_for_engines_says_the_same() -> None:
    profile = json.loads(json.dumps(_seccomp.profile()))
    allowed = {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
    names = {name for numbers in _seccomp.NUMBERS.values() for name in numbers}
    assert allowed | {"clone3"} == names
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize(
    ("values", "root", "told"),
    [
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            False,
            ["sysctl kernel.apparmor_restrict_unprivileged_userns=0", "apt install bubblewrap apparmor-profiles", "'bwrap'"],
        ),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, True, ["Linux 5.14 or newer"]),
        ({"kernel/unprivileged_userns_clone": "0"}, False, ["sudo sysctl kernel.unprivileged_userns_clone=1"]),
        ({"user/max_user_namespaces": "0"}, True, ["sudo sysctl user.max_user_namespaces=15000"]),
        ({}, False, ["the kernel must allow user, mount, pid and network namespaces"]),
    ],
    ids=["Ubuntu", "Ubuntu as root", "Debian of old", "none allowed", "for no known reason"],
)
def test_instructions_name_the_setting(values: dict[str, str], root: bool, told: list[str]) -> None:
    assert "--cap-add SYS_ADMIN" in namespace.steps_to_namespaces(lambda name: "", contained=True)
    text = namespace.steps_to_namespaces(lambda name: values.get(name, ""), root=root, contained=False)
    for words in [*told, "use a container engine: backend 'docker'", "Untrusted code is not run without a sandbox."]:
        assert words in text


def test_a_mac_without_an_engine_is_told_all_that_can_be_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import docker  # beforehand: what it imports looks at the system's name

    assert docker
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(SandboxUnavailableError) as refused:
        open_backend()
    text = str(refused.value)
    assert text.startswith("untrusted code cannot be run on this machine.")
    assert "the built-in sandbox needs Linux, and this is darwin: use a container engine" in text
    assert "no container engine answers" in text
    assert "Start Docker" in text


def test_windows_is_told_of_its_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("auto", "namespace", "docker"):
        with pytest.raises(SandboxUnavailableError, match=r"inside of WSL 2 \(`wsl --install`"):
            open_backend(name)


def test_a_run_that_dies_with_the_launcher_is_not_called_the_code_s_doing() -> None:
    with NamespaceBackend(packages=()) as backend, backend.create() as box:
        helper = backend.launcher().process
        struck = threading.Timer(0.5, helper.kill)
        struck.start()
        with pytest.raises(SandboxDeadError, match="holds the sandboxes") as caught:
            box.exec("import time; time.sleep(30)", timeout_s=40)
        struck.join()
        assert caught.value.retryable
        with backend.create() as another:
            assert another.exec("print(1)").text == "1\n"
