# SPDX-License-Identifier: Apache-2.0
"""Programs ask several things at once. What belongs to one conversation must not get into another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import agentgym
from agentgym.chat import Message, assistant, user
from agentgym.protocols import EpisodeContext, Sampling
from agentgym.proxy.session import Asked, Session
from agentgym.tokens.rows import linearize
from agentgym.trajectory import Trajectory
from tests.proxy.toys import Client, Counter, Typist, solving


def about(conversation: Sequence[Message]) -> Message:
    """An answer that names all that it was asked."""
    return assistant("+".join(m.text for m in conversation if m.role == "user") + "!")


def test_questions_that_are_asked_at_once_are_siblings_with_tokens_of_their_own(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=20)

    async def all_there(number: int) -> None:
        await asyncio.to_thread(together.wait)

    model = Typist(about, gate=all_there)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        said: dict[str, str] = {}

        def ask(name: str) -> None:
            system = {"role": "system", "content": f"You are {name}."}
            first = [system, {"role": "user", "content": f"{name}1"}]
            answer = client.chat(first)["choices"][0]["message"]
            more = [*first, answer, {"role": "user", "content": f"{name}2"}]
            said[name] = client.chat(more)["choices"][0]["message"]["content"]

        threads = [threading.Thread(target=ask, args=(name,)) for name in "ABC"]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert said == {n: f"{n}1+{n}2!" for n in "ABC"}
    calls = episode.result.trajectory.calls
    assert len(calls) == 6
    assert len({c.agent for c in calls}) == 3
    for c in calls:
        if c.parent >= 0:
            assert calls[c.parent].agent == c.agent
    rows = linearize(episode.result.trajectory)
    assert len(rows.rows) == 3
    assert (rows.drift.appended, rows.drift.forked) == (3, 0)
    for row in rows.rows:
        texts = {calls[i].message.text[0] for i in row.turns}
        assert len(texts) == 1


def test_several_answers_to_one_question_have_random_numbers_of_their_own(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(about), runs=tmp_path) as episode:
        client = Client(episode.variables)
        client.chat([{"role": "user", "content": "q"}], n=2)
        client.chat([{"role": "user", "content": "q"}])
    result = episode.result
    seeds = [c.sampling.seed for c in result.trajectory.calls]
    assert len(set(seeds)) == 3
    assert seeds[0] == result.trajectory.seed  # the first is the one that our own loop would have had


def test_two_branches_of_one_conversation_never_share_a_player(tmp_path: Path) -> None:
    model = Typist(about)
    with agentgym.proxy.record(Counter, model=model, runs=tmp_path) as episode:
        client = Client(episode.variables)
        first: list[Any] = [{"role": "user", "content": "q"}]
        answer = client.chat(first)["choices"][0]["message"]
        for branch in "xyx":
            client.chat([*first, answer, {"role": "user", "content": branch}])
    calls = episode.result.trajectory.calls
    assert [c.parent for c in calls] == [-1, 0, 0, 0]
    for (prompt, output), c in zip(model.sampled, calls, strict=True):
        assert c.tokens.prompt_ids.tolist() == prompt
        assert c.tokens.output_ids.tolist() == output
    rows = linearize(episode.result.trajectory)
    # the first branch goes on with the row; the others begin from the question, with what was sampled trained on once
    assert [r.turns for r in rows.rows] == [(0, 1), (2,), (3,)]
    assert sum(r.trained for r in rows.rows) == rows.sampled_tokens


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.booleans()), min_size=1, max_size=12))
def test_whatever_a_program_asks_and_in_which_order_each_call_has_the_conversation_that_was_meant(
    steps: list[tuple[int, str, bool]],
) -> None:
    async def work() -> None:
        model = Typist(about)
        session = Session(model, EpisodeContext("t/control/0", 0, 7))
        histories: list[list[Message]] = []
        for number, (which, word, strip) in enumerate(steps):
            base = histories[which % len(histories)] if histories and which else []
            asked = [*base, user(word)]
            (node,) = await session.ask(Asked(asked, [], Sampling()), str(number), False)
            session.sent([node], True)
            assert [(m.role, m.text.strip()) for m in node.conversation] == [(m.role, m.text.strip()) for m in asked]
            answer = node.call.message
            histories.append([*asked, assistant(f" {answer.text} ") if strip else answer])
        await session.close()
        trajectory = Trajectory(task_id="t/control/0", calls=session.calls)
        rows = linearize(trajectory)
        assert sum(r.trained for r in rows.rows) == rows.sampled_tokens == sum(len(o) for _, o in model.sampled)
        for c in session.calls:
            chain, at = [], c
            while True:
                chain = [*at.new, *chain]
                if at.parent < 0:
                    break
                at = session.calls[at.parent]
                chain = [at.message, *chain]
            assert chain == session.nodes[c.index].conversation

    asyncio.run(work())


def test_a_solved_episode_is_not_disturbed_by_what_else_the_program_asks(tmp_path: Path) -> None:
    with agentgym.proxy.record(Counter, model=Typist(solving), runs=tmp_path) as episode:
        client = Client(episode.variables)
        task = client.get("/agentgym/task")
        messages = task["messages"]
        done = False
        while not done:
            client.chat([{"role": "system", "content": "You plan."}, {"role": "user", "content": "What next?"}])
            message = client.chat(messages, tools=task["tools"])["choices"][0]["message"]
            step = client.post("/agentgym/step", message)
            messages += [message, *step["messages"]]
            done = step["done"]
    result = episode.result
    assert result.gold == 1
    assert [c.turns for c in result.trajectory.calls] == [(), (0,), (), (1,), (), (2,)]
    assert [c.agent for c in result.trajectory.calls] == ["", "agent1"] * 3
    assert result.trajectory.usage.completion_tokens == sum(c.usage.completion_tokens for c in result.trajectory.calls)
    rows = linearize(result.trajectory)
    assert sum(float(r.token_rewards.sum()) for r in rows.rows) == result.reward == 1
