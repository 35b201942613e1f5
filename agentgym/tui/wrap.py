# SPDX-License-Identifier: Apache-2.0
"""Text cut into lines of a given width, fast enough for a message of a megabyte and only as far as it is looked at."""

from __future__ import annotations

import re

from rich.cells import cell_len

from agentgym.report.text import plain

_WIDE = re.compile("[^\x00-\u02ff\u0370-\u10ff\u2010-\u2027\u2190-\u22ff\u2500-\u25ff]")
"""A character that may take no cell or two; text without one has as many cells as characters."""


def wrap(text: str, width: int, most: int | None = None) -> tuple[list[str], bool]:
    """``text``, made safe to show, as lines of at most ``width`` cells; broken at blanks where there are any.

    Args:
        text: anything, from a model or a tool.
        width: cells.
        most: lines wanted; what comes after them is not even looked at.

    Returns:
        The lines, and whether there was more.

    >>> wrap("one two three", 8)
    (['one two', 'three'], False)
    >>> wrap("a\\nb\\nc", 8, most=2)
    (['a', 'b'], True)
    """
    width = max(width, 4)
    if most is not None and len(text) > (enough := (most + 1) * (width + 1)):
        # a line holds at most `width` characters and a break, so that many of them make more than `most` lines,
        # unless they take no cells; then the fold shows a little less than it could
        text = text[:enough]
        more = True
    else:
        more = False
    lines: list[str] = []
    for paragraph in plain(text).expandtabs(4).split("\n"):
        lines += broken(paragraph, width)
        if most is not None and len(lines) > most:
            return lines[:most], True
    return (lines, more) if most is None else (lines[:most], more or len(lines) > most)


def broken(paragraph: str, width: int) -> list[str]:
    """One paragraph that is safe to show, as lines of at most ``width`` cells: its parts in order, blanks left out."""
    lines: list[str] = []
    if _WIDE.search(paragraph) is None:
        _narrow(paragraph, width, lines)
    else:
        _cells(paragraph, width, lines)
    return lines


def _narrow(text: str, width: int, lines: list[str]) -> None:
    """One paragraph in which each character takes one cell."""
    start, end = 0, len(text)
    while end - start > width:
        cut = text.rfind(" ", start, start + width + 1)
        comma = text.rfind(",", start, start + width) + 1  # compact JSON has few blanks, and those inside of its texts
        if max(cut, comma) <= start + width // 3:  # a break that early leaves more hole than line
            lines.append(text[start : start + width])
            start += width
        elif comma > cut:
            lines.append(text[start:comma])
            start = comma
        else:
            lines.append(text[start:cut].rstrip())
            start = cut + 1
    lines.append(text[start:].rstrip())


def _cells(text: str, width: int, lines: list[str]) -> None:
    """One paragraph with characters that take no cell or two."""
    start, end = 0, len(text)
    while start < end:
        size = min(width, end - start)
        part = text[start : start + size]
        while size > 1 and (over := cell_len(part) - width) > 0:
            size = max(1, size - max(1, over // 2))
            part = text[start : start + size]
        while start + size < end and cell_len(part + text[start + size]) <= width and size < 4 * width:
            part += text[start + size]
            size += 1
        if start + size < end and (cut := part.rfind(" ")) > len(part) // 3:
            lines.append(part[:cut].rstrip())
            start += cut + 1
        else:
            lines.append(part.rstrip())
            start += size
    if not text:
        lines.append("")
