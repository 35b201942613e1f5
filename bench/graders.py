# SPDX-License-Identifier: Apache-2.0
"""Graders of mathematics on the same rows: what each pays wrongly, refuses wrongly and costs; ours beside three of the field.

The others are installed from the package index into a virtual environment of their own (made when it is missing). Each grader
runs in a process of its own that answers row by row; one that does not answer for ``--patience`` seconds is killed, which is
counted as a hang, and started anew. CPU time is that of the process with everything it started. A row is a JSON object with
``gold``, ``answer``, ``expected`` and, where they differ, ``gold_bare`` and ``answer_bare``; rows with ``scored: false`` are
left out.

    python bench/graders.py math_dev.jsonl                      # one JSON line for each grader
    python bench/graders.py math_dev.jsonl --graders ours math-verify --limit 200
    python bench/graders.py --hostile                           # answers that are made to be slow
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = {"math-verify": "math-verify==0.9.0", "inspect_ai": "inspect_ai==0.3.285", "verifiers": "verifiers==0.4.0"}
GRADERS = ("ours", *PEERS)

Grader = Callable[[dict[str, Any]], bool]


# -- the graders, each imported only by the process that needs it -------------------------------------------------------------


def boxed(text: str, bare: str) -> str:
    """For graders that read boxes only: a bare answer in a box, anything else as it is."""
    return text if "boxed" in text or len(bare) > 200 else rf"\boxed{{{bare}}}"


def ours() -> Grader:
    from agentgym.evaluators.math_answer import grade

    def run(row: dict[str, Any]) -> bool:
        found = grade(row["gold"], row["answer"])
        return (found[0] if isinstance(found, tuple) else found) > 0

    return run


def math_verify() -> Grader:
    from math_verify import parse, verify

    def run(row: dict[str, Any]) -> bool:
        gold = row["gold"] if "$" in row["gold"] else boxed(row["gold"], row["gold_bare"])
        return bool(verify(parse(gold), parse(row["answer"])))

    return run


def verifiers() -> Grader:
    from verifiers.v1.utils.score import verify_boxed_math_answer

    def run(row: dict[str, Any]) -> bool:
        return verify_boxed_math_answer(boxed(row["answer"], row["answer_bare"]), row["gold_bare"]) > 0

    return run


def inspect_ai() -> Grader:
    import asyncio
    from types import SimpleNamespace

    from inspect_ai.scorer import Target, math

    score = math()
    loop = asyncio.new_event_loop()

    def run(row: dict[str, Any]) -> bool:
        state = SimpleNamespace(output=SimpleNamespace(completion=row["answer"]))
        return loop.run_until_complete(score(state, Target(row["gold"]))).value == "C"

    return run


MAKE = {"ours": ours, "math-verify": math_verify, "verifiers": verifiers, "inspect_ai": inspect_ai}


def started_cpu_s() -> float:
    """CPU seconds of the processes that this one has started, with those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    left = [os.getpid()]
    while left:
        pid = left.pop()
        with contextlib.suppress(OSError):
            children = [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
            for child in children:
                total += int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
            left += children
    return total


def serve(name: str) -> None:
    """Answers rows from standard input until it ends: [paid, CPU seconds, error]."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a grader prints is no answer
    run = MAKE[name]()
    with contextlib.suppress(Exception):
        run(
            {"gold": "1", "gold_bare": "1", "answer": r"\boxed{1}", "answer_bare": "1"}
        )  # imports are not the first row's fault
    for line in sys.stdin:
        row, error, paid = json.loads(line), "", False
        theirs, own = started_cpu_s(), time.process_time()
        try:
            paid = run(row)
        except Exception as e:
            error = type(e).__name__
        own = time.process_time() - own
        print(json.dumps([paid, own + started_cpu_s() - theirs, error]), file=out, flush=True)


# -- the measurement ----------------------------------------------------------------------------------------------------------


class Served:
    """A grader's process."""

    def __init__(self, name: str, python: str, patience_s: float) -> None:
        self.command = [python, __file__, "--serve", name]
        self.patience_s = patience_s
        self.process: subprocess.Popen[str] | None = None

    def ask(self, row: dict[str, Any]) -> tuple[bool, float, str]:
        """Whether it pays, the CPU seconds it took, and what went wrong."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.ask({"gold": "1", "gold_bare": "1", "answer": r"\boxed{1}", "answer_bare": "1"})
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(row) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return False, 0.0, "died"
        if not select.select([self.process.stdout], [], [], self.patience_s)[0]:
            self.close()
            return False, self.patience_s, "hang"
        line = self.process.stdout.readline()
        if not line:
            self.close()
            return False, 0.0, "died"
        paid, used, error = json.loads(line)
        return paid, used, error

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def measure(name: str, python: str, rows: list[dict[str, Any]], patience_s: float) -> dict[str, Any]:
    """One grader on all rows."""
    served = Served(name, python, patience_s)
    cpu: list[float] = []
    errors: dict[str, int] = {}
    wrong = {True: 0, False: 0}
    for row in rows:
        paid, used, error = served.ask(row)
        cpu.append(used)
        if error:
            errors[error] = errors.get(error, 0) + 1
        if paid != row["expected"]:
            wrong[paid] += 1
    served.close()
    cpu.sort()
    right = sum(row["expected"] for row in rows)
    return {
        "bench": "graders", "grader": name, "rows": len(rows), "false_pay": wrong[True], "of_wrong": len(rows) - right,
        "false_refusal": wrong[False], "of_right": right, "cpu_p50_ms": round(1000 * cpu[len(cpu) // 2], 3),
        "cpu_p99_ms": round(1000 * cpu[int(0.99 * len(cpu))], 2), "cpu_worst_s": round(cpu[-1], 3),
        "over_1_s": sum(c > 1 for c in cpu), "hangs": errors.pop("hang", 0), "errors": errors,
    }  # fmt: skip


def hostile() -> list[dict[str, Any]]:
    """Wrong answers that are made to be slow, or to break something."""
    answers = [
        "9^{9^{9^{9}}}", "2^{2^{2^{2^{2^{2}}}}}", "((((9!)!)!)!)!", "10^{10^{10}}!", r"\binom{10^9}{5 \cdot 10^8}", "9" * 10**6,
        "{" * 20_000 + "2" + "}" * 20_000, "(" * 900 + "2" + ")" * 900, r"\sqrt{" * 300 + "2" + "}" * 300, "-" * 1500 + "2",
        r"\frac{1}{" * 100 + "2" + "}" * 100, "(x+y+z+w)^{200}", "x^{x^{x^{x^{x}}}}", r"\sin(" * 100 + "x" + ")" * 100,
        "1.0000001^{10^{9}}", r"\sum_{k=1}^{10^9} k!", r"\int_0^1 e^{-x^2} \sin(x^x) dx", r"\prod_{k=1}^{10^8} k", "|" * 1000,
        r"\begin{pmatrix}" + r"\\".join("&".join(["2"] * 60) for _ in range(60)) + r"\end{pmatrix}", "5000!-5000!+2",
        "+".join(rf"\sin({k}x)\cos({k}y)" for k in range(60)), "+".join(f"{k}^{{5000}}" for k in range(2, 200)), r"\pm 2" * 10,
        "+".join(rf"\frac{{1}}{{{k}x^{{2000}}+1}}" for k in range(2, 70)), ",".join(rf"\sqrt{{{k}}}" for k in range(60)),
    ]  # fmt: skip
    texts = [rf"\boxed{{{a}}}" for a in answers] + ["x " * 500_000, r"\boxed{2}" * 10**5, r"\boxed{" * 10**5, "$" * 20_000]
    return [{"gold": "1", "gold_bare": "1", "answer": t, "answer_bare": t, "expected": False} for t in texts]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that are scored."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        row.setdefault("gold_bare", row["gold"])
        row.setdefault("answer_bare", row["answer"])
    return [row for row in rows if row.get("scored", True)]


def peers(venv: Path) -> str:
    """The interpreter of a virtual environment that has the other graders."""
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS.values()], check=True, stdout=sys.stderr)
        (venv / "complete").touch()
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="rows, as JSON lines")
    parser.add_argument("--hostile", action="store_true", help="rows that are made to be slow")
    parser.add_argument("--graders", nargs="+", choices=GRADERS, default=GRADERS)
    parser.add_argument("--limit", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--patience", type=float, default=20.0, help="wall seconds for one row")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "agentgym-bench-graders")
    parser.add_argument("--serve", choices=GRADERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.file is None and not options.hostile:
        parser.error("name a file of rows, or --hostile")
    rows = hostile() if options.hostile else read(options.file)
    if options.limit and options.limit < len(rows):
        rows = [rows[i * len(rows) // options.limit] for i in range(options.limit)]
    for name in options.graders:
        python = sys.executable if name == "ours" else peers(options.venv)
        print(json.dumps(measure(name, python, rows, options.patience)), flush=True)


if __name__ == "__main__":
    main()
