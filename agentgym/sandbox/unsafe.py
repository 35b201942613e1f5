# SPDX-License-Identifier: Apache-2.0
"""No sandbox at all: code runs on this machine with the rights of whoever started it. Only for code that you trust.

There is no way to get this by accident: it has to be asked for by name and by flag, and no other backend falls back to it.
It speaks the same protocol, so that a task can be debugged where nothing else is to be had.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile

from agentgym.errors import UsageError
from agentgym.sandbox import _guest
from agentgym.sandbox._backend import GuestBackend, await_guest, filled, kept
from agentgym.sandbox._channel import Channel, SocketStream
from agentgym.sandbox._client import Box
from agentgym.sandbox.protocol import (
    Capabilities,
    SandboxSpec,
    SandboxUnavailableError,
    Snapshot,
)

_BOOT = """
import json, runpy, sys
guest = runpy.run_path(sys.argv[1], run_name="_guest")
guest["serve_unsafely"](int(sys.argv[2]), json.loads(sys.argv[3]))
"""


class _Box:
    """A guest process in a temporary folder."""

    def __init__(self, spec: SandboxSpec) -> None:
        self._owner = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="agentgym-unsafe-")
        for name in ("workspace", "run"):
            os.mkdir(f"{self._folder}/{name}")
        config: dict[str, object] = {
            "workspace": self._folder + "/workspace",
            "run": self._folder + "/run",
            "nofile": spec.limits.open_files,
            "memory": 0,
            "counted": [],
            "first_victim": True,
        }
        env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": self._folder + "/workspace",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            **spec.env,
        }
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, _guest.__file__, str(theirs.fileno()), json.dumps(config)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.channel = Channel(SocketStream(ours))
        try:
            await_guest(self.channel, "the unsafe backend's process")
        except BaseException:
            self.channel.close()
            self.kill()
            raise

    def ran_out_of_memory(self) -> bool:
        """Nobody counts."""
        return False

    def kill(self) -> bool:
        """Ends what descends from it, as far as it can be found."""
        if self._owner != os.getpid():
            return False
        try:
            self._process.wait(10)  # the connection is closed by now: it ends its descendants and goes
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        return False


class UnsafeLocalBackend(GuestBackend):
    """Runs code without holding anything in.

    Args:
        unsafe: must be True.

    Raises:
        UsageError: it is not.
    """

    name = "unsafe_local"

    def __init__(self, *, unsafe: bool = False) -> None:
        if unsafe is not True:
            raise UsageError(
                "the backend unsafe_local runs code on this machine with your rights: it can read your keys and delete your "
                "files. If you trust the code, say so with unsafe=True."
            )
        if sys.platform != "linux":
            raise SandboxUnavailableError("even the unsafe backend needs Linux so far: use the backend 'docker'")
        super().__init__()

    def capabilities(self) -> Capabilities:
        """Nothing is enforced but time and output."""
        return Capabilities(
            backend=self.name,
            isolation="none",
            memory_total="",
            cpu_share=False,
            pids=False,
            disk=False,
            inodes=False,
            no_network=False,
            seccomp=False,
            own_user=False,
            snapshot="copy",
        )

    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Box:
        """A folder and a process; of the spec's limits those of time, output and descriptors hold."""
        kept(snapshot)
        return filled(_Box(spec), snapshot)
