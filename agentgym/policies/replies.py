# SPDX-License-Identifier: Apache-2.0
"""Models' replies in a text file that is kept in git: what a pipeline without keys plays a suite with.

One reply a line, sorted, so that a changed prompt shows as the lines it changes. The key of a reply does not depend on a
server that answers: what the model is called, the conversation, the tools, the sampling and the trial.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentgym.errors import DataError, RecordError
from agentgym.policies.cache import Kept


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    model: str
    """The version that the server named; ``""`` where it named none."""
    reply: Kept


_decoder = msgspec.json.Decoder(_Line)


class RepliesFile:
    """The replies in one file; a stand-in for the cache's database.

    Args:
        path: the file; it need not exist yet.

    Raises:
        DataError: it holds something else; the text names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = self.misses = 0
        self.models: set[str] = set()
        """Versions of the model whose replies were used."""
        self._changed = False
        self._lines: dict[str, _Line] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"cannot read the replies {path}: {e}") from e
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    kept = _decoder.decode(line)
                except msgspec.MsgspecError as e:
                    raise DataError(f"{path}:{number} is not a kept reply: {e}. Record the file anew") from e
                self._lines[kept.key] = kept

    def get(self, key: bytes, models: Sequence[str]) -> Kept | None:
        """The reply of that key, unless it is of another model than those."""
        line = self._lines.get(key.hex())
        if line is None or (models and line.model and line.model not in models):
            self.misses += 1
            return None
        self.hits += 1
        if line.model:
            self.models.add(line.model)
        return line.reply

    def put(self, key: bytes, model: str, kept: Kept) -> None:
        """Keeps a reply; it is written by `close`."""
        self._lines[key.hex()] = _Line(key.hex(), model, kept)
        self._changed = True

    def close(self) -> None:
        """Writes what is new, whole or not at all.

        Raises:
            RecordError: it cannot be written.
        """
        if not self._changed:
            return
        lines = [msgspec.json.encode(self._lines[k], order="deterministic") for k in sorted(self._lines)]
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(b"\n".join(lines) + b"\n")
            os.replace(temporary, self.path)
        except OSError as e:
            raise RecordError(f"cannot write the replies {self.path}: {e.strerror}") from e
        self._changed = False
