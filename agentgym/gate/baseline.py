# SPDX-License-Identifier: Apache-2.0
"""A baseline: a reviewed sample of trials as a text file in git, one line a task, equal bytes for equal content.

It holds what a comparison needs (scores, exposures, clusters, hashes of task, environment and verifiers) and nothing that
was said: no prompts, no answers, no trajectories. It is a sample that somebody accepted, never an average over past runs,
which would drift along with what it should hold.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentgym.errors import DataError, RecordError
from agentgym.gate.rows import OK, STATUSES, Exposures, Origin, Rows, columns
from agentgym.gate.sources import read_text

SCHEMA = "agentgym.baseline/1"

ENOUGH_CLUSTERS = 5
"""With fewer independent units no test can tell a regression from luck: 2 ** -4 is more than 5 %."""

ENOUGH_TASKS = 20
"""A family with so many tasks is tested on its own, its tasks as the units."""


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The first line of a baseline."""

    schema: str
    name: str = ""
    """The run it was made of."""
    kind: str = "run"
    tasks: int = 0
    trials: int = 0
    """Trials a task: the most that any has."""
    models: tuple[str, ...] = ()
    sampling: dict[str, Any] = {}
    environments: dict[str, str] = {}
    verifiers: dict[str, str] = {}
    suite: str = ""
    planned: int | None = None
    harness: str = ""
    created: str = ""
    accepted_by: str = ""
    reason: str = ""
    """Why it was accepted."""
    expires: datetime.date | None = None
    """From this day on `agentgym baseline check` fails: somebody should look whether it still is what is wanted."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One task with its trials, in their order."""

    task: str
    metrics: dict[str, list[float | None]] = {}
    trials: list[int] | None = None
    """None: 0, 1, 2 ..."""
    status: list[str] | None = None
    """None: all ``ok``."""
    exposures: dict[str, list[tuple[int, int, float]]] = {}
    """``DIMENSION[/RULE]`` -> (opportunities, violations, weight) a trial; left out where there was no opportunity."""
    family: str = ""
    variant: str = ""
    twin_of: str = ""
    cluster: str = ""
    """``""``: the task itself."""
    tags: str = ""
    seed: int = -1
    env: str = ""
    verifier: str = ""
    model: str | list[str] = ""
    cached: list[bool] | None = None
    tokens: list[int] | None = None
    cost_usd: list[float] | None = None
    source: str = ""


def few_clusters(rows: Rows) -> str | None:
    """Why nothing, or not the whole, can ever be a REGRESSION against these rows; None where it can."""
    if rows.clusters >= ENOUGH_CLUSTERS:
        return None
    n = rows.clusters
    head = f"{n} cluster{'s' * (n != 1)}, and fewer than {ENOUGH_CLUSTERS} can never give REGRESSION"
    tasks = {f: len(np.unique(rows.task.codes[rows.family.where(f)])) for f in rows.family.names}
    large = [f for f, n in tasks.items() if n >= ENOUGH_TASKS and f]
    if large:
        return f"{head} for the suite as a whole: only the families tested on their own can ({', '.join(large)})"
    return (
        f"{head}, whatever happens: add tasks of other families, hand-written or data tasks (each is its own cluster), or make"
        f" a family {ENOUGH_TASKS} tasks large, which is then tested on its own"
    )


def header_of(rows: Rows, *, accepted_by: str = "", reason: str = "", expires: datetime.date | None = None) -> Header:
    """The header for a baseline of these rows."""
    o = rows.origin
    return Header(
        schema=SCHEMA, name=Path(o.name).name, kind=o.kind, tasks=rows.tasks, trials=rows.trials, models=o.models,
        sampling=o.sampling, environments=o.environments, verifiers=o.verifiers, suite=o.suite, planned=o.planned,
        harness=o.harness, created=o.created, accepted_by=accepted_by, reason=reason, expires=expires,
    )  # fmt: skip


def encode(header: Header, rows: Rows) -> bytes:
    """The file's bytes: equal for equal content, whatever the order in which it was played."""
    lines = [_json(header), *map(_json, _lines(rows))]
    return b"\n".join(lines) + b"\n"


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _lines(rows: Rows) -> Iterator[_Line]:
    """The lines, in the order of task ids."""
    starts: list[int] = np.flatnonzero(np.r_[True, rows.task.codes[1:] != rows.task.codes[:-1]]).tolist() if len(rows) else []
    for first, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        part, n = slice(first, end), end - first
        trials = rows.trial[part].tolist()
        status = [STATUSES[s] for s in rows.status[part].tolist()]
        models = [rows.fingerprint.names[c] for c in rows.fingerprint.codes[part].tolist()]
        tokens, cost = rows.tokens[part].tolist(), rows.cost_usd[part].tolist()
        cached = rows.cached[part].tolist()
        exposures = {
            name: list(zip(*(c[part].tolist() for c in e), strict=True))
            for name, e in rows.exposures.items()
            if e.opportunities[part].any()
        }
        task, cluster, source = rows.task.at(first), rows.cluster.at(first), rows.source.at(first)
        yield _Line(
            task=task,
            metrics={
                name: [None if math.isnan(v) else _tidy(v) for v in values[part].tolist()]
                for name, values in rows.metrics.items()
                if not np.isnan(values[part]).all()
            },
            trials=None if trials == list(range(n)) else trials,
            status=None if set(status) == {"ok"} else status,
            exposures=exposures,
            family=rows.family.at(first),
            variant=rows.variant.at(first),
            twin_of=rows.twin_of.at(first),
            cluster="" if cluster == task else cluster,
            tags=rows.tags.at(first),
            seed=int(rows.seed[first]),
            env=rows.env_hash.at(first),
            verifier=rows.verifier_hash.at(first),
            model=models[0] if len(set(models)) == 1 else models,
            cached=cached if any(cached) else None,
            tokens=tokens if any(tokens) else None,
            cost_usd=cost if any(cost) else None,
            source="" if os.path.isabs(source) or source == rows.address.at(first) else source,
        )


def _tidy(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def write(path: Path, header: Header, rows: Rows) -> None:
    """Writes the file, whole or not at all.

    Raises:
        RecordError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(encode(header, rows))
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"cannot write {path}: {e.strerror}") from e


def read(path: Path) -> tuple[Header, Rows]:
    """A baseline.

    Raises:
        DataError: it is not one, or damaged; the text names the line.
    """
    return parse_baseline(path, read_text(path).split("\n"))


_header = msgspec.json.Decoder(Header)
_line = msgspec.json.Decoder(_Line)


def read_header(path: Path) -> Header:
    """The first line of a baseline.

    Raises:
        DataError: see `read`.
    """
    return _decode_header(path, read_text(path).split("\n", 1))


def _decode_header(path: Path, lines: Sequence[str]) -> Header:
    try:
        header = _header.decode(lines[0])
    except (msgspec.MsgspecError, IndexError) as e:
        if "<<<<<<<" in "".join(lines[:1]):
            raise DataError(f"{path}:1: the file holds marks of a git merge: make it anew of one run") from e
        raise DataError(
            f"{path}:1 is not the header of a baseline: {e}. `agentgym baseline create RUN -o {path}` makes one"
        ) from e
    if header.schema != SCHEMA:
        raise DataError(f"{path}: it is a {header.schema}, and this version reads {SCHEMA}: upgrade agentgym, or make it anew")
    return header


def parse_baseline(path: Path, lines: Sequence[str]) -> tuple[Header, Rows]:
    """A baseline of the lines of its file.

    Raises:
        DataError: see `read`.
    """
    header = _decode_header(path, lines)
    table: dict[str, list[Any]] = {n: [] for n in (*_SAME, *_PER_TRIAL)}
    metrics: dict[str, list[float]] = {}
    exposures: dict[str, list[tuple[int, int, float]]] = {}
    n = 0
    for number, text in enumerate(lines[1:], 2):
        if not text.strip():
            continue
        place = f"{path}:{number}"
        try:
            line = _line.decode(text)
        except msgspec.MsgspecError as e:
            if text.startswith(("<<<<<<<", "=======", ">>>>>>>")):
                raise DataError(f"{place}: the file holds marks of a git merge: make it anew of one run") from e
            raise DataError(f"{place} is not a task of a baseline: {e}") from e
        k = _trials(line, place)
        for name, values in line.metrics.items():
            column = metrics.setdefault(name, [])
            column += [math.nan] * (n - len(column))
            column += [math.nan if v is None else v for v in values]
        for name, found in line.exposures.items():
            column_ = exposures.setdefault(name, [])
            column_ += [_NONE] * (n - len(column_))
            column_ += found
        table["trial"] += line.trials or range(k)
        table["status"] += [STATUSES.index(s) for s in line.status] if line.status else [OK] * k
        table["fingerprint"] += [line.model] * k if isinstance(line.model, str) else line.model
        table["cached"] += line.cached or [False] * k
        table["tokens"] += line.tokens or [0] * k
        table["cost_usd"] += line.cost_usd or [0.0] * k
        source = line.source or place
        same = (line.task, line.family, line.variant, line.twin_of, line.cluster, line.tags, line.seed, line.env, line.verifier)
        for name, value in zip(_SAME, (*same, source, place), strict=True):
            table[name] += [value] * k
        n += k
    if not n:
        raise DataError(f"{path} holds no tasks: `agentgym baseline create RUN -o {path}` makes it anew")
    arrays = {}
    for name, counts in exposures.items():
        x = np.array(counts + [_NONE] * (n - len(counts)), dtype=np.float64)
        arrays[name] = Exposures(x[:, 0].astype(np.int64), x[:, 1].astype(np.int64), x[:, 2])
    origin = Origin(
        name=str(path), kind="baseline", models=header.models, sampling=header.sampling, environments=header.environments,
        verifiers=header.verifiers, suite=header.suite, planned=header.planned, harness=header.harness, created=header.created,
    )  # fmt: skip
    padded = {name: column + [math.nan] * (n - len(column)) for name, column in metrics.items()}
    places = table["address"]
    return header, columns(origin, metrics=padded, exposures=arrays, places=places, **table)


_NONE = (0, 0, 0.0)
_SAME = (
    "task", "family", "variant", "twin_of", "cluster", "tags", "seed", "env_hash", "verifier_hash", "source", "address",
)  # fmt: skip
_PER_TRIAL = ("trial", "status", "fingerprint", "cached", "tokens", "cost_usd")


def _trials(line: _Line, place: str) -> int:
    """How many trials a line holds, each of its lists being that long."""
    plain = line.trials is None and line.status is None and line.cached is None and isinstance(line.model, str)
    if plain and not line.exposures:
        found = {len(x) for x in (*line.metrics.values(), line.tokens, line.cost_usd) if x is not None}
        if len(found) == 1:  # the usual line, without words for what could be wrong with it
            return found.pop()
    parts: dict[str, Sequence[Any]] = {f"metrics.{n}": v for n, v in line.metrics.items()}
    parts |= {f"exposures.{n}": v for n, v in line.exposures.items()}
    for name in ("trials", "status", "cached", "tokens", "cost_usd"):
        value = getattr(line, name)
        if value is not None:
            parts[name] = value
    if isinstance(line.model, list):
        parts["model"] = line.model
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{place}: the lists of {line.task!r} differ in length: {lengths}")
    for word in line.status or ():
        if word not in STATUSES:
            raise DataError(f"{place}: there is no status {word!r}; there are {', '.join(STATUSES)}")
    return next(iter(lengths.values()), 0)


def differences(old: Rows, new: Rows) -> Iterator[str]:
    """What differs between two baselines, for a review: tasks that came, went or changed, and where means moved."""
    before, after = set(old.task.names), set(new.task.names)
    for task in sorted(after - before):
        yield f"+ {task}"
    for task in sorted(before - after):
        yield f"- {task}"
    common = sorted(before & after)
    sides = [{t: i for i, t in reversed(list(enumerate(_texts(r.task))))} for r in (old, new)]
    for task in common:
        a, b = sides[0][task], sides[1][task]
        changed = [
            word
            for word, column in (("task or environment", "env_hash"), ("verifiers", "verifier_hash"), ("cluster", "cluster"))
            if getattr(old, column).at(a) != getattr(new, column).at(b)
        ]
        if changed:
            yield f"! {task}: {' and '.join(changed)} changed"
    for metric in [m for m in old.metrics if m in new.metrics]:
        x, y = _means(old, metric), _means(new, metric)
        moved = [(t, x[t], y[t]) for t in common if t in x and t in y and x[t] != y[t]]
        for task, was, is_ in sorted(moved, key=lambda m: (m[2] - m[1], m[0])):
            yield f"~ {task}: {metric} {was:.3g} -> {is_:.3g}"


def _texts(column: Any) -> list[str]:
    return [column.names[c] for c in column.codes.tolist()]


def _means(rows: Rows, metric: str) -> dict[str, float]:
    values = rows.values(metric)
    known = ~np.isnan(values)
    n = np.bincount(rows.task.codes[known], minlength=rows.tasks)
    total = np.bincount(rows.task.codes[known], weights=values[known], minlength=rows.tasks)
    return {t: total[i] / n[i] for i, t in enumerate(rows.task.names) if n[i]}
