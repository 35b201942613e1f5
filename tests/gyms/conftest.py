# SPDX-License-Identifier: Apache-2.0
"""Runs where skyrl-gym and verifiers are installed; neither needs torch."""

from __future__ import annotations

import importlib.util
import warnings

if importlib.util.find_spec("verifiers") is None or importlib.util.find_spec("skyrl_gym") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/gyms is not run here: pip install skyrl-gym==0.4.0 verifiers==0.4.0", stacklevel=1)
