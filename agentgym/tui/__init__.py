# SPDX-License-Identifier: Apache-2.0
"""The viewer: runs, their episodes, and each episode's turns in a terminal (``agentgym view``)."""
