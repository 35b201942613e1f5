# SPDX-License-Identifier: Apache-2.0
"""Runs the attack cases against a backend command; see ``README.md``. Prints a line for each and a summary."""

from __future__ import annotations

import argparse
import base64
import contextlib
import glob
import json
import os
import queue
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.sandbox.attacks.cases import CASES, HIDDEN_TESTS, Case

CANARY = "AGXCANARY_" + os.urandom(8).hex()
MEMORY, SLACK = 512 << 20, 256 << 20
"""Bytes that a sandbox may have by default, and what launcher, judge and the kernel may need beside it."""
THREADS = 64 + 24
DISK = 96 << 20


class Host:
    """What the cases look for on this machine."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="agx_secret_dir", dir="/var/tmp")
        os.chmod(self.folder, 0o755)
        secret = Path(self.folder, "agx_secret_hidden_answers.txt")
        secret.write_text(CANARY)
        secret.chmod(0o644)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", port))
        self.udp.setblocking(False)
        abstract = "agx" + os.urandom(4).hex()
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + abstract)
        self.abstract.listen()
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.folder + "/host.sock")
        self.unix.listen()
        os.chmod(self.folder + "/host.sock", 0o777)
        self.victim = subprocess.Popen(["sleep", "3000"])
        self.names = {
            "VICTIM_PID": self.victim.pid,
            "SECRET_PATH": secret,
            "PORT": port,
            "ABSTRACT": abstract,
            "SOCK_PATH": self.folder + "/host.sock",
        }

    def fill(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace("{{" + name + "}}", str(value))
        return text

    def harm(self) -> Iterator[str]:
        if self.victim.poll() is not None:
            yield "a process of the host was killed"
        with contextlib.suppress(BlockingIOError):
            self.udp.recv(100)
            yield "a datagram reached the host"

    def close(self) -> None:
        for s in (self.tcp, self.udp, self.abstract, self.unix):
            s.close()
        self.victim.kill()
        self.victim.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """A backend command that serves requests line by line (``--serve``), with secrets in its environment."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        env = {**os.environ, "OPENAI_API_KEY": CANARY, "AGX_SECRET": CANARY}
        self.process = subprocess.Popen(
            [*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True, **options
        )

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """One reply, or ``{"broken": why}``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is not None:
            return {"broken": "the harness has ended"}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            return {"broken": "the harness hangs"}
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"broken": "the harness has ended"}

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Peaks:
    """What the host sees while a case runs, sampled every few milliseconds, as growth over the start."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.memory = self.threads = self.disk = self.inodes = 0
        self._stop = threading.Event()
        self._first: queue.Queue[None] = queue.Queue()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        self._first.get()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        start_memory, start_disk = self._machine(), self._files()
        self._first.put(None)
        turn = 0
        while not self._stop.wait(0.005):
            self.memory = max(self.memory, self._machine() - start_memory)
            if turn % 8 == 0:
                used = self._files()
                self.disk = max(self.disk, used[0] - start_disk[0])
                self.inodes = max(self.inodes, used[1] - start_disk[1])
                self.threads = max(self.threads, self._descendants())
            turn += 1

    @staticmethod
    def _machine() -> int:
        """Bytes that cannot be given back without ending something: anonymous, shared, kernel."""
        wanted = ("AnonPages", "Shmem", "SUnreclaim", "KernelStack", "PageTables")
        with open("/proc/meminfo") as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.partition(":")[0] in wanted)

    @staticmethod
    def _files() -> tuple[int, int]:
        size = count = 0
        for device in {os.stat(p).st_dev: p for p in ("/", "/tmp", "/var/tmp", "/dev/shm")}.values():
            s = os.statvfs(device)
            size += (s.f_blocks - s.f_bfree) * s.f_frsize
            count += s.f_files - s.f_ffree
        return size, count

    def _descendants(self) -> int:
        """Threads of processes in another pid namespace that descend from the backend command."""
        parents, threads = {}, {}
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path, "rb") as f:
                    fields = f.read().rsplit(b")", 1)[1].split()
            except OSError:
                continue
            pid = int(path.split("/")[2])
            parents[pid], threads[pid] = int(fields[1]), int(fields[17])
        total = 0
        for pid in parents:
            above, seen = pid, 0
            while above in parents and above != self.root and seen < 200:
                above, seen = parents[above], seen + 1
            if above == self.root and pid != self.root:
                total += threads[pid]
        return total


def proved(server: Server) -> bool:
    """Whether the backend's code runs in other pid and mount namespaces than this process; asked by a harmless program."""
    code = "import os\nprint(os.readlink('/proc/self/ns/pid'), os.readlink('/proc/self/ns/mnt'), os.getuid())"
    reply = server.ask({"op": "run", "lang": "python", "code": code, "timeout": 10}, 60)
    words = base64.b64decode(reply.get("stdout", "")).decode(errors="replace").split()
    ours = [os.readlink("/proc/self/ns/" + name) for name in ("pid", "mnt")]
    return (
        len(words) == 3 and all(a.startswith(b[:4]) and a != b for a, b in zip(words, ours, strict=False)) and words[2] != "0"
    )


def judge(case: Case, server: Server, host: Host) -> list[str]:
    """Runs one case; what is wrong, nothing where it survived."""
    request: dict[str, Any] = {"op": case.op, "lang": case.lang, "code": host.fill(case.code), "timeout": case.timeout}
    if case.op == "turns":
        request["turns"] = [{"lang": lang, "code": host.fill(code), "new_sandbox": new} for lang, code, new in case.turns]
    if case.op == "grade":
        request["tests"] = HIDDEN_TESTS
    with Peaks(server.process.pid) as peaks:
        reply = server.ask(request, case.timeout * 2 + 30)
    if "broken" in reply:
        return [reply["broken"]]
    wrong = list(host.harm())
    if case.op == "grade":
        return wrong if reply["passed"] == case.passed else [*wrong, f"verdict {reply['passed']}: {reply['why']}"]
    text = b"".join(base64.b64decode(reply.get(s, "")) for s in ("stdout", "stderr")).decode(errors="replace")
    copied = reply.get("copy", {"files": {}, "refused": []})
    everything = text + json.dumps(copied) + "".join(base64.b64decode(f).decode("latin-1") for f in copied["files"].values())
    for word in ("ESCAPED", CANARY, *case.forbid):
        at = everything.find(word)  # a plain search: a pattern over untrusted text can be made slow
        if at >= 0 and not (word != CANARY and word in case.code and everything.find(word) < 0):
            wrong.append("found " + everything[max(0, at - 20) : at + 80].replace("\n", "|").replace(CANARY, "THE CANARY"))
    if case.require and case.require not in text:
        wrong.append(f"no {case.require!r} in {text[-200:]!r} ({reply['status']})")
    if case.status and reply["status"] not in case.status:
        wrong.append(f"ended as {reply['status']}, exit code {reply.get('exit_code')}")
    if reply.get("wall", 0) > case.timeout + 3:
        wrong.append(f"took {reply['wall']:.1f} s")
    if len(text) > 4 << 20:
        wrong.append(f"{len(text)} characters were kept")
    if peaks.threads > THREADS:
        wrong.append(f"{peaks.threads} threads at once")
    if case.category == "resource":
        for name, most in (("memory", MEMORY + SLACK), ("disk", DISK), ("inodes", 2000)):
            if getattr(peaks, name) > most:
                wrong.append(f"peak of {name} {getattr(peaks, name)}, above {most}")
    if case.alive:
        for _ in range(20):
            left = _named(case.alive)
            if not left:
                break
            time.sleep(0.05)
        if left:
            wrong.append(f"processes left: {left}")
    if case.category in ("resource", "process", "episode"):
        after = server.ask({"op": "run", "lang": "python", "code": "print(6 * 7)", "timeout": 5}, 40)
        if base64.b64decode(after.get("stdout", "")) != b"42\n":
            wrong.append(f"the next sandbox fails: {after}")
    return wrong


def _named(name: str) -> list[int]:
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as f:
            if f.read().split(b"\0")[0] == name.encode():
                found.append(int(path.split("/")[2]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    host, server = Host(), Server([c for c in args.command if c != "--"])
    failed = []
    try:
        if not proved(server):
            sys.exit("the backend gives no proof of isolation: no case is run")
        chosen = [c for c in CASES if not args.only or c.name in args.only.split(",")]
        for case in chosen:
            start = time.monotonic()
            wrong = judge(case, server, host)
            if wrong:
                failed.append(case.name)
            mark, took = "FAIL" if wrong else "ok", time.monotonic() - start
            print(f"{mark:4} {case.category:9} {case.name:28} {took:5.1f} s  {'; '.join(wrong)[:300]}", flush=True)
        print(f"{len(chosen) - len(failed)} of {len(chosen)} survived; failed: {failed}")
    finally:
        server.close()
        host.close()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
