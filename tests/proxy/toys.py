# SPDX-License-Identifier: Apache-2.0
"""What the tests of the proxy play with: a model that works on tokens, an environment, and a raw HTTP client."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from agentgym.chat import Message, assistant, call
from agentgym.env import Plan, Task, ToolEnv, tool
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling, Tokens, Usage
from agentgym.scoring import Score, VerifierContext, verifier
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import Trajectory

Script = Callable[[Sequence[Message]], Message]


@verifier
def reached(trajectory: Trajectory, context: VerifierContext) -> Score:
    """1 where the counter was brought to 3."""
    return Score("reached", value=float(trajectory.state_after["value"] == 3))


class Counter(ToolEnv):
    """A counter that is to be brought to 3."""

    family = "test.proxycounter"
    max_turns = 12
    proxy = [reached]

    def new_task(self, rng: np.random.Generator) -> Task:
        return Task(opening="Bring the counter to 3, then submit.", state={"value": 0})

    @tool(writes=True)
    def add(self, by: int) -> str:
        """Adds to the counter.

        Args:
            by: how much.
        """
        self.state["value"] += by
        return f"it is {self.state['value']} now"

    def honest(self, task: Task) -> Plan:
        yield call("add", by=1)
        yield call("add", by=2)
        yield call("submit")


class Typist(PolicyBase):
    """A model whose tokens are exact and never canonical: each character is one token, or two that mean the same.

    What it was given before stays as it was: the next prompt begins with the last one and its output, if the conversation that
    it is shown does. Another conversation is written down afresh, in the canonical way, as a server does that is given text.

    Args:
        script: what it answers.
        name: its name.
        gate: waited for before each answer.
    """

    def __init__(self, script: Script, name: str = "typist", gate: Callable[[int], Any] | None = None) -> None:
        self.script = script
        self.name = name
        self.gate = gate
        self.asked: list[tuple[list[Message], Sampling]] = []
        self.sampled: list[tuple[list[int], list[int]]] = []
        """Prompt and output of each answer, as the engine had them."""

    def begin(self, context: EpisodeContext) -> Policy:
        return _Typing(self)


def written(message: Message) -> list[int]:
    """The canonical tokens of a message."""
    calls = "".join(f"<{c.name} {c.arguments} {c.id}>" for c in message.tool_calls)
    return [ord(c) % 60000 for c in f"[{message.role}]{message.reasoning}|{message.text}{calls}"]


class _Typing(PolicyBase):
    def __init__(self, typist: Typist) -> None:
        self.name = typist.name
        self._typist = typist
        self._held: list[int] = []
        self._seen: list[Message] = []
        self._said = Message("assistant")

    def _is_mine(self, message: Message) -> bool:
        """Whether this is the last answer as it was; ids may have been given to its calls."""
        calls = [(c.name, c.arguments) for c in message.tool_calls]
        return message.content == self._said.content and calls == [(c.name, c.arguments) for c in self._said.tool_calls]

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        typist = self._typist
        number = len(typist.asked)
        typist.asked.append((list(conversation), sampling))
        known = len(self._seen)
        if self._held and list(conversation[:known]) == self._seen and self._is_mine(conversation[known]):
            prompt = self._held + [t for m in conversation[known + 1 :] for t in written(m)]
        else:
            prompt = [t for m in conversation for t in written(m)]
        prompt.append(1)
        if typist.gate is not None:
            await typist.gate(number)
        answer = typist.script(conversation)
        output = [t + 100_000 if (i + number) % 3 else t for i, t in enumerate(written(answer))] + [2]
        self._held, self._seen, self._said = prompt + output, list(conversation), answer
        typist.sampled.append((prompt, output))
        used = Sampling(sampling.temperature or 0.5, sampling.top_p, sampling.top_k, 100, sampling.stop, sampling.seed)
        tokens = Tokens(
            np.array(output, np.int32), np.full(len(output), -0.5, np.float32), np.array(prompt, np.int32),
            stop_token_in_output=True,
        )  # fmt: skip
        finish = "tool_calls" if answer.tool_calls else "stop"
        return Completion(answer, Usage(len(prompt), len(output)), finish, tokens, used)


def solving(conversation: Sequence[Message]) -> Message:
    """Brings the counter to 3 in two steps, thinking aloud."""
    done = sum(m.role == "tool" for m in conversation)
    steps = (call("add", by=1), call("add", by=2), call("submit"))
    step = steps[min(done, 2)]
    return assistant(f"  step {done} \n", *step.tool_calls, reasoning=f"I have done {done}.")


class Client:
    """A plain client over one connection, of which nothing is hidden."""

    def __init__(self, variables: dict[str, str], timeout: float = 30.0) -> None:
        parts = urlsplit(variables["AGENTGYM_URL"])
        assert parts.hostname is not None
        self.host, self.port, self.key = parts.hostname, parts.port, variables["AGENTGYM_KEY"]
        self.timeout = timeout

    def raw(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Authorization": f"Bearer {self.key}", **(headers or {})})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        status, data = self.raw("POST", path, body, headers)
        assert status == 200, data
        return json.loads(data)

    def get(self, path: str) -> Any:
        status, data = self.raw("GET", path)
        assert status == 200, data
        return json.loads(data)

    def chat(self, messages: list[Any], headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        """The whole reply."""
        reply = self.post("/v1/chat/completions", {"model": "any", "messages": messages, **body}, headers)
        assert isinstance(reply, dict)
        return reply

    def streamed(self, path: str, body: Any) -> Iterator[Any]:
        """The events of a streamed reply."""
        status, data = self.raw("POST", path, {**body, "stream": True})
        assert status == 200, data
        for line in data.decode().split("\n"):
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


def relay(client: Client, change: Callable[[dict[str, Any]], dict[str, Any]] = dict, **body: Any) -> list[dict[str, Any]]:
    """Plays an episode as the simplest program does: asks, acts, asks again; ``change`` is what it does to what it keeps."""
    task = client.get("/agentgym/task")
    messages = task["messages"]
    while True:
        message = client.chat(messages, tools=task["tools"], **body)["choices"][0]["message"]
        step = client.post("/agentgym/step", message)
        messages += [change(message), *step["messages"]]
        if step["done"]:
            return messages


def run(work: Any) -> Any:
    return asyncio.run(work)
