# SPDX-License-Identifier: Apache-2.0
"""Filters that the user has given names, beside the other things that agentgym keeps for a user."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec

from agentgym.errors import RecordError


def file() -> Path:
    """Where they are: ``filters.json`` in ``$AGENTGYM_CACHE``, else in the user's cache directory; a map, to be copied."""
    from agentgym.policies.modelfiles import cache_dir

    return cache_dir() / "filters.json"


def filters() -> dict[str, str]:
    """Name -> filter, in the order in which they were saved; empty where there are none, or the file is not a map of texts."""
    try:
        return msgspec.json.decode(file().read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def save(name: str, text: str | None) -> None:
    """Gives a filter a name, or (None) forgets the name. The file is replaced as a whole.

    Raises:
        RecordError: it cannot be written.
    """
    known = filters()
    known.pop(name, None)
    if text is not None:
        known[name] = text
    path = file()
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".filters-", dir=path.parent)
        with os.fdopen(handle, "wb") as f:
            f.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
        os.replace(part, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise RecordError(f"filters cannot be saved in {path}: {e.strerror}") from e
