# SPDX-License-Identifier: Apache-2.0
"""Tokenizers for tests, made in a moment: one of plain Python, and byte-level ones of transformers around a chat template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

SPECIAL = re.compile(r"<\|[A-Za-z_]+\|>|<｜[^｜<>]+｜>|\[gMASK\]|<sop>|<(?:start|end)_of_turn>|</?role>")  # noqa: RUF001
ADDED = re.compile(r"</?(?:think|tool_call|tool_response|arg_key|arg_value)>")

WORDS = re.compile(r"[^\r\n\w]?\w+| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
"""How the families tested here cut text, roughly: new lines end a piece and stay together."""


class PairTokenizer:
    """A `TextTokenizer` of bytes and of pairs of bytes: what is sampled in bytes, it would encode in pairs."""

    BYTES = 10
    PAIRS = BYTES + 256

    def __init__(self, *names: str) -> None:
        self.names = {name: at for at, name in enumerate(names or ("<|im_start|>", "<|im_end|>"))}

    def encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in WORDS.findall(text):
            data = word.encode()
            ids += [self.PAIRS + data[i] * 256 + data[i + 1] for i in range(0, len(data) - 1, 2)]
            ids += [self.BYTES + data[-1]] * (len(data) % 2)
        return ids

    def special(self, name: str) -> int | None:
        return self.names.get(name)

    def bytes_of(self, token: int) -> list[int]:
        return [token - self.BYTES] if token < self.PAIRS else [*divmod(token - self.PAIRS, 256)]

    def decode(self, ids: Sequence[int]) -> str:
        by_id = {at: name for name, at in self.names.items()}
        data = b"".join(by_id[i].encode() if i < self.BYTES else bytes(self.bytes_of(i)) for i in ids)
        return data.decode(errors="replace")


def fast_tokenizer(template: str, *, eos: str = "<|im_end|>", bos: str | None = None) -> Any:
    """A byte-level tokenizer of transformers with the tokens that a template names."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    corpus = [template, *["the weather in Rome is sunny and 3 degrees\n\n"] * 5]
    inner.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=inner)
    named: dict[str, Any] = {"eos_token": eos, "additional_special_tokens": sorted(set(SPECIAL.findall(template)) - {eos, bos})}
    made.add_special_tokens(named | ({"bos_token": bos} if bos else {}))
    made.add_tokens([AddedToken(x, special=False, normalized=False) for x in sorted(set(ADDED.findall(template)))])
    made.chat_template = template
    return made
