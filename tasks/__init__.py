# SPDX-License-Identifier: Apache-2.0
"""Environments that come with agentgym: what agents are asked to do. Imported as ``agentgym.tasks``."""

if __name__ == "tasks":
    raise ImportError("import this package as agentgym.tasks; the folder beside agentgym/ is only where its files live")
