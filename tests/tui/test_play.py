# SPDX-License-Identifier: Apache-2.0
"""A person in the agent's seat: the words and tools of an agent, an ordinary record, a score at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from agentgym.errors import UsageError
from agentgym.policies.human import arguments, fields
from agentgym.records.run import Run
from agentgym.rollout.evaluate import prepare
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice
from agentgym.toolspec import ToolFunction
from agentgym.tui.app import Viewer
from agentgym.tui.screens.play import PlayForm, PlayScreen
from agentgym.tui.screens.replay import ReplayScreen
from tests.envs import Bank
from tests.tui.conftest import Hands, drive


def playing(root: Path) -> Viewer:
    plan, options = prepare(Bank, Choice(limit=1, trials=1, variants=["control"]), Options(retries=0))
    return Viewer(root, over=PlayScreen(plan, options, root))


async def asked(h: Hands) -> PlayScreen:
    await h.until(lambda: isinstance(h.app.screen, PlayScreen) and h.app.screen.policy.waiting, "the first question")
    return h.app.screen  # type: ignore[return-value]


async def choose(h: Hands, tool: str) -> PlayForm:
    await h.press("ctrl+t")
    await h.until(lambda: isinstance(h.app.screen, PlayForm), "the tools")
    form = h.app.screen
    assert isinstance(form, PlayForm)
    place = [t.name for t in form.tools].index(tool)
    await h.press(*["down"] * place, "enter")
    await h.until(lambda: form.spec is not None and form.query("#wrong"), "the form")
    return form


def test_a_person_plays_as_an_agent_does_and_sees_the_score(tmp_path: Path) -> None:
    async def script(h: Hands) -> None:
        await asked(h)
        await h.sees("your answer: ^s sends, ^t calls a tool", "there is no undo")
        screen = await asked(h)
        await choose(h, "balance")
        await h.press("a", "ctrl+s")
        await h.until(lambda: screen._turn == 1, "the next turn")
        form = await choose(h, "transfer")
        await h.sees("cents", "integer", "^s calls it")
        await h.press(*"ten", "ctrl+s")
        await h.sees("'ten' is not a whole number")
        assert h.app.screen is form, "what cannot be an argument is not sent"
        await h.press("backspace", "backspace", "backspace", *"100", "ctrl+s")
        await h.until(lambda: screen._turn == 2, "the turn after the transfer")
        await h.press(*"it is done", "ctrl+s")
        await h.until(lambda: isinstance(h.app.screen, ReplayScreen), "the replay")
        await h.sees("✓ solved", "gold 1")

    drive(playing(tmp_path), script)
    (path,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    with Run(path) as run:
        (episode,) = run.episodes()
        assert (run.meta["model"], run.status, episode.outcome, episode.gold) == ("human", "finished", "terminated", 1.0)
        said = [t.message for t in episode.trajectory.turns]
        assert said[-1].text == "it is done"
        assert (said[1].tool_calls[0].name, said[1].tool_calls[0].arguments) == ("transfer", '{"cents":100,"to":"b"}')


def test_who_leaves_has_what_was_played_kept_as_truncated(tmp_path: Path) -> None:
    async def script(h: Hands) -> None:
        screen = await asked(h)
        await choose(h, "balance")
        await h.press("a", "ctrl+s")
        await h.until(lambda: screen._turn == 1 and screen.policy.waiting, "the next turn")
        await h.press("ctrl+q")
        await h.sees("again leaves", "kept as truncated (abort)")
        assert screen.playing
        await h.press("ctrl+q")
        await h.until(lambda: screen.path is not None, "the record")

    drive(playing(tmp_path), script)
    (path,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    with Run(path) as run:
        (episode,) = run.episodes()
        assert (episode.outcome, episode.truncation, episode.turns, episode.gold) == ("truncated", "abort", 1, 0.0)


def order(
    item: str, count: Annotated[int, msgspec.Meta(ge=1)], gift: bool = False, size: Literal["s", "m"] | None = None,
    tags: list[str] | None = None, price: float = 1.5,
) -> str:  # fmt: skip
    """Orders something.

    Args:
        item: what.
        count: how many.
        gift: whether it is wrapped.
        size: how large.
        tags: words.
        price: of one.
    """
    return ""


def test_a_form_asks_for_what_the_schema_says_and_takes_nothing_else() -> None:
    asked_ = fields(ToolFunction(order).spec)
    assert [(f.name, f.kind, f.required) for f in asked_] == [
        ("item", "string", True), ("count", "integer", True), ("gift", "boolean", False), ("size", "string", False),
        ("tags", "json", False), ("price", "number", False),
    ]  # fmt: skip
    assert asked_[1].about == "how many.; at least 1"
    assert asked_[2].choices == ("true", "false")
    assert set(asked_[3].choices) >= {"s", "m"}
    typed = {"item": "42", "count": "2", "gift": "true", "tags": '["a"]', "price": "2"}
    assert arguments(asked_, typed) == {"item": "42", "count": 2, "gift": True, "tags": ["a"], "price": 2}
    for name, text, why in (
        ("count", "two", "not a whole number"), ("count", "2.5", "not a whole number"), ("count", "true", "not a whole number"),
        ("count", "", "is needed"), ("gift", "yes", "not true or false"), ("tags", "[", "not JSON"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"{name}: .*{why}"):
            arguments(asked_, {**typed, name: text})
