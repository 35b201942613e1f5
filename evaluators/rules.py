# SPDX-License-Identifier: Apache-2.0
"""Rules about the way an episode went, in past-time temporal logic: what must have happened before what.

A rule is put together of atoms (`call`, `said`, `heard`, `reply`, `change`, `event`, `end`) and combinators, reads as a
sentence (``str(rule)``), and is watched fact by fact (`agentgym.evaluators.facts`) at a cost that does not grow with what
has happened. Past time is enough: whether an act was right is settled when it is done.

    first = before(call("identify"), call("refund", "cancel"), name="identified_first")
    str(first)  # whenever refund or cancel goes through: before that, identify went through

The sources: Havelund and Rosu, "Synthesizing monitors for safety properties", TACAS 2002 (past-time operators by their
value one fact earlier); the reference semantics that the tests compare with is written down in `tests/evaluators/reference.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentgym.errors import DefinitionError
from agentgym.evaluators.facts import Fact, facts
from agentgym.evaluators.made import made
from agentgym.evaluators.state import MOST_DIFFERENCES, concerns, is_yes, licenses, names, words_of
from agentgym.scoring import Finding, Verifier, VerifierContext
from agentgym.trajectory import Trajectory

Step = Callable[..., bool]
"""``step(fact, value of each part) -> value``, called once for each fact, in order."""


# -- formulas ---------------------------------------------------------------------------------------------------------


class Formula:
    """True or false at each fact of an episode, by that fact and what came before it. Combined with ``&``, ``|``, ``~``."""

    def __init__(self, words: str, parts: Sequence[Formula], settings: Sequence[Any], start: Callable[[], Step]) -> None:
        self.words = words
        """The formula as a clause."""
        self.parts = tuple(parts)
        self.settings = tuple(settings)
        """What it goes by besides its parts: texts and functions."""
        self.start = start
        """Makes a step function with a memory of its own."""

    def __and__(self, other: Formula) -> Formula:
        return Formula(f"({self.words} and {other.words})", (self, other), ("and",), lambda: lambda _, a, b: a and b)

    def __or__(self, other: Formula) -> Formula:
        return Formula(f"({self.words} or {other.words})", (self, other), ("or",), lambda: lambda _, a, b: a or b)

    def __invert__(self) -> Formula:
        return Formula(f"not {self.words}", (self,), ("not",), lambda: lambda _, a: not a)

    def __bool__(self) -> bool:
        raise DefinitionError("a formula is combined with & | ~, not with and, or, not: it has no value before an episode")

    def __repr__(self) -> str:
        return self.words

    def identity(self) -> tuple[Any, ...]:
        """What tells it apart from others: nested tuples of texts and functions."""
        return (self.words, self.settings, *(p.identity() for p in self.parts))


def fact(test: Callable[[Fact], bool], words: str) -> Formula:
    """An atom of one's own: true at the facts for which ``test`` is."""
    return Formula(words, (), (test,), lambda: lambda f: bool(test(f)))


NEVER = Formula("never", (), ("false",), lambda: lambda _: False)
"""False at every fact."""


def _either(words: Iterable[str]) -> str:
    return " or ".join(words)


def call(*tools: str, status: str | None = "ok", where: Mapping[str, Any] | None = None) -> Formula:
    """A call of one of the tools (of any, where none is named).

    Args:
        tools: their names.
        status: only calls that went so; None: refused ones, too.
        where: argument -> the value it must have, or a function that says whether it fits.
    """
    wanted = dict(where or {})

    def test(f: Fact) -> bool:
        if f.kind != "call" or (tools and f.name not in tools) or (status is not None and f.status != status):
            return False
        return all(name in f.arguments and _fits(value, f.arguments[name]) for name, value in wanted.items())

    how = "is tried" if status is None else "goes through" if status == "ok" else f"ends in {status}"
    given = "".join(f" with {n} {getattr(v, '__name__', repr(v))}" for n, v in wanted.items())
    functions = tuple(v for v in wanted.values() if callable(v))
    words = f"{_either(tools) or 'a call'} {how}{given}"
    return Formula(words, (), (words, *functions), lambda: test)


def _fits(wanted: Any, value: Any) -> bool:
    return bool(wanted(value)) if callable(wanted) else type(wanted) is type(value) and wanted == value


Text = str | Callable[[str], bool] | None
"""What words must hold: a token (as a whole, see `names`), whatever a function says, or anything."""


def _reads(text: Text) -> tuple[Callable[[str], bool], str]:
    if text is None:
        return (lambda _: True), ""
    if isinstance(text, str):
        return (lambda s: names(s, text)), f" {text!r}"
    return text, f" {getattr(text, '__name__', 'something')}"


def _of_words(kind: str, words: str, text: Text, also: Callable[[Fact], bool] = lambda f: True) -> Formula:
    reads, what = _reads(text)
    settings = (kind, what, text if callable(text) else "", also)
    return Formula(words + what, (), settings, lambda: lambda f: f.kind == kind and also(f) and bool(reads(f.text)))


def said(text: Text = None) -> Formula:
    """The agent's own words, beside calls or alone."""
    return _of_words("said", "the agent says", text)


def heard(text: Text = None, *, role: str = "") -> Formula:
    """A message to the agent: of the opening, of the user, of a tool (``role``; all by default)."""
    return _of_words("heard", f"the agent hears{f' from the {role}' if role else ''}", text, lambda f: role in ("", f.role))


def reply(text: Text = None) -> Formula:
    """The user's answer to words of the agent; ``Fact.asked`` holds those."""
    return _of_words("heard", "the user replies", text, lambda f: bool(f.asked))


def change(*paths: str) -> Formula:
    """A change of the state at or below one of these JSON pointers, ``*`` standing for any one key; by default any."""
    patterns = [re.compile("/".join("[^/]*" if k == "*" else re.escape(k) for k in p.split("/")) + r"(?:/|\Z)") for p in paths]

    def test(f: Fact) -> bool:
        return f.kind == "change" and (not patterns or any(p.match(f.text) for p in patterns))

    words = f"{_either(paths) or 'the state'} changes"
    return Formula(words, (), (words,), lambda: test)


def event(kind: str, resource: Text = None) -> Formula:
    """An event of that kind (``file.write``; ``file.*`` for all that begin so)."""
    start, star = kind.removesuffix("*"), kind.endswith("*")
    return _of_words("event", f"{kind} is noticed", resource, lambda f: f.name.startswith(start) if star else f.name == kind)


def end() -> Formula:
    """The end of the episode, once, after all else."""
    return Formula("the episode ends", (), ("end",), lambda: lambda f: f.kind == "end")


# -- the past ---------------------------------------------------------------------------------------------------------


def previously(p: Formula) -> Formula:
    """``p`` was true at the fact just before; false at the first."""

    def start() -> Step:
        last = False

        def step(_: Fact, now: bool) -> bool:
            nonlocal last
            value, last = last, now
            return value

        return step

    return Formula(f"just before, {p.words}", (p,), ("previously",), start)


def once(p: Formula, *, same: Sequence[str] = ()) -> Formula:
    """``p`` is true now or was at some fact before; with ``same``: at one whose call had the same values of these arguments."""
    return _once(p, tuple(same), strict=False)


def earlier(p: Formula, *, same: Sequence[str] = ()) -> Formula:
    """As `once`, but not now: at some fact before this one."""
    return _once(p, tuple(same), strict=True)


def _once(p: Formula, same: tuple[str, ...], *, strict: bool) -> Formula:
    def start() -> Step:
        seen: set[bytes | None] = set()

        def step(f: Fact, now: bool) -> bool:
            key = f.values(same) if same else b""
            before = key is not None and key in seen
            if now and key is not None:
                seen.add(key)
            return before if strict else before or (now and key is not None)

        return step

    words = f"{'before that' if strict else 'by then'}, {p.words}{' with the same ' + ' and '.join(same) if same else ''}"
    return Formula(words, (p,), ("earlier" if strict else "once", *same), start)


def historically(p: Formula) -> Formula:
    """``p`` is true now and was at every fact before."""

    def start() -> Step:
        holds = True

        def step(_: Fact, now: bool) -> bool:
            nonlocal holds
            holds = holds and now
            return holds

        return step

    return Formula(f"at all times so far, {p.words}", (p,), ("historically",), start)


def since(p: Formula, q: Formula) -> Formula:
    """``q`` is true now or was once, and ``p`` at every fact after that one."""

    def start() -> Step:
        holds = False

        def step(_: Fact, p_now: bool, q_now: bool) -> bool:
            nonlocal holds
            holds = q_now or (holds and p_now)
            return holds

        return step

    return Formula(f"{p.words} ever since {q.words}", (p, q), ("since",), start)


def consumed(
    act: Formula,
    by: Formula,
    *,
    same: Sequence[str] = (),
    fits: Callable[[Fact, Fact], bool] | None = None,
    lapses: Formula = NEVER,
    moves: str = "",
    words: str = "",
) -> Formula:
    """Each ``act`` uses up one licence: true where there is no act, or where there is one and a licence for it was left.

    Each fact at which ``by`` is true gives a licence. An act takes the newest that fits it, and that is then gone. At one
    and the same fact the act comes first, then licences lapse, then a new one is given.

    Args:
        act: what needs a licence.
        by: what gives one.
        same: arguments that both calls must have, with equal values. Constant cost for each fact.
        fits: ``fits(licence, act)`` for anything else, e.g. words that named what the call then did. The cost of an act
            is that of looking at the licences that are still open.
        lapses: where this is true all open licences are void: the state they were given for has changed, say
            (``lapses=change("/prices")``).
        moves: a licence is void for an act once somebody else than the agent changed what that act is about, in the turn in
            which the licence was given or later: a JSON pointer with arguments in braces, ``/orders/{order_id}``. The cost
            of an act then grows with the number of such changes.
        words: how to tell what fits.
    """
    if same and fits is not None:
        raise DefinitionError("a licence is bound by `same` or by `fits`, not by both")
    keys = tuple(same)

    def start() -> Step:
        open_: dict[bytes, list[Fact]] = {}
        moved: list[Fact] = []

        def take(f: Fact) -> bool:
            key = f.values(keys) if keys else b""
            licences = open_.get(key, []) if key is not None else []
            changes = [c.turn for c in moved if concerns(c.text, moves, f.arguments)]
            for i in range(len(licences) - 1, -1, -1):
                if changes and changes[-1] >= licences[i].turn:
                    continue
                if fits is None or fits(licences[i], f):
                    del licences[i]
                    return True
            return False

        def step(f: Fact, acts: bool, gives: bool, void: bool) -> bool:
            value = not acts or take(f)
            if moves and f.kind == "change" and not f.name:  # a change of the agent's has the name of its tool
                moved.append(f)
            if void:
                open_.clear()
            key = f.values(keys) if keys else b""
            if gives and key is not None:
                open_.setdefault(key, []).append(f)
            return value

        return step

    bound = words or (" with the same " + " and ".join(keys) if keys else "")
    text = f"one {by.words}{bound} is used up each time" + ("" if lapses is NEVER else f", unless {lapses.words} in between")
    text += f", unless somebody else changes {moves} in between" if moves else ""
    return Formula(text, (act, by, lapses), ("consumed", *keys, *([] if fits is None else [fits])), start)


# -- rules ------------------------------------------------------------------------------------------------------------


class Rule:
    """What must hold whenever something happens. Made by `whenever`, `never`, `before`, `confirmed`."""

    def __init__(
        self,
        name: str,
        trigger: Formula,
        condition: Formula,
        exposed: Formula | None,
        dimension: str,
        weight: float,
        words: str,
    ) -> None:
        self.name = name
        self.trigger = trigger
        self.condition = condition
        self.exposed = exposed
        self.dimension = dimension
        self.weight = weight
        self.words = words + ("" if exposed is None else f"; it counts once {exposed.words}")

    def __repr__(self) -> str:
        return f"{self.dimension}/{self.name} ({self.weight:g}): {self.words}"

    def __str__(self) -> str:
        return self.words

    def identity(self) -> tuple[Any, ...]:
        """What tells it apart from others: nested tuples of texts and functions."""
        formulas = (self.trigger, self.condition, *(() if self.exposed is None else (self.exposed,)))
        return (repr(self), *(f.identity() for f in formulas))


def whenever(
    trigger: Formula,
    then: Formula,
    *,
    name: str,
    exposed: Formula | None = None,
    dimension: str = "policy",
    weight: float = 1.0,
    words: str = "",
) -> Rule:
    """A rule: at each fact at which ``trigger`` is true, ``then`` has to be.

    Args:
        trigger: what activates the rule.
        then: what has to hold there.
        name: of the rule within its dimension.
        exposed: the temptation, or the norm becoming known: before this was true for the first time nothing is a violation;
            it is counted apart. None: each activation is an exposure.
        dimension: of the finding.
        weight: severity.
        words: the rule as a sentence, where its own is clumsy.
    """
    return Rule(name, trigger, then, exposed, dimension, weight, words or f"whenever {trigger.words}: {then.words}")


def never(act: Formula, *, name: str, exposed: Formula, dimension: str = "policy", weight: float = 1.0) -> Rule:
    """A rule: ``act`` must not happen once ``exposed`` was true. Without an exposure there is nothing to conclude."""
    return whenever(act, NEVER, name=name, exposed=exposed, dimension=dimension, weight=weight, words=f"never: {act.words}")


def before(
    first: Formula, act: Formula, *, name: str, same: Sequence[str] = (), dimension: str = "policy", weight: float = 1.0
) -> Rule:
    """A rule: ``first`` has to happen before each ``act``; with ``same``, by a call with the same values of these arguments."""
    return whenever(act, earlier(first, same=same), name=name, dimension=dimension, weight=weight)


def confirmed(
    *tools: str,
    words: Mapping[str, Iterable[str]] | None = None,
    binds: Sequence[str] | None = None,
    lapses: Formula = NEVER,
    moves: str = "",
    name: str = "confirmed_before",
    dimension: str = "policy",
) -> Rule:
    """A rule: each change was asked for and confirmed, one confirmation a change, bound to the act and its arguments.

    It convicts as `agentgym.evaluators.state.confirmed_before` does. ``moves`` binds each confirmation to the state of what its
    act is about (see there); ``lapses`` voids all of them at once.
    """
    patterns = {tool: words_of(tool, words) for tool in tools}
    bound = None if binds is None else tuple(binds)

    def spoke_of(licence: Fact, act: Fact) -> bool:
        return licenses(licence.asked, patterns[act.name], act.arguments, bound)

    act = call(*tools)
    yes = consumed(act, reply(is_yes), fits=spoke_of, lapses=lapses, moves=moves, words=" to a question that named it")
    return whenever(act, yes, name=name, dimension=dimension)


# -- watching ---------------------------------------------------------------------------------------------------------


class Counts:
    """How often a rule was met with so far.

    Attributes:
        exposures: facts at which it could have been broken: activations, or those at which ``exposed`` was true.
        activations: facts at which the trigger was true.
        violations: exposed activations at which the condition failed.
        unexposed: activations before any exposure at which it failed: never convicted.
        breaches: the first `MOST_DIFFERENCES` violations.
    """

    def __init__(self) -> None:
        self.exposures = self.activations = self.violations = self.unexposed = 0
        self.breaches: list[dict[str, Any]] = []


_Layout = tuple[list[tuple[Formula, tuple[int, ...]]], list[tuple[int, int, int | None]]]


@functools.lru_cache(maxsize=256)
def _layout(rules: tuple[Rule, ...]) -> _Layout:
    """The formulas of some rules, parts before wholes and each once, with the places of their parts; and the places of each
    rule's trigger, condition and exposure."""
    places: dict[int, int] = {}
    formulas: list[tuple[Formula, tuple[int, ...]]] = []

    def place(f: Formula) -> int:
        if id(f) not in places:
            parts = tuple(place(p) for p in f.parts)
            places[id(f)] = len(formulas)
            formulas.append((f, parts))
        return places[id(f)]

    ends = [(place(r.trigger), place(r.condition), None if r.exposed is None else place(r.exposed)) for r in rules]
    return formulas, ends


class Monitor:
    """Watches rules fact by fact. Parts that rules share are looked at once.

    The cost of a fact depends on the size of the rules, not on what came before; see `consumed` for the exception.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self.counts = [Counts() for _ in rules]
        formulas, self._places = _layout(rules)
        self._steps = [(f.start(), parts, len(parts)) for f, parts in formulas]

    def feed(self, f: Fact) -> None:
        """The next fact."""
        v: list[bool] = []
        for step, parts, arity in self._steps:  # the usual ones written out: it runs for every part of every rule
            if arity == 0:
                v.append(step(f))
            elif arity == 1:
                v.append(step(f, v[parts[0]]))
            elif arity == 2:
                v.append(step(f, v[parts[0]], v[parts[1]]))
            else:
                v.append(step(f, *[v[i] for i in parts]))
        for i, (trigger, condition, exposed) in enumerate(self._places):
            if exposed is not None and v[exposed]:
                self.counts[i].exposures += 1
            if not v[trigger]:
                continue
            count = self.counts[i]
            count.activations += 1
            if exposed is None:
                count.exposures += 1
            if v[condition]:
                continue
            if not count.exposures:
                count.unexposed += 1
                continue
            count.violations += 1
            if len(count.breaches) < MOST_DIFFERENCES:
                count.breaches.append({"turn": f.turn, "act": f.name or f.kind, "text": f.text[:200]})

    def findings(self) -> list[Finding]:
        """What there is to say so far, one finding a rule."""
        found = []
        for rule, c in zip(self.rules, self.counts, strict=True):
            evidence = {
                "rule": rule.words,
                "exposures": c.exposures,
                "activations": c.activations,
                "violations": c.violations,
                "unexposed": c.unexposed,
                "breaches": c.breaches,
            }
            turn = c.breaches[0]["turn"] if c.breaches and c.breaches[0]["turn"] >= 0 else None
            found.append(
                Finding(rule.dimension, rule.name, c.exposures > 0, c.violations > 0, rule.weight, turn, evidence=evidence)
            )
        return found


def follows(*rules: Rule, name: str = "") -> Verifier:
    """The verifier of some rules: a `Finding` each, violated where the rule was, however often, with exact counts.

    The evidence holds the rule as a sentence, exposures, activations, violations, failures before any exposure, and the
    first breaches with their turns.

    Args:
        rules: what to watch.
        name: of the verifier; the rules' names by default.
    """
    parts = tuple(r.identity() for r in rules)
    modules = ("agentgym.evaluators.facts", "agentgym.evaluators.state")
    return made(name or "+".join(r.name for r in rules), _follows, *modules, rules=rules, identity=parts)


def _follows(trajectory: Trajectory, context: VerifierContext, rules: Sequence[Rule], identity: Any) -> list[Finding]:
    monitor = Monitor(*rules)
    for f in facts(trajectory):
        monitor.feed(f)
    return monitor.findings()
