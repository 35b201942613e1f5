# SPDX-License-Identifier: Apache-2.0
"""Every error agentgym raises on purpose: one hierarchy, each message a sentence that says what to do."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


class AgentGymError(Exception):
    """Base of all errors raised on purpose. Its text is written for the person who reads it."""


class UsageError(AgentGymError):
    """The caller asked for something that cannot be: a bad option, an unknown name, a malformed file."""


class NotFoundError(UsageError):
    """A task, suite, model, run or address that does not exist; the text names near matches."""


class NothingSelectedError(UsageError):
    """The selection is valid but empty (pytest's exit code 5)."""


class DataError(UsageError):
    """A data file or row that cannot be used; the text names the file and the line."""


class DefinitionError(AgentGymError):
    """An environment, tool, verifier or policy is written wrongly; found when it is defined or first used."""


class RecordError(AgentGymError):
    """A run record cannot be read or written (corrupt, newer schema, full disk, network file system)."""


class ModelFileError(AgentGymError):
    """A model file is missing and cannot be fetched, or is not the file that was expected."""


class ToolError(AgentGymError):
    """Raised by a tool to tell the agent, in words, why its call did nothing. Never leaves ``step``."""


class InfrastructureError(AgentGymError):
    """Something that is not the agent's doing failed: a server, a sandbox, a disk.

    The episode it ends is counted apart and may be retried; it is never scored, so never a zero.

    Args:
        message: what happened, for a person.
        retryable: whether trying the same call again may help.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class MissingReplyError(InfrastructureError):
    """Only kept replies were to be used, and there is none: the episode is skipped, which is neither good nor bad.

    Args:
        message: what is missing, for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


def near_matches(name: str, known: Iterable[str], *, most: int = 4) -> list[str]:
    """Names close to ``name``, best first: the same start or ending first, then by similarity."""
    names = list(dict.fromkeys(known))
    lowered = name.lower()
    close = [n for n in names if lowered and (n.lower().startswith(lowered) or n.lower().endswith("." + lowered))]
    spelled = {n.lower(): n for n in reversed(names)}
    similar = [spelled[n] for n in difflib.get_close_matches(lowered, spelled, n=most, cutoff=0.6)]
    return list(dict.fromkeys([*similar, *close]))[:most]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean: a, b?`` with a leading space, or the empty string where nothing is near."""
    close = near_matches(name, known)
    return f" Did you mean: {', '.join(close)}?" if close else ""


_SECRET_VARIABLE = re.compile(r"(?i)(key|token|secret|password|credentials?)$")
"""Names of environment variables whose values must never be told, whatever they look like."""


def redact(text: str) -> str:
    """``text`` without the credentials of URLs and without what looks like a key; for records, logs and errors."""
    text = re.sub(r"(\w+://)[^/\s]+@", r"\1***@", text)  # up to the last @: passwords may hold one
    text = re.sub(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}", r"\1***", text)
    text = re.sub(r"([?&]key=)[^\s\"'&,;]{4,}", r"\1***", text)
    text = re.sub(
        r"(?i)\b((?:api[_-]?key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?(?:basic\s+)?)[^\s\"'&,;]{4,}",
        r"\1***",
        text,
    )
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_VARIABLE.search(name) and value in text:
            text = text.replace(value, "***")
    return re.sub(r"\b(?:sk|pk|ghp|gho|xox[abp]|hf|AKIA)[-_]?[A-Za-z0-9_-]{16,}\b", "***", text)
