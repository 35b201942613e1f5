# SPDX-License-Identifier: Apache-2.0
"""The one way from turns to training rows: a pure function over what the engine saw and sampled, never over text.

A turn holds the whole prompt that the engine saw and the tokens it sampled. Where a prompt begins with exactly what came
before, the turns share one row (*append*). Where it does not, because a template dropped the reasoning of earlier turns, say,
or a client sent other words back, one of two things is done and counted: the row goes on with the prompt as the engine saw it,
and what was sampled before and is no longer there is not trained on (*realign*); or a new row begins (*fork*).

What holds for every result, whatever the turns (`tests/tokens` tries to break it):

- every row is a prompt and an output that some engine call really had, token by token;
- a sampled token is trained on at most once; those never trained on are counted in `Drift`;
- log-probabilities and versions stand exactly where the loss mask is 1, and are 0.0 and -1 elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec
import numpy as np

from agentgym.errors import UsageError
from agentgym.protocols import FinishReason, Tokens
from agentgym.trajectory import Trajectory, Turn, sampled_turns

Merge = Literal["exact", "realign", "never"]
"""``exact``: what does not continue exactly forks. ``realign``: where only few sampled tokens are lost, the row goes on.
``never``: one row a turn."""

Unknown = Literal["mask", "refuse"]

_I4, _F4, _U1 = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint8)


class Row(msgspec.Struct, frozen=True, eq=False):
    """One sequence to train on, T tokens long. All arrays are of length T."""

    token_ids: np.ndarray
    """int32[T], what the engine saw and sampled."""
    loss_mask: np.ndarray
    """uint8[T], 1 on tokens that were sampled and may be trained on."""
    logprobs: np.ndarray
    """float32[T], natural log, as the engine told them; 0.0 where the mask is 0."""
    versions: np.ndarray
    """int32[T], weight version that sampled each token; -1 where the mask is 0 or the policy did not tell."""
    turn_ids: np.ndarray
    """int32[T], index of the turn that sampled each token; -1 for prompts."""
    token_rewards: np.ndarray
    """float32[T], each turn's reward at its last trained token, as `Trajectory` has it, before any normalization."""
    prompt_len: int
    """Tokens before the first sampled one."""
    turns: tuple[int, ...]
    """Indices of the turns whose output is in this row, in order."""
    agent: str
    finish_reason: FinishReason
    """Of its last turn."""

    @property
    def truncated(self) -> bool:
        """Whether its last turn was cut by a length limit."""
        return self.finish_reason == "length"

    @property
    def trained(self) -> int:
        """Tokens that count in the loss."""
        return int(self.loss_mask.sum())


class Drift(msgspec.Struct, frozen=True):
    """How well the turns fitted together. In a clean episode only ``appended`` is above 0."""

    appended: int = 0
    """Turns that continued a row exactly."""
    realigned: int = 0
    """Turns that continued a row with some earlier sampled tokens gone."""
    forked: int = 0
    """Turns that began a row although they were not the first of their agent."""
    lost_tokens: int = 0
    """Sampled tokens that were in a row and are not trained on, since a later prompt of the row no longer holds them."""
    unknown_logprobs: int = 0
    """Sampled tokens that are not trained on since nobody knows their log-probability."""
    excluded_tokens: int = 0
    """Sampled tokens of turns that were not to be trained on, or that the policy itself had masked."""
    untold_reward: float = 0.0
    """Rewards of turns none of whose tokens is trained on: in no row's ``token_rewards``."""


class RowSet(msgspec.Struct, frozen=True, eq=False):
    """The rows of one episode."""

    rows: tuple[Row, ...]
    drift: Drift
    sampled_tokens: int
    """All tokens that were sampled in the episode's turns."""


class _Open:
    """A row that may go on. Pieces are joined once, at the end."""

    def __init__(self, prompt: np.ndarray, agent: str) -> None:
        self.ids = [prompt]
        self.length = len(prompt)
        self.prompt_len = len(prompt)
        self.agent = agent
        self.spans: list[tuple[int, int, int]] = []
        """(turn, where its output starts, where it ends)"""
        self.last = -1
        self.finish: FinishReason = "stop"

    def joined(self) -> np.ndarray:
        if len(self.ids) > 1:
            self.ids = [np.concatenate(self.ids)]
        return self.ids[0]

    def append(self, piece: np.ndarray) -> None:
        if len(piece):
            self.ids.append(piece)
            self.length += len(piece)

    def sampled_after(self, place: int) -> int:
        """How many sampled tokens stand at or behind a place."""
        return sum(max(0, end - max(start, place)) for _, start, end in self.spans)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    different = a[:n] != b[:n]
    at = int(different.argmax()) if n else 0
    return at if n and different[at] else n


def linearize(
    trajectory: Trajectory,
    *,
    merge: Merge = "exact",
    realign_most: int = 16,
    unknown: Unknown = "mask",
    train: Collection[int] | None = None,
    max_tokens: int | None = None,
) -> RowSet:
    """The training rows of an episode.

    Args:
        trajectory: with its ``tokens``, one entry a turn; or with the ``calls`` of a program, which then are what "turn"
            means here, less those that are void.
        merge: what may share a row.
        realign_most: with ``merge="realign"``: sampled tokens that may be lost in one turn before a fork is better.
        unknown: tokens without a log-probability are not trained on, or the episode is refused.
        train: indices of the turns to train on; None: all. Left out are, say, those that a retry made void.
        max_tokens: rows that are longer are refused: cutting one would lose its reward or its system message unseen.

    Returns:
        Rows in the order in which they began. A turn whose output is empty belongs to its row and adds no token to it.

    Raises:
        UsageError: tokens are missing, or a row is too long; the text says what to do.
    """
    try:
        turns, tokens = sampled_turns(trajectory)
    except ValueError:
        raise UsageError(
            f"{trajectory.task_id}: the episode has no exact tokens, which training needs: play it with a policy that keeps "
            "them (local:, hf:, or openai:MODEL@URL#tokens=yes with vLLM)"
        ) from None
    if merge not in ("exact", "realign", "never"):
        raise UsageError(f"merge is exact, realign or never, not {merge!r}")
    rows: list[_Open] = []
    counts = {"appended": 0, "realigned": 0, "forked": 0}
    for turn, kept in zip(turns, tokens, strict=True):
        prompt = _prompt(trajectory, turn, kept)
        assert kept is not None
        row = None if merge == "never" else _continued(rows, turn, prompt, merge, realign_most, counts)
        if row is None:
            if merge != "never" and any(r.agent == turn.agent for r in rows):
                counts["forked"] += 1
            row = _Open(prompt, turn.agent)
            rows.append(row)
        output = kept.output_ids.astype(_I4, copy=False)
        row.spans.append((turn.index, row.length, row.length + len(output)))
        row.append(output)
        row.last, row.finish = turn.index, turn.finish_reason
    by_index = {turn.index: (turn, kept) for turn, kept in zip(turns, tokens, strict=True) if kept is not None}
    tally = _Tally()
    unused = sum(len(c.tokens.output_ids) for c in trajectory.calls if c.void and c.tokens is not None)
    tally.excluded_tokens += unused
    built = tuple(_built(row, by_index, train, unknown, tally) for row in rows)
    for made in built:
        if max_tokens is not None and len(made.token_ids) > max_tokens:
            raise UsageError(
                f"{trajectory.task_id}: a row of {len(made.token_ids)} tokens is longer than max_tokens={max_tokens}: give the "
                "episode fewer turns or shorter answers, or train with longer rows"
            )
    drift = Drift(**counts, **{name: getattr(tally, name) for name in _Tally.__slots__})
    return RowSet(built, drift, sum(len(k.output_ids) for _, k in by_index.values()) + unused)


def _prompt(trajectory: Trajectory, turn: Turn, kept: Tokens | None) -> np.ndarray:
    if kept is None or kept.prompt_ids is None:
        missing = "prompt tokens" if kept is not None else "tokens"
        raise UsageError(
            f"{trajectory.task_id}: turn {turn.index} has no exact {missing}: its policy did not tell them, so there is "
            "nothing to train on; leave the episode out"
        )
    return kept.prompt_ids.astype(_I4, copy=False)


def _continued(
    rows: Sequence[_Open], turn: Turn, prompt: np.ndarray, merge: Merge, most: int, counts: dict[str, int]
) -> _Open | None:
    """The row that a turn goes on with, brought to where its output begins; None: it begins one of its own."""
    own = [row for row in rows if row.agent == turn.agent]
    if turn.parent >= 0:  # somebody knows whose conversation it continues; a second child of one turn is a branch
        own = [row for row in own if row.last == turn.parent]
    best: _Open | None = None
    for row in reversed(own):
        n = row.length
        # the longest beginning wins: of two sub-agents, that one whose whole conversation stands in the prompt
        if n <= len(prompt) and (best is None or n > best.length) and np.array_equal(row.joined(), prompt[:n]):
            best = row
    if best is not None:
        best.append(prompt[best.length :])
        counts["appended"] += 1
        return best
    if merge != "realign" or not own:
        return None
    row = own[-1]
    held = row.joined()
    same = _common(held, prompt)
    if same < row.prompt_len or row.sampled_after(same) > most:
        return None
    row.spans = [(t, min(start, same), min(end, same)) for t, start, end in row.spans]
    row.ids, row.length = [prompt], len(prompt)
    counts["realigned"] += 1
    return row


class _Tally:
    """What is counted while rows are built."""

    __slots__ = ("excluded_tokens", "lost_tokens", "unknown_logprobs", "untold_reward")

    def __init__(self) -> None:
        self.lost_tokens = self.unknown_logprobs = self.excluded_tokens = 0
        self.untold_reward = 0.0


def _built(
    row: _Open, turns: dict[int, tuple[Turn, Tokens]], train: Collection[int] | None, unknown: Unknown, tally: _Tally
) -> Row:
    ids = row.joined()
    size = len(ids)
    mask, logprobs = np.zeros(size, _U1), np.zeros(size, _F4)
    versions, turn_ids, rewards = np.full(size, -1, _I4), np.full(size, -1, _I4), np.zeros(size, _F4)
    for index, start, end in row.spans:
        turn, kept = turns[index]
        n = end - start
        tally.lost_tokens += len(kept.output_ids) - n
        turn_ids[start:end] = index
        told = kept.logprobs[:n]
        if kept.mask is None and train is None and n and np.isfinite(told).all():  # the usual turn, written in one go
            mask[start:end] = 1
            logprobs[start:end] = told
            if kept.versions is not None:
                versions[start:end] = kept.versions[:n]
            rewards[end - 1] = turn.reward
            continue
        allowed = np.ones(n, bool) if kept.mask is None else kept.mask[:n] != 0
        if train is not None and index not in train:
            allowed[:] = False
        tally.excluded_tokens += n - int(allowed.sum())
        known = np.isfinite(told)
        nameless = int((allowed & ~known).sum())
        if nameless:
            if unknown == "refuse":
                raise UsageError(
                    f"turn {index} has {nameless} sampled tokens without a log-probability; train without them "
                    '(unknown="mask") or ask the engine for all'
                )
            tally.unknown_logprobs += nameless
        allowed &= known
        mask[start:end] = allowed
        logprobs[start:end] = np.where(allowed, told, 0.0)
        if kept.versions is not None:
            versions[start:end] = np.where(allowed, kept.versions[:n], -1)
        if turn.reward:
            places = np.flatnonzero(allowed)
            if len(places):
                rewards[start + places[-1]] += turn.reward
            else:
                tally.untold_reward += turn.reward
    first = min((start for _, start, end in row.spans if end > start), default=size)
    indices = tuple(index for index, _, _ in row.spans)
    return Row(ids, mask, logprobs, versions, turn_ids, rewards, first, indices, row.agent, row.finish)
