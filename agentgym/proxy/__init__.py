# SPDX-License-Identifier: Apache-2.0
"""The recording proxy: any agent program plays an environment, and the exact tokens of its model are kept.

    with agentgym.proxy.record("tools.retail", seed=3, model="local:smollm2") as episode:
        subprocess.run(["my-agent"], env=episode.environ)
    episode.result

``agentgym proxy TASK --model MODEL -- my-agent`` does it for many tasks.
"""

from __future__ import annotations

from agentgym.proxy.recording import Recording as Recording
from agentgym.proxy.recording import record as record
