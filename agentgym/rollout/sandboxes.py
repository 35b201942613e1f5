# SPDX-License-Identifier: Apache-2.0
"""Sees to it that what a plan needs of a sandbox is there before its first episode, and says what was there."""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym import registry
from agentgym.env import ChatEnv
from agentgym.errors import UsageError
from agentgym.rollout.selection import Plan
from agentgym.sandbox.protocol import SandboxUnavailableError, check_spec
from agentgym.sandbox.shared import shared_backend
from agentgym.sandboxenv import SandboxEnv


def require_sandbox(plan: Plan, name: str | None) -> dict[str, Any] | None:
    """Opens the backend that the environments of a plan need, and holds it to what they ask for.

    Args:
        plan: what is to be played.
        name: the backend's, as `agentgym.sandbox.shared.chosen_name` takes it.

    Returns:
        the backend's name and what it enforces, for the record; None where nothing in the plan runs code.

    Raises:
        SandboxUnavailableError: there is none here; the text says who needs it and what to do.
        UsageError: it cannot enforce what an environment asks for.
    """
    classes: list[type[ChatEnv]] = [registry.env_class(ref.place) for ref in plan.environments]
    needy = [cls for cls in dict.fromkeys(classes) if "sandbox" in cls.needs()]
    if not needy:
        return None
    names = ", ".join(cls.family for cls in needy[:5]) + (", ..." if len(needy) > 5 else "")
    try:
        can = shared_backend(name).capabilities()
    except SandboxUnavailableError as e:
        raise SandboxUnavailableError(
            f"{names} run{'s' * (len(needy) == 1)} code that a model has written, and for that a sandbox is needed: {e} "
            "`--sandbox docker` uses a container engine: it needs the package docker (pip install 'agentgym-harness[docker]'), "
            "a running engine and an image with python3 and bash (AGENTGYM_DOCKER_IMAGE). `agentgym doctor` shows what is here"
        ) from None
    for cls in needy:
        if issubclass(cls, SandboxEnv):
            try:
                check_spec(cls.sandbox_spec, can)
            except UsageError as e:
                raise UsageError(f"{cls.family}: {e}") from None
    return {"backend": can.backend, "capabilities": msgspec.to_builtins(can)}
