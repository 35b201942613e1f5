# SPDX-License-Identifier: Apache-2.0
"""Suites that come with agentgym: named lists of tasks and trials, as TOML. Found as ``agentgym.suites``."""
