# SPDX-License-Identifier: Apache-2.0
"""From (text, style name) pairs to a line of the screen. Text is cut and padded by cells; markup means nothing here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from agentgym.report.text import one_line

if TYPE_CHECKING:
    from textual.widget import Widget as _Widget
else:
    _Widget = object  # Textual follows the first base that is a widget when it looks for styles; this must not be it

Piece = tuple[str, str]
"""Text that is safe to show, and the name of a style in `STYLES`; the empty name is the widget's own style. Dots of a
picture have ``#RRGGBB on #RRGGBB`` instead: they are what they are in every theme."""
Line = list[Piece]

STYLES = (
    "good", "bad", "warn", "flag", "muted", "strong", "accent", "head", "cursor", "here", "rule", "link",
    "system", "user", "assistant", "tool", "thinks", "state", "code", "em", "key",
)  # fmt: skip
"""Names of the styles; each is the component class ``line--NAME`` of the application."""

COMPONENTS = frozenset(f"line--{name}" for name in STYLES)


def fit(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """One line of ``text`` in exactly ``width`` cells, cut with an ellipsis (at its end or in its middle) or padded."""
    if width <= 0:
        return ""
    text = one_line(text, 500 if middle else width * 2)
    size = cell_len(text)
    if size > width:
        if middle and size == len(text) and width > 8:
            front = (width - 1) // 3
            return f"{text[:front]}…{text[front + 1 - width :]}"
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - size) + text if right else text + " " * (width - size)


def width_of(line: Iterable[Piece]) -> int:
    """Cells that a line takes."""
    return sum(cell_len(text) for text, _ in line)


class Painter(_Widget):
    """Mixed into widgets that draw lines. Styles are looked up once, on the application, and forgotten when a theme changes.

    The application carries the component classes for all widgets of all screens. Textual looks them up anew whenever
    their owner is styled: on each widget that would cost more than all the rest at every change of focus, on each screen
    more than all the rest at every screen that opens.
    """

    _looks: dict[str, Style] | None = None
    _themed: object = None
    """The theme in which they were looked up."""
    _doubted = True
    """Whether they may have changed."""

    def notify_style_update(self) -> None:
        """Doubts them: this is called whenever Textual styles the widget, and most often nothing has changed."""
        self._doubted = True
        super().notify_style_update()

    def look(self, name: str) -> Style:
        """The style of that name on this widget's ground; the empty name is the widget's own.

        It has a background only where it sets one. Colours with an alpha are blended with what lies below, which
        Textual's partial styles leave out, and each is moved away from the ground until it can be read there, whatever
        the theme.
        """
        if name[:1] == "#":
            return _dots(name)
        looks = self._looks
        if looks is None or self._doubted:
            base, theme = self.rich_style, self.app.current_theme
            if looks is None or base != looks[""] or theme is not self._themed:
                looks = self._looks = {"": base}
            self._themed, self._doubted = theme, False
        found = looks.get(name)
        if found is None:
            whole, partial = self._component(name), self._component(name, partial=True)
            base = looks[""]
            grounds = [base.bgcolor, *(self._component(g).bgcolor for g in ("cursor", "here"))]
            color = whole.color if partial.color is not None or partial.bgcolor is None else None
            if color is not None and name != "rule":
                color = readable(color, tuple(g for g in grounds if g is not None))
            found = looks[name] = partial + Style(color=color, bgcolor=whole.bgcolor if partial.bgcolor is not None else None)
        return found

    def _component(self, name: str, *, partial: bool = False) -> Style:
        styles = self.app.get_component_styles(f"line--{name}")
        return styles.partial_rich_style if partial else styles.rich_style

    def paint(self, line: Iterable[Piece], width: int, *, under: str = "") -> Strip:
        """A line of exactly ``width`` cells.

        Args:
            line: what to show.
            width: in cells.
            under: name of a style that lies under all of it, e.g. ``cursor``.
        """
        base = self.look("")
        if under:
            base += self.look(under)
        segments, at = [], 0
        for text, name in line:
            if text:
                segments.append(Segment(text, base + self.look(name) if name else base))
                at += cell_len(text)
        if at < width:
            segments.append(Segment(" " * (width - at), base))
            at = width
        return Strip(segments, at).adjust_cell_length(width, base)


@lru_cache(maxsize=1 << 16)
def _dots(name: str) -> Style:
    return Style.parse(name)


CONTRAST = 4.5
"""Least contrast of text with its ground: level AA of WCAG 2.1."""


@lru_cache(maxsize=512)
def readable(color: Color, grounds: tuple[Color, ...]) -> Color:
    """The colour, made lighter or darker as far as it takes to read it on each of the grounds.

    Colours that are left to the terminal stay as they are: nobody knows what they look like.
    """
    below = [g.triplet for g in grounds if g.triplet is not None]
    if color.triplet is None or not below:
        return color
    dark = sum(luminance(g) for g in below) < 0.18 * len(below)  # .18: as far from white as from black, by contrast
    goal = ColorTriplet(255, 255, 255) if dark else ColorTriplet(0, 0, 0)
    for step in range(21):
        mixed = ColorTriplet(*(round(c + (g - c) * step / 20) for c, g in zip(color.triplet, goal, strict=True)))
        if all(contrast(mixed, ground) >= CONTRAST for ground in below):
            break
    return Color.from_triplet(mixed)


def luminance(color: ColorTriplet) -> float:
    """Relative luminance (WCAG 2.1)."""
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (c / 255 for c in color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: ColorTriplet, b: ColorTriplet) -> float:
    """Contrast ratio (WCAG 2.1), 1 to 21."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
