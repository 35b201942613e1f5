# SPDX-License-Identifier: Apache-2.0
"""One episode, turn by turn: messages, calls and results, state, rewards, findings; what is flagged is a key away."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input

from agentgym.errors import AgentGymError
from agentgym.records.run import Episode
from agentgym.report.course import Track, dimensions, tracks
from agentgym.report.text import duration, one_line
from agentgym.tui.document import END, Block, Document, Prose
from agentgym.tui.marks import TROUBLE, VIOLATION, number, verdict
from agentgym.tui.screens.level import Level, short
from agentgym.tui.story import KINDS, Story
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line
from agentgym.tui.widgets.reader import Reader
from agentgym.tui.widgets.timeline import Timeline

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Turns a second."""
MOST_TRACKS = 8
"""Lines of the score timeline."""
TALL = 36
"""Lines of a screen from which the score timeline is shown unasked."""


class ReplayScreen(Level):
    """The replay of an episode."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right,l", "turn(1)", "Turn", tooltip="Next turn"),
        Binding("p,left,h", "turn(-1)", "Previous turn", show=False),
        Binding("right_square_bracket", "flag(1)", "Flag", key_display="]", tooltip="Next flagged turn"),
        Binding("left_square_bracket", "flag(-1)", "Previous flagged turn", key_display="[", show=False),
        Binding("J,N", "episode(1)", "Episode", tooltip="Next episode"),
        Binding("K,P", "episode(-1)", "Previous episode", show=False),
        Binding("d", "dimension", "Dimension", show=False, tooltip="] and [ by dimension: the next one, or all"),
        Binding("w", "course", "Scores", tooltip="Score timeline: show and read, hide"),
        Binding("space", "play", "Play", priority=True, tooltip="Play turn by turn, or pause"),
        Binding("t", "tokens", "Tokens", show=False, tooltip="The tokens: surprise, loss mask, rows"),
        Binding("less_than_sign", "speed(-1)", "Slower", show=False, key_display="<", tooltip="Slower, faster"),
        Binding("greater_than_sign", "speed(1)", "Faster", show=False, key_display=">", tooltip="Slower, faster"),
        Binding("m", "raw", "Markdown", show=False, tooltip="Markdown, or as written"),
        Binding("v", "pretty", "JSON", show=False, tooltip="JSON as trees, or as written"),
        *(
            Binding(str(i), f"hide('{kind}')", f"Hide {name}", show=False, tooltip="Show or hide: " + ", ".join(KINDS.values()))
            for i, (kind, name) in enumerate(KINDS.items(), 1)
        ),
        Binding("z", "folds", "Unfold", show=False, tooltip="Open or close all folds"),
        Binding("tab", "side", "Side", show=False, tooltip="Scores, findings, state"),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy this turn's address"),
        Binding("e", "share", "Export", show=False, tooltip="Export: HTML, Markdown, JSON, SVG, command"),
    ]
    depth = 2

    class Step(Message):
        """The next or previous episode is wanted."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class ShareWanted(Message):
        """The episode is to be exported."""

        def __init__(self, episode: Episode) -> None:
            super().__init__()
            self.episode = episode

    class TokensWanted(Message):
        """The tokens of the episode are wanted."""

        def __init__(self, episode: Episode, turn: int) -> None:
            super().__init__()
            self.episode = episode
            self.turn = turn

    def __init__(self, episode: Episode, turn: int | None = None) -> None:
        super().__init__()
        self.title = "Replay"
        self.episode = episode
        self.story: Story | None = None
        self.turn = -1
        """Index of the present turn; -1 the opening, `END` the end."""
        self.pretty = False
        self.raw = False
        self.hidden: set[str] = set()
        """What is not shown; keys of `KINDS`."""
        self.dimension = ""
        """The one whose broken rules `]` looks for; empty for all that is flagged."""
        self.speed = 2
        """Place in `SPEEDS`."""
        self.course: bool | None = None
        """Whether the score timeline is shown; None: as there is room."""
        self._begin = turn
        self._timer: Timer | None = None
        self._player: Timer | None = None
        self._used = False
        """Whether somebody has played, and may want to know the speed."""
        self._tracked: Story | None = None
        """Whose score timeline is shown."""

    def compose(self) -> ComposeResult:
        """Crumbs, facts, timeline, document beside its outcome, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        yield Timeline(id="timeline")
        with Horizontal(id="body"):
            yield Reader(id="document")
            yield Reader(id="side")
        yield Keys()

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
        self.dimension = ""
        self.pause()
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
        self._read()
        if turn is not None:
            self.go(turn)
        self._facts()
        self._side()

    def _read(self) -> None:
        """The document, as it is to be shown."""
        assert self.story is not None
        document = self.story.document(pretty=self.pretty, raw=self.raw)
        document.hide(self.hidden)
        self.reader.show(document)

    # -- what is shown around it --------------------------------------------------------------------------------------

    def _facts(self) -> None:
        e = self.episode
        mark = verdict(e.outcome, e.gold)
        left: Line = [(str(mark), mark.style), (f"  gold {number(e.gold)}  reward {number(e.reward)}", "strong")]
        if e.violations:
            left.append((f"  {VIOLATION} {e.violations} violation{'s' * (e.violations != 1)}", "flag"))
        if e.truncation:
            left.append((f"  cut by limit: {e.truncation}", "warn"))
        if self.hidden:
            left.append((f"  hidden: {', '.join(KINDS[k] for k in KINDS if k in self.hidden)}", "warn"))
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
            timeline.show_tracks((), ())
            self._tracked = None
            return
        flagged = self.flagged
        right: Line = []
        if self._player is not None or self._used:
            right.append((f"{'▶' if self._player is not None else 'paused'} {SPEEDS[self.speed]:g}/s  ", "accent"))
        if 0 <= self.turn < story.turns:
            paid = story.trajectory.turns[self.turn].reward
            total = sum(t.reward for t in story.trajectory.turns[: self.turn + 1])
            if total or paid:
                right.append((f"reward {paid:+g} = {total:g}  ", "good" if paid > 0 else ""))
        what = f" {one_line(self.dimension, 14)}" if self.dimension else " flagged"
        right.append((f"{len(flagged)}{what}", "flag") if flagged else ("nothing flagged", "muted"))
        timeline.show(story.marks, story.end_flagged, self.turn, right)
        wanted = self.size.height >= TALL if self.course is None else self.course
        if not (wanted and story.turns):
            timeline.show_tracks((), ())
            self._tracked = None
        elif story is not self._tracked:
            self._tracked = story
            timeline.show_tracks(*self._course(story))

    def _course(self, story: Story) -> tuple[list[Track], list[str]]:
        """The tracks with what is known of each at the end, and a line of the scores."""
        e = self.episode
        shown = tracks(story.trajectory, story.findings)[:MOST_TRACKS]
        notes = [f"reward {number(e.reward)}" if t.kind == "reward" else "" for t in shown]
        scores = [f"gold {number(e.gold)}", f"reward {number(e.reward)}"]
        scores += [
            f"{one_line(s.name, 24)} {number(s.value)}" for s in story.scores if s.role != "gold" or len(story.scores) > 1
        ]
        return shown, [*notes, " · ".join(dict.fromkeys(scores))]

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

    @property
    def flagged(self) -> list[int]:
        """The turns that `]` goes to."""
        if self.story is None:
            return []
        return self.story.flagged_by(self.dimension) if self.dimension else self.story.flagged

    def action_dimension(self) -> None:
        """The next dimension in which a rule was broken; after the last one all that is flagged."""
        if self.story is None:
            return
        choices = ["", *dimensions(self.story.findings)]
        if len(choices) == 1:
            self.viewer.say("no rule was broken in this episode", calm=True)
            return
        self.dimension = choices[(choices.index(self.dimension) + 1) % len(choices)]
        self.viewer.say(f"] and [ go through {self.dimension or 'all that is flagged'}", calm=True)
        self._timeline()

    def action_flag(self, by: int) -> None:
        """To the next or previous turn that is worth a look."""
        if self.story is None:
            return
        n = self.story.turns
        here = n if self.turn == END else self.turn
        flagged = [n if t == END else t for t in self.flagged]
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

    def on_timeline_left(self) -> None:
        """Back from the timeline."""
        self.reader.focus()

    def action_course(self) -> None:
        """Shows the score timeline and moves the focus there; hides it where it is there already."""
        if self.story is None:
            return
        timeline = self.query_one(Timeline)
        shown = self._tracked is not None
        if shown and not timeline.has_focus and self.course is None:
            timeline.focus()  # it was there unasked: one wants to read it
            return
        self.course = not shown
        self._timeline()
        (timeline if self.course else self.reader).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A space that is typed into a field is a space."""
        return not (action == "play" and isinstance(self.focused, Input))

    # -- playing ------------------------------------------------------------------------------------------------------

    def action_play(self) -> None:
        """Goes on by itself, turn by turn, until the end or until it is told to pause."""
        if self._player is not None:
            self.pause()
        elif self.story is not None:
            if self.turn == END:
                self.go(-1)
            self._used = True
            self._player = self.set_interval(1 / SPEEDS[self.speed], self._play_on)
        self._timeline()

    def pause(self) -> None:
        """Stays where it is."""
        if self._player is not None:
            self._player.stop()
            self._player = None

    def _play_on(self) -> None:
        if self.turn == END or self.story is None:
            self.pause()
            self._timeline()
            return
        self.action_turn(1)

    def action_speed(self, by: int) -> None:
        """Plays slower or faster."""
        self.speed = max(0, min(self.speed + by, len(SPEEDS) - 1))
        self._used = True
        if self._player is not None:
            self.pause()
            self.action_play()
        self._timeline()

    def action_episode(self, by: int) -> None:
        """The next or previous episode of the list."""
        self.post_message(self.Step(by))

    # -- how it is shown ----------------------------------------------------------------------------------------------

    def action_pretty(self) -> None:
        """JSON as trees whose parts open and close, or as it was written."""
        if self.story is None:
            return
        self.pretty = not self.pretty
        turn = self.turn
        self._read()
        self.go(turn)

    def action_raw(self) -> None:
        """What people and models say as Markdown, or as they wrote it."""
        self.raw = not self.raw
        turn = self.turn
        for b in self.reader.document.all:
            if isinstance(b, Prose):
                b.show_raw(self.raw)
        self.reader.refit()
        self.go(turn)
        self.viewer.say("as it was written" if self.raw else "Markdown", calm=True)

    def action_hide(self, kind: str) -> None:
        """Shows or hides reasoning, calls, results, observations, or state and events; never what failed or is flagged."""
        self.hidden ^= {kind}
        turn = self.turn
        self.reader.document.hide(self.hidden)
        self.reader.refit()
        self.go(turn)
        self._facts()

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

    def action_tokens(self) -> None:
        """The tokens of the episode, from the present turn on."""
        if self.story is not None:
            self.pause()
            self.post_message(self.TokensWanted(self.episode, self.turn))

    def action_share(self) -> None:
        """To the ways in which the episode can be exported."""
        self.post_message(self.ShareWanted(self.episode))

    def action_copy(self) -> None:
        """Copies the address of the present turn."""
        at = f"@{self.turn}" if self.turn >= 0 else ""
        self.viewer.copy_address(f"{self.episode.address}{at}")
