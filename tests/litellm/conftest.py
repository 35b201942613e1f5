# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``litellm``, which is heavy: they have an environment of their own, and say so elsewhere."""

from __future__ import annotations

import importlib.util
import warnings

if importlib.util.find_spec("litellm") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/litellm is not run here: pip install -e '.[litellm,dev]', then pytest tests/litellm", stacklevel=1)
