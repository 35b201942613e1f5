# SPDX-License-Identifier: Apache-2.0
"""Markdown as far as a terminal can show it: headings, emphasis, code, lists, quotes. Line breaks stay where they were.

It is a light reading of CommonMark, line by line: no line is joined with another, no link is hidden behind its words, and what
it does not know is shown as it was written. Its work is bounded by what is looked at, whatever the text.
"""

from __future__ import annotations

import re
from itertools import islice

from agentgym.report.text import plain
from agentgym.tui.widgets.paint import Line
from agentgym.tui.wrap import broken

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$")
_HEADING = re.compile(r" {0,3}(#{1,6}) +(.*)$")
_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)]) +(?=\S)(.*)$")
_QUOTE = re.compile(r" {0,3}> ?(.*)$")
_LINE = re.compile(r" {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$")

# ``__init__`` is a name more often than it is emphasis, so that two underscores mean nothing here;
# each part ends at the next sign of its kind, so that a text of nothing but signs is read once and not over and over
_INLINE = re.compile(
    r"(?P<code>`[^`\n]+`)"
    r"|\*\*(?=[^\s*])(?P<strong>[^*\n]*[^\s*])\*\*"
    r"|(?<![\w*])\*(?=[^\s*])(?P<em>[^*\n]*[^\s*])\*(?![\w*])"
    r"|(?<!\w)_(?=[^\s_])(?P<emu>[^_\n]*[^\s_])_(?!\w)"
)
_STYLES = {"code": "code", "strong": "strong", "em": "em", "emu": "em"}

LONGEST = 20_000
"""Characters of a line beyond which it is not read for emphasis: nobody wrote that by hand."""


def render(text: str, width: int, style: str = "", most: int | None = None) -> tuple[list[Line], bool]:
    """``text``, made safe to show, as lines of at most ``width`` cells.

    Args:
        text: anything, from a model or a user.
        width: cells.
        style: of what has none of its own.
        most: lines wanted; what comes after them is not even looked at.

    Returns:
        The lines, and whether there was more.

    >>> render("a **b** `c`", 20)[0]
    [[('a ', ''), ('b', 'strong'), (' ', ''), ('c', 'code')]]
    """
    width = max(width, 8)
    more = False
    if most is not None and len(text) > (enough := (most + 1) * (width + 1)):
        text, more = text[:enough], True
    lines: list[Line] = []
    fence = ""
    for source in plain(text).expandtabs(4).split("\n"):
        mark = _FENCE.match(source) if len(source) < 200 else None
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
                lines.append([("└─", "rule")])
            else:
                lines += [[("│ ", "rule"), (part, "code")] for part in broken(source, width - 2)]
        elif mark:
            fence = mark[1]
            lines.append([("┌─ ", "rule"), (mark[2], "muted")] if mark[2] else [("┌─", "rule")])
        else:
            lines += _plain_line(source, width, style)
        if most is not None and len(lines) > most:
            return lines[:most], True
    return lines, more


def _plain_line(source: str, width: int, style: str) -> list[Line]:
    """One line outside of fences."""
    if len(source) > LONGEST:
        return [[(part, style)] for part in broken(source, width)]
    if match := _HEADING.match(source):
        return _filled(match[2].rstrip().rstrip("#").rstrip() or match[2], width, "strong", (match[1] + " ", "muted"))
    if _LINE.match(source):
        return [[("─" * min(width, 40), "rule")]]
    if match := _ITEM.match(source):
        sign = "•" if match[2] in "-*+" else match[2]
        return _filled(match[3], width, style, (f"{match[1][: width // 3]}{sign} ", "accent"))
    if match := _QUOTE.match(source):
        return _filled(match[1], width, "em", ("▏ ", "rule"), repeat=True)
    return _filled(source, width, style, ("", ""))


def _filled(text: str, width: int, style: str, front: tuple[str, str], *, repeat: bool = False) -> list[Line]:
    """Text with its emphasis, behind something that stands in front of its first line, or of all of them."""
    words, spans = _emphasis(text)
    margin = len(front[0])
    lines: list[Line] = []
    at = first = 0
    for part in broken(words, width - margin):
        at = max(words.find(part, at), at)
        while first < len(spans) and spans[first][1] <= at:
            first += 1
        head = front if repeat or not lines else (" " * margin, "")
        lines.append([head, *_styled(part, at, spans, first, style)] if margin else _styled(part, at, spans, first, style))
        at += len(part)
    return lines


def _emphasis(text: str) -> tuple[str, list[tuple[int, int, str]]]:
    """The words without the signs of emphasis, and where which style begins and ends."""
    words: list[str] = []
    spans: list[tuple[int, int, str]] = []
    at = size = 0
    for match in _INLINE.finditer(text):
        name = match.lastgroup or ""
        inner = match[name].strip("`") if name == "code" else match[name]
        words += [text[at : match.start()], inner]
        size += match.start() - at
        spans.append((size, size + len(inner), _STYLES[name]))
        size += len(inner)
        at = match.end()
    return "".join([*words, text[at:]]) if spans else text, spans


def _styled(part: str, at: int, spans: list[tuple[int, int, str]], first: int, style: str) -> Line:
    """A part of the words that begins at some place, cut at the borders of styles, of which the first ones lie before it."""
    line: Line = []
    done = 0
    for start, stop, name in islice(spans, first, None):
        if start >= at + len(part):
            break
        start, stop = max(start - at, done), min(stop - at, len(part))
        if start >= stop:
            continue
        if start > done:
            line.append((part[done:start], style))
        line.append((part[start:stop], name))
        done = stop
    if done < len(part) or not line:
        line.append((part[done:], style))
    return line
