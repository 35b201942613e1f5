# SPDX-License-Identifier: Apache-2.0
"""The tokens of an episode: what the engine saw and sampled, how surprising it was, what is trained on, the training rows."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from agentgym.errors import AgentGymError, UsageError
from agentgym.protocols import Tokens
from agentgym.records.run import Episode, Run
from agentgym.report.text import one_line
from agentgym.tokens.rows import Row, linearize
from agentgym.trajectory import Turn, sampled_turns
from agentgym.tui.document import Block, Document, Rule
from agentgym.tui.marks import TROUBLE
from agentgym.tui.screens.level import Level, short
from agentgym.tui.tokenview import LEGEND, Spell, TokenFlow, TokenTable, heats, marks_of, same_start, summary, surprises
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.paint import Line
from agentgym.tui.widgets.reader import Reader


class TokensScreen(Level):
    """Tokens by turn, as text or as a table, or as the rows that a trainer gets."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right,l", "turn(1)", "Turn", tooltip="Next turn, or row"),
        Binding("p,left,h", "turn(-1)", "Previous turn, or row", show=False),
        Binding("right_square_bracket", "surprise(1)", "Surprise", key_display="]", tooltip="Next token with p < .05"),
        Binding("left_square_bracket", "surprise(-1)", "Previous token with p < .05", show=False, key_display="["),
        Binding("t", "table", "Table", tooltip="One token a line, or running text"),
        Binding("i", "ids", "Ids", tooltip="Numbers of tokens, or their text"),
        Binding("r", "rows", "Rows", tooltip="Training rows, or turns"),
    ]
    depth = 3

    def __init__(self, episode: Episode, turn: int = -1) -> None:
        super().__init__()
        self.title = "Tokens"
        self.episode = episode
        self.spell: Spell | None = None
        self.table = self.ids = self.rows = False
        self.place = 0
        """Turn or row under the cursor: its place among those shown."""
        self._begin = turn
        self._why_ids = ""
        try:
            self.turns, self.tokens = sampled_turns(episode.trajectory)
        except ValueError:
            self.turns, self.tokens = [], []

    def compose(self) -> ComposeResult:
        """Crumbs, facts, tokens, what the marks mean, keys."""
        yield Bar(id="crumbs")
        yield Bar(id="facts")
        yield Reader(id="tokens")
        yield Bar(id="legend")
        yield Keys()

    @property
    def reader(self) -> Reader:
        """The tokens."""
        return self.query_one("#tokens", Reader)

    def on_mount(self) -> None:
        """Shows numbers, then texts, once the tokenizer is there."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#legend").add_class("note")
        self.query_one("#legend", Bar).show([(LEGEND, "")])
        path = self.episode.run_path
        name = path.name if self.app.size.width >= 110 else short(path)
        self.show_crumbs([name, f"{one_line(self.episode.task_id, 200)}/{self.episode.trial}", "tokens"])
        self.reader.focus()
        self.call_after_refresh(self._first)

    def _first(self) -> None:
        self._show()
        places = [i for i, t in enumerate(self.turns) if t.index == self._begin]
        if places:
            self._go(places[0])
        self.run_worker(self._load(), exclusive=True)

    async def _load(self) -> None:
        """The tokenizer, off the drawing thread."""

        def load() -> Spell | None:
            from agentgym.report.token_text import speller

            with Run(self.episode.run_path) as run:
                found = speller(run.meta)
            return None if found is None else found.pieces

        try:
            self.spell = await asyncio.to_thread(load)
        except (AgentGymError, OSError) as e:
            self._why_ids = f"no text: {one_line(str(e), 60)}"
        if self.spell is None:
            self._why_ids = self._why_ids or "no tokenizer of this model at hand: numbers"
        self._show()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        place = self.place
        spell = None if self.ids else self.spell
        document = self._rows(spell) if self.rows else self._turns(spell)
        self.reader.show(document)
        self._go(place)
        self._facts()

    def _facts(self) -> None:
        known = [t for t in self.tokens if t is not None]
        total = sum(len(t.output_ids) for t in known)
        which = self.place if self.rows or not 0 <= self.place < len(self.turns) else self.turns[self.place].index
        left: Line = [(f"{'row' if self.rows else 'turn'} {which}", "strong"), (f"   {total:,} sampled tokens", "muted")]
        right = self._why_ids if self.spell is None else "numbers" if self.ids else ""
        self.query_one("#facts", Bar).show(left, [(right, "muted")])

    def _turns(self, spell: Spell | None) -> Document:
        if not any(t is not None for t in self.tokens):
            text = "No exact tokens are on record: local:, hf: and openai:MODEL@URL#tokens=yes keep them."
            return Document([Block((f"{TROUBLE} tokens", "warn"), text, turn=0)])
        blocks: list[Block] = []
        told: dict[int, Tokens] = {}
        last: dict[str, int] = {}
        for place, (turn, t) in enumerate(zip(self.turns, self.tokens, strict=True)):
            if t is None:
                blocks.append(Rule((f"turn {turn.index}", "strong"), [("no tokens on record", "warn")], turn=place))
                continue
            before = turn.parent if turn.parent >= 0 else last.get(turn.agent, -1)
            blocks += self._turn(place, turn, t, (before, told.get(before)), spell)
            told[turn.index], last[turn.agent] = t, turn.index
        return Document(blocks)

    def _turn(self, place: int, turn: Turn, t: Tokens, before: tuple[int, Tokens | None], spell: Spell | None) -> list[Block]:
        n = len(t.output_ids)
        who = f" {one_line(turn.agent, 20)}" if turn.agent else ""
        blocks: list[Block] = [Rule((f"turn {turn.index}{who}", "strong"), [(summary(t), "muted")], turn=place)]
        if spell is None and turn.message.text:
            blocks.append(Block(("said", "muted"), turn.message.text, turn=place, fold=6))
        if t.prompt_ids is not None:
            size, fits = len(t.prompt_ids), ""
            if before[1] is not None:
                same, whole = same_start(before[1], t.prompt_ids)
                fits = f", goes on with turn {before[0]}" if whole else f", other than turn {before[0]} from token {same}"
            blocks.append(TokenFlow(("prompt", "muted"), t.prompt_ids, spell, None, turn=place, fold=3))
            blocks.append(Rule((f"prompt {size}", "muted"), [(f"output {n}{fits}", "muted")], turn=place))
        if self.table:
            blocks.append(TokenTable(t, spell, turn=place))
        else:
            blocks.append(TokenFlow(("output", "assistant"), t.output_ids, spell, marks_of(t), turn=place, fold=60))
        stop = "the last one ended the turn" if t.stop_token_in_output else f"ended by {turn.finish_reason}, no stop token"
        blocks.append(Block(("", ""), stop, "muted", turn=place))
        return blocks

    def _rows(self, spell: Spell | None) -> Document:
        """What the linearizer makes of the episode."""
        try:
            made = linearize(self.episode.trajectory)
        except UsageError as e:
            return Document([Block((f"{TROUBLE} rows", "warn"), str(e), turn=0)])
        d = made.drift
        trained = sum(r.trained for r in made.rows)
        text = (
            f"{len(made.rows)} row{'s' * (len(made.rows) != 1)} of {len(self.turns)} turns;"
            f" {trained:,} of {made.sampled_tokens:,} sampled tokens are trained on."
            f" Turns that went on with a row: {d.appended}; that began another: {d.forked}."
            f" Tokens lost: {d.lost_tokens}; without a log-probability: {d.unknown_logprobs}; excluded: {d.excluded_tokens}."
            + (f" Rewards at no trained token: {d.untold_reward:g}." if d.untold_reward else "")
        )
        blocks: list[Block] = [Block(("drift", "warn" if d.forked or d.lost_tokens else "good"), text, turn=0)]
        for place, row in enumerate(made.rows):
            blocks += self._row(place, row, spell)
        return Document(blocks)

    def _row(self, place: int, row: Row, spell: Spell | None) -> list[Block]:
        turns = f"turn {row.turns[0]}" if len(row.turns) == 1 else f"turns {', '.join(map(str, row.turns))}"
        facts = (
            f"{one_line(turns, 40)}: {len(row.token_ids):,} tokens, {row.trained:,} trained, reward {row.token_rewards.sum():g}"
        )
        marks = heats(row.logprobs, row.loss_mask)
        begin = row.prompt_len
        return [
            Rule((f"row {place} {one_line(row.agent, 20)}".rstrip(), "strong"), [(facts, "muted")], turn=place),
            TokenFlow((f"prompt {begin}", "muted"), row.token_ids[:begin], spell, None, turn=place, fold=3),
            TokenFlow(("row", "assistant"), row.token_ids[begin:], spell, marks[begin:], turn=place, fold=60),
        ]

    # -- moving -------------------------------------------------------------------------------------------------------

    def _go(self, place: int) -> None:
        self.reader.go(self.reader.document.start(place))

    def on_line_view_moved(self, message: LineView.Moved) -> None:
        """The present turn is the one under the cursor."""
        if self.reader.count:
            block, _ = self.reader.document.at(self.reader.cursor)
            if block.turn != self.place:
                self.place = block.turn
                self._facts()

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Nothing is below."""
        message.stop()

    def action_turn(self, by: int) -> None:
        """To the next or previous turn or row."""
        last = max((b.turn for b in self.reader.document.blocks), default=0)
        self._go(max(0, min(self.place + by, last)))

    def action_surprise(self, by: int) -> None:
        """To the line of the next or previous token that the model hardly expected."""
        reader, found = self.reader, []
        for block in reader.document.blocks:
            if isinstance(block, TokenTable):
                places = surprises(block.tokens)
            elif isinstance(block, TokenFlow) and block.marks is not None:
                places = [i for i, (mark, _) in enumerate(block.marks) if mark in "▓█"]
            else:
                continue
            start = reader.document.line_of(block)
            found += [start + block.row_of(i) for i in places]
        ahead = [x for x in found if x > reader.cursor] if by > 0 else [x for x in reversed(found) if x < reader.cursor]
        if ahead:
            reader.cursor = ahead[0]
        else:
            self.viewer.say("no such token " + ("below" if by > 0 else "above"), calm=True)

    # -- how it is shown ----------------------------------------------------------------------------------------------

    def action_table(self) -> None:
        """One token a line, or running text."""
        self.table, self.rows = not self.table, False
        self._show()

    def action_ids(self) -> None:
        """Numbers, or texts where they are known."""
        self.ids = not self.ids
        self._show()

    def action_rows(self) -> None:
        """Training rows, or turns."""
        self.rows = not self.rows
        self.place = 0
        self._show()
