# SPDX-License-Identifier: Apache-2.0
"""``python -m agentgym``: the same as the ``agentgym`` command."""

from agentgym.cli.main import entry

if __name__ == "__main__":
    entry()
