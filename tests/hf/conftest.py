# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``hf``, which is heavy: they have an environment of their own, and say so elsewhere."""

from __future__ import annotations

import importlib.util
import warnings

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/hf is not run here: pip install -e '.[hf,dev]', then pytest tests/hf", stacklevel=1)
