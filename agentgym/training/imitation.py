# SPDX-License-Identifier: Apache-2.0
"""Episodes of somebody else as rows to imitate: the tokens that a model would have had to sample to say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentgym.errors import UsageError
from agentgym.protocols import Tokens
from agentgym.tokens import linearize, renderer_for
from agentgym.tokens.hf import HFTokenizer
from agentgym.tokens.rows import Row
from agentgym.tool_text import to_text_conversation
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import Trajectory


def demonstrated(trajectory: Trajectory, tools: Mapping[str, Sequence[ToolSpec]], tokenizer: Any) -> tuple[Row, ...]:
    """The rows of an episode, its turns written as the model's renderer reads them (tool calls as Hermes has them).

    Args:
        trajectory: of an oracle, say.
        tools: label of an environment -> its tools.
        tokenizer: one of transformers.

    Raises:
        UsageError: the renderer reads something else out of what was written, so that there is nothing to imitate.
    """
    renderer, text = renderer_for(tokenizer), HFTokenizer(tokenizer)
    offered = next((specs for label, specs in tools.items() if trajectory.task_id.startswith(f"{label}/")), ())
    held, prompt, kept = list(trajectory.opening), renderer.initial(list(trajectory.opening), offered), []
    for turn in trajectory.turns:
        (written,) = to_text_conversation([turn.message], (), "hermes")
        output = [*text.encode_ordinary(written.text), renderer.stop_ids[0]]
        read = renderer.parse(output).message
        said = [(c.name, c.arguments) for c in turn.message.tool_calls]
        if [c.name for c in read.tool_calls] != [name for name, _ in said]:
            raise UsageError(f"{trajectory.task_id}: renderer {renderer.name} cannot read a call as it is written here")
        kept.append(Tokens(np.array(output, np.int32), np.zeros(len(output), np.float32), np.array(prompt, np.int32)))
        new = list(turn.observation)
        held += [turn.message, *new]
        following = renderer.bridge(prompt, output, new, offered)
        prompt = renderer.initial(held, offered) if following is None else following
    return linearize(Trajectory(task_id=trajectory.task_id, turns=trajectory.turns, tokens=list(kept))).rows
