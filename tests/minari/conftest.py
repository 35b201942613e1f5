# SPDX-License-Identifier: Apache-2.0
"""These tests need the extra ``minari``; where it is missing, that is said."""

from __future__ import annotations

import importlib.util
import warnings

if importlib.util.find_spec("minari") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/minari is not run here: pip install -e '.[minari,dev]', then pytest tests/minari", stacklevel=1)
