# SPDX-License-Identifier: Apache-2.0
"""How the verifiers of this package are made, so that `Verifier.hash` changes with any part of their judging."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from agentgym.scoring import Finding, Score, Verdict, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory


@functools.cache
def digest(*modules: str) -> str:
    """Twelve hex digits over the source of these modules."""
    text = "\0".join(inspect.getsource(sys.modules[name]) for name in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Setup:
    """What a verifier closes over. Its repr names whole files, and the verifiers that it asks by their hashes."""

    def __init__(self, judge: str, modules: tuple[str, ...], settings: dict[str, Any]) -> None:
        self.judge = judge
        self.modules = modules
        self.settings = settings

    def __repr__(self) -> str:
        inner = [v.hash for v in _inside(self.settings) if isinstance(v, Verifier)]
        return f"{self.judge}:{self.settings!r}:{inner}:{digest(*self.modules)}"


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for v in value.values():
            yield from _inside(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _inside(v)
    else:
        yield value


def own(found: list[Score | Finding], **changed: Any) -> list[Score | Finding]:
    """What another verifier said, with some fields changed, as what the verifier says that asked it: under that one's hash."""
    return [msgspec.structs.replace(f, verifier_hash="", **changed) for f in found]


def made(name: str, judge: Callable[..., Any], /, *modules: str, needs: Iterable[str] = (), **settings: Any) -> Verifier:
    """A verifier of that name that asks ``judge(trajectory, context, **settings)``; ``needs`` as for `verifier`.

    Its hash covers the judge's own module and the ``modules``, whole, the settings, and the source of functions among them.
    """
    setup = _Setup(judge.__name__, (judge.__module__, *modules), settings)
    functions: tuple[Any, ...] = tuple(v for v in _inside(settings) if inspect.isfunction(v))
    # the source of a lambda is its whole line, which several may share
    functions += tuple(f.__code__ for f in functions if f.__name__ == "<lambda>")

    @verifier(name=name, needs=needs)
    def run(trajectory: Trajectory, context: VerifierContext, _: Any = functions) -> Verdict:
        verdict: Verdict = judge(trajectory, context, **setup.settings)
        return verdict

    return run
