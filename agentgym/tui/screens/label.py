# SPDX-License-Identifier: Apache-2.0
"""Two trials of a task, and the question which is better: preferences, reasons and notes of one person."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input

from agentgym.errors import AgentGymError, RecordError
from agentgym.records.labels import Choice, Label, Labels, Pair, Queue
from agentgym.records.run import Run
from agentgym.report.labelling import agreement_words, label_lines, summarize_labels
from agentgym.report.text import one_line
from agentgym.trajectory import Trajectory
from agentgym.tui.blind import blind, parting
from agentgym.tui.document import END, Block, Document
from agentgym.tui.marks import TROUBLE
from agentgym.tui.screens.level import Level, short
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line
from agentgym.tui.widgets.reader import Reader

_WORDS: dict[str, str] = {"tie": "equal", "skip": "skipped"}


class Shown(NamedTuple):
    """A pair on the screen."""

    pair: Pair
    task_id: str
    ids: tuple[int, int]
    """Of the one shown first and of the other."""
    trajectories: tuple[Trajectory, Trajectory]
    parts: int | None
    """The first turn in which they differ."""


class LabelScreen(Level):
    """Asks one person about one pair after the other.

    Args:
        run: whose trials.
        annotator: who answers.
        dimensions: what is asked besides the question on the whole.
        queue: what to ask in which order; None: every pair.
    """

    CSS_PATH = "label.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "answer(0)", "First", tooltip="The first is better"),
        Binding("2", "answer(1)", "Second", tooltip="The second is better"),
        Binding("equals_sign", "answer(2)", "Equal", key_display="=", tooltip="Neither is better"),
        Binding("s", "answer(3)", "Skip", tooltip="No answer; it is not asked again"),
        Binding("r", "reasons", "Reasons", tooltip="Words for the reasons of the next answer"),
        Binding("a", "note", "Note", tooltip="A note on the present turn"),
        Binding("u", "undo", "Undo", tooltip="Take back the last answer"),
        Binding("tab,left,right,h,l", "other", "To the other trial", show=False),
        Binding("n", "turn(1)", "Next turn", show=False),
        Binding("p", "turn(-1)", "Previous turn", show=False),
        Binding("right_square_bracket", "part", "To where they part", key_display="]", show=False),
        Binding("z", "folds", "Open or close all folds", show=False),
    ]
    depth = 2

    def __init__(self, run: Run, annotator: str, dimensions: Sequence[str] = (), queue: Queue | None = None) -> None:
        super().__init__()
        self.title = "Labels"
        self.run = run
        self.annotator = annotator
        self.questions = list(dict.fromkeys(["", *(d for d in dimensions if d)]))
        self.queue = queue
        self.shown: Shown | None = None
        self.finished = False
        self.question = ""
        """What is asked now: one of `questions`."""
        self.reasons: tuple[str, ...] = ()
        """Of the next answer."""
        self.last: Label | None = None
        """The last answer of this sitting; `u` takes it back."""
        self._answered: dict[Pair, dict[str, Label]] = {}
        self._same = 0
        self._agreement = ""
        self._pairs: Iterator[Pair] = iter(())
        self._before: list[Pair] = []
        """Pairs to be asked before the queue goes on: where `u` interrupted."""
        self._busy = True
        self._typing = ""
        self._labels: Labels | None = None

    def compose(self) -> ComposeResult:
        """Crumbs, question, two trials, a line to type in, a note, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="question")
        with Horizontal(id="body"):
            for place in ("left", "right"):
                with Vertical(id=place, classes="side"):
                    yield Bar(id=f"{place}-name")
                    yield Reader(id=f"{place}-text")
        yield Input(id="type")
        yield Bar(id="note")
        yield Keys()

    def on_mount(self) -> None:
        """Begins where this person stopped."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#note").add_class("note")
        for place in ("left", "right"):
            self.query_one(f"#{place}-name").add_class("name")
        self.query_one("#left").add_class("-here")
        self.readers[0].focus()
        self.call_after_refresh(self._begin)

    def on_unmount(self) -> None:
        """Closes the file."""
        if self._labels is not None:
            self._labels.close()

    @property
    def readers(self) -> tuple[Reader, Reader]:
        """The one shown first and the other."""
        return self.query_one("#left-text", Reader), self.query_one("#right-text", Reader)

    @property
    def here(self) -> int:
        """Which of the two is being read."""
        return 1 if self.query_one("#right").has_class("-here") else 0

    # -- which pair ---------------------------------------------------------------------------------------------------

    @work(exclusive=True, group="label")
    async def _begin(self) -> None:
        try:
            if self.queue is None:
                self.queue = await asyncio.to_thread(_queue, self.run.path)
            self._labels = await asyncio.to_thread(Labels, self.run.path)
            for label in await asyncio.to_thread(lambda: self._store.labels(annotator=self.annotator)):
                self._answered.setdefault(Pair(label.a, label.b), {})[label.dimension] = label
            self._pairs = iter(self.queue)
            await self._next()
        except AgentGymError as e:
            self._fail(e)

    @property
    def _store(self) -> Labels:
        assert self._labels is not None
        return self._labels

    def _open_questions(self, pair: Pair) -> list[str]:
        answered = self._answered.get(pair, {})
        return [q for q in self.questions if q not in answered]

    async def _next(self, question: str | None = None) -> None:
        """Shows the next pair with a question that this person has not answered, or says what all came to."""
        assert self.queue is not None
        self._busy = True
        while True:
            pair = self._before.pop() if self._before else next(self._pairs, None)
            if pair is None:
                await self._finish()
                return
            left = self._open_questions(pair)
            if not left:
                continue
            try:
                shown = await asyncio.to_thread(_load, self.run.path, pair, self.queue.first(pair, self.annotator))
            except RecordError as e:  # one damaged episode does not end the work on the others
                self.viewer.say(str(e))
                continue
            if shown.parts is None:
                self._same += 1  # word for word the same: there is nothing to prefer
                continue
            break
        self.shown, self.finished = shown, False
        self.remove_class("-done")
        self.question = question if question in left else left[0]
        await self._show(True)
        if len(self._answered) % 5 == 0:
            await self._agree()
        self._busy = False

    async def _show(self, anew: bool) -> None:
        shown = self.shown
        assert shown is not None
        notes = await asyncio.to_thread(lambda: self._store.notes(annotator=self.annotator))
        for reader, trajectory, number in zip(self.readers, shown.trajectories, shown.ids, strict=True):
            line = 0 if anew else reader.cursor
            reader.show(blind(trajectory, (n for n in notes if n.episode == number), shown.parts))
            reader.cursor = line
        if anew:
            self._to(0)
        self._describe()

    async def _finish(self) -> None:
        self.shown, self.finished = None, True
        self.add_class("-done")
        lines = await asyncio.to_thread(lambda: list(label_lines(summarize_labels(self._store.labels()))))
        blocks = [Block(("", ""), text, "strong" if style == "bold" else "", turn=-1) for text, style in lines]
        assert self.queue is not None
        done = "no task has two trials that could be compared: play with --trials 2 or more"
        if len(self.queue):
            alike = f"; {self._same:,} pairs are alike, word for word" if self._same else ""
            done = f"all pairs are answered{alike}" if self._answered else f"there is nothing to ask{alike}"
        blocks.insert(0, Block(("done" if len(self.queue) else TROUBLE, "good" if len(self.queue) else "warn"), done, turn=-1))
        if lines:
            name = one_line(str(self.run.path), 200)
            blocks.append(Block(("next", "muted"), f"agentgym export {name} --format rm --labels", turn=-1))
        self.readers[0].show(Document(blocks))
        self.readers[1].show(Document([]))
        self._to(0)
        self._describe()
        self._busy = False

    async def _agree(self) -> None:
        """The agreement so far, where there is somebody to agree with."""
        questions = await asyncio.to_thread(lambda: summarize_labels(self._store.labels(), intervals=False))
        found = next((q for q in questions if q.dimension == self.question), None)
        self._agreement = agreement_words(found) if found is not None and found.judged_twice else ""
        self._describe()

    def _fail(self, error: AgentGymError) -> None:
        self._busy = False
        self.query_one("#note", Bar).show([(f"{TROUBLE} {one_line(str(error), 400)}", "warn")])
        self.viewer.say(str(error))

    # -- what is said around it ---------------------------------------------------------------------------------------

    def _describe(self) -> None:
        shown = self.shown
        total = len(self.queue) if self.queue is not None else 0
        done = sum(1 for pair in self._answered if not self._open_questions(pair))
        right: Line = [(f"{done:,} of {total:,} pairs", "")]
        if self._same:
            right.append((f", {self._same:,} alike", "muted"))
        name = self.run.path.name if self.size.width >= 110 else short(self.run.path)
        self.show_crumbs([name, f"labels of {self.annotator}"], right)
        question: Line = []
        if shown is not None:
            answered = self._answered.get(shown.pair, {})
            for q in self.questions:
                if q in answered:
                    question.append((f"{_asked(q)}: {self._said(answered[q])}   ", "muted"))
            question.append((f"Which is better {_asked(self.question)}?", "strong"))
            if self.reasons:
                question.append((f"   because: {one_line(' '.join(self.reasons), 60)}", "accent"))
        self.query_one("#question", Bar).show(question, [(self._agreement, "muted")] if self._agreement else None)
        for i, place in enumerate(("left", "right")):
            bar = self.query_one(f"#{place}-name", Bar)
            if shown is None:
                bar.show([])
                continue
            here = i == self.here
            turns = len(shown.trajectories[i].turns)
            facts = f"{turns} turn{'s' * (turns != 1)}, they part at turn {shown.parts}"
            if self.has_class("-narrow"):
                facts += "   Tab: the other"
            bar.show([("▌" if here else " ", "accent"), (f"{i + 1}  {('first', 'second')[i]}", "strong")], [(facts, "muted")])
        note: Line = []
        if self.last is not None:
            of = "this pair" if shown is not None and (self.last.a, self.last.b) == shown.pair else "the last pair"
            note = [(f"{of}, {_asked(self.last.dimension)}: {self._said(self.last)}; it is saved, u takes it back", "muted")]
        elif shown is not None:
            note = [(one_line(shown.task_id, 200), "muted")]
        self.query_one("#note", Bar).show(note)

    @staticmethod
    def _said(label: Label) -> str:
        if label.better is None:
            return _WORDS[label.choice]
        return "1 is better" if label.better == label.first else "2 is better"

    # -- answers ------------------------------------------------------------------------------------------------------

    def action_answer(self, which: int) -> None:
        """0, 1: that one is better; 2: neither; 3: no answer."""
        if self._busy or self.shown is None:
            return
        self._busy = True
        self._answer(which)

    @work(exclusive=True, group="label")
    async def _answer(self, which: int) -> None:
        shown = self.shown
        assert shown is not None
        choice: Choice = "tie" if which == 2 else "skip" if which == 3 else "a" if shown.ids[which] == shown.pair.a else "b"
        question, reasons = self.question, self.reasons
        try:
            label = await asyncio.to_thread(
                lambda: self._store.add(
                    shown.pair, choice, annotator=self.annotator, task_id=shown.task_id, first=shown.ids[0],
                    dimension=question, reasons=reasons if which < 2 else (),
                )
            )  # fmt: skip
            self.last, self.reasons = label, ()
            self._answered.setdefault(shown.pair, {})[question] = label
            left = self._open_questions(shown.pair)
            if left:
                self.question, self._busy = left[0], False
                self._describe()
            else:
                await self._next()
        except AgentGymError as e:
            self._fail(e)

    def action_undo(self) -> None:
        """Takes back the last answer, of an earlier sitting too, and asks again."""
        if self._busy or self._labels is None:
            return
        self._busy = True
        self._undo()

    @work(exclusive=True, group="label")
    async def _undo(self) -> None:
        try:
            label = await asyncio.to_thread(self._store.undo, self.annotator)
            if label is None:
                self._busy = False
                self.viewer.say("There is no answer to take back.", calm=True)
                return
            pair = Pair(label.a, label.b)
            self._answered.get(pair, {}).pop(label.dimension, None)
            if not self._answered.get(pair):
                self._answered.pop(pair, None)
            self.last = None
            self.reasons = label.reasons
            if self.shown is not None and self.shown.pair != pair:
                self._before.append(self.shown.pair)
            if label.dimension not in self.questions:
                self.questions.append(label.dimension)
            self._before.append(pair)
            await self._next(label.dimension)
            self.viewer.say(f"Taken back: {self._said(label)}.", calm=True)
        except AgentGymError as e:
            self._fail(e)

    # -- words --------------------------------------------------------------------------------------------------------

    def action_reasons(self) -> None:
        """Asks for words, which go with the next answer."""
        self._type(
            "reasons", "reasons of the next answer, separated by blanks; Enter keeps, Esc leaves", " ".join(self.reasons)
        )

    def action_note(self) -> None:
        """Asks for a note on the turn under the cursor."""
        at = self._turn()
        where = f"turn {at}" if at is not None else "this trial as a whole"
        self._type("note", f"note on {where} of the {('first', 'second')[self.here]}; Enter keeps, Esc leaves", "")

    def _type(self, what: str, hint: str, value: str) -> None:
        if self.shown is None:
            return
        self._typing = what
        line = self.query_one("#type", Input)
        line.placeholder, line.value = hint, value
        line.add_class("-open")
        line.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Keeps what was typed."""
        message.stop()
        text, what = message.value.strip(), self._typing
        self._close_line()
        if what == "reasons":
            self.reasons = tuple(dict.fromkeys(word[:40] for word in text.replace(",", " ").split()))
            self._describe()
        elif text and not self._busy:
            self._busy = True
            self._keep_note(text[:10_000], self.here, self._turn())

    @work(exclusive=True, group="label")
    async def _keep_note(self, text: str, which: int, turn: int | None) -> None:
        shown = self.shown
        assert shown is not None
        try:
            await asyncio.to_thread(
                lambda: self._store.note(
                    text, annotator=self.annotator, task_id=shown.task_id, episode=shown.ids[which], turn=turn
                )
            )
            await self._show(False)
            self._busy = False
        except AgentGymError as e:
            self._fail(e)

    def _close_line(self) -> None:
        self._typing = ""
        self.query_one("#type", Input).remove_class("-open")
        self.readers[self.here].focus()

    def action_leave(self) -> None:
        """Closes the line to type in, before it leaves the screen."""
        if self._typing:
            self._close_line()
        else:
            super().action_leave()

    # -- moving -------------------------------------------------------------------------------------------------------

    def _turn(self) -> int | None:
        """The turn under the cursor of the trial that is being read; None at its opening and its end."""
        reader = self.readers[self.here]
        if not reader.count:
            return None
        block, _ = reader.document.at(reader.cursor)
        return block.turn if block.turn >= 0 else None

    def _to(self, which: int) -> None:
        for i, place in enumerate(("left", "right")):
            self.query_one(f"#{place}").set_class(i == which, "-here")
        if not self._typing:
            self.readers[which].focus()

    def action_other(self) -> None:
        """To the other trial."""
        self._to(1 - self.here)
        self._describe()

    def on_descendant_focus(self) -> None:
        """A click into the other trial goes there too."""
        for i, reader in enumerate(self.readers):
            if reader.has_focus and i != self.here:
                self._to(i)
                self._describe()

    def action_turn(self, by: int) -> None:
        """To the next or previous turn of the trial that is being read."""
        if self.shown is None:
            return
        reader = self.readers[self.here]
        order = [-1, *range(len(self.shown.trajectories[self.here].turns)), END]
        at = order.index(reader.document.at(reader.cursor)[0].turn)
        turn = order[max(0, min(at + by, len(order) - 1))]
        reader.cursor = reader.document.start(turn)

    def action_part(self) -> None:
        """Both to the turn in which they part."""
        if self.shown is None or self.shown.parts is None:
            return
        for reader in self.readers:
            turn = self.shown.parts
            start = reader.document.start(turn) or reader.document.start(END)
            reader.scroll_to(y=start, animate=False, force=True)
            reader.cursor = start

    def action_folds(self) -> None:
        """Opens all folds of the trial that is being read, or closes them where one is open."""
        reader = self.readers[self.here]
        opened = any(b.opened for b in reader.document.blocks)
        for b in reader.document.blocks:
            if b.opened == opened:
                b.toggle()
        reader.refit()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Nothing is below a trial."""
        message.stop()

    def on_resize(self) -> None:
        """Other widths have other names."""
        self._describe()


def _asked(dimension: str) -> str:
    return f"in {one_line(dimension, 40)}" if dimension else "on the whole"


def _queue(path: Path) -> Queue:
    with Run(path) as run:
        return Queue(run)


def _load(path: Path, pair: Pair, first: int) -> Shown:
    """Reads a pair, with a connection of its own: a thread does it."""
    with Run(path) as run:
        ids = (first, pair.b if first == pair.a else pair.a)
        one, other = run.by_ids(ids)
        trajectories = (one.trajectory, other.trajectory)
    return Shown(pair, one.task_id, ids, trajectories, parting(*trajectories))
