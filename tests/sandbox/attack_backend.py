# SPDX-License-Identifier: Apache-2.0
"""The sandbox backends behind the JSON interface of the attack corpus: one request on stdin, one reply on stdout.

    echo '{"op": "run", "lang": "python", "code": "print(6*7)"}' | python tests/sandbox/attack_backend.py namespace

With ``--serve`` it reads requests and writes replies line by line until its input ends. See ``attacks/README.md``.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentgym.evaluators.code import grade_program
from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend, ExecResult, SandboxDeadError, SandboxSpec


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def told(result: ExecResult) -> dict[str, Any]:
    return {
        "status": "killed" if result.status == "interrupted" else result.status,
        "exit_code": result.exit_code,
        "stdout": encoded(result.stdout),
        "stderr": encoded(result.stderr),
        "total": result.stdout_bytes + result.stderr_bytes,
        "wall": result.wall_s,
    }


def grade(backend: Backend, code: str, tests: str, timeout_s: float) -> tuple[bool, str]:
    """By the verifier of programs: tests in one sandbox, each call in a new process of another, plain data between."""
    report = grade_program(backend, code, "solve", tests, timeout_s=timeout_s)
    return report.passed, report.reason


def answer(backend: Backend, request: dict[str, Any], spec: SandboxSpec) -> dict[str, Any]:
    operation, limit = request["op"], request.get("timeout", 5)
    if operation == "grade":
        passed, why = grade(backend, request["code"], request["tests"], limit)
        return {"passed": passed, "why": why}
    with backend.create(spec) as sandbox:
        if operation == "turns":
            replies, box = [], sandbox
            try:
                for turn in request["turns"]:
                    if turn.get("new_sandbox"):
                        box.close()
                        box = backend.create(spec)
                    replies.append(told(box.exec(turn["code"], turn["lang"], timeout_s=limit)))
            finally:
                box.close()
            text = b"".join(base64.b64decode(r["stdout"]) for r in replies)
            return {"turns": replies, "stdout": encoded(text), "status": replies[-1]["status"]}
        reply = told(sandbox.exec(request["code"], request["lang"], timeout_s=limit))
        if operation == "copyout":
            import tempfile

            try:
                with tempfile.TemporaryDirectory() as folder:
                    tree = sandbox.copy_out(folder + "/out")
                files = {path: encoded(content[: 1 << 20]) for path, content in tree.files.items()}
                reply["copy"] = {"files": files, "refused": [list(r) for r in tree.refused]}
            except SandboxDeadError as e:
                reply["copy"] = {"files": {}, "refused": [["*", str(e)]]}
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", help="namespace, bwrap or docker")
    parser.add_argument("--serve", action="store_true", help="requests and replies line by line")
    parser.add_argument("--events", action="store_true", help="observe what the code does")
    parser.add_argument("--allow", action="append", metavar="HOST:PORT", help="let it reach this")
    args = parser.parse_args()
    spec = SandboxSpec(
        events=args.events,
        protected=("**",) if args.events else (),
        network=tuple(args.allow) if args.allow else "none",
    )
    with open_backend(args.backend) as backend:
        if args.serve:
            for line in sys.stdin:
                print(json.dumps(answer(backend, json.loads(line), spec)), flush=True)
        else:
            print(json.dumps(answer(backend, json.load(sys.stdin), spec)))


if __name__ == "__main__":
    main()
