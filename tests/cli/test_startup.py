# SPDX-License-Identifier: Apache-2.0
"""What a command does not need is not imported: that is what makes it start at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SLOW = {"numpy", "gymnasium", "rich", "textual", "msgspec", "zstandard", "sqlite3", "asyncio", "xllamacpp", "sympy", "mpmath"}


def test_help_imports_nothing_that_costs(fresh_python: Callable[..., str]) -> None:
    code = """
import sys
from agentgym.cli.main import main
try:
    main(["eval", "--help"])
except SystemExit:
    print("\\n" + " ".join(sys.modules))
"""
    assert SLOW.isdisjoint(fresh_python(code).splitlines()[-1].split())


@pytest.mark.parametrize(
    "imports",
    [
        "import agentgym, gymnasium",
        "import gymnasium, agentgym",
        "import agentgym.env, gymnasium",
        "import agentgym.registry, gymnasium",
        "from agentgym import Run; import gymnasium",
        "import agentgym, importlib; importlib.reload(agentgym); import gymnasium",
    ],
)
def test_gymnasium_knows_the_environments_whichever_is_imported_first(fresh_python: Callable[..., str], imports: str) -> None:
    code = f"""
{imports}
import sys
env = gymnasium.make("agentgym/math.add-v1")
env.reset(seed=1)
print(type(env.unwrapped).__name__, sum(type(f).__name__ == "_Registration" for f in sys.meta_path))
"""
    # and no finder of ours is left once it has done its work
    assert fresh_python(code).split() == ["Add", "0"]


def test_importing_agentgym_alone_does_not_import_gymnasium(fresh_python: Callable[..., str]) -> None:
    code = "import sys, agentgym; print([name for name in ('gymnasium', 'numpy') if name in sys.modules])"
    assert fresh_python(code) == "[]\n"


def test_gymnasium_is_found_and_loaded_as_without_us(fresh_python: Callable[..., str]) -> None:
    code = """
import importlib.util, importlib.resources, pickle, sys
{}
import gymnasium
spec = importlib.util.find_spec("gymnasium")
print(spec.origin, spec.name, type(spec.loader).__name__, importlib.resources.files("gymnasium"), gymnasium.__version__)
"""
    assert fresh_python(code.format("import agentgym")) == fresh_python(code.format(""))


def test_where_gymnasium_is_missing_its_import_fails_as_ever(fresh_python: Callable[..., str]) -> None:
    code = """
import sys, agentgym
sys.path[:] = [p for p in sys.path if "site-packages" not in p]
sys.meta_path[:] = [f for f in sys.meta_path if "Editable" not in str(f)]
try:
    import gymnasium
except ModuleNotFoundError as e:
    print(e)
"""
    assert fresh_python(code) == "No module named 'gymnasium'\n"
