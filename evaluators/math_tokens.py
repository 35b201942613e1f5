# SPDX-License-Identifier: Apache-2.0
"""What comes before the parser of mathematics: a text without its looks, cut into tokens. Linear in the text."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 2000
"""Characters of an answer that is parsed; a longer one is compared as text only."""

MOST_DIGITS = 1000
"""Of one number."""


class Unreadable(Exception):
    """A text that is not read as mathematics: unknown notation, or more than the limits allow."""


_CLEAN = (
    (re.compile(r"\\mathbb\s?\{\s?R\s?\}|\\mathbb\s?R(?![A-Za-z])|\\R(?![A-Za-z])"), r"(-\\infty,\\infty)"),
    (re.compile(r"\\(?:left|right|[bB]ig[lr]?|[bB]igg[lr]?|displaystyle|textstyle|limits|nolimits|!)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"(?<=[0-9])(?:\s?\{,\s?\}|,\s?\\!|\\,)\s?(?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad|~|\\(?:allowbreak|nobreak|hfill|mkern[0-9]mu|hspace\{[^{}]*\})"), " "),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![A-Za-z])|\u00b0"), " "),
    (re.compile(r"\\(?:mathrm|mathit|mathbf|boldsymbol|operatorname|mathsf|mathbb|mathcal|rm)\s?\{([A-Za-z]+)\}"), r"{\\N\1 }"),
    (re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s{0,3}\{\s{0,3}(and|or|,)\s{0,3}\}"), r" \1 "),
    (re.compile(r"\\\$|\u20ac|\u00a3"), " "),
    (re.compile(r"(?<=[0-9})])\s?\\?%(?!\s?[0-9A-Za-z%\\])"), " "),
    (re.compile(r"(?<!\\)\\[()\[\]]|\$"), " "),
)  # fmt: skip
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s?\^\s?\{?\s?\\circ\s?\}?")
_UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00f7": "/", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ",
        "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u221a": r"\sqrt ",
        "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u00b1": r"\pm ", "\u00b2": "^2 ", "\u00b3": "^3 ",
        "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03bb": r"\lambda ", "\u2248": r"\approx ",
    }
)  # fmt: skip
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<group>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?)|(?P<num>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<text>\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s{0,3}\{[^{}]*\})"
    r"|(?P<begin>\\begin\s?\{[A-Za-z*]+\}(?:\{[lcr|]*\})?)|(?P<end>\\end\s?\{[A-Za-z*]+\})|(?P<name>\\N[A-Za-z]+ )"
    r"|(?P<cmd>\\[A-Za-z]+|\\[{}|\\])|(?P<word>[A-Za-z]+)|(?P<op>\*\*|<=|>=|!=|==|[-+*/^_=<>(){}\[\],;:!|&'])",
)
_ONLY_SPACED = re.compile(r"\s*[-+]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?\s*")
_MIXED = re.compile(r"(?<![\w.}^])([0-9]{1,9})\s+([0-9]{1,9})/([0-9]{1,9})(?![\w.])")
_REPEATING = re.compile(r"([0-9]{0,20})\.([0-9]{0,20})\\overline\s?\{([0-9]{1,20})\}")


def clean(text: str) -> str:
    """A text without what concerns only its looks, and in ASCII where a symbol has an ASCII name."""
    text = text.translate(_UNICODE)
    if "\\\\" in text and "\\begin" not in text:
        text = text.replace("\\\\", "\\")  # escaped twice on its way through a JSON file
    if "circ" in text and _TRIGONOMETRY.search(text):
        text = _DEGREES.sub(r"(\1\\pi/180)", text)
    for pattern, by in _CLEAN:
        text = pattern.sub(by, text)
    return text.strip().rstrip('.\\"').strip().lstrip('"')


def tokens(text: str) -> list[tuple[str, str, bool]]:
    """(kind, text, whether a space stands before it) of each; a comma groups thousands only outside of brackets.

    Raises:
        Unreadable: a character that is in no notation, or a text or number that is too long.
    """
    if len(text) > LONGEST:
        raise Unreadable("too long")
    text = clean(text)
    if _ONLY_SPACED.fullmatch(text):
        text = text.replace(" ", "")
    text = _REPEATING.sub(_repeating, text)
    text = _MIXED.sub(r"{\1+\2/\3}", text)
    found: list[tuple[str, str, bool]] = []
    at, spaced, depth = 0, False, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"unknown {text[at]!r}")
        at = match.end()
        kind, value = match.lastgroup or "", match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "op" and value in "([":
            depth += 1
        elif kind == "op" and value in ")]":
            depth -= 1
        elif kind == "group":
            if depth > 0 or value[0] == "0":
                cut = value.index(",")
                at = match.start() + cut
                value = value[:cut]
            kind, value = "num", value.replace(",", "")
        elif kind == "name":
            value = value[2:-1]
        elif kind == "cmd" and value in ("\\lbrace", "\\rbrace", "\\vert", "\\mid", "\\lbrack", "\\rbrack"):
            value = {"\\lbrace": "\\{", "\\rbrace": "\\}"}.get(value, "|")
        if kind == "num" and len(value) > MOST_DIGITS:
            raise Unreadable("too many digits")
        found.append((kind, value, spaced))
        spaced = False
    return found


def _repeating(match: re.Match[str]) -> str:
    """0.1666... as the fraction that it is."""
    whole, fixed, repeated = match[1] or "0", match[2], match[3]
    value = Fraction(int(whole + fixed), 10 ** len(fixed))
    value += Fraction(int(repeated), 10 ** len(fixed) * (10 ** len(repeated) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
