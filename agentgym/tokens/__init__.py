# SPDX-License-Identifier: Apache-2.0
"""Exact tokens: from messages to prompts, from the turns that were sampled to the rows that a trainer takes."""

from agentgym.tokens.renderer import Parsed, Renderer, TextTokenizer, renderer_for
from agentgym.tokens.rows import Drift, Merge, Row, RowSet, linearize

__all__ = ["Drift", "Merge", "Parsed", "Renderer", "Row", "RowSet", "TextTokenizer", "linearize", "renderer_for"]
