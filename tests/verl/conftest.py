# SPDX-License-Identifier: Apache-2.0
"""Runs where verl is installed, on a CPU."""

from __future__ import annotations

import importlib.util
import os
import warnings

if importlib.util.find_spec("verl") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/verl is not run here: see tests/verl/requirements.txt", stacklevel=1)

os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true", CUDA_VISIBLE_DEVICES="")
