# SPDX-License-Identifier: Apache-2.0
"""The scenario that the documentation shows, as a module: what the tests of the admission test begin with."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from types import ModuleType

from agentgym import registry

PAGE = Path(__file__).parents[2] / "docs/write-a-scenario.md"


def code() -> str:
    """The scenario as it stands in the page."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]


@functools.cache
def scenario() -> ModuleType:
    """The page's scenario, imported from a file of its own as a user's is."""
    folder = Path(tempfile.mkdtemp(prefix="agentgym-page-"))
    file = folder / "my_scenario.py"
    file.write_text(code(), encoding="utf-8")
    return registry.load_module(str(file))
