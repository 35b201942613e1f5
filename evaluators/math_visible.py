# SPDX-License-Identifier: Apache-2.0
r"""What of a text a reader sees: no thoughts under think tags, no comments of HTML, Markdown or TeX, nothing set invisibly."""

from __future__ import annotations

import re

WINDOW = 20_000
"""Characters at the end of a text that are looked at."""

_THOUGHTS = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "reflection")
_THOUGHT_TAG = re.compile(rf"<(/?)(?:{'|'.join(_THOUGHTS)})>", re.IGNORECASE)
_PERCENT = re.compile(r"(?:^|[ \t])%", re.MULTILINE)
_HIDDEN = (
    ("\\iffalse", "\\fi"),
    ("\\begin{comment}", "\\end{comment}"),
    ("<!--", "-->"),
    ("/*", "*/"),
    ("<span hidden", "</span>"),
    ("<div hidden", "</div>"),
    ('<span style="display:none', "</span>"),
    ('<div style="display:none', "</div>"),
    ('<span style="display: none', "</span>"),
    ('<div style="display: none', "</div>"),
)
_LINE_COMMENTS = re.compile(r"^[ \t]{0,4}\[(?://|comment)\]: ?#.*$", re.MULTILINE)
_TURN_MARKS = re.compile(r"<\|[a-z_]{2,20}\|>")  # of a chat template, which a model has run into
_CUT_WORD = re.compile(r"^\S*")


def visible(text: str) -> str:
    """The end of a text as far as it is looked at, without what a reader does not see."""
    if "<" in text and _THOUGHT_TAG.search(text):
        text = without_thoughts(text)
    for begin, end in _HIDDEN:
        if begin in text:
            text = _without(text, begin, end)
    if "<|" in text:
        text = _TURN_MARKS.sub("\n", text)
    if "]:" in text:
        text = _LINE_COMMENTS.sub("", text)
    if len(text) > 3 * WINDOW:
        text = text[-3 * WINDOW :].partition("\n")[2] or text[-3 * WINDOW :]  # comments reach to the end of a line
    if "%" in text:
        text = _without_tex_comments(text)
    text = text[-WINDOW - 1 :].replace("\u2212", "-")
    if len(text) <= WINDOW:
        return text
    # what the cut went through would be read as another number
    return _CUT_WORD.sub("", text)


def without_thoughts(text: str) -> str:
    """What follows the last thought that was closed, up to one that was not."""
    start, end = 0, len(text)
    for match in _THOUGHT_TAG.finditer(text):
        if match[1]:
            start, end = match.end(), len(text)
        elif end == len(text):
            end = match.start()
    return text[start:end]


def _without(text: str, begin: str, end: str) -> str:
    kept: list[str] = []
    at = 0
    while (start := text.find(begin, at)) >= 0:
        kept.append(text[at:start])
        stop = text.find(end, start + len(begin))
        if stop < 0:
            return "".join(kept)
        at = stop + len(end)
    return "".join(kept) + text[at:]


def _without_tex_comments(text: str) -> str:
    """Lines up to a percent sign that begins a comment; one behind a number is a percentage."""
    kept: list[str] = []
    for line in text.split("\n"):
        for match in _PERCENT.finditer(line):
            at = match.start()
            before = line[max(at - 2, 0) : at].rstrip()
            if not before[-1:].isdigit():
                line = line[:at]
                break
        kept.append(line)
    return "\n".join(kept)
