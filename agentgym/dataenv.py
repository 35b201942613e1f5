# SPDX-License-Identifier: Apache-2.0
"""Environments over data sets: rows from a local file or the Hugging Face hub, one task a row.

Rows are read once per file and process and checked when they are read: a malformed row is an error that names file and
line before the first episode, not in the middle of a run.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from agentgym.chat import is_unicode
from agentgym.env import ChatEnv, in_split
from agentgym.errors import DataError, NotFoundError, NothingSelectedError, UsageError, did_you_mean
from agentgym.task import Task

ENVIRONMENT_VARIABLE = "AGENTGYM_DATA"
"""Names the folder in which data files are looked for under their standard names."""

_HUB = "hf:"
_T = TypeVar("_T")


class Row(NamedTuple):
    """One row of a data set and where it stands."""

    place: str
    """For messages: ``line 7`` of a line file, ``row 7`` of anything else; counted from 1."""
    values: dict[str, Any]


class Rows(NamedTuple):
    """A data set as it was read."""

    source: str
    """The file, or the ``hf:`` name."""
    rows: list[Row]


def field(row: dict[str, Any], name: str, kind: type[_T]) -> _T:
    """The value of a field of a row that must be there.

    Args:
        row: as `DataEnv.row_task` gets it.
        name: the field's name.
        kind: the type it must have; a bool is not an int, an int is a float.

    Raises:
        DataError: the field is missing, of another type, or an empty text. `DataEnv` puts file and line in front.
    """
    if name not in row:
        raise DataError(f"the field {name!r} is missing; there are: {', '.join(map(repr, row)) or 'none'}")
    value: Any = row[name]
    if kind is float and type(value) is int and abs(value) < 1 << 63:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"the field {name!r} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, str) and not value.strip():
        raise DataError(f"the field {name!r} is empty")
    return value


class DataEnv(ChatEnv):
    """A `ChatEnv` whose tasks are the rows of a data set.

    To write one, say ``standard_name`` and ``row_task(row)``, and ``row_id`` where rows have names of their own. The data
    come from the argument ``data``, else from the file ``standard_name`` in the folder ``$AGENTGYM_DATA``. Where they
    come from is not part of the task id: the same row of the same set is the same task wherever the file lies.

    Args:
        data: a file of JSON lines or with a JSON list of objects (either may be compressed, ``.gz``), a folder that
            holds ``standard_name``, or ``hf:NAME[:CONFIG[:SPLIT]]`` for a set of the Hugging Face hub or in its formats
            (NAME may be a local folder; an empty CONFIG is the default one; the default SPLIT is ``test``). Opened when
            the first task is asked for, not before.
        split: ``"train"`` or ``"eval"``: four or one in five of the rows, by a hash of the row id.
        **kwargs: see `ChatEnv`.
    """

    standard_name: ClassVar[str] = ""
    """File name under which the data set is looked for in ``$AGENTGYM_DATA``."""
    max_turns: ClassVar[int] = 1

    def __init__(self, *, data: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._data = data
        self._loaded: tuple[Rows, dict[str, int]] | None = None

    # -- what authors write -------------------------------------------------------------------------------------------

    def row_id(self, row: dict[str, Any], index: int) -> str:
        """The row's own name, unique in the set; its place (``"0"`` for the first) by default.

        Args:
            row: the row's values.
            index: its place, counted from 0.
        """
        return str(index)

    def row_task(self, row: dict[str, Any]) -> Task:
        """The task that a row describes. Use `field` to read it; raise `DataError` for what cannot be used.

        It is called once for every row when the data are first opened, to check them, and again for each task played.
        """
        raise NotImplementedError(f"{type(self).__name__} must define row_task(row)")

    # -- where the rows are -------------------------------------------------------------------------------------------

    @property
    def data(self) -> str:
        """Where the rows come from: the path of a file, or an ``hf:`` name.

        Raises:
            UsageError: neither ``data`` nor ``$AGENTGYM_DATA`` says where they are.
            DataError: there is no such file.
        """
        given = self._data
        if given is not None:
            if given.startswith(_HUB):
                return given
            path = Path(given).expanduser()
            if path.is_dir():
                path /= self.standard_name
            if not path.is_file():
                raise DataError(f"{self.family}: there is no data file {path}")
            return str(path)
        name = self.standard_name
        folder = os.environ.get(ENVIRONMENT_VARIABLE)
        ways = f"Give it with --data PATH (data=... in Python), or put {name} into the folder that {ENVIRONMENT_VARIABLE} names"
        if not folder:
            raise UsageError(f"{self.family} needs its data file {name}. {ways} ({ENVIRONMENT_VARIABLE} is not set).")
        path = Path(folder).expanduser() / name
        if not path.is_file():
            raise DataError(f"{self.family} needs its data file, and {path} does not exist. {ways} (now {folder}).")
        return str(path)

    def _index(self) -> tuple[Rows, dict[str, int]]:
        """The rows and id -> place; every row checked."""
        if self._loaded is None:
            rows = load_rows(self.data)
            key = (type(self), rows.source, self.variant, repr(sorted(self.params.items())))
            known = _indexes.get(key)
            if known is None or known[0] is not rows:
                known = rows, self._check(rows)
                _indexes[key] = known
            self._loaded = known
        return self._loaded

    def _check(self, rows: Rows) -> dict[str, int]:
        index: dict[str, int] = {}
        for i, row in enumerate(rows.rows):
            try:
                name = self.row_id(row.values, i)
                if not isinstance(name, str) or not name or not name.isprintable() or " " in name or len(name) > 200:
                    raise DataError(f"{name!r} cannot be a row id: it must be text of 1 to 200 characters without spaces")
                if name in index:
                    raise DataError(f"the id {name!r} is also that of {rows.rows[index[name]].place}")
                self.row_task(row.values)
            except DataError as e:
                raise DataError(f"{rows.source}, {row.place}: {e}") from None
            index[name] = i
        return index

    # -- tasks --------------------------------------------------------------------------------------------------------

    def items(self, limit: int | None = None) -> list[str]:
        """Row ids of the split in the order of the file; all of them where no limit is given."""
        found = [name for name in self._index()[1] if self.split is None or _in_split(name, self.split)]
        return found if limit is None else found[: max(limit, 0)]

    def make_task(self, item: str) -> Task:
        """The task of the row with this id.

        Raises:
            NotFoundError: there is no such row.
            DataError: the data cannot be read.
        """
        rows, index = self._index()
        if item not in index:
            near = did_you_mean(item, index) if len(index) <= 5000 else ""
            raise NotFoundError(f"{self.label} has no row {item!r} in {rows.source} ({len(index):,} rows).{near}")
        task = self.row_task(rows.rows[index[item]].values)
        task.seed = None
        return self._finish_task(task, item, zlib.crc32(item.encode()))

    def cluster_of(self, task: Task) -> str:
        """The row (twins of a row share a cluster), unless the task names another."""
        return task.cluster or f"{task.family}/{task.item}"

    def _item_of_seed(self, seed: int) -> str:
        """The row at place ``seed``, counted in the split and around its end."""
        items = self.items()
        if not items:
            raise NothingSelectedError(f"{self.label}: no row of {self._index()[0].source} lies in the split {self.split!r}")
        return items[seed % len(items)]


def _in_split(name: str, split: str) -> bool:
    """As `agentgym.env.in_split`, for a row id."""
    in_split(0, split)  # refuses an unknown split
    return (zlib.crc32(b"split:" + name.encode()) % 5 == 0) == (split == "eval")


# ---------------------------------------------------------------------------------------------------------------------
# Reading

_files: dict[str, tuple[tuple[int, int], Rows]] = {}
_sets: dict[str, Rows] = {}
_indexes: dict[Any, tuple[Rows, dict[str, int]]] = {}
# Environments are made by the hundred, on several threads; two that read the same file at once do the work twice and
# agree, so these caches need no lock. A file that has changed is read again and its old rows are forgotten.

_decoder = msgspec.json.Decoder(dict[str, Any])


def load_rows(source: str) -> Rows:
    """The rows of a data set, read once per process as long as the file stays the same.

    Args:
        source: path of a ``.jsonl`` or ``.json`` file, or one of these with ``.gz``; or ``hf:NAME[:CONFIG[:SPLIT]]``.

    Raises:
        DataError: the file cannot be read, is empty, or has a malformed row, which is named.
        UsageError: ``hf:`` without the ``datasets`` library.
    """
    if source.startswith(_HUB):
        if source not in _sets:
            _sets[source] = Rows(source, _load_hub(source))
        return _sets[source]
    try:
        status = os.stat(source)
        version = (status.st_mtime_ns, status.st_size)
        key = os.path.abspath(source)
        known = _files.get(key)
        if known is not None and known[0] == version:
            return known[1]
        data = Path(source).read_bytes()
        if source.endswith(".gz"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{source} cannot be read: {e}") from None
    rows = Rows(source, _read(data, source))
    _files[key] = (version, rows)
    return rows


def _read(data: bytes, source: str) -> list[Row]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if source.removesuffix(".gz").endswith(".json") and data.lstrip()[:1] == b"[":
        rows = _read_list(data, source)
    else:
        rows = []
        for i, line in enumerate(data.split(b"\n"), 1):
            if not line or line.isspace():
                continue
            try:
                rows.append(Row(f"line {i}", _decoder.decode(line)))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
                raise DataError(f"{source}, line {i}: {_what_is_wrong(line, e, dict)}") from None
    if not rows:
        raise DataError(f"{source} is empty: it holds no row")
    return rows


def _read_list(data: bytes, source: str) -> list[Row]:
    try:
        values = msgspec.json.decode(data, type=list[Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise DataError(f"{source}: {_what_is_wrong(data, e, list)}") from None
    for i, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise DataError(f"{source}, row {i}: expected an object, not {_kind(value)}")
    return [Row(f"row {i}", value) for i, value in enumerate(values, 1)]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _what_is_wrong(text: bytes, error: Exception, wanted: type) -> str:
    """Why a text that the fast parser refused with ``error`` is not the JSON that was wanted, in words."""
    try:
        value = json.loads(text.decode())
    except UnicodeDecodeError as e:
        return f"not valid UTF-8 (byte {e.start}: 0x{text[e.start]:02x})"
    except json.JSONDecodeError as e:
        where = f"character {e.pos}" if e.lineno == 1 else f"line {e.lineno}, column {e.colno}"
        return f"not valid JSON: {e.msg} ({where})"
    except (ValueError, RecursionError):
        return "not valid JSON: nested too deeply, or a number with too many digits"
    if not isinstance(value, wanted):
        return f"expected an object, not {_kind(value)}"
    if not is_unicode(json.dumps(value, ensure_ascii=False)):
        return "a text holds a lone surrogate (\\ud800 to \\udfff without its other half), which is not a character"
    return f"not valid JSON: {error}"


def _load_hub(source: str) -> list[Row]:
    """Rows through the ``datasets`` library."""
    parts = source.removeprefix(_HUB).split(":")
    name, config, split = (*parts, "", "", "")[:3]
    if not name or len(parts) > 3:
        raise UsageError(f"{source!r} is not a data set: expected hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT")
    try:
        import datasets
    except ImportError:
        raise UsageError(f"{source} needs the datasets library: pip install 'agentgym-harness[data]'") from None
    try:
        loaded = datasets.load_dataset(os.path.expanduser(name), config or None)
    except Exception as e:  # the library raises whatever its parsers, file systems and HTTP clients raise
        raise DataError(f"{source} cannot be loaded: {type(e).__name__}: {e}") from e
    splits = list(loaded)
    if not split:
        split = "test" if "test" in splits or len(splits) != 1 else splits[0]
    if split not in splits:
        raise DataError(f"{source}: there is no split {split!r}; there are: {', '.join(map(str, splits))}")
    rows = [Row(f"row {i}", dict(values)) for i, values in enumerate(loaded[split], 1)]
    if not rows:
        raise DataError(f"{source} is empty: its split {split!r} holds no row")
    return rows
