# SPDX-License-Identifier: Apache-2.0
"""In a replay: what people noted at a turn, and what a program asked its model besides what it then did."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec

from agentgym.chat import Message, ToolCall, assistant
from agentgym.records.labels import Labels
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRecord, RunWriter
from agentgym.report.console import render_episode
from agentgym.trajectory import ModelCall
from agentgym.tui.app import Viewer
from agentgym.tui.story import Story
from tests.tui.conftest import HOSTILE, LARGE, Hands, both_sizes, drive, episode


def proxied(bank: Run) -> None:
    """Adds an episode whose agent was a program: a sub-agent, an answer thrown away, a void one, one sent again."""
    e = episode(bank, 0)
    turns = e.trajectory.turns
    calls = [
        ModelCall(0, turns[0].message, turns=(0,)),
        ModelCall(1, assistant("the price is 4"), (Message("user", "Look up the price."),), agent="agent1", played=1),
        ModelCall(
            2, assistant(HOSTILE), (Message("user", "again"),), parent=0, played=1, void="nobody was there to receive it"
        ),
        ModelCall(3, turns[1].message, parent=0, played=1, turns=(1,), repeats=2),
        ModelCall(4, assistant("", ToolCall("late", "{}")), parent=3, played=3),
    ]
    writer = RunWriter(bank.path, create=False)
    played = msgspec.structs.replace(e.trajectory, calls=calls, task_id="test.bank/control/98")
    task = msgspec.structs.replace(e.task, item="98")
    writer.add(EpisodeRecord(played, task, e.task.encode(), 0, e.reward, e.gold, e.all_scores, e.findings))
    writer.flush()
    writer.close()


@both_sizes
def test_calls_that_no_turn_shows_stand_before_the_turn_they_came_before(root: Path, bank: Run, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        await h.sees("turn 0")
        await h.press("n", "n")
        text = await h.sees("» call", "call 1 · agent1 · begins a conversation · became no turn", "Look up the price.")
        assert "\x1b" not in text
        await h.press("G")
        await h.sees("5 calls of the model by the program", "late({})")

    proxied(bank)
    drive(Viewer(root, bank, episode(bank, 98)), script, size)


def test_show_prints_the_same_calls(bank: Run) -> None:
    proxied(bank)
    e = episode(bank, 98)
    text = "\n".join(str(line) for line in lines(render_episode(e)))
    for wanted in ("» call 1 · agent1", "void: nobody was there", "became turn 1 · sent again 2 times", "→ late({})"):
        assert wanted in text
    assert "» call 0" not in text, "its answer is the first turn, which says it all"
    assert text.index("call 3") < text.index("@1 assistant") < text.index("call 4")


def lines(rendered: object) -> list[str]:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rendered)
    return console.export_text().splitlines()


def test_a_note_stands_at_its_turn_and_one_on_the_whole_at_the_end(root: Path, bank: Run) -> None:
    async def script(h: Hands) -> None:
        await h.sees("✎ note", f"ann: why {HOSTILE[-2:]}")

    e = episode(bank, 0)
    labels = Labels(bank.path)
    labels.note(f"why {HOSTILE[-2:]}", annotator="ann", task_id=e.task_id, episode=e.id, turn=1)
    labels.note("all in all", annotator="bob", task_id=e.task_id, episode=e.id)
    labels.note("elsewhere", annotator="bob", task_id="x", episode=e.id + 1, turn=0)
    labels.close()
    found = [(b.turn, b.text) for b in Story(e).document().blocks if b.label[0] == "✎ note"]
    assert [(t, x) for t, x in found if t == 1] == [(1, f"ann: why {HOSTILE[-2:]}")]
    assert [x for t, x in found if t != 1] == ["bob: all in all"]
    drive(Viewer(root, bank, e), script, LARGE)
    (bank.path / "labels.sqlite").write_bytes(b"broken")
    assert Story(e).document().blocks, "damaged notes keep nobody from reading the replay"
