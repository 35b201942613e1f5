# SPDX-License-Identifier: Apache-2.0
"""Test runs of deepeval (``DEEPEVAL_RESULTS_FOLDER``, ``.deepeval/.latest_test_run.json``) as rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from agentgym.errors import DataError
from agentgym.gate.rows import OK, UNSCORABLE, Origin, Rows, columns
from agentgym.gate.sources import cell, counted


def deepeval_rows(path: Path, document: dict[str, Any]) -> Rows:
    """The test cases, one row each; cases of one name are trials of one task. A metric that raised has no value.

    Raises:
        DataError: it holds no test case.
    """
    cases = [*(document.get("testCases") or []), *(document.get("conversationalTestCases") or [])]
    if not cases:
        raise DataError(f"{path} holds no test cases")
    tasks, status, scores, clusters, costs, tags = [], [], [], [], [], []
    for i, case in enumerate(cases):
        tasks.append(str(case.get("name") or f"case {i}"))
        values: dict[str, float] = {}
        cost = next(cell(case.get("evaluationCost")), 0.0)
        for metric in case.get("metricsData") or []:
            found = () if metric.get("error") else tuple(cell(metric.get("score")))
            values |= {str(metric.get("name")): v for v in found}
        # an agent's answer that nobody could judge is not an answer worth nothing
        status.append(OK if values else UNSCORABLE)
        scores.append(values)
        metadata = case.get("metadata") or case.get("additionalMetadata") or {}
        clusters.append(str(metadata.get("cluster") or "") if isinstance(metadata, dict) else "")
        costs.append(cost)
        tags.append(" ".join(sorted(str(t).replace(" ", "_") for t in case.get("tags") or [])))
    named = [m.get("name") for c in cases for m in c.get("metricsData") or []]
    names = dict.fromkeys(str(n) for n in named)
    if not names:
        raise DataError(f"{path}: no test case has metricsData: nothing was measured")
    places = [f"{path}, case {i}" for i in range(len(cases))]
    return columns(
        Origin(name=str(path), kind="deepeval", harness="deepeval"),
        task=tasks,
        trial=counted(tasks),
        metrics={n: [s.get(n, math.nan) for s in scores] for n in names},
        places=places,
        cluster=clusters,
        tags=tags,
        status=status,
        cost_usd=costs,
        address=places,
        source=f"{path}:1",
    )
