# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``mcp``: they have an environment of their own, and say so elsewhere."""

from __future__ import annotations

import importlib.util
import warnings

if importlib.util.find_spec("mcp") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/mcp is not run here: pip install -e '.[mcp,dev]', then pytest tests/mcp", stacklevel=1)
