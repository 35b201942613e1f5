# SPDX-License-Identifier: Apache-2.0
"""``import agentgym`` is light, and the names it offers are there."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import agentgym

HEAVY = set(
    """
    torch transformers litellm openai anthropic docker ray pettingzoo datasets pandas scipy matplotlib
    textual rich xllamacpp sympy mpmath zstandard sqlite3 asyncio http.client urllib.request multiprocessing
    """.split()  # noqa: SIM905
)


def test_importing_agentgym_imports_nothing_heavy_and_no_content(fresh_python: Any) -> None:
    bare = set(fresh_python("import sys, gymnasium, numpy, msgspec; print(*sys.modules)").split())
    loaded = set(fresh_python("import sys, agentgym; print(*sys.modules)").split())
    added = loaded - bare
    assert not [m for m in HEAVY if m in added]
    content = (
        "agentgym.tasks",
        "agentgym.evaluators",
        "agentgym.policies",
        "agentgym.records",
        "agentgym.rollout",
        "agentgym.cli",
    )
    assert not [m for m in loaded if m.startswith(content)]


@pytest.mark.parametrize("name", agentgym.__all__)
def test_every_public_name_is_there_and_named_as_it_should_be(name: str) -> None:
    value = getattr(agentgym, name)
    assert value is not None
    assert name in dir(agentgym)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agentgym.nothing


def test_type_checkers_see_exactly_the_names_of_the_table() -> None:
    tree = ast.parse(inspect.getsource(agentgym))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = set()
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        for alias in line.names:
            assert alias.asname == alias.name, "`import X as X` is what makes a name public to type checkers"
            seen.add((line.module, alias.name))
    assert seen == {(module, name) for module, names in agentgym._HOMES.items() for name in names}
    assert sorted(agentgym.__all__) == sorted(["__version__", *(name for _, name in seen)])


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert agentgym.__version__ == version("agentgym-harness")


def test_parts_that_the_readme_names_are_there_after_import_agentgym(fresh_python: Callable[..., str]) -> None:
    code = (
        "import agentgym, sys\n"
        "assert 'agentgym.training' not in sys.modules\n"
        "named = agentgym.training.trl.kit, agentgym.tokens.linearize, agentgym.wrappers.NoiseReward\n"
        "print(*(n.__name__ for n in named))\n"
        "assert not {'torch', 'trl', 'datasets'} & set(sys.modules)"
    )
    assert fresh_python(code) == "kit linearize NoiseReward\n"
