# SPDX-License-Identifier: Apache-2.0
"""From what a user types to a plan: which tasks of which environments, how many trials of each."""

from __future__ import annotations

import fnmatch
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agentgym import registry
from agentgym.env import ChatEnv
from agentgym.errors import DataError, NotFoundError, NothingSelectedError, UsageError, did_you_mean
from agentgym.records.run import Address, open_run
from agentgym.records.store import PlannedTask
from agentgym.sandbox.shared import UNSAFE
from agentgym.task import TaskId

AtLeast1 = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


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
    """A suite's own settings for the run: ``max_turns``, ``max_tokens``, ``temperature``, ``sandbox``; a caller's go before."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return sum(t.trials for t in self.tasks)


class SuiteEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One ``[[tasks]]`` table of a suite file."""

    task: str
    """Family, place, or prefix of families (``math``)."""
    variants: tuple[str, ...] = ("control",)
    items: AtLeast1 | list[str] | None = None
    """How many tasks, or which; None for the environment's default."""
    trials: AtLeast1 | None = None
    params: dict[str, Any] = {}
    data: str | None = None
    split: str | None = None
    not_below: Share | None = None
    """Mean gold that is asked of all tasks together: the test of it fails where the confidence interval lies below; None: the
    suite's."""
    each_not_below: Share | None = None
    """Mean gold over its trials that is asked of each task, as it is, without an interval; None: the suite's."""
    no_violations: bool | None = None
    """Whether a task fails where anything was violated; None: the suite's."""


class Suite(msgspec.Struct, forbid_unknown_fields=True):
    """A suite file."""

    tasks: list[SuiteEntry]
    description: str = ""
    trials: AtLeast1 = 1
    """Trials of entries that do not say."""
    max_turns: AtLeast1 | None = None
    """Turns after which an episode is cut, where this is fewer than the environment's own number."""
    max_tokens: AtLeast1 | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    sandbox: str | None = None
    """Backend that code runs in. A file cannot ask for the one that does not hold anything in."""
    not_below: Share | None = None
    """`SuiteEntry.not_below` of entries that do not say."""
    each_not_below: Share | None = None
    """`SuiteEntry.each_not_below` of entries that do not say."""
    no_violations: bool = False
    """`SuiteEntry.no_violations` of entries that do not say."""


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
        suite = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Suite)
    except OSError as e:
        raise NotFoundError(f"cannot read the suite {path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DataError(f"{path} is not TOML: {e}") from e
    except msgspec.ValidationError as e:
        raise DataError(f"{path} is not a suite: {e}") from e
    if suite.sandbox == UNSAFE:
        raise DataError(f"{path} asks for the sandbox {UNSAFE}, which only a command line can: --sandbox {UNSAFE}")
    return suite


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


class Part(msgspec.Struct):
    """One family and variant of a suite: what is one test."""

    name: str
    """``FAMILY/VARIANT``; where a suite has the same twice, the second ends in ``-2``."""
    plan: Plan
    not_below: float | None
    each_not_below: float | None = None
    no_violations: bool = False


def suite_parts(path: Path, choice: Choice) -> list[Part]:
    """A suite file cut into its families and variants, in its order.

    Raises:
        DataError: it is not a suite; the text says where.
        UsageError: an entry asks for what does not exist; the text names the entry.
        NothingSelectedError: it holds no tasks.
    """
    suite = read_suite(path)
    settings = _settings(suite)
    parts: list[Part] = []
    names: dict[str, int] = {}
    for entry in suite.tasks:
        builder = _Builder(choice)
        builder.add_entry(entry, suite.trials, str(path))
        for (number, variant), tasks in builder.tasks.items():
            name = f"{TaskId.parse(tasks[0].task_id).family}/{variant}"
            names[name] = names.get(name, 0) + 1
            mine = [msgspec.structs.replace(t, environment=0) for t in tasks]
            plan = Plan(path.stem, [builder.environments[number]], mine, settings)
            bar, each, clean = (
                getattr(suite, asked) if getattr(entry, asked) is None else getattr(entry, asked)
                for asked in ("not_below", "each_not_below", "no_violations")
            )
            parts.append(Part(f"{name}-{names[name]}" if names[name] > 1 else name, plan, bar, each, bool(clean)))
    if not parts:
        raise NothingSelectedError(f"the suite {path} holds no tasks")
    return parts


def _settings(suite: Suite) -> dict[str, Any]:
    """What a suite says about how it is played (`Plan.options`)."""
    said = {name: getattr(suite, name) for name in ("max_turns", "max_tokens", "temperature", "sandbox")}
    return {name: value for name, value in said.items() if value is not None}


def _title(selectors: Iterable[str | type[ChatEnv]]) -> str:
    names = [s if isinstance(s, str) else s.family for s in selectors]
    return "+".join(
        Path(n.split(":")[0]).stem if n.endswith((".py", ".toml")) or ("/" in n.split(":")[0] and ":" in n) else n
        for n in names
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
        self._seen: dict[str, EnvRef] = {}

    def add(self, selector: str | type[ChatEnv]) -> None:
        if not isinstance(selector, str):
            registry.register_task(selector)
            self._family(place_of(selector), SuiteEntry(selector.family))
            return
        if "::" in selector:
            self._address(selector)
        elif selector.endswith(".toml"):
            self._suite(Path(selector), selector)
        elif selector in suite_files():
            self._suite(suite_files()[selector], f"suite {selector}")
        else:
            self._entry(SuiteEntry(selector), None)

    def _suite(self, path: Path, name: str) -> None:
        suite = read_suite(path)
        self.options.update(_settings(suite))
        for entry in suite.tasks:
            self.add_entry(entry, suite.trials, name)

    def add_entry(self, entry: SuiteEntry, trials: int, suite: str) -> None:
        """An entry of a suite, which an error names."""
        try:
            self._entry(entry, trials)
        except UsageError as e:
            raise type(e)(f"{suite}, task {entry.task!r}: {e}") from e

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
        families = registry.families()
        family, params = parse_label(name.partition("/")[0])
        # `math.add:level=3/control/0` is a task, `some/where/mine.py:Desk` a place
        like_a_place = ":" in name or name.endswith(".py") or _exists(name)
        if name.count("/") >= 2 and (family in families or not like_a_place):
            task = TaskId.parse(name)
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
            if family in families and params:
                self._family(registry_name(family), msgspec.structs.replace(entry, params={**entry.params, **params}), trials)
            else:
                self._family(name, entry, trials)
            return
        if name in families or name in registry.tasks.names():
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
        if ref not in self.environments:
            self.environments.append(ref)
        index = self.environments.index(ref)
        for variant in choice.variants if choice.variants and not exact else entry.variants:
            env = ref.make(variant)
            try:
                for item in self._items(env, variant, entry):
                    task_id = f"{env.label}/{variant}/{item}"
                    first = self._seen.setdefault(task_id, ref)
                    if first is ref:
                        task = PlannedTask(index, variant, item, task_id, trials)
                        self.tasks.setdefault((index, variant), []).append(task)
                    elif first.data != ref.data:
                        raise UsageError(
                            f"{task_id} was selected twice, from {first.data} and from {ref.data}: play them in two runs"
                        )
            finally:
                env.close()

    def _items(self, env: ChatEnv, variant: str, entry: SuiteEntry) -> list[str]:
        """The items to play: those asked for, of them what fits the keyword, of these as many as the limit allows."""
        limit, keyword = self.choice.limit, self.choice.keyword
        if isinstance(entry.items, list):
            for item in entry.items:
                env.make_task(item)  # an unknown item is an error now, not one episode at a time
            items = list(dict.fromkeys(entry.items))
        elif keyword is None:
            items = env.items(entry.items if limit is None else limit)
        else:
            # what fits may come late, so the limit does not cut before; but where tasks are drawn without end, it is
            # also how many are looked at
            items = env.items(entry.items)
            if limit is not None and limit > len(items):
                items = env.items(limit)
        return [i for i in items if keyword is None or _fits(f"{env.label}/{variant}/{i}", keyword)][:limit]


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long for a path
        return False


def _fits(task_id: str, keyword: str) -> bool:
    return keyword in task_id or fnmatch.fnmatchcase(task_id, keyword)


def place_of(cls: type[ChatEnv]) -> str:
    """How another process, one that resumes the run, finds a class: by its place, or, where it has none, its family."""
    name = f"{cls.family}-v{cls.version}"
    place = f"{cls.__module__}:{cls.__qualname__}"
    if registry.tasks.places().get(name) == place:
        return name
    module = sys.modules.get(cls.__module__)
    found: Any = module
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not cls or cls.__module__ in ("__main__", "__mp_main__"):
        return name
    file = getattr(module, "__file__", None)
    return f"{file}:{cls.__qualname__}" if cls.__module__.startswith("agentgym_user_") and file else place


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
