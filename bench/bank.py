# SPDX-License-Identifier: Apache-2.0
"""The environment that benchmarks play: each turn is one validated tool call that changes the state."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from agentgym import Task, ToolEnv, tool, verifier


class Account(msgspec.Struct):
    """An account with a balance and what was done to it."""

    owner: str
    balance: int = 0
    log: list[str] = []


@verifier
def balance_right(trajectory: Any, context: Any) -> bool:
    """Whether the balance is what was asked for."""
    return trajectory.state_after["balance"] == context.task.gold


class Bank(ToolEnv):
    """A bank account to which money is to be added step by step."""

    family = "bench.bank"
    parameters = {"turns": 5}
    gold = [balance_right]
    max_turns = 1000
    turns: int

    def new_task(self, rng: np.random.Generator) -> Task:
        """An account; the wanted balance is what the script will have added."""
        number = int(rng.integers(1_000_000))
        opening = f"Add 1 to account {number} until told to stop, then submit."
        return Task(opening=opening, state=Account(f"a{number}"), gold=self.turns - 1)

    @tool(writes=True)
    def deposit(self, account: str, cents: int) -> str:
        """Adds money to the account.

        Args:
            account: its number
            cents: how much
        """
        self.state.balance += cents
        self.state.log.append(f"+{cents}")
        return f"balance {self.state.balance}"
