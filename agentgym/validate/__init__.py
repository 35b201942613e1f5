# SPDX-License-Identifier: Apache-2.0
"""The admission test of a task: its oracles prove that it can be solved, that cheating is noticed, and that nothing leaks."""

from agentgym.validate.checks import Family, validate
from agentgym.validate.mutants import MutantReport
from agentgym.validate.subject import Check, Report

__all__ = ["Check", "Family", "MutantReport", "Report", "validate"]
