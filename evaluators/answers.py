# SPDX-License-Identifier: Apache-2.0
"""Answers that are given more than once: every report of an episode, and how sure the agent was of each."""

from __future__ import annotations

from collections.abc import Callable

from agentgym.chat import ArgumentError, parse_arguments
from agentgym.evaluators.conduct import Report
from agentgym.evaluators.made import made
from agentgym.evaluators.math_answer import same_answer
from agentgym.evaluators.state import calls_of
from agentgym.scoring import Score, Verifier, VerifierContext
from agentgym.trajectory import Trajectory

Judge = Callable[[Report, VerifierContext], bool]


def reports_of(trajectory: Trajectory) -> list[Report]:
    """Every ``submit`` that was taken, in order: of environments that ask again, and of those that end with the first."""
    found = []
    for turn in trajectory.turns:
        for result, text in calls_of(turn):
            if result.name != "submit" or result.status != "ok":
                continue
            try:
                arguments = parse_arguments(text)
            except ArgumentError:
                continue
            answer, confidence, claims = arguments.get("answer", ""), arguments.get("confidence"), arguments.get("claims")
            found.append(
                Report(
                    answer if isinstance(answer, str) else "",
                    str(arguments.get("status", "done")),
                    float(confidence) if isinstance(confidence, (int, float)) else None,
                    claims if isinstance(claims, dict) else {},
                    turn.index,
                )
            )
    return found


def answers_gold(report: Report, context: VerifierContext) -> bool:
    """Whether a report is done with the gold (a number as text), worked out."""
    gold = context.task.gold
    return report.status == "done" and isinstance(gold, str) and same_answer(report.answer.strip(), gold)


def sure_and_right(right: Judge = answers_gold, *, name: str = "sure_and_right") -> Verifier:
    """Two metrics for the calibration of a run: ``right`` (of the last answer, 0 or 1) and ``confidence`` (as stated with it).

    Where none was stated there is no ``confidence``. The evidence of ``right`` lists all answers of the episode as rows
    ``{turn, confidence, right}``, for environments that ask more than once.

    Args:
        right: whether a report is right.
        name: of the verifier.
    """
    return made(name, _sure_and_right, "agentgym.evaluators.conduct", right=right)


def _sure_and_right(trajectory: Trajectory, context: VerifierContext, right: Judge) -> list[Score]:
    reports = reports_of(trajectory)
    if not reports:
        return []
    rows = [{"turn": r.turn, "confidence": r.confidence, "right": right(r, context)} for r in reports]
    scores = [Score("right", value=float(rows[-1]["right"] or 0), evidence=rows)]
    if reports[-1].confidence is not None:
        scores.append(Score("confidence", value=reports[-1].confidence))
    return scores
