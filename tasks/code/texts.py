# SPDX-License-Identifier: Apache-2.0
"""Templates of functions over texts: changing them, encoding them, reading small languages."""

from __future__ import annotations

import numpy as np

from agentgym.tasks.code.problem import Problem, between, code, letters, pick, words


def _sentence(r: np.random.Generator) -> str:
    return " ".join(words(r, 5))


def words_changed(rng: np.random.Generator, level: int) -> Problem:
    """Each word of a text by a rule."""
    says, change = pick(
        rng,
        (
            ("reversed", "word[::-1]"),
            ("in capital letters", "word.upper()"),
            ("with its first and last letter only", "word[0] + word[-1]"),
            ("without a, e, i, o and u", "''.join(c for c in word if c not in 'aeiou')"),
        ),
    )
    k = between(rng, 4, 6)
    name = pick(rng, ("rewrite", "convert", "edit_text"))
    about = "`text` holds words of small letters with one space between them, or is empty. "
    edges = (("",), ("oak",), ("amber birch fig",))
    if level == 1:
        return Problem(
            name, "text: str", "str",
            f"{about}Return it with every word of at least {k} letters {says}.",
            f"return ' '.join({change} if len(word) >= {k} else word for word in text.split())",
            lambda r: (_sentence(r),), edges,
        )  # fmt: skip
    if level == 2:
        other = pick(rng, ("even", "odd"))
        return Problem(
            name, "text: str", "str",
            f"{about}Number the words from 1. Return the text with the words of {other} numbers {says}, and the others moved "
            "behind all of those, in reverse order.",
            code(
                """
                first, second = [], []
                for number, word in enumerate(text.split(), 1):
                    if number % 2 == $rest:
                        first.append($change)
                    else:
                        second.append(word)
                return " ".join(first + second[::-1])
                """,
                rest=int(other == "odd"), change=change,
            ),
            lambda r: (_sentence(r),), edges,
        )  # fmt: skip
    return Problem(
        name, "text: str", "str",
        "`text` is any text. A word is a stretch of the letters a to z and A to Z. Return the text with every word of at least "
        f"{k} letters reversed, capital letters staying at the places where there were some; everything else stays as it is.",
        code(
            """
            def changed(word):
                if len(word) < $k:
                    return word
                turned = word[::-1].lower()
                return "".join(t.upper() if c.isupper() else t for t, c in zip(turned, word))

            result, word = "", ""
            for c in text + " ":
                if c.isascii() and c.isalpha():
                    word += c
                else:
                    result += changed(word) + c
                    word = ""
            return result[:-1]
            """,
            k=k,
        ),
        lambda r: (
            "".join((w.title() if r.random() < 0.4 else w) + pick(r, (" ", ", ", "-", "2", "! ")) for w in words(r, 5)),
        ),
        (("",), ("Amber",), ("a-b  Cedars",)),
    )  # fmt: skip


def cipher(rng: np.random.Generator, level: int) -> Problem:
    """Letters for letters."""
    k = between(rng, 2, 11)
    name = pick(rng, ("encipher", "scramble", "shifted"))
    about = "Capital letters, digits and everything else but the small letters a to z stay as they are. "
    edges: tuple[tuple[str], ...] = (("",), ("xyz",), ("Zoo 9!",))

    def draw(r: np.random.Generator) -> str:
        return letters(r, "abcdefghijklmnopqrstuvwxyz ABZ19!", 14)

    if level == 1:
        return Problem(
            name, "text: str", "str",
            f"Replace each small letter by the one {k} places further on in the alphabet, a following z. {about}",
            code(
                """
                return "".join(chr((ord(c) - 97 + $k) % 26 + 97) if "a" <= c <= "z" else c for c in text)
                """,
                k=k,
            ),
            lambda r: (draw(r),), edges,
        )  # fmt: skip
    if level == 2:
        back = pick(rng, (True, False))
        return Problem(
            name, "text: str, key: list[int]", "str",
            f"Move the small letters {'back' if back else 'on'} in the alphabet, which is taken for a ring: the first small "
            "letter of the text by the first number of the key, the second by the second, and so on, starting the key anew "
            f"when it ends. {about}What stays uses up no number. The key is not empty.",
            code(
                """
                result, used = "", 0
                for c in text:
                    if "a" <= c <= "z":
                        c = chr((ord(c) - 97 $sign key[used % len(key)]) % 26 + 97)
                        used += 1
                    result += c
                return result
                """,
                sign="-" if back else "+",
            ),
            lambda r: (draw(r), [between(r, 0, 40) for _ in range(between(r, 1, 4))]),
            (("", [1]), ("a b", [1, 2]), ("zzz", [26])),
        )  # fmt: skip
    return Problem(
        name, "text: str", "str",
        f"Replace each of the vowels aeiou by the one {k % 4 + 1} places further on in their ring (u is followed by a), and each of "
        f"the other small letters by the one {k} places further on in the ring of the twenty-one others. With each vowel of the "
        f"text the {k} grows by 1 for what follows. {about}",
        code(
            """
            vowels, others = "aeiou", "bcdfghjklmnpqrstvwxyz"
            result, step = "", $k
            for c in text:
                if c in vowels:
                    result += vowels[(vowels.index(c) + $v) % 5]
                    step += 1
                elif c in others:
                    result += others[(others.index(c) + step) % 21]
                else:
                    result += c
            return result
            """,
            k=k, v=k % 4 + 1,
        ),
        lambda r: (draw(r),), edges,
    )  # fmt: skip


# parts of a reference, indented as they stand there
_LETTER = """letter = text[at]
                    at += 1"""
_COUNT = """while at < len(text) and text[at].isdigit():
                        count += text[at]
                        at += 1"""


def runs(rng: np.random.Generator, level: int) -> Problem:
    """Repeated letters, short and long."""
    first = pick(rng, (True, False))
    example = "a3" if first else "3a"
    name = pick(rng, ("pack", "squeeze", "shorten"))

    def draw(r: np.random.Generator) -> str:
        return "".join(pick(r, "abcxy") * between(r, 1, 5) for _ in range(between(r, 0, 5)))

    pairs = """
        result, at = "", 0
        while at < len(text):
            end = at
            while end < len(text) and text[end] == text[at]:
                end += 1
            letter, count = text[at], end - at
            $add
            at = end
        return result
        """
    piece = "letter + str(count)" if first else "str(count) + letter"
    if level == 1:
        return Problem(
            name, "text: str", "str",
            f"`text` holds small letters. Write each stretch of equal letters as {example}: the letter "
            f"{'followed' if first else 'preceded'} by how many there are.",
            code(pairs, add=f"result += {piece}"), lambda r: (draw(r),), (("",), ("a",), ("a" * 12,)),
        )  # fmt: skip
    least = between(rng, 2, 3)
    if level == 2:
        parts = [_LETTER, _COUNT] if first else [_COUNT, _LETTER]
        return Problem(
            f"un{name}", "text: str", "str",
            f"`text` was made from small letters by writing every stretch of {least} or more equal letters as {example} (the "
            f"letter {'followed' if first else 'preceded'} by how many there are) and leaving shorter ones as they were. Return "
            "what it was made from.",
            code(
                """
                result, at = "", 0
                while at < len(text):
                    count = ""
                    $one
                    $two
                    result += letter * int(count or 1)
                return result
                """.replace("$one", parts[0]).replace("$two", parts[1]),
            ),
            lambda r: (
                "".join(
                    (c * n if n < least else f"{c}{n}" if first else f"{n}{c}")
                    for c, n in ((pick(r, "abcxy"), between(r, 1, 12)) for _ in range(between(r, 0, 5)))
                ),
            ),
            (("",), ("b",), ("a12" if first else "12a",)),
        )  # fmt: skip
    mark = pick(rng, "#~^")
    return Problem(
        name, "text: str", "str",
        f"Write each stretch of {least} or more equal characters as `{mark}`, how many there are, and the character in brackets, "
        f"as in {mark}3[a]; shorter stretches stay as they are. A stretch of `{mark}` is written like that whatever its length.",
        code(
            pairs,
            add=f"result += '{mark}' + str(count) + '[' + letter + ']' if count >= {least} or letter == '{mark}' "
            "else letter * count",
        ),
        lambda r: ("".join(pick(r, f"ab7{mark}") * between(r, 1, 4) for _ in range(between(r, 0, 5))),),
        (("",), (mark,), ("a" * least,)),
    )  # fmt: skip


def brackets(rng: np.random.Generator, level: int) -> Problem:
    """What opens and closes."""
    pair = pick(rng, ("()", "[]", "<>"))
    name = pick(rng, ("nesting", "check_brackets", "bracket_depth"))

    def draw(r: np.random.Generator) -> str:
        return letters(r, "()[]<>" if level == 2 else pair + "a", 10)

    if level == 1:
        return Problem(
            name, "text: str", "int",
            f"Return how deep the brackets {pair} of the text nest at its deepest place, 0 without any; or -1 if one closes that "
            "was not opened, or one stays open. Other characters do not matter.",
            code(
                """
                depth = deepest = 0
                for c in text:
                    if c == "$open":
                        depth += 1
                        deepest = max(deepest, depth)
                    elif c == "$close":
                        depth -= 1
                        if depth < 0:
                            return -1
                return deepest if depth == 0 else -1
                """,
                open=pair[0], close=pair[1],
            ),
            lambda r: (draw(r) if r.random() < 0.5 else pair[0] * between(r, 0, 3) + "a" + pair[1] * between(r, 0, 3),),
            (("",), (pair,), (pair[1] + pair[0],), (pair[0] * 3 + pair[1] * 3,)),
        )  # fmt: skip
    if level == 2:
        return Problem(
            name, "text: str", "int",
            "The text holds brackets of the kinds (), [] and <>, and nothing else. Return the position, counted from 0, of the "
            "first bracket that closes one of another kind or none at all; if there is no such, the position of the last one "
            "that stays open; if all is well, -1.",
            code(
                """
                kinds = {")": "(", "]": "[", ">": "<"}
                open_ = []
                for at, c in enumerate(text):
                    if c in kinds:
                        if not open_ or text[open_[-1]] != kinds[c]:
                            return at
                        open_.pop()
                    else:
                        open_.append(at)
                return open_[-1] if open_ else -1
                """
            ),
            lambda r: (draw(r) if r.random() < 0.5 else pick(r, ("([<>])", "<<>[]>", "()[]", "([)]")) + draw(r)[:2],),
            (("",), ("([])<>",), ("([)]",), ("((",)),
        )  # fmt: skip
    plus, times = pick(rng, (("add", "mul"), ("sum", "prod"), ("+", "*")))

    def formula(r: np.random.Generator, depth: int) -> str:
        if depth == 0 or r.random() < 0.3:
            return str(between(r, -9, 9))
        inner = " ".join(formula(r, depth - 1) for _ in range(between(r, 0 if depth < 3 else 1, 3)))
        return f"({pick(r, (plus, times, 'neg'))} {inner})".replace(" )", ")")

    return Problem(
        pick(rng, ("evaluate", "value_of", "compute")), "formula: str", "int",
        f"A formula is a whole number, or brackets around an operation and formulas, with one space between them. `{plus}` adds "
        f"them up (0 without any), `{times}` multiplies them (1 without any), `neg` negates their sum. Return its value.",
        code(
            """
            tokens = formula.replace("(", "( ").replace(")", " )").split()
            at = 0

            def read():
                nonlocal at
                token = tokens[at]
                at += 1
                if token != "(":
                    return int(token)
                operation = tokens[at]
                at += 1
                values = []
                while tokens[at] != ")":
                    values.append(read())
                at += 1
                if operation == "$times":
                    result = 1
                    for v in values:
                        result *= v
                    return result
                return -sum(values) if operation == "neg" else sum(values)

            return read()
            """,
            times=times,
        ),
        lambda r: (formula(r, 3),),
        (("5",), (f"({plus})",), (f"({times})",), (f"(neg 2 ({times} -3 4))",)),
    )  # fmt: skip


def settings(rng: np.random.Generator, level: int) -> Problem:
    """Lines of settings."""
    between_pairs, equals = pick(rng, ((";", "="), (",", ":"), ("|", "=")))
    name = pick(rng, ("read_settings", "parse_options", "load_pairs"))
    keys = ("a", "b", "size", "rate", "x1")

    def pairs(r: np.random.Generator, space: bool) -> str:
        def gap() -> str:
            return " " * between(r, 0, 1) if space else ""

        made = [f"{gap()}{pick(r, keys)}{gap()}{equals}{gap()}{between(r, -9, 40)}{gap()}" for _ in range(between(r, 0, 5))]
        return between_pairs.join(made)

    if level == 1:
        return Problem(
            name, "text: str", "dict[str, int]",
            f"`text` holds pairs like size{equals}5 with `{between_pairs}` between them, or is empty. Return them as a dictionary "
            "from name to number. Of equal names the last one counts.",
            code(
                """
                if not text:
                    return {}
                pairs = (part.split("$equals") for part in text.split("$between"))
                return {name: int(value) for name, value in pairs}
                """,
                equals=equals, between=between_pairs,
            ),
            lambda r: (pairs(r, False),), (("",), (f"a{equals}1{between_pairs}a{equals}-2",)),
        )  # fmt: skip
    says, rule = pick(
        rng,
        (
            ("the first one counts", "result.setdefault(name, number)"),
            ("the largest one counts", "result[name] = max(number, result.get(name, number))"),
            ("they are added up", "result[name] = result.get(name, 0) + number"),
        ),
    )
    if level == 2:
        return Problem(
            name, "text: str", "dict[str, int]",
            f"`text` holds pairs like size{equals}5 with `{between_pairs}` between them. There may be spaces around names and "
            f"numbers. What has no `{equals}`, or no whole number behind the first one, is left out. Of equal names {says}.",
            code(
                """
                result = {}
                for part in text.split("$between"):
                    name, found, value = part.partition("$equals")
                    name = name.strip()
                    try:
                        number = int(value)
                    except ValueError:
                        continue
                    if found:
                        $rule
                return result
                """,
                equals=equals, between=between_pairs, rule=rule,
            ),
            lambda r: (
                between_pairs.join([pairs(r, True), pick(r, ("", "junk", f"a{equals}", f"b{equals}x", f"rate {equals} 7"))]),
            ),
            (("",), (f"a{equals}1{between_pairs} a {equals} 2",), (f"a{equals}1{equals}2",)),
        )  # fmt: skip
    mark = pick(rng, "#%!")

    def lines(r: np.random.Generator) -> str:
        made = []
        for _ in range(between(r, 0, 7)):
            line = f"{pick(r, keys)} {equals} {between(r, -9, 40)}"
            made.append(pick(r, (line, line, line, "[main]", "[other]", f"{mark} note", "", f"{line} {mark} note")))
        return "\n".join(made)

    return Problem(
        name, "text: str", "dict[str, dict[str, int]]",
        f"Read lines: [name] begins a section, `name {equals} number` is a setting in the present section, and what follows "
        f"`{mark}` is a comment; spaces at both ends do not matter, nor do empty lines. Settings before the first section are in "
        f"the section \"\". Of equal names in a section {says}. Return section -> name -> number, without sections that have no "
        "setting.",
        code(
            """
            sections, current = {}, ""
            for line in text.splitlines():
                line = line.partition("$mark")[0].strip()
                if line.startswith("["):
                    current = line[1:-1]
                elif line:
                    name, _, value = (part.strip() for part in line.partition("$equals"))
                    number, result = int(value), sections.setdefault(current, {})
                    $rule
            return sections
            """,
            mark=mark, equals=equals, rule=rule,
        ),
        lambda r: (lines(r),),
        (("",), (f"a {equals} 1\n[main]\na {equals} 2\n[]\na {equals} 3 {mark} x",), ("[main]",)),
    )  # fmt: skip


TEMPLATES = {
    "words": words_changed,
    "cipher": cipher,
    "runs": runs,
    "brackets": brackets,
    "settings": settings,
}
"""By name."""
