# SPDX-License-Identifier: Apache-2.0
"""A client that loses patience asks again. What was sampled for nobody must not be trained on, nor sampled twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

import agentgym
from agentgym.tokens.rows import linearize
from tests.proxy.toys import Client, Counter, Typist, solving

QUESTION: list[Any] = [{"role": "user", "content": "go"}]


class Slow(Typist):
    """Answers its first question when it is told to, the others at once."""

    def __init__(self) -> None:
        super().__init__(solving, gate=self._wait)
        self.go_on = threading.Event()

    async def _wait(self, number: int) -> None:
        if number == 0:
            await asyncio.to_thread(self.go_on.wait, 20)


def give_up(client: Client, **body: Any) -> None:
    """Asks, and hangs up before the answer is there."""
    hasty = Client({"AGENTGYM_URL": f"http://{client.host}:{client.port}", "AGENTGYM_KEY": client.key}, timeout=0.3)
    with pytest.raises(TimeoutError):
        hasty.chat(QUESTION, **body)


def test_who_asks_again_after_a_timeout_is_given_the_answer_that_is_on_its_way(tmp_path: Path) -> None:
    model = Slow()
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        give_up(client)
        again: list[Any] = []
        thread = threading.Thread(target=lambda: again.append(client.chat(QUESTION)))
        thread.start()
        threading.Timer(0.2, model.go_on.set).start()
        thread.join()
        answer = again[0]["choices"][0]["message"]
        client.post("/agentgym/step", answer)
    (call,) = episode.result.trajectory.calls
    assert len(model.sampled) == 1
    assert (call.repeats, call.void, call.turns) == (1, "", (0,))


def test_an_answer_that_nobody_received_is_void_and_never_trained_on(tmp_path: Path) -> None:
    model = Slow()
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        give_up(client)
        answer = client.chat(QUESTION, temperature=0.9)["choices"][0]["message"]  # another question
        model.go_on.set()
        client.post("/agentgym/step", answer)
        while len(model.sampled) < 2:
            client.get("/agentgym/task")
    orphan, kept = episode.result.trajectory.calls
    assert orphan.void
    assert not kept.void
    rows = linearize(episode.result.trajectory)
    assert [r.turns for r in rows.rows] == [(1,)]
    assert rows.drift.forked == 0
    assert rows.drift.excluded_tokens == len(orphan.tokens.output_ids)
    assert rows.sampled_tokens == sum(r.trained for r in rows.rows) + rows.drift.excluded_tokens
    with agentgym.open_run(episode.run) as run:  # and stays so on record
        (read,) = run.episodes()
        assert linearize(read.trajectory).drift == rows.drift
        assert read.trajectory.canonical() == episode.result.trajectory.canonical()


@pytest.mark.parametrize("header", [{"x-stainless-retry-count": "1"}, {"idempotency-key": "k"}])
def test_a_client_that_says_that_it_repeats_itself_is_believed(header: dict[str, str], tmp_path: Path) -> None:
    model = Typist(solving)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        first = client.chat(QUESTION, header if "idempotency-key" in header else None)
        second = client.chat(QUESTION, header)
        third = client.chat(QUESTION)  # no repetition: another sample is wanted
        assert first["id"] == second["id"] != third["id"]
    assert len(model.sampled) == 2


def test_a_tool_call_that_is_sent_twice_is_played_once(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        told = [client.post("/agentgym/tools/add", {"by": 1}, {"X-Agentgym-Call": "c1"}) for _ in range(2)]
        assert told[0] == told[1]
        with contextlib.suppress(AssertionError):
            client.post("/agentgym/tools/add", {"by": 1}, {"X-Agentgym-Call": "c2"})
    assert episode.result.trajectory.state_after == {"value": 2}
