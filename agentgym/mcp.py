# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol, both ways: an environment's tools as an MCP server, an MCP server's tools for an environment.

    python -m agentgym.mcp tools.bank/control/0      # serves that task's tools on its standard streams

`Connection` starts a server as a subprocess and speaks to it over its standard streams. Both need the extra ``mcp``. What a
server says comes from a third party: `tools.mcp` is a scenario about that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentgym.background import run_blocking
from agentgym.chat import ToolCall, assistant, clean_text
from agentgym.errors import InfrastructureError, UsageError
from agentgym.toolspec import ToolSpec

if TYPE_CHECKING:
    from agentgym.env import ChatEnv

STATE = "state://world"
"""The resource under which a server shows the state behind its tools, as JSON, if it does."""

MISSING = "MCP needs a library that is not installed: pip install 'agentgym-harness[mcp]'"


class Connection:
    """A running MCP server. Its calls wait; it may be used from any thread but the background loop's.

    Args:
        command: what starts the server, e.g. ``[sys.executable, "-m", "my_server"]``. It runs as it is, without a sandbox:
            start only what you trust to run on this machine.
        env: variables for it besides the few that the library passes on.
        timeout_s: seconds to wait for an answer.

    Raises:
        UsageError: the extra ``mcp`` is not installed.
        InfrastructureError: here and in each method: the server does not start, does not answer, or breaks the protocol.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> None:
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise UsageError(MISSING) from None
        self.command = list(command)
        self.timeout_s = timeout_s
        self._env = dict(env or {})
        self._session: Any = None
        self._stop: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        run_blocking(self._start())

    async def _start(self) -> None:
        self._stop = asyncio.Event()
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # entered and left by one task, as its cancel scopes demand; others only ask the session
        self._task = asyncio.create_task(self._live(ready, self._stop))
        done, _ = await asyncio.wait({self._task, ready}, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ready not in done:
            self._task.cancel()
            error = self._task.exception() if self._task.done() and not self._task.cancelled() else None
            raise InfrastructureError(f"the MCP server {self.command[0]!r} did not start: {error or 'no answer'}")
        self._session = ready.result()

    async def _live(self, ready: asyncio.Future[Any], stop: asyncio.Event) -> None:
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client

        where = StdioServerParameters(command=self.command[0], args=self.command[1:], env=self._env)
        with open(os.devnull, "w") as nowhere:
            async with stdio_client(where, errlog=nowhere) as streams, ClientSession(*streams) as session:
                await session.initialize()
                ready.set_result(session)
                await stop.wait()

    def _ask(self, method: str, *args: Any) -> Any:
        async def ask() -> Any:
            if self._session is None or self._task is None or self._task.done():
                raise InfrastructureError(f"the MCP server {self.command[0]!r} is not running")
            return await asyncio.wait_for(getattr(self._session, method)(*args), self.timeout_s)

        try:
            return run_blocking(ask())
        except InfrastructureError:
            raise
        except Exception as e:
            raise InfrastructureError(f"the MCP server {self.command[0]!r} failed in {method}: {type(e).__name__}: {e}") from e

    def list_tools(self) -> list[ToolSpec]:
        """The tools as the server describes them now; descriptions may change from one listing to the next."""
        found = self._ask("list_tools").tools
        return [ToolSpec(clean_text(t.name), clean_text(t.description or ""), t.input_schema) for t in found]

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """What a tool answers, its text parts joined, and whether it calls that an error."""
        result = self._ask("call_tool", name, dict(arguments))
        text = "\n".join(p.text for p in result.content if getattr(p, "type", "") == "text")
        return clean_text(text), bool(result.is_error)

    def read(self, uri: str) -> str:
        """The text of a resource."""
        return "".join(getattr(c, "text", "") for c in self._ask("read_resource", uri).contents)

    def close(self) -> None:
        """Ends the server; may be called twice."""
        task, self._task, self._session = self._task, None, None
        stop = self._stop

        async def end() -> None:
            if task is not None and stop is not None:
                stop.set()
                await asyncio.wait({task}, timeout=self.timeout_s)

        if task is not None:
            run_blocking(end())


def serve(
    listing: Callable[[], Sequence[ToolSpec]],
    run: Callable[[str, dict[str, Any]], tuple[str, bool]],
    *,
    name: str,
    instructions: str = "",
    state: Callable[[], bytes] | None = None,
) -> None:
    """Serves tools on the standard streams until the client goes.

    Args:
        listing: the tools, asked anew for each listing.
        run: carries out a call: what is answered, and whether that is an error.
        name: of the server.
        instructions: what a client is told at the start.
        state: what stands behind the tools, as JSON, for the resource `STATE`.

    Raises:
        UsageError: the extra ``mcp`` is not installed.
    """
    try:
        from mcp import types
        from mcp.server.lowlevel import Server
        from mcp.server.stdio import stdio_server
    except ImportError:
        raise UsageError(MISSING) from None

    async def on_list(_: Any, __: Any) -> Any:
        return types.ListToolsResult(
            tools=[types.Tool(name=t.name, description=t.description, input_schema=t.parameters) for t in listing()]
        )

    async def on_call(_: Any, params: Any) -> Any:
        text, error = run(params.name, params.arguments or {})
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=error)

    async def on_read(_: Any, params: Any) -> Any:
        text = state().decode() if state is not None and params.uri == STATE else ""
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=params.uri, text=text)])

    server = Server(
        name, instructions=instructions or None, on_list_tools=on_list, on_call_tool=on_call, on_read_resource=on_read
    )

    async def work() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(work())


def serve_env(env: ChatEnv, item: str) -> None:
    """Serves the tools of one task of an environment; each call is a turn of its episode, and ``submit`` ends it."""
    opening, _ = env.reset(options={"item": item})

    def run(name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        if not env._running:
            return "the task has ended", True
        observation, *_ = env.step(assistant("", ToolCall(name, msgspec.json.encode(arguments).decode())))
        results = env.trajectory.turns[-1].results
        return "\n".join(m.text for m in observation), any(r.status != "ok" for r in results)

    try:
        serve(lambda: env.tool_specs, run, name=env.label, instructions="\n\n".join(m.text for m in opening))
    finally:
        env.close()


def main(arguments: Sequence[str]) -> None:
    """``python -m agentgym.mcp FAMILY/VARIANT/ITEM``."""
    from agentgym.registry import env_class
    from agentgym.task import TaskId

    if len(arguments) != 1:
        raise UsageError("usage: python -m agentgym.mcp FAMILY/VARIANT/ITEM")
    family, variant, item = TaskId.parse(arguments[0])
    name, _, given = family.partition(":")
    params: dict[str, Any] = dict(p.split("=", 1) for p in given.split(",") if p)
    serve_env(env_class(name)(variant=variant, **params), item)


if __name__ == "__main__":
    main(sys.argv[1:])
