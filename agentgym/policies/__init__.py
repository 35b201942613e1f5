# SPDX-License-Identifier: Apache-2.0
"""Who answers: oracles, replays, local models, and the text formats of their tool calls."""
