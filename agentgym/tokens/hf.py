# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of transformers as renderers need it (extra ``hf``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentgym.errors import UsageError


class HFTokenizer:
    """A fast tokenizer of transformers.

    Its added tokens are taken away for ordinary text, those that are not called special too: ``<tool_call>`` and ``</think>``
    are none in most tokenizers, and ``split_special_tokens`` would let them through. Runs of white space stay.

    Raises:
        UsageError: it is not a fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError(
                f"{type(tokenizer).__name__} is not a fast tokenizer of transformers; pass one, or an object with"
                " encode_ordinary, special and decode (agentgym.tokens.TextTokenizer)"
            )
        from tokenizers import Tokenizer

        self.tokenizer = tokenizer
        whole = json.loads(backend.to_str())
        self.added: dict[str, int] = {t["content"]: t["id"] for t in whole["added_tokens"] if t["content"].strip()}
        """Every token that a text could otherwise name."""
        whole["added_tokens"] = [t for t in whole["added_tokens"] if not t["content"].strip()]
        whole["post_processor"] = whole["truncation"] = whole["padding"] = None
        self._plain = Tokenizer.from_str(json.dumps(whole))
        self._reserved = frozenset(self.added.values())
        self._backend = backend

    def encode_ordinary(self, text: str) -> list[int]:
        """See `TextTokenizer`."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if not self._reserved.isdisjoint(ids):  # a vocabulary that has the name as a piece of its own
            return self._broken(text)
        return ids

    def _broken(self, text: str) -> list[int]:
        """Tokens of a text in pieces, so that no name is whole in one."""
        at = min(((text.find(name), name) for name in self.added if name in text), default=None)
        if at is None:
            raise UsageError(
                "the tokenizer turns ordinary text to special tokens, so prompts cannot be kept apart from control"
            )
        cut = at[0] + 1
        return self.encode_ordinary(text[:cut]) + self.encode_ordinary(text[cut:])

    def special(self, name: str) -> int | None:
        """See `TextTokenizer`."""
        return self.added.get(name)

    def decode(self, ids: Sequence[int]) -> str:
        """See `TextTokenizer`."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))
