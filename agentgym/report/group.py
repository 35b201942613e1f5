# SPDX-License-Identifier: Apache-2.0
"""The trials of one task as a learner sees them: reward, gold, advantage, and what the best or the cheating ones did alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from agentgym.records.run import Episode, Run
from agentgym.report.align import acts
from agentgym.training.groups import Baseline, advantages
from agentgym.trajectory import SPOILED


class Member(NamedTuple):
    """One trial."""

    id: int
    """Number of its episode."""
    trial: int
    outcome: str
    reward: float | None
    gold: float | None
    advantage: float | None
    """Beside the others of the group; None where it takes no part."""
    turns: int
    length: int
    """What was sampled, in tokens; where nobody counted, the characters of what was said and called."""
    violations: int
    place: Literal["best", "worst", ""]
    """By reward; nothing where all were worth the same."""


class Deed(NamedTuple):
    """One kind of act, and who did it."""

    of: Literal["best", "cheating"]
    """Whom it tells from the others."""
    act: str
    """Tool with its arguments' shape, or a sentence's beginning."""
    there: int
    """Of ``those``, how many did it."""
    those: int
    elsewhere: int
    """Of ``others``, how many did it."""
    others: int
    first: tuple[int, int]
    """(episode, turn) to look at: the first time that anybody did it."""

    @property
    def contrast(self) -> float:
        """Share among those less share among the others, -1 to 1; negative: they left it out."""
        return self.there / self.those - self.elsewhere / self.others


class Group(NamedTuple):
    """The trials of a task."""

    task_id: str
    members: list[Member]
    flat: bool
    """All were worth the same: a learner learns nothing from them."""
    baseline: Baseline
    deeds: list[Deed]
    """Sorted by contrast, the strongest first."""
    unscored: int
    """Trials without a reward."""


def group(run: Run, task_id: str, baseline: Baseline = "grpo") -> Group:
    """The trials of a task; their trajectories are read.

    Raises:
        RecordError: a trajectory is damaged.
    """
    episodes = list(run.episodes(task_id=task_id))
    rewards = [None if e.outcome in SPOILED else e.reward for e in episodes]
    worth = advantages(rewards, [task_id] * len(episodes), baseline=baseline)
    known = [r for r in rewards if r is not None]
    flat = len(known) > 1 and bool(worth.flat)
    top, low = (max(known), min(known)) if known else (None, None)
    members = []
    did: dict[int, dict[str, int]] = {}
    for e, reward, value, used in zip(episodes, rewards, worth.values.tolist(), worth.used.tolist(), strict=True):
        did[e.id] = _shapes(e)
        place: Literal["best", "worst", ""] = ""
        if reward is not None and top != low:
            place = "best" if reward == top else "worst" if reward == low else ""
        members.append(
            Member(
                e.id, e.trial, e.outcome, reward, e.gold, value if used else None, e.turns, e.completion_tokens or _said(e),
                e.violations, place,
            )
        )  # fmt: skip
        e._trajectory = None  # a group of long episodes need not be in memory at once
    deeds = [*_contrast("cheating", members, did, lambda m: m.violations > 0)]
    deeds += _contrast("best", members, did, lambda m: m.place == "best")
    deeds.sort(key=lambda d: (-abs(d.contrast), d.contrast < 0, d.of != "cheating", d.act))
    return Group(task_id, members, flat, baseline, deeds, len(rewards) - len(known))


def _said(episode: Episode) -> int:
    return sum(
        len(t.message.text) + len(t.message.reasoning) + sum(len(c.name) + len(c.arguments) for c in t.message.tool_calls)
        for t in episode.trajectory.turns
    )


def _shapes(episode: Episode) -> dict[str, int]:
    """Kinds of acts of an episode -> turn of the first."""
    found: dict[str, int] = {}
    for act in acts(episode.trajectory):
        if act.name:  # words are hardly ever the same; what was done is
            found.setdefault(shape(act.name, act.text), act.turn)
    return found


def _contrast(
    of: Literal["best", "cheating"], members: Iterable[Member], did: dict[int, dict[str, int]], chosen: Callable[[Member], bool]
) -> list[Deed]:
    """What those did more often, or less often, than the others; nothing where all are of one kind."""
    played = [m for m in members if m.reward is not None]
    those, others = [m for m in played if chosen(m)], [m for m in played if not chosen(m)]
    if not those or not others:
        return []
    found = []
    for act in dict.fromkeys(a for m in played for a in did[m.id]):
        who = [m for m in [*those, *others] if act in did[m.id]]
        there = sum(act in did[m.id] for m in those)
        deed = Deed(of, act, there, len(those), len(who) - there, len(others), (who[0].id, did[who[0].id][act]))
        if deed.contrast:
            found.append(deed)
    return found


# -- the shape of a call ----------------------------------------------------------------------------------------------

LONG = 32
"""Characters of a text from which on it is content, not a name."""


def shape(name: str, arguments: str) -> str:
    """A call without what differs from trial to trial: numbers become ``#``, long texts ``…``; names and paths stay.

    >>> shape("write", '{"path": "tests/test_a.py", "text": "def f():\\\\n    return 1"}')
    'write(path=tests/test_a.py, text=…)'
    >>> shape("pay", '{"to": "ann", "cents": 500}')
    'pay(cents=#, to=ann)'
    """
    try:
        values = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return f"{name}(malformed)"
    if not isinstance(values, dict):
        return f"{name}({_value(values, 0)})"
    return f"{name}({', '.join(f'{k}={_value(v, 0)}' for k, v in sorted(values.items()))})"


def _value(value: Any, depth: int) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return "#"
    if isinstance(value, str):
        if len(value) > LONG or "\n" in value or value.count(" ") > 2:
            return "…"
        return re.sub(r"\d+", "#", value) if "/" not in value else value
    if depth > 2:
        return "…"
    if isinstance(value, list):
        kinds = dict.fromkeys(_value(v, depth + 1) for v in value[:16])
        return f"[{', '.join(kinds)}]"
    return "{" + ", ".join(f"{k}: {_value(v, depth + 1)}" for k, v in sorted(value.items())[:16]) + "}"
