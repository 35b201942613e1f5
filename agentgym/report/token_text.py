# SPDX-License-Identifier: Apache-2.0
"""What the tokens of a run spell, where a tokenizer of its model is at hand and cheap to load; else only their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.errors import AgentGymError
from agentgym.policies import modelfiles
from agentgym.policies.gguf_tokenizer import GGUFTokenizer

LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the most tokens that one is spelled with."""


class Speller:
    """The texts of tokens."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = GGUFTokenizer(path)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One text a token. Where several spell one character, the first has it and the others have nothing."""
        result: list[str] = []
        at = 0
        while at < len(ids):
            text = self._text(ids[at : at + 1])
            size = 1
            while "\ufffd" in text and size < min(LONGEST_CHARACTER, len(ids) - at):
                size += 1
                text = self._text(ids[at : at + size])
            if "\ufffd" in text:
                text, size = self._text(ids[at : at + 1]), 1
            result += [text, *[""] * (size - 1)]
            at += size
        return result

    def _text(self, ids: Sequence[int]) -> str:
        if any(not 0 <= i < len(self._tokenizer.names) for i in ids):
            return "".join(f"<{i}>" for i in ids)
        return self._tokenizer.decode(ids)


def speller(meta: Mapping[str, Any]) -> Speller | None:
    """The speller for a run, by the fingerprint in its description; None where no file that is here is known to be the one.

    Known are model files in the cache whose name and SHA-256 the fingerprint has. It reads the head of the file: half a second.
    """
    fingerprint = meta.get("fingerprint")
    if not isinstance(fingerprint, Mapping):
        return None
    for name, known in modelfiles.KNOWN.items():
        if known.sha256 == fingerprint.get("sha256") and (path := modelfiles.find(name)) is not None:
            try:
                return Speller(path)
            except (AgentGymError, LookupError, ValueError):
                return None
    return None
