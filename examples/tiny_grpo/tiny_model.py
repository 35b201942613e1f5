# SPDX-License-Identifier: Apache-2.0
"""A model of a hundred thousand parameters that plays short tasks, character by character, and keeps its exact tokens.

What it shows of a token policy: rendering appends to the ids that the engine saw (nothing is ever rendered anew), what was
sampled is kept as it was sampled, with log-probabilities and the version of the weights, and episodes share one batch.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Speech:
    """How a family's messages are written for the model, a token a character, and read from it."""

    name: str
    alphabet: str
    """The first one pads; ``;`` ends a turn."""
    most: int
    """Tokens of one turn; an answer that is longer is cut."""
    rendered: Callable[[Sequence[Message]], str]
    """What the model is shown of messages that are not its own."""
    parsed: Callable[[str], Message]
    """What the model said, as an action."""

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return self.alphabet.index(";")

    def encode(self, text: str) -> np.ndarray:
        """int32[len(text)]."""
        return np.array([self.alphabet.index(c) for c in text], np.int32)

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids."""
        return "".join(self.alphabet[i] for i in ids)


def _shown(messages: Sequence[Message]) -> str:
    text = ""
    for m in messages:
        if m.role == "user":
            text += f"Q:{'+'.join(re.findall('k[0-9]', m.text.partition('sum of')[2]))};"
        else:
            text += f"R:{m.text if m.text.isdigit() else '?'};"
    return text


def _acted(text: str) -> Message:
    if found := re.fullmatch("get (k[0-9]);", text):
        return call("get", key=found[1])
    if found := re.fullmatch("ans ([0-9]+);", text):
        return submit(answer=found[1])
    return assistant(text.replace("\0", "?"))


LOOKUP = Speech("lookup", "\0 0123456789kgetansQR:+;?", 10, _shown, _acted)
"""`tools.lookup`: ``get k3;``, ``ans 7;``, or just text."""


def said(message: Message) -> str:
    """What the model would have had to say, for demonstrations of `tools.lookup`."""
    (c,) = message.tool_calls
    (value,) = [v for k, v in sorted(parse_arguments(c.arguments).items()) if k in ("key", "answer")]
    return f"{'ans' if c.name == 'submit' else 'get'} {value};"


def _asked(messages: Sequence[Message]) -> str:
    return "".join(f"{found[1]}+{found[2]};" for m in messages if (found := re.search("([0-9]+) [+] ([0-9]+)", m.text)))


def _answered(text: str) -> Message:
    """``7;`` or with a dot for each word around it that says nothing: ``..7;``, ``7...;``. What was cut has no answer."""
    before, number, after = re.fullmatch(r"([.]*)([0-9]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    lines = [" ".join(["well"] * len(before)), f"Answer: {number}" if number and text.endswith(";") else ""]
    return assistant("\n".join(filter(None, [*lines, " ".join(["so"] * after.count("."))])))


SUMS = Speech("sums", "\0 0123456789+;.", 24, _asked, _answered)
"""`math.add`: the answer, and as many empty words as one likes."""


def demonstrated(trajectory: Trajectory, speech: Speech = LOOKUP, say: Callable[[Message], str] = said) -> Trajectory:
    """An oracle's episode with the tokens that this model would have had to sample.

    Args:
        trajectory: what was played.
        speech: how it is written.
        say: the text of each of its messages.
    """
    held, kept, seen = np.empty(0, np.int32), [], list(trajectory.opening)
    for turn in trajectory.turns:
        held = np.concatenate([held, speech.encode(speech.rendered(seen))])
        output = speech.encode(say(turn.message))
        kept.append(Tokens(output, np.zeros(len(output), np.float32), held))
        held, seen = np.concatenate([held, output]), list(turn.observation)
    return Trajectory(task_id=trajectory.task_id, turns=trajectory.turns, tokens=list(kept))


class TinyModel(PolicyBase):
    """The weights, and what samples from them for any number of episodes at once."""

    def __init__(self, seed: int = 0, speech: Speech = LOOKUP, hidden: int = 64, layers: int = 2) -> None:
        self.speech, self.name = speech, f"tiny:{speech.name}"
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(speech.alphabet), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
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
        # every row has its own numbers: what it samples does not depend on who shares its batch
        uniform = torch.from_numpy(np.stack([np.random.default_rng(seed).random(self.speech.most) for *_, seed in asked]))
        hot = torch.tensor([t for _, t, _ in asked], dtype=torch.float64)[:, None]
        width = max(len(prompt) for prompt, *_ in asked)
        # zeros before the shorter ones, so that all go on at the same place
        rows = torch.from_numpy(np.stack([np.pad(prompt, (width - len(prompt), 0)) for prompt, *_ in asked])).long()
        there = torch.from_numpy(np.stack([np.arange(width) >= width - len(prompt) for prompt, *_ in asked])).long()
        ended = torch.zeros(len(asked), dtype=torch.bool)
        tokens, told, cache = [], [], None
        for step in range(self.speech.most):
            places = (there.cumsum(-1) - 1).clamp(min=0)[:, -rows.shape[1] :]
            out = self.network(
                input_ids=rows,
                attention_mask=there,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, logits = out.past_key_values, out.logits[:, -1].double()
            raw = torch.log_softmax(logits, -1)
            cumulative = torch.softmax(logits / hot.clamp(min=1e-9), -1).cumsum(-1)
            drawn = (cumulative < uniform[:, step : step + 1]).sum(-1).clamp(max=len(self.speech.alphabet) - 1)
            token = torch.where(hot[:, 0] == 0, raw.argmax(-1), drawn)
            tokens.append(torch.where(ended, -1, token))
            told.append(raw.gather(-1, token[:, None])[:, 0])
            ended |= token == self.speech.end
            if ended.all():
                break
            rows, there = token[:, None], torch.nn.functional.pad(there, (0, 1), value=1)
        sampled, logprobs = torch.stack(tokens, 1).numpy(), torch.stack(told, 1).numpy()
        return [(r[r >= 0].astype(np.int32), p[r >= 0].astype(np.float32)) for r, p in zip(sampled, logprobs, strict=True)]


class _Player(PolicyBase):
    """One episode."""

    def __init__(self, model: TinyModel, seed: int) -> None:
        self._model, self._seed = model, seed
        self.name = model.name
        self._held = np.empty(0, np.int32)
        self._seen = 0
        self._turn = 0

    async def act(self, conversation: Sequence[Message], tools: object, sampling: Sampling) -> Completion:
        """Appends what is new to the ids, and samples."""
        speech = self._model.speech
        prompt = np.concatenate([self._held, speech.encode(speech.rendered(conversation[self._seen :]))])
        temperature = 1.0 if sampling.temperature is None else sampling.temperature
        output, logprobs = await self._model.sample(prompt, temperature, (self._seed + 7919 * self._turn) % (1 << 63))
        self._held, self._seen = np.concatenate([prompt, output]), len(conversation) + 1
        self._turn += 1
        ended = bool(len(output)) and int(output[-1]) == speech.end
        versions = np.full(len(output), self._model.version, np.int32)
        return Completion(
            speech.parsed(speech.decode(output)),
            Usage(len(prompt), len(output)),
            "stop" if ended else "length",
            Tokens(output, logprobs, prompt, versions, stop_token_in_output=ended),
            Sampling(temperature=temperature, max_tokens=speech.most, seed=sampling.seed),
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
