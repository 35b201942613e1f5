# SPDX-License-Identifier: Apache-2.0
"""``python -m agentgym``: the same as the ``agentgym`` command."""

import sys

from agentgym.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
