# SPDX-License-Identifier: Apache-2.0
"""A person in the agent's seat: reads what an agent would, answers in words or by tools, and cannot take anything back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message as TextualMessage
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from agentgym.chat import Message, assistant, call
from agentgym.errors import AgentGymError, UsageError
from agentgym.policies.human import Field, HumanPolicy, arguments, fields
from agentgym.report.text import one_line, plain
from agentgym.rollout.evaluate import Judge, start
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Plan
from agentgym.toolspec import ToolSpec
from agentgym.tui.blind import message_blocks
from agentgym.tui.document import Block, Document, Rule
from agentgym.tui.marks import TROUBLE
from agentgym.tui.screens.level import Level
from agentgym.tui.widgets.bar import Bar
from agentgym.tui.widgets.keys import Keys
from agentgym.tui.widgets.lineview import LineView
from agentgym.tui.widgets.reader import Reader


class PlayScreen(Level):
    """Plays the one task of a plan.

    Args:
        plan: with one task, one trial.
        options: how it is played.
        root: the folder that the run is made in.
        judge: whom verifiers ask that need one.
    """

    CSS_PATH = "play.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "send", "Send", priority=True, tooltip="Say what is typed"),
        Binding("ctrl+t", "tool", "Tool", priority=True, tooltip="Call a tool"),
        Binding("escape", "answer", "To the answer", show=False),
    ]
    depth = 1

    class Over(TextualMessage):
        """The episode is on record."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    def __init__(self, plan: Plan, options: Options, root: Path, judge: Judge | None = None) -> None:
        super().__init__()
        self.title = "Play"
        self.plan, self.options, self.root, self.judge = plan, options, root, judge
        self.policy = HumanPolicy(self._asked)
        self.tools: Sequence[ToolSpec] = ()
        self.path: Path | None = None
        """The run, once the episode is on record."""
        self.failure: AgentGymError | None = None
        """Why there is none."""
        self.playing = True
        self._turn = 0
        self._leaving = False
        self._blocks: list[Block] = []
        self._seen = 0

    def compose(self) -> ComposeResult:
        """Crumbs, conversation beside tools, a line about the answer, the answer, keys."""
        yield Bar(id="crumbs")
        with Horizontal(id="body"):
            yield Reader(id="conversation")
            yield Reader(id="tools")
        yield Bar(id="hint")
        yield TextArea(id="answer", tab_behavior="focus")
        yield Keys()

    def on_mount(self) -> None:
        """Begins."""
        self.query_one("#crumbs").add_class("crumbs")
        self.query_one("#tools").can_focus = False
        self.query_one("#answer").focus()
        self._describe()
        self.call_after_refresh(self._play)

    @work(exclusive=True, group="play")
    async def _play(self) -> None:
        try:
            outcome = await start(
                self.plan, self.policy, self.options, model="human", named=False, judge=self.judge, root=self.root
            )
        except AgentGymError as e:
            self.failure, self.playing = e, False
            self.query_one("#hint", Bar).show([(f"{TROUBLE} {one_line(str(e), 400)}", "warn")])
            self.viewer.say(str(e))
            return
        self.path, self.playing = outcome.path, False
        if self._leaving:
            self.app.exit()
        else:
            self.post_message(self.Over(outcome.path))

    # -- the conversation ---------------------------------------------------------------------------------------------

    def _asked(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
        """It is the person's turn."""
        self.tools = tools
        for m in conversation[self._seen :]:
            if m.role == "assistant":
                self._blocks.append(Rule((f"turn {self._turn}", "strong"), [], turn=self._turn))
                self._turn += 1
            # a person who plays reads all of it, as an agent does
            for block in message_blocks(m, self._turn):
                block.fold = None
                self._blocks.append(block)
        begin = len(self._blocks) and self._seen
        self._seen = len(conversation)
        reader = self.query_one("#conversation", Reader)
        reader.show(Document(self._blocks))
        reader.cursor = reader.count - 1 if begin else 0
        self.query_one("#tools", Reader).show(Document([b for t in tools for b in _tool(t)]))
        self._describe()

    def _describe(self) -> None:
        self.show_crumbs(["play", self.plan.tasks[0].task_id], [(f"turn {self._turn}", "strong")])
        hint = self.query_one("#hint", Bar)
        if not self.policy.waiting:
            hint.show([("…", "muted")])
        else:
            what = "your answer: ^s sends, ^t calls a tool" if self.tools else "your answer: ^s sends"
            hint.show([(what, "strong")], [("there is no undo   ^q leaves", "muted")])

    def _say(self, message: Message) -> None:
        if self.policy.waiting:
            self.policy.answer(message)
            self._leaving = False
            self._describe()

    def action_send(self) -> None:
        """Says what is typed."""
        answer = self.query_one("#answer", TextArea)
        if not self.policy.waiting:
            return
        if not answer.text.strip():
            self.viewer.say("Nothing is typed yet.", calm=True)
            return
        text, answer.text = answer.text, ""
        self._say(assistant(text))

    def action_tool(self) -> None:
        """Opens the form of a tool."""
        if not self.policy.waiting or isinstance(self.app.screen, PlayForm):
            return
        if not self.tools:
            self.viewer.say("This task has no tools: answer in words.", calm=True)
            return

        def done(message: Message | None) -> None:
            if message is not None:
                self._say(message)

        self.app.push_screen(PlayForm(self.tools), done)

    def action_answer(self) -> None:
        """To the answer."""
        self.query_one("#answer").focus()

    def leave(self) -> bool:
        """Leaves the seat, asking to be sure; False where there is nobody in it any more."""
        if not self.playing:
            return False
        if not self._leaving:
            self._leaving = True
            self.viewer.say("^q again leaves: what you played is kept as truncated (abort) and scored as it is.", calm=True)
        else:
            self.policy.leave()
        return True

    def on_line_view_opened(self, message: LineView.Opened) -> None:
        """Nothing is below a conversation."""
        message.stop()


def _tool(spec: ToolSpec) -> list[Block]:
    blocks: list[Block] = [Rule((spec.name, "tool"), [], turn=-1), Block(("", ""), spec.description, turn=-1)]
    for f in fields(spec):
        kind = " or ".join(f.choices) if f.choices else f.kind
        text = f"{kind}{'' if f.required else ', may be left out'}{': ' + f.about if f.about else ''}"
        blocks.append(Block((f.name, "muted"), text, turn=-1))
    return blocks


class PlayForm(ModalScreen["Message | None"]):
    """Which tool, then its arguments, one field each."""

    CSS_PATH = "play.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Back"),
        Binding("ctrl+s", "call", "Call", priority=True),
    ]

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        super().__init__()
        self.tools = tools
        self.spec: ToolSpec | None = None
        self._fields: list[Field] = []

    def compose(self) -> ComposeResult:
        """The list of tools; a tool's form takes its place."""
        with VerticalScroll(id="form", can_focus=False) as box:
            box.border_title = "Which tool?"
            box.border_subtitle = "Enter chooses · Esc back"
            yield OptionList(*(Option(Text(f"{t.name}  {one_line(t.description, 200)}", no_wrap=True)) for t in self.tools))

    def on_mount(self) -> None:
        """Keys choose a tool at once."""
        self.query_one(OptionList).focus()

    async def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Shows the form of a tool."""
        self.spec = self.tools[message.option_index]
        self._fields = fields(self.spec)
        box = self.query_one("#form", VerticalScroll)
        box.border_title = plain(self.spec.name)
        box.border_subtitle = "^s calls it · Tab next · Esc back"
        await box.query(OptionList).remove()
        await box.mount(Static(Text(plain(self.spec.description)), classes="about"))
        for i, f in enumerate(self._fields):
            name = Text(plain(f.name), "bold")
            kind = " or ".join(f.choices) if f.choices else f.kind
            name.append(f"  {plain(kind)}{'' if f.required else ', may be left out'}", "not bold")
            await box.mount(Static(name, classes="name"))
            if f.about:
                await box.mount(Static(Text(plain(f.about)), classes="about"))
            long = (f.kind == "string" and not f.choices) or f.kind == "json"
            await box.mount(
                TextArea(f.default, id=f"field-{i}", tab_behavior="focus") if long else Input(f.default, id=f"field-{i}")
            )
        await box.mount(Static("", id="wrong"))
        if self._fields:
            self.query_one("#field-0").focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """To the next field."""
        self.focus_next()

    def action_call(self) -> None:
        """Calls the tool, if what was typed can be its arguments."""
        if self.spec is None:
            return
        typed = {}
        for i, f in enumerate(self._fields):
            field = self.query_one(f"#field-{i}")
            typed[f.name] = field.text if isinstance(field, TextArea) else field.value if isinstance(field, Input) else ""
        try:
            given = arguments(self._fields, typed)
            for f in self._fields:
                if f.choices and typed[f.name] and typed[f.name] not in f.choices:
                    raise UsageError(f"{f.name}: choose one of {', '.join(f.choices)}")
        except UsageError as e:
            self.query_one("#wrong", Static).update(Text(f"{TROUBLE} {plain(str(e))}"))
            return
        self.dismiss(call(self.spec.name, **given))

    def leave(self) -> bool:
        """Closes the form, and asks below."""
        self.dismiss(None)
        below = self.app.screen_stack[-2]
        return isinstance(below, PlayScreen) and below.leave()

    def action_close(self) -> None:
        """Back, with nothing said."""
        self.dismiss(None)
