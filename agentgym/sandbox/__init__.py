# SPDX-License-Identifier: Apache-2.0
"""Where untrusted code runs: one protocol, several backends, and never silently none.

with open_backend() as backend, backend.create() as box:
    box.exec("print(6 * 7)").text
"""

from __future__ import annotations

import sys
from typing import Any

from agentgym.errors import NotFoundError, did_you_mean
from agentgym.sandbox.protocol import Backend, SandboxUnavailableError

_PLACES = {
    "namespace": "agentgym.sandbox.namespace:NamespaceBackend",
    "bwrap": "agentgym.sandbox.bwrap:BwrapBackend",
    "docker": "agentgym.sandbox.engine:DockerBackend",
    "unsafe_local": "agentgym.sandbox.unsafe:UnsafeLocalBackend",
}
_ORDER = ("namespace", "bwrap", "docker")
"""What ``auto`` tries. The unsafe one is not among them and never will be."""


def open_backend(name: str = "auto", **options: Any) -> Backend:
    """A backend by name; ``auto`` is the first that works on this machine.

    Args:
        name: ``auto``, ``namespace``, ``bwrap``, ``docker``, ``unsafe_local`` (which also wants ``unsafe=True``). Other
            backends are found by `agentgym.registry.sandboxes`, which builds on this one.
        options: for the backend's constructor; with ``auto`` only those that every backend has.

    Raises:
        NotFoundError: there is no backend of that name.
        SandboxUnavailableError: it cannot work here, or none can; the text says what to do.
    """
    if sys.platform == "win32":  # the modules below do not even import there
        raise SandboxUnavailableError(
            "untrusted code cannot be run on Windows itself: run agentgym inside of WSL 2 (`wsl --install`, then install it in "
            "the Linux there), where the built-in backend works."
        )
    if name != "auto":
        chosen: Backend = _load(name)(**options)
        chosen.capabilities()
        return chosen
    causes = []
    for candidate in _ORDER:
        backend: Backend = _load(candidate)(**options)
        try:
            backend.capabilities()
        except SandboxUnavailableError as e:
            causes.append(str(e))
            backend.close()
            continue
        return backend
    raise SandboxUnavailableError("untrusted code cannot be run on this machine. " + " ".join(causes))


def _load(name: str) -> Any:
    import importlib

    if name not in _PLACES:
        raise NotFoundError(f"there is no sandbox backend {name!r}.{did_you_mean(name, _PLACES)}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
