# SPDX-License-Identifier: Apache-2.0
"""The line in which a filter is typed: it offers how a word may go on, and Tab takes what it offers."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.suggester import Suggester
from textual.widgets import Input

from agentgym.records.filter import FilterError, parse
from agentgym.records.filter_names import Completion, Names, complete
from agentgym.report.text import one_line
from agentgym.tui.widgets.paint import Line


class FindLine(Input):
    """A line for a filter. `known` are the names that it completes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False, tooltip="Complete the word; again: the next way to go on"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        self.known: Names = {}
        hint = "part of a task id, or gold<1 dim:policy; Tab completes, Esc clears"
        super().__init__(placeholder=hint, classes="find", id=id, suggester=_Suggester(self))
        self._offers: list[Completion] = []
        self._taken = -1
        self._rest = ""

    @property
    def error(self) -> FilterError | None:
        """What is wrong with what stands here; None where it can be read."""
        try:
            parse(self.value)
        except FilterError as e:
            return e
        return None

    @property
    def offers(self) -> list[Completion]:
        """How what stands before the cursor may go on."""
        return complete(self.value[: self.cursor_position], self.known)

    def action_complete(self) -> None:
        """Takes the first offer; pressed again, the next one in its place."""
        if len(self._offers) < 2 or self._taken < 0 or self.value != self._offers[self._taken].text + self._rest:
            self._offers, self._rest, self._taken = self.offers, self.value[self.cursor_position :], -1
        if not self._offers:
            self.app.bell()
            return
        self._taken = (self._taken + 1) % len(self._offers)
        text = self._offers[self._taken].text
        self.value = text + self._rest
        self.cursor_position = len(text)

    def hint(self, count: str, width: int) -> Line:
        """What to show below the line.

        Args:
            count: how many fit, for a person.
            width: cells that there are.
        """
        error = self.error
        if error is None:
            line: Line = [(f"{count}  ", "strong")]
            for one in self.offers:
                line += [(one_line(one.word, 40), "accent"), ("  ", "")]
            return line
        at = error.at - self.scroll_offset.x
        sentence = one_line(error.sentence, width)
        if not 0 <= at < width:
            return [(sentence, "bad")]
        caret = "^" * max(1, min(error.end - error.at, width - at))
        if at + len(caret) + 1 + len(sentence) > width and len(sentence) < at:
            return [(sentence.ljust(at), "bad"), (caret, "bad")]
        return [(" " * at, ""), (f"{caret} ", "bad"), (sentence, "bad")]


class _Suggester(Suggester):
    """Shows the first offer behind the cursor, where it goes on with what was typed."""

    def __init__(self, line: FindLine) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._line = line

    async def get_suggestion(self, value: str) -> str | None:
        """The whole line with it."""
        offers = complete(value, self._line.known)
        return next((o.text for o in offers if o.text.startswith(value) and o.text != value), None)
