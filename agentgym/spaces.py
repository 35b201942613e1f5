# SPDX-License-Identifier: Apache-2.0
"""The observation and action spaces of chat environments: real Gymnasium spaces over messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from gymnasium.spaces import Space

from agentgym.chat import ROLES, Action, ArgumentError, Message, Observation, ToolCall, assistant, clean_message, user
from agentgym.toolspec import ToolFunction, sample_arguments

_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz     .,?0123456789")


def _sample_text(rng: np.random.Generator, longest: int) -> str:
    return "".join(_LETTERS[int(i)] for i in rng.integers(len(_LETTERS), size=int(rng.integers(1, longest + 1))))


def _refuse_masks(mask: Any, probability: Any) -> None:
    if mask is not None or probability is not None:
        raise ValueError("message spaces take neither a mask nor a probability when sampled")


def _well_formed(x: Any) -> bool:
    """Whether ``x`` is a message with fields of the declared types, in real Unicode."""
    try:
        return isinstance(x, Message) and x.role in ROLES and clean_message(x) is x
    except (AttributeError, TypeError):  # structs do not check what they are constructed with
        return False


class ObservationSpace(Space[Observation]):
    """All tuples of well-formed messages. `sample` draws one or two short user messages."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(None, None, seed)

    def sample(self, mask: Any = None, probability: Any = None) -> Observation:
        """A random observation; ``mask`` and ``probability`` must be None."""
        _refuse_masks(mask, probability)
        rng = self.np_random
        return Observation(user(_sample_text(rng, 40)) for _ in range(int(rng.integers(1, 3))))

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a tuple of messages that hold real Unicode text."""
        return isinstance(x, tuple) and all(map(_well_formed, x))

    @property
    def is_np_flattenable(self) -> bool:
        """False: messages have no fixed-size vector form."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObservationSpace)

    def __repr__(self) -> str:
        return "ObservationSpace()"

    def to_jsonable(self, sample_n: Iterable[Observation]) -> list[Any]:
        """A batch of observations as JSON-compatible lists."""
        return [msgspec.to_builtins(tuple(x)) for x in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[Observation]:
        """The inverse of `to_jsonable`."""
        return [Observation(msgspec.convert(x, tuple[Message, ...])) for x in sample_n]


class ActionSpace(Space[Action]):
    """Assistant messages whose tool calls name an offered tool with arguments that its schema accepts; or plain text.

    An action outside of the space is not an error: ``step`` answers it with a tool error as an observation.

    Args:
        tools: name -> tool; empty for environments that only talk.
        seed: seed or generator for `sample`.
    """

    def __init__(self, tools: Mapping[str, ToolFunction] | None = None, seed: int | np.random.Generator | None = None) -> None:
        self.tools: dict[str, ToolFunction] = dict(tools or {})
        super().__init__(None, None, seed)

    def sample(self, mask: Any = None, probability: Any = None) -> Action:
        """A schema-valid tool call (three times in four, where there are tools) or a short text, as a `Message`."""
        _refuse_masks(mask, probability)
        rng = self.np_random
        if self.tools and rng.random() < 0.75:
            name = list(self.tools)[int(rng.integers(len(self.tools)))]
            arguments = sample_arguments(self.tools[name].spec.parameters, rng)
            return assistant("", ToolCall(name, msgspec.json.encode(arguments).decode()))
        return assistant(_sample_text(rng, 40))

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is text or an assistant message that ``step`` will not answer with a tool error of form."""
        if isinstance(x, str):
            x = Message("assistant", x)
        if not _well_formed(x) or x.role != "assistant":
            return False
        for c in x.tool_calls:
            if c.name not in self.tools:
                return False
            try:
                self.tools[c.name].parse(c)
            except ArgumentError:
                return False
        return True

    @property
    def is_np_flattenable(self) -> bool:
        """False: messages have no fixed-size vector form."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionSpace) and {n: t.spec for n, t in self.tools.items()} == {
            n: t.spec for n, t in other.tools.items()
        }

    def __repr__(self) -> str:
        return f"ActionSpace(tools={list(self.tools)})"

    def to_jsonable(self, sample_n: Iterable[Action]) -> list[Any]:
        """A batch of actions as JSON-compatible values: a string stays a string."""
        return [x if isinstance(x, str) else msgspec.to_builtins(x) for x in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[Action]:
        """The inverse of `to_jsonable`."""
        return [x if isinstance(x, str) else msgspec.convert(x, Message) for x in sample_n]
