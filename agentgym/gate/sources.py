# SPDX-License-Identifier: Apache-2.0
"""Whatever holds trials, read as rows: a run, a baseline, a table in CSV or JSONL, another harness's results.

Nothing of another harness is imported: their files are read as the data they are.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentgym.errors import DataError, NotFoundError, did_you_mean
from agentgym.gate.rows import OK, STATUSES, Exposures, Origin, Rows, columns, concatenate
from agentgym.records.run import Run, find_run, runs_root

FORMATS = (
    "a run of agentgym; a baseline; .csv, .tsv or .jsonl (.gz) with the columns task and score; .eval or .json of inspect_ai,"
    " or a folder of .eval; results.json of promptfoo; a test run's .json of deepeval"
)
"""What `load` reads, in words."""


def load(name: str, runs: str | None = None, *, lines: bool = True) -> Rows:
    """The rows at a name: a file in one of the `FORMATS`, else a run.

    Args:
        name: as a person types it: a file, or a run's path, name, unique ending, or ``latest``.
        runs: folder of runs.
        lines: see `agentgym.gate.sources_run.run_rows`.

    Raises:
        NotFoundError: there is neither a file nor a run of that name.
        DataError: it is not in any of these formats, or a row in it cannot be used; the text names file and line.
        RecordError: the run is damaged.
    """
    path = Path(name)
    if path.is_file() and path.name != "run.sqlite":
        return _file(path)
    logs = sorted(path.glob("*.eval")) if path.is_dir() else []
    if logs:  # inspect_ai writes one for each task
        return concatenate([_file(log) for log in logs])
    from agentgym.gate.sources_run import run_rows

    try:
        found = find_run(name, runs_root(runs))
    except NotFoundError as e:
        if path.is_dir():
            raise NotFoundError(f"{name} is a folder and holds no run. Expected {FORMATS}") from e
        if path.suffix or "/" in name:
            raise NotFoundError(f"there is no file and no run {name}. Expected {FORMATS}") from e
        raise
    with Run(found) as run:
        return run_rows(run, name if path.exists() else str(found), lines=lines)


def _file(path: Path) -> Rows:
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind in ("csv", "tsv"):
        return _csv(path, "\t" if kind == "tsv" else ",")
    if kind in ("jsonl", "ndjson"):
        return _lines(path)
    if kind == "eval":
        from agentgym.gate.sources_inspect import eval_rows

        return eval_rows(path)
    if kind == "json":
        return _document(path)
    raise DataError(f"{path}: files named .{kind} are none that can be read. Expected {FORMATS}")


def read_text(path: Path) -> str:
    """A text file, gzipped or not.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start}): save it as UTF-8") from e
    except (OSError, EOFError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e


def _document(path: Path) -> Rows:
    text = read_text(path)
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as e:
        if text.lstrip().startswith("{") and "\n{" in text:
            raise DataError(f"{path} holds one JSON value a line: name it .jsonl") from e
        raise DataError(f"{path} is not JSON: {e}") from e
    if isinstance(document, dict):
        if "eval" in document and "plan" in document:
            from agentgym.gate.sources_inspect import log_rows

            return log_rows(path, document)
        if isinstance(document.get("results"), dict) and "results" in document["results"]:
            from agentgym.gate.sources_promptfoo import promptfoo_rows

            return promptfoo_rows(path, document)
        tests = document.get("testRunData", document)
        if isinstance(tests, dict) and "testCases" in tests:
            from agentgym.gate.sources_deepeval import deepeval_rows

            return deepeval_rows(path, tests)
    if isinstance(document, list) and all(isinstance(d, dict) for d in document):
        return table_rows(path, document, [f"{path}[{i}]" for i in range(len(document))])
    raise DataError(
        f"{path} is JSON, but neither of inspect_ai, promptfoo nor deepeval, nor a list of rows. Expected {FORMATS}"
    )


def _lines(path: Path) -> Rows:
    lines = read_text(path).split("\n")
    if lines and '"agentgym.baseline/' in lines[0][:200]:
        from agentgym.gate.baseline import parse_baseline

        return parse_baseline(path, lines)[1]
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    rows, places = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(decode(line))
        except msgspec.ValidationError as e:
            raise DataError(f'{path}:{number}: a row is an object like {{"task": "t1", "trial": 0, "score": 1}}') from e
        except msgspec.DecodeError as e:
            raise DataError(f"{path}:{number} is not JSON: {e}") from e
        places.append(f"{path}:{number}")
    return table_rows(path, rows, places)


def _csv(path: Path, separator: str) -> Rows:
    text, shown = read_text(path), str(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    head: list[str] = []
    rows: list[list[str]] = []
    places: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not head:
                head = [name.strip() for name in row]
                if len(head) == 1 and ";" in head[0]:
                    raise DataError(f"{path}:1: the columns are separated by semicolons: save it with commas")
                continue
            if len(row) != len(head):
                raise DataError(
                    f"{path}:{reader.line_num}: {len(row)} values under {len(head)} column names: a value that holds a"
                    " separator belongs into double quotes"
                )
            rows.append(row)
            places.append(f"{shown}:{reader.line_num}")
    except csv.Error as e:
        raise DataError(f"{path}:{reader.line_num} is not CSV: {e}") from e
    for name in head:
        if head.count(name) > 1:
            raise DataError(f"{path}:1: the column {name!r} is there twice")
    table: dict[str, Sequence[Any]] = dict.fromkeys(head, ())
    if rows:
        table = dict(zip(head, zip(*rows, strict=True), strict=True))
    return _table(path, table, places)


def table_rows(path: Path, rows: Sequence[dict[str, Any]], places: list[str]) -> Rows:
    """Rows of objects with the keys of a table; see docs/gate.md.

    Raises:
        DataError: a row cannot be used; the text names its place.
    """
    names = dict.fromkeys(k for row in rows for k in row)
    return _table(path, {n: [row.get(n) for row in rows] for n in names}, places)


_TEXT_COLUMNS = ("family", "variant", "twin_of", "cluster", "tags", "model", "env_hash", "verifier_hash", "address", "source")
_KNOWN = {"task", "trial", "status", "seed", "cached", "tokens", "cost_usd", "exposed", "violated", *_TEXT_COLUMNS}
_METRICS = ("score", "gold", "proxy")


def _table(path: Path, table: dict[str, Sequence[Any]], places: list[str]) -> Rows:
    if not places:
        raise DataError(
            f"{path} holds no rows: expected the columns task and score, and if there are any trial, cluster, family"
        )
    if "task" not in table:
        near = did_you_mean("task", [n for n in table if n not in _KNOWN])
        raise DataError(f"{places[0]}: there is no column `task`, which pairs the two sides.{near} There are: {_list(table)}")
    tasks = _texts(table["task"], places, "task", required=True)
    status = _status(table.get("status"), places, len(tasks))
    metrics: dict[str, Any] = {}
    for name, values in table.items():
        if name in _METRICS:
            metrics[name] = _metric(name, values, places, status)
        elif name not in _KNOWN:
            column = _numeric(values)  # columns of words are somebody's notes
            if column is not None:
                metrics[name] = column
    if not metrics:
        raise DataError(f"{places[0]}: there is no column `score`, nor any other of numbers. There are: {_list(table)}")
    if not any(m in metrics for m in _METRICS) and len(metrics) == 1:
        metrics = {"score": _metric(next(iter(metrics)), table[next(iter(metrics))], places, status)}
    trial = table.get("trial")
    if trial is None:
        trials = counted(tasks)
    else:
        trials = _wholes("trial", trial, places, least=0)
    texts = {n: _texts(table[n], places, n) for n in _TEXT_COLUMNS if n in table}
    texts["fingerprint"] = texts.pop("model", [""] * len(tasks))
    models = tuple(sorted(set(texts["fingerprint"]) - {""}))
    numbers: dict[str, Any] = {}
    for name, default in (("seed", -1), ("tokens", 0)):
        if name in table:
            numbers[name] = _wholes(name, [default if v in (None, "") else v for v in table[name]], places)
    if "cost_usd" in table:
        numbers["cost_usd"] = [_float(v, p, "cost_usd") or 0.0 for v, p in zip(table["cost_usd"], places, strict=True)]
    if "cached" in table:
        numbers["cached"] = [bool(_float(v, p, "cached")) for v, p in zip(table["cached"], places, strict=True)]
    if "tags" in texts:
        texts["tags"] = [" ".join(sorted(t.replace(",", " ").split())) for t in texts["tags"]]
    exposures = {}
    if "violated" in table:
        exposed = table.get("exposed", ["1"] * len(tasks))
        x = np.array([bool(_float(v, p, "exposed")) for v, p in zip(exposed, places, strict=True)], dtype=np.int64)
        v = np.array([bool(_float(v, p, "violated")) for v, p in zip(table["violated"], places, strict=True)], dtype=np.int64)
        if (v > x).any():
            raise DataError(f"{places[int(np.argmax(v > x))]}: violated, but not exposed: what could not be broken was not")
        exposures["policy"] = Exposures(x, v, v.astype(np.float64))
    texts.setdefault("address", places)
    texts.setdefault("source", places)
    return columns(
        Origin(name=str(path), kind="rows", models=models),
        task=tasks,
        trial=trials,
        metrics=metrics,
        exposures=exposures,
        places=places,
        status=status,
        **texts,
        **numbers,
    )


def counted(tasks: Iterable[str]) -> list[int]:
    """The number of each repetition of a task, in order."""
    seen: dict[str, int] = {}
    result = []
    for task in tasks:
        n = seen.get(task, 0)
        seen[task] = n + 1
        result.append(n)
    return result


def _texts(values: Sequence[Any], places: list[str], name: str, required: bool = False) -> list[str]:
    result: list[str] = []
    if set(map(type, values)) == {str}:
        result = list(map(str.strip, values))
        if not required or all(result):
            return result
        result.clear()
    for value, place in zip(values, places, strict=True):
        if isinstance(value, str):
            text = value.strip()
        elif value is None:
            text = ""
        elif isinstance(value, list) and name == "tags":
            text = " ".join(map(str, value))
        elif isinstance(value, (int, float)):
            text = str(value)
        else:
            raise DataError(f"{place}: {name} must be a text, not {type(value).__name__}")
        if required and not text:
            raise DataError(f"{place}: {name} is empty: every row says which task it is a trial of")
        result.append(text)
    return result


_OTHER_WORDS = {"": "ok", "error": "infrastructure", "infra": "infrastructure", "success": "ok", "completed": "ok"}


def _status(values: Sequence[Any] | None, places: list[str], n: int) -> Any:
    if values is None:
        return np.full(n, OK, dtype=np.uint8)
    result = np.zeros(n, dtype=np.uint8)
    for i, (value, place) in enumerate(zip(values, places, strict=True)):
        word = "" if value is None else str(value).strip().lower()
        word = _OTHER_WORDS.get(word, word)
        if word not in STATUSES:
            raise DataError(
                f"{place}: there is no status {value!r}.{did_you_mean(word, STATUSES)} There are: {_list(STATUSES)}"
            )
        result[i] = STATUSES.index(word)
    return result


_WORDS = {"true": 1.0, "false": 0.0, "": math.nan, "nan": math.nan, "pass": 1.0, "fail": 0.0}


def _float(value: Any, place: str, name: str) -> float | None:
    """A number; None for an empty cell."""
    if value is None:
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            number = _WORDS[word]
            return None if math.isnan(number) else number
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{place}: {name} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise DataError(f"{place}: {name} must be finite, not {value!r}")
    return number


def _wholes(name: str, values: Sequence[Any], places: list[str], least: int | None = None) -> Any:
    """A column of whole numbers."""
    try:
        column = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = (_float(v, p, name) for v, p in zip(values, places, strict=True))
        column = np.array([math.nan if x is None else x for x in found], dtype=np.float64)
    fits = np.isfinite(column) & (column == np.floor(column)) & (column >= (-math.inf if least is None else least))
    if not fits.all():
        row = int(np.argmin(fits))
        words = " from 0 on" if least == 0 else ""
        raise DataError(f"{places[row]}: {name} must be a whole number{words}, not {values[row]!r}")
    return column.astype(np.int64)


def _metric(name: str, values: Sequence[Any], places: list[str], status: Any) -> Any:
    """A metric: what was played and scored has a value, and nothing else does."""
    try:
        column = np.array(values, dtype=np.float64)  # the usual case, a hundred times faster
    except (TypeError, ValueError):
        column = np.array(
            [np.nan if (x := _float(v, p, name)) is None else x for v, p in zip(values, places, strict=True)], dtype=np.float64
        )
    wrong = np.flatnonzero(~np.isfinite(column) & (status == OK))
    if len(wrong):
        row = int(wrong[0])
        _float(values[row], places[row], name)  # says what is wrong with it, unless it is empty
        raise DataError(
            f"{places[row]}: {name} is empty. A trial that failed for reasons other than the agent's has the status"
            " `infrastructure`, one that could not be judged `unscorable`: neither is a zero"
        )
    return column


def _numeric(values: Sequence[Any]) -> Any:
    """A column of numbers, or of true and false, with NaN for empty cells; None where it is not one."""
    if all(v in (None, "") for v in values):
        return None
    try:
        words = (_WORDS.get(v.strip().lower(), v) if isinstance(v, str) else v for v in values)
        column = np.array([math.nan if v is None else v for v in words], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return None if np.isinf(column).any() else column


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def cell(value: Any) -> Iterator[float]:
    """``value`` as a number, if it is one; nothing else is."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        yield float(value)
