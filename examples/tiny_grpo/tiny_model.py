# SPDX-License-Identifier: Apache-2.0
"""A model of 0.6 million parameters that plays `tools.lookup`, character by character, and keeps its exact tokens.

What it shows of a token policy: rendering appends to the ids that the engine saw (nothing is ever rendered anew), what was
sampled is kept as it was sampled, with log-probabilities and the version of the weights, and episodes share one batch.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym import (
    Completion,
    EpisodeContext,
    Message,
    PolicyBase,
    Sampling,
    Tokens,
    Trajectory,
    Usage,
    assistant,
    call,
    submit,
)
from agentgym.chat import parse_arguments

ALPHABET = "\0 0123456789kgetansQR:+;?"
"""A token a character; the first one pads."""
END = ALPHABET.index(";")
MOST_TOKENS = 10
"""Tokens of one turn; an answer that is longer is cut."""


def encode(text: str) -> np.ndarray:
    """int32[len(text)]."""
    return np.array([ALPHABET.index(c) for c in text], np.int32)


def decode(ids: np.ndarray) -> str:
    """The text of ids."""
    return "".join(ALPHABET[i] for i in ids)


def rendered(messages: Sequence[Message]) -> str:
    """What the model is shown of messages that are not its own."""
    text = ""
    for m in messages:
        if m.role == "user":
            text += f"Q:{'+'.join(re.findall('k[0-9]', m.text.partition('sum of')[2]))};"
        else:
            text += f"R:{m.text if m.text.isdigit() else '?'};"
    return text


def parsed(text: str) -> Message:
    """What the model said, as an action: ``get k3;``, ``ans 7;``, or just text."""
    if found := re.fullmatch("get (k[0-9]);", text):
        return call("get", key=found[1])
    if found := re.fullmatch("ans ([0-9]+);", text):
        return submit(answer=found[1])
    return assistant(text.replace("\0", "?"))


def said(message: Message) -> str:
    """The inverse of `parsed`, for demonstrations."""
    (c,) = message.tool_calls
    (value,) = [v for k, v in sorted(parse_arguments(c.arguments).items()) if k in ("key", "answer")]
    return f"{'ans' if c.name == 'submit' else 'get'} {value};"


def demonstrated(trajectory: Trajectory) -> Trajectory:
    """An oracle's episode with the tokens that this model would have had to sample."""
    held, kept, seen = np.empty(0, np.int32), [], list(trajectory.opening)
    for turn in trajectory.turns:
        held = np.concatenate([held, encode(rendered(seen))])
        output = encode(said(turn.message))
        kept.append(Tokens(output, np.zeros(len(output), np.float32), held))
        held, seen = np.concatenate([held, output]), list(turn.observation)
    return Trajectory(task_id=trajectory.task_id, turns=trajectory.turns, tokens=list(kept))


class TinyModel(PolicyBase):
    """The weights, and what samples from them for any number of episodes at once."""

    name = "tiny:lookup"

    def __init__(self, seed: int = 0, hidden: int = 128, layers: int = 3) -> None:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(ALPHABET), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=True,
        )  # fmt: skip
        self.network = LlamaForCausalLM(config)
        self.version = 0
        """Counts the updates of the weights."""
        self._waiting: list[tuple[np.ndarray, float, int, asyncio.Future[tuple[np.ndarray, np.ndarray]]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def begin(self, context: EpisodeContext) -> PolicyBase:
        """A player that remembers the ids of its episode."""
        return _Player(self, context.seed)

    async def sample(self, ids: np.ndarray, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Output ids and their log-probabilities, together with whoever else is asking."""
        future: asyncio.Future[tuple[np.ndarray, np.ndarray]] = asyncio.get_running_loop().create_future()
        self._waiting.append((ids, temperature, seed, future))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        before = -1
        while before != len(self._waiting):  # until nobody comes any more
            before = len(self._waiting)
            await asyncio.sleep(0)
        batch, self._waiting = self._waiting, []
        results = self._generate([(ids, t, s) for ids, t, s, _ in batch])
        for (*_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    @torch.no_grad()
    def _generate(self, asked: list[tuple[np.ndarray, float, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
        ids = [list(map(int, prompt)) for prompt, _, _ in asked]
        # every row has its own numbers: what it samples does not depend on who shares its batch
        uniform = [np.random.default_rng(seed).random(MOST_TOKENS) for _, _, seed in asked]
        logprobs: list[list[float]] = [[] for _ in asked]
        live = list(range(len(asked)))
        for step in range(MOST_TOKENS):
            rows, _ = padded([np.array(ids[i]) for i in live])
            last = torch.tensor([len(ids[i]) - 1 for i in live])
            logits = self.network(input_ids=rows).logits[torch.arange(len(live)), last].double()
            raw = torch.log_softmax(logits, -1)
            for j, i in enumerate(list(live)):
                temperature = asked[i][1]
                if temperature == 0:
                    token = int(raw[j].argmax())
                else:
                    cumulative = torch.softmax(logits[j] / temperature, -1).cumsum(-1)
                    token = min(int((cumulative < uniform[i][step]).sum()), len(ALPHABET) - 1)
                ids[i].append(token)
                logprobs[i].append(float(raw[j, token]))
            live = [i for i in live if ids[i][-1] != END]
            if not live:
                break
        return [
            (np.array(row[len(prompt) :], np.int32), np.array(told, np.float32))
            for row, (prompt, _, _), told in zip(ids, asked, logprobs, strict=True)
        ]


class _Player(PolicyBase):
    """One episode."""

    name = TinyModel.name

    def __init__(self, model: TinyModel, seed: int) -> None:
        self._model, self._seed = model, seed
        self._held = np.empty(0, np.int32)
        self._seen = 0
        self._turn = 0

    async def act(self, conversation: Sequence[Message], tools: object, sampling: Sampling) -> Completion:
        """Appends what is new to the ids, and samples."""
        prompt = np.concatenate([self._held, encode(rendered(conversation[self._seen :]))])
        temperature = 1.0 if sampling.temperature is None else sampling.temperature
        output, logprobs = await self._model.sample(prompt, temperature, (self._seed + 7919 * self._turn) % (1 << 63))
        self._held, self._seen = np.concatenate([prompt, output]), len(conversation) + 1
        self._turn += 1
        ended = bool(len(output)) and int(output[-1]) == END
        versions = np.full(len(output), self._model.version, np.int32)
        return Completion(
            parsed(decode(output)),
            Usage(len(prompt), len(output)),
            "stop" if ended else "length",
            Tokens(output, logprobs, prompt, versions, stop_token_in_output=ended),
            Sampling(temperature=temperature, max_tokens=MOST_TOKENS, seed=sampling.seed),
        )


def padded(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrays of any lengths as one, zeros behind the shorter ones, and 1 where there is something."""
    width = max(map(len, arrays))
    out = np.zeros((len(arrays), width), arrays[0].dtype)
    there = np.zeros((len(arrays), width), np.float32)
    for i, a in enumerate(arrays):
        out[i, : len(a)], there[i, : len(a)] = a, 1
    rows = torch.from_numpy(out)
    return (rows.long() if out.dtype.kind == "i" else rows), torch.from_numpy(there)


def log_likelihood(network: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """float[N, T]: the log-probability of each token given those before it; 0.0 for the first."""
    logits = network(input_ids=ids).logits[:, :-1]
    told = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(told, (1, 0))


def perplexity(loss: float) -> float:
    """e to the mean negative log-likelihood."""
    return math.exp(min(loss, 50))
