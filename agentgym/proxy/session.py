# SPDX-License-Identifier: Apache-2.0
"""The recorder: what a program asked its model in one episode, as a forest of calls, with the tokens that were sampled.

A program sends the whole conversation with every request, and what it sends back of earlier answers is often not what it was
given: without the reasoning, stripped, with other ids. Were such an echo what the model sees next, it would be other tokens
than those that were sampled. So a conversation is looked up among those that are known, and where it goes on from an answer of
ours, the model is given that answer as it was. What a program really changed, words or arguments, is another conversation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from agentgym.chat import ImagePart, Message, ToolCall, clean_message
from agentgym.episode import _kept
from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.wire import loads
from agentgym.protocols import NO_USAGE, EpisodeContext, Policy, Sampling, Usage
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import ModelCall

MAX_CALLS = 2000
"""Calls of one episode; a program that asks on and on is told to stop."""

NOT_RECEIVED = "the program had gone before the answer was sent, and did not ask again"


class BudgetError(UsageError):
    """A program has asked its model more often than one episode may."""


class Asked(msgspec.Struct):
    """A request to the model, whatever its dialect."""

    conversation: list[Message]
    tools: list[dict[str, Any]]
    """In OpenAI's form."""
    sampling: Sampling
    """What the program asked for; None fields are left to the run."""
    model: str = ""
    ignored: tuple[str, ...] = ()
    stream: bool = False
    stream_usage: bool = False
    choices: int = 1
    previous: str = ""
    """Id of the answer that it goes on from, where the dialect has such a thing."""
    instructions: int = 0
    """Messages at the front that are not part of what the next request with ``previous`` goes on from."""


class Node:
    """A call of the forest."""

    def __init__(self, call: ModelCall, conversation: list[Message], answer: asyncio.Future[None]) -> None:
        self.call = call
        self.conversation = conversation
        self.answer = answer
        """Done when the call has its message."""
        self.children: list[Node] = []
        self.player: Policy | None = None
        self.received = False
        self.askers: list[Callable[[], bool]] = []
        """Whether those are still there who wait for the answer."""
        self.used: set[int] = set()
        """Which calls of the message have been played."""
        self.accounted = False
        """Whether a turn's usage holds what it consumed."""
        self.instructions = 0

    @property
    def lost(self) -> bool:
        """Whether all have gone who asked, without the answer."""
        return not self.received and not any(there() for there in self.askers)

    @property
    def answered(self) -> bool:
        """Whether there is an answer to go on from."""
        return self.answer.done() and not self.answer.cancelled() and self.answer.exception() is None

    @property
    def history(self) -> list[Message]:
        """The conversation with the answer."""
        return [*self.conversation, self.call.message]


class Session:
    """All that a program asks its model in one episode.

    Args:
        model: who answers.
        context: the episode.
    """

    def __init__(self, model: Policy, context: EpisodeContext) -> None:
        self._model = model
        shown = context.env if getattr(model, "privileged", False) else None
        self._context = EpisodeContext(context.task_id, context.trial, context.seed, shown)
        self.nodes: list[Node] = []
        self._roots: list[Node] = []
        self._by_request: dict[str, list[Node]] = {}
        self._tools: dict[bytes, tuple[ToolSpec, ...]] = {}
        self._last: dict[int, Node] = {}  # id of a player -> the call that it played last
        self._players: list[Policy] = []
        self._agents: list[tuple[Any, str]] = []
        self._ids: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self.sampling = Sampling()
        """What the run asks for, where the program does not."""
        self.played = 0
        """Turns so far."""
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Has what ended the session, where something did that is not the program's doing."""

    @property
    def calls(self) -> list[ModelCall]:
        """The calls that were answered, in the order in which they were asked."""
        return [n.call for n in self.nodes if n.answered]

    async def ask(self, asked: Asked, request: str, again: bool, there: Callable[[], bool] = lambda: True) -> list[Node]:
        """The answers to a request, one for each choice.

        Args:
            asked: the request.
            request: hash of all of it: a request that comes again although its answer was never received is the same one.
            again: whether the program says that it repeats itself.
            there: whether whoever asks is still waiting.

        Raises:
            BudgetError: too many calls.
            UsageError: the request makes no sense to the model, or the episode has ended meanwhile.
            InfrastructureError: the model cannot be had, now or since an earlier call.
        """
        if self.failure.done():
            raise self.failure.result()
        await asyncio.sleep(0)  # the end of the connection on which it was asked before may be waiting to be noticed
        before = self._by_request.get(request)
        if before and (again or all(n.lost for n in before)):
            for node in before:
                node.call.repeats += 1
            nodes = before
        else:
            if len(self.nodes) + asked.choices > MAX_CALLS:
                raise BudgetError(f"the program has asked its model {len(self.nodes)} times, the most in one episode: end it")
            nodes = [self._begin(asked) for _ in range(asked.choices)]
            self._by_request[request] = nodes
        for node in nodes:
            node.askers.append(there)
        for node in nodes:
            # not cancelled with the request: who repeats it is to find the answer
            try:
                await asyncio.shield(node.answer)
            except asyncio.CancelledError:
                if node.answer.cancelled():
                    raise UsageError("the episode has ended while the model was asked") from None
                raise
        return nodes

    def sent(self, nodes: Sequence[Node], whole: bool) -> None:
        """Notes that an answer was handed over, or that nobody was there to receive it."""
        for node in nodes:
            node.received |= whole

    # -- the forest -----------------------------------------------------------------------------------------------------

    def _begin(self, asked: Asked) -> Node:
        """Starts a call where it belongs in the forest."""
        parent, new = self._place(asked)
        siblings = self._roots if parent is None else parent.children
        conversation = [*(parent.history if parent else ()), *new]
        # of several answers to the same question, each has random numbers of its own; the first, those of our own loop
        same = sum(_keys(s.call.new) == _keys(new) for s in siblings)
        agent = self._agent(new) if parent is None else parent.call.agent
        call = ModelCall(
            len(self.nodes), Message("assistant"), tuple(new), -1 if parent is None else parent.call.index, agent,
            self.played, model=asked.model, ignored=asked.ignored,
        )  # fmt: skip
        node = Node(call, conversation, asyncio.get_running_loop().create_future())
        node.instructions = asked.instructions
        node.player = self._player(parent)
        self._last[id(node.player)] = node
        self.nodes.append(node)
        siblings.append(node)
        sampling = self._sampling(asked.sampling, same)
        task = asyncio.get_running_loop().create_task(self._play(node, self._specs(asked.tools), sampling))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return node

    def _place(self, asked: Asked) -> tuple[Node | None, list[Message]]:
        """The call that a conversation goes on from, and what is new in it, with the ids that we gave."""
        said = asked.conversation
        best: tuple[int, int, Node | None, dict[str, str]] = (0, 0, None, {})
        stack: list[tuple[list[Node], int, int, dict[str, str]]] = [(self._roots, 0, 0, {})]
        while stack:
            level, start, marks, ids = stack.pop()
            for node in level:
                end = start + len(node.call.new)
                if not node.answered or end >= len(said):
                    continue
                if not all(_same(a, b, ids) for a, b in zip(node.call.new, said[start:end], strict=True)):
                    continue
                score = echo(node.call.message, said[end])
                if score < 0:
                    continue
                known = ids | _renamed(node.call.message, said[end])
                # of two answers of the same words, the one whose ids came back is meant; else the later
                found = (end + 1, marks + score, node, known)
                if found[:2] >= best[:2]:
                    best = found
                stack.append((node.children, end + 1, marks + score, known))
        length, _, parent, ids = best
        if parent is not None:
            parent.received = True  # whoever sends it back has it
        return parent, [_with_ids(m, ids) for m in said[length:]]

    def answer_of(self, name: str) -> Node | None:
        """The call whose answer went out under that id, by its last number."""
        number = name.rpartition("-")[2].rpartition("_")[2]
        if number.isascii() and number.isdigit() and len(number) < 9 and int(number) < len(self.nodes):
            node = self.nodes[int(number)]
            return node if node.answered else None
        return None

    def _agent(self, new: Sequence[Message]) -> str:
        """Who begins a conversation: the same one where it opens with the same words as another."""
        opening = _key(new[0]) if new else None
        for known, name in self._agents:
            if known == opening:
                return name
        name = f"agent{len(self._agents)}" if self._agents else ""
        self._agents.append((opening, name))
        return name

    def _player(self, parent: Node | None) -> Policy:
        """Who plays a call: whoever has played the conversation so far, else a new one, as their state is that of one
        conversation."""
        if parent is not None and parent.player is not None and self._last.get(id(parent.player)) is parent:
            return parent.player
        player = self._model.begin(self._context)
        self._players.append(player)
        return player

    def _sampling(self, wanted: Sampling, same: int) -> Sampling:
        """What the program asks for, completed by what the run does."""
        given = {f: v for f in Sampling.__struct_fields__ if (v := getattr(wanted, f)) not in (None, ())}
        seed = self._context.seed
        if same:
            seed = int.from_bytes(hashlib.sha256(f"{seed}:{same}".encode()).digest()[:4], "little") >> 1
        return msgspec.structs.replace(self.sampling, **{"seed": seed, **given})

    def _specs(self, tools: list[dict[str, Any]]) -> tuple[ToolSpec, ...]:
        """The tools; the same objects for the same tools, as policies write them once."""
        key = msgspec.json.encode(tools)
        if key not in self._tools:
            rows = (t["function"] for t in tools)
            self._tools[key] = tuple(ToolSpec(r["name"], r.get("description") or "", r.get("parameters") or {}) for r in rows)
        return self._tools[key]

    # -- the model ------------------------------------------------------------------------------------------------------

    async def _play(self, node: Node, tools: tuple[ToolSpec, ...], sampling: Sampling) -> None:
        assert node.player is not None
        try:
            completion = _kept(await node.player.act(node.conversation, tools, sampling), node.player)
        except asyncio.CancelledError:
            node.answer.cancel()
            raise
        except UsageError as e:
            self._failed(node, e)
            return
        except Exception as e:
            if not self.failure.done():
                self.failure.set_result(e)
            self._failed(node, e if isinstance(e, InfrastructureError) else InfrastructureError(str(e), retryable=False))
            return
        call = node.call
        call.message = self._with_own_ids(call.index, clean_message(completion.message))
        call.finish_reason, call.usage = completion.finish_reason, completion.usage
        call.sampling, call.latency_s, call.tokens = completion.sampling, completion.latency_s, completion.tokens
        if not node.answer.done():
            node.answer.set_result(None)

    def _failed(self, node: Node, error: Exception) -> None:
        if not node.answer.done():
            node.answer.set_exception(error)
            node.answer.exception()  # somebody may have gone who would have looked at it

    def _with_own_ids(self, index: int, message: Message) -> Message:
        """The message with ids that no other call of the session has: they tell later which answer is meant."""
        if not message.tool_calls:
            return message
        calls = []
        for i, c in enumerate(message.tool_calls):
            id_ = c.id if c.id and c.id not in self._ids else f"call_{index}_{i}"
            self._ids.add(id_)
            calls.append(c if id_ == c.id else ToolCall(c.name, c.arguments, id_, c.origin))
        return msgspec.structs.replace(message, tool_calls=tuple(calls))

    # -- what the program does with it ----------------------------------------------------------------------------------

    def came_from(self, message: Message) -> tuple[Message, Node | None]:
        """The answer that an action of the program is, or a part of, as it was sampled.

        Of several that would do, the latest is meant. An action that no answer asks for is the program's own.
        """
        for node in reversed(self.nodes):
            if not node.answered or node.call.void:
                continue
            held = node.call.message
            if not node.used and not node.call.turns and echo(held, message) >= 0 and (held.tool_calls or message.text.strip()):
                return held, node
        if len(message.tool_calls) != 1:
            return message, None
        wanted = message.tool_calls[0]
        places = [
            (n, i, c)
            for n in reversed(self.nodes)
            if n.answered and not n.call.void
            for i, c in enumerate(n.call.message.tool_calls)
            if i not in n.used and c.name == wanted.name and _equal(c.arguments, wanted.arguments)
        ]
        place = next((p for p in places if wanted.id and p[2].id == wanted.id), places[0] if places else None)
        if place is None:
            return message, None
        node, _, call = place
        # several calls of one answer are turns of their own; what it said besides belongs to the first
        content = "" if node.used else node.call.message.content
        return Message("assistant", content, (call,)), node

    def becomes(self, node: Node | None, message: Message, turn: int) -> Usage:
        """Notes that a turn came out of an answer; returns what the program's calls since the last turn have consumed."""
        if node is not None:
            ids = {c.id for c in message.tool_calls}
            node.used |= {i for i, c in enumerate(node.call.message.tool_calls) if c.id in ids}
            node.call.turns += (turn,)
            node.received = True
        self.played = turn + 1
        fresh = [n for n in self.nodes if n.answered and not n.accounted]
        spent = [n.call.usage for n in fresh]
        for other in fresh:
            other.accounted = True
        if not any(u is not NO_USAGE for u in spent):
            return NO_USAGE
        return Usage(
            sum(u.prompt_tokens for u in spent), sum(u.completion_tokens for u in spent),
            sum(u.cached_tokens for u in spent), sum(u.cost_usd for u in spent),
        )  # fmt: skip

    def last_words(self) -> Message | None:
        """What the program's model said last, where it was text and nothing has come of it since: what the program would say
        if it were asked to say something."""
        for node in reversed(self.nodes):
            if node.answered and not node.call.void and node.call.agent == "":
                fresh = node.call.played == self.played and not node.call.turns and not node.call.message.tool_calls
                return node.call.message if fresh else None
        return None

    async def close(self) -> None:
        """Ends what is under way, and marks the answers that nobody received."""
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=2.0)
        for node in self.nodes:
            if node.answered and not node.received and not node.children and not node.call.turns:
                node.call.void = NOT_RECEIVED
        for player in self._players:
            end = getattr(player, "end", None)
            if end is not None:
                await end()
        self._players.clear()


# -- which answer a program means -----------------------------------------------------------------------------------------


def echo(held: Message, said: Message) -> int:
    """Whether what a program sends back is this answer: below 0 if not; else the more, the surer.

    Not compared are reasoning, white space, ids, and how arguments are written down. Text beside calls may be missing: some
    clients drop it. Other words or other arguments are the program's own.
    """
    if said.role != "assistant" or len(held.tool_calls) != len(said.tool_calls):
        return -1
    same = 0
    for a, b in zip(held.tool_calls, said.tool_calls, strict=True):
        if a.name != b.name or not _equal(a.arguments, b.arguments):
            return -1
        same += bool(a.id) and a.id == b.id
    words = said.text.split()
    if words != held.text.split() and (words or not held.tool_calls):
        return -1
    return same


def _equal(a: str, b: str) -> bool:
    """Whether two argument texts mean the same."""
    if a == b:
        return True
    x, y = _meaning(a), _meaning(b)
    return bool(x == y)


def _meaning(text: str) -> Any:
    """The JSON value, as text in which 1, 1.0 and true differ; of what is none, what programs are shown for it."""
    try:
        value = loads(text) if text.strip() else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        value = {"malformed_arguments": text}
    return json.dumps(value, sort_keys=True)


def _renamed(held: Message, said: Message) -> dict[str, str]:
    """The program's ids for the calls of an answer -> ours."""
    return {b.id: a.id for a, b in zip(held.tool_calls, said.tool_calls, strict=True) if b.id}


def _with_ids(message: Message, ids: Mapping[str, str]) -> Message:
    id_ = message.tool_call_id
    if id_ is None or ids.get(id_, id_) == id_:
        return message
    return msgspec.structs.replace(message, tool_call_id=ids[id_])


def _same(known: Message, said: Message, ids: Mapping[str, str]) -> bool:
    """Whether a message that the program wrote is one that it sent before."""
    if _key(known)[:-1] != _key(said)[:-1]:
        return False
    id_ = said.tool_call_id
    return id_ is None or known.tool_call_id == ids.get(id_, id_)


def _key(message: Message) -> tuple[Any, ...]:
    content = message.content
    parts: tuple[Any, ...] = (content,) if isinstance(content, str) else ()
    if not isinstance(content, str):
        text = "".join(getattr(p, "text", "") for p in content)
        parts = (text, *(hashlib.sha256(p.data).digest() for p in content if isinstance(p, ImagePart)))
    calls = tuple((c.name, c.arguments) for c in message.tool_calls)
    return (message.role, parts, calls, message.tool_call_id)


def _keys(messages: Sequence[Message]) -> list[Any]:
    return [_key(m) for m in messages]
