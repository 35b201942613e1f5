# SPDX-License-Identifier: Apache-2.0
"""Exact tokens: from the turns that were sampled to the rows that a trainer takes. numpy only."""

from agentgym.tokens.rows import Drift, Merge, Row, RowSet, linearize

__all__ = ["Drift", "Merge", "Row", "RowSet", "linearize"]
