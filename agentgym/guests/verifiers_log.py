# SPDX-License-Identifier: Apache-2.0
"""Results of verifiers: ``results.jsonl`` beside ``metadata.json`` (0.1), and ``traces.jsonl`` of message graphs (0.4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.chat import assistant, user
from agentgym.errors import DataError
from agentgym.guests import readfile
from agentgym.guests.model import Guest, GuestEpisode, Remark, as_text, message, number, usage, when, whole
from agentgym.protocols import NO_USAGE, Tokens, Usage
from agentgym.scoring import Score
from agentgym.trajectory import Event

_ROWS, _TRACES = "results.jsonl", "traces.jsonl"

_STOPS = {
    "max_turns_reached": "turns", "max_turns": "turns", "max_total_completion_tokens_reached": "tokens",
    "max_total_tokens_reached": "tokens", "max_input_tokens": "tokens", "max_output_tokens": "tokens",
    "max_total_tokens": "tokens", "context_length": "tokens", "prompt_too_long": "tokens", "timeout_reached": "time",
}  # fmt: skip
"""Their words for a limit that ended a rollout -> ours."""

_COLUMNS = frozenset(
    ("example_id", "prompt", "completion", "answer", "info", "reward", "error", "timing", "is_completed", "is_truncated",
     "stop_condition", "metrics", "tool_defs", "token_usage", "task", "error_chain", "long_error_chain", "id")
)  # fmt: skip


def results_in(folder: Path) -> Path | None:
    """The file of results in a folder; None where there is none."""
    return next((folder / n for n in (_TRACES, _ROWS) if (folder / n).is_file()), None)


def is_row(value: Any) -> bool:
    """Whether a line is one of ``results.jsonl``."""
    return isinstance(value, dict) and "example_id" in value and "completion" in value


def is_trace(value: Any) -> bool:
    """Whether a line is one of ``traces.jsonl``."""
    return isinstance(value, dict) and (("traces" in value and "task" in value) or ("nodes" in value and "agent" in value))


def results(path: Path, remark: Remark) -> Guest:
    """A file of results, with what stands beside it."""
    first = next((v for _, v in readfile.lines(path, lambda _: None)), None)
    if isinstance(first, dict) and is_trace(first):
        return _traces(path, first, remark)
    return _rows(path, remark)


# -- 0.1 --------------------------------------------------------------------------------------------------------------


def _beside(path: Path, name: str) -> dict[str, Any]:
    try:
        value = readfile.document(path.parent / name)
    except DataError:
        return {}
    return value if isinstance(value, dict) else {}


def _rows(path: Path, remark: Remark) -> Guest:
    meta = _beside(path, "metadata.json")
    if not meta:
        remark("there is no metadata.json beside it: model and environment are not known")
    name = str(meta.get("env_id") or "verifiers")
    version = meta.get("version_info") or {}
    planned = whole(meta.get("num_examples")) * (whole(meta.get("rollouts_per_example")) or 1)
    return Guest(
        kind="verifiers",
        title=name,
        model=str(meta.get("model") or "?"),
        harness=f"verifiers {version.get('vf_version') or version.get('version') or ''}".strip(),
        created_at=when(str(meta.get("date") or "").replace(" ", "T")),
        planned=planned or None,
        episodes=_each_row(name, path, remark),
    )


def _each_row(name: str, path: Path, remark: Remark) -> Iterator[GuestEpisode]:
    trials: dict[str, int] = {}
    for at, row in readfile.lines(path, remark):
        if not isinstance(row, dict):
            remark(f"line {at} is no result")
            continue
        item = str(row.get("example_id", at))
        trial = trials[item] = trials.get(item, -1) + 1
        prompt, completion = row.get("prompt"), row.get("completion")
        messages = [user(prompt)] if isinstance(prompt, str) else [m for m in map(message, prompt or ()) if m]
        messages += [assistant(completion)] if isinstance(completion, str) else [m for m in map(message, completion or ()) if m]
        reward = number(row.get("reward"))
        scores = [Score("reward", "metric", reward, "ok" if reward is not None else "unscorable")]
        told = (
            row.get("metrics") if isinstance(row.get("metrics"), dict) else {k: v for k, v in row.items() if k not in _COLUMNS}
        )
        scores += [Score(str(k), "metric", v) for k, given in told.items() if (v := number(given)) is not None]  # type: ignore[union-attr]
        turns = sum(m.role == "assistant" for m in messages)
        counted = row.get("token_usage")
        timing = row.get("timing") if isinstance(row.get("timing"), dict) else {}
        error, stop = row.get("error"), str(row.get("stop_condition") or "")
        yield GuestEpisode(
            family=str(row.get("task") or name) if row.get("task") not in (None, "default") else name,
            item=item,
            trial=trial,
            messages=messages,
            usages=[*[NO_USAGE] * (turns - 1), usage(counted)] if turns and counted else [],
            events=[(turns - 1, Event(max(turns - 1, -1), "verifiers.stop", "policy", stop))] if stop else [],
            reward=reward,
            scores=scores,
            truncation=_STOPS.get(stop, "environment") if row.get("is_truncated") or stop in _STOPS else None,
            error=None if not error else as_text(error.get("error_chain_str", error) if isinstance(error, dict) else error),
            target=row.get("answer"),
            state=row.get("info"),
            started_at=when(timing.get("start_time")),  # type: ignore[union-attr]
            duration_s=_seconds(timing),
        )


def _seconds(timing: Any) -> float:
    """The whole rollout's; older versions tell it in milliseconds under another name."""
    old = number(timing.get("total_ms"))
    return old / 1000 if old is not None else number(timing.get("total")) or 0.0


# -- 0.4 --------------------------------------------------------------------------------------------------------------


def _traces(path: Path, first: dict[str, Any], remark: Remark) -> Guest:
    trace = (first.get("traces") or [first])[0] if isinstance(first.get("traces") or [first], list) else first
    agent, build = trace.get("agent") or {}, trace.get("verifiers") or {}
    config = agent.get("config") or {}
    model = config.get("model")
    name = (first.get("env") or {}).get("id") or "verifiers"
    return Guest(
        kind="verifiers",
        title=str(name),
        model=str((model.get("name") or model.get("model")) if isinstance(model, dict) else model or "?"),
        harness=f"verifiers {build.get('version') or ''}".strip(),
        created_at=when((trace.get("timing") or {}).get("start")),
        episodes=_each_trace(path, remark),
    )


def _each_trace(path: Path, remark: Remark) -> Iterator[GuestEpisode]:
    trials: dict[tuple[str, str], int] = {}
    for at, row in readfile.lines(path, remark):
        if not is_trace(row):
            remark(f"line {at} is no trace")
            continue
        traces = row.get("traces") or [] if "traces" in row else [row]
        name = str((row.get("env") or {}).get("id") or "verifiers")
        if not traces:  # nothing was played: what broke is told
            traces = [{"task": row.get("task"), "errors": row.get("errors"), "agent": {}, "ok": False}]
        for trace in traces:
            agent = str((trace.get("agent") or {}).get("name") or "agent")
            family = name if len(traces) == 1 else f"{name}.{agent}"
            task = trace.get("task") or row.get("task") or {}
            data = task.get("data") or {}
            item = next(
                (str(v) for v in (data.get("id"), data.get("name"), data.get("idx"), task.get("key"), at) if v is not None), "0"
            )
            trial = trials[family, item] = trials.get((family, item), -1) + 1
            yield _trace(trace, row, family, item, trial, data)


def _trace(
    trace: dict[str, Any], row: dict[str, Any], family: str, item: str, trial: int, data: dict[str, Any]
) -> GuestEpisode:
    nodes = [n for n in trace.get("nodes") or () if isinstance(n, dict)]
    messages, kept = [], []
    for i, n in enumerate(nodes):
        m = message(n.get("message"))
        if m is not None:
            messages.append(m)
            kept.append(i)
    turns = [i for i, m in zip(kept, messages, strict=True) if m.role == "assistant"]
    by_node = {c.get("node"): c for c in trace.get("calls") or () if isinstance(c, dict) and c.get("node") is not None}
    scores, total = [], None
    for name, r in (trace.get("rewards") or {}).items():
        value = number(r.get("score")) if isinstance(r, dict) else None
        weight = (number(r.get("weight")) if isinstance(r, dict) and "weight" in r else 1.0) or 0.0
        scores.append(
            Score(str(name), "metric", value, "ok" if value is not None else "unscorable", evidence={"weight": weight})
        )
        if value is not None:
            total = (total or 0.0) + value * weight
    scores.insert(0, Score("reward", "metric", total, "ok" if total is not None else "unscorable"))
    scores += [
        Score(str(k), "metric", v) for k, given in (trace.get("metrics") or {}).items() if (v := number(given)) is not None
    ]
    errors = trace.get("errors") or row.get("errors") or []
    stop = str(trace.get("stop_condition") or "")
    timing = trace.get("timing") or {}
    spans = [s for s in timing.values() if isinstance(s, dict)]
    end = max((number(s.get("end")) or 0.0 for s in spans), default=0.0)
    start = when(timing.get("start"))
    failed = not trace.get("ok", True) and errors
    return GuestEpisode(
        family=family,
        item=item,
        trial=trial,
        messages=messages,
        usages=[_call_usage(by_node.get(i)) for i in turns] if by_node else [],
        tokens=_tokens(nodes, turns),
        events=[(len(turns) - 1, Event(max(len(turns) - 1, -1), "verifiers.stop", "policy", stop))] if stop else [],
        reward=total,
        scores=scores,
        truncation="time" if trace.get("is_timeout") else _STOPS.get(stop),
        error=as_text(
            f"{errors[-1].get('type', '')}: {errors[-1].get('message', '')}" if isinstance(errors[-1], dict) else errors[-1]
        )
        if failed
        else None,
        target=data.get("answer"),
        state={"data": data, "info": trace.get("info")},
        started_at=start,
        duration_s=max(end - start, 0.0) if end else 0.0,
    )


def _call_usage(call: Any) -> Usage:
    return usage(call.get("usage")) if isinstance(call, dict) else NO_USAGE


def _tokens(nodes: list[dict[str, Any]], turns: list[int]) -> list[Tokens | None] | None:
    """Exact tokens of each turn: what lies before it on its path, and what was sampled; None where the log has none."""
    result: list[Tokens | None] = []
    for i in turns:
        ids, mask = nodes[i].get("token_ids") or [], nodes[i].get("mask") or []
        sampled = [t for t, m in zip(ids, mask, strict=False) if m]
        logprobs = nodes[i].get("logprobs") or []
        if not sampled or len(logprobs) not in (0, len(sampled)):
            result.append(None)
            continue
        before: list[list[int]] = [[t for t, m in zip(ids, mask, strict=False) if not m]]
        at, steps = nodes[i].get("parent"), 0
        while isinstance(at, int) and 0 <= at < len(nodes) and steps < len(nodes):
            before.append(nodes[at].get("token_ids") or [])
            at, steps = nodes[at].get("parent"), steps + 1
        prompt = [t for part in reversed(before) for t in part]
        result.append(
            Tokens(
                np.array(sampled, np.int32),
                np.array(logprobs or [np.nan] * len(sampled), np.float32),
                np.array(prompt, np.int32),
            )
        )
    return result if any(result) else None
