# SPDX-License-Identifier: Apache-2.0
"""The tools of a recorded episode, served over HTTP to the protocol's own client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

import agentgym
from tests.proxy.toys import Counter, Typist, solving


def test_a_client_that_is_given_nothing_but_the_url_plays_the_episode(tmp_path: Path) -> None:
    async def play(url: str) -> list[Any]:
        async with streamable_http_client(url) as streams, ClientSession(streams[0], streams[1]) as session:
            told = await session.initialize()
            names = {t.name for t in (await session.list_tools()).tools}
            added = await session.call_tool("add", {"by": 3})
            ended = await session.call_tool("submit", {})
            return [told.instructions, names, added.content[0].text, ended.is_error]

    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        told, names, added, failed = asyncio.run(play(episode.variables["AGENTGYM_MCP_URL"]))
    assert "counter" in told
    assert names == {"add", "submit"}
    assert added == "it is 3 now"
    assert not failed
    assert episode.result.gold == 1
