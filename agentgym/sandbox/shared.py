# SPDX-License-Identifier: Apache-2.0
"""The backend that all episodes and verifiers of a process share: opened when first needed, closed when the process ends.

Which one: what the caller says (``--sandbox``, ``sandbox=``), else what ``AGENTGYM_SANDBOX`` says, else ``auto``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from agentgym.errors import NotFoundError, UsageError, did_you_mean
from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend, Sandbox, SandboxError

ENVIRONMENT_VARIABLE = "AGENTGYM_SANDBOX"
"""Names the backend where the caller does not. It cannot name the unsafe one."""
UNSAFE = "unsafe_local"
GROUP = "agentgym.sandboxes"

factories: dict[str, Callable[[], Backend]] = {}
"""Backends made known by `agentgym.registry.register_sandbox`."""

_lock = threading.RLock()
_open: dict[str, Backend] = {}
_witnesses: weakref.WeakKeyDictionary[Backend, Sandbox] = weakref.WeakKeyDictionary()
_left: deque[Sandbox] = deque()
_owner = os.getpid()


def chosen_name(name: str | None) -> str:
    """The backend that is meant.

    Args:
        name: what the caller says; None: nothing.

    Raises:
        UsageError: only the environment variable asks for the backend that does not hold code in.
    """
    if name is not None:
        return name
    name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    if name == UNSAFE:
        raise UsageError(
            f"{ENVIRONMENT_VARIABLE}={UNSAFE} would run a model's code with your rights wherever the variable is set. If you "
            f"trust the code, say so each time: --sandbox {UNSAFE} (sandbox={UNSAFE!r} in Python)"
        )
    return name


def open_named(name: str) -> Backend:
    """A new backend by name: of this project, registered, or of a plugin (entry points ``agentgym.sandboxes``).

    Raises:
        NotFoundError: there is none of that name.
        SandboxUnavailableError: it cannot work here; the text says what to do.
    """
    try:
        return open_backend(name, **({"unsafe": True} if name == UNSAFE else {}))
    except NotFoundError:
        points = {p.name: p for p in importlib.metadata.entry_points(group=GROUP)}
        factory = factories.get(name)
        if factory is None and name not in points:
            known = ["auto", *sorted({*points, *factories})]
            raise NotFoundError(
                f"there is no sandbox backend {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}"
            ) from None
    backend: Backend = (factory or points[name].load())()
    backend.capabilities()
    return backend


def shared_backend(name: str | None = None) -> Backend:
    """The process's backend of that name, the same one for every caller and thread.

    Args:
        name: see `chosen_name`.

    Raises:
        NotFoundError: there is none of that name.
        SandboxUnavailableError: it cannot work here, or none can; the text says what to do.
    """
    wanted = chosen_name(name)
    with _lock:
        _forget_those_of_a_parent()
        backend = _open.get(wanted)
        if backend is None:
            backend = _open[wanted] = open_named(wanted)
        _close_left()
        return backend


def witness(backend: Backend) -> Sandbox:
    """An idle sandbox of a backend in which nothing ever runs.

    A sandbox that is found dead died of the code in it, or with its whole backend (a helper process that was killed, an
    engine that was stopped). A witness that was there when it was made tells the two apart: it has died as well, or not.
    """
    with _lock:
        known = _witnesses.get(backend)
        if known is None or not testifies(known):
            known = _witnesses[backend] = backend.create()
        return known


def testifies(box: Sandbox) -> bool:
    """Whether a witness lives."""
    try:
        box.check()
    except SandboxError:
        return False
    return True


def leave(box: Sandbox) -> None:
    """Hands over a sandbox to be closed soon. Never waits, so that it may be called while garbage is collected."""
    _left.append(box)


def _close_left() -> None:
    while _left:
        with contextlib.suppress(IndexError):  # another thread was faster
            _left.popleft().close()


def close_shared() -> None:
    """Closes all of this process's shared backends and what they made; the next who asks opens them anew."""
    with _lock:
        _forget_those_of_a_parent()
        backends = list(_open.values())
        _open.clear()
        _witnesses.clear()
        _left.clear()
    for backend in backends:
        backend.close()


def _forget_those_of_a_parent() -> None:
    """A forked child has its parent's backends in memory; they are not its own to use or to close."""
    global _owner
    if _owner != os.getpid():
        _owner = os.getpid()
        _open.clear()
        _witnesses.clear()
        _left.clear()


atexit.register(close_shared)
