# SPDX-License-Identifier: Apache-2.0
"""Which tools an episode called, for filters: read from its trajectory when first asked, then kept in memory.

The record has no column for it. Only the names are decoded, which takes a tenth of a whole trajectory, so that no index
has to be written beside a run that is only looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

RUNS_KEPT = 4
"""Runs of which the names are kept: some 10 MB for 100,000 episodes."""


class _Call(msgspec.Struct):
    name: str


class _Message(msgspec.Struct):
    tool_calls: list[_Call] = []


class _Turn(msgspec.Struct):
    message: _Message


class _Trajectory(msgspec.Struct):
    turns: list[_Turn] = []


_decoder = msgspec.msgpack.Decoder(_Trajectory)

_kept: OrderedDict[tuple[str, int], dict[int, str]] = OrderedDict()
_same: dict[str, str] = {}
"""Equal lists once: most episodes of a family call the same tools."""


def names_of(data: bytes) -> str:
    """The tools that an encoded trajectory called, each once, with a line end before and behind each.

    Raises:
        MsgspecError: it is damaged.
    """
    found = dict.fromkeys(c.name for t in _decoder.decode(data).turns for c in t.message.tool_calls)
    return "\n" + "".join(f"{name}\n" for name in sorted(found))


def reader(file: Path, read: Callable[[int], bytes | None]) -> Callable[[int], str]:
    """What a filter asks: number of an episode -> `names_of` it; empty where it is damaged.

    Args:
        file: the run's database; names are kept for as long as it is this file.
        read: number of an episode -> its encoded trajectory; None where there is none.
    """
    key = (str(file.resolve()), file.stat().st_ino)
    known = _kept.setdefault(key, {})
    _kept.move_to_end(key)
    while len(_kept) > RUNS_KEPT:
        _kept.popitem(last=False)

    def called(episode: int) -> str:
        found = known.get(episode)
        if found is None:
            data = read(episode)
            try:
                found = "" if data is None else names_of(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                found = ""
            if len(_same) < 10_000:
                found = _same.setdefault(found, found)
            known[episode] = found
        return found

    return called
