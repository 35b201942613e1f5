# SPDX-License-Identifier: Apache-2.0
"""A real container engine for the tests: the one that is there, or a private ``dockerd`` with an image of this system's files.

The image is made of what is installed here (python3, bash and small tools), so no registry is needed.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMAGE = "agentgym-test:1"
PROGRAMS = (
    *(
        f"/usr/bin/{name}"
        for name in ("python3", "mkfifo", "nohup", "setsid", "yes", "seq", "tr", "env", "timeout", "find", "id")
    ),
    *(f"/usr/bin/{name}" for name in ("head", "tail", "wc", "stat", "tee", "sort")),
    *(
        f"/bin/{name}"
        for name in ("bash", "sh", "touch", "ln", "df", "tar", "grep", "sed", "ls", "cat", "ps", "sleep", "mkdir")
    ),
    *(f"/bin/{name}" for name in ("rm", "cp", "mv", "chmod", "dd")),
)


def file_system() -> bytes:
    """A tar archive of a small system."""
    python = os.path.realpath("/usr/bin/python3")
    library = Path("/usr/lib") / Path(python).name
    present = [p for p in PROGRAMS if os.path.exists(p)]
    needed = [*present, *glob.glob(f"{library}/lib-dynload/*.so")]
    told = subprocess.run(["ldd", *needed], capture_output=True, text=True, check=False).stdout
    libraries = sorted(set(re.findall(r"/[^ ]+\.so[^ )]*", told)))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(path: str) -> None:
            info = tar.gettarinfo(os.path.realpath(path), arcname=path.lstrip("/"))
            with open(path, "rb") as f:
                tar.addfile(info, f)

        for path in dict.fromkeys([*present, *libraries]):
            if "/" in path and os.path.isfile(path):
                add(path)
        for name in glob.glob("/usr/lib/locale/C.utf8/**", recursive=True):
            if os.path.isfile(name):
                add(name)
        for folder, folders, files in os.walk(library):
            folders[:] = [
                d for d in folders if d not in ("__pycache__", "test", "idlelib", "ensurepip") and not d.startswith("config-")
            ]
            for name in files:
                if os.path.isfile(f"{folder}/{name}"):
                    add(f"{folder}/{name}")
    return out.getvalue()


def _answers(url: str | None) -> Any:
    import docker

    with contextlib.suppress(Exception):
        client = docker.from_env(timeout=60) if url is None else docker.DockerClient(base_url=url, timeout=60)
        client.ping()
        return client
    return None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Makes the environment name an engine and an image; yields why not, or an empty text.

    An engine that this starts is its own and is ended, with everything in it, in the end.
    """
    before = {name: os.environ.get(name) for name in ("DOCKER_HOST", "AGENTGYM_DOCKER_IMAGE")}
    process, folder, why = None, "", ""
    try:
        client = _answers(None)
        if client is None and os.getuid() == 0 and shutil.which("dockerd"):
            folder = tempfile.mkdtemp(prefix="agentgym-engine-")
            url = f"unix://{folder}/docker.sock"
            options = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
            places = ["--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
            with open(f"{folder}/log", "wb") as log:
                process = subprocess.Popen(
                    ["dockerd", "-H", url, *places, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            for _ in range(300):
                client = _answers(url)
                if client is not None or process.poll() is not None:
                    break
                time.sleep(0.1)
            if client is None:
                why = "dockerd does not start: " + Path(folder, "log").read_text(errors="replace")[-500:]
            else:
                os.environ["DOCKER_HOST"] = url
        elif client is None:
            why = "no engine answers, and none can be started here (that takes root and dockerd)"
        if client is not None and not os.environ.get("AGENTGYM_DOCKER_IMAGE"):
            if IMAGE not in [t for i in client.images.list() for t in i.tags]:
                name, tag = IMAGE.split(":")
                changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin"]
                client.api.import_image_from_data(file_system(), repository=name, tag=tag, changes=changes)
            os.environ["AGENTGYM_DOCKER_IMAGE"] = IMAGE
        yield why
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
