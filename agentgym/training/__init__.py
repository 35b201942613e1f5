# SPDX-License-Identifier: Apache-2.0
"""From played episodes to what a trainer wants. numpy only; each trainer's own library is imported by its adapter."""

import importlib
from typing import Any

from agentgym.training.curriculum import Curriculum
from agentgym.training.groups import Advantages, Baseline, advantages, overlong_penalty

_ADAPTERS = ("areal", "skyrl", "slime", "trl", "verifiers", "verl")

__all__ = ["Advantages", "Baseline", "Curriculum", "advantages", "overlong_penalty"]


def __getattr__(name: str) -> Any:
    if name in _ADAPTERS:  # an adapter brings the episode loop along, which whoever wants a baseline does not need
        return importlib.import_module(f"agentgym.training.{name}")
    raise AttributeError(f"module 'agentgym.training' has no attribute {name!r}")
