# SPDX-License-Identifier: Apache-2.0
"""The process that becomes bubblewrap: lays out what bubblewrap cannot make itself, gives up root, executes it.

Started by `agentgym.sandbox.bwrap` as ``python -I -S _stage.py FD``; the fd gives a dict (marshal), once the process is in its
control group. In a mount namespace of its own it makes one file system for all that can be written, with a limit of bytes
and of inodes (bubblewrap knows only the former, for each place by itself), and shows what only root can reach (an
interpreter in root's home) where the sandbox's user can. Standard library only.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # type checkers take the name for true; to import `typing` would double the time that this takes
if TYPE_CHECKING:
    from typing import Any

    from agentgym.sandbox import _linux
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import _linux

    del sys.path[0]

STAGE = "/sys"
"""There everywhere, and nothing below it is needed by bubblewrap. Only this process's namespace sees it covered."""
_PLAIN = _linux.MS_NOSUID | _linux.MS_NODEV


def prepare(config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Makes the mounts; where what is to be shown lies now, and arguments for bubblewrap that show what can be written."""
    user = config["user"]
    if user is not None:
        _linux.unshare(_linux.NEWNS)
        os.setgroups([])
    else:
        uid, gid = os.getuid(), os.getgid()
        _linux.unshare(_linux.NEWUSER | _linux.NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open("/proc/self/" + name, "w") as f:
                f.write(text)
    _linux.mount(None, "/", None, _linux.MS_REC | _linux.MS_PRIVATE)
    _linux.mount("tmpfs", STAGE, "tmpfs", _PLAIN, "size=1m,mode=755")
    for name in ("data", "run", "shown"):
        os.mkdir(f"{STAGE}/{name}")
    writable = (("workspace", "/workspace", 0o755), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777))
    if config["device"] is not None:
        _linux.mount_disk(config["device"], STAGE + "/data", config["disk"], config["inodes"] + len(writable))
        os.close(config["device"])
    else:
        options = f"size={config['disk']},nr_inodes={config['inodes'] + len(writable) + 1},mode=755"
        _linux.mount("tmpfs", STAGE + "/data", "tmpfs", _PLAIN, options)
    _linux.mount("tmpfs", STAGE + "/run", "tmpfs", _PLAIN, "size=16m,nr_inodes=1024,mode=755")
    shown = []
    for n, source in enumerate(config["shown"]):
        place = f"{STAGE}/shown/{n}"
        if os.path.isdir(source):
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        _linux.mount(source, place, None, _linux.MS_BIND | _linux.MS_REC)
        shown.append(place)
    for name, _, mode in writable:
        os.mkdir(f"{STAGE}/data/{name}")
        os.chmod(f"{STAGE}/data/{name}", mode)
    if user is not None:
        for place in ("run", *(f"data/{name}" for name, _, _ in writable)):
            os.chown(f"{STAGE}/{place}", user, user)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    binds = [word for name, target, _ in writable for word in ("--bind", f"{STAGE}/data/{name}", target)]
    return shown, [*binds, "--bind", STAGE + "/run", "/run"]


def main() -> None:
    with open(int(sys.argv[1]), "rb") as f:
        config = marshal.load(f)  # from the same interpreter; json would take longer to import than all else here
    shown, writable = prepare(config) if config["own_mounts"] else (config["shown"], config["otherwise"])
    words: list[str] = []
    for word in config["command"]:
        if word is None:
            words += writable
        else:
            words.append(shown[word] if isinstance(word, int) else word)
    os.chdir("/")
    os.execve(words[0], words, {"PATH": "/usr/bin:/bin"})


if __name__ == "__main__":
    try:
        main()
    except OSError as e:
        os.write(2, f"{e.strerror or e}\n".encode())
        os._exit(1)
