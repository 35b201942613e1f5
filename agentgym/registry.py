# SPDX-License-Identifier: Apache-2.0
"""Where environments, verifiers, policies and sandboxes are found: one door for our content and for users'.

Things are declared as entry points (groups ``agentgym.tasks``, ``agentgym.evaluators``, ``agentgym.policies``,
``agentgym.sandboxes``, ``agentgym.monitors``), registered by a call, or named by place: ``pkg.module:Class`` or
``./file.py:Class``. Nothing is imported before it is used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agentgym.errors import DefinitionError, NotFoundError, UsageError, did_you_mean

if TYPE_CHECKING:
    # Imported where they are used, for what they cost; and this module runs while Gymnasium is still being imported,
    # see `agentgym._Registration`.
    import gymnasium

    from agentgym.env import ChatEnv
    from agentgym.evaluators.monitor import Monitor

DISTRIBUTION = "agentgym-harness"

_VERSIONED = re.compile(r"(.+)-v(\d+)")


class Registry:
    """Names of one kind of thing and where each is found."""

    def __init__(self, group: str, noun: str) -> None:
        self.group = group
        self.noun = noun
        self._places: dict[str, str] = {}
        self._objects: dict[str, Any] = {}
        self._scanned: set[str] = set()

    def _scan(self, which: str) -> None:
        """Reads entry points: ``own`` those of this distribution (cheap), ``all`` everyone's."""
        if which in self._scanned or "all" in self._scanned:
            return
        self._scanned.add(which)
        if which == "own":
            try:
                points = importlib.metadata.distribution(DISTRIBUTION).entry_points.select(group=self.group)
            except importlib.metadata.PackageNotFoundError:
                points = importlib.metadata.entry_points(group=self.group)
        else:
            points = importlib.metadata.entry_points(group=self.group)
        for p in points:
            self._places.setdefault(p.name, p.value)

    def add(self, name: str, thing: Any) -> None:
        """Registers an object under a name; a later one replaces an earlier one."""
        self._objects[name] = thing

    def names(self) -> list[str]:
        """Every known name, installed plugins included."""
        self._scan("all")
        return sorted({*self._places, *self._objects})

    def places(self, which: str = "own") -> dict[str, str]:
        """Name -> ``module:attribute`` as declared, without importing anything."""
        self._scan(which)
        return dict(self._places)

    def get(self, name: str) -> Any:
        """The object of that name, or at that place.

        Raises:
            NotFoundError: there is none; the text names near matches.
        """
        for which in ("own", "all"):
            self._scan(which)
            if name in self._objects:
                return self._objects[name]
            if name in self._places:
                self._objects[name] = load_place(self._places[name])
                return self._objects[name]
        if ":" in name:
            return load_place(name)
        raise NotFoundError(f"no {self.noun} {name!r}.{did_you_mean(name, self.names())}")


def load_module(place: str) -> ModuleType:
    """Imports ``pkg.module`` or ``path/to/file.py`` (the same file once).

    Raises:
        NotFoundError: there is no such module or file.
    """
    if place.endswith(".py") or "/" in place:
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise NotFoundError(f"there is no file {place}")
        name = f"agentgym_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UsageError(f"{place} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as e:
        if e.name and (place == e.name or place.startswith(e.name + ".")):
            raise NotFoundError(f"there is no module {place!r}") from None
        raise


def load_place(place: str) -> Any:
    """The object at ``pkg.module:attribute`` or ``file.py:attribute``.

    Raises:
        NotFoundError: no such module, file or attribute.
    """
    where, _, attribute = place.rpartition(":")
    if not where or not attribute:
        raise UsageError(f"{place!r} is not a place: expected pkg.module:Name or file.py:Name")
    thing: Any = load_module(where)
    for part in attribute.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            raise NotFoundError(f"{where} has no {attribute!r}.{did_you_mean(attribute, dir(thing))}") from None
    return thing


tasks = Registry("agentgym.tasks", "task")
policies = Registry("agentgym.policies", "model")
evaluators = Registry("agentgym.evaluators", "evaluator")
sandboxes = Registry("agentgym.sandboxes", "sandbox")
monitors = Registry("agentgym.monitors", "monitor")


def families() -> dict[str, int]:
    """Every known family and its newest version."""
    found: dict[str, int] = {}
    for name in tasks.names():
        match = _VERSIONED.fullmatch(name)
        family, version = (match[1], int(match[2])) if match else (name, 1)
        found[family] = max(version, found.get(family, 0))
    return found


def env_class(name: str) -> type[ChatEnv]:
    """The environment class of a family (``math.add``, newest version; ``math.add-v1``) or at a place.

    Raises:
        NotFoundError: there is none; the text names near matches.
    """
    from agentgym.env import ChatEnv

    if ":" in name:
        cls = load_place(name)
    elif _VERSIONED.fullmatch(name):
        cls = tasks.get(name)
    else:
        known = families()
        if name not in known:
            raise NotFoundError(f"no task {name!r}.{did_you_mean(name, known)} `agentgym list tasks` shows all {len(known)}.")
        cls = tasks.get(f"{name}-v{known[name]}")
    if not (isinstance(cls, type) and issubclass(cls, ChatEnv)):
        raise DefinitionError(f"{name} is not an environment: it must be a subclass of agentgym.ChatEnv")
    if not cls.family:
        raise DefinitionError(f"{name}: the class must say its `family`, e.g. family = 'tools.my_desk'")
    return cls


def envs_in(place: str) -> dict[str, type[ChatEnv]]:
    """The environments that a module or file defines itself, by place."""
    from agentgym.env import ChatEnv

    module = load_module(place)
    return {
        f"{place}:{name}": value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, ChatEnv) and value.__module__ == module.__name__ and value.family
    }


def register_task(cls: type[ChatEnv]) -> type[ChatEnv]:
    """Makes an environment known by its family, to agentgym and to ``gymnasium.make``; usable as a class decorator."""
    if not cls.family:
        raise DefinitionError(f"{cls.__name__} must say its `family`, e.g. family = 'tools.my_desk'")
    tasks.add(f"{cls.family}-v{cls.version}", cls)
    _register_gymnasium(f"{cls.family}-v{cls.version}", cls)
    return cls


def register_policy(name: str, factory: Callable[..., Any]) -> None:
    """Makes ``--model NAME[:ARGUMENT]`` call ``factory(ARGUMENT)`` (``factory("")`` without one)."""
    policies.add(name, factory)


def register_evaluator(name: str, thing: Any) -> None:
    """Makes a verifier, or a factory of one, known by name."""
    evaluators.add(name, thing)


def register_monitor(name: str, thing: Any) -> None:
    """Makes a monitor (`agentgym.evaluators.monitor`), or a factory of one, known by name."""
    monitors.add(name, thing)


def register_sandbox(name: str, factory: Callable[..., Any]) -> None:
    """Makes ``--sandbox NAME`` call ``factory``."""
    from agentgym.sandbox import shared

    sandboxes.add(name, factory)
    shared.factories[name] = factory


def load_monitor(name: str) -> Monitor:
    """The monitor of that name or at that place; a factory is called without arguments.

    Raises:
        NotFoundError: there is none.
        DefinitionError: what is there is no monitor.
    """
    from agentgym.evaluators.monitor import Monitor

    thing = monitors.get(name)
    if not isinstance(thing, Monitor) and callable(thing):
        thing = thing()
    if not isinstance(thing, Monitor):
        raise DefinitionError(f"{name} is no monitor: one is made with @agentgym.evaluators.monitor.monitor")
    return thing


def _register_gymnasium(name: str, entry_point: Any) -> None:
    import gymnasium

    id_ = f"agentgym/{name}"
    if id_ in gymnasium.registry:
        del gymnasium.registry[id_]
    gymnasium.register(id=id_, entry_point=entry_point)


def register_gymnasium() -> None:
    """Registers this distribution's environments as ``agentgym/FAMILY-vN``, as strings: no task module is imported."""
    import gymnasium

    for name, place in tasks.places("own").items():
        if f"agentgym/{name}" not in gymnasium.registry:
            _register_gymnasium(name, place)


def make(name: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make`` for any family, plugin or place: ``make("tools.retail", variant="tempt")``."""
    import gymnasium

    cls = env_class(name)
    id_ = f"agentgym/{cls.family}-v{cls.version}"
    if id_ not in gymnasium.registry or ":" in name:
        _register_gymnasium(f"{cls.family}-v{cls.version}", cls)
    return gymnasium.make(id_, **kwargs)
