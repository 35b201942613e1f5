# SPDX-License-Identifier: Apache-2.0
"""Plays a recorded run again: the same messages to the same tasks, for free (``--model replay:RUN``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agentgym.chat import Message
from agentgym.errors import InfrastructureError, NotFoundError
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.records.run import Episode, open_run
from agentgym.toolspec import ToolSpec


class ReplayPolicy(PolicyBase):
    """Answers with what the policy of a recorded run answered in the same task, trial and turn.

    Usage and tokens are replayed too, cost is not (nothing is paid). Where the record has no such turn, the episode
    ends as an infrastructure outcome: a missing reply is neither right nor wrong.

    Raises:
        NotFoundError: there is no such run.
    """

    def __init__(self, run: str = "latest") -> None:
        self._run = open_run(run or "latest")
        self.name = f"replay:{self._run.path.name}"
        self.resume_as = f"replay:{self._run.path.resolve()}"
        """What names it in the record: ``latest`` would soon be the replay itself, and a name is looked up in one folder."""

    def fingerprint(self) -> dict[str, Any]:
        """The run replayed, and what played it."""
        meta = self._run.meta
        return {"name": self.name, "replays": meta.get("fingerprint", {"name": meta.get("model")})}

    def begin(self, context: EpisodeContext) -> Policy:
        """A reader of the recorded episode."""
        try:
            episode = self._run.episode(context.task_id, context.trial)
        except NotFoundError as e:
            raise InfrastructureError(f"nothing to replay: {e}", retryable=False) from None
        return _ReplayedEpisode(self.name, episode)


class _ReplayedEpisode(PolicyBase):
    def __init__(self, name: str, episode: Episode) -> None:
        self.name = name
        self._address = episode.address
        self._trajectory = episode.trajectory
        self._turn = 0

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The recorded message of this turn."""
        turns = self._trajectory.turns
        if self._turn >= len(turns):
            raise InfrastructureError(
                f"{self._address} has no turn {self._turn}: the episode takes another course", retryable=False
            )
        turn = turns[self._turn]
        tokens = self._trajectory.tokens[self._turn] if self._trajectory.tokens else None
        self._turn += 1
        usage = msgspec.structs.replace(turn.usage, cost_usd=0.0)
        return Completion(turn.message, usage, turn.finish_reason, tokens, turn.sampling, 0.0)
