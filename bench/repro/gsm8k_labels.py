# SPDX-License-Identifier: Apache-2.0
"""GSM8K: how often our grader agrees with the authors' own labels of 5,276 published model answers.

The answers are those of Cobbe et al., "Training verifiers to solve math word problems" (2021), four models on the test set,
each with the label ``is_correct``. Published accuracies: 21.68, 39.04, 34.72 and 56.25 %.

    python bench/repro/gsm8k_labels.py [gsm8k_model_solutions.jsonl.gz]     # else from $AGENTGYM_DATA

Prints one JSON line for each model, each row on which we disagree, and a JSON line with the counts last; exits with 1 where
anything differs from what was published.
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentgym.evaluators.math_answer import grade

PUBLISHED = {"6b_finetuning": 21.68, "6b_verification": 39.04, "175b_finetuning": 34.72, "175b_verification": 56.25}
"""Model -> per cent of 1,319 questions."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def compare(answers: Iterable[dict[str, Any]]) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Model -> (paid, labelled correct, answers); and the rows on which we disagree."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    wrong = []
    for row in answers:
        said = grade(row["gold"], row["response"])
        paid = (said[0] if isinstance(said, tuple) else said) > 0
        count = counts[row["model"]]
        for i, one in enumerate((paid, row["is_correct"], True)):
            count[i] += one
        if paid != row["is_correct"]:
            wrong.append({**row, "response": row["response"][-200:], "flags": said[1] if isinstance(said, tuple) else []})
    return dict(counts), wrong


def main() -> int:
    folder = os.environ.get("AGENTGYM_DATA", "")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "gsm8k_model_solutions.jsonl.gz")
    if not path.is_file():
        sys.exit(f"there is no {path}: name the file, or set AGENTGYM_DATA to its folder")
    begun = time.process_time()
    counts, wrong = compare(rows(path))
    ours = {model: round(100 * paid / n, 2) for model, (paid, _, n) in counts.items()}
    for model, percent in ours.items():
        print(json.dumps({"model": model, "percent": percent, "published": PUBLISHED.get(model)}))
    for row in wrong:
        print(json.dumps(row))
    total = sum(n for _, _, n in counts.values())
    cpu_s = round(time.process_time() - begun, 2)
    print(json.dumps({"agree": total - len(wrong), "answers": total, "same_percent": ours == PUBLISHED, "cpu_s": cpu_s}))
    return int(bool(wrong) or ours != PUBLISHED)


if __name__ == "__main__":
    sys.exit(main())
