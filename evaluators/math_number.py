# SPDX-License-Identifier: Apache-2.0
r"""Answers as exact numbers and as normalized text, and the units behind them: the quick way, linear in the text."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

MOST_NUMBER = 400
"""A number written with more characters is compared as text."""

_COUNT = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\\w{3,5}teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)
# Words that make of a number beside them another number, or of a statement no statement.
CHANGING = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|lakhs?|crores?|dozens?|half|halves|quarters?|thirds?|"
    r"minus|negative|plus|times|over|divided|multiplied|modulo|mod|choose|power|root|squared|cubed|factorial|sqrt|pi|below|"
    r"not|never|cannot|wrong|incorrect|or|either|neither|nor|except|all but|anything but|between|than|least|most|if|unless|"
    rf"otherwise|maybe|perhaps|possibly|point (?:zero|{_COUNT}))\b|n't\b",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"([-+]?)(?:([0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.([0-9]*+))?+|\.([0-9]++))(?:/([0-9]++))?+")
_SIGN = re.compile(r"^([-+])\s{1,4}")
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?[0-9]++)\}\{([0-9]++)\}")
# A unit: up to four words behind the number. Two letters are more often two variables, so these are listed.
_TWO_LETTERS = "mm|cm|dm|km|ft|in|yd|mi|mg|kg|lb|oz|ml|cl|dl|gb|mb|kb|hz|kw|ms|hr|pm|am|sq|cu"
_UNIT = re.compile(
    rf"(\S+)\s+((?:(?i:{_TWO_LETTERS})|[A-Za-z]{{3,20}})\.?(?:\s[A-Za-z]{{1,20}}\.?){{0,3}})(?:\s?\^\{{?[23]\}}?)?"
)
_COUNTED = re.compile(rf"\b(?:zero|{_COUNT})\b", re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox)\s{0,3}\{([^{}]*)\}")
_REPLACED = (
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s+\{"), r"\\frac{"),
    (re.compile(r"\\!|\\(?:displaystyle|limits)(?![A-Za-z])"), ""),
    (re.compile(r"(?<=[0-9])(?:\\,|\{,\}\\?,?)(?=[0-9]{3})"), ","),
    (re.compile(r"(?<!\\)\\[,;: ]|~"), " "),
    (re.compile(r"\^\{?\s?\\circ\s?\}?|°"), ""),
    (re.compile(r"\\frac\s?([0-9])\s?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s?([0-9])\s?\{"), r"\\frac{\1}{"),
    (re.compile(r"\\frac\{([^{}]*)\}\s?([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s?([0-9A-Za-z])"), r"\\sqrt{\1}"),
)
_SPACES = re.compile(r"\s+")


def number(text: str) -> Fraction | None:
    r"""The exact value of a text that is one number, else None.

    Understood: integers, decimals, ``3/4``, ``\frac{3}{4}``, thousands separators where they belong, currency signs,
    a percent sign (42% is 42), degrees, and up to four words of unit behind it. Not understood, so no number:
    exponents, mixed numbers, ``5 million``, more than `MOST_NUMBER` characters.

    >>> number("$1,234.50"), number("1,2,3"), number(r"\dfrac{3}{4}")
    (Fraction(2469, 2), None, Fraction(3, 4))
    """
    return number_as_written(text)[0] if 0 < len(text) <= MOST_NUMBER else None


@functools.lru_cache(maxsize=4096)
def number_as_written(text: str) -> tuple[Fraction | None, bool]:
    """The value, and whether it is worked out: ``14/2`` is a number, but one that is left to be divided."""
    if not text.isdecimal() or not text.isascii():
        text = _WRAPPED.sub(r" \1 ", _latex(text)).replace("\\$", "").replace("\\%", "%")
        text = text.strip().strip("$€£ ").rstrip(".%\\ ")
        if text[:1] in "-+" and text[1:2] in ("$", "€", "£"):
            text = text[0] + text[2:]
        text = _SIGN.sub(r"\1", text)
        unit = _UNIT.fullmatch(text)
        if unit is not None and not CHANGING.search(unit[2]) and not _COUNTED.search(unit[2]):
            text = unit[1].rstrip("%")
    match = _PLAIN.fullmatch(text)
    if match is not None:
        sign, whole, decimals, bare, below = match.groups()
        digits = (whole or "").replace(",", "") + (decimals or bare or "")
        scale = 10 ** len(decimals or bare or "") * int(below or 1)
        divided = below is not None
    else:
        match = _FRACTION.fullmatch(text)
        if match is None:
            return None, False
        sign, digits, under = match.groups()
        scale = int(under)
        divided = True
    if not scale:
        return None, False
    value = Fraction(-int(digits) if sign == "-" else int(digits), scale)
    return value, not divided or value.denominator == scale > 1


def _latex(text: str) -> str:
    """``text`` with what only concerns its looks taken out."""
    text = text.replace("\u2212", "-").replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    if "\\" in text or "{" in text or "°" in text or "~" in text:
        for pattern, by in _REPLACED:
            text = pattern.sub(by, text)
    return text


def normal(text: str) -> str:
    r"""A text as it is compared where it is no number: without spaces, dollar signs, a final period and LaTeX's looks.

    >>> normal(r"$\left( 3, \dfrac{\pi}{2} \right)$.")
    '(3,\\frac{\\pi}{2})'
    """
    text = _WRAPPED.sub(r"\1", _latex(text)).replace("\\$", "").replace("$", "").replace("\\%", "%")
    return _SPACES.sub("", text).rstrip(".").rstrip("%")


def is_missing(gold: str) -> bool:
    """Whether a gold is what a broken data row leaves instead of one (``""``, ``None``, ``nan``): it must match nothing."""
    return gold.strip().lower() in ("", "none", "null", "nan")


# -- units ----------------------------------------------------------------------------------------------------------------

_TRAILING = re.compile(
    r"(?:\\[,;:! ]|~|\s){0,8}\\(?:text|textrm|textnormal|mathrm|mbox|operatorname|rm)\s?"
    r"\{\s{0,3}([A-Za-z][A-Za-z ./]{0,40})\s{0,3}\}"
    r"(?:\s?\^\s?\{?[23]\}?)?[\s.$]*$"
)
_PLAIN_WORDS = re.compile(r"(?<=[0-9)}\w$])\s+((?!and\b|or\b|pi\b)[a-z]{3,20}(?:\s[a-z]{1,20}){0,3})[.$\s]*$")
_SHORT = re.compile(rf"[0-9]\$?\s?({_TWO_LETTERS})\b(?:\s?\^\s?\{{?[23]\}}?)?[.$\s]*$", re.IGNORECASE)
_DEGREES = re.compile(r"(?:\^\s?\{?\s?\\circ\s?\}?|\\degrees?|\u00b0)[.$\s]*$")
_TRIGONOMETRY = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_SAME_UNIT = {
    name: names[0]
    for names in (
        ["m", "meter", "metre"], ["cm", "centimeter", "centimetre"], ["mm", "millimeter", "millimetre"],
        ["km", "kilometer", "kilometre"], ["in", "inch", "inches"], ["ft", "foot", "feet"], ["yd", "yard"], ["mi", "mile"],
        ["g", "gram"], ["kg", "kilogram"], ["mg", "milligram"], ["lb", "pound", "lbs"], ["oz", "ounce"],
        ["s", "sec", "second"], ["min", "minute"], ["h", "hr", "hour"], ["day"], ["week"], ["month"], ["year"],
        ["l", "liter", "litre"], ["ml", "milliliter", "millilitre"], ["cent"], ["dollar"], ["euro"],
    )
    for name in names
}  # fmt: skip


def plain_unit(text: str) -> str:
    """A known unit of measure at the end of a text, in one spelling; empty where there is none."""
    match = _TRAILING.search(text[-80:]) or _PLAIN_WORDS.search(text[-80:]) or _SHORT.search(text[-80:])
    if match is None:
        return ""
    word = match[1].strip(" .").casefold()
    return _SAME_UNIT.get(word) or _SAME_UNIT.get(word.removesuffix("s"), "")


def without_unit(text: str) -> str:
    """A text without the words of a unit at its end; words that change the value stay, so that it is refused with them."""
    whole = _WRAPPED.fullmatch(text.strip("$ "))
    if whole is not None:
        return whole[1]
    if not _TRIGONOMETRY.search(text):
        text = _DEGREES.sub("", text)
    for pattern in (_TRAILING, _PLAIN_WORDS, _SHORT):
        match = pattern.search(text)
        if (
            match is not None
            and (match.start() or pattern is _SHORT)
            and not CHANGING.search(match[1])
            and not _COUNTED.search(match[1])
        ):
            start = match.start() + (1 if pattern is _SHORT else 0)
            if text[:start].strip(" $\\(["):
                return text[:start]
    return text


# -- choices --------------------------------------------------------------------------------------------------------------

_CHOICE = re.compile(
    r"\$?\s?(?:\\(?:text|textbf|mathrm|mathbf)\s?\{)?\s?\(?\s?([A-Z])\s?(?:\}?\s?[).:]\s?\}?(.{0,200})|\s?\}?\s?\)?)\s?\$?",
    re.DOTALL,
)
_OTHER_CHOICE = re.compile(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])|\b(?:or|and|not|wrong)\b")


def choice(text: str) -> str | None:
    """The letter of one choice, with or without its text: ``B``, ``(B)``, ``B) 7``; None where it is none, or several."""
    match = _CHOICE.fullmatch(text.strip())
    return match[1] if match is not None and not _OTHER_CHOICE.search(match[2] or "") else None
