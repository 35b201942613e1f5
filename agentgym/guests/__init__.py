# SPDX-License-Identifier: Apache-2.0
"""Logs of other harnesses as runs of ours: read once, kept as a run record, and then shown, searched and compared like any.

Known: inspect_ai's ``.eval`` and ``.json``, results of verifiers (the columns of its first generation and the traces of its
second), SWE-agent's ``.traj``, tau-bench's and tau2's JSON, and JSONL of OpenAI-style messages.

What stands in a file is taken over as it is: messages, calls, results, rewards. Nothing is scored again, nothing is run,
and what one cannot read is named (`Imported.remarks`) and does not keep the rest from being shown.
"""

from agentgym.guests.convert import Imported, is_guest, open_guest

__all__ = ["Imported", "is_guest", "open_guest"]
