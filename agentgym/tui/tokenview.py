# SPDX-License-Identifier: Apache-2.0
"""Tokens as blocks of a document: as running text with the surprise of each below it, or one a line with all that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.cells import cell_len

from agentgym.protocols import Tokens
from agentgym.report.text import plain
from agentgym.tui.document import LABEL, WIDE, WIDE_LABEL, Block
from agentgym.tui.widgets.paint import Line, Piece, fit

Spell = Callable[[Sequence[int]], list[str]]
"""Ids to one text each."""

HEAT = (
    (0.9, " ", "muted"),
    (0.5, "·", "muted"),
    (0.2, "░", "accent"),
    (0.05, "▒", "warn"),
    (0.01, "▓", "bad"),
    (0.0, "█", "flag"),
)
"""Least probability, mark, style: the denser the mark, the less the model expected the token."""
UNKNOWN_HEAT: Piece = ("?", "warn")
MASKED: Piece = ("-", "muted")
"""Not trained on."""
LEGEND = "surprise: · p<.9  ░ <.5  ▒ <.2  ▓ <.05  █ <.01   - not trained on"


_PIECES: list[Piece] = [(mark, style) for _, mark, style in HEAT] + [UNKNOWN_HEAT, MASKED]
_LEAST = np.array([least for least, _, _ in HEAT])
CHUNK = 64
"""Tokens that are spelled at once."""


def heats(logprobs: np.ndarray, mask: np.ndarray | None = None) -> list[Piece]:
    """The mark of each log-probability; of those that are not trained on (mask 0) that they are not.

    >>> heats(np.array([-0.01, -5.0, np.nan, -1.0]), np.array([1, 1, 1, 0]))
    [(' ', 'muted'), ('█', 'flag'), ('?', 'warn'), ('-', 'muted')]
    """
    known = np.isfinite(logprobs)
    p = np.exp(np.minimum(np.where(known, logprobs, 0.0), 0.0))
    places = np.where(known, (p[:, None] < _LEAST).sum(axis=1), len(HEAT))
    if mask is not None:
        places = np.where(mask != 0, places, len(HEAT) + 1)
    return [_PIECES[i] for i in places.tolist()]


def shown(text: str) -> str:
    """A token's text on one line: line ends as signs, what is invisible as escapes."""
    return plain(text).replace("\n", "⏎").replace("\t", "→")


class TokenFlow(Block):
    """Tokens as they follow each other, with ``│`` between them; below each line the marks of those that were sampled.

    Args:
        label: see `Block`.
        ids: int[T].
        spell: their texts; None shows the numbers.
        marks: one a token; None for no second line.
        turn: see `Block`.
        fold: lines shown before it is opened.
    """

    __slots__ = ("ids", "marks", "rows", "spell", "spelled")

    def __init__(
        self,
        label: Piece,
        ids: np.ndarray,
        spell: Spell | None,
        marks: Sequence[Piece] | None,
        *,
        turn: int,
        fold: int,
    ) -> None:
        super().__init__(label, "", turn=turn, fold=fold)
        self.ids, self.spell, self.marks = ids, spell, marks
        self.rows: list[tuple[int, int]] = []
        """First token of each row, and the one after its last."""
        self.spelled: dict[int, list[str]] = {}

    def layout(self, width: int) -> int:
        """Fills rows with tokens; no further than is shown."""
        if width != self.width:
            room = max(width - (WIDE_LABEL if width >= WIDE else LABEL) - 3, 8)
            most = None if self.opened or self.fold is None else self.fold + 2
            self.rows, self.more = [], False
            begin = size = 0
            for at, cells in enumerate(self._cells()):
                cells = min(cells, room)
                if size + cells > room and at > begin:
                    self.rows.append((begin, at))
                    begin, size = at, 0
                    if most is not None and len(self.rows) >= most:
                        self.more = True
                        break
                size += cells + 1
            if not self.more and begin < len(self.ids):
                self.rows.append((begin, len(self.ids)))
            if self.more and self.fold is not None:
                del self.rows[self.fold :]
            self.width = width
        return len(self.rows) * self._high + (self.more or (self.opened and self.fold is not None))

    @property
    def _high(self) -> int:
        return 1 if self.marks is None else 2

    def _cells(self) -> Iterator[int]:
        """Cells of each token."""
        for begin in range(0, len(self.ids), CHUNK):
            for text in self._texts(begin, min(begin + CHUNK, len(self.ids))):
                yield max(1, cell_len(text))

    def _texts(self, begin: int, end: int) -> list[str]:
        """Texts of some tokens; spelled in the same chunks wherever they are asked for, so that widths agree."""
        if self.spell is None:
            return [str(i) for i in self.ids[begin:end].tolist()]
        found: list[str] = []
        for chunk in range(begin // CHUNK, -(-end // CHUNK)):
            texts = self.spelled.get(chunk)
            if texts is None:
                if len(self.spelled) > 256:
                    self.spelled.clear()
                ids = self.ids[chunk * CHUNK : (chunk + 1) * CHUNK].tolist()
                texts = self.spelled[chunk] = [shown(t) for t in self.spell(ids)]
            found += texts
        first = begin - begin // CHUNK * CHUNK
        return found[first : first + end - begin]

    def row_of(self, token: int) -> int:
        """The line, within the block, on which a token stands; the last one where it is folded away."""
        for i, (begin, end) in enumerate(self.rows):
            if begin <= token < end:
                return i * self._high
        return max(0, len(self.rows) * self._high - 1)

    def line(self, index: int, width: int) -> Line:
        """A row of tokens, or of their marks."""
        label = WIDE_LABEL if width >= WIDE else LABEL
        front: Line = [(" ", ""), (fit(self.label[0], label) + " ", self.label[1])] if index == 0 else [(" " * (label + 2), "")]
        row, second = divmod(index, self._high)
        room = max(width - label - 3, 8)
        if row >= len(self.rows):
            text = "▾ Enter folds this" if self.opened else f"▸ Enter shows all of it ({len(self.ids):,} tokens)"
            return [*front, (fit(text, room) if cell_len(text) > room else text, "link")]
        begin, end = self.rows[row]
        for at, text in enumerate(self._texts(begin, end), begin):
            if cell_len(text) > room:
                text = fit(text, room)
            mark, style = self.marks[at] if self.marks is not None else ("", "muted")
            if second:
                front += [(mark * max(1, cell_len(text)), style), (" ", "")]
            else:
                front += [(text or "‥", style if self.marks is not None else ""), ("│", "rule")]
        return front


class TokenTable(Block):
    """One token a line: place, mark, log-probability, probability, whether it is trained on, version, number, text."""

    __slots__ = ("spell", "tokens")

    def __init__(self, tokens: Tokens, spell: Spell | None, *, turn: int) -> None:
        super().__init__(("", ""), "", turn=turn)
        self.tokens, self.spell = tokens, spell

    def layout(self, width: int) -> int:
        """A head and a line a token."""
        return 1 + len(self.tokens.output_ids)

    def row_of(self, token: int) -> int:
        """The line, within the block, on which a token stands."""
        return token + 1

    def line(self, index: int, width: int) -> Line:
        """The head, or a token."""
        if index == 0:
            return [("   place    log p      p  trained  version        id  text", "head")]
        at, t = index - 1, self.tokens
        logprob = float(t.logprobs[at])
        mark, style = heats(t.logprobs[at : at + 1])[0]
        known = bool(np.isfinite(logprob))
        masked = t.mask is not None and not t.mask[at]
        id = int(t.output_ids[at])
        text = shown(self.spell([id])[0]) if self.spell is not None else ""
        return [
            (f"{at:>8} ", "muted"),
            (f"{logprob:>8.3f} {np.exp(logprob):>6.1%}" if known else f"{'unknown':>8} {'':>6}", style),
            (f" {mark * 2} ", style),
            (f"{'  -' if masked else '  ✓' if known else '  ?':<6}", "muted"),
            (f"{'' if t.versions is None else int(t.versions[at]):>7}", ""),
            (f"{id:>10}  ", "muted"),
            (f"“{text}”" if self.spell is not None else "", "strong"),
        ]


def marks_of(tokens: Tokens) -> list[Piece]:
    """The marks of a turn's output."""
    return heats(tokens.logprobs, tokens.mask)


def same_start(last: Tokens, prompt: np.ndarray) -> tuple[int, bool]:
    """How many tokens a prompt has in common with the beginning of an earlier turn, and whether that is all of that turn."""
    same = 0
    for part in (last.prompt_ids, last.output_ids):
        if part is None:
            return 0, False
        n = min(len(part), len(prompt) - same)
        different = part[:n] != prompt[same : same + n]
        if different.any():
            return same + int(different.argmax()), False
        same += n
        if n < len(part):
            return same, False
    return same, True


def summary(tokens: Tokens) -> str:
    """``version 3, perplexity 1.51, least -5.20 at 12``."""
    parts = []
    if tokens.versions is not None and len(tokens.versions):
        low, high = int(tokens.versions.min()), int(tokens.versions.max())
        parts.append(f"version {low}" if low == high else f"versions {low} to {high}")
    told = np.isfinite(tokens.logprobs)
    known = tokens.logprobs[told].astype(np.float64)
    if unknown := len(tokens.logprobs) - len(known):
        parts.append(f"{unknown} unknown")
    if len(known):
        mean, least = float(known.mean()), int(np.flatnonzero(told)[known.argmin()])
        parts += [f"perplexity {np.exp(min(-mean, 50.0)):.2f}", f"least {float(tokens.logprobs[least]):.2f} at {least}"]
    if tokens.logprob_kind != "raw":
        parts.append(tokens.logprob_kind.replace("_", " "))
    return ", ".join(parts)


def surprises(tokens: Tokens, below: float = 0.05) -> list[int]:
    """Places of the tokens that had less than this probability."""
    with np.errstate(invalid="ignore"):
        return [int(i) for i in np.flatnonzero(tokens.logprobs < np.log(below))]
