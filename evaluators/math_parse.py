# SPDX-License-Identifier: Apache-2.0
r"""A bounded parser of written mathematics, LaTeX or plain: text in, a tree of plain tuples out. Nothing is executed.

A node is a tuple whose first item says what it is:

- ``("num", p, q, plain)``: the exact p/q; ``plain`` where it was written as one literal;
- ``("sym", name)``, ``("const", "pi" | "e" | "i" | "oo")``, ``("text", words)``;
- ``("add", a, b...)``, ``("mul", a, b...)``, ``("neg", a)``, ``("div", a, b)``, ``("pow", a, b)``, ``("fn", name, a...)``;
- ``("pm", a, b)``: a plus or minus b; ``("base", digits, base)``; ``("ratio", a, b...)``;
- ``("list", a...)``: alternatives or several values; ``("seq", open, close, a...)``: tuples and intervals; ``("set", a...)``;
- ``("union", op, a, b...)``; ``("matrix", columns, a...)`` by rows; ``("rel", operator, a, b)``; ``("chain", rel...)``.

What cannot be read raises `Unreadable`, never a guess; the cost is linear in the text, which has at most `LONGEST` characters.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agentgym.evaluators.math_tokens import LONGEST, Unreadable, tokens

__all__ = ["LONGEST", "Node", "Unreadable", "parse"]

Node = tuple[Any, ...]

DEEPEST = 40
"""Brackets inside each other."""

FUNCTIONS = frozenset(
    (
        "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln",
        "exp", "sqrt", "abs", "floor", "ceil", "gcd", "lcm", "min", "max", "det",
    )
)  # fmt: skip
_ALIAS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
_CALCULUS = frozenset(("sum", "prod", "int", "lim", "iint", "oint"))
_GREEK = frozenset(
    (
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
        "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega",
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar",
        "triangle", "angle", "Re", "Im",
    )
)  # fmt: skip
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=", "\\ge": ">=",
    "\\geq": ">=", "\\ne": "!=", "\\neq": "!=", "\\lt": "<", "\\gt": ">", "\\in": "in", "\\approx": "~", "\\equiv": "==",
    "\\leqslant": "<=", "\\geqslant": ">=", "==": "=", "\\sim": "~", "\\notin": "notin", "\\to": "to",
}  # fmt: skip
_WORDS = frozenset(
    (
        "no", "not", "nor", "is", "are", "if", "to", "at", "of", "than", "but", "yes", "was", "for", "by", "as", "so",
        "the", "any", "all",
    )
)  # fmt: skip
_OPERATORS = frozenset(("+", "-", "*", "/", "\\cdot", "\\times", "\\div", "\\pm", "\\mp"))


def parse(text: str) -> Node:
    r"""The tree of a text.

    Raises:
        Unreadable: what is no mathematics, or too long, or too deep.

    >>> parse(r"\frac12"), parse("x^2")
    (('div', ('num', 1, 1, True), ('num', 2, 1, True)), ('pow', ('sym', 'x'), ('num', 2, 1, True)))
    """
    parser = _Parser(tokens(text))
    node = parser.all()
    if parser.kind():
        raise Unreadable(f"unexpected {parser.value()!r}")
    return node


def _number(text: str) -> Node:
    value = Fraction(text if text[0] != "." else "0" + text)
    return ("num", value.numerator, value.denominator, True)


ONE: Node = ("num", 1, 1, True)


class _Parser:
    """Recursive descent over the tokens; every step consumes one, so that it ends."""

    def __init__(self, tokens: list[tuple[str, str, bool]]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0

    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def value(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise Unreadable("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def accept(self, *values: str) -> str:
        """Takes the next token where it is one of these operators."""
        if self.kind() in ("op", "cmd", "word") and self.value() in values:
            return self.take()
        return ""

    def expect(self, value: str) -> None:
        if not self.accept(value):
            raise Unreadable(f"no {value!r}")

    def all(self) -> Node:
        """Everything: values with commas, semicolons, "and" or "or" between them."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("too deep")
        items = [self.relation()]
        several = False
        while True:
            if self.accept(",", ";"):
                several = True
                self.accept("and", "or")
            elif not self.accept("and", "or", "\\lor", "\\land"):
                break
            several = True
            if not self.kind() or self.value() in (")", "]", "}", "\\}"):
                raise Unreadable("a comma without a value")
            items.append(self.relation())
        self.depth -= 1
        return ("list", *items) if several else items[0]

    def relation(self) -> Node:
        sides = [self.union()]
        operators = []
        while self.kind() in ("op", "cmd") and self.value() in _RELATIONS:
            operators.append(_RELATIONS[self.take()])
            sides.append(self.union())
        relations = [("rel", o, a, b) for o, a, b in zip(operators, sides, sides[1:], strict=False)]
        if not relations:
            return sides[0]
        return relations[0] if len(relations) == 1 else ("chain", *relations)

    def union(self) -> Node:
        node = self.ratio()
        while operator := self.accept("\\cup", "\\cap", "\\setminus"):
            right = self.ratio()
            node = (*node, right) if node[0] == "union" and node[1] == operator else ("union", operator, node, right)
        return node

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.accept(":"):
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else ("ratio", *parts)

    def sum(self) -> Node:
        if operator := self.accept("\\pm", "\\mp"):
            node: Node = ("pm", ("num", 0, 1, True), self.product())
        else:
            node = self.product()
        while operator := self.accept("+", "-", "\\pm", "\\mp"):
            right = self.product()
            if operator in ("\\pm", "\\mp"):
                node = ("pm", node, right)
            else:
                right = right if operator == "+" else ("neg", right)
                node = (*node, right) if node[0] == "add" else ("add", node, right)
        return node

    def product(self) -> Node:
        if self.accept("-"):
            return ("neg", self._deeper(self.product))
        if self.accept("+"):
            return self._deeper(self.product)
        node = self.power()
        while True:
            if node[0] == "text" and (self.begins_factor() or self.value() in _OPERATORS):
                raise Unreadable("words among the mathematics")
            if self.accept("*", "\\cdot", "\\times"):
                right = self.signed()
                node = (*node, right) if node[0] == "mul" else ("mul", node, right)
            elif self.accept("/", "\\div"):
                node = ("div", node, self.signed())
            elif self.begins_factor():
                if self.kind() == "num":
                    raise Unreadable("two numbers side by side")
                right = self.power()
                if right[0] == "text":
                    raise Unreadable("words among the mathematics")
                node = (*node, right) if node[0] == "mul" else ("mul", node, right)
            else:
                return node

    def signed(self) -> Node:
        if self.accept("-"):
            return ("neg", self._deeper(self.signed))
        return self.power()

    def _deeper(self, what: Any) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("too deep")
        node: Node = what()
        self.depth -= 1
        return node

    def begins_factor(self) -> bool:
        kind, value = self.kind(), self.value()
        if kind in ("num", "name", "begin"):
            return True
        if kind == "word":
            return value not in ("and", "or")
        if kind == "cmd":
            known = value[1:] in _GREEK or value[1:] in FUNCTIONS or value[1:] in _CALCULUS
            return known or value in ("\\frac", "\\pi", "\\infty", "\\binom", "\\{", "\\lfloor", "\\lceil", "\\overline")
        return kind == "op" and (value in ("(", "[", "{") or (value == "|" and not self.bars))

    def power(self) -> Node:
        """An atom with what is written behind it: powers, factorials, primes."""
        node = self.atom()
        while True:
            if self.accept("^", "**"):
                node = self.raised(node)
            elif self.accept("!"):
                node = ("fn", "factorial", node)
            elif self.accept("'"):
                node = ("fn", "prime", node)
            else:
                return node

    def raised(self, node: Node) -> Node:
        """A power, or what is written like one: a derivative, a transpose."""
        if self.accept("'", "\\prime"):
            return ("fn", "prime", node)
        if self.accept("T"):
            return ("fn", "transpose", node)
        return ("pow", node, self._deeper(self.exponent))

    def exponent(self) -> Node:
        if self.accept("-"):
            return ("neg", self._deeper(self.exponent))
        if self.kind() == "num" and self.at and self.tokens[self.at - 1][1] == "^":
            # LaTeX: x^23 is x^2 3; plain text means 23, as everybody who writes x^23 does
            return _number(self.take())
        node = self.atom()
        while self.accept("^", "**"):
            node = ("pow", node, self._deeper(self.exponent))
        return node

    def braced(self) -> Node:
        """An argument: what stands in braces, else one digit, letter or command."""
        if self.accept("{"):
            node = self.all()
            self.expect("}")
            return node
        if self.kind() == "num":
            digits = self.value()
            if len(digits) > 1 and "." not in digits:  # \frac12
                self.tokens[self.at] = ("num", digits[1:], False)
                return _number(digits[0])
        if self.kind() == "word" and len(self.value()) > 1:
            letters = self.value()
            self.tokens[self.at] = ("word", letters[1:], False)
            return _letter(letters[0])
        return self.atom()

    def atom(self) -> Node:
        kind = self.kind()
        if kind == "num":
            return self.number()
        if kind == "word":
            return self.word()
        if kind == "name":
            return self.name(self.take())
        if kind == "cmd":
            return self.command()
        if kind == "begin":
            return self.matrix()
        value = self.take() if kind else ""
        if value in ("(", "["):
            return self.bracket(value)
        if value == "{":
            node = self.all()
            self.expect("}")
            return self.subscript(node) if node[0] == "sym" else node
        if value == "|":
            self.bars += 1
            node = self.all()
            self.bars -= 1
            self.expect("|")
            return ("fn", "abs", node)
        raise Unreadable(f"unexpected {value!r}")

    def bracket(self, opened: str) -> Node:
        bars, self.bars = self.bars, 0
        node = self.all()
        self.bars = bars
        closed = self.accept(")", "]")
        if not closed:
            raise Unreadable("an open bracket")
        if node[0] == "list":
            return ("seq", opened, closed, *node[1:])
        if node[0] == "matrix":
            return node
        if (opened, closed) == ("(", ")"):
            return node
        if (opened, closed) == ("[", "]"):
            return ("seq", "[", "]", node)
        raise Unreadable("brackets that do not belong together")

    def number(self) -> Node:
        digits = self.take()
        if self.accept("_"):
            below = self.braced()
            if below[0] != "num" or below[2] != 1 or "." in digits:
                raise Unreadable("a base that is no number")
            return ("base", digits.lstrip("0") or "0", below[1])
        whole = _number(digits)
        part = self.mixed() if "." not in digits else None
        return whole if part is None else ("add", whole, part)

    def mixed(self) -> Node | None:
        """The fraction right behind a whole number: 1 4/5. It looks ahead and parses nothing twice."""
        ahead = self.tokens[self.at : self.at + 7]
        if not ahead or ahead[0][:2] != ("cmd", "\\frac"):
            return None
        numbers: list[str] = []
        at = 1
        while len(numbers) < 2:
            kinds = [kind for kind, _, _ in ahead[at : at + 3]]
            values = [value for _, value, _ in ahead[at : at + 3]]
            if kinds[:1] == ["num"]:
                numbers += values[0] if not numbers and len(values[0]) == 2 else [values[0]]
                at += 1
            elif len(values) == 3 and values[0] == "{" and kinds[1] == "num" and values[2] == "}":
                numbers.append(values[1])
                at += 3
            else:
                return None
        if not all(n.isdigit() for n in numbers) or int(numbers[0]) >= int(numbers[1]):
            return None
        self.at += at
        return ("div", _number(numbers[0]), _number(numbers[1]))

    def word(self) -> Node:
        word = self.take()
        if word in _WORDS:
            raise Unreadable("words among the mathematics")
        if word in ("pi", "inf", "infty", "infinity", "oo"):
            return ("const", "pi" if word == "pi" else "oo")
        if _ALIAS.get(word, word) in FUNCTIONS:
            return self.function(_ALIAS.get(word, word))
        if len(word) == 1:
            return self.subscript(_letter(word))
        if word.isupper():  # the points of a segment or a triangle: AB is no product
            return ("sym", word)
        if not word.islower() or len(word) > 3:
            return self.glued(word)
        for i in range(1, len(word)):
            if _ALIAS.get(word[i:], word[i:]) in FUNCTIONS or word[i:] == "pi":
                rest = [*word[1:i], word[i:]]
                break
        else:
            rest = list(word[1:])
        # one letter at a time: what is written behind it belongs to the last one, as in xy^2
        self.tokens[self.at : self.at] = [("word", w, False) for w in rest]
        return _letter(word[0])

    def glued(self, word: str) -> Node:
        """``3sinx`` and ``xsqrt2``; any other long word is a word: East is no product of four variables, nor is it seat."""
        for known in ("sqrt", "sin", "cos", "tan", "log", "exp"):
            before, found, after = word.partition(known)
            if found and len(before) <= 1 and len(after) <= 1 and word.islower():
                rest = [("word", w, False) for w in (known, after) if w]
                self.tokens[self.at : self.at] = rest
                return _letter(before) if before else self.word()
        return ("text", word)

    def name(self, name: str) -> Node:
        if name in FUNCTIONS:
            return self.function(name)
        return _letter(name) if len(name) == 1 else ("sym", name)

    def subscript(self, node: Node) -> Node:
        if self.accept("_"):
            below = self._deeper(self.braced)
            if node[0] == "sym" or node[0] == "const":
                return ("fn", "index", ("sym", str(node[1])), below)
        if node[0] == "sym" and node[1] in ("f", "g", "h") and self.value() == "(" and self.kind() == "op":
            self.take()
            inside = self.bracket("(")
            return ("fn", "call", node, *(inside[3:] if inside[0] == "seq" else (inside,)))
        return node

    def command(self) -> Node:
        name = self.take()[1:]
        if name == "frac":
            above = self._deeper(self.braced)
            below = self._deeper(self.braced)
            if _differential(above) and _differential(below) and below[0] == "mul":
                raise Unreadable("a derivative")  # no quotient of products with a d
            return ("div", above, below)
        if name == "binom":
            above = self._deeper(self.braced)
            return ("fn", "binom", above, self._deeper(self.braced))
        if name in ("pi", "infty"):
            return ("const", "pi" if name == "pi" else "oo")
        if name in ("overline", "bar", "vec", "hat"):
            return ("fn", name, self._deeper(self.braced))
        if name == "sqrt" and self.value() == "[":
            self.take()
            index = self.sum()
            self.expect("]")
            return ("pow", self._deeper(self.braced), ("div", ONE, index))
        if name in FUNCTIONS:
            return self.function(name)
        if name == "{":
            node = self.all() if self.value() != "\\}" else ("list",)
            if self.accept("|"):
                raise Unreadable("a set with a condition")
            self.expect("\\}")
            return ("set", *node[1:]) if node[0] == "list" else ("set", node)
        if name in ("lfloor", "lceil"):
            node = self.all()
            self.expect("\\r" + name[1:])
            return ("fn", name[1:], node)
        if name in _CALCULUS:
            return self.calculus(name)
        if name in ("emptyset", "varnothing"):
            return ("set",)
        if name in _GREEK:
            return self.subscript(("sym", name))
        raise Unreadable(f"unknown command {name}")

    def calculus(self, name: str) -> Node:
        parts: list[Node] = [("fn", mark, self._deeper(self.braced)) for mark in ("_", "^", "_") if self.accept(mark)]
        return ("fn", name, *parts, self._deeper(self.product))

    def function(self, name: str) -> Node:
        if name == "sqrt":
            return ("pow", self._deeper(self.braced), ("div", ONE, ("num", 2, 1, True)))
        power: Node | None = None
        if name == "log" and self.accept("_"):
            base: Node | None = self._deeper(self.braced)
        else:
            base = None
        if self.accept("^", "**"):
            power = self._deeper(self.exponent)
        if self.accept("("):
            inside = self.bracket("(")
            arguments = list(inside[3:]) if inside[0] == "seq" else [inside]
        else:
            self.depth += 1
            if self.depth > DEEPEST:
                raise Unreadable("too deep")
            factors = [self.signed()]
            while self.begins_factor() and not (self.kind() == "cmd" and self.value()[1:] in FUNCTIONS - {"sqrt"}):
                factors.append(self.power())
            self.depth -= 1
            arguments = [factors[0] if len(factors) == 1 else ("mul", *factors)]
        if name == "exp":
            node: Node = ("pow", ("const", "e"), arguments[0])
        elif base is not None:
            node = ("div", ("fn", "ln", arguments[0]), ("fn", "ln", base))
        else:
            node = ("fn", name, *arguments)
        if power is not None:
            if power == ("neg", ONE):
                node = ("fn", "arc" + name, *arguments)
            else:
                node = ("pow", node, power)
        return node

    def matrix(self) -> Node:
        name = self.take()
        if "matrix" not in name and "array" not in name:
            raise Unreadable(f"unknown {name}")
        rows: list[list[Node]] = [[]]
        while self.kind() and self.kind() != "end":
            rows[-1].append(self.relation())
            if self.accept("&"):
                continue
            if self.accept("\\\\"):
                rows.append([])
            elif self.kind() != "end":
                raise Unreadable("an unexpected entry of a matrix")
        self.take()
        if not rows[-1]:
            rows.pop()
        if not rows or len({len(row) for row in rows}) > 1:
            raise Unreadable("rows of different lengths")
        return ("matrix", len(rows[0]), *(cell for row in rows for cell in row))


def _differential(node: Node) -> bool:
    """Whether it is d, or d times something: dx."""
    return node == ("sym", "d") or (node[0] == "mul" and node[1] == ("sym", "d"))


def _letter(c: str) -> Node:
    return ("const", c) if c in ("e", "i") else ("sym", c)
