# SPDX-License-Identifier: Apache-2.0
"""Agentgym: environments that expose LLM agents to tasks, verifiers that say what their answers are worth.

``import agentgym`` makes the environments known to Gymnasium (``gymnasium.make("agentgym/math.add-v1")``) and imports
nothing heavy; everything else is loaded when it is first named.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "agentgym.chat": (
        "Action", "ImagePart", "Message", "Observation", "ReasoningPart", "TextPart", "ToolCall",
        "assistant", "call", "submit", "system", "user",
    ),
    "agentgym.env": ("ChatEnv", "Plan", "Task", "ToolEnv", "tool"),
    "agentgym.dataenv": ("DataEnv",),
    "agentgym.errors": ("AgentGymError", "InfrastructureError", "ToolError", "UsageError"),
    "agentgym.protocols": ("Completion", "EpisodeContext", "Policy", "PolicyBase", "Sampling", "Tokens", "Usage"),
    "agentgym.registry": ("make", "register_evaluator", "register_policy", "register_sandbox", "register_task"),
    "agentgym.rollout.evaluate": ("aevaluate", "evaluate"),
    "agentgym.records.run": ("Episode", "Run", "open_run"),
    "agentgym.scoring": ("Finding", "Score", "Verifier", "VerifierContext", "verifier"),
    "agentgym.trajectory": ("Event", "StateChange", "ToolResult", "Trajectory", "Turn"),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

_MODULES = ("proxy", "tokens", "training", "wrappers")
"""Parts that are named as such: ``agentgym.tokens.linearize``."""

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from agentgym.chat import Action as Action
    from agentgym.chat import ImagePart as ImagePart
    from agentgym.chat import Message as Message
    from agentgym.chat import Observation as Observation
    from agentgym.chat import ReasoningPart as ReasoningPart
    from agentgym.chat import TextPart as TextPart
    from agentgym.chat import ToolCall as ToolCall
    from agentgym.chat import assistant as assistant
    from agentgym.chat import call as call
    from agentgym.chat import submit as submit
    from agentgym.chat import system as system
    from agentgym.chat import user as user
    from agentgym.dataenv import DataEnv as DataEnv
    from agentgym.env import ChatEnv as ChatEnv
    from agentgym.env import Plan as Plan
    from agentgym.env import Task as Task
    from agentgym.env import ToolEnv as ToolEnv
    from agentgym.env import tool as tool
    from agentgym.errors import AgentGymError as AgentGymError
    from agentgym.errors import InfrastructureError as InfrastructureError
    from agentgym.errors import ToolError as ToolError
    from agentgym.errors import UsageError as UsageError
    from agentgym.protocols import Completion as Completion
    from agentgym.protocols import EpisodeContext as EpisodeContext
    from agentgym.protocols import Policy as Policy
    from agentgym.protocols import PolicyBase as PolicyBase
    from agentgym.protocols import Sampling as Sampling
    from agentgym.protocols import Tokens as Tokens
    from agentgym.protocols import Usage as Usage
    from agentgym.records.run import Episode as Episode
    from agentgym.records.run import Run as Run
    from agentgym.records.run import open_run as open_run
    from agentgym.registry import make as make
    from agentgym.registry import register_evaluator as register_evaluator
    from agentgym.registry import register_policy as register_policy
    from agentgym.registry import register_sandbox as register_sandbox
    from agentgym.registry import register_task as register_task
    from agentgym.rollout.evaluate import aevaluate as aevaluate
    from agentgym.rollout.evaluate import evaluate as evaluate
    from agentgym.scoring import Finding as Finding
    from agentgym.scoring import Score as Score
    from agentgym.scoring import Verifier as Verifier
    from agentgym.scoring import VerifierContext as VerifierContext
    from agentgym.scoring import verifier as verifier
    from agentgym.trajectory import Event as Event
    from agentgym.trajectory import StateChange as StateChange
    from agentgym.trajectory import ToolResult as ToolResult
    from agentgym.trajectory import Trajectory as Trajectory
    from agentgym.trajectory import Turn as Turn


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"agentgym.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'agentgym' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Registration:
    """A finder of modules that waits for Gymnasium to be imported, by whomever, and registers the environments then.

    To import it for that here would cost every ``agentgym --help`` more CPU time than all the rest of it.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Gymnasium's own spec, with a loader that does one thing more; None for every other module."""
        if name != "gymnasium":
            return None
        others = (f for f in sys.meta_path if f is not self)
        spec = next((s for f in others if (s := f.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: Any) -> None:
            execute(module)
            sys.meta_path.remove(self)
            _register()

        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010 (a method, to type checkers)
        return spec


def _register() -> None:
    importlib.import_module("agentgym.registry").register_gymnasium()


if "gymnasium" in sys.modules:
    _register()
elif not any(type(f).__name__ == _Registration.__name__ for f in sys.meta_path):
    sys.meta_path.insert(0, _Registration())
