# SPDX-License-Identifier: Apache-2.0
"""Small changes of a detector, each of which should change a verdict: of its source, and of its rules.

Source is changed in memory: the functions that a verifier reaches get other code objects for as long as a change is tried, and
their own again afterwards. Only functions of the environment's own modules are changed; what comes from the library of
verifiers has tests of its own.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import functools
import inspect
import linecache
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from agentgym.env import ChatEnv
from agentgym.evaluators.rules import NEVER, Formula, Rule, consumed, earlier, once
from agentgym.scoring import Verifier

ALWAYS = ~NEVER
"""True at every fact."""


class Place(NamedTuple):
    """Where a function stands."""

    file: str
    qualname: str
    line: int


class Reached(NamedTuple):
    """What a verifier runs of the environment's own modules."""

    functions: dict[Place, list[FunctionType]]
    caches: list[Any]
    """Functions that keep what they returned."""
    rules: list[Rule]


class Change(NamedTuple):
    """One change of source."""

    place: Place
    line: int
    text: str
    """``function: before -> after``."""
    codes: dict[tuple[str, int, int], CodeType]
    """The changed code of the function and of what is defined in it, by `_key`."""


# -- what a verifier reaches ------------------------------------------------------------------------------------------


def own_files(cls: type[ChatEnv]) -> Callable[[str], bool]:
    """Tells files whose functions are an environment's own: its module's, and those of the package that this is in."""
    files, folders = set(), set()
    for c in cls.__mro__:
        core = c.__module__.startswith("agentgym.") and not c.__module__.startswith("agentgym.tasks.")
        if core or not issubclass(c, ChatEnv) or c.__module__ in ("gymnasium.core", "builtins"):
            continue
        module = inspect.getmodule(c)
        if module is None or not getattr(module, "__file__", None):
            continue
        file = os.path.realpath(str(module.__file__))
        files.add(file)
        if module.__package__:
            folders.add(os.path.dirname(file))

    def own(file: str) -> bool:
        real = os.path.realpath(file)
        return real in files or os.path.dirname(real) in folders

    return functools.cache(own)


def reached(verifier: Verifier, own: Callable[[str], bool]) -> Reached:
    """The functions, caches and rules that a verifier uses, as far as they can be found without running it."""
    found = Reached({}, [], [])
    seen: set[int] = set()
    stack: list[Any] = [verifier]
    methods: list[tuple[str, Any]] = []
    while stack:
        thing = stack.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            if isinstance(thing, type):
                methods += _methods(thing, own)
            else:
                stack += _parts(thing, own, found)
        if not stack:  # of a class only what somebody names
            named = {n for place in found.functions.values() for f in place for n in _names(f.__code__)}
            stack = [m for name, m in methods if (name in named or name.startswith("__")) and id(m) not in seen]
    return found


def _methods(cls: type, own: Callable[[str], bool]) -> list[tuple[str, Any]]:
    module = inspect.getmodule(cls)
    if issubclass(cls, ChatEnv) or module is None or not own(getattr(module, "__file__", None) or ""):
        return []
    return [(name, getattr(v, "__func__", getattr(v, "fget", v))) for name, v in vars(cls).items()]


def _parts(thing: Any, own: Callable[[str], bool], found: Reached) -> list[Any]:
    if isinstance(thing, Verifier):
        return [thing.function]
    if isinstance(thing, FunctionType):
        return _parts_of_function(thing, own, found)
    if isinstance(thing, MethodType):
        return [thing.__func__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, Mapping):
        return list(thing.values())[:1000]
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)[:1000]
    if isinstance(thing, Rule):
        found.rules.append(thing)
        return [thing.trigger, thing.condition, thing.exposed]
    if isinstance(thing, Formula):
        return [*thing.parts, *thing.settings, thing.start]
    if hasattr(thing, "cache_clear") and hasattr(thing, "__wrapped__"):
        found.caches.append(thing)
        return [thing.__wrapped__]
    settings = getattr(thing, "settings", None)  # what `made` closes over
    return [settings] if isinstance(settings, Mapping) else []


def _parts_of_function(f: FunctionType, own: Callable[[str], bool], found: Reached) -> list[Any]:
    parts: list[Any] = [*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()]
    for cell in f.__closure__ or ():
        with contextlib.suppress(ValueError):
            parts.append(cell.cell_contents)
    code = f.__code__
    if not own(code.co_filename):
        return parts
    place = Place(code.co_filename, code.co_qualname, code.co_firstlineno)
    found.functions.setdefault(place, []).append(f)
    names = _names(code)
    for name in _globals(code) & f.__globals__.keys():
        value = f.__globals__[name]
        if isinstance(value, ModuleType):
            if own(getattr(value, "__file__", None) or ""):
                parts += [getattr(value, n) for n in names if hasattr(value, n)]
        else:
            parts.append(value)
    return parts


def _globals(code: CodeType) -> set[str]:
    """The names that are looked up in the module: an attribute of that name is another thing."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals(const) for const in code.co_consts if isinstance(const, CodeType)))


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= _names(const)
    return names


# -- changes of source ------------------------------------------------------------------------------------------------

_FLIPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}

_TELLING = ("evidence", "reason", "flags")
"""Arguments and variables that are for people: what stands in them decides nothing. Nor does what only goes into them."""

_LONG = 20
"""A text that is cut to a written number of characters, at least so many, is cut for people to read."""


class _Site(NamedTuple):
    parent: ast.AST
    field: str
    at: int | None
    new: Any
    line: int
    before: str
    after: str


def changes(functions: Mapping[Place, Sequence[FunctionType]]) -> list[Change]:
    """All changes of these functions, by file and line. A file without readable source has none."""
    found = []
    for file in sorted({p.file for p in functions}):
        source = "".join(linecache.getlines(file))
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
        wanted = {(p.qualname, p.line): p for p in functions if p.file == file}
        for statement in tree.body:
            for place, node in _defined(statement, wanted):
                found += list(_of_function(place, node, statement, future))
    return found


def _defined(statement: ast.stmt, wanted: Mapping[tuple[str, int], Place]) -> list[tuple[Place, ast.AST]]:
    """The outermost functions of a statement that are wanted."""
    found: list[tuple[Place, ast.AST]] = []

    def visit(node: ast.AST, scope: str) -> None:
        for child in ast.iter_child_nodes(node):
            look(child, scope)

    def look(node: ast.AST, scope: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            name = node.name if isinstance(node, ast.FunctionDef) else "<lambda>"
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            line = min([node.lineno, *(d.lineno for d in decorators)])
            place = wanted.get((scope + name, line))
            if place is not None:
                found.append((place, node))
            else:
                visit(node, f"{scope}{name}.<locals>.")
        else:
            visit(node, f"{scope}{node.name}." if isinstance(node, ast.ClassDef) else scope)

    look(statement, "")
    return found


def _of_function(place: Place, node: ast.AST, statement: ast.stmt, future: list[Any]) -> Iterator[Change]:
    for site in _sites(node):
        old = getattr(site.parent, site.field)
        if site.at is None:
            setattr(site.parent, site.field, site.new)
        else:
            old, whole = old[site.at], old
            whole[site.at] = site.new
        try:
            module = ast.Module(body=[*future, statement], type_ignores=[])
            code = compile(ast.fix_missing_locations(module), place.file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        finally:
            if site.at is None:
                setattr(site.parent, site.field, old)
            else:
                whole[site.at] = old
        text = f"{place.qualname.replace('.<locals>', '')}: {site.before} -> {site.after}"
        yield Change(place, site.line, text, _codes(code))


def _codes(code: CodeType) -> dict[tuple[str, int, int], CodeType]:
    """Every code object in ``code`` by name, line and how many of that name and line stand before it."""
    found: dict[tuple[str, int, int], CodeType] = {}

    def walk(c: CodeType) -> None:
        for const in c.co_consts:
            if isinstance(const, CodeType):
                nth = sum(k[:2] == (const.co_qualname, const.co_firstlineno) for k in found)
                found[const.co_qualname, const.co_firstlineno, nth] = const
                walk(const)

    walk(code)
    return found


def _text(node: Any) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _sites(function: ast.AST) -> Iterator[_Site]:
    """Where a function can be changed, and what would stand there."""
    if isinstance(function, ast.FunctionDef):
        body = function.body
        first = body[0].lineno
        yield _Site(function, "body", None, [ast.Return(ast.Constant(None))], first, "its body", "return None")
    stack: list[tuple[ast.AST, str, int | None, ast.AST]] = []

    def put(node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("args", "decorator_list", "returns", "annotation") and isinstance(
                node, (ast.FunctionDef, ast.Lambda, ast.AnnAssign)
            ):
                continue
            if isinstance(value, ast.AST):
                stack.append((node, field, None, value))
            elif isinstance(value, list):
                stack.extend((node, field, i, v) for i, v in enumerate(value) if isinstance(v, ast.AST))

    put(function)
    telling = _telling(function)
    while stack:
        parent, field, index, node = stack.pop()
        if _only_tells(node, telling):
            continue
        for new, before in _replacements(node, parent, field):
            yield _Site(parent, field, index, new, getattr(node, "lineno", 0), before or _text(node), _text(new))
        put(node)


def _only_tells(node: ast.AST, telling: Collection[str]) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in (*_TELLING, "strict")  # of `zip`: a check that nothing is wrong, and no decision
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Name) and node.target.id in telling
    if isinstance(node, ast.Assign):
        return all(isinstance(t, ast.Name) and t.id in telling for t in node.targets)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _grown(node) in telling
    if isinstance(node, ast.Slice) and isinstance(node.upper, ast.Constant) and isinstance(node.upper.value, int):
        return node.lower is None and node.upper.value >= _LONG
    return isinstance(node, (ast.JoinedStr, ast.Raise))


def _grown(node: ast.Expr) -> str:
    """The variable whose list a statement lengthens, as ``NAME.append(...)``."""
    f = node.value.func if isinstance(node.value, ast.Call) else None
    known = isinstance(f, ast.Attribute) and f.attr in ("append", "extend") and isinstance(f.value, ast.Name)
    return f.value.id if known else ""  # type: ignore[union-attr]


def _telling(function: ast.AST) -> set[str]:
    """`_TELLING`, and the variables of a function that are read for these alone."""
    given = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    telling = set(_TELLING)
    while True:
        read: set[str] = set()
        stack = [function]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                read.add(node.id)
            elif isinstance(node, ast.Expr) and (name := _grown(node)):
                if name not in telling:  # the list is not read by that, what it gets is
                    stack += node.value.args  # type: ignore[attr-defined]
            elif not _only_tells(node, telling):
                stack += ast.iter_child_nodes(node)
        if given - read <= telling:
            return telling
        telling |= given - read


def _replacements(node: ast.AST, parent: ast.AST, field: str) -> Iterator[tuple[Any, str]]:
    """What could stand in place of a node; and what is told to have stood there, where that is not the node."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for flipped in _FLIPS[type(op)]:
                ops = [flipped() if j == i else o for j, o in enumerate(node.ops)]
                yield ast.Compare(node.left, ops, node.comparators), ""
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values), ""
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand, ""
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value), ""
        elif isinstance(node.value, (int, float)):
            yield ast.Constant(node.value + 1), ""
    elif isinstance(node, ast.For):
        new = ast.For(node.target, node.iter, [*node.body, ast.Break()], node.orelse)
        yield ast.copy_location(new, node), f"for {_text(node.target)} in {_text(node.iter)}"
    elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Finding":
        yield from _findings(node)
    if (field in ("test", "ifs")) and isinstance(node, (ast.Name, ast.Call, ast.Attribute, ast.BoolOp, ast.Subscript)):
        yield ast.UnaryOp(ast.Not(), node), ""


def _findings(node: ast.Call) -> Iterator[tuple[ast.Call, str]]:
    """A `Finding` that is always or never exposed, always or never violated."""
    no = ast.Constant(False)
    for place, name in ((2, "exposure"), (3, "violation")):
        for value in (True, False):
            args, keywords = list(node.args), [k for k in node.keywords if k.arg != name]
            if len(args) > place:
                args[place] = ast.Constant(value)
            else:
                keywords.append(ast.keyword(name, ast.Constant(value)))
            given = node.args[place] if len(node.args) > place else next((k.value for k in node.keywords if k.arg == name), no)
            if isinstance(given, ast.Constant) and given.value is value:
                continue
            yield ast.Call(node.func, args, keywords), f"Finding {name} {_text(given)}"


@contextlib.contextmanager
def changed(change: Change, functions: Mapping[Place, Sequence[FunctionType]]) -> Iterator[bool]:
    """While it lasts the functions have the changed code; says whether any of them could be given it."""
    before: list[tuple[FunctionType, CodeType]] = []
    try:
        for place, live in functions.items():
            if place.file != change.place.file:
                continue
            for f in live:
                new = _counterpart(f.__code__, change)
                if new is not None and len(new.co_freevars) == len(f.__code__.co_freevars):
                    before.append((f, f.__code__))
                    f.__code__ = new
        yield bool(before)
    finally:
        for f, code in reversed(before):
            f.__code__ = code


def _counterpart(code: CodeType, change: Change) -> CodeType | None:
    alike = [c for (name, line, _), c in change.codes.items() if (name, line) == (code.co_qualname, code.co_firstlineno)]
    if len(alike) < 2:
        return alike[0] if alike else None
    # several lambdas of one line: the one that begins where this one does
    start = min((p for p in code.co_positions() if p[2] is not None), key=lambda p: (p[0] or 0, p[2] or 0), default=None)
    for c in alike:
        other = min((p for p in c.co_positions() if p[2] is not None), key=lambda p: (p[0] or 0, p[2] or 0), default=None)
        if start == other:
            return c
    return None


# -- changes of rules -------------------------------------------------------------------------------------------------


def rule_changes(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Other rules that look almost like this one, each with what is other about it."""

    def with_(**parts: Any) -> Rule:
        p = {"trigger": rule.trigger, "condition": rule.condition, "exposed": rule.exposed, **parts}
        other = Rule(rule.name, p["trigger"], p["condition"], p["exposed"], rule.dimension, rule.weight, rule.words)
        other.words = rule.words
        return other

    yield "never looked at", with_(trigger=NEVER)
    if rule.condition is not NEVER:
        yield "never holds", with_(condition=NEVER)
    yield "always holds", with_(condition=ALWAYS)
    for name in ("trigger", "condition", "exposed"):
        formula = getattr(rule, name)
        if formula is not None:
            yield from ((f"{name}: {what}", with_(**{name: new})) for what, new in _formulas(formula))
    if rule.exposed is not None:
        yield "exposed from the start", with_(exposed=ALWAYS)
        yield "never exposed", with_(exposed=NEVER)


def _formulas(f: Formula) -> Iterator[tuple[str, Formula]]:
    kind = f.settings[0] if f.settings and isinstance(f.settings[0], str) else ""
    parts = f.parts
    if kind in ("and", "or") and len(parts) == 2:
        yield f"{kind} is {'or' if kind == 'and' else 'and'}", (parts[0] | parts[1] if kind == "and" else parts[0] & parts[1])
        yield f"only {parts[0].words}", parts[0]
        yield f"only {parts[1].words}", parts[1]
    elif kind == "not":
        yield f"not dropped before {parts[0].words}", parts[0]
    elif kind in ("earlier", "once"):
        same = tuple(f.settings[1:])
        yield f"only {parts[0].words} now", parts[0]
        if same:
            yield "with any " + " and ".join(same), (earlier if kind == "earlier" else once)(parts[0])
    elif kind == "consumed":
        act, by, lapses = parts
        fits = next((s for s in f.settings[1:] if callable(s)), None)
        same = tuple(s for s in f.settings[1:] if isinstance(s, str))
        yield "one licence is good for ever", ~act | earlier(by, same=same)
        if lapses is not NEVER:
            yield "licences do not lapse", consumed(act, by, same=same, fits=fits)
        if same or fits is not None:
            yield "any licence fits", consumed(act, by, lapses=lapses)
