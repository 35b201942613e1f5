# SPDX-License-Identifier: Apache-2.0
"""From what a user types to a plan: which tasks of which environments, how many trials of each."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from agentgym import registry
from agentgym.env import ChatEnv
from agentgym.errors import DataError, NotFoundError, NothingSelectedError, UsageError, did_you_mean
from agentgym.records.run import Address, open_run
from agentgym.records.store import PlannedTask
from agentgym.task import TaskId


class EnvRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to construct: enough to make the same environment again in another process."""

    place: str
    """``math.add-v1``, ``pkg.module:Class`` or ``file.py:Class``."""
    params: dict[str, Any] = {}
    data: str | None = None
    """Data file or ``hf:`` name, for environments over data sets."""
    split: str | None = None

    def make(self, variant: str = "control") -> ChatEnv:
        """The environment."""
        extra = {} if self.data is None else {"data": self.data}
        return registry.env_class(self.place)(variant=variant, split=self.split, **self.params, **extra)


class Plan(msgspec.Struct):
    """What a run sets out to do."""

    title: str
    environments: list[EnvRef]
    tasks: list[PlannedTask]
    options: dict[str, Any] = {}
    """A suite's own settings for the run: ``max_tokens``, ``temperature``; a caller's settings go before them."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return sum(t.trials for t in self.tasks)


class SuiteEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One ``[[tasks]]`` table of a suite file."""

    task: str
    """Family, place, or prefix of families (``math``)."""
    variants: tuple[str, ...] = ("control",)
    items: int | list[str] | None = None
    """How many tasks, or which; None for the environment's default."""
    trials: int | None = None
    params: dict[str, Any] = {}
    data: str | None = None
    split: str | None = None


class Suite(msgspec.Struct, forbid_unknown_fields=True):
    """A suite file."""

    tasks: list[SuiteEntry]
    description: str = ""
    trials: int = 1
    """Trials of entries that do not say."""
    max_tokens: int | None = None
    temperature: float | None = None


def suite_files() -> dict[str, Path]:
    """The suites that come with agentgym, by name."""
    folder = Path(str(resources.files("agentgym.suites")))
    return {p.stem: p for p in sorted(folder.glob("*.toml"))}


def read_suite(path: Path) -> Suite:
    """A suite file, checked.

    Raises:
        DataError: it is not TOML, or not a suite; the text says where.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Suite)
    except OSError as e:
        raise NotFoundError(f"cannot read the suite {path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DataError(f"{path} is not TOML: {e}") from e
    except msgspec.ValidationError as e:
        raise DataError(f"{path} is not a suite: {e}") from e


class Choice(msgspec.Struct, kw_only=True):
    """How selected tasks are narrowed and multiplied; what the command line's options say."""

    trials: int | None = None
    limit: int | None = None
    """Most tasks of each family and variant."""
    variants: list[str] | None = None
    params: dict[str, Any] = {}
    data: str | None = None
    split: str | None = None
    keyword: str | None = None
    """Only task ids that contain this text; ``*`` and ``?`` match as in file names."""
    runs: str | None = None
    """Folder of runs, for selectors that are addresses of recorded episodes."""


def resolve(selectors: Sequence[str | type[ChatEnv]], choice: Choice) -> Plan:
    """The plan for a selection.

    Each selector is a suite (``quickstart``, ``mine.toml``), a family (``math.add``), a prefix (``math``), a task id
    (``math.add/control/3``), a place (``file.py:Class``, or ``file.py`` for all in it), or an environment class.

    Raises:
        NotFoundError: nothing of that name; the text names near matches.
        NothingSelectedError: the selection is empty.
        UsageError: a bad number, an unknown parameter or variant.
    """
    for name, value in (("trials", choice.trials), ("limit", choice.limit)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    builder = _Builder(choice)
    for selector in selectors:
        builder.add(selector)
    if not builder.tasks:
        why = f" with {choice.keyword!r} in their id" if choice.keyword else ""
        raise NothingSelectedError(f"the selection {_title(selectors)} holds no tasks{why}")
    return Plan(_title(selectors), builder.environments, _interleave(builder.tasks), builder.options)


def _title(selectors: Iterable[str | type[ChatEnv]]) -> str:
    names = [s if isinstance(s, str) else s.family for s in selectors]
    return "+".join(
        Path(n.split(":")[0]).stem if n.endswith((".py", ".toml")) or ("/" in n.split(":")[0] and ":" in n) else n for n in names
    )


def _interleave(groups: dict[tuple[int, str], list[PlannedTask]]) -> list[PlannedTask]:
    """Tasks of all families by turns, so that a run stopped early has something of each."""
    result: list[PlannedTask] = []
    columns = [iter(g) for g in groups.values()]
    while columns:
        left = []
        for column in columns:
            task = next(column, None)
            if task is not None:
                result.append(task)
                left.append(column)
        columns = left
    return result


class _Builder:
    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.environments: list[EnvRef] = []
        self.tasks: dict[tuple[int, str], list[PlannedTask]] = {}
        self.options: dict[str, Any] = {}
        self._seen: set[str] = set()

    def add(self, selector: str | type[ChatEnv]) -> None:
        if not isinstance(selector, str):
            registry.register_task(selector)
            self._family(f"{selector.family}-v{selector.version}", SuiteEntry(selector.family))
            return
        if "::" in selector:
            self._address(selector)
        elif selector.endswith(".toml"):
            self._suite(Path(selector))
        elif selector in suite_files():
            self._suite(suite_files()[selector])
        else:
            self._entry(SuiteEntry(selector), None)

    def _suite(self, path: Path) -> None:
        suite = read_suite(path)
        for name in ("max_tokens", "temperature"):
            value = getattr(suite, name)
            if value is not None:
                self.options[name] = value
        for entry in suite.tasks:
            self._entry(entry, suite.trials)

    def _address(self, text: str) -> None:
        """The task of a recorded episode, with the environment that the run made it with."""
        address = Address.parse(text)
        with open_run(address.run, self.choice.runs) as run:
            episode = run.at(address)
            rows = run._rows("SELECT ref FROM environments JOIN plan ON environment = id WHERE task_id = ?", (episode.task_id,))
            ref = msgspec.json.decode(next(rows)[0], type=EnvRef)
            entry = SuiteEntry(ref.place, (episode.variant,), [episode.item], None, ref.params, ref.data, ref.split)
        self._family(ref.place, entry, exact=True)

    def _entry(self, entry: SuiteEntry, trials: int | None) -> None:
        trials = entry.trials or trials
        name = entry.task
        if "/" in name and ":" not in name and not name.endswith(".py") and name.count("/") >= 2 and not Path(name).exists():
            task = TaskId.parse(name)
            family, params = parse_label(task.family)
            one = SuiteEntry(family, (task.variant,), [task.item], trials, {**entry.params, **params}, entry.data, entry.split)
            self._family(registry_name(family), one, trials, exact=True)
            return
        if name.endswith(".py"):
            places = registry.envs_in(name)
            if not places:
                raise NotFoundError(f"{name} defines no environment: a subclass of agentgym.ToolEnv with a `family`")
            for place in places:
                self._family(place, entry, trials)
            return
        if ":" in name:
            family, params = parse_label(name)
            if family in registry.families() and params:
                self._family(registry_name(family), msgspec.structs.replace(entry, params={**entry.params, **params}), trials)
            else:
                self._family(name, entry, trials)
            return
        families = registry.families()
        if name in families or registry.tasks.places().get(name):
            self._family(registry_name(name), entry, trials)
            return
        under = sorted(f for f in families if f.startswith(name + "."))
        if not under:
            groups = {f.split(".")[0] for f in families if "." in f}
            known = [*sorted(families), *groups, *suite_files()]
            raise NotFoundError(
                f"no task or suite {name!r}.{did_you_mean(name, known)} `agentgym list tasks` shows all {len(families)}."
            )
        for family in under:
            self._family(registry_name(family), entry, trials)

    def _family(self, place: str, entry: SuiteEntry, trials: int | None = None, exact: bool = False) -> None:
        choice = self.choice
        ref = EnvRef(place, {**entry.params, **choice.params}, choice.data or entry.data, choice.split or entry.split)
        trials = choice.trials or entry.trials or trials or 1
        if trials < 1:
            raise UsageError(f"trials must be at least 1, not {trials}")
        for variant in choice.variants if choice.variants and not exact else entry.variants:
            env = ref.make(variant)
            if isinstance(entry.items, list):
                items = entry.items[: choice.limit]
                for item in items:
                    env.make_task(item)  # an unknown item is an error now, not one episode at a time
            else:
                items = env.items(choice.limit if choice.limit is not None else entry.items)
            if ref not in self.environments:
                self.environments.append(ref)
            index = self.environments.index(ref)
            for item in items:
                task_id = f"{env.label}/{variant}/{item}"
                if task_id in self._seen or not self._wanted(task_id):
                    continue
                self._seen.add(task_id)
                self.tasks.setdefault((index, variant), []).append(PlannedTask(index, variant, item, task_id, trials))

    def _wanted(self, task_id: str) -> bool:
        keyword = self.choice.keyword
        return keyword is None or keyword in task_id or fnmatch.fnmatchcase(task_id, keyword)


def registry_name(family: str) -> str:
    """``math.add`` -> ``math.add-v1``, with the newest version."""
    versions = registry.families()
    return f"{family}-v{versions[family]}" if family in versions else family


def parse_label(label: str) -> tuple[str, Mapping[str, str]]:
    """``math.add:level=3`` -> ``("math.add", {"level": "3"})``; a place stays whole."""
    family, _, tail = label.partition(":")
    pairs = [p.partition("=") for p in tail.split(",")] if tail else []
    if not pairs or not all(separator for _, separator, _ in pairs):
        return (label if tail else family), {}
    return family, {name: value for name, _, value in pairs}


def absolute(ref: EnvRef) -> EnvRef:
    """The reference with its file paths made absolute, so that a run can be resumed from elsewhere."""
    place, data = ref.place, ref.data
    where, separator, name = place.rpartition(":")
    if separator and where.endswith(".py"):
        place = f"{os.path.abspath(where)}:{name}"
    if data is not None and not data.startswith("hf:"):
        data = os.path.abspath(data)
    return EnvRef(place, ref.params, data, ref.split)
