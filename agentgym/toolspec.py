# SPDX-License-Identifier: Apache-2.0
"""Tools: a JSON schema from a function's signature and Google docstring, and strict validation of what agents pass.

The types do the checking (msgspec, strict mode): no unknown keys, no ``"3"`` for 3, no ``True`` for 1, no 3.0 for an
integer. Bounds are written as ``Annotated[int, msgspec.Meta(ge=1)]``.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, overload

import msgspec
import numpy as np

from agentgym.chat import ArgumentError, ToolCall, parse_arguments
from agentgym.errors import DefinitionError


class ToolSpec(msgspec.Struct, frozen=True):
    """What a policy is told about one tool."""

    name: str
    description: str
    """The docstring's text before ``Args:``."""
    parameters: dict[str, Any]
    """JSON schema (2020-12) of the argument object."""

    def to_openai(self) -> dict[str, Any]:
        """The tool as an entry of OpenAI's ``tools`` list."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


_SCALARS = (str, int, float, bool)


class ToolFunction:
    """A plain function or method, ready to be offered to an agent.

    Args:
        function: has type hints on every parameter and a Google-style docstring that describes each.
        writes: whether it may change the task's state; only then is the state compared before and after.
    """

    def __init__(self, function: Callable[..., Any], *, writes: bool = False) -> None:
        self.function = function
        self.name = function.__name__
        self.writes = writes
        self._spec: ToolSpec | None = None
        self._arguments: type[msgspec.Struct] | None = None
        self._decode: Callable[[str], msgspec.Struct] | None = None
        """Reads and checks arguments at once; only where every parameter is a plain scalar."""
        self._required = 0
        if not (function.__doc__ or "").strip():
            raise DefinitionError(f"tool {self.name!r} has no docstring: the agent is told what it does from there")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise DefinitionError(f"tool {self.name!r} must be an ordinary function that returns, not async or a generator")

    @property
    def spec(self) -> ToolSpec:
        """Schema and description; built on first use, so that hints may name types defined later."""
        if self._spec is None:
            self._build()
        assert self._spec is not None
        return self._spec

    @property
    def arguments_type(self) -> type[msgspec.Struct]:
        """A struct type with one field a parameter; what arguments are converted to."""
        if self._arguments is None:
            self._build()
        assert self._arguments is not None
        return self._arguments

    def __getstate__(self) -> dict[str, Any]:
        # the arguments type is made at run time, so pickle cannot find it by name; it is built again on first use
        return {**self.__dict__, "_arguments": None, "_spec": None, "_decode": None}

    def _build(self) -> None:
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except NameError as e:
            raise DefinitionError(f"tool {self.name!r}: a type hint cannot be resolved: {e}") from e
        text, described = parse_google_docstring(self.function.__doc__ or "")
        fields: list[Any] = []
        for name, parameter in inspect.signature(self.function).parameters.items():
            if name == "self":
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError(f"tool {self.name!r}: parameter {name!r} must be an ordinary named parameter")
            if name not in hints:
                raise DefinitionError(f"tool {self.name!r}: parameter {name!r} has no type hint")
            hint = hints[name]
            if name in described:
                hint = typing.Annotated[hint, msgspec.Meta(description=described.pop(name))]
            if parameter.default is parameter.empty:
                fields.append((name, hint))
            elif isinstance(parameter.default, (list, dict, set)):
                raise DefinitionError(f"tool {self.name!r}: parameter {name!r} has a mutable default")
            else:
                fields.append((name, hint, parameter.default))
        if described:
            raise DefinitionError(f"tool {self.name!r}: its docstring describes {sorted(described)}, which it does not take")
        arguments = msgspec.defstruct(f"{self.name}_arguments", fields, forbid_unknown_fields=True, kw_only=True)
        if all(hints[field[0]] in _SCALARS for field in fields):
            self._decode = msgspec.json.Decoder(arguments).decode
            self._required = sum(len(field) == 2 for field in fields)
        _, components = msgspec.json.schema_components([arguments])
        schema = components.pop(arguments.__name__)
        schema.pop("title", None)
        if components:
            schema["$defs"] = components
        self._arguments = arguments
        self._spec = ToolSpec(self.name, text, schema)

    def convert(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` checked and converted, defaults filled in.

        Raises:
            ArgumentError: an unknown or missing key or a wrong type, named.
        """
        try:
            values = msgspec.convert(arguments, self._arguments or self.arguments_type, strict=True)
        except msgspec.ValidationError as e:
            text = str(e)  # may quote a key or value of any length
            raise ArgumentError(text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]}") from None
        return msgspec.structs.asdict(values)

    def parse(self, call: ToolCall) -> dict[str, Any]:
        """The call's argument text, parsed and checked.

        Raises:
            ArgumentError: see `parse_arguments` and `convert`.
        """
        text = call.arguments
        if self._decode is not None and len(text) <= 4096 and text.isascii():
            # The usual call, read in one go. The decoder keeps the last of equal keys without a word; each key needs a
            # colon, so none was dropped where there are as many as required keys, or no more than one.
            colons = text.count(":")
            if colons == self._required or colons == 1:
                try:
                    values = msgspec.structs.asdict(self._decode(text))
                except (msgspec.MsgspecError, UnicodeError):
                    pass  # the way for all cases says what is wrong
                else:
                    for v in values.values():
                        if type(v) is int and not -(1 << 63) <= v < 1 << 64:
                            break
                    else:
                        return values
        return self.convert(parse_arguments(text))


@overload
def tool(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def tool(*, writes: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def tool(function: Callable[..., Any] | None = None, /, *, writes: bool = False) -> Any:
    """Marks a method of a `ToolEnv` as a tool that the agent may call.

    The method stays an ordinary method. Its name, type hints and Google-style docstring become the schema.

    Args:
        function: the method, when the decorator is used bare.
        writes: it may change the task's state; the change is then recorded call by call.
    """

    def mark(f: Callable[..., Any]) -> Callable[..., Any]:
        f.__agentgym_tool__ = ToolFunction(f, writes=writes)  # type: ignore[attr-defined]
        return f

    return mark if function is None else mark(function)


def tools_of(cls: type) -> dict[str, ToolFunction]:
    """The tools of a class, inherited ones first, in the order they were written."""
    found: dict[str, ToolFunction] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            marked = getattr(value, "__agentgym_tool__", None)
            if marked is not None:
                if marked.name != name:
                    raise DefinitionError(f"{base.__name__}.{name}: the tool's function has another name, {marked.name!r}")
                found[name] = marked
            elif name in found:  # a subclass took the tool away by overriding it with something unmarked
                del found[name]
    return found


def parse_google_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """The text before ``Args:`` and the described parameters of a Google-style docstring.

    >>> parse_google_docstring('''Adds.
    ...
    ...     Args:
    ...         a: first
    ...             number
    ...         b (int): second
    ...     Returns: the sum''')
    ('Adds.', {'a': 'first number', 'b': 'second'})
    """
    lines = inspect.cleandoc(doc).splitlines()
    starts = [i for i, line in enumerate(lines) if re.fullmatch(r"(Args|Arguments|Parameters):\s*", line)]
    sections = [i for i, line in enumerate(lines) if re.match(r"(Returns|Raises|Yields|Example|Examples|Note):", line)]
    head = min([*starts, *sections], default=len(lines))
    text = "\n".join(lines[:head]).strip()
    described: dict[str, str] = {}
    if starts:
        block = []
        for line in lines[starts[0] + 1 :]:
            if line and not line[0].isspace():
                break
            block.append(line)
        indent = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
        name = ""
        for line in block:
            body = line[indent:]
            if body and not body[0].isspace():
                match = re.match(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)", body)
                if match is None:
                    raise DefinitionError(f"docstring line {body!r} under Args: is not 'name: description'")
                name = match[1]
                described[name] = match[2].strip()
            elif body.strip() and name:
                described[name] = f"{described[name]} {body.strip()}".strip()
    return text, described


def sample_arguments(schema: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A random argument object that a schema made by `ToolFunction` accepts; optional keys are left out half the time.

    Knows types, choices and bounds; not ``pattern``, and of the text formats (dates, UUIDs) none.
    """
    definitions = schema.get("$defs", {})
    value = _sample(schema, definitions, rng, depth=0)
    assert isinstance(value, dict)
    return value


_WORDS = ("alpha", "blue", "count", "delta", "east", "first", "green", "house", "item", "joy", "key", "last")


def _bounds(schema: dict[str, Any], width: Any, open_by: Any) -> tuple[Any, Any]:
    """The least and largest number to draw; a side without a bound lies ``width`` beyond 0 and the other side."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + open_by
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - open_by
    if low is None:
        low = min(0, 0 if high is None else high) - width
    if high is None:
        high = max(0, low) + width
    return low, high


def _sample(schema: dict[str, Any], definitions: dict[str, Any], rng: np.random.Generator, depth: int) -> Any:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    if "enum" in schema:
        return schema["enum"][int(rng.integers(len(schema["enum"])))]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        choices = schema["anyOf"]
        if depth >= 4:  # a type that holds itself must come to an end
            choices = [c for c in choices if c.get("type") == "null"] or choices
        return _sample(choices[int(rng.integers(len(choices)))], definitions, rng, depth)
    kind = schema.get("type")
    if kind == "object":
        if "properties" in schema or "additionalProperties" not in schema or schema["additionalProperties"] is False:
            required = set(schema.get("required", ()))
            return {
                key: _sample(sub, definitions, rng, depth + 1)
                for key, sub in schema.get("properties", {}).items()
                if key in required or rng.integers(2)
            }
        sub = schema["additionalProperties"]
        sub = sub if isinstance(sub, dict) else {}
        return {_WORDS[int(rng.integers(len(_WORDS)))]: _sample(sub, definitions, rng, depth + 1) for _ in range(2)}
    if kind == "array":
        if "prefixItems" in schema:
            return [_sample(sub, definitions, rng, depth + 1) for sub in schema["prefixItems"]]
        least = schema.get("minItems", 0)
        most = least if depth >= 4 else min(schema.get("maxItems", least + 3), least + 3)
        length = int(rng.integers(least, most + 1))
        return [_sample(schema.get("items", {}), definitions, rng, depth + 1) for _ in range(length)]
    if kind == "integer":
        low, high = _bounds(schema, 100, 1)
        step = schema.get("multipleOf", 1)
        return int(rng.integers(-(-low // step), high // step + 1)) * step
    if kind == "number":
        low, high = _bounds(schema, 100.0, 0.0)
        return float(low + (high - low) * (0.01 + 0.98 * rng.random()))
    if kind == "boolean":
        return bool(rng.integers(2))
    if kind == "null":
        return None
    text = " ".join(_WORDS[int(i)] for i in rng.integers(len(_WORDS), size=int(rng.integers(1, 4))))
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", 1 << 16)]
