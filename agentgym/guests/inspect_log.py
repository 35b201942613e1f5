# SPDX-License-Identifier: Apache-2.0
"""Logs of inspect_ai: ``.eval`` (a zip of JSON files, read sample by sample) and ``.json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.guests.model import Guest, GuestEpisode, Remark, as_text, message, number, usage, when, whole
from agentgym.guests.readfile import Archive
from agentgym.protocols import Usage
from agentgym.scoring import Score
from agentgym.trajectory import Event

KIND = "inspect_ai"

_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""inspect_ai's letters as its own ``value_to_float`` reads them: correct, incorrect, partial, no answer."""

_LIMITS = {"message": "turns", "turn": "turns", "time": "time", "working": "time", "token": "tokens", "cost": "cost"}
"""Its names of limits -> ours; others stand as ``environment``."""

_TOLD_ELSEWHERE = frozenset(("model", "tool", "state", "store", "span_begin", "span_end", "step", "sample_init"))
"""Events that are the conversation itself, or its scaffolding."""


def archive(path: Path, remark: Remark) -> Guest:
    """An ``.eval`` file, also of an eval that did not end.

    Raises:
        DataError: it is no such file.
    """
    members = Archive(path, remark)
    names = members.names()
    if "header.json" in names:
        header = members.json("header.json")
    elif "_journal/start.json" in names:
        header = members.json("_journal/start.json")
        remark("the eval did not end; shown are the samples that it had finished")
    else:
        raise DataError(f"{path} is a zip file, but no log of inspect_ai: it holds no header.json")

    def samples() -> Iterator[Any]:
        for name in names:
            if name.startswith("samples/") and name.endswith(".json"):
                try:
                    yield members.json(name)
                except DataError as e:
                    remark(f"{e}; its sample is not shown")

    if not any(n.startswith("samples/") for n in names):
        remark("it holds no samples: it was run with --no-log-samples, or failed at the start")
    return _guest(path, header, samples())


def log(path: Path, document: dict[str, Any], remark: Remark) -> Guest:
    """A log that is one JSON value."""
    if not document.get("samples"):
        remark("it holds no samples: it was run with --no-log-samples, or failed at the start")
    return _guest(path, document, iter(document.get("samples") or []))


def _guest(path: Path, header: dict[str, Any], samples: Iterable[Any]) -> Guest:
    spec = header.get("eval") or {}
    packages = spec.get("packages") or {}
    dataset, config = spec.get("dataset") or {}, spec.get("config") or {}
    planned = len(dataset.get("sample_ids") or ()) or whole(dataset.get("samples"))
    name = str(spec.get("task") or path.stem)
    return Guest(
        kind=KIND,
        title=name,
        model=str(spec.get("model") or "?"),
        harness=f"inspect_ai {packages.get('inspect_ai', '')}".strip(),
        created_at=when(spec.get("created")),
        planned=planned * (whole(config.get("epochs")) or 1) or None,
        episodes=(_episode(name, s) for s in samples if isinstance(s, dict)),
    )


def _episode(family: str, sample: dict[str, Any]) -> GuestEpisode:
    attachments = sample.get("attachments")
    if isinstance(attachments, dict) and attachments:
        sample = _with_attachments(sample, attachments)
    rows = [r for r in sample.get("messages") or () if isinstance(r, dict)]
    messages = [m for m in map(message, rows) if m is not None]
    usages, events = _events(sample.get("events") or (), len([m for m in messages if m.role == "assistant"]))
    error, limit = sample.get("error"), sample.get("limit")
    kind = limit.get("type") if isinstance(limit, dict) else None
    scores = [_score(n, s) for n, s in (sample.get("scores") or {}).items()]
    metadata = sample.get("metadata")
    cluster = metadata.get("cluster") if isinstance(metadata, dict) else None
    return GuestEpisode(
        family=family,
        item=str(sample.get("id", sample.get("uuid", "?"))),
        trial=max(whole(sample.get("epoch")) - 1, 0),
        messages=messages,
        usages=usages,
        events=events + _tool_errors(rows),
        scores=scores,
        reward=next((s.value for s in scores if s.value is not None), None),
        truncation=None if kind is None else _LIMITS.get(str(kind), "environment"),
        error=None if not error else as_text(error.get("message", error) if isinstance(error, dict) else error),
        target=sample.get("target"),
        state={k: sample[k] for k in ("metadata", "store", "choices") if sample.get(k)},
        cluster=str(cluster) if cluster is not None else "",
        started_at=when(sample.get("started_at")),
        duration_s=number(sample.get("total_time")) or 0.0,
    )


def _tool_errors(rows: list[dict[str, Any]]) -> list[tuple[int, Event]]:
    found = []
    for i, r in enumerate(rows):
        if r.get("role") == "tool" and r.get("error"):
            turn = _turn_of(rows, i)
            found.append((turn, Event(turn, "tool.error", "env", str(r.get("tool_call_id") or ""), r["error"])))
    return found


def _turn_of(rows: list[dict[str, Any]], place: int) -> int:
    """Index of the assistant message before a row."""
    return len([r for r in rows[:place] if r.get("role") == "assistant"]) - 1


def _score(name: str, row: Any) -> Score:
    row = row if isinstance(row, dict) else {"value": row}
    value = row.get("value")
    if isinstance(value, str):
        given = _LETTERS.get(value, {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}.get(value.lower()))
    else:
        given = number(value)
    evidence = {k: row[k] for k in ("value", "answer", "metadata") if row.get(k) is not None}
    return Score(
        name,
        "metric",
        given,
        "ok" if given is not None else "unscorable",
        as_text(row.get("explanation") or ""),
        evidence=evidence,
    )


def _events(rows: Iterable[Any], turns: int) -> tuple[list[Usage], list[tuple[int, Event]]]:
    """Usage of each model call that is in the conversation, and what else was noted, at the call it follows."""
    usages: list[Usage] = []
    events: list[tuple[int, Event]] = []
    for row in rows:
        if not isinstance(row, dict):
            continue
        kind = row.get("event")
        if kind == "model":
            usages.append(usage((row.get("output") or {}).get("usage")))
        elif kind not in _TOLD_ELSEWHERE and kind is not None:
            data = {
                k: v for k, v in row.items() if k not in ("event", "timestamp", "uuid", "span_id", "working_start", "pending")
            }
            events.append((len(usages) - 1, Event(max(len(usages) - 1, -1), f"inspect.{kind}", "policy", "", data)))
    # calls of sub-agents and judges are in the events and not in the conversation: then no usage can be told apart
    return (usages if len(usages) == turns else []), events


def _with_attachments(value: Any, attachments: dict[str, Any]) -> Any:
    """``attachment://HASH`` replaced by what it stands for: long texts are kept once."""
    if isinstance(value, str):
        return attachments.get(value[13:], value) if value.startswith("attachment://") else value
    if isinstance(value, dict):
        return {k: v if k == "attachments" else _with_attachments(v, attachments) for k, v in value.items()}
    return [_with_attachments(v, attachments) for v in value] if isinstance(value, list) else value
