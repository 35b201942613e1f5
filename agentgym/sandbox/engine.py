# SPDX-License-Identifier: Apache-2.0
"""Sandboxes in containers of a Docker engine: for machines without Linux namespaces of their own, and for own images.

One container is one sandbox; its only program of ours is the guest (`_guest`), sent in through standard input, so any image
with ``python3`` (3.9 or newer) and ``bash`` will do. Hardened beyond the engine's defaults: own system call profile, no
capabilities, no network, read-only root, sized temporary file systems, no logs on the host.

What containers of a plain engine do not have: a user id of their own on the host (the process is uid 65534 there too), and
one file system for all that can be written. `Limits.disk` and `Limits.inodes` are split: 5/8 for the workspace, 2/8 for /tmp,
1/8 for /dev/shm.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentgym.sandbox import _guest, _seccomp
from agentgym.sandbox._backend import GuestBackend, await_guest, environment, filled, kept
from agentgym.sandbox._channel import Channel
from agentgym.sandbox._client import Box
from agentgym.sandbox.protocol import (
    Capabilities,
    SandboxError,
    SandboxSpec,
    SandboxUnavailableError,
    Snapshot,
)

DEFAULT_IMAGE = "python:3.12-slim"


class _Attached:
    """The standard streams of a container, as one stream of bytes each way."""

    def __init__(self, sock: Any) -> None:
        raw = getattr(sock, "_sock", sock)
        if not isinstance(raw, socket.socket):
            raise SandboxError("the container engine is reached in a way that gives no socket; use a unix:// or tcp:// address")
        self._keep = sock  # the library closes the socket when its own wrapper is forgotten
        self._socket = raw
        self._socket.settimeout(None)
        self._poll = select.poll()
        self._poll.register(raw, select.POLLIN)
        self._buffer = bytearray()
        self._left = 0
        self._kind = 0
        self.errors = bytearray()
        """What came on standard error: why a guest did not start."""

    def send(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes | None:
        """Some bytes of standard output; None where none came in time."""
        if not self._poll.poll(max(0.0, timeout_s) * 1000):
            return None
        try:
            data = self._socket.recv(1 << 18)
        except OSError:
            return b""
        if not data:
            return b""
        self._buffer += data
        out = bytearray()
        while self._buffer:  # frames of the engine: kind, three zeros, length, data
            if self._left == 0:
                if len(self._buffer) < 8:
                    break
                self._kind, self._left = self._buffer[0], int.from_bytes(self._buffer[4:8], "big")
                del self._buffer[:8]
                continue
            piece = self._buffer[: self._left]
            del self._buffer[: self._left]
            self._left -= len(piece)
            if self._kind == 1:
                out += piece
            else:
                self.errors += piece[: max(0, 10_000 - len(self.errors))]
        return bytes(out) or None

    def hang_up(self) -> None:
        """Wakes up whoever waits in `receive`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees it."""
        self._socket.close()
        with contextlib.suppress(Exception):
            self._keep.close()


class _Box:
    """One container."""

    def __init__(self, api: Any, image: str, spec: SandboxSpec, seccomp: bool, preimport: Sequence[str]) -> None:
        self._api = api
        self._owner = os.getpid()
        self._id = ""
        self._stream: _Attached | None = None
        limits = spec.limits
        source = Path(_guest.__file__).read_bytes()
        config = {
            "workspace": "/workspace",
            "run": "/run",
            "nofile": limits.open_files,
            "memory": 0,
            "counted": [],
            "first_victim": True,
            "preimport": list(preimport),
            "memory_events": ["/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"],
        }

        def part(eighths: int) -> str:
            """A share of what is allowed for files: there is one file system for each place, and the sum is what counts."""
            size, inodes = limits.disk * eighths // 8, limits.inodes * eighths // 8
            return f"size={size},nr_inodes={max(inodes, 2)},mode=1777,nosuid,nodev,exec"

        security = ["no-new-privileges"]
        if seccomp:
            security.append("seccomp=" + json.dumps(_seccomp.profile()))

        def limit(name: str, value: int) -> dict[str, Any]:
            return {"Name": name, "Soft": value, "Hard": value}

        host = api.create_host_config(
            network_mode="none",
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            pids_limit=limits.pids + 1,
            nano_cpus=None if limits.cpus is None else int(limits.cpus * 1e9),
            cap_drop=["ALL"],
            security_opt=security,
            read_only=True,
            # /dev/shm as a file system of our own: the engine's has no limit of inodes
            ipc_mode="none",
            tmpfs={
                "/workspace": part(5),
                "/tmp": part(2),
                "/dev/shm": part(1),
                "/run": "size=16m,nr_inodes=1024,mode=1777,exec",  # the guest's own, as in every backend
            },
            ulimits=[
                limit("nofile", 4096),
                limit("core", 0),
                limit("fsize", limits.disk),
                limit("memlock", 65536),
                limit("msgqueue", 0),
                limit("nproc", 4096),
            ],
            log_config={"Type": "none", "Config": {}},
            auto_remove=True,
        )
        try:
            # no working_dir: the engine would make the folder as root, and its mode would win over the tmpfs option
            self._id = api.create_container(
                image,
                ["python3", "-I", "-u", "-c", _guest.BOOT, str(len(source)), json.dumps(config)],
                stdin_open=True,
                user="65534:65534",
                hostname="sandbox",
                environment=environment(spec),
                host_config=host,
                labels={"agentgym": "sandbox"},
            )["Id"]
            attached = api.attach_socket(self._id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            self._stream = stream = _Attached(attached)
            api.start(self._id)
            stream.send(source)
            self.channel = Channel(stream)
            await_guest(self.channel, "the container")
        except BaseException as e:
            self.kill()
            why = bytes(self._stream.errors).decode(errors="replace").strip() if self._stream is not None else ""
            if isinstance(e, SandboxError) and why:
                raise SandboxError(f"{e}: {why}") from None
            raise

    def ran_out_of_memory(self) -> bool:
        """The guest tells it itself, from the control group that it can read."""
        return False

    def kill(self) -> bool:
        """Removes the container; whether the kernel had killed its first process for want of memory."""
        if not self._id or self._owner != os.getpid():
            return False
        memory = False
        with contextlib.suppress(Exception):
            memory = bool(self._api.inspect_container(self._id)["State"]["OOMKilled"])
        name, self._id = self._id, ""
        with contextlib.suppress(Exception):  # it ends, and the engine removes it, as soon as nobody is connected
            self._api.remove_container(name, force=True, v=True)
        with contextlib.suppress(Exception):
            for _ in range(200):
                self._api.inspect_container(name)  # raises once it is gone
                time.sleep(0.02)
        return memory


class DockerBackend(GuestBackend):
    """Makes sandboxes as containers.

    Args:
        image: what they are made of; None: ``AGENTGYM_DOCKER_IMAGE`` or `DEFAULT_IMAGE`. Never pulled by itself.
        base_url: where the engine is; None: as the ``docker`` command finds it (``DOCKER_HOST``).
        packages: modules that the guest imports beforehand where the image has them.
    """

    name = "docker"

    def __init__(self, image: str | None = None, base_url: str | None = None, packages: Sequence[str] = ()) -> None:
        super().__init__()
        self._image = image or os.environ.get("AGENTGYM_DOCKER_IMAGE") or DEFAULT_IMAGE
        self._url = base_url
        self._preimport = tuple(packages)
        self._api: Any = None
        self._seccomp = False
        self._can: Capabilities | None = None

    def _connect(self) -> Any:
        """The engine's API, held to it being there."""
        if self._api is not None:
            return self._api
        try:
            import docker
        except ImportError:
            raise SandboxUnavailableError(
                "sandboxes in containers need the package docker: pip install 'agentgym-harness[docker]'."
            ) from None
        try:
            client = docker.from_env(timeout=60) if self._url is None else docker.DockerClient(base_url=self._url, timeout=60)
            client.ping()
        except Exception as e:
            raise SandboxUnavailableError(
                f"no container engine answers: {e}. Start Docker, or say where it is with DOCKER_HOST."
            ) from None
        try:
            client.images.get(self._image)
        except docker.errors.ImageNotFound:
            raise SandboxUnavailableError(
                f"the container engine has no image {self._image}: `docker pull {self._image}`, or name another one with "
                "AGENTGYM_DOCKER_IMAGE (it needs python3 and bash)"
            ) from None
        self._api = client.api
        return self._api

    def capabilities(self) -> Capabilities:
        """What it enforces here, after one container was really made.

        Raises:
            SandboxUnavailableError: there is no engine or no image, or containers do not start.
        """
        with self._lock:
            if self._can is not None:
                return self._can
            api = self._connect()
            info = api.info()
            self._seccomp = any("seccomp" in option for option in info.get("SecurityOptions") or ())
            can = Capabilities(
                backend=self.name,
                isolation="container",
                memory_total="cgroup" if info.get("MemoryLimit") else "",
                cpu_share=bool(info.get("CpuCfsQuota")),
                pids=bool(info.get("PidsLimit")),
                disk=True,
                inodes=True,
                no_network=True,
                seccomp=self._seccomp,
                own_user=any("userns" in option for option in info.get("SecurityOptions") or ()),
                snapshot="copy",
                packages=self._preimport,
            )
            try:
                box = _Box(api, self._image, SandboxSpec(), self._seccomp, ())
            except Exception as e:
                raise SandboxUnavailableError(
                    f"the container engine is there, but a sandbox from image {self._image} does not start: {e}"
                ) from None
            box.channel.close()
            box.kill()
            self._can = can
            return can

    def make_box(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Box:
        """Starts an instance, the files of a snapshot copied in."""
        kept(snapshot)
        try:
            box = _Box(self._connect(), self._image, spec, self._seccomp, self._preimport)
        except SandboxError:
            raise
        except Exception as e:
            raise SandboxError(f"no container could be made: {e}") from None
        return filled(box, snapshot)

    def close(self) -> None:
        """Ends everything that it made."""
        super().close()
        with self._lock:
            api, self._api = self._api, None
        if api is not None:
            api.close()
