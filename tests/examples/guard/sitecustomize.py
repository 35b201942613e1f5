# SPDX-License-Identifier: Apache-2.0
"""Refuses, and writes down, whatever this process wants of any machine but this one; see `tests/examples/conftest.py`.

In a folder of its own, for Python imports a module of this name at its start: with the folder on PYTHONPATH, a command is
watched from its first line to its last. An audit hook sees what no patch of a module does, however it was imported.
"""

from __future__ import annotations

import os
import sys
from typing import Any

CONTACTS: list[str] = []
"""What was refused in this process."""

_HERE = {None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"}


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket file
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if host in _HERE:
        return
    CONTACTS.append(f"{event} {host}")
    if log := os.environ.get("CONTACTS_LOG"):
        with open(log, "a", encoding="utf-8") as f:
            f.write(f"{event} {host}\n")
    if "CONTACTS_END" in os.environ:  # for whoever wants no more than to see the first
        os._exit(0)
    raise PermissionError(f"tests contact nobody: {event} {host}")


sys.addaudithook(_watch)
