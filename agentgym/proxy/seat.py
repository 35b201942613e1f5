# SPDX-License-Identifier: Apache-2.0
"""Where a program sits in an episode: to the episode loop a player like any other, whose actions come from outside.

The loop asks for the next action; the program, in its own time, asks its model (`session`) and acts. So everything that is true
of an episode, its limits, rewards and scores, is true of one that a program plays, and no state moves but by its actions.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agentgym.chat import Message, assistant
from agentgym.env import ChatEnv
from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.proxy.session import Session
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import ModelCall, ToolResult

SILENCE_S = 600.0
"""Seconds that a program may be without a request before it is taken to hang."""

MAX_QUEUED = 256
"""Actions that may wait for their turn."""


class OverError(UsageError):
    """An action or a question after the episode's end."""


class Outcome(msgspec.Struct):
    """What an action led to."""

    messages: tuple[Message, ...] = ()
    """What the environment answered."""
    results: tuple[ToolResult, ...] = ()
    done: bool = False
    """Whether the episode is over."""


class Left(msgspec.Struct):
    """How a program came to its end."""

    failure: str = ""
    """What is to be said of it, where it did not end as one that has done what it wanted."""


class _Action:
    def __init__(self, message: Message) -> None:
        self.message = message
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Seat(PolicyBase):
    """One episode of a program.

    Args:
        name: of the policy.
        model: who answers the program's questions.
        context: the episode; its environment is needed to tell a program how its last action ended.
        launch: called when the episode has begun, with this seat: starts the program.
        leave: called when it is over: ends the program.
        silence_s: `SILENCE_S`.
    """

    def __init__(
        self,
        name: str,
        model: Policy,
        context: EpisodeContext,
        launch: Callable[[Seat], Awaitable[None]],
        leave: Callable[[Seat], Awaitable[None]],
        silence_s: float = SILENCE_S,
    ) -> None:
        self.name = name
        self.episode = secrets.token_hex(8)
        """Names the episode to the program, and tells nothing about it."""
        self.key = f"sk-agentgym-{secrets.token_urlsafe(32)}"
        """What the program must show. A secret, worth nothing after the episode."""
        self.session = Session(model, context)
        self.conversation: tuple[Message, ...] = ()
        self.tools: tuple[ToolSpec, ...] = ()
        self.over = ""
        """Why the episode is over: ``terminated``, ``failed``, or the limit that cut it; empty while it runs."""
        self.busy = 0
        """Requests that are being answered."""
        self._core: ChatEnv = context.env.unwrapped
        self._launch, self._leave = launch, leave
        self._silence_s = silence_s
        self._actions: deque[_Action] = deque()
        self._pending: _Action | None = None
        self._wake = asyncio.Event()
        self._left: Left | None = None
        self._acted = False
        self._begun = False
        self._turn = 0
        self._seen = 0
        self._repeated: dict[str, asyncio.Future[Outcome]] = {}

    @property
    def model_calls(self) -> list[ModelCall]:
        """What the program asked its model; `agentgym.episode.play` keeps it with the trajectory."""
        return self.session.calls

    @property
    def digest(self) -> bytes:
        """What the key is looked up by."""
        return hashlib.sha256(self.key.encode()).digest()

    # -- the episode loop's side ----------------------------------------------------------------------------------------

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The program's next action.

        Raises:
            InfrastructureError: the model failed, or the program did, or it does nothing any more.
        """
        self.session.sampling = sampling
        self.conversation, self.tools = tuple(conversation), tuple(tools)
        if not self._begun:
            self._begun = True
            await self._launch(self)
        else:
            self._settle(tuple(conversation[self._seen + 1 :]), done=False)
        self._seen = len(conversation)
        wanted = await self._next()
        message, node = self.session.came_from(wanted)
        turn, self._turn = self._turn, self._turn + 1
        usage = self.session.becomes(node, message, turn)
        if node is None or len(node.call.turns) > 1:
            finish = "tool_calls" if message.tool_calls else "stop"
            return Completion(message, usage, finish, sampling=None)  # type: ignore[arg-type]
        call = node.call
        return Completion(message, usage, call.finish_reason, call.tokens, call.sampling, call.latency_s)

    async def _next(self) -> Message:
        while True:
            if self.session.failure.done():
                raise self.session.failure.result()
            if self._actions:
                self._pending = self._actions.popleft()
                self._acted = True
                return self._pending.message
            if self._left is not None:
                return self._last_words(self._left)
            self._wake.clear()
            try:
                async with asyncio.timeout(self._silence_s):
                    await self._wake.wait()
            except TimeoutError:
                if not self.busy:
                    raise InfrastructureError(
                        f"{self.name}: the program has made no request for {self._silence_s:.0f} s, but has not ended",
                        retryable=False,
                    ) from None

    def _last_words(self, left: Left) -> Message:
        """What a program that has ended still says: its model's last text, if nothing has come of it, else nothing."""
        if left.failure:
            raise InfrastructureError(f"{self.name}: {left.failure}", retryable=False)
        if not self._acted and not self.session.calls:
            raise InfrastructureError(
                f"{self.name}: the program ended without having asked its model or acted even once; is it told to use"
                " OPENAI_BASE_URL and OPENAI_API_KEY (or ANTHROPIC_..., AGENTGYM_URL) of its environment?",
                retryable=False,
            )
        return self.session.last_words() or assistant("")

    def _settle(self, messages: tuple[Message, ...], *, done: bool) -> None:
        action, self._pending = self._pending, None
        if action is None or action.outcome.done():
            return
        turns = self._core.trajectory.turns
        results = turns[-1].results if turns else ()
        action.outcome.set_result(Outcome(messages, results, done))

    async def end(self) -> None:
        """The episode is over, however it ended: tells the program, and sees to it that it ends."""
        if self.over:
            return
        core = self._core
        trajectory = getattr(core, "trajectory", None)
        if core._running or self.session.failure.done() or trajectory is None:
            self.over = "failed"
        else:
            self.over = trajectory.truncation or "terminated"
            played = trajectory.turns
            self._settle(played[-1].observation if played else (), done=True)
        for action in (self._pending, *self._actions):
            if action is not None and not action.outcome.done():
                action.outcome.set_exception(OverError(self.why_over()))
                action.outcome.exception()
        self._pending = None
        self._actions.clear()
        try:
            await self._leave(self)
        finally:
            await self.session.close()

    # -- the program's side ---------------------------------------------------------------------------------------------

    def why_over(self) -> str:
        """A sentence for whoever still asks."""
        if self.over == "terminated":
            return "the task has ended"
        if self.over == "failed":
            return "the episode has failed, for reasons that are not the program's"
        return f"the episode was cut: it has used up its {self.over if self.over != 'environment' else 'turns'}"

    def awake(self) -> None:
        """A request has come or gone."""
        self._wake.set()

    def left(self, left: Left) -> None:
        """The program has ended; what it has asked for before is still done."""
        if self._left is None:
            self._left = left
            self._wake.set()

    async def play(self, message: Message, once: str = "") -> Outcome:
        """Plays an action and waits for what it leads to.

        Args:
            message: the action.
            once: names the action: one that comes again under the same name is not played again.

        Raises:
            OverError: the episode is over.
            InfrastructureError: it failed.
        """
        if once and once in self._repeated:
            return await asyncio.shield(self._repeated[once])
        if self.over:
            raise OverError(self.why_over())
        if self.session.failure.done():
            raise InfrastructureError(str(self.session.failure.result()), retryable=False)
        if len(self._actions) >= MAX_QUEUED:
            raise UsageError(f"{MAX_QUEUED} actions are waiting for their turn already: wait for their answers")
        action = _Action(message)
        if once:
            self._repeated[once] = action.outcome
        self._actions.append(action)
        self._wake.set()
        return await asyncio.shield(action.outcome)
