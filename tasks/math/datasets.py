# SPDX-License-Identifier: Apache-2.0
"""Data sets of mathematics: GSM8K and MATH, from files in their own formats."""

from __future__ import annotations

import re
from typing import Any

from agentgym.chat import assistant
from agentgym.dataenv import DataEnv, field
from agentgym.env import Plan, Task
from agentgym.errors import DataError
from agentgym.evaluators.math_answer import has_format, is_missing, last_boxed, math_answer, number

_LEVEL = re.compile(r"(?:Level )?([0-9]+)")


class _Answered(DataEnv):
    """A question in, a last line ``Answer: X`` out."""

    gold = [math_answer()]
    metrics = [has_format("answer_line")]

    def honest(self, task: Task) -> Plan:
        """Gives the gold in the declared format."""
        yield assistant(f"Answer: {task.gold}")


class GSM8K(_Answered):
    """Grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168).

    Rows ``{"question": ..., "answer": "... #### 1,234"}``; a row's id is its place, counted from 0.
    """

    family = "gsm8k"
    standard_name = "gsm8k_test.jsonl"

    def row_task(self, row: dict[str, Any]) -> Task:
        """The question; the gold is what follows the last ``####``, without thousands separators."""
        question, answer = field(row, "question", str), field(row, "answer", str)
        _, marker, final = answer.rpartition("####")
        final = final.strip().replace(",", "")
        if not marker or number(final) is None:
            raise DataError("the field 'answer' does not end with '#### ' and a number")
        opening = (
            f"{question.strip()}\n\nThink step by step. End with a last line of the form `Answer: X`, where X is the number."
        )
        return Task(opening=opening, gold=final)


class MATH500(_Answered):
    """Competition problems (Hendrycks et al. 2021, arXiv 2103.03874), by default the 500 of Lightman et al. 2023.

    Rows ``{"problem": ..., "answer": ..., "unique_id": ...}``, or the classic ``{"problem": ..., "solution": ...}``, whose
    gold is the last box of the solution. A row's id is its ``unique_id`` as it stands (``test/algebra/2584.json``: the
    ending keeps it apart from an address's trial number), else its place.
    """

    family = "math500"
    standard_name = "math500.jsonl"

    def row_id(self, row: dict[str, Any], index: int) -> str:
        """The ``unique_id``, else the place."""
        return field(row, "unique_id", str) if "unique_id" in row else str(index)

    def row_task(self, row: dict[str, Any]) -> Task:
        """The problem; tagged with its subject and level where the row tells them."""
        problem = field(row, "problem", str)
        if "answer" in row:
            gold = field(row, "answer", str).strip()
        else:
            gold = (last_boxed(field(row, "solution", str)) or "").strip()
            if not gold:
                raise DataError("there is no field 'answer', and the field 'solution' holds no \\boxed{...}")
        if is_missing(gold):
            raise DataError(f"the answer {gold!r} is no answer: the row is broken")
        tags = []
        subject = row.get("subject", row.get("type"))
        if isinstance(subject, str) and subject:
            tags.append(f"subject:{subject}")
        level = _LEVEL.fullmatch(str(row.get("level", "")))
        if level is not None:
            tags.append(f"level:{level[1]}")
        opening = (
            f"{problem.strip()}\n\nThink step by step. End with a last line of the form `Answer: X`, where X is the answer."
        )
        return Task(opening=opening, gold=gold, tags=tuple(tags))
