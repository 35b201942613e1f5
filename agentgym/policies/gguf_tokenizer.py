# SPDX-License-Identifier: Apache-2.0
"""The tokenizer inside of a GGUF file, for prompts that are made of token ids: byte-level BPE, as SmolLM2's.

The engine tokenizes by itself, but does not tell what became of a prompt, and takes words of users and tools for control tokens
where they spell them. Files with another kind of tokenizer are refused; `local` then lets the engine render, as a chat.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from agentgym.errors import UsageError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_WANTED = "tokenizer.ggml."
_CONTROL, _USER_DEFINED = 3, 4


def metadata(path: Path) -> dict[str, Any]:
    """The file's ``tokenizer.ggml.*`` values. The form: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.

    Raises:
        UsageError: it cannot be read.
    """
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version < 2:
                raise UsageError(f"{path} is not a GGUF file of version 2 or later")
            for _ in range(count):
                key = _string(file).decode()
                value = _value(file, _scalar(file, "<I"))
                if key.startswith(_WANTED):
                    found[key.removeprefix(_WANTED)] = value
    except (OSError, struct.error, UnicodeDecodeError, KeyError, MemoryError) as e:
        raise UsageError(f"the head of {path} cannot be read: {type(e).__name__}: {e}") from e
    return found


class GGUFTokenizer:
    """A `TextTokenizer`.

    Raises:
        UsageError: the file's tokenizer is of another kind than byte-level BPE with SmolLM2's way of splitting texts.
    """

    def __init__(self, path: Path) -> None:
        about = metadata(path)
        kind = tuple(about.get(k, b"?").decode("utf-8", "replace") for k in ("model", "pre"))
        if kind != ("gpt2", "smollm"):
            raise UsageError(f"the tokenizer of {path.name} is {kind[0]}/{kind[1]}, and only gpt2/smollm is known")
        self.names: list[str] = [t.decode() for t in about["tokens"]]
        self._ids = {name: id for id, name in enumerate(self.names)}
        self._special = frozenset(i for i, t in enumerate(about["token_type"]) if t in (_CONTROL, _USER_DEFINED))
        self._ranks = {tuple(m.decode().split(" ", 1)): rank for rank, m in enumerate(about["merges"])}
        self._piece = functools.lru_cache(maxsize=1 << 15)(self._merged)

    def encode_ordinary(self, text: str) -> list[int]:
        """See `TextTokenizer`."""
        result: list[int] = []
        for piece in split(text):
            result += self._piece(piece)
        return result

    def special(self, name: str) -> int | None:
        """See `TextTokenizer`."""
        id = self._ids.get(name)
        return id if id in self._special else None

    def decode(self, ids: Sequence[int]) -> str:
        """See `TextTokenizer`."""
        bytes_of = _tables()[1]
        spelled = bytearray()
        for id in ids:
            name = self.names[id]
            spelled += name.encode() if id in self._special else bytes(bytes_of[c] for c in name)
        return spelled.decode("utf-8", "replace")

    def _merged(self, piece: str) -> tuple[int, ...]:
        """The tokens of one piece: the pair of lowest rank is merged, wherever it stands, until none is left."""
        letters = _tables()[0]
        parts = [letters[b] for b in piece.encode("utf-8", "replace")]
        while len(parts) > 1:
            pairs = set(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined, at, merged = "".join(best), 0, []
            while at < len(parts):
                if at + 1 < len(parts) and (parts[at], parts[at + 1]) == best:
                    merged.append(joined)
                    at += 2
                else:
                    merged.append(parts[at])
                    at += 1
            parts = merged
        return tuple(self._ids[p] for p in parts)


def split(text: str) -> list[str]:
    """The pieces within which tokens lie: each digit by itself; between digits words, numbers and signs, a space in front with
    each, as GPT-2 has it."""
    digit, words = _patterns()
    result: list[str] = []
    for part in digit.split(text):
        if len(part) == 1:
            result.append(part)
        elif part:
            result += words.findall(part)
    return result


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Python's ``\\d`` and ``\\w`` are not Unicode's classes N and L; they differ by the numbers that are no decimal digits."""
    numbers = "".join(c for i in range(0x110000) if unicodedata.category(c := chr(i)) in ("Nl", "No"))
    space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    letter = rf"[^\W\d_{numbers}]"
    words = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{letter}+| ?(?:(?!{letter})[^{space}\d{numbers}])+|[{space}]+(?![^{space}])|[{space}]+"
    return re.compile(rf"([\d{numbers}])"), re.compile(words)


@functools.cache
def _tables() -> tuple[list[str], dict[str, int]]:
    """The letter that stands for each byte in the vocabulary, and the byte of each letter: printable ones for themselves, the
    others from U+0100 on (GPT-2's encoder)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    letters = [chr(b) if b in printable else chr(next(others)) for b in range(256)]
    return letters, {c: b for b, c in enumerate(letters)}


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> bytes:
    return file.read(_scalar(file, "<Q"))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    of = _scalar(file, "<I")
    length = _scalar(file, "<Q")
    if of in _SCALARS:
        form = _SCALARS[of]
        return list(struct.unpack(f"<{length}{form[1]}", file.read(length * struct.calcsize(form))))
    return [_value(file, of) for _ in range(length)]
