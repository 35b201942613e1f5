# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of bytes and a scripted engine, for whatever plays with token ids; no library needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from agentgym import registry
from agentgym.tokens.chatml import ChatML
from agentgym.training.engine import Piece, Seat

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
START, END = 256, 257


class Bytes:
    """A token a byte of UTF-8, and three that are special."""

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def special(self, name: str) -> int | None:
        return 256 + SPECIAL.index(name) if name in SPECIAL else None

    def decode(self, ids: Sequence[int]) -> str:
        parts, run = [], bytearray()
        for id in ids:
            if id < 256:
                run.append(id)
            else:
                parts += [run.decode(errors="replace"), SPECIAL[id - 256]]
                run.clear()
        return "".join([*parts, run.decode(errors="replace")])


def renderer() -> ChatML:
    return ChatML(Bytes())


def calling(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def ids_of(text: str) -> list[int]:
    """What a model that says this would sample."""
    return [*text.encode(), END]


def honest(item: str = "0") -> list[str]:
    """What solves ``tools.lookup/control/ITEM``, turn by turn."""
    env = registry.env_class("tools.lookup")()
    task = env.make_task(item)
    wanted, values = task.hidden["wanted"], task.hidden["values"]
    return [*(calling("get", key=k) for k in wanted), calling("submit", answer=str(sum(values[k] for k in wanted)))]


class Script:
    """An engine that says what is in its script; the version of its weights is 7."""

    def __init__(self, *turns: str | list[int], finish: str = "stop") -> None:
        self.turns = [ids_of(t) if isinstance(t, str) else t for t in turns]
        self.finish = finish
        self.prompts: list[list[int]] = []
        self.budgets: list[int] = []

    async def __call__(self, prompt: list[int], most: int, request: str) -> Piece:
        self.prompts.append(prompt)
        self.budgets.append(most)
        ids = self.turns.pop(0)
        cut = len(ids) > most
        ids = ids[:most]
        return Piece(ids, [-0.5] * len(ids), "length" if cut else self.finish, [7] * len(ids))  # type: ignore[arg-type]


def seat(generate: Callable[..., object], **options: object) -> Callable[[], Seat]:
    given = {"name": "test", "max_new_tokens": 200, **options}
    return lambda: Seat(renderer(), generate, **given)  # type: ignore[arg-type]


TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | length }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Not that of a real family, but as simple ones are written."""


def hf_tokenizer() -> Any:
    """One of transformers, a token a byte, with the ids of `Bytes`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the byte-level alphabet of GPT-2
    letters = {b: chr(b) for b in shown}
    letters |= {b: chr(256 + at) for at, b in enumerate(b for b in range(256) if b not in shown)}
    inner = Tokenizer(models.BPE({letters[b]: b for b in range(256)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = TEMPLATE
    return made


def solves(prompt: str, member: int = 0) -> str:
    """What an agent that can add says next in ``tools.lookup``, by what stands in its prompt."""
    wanted = re.findall(r"k\d", prompt.rpartition("sum of")[2].partition("?")[0])
    told = re.findall(r"<tool_response>\s*(\d+)\s*</tool_response>", prompt) or re.findall(
        r"<\|im_start\|>tool\n(\d+)<", prompt
    )
    if len(told) < len(wanted):
        return calling("get", key=wanted[len(told)])
    return calling("submit", answer=str(sum(map(int, told))))
