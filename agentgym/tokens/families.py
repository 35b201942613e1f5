# SPDX-License-Identifier: Apache-2.0
"""Which renderer belongs to a tokenizer: known by name, or proved with the tokenizer's own chat template; never guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentgym.errors import UsageError, did_you_mean
from agentgym.tokens.chatml import SMOLLM2_SYSTEM, ChatML
from agentgym.tokens.renderer import Renderer, TextTokenizer

FAMILIES: dict[str, Callable[[TextTokenizer], Renderer]] = {
    "chatml": lambda tokenizer: ChatML(tokenizer),
    "smollm2": lambda tokenizer: ChatML(tokenizer, default_system=SMOLLM2_SYSTEM, name="smollm2"),
}


def find(tokenizer: Any, name: str | None) -> Renderer:
    """See `renderer_for`."""
    if name is None:
        raise UsageError(f"say which family of templates the tokenizer has: {', '.join(FAMILIES)}")
    if name not in FAMILIES:
        raise UsageError(f"no renderer {name!r}; there are: {', '.join(FAMILIES)}.{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name](tokenizer)
