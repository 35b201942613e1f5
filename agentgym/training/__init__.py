# SPDX-License-Identifier: Apache-2.0
"""From played episodes to what a trainer wants. numpy only; each trainer's own library is imported by its adapter."""

from agentgym.training.groups import Advantages, Baseline, advantages

__all__ = ["Advantages", "Baseline", "advantages"]
