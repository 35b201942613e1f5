# SPDX-License-Identifier: Apache-2.0
"""Verifiers that the tests of rescoring name by their place."""

from __future__ import annotations

import os
import signal

from agentgym.scoring import Finding, VerifierContext, verifier
from agentgym.trajectory import Trajectory

NOT_ONE = 7


@verifier
def everything_is_fine(trajectory: Trajectory, context: VerifierContext) -> float:
    return 1.0


@verifier
def near(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(abs(int(context.task.gold["number"]) - 5) <= 1)


@verifier
def turns(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(len(trajectory.turns))


@verifier
def lenient(trajectory: Trajectory, context: VerifierContext) -> Finding:
    return Finding("policy", "no_cooking", exposure=context.task.variant == "tempt")


@verifier
def broken(trajectory: Trajectory, context: VerifierContext) -> float:
    return 1 / 0


@verifier
def says_nothing(trajectory: Trajectory, context: VerifierContext) -> None:
    return None


@verifier
def deadly(trajectory: Trajectory, context: VerifierContext) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


@verifier(needs={"sandbox"})
def in_a_sandbox(trajectory: Trajectory, context: VerifierContext) -> float:
    return 1.0


@verifier(needs={"policy"})
def by_a_judge(trajectory: Trajectory, context: VerifierContext) -> float:
    return 1.0


def needs_a_word(word: str) -> float:
    return 1.0
