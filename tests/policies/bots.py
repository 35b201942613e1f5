# SPDX-License-Identifier: Apache-2.0
"""One agent in every shape that agentgym takes: a function, a class, a driver of whole episodes, a program, a service.

It needs nothing but Python. It calls each tool once with arguments made up from the schema, says and thinks something on
the way, gets one call wrong, and ends with submit.
"""

from __future__ import annotations

import http.server
import json
import sys
from typing import Any

Row = dict[str, Any]


def made_up(schema: Row) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return made_up(schema["anyOf"][0])
    kind = schema.get("type")
    if kind == "object":
        return {k: made_up(schema["properties"][k]) for k in schema.get("required", [])}
    return {"integer": 1, "number": 1.5, "boolean": True, "array": []}.get(kind or "", "1 + 1")


def answer(messages: list[Row], tools: list[Row]) -> Row:
    turn = sum(m["role"] == "assistant" for m in messages)
    others = [t["function"] for t in tools if t["function"]["name"] != "submit"]
    if turn < len(others) + 1:
        tool = others[max(0, turn - 1)]
        arguments = json.dumps(made_up(tool["parameters"])) if turn != 1 else '{"broken": '
        call = {"id": f"c{turn}", "type": "function", "function": {"name": tool["name"], "arguments": arguments}}
        if turn == 0:
            thought = "What do they want?"
            return {
                "role": "assistant",
                "content": "Let me see \u2014 yes.",
                "reasoning_content": thought,
                "tool_calls": [call],
            }
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    submit = {"name": "submit", "arguments": json.dumps({"answer": messages[0]["content"][:40]})}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "", "type": "function", "function": submit}]}


async def answer_async(messages: list[Row], tools: list[Row]) -> Row:
    reply = answer(messages, tools)
    messages[0]["content"] = "changed"  # an agent may do with its arguments what it likes
    tools.clear()
    return reply


class Answerer:
    def __call__(self, messages: list[Row], tools: list[Row]) -> Row:
        return answer(messages, tools)


async def drive(session: Any) -> None:
    while not session.done:
        before = list(session.messages)
        new = await session.send(answer(session.messages, session.tools))
        if not session.done:
            assert session.messages[len(before) + 1 :] == new


def drive_blocking(session: Any) -> None:
    while not session.done:
        session.send(answer(session.messages, session.tools))


def program() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"message": answer(request["messages"], request["tools"])}), flush=True)


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), request))  # type: ignore[attr-defined]
        data = json.dumps({"message": answer(request["messages"], request["tools"])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    program()
