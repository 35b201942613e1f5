# SPDX-License-Identifier: Apache-2.0
"""Logs of inspect_ai as rows: ``.eval`` (a zip of JSON files, which newer versions compress with zstd) and ``.json``."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from agentgym.errors import DataError
from agentgym.gate.rows import INFRASTRUCTURE, OK, UNSCORABLE, Origin, Rows, columns

_ZSTD = 93
"""Compression method of zip (APPNOTE 4.4.5), which Python's zipfile reads from 3.14 on."""

_MOST_BYTES = 1 << 31

_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""inspect_ai's letters, as its own ``value_to_float`` reads them: correct, incorrect, partial, no answer."""


def eval_rows(path: Path) -> Rows:
    """The samples of an ``.eval`` file.

    Raises:
        DataError: it is not one, it is damaged, or nothing in it was scored.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "header.json" not in names:
                if "_journal/start.json" not in names:
                    raise DataError(f"{path} is a zip file, but no log of inspect_ai: it holds no header.json")
                raise DataError(
                    f"{path}: the eval did not end, so that its log has no header.json: `inspect eval-retry {path}` ends it"
                )
            header = _member(path, archive, "header.json")
            if "summaries.json" in names:
                samples = _member(path, archive, "summaries.json")
            else:
                found = sorted(n for n in names if n.startswith("samples/") and n.endswith(".json"))
                samples = [_member(path, archive, n) for n in found]
    except (zipfile.BadZipFile, OSError, ValueError, zstandard.ZstdError, NotImplementedError) as e:
        raise DataError(f"{path} cannot be read as a log of inspect_ai: {e}") from e
    return _rows(path, header, samples)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    info = archive.getinfo(name)
    if info.file_size > _MOST_BYTES:
        raise DataError(f"{path}: {name} says it is {info.file_size:,} bytes long, which cannot be right")
    if info.compress_type == _ZSTD:
        with path.open("rb") as file:
            file.seek(info.header_offset)
            head = file.read(30)
            file.seek(sum(struct.unpack("<HH", head[26:30])), 1)  # the name and the extra field
            packed = file.read(info.compress_size)
        data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    else:
        data = archive.read(name)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as e:
        raise DataError(f"{path}: {name} is not JSON: {e}") from e


def log_rows(path: Path, document: dict[str, Any]) -> Rows:
    """The samples of a log in JSON.

    Raises:
        DataError: nothing in it was scored.
    """
    return _rows(path, document, document.get("samples") or [])


def _rows(path: Path, header: dict[str, Any], samples: Iterable[dict[str, Any]]) -> Rows:
    spec = header.get("eval") or {}
    name = str(spec.get("task") or "task")
    dataset, config = spec.get("dataset") or {}, spec.get("config") or {}
    epochs = config.get("epochs") or 1
    planned = len(dataset.get("sample_ids") or []) or dataset.get("samples")
    found: dict[str, list[Any]] = {n: [] for n in ("task", "trial", "status", "cluster", "tokens", "places", "scores")}
    for sample in samples:
        id_ = f"{name}/{sample.get('id')}"
        scores = _scores(sample.get("scores") or {})
        metadata = sample.get("metadata") or {}
        if sample.get("error"):
            status = INFRASTRUCTURE
        else:
            status = OK if any(not math.isnan(v) for v in scores.values()) else UNSCORABLE
        usage = (sample.get("model_usage") or {}).values()
        found["task"].append(id_)
        found["trial"].append(int(sample.get("epoch") or 1) - 1)
        found["status"].append(status)
        cluster = metadata.get("cluster") if isinstance(metadata, dict) else None
        found["cluster"].append(str(cluster) if cluster is not None else "")
        found["tokens"].append(sum(int(u.get("total_tokens") or 0) for u in usage))
        found["places"].append(f"{path}#{sample.get('id')}@{sample.get('epoch') or 1}")
        found["scores"].append(scores if status == OK else {})
    if not found["task"]:
        why = (header.get("error") or {}).get("message") or f"its status is {header.get('status')!r}"
        raise DataError(f"{path} holds no samples ({why}): was it run with --no-log-samples, or did it fail at the start?")
    scored = dict.fromkeys(n for scores in found["scores"] for n in scores)
    names = scored or dict.fromkeys(s["name"] for s in spec.get("scorers") or [] if isinstance(s, dict) and "name" in s)
    packages = spec.get("packages") or {}
    return columns(
        Origin(
            name=str(path),
            kind="inspect",
            models=(str(spec.get("model", "?")),),
            sampling=dict(spec.get("model_generate_config") or {}),
            planned=int(planned) * int(epochs) if planned else None,
            harness=f"inspect_ai {packages.get('inspect_ai', '')}".strip(),
            created=str(spec.get("created") or ""),
        ),
        task=found["task"],
        trial=found["trial"],
        metrics={n: [s.get(n, math.nan) for s in found["scores"]] for n in names or ("score",)},
        places=found["places"],
        family=name,
        cluster=found["cluster"],
        status=found["status"],
        tokens=found["tokens"],
        fingerprint=str(spec.get("model", "")),
        address=found["places"],
        source=f"{spec['task_file']}:1" if spec.get("task_file") else "",
    )


def _scores(scores: dict[str, Any]) -> dict[str, float]:
    """Scorer -> value; of a scorer with several values ``SCORER/NAME``."""
    result: dict[str, float] = {}
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            result |= {f"{name}/{key}": _number(v) for key, v in value.items()}
        else:
            result[name] = _number(value)
    return result


def _number(value: Any) -> float:
    """As inspect_ai's ``value_to_float``; NaN for what it could not judge."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else math.nan
    if isinstance(value, str):
        if value in _VALUES:
            return _VALUES[value]
        word = value.strip().lower()
        if word in ("yes", "true"):
            return 1.0
        if word in ("no", "false"):
            return 0.0
        try:
            number = float(word)
        except ValueError:
            return math.nan
        return number if math.isfinite(number) else math.nan
    return math.nan
