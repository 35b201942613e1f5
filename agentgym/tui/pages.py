# SPDX-License-Identifier: Apache-2.0
"""What lists show: selections of a run's episodes page by page, groups of them, and the runs of a folder."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.errors import NotFoundError, RecordError
from agentgym.records import schema
from agentgym.records.acting import Share, several, shares
from agentgym.records.filter import parse
from agentgym.records.filter_names import Names, names, why_none
from agentgym.records.live import Live, live
from agentgym.records.run import Episode, Run

PAGE = 64
"""Rows read at once; a screenful or two."""
KEPT = 16
"""Pages kept in memory."""

SORTS: dict[str, tuple[str, bool]] = {
    "task": ("id", False),
    "gold": ("gold", False),
    "reward": ("reward", False),
    "violations": ("violations", True),
    "turns": ("turns", True),
    "tokens": ("prompt_tokens + completion_tokens", True),
}
"""What a list can be sorted by -> SQL, and whether downwards at first: what wants a look comes first."""


@dataclass(frozen=True)
class Query:
    """Which episodes, in which order."""

    text: str = ""
    """A filter (`agentgym.records.filter`)."""
    failed: bool = False
    """Only those that are not solved: gold below 1, or without one."""
    family: str | None = None
    variant: str | None = None
    sort: str = "task"
    """A key of `SORTS`; ``task`` is the order in which they were played."""
    reverse: bool = False

    @property
    def descending(self) -> bool:
        """Whether the largest come first."""
        return SORTS[self.sort][1] != self.reverse

    def sql(self) -> tuple[str, tuple[Any, ...], str]:
        """Condition, its values, and order, as `Run.ids` takes them.

        Raises:
            FilterError: the filter cannot be read.
        """
        wanted = parse(self.text)
        conditions, values = [wanted.sql], list(wanted.values)
        if self.failed:
            conditions.append("gold IS NOT 1.0")
        for column, value in (("family", self.family), ("variant", self.variant)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        direction = "DESC" if self.descending else "ASC"
        by = SORTS[self.sort][0]
        order = f"id {direction}" if by == "id" else f"{by} IS NULL, {by} {direction}, id"
        return " AND ".join(conditions), tuple(values), order

    def words(self) -> str:
        """The selection for a person; empty where it is everything."""
        parts = []
        if self.text:
            parts.append(f"“{self.text}”")
        if self.failed:
            parts.append("not solved")
        if self.family is not None:
            parts.append(f"{self.family}/{self.variant}" if self.variant is not None else self.family)
        return ", ".join(parts)


class Episodes:
    """Rows of a selection, read in pages when they come into view; of the rest only their numbers are known."""

    def __init__(self, run: Run, ids: Sequence[int]) -> None:
        self.run = run
        self.ids = ids
        self._pages: OrderedDict[int, list[Episode | None]] = OrderedDict()
        self._agents: dict[int, list[Share]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> Episode | None:
        """Row ``index``; None where the record has lost it."""
        number, place = divmod(index, PAGE)
        page = self._pages.get(number)
        if page is None:
            wanted = self.ids[number * PAGE : (number + 1) * PAGE]
            found = {e.id: e for e in self.run.by_ids(wanted)}
            page = self._pages[number] = [found.get(i) for i in wanted]
            if len(self._pages) > KEPT:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(number)
        return page[place]

    def agents(self, episode_id: int) -> list[Share]:
        """The agents of an episode, read when it first comes into view; empty for damaged ones."""
        found = self._agents.get(episode_id)
        if found is None:
            if len(self._agents) >= KEPT * PAGE:
                self._agents.clear()
            try:
                found = shares(self.run, episode_id)
            except RecordError:
                found = []
            self._agents[episode_id] = found
        return found

    def place(self, episode_id: int) -> int | None:
        """Where an episode stands; None where it is not among them."""
        try:
            return self.ids.index(episode_id)
        except ValueError:
            return None


def select(path: Path, query: Query) -> array[int]:
    """The numbers of a selection, read with a connection of its own, so that a thread may do it."""
    where, values, order = query.sql()
    with Run(path) as run:
        return run.ids(where, values, order)


def how_it_goes(path: Path) -> Live:
    """Pace, cost and gold so far of a run that goes on, read with a connection of its own."""
    with Run(path) as run:
        return live(run)


def several_agents(path: Path) -> bool:
    """Whether several agents act in a run, read with a connection of its own."""
    with Run(path) as run:
        return several(run)


def known_names(path: Path) -> Names:
    """What a run's families, rules and so on are called, read with a connection of its own."""
    with Run(path) as run:
        return names(run)


def why_empty(path: Path, query: Query) -> str:
    """Why a selection holds nothing, in one sentence."""
    wanted = parse(query.text)
    with Run(path) as run:
        rest = replace(query, text="").words()
        if rest and run.ids(wanted.sql, wanted.values, limit=1):
            return f"no episode fits {query.words()}: there are others; f and Tab (families) choose among them"
        return why_none(run, wanted, names(run) if wanted else {})


class Group(NamedTuple):
    """The episodes of one variant of a family, of all its variants, or of all families."""

    family: str | None
    variant: str | None
    episodes: int
    gold: float | None
    """Mean; None where none has a gold."""
    solved: int
    violations: int
    """Episodes in which a rule was broken."""
    errors: int
    """Infrastructure outcomes."""

    @property
    def label(self) -> str:
        """``all``, a family, or an indented variant."""
        return "all" if self.family is None else self.family if self.variant is None else f"  {self.variant}"


def groups(path: Path) -> list[Group]:
    """All episodes, then each family that was played with its variants, if there are several, in order of names."""
    with Run(path) as run:
        return _groups(run)


def _groups(run: Run) -> list[Group]:
    rows = list(
        run._rows(
            "SELECT family, variant, count(*), coalesce(sum(gold), 0.0), count(gold), coalesce(sum(gold >= 1), 0),"
            " coalesce(sum(violations > 0), 0), coalesce(sum(outcome = 'infrastructure'), 0)"
            f" FROM episodes WHERE {run._counting()} GROUP BY family, variant ORDER BY 1, 2"
        )
    )

    def group(family: str | None, variant: str | None, of: list[tuple[Any, ...]]) -> Group:
        n, gold, scored, solved, broken, errors = (sum(r[i] for r in of) for i in range(2, 8))
        return Group(family, variant, n, gold / scored if scored else None, solved, broken, errors)

    result = [group(None, None, rows)]
    for family in dict.fromkeys(r[0] for r in rows):
        mine = [r for r in rows if r[0] == family]
        result.append(group(family, None, mine))
        if len(mine) > 1:
            result += [group(family, r[1], [r]) for r in mine]
    return result


class RunInfo(NamedTuple):
    """A run in one row."""

    path: Path
    title: str = ""
    model: str = ""
    status: str = ""
    created_at: float = 0.0
    planned: int = 0
    whole: Group | None = None
    """None where the run cannot be read."""
    problem: str = ""
    """Why it cannot be read."""


def run_info(path: Path) -> RunInfo:
    """A run in one row; never raises for what is wrong with it."""
    try:
        with Run(path) as run:
            meta = run.meta
            created = meta.get("created_at")
            return RunInfo(
                path,
                str(meta.get("title", "")),
                str(meta.get("model", "")),
                run.status,
                float(created) if isinstance(created, (int, float)) else 0.0,
                run.planned,
                _groups(run)[0],
            )
    except (RecordError, NotFoundError) as e:
        return RunInfo(path, status="damaged", problem=str(e))


def stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Changes when a run's files do."""
    result = []
    for name in (schema.FILE, schema.FILE + "-wal"):
        try:
            s = (path / name).stat()
            result.append((s.st_mtime_ns, s.st_size))
        except OSError:
            result.append((0, 0))
    return tuple(result)
