# SPDX-License-Identifier: Apache-2.0
"""Verifiers that come with agentgym: how what an agent did is judged. Imported as ``agentgym.evaluators``."""

if __name__ == "evaluators":
    raise ImportError("import this package as agentgym.evaluators; the folder beside agentgym/ is only where its files live")
