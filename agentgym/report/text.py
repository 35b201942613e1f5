# SPDX-License-Identifier: Apache-2.0
"""Text from models and tools made safe to print: it can neither steer a terminal nor reorder what is shown."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline (carriage return overwrites a line), DEL and C1
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufeff\ud800-\udfff"  # odd line ends, the byte order mark, lone surrogates
    "\U000e0000-\U000e01ef]"  # tags and supplementary variation selectors: invisible, and whole sentences hide in them
)


def _show(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def plain(text: str) -> str:
    """``text`` with control, bidirectional and invisible characters written out as escapes.

    >>> plain("a\\x1b[2Jb\\tc")
    'a\\\\x1b[2Jb\\tc'
    """
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_show, text)


def one_line(text: str, width: int = 100) -> str:
    """`plain` text on one line, cut with an ellipsis."""
    line = plain(text[: width * 4]).replace("\n", " ⏎ ").replace("\t", " ")
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(0.42), duration(58.2), duration(3725)
    ('0.4 s', '58 s', '1 h 02 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def fraction(value: float) -> str:
    """A number in [0, 1] with two digits and no leading zero, as statistics are printed.

    What is not quite 0 or 1 gets a third digit, and is never printed as if it were: an upper bound of 0 would be a
    promise.

    >>> fraction(0.254), fraction(1.0), fraction(0.996), fraction(0.00001)
    ('.25', '1', '.996', '.001')
    """
    if value in (0.0, 1.0):
        return str(int(value))
    text = f"{value:.2f}"
    if text in ("0.00", "1.00"):
        text = f"{min(max(value, 0.001), 0.999):.3f}"
    return text.removeprefix("0")
