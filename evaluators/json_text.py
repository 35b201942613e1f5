# SPDX-License-Identifier: Apache-2.0
"""JSON as a model writes it: read strictly, and held against a schema without fetching anything or hanging."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from agentgym.chat import clean_text
from agentgym.errors import DefinitionError

MOST_LEVELS = 64
"""Of nesting; Python's parser and the validator recurse."""


class NotJSON(Exception):
    """A text that is not one JSON value; the text says why."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise NotJSON(f"the key {twice[:80]!r} is given twice")
    return result


def _constant(name: str) -> NoReturn:
    raise NotJSON(f"{name} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotJSON(f"{text[:40]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > 400:
        raise NotJSON("a number has more than 400 digits")
    return int(text)


def read_json(text: str) -> Any:
    """The value that a text is.

    Raises:
        NotJSON: it is none, something stands around it, a key is given twice, a number is not finite, or it nests too deep.
    """
    depth = deepest = 0
    in_string = escaped = False
    for c in text:
        if in_string:
            in_string, escaped = (escaped or c != '"'), c == "\\" and not escaped
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    if deepest > MOST_LEVELS:
        raise NotJSON(f"it nests deeper than {MOST_LEVELS} levels")
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as e:
        raise NotJSON(f"{e.msg} at character {e.pos}") from None
    return value


def plain_schema(schema: Mapping[str, Any] | bool) -> str:
    """A schema as JSON text, checked.

    Raises:
        DefinitionError: it is none, a pattern in it is none of RE2's, or it refers to what is elsewhere.
    """
    try:
        text = json.dumps(schema, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise DefinitionError(f"a schema is plain values: {e}") from e
    checker = _checker(text)
    import jsonschema

    try:
        checker.check_schema(checker.schema)
        for _ in checker.iter_errors({}):  # finds references that lead nowhere, where they are at the top
            break
    except jsonschema.SchemaError as e:
        raise DefinitionError(f"this is no JSON schema: {e.message[:300]}") from e
    except Exception as e:
        raise DefinitionError(f"this JSON schema cannot be used: {str(e)[:300]}") from e
    _walk(checker.schema)
    return text


def _walk(schema: Any) -> None:
    """Checks patterns and references, wherever they are."""
    from agentgym.evaluators.text import compiled

    if isinstance(schema, list):
        for item in schema:
            _walk(item)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key == "pattern" and isinstance(value, str):
            compiled(value)
        elif key == "patternProperties" and isinstance(value, dict):
            for p in value:
                compiled(p)
        elif key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            raise DefinitionError(f"the schema refers to {value!r}: write what it says into `$defs`, nothing is fetched")
        _walk(value)


@functools.lru_cache(maxsize=64)
def _checker(text: str) -> Any:
    """The validator of a schema. Patterns and the search for equal items take linear time."""
    try:
        import jsonschema
        import referencing
    except ImportError as e:
        raise DefinitionError("JSON schemas need jsonschema: pip install 'agentgym-harness[text]'") from e
    schema = json.loads(text)
    base = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    checker = jsonschema.validators.extend(
        base, {"pattern": _pattern, "patternProperties": _pattern_properties, "uniqueItems": _unique}
    )
    return checker(schema, registry=referencing.Registry())


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    from agentgym.evaluators.text import compiled

    return compiled(pattern)


def _error(message: str) -> Any:
    import jsonschema

    return jsonschema.ValidationError(message)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, str) and _compiled(pattern).search(clean_text(value)) is None:
        yield _error(f"{value[:80]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for key, v in value.items():
                if _compiled(pattern).search(clean_text(key)) is not None:
                    yield from validator.descend(v, inner, path=key, schema_path=pattern)


def _unique(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[Any]:
    if wanted and isinstance(value, list) and len({json.dumps(_same(v), sort_keys=True) for v in value}) < len(value):
        yield _error("an item is there twice")


def _same(value: Any) -> Any:
    """Equal for what JSON Schema takes for equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_same(v) for v in value]
    return {k: _same(v) for k, v in value.items()} if isinstance(value, dict) else value


def first_error(schema: str, value: Any) -> str:
    """What a schema has against a value, with where it is; empty where it has nothing."""
    for error in _checker(schema).iter_errors(value):
        where = "/".join(map(str, error.absolute_path))
        return f"at /{where}: {error.message}"[:500]
    return ""
