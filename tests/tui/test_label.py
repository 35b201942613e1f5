# SPDX-License-Identifier: Apache-2.0
"""Preferences as a person gives them: blind, one key an answer, saved at once, taken back, taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentgym
from agentgym.chat import call, submit
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.labels import FILE, Labels, Queue
from agentgym.records.run import Run
from agentgym.tui.app import Viewer
from agentgym.tui.screens.episodes import EpisodesScreen
from agentgym.tui.screens.label import LabelScreen
from tests.envs import Bank
from tests.tui.conftest import HOSTILE, Hands, both_sizes, drive


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, three trials each: the first two do the same, the third says something hostile before it ends."""

    def plan(context: object) -> list[object]:
        start = [call("balance", account="a")]
        return [*start, *([HOSTILE] if context.trial == 2 else []), call("transfer", cents=100), submit()]  # type: ignore[attr-defined]

    root = tmp_path_factory.mktemp("runs")
    with agentgym.evaluate(Bank, ScriptedPolicy(plan, "secret-model-9"), limit=2, trials=3, runs=root) as run:  # type: ignore[arg-type]
        return run.path


@pytest.fixture
def path(trials: Path) -> Path:
    (trials / FILE).unlink(missing_ok=True)
    return trials


def asked(h: Hands) -> LabelScreen:
    assert isinstance(h.app.screen, LabelScreen)
    return h.app.screen


async def ready(h: Hands) -> LabelScreen:
    screen = asked(h)
    await h.until(lambda: not screen._busy and (screen.finished or screen.readers[0].count), "a pair")
    return screen


def labelling(path: Path, who: str = "ann", **more: object) -> Viewer:
    run = Run(path)
    return Viewer(path.parent, run, over=LabelScreen(run, who, queue=Queue(run), **more))  # type: ignore[arg-type]


@both_sizes
def test_two_trials_are_shown_without_model_scores_or_what_was_paid(path: Path, size: tuple[int, int]) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        await h.sees("Which is better on the whole?", "1  first", "they part at turn 1", "0 of 6 pairs", "→ balance(")
        seen = h.text
        await h.press("tab")
        assert screen.here == 1
        seen += await h.sees("2  second")
        await h.press("]")
        seen += h.text
        assert "they part here" in seen
        assert "owned" in seen
        assert "\x1b" not in seen, "what a model says is shown, and steers nothing"
        for hidden in ("secret-model", "gold", "reward", "solved", "failed", "tokens", "scripted", "trial 2"):
            assert hidden not in seen
        if size[0] > 100:
            assert "1  first" in h.text, "both beside each other where there is room"

    drive(labelling(path), script, size)


def test_an_answer_is_on_the_disk_before_the_next_pair_and_it_goes_on_where_one_stopped(path: Path) -> None:
    async def first(h: Hands) -> None:
        screen = await ready(h)
        shown = screen.shown
        await h.press("r", *"kind brief", "enter", "1")
        await h.until(lambda: not screen._busy and screen.shown is not shown, "the next pair")
        with Labels(path) as labels:
            (label,) = labels.labels()
        assert (label.better, label.first, label.annotator) == (shown.ids[0], shown.ids[0], "ann")
        assert label.reasons == ("kind", "brief")
        await h.sees("1 of 6 pairs", "1 is better; it is saved, u takes it back")
        assert screen.reasons == ()
        await h.press("q")

    async def second(h: Hands) -> None:
        screen = await ready(h)
        assert len(screen._answered) == 1
        await h.sees("1 of 6 pairs")
        for key in ("2", "=", "s"):
            before = screen.shown
            await h.press(key)
            await h.until(lambda b=before: not screen._busy and screen.shown is not b, "the next pair")
        assert screen.finished
        # two of six pairs say the same, word for word: nobody is asked about those
        await h.sees("4 of 6 pairs, 2 alike", "all pairs are answered", "on the whole: 3 answers about 3 pairs (ann 3)")
        with Labels(path) as labels:
            assert [x.choice for x in labels.labels()].count("skip") == 1

    drive(labelling(path), first)
    drive(labelling(path), second)


def test_undo_brings_the_pair_back_with_its_reasons_and_then_the_one_it_interrupted(path: Path) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        one = screen.shown.pair
        await h.press("r", *"kind", "enter", "2")
        await h.until(lambda: not screen._busy and screen.shown.pair != one, "the next pair")
        two = screen.shown.pair
        await h.press("u")
        await h.until(lambda: not screen._busy and screen.shown.pair == one, "the first pair again")
        assert screen.reasons == ("kind",)
        with Labels(path) as labels:
            assert labels.labels() == []
        await h.press("=")
        await h.until(lambda: not screen._busy and screen.shown.pair == two, "the pair that was interrupted")
        await h.press("u", "u")
        await h.until(lambda: not screen._busy, "both")
        await h.press("u")
        await h.sees("no answer to take back")

    drive(labelling(path), script)


def test_dimensions_are_asked_one_after_the_other_and_notes_stand_at_their_turn(path: Path) -> None:
    async def script(h: Hands) -> None:
        screen = await ready(h)
        pair = screen.shown.pair
        await h.press("1")
        await h.sees("on the whole: 1 is better", "Which is better in honesty?")
        await h.press("n", "a", *"a lie", "enter")
        await h.sees("your note", "a lie")
        await h.press("a", "escape")
        assert isinstance(h.app.screen, LabelScreen)
        await h.press("2")
        await h.until(lambda: not screen._busy and screen.shown.pair != pair, "the next pair")
        with Labels(path) as labels:
            assert [(x.dimension, x.better == x.first) for x in labels.labels()] == [("", True), ("honesty", False)]
            (note,) = labels.notes()
        assert (note.turn, note.episode in pair, note.annotator) == (0, True, "ann")
        await h.press("u")
        await h.until(lambda: not screen._busy and screen.shown.pair == pair, "the question on honesty again")
        assert screen.question == "honesty"

    drive(labelling(path, dimensions=["honesty"]), script)


def test_agreement_is_shown_while_two_people_answer(path: Path) -> None:
    with Run(path) as run, Labels(path) as labels:
        for p in Queue(run):
            labels.add(p, "a", annotator="bob", task_id="t", first=p.a)

    async def script(h: Hands) -> None:
        screen = await ready(h)
        for key in ("1", "2", "=", "1"):
            before = screen.shown
            await h.press(key)
            await h.until(lambda b=before: not screen._busy and screen.shown is not b, "the next pair")
        await h.sees("Krippendorff's alpha", "on 4 pairs that two or more answered", "bob 6")

    drive(labelling(path), script)


def test_the_list_of_episodes_leads_to_the_question_and_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_ANNOTATOR", "cyd")

    async def script(h: Hands) -> None:
        await h.press("L")
        await h.until(lambda: isinstance(h.app.screen, LabelScreen), "the question")
        await ready(h)
        await h.sees("labels of cyd")
        await h.press("question_mark")
        await h.sees("Neither is better", "Take back the last answer")
        await h.press("escape", "escape")
        assert isinstance(h.app.screen, EpisodesScreen)
        assert not (path / FILE).exists(), "who answers nothing leaves nothing"

    run = Run(path)
    drive(Viewer(path.parent, run), script)
