# SPDX-License-Identifier: Apache-2.0
"""From what a user types after ``--model`` to a policy."""

from __future__ import annotations

from typing import Any

from agentgym import registry
from agentgym.errors import DefinitionError, NotFoundError, did_you_mean, redact
from agentgym.protocols import Policy

DEFAULT = "local:smollm2"
"""What plays where no model is named: a real language model that needs no key, no GPU and no server."""


def load_policy(spec: str | Any) -> Policy:
    """The policy that ``spec`` names.

    Args:
        spec: ``KIND[:ARGUMENT]`` with a registered kind (``oracle:honest``, ``local:smollm2``, ``replay:RUN``), a place
            (``pkg.module:Name``, ``file.py:Name``) of a policy or of a class or function that makes one, or a policy.

    Raises:
        NotFoundError: there is no such kind, module or file; the text names near matches.
        DefinitionError: what was found is not a policy.
    """
    if not isinstance(spec, str):
        return _checked(spec, type(spec).__name__)
    kind, _, argument = spec.partition(":")
    if kind in registry.policies.names():
        return _checked(registry.policies.get(kind)(argument), spec)
    if argument and ("." in kind or "/" in kind):
        thing = registry.load_place(spec)
        return _checked(thing() if isinstance(thing, type) or not hasattr(thing, "act") else thing, spec)
    known = registry.policies.names()
    examples = "e.g. local:smollm2, openai:MODEL@URL, agent:my_bot.py:run, oracle:honest, ./my_policy.py:MyPolicy"
    raise NotFoundError(f"no model {redact(spec)!r}.{did_you_mean(kind, known)} A model is KIND:NAME, {examples}.")


def _checked(policy: Any, what: str) -> Policy:
    missing = [name for name in ("begin", "act") if not callable(getattr(policy, name, None))]
    if missing:
        raise DefinitionError(
            f"{redact(what)} is not a policy: it has no {' and no '.join(missing)}; inherit from agentgym.PolicyBase"
        )
    if not isinstance(getattr(policy, "name", None), str):
        policy.name = redact(what)
    return policy  # type: ignore[no-any-return]
