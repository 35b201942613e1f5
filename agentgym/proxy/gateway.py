# SPDX-License-Identifier: Apache-2.0
"""The endpoints: which request means what, for whom. One server for all episodes of a policy; a key says which one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import urllib.parse
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import msgspec

from agentgym.chat import Message, ToolCall, assistant, clean_text
from agentgym.errors import AgentGymError, InfrastructureError, redact
from agentgym.policies.wire import ShapeError, from_openai, message_to_openai
from agentgym.proxy import chat, messages, responses
from agentgym.proxy.common import RequestError, read_object
from agentgym.proxy.http import Answer, Request, Server
from agentgym.proxy.mcp_http import handle as handle_mcp
from agentgym.proxy.seat import Outcome, OverError, Seat
from agentgym.proxy.session import Asked, BudgetError, Node
from agentgym.trajectory import ModelCall

ENDED = "The task has ended."
"""What a program is answered that asks its model once more after the end, as most do to say goodbye; no model is asked."""

_DIALECTS: dict[str, ModuleType] = {
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
    "/v1/messages": messages,
}

_GO_ON = (("x-should-retry", "false"),)
"""Tells the usual clients that to ask again would change nothing."""


class Gateway:
    """The proxy's server and those who may use it."""

    def __init__(self) -> None:
        self._seats: dict[bytes, Seat] = {}
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[None] | None = None

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens, if it does not yet.

        Raises:
            InfrastructureError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._server = Server(self._handle, _refusal)
            self._starting = loop.create_task(self._server.start(host, port))
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def close(self) -> None:
        """Ends it; keys are worth nothing any more."""
        self._seats.clear()
        server, self._server, self._loop = self._server, None, None
        if server is not None:
            await server.close()

    def seat(self, seat: Seat) -> None:
        """Lets a program in."""
        self._seats[seat.digest] = seat

    def unseat(self, seat: Seat) -> None:
        """Its key is worth nothing any more."""
        self._seats.pop(seat.digest, None)

    def variables(self, seat: Seat) -> dict[str, str]:
        """What a program must know, as environment variables."""
        assert self._server is not None
        url = self._server.url
        return {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_BASE": f"{url}/v1",
            "OPENAI_API_KEY": seat.key,
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": seat.key,
            "AGENTGYM_URL": f"{url}/agentgym",
            "AGENTGYM_KEY": seat.key,
            "AGENTGYM_MCP_URL": f"{url}/agentgym/mcp/{seat.key}",
        }

    def environ(self, seat: Seat) -> dict[str, str]:
        """This process's environment with `variables`; a web proxy that it names is not used for them."""
        given = {k: v for k, v in os.environ.items() if k != "ANTHROPIC_AUTH_TOKEN"}
        direct = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1", "localhost")))
        return {**given, "NO_PROXY": direct, "no_proxy": direct, **self.variables(seat)}

    # -- requests -------------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Answer:
        path = request.path.rstrip("/") or "/"
        seat, path = self._who(request, path)
        if seat is None:
            return _error(path, 401, "this key is wrong, or its episode is over; the proxy gives each episode one of its own",
                          "invalid_api_key")  # fmt: skip
        seat.busy += 1
        seat.awake()
        try:
            return await self._route(seat, request, path)
        except RequestError as e:
            return _error(path, 400, str(e), "invalid_request", e.parameter)
        except OverError as e:
            return _error(path, 403, str(e), "episode_over")
        except BudgetError as e:
            return _error(path, 403, str(e), "budget_exceeded")
        except InfrastructureError as e:
            return _error(path, 502, str(e), "infrastructure")
        except AgentGymError as e:
            return _error(path, 400, str(e), "invalid_request")
        finally:
            seat.busy -= 1
            seat.awake()

    def _who(self, request: Request, path: str) -> tuple[Seat | None, str]:
        """The seat whose key the request shows, and the path without it."""
        key = request.headers.get("authorization", "")
        key = key[7:].strip() if key[:7].lower() == "bearer " else request.headers.get("x-api-key", "")
        if path.startswith("/agentgym/mcp/"):  # clients of that protocol are often given nothing but a URL
            path, _, key = path.rpartition("/")
        return self._seats.get(hashlib.sha256(key.encode()).digest()), path

    async def _route(self, seat: Seat, request: Request, path: str) -> Answer:
        if path in _DIALECTS:
            return await self._ask(seat, request, path) if request.method == "POST" else _error(path, 405, "use POST", "method")
        if path == "/v1/models" or path.startswith("/v1/models/"):
            model = {"id": "agentgym", "object": "model", "created": 0, "owned_by": "agentgym"}
            return _json(model if path != "/v1/models" else {"object": "list", "data": [model]})
        if path == "/agentgym/mcp":
            return await handle_mcp(seat, request)
        if path == "/agentgym/task":
            return _json(task_of(seat))
        act = _ACTIONS.get(path) or (_tool if path.startswith("/agentgym/tools/") else None)
        if act is None:
            known = [*_DIALECTS, "/v1/models", "/agentgym/task", *_ACTIONS, "/agentgym/tools/NAME", "/agentgym/mcp"]
            return _error(path, 404, f"there is no {path[:100]} here; there are: {', '.join(known)}", "not_found")
        if request.method != "POST":
            return _error(path, 405, "use POST", "method")
        return _json(await act(seat, request, path))

    async def _ask(self, seat: Seat, request: Request, path: str) -> Answer:
        dialect = _DIALECTS[path]
        asked: Asked = dialect.read(read_object(request.body))
        name = seat.episode[:8]
        if seat.over:
            if seat.over != "terminated":
                raise OverError(seat.why_over())
            node = _goodbye(len(seat.session.nodes))
            kind, body = dialect.write(asked, [node], name)
            return Answer(200, body, kind)
        if asked.previous:
            known = seat.session.answer_of(asked.previous)
            if known is None:
                raise RequestError(
                    f"there is no earlier answer {asked.previous[:80]!r} in this episode", "previous_response_id"
                )
            front, new = asked.conversation[: asked.instructions], asked.conversation[asked.instructions :]
            asked = msgspec.structs.replace(asked, conversation=[*front, *known.history[known.instructions :], *new])
        again = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        once = request.headers.get("idempotency-key", "")
        digest = hashlib.sha256(f"{path}\0{once}\0".encode() + (b"" if once else request.body)).hexdigest()
        nodes = await seat.session.ask(asked, digest, again or bool(once), request.waiting)
        kind, body = dialect.write(asked, nodes, name)
        return Answer(200, body, kind, sent=lambda whole: seat.session.sent(nodes, whole))


# -- acting ---------------------------------------------------------------------------------------------------------------


def task_of(seat: Seat) -> dict[str, Any]:
    """What a program is told of its task: the conversation so far and the tools, in OpenAI's form."""
    return {
        "episode": seat.episode,
        "messages": [message_to_openai(m) for m in seat.conversation],
        "tools": [t.to_openai() for t in seat.tools],
        "done": bool(seat.over),
    }


async def _step(seat: Seat, request: Request, path: str) -> dict[str, Any]:
    """A whole message of the assistant, all its calls in one turn."""
    body = read_object(request.body)
    try:
        message = from_openai(body.get("message", body))
    except ShapeError as e:
        raise RequestError(f"message: {e}", "message") from None
    return _told(await seat.play(message, request.headers.get("idempotency-key", "")))


async def _say(seat: Seat, request: Request, path: str) -> dict[str, Any]:
    """A text."""
    text = read_object(request.body).get("text")
    if not isinstance(text, str):
        raise RequestError("text: must be a text", "text")
    return _told(await seat.play(assistant(clean_text(text)), request.headers.get("idempotency-key", "")))


async def _tool(seat: Seat, request: Request, path: str) -> dict[str, Any]:
    """One call of a tool, a turn of its own; whatever the body is, it is the environment that judges it."""
    name = clean_text(urllib.parse.unquote(path.removeprefix("/agentgym/tools/")))
    id_ = request.headers.get("x-agentgym-call", "")
    once = request.headers.get("idempotency-key", "") or id_
    return told_of_tool(await call_tool(seat, name, request.body.decode("utf-8", "replace") or "{}", id_, once))


async def call_tool(seat: Seat, name: str, arguments: str, id_: str = "", once: str = "") -> Outcome:
    """Plays one call."""
    return await seat.play(Message("assistant", "", (ToolCall(name, arguments, id_),)), once)


def told_of_tool(outcome: Outcome) -> dict[str, Any]:
    """What one call led to."""
    said = "\n".join(m.text for m in outcome.messages if m.role == "tool")
    status = outcome.results[0].status if outcome.results else "ok"
    rest = [message_to_openai(m) for m in outcome.messages if m.role != "tool"]
    return {"content": said, "is_error": status != "ok", "status": status, "messages": rest, "done": outcome.done}


def _told(outcome: Outcome) -> dict[str, Any]:
    return {"messages": [message_to_openai(m) for m in outcome.messages], "done": outcome.done}


_ACTIONS: dict[str, Callable[[Seat, Request, str], Awaitable[dict[str, Any]]]] = {
    "/agentgym/step": _step,
    "/agentgym/say": _say,
}


# -- answers --------------------------------------------------------------------------------------------------------------


def _goodbye(index: int) -> Node:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return Node(ModelCall(index, Message("assistant", ENDED)), [], done)


def _json(value: Any) -> Answer:
    return Answer(200, msgspec.json.encode(value))


def _error(path: str, status: int, text: str, code: str, parameter: str | None = None) -> Answer:
    said = redact(clean_text(text))
    body = messages.error(status, said) if path == "/v1/messages" else chat.error(status, said, code, parameter)
    return Answer(status, body, headers=_GO_ON)


def _refusal(status: int, text: str) -> bytes:
    return chat.error(status, text, "bad_request" if status < 500 else "internal")
