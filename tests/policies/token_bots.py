# SPDX-License-Identifier: Apache-2.0
"""Small parts for tests of policies with tokens: a tokenizer of bytes, a model that says what it is told, what must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import agentgym
import tests.envs
from agentgym.policies.token_player import Generated, TokenPlayer
from agentgym.protocols import EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.tokens import linearize
from agentgym.tokens.chatml import ChatML
from agentgym.trajectory import Trajectory

NAMES = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
END = 257


class Bytes:
    """A token for each byte, and three special ones."""

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def special(self, name: str) -> int | None:
        return 256 + NAMES.index(name) if name in NAMES else None

    def decode(self, ids: Sequence[int]) -> str:
        runs = b"".join(NAMES[i - 256].encode() if i > 255 else bytes([i]) for i in ids)
        return runs.decode("utf-8", "replace")


Model = Callable[[list[int], Sampling], list[int]]
"""From a prompt to the ids that are sampled after it, stop token and all, before any limit."""


def logprob(ids: Sequence[int], at: int) -> float:
    """Log-probability of the token at a place: of what stands before it, and of nothing else."""
    return -((sum(ids[:at]) * 31 + ids[at]) % 997) / 100


def halving(prompt: list[int], sampling: Sampling) -> list[int]:
    """Plays test.guess by halving, and wins."""
    text = Bytes().decode(prompt)
    low, high, guess = 0, 9, 4
    for turn in text.split("<|im_start|>")[1:]:
        role, _, said = turn.partition("\n")
        said = said.removesuffix("\n").removesuffix("<|im_end|>")
        if role == "assistant" and said:
            guess = int(said)
        elif role == "user" and said == "higher":
            low = guess + 1
        elif role == "user" and said == "lower":
            high = guess - 1
    return [*str((low + high) // 2).encode(), END]


class ScriptedPolicy(PolicyBase):
    """A policy with tokens whose model is a function; it breaks answers off where it is told to.

    Args:
        model: what it says.
        breaks: after how many tokens each call is broken off, in order; the weight version rises with each break.
    """

    name = "scripted"

    def __init__(self, model: Model = halving, breaks: Sequence[int] = ()) -> None:
        self.model = model
        self.breaks = list(breaks)
        self.version = 0
        self.asked: list[tuple[list[int], Sampling]] = []
        self.renderer = ChatML(Bytes())

    def begin(self, context: EpisodeContext) -> Policy:
        return TokenPlayer(self.name, self.renderer, self)

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        prompt = list(prompt_ids)
        self.asked.append((prompt, sampling))
        ids = self.model(prompt, sampling)
        assert sampling.max_tokens is not None
        finish: Any = "stop"
        if len(ids) > sampling.max_tokens:
            ids, finish = ids[: sampling.max_tokens], "length"
        version = self.version
        if self.breaks:
            at = self.breaks.pop(0)
            if at < len(ids):
                ids, finish = ids[:at], "abort"
                self.version += 1
        whole = prompt + ids
        logprobs = [logprob(whole, i) for i in range(len(prompt), len(whole))]
        return Generated(ids, logprobs, finish, [version] * len(ids))

    async def forget(self, key: object) -> None:
        pass


def assert_tokens_hold(policy: Any, runs: Any, *, limit: int = 2, sampling: Sampling | None = None) -> list[Trajectory]:
    """Plays episodes of several turns and checks what every policy with tokens owes: turns that continue exactly, finite
    log-probabilities, stop flags that are true, one clean row an episode."""
    run = agentgym.evaluate(tests.envs.Guess, policy, limit=limit, sampling=sampling or Sampling(), runs=runs)
    played = [e.trajectory for e in run.episodes()]
    assert len(played) == limit
    for trajectory in played:
        assert trajectory.error is None
        assert trajectory.tokens is not None
        assert len(trajectory.turns) == len(trajectory.tokens) > 1
        held: list[int] = []
        for turn, tokens in zip(trajectory.turns, trajectory.tokens, strict=True):
            assert tokens is not None
            assert tokens.prompt_ids is not None
            assert len(tokens.output_ids) > 0
            assert tokens.prompt_ids.tolist()[: len(held)] == held
            held = [*tokens.prompt_ids.tolist(), *tokens.output_ids.tolist()]
            assert np.isfinite(tokens.logprobs).all()
            assert (tokens.logprobs <= 0).all()
            assert tokens.stop_token_in_output is (turn.finish_reason != "length")
            assert turn.usage.prompt_tokens == len(tokens.prompt_ids)
            assert turn.usage.completion_tokens == len(tokens.output_ids)
        made = linearize(trajectory)
        assert (len(made.rows), made.drift.forked, made.drift.lost_tokens, made.drift.unknown_logprobs) == (1, 0, 0, 0)
        assert made.rows[0].token_ids.tolist() == held
        assert made.rows[0].trained == made.sampled_tokens
        assert not math.isnan(float(made.rows[0].logprobs.sum()))
    return played
