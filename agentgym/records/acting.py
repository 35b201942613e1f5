# SPDX-License-Identifier: Apache-2.0
"""Who acted in an episode of several agents, and what each was paid: all that is decoded of its trajectory."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from agentgym.records.run import Run

LOOKED_AT = 4
"""Episodes that tell whether a run has several agents."""


class Share(NamedTuple):
    """What one agent did of an episode."""

    agent: str
    """Empty for the one that bears no name."""
    turns: int
    reward: float
    """Sum of what its turns were paid."""


class _Turn(msgspec.Struct):
    agent: str = ""
    reward: float = 0.0


class _Trajectory(msgspec.Struct):
    turns: list[_Turn] = []


_decoder = msgspec.msgpack.Decoder(_Trajectory)


def shares(run: Run, episode: int) -> list[Share]:
    """The agents of an episode in the order in which they first acted; empty where its trajectory cannot be read."""
    data = run._encoded(episode)
    try:
        turns = [] if data is None else _decoder.decode(data).turns
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    found: dict[str, list[float]] = {}
    for turn in turns:
        found.setdefault(turn.agent, []).append(turn.reward)
    return [Share(agent, len(rewards), sum(rewards)) for agent, rewards in found.items()]


def several(run: Run) -> bool:
    """Whether several agents act in this run, as its first and its last episodes tell."""
    half = LOOKED_AT // 2
    ids = [*run.ids("turns > 1", limit=half), *run.ids("turns > 1", order="id DESC", limit=half)]
    return any(len(shares(run, i)) > 1 for i in ids)
