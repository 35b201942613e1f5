# SPDX-License-Identifier: Apache-2.0
"""What a reader of a foreign log gives: its head and its episodes one by one; and messages made of its rows."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from agentgym.chat import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCall, clean_message, clean_text
from agentgym.protocols import NO_USAGE, FinishReason, Tokens, Usage
from agentgym.scoring import Score
from agentgym.trajectory import EpisodeError, Event, ToolResult, Turn

Remark = Callable[[str], None]
"""Where a reader says what it could not read."""


class GuestEpisode(msgspec.Struct, kw_only=True):
    """One episode of a foreign log."""

    family: str
    """The task's name there."""
    item: str
    """The sample's name there."""
    trial: int = 0
    variant: str = "plain"
    messages: list[Message] = []
    """The whole conversation; what stands before the first assistant message is the opening."""
    usages: list[Usage] = []
    """One an assistant message, where the log tells; otherwise empty."""
    tokens: list[Tokens | None] | None = None
    """Exact tokens, one entry an assistant message; None where the log has none."""
    events: list[tuple[int, Event]] = []
    """Assistant message (0-based) -> something noticed then."""
    reward: float | None = None
    scores: list[Score] = []
    """The first one with a value in [0, 1] is taken for its gold."""
    truncation: str | None = None
    error: str | None = None
    state: Any = None
    """What else the log holds of the sample, shown as the task's hidden half; plain values."""
    target: Any = None
    cluster: str = ""
    tags: tuple[str, ...] = ()
    started_at: float = 0.0
    duration_s: float = 0.0


class Guest(msgspec.Struct, kw_only=True):
    """A foreign log, opened."""

    kind: str
    """E.g. ``inspect_ai``."""
    title: str
    model: str = "?"
    harness: str = ""
    """Program and version, where the log says so."""
    created_at: float = 0.0
    """Unix time."""
    planned: int | None = None
    """Episodes that it set out to play; None where it does not say."""
    episodes: Iterator[GuestEpisode]


def number(value: Any) -> float | None:
    """A finite float; None of anything else, also of text and of True and False as numbers of a measurement."""
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def whole(value: Any) -> int:
    """A count; 0 of what is none."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else 0


def when(value: Any) -> float:
    """Unix time of an ISO 8601 date or of a number; 0.0 of anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def message(row: Any) -> Message | None:
    """A message from a chat dictionary of whatever dialect; None where it is none.

    Contents may be text or a list of parts; calls may have their name and arguments in ``function`` or beside it, arguments
    as text or as an object; reasoning may be a part, ``reasoning_content``, ``reasoning`` or ``thought``.
    """
    if not isinstance(row, dict):
        return None
    role = {"developer": "system", "human": "user", "ai": "assistant", "function": "tool"}.get(
        row.get("role", ""), row.get("role")
    )
    if role not in ("system", "user", "assistant", "tool"):
        return None
    parts = _parts(row.get("content"))
    if role == "assistant":
        thought = row.get("reasoning_content") or row.get("reasoning") or row.get("thinking")
        if isinstance(thought, str) and thought and not any(isinstance(p, ReasoningPart) for p in parts):
            parts.insert(0, ReasoningPart(thought))
    calls: list[ToolCall] = []
    for c in row.get("tool_calls") or () if role == "assistant" else ():
        made = _call(c)
        if made is not None:
            calls.append(made)
    plain = len(parts) <= 1 and all(isinstance(p, TextPart) for p in parts)
    call_id = row.get("tool_call_id") or (row.get("id") if role == "tool" else None)
    name = row.get("name") or (row.get("function") if role == "tool" else None)
    return clean_message(
        Message(
            role,  # type: ignore[arg-type]
            "".join(p.text for p in parts if isinstance(p, TextPart)) if plain else tuple(parts),
            tuple(calls),
            str(call_id) if role == "tool" and call_id else None,
            name if isinstance(name, str) and name else None,
        )
    )


def _parts(content: Any) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    parts: list[Part] = []
    for item in content if isinstance(content, list) else [content]:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in ("reasoning", "thinking"):
            text = (
                item.get("reasoning")
                or item.get("thinking")
                or item.get("text")
                or ("(redacted)" if item.get("redacted") else "")
            )
            parts.append(ReasoningPart(as_text(text)))
        elif kind in ("image", "image_url", "input_image"):
            parts.append(_image(item))
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            parts.append(TextPart(item["text"]))
        else:
            parts.append(TextPart(as_text(item)))
    return parts


def _image(item: dict[str, Any]) -> Part:
    url = item.get("image") or item.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        try:
            return ImagePart(base64.b64decode(data, validate=True), head[5:-7] or "image/png")
        except (binascii.Error, ValueError):
            return TextPart("[an image whose base64 is damaged]")
    return TextPart(f"[image: {clean_text(str(url))[:200]}]")  # named, never fetched


def _call(row: Any) -> ToolCall | None:
    if isinstance(row, str):  # verifiers keeps calls as JSON text
        try:
            row = msgspec.json.decode(row)
        except msgspec.DecodeError:
            return None
    if not isinstance(row, dict):
        return None
    function = row.get("function")
    inner = function if isinstance(function, dict) else row
    name = inner.get("name") or (function if isinstance(function, str) else None)
    if not isinstance(name, str):
        return None
    arguments = inner.get("arguments", inner.get("input"))
    if arguments is None or arguments == "":
        arguments = "{}"
    return ToolCall(name, as_text(arguments), str(row.get("id") or ""))


def usage(row: Any) -> Usage:
    """Token counts in OpenAI's, Anthropic's or inspect_ai's words."""
    if not isinstance(row, dict):
        return NO_USAGE
    cached = row.get("input_tokens_cache_read") or row.get("cache_read_input_tokens")
    if cached is None and isinstance(row.get("prompt_tokens_details"), dict):
        cached = row["prompt_tokens_details"].get("cached_tokens")
    return Usage(
        whole(row.get("prompt_tokens", row.get("input_tokens"))),
        whole(row.get("completion_tokens", row.get("output_tokens"))),
        whole(cached),
        number(row.get("cost_usd", row.get("total_cost"))) or 0.0,
    )


def turns_of(episode: GuestEpisode, errors: Sequence[str] = ()) -> tuple[tuple[Message, ...], list[Turn]]:
    """The opening, and one turn an assistant message with what was answered to it.

    Args:
        episode: whose messages.
        errors: ids of calls whose result was an error there.
    """
    opening: list[Message] = []
    turns: list[Turn] = []
    answered: list[list[Message]] = []
    for m in episode.messages:
        if m.role == "assistant":
            turns.append(Turn(len(turns), _with_ids(m, len(turns)), parent=len(turns) - 1))
            answered.append([])
        else:
            (answered[-1] if turns else opening).append(m)
    noticed: dict[int, list[Event]] = {}
    for place, event in episode.events:
        noticed.setdefault(min(max(place, 0), len(turns) - 1), []).append(event)
    failed = set(errors)
    for i, turn in enumerate(turns):
        turn.observation = _joined(turn.message, answered[i])
        names = {c.id: c.name for c in turn.message.tool_calls}
        turn.results = tuple(
            ToolResult(
                m.tool_call_id or "",
                names.get(m.tool_call_id or "", m.name or "tool"),
                "tool_error" if m.tool_call_id in failed else "ok",
            )
            for m in turn.observation
            if m.role == "tool"
        )
        turn.events = tuple(noticed.get(i, ()))
        if i < len(episode.usages):
            turn.usage = episode.usages[i]
        reason: FinishReason = "tool_calls" if turn.message.tool_calls else "stop"
        turn.finish_reason = reason
    return tuple(opening), turns


def _with_ids(m: Message, turn: int) -> Message:
    """Calls without an id get one, so that results can be joined to them."""
    if all(c.id for c in m.tool_calls):
        return m
    calls = tuple(c if c.id else msgspec.structs.replace(c, id=f"{turn}.{i}") for i, c in enumerate(m.tool_calls))
    return msgspec.structs.replace(m, tool_calls=calls)


def _joined(m: Message, answers: Iterable[Message]) -> tuple[Message, ...]:
    """Tool messages that name no call are taken in order for those that have none yet."""
    answers = list(answers)
    named = {a.tool_call_id for a in answers if a.role == "tool" and a.tool_call_id}
    free = iter([c for c in m.tool_calls if c.id not in named])
    result = []
    for a in answers:
        if a.role == "tool" and not a.tool_call_id and (c := next(free, None)) is not None:
            a = msgspec.structs.replace(a, tool_call_id=c.id)
        result.append(a)
    return tuple(result)


def episode_error(text: str) -> EpisodeError:
    """What broke there: their word for it, in ours."""
    return EpisodeError("internal", clean_text(text))
