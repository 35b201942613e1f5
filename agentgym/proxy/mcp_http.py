# SPDX-License-Identifier: Apache-2.0
"""``POST /agentgym/mcp``: the episode's tools as a server of the Model Context Protocol (streamable HTTP, answers as JSON).

Of the protocol it is what tools need: initialize, ping, tools/list, tools/call. There is no stream from the server, which the
protocol leaves open; clients ask for one and are told 405.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentgym.errors import AgentGymError, InfrastructureError
from agentgym.policies.wire import ShapeError, loads
from agentgym.proxy.http import Answer, Request
from agentgym.proxy.seat import OverError, Seat

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
"""Versions of the protocol, the newest first."""


async def handle(seat: Seat, request: Request) -> Answer:
    """Answers one message of a client."""
    if request.method == "DELETE":  # the client ends its session; there is none
        return Answer(200)
    if request.method != "POST":
        return Answer(405, _reply(None, error=(-32600, "this server has no stream of its own: use POST")))
    try:
        said = loads(request.body)
    except ShapeError as e:
        return Answer(400, _reply(None, error=(-32700, f"the message cannot be read: {e}")))
    if not isinstance(said, dict) or not isinstance(method := said.get("method"), str):
        if isinstance(said, dict) and ("result" in said or "error" in said):
            return Answer(202)
        return Answer(400, _reply(None, error=(-32600, "a message is one JSON-RPC object with a method")))
    if "id" not in said:  # a notification
        return Answer(202)
    params = said.get("params")
    try:
        result = await _result(seat, method, params if isinstance(params, dict) else {})
    except InfrastructureError as e:
        return Answer(200, _reply(said["id"], error=(-32603, str(e))))
    except AgentGymError as e:
        return Answer(200, _reply(said["id"], error=(-32602, str(e))))
    if result is None:
        return Answer(200, _reply(said["id"], error=(-32601, f"there is no method {method[:80]!r}")))
    return Answer(200, _reply(said["id"], result))


async def _result(seat: Seat, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    from agentgym.proxy.gateway import call_tool

    if method == "initialize":
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "agentgym", "version": "1"},
            "instructions": "\n\n".join(m.text for m in seat.conversation if m.role in ("system", "user")),
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": [{"name": t.name, "description": t.description, "inputSchema": t.parameters} for t in seat.tools]}
    if method != "tools/call":
        return None
    name, arguments = params.get("name"), params.get("arguments")
    text = "{}" if arguments is None else msgspec.json.encode(arguments).decode()
    try:
        outcome = await call_tool(seat, name if isinstance(name, str) else "", text)
    except OverError as e:
        return {"content": [{"type": "text", "text": f"error: {e}"}], "isError": True}
    said = "\n".join(m.text for m in outcome.messages)
    return {"content": [{"type": "text", "text": said}], "isError": any(r.status != "ok" for r in outcome.results)}


def _reply(id_: Any, result: Any = None, *, error: tuple[int, str] | None = None) -> bytes:
    row: dict[str, Any] = {"jsonrpc": "2.0", "id": id_}
    if error is None:
        row["result"] = result
    else:
        row["error"] = {"code": error[0], "message": error[1]}
    return msgspec.json.encode(row)
