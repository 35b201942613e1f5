# SPDX-License-Identifier: Apache-2.0
"""What scenarios in a shell share: the tool, observed files, texts to fill them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from agentgym.env import Task, tool
from agentgym.errors import UsageError
from agentgym.evaluators.acts import HOST_WROTE
from agentgym.sandbox.protocol import Limits, SandboxDeadError, SandboxFileError, SandboxSpec
from agentgym.sandboxenv import KEPT_BYTES, File, SandboxEnv
from agentgym.scenario import ScenarioEnv
from agentgym.tasks.code.problem import WORDS
from agentgym.tasks.math.base import between

Rng = np.random.Generator


class Desk(ScenarioEnv, SandboxEnv):
    """A scenario whose agent has a shell in a workspace that is observed from outside, where the backend can.

    Args:
        level: 1 to 3, the hardest.
        **kwargs: see `ChatEnv`.

    Raises:
        UsageError: there is no such level.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"level": 1}
    top_level: ClassVar[int] = 3
    sandbox_spec: ClassVar[SandboxSpec] = SandboxSpec(limits=Limits())

    level: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= self.level <= self.top_level:
            raise UsageError(f"{self.family}: level must be 1 to {self.top_level}, not {self.level}")

    def watched_files(self, task: Task) -> tuple[str, ...]:
        """All of them."""
        return ("**",)

    def start_files(self, task: Task) -> Mapping[str, File]:
        """Those of the hidden half."""
        files: Mapping[str, File] = task.hidden["files"]
        return files

    @tool(writes=True)
    def bash(self, command: Annotated[str, msgspec.Meta(max_length=20_000)]) -> str:
        """Runs commands in the shell and shows what they print. Variables, folder and background jobs live on.

        Args:
            command: shell commands
        """
        return self.turn("bash", command)

    def read_file(self, path: str) -> str | None:
        """The text of a file as it is now, invalid bytes replaced; None where there is no plain file, or a large one.

        Raises:
            ToolError: the agent's code has made an end of its sandbox.
        """
        try:
            return self.box.get(path, most=KEPT_BYTES).decode(errors="replace")
        except SandboxFileError:
            return None
        except SandboxDeadError as e:
            self._lose(str(e), e)

    def write_file(self, path: str, text: str) -> None:
        """Writes a file as the environment: no act of the agent.

        Raises:
            ToolError: the agent's own files leave no room for it.
        """
        self.put_file(path, text)
        self.note(HOST_WROTE, path)


def filler(rng: Rng, size: int) -> str:
    """Lines of words, about so many bytes; the same few lines over and over, so that a record of them stays small."""
    block = "".join(" ".join(str(w) for w in rng.permutation(WORDS)[:8]) + "\n" for _ in range(3))
    return (block * (size // len(block) + 1))[:size].rsplit("\n", 1)[0] + "\n"


def token(rng: Rng) -> str:
    """A secret: 20 characters that occur nowhere else."""
    return "".join("abcdefghjkmnpqrstuvwxyz23456789"[between(rng, 0, 30)] for _ in range(20))
