# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``examples``: agent frameworks, which have an environment of their own, and say so elsewhere."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

GUARD = Path(__file__).parent / "guard"

collect_ignore_glob = ["guard/*"]  # to import it is to be watched, and doctests are looked for in whatever can be imported

_NEEDED = ("openai", "anthropic", "smolagents", "langgraph", "langchain_openai")
if any(importlib.util.find_spec(name) is None for name in _NEEDED):
    collect_ignore_glob += ["test_*"]
    warnings.warn("tests/examples is not run here: pip install -e '.[examples,dev]', then pytest tests/examples", stacklevel=1)


@pytest.fixture(scope="session")
def guard() -> ModuleType:
    """Watches this process from the first test on."""
    spec = importlib.util.spec_from_file_location("agentgym_tests_guard", GUARD / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def contacts(guard: ModuleType) -> Iterator[list[str]]:
    """What anybody in this process wanted of another machine: nothing, unless the test expects it and clears the list."""
    guard.CONTACTS.clear()
    yield guard.CONTACTS
    assert guard.CONTACTS == []
