# SPDX-License-Identifier: Apache-2.0
"""Generated functions whose visible tests contradict their description, and their feasible twins."""

from __future__ import annotations
