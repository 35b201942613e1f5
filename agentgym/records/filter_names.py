# SPDX-License-Identifier: Apache-2.0
"""Help with writing a filter: the names that a run has, how what was typed goes on, and why nothing fits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from agentgym.errors import did_you_mean
from agentgym.records.filter import CUTS, FIELDS, OUTCOMES, STATES, Filter
from agentgym.records.run import Run

MOST_NAMES = 2_000
"""Of one field; a run has few families and rules, but may have a tag for each item."""

Names = dict[str, list[str]]
"""Field -> its names in a run, sorted."""


class Completion(NamedTuple):
    """One way to go on."""

    text: str
    """The whole filter with it."""
    word: str
    """The part that is new or replaced, to show in a list."""
    about: str


def names(run: Run) -> Names:
    """What a run's families, variants, dimensions, rules, tags and scores are called."""

    def column(sql: str) -> list[str]:
        return sorted({str(row[0]) for row in run._rows(f"{sql} LIMIT {MOST_NAMES}") if row[0] is not None})

    tags = {tag for line in column("SELECT DISTINCT tags FROM episodes") for tag in line.split()}
    return {
        "family": column("SELECT DISTINCT family FROM episodes"),
        "variant": column("SELECT DISTINCT variant FROM episodes"),
        "tag": sorted(tags)[:MOST_NAMES],
        "dim": column("SELECT DISTINCT dimension FROM findings WHERE violation"),
        "rule": column("SELECT DISTINCT rule FROM findings WHERE violation"),
        "exposed": column("SELECT DISTINCT dimension FROM findings WHERE exposure"),
        "score": column("SELECT DISTINCT name FROM scores"),
        "error": column("SELECT DISTINCT error_kind FROM episodes WHERE outcome = 'infrastructure'"),
        "outcome": list(OUTCOMES),
        "cut": list(CUTS),
        "is": list(STATES),
    }


_LAST = re.compile(
    r"(?:^|(?<=[\s(]))-?(?:"
    r'(?P<name>[A-Za-z_]\w*):(?:"[^"]*",|[^\s",]*,)*(?P<value>"[^"]*|[^\s",()]*)'
    r'|(?P<word>[A-Za-z_]\w*(?:\."?[^\s"<>=!:()]*)?))$'
)
"""The unfinished word at the end: after ``name:`` (and other values with commas), or a field's name itself."""


def complete(text: str, known: Names, most: int = 8) -> list[Completion]:
    """How a filter that ends with an unfinished word may go on; empty where nothing is known.

    Args:
        text: the filter up to the place where one types.
        known: of `names`.
        most: at most so many.
    """
    found = _LAST.search(text)
    in_quotes = text.count('"') % 2 == 1
    if found is None or (in_quotes and '"' not in (found["value"] or found["word"] or "")):
        return []
    if found["name"] is not None:
        name, value = found["name"].lower(), found["value"].lstrip('"').lower()
        head = text[: found.start("value")]
        fitting = map(quoted, _fitting(value, known.get(name, ()))[:most])
        return [Completion(head + one, one, name) for one in fitting]
    word = found["word"].lower()
    head = text[: found.start("word")]
    if word.startswith("score."):
        part = word.removeprefix("score.").lstrip('"')
        fitting = map(quoted, _fitting(part, known.get("score", ()))[:most])
        return [Completion(f"{head}score.{one}", f"score.{one}", "score") for one in fitting]
    result: list[Completion] = []
    for name in FIELDS:
        if name.startswith(word):
            ending = "." if name == "score" else "" if FIELDS[name].kind == "number" else ":"
            result.append(Completion(f"{head}{name}{ending}", f"{name}{ending}", FIELDS[name].about))
    return result[:most]


def _fitting(part: str, known: Iterable[str]) -> list[str]:
    """Names that begin so, then names with a part that does."""
    lowered = [(name.lower(), name) for name in known]
    first = [name for low, name in lowered if low.startswith(part)]
    return first + [name for low, name in lowered if part and not low.startswith(part) and part in low]


def quoted(name: str) -> str:
    """The name as a filter has to have it."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[\s",*()]', name) or not name else name


def why_none(run: Run, wanted: Filter, known: Names) -> str:
    """Why no episode fits, in one sentence: a term that fits nothing by itself, with near names, or only all together."""
    if not run.ids(limit=1):
        return "the run has no episode on record yet"
    for term in wanted.terms:
        if run.ids(term.sql, term.values, limit=1):
            continue
        near = ""
        if term.name in known and ":" in term.text:
            value = term.text.partition(":")[2].strip('"')
            near = did_you_mean(value, known[term.name])
            if not near and 0 < len(known[term.name]) <= 6:
                near = f" It has: {', '.join(known[term.name])}."
        return f"no episode fits {term.text} by itself.{near}"
    return "episodes fit each condition, none fits all"
