# SPDX-License-Identifier: Apache-2.0
"""One episode, turn by turn: messages, calls and results, state, rewards, findings; what is flagged is a key away."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Footer

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode
from agentgym.report.text import duration, one_line
from agentgym.tui.document import END, Block, Document
from agentgym.tui.marks import TROUBLE, VIOLATION, number, verdict
from agentgym.tui.screens.level import Level, short
from agentgym.tui.story import Story
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line
from agentgym.tui.widgets.reader import Reader
from agentgym.tui.widgets.timeline import Timeline


class ReplayScreen(Level):
    """The replay of an episode."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right,l", "turn(1)", "Turn", tooltip="Next turn"),
        Binding("p,left,h", "turn(-1)", "Previous turn", show=False),
        Binding("right_square_bracket", "flag(1)", "Flag", key_display="]", tooltip="Next flagged turn"),
        Binding("left_square_bracket", "flag(-1)", "Previous flagged turn", key_display="[", show=False),
        Binding("J,N", "episode(1)", "Episode", tooltip="Next episode"),
        Binding("K,P", "episode(-1)", "Previous episode", show=False),
        Binding("v", "pretty", "JSON", tooltip="Indent JSON, or not"),
        Binding("z", "folds", "Unfold", tooltip="Open or close all folds"),
        Binding("tab", "side", "Side", show=False, tooltip="Scores, findings, state"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy this turn's address"),
    ]
    depth = 2

    class Step(Message):
        """The next or previous episode is wanted."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, episode: Episode, turn: int | None = None) -> None:
        super().__init__()
        self.title = "Replay"
        self.episode = episode
        self.story: Story | None = None
        self.turn = -1
        """Index of the present turn; -1 the opening, `END` the end."""
        self.pretty = False
        self._begin = turn
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Crumbs, facts, timeline, document beside its outcome, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        yield Timeline(id="timeline")
        with Horizontal(id="body"):
            yield Reader(id="document")
            yield Reader(id="side")
        yield Footer()

    def on_mount(self) -> None:
        """Shows the episode."""
        self.query_one("#crumbs").add_class("crumbs")
        self.reader.focus()
        # the width is only known after the first layout, and lines depend on it
        self.call_after_refresh(self.open, self.episode, self._begin)

    @property
    def reader(self) -> Reader:
        """The document."""
        return self.query_one("#document", Reader)

    def open(self, episode: Episode, turn: int | None = None) -> None:
        """Shows an episode from its beginning or from a turn."""
        self.episode = episode
        self.turn = -1
        try:
            self.story = Story(episode)
        except AgentGymError as e:
            self.story = None
            mark = (f"{TROUBLE} damaged", "warn")
            text = f"{e}\n\nWhat the list knows of it (outcome, scores, counts) stands above."
            self.reader.show(Document([Block(mark, text, turn=-1)]))
            self.query_one("#side", Reader).show(Document([]))
            self._facts()
            return
        self.reader.show(self.story.document(pretty=self.pretty))
        if turn is not None:
            self.go(turn)
        self._facts()
        self._side()

    # -- what is shown around it --------------------------------------------------------------------------------------

    def _facts(self) -> None:
        e = self.episode
        mark = verdict(e.outcome, e.gold)
        left: Line = [(str(mark), mark.style), (f"  gold {number(e.gold)}  reward {number(e.reward)}", "strong")]
        if e.violations:
            left.append((f"  {VIOLATION} {e.violations} violation{'s' * (e.violations != 1)}", "flag"))
        if e.truncation:
            left.append((f"  cut by limit: {e.truncation}", "warn"))
        right = f"{e.turns} turn{'s' * (e.turns != 1)}  {duration(e.duration_s)}"
        if e.completion_tokens:
            right = f"{e.prompt_tokens:,}+{e.completion_tokens:,} tokens  {right}"
        self.query_one("#facts", Bar).show(left, [(right, "muted")])
        path = e.run_path
        self.show_crumbs([path.name if self.size.width >= 110 else short(path), f"{one_line(e.task_id, 200)}/{e.trial}"])
        self._timeline()

    def _timeline(self) -> None:
        story = self.story
        timeline = self.query_one("#timeline", Timeline)
        if story is None:
            timeline.show((), "", -1, [])
            return
        flagged = story.flagged
        right: Line = []
        if 0 <= self.turn < story.turns:
            paid = story.trajectory.turns[self.turn].reward
            total = sum(t.reward for t in story.trajectory.turns[: self.turn + 1])
            if total or paid:
                right.append((f"reward {paid:+g} = {total:g}  ", "good" if paid > 0 else ""))
        right.append((f"{len(flagged)} flagged", "flag") if flagged else ("nothing flagged", "muted"))
        timeline.show(story.marks, story.end_flagged, self.turn, right)

    def _side(self) -> None:
        side = self.query_one("#side", Reader)
        if self.story is None or not side.display:
            return
        until = None if self.turn == END else self.turn
        line = side.cursor
        side.show(self.story.overview(until))
        side.cursor = line

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """The present turn is the one under the cursor."""
        if message.view is not self.reader or not self.reader.count:
            return
        block, _ = self.reader.document.at(self.reader.cursor)
        if block.turn != self.turn:
            self.turn = block.turn
            self._timeline()
            if self._timer is not None:
                self._timer.stop()
            self._timer = self.set_timer(0.06, self._side)

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Nothing is below a replay."""
        message.stop()

    def on_resize(self) -> None:
        """Other widths have other panes."""
        self._facts()
        self.call_after_refresh(self._side)

    # -- moving -------------------------------------------------------------------------------------------------------

    def go(self, turn: int) -> None:
        """To the start of a turn; -1 the opening, `END` the end."""
        self.reader.go(self.reader.document.start(turn))

    def action_turn(self, by: int) -> None:
        """To the next turn, or to the start of this one and then to the previous."""
        if self.story is None:
            return
        order = [-1, *range(self.story.turns), END]
        place = order.index(self.turn)
        if by < 0 and self.reader.cursor > self.reader.document.start(self.turn):
            by = 0
        self.go(order[max(0, min(place + by, len(order) - 1))])

    def action_flag(self, by: int) -> None:
        """To the next or previous turn that is worth a look."""
        if self.story is None:
            return
        n = self.story.turns
        here = n if self.turn == END else self.turn
        flagged = [n if t == END else t for t in self.story.flagged]
        ahead = [t for t in flagged if t > here] if by > 0 else [t for t in reversed(flagged) if t < here]
        if not ahead:
            none = (
                "nothing is flagged in this episode"
                if not flagged
                else f"nothing more is flagged {'below' if by > 0 else 'above'}"
            )
            self.viewer.say(none, calm=True)
            return
        turn = END if ahead[0] == n else ahead[0]
        self.go(turn)
        self.reader.cursor = self.reader.document.first_alert(turn)

    def on_timeline_chosen(self, message: Timeline.Chosen) -> None:
        """A turn was clicked."""
        self.go(message.turn)
        self.reader.focus()

    def action_episode(self, by: int) -> None:
        """The next or previous episode of the list."""
        self.post_message(self.Step(by))

    # -- how it is shown ----------------------------------------------------------------------------------------------

    def action_pretty(self) -> None:
        """JSON over several lines, or as it was written."""
        if self.story is None:
            return
        self.pretty = not self.pretty
        turn = self.turn
        self.reader.show(self.story.document(pretty=self.pretty))
        self.go(turn)

    def action_folds(self) -> None:
        """Opens all folds, or closes them where one is open."""
        blocks = self.reader.document.blocks
        opened = any(b.opened for b in blocks)
        turn = self.turn
        for b in blocks:
            if b.opened == opened:
                b.toggle()
        self.reader.refit()
        self.go(turn)

    def action_side(self) -> None:
        """Scores, findings and state at the side, or in place of the document where there is no room for both."""
        self.toggle_class("-side")
        self.call_after_refresh(self._side)

    def action_copy(self) -> None:
        """Copies the address of the present turn."""
        at = f"@{self.turn}" if self.turn >= 0 else ""
        self.viewer.copy_address(f"{self.episode.address}{at}")
