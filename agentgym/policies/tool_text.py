# SPDX-License-Identifier: Apache-2.0
"""Where `agentgym.tool_text` was before renderers needed it too."""

from agentgym.tool_text import MAX_DEPTH, ToolFormat, parse_tool_calls, render_tools, to_text_conversation

__all__ = ["MAX_DEPTH", "ToolFormat", "parse_tool_calls", "render_tools", "to_text_conversation"]
