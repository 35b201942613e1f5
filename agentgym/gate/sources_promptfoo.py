# SPDX-License-Identifier: Apache-2.0
"""Results of promptfoo (``promptfoo eval -o results.json``) as rows."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec

from agentgym.errors import DataError
from agentgym.gate.rows import INFRASTRUCTURE, OK, UNSCORABLE, Origin, Rows, columns
from agentgym.gate.sources import cell, counted

_ERROR = 2
"""``failureReason`` of results that are neither a pass nor a failed assertion: the provider failed."""


def promptfoo_rows(path: Path, document: dict[str, Any]) -> Rows:
    """The results, one row each; what ``--repeat`` made of one test are its trials.

    A task is a test: its description, else its variables. Where a file compares several prompts or providers, their
    place in the file is part of the task, so that a changed prompt is compared with what stood there before.

    Raises:
        DataError: it is not in that format.
    """
    results = document["results"]["results"]
    if not isinstance(results, list) or not results:
        raise DataError(f"{path} holds no results: `promptfoo eval -o {path.name}` writes them")
    providers = list(dict.fromkeys(_provider(r) for r in results))
    prompts = sorted({r.get("promptIdx", 0) for r in results})
    tasks, status, scores, clusters, costs, tokens, cached = [], [], [], [], [], [], []
    for i, result in enumerate(results):
        test = result.get("testCase")
        if not isinstance(test, dict):
            raise DataError(f"{path}, result {i}: there is no testCase; promptfoo 0.100 and later write it")
        name = _test_name(test)
        if len(prompts) > 1:
            name += f" [prompt {result.get('promptIdx', 0) + 1}]"
        if len(providers) > 1:
            name += f" [provider {providers.index(_provider(result)) + 1}]"
        tasks.append(name)
        values: dict[str, float] = {}
        for metric, value in (("score", result.get("score")), *(result.get("namedScores") or {}).items()):
            for number in cell(value):
                values[metric] = number
        state = _status(result, values)
        status.append(state)
        scores.append(values if state == OK else {})
        metadata = test.get("metadata") or {}
        clusters.append(str(metadata.get("cluster") or "") or _test_name(test))
        costs.append(next(cell(result.get("cost")), 0.0))
        tokens.append(int(next(cell((result.get("tokenUsage") or {}).get("total")), 0.0)))
        cached.append((result.get("response") or {}).get("cached") is True)
    names = dict.fromkeys(["score", *(n for s in scores for n in s)])
    places = [f"{path}, result {i}" for i in range(len(results))]
    version = (document.get("metadata") or {}).get("promptfooVersion", "")
    return columns(
        Origin(
            name=str(path),
            kind="promptfoo",
            models=tuple(providers),
            harness=f"promptfoo {version}".strip(),
            created=str(document["results"].get("timestamp") or ""),
        ),
        task=tasks,
        trial=counted(tasks),
        metrics={n: [s.get(n, math.nan) for s in scores] for n in names},
        places=places,
        family=str((document.get("config") or {}).get("description") or ""),
        cluster=clusters,
        status=status,
        cached=cached,
        tokens=tokens,
        cost_usd=costs,
        fingerprint=[_provider(r) for r in results],
        address=places,
        source=f"{path}:1",
    )


def _provider(result: dict[str, Any]) -> str:
    provider = result.get("provider")
    return str(provider.get("label") or provider.get("id") or "?") if isinstance(provider, dict) else str(provider or "?")


def _test_name(test: dict[str, Any]) -> str:
    if test.get("description"):
        return str(test["description"])
    given = msgspec.json.encode(test.get("vars") or {}, order="deterministic").decode()
    return given if len(given) <= 80 else f"{given[:64]}... {hashlib.sha256(given.encode()).hexdigest()[:8]}"


def _status(result: dict[str, Any], values: dict[str, float]) -> int:
    if result.get("failureReason") == _ERROR:
        return INFRASTRUCTURE
    graded = result.get("gradingResult") or {}
    for part in graded.get("componentResults") or []:
        # an assertion whose own code fails says nothing of the answer, though promptfoo counts it as a fail
        if isinstance(part, dict) and str(part.get("reason") or "").startswith(
            ("Custom function threw", "Python code execution")
        ):
            return UNSCORABLE
    return OK if "score" in values else UNSCORABLE
