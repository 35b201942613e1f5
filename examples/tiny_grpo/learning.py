# SPDX-License-Identifier: Apache-2.0
"""How the tiny model learns: by imitation of episodes, and from its own by a policy gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tiny_model as tiny
import torch

from agentgym import Trajectory, aevaluate
from agentgym.env import in_split
from agentgym.records.run import Run
from agentgym.tokens import linearize
from agentgym.training import Baseline, advantages


def seeds(split: str, start: int, count: int) -> list[int]:
    """So many task numbers of a split, from ``start`` on."""
    found: list[int] = []
    while len(found) < count:
        if in_split(start, split):
            found.append(start)
        start += 1
    return found


class Played(NamedTuple):
    """An episode, as far as learning from it goes."""

    trajectory: Trajectory
    reward: float | None
    gold: float | None
    task_id: str


async def start(family: str, model: Any, numbers: Sequence[int], runs: str, **options: Any) -> Run:
    """Plays tasks of a family; returns the run of it, which the caller closes."""
    return await aevaluate([f"{family}/control/{n}" for n in numbers], model, runs=runs, **options)


def played(run: Run) -> list[Played]:
    """The episodes of a run, in order."""
    return [Played(e.trajectory, e.reward, e.gold, e.task_id) for e in run.episodes()]


async def play(family: str, model: Any, numbers: Sequence[int], runs: str, **options: Any) -> list[Played]:
    """Episodes with their tokens and rewards, kept in a run."""
    with await start(family, model, numbers, runs, **options) as run:
        return played(run)


def imitate(
    model: tiny.TinyModel,
    demonstrations: Sequence[Trajectory],
    steps: int,
    rng: np.random.Generator,
    *,
    rate: float = 4e-3,
    batch_size: int = 32,
    until: float = 0.0,
) -> float:
    """Behaviour cloning: likelihood of what was done, on its own tokens alone (`demonstrated`). Returns the last loss.

    Args:
        model: what is trained.
        demonstrations: episodes with tokens.
        steps: most steps.
        rng: draws the rows.
        rate: learning rate, the same from the first step on up to 1e-3; a higher one is warmed up, and its gradients clipped.
        batch_size: rows of a step.
        until: mean loss of a token at which imitation stops.
    """
    rows = [row for d in demonstrations for row in linearize(d).rows]
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=rate)
    high = rate > 1e-3
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20) if high else 1.0)
    recent = 1.0
    for _ in range(steps):
        batch = [rows[i] for i in rng.integers(len(rows), size=batch_size)]
        ids, _ = tiny.padded([r.token_ids for r in batch])
        mask, _ = tiny.padded([r.loss_mask.astype(np.float32) for r in batch])
        loss = -(tiny.log_likelihood(model.network, ids) * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        if high:
            torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()
        pace.step()
        recent = 0.9 * recent + 0.1 * float(loss.detach())
        if recent < until:
            break
    return recent


def improve(
    model: tiny.TinyModel,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Played],
    *,
    baseline: Baseline = "grpo",
    weigh: Literal["token", "response", "constant"] = "token",
) -> dict[str, float]:
    """One step (clipped ratio, no KL term) on the episodes of the present weights.

    Args:
        model: what is trained.
        optimizer: of its weights.
        episodes: its own, several of each task.
        baseline: see `agentgym.training.advantages`.
        weigh: ``token`` divides the sum over all tokens by their number (DAPO), ``response`` first divides each row's by its
            own (GRPO as published), ``constant`` divides by the longest that a row may be (Dr. GRPO).
    """
    found = advantages([p.reward for p in episodes], [p.task_id for p in episodes], baseline=baseline)
    batch = [
        (row, advantage)
        for p, advantage, used in zip(episodes, found.values, found.used, strict=True)
        if used
        for row in linearize(p.trajectory).rows
    ]
    ids, _ = tiny.padded([row.token_ids for row, _ in batch])
    mask, _ = tiny.padded([row.loss_mask.astype(np.float32) for row, _ in batch])
    old, _ = tiny.padded([row.logprobs for row, _ in batch])
    advantage = torch.tensor([a for _, a in batch], dtype=torch.float32)[:, None]
    new = tiny.log_likelihood(model.network, ids)
    ratio = torch.exp((new - old) * mask)
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * mask
    if weigh == "response":
        loss = -(gain.sum(1) / mask.sum(1)).mean()
    else:
        loss = -gain.sum() / (mask.sum() if weigh == "token" else len(batch) * model.speech.most)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
    optimizer.step()
    model.version += 1
    rewards = [p.reward for p in episodes if p.reward is not None]
    return {
        "reward": round(float(np.mean(rewards)), 3),
        "flat_groups": round(found.flat_share, 2),
        "logprob_error": float(((new.detach() - old).abs() * mask).max()),
    }
